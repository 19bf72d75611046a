"""The real genomes as streams: every batch in the oracle's order, every window equal to the oracle's, in all encodings."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from splicestore.split.service import split_windows
from splicestore.split.values import SplitOptions
from splicestore.store import open_store
from splicestore.stream import WindowStream
from tests.laws.streamed_windows import (
    Row,
    Sources,
    World,
    blocks_of,
    check_batch,
    expected_augmentation,
    expected_batches,
    make_world,
)
from tests.laws.test_oracle_real_data import SPECIES, WITH_JUNCTIONS, junction_table
from tests.oracles import genome_oracle, window_oracle
from tests.oracles.comparison import expected_split

pytestmark = pytest.mark.real_data

WINDOW_SIZE, CONTEXT = 1_000, 450
AUGMENTED = {"context_size": 400, "jitter": 50, "reverse_complement": True}
ENCODINGS = pytest.mark.parametrize("augment", [{}, AUGMENTED], ids=["as in the table", "shifted and flipped"])


@dataclass(frozen=True)
class SplitWorld:
    """A world with a split, and the split's table by the oracle."""

    world: World
    rows: list[Row]
    subsets: list[str]

    def stream(self, subset: str, **options) -> WindowStream:
        store = open_store(self.world.store.url)
        return WindowStream(store, split="run1", subset=subset, batch_size=64, seed=11, **options)

    def chosen(self, subset: str) -> list[int]:
        return [row for row, found in enumerate(self.subsets) if found == subset]


def split_world(world: World, groups: list, options: SplitOptions, homology: str) -> SplitWorld:
    split_windows(world.store, "run1", options, homology_url=homology, genome_ids=tuple(world.truths))
    _, rows, table = expected_split(world.truths, groups, options)
    return SplitWorld(world, rows, [subset for subset, _ in table])


@pytest.fixture(scope="module")
def vertebrates(data_dir, tmp_path_factory):
    """Eight pieces; four have junctions, two of these in a second condition with every other junction, doubled."""
    data = data_dir / "vertebrates"
    genomes = {}
    for name in SPECIES:
        junctions = {}
        if name in WITH_JUNCTIONS:
            junctions["rna_2"] = junction_table(data / f"{name}.junctions.tsv.gz")
        if name in ("hg38", "mm10"):
            halved = junctions["rna_2"][::2]
            junctions["rna_10"] = [(contig, a, b, strand, 2 * reads) for contig, a, b, strand, reads in halved]
        genomes[name] = Sources(data / f"{name}.fa.gz", data / f"{name}.cgp.gff.gz", junctions)
    world = make_world(tmp_path_factory.mktemp("vertebrates"), genomes)
    path = data / "orthogroups.tsv.gz"
    groups: dict[str, list] = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines()[1:]:
        group, species, gene_id = line.split("\t")
        groups.setdefault(group, []).append((species, gene_id))
    sizes = {"window_size": WINDOW_SIZE, "context_size": CONTEXT}
    options = SplitOptions(test_fraction=0.2, val_fraction=0.2, seed=3, override_gates=True, **sizes)
    return split_world(world, list(groups.values()), options, str(path))


@pytest.fixture(scope="module")
def yeast(data_dir, tmp_path_factory):
    """Both strains, split by chromosomes; every second intron of S288C has reads."""
    data = data_dir / "yeast"
    files = {name: (data / f"{stem}.fa.gz", data / f"{stem}.gff3.gz") for name, stem in STRAINS.items()}
    truth = genome_oracle.load_genome(*files["S288C"])
    introns = sorted(truth["introns"])[::2]
    reads = np.random.default_rng(4).integers(1, 90, len(introns)).tolist()
    seen = {"log_phase": [(*intron, float(n)) for intron, n in zip(introns, reads, strict=True)]}
    genomes = {name: Sources(*paths, seen if name == "S288C" else {}) for name, paths in files.items()}
    world = make_world(tmp_path_factory.mktemp("yeast"), genomes)
    homology = data / "orthologs.S288C_CPG_1a.tsv.gz"
    options = SplitOptions(
        WINDOW_SIZE, CONTEXT, reference_genome="S288C", test_chromosomes=("chrI", "chrV", "chrXI"), override_gates=True
    )
    split_windows(world.store, "run1", options, homology_url=str(homology), genome_ids=tuple(STRAINS))
    # 28,000 windows by the split's oracle take minutes, and its own tests hold the table against it.
    table = open_store(world.store.url).splits["run1"].to_pandas()
    signs = {"+": 1, "-": -1}
    rows = [(w.genome, w.contig, w.start, w.end, signs[w.strand]) for w in table.itertuples()]
    return SplitWorld(world, rows, table["subset"].tolist())


