"""Damaged partitions come back from the recorded inputs, byte for byte, and nothing else is touched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import splicestore as ss
from splicestore.errors import StoreError
from splicestore.ingest import ingest_genomes, ingest_usage, load_genomes_config
from splicestore.ingest.reencode import reencode
from splicestore.storage import StoreRoot, read_pointer
from tests.service.study import write_study


@pytest.fixture
def study(tmp_path):
    config = load_genomes_config(str(write_study(tmp_path / "in")))
    root = StoreRoot(str(tmp_path / "store"))
    list(ingest_genomes(root, config))
    return root, config.genomes[0]


def stored(root: StoreRoot) -> dict[str, str]:
    folder = Path(root.url)
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def generation(root, path):
    pointer = read_pointer(root, path)
    return pointer.generations()[0]


@pytest.mark.parametrize(
    ("path", "objects", "parts"),
    [
        ("genomes/toy1", ["sequence/c/0"], ["sequence-00000"]),
        ("genomes/toy1", ["gene_id/c/0", "parts/tables.json"], ["tables"]),
        ("usage/toy1/main", ["alpha/c/0/0", "beta/c/0/0"], ["usage-00000"]),
        ("usage/toy1/main", ["condition_name/c/0"], ["tables"]),
    ],
)
def test_damaged_partitions_are_encoded_again_to_the_same_bytes(study, path, objects, parts):
    root, _ = study
    before = stored(root)
    base = f"{path}/{generation(root, path)}"
    for key in objects:
        root.put(f"{base}/{key}", b"junk")
    assert stored(root) != before
    reencode(root, path, generation(root, path), parts)
    assert stored(root) == before


def test_a_changed_or_missing_input_is_named_and_nothing_is_written(study):
    root, genome = study
    current = generation(root, "genomes/toy1")
    fasta = Path(genome.fasta)
    kept = fasta.read_bytes()
    before = stored(root)
    fasta.write_bytes(kept.replace(b"A", b"C", 1))
    with pytest.raises(
        StoreError, match="cannot be repaired, its fasta changed since it was ingested; put the old files"
    ):
        reencode(root, "genomes/toy1", current, ["sequence-00000"])
    fasta.unlink()
    with pytest.raises(StoreError, match=r"inputs are not there any more: .*toy1\.fa"):
        reencode(root, "genomes/toy1", current, ["sequence-00000"])
    table = Path(genome.usage[0].file)
    table.write_bytes(table.read_bytes() + b"\n")
    usage = generation(root, "usage/toy1/main")
    with pytest.raises(StoreError, match=r"is repaired from its recorded inputs, but its input .*toy1\.tsv changed"):
        reencode(root, "usage/toy1/main", usage, ["usage-00000"])
    assert stored(root) == before


def test_a_repaired_panel_of_new_conditions_reads_as_before(study, tmp_path):
    root, genome = study
    sheet = tmp_path / "in" / "heart.tsv"
    sheet.write_text(f"sample\tfile\tcondition\ns1\t{genome.usage[0].file}\tHeart\n")
    report = ingest_usage(root, "toy1", "march", str(sheet))
    before, files = ss.open_store(root.url).genomes["toy1"].usage.to_pandas(), stored(root)
    root.put(f"usage/toy1/march/{report.generation}/beta/c/0/0", b"")
    reencode(root, "usage/toy1/march", report.generation, ["usage-00000"])
    assert stored(root) == files
    assert ss.open_store(root.url).genomes["toy1"].usage.to_pandas().equals(before)
