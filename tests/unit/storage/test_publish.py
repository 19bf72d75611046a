"""The write sequence: old or new, never a mixture; the same command again finishes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import FormatError, PartitionMissingError, PlanError, PointerMovedError, StoreError
from splicestore.schema import ArraySpec, Plan, check_name, table_column
from splicestore.storage import Publication, StoreRoot, read_catalog, read_pointer
from splicestore.storage import backends as backends_module
from splicestore.storage.sealed import BLANK, seal_bytes

N_ROWS = 40


def make(root, *, seed=0, values=None):
    plan = Plan("split", 1, (), {"genomes/a": "0" * 16}, {"seed": seed}, {})
    specs = [
        table_column("window_start", N_ROWS, "window", "int64", chunk=16),
        ArraySpec("sequence", (64,), ("base",), "uint8", (16,), (32,), fill_value=4),
        table_column("gene_id", 2, "gene", "string"),
    ]
    return Publication(root, "splits/run1", plan, specs, {"seed": seed})


def encode(publication, seed):
    for shard in range(2):
        if not publication.has_part(f"sequence-{shard}"):
            writer = publication.partition(f"sequence-{shard}")
            writer.write("sequence", np.full(32, (seed + shard) % 4, dtype=np.uint8), shard * 32)
            writer.close()
    if not publication.has_part("tables"):
        writer = publication.partition("tables")
        writer.write("window_start", np.arange(N_ROWS) + seed)
        writer.write("gene_id", ["a", "ü"])
        writer.close()


PARTS = ["sequence-0", "sequence-1", "tables"]


def publish(root, seed=0):
    publication = make(root, seed=seed)
    if not publication.is_complete():
        publication.begin()
        encode(publication, seed)
        publication.finalise(PARTS)
    publication.switch()
    return publication


class Killed(BaseException):
    pass


def read(root):
    pointer = read_pointer(root, "splits/run1")
    if pointer is None:
        return None
    with xarray.open_zarr(f"{root.url}/splits/run1/{pointer.current}", zarr_format=3) as dataset:
        return (
            int(dataset.window_start[0]),
            [str(g) for g in dataset.gene_id.values],
            dataset.sequence.values[[0, 32]].tolist(),
        )


def test_published_group_opens_in_plain_xarray_with_warnings_as_errors(tmp_path):
    publication = publish(StoreRoot(str(tmp_path / "store")))
    code = f"import xarray; d = xarray.open_zarr({str(tmp_path / 'store' / publication.base)!r}); print(int(d.window_start[3]))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "3", done.stderr


def test_every_kill_point_leaves_old_or_new_and_the_same_command_finishes(tmp_path, monkeypatch):
    """Every key write of the second publication is a kill point once."""
    calls = {"n": 0, "stop": None}

    def counted(real):
        def wrapper(*args, **kwargs):
            if calls["stop"] is not None and calls["n"] == calls["stop"]:
                raise Killed
            calls["n"] += 1
            return real(*args, **kwargs)

        return wrapper

    for name in ("put", "create", "put_if", "remove"):
        monkeypatch.setattr(StoreRoot, name, counted(getattr(StoreRoot, name)))
    old_store = tmp_path / "old"
    publish(StoreRoot(str(old_store)), seed=0)
    old = read(StoreRoot(str(old_store)))
    shutil.copytree(old_store, tmp_path / "whole")
    calls["n"] = 0
    publish(StoreRoot(str(tmp_path / "whole")), seed=1)
    new, n_writes = read(StoreRoot(str(tmp_path / "whole"))), calls["n"]
    assert new != old
    assert n_writes > 12
    outcomes = set()
    for stop in range(n_writes):
        store = tmp_path / f"kill{stop}"
        shutil.copytree(old_store, store)
        root = StoreRoot(str(store))
        calls.update(n=0, stop=stop)
        with pytest.raises(Killed):
            publish(root, seed=1)
        calls["stop"] = None
        seen = read(root)
        assert seen in (old, new)
        outcomes.add(seen == new)
        publish(root, seed=1)
        assert read(root) == new
        assert read_catalog(root)["splits"] == {"run1": read_pointer(root, "splits/run1").current}
        shutil.rmtree(store)
    assert outcomes == {True, False}


def test_same_plan_again_writes_nothing(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    publish(root)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    publication = publish(root)
    assert read_pointer(root, "splits/run1").generation(None) == publication.generation
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()} == before


def test_going_back_to_an_older_plan_is_a_switch(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    first = publish(root, seed=0)
    second = publish(root, seed=1)
    assert read_pointer(root, "splits/run1").current == second.generation
    again = make(root, seed=0)
    assert again.is_complete()
    assert again.switch()
    pointer = read_pointer(root, "splits/run1")
    assert pointer.current == first.generation
    assert set(pointer.superseded) == {second.generation}


def test_second_writer_is_told_that_the_pointer_moved(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    publish(root, seed=0)
    slow = make(root, seed=2)
    slow.begin()
    encode(slow, 2)
    publish(root, seed=1)
    slow.finalise(PARTS)
    with pytest.raises(
        PointerMovedError, match="another writer published .* run the same command again, or add --force"
    ):
        slow.switch()
    slow.force = True
    assert slow.switch()


def test_racing_twins_agree(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    one, two = make(root), make(root)
    one.begin()
    two.begin()
    encode(one, 0)
    encode(two, 0)
    one.finalise(PARTS)
    one.switch()
    two.begin()
    two.finalise(PARTS)
    assert not two.switch()
    assert read(root)[0] == 0


def test_missing_part_and_wrong_size_are_named(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    publication = make(root)
    publication.begin()
    with pytest.raises(PartitionMissingError, match=r"3 of 3 partitions are not encoded \(first: \['sequence-0'"):
        publication.finalise(PARTS)
    encode(publication, 0)
    target = tmp_path / "store" / publication.base / "sequence" / "c" / "0"
    target.write_bytes(target.read_bytes()[:-1])
    with pytest.raises(PartitionMissingError, match="sequence/c/0"):
        publication.finalise(PARTS)
    encode(publication, 0)
    publication.finalise(PARTS)
    assert publication.is_complete()


def test_partial_write_units_are_refused(tmp_path):
    publication = make(StoreRoot(str(tmp_path / "store")))
    publication.begin()
    with pytest.raises(PlanError, match="0:16 on axis 0 is not whole write units of 32"):
        publication.partition("p").write("sequence", np.zeros(16, dtype=np.uint8), 0)


def test_flipped_bit_is_an_error_not_another_value(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    publication = publish(root, seed=3)
    target = tmp_path / "store" / publication.base / "window_start" / "c" / "0"
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 4
    target.write_bytes(bytes(data))
    with pytest.raises(Exception, match=r"(?i)zstd|checksum|corrupt|restored data"):
        xarray.open_zarr(f"{root.url}/{publication.base}", zarr_format=3).window_start.values  # noqa: B018


def test_other_document_in_place_of_ours_is_refused(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    publication = make(root)
    root.put(f"{publication.base}/plan.json", b"{}")
    with pytest.raises(StoreError, match=r"plan.json: holds another document"):
        publication.begin()


def test_newer_format_is_refused(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    publish(root)
    document = root.get_json("splits/run1/zarr.json")
    document["attributes"]["splicestore"].update(format=2, seal=BLANK)
    root.put("splits/run1/zarr.json", seal_bytes(json.dumps(document).encode()))
    with pytest.raises(FormatError, match="format 2, this release reads format 1"):
        read_pointer(root, "splits/run1")


def test_full_disk_is_a_transfer_error(tmp_path, monkeypatch):
    import errno

    def full(target, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backends_module, "replace_file", full)
    from splicestore.errors import TransferError

    with pytest.raises(TransferError, match="no space left"):
        StoreRoot(str(tmp_path / "store")).put("a", b"x")


@given(name=st.text(max_size=12))
def test_names_cannot_leave_the_store(name):
    allowed = (
        bool(name)
        and name[0].isascii()
        and name[0].isalnum()
        and all(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    )
    if allowed:
        assert check_name(name, "split") == name
    else:
        with pytest.raises(ValueError, match="is not a name"):
            check_name(name, "split")


@given(seed=st.integers(0, 5), other=st.integers(0, 5))
def test_generation_is_a_function_of_the_plan(seed, other):
    def generation(value):
        return Plan("split", 1, (), {}, {"seed": value, "share": 0.5, "none": None}, {}).generation

    assert (generation(seed) == generation(other)) == (seed == other)
    assert len(generation(seed)) == 16
