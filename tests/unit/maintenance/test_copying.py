"""A copy is the same bytes under the same generations, shown when whole; a damaged source changes no name."""

from __future__ import annotations

import shutil

import pytest

from splicestore.errors import ConfigError, LeaseHeldError, StoreError, StoreNotFoundError
from splicestore.maintenance import Selection, copy_store, verify
from splicestore.maintenance.copying import _several_at_once
from splicestore.storage import StoreRoot, read_catalog, read_pointer, write_lease
from tests.unit.maintenance.small_store import Killed, Kills, dump, fill, generation, genome, publish


@pytest.fixture
def source(tmp_path):
    root = StoreRoot(str(tmp_path / "source"))
    return root, fill(root)


PATHS = ("genomes/a", "genomes/b", "splits/run1", "predictions/p", "usage/a/main", "usage/b/main")


def generations_of(root):
    return {"/".join(key.split("/")[:-1]) for key in root.sizes("") if key.endswith("/manifest.json")}


def test_everything_published_and_pinned_comes_byte_for_byte(source, root):
    store, keys = source
    report = copy_store(store, root)
    published = {keys[k] for k in keys if k not in ("middle", "never", "unfinished")}
    assert generations_of(root) == published == {row.key for row in report.rows}
    for base in published:
        assert dump(root, base) == dump(store, base)
    assert verify(root).findings == ()
    assert read_catalog(root) == read_catalog(store)
    assert report.as_dict()["n_bytes"] == sum(len(data) for base in published for data in dump(store, base).values())


def test_again_copies_nothing_and_what_is_missing_only(source, root):
    store, keys = source
    copy_store(store, root)
    assert {row.status for row in copy_store(store, root).rows} == {"present"}
    key = f"{keys['old']}/sequence/c/0"
    root.put(key, root.get(key)[:-1])
    rows = {row.key: row for row in copy_store(store, root).rows}
    assert (rows[keys["old"]].status, rows[keys["old"]].n_objects_copied) == ("copied", 1)
    data = bytearray(root.get(key))
    data[3] ^= 1
    root.put(key, bytes(data))
    assert {row.status for row in copy_store(store, root).rows} == {"present"}
    assert {row.key for row in copy_store(store, root, verify_existing=True).rows if row.status == "copied"} == {
        keys["old"]
    }
    assert verify(root).is_intact


def test_dry_run_says_what_will_be_copied(source, root):
    store, _ = source
    planned = copy_store(store, root, dry_run=True)
    assert root.sizes("") == {}
    done = copy_store(store, root)
    assert [(r.key, r.current, r.n_objects_copied, r.n_bytes_copied) for r in planned.rows] == [
        (r.key, r.current, r.n_objects_copied, r.n_bytes_copied) for r in done.rows
    ]
    assert {r.status for r in planned.rows} == {"to copy"}


def test_a_split_brings_its_pinned_genomes_with_their_usage(source, root):
    store, keys = source
    report = copy_store(store, root, Selection(splits=("run1",)))
    assert generations_of(root) == {keys["split"], keys["old"], keys["old_usage"]}
    why = {row.key: row.why for row in report.rows}
    assert why[keys["old"]] == "pinned by splits/run1"
    assert why[keys["old_usage"]] == "usage of genomes/a"
    # Nothing else of that name is there: the pinned generation is the one to show.
    assert read_pointer(root, "genomes/a").current == generation(keys["old"])
    assert verify(root).findings == ()
    copy_store(store, root, Selection(genomes=("a",)))
    assert read_pointer(root, "genomes/a").current == generation(keys["new"])
    assert set(read_pointer(root, "genomes/a").superseded) == {generation(keys["old"])}


def test_predictions_bring_split_genomes_and_usage(source, root):
    store, keys = source
    copy_store(store, root, Selection(predictions=("p",), usage=False))
    assert generations_of(root) == {keys["scores"], keys["split"], keys["old"], keys["old_usage"]}
    assert verify(root).is_intact


