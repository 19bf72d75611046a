"""Pointers say what is current and what was; the catalogue says what the pointers say."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import FormatError, PointerMovedError, StoreError
from splicestore.storage import Pointer, StoreRoot, read_catalog, read_pointer, rebuild_catalog
from splicestore.storage import catalog as catalog_module
from splicestore.storage.catalog import list_name, list_pointers, pointer_names
from splicestore.storage.publish import next_pointer, switch_pointer
from splicestore.storage.sealed import BLANK, seal_bytes, seal_document

generations = st.text("0123456789abcdef", min_size=16, max_size=16)
digests = st.sampled_from(["s1", "s2", "s3"])
numbers = itertools.count()


def fresh():
    """An empty store in memory."""
    return StoreRoot(f"memory://pointers-{next(numbers)}")


def switch(root, path, generation, digest=None, **options):
    return switch_pointer(root, path, generation, digest=digest, expected=read_pointer(root, path), **options)


# -- pointers ----------------------------------------------------------------------------------------------------


@given(
    current=generations | st.dictionaries(digests, generations, min_size=1),
    superseded=st.dictionaries(generations, st.just("2026-01-01T00:00:00+00:00"), max_size=3),
)
def test_a_pointer_reads_as_it_was_written(current, superseded):
    root = fresh()
    root.put("genomes/a/zarr.json", Pointer(current, superseded).spell())
    assert read_pointer(root, "genomes/a") == Pointer(current, superseded)


def test_what_a_pointer_answers():
    assert read_pointer(fresh(), "genomes/a") is None
    plain, by_digest = Pointer("g1", {}), Pointer({"s1": "g1", "s2": "g2"}, {})
    assert (plain.generation(None), plain.generation("s1"), plain.generations()) == ("g1", "g1", ["g1"])
    assert (by_digest.generation("s2"), by_digest.generation("s3"), by_digest.generation(None)) == ("g2", None, None)
    assert by_digest.generations() == ["g1", "g2"]


@given(moves=st.lists(st.tuples(digests | st.none(), generations), min_size=1, max_size=8), is_map=st.booleans())
def test_a_pointer_remembers_what_was_current_and_loses_no_entry(moves, is_map):
    pointer, current, ever = None, {}, set()
    for digest, generation in moves:
        digest = (digest or "s1") if is_map else None
        pointer = next_pointer(pointer, generation, digest)
        current[digest] = generation
        ever.add(generation)
        assert pointer.generation(digest) == generation
        assert {d: pointer.generation(d) for d in current} == current
        assert generation not in pointer.superseded
        assert set(pointer.superseded) | set(pointer.generations()) == ever


def test_a_switch_that_changes_nothing_writes_nothing():
    root = fresh()
    assert switch(root, "splits/a", "g1")
    before = root.get("splits/a/zarr.json"), root.get("catalog.json")
    assert not switch(root, "splits/a", "g1")
    assert (root.get("splits/a/zarr.json"), root.get("catalog.json")) == before


def test_a_pointer_that_moved_is_left_alone_unless_forced():
    root = fresh()
    switch(root, "splits/a", "g1")
    seen = read_pointer(root, "splits/a")
    switch(root, "splits/a", "g2")
    with pytest.raises(PointerMovedError, match=r"another writer published g2 .* \(it started from g1\)"):
        switch_pointer(root, "splits/a", "g3", digest=None, expected=seen)
    assert read_pointer(root, "splits/a").current == "g2"
    assert switch_pointer(root, "splits/a", "g3", digest=None, expected=seen, force=True)
    assert set(read_pointer(root, "splits/a").superseded) == {"g1", "g2"}


def test_a_damaged_pointer_and_one_of_another_format_are_refused():
    root = fresh()
    data = Pointer("g1", {}).spell()
    root.put("splits/a/zarr.json", data.replace(b"g1", b"g2"))
    with pytest.raises(StoreError, match=r"splits/a/zarr\.json: the document is damaged"):
        read_pointer(root, "splits/a")
    document = json.loads(data)
    document["attributes"]["splicestore"].update(format=2, seal=BLANK)
    root.put("splits/a/zarr.json", seal_bytes(json.dumps(document).encode()))
    with pytest.raises(FormatError, match="format 2, this release reads format 1"):
        read_pointer(root, "splits/a")


# -- the catalogue -----------------------------------------------------------------------------------------------

paths = st.sampled_from(
    ["genomes/a", "genomes/b.2", "splits/a", "predictions/p", "usage/a/main", "usage/a/heart", "usage/b.2/main"]
)


@given(moves=st.lists(st.tuples(paths, generations), max_size=10))
def test_entering_names_one_by_one_is_listing_them_all(moves):
    root = fresh()
    for path, generation in moves:
        switch(root, path, generation, digest="s1" if path.startswith("usage") else None)
        assert read_catalog(root) == list_pointers(root)
    assert rebuild_catalog(root) == read_catalog(root)
    for path, _ in moves:
        prefix, name = path.rsplit("/", 1)
        assert name in pointer_names(root, prefix)


def test_an_empty_store_has_an_empty_catalogue():
    kinds = (
        "genomes", "splits", "predictions", "expression", "sample_splits", "normalized", "bins", "scaled", "tokens", "usage"
    )  # fmt: skip
    assert read_catalog(fresh()) == {"format": 1, **{kind: {} for kind in kinds}}
    assert pointer_names(fresh(), "usage/nobody") == []


@pytest.mark.parametrize("name", ["GRCh38.p14", "a.json", "b.partial"])
def test_every_allowed_name_is_listed(name, tmp_path):
    for root in (fresh(), StoreRoot(str(tmp_path))):
        root.put(f"genomes/{name}/zarr.json", Pointer("g1", {}).spell())
        assert rebuild_catalog(root)["genomes"] == {name: "g1"}


def test_documents_beside_names_are_no_names(tmp_path):
    root = StoreRoot(str(tmp_path))
    switch(root, "usage/a/main", "g1", digest="s1")
    root.put("usage/zarr.json", b"{}")
    root.put("usage/a/zarr.json", b"{}")
    root.put("genomes/a/lease.json", b"{}")
    assert list_pointers(root)["usage"] == {"a": {"main": {"s1": "g1"}}}
    assert list_pointers(root)["genomes"] == {}


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data.replace(b'"g1"', b'"g7"'), lambda data: b""]
)
def test_a_damaged_catalogue_is_refused_by_readers_and_made_anew_by_the_next_writer(damage):
    root = fresh()
    switch(root, "splits/a", "g1")
    root.put("catalog.json", damage(root.get("catalog.json")))
    with pytest.raises(StoreError, match=r"catalog\.json: the document is damaged"):
        read_catalog(root)
    switch(root, "splits/b", "g2")
    assert read_catalog(root)["splits"] == {"a": "g1", "b": "g2"}


def test_a_name_that_is_gone_is_taken_out():
    root = fresh()
    switch(root, "splits/a", "g1")
    root.remove(["splits/a/zarr.json"])
    list_name(root, "splits/a")
    assert read_catalog(root)["splits"] == {}


def test_a_storage_without_swaps_is_listed(tmp_path, monkeypatch):
    root = StoreRoot(str(tmp_path))
    monkeypatch.setattr(type(root.backend), "swaps", False)
    monkeypatch.setattr(type(root.backend), "put_if", lambda *a: pytest.fail("it cannot"))
    root.put("splits/a/zarr.json", Pointer("g1", {}).spell())
    list_name(root, "splits/a")
    assert read_catalog(root)["splits"] == {"a": "g1"}


@pytest.mark.parametrize("how", [lambda root: list_name(root, "splits/a"), rebuild_catalog])
def test_a_catalogue_that_never_rests_is_an_error(how, monkeypatch):
    """Somebody switches each time we look."""
    root = fresh()
    moves = itertools.count()
    real = catalog_module.read_pointer

    def restless(root, path):
        root.put("splits/a/zarr.json", Pointer(f"g{next(moves)}", {}).spell())
        return real(root, path)

    root.put("splits/a/zarr.json", Pointer("g", {}).spell())
    root.put("catalog.json", seal_document({"format": 1, "splits": {}}))
    monkeypatch.setattr(catalog_module, "read_pointer", restless)
    with pytest.raises(StoreError, match=r"kept changing through 100 \w+; run the command again"):
        how(root)
