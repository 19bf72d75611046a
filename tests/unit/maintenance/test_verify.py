"""Every byte is protected by a record, and what is wrong is named by its key."""

from __future__ import annotations

import hashlib
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.cluster import open_executor
from splicestore.errors import StoreNotFoundError
from splicestore.maintenance import list_generations, verify
from splicestore.maintenance.hashing import ExpectedObject, check_object, cut_tasks, stored_sha256
from splicestore.schema import Plan
from splicestore.storage import Publication, StoreRoot, write_lease
from splicestore.storage.finalise import STATUS_INCOMPLETE
from tests.unit.maintenance.small_store import begin, dump, fill, generation, genome, is_complete, publish


def problems(report, severity="damage"):
    return {(f.problem, f.key) for f in report.findings if f.severity == severity}


def damaged_keys(report):
    return {f.key for f in report.damage}


def flip(data, place, change):
    flipped = bytearray(data)
    flipped[place] ^= change
    return bytes(flipped)


# -- laws --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flipped_store(tmp_path_factory):
    """A store with everything in it, a living lease included, and the keys whose bytes something records."""
    root = StoreRoot(str(tmp_path_factory.mktemp("flips") / "store"))
    keys = fill(root)
    unfinished = keys["unfinished"]
    with write_lease(root, "genomes/b", seconds=3600):
        assert verify(root).is_intact
        # Nothing records these yet; the run that goes on compares or writes them anew.
        loose = {f"{unfinished}/sequence/c/1"} | {
            key for key in root.sizes("") if key.startswith(unfinished) and ("/parts/" in key or key.count("/") == 4)
        }
        documents = {f"{unfinished}/{name}" for name in ("zarr.json", "plan.json", "run.json")}
        known = sorted((set(root.sizes("")) - loose) | documents | {f"{unfinished}/sequence/c/0"})
        yield root, known


def check_flip(store, data):
    root, known = store
    key = data.draw(st.sampled_from(known), label="key")
    stored = root.get(key)
    place = data.draw(st.integers(0, len(stored) - 1), label="place")
    change = data.draw(st.integers(1, 255), label="change")
    try:
        root.put(key, flip(stored, place, change))
        report = verify(root)
    finally:
        root.put(key, stored)
    assert key in damaged_keys(report)
    assert not report.is_intact


@settings(max_examples=200)
@given(data=st.data())
def test_any_flipped_byte_is_damage_of_that_key(flipped_store, data):
    check_flip(flipped_store, data)


@pytest.mark.slow
@settings(max_examples=2_000)
@given(data=st.data())
def test_any_of_two_thousand_flipped_bytes_is_damage_of_that_key(flipped_store, data):
    check_flip(flipped_store, data)


def test_every_key_is_damage_when_its_last_byte_changes(flipped_store):
    """The sampled flips may pass a file over; this does not."""
    root, known = flipped_store
    kinds = {key.split("/")[0] for key in known}
    assert kinds == {"zarr.json", "catalog.json", "genomes", "usage", "splits", "predictions"}
    for key in known:
        stored = root.get(key)
        try:
            root.put(key, flip(stored, len(stored) - 1, 1))
            assert key in damaged_keys(verify(root)), key
        finally:
            root.put(key, stored)


def test_every_object_and_document_of_a_complete_generation_is_missed(root):
    keys = fill(root)
    base = keys["old"]
    for key in sorted(root.sizes(base)):
        stored = root.get(f"{base}/{key}")
        root.remove([f"{base}/{key}"])
        assert f"{base}/{key}" in damaged_keys(verify(root, quick=True)), key
        root.put(f"{base}/{key}", stored)
    assert verify(root).is_intact


# -- corners -----------------------------------------------------------------------------------------------------


def test_an_intact_store_has_notes_only(root):
    keys = fill(root)
    report = verify(root)
    assert report.is_intact
    assert problems(report, "note") == {("unfinished", keys["unfinished"]), ("never_current", keys["never"])}
    (unfinished,) = [f for f in report.notes if f.problem == "unfinished"]
    assert (
        "2 parts written, 1 objects in no finished part; missing of its job array: sequence-1, sequence-2"
        in unfinished.what
    )
    assert "run the command that writes it again" in unfinished.advice
    assert report.n_generations == 12
    # Three shards a genome of which one is all fill, and a table; the unfinished one has a shard and the table.
    assert report.n_objects == 11 * 3 + 2


