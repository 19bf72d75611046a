"""The real genomes against the oracles: every window of all 8 vertebrate pieces, usage, export and a split."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from splicestore.config import GenomeConfig
from splicestore.export.splicevo import export_splicevo
from splicestore.ingest import ingest_genome
from splicestore.split.service import split_windows
from splicestore.split.values import SplitOptions
from splicestore.storage import StoreRoot
from splicestore.store import open_store
from tests.laws.test_oracle_export import check_folder
from tests.oracles import genome_oracle, usage_oracle, window_oracle
from tests.oracles.comparison import (
    OVERRIDE,
    assert_same_arrays,
    check_split_table,
    expected_arrays,
    expected_split,
    expected_windows,
    gene_table,
    site_genes,
    site_table,
    stored_arrays,
    transcript_table,
    window_list,
)

pytestmark = pytest.mark.real_data

SPECIES = ("bosTau8", "canFam3", "galGal4", "hg38", "mm10", "monDom5", "rheMac3", "rn6")
WITH_JUNCTIONS = {"galGal4", "hg38", "mm10", "rheMac3"}
ANNOTATIONS = {
    **{name: (name, f"{name}.cgp.gff.gz") for name in SPECIES},
    "hg38_refseq": ("hg38", "refseq.hg38.gtf.gz"),
    "mm10_ensembl": ("mm10", "GRCm38.mm10.subset.gff3.gz"),
}
SIZES = {"window_size": 1000, "context_size": 450}
DEFAULTS = {
    **SIZES, "region": "gene", "anchor": "grid", "geneless": True, "minus": "reverse_complement", "label_order": "spliceai",
    "both": "mask", "flank": "genome", "keep_empty": True, "min_reads": 10, "alpha_threshold": None,
}  # fmt: skip


class World:
    """One store of all pieces, and what the oracles read from the same files."""

    def __init__(self, folder, data):
        self.root, self.truths, self.counts = StoreRoot(str(folder / "store")), {}, {}
        for name, (species, annotation) in ANNOTATIONS.items():
            files = {"fasta": str(data / f"{species}.fa.gz"), "annotation": str(data / annotation)}
            usage = []
            truth = genome_oracle.load_genome(files["fasta"], files["annotation"])
            self.counts[name] = {}
            if species in WITH_JUNCTIONS:
                table = data / f"{species}.junctions.tsv.gz"
                usage.append({"file": str(table), "condition": "rna"})
                measured = usage_oracle.junction_counts(junction_table(table), truth["sites"])
                self.counts[name] = {site: {"rna": pair} for site, pair in measured.items()}
            ingest_genome(self.root, GenomeConfig(genome_id=name, **files, usage=usage), OVERRIDE)
            self.truths[name] = truth
        self.store = open_store(self.root.url)

    def conditions(self, name):
        return ["rna"] if self.counts[name] else []


def junction_table(path):
    rows = [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()[1:]]
    return [(row[0], int(row[1]), int(row[2]), {"+": 1, "-": -1}.get(row[3], 0), float(row[4])) for row in rows]


@pytest.fixture(scope="module")
def world(data_dir, tmp_path_factory):
    return World(tmp_path_factory.mktemp("real"), data_dir / "vertebrates")


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_tables(world, name):
    genome, truth = world.store.genomes[name], world.truths[name]
    assert {contig: len(text) for contig, text in truth["contigs"].items()} == dict(
        zip(genome.contig_names, genome.contig_length.tolist(), strict=True)
    )
    assert gene_table(genome) == truth["genes"]
    assert site_table(genome) == truth["sites"]
    assert site_genes(genome) == truth["site_genes"]
    assert transcript_table(genome) == {t["id"]: (t["gene_id"], t["exons"]) for t in truth["transcripts"]}
    assert len(truth["sites"]) > 10


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_every_window(world, name):
    genome, truth = world.store.genomes[name], world.truths[name]
    windows = genome.windows(1000, 450, geneless=True)
    expected = expected_windows(truth, DEFAULTS)
    assert window_list(windows) == expected
    arrays = expected_arrays(truth, expected, DEFAULTS, world.counts[name], world.conditions(name))
    assert_same_arrays(stored_arrays(windows), arrays)
    assert set(np.unique(arrays["label"])) >= {0, 1, 2}
    if world.counts[name]:
        assert np.nanmax(arrays["alpha"]) > 10
        assert np.isfinite(arrays["sse"]).any()


@pytest.mark.parametrize("name", ["hg38_refseq", "mm10_ensembl", "galGal4", "rn6"])
def test_preset_and_export(world, name, tmp_path):
    truth = world.truths[name]
    windows = world.store.genomes[name].windows(1000, 450, preset="splicevo")
    assert window_list(windows) == window_oracle.splicevo_windows(truth, 1000)
    report = export_splicevo(world.store, str(tmp_path / "out"), genomes=[name])
    assert report.n_windows == {name: len(windows)}
    check_folder(tmp_path / "out" / name, truth, 1000, 450, world.counts[name], world.conditions(name))


@pytest.mark.parametrize("guard", ["centre", "input"])
def test_a_split_by_fractions(world, guard, data_dir):
    path = data_dir / "vertebrates" / "orthogroups.tsv.gz"
    rows = [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()[1:]]
    groups = {}
    for group, species, gene_id in rows:
        groups.setdefault(group, []).append((species, gene_id))
    options = SplitOptions(test_fraction=0.2, val_fraction=0.2, seed=3, guard=guard, override_gates=True, **SIZES)
    truths = {name: world.truths[name] for name in SPECIES}
    decided, windows, table = expected_split(truths, list(groups.values()), options)
    assert {subset for subset, _ in table} == {"train", "val", "test", "excluded"}
    split_windows(world.store, guard, options, homology_url=str(path), genome_ids=SPECIES)
    check_split_table(open_store(world.root.url).splits[guard], decided, windows, table)
