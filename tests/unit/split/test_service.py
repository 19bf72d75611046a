"""The service on a real store: ingest, split, read back, extend, rebuild."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from splicestore.errors import ConfigError, SplitError
from splicestore.ingest.genomes import ingest_genomes, load_genomes_config
from splicestore.schema import SUBSET_NAMES
from splicestore.split.service import HomologyInput, genome_layout, projected_peak_bytes, split_windows
from splicestore.split.values import SplitOptions
from splicestore.storage import StoreRoot
from splicestore.store import open_store

CONTIGS = {"chr1": 30_000, "chr2": 25_500, "chr3": 20_000}


def write_genome(folder, genome_id, seed, n_genes=12):
    """A genome of random bases with single-exon genes, some on either strand; contigs as in ``CONTIGS``."""
    rng = np.random.default_rng(seed)
    fasta, rows, genes = [], [], 0
    for name, length in CONTIGS.items():
        fasta.append(f">{name}\n{''.join(rng.choice(list('ACGT'), length))}\n")
        for i in range(n_genes // len(CONTIGS)):
            start = 4_000 * i + int(rng.integers(500, 1_500)) + 1
            sign = "+-"[i % 2]
            for kind in ("gene", "transcript", "exon"):
                words = f'gene_id "{genome_id}_{genes}";' + (
                    f' transcript_id "{genome_id}_{genes}.t";' if kind != "gene" else ""
                )
                rows.append(f"{name}\ttest\t{kind}\t{start}\t{start + 1_500}\t.\t{sign}\t.\t{words}\n")
            genes += 1
    (folder / f"{genome_id}.fa").write_text("".join(fasta))
    (folder / f"{genome_id}.gtf").write_text("".join(rows))
    return {"genome_id": genome_id, "fasta": f"{genome_id}.fa", "annotation": f"{genome_id}.gtf"}


def ingest(folder, genomes):
    (folder / "genomes.json").write_text(json.dumps({"genomes": genomes}))
    root = StoreRoot(str(folder / "store"))
    list(ingest_genomes(root, load_genomes_config(str(folder / "genomes.json"))))
    return open_store(str(folder / "store"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store of two genomes and their orthologs (gene i with gene i, but for the last ones)."""
    folder = tmp_path_factory.mktemp("study")
    genomes = [write_genome(folder, "human", 0), write_genome(folder, "mouse", 1)]
    rows = [f"G{i}\t{g}\t{g}_{i}\n" for i in range(11) for g in ("human", "mouse")]
    (folder / "orthologs.tsv").write_text("ortholog_group\tgenome_id\tgene_id\n" + "".join(rows))
    ingest(folder, genomes)
    return folder, genomes


@pytest.fixture
def study(built, tmp_path):
    """A copy of the store for one test: (folder, store, homology, genomes)."""
    folder = shutil.copytree(built[0], tmp_path / "study")
    return folder, open_store(str(folder / "store")), str(folder / "orthologs.tsv"), built[1]


OPTIONS = SplitOptions(
    window_size=500, context_size=100, reference_genome="human", test_chromosomes=("1",), val_chromosomes=("2",),
    override_gates=True,
)  # fmt: skip