def test_bytes_are_counted_and_progress_ends_at_all_of_them(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    base, _ = genome(root, "a", 0)
    seen = []
    report = verify(root, names=[base.rsplit("/", 1)[0]], progress=lambda what, done, total: seen.append((done, total)))
    objects = {k: v for k, v in root.sizes(base).items() if "/c/" in k}
    assert report.n_bytes == sum(objects.values())
    assert seen[-1] == (report.n_bytes, report.n_bytes)


def test_quick_sees_sizes_and_full_sees_bytes(root):
    keys = fill(root)
    key = f"{keys['new']}/sequence/c/0"
    stored = root.get(key)
    root.put(key, flip(stored, len(stored) // 2, 8))
    assert verify(root, quick=True).is_intact
    assert problems(verify(root)) == {("object_damaged", key)}
    root.put(key, stored[:-1])
    (found,) = verify(root, quick=True).damage
    assert (found.problem, found.key, found.part) == ("object_damaged", key, "sequence-0")
    assert f"{len(stored) - 1} bytes, part sequence-0 records {len(stored)}" in found.what


def test_workers_find_what_one_process_finds(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    keys = fill(root)
    for base in (keys["new"], keys["split"]):
        stored = root.get(f"{base}/sequence/c/1")
        root.put(f"{base}/sequence/c/1", flip(stored, 5, 255))
    with open_executor("threads:2") as executor:
        many = verify(root, executor=executor)
    assert many.findings == verify(root).findings
    assert len(many.damage) == 2


def test_an_object_in_an_array_that_no_part_records_is_damage(root):
    keys = fill(root)
    inside, beside = f"{keys['new']}/sequence/c/2", f"{keys['new']}/sequence/readme.txt"
    for key in (inside, beside, "genomes/notes.txt", "junk/x"):
        root.put(key, b"foreign")
    report = verify(root)
    assert problems(report) == {("foreign_in_array", inside)}
    assert {("foreign", k) for k in (beside, "genomes/notes.txt", "junk/x")} <= problems(report, "note")


def test_a_pin_without_its_generation_is_damage(root):
    keys = fill(root)
    root.remove([f"{keys['old']}/{key}" for key in root.sizes(keys["old"])])
    report = verify(root)
    found = problems(report)
    assert ("pin_missing", f"{keys['old']}/zarr.json") in found
    assert {f.path for f in report.damage} == {"splits/run1", "predictions/p"}
    assert {f.path for f in verify(root, names=["splits"]).damage} == {"splits/run1"}


def test_a_split_without_its_predictions_pin_is_named_by_generation(root):
    keys = fill(root)
    publish(root, "splits/run1", 9, {"pins": {"a": generation(keys["new"])}})
    root.remove([f"{keys['split']}/{key}" for key in root.sizes(keys["split"])])
    assert problems(verify(root)) == {("pin_missing", f"splits/*/{generation(keys['split'])}/zarr.json")}


def test_a_pointer_to_nothing_and_to_an_unfinished_generation(root):
    keys = fill(root)
    root.remove([f"{keys['other']}/{key}" for key in root.sizes(keys["other"])])
    assert ("generation_missing", f"{keys['other']}/zarr.json") in problems(verify(root))
    plan = Plan("genomes", 1, (), {}, {"x": 1}, {})
    unfinished = Publication(root, "splits/run1", plan, (), {})
    unfinished.begin()
    unfinished.switch()
    report = verify(root, names=["splits/run1"])
    assert ("generation_incomplete", f"{unfinished.base}/zarr.json") in problems(report)
    assert STATUS_INCOMPLETE in next(f.what for f in report.damage if f.problem == "generation_incomplete")


def test_the_catalogue_must_equal_the_pointers(root):
    fill(root)
    stale = root.get("catalog.json")
    keys, _ = genome(root, "a", 4)
    root.put("catalog.json", stale)
    found = problems(verify(root))
    assert found == {("catalog_differs", "catalog.json")}
    assert generation(keys) in next(f.what for f in verify(root).damage if "genomes/a" in f.what)
    root.remove(["catalog.json"])
    assert problems(verify(root)) == {("catalog_missing", "catalog.json")}


def test_a_listed_name_without_pointer(root):
    fill(root)
    root.remove(["splits/run1/zarr.json"])
    assert ("pointer_missing", "splits/run1/zarr.json") in problems(verify(root))


def test_a_pointer_that_gives_usage_of_other_sites(root):
    keys = fill(root)
    from splicestore.storage import Pointer, read_pointer, rebuild_catalog

    pointer = read_pointer(root, "usage/a/main")
    first, second, *_ = pointer.current
    swapped = {**pointer.current, first: pointer.current[second]}
    root.put("usage/a/main/zarr.json", Pointer(swapped, pointer.superseded).spell())
    rebuild_catalog(root)
    assert ("pointer_wrong", "usage/a/main/zarr.json") in problems(verify(root))
    assert is_complete(root, keys["new_usage"])


def test_leases_are_notes_and_damaged_ones_damage(root, monkeypatch):
    fill(root)
    with write_lease(root, "genomes/a", seconds=3600):
        held = verify(root)
        lease = root.get("genomes/a/lease.json")
        root.put("genomes/a/lease.json", lease.replace(b"until", b"untli"))
        assert ("lease_damaged", "genomes/a/lease.json") in problems(verify(root))
        root.put("genomes/a/lease.json", lease)
    assert ("lease_held", "genomes/a/lease.json") in problems(held, "note")
    root.put("genomes/a/lease-1-of-2.json", lease)
    monkeypatch.setattr(sys.modules["splicestore.maintenance.verify"], "holder_is_dead", lambda holder: True)
    report = verify(root)
    assert ("lease_expired", "genomes/a/lease-1-of-2.json") in problems(report, "note")
    assert report.is_intact


def test_partial_files_of_killed_writers_are_notes(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    keys = fill(root)
    (tmp_path / "store" / keys["new"] / "sequence" / "c" / "0.abc.partial").write_bytes(b"half")
    report = verify(root)
    assert report.is_intact
    assert ("partial", f"{keys['new']}/sequence/c/0.abc.partial") in problems(report, "note")
    assert ("partial", f"{keys['new']}/sequence/c/0.abc.partial") not in problems(
        verify(root, names=["splits"]), "note"
    )


def test_names_that_are_not_there_are_refused_with_close_ones(root):
    fill(root)
    with pytest.raises(StoreNotFoundError, match="nothing lies below 'splits/run'; did you mean splits/run"):
        verify(root, names=["splits/run"])
    with pytest.raises(StoreNotFoundError, match="no store here"):
        verify(StoreRoot(root.url + "-elsewhere"))


def test_a_store_in_use_is_read_while_it_grows(root, monkeypatch):
    """A generation published between the listing and the look is no damage."""
    fill(root)
    real = StoreRoot.sizes
    done = []

    def sizes_then_publish(self, prefix):
        listed = real(self, prefix)
        if prefix == "" and not done:
            done.append(genome(root, "a", 11))
        return listed

    monkeypatch.setattr(StoreRoot, "sizes", sizes_then_publish)
    assert verify(root).is_intact
    assert done


@given(sizes=st.lists(st.integers(0, 200 * 2**20), max_size=40))
def test_tasks_hold_every_object_once_within_bounds(sizes):
    objects = [ExpectedObject(str(i), size, "") for i, size in enumerate(sizes)]
    tasks = cut_tasks(StoreRoot("memory://none"), objects)
    assert [o for task in tasks for o in task.objects] == objects
    assert all(len(task.objects) == 1 or task.n_bytes <= 256 * 2**20 for task in tasks)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 30])
def test_hash_in_ranges_equals_hash_of_the_whole(root, size, monkeypatch):
    monkeypatch.setattr("splicestore.maintenance.hashing.RANGE_BYTES", 10)
    data = bytes(range(size))
    root.put("x", data)
    assert stored_sha256(root, "x", size) == hashlib.sha256(data).hexdigest()
    assert check_object(root, ExpectedObject("absent", size, "")).is_missing


def test_ls_says_what_each_generation_takes(root):
    keys = fill(root)
    rows = {f"{row.kind}/{row.name}/{row.generation}": row for row in list_generations(root)}
    assert rows.keys() == {*keys.values()}
    whole = dump(root)
    for base, row in rows.items():
        mine = [data for key, data in whole.items() if key.startswith(f"{base}/")]
        assert (row.n_objects, row.n_bytes) == (len(mine), sum(map(len, mine)))
    assert [rows[keys[k]].current for k in ("old", "middle", "new", "never", "old_usage")] == [
        False,
        False,
        True,
        False,
        True,
    ]
    assert rows[keys["old"]].superseded is not None
    assert rows[keys["new"]].superseded is None
    assert rows[keys["old"]].pinned_by == tuple(sorted([keys["split"], keys["scores"]]))
    assert rows[keys["unfinished"]].status == "incomplete"
    assert [r.generation for r in list_generations(root, ["splits/run2"])] == [generation(keys["never"])]
    root.put("genomes/a/zarr.json", b"{}")
    assert {row.current for row in list_generations(root, ["genomes/a"])} == {None}


def test_unfinished_parts_and_metadata_that_nobody_spelled_are_damage(root):
    base = begin(root, "genomes/c", 7, ["sequence-0"])
    root.put(f"{base}/parts/sequence-0.json", b'{"objects":{}}')
    root.put(f"{base}/sequence/zarr.json", b"{")
    assert problems(verify(root)) == {
        ("part_damaged", f"{base}/parts/sequence-0.json"),
        ("document_damaged", f"{base}/sequence/zarr.json"),
    }
