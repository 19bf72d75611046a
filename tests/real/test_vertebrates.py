"""The main job on one syntenic locus of eight vertebrates: counts as literals, split, training, prediction."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from splicestore.kernels.sequence import decode_bases
from splicestore.store import open_store
from tests.service.study import splicestore

WITH_JUNCTIONS = ("hg38", "mm10", "rheMac3", "galGal4")
SEED = 1

# genome: bases, genes, introns, donors, acceptors, canonical fraction
INGESTED = {
    "hg38": (210_155, 11, 77, 77, 77, 1.0),
    "mm10": (178_393, 9, 61, 61, 61, 0.95082),
    "rn6": (99_944, 3, 25, 25, 25, 1.0),
    "rheMac3": (220_640, 9, 78, 76, 76, 1.0),
    "bosTau8": (156_091, 8, 78, 78, 78, 1.0),
    "canFam3": (184_728, 9, 70, 70, 70, 1.0),
    "galGal4": (149_999, 7, 57, 57, 57, 1.0),
    "monDom5": (540_519, 8, 74, 74, 74, 1.0),
}
JOIN_RATES = {"hg38": 0.913080, "mm10": 0.764895, "rheMac3": 0.910839, "galGal4": 0.739296}
SPLIT_WINDOWS = {"train": 1_135, "val": 74, "test": 505, "excluded": 34}
SPLIT_GENES = {"train": 43, "val": 7, "test": 14, "excluded": 0}


def vertebrate_config(data_dir):
    genomes = []
    for genome in INGESTED:
        folder = data_dir / "vertebrates"
        entry = {
            "genome_id": genome,
            "fasta": str(folder / f"{genome}.fa.gz"),
            "annotation": str(folder / f"{genome}.cgp.gff.gz"),
        }
        if genome in WITH_JUNCTIONS:
            entry["usage"] = [{"file": str(folder / f"{genome}.junctions.tsv.gz"), "condition": "rnaseq"}]
        genomes.append(entry)
    return yaml.safe_dump({"genomes": genomes})


@pytest.fixture(scope="module")
def study(tmp_path_factory, data_dir):
    folder = tmp_path_factory.mktemp("vertebrates")
    (folder / "genomes.yaml").write_text(vertebrate_config(data_dir))
    done = splicestore("ingest", "genomes", folder / "store", folder / "genomes.yaml", "--json", check=0)
    (folder / "ingest.json").write_text(done.stdout)
    done = splicestore(
        "split", "windows", folder / "store", "run1", "--orthology", data_dir / "vertebrates" / "orthogroups.tsv.gz",
        "--reference-genome", "hg38", "--test-fraction", "0.2", "--val-fraction", "0.1", "--seed", SEED, "--json", check=0,
    )  # fmt: skip
    (folder / "split.json").write_text(done.stdout)
    return folder


def test_every_genome_has_the_counts_of_its_annotation(study):
    reports = json.loads((study / "ingest.json").read_text())["genomes"]
    found = {
        g: (
            r["n_bases"],
            r["n_genes"],
            r["n_introns"],
            r["n_sites"]["donor"],
            r["n_sites"]["acceptor"],
            r["canonical_fraction"],
        )
        for g, r in reports.items()
    }
    assert found == INGESTED
    # The annotation loses nothing; what junctions lack a site for is in the ledger of the usage.
    assert all(not [k for k in r["dropped"] if not k.startswith("usage_site:")] for r in reports.values())
    assert reports["rn6"]["dropped"] == {}
    assert all(r["observed_peak_bytes"] < r["projected_peak_bytes"] for r in reports.values())
    assert {g for g, r in reports.items() if r["conditions"] == ["rnaseq"]} == set(WITH_JUNCTIONS)


def test_junctions_join_the_sites_and_the_rest_is_in_the_ledger(study):
    store = open_store(str(study / "store"))
    for genome_id, rate in JOIN_RATES.items():
        genome = store.genomes[genome_id]
        (path,) = genome.usage_generations
        group = json.loads((study / "store" / path / "zarr.json").read_text())
        (join,) = group["attributes"]["splicestore"]["joins"]
        assert join["join_rate"] == pytest.approx(rate, abs=1e-6)
    ledger = store.genomes["hg38"].ledger.to_pandas()
    assert ledger["reason"].value_counts().to_dict() == {"unknown_site": 161, "no_strand": 36, "past_contig_end": 12}


def test_one_gene_base_by_base(study):
    """Gene jg1 of hg38 lies on -; typed in from the file: CDS 3005-3172 and 3578-3607, reads 1194 across 3172-3577."""
    genome = open_store(str(study / "store")).genomes["hg38"]
    sites = genome.gene("jg1").sites.to_pandas()
    rows = {(int(p), k) for p, k in zip(sites["position"], sites["kind"], strict=True)}
    assert {(3_171, "acceptor"), (3_577, "donor")} <= rows
    # Transcript orientation: the intron opens with GT right after the donor base, and closes with AG before the acceptor's.
    assert decode_bases(genome.fetch("chr16", 3_575, 3_577)[::-1] ^ 3) == "GT"
    assert decode_bases(genome.fetch("chr16", 3_172, 3_174)[::-1] ^ 3) == "AG"
    usage = genome.gene("jg1").usage.to_pandas()
    donor = usage[usage["position"] == 3_577].iloc[0]
    acceptor = usage[usage["position"] == 3_171].iloc[0]
    # Junction 3172-3577 has 1194 reads, 3172-5963 has 18: they share the acceptor, and the longer one skips the donor.
    assert (donor["alpha"], donor["beta"]) == (1_194.0, 18.0)
    assert acceptor["alpha"] == 1_194.0 + 18.0


def test_split_by_fractions_leaves_no_subset_empty_and_leaks_nothing(study):
    report = json.loads((study / "split.json").read_text())
    assert report["windows"] == SPLIT_WINDOWS
    assert report["genes"] == SPLIT_GENES
    assert report["n_components"] == 12
    assert report["leakage"]["groups_crossing"] == 0
    assert report["reasons"] == {**report["reasons"], "overlaps_test": 20, "overlaps_val": 14}


def test_no_ortholog_group_has_members_on_two_sides(study, data_dir):
    import gzip

    genes = open_store(str(study / "store")).splits["run1"].genes_to_pandas()
    subset = {(g, i): s for g, i, s in zip(genes["genome"], genes["gene_id"], genes["subset"], strict=True)}
    sides: dict[str, set[str]] = {}
    with gzip.open(data_dir / "vertebrates" / "orthogroups.tsv.gz", "rt") as lines:
        next(lines)
        for line in lines:
            group, genome, gene = line.split()
            sides.setdefault(group, set()).add(subset[genome, gene])
    assert len(sides) == 12
    assert all(len(found) == 1 for found in sides.values())


@pytest.mark.slow
def test_two_hundred_steps_of_training_then_prediction(study, tmp_path):
    (tmp_path / "train.yaml").write_text(
        "steps: 200\nbatch_size: 8\nwarmup_steps: 20\ncheckpoint_every: 100\nmodel: {options: {channels: 12, dilations: [1, 1, 4, 10]}}\n"
    )
    store = study / "store"
    trained = json.loads(
        splicestore(
            "train", store, "run1", tmp_path / "train.yaml", "--output", tmp_path / "m", "--json", check=0
        ).stdout
    )
    assert trained["step"] == 200
    losses = [row["site_loss"] for row in trained["history"]]
    assert losses[-1] < losses[0]
    splicestore(
        "predict",
        store,
        "run1",
        "--model",
        tmp_path / "m" / "card.json",
        "--split",
        "run1",
        "--subset",
        "test",
        check=0,
    )
    predictions = open_store(str(store)).predictions["run1"]
    regions = predictions.regions_to_pandas()
    first = regions[regions["genome"] == "hg38"].iloc[0]
    scores = np.stack([predictions.fetch("hg38", first["contig"], first["start"], first["end"], s) for s in "+-"])
    assert scores.shape[-1] == len(predictions.tasks) == 3
    assert np.isfinite(scores).any(axis=(0, 2)).all()