STRAINS = {"S288C": "S288C.R64-2-1", "CPG_1a": "CPG_1a"}


def check_stream(split: SplitWorld, subset: str, *, epoch: int = 0, every: int = 1, **options) -> list:
    """Hold an epoch against the oracles: ids of all batches, and every n-th batch window by window; return the batches."""
    stream = split.stream(subset, **options)
    stream.set_epoch(epoch)
    state = json.loads(json.dumps(stream.state_dict()))
    batches = list(stream)
    chosen = split.chosen(subset)
    ids = [batch.window_id.tolist() for batch in batches]
    assert ids == expected_batches(split.world, split.rows, chosen, state)
    assert sorted(row for batch in ids for row in batch) == chosen
    drawn = expected_augmentation(blocks_of(split.world, split.rows, chosen, state), state)
    for batch in batches[::every]:
        found = check_batch(split.world, batch, WINDOW_SIZE, state["context_size"])
        for row, where in zip(batch.window_id.tolist(), found, strict=True):
            name, contig, start, end, strand = split.rows[row]
            shift, is_flipped = drawn[row]
            assert where == (name, contig, start + shift, end + shift, -strand if is_flipped else strand)
    return batches


def count(batches: list, field: str, value: int) -> int:
    return sum(int((getattr(batch, field) == value).sum()) for batch in batches)


@ENCODINGS
@pytest.mark.parametrize("subset", ["train", "val", "test"])
def test_every_window_of_the_vertebrates_is_the_oracles(vertebrates, subset, augment):
    batches = check_stream(vertebrates, subset, **augment)
    assert batches[0].condition_names == ("rna_2", "rna_10")
    assert min(count(batches, "strand", 1), count(batches, "strand", -1)) > 10
    if subset == "train":
        assert min(count(batches, "label", label) for label in (1, 2, 255)) > 10
        assert sum(len(batch.alpha) for batch in batches) > 100
        assert {int(code) for batch in batches for code in batch.genome} == set(range(len(SPECIES)))


@pytest.mark.parametrize(
    "options",
    [{"shuffle_memory": 1, "lanes": 2}, {"epoch": 3}, {"lanes": 16}, {"reuse_buffers": 100}],
    ids=["one block a lane", "another epoch", "more lanes than blocks", "reused buffers"],
)
def test_what_decides_only_the_order_changes_no_window(vertebrates, options):
    check_stream(vertebrates, "train", every=4, **options, **AUGMENTED)


# -- filters -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """One window, by the oracle."""

    genome: str
    contig: str
    has_gene: bool
    has_site: bool
    n_share: float
    reads: dict[str, float]
    """Of the site that has most, by condition."""


@pytest.fixture(scope="module")
def facts(vertebrates) -> dict[int, Facts]:
    return {row: look_at(vertebrates.world, vertebrates.rows[row]) for row in vertebrates.chosen("train")}


