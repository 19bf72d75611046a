"""Repairs: believed only when a digest confirms them; what cannot be repaired is listed."""

from __future__ import annotations

import json

import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import InputError
from splicestore.maintenance import repair, verify
from splicestore.maintenance.repair import flip_back
from splicestore.storage import StoreRoot, read_pointer, write_lease
from splicestore.storage import zarr_codecs as codecs_module
from splicestore.storage.sealed import is_intact, seal_document
from tests.unit.maintenance.small_store import (
    PARTS,
    begin,
    dump,
    encode,
    fill,
    generation,
    publication,
    publish,
    values_of,
)


def turn(root, key, place=None, bit=4):
    data = bytearray(root.get(key))
    data[len(data) // 2 if place is None else place] ^= bit
    root.put(key, bytes(data))


def writer_of(root, whole):
    """A service that writes partitions again from its inputs: here, from a dump of the store before the damage."""

    def reencode(damaged):
        with write_lease(root, damaged.path):
            for part in damaged.parts:
                document = whole[f"{damaged.base}/parts/{part}.json"]
                for key in json.loads(document)["objects"]:
                    root.put(f"{damaged.base}/{key}", whole[f"{damaged.base}/{key}"])
                root.put(f"{damaged.base}/parts/{part}.json", document)
            for key in damaged.documents:
                root.put(f"{damaged.base}/{key}", whole[f"{damaged.base}/{key}"])

    return reencode


def test_one_flipped_bit_in_every_document_is_turned_back(root):
    keys = fill(root)
    whole = dump(root)
    unfinished = keys["unfinished"]
    documents = [k for k in whole if k.endswith(".json") and not k.startswith(unfinished)]
    assert len(documents) > 80
    for number, key in enumerate(documents):
        turn(root, key, place=(7 * number) % len(whole[key]), bit=1 << (number % 8))
    report = repair(root)
    assert report.after.is_intact, [f.key for f in report.after.damage]
    assert not report.refused
    # The catalogue is made anew, from the same pointers; nothing else may differ at all.
    assert dump(root) == whole
    assert {key for key, _ in report.repaired} == set(documents)


def test_intact_stores_are_left_alone(root):
    fill(root)
    whole = dump(root)
    report = repair(root)
    assert (report.repaired, report.refused) == ((), ())
    assert dump(root) == whole


def test_documents_beyond_one_bit_come_from_their_copies(root):
    keys = fill(root)
    whole = dump(root)
    base = keys["new"]
    for key in ("zarr.json", "genomes/zarr.json", "usage/a/zarr.json", f"{base}/sequence/zarr.json", "catalog.json"):
        root.put(key, b"\0" * 40)
    root.remove([f"{base}/gene_id/zarr.json"])
    report = repair(root)
    assert report.after.is_intact
    assert dump(root) == whole
    assert ("catalog.json", "rebuilt from the pointers") in report.repaired


def test_pointers_come_from_the_catalogue(root):
    keys = fill(root)
    before = read_pointer(root, "genomes/a")
    root.put("genomes/a/zarr.json", b"\0" * 300)
    root.remove(["splits/run1/zarr.json"])
    assert repair(root).after.is_intact
    after = read_pointer(root, "genomes/a")
    assert after.current == before.current == generation(keys["new"])
    assert after.superseded.keys() == before.superseded.keys()
    assert read_pointer(root, "splits/run1").current == generation(keys["split"])


def test_a_pointer_without_catalogue_is_left_with_advice(root):
    fill(root)
    root.put("splits/run1/zarr.json", b"\0" * 300)
    root.remove(["catalog.json"])
    report = repair(root)
    assert {f.key for f in report.after.damage} == {"splits/run1/zarr.json", "catalog.json"}
    refused = dict(report.refused)
    assert "remove the pointer and run the command that published the name again" in refused["splits/run1/zarr.json"]
    assert "splits/run1 is damaged" in refused["catalog.json"]


def test_a_pointer_is_not_restored_to_a_generation_that_is_not_complete(root):
    keys = fill(root)
    root.put("splits/run1/zarr.json", b"\0" * 300)
    root.put(f"{keys['split']}/zarr.json", b"\0" * 300)
    report = repair(root)
    assert "which is not complete" in dict(report.refused)["splits/run1/zarr.json"]
    assert root.get("splits/run1/zarr.json") == b"\0" * 300


def test_partitions_are_written_again_by_their_service(root):
    keys = fill(root)
    whole = dump(root)
    new, old = keys["new"], keys["old"]
    turn(root, f"{new}/sequence/c/0")
    root.remove([f"{new}/gene_id/c/0"])
    root.put(f"{old}/parts/sequence-1.json", b"{}")
    root.put(f"{old}/manifest.json", b"{}")
    asked = []
    service = writer_of(root, whole)

    def reencode(damaged):
        asked.append((damaged.base, set(damaged.parts), set(damaged.documents)))
        service(damaged)

    report = repair(root, reencode=reencode)
    assert report.after.is_intact
    assert dump(root) == whole
    assert sorted(asked) == sorted([(new, {"sequence-0", "tables"}, set()), (old, {"sequence-1"}, {"manifest.json"})])


def test_objects_are_never_absent_during_a_repair(root, monkeypatch):
    """Readers take an absent object for fill values: what is replaced is overwritten."""
    keys = fill(root)
    whole = dump(root)
    turn(root, f"{keys['new']}/sequence/c/0")
    turn(root, f"{keys['new']}/manifest.json")
    removed = []
    real = StoreRoot.remove

    def remove(self, names):
        names = list(names)
        removed.extend(names)
        real(self, names)

    monkeypatch.setattr(StoreRoot, "remove", remove)
    assert repair(root, reencode=writer_of(root, whole)).after.is_intact
    assert all(key.endswith("/lease.json") for key in removed)


def test_other_bytes_of_the_same_values_are_recorded(root, monkeypatch):
    """A newer compressor writes other bytes: the part's content digest says that the values are the same."""
    keys = fill(root)
    base = keys["new"]
    stored, recorded = root.get(f"{base}/gene_id/c/0"), root.get(f"{base}/parts/tables.json")
    turn(root, f"{base}/gene_id/c/0")

    def reencode(damaged):
        again = publication(root, "genomes/a", 2)
        with monkeypatch.context() as newer:
            newer.setattr(
                codecs_module, "ZstdCodec", lambda level, checksum: zarr.codecs.ZstdCodec(level=level, checksum=False)
            )
            for part in damaged.parts:
                root.remove([f"{base}/parts/{part}.json"])
                encode(again, 2, [part])

    report = repair(root, reencode=reencode)
    assert root.get(f"{base}/gene_id/c/0") != stored
    assert root.get(f"{base}/parts/tables.json") != recorded
    assert report.after.is_intact
    assert "their values are the same" in dict(report.repaired)[f"{base}/manifest.json"]


def test_other_values_are_refused(root):
    keys = fill(root)
    base = keys["new"]
    turn(root, f"{base}/sequence/c/0")
    manifest = root.get(f"{base}/manifest.json")

    def reencode(damaged):
        other = publication(root, "genomes/a", 2)
        root.remove([f"{base}/parts/sequence-0.json"])
        writer = other.partition("sequence-0")
        writer.write("sequence", values_of(99)[:32], 0)
        writer.close()

    report = repair(root, reencode=reencode)
    assert not report.after.is_intact
    assert "its inputs give other values" in dict(report.refused)[base]
    assert root.get(f"{base}/manifest.json") == manifest


def test_what_a_service_refuses_is_listed_with_its_reason(root):
    keys = fill(root)
    turn(root, f"{keys['new']}/sequence/c/0")
    root.remove([f"{keys['split']}/gene_id/c/0"])

    def reencode(damaged):
        raise InputError(f"{damaged.path}: hg38.fa changed")

    report = repair(root, reencode=reencode)
    assert dict(report.refused) == {
        keys["new"]: "genomes/a: hg38.fa changed",
        keys["split"]: "splits/run1: hg38.fa changed",
    }
    assert {f.key for f in report.after.damage} == {f"{keys['new']}/sequence/c/0", f"{keys['split']}/gene_id/c/0"}
    alone = repair(root)
    assert "sequence-0: can only be made again from the inputs" in dict(alone.refused)[keys["new"]]


def test_an_unfinished_generation_is_cleared_and_the_same_command_finishes(root):
    base = begin(root, "genomes/c", 7, ["sequence-0", "sequence-1", "tables"])
    turn(root, f"{base}/sequence/c/0")
    root.put(f"{base}/parts/tables.json", b"{}")
    root.put(f"{base}/zarr.json", b"{")
    root.put(f"{base}/plan.json", b"{")
    report = repair(root)
    assert report.after.is_intact
    again = publish(root, "genomes/c", 7)
    assert again == base
    assert verify(root).is_intact
    stored = zarr.open_array(root.zarr_store(f"{base}/sequence", read_only=True), mode="r")
    assert (stored[...] == values_of(7)).all()


def test_foreign_objects_go_only_when_asked(root):
    keys = fill(root)
    whole = dump(root)
    foreign = {f"{keys['new']}/sequence/c/2": b"x", f"{keys['new']}/notes.txt": b"y", "junk/z": b"z"}
    for key, data in foreign.items():
        root.put(key, data)
    report = repair(root)
    assert {f.key for f in report.after.damage} == {f"{keys['new']}/sequence/c/2"}
    assert dump(root) == {**whole, **foreign}
    report = repair(root, remove_foreign=True)
    assert report.after.is_intact
    assert dump(root) == whole


def test_a_damaged_part_does_not_make_its_objects_foreign(root):
    keys = fill(root)
    root.put(f"{keys['new']}/parts/sequence-0.json", b"{}")
    whole = dump(root)
    repair(root, remove_foreign=True)
    assert dump(root) == whole


def test_damaged_leases_go_and_living_ones_stop_a_repair(root):
    fill(root)
    with write_lease(root, "genomes/a", seconds=3600):
        turn(root, "genomes/a/zarr.json")
        report = repair(root)
        assert "is being written by process" in dict(report.refused)["genomes/a"]
        assert not report.after.is_intact
    root.put("genomes/b/lease.json", b"{}")
    assert repair(root).after.is_intact
    assert root.get("genomes/b/lease.json") is None


@given(payload=st.text(max_size=60), data=st.data())
def test_flip_back_is_exact(payload, data):
    sealed = seal_document({"payload": payload})
    place = data.draw(st.integers(0, len(sealed) * 8 - 1), label="bit")
    flipped = bytearray(sealed)
    flipped[place // 8] ^= 1 << (place % 8)
    assert flip_back(bytes(flipped), is_intact) == sealed


def test_flip_back_gives_up_on_large_documents_and_on_two_bits():
    assert flip_back(b"a" * 50_000, lambda data: pytest.fail("tried")) is None
    assert flip_back(b"ab", lambda data: data == b"`c") is None


def test_parts_are_listed_whole(root):
    """What hypothesis and the corners build on: four parts, of which one left no object."""
    keys = fill(root)
    parts = sorted(k for k in root.sizes(f"{keys['new']}/parts"))
    assert parts == sorted(f"{name}.json" for name in PARTS)
    assert json.loads(root.get(f"{keys['new']}/parts/sequence-2.json"))["objects"] == {}