def test_published_split_reads_back(study):
    folder, store, orthologs, _ = study
    report = split_windows(store, "run1", OPTIONS, homology_url=orthologs)
    split = open_store(store.url).splits["run1"]
    assert split.generation == report.generation
    assert split.digest == report.digest
    assert split.attributes["report"] == json.loads(json.dumps(report.as_dict()))
    frame = split.to_pandas()
    assert frame.subset.value_counts().reindex(SUBSET_NAMES, fill_value=0).to_dict() == report.windows
    assert frame[frame.subset == "excluded"].reason.value_counts().to_dict() == report.reasons
    human = frame[frame.genome == "human"]
    assert dict(zip(human.contig, human.subset, strict=True)) == {"chr1": "test", "chr2": "val", "chr3": "train"}
    assert (human.subset != "excluded").all()
    genes = split.genes_to_pandas().set_index("gene_id")
    for i in range(11):
        assert genes.subset[f"mouse_{i}"] == genes.subset[f"human_{i}"] == ("test", "val", "train")[i // 4]
        assert genes.component[f"mouse_{i}"] == genes.component[f"human_{i}"]
    assert report.homology["exact"] == 22
    linked = frame[frame.genes.str.contains("mouse_0$|mouse_0,")]
    assert set(linked.subset) == {"test"}
    assert set(linked.strand) == {"+"}


def test_the_same_command_twice_changes_nothing(study):
    folder, store, orthologs, _ = study
    first = split_windows(store, "run1", OPTIONS, homology_url=orthologs)
    before = {path: path.stat().st_mtime_ns for path in (folder / "store" / "splits" / "run1").rglob("*")}
    again = split_windows(open_store(store.url), "run1", OPTIONS, homology_url=orthologs)
    assert again.as_dict() == first.as_dict()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert set((folder / "store" / "splits" / "run1").rglob("*")) == set(before)


def test_every_scheduler_makes_the_same_table(study):
    _, store, orthologs, _ = study
    one = split_windows(store, "run1", OPTIONS, homology_url=orthologs)
    many = split_windows(store, "run2", OPTIONS, homology_url=[HomologyInput(orthologs)], scheduler="threads:2")
    assert (many.digest, many.generation) == (one.digest, one.generation)


def test_extending_with_a_genome_keeps_old_windows(study):
    folder, store, orthologs, genomes = study
    first = split_windows(store, "run1", OPTIONS, homology_url=orthologs)
    before = open_store(store.url).splits["run1"].to_pandas()
    store = ingest(folder, [*genomes, write_genome(folder, "rat", 2)])
    more = folder / "more.csv"
    rows = [("A", "rat", "rat_1"), ("A", "human", "human_1"), ("B", "rat", "rat_5"), ("B", "human", "human_5"),
            ("B", "mouse", "mouse_0")]  # fmt: skip
    more.write_text("group_id,species,gene_id\n" + "".join(",".join(row) + "\n" for row in rows))
    both = [orthologs, str(more)]
    report = split_windows(store, "run1", OPTIONS, homology_url=both, extend="run1")
    assert report.generation != first.generation
    assert report.bridges == (("rat", "rat_5", "val and test"),)
    after = open_store(store.url).splits["run1"].to_pandas()
    pd.testing.assert_frame_equal(after[after.genome != "rat"].reset_index(drop=True), before)
    # Once more under its own name: nothing new to say, nothing new to publish.
    again = split_windows(open_store(store.url), "run1", OPTIONS, homology_url=both, extend="run1")
    assert again.generation == report.generation
    rebuilt = split_windows(open_store(store.url), "run1", OPTIONS, homology_url=both, extend="run1", rebuild=True)
    moved = {row["gene_id"] for row in rebuilt.as_dict()["moves"]["genes"]}
    assert moved == {"human_5", "mouse_5", "rat_5"}
    assert open_store(store.url).splits["run1"].generation == rebuilt.generation


def test_chosen_genomes_only(study):
    _, store, orthologs, _ = study
    options = replace(OPTIONS, reference_genome=None, test_chromosomes=(), val_chromosomes=(), test_fraction=0.5)
    report = split_windows(store, "mouse-only", options, genome_ids=["mouse"])
    assert list(report.genomes) == ["mouse"]
    assert report.n_components == 12


def test_projected_memory_grows_with_genomes_and_windows(study):
    _, store, _, _ = study
    layouts = [genome_layout(store.genomes[name]) for name in ("human", "mouse")]
    small, twice = projected_peak_bytes(layouts[:1], OPTIONS), projected_peak_bytes(layouts, OPTIONS)
    assert small < twice < projected_peak_bytes(layouts, replace(OPTIONS, window_size=50))


@pytest.mark.parametrize(
    ("name", "changes", "error", "match"),
    [
        ("../run", {}, ConfigError, "split '../run' is not a name"),
        ("run", {"genome_ids": ["mause"]}, SplitError, r"no genome 'mause'; did you mean mouse\?"),
        ("run", {"rebuild": True}, SplitError, "name it with extend"),
    ],
)
def test_wrong_requests_are_refused(study, name, changes, error, match):
    _, store, _, _ = study
    with pytest.raises(error, match=match):
        split_windows(store, name, OPTIONS, **changes)


@pytest.mark.real_data
def test_whole_chromosomes_of_two_yeasts_exclude_next_to_nothing(data_dir, tmp_path):
    """What is excluded lies where orthologs left their chromosome; one yeast alone loses nothing."""
    yeast = data_dir / "yeast"
    names = {"S288C": "S288C.R64-2-1", "CPG_1a": "CPG_1a"}
    genomes = [
        {"genome_id": name, "fasta": str(yeast / f"{stem}.fa.gz"), "annotation": str(yeast / f"{stem}.gff3.gz")}
        for name, stem in names.items()
    ]
    store = ingest(tmp_path, genomes)
    options = SplitOptions(
        reference_genome="S288C", test_chromosomes=("I", "V", "XI"), val_chromosomes=("chrII",), unassigned="train"
    )
    report = split_windows(store, "run1", options, homology_url=str(yeast / "orthologs.S288C_CPG_1a.tsv.gz"))
    assert report.overridden == ()
    assert report.leakage.groups_crossing == report.leakage.held_out_bases() == 0
    assert sum(report.genomes["S288C"].genes.values()) > 6_000
    assert all(counts.excluded_share < 0.02 for counts in report.genomes.values())
    # Measured apart from this code: the orthologs alone chain at most 24 genes.
    assert (report.largest_component, report.n_conflicts) == (24, 32)
    frame = store.splits["run1"].genes_to_pandas()
    side = frame.set_index("gene_id").subset
    # YNR077C - CPG_1a_G0000010 and YAL068C - CPG_1a_G0000020 are the first two rows of the table.
    assert side["CPG_1a_G0000010"] == side["YNR077C"] == "train"
    assert side["CPG_1a_G0000020"] == side["YAL068C"] == "test"
    alone = split_windows(store, "alone", options, genome_ids=["S288C"])
    assert alone.windows["excluded"] == 0