def test_a_pinned_genome_does_not_replace_the_targets_own(source, root):
    store, keys = source
    mine, _ = genome(root, "a", 42)
    copy_store(store, root, Selection(splits=("run1",)))
    assert read_pointer(root, "genomes/a").current == generation(mine)
    assert keys["old"] in generations_of(root)


def test_panels_are_chosen(source, root):
    store, keys = source
    site_digest = next(iter(read_pointer(store, "usage/b/main").current))
    more = publish(store, "usage/b/more", 8, {"site_digest": site_digest}, digest=site_digest)
    copy_store(store, root, Selection(genomes=("b",), panels=("more",)))
    assert generations_of(root) == {keys["other"], more}
    copy_store(store, root, Selection(genomes=("b",), usage=False))
    assert generations_of(root) == {keys["other"], more}
    with pytest.raises(StoreNotFoundError, match="no usage panel 'mone' of the genomes; did you mean more"):
        copy_store(store, root, Selection(genomes=("b",), panels=("mone",)))


def test_names_that_are_not_published_are_refused(source, root):
    store, _ = source
    with pytest.raises(StoreNotFoundError, match="no 'run2' is published under splits; did you mean run1"):
        copy_store(store, root, Selection(splits=("run2",)))
    with pytest.raises(StoreNotFoundError, match="nothing is published here"):
        copy_store(StoreRoot(store.url + "-elsewhere"), root)
    with pytest.raises(ConfigError, match="source and target are the same store"):
        copy_store(store, StoreRoot(store.url + "/"))