def look_at(world: World, row: Row) -> Facts:
    name, contig, start, end, strand = row
    truth, window = world.truths[name], (contig, start, strand, ())
    text = window_oracle.input_sequence(truth, window, WINDOW_SIZE, CONTEXT)
    genes = [g for g in truth["genes"].values() if g["contig"] == contig and g["start"] < end and start < g["end"]]
    sites = [
        (contig, position, strand) for position in range(start, end) if (contig, position, strand) in truth["sites"]
    ]
    reads: dict[str, float] = {}
    for site in sites:
        for condition, (alpha, beta) in world.counts[name].get(site, {}).items():
            if alpha is not None:
                reads[condition] = max(reads.get(condition, 0), alpha + beta)
    return Facts(name, contig, bool(genes), bool(sites), text.count("N") / len(text), reads)


def most_reads(facts: Facts, *conditions: str) -> float:
    return max((facts.reads.get(condition, 0) for condition in conditions), default=0)


BOTH = ("rna_2", "rna_10")
FILTERS = {
    "siteless": ({"siteless": 0}, lambda f: f.has_site),
    "geneless": ({"geneless": 0}, lambda f: f.has_gene),
    "no N": ({"max_n": 0}, lambda f: f.n_share == 0),
    "some N": ({"max_n": 0.2}, lambda f: f.n_share <= 0.2),
    "coverage": ({"min_coverage": 10}, lambda f: most_reads(f, *BOTH) >= 10),
    "coverage of one condition": (
        {"min_coverage": 40, "conditions": ["rna_10"]},
        lambda f: most_reads(f, "rna_10") >= 40,
    ),
    "a chromosome of any genome": ({"chromosomes": ["chr16"]}, lambda f: f.contig == "chr16"),
    "a chromosome without its prefix": ({"chromosomes": ["16"]}, lambda f: f.contig == "chr16"),
    "a chromosome of one genome": (
        {"genomes": ["hg38"], "chromosomes": {"hg38": ["chr16"]}},
        lambda f: f.genome == "hg38",
    ),
    "all together": (
        {"genomes": ["hg38", "mm10"], "siteless": 0, "geneless": 0, "max_n": 0.1, "min_coverage": 20},
        lambda f: f.genome in ("hg38", "mm10") and f.has_gene and f.n_share <= 0.1 and most_reads(f, *BOTH) >= 20,
    ),
    "weights": (
        {"window_weights": {"site": 3, "gene": 2, "geneless": 0}},
        lambda f: 3 if f.has_site else 2 if f.has_gene else 0,
    ),
    "weights of what is left": (
        {"max_n": 0, "window_weights": {"site": 0}},
        lambda f: f.n_share == 0 and not f.has_site,
    ),
}


@pytest.mark.parametrize(("options", "times"), FILTERS.values(), ids=FILTERS)
def test_filters_and_weights_choose_what_the_oracle_chooses(vertebrates, facts, options, times):
    chosen = [row for row, found in facts.items() for _ in range(int(times(found)))]
    assert len(set(chosen)) > 5
    assert Counter(chosen) != Counter(facts)
    stream = vertebrates.stream("train", **options)
    state = json.loads(json.dumps(stream.state_dict()))
    ids = [batch.window_id.tolist() for batch in stream]
    assert Counter(row for batch in ids for row in batch) == Counter(chosen)
    assert ids == expected_batches(vertebrates.world, vertebrates.rows, chosen, state)


# -- yeasts --------------------------------------------------------------------------------------------------------------


@ENCODINGS
def test_test_windows_of_the_yeasts_are_the_oracles(yeast, augment):
    batches = check_stream(yeast, "test", every=6, **augment)
    assert sum(len(batch) for batch in batches) == 3_349
    assert min(count(batches, "label", label) for label in (1, 2)) > 10
    assert sum(len(batch.alpha) for batch in batches) > 10


@pytest.mark.slow
@ENCODINGS
@pytest.mark.parametrize(("subset", "n_windows"), [("train", 24_753), ("test", 3_349)])
def test_every_window_of_the_yeasts_is_the_oracles(yeast, subset, n_windows, augment):
    batches = check_stream(yeast, subset, **augment)
    assert sum(len(batch) for batch in batches) == n_windows
    assert min(count(batches, "strand", 1), count(batches, "strand", -1)) > n_windows // 4