def test_a_damaged_source_is_refused_by_key_and_changes_no_name(source, root):
    store, keys = source
    whole = dump(store)
    published = tuple(keys[k] + "/" for k in keys if k not in ("middle", "never", "unfinished"))
    damaged = [k for k in whole if k.startswith(published) and not k.endswith("condition")]
    for key in damaged[:: len(damaged) // 25]:
        # What an earlier attempt brought is not read again.
        target = StoreRoot(f"{root.url}-{damaged.index(key)}")
        data = bytearray(whole[key])
        data[len(data) // 2] ^= 1
        store.put(key, bytes(data))
        with pytest.raises(StoreError, match=key):
            copy_store(store, target)
        assert not any(read_pointer(target, path) for path in PATHS)
        assert not target.sizes("") or verify(target).is_intact
        store.put(key, whole[key])
    copy_store(store, root)
    assert verify(root).findings == ()


def test_a_missing_object_of_the_source_is_refused(source, root):
    store, keys = source
    store.remove([f"{keys['new']}/gene_id/c/0"])
    with pytest.raises(
        StoreError, match=r"gene_id/c/0: missing or not as it was recorded; no name of the target was changed"
    ):
        copy_store(store, root)


def test_an_unfinished_run_of_the_target_is_hashed_and_finished(source, root):
    store, keys = source
    from tests.unit.maintenance.small_store import begin

    base = begin(root, "genomes/a", 2, ["sequence-0"])
    assert base == keys["new"]
    right = store.get(f"{base}/sequence/c/1")
    root.put(f"{base}/sequence/c/1", bytes(len(right)))
    copy_store(store, root, Selection(genomes=("a",)))
    assert verify(root).findings == ()


def test_what_the_target_made_itself_is_left(source, root):
    store, keys = source
    genome(root, "a", 2)
    manifest = root.get(f"{keys['new']}/manifest.json")
    rows = {row.key: row.status for row in copy_store(store, root, Selection(genomes=("a",))).rows}
    if manifest != store.get(f"{keys['new']}/manifest.json"):
        assert root.get(f"{keys['new']}/manifest.json") == manifest
    assert rows[keys["new"]] == "present"


def test_a_copy_heals_a_damaged_target(source, root):
    store, keys = source
    copy_store(store, root)
    for key in ("zarr.json", "manifest.json", "plan.json", "sequence/c/0", "parts/tables.json", "sequence/zarr.json"):
        root.put(f"{keys['new']}/{key}", b"\0" * (root.size(f"{keys['new']}/{key}")))
    assert len({f.key for f in verify(root).damage}) >= 3
    copy_store(store, root, verify_existing=True)
    assert verify(root).findings == ()


def test_a_name_being_written_is_not_copied_over(source, root):
    store, _ = source
    with write_lease(root, "genomes/b"), pytest.raises(LeaseHeldError, match="genomes/b: is being written by process"):
        copy_store(store, root)
    assert root.sizes("") == {}


def test_only_get_object_is_asked_of_the_source(source, root, monkeypatch):
    store, _ = source

    def refuse(real):
        def wrapper(self, *arguments):
            assert self.url != store.url, "the source was listed"
            return real(self, *arguments)

        return wrapper

    for name in ("sizes", "ages", "children", "put", "create", "put_if", "remove"):
        monkeypatch.setattr(StoreRoot, name, refuse(getattr(StoreRoot, name)))
    assert len(copy_store(store, root).rows) == 9


def test_a_kill_at_any_write_leaves_old_or_new_and_the_same_command_finishes(tmp_path, monkeypatch):
    """The target holds an older generation of the genome; the copy brings a newer one and a split."""
    store, template = StoreRoot(str(tmp_path / "source")), StoreRoot(str(tmp_path / "template"))
    genome(store, "a", 0)
    copy_store(store, template)
    new, _ = genome(store, "a", 1)
    publish(store, "splits/run1", 0, {"pins": {"a": generation(new)}})
    kills = Kills(monkeypatch, StoreRoot)
    whole = tmp_path / "whole"
    shutil.copytree(template.url, whole)
    kills.watch(str(whole))
    copy_store(store, StoreRoot(str(whole)))
    n_writes, wanted = kills.n, dump(StoreRoot(str(whole)))
    old, final = read_catalog(template), read_catalog(StoreRoot(str(whole)))
    monkeypatch.setattr("splicestore.storage.lease.holder_is_dead", lambda holder: True)
    assert n_writes > 40
    seen = []
    for stop in range(n_writes):
        target = StoreRoot(str(tmp_path / f"kill{stop}"))
        shutil.copytree(template.url, target.url)
        kills.watch(target.url, stop)
        with pytest.raises(Killed):
            copy_store(store, target)
        kills.watch("")
        damage = verify(target).damage
        # Between a switch and its line in the catalogue only the latter is behind.
        assert {f.problem for f in damage} <= {"catalog_differs"}
        shown = read_pointer(target, "genomes/a").current
        seen.append((shown == final["genomes"]["a"], read_pointer(target, "splits/run1") is not None))
        assert shown in (old["genomes"]["a"], final["genomes"]["a"])
        copy_store(store, target)
        report = verify(target)
        assert report.is_intact
        left = dump(target)
        assert {
            k: v for k, v in left.items() if k in wanted and not k.endswith("a/zarr.json") and "main/zarr" not in k
        } == {k: v for k, v in wanted.items() if not k.endswith("a/zarr.json") and "main/zarr" not in k}
        assert read_catalog(target) == final
        shutil.rmtree(target.url)
    assert seen[0] == (False, False)
    assert sorted(set(seen)) == [(False, False), (True, False), (True, True)]
    assert seen == sorted(seen)


def test_bytes_in_flight_are_bounded(monkeypatch):
    monkeypatch.setattr("splicestore.maintenance.copying.BYTES_IN_FLIGHT", 10)
    sizes = [3, 4, 50, 2, 2, 2, 2, 2, 11, 1]
    flying, peak = [], []

    def carry(item):
        flying.append(item)
        peak.append(sum(flying))
        flying.remove(item)
        return item

    assert sorted(_several_at_once(carry, [(size, size) for size in sizes])) == sorted(sizes)
    assert all(total <= 10 or total in (50, 11) for total in peak)
