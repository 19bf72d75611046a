"""Tiny genomes from files to batches: contigs shorter than a window or an input, one base, genes at both ends."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.split.service import split_windows
from splicestore.split.values import SplitOptions
from splicestore.store import open_store
from splicestore.stream import WindowStream
from tests.laws.streamed_windows import World, blocks_of, check_batch, expected_augmentation, expected_batches
from tests.oracles import usage_oracle
from tests.oracles.comparison import expected_split, ingest_tiny, split_is_empty, temporary_folder
from tests.strategies import TinyGene, TinyGenome, TinyTranscript, junctions, tiny_genomes, write_junctions

SUBSETS = ("train", "val", "test")


def check_streams(tiny: dict[str, TinyGenome], seen: dict, split: SplitOptions, stream: dict) -> int:
    """Ingest, split, stream every subset and hold it against the oracles; return how many windows there were."""
    truths = {name: genome.truth() for name, genome in tiny.items()}
    _, rows, table = expected_split(truths, [], split)
    if split_is_empty(table, split):
        return 0
    n_windows = 0
    with temporary_folder() as folder:
        counts = {name: ingest_with_usage(folder, name, tiny[name], seen.get(name, {})) for name in tiny}
        split_windows(open_store(str(folder / "store")), "run1", split)
        world = World(open_store(str(folder / "store")), truths, counts)
        for subset in SUBSETS:
            chosen = [row for row, (found, _) in enumerate(table) if found == subset]
            if chosen:
                n_windows += check_subset(world, rows, chosen, subset, split.window_size, stream)
    return n_windows


def ingest_with_usage(folder, name: str, tiny: TinyGenome, seen: dict) -> dict:
    usage, counts = [], {}
    for condition, rows in seen.items():
        path = write_junctions(folder / f"{name}.{condition}.tsv", rows, "junctions")
        usage.append({"file": str(path), "condition": condition})
        for site, pair in usage_oracle.junction_counts(rows, tiny.truth()["sites"]).items():
            counts.setdefault(site, {})[condition] = pair
    ingest_tiny(tiny, folder, name, usage=usage)
    return counts


def check_subset(world: World, rows, chosen, subset: str, window_size: int, options: dict) -> int:
    stream = WindowStream(open_store(world.store.url), split="run1", subset=subset, **options)
    stream.set_epoch(2)
    state = json.loads(json.dumps(stream.state_dict()))
    batches = list(stream)
    assert [batch.window_id.tolist() for batch in batches] == expected_batches(world, rows, chosen, state)
    drawn = expected_augmentation(blocks_of(world, rows, chosen, state), state)
    for batch in batches:
        found = check_batch(world, batch, window_size, state["context_size"])
        for row, where in zip(batch.window_id.tolist(), found, strict=True):
            name, contig, start, end, strand = rows[row]
            shift, is_flipped = drawn[row]
            assert where == (name, contig, start + shift, end + shift, -strand if is_flipped else strand)
    return len(chosen)


@st.composite
def genomes(draw):
    """One or two tiny genomes, one of them with two conditions."""
    names = ("amoeba", "bee")[: draw(st.integers(1, 2))]
    tiny = {name: draw(tiny_genomes(min_genes=3)) for name in names}
    truth = tiny["amoeba"].truth()
    seen = {condition: draw(junctions(truth)) for condition in ("heart", "kidney")} if truth["introns"] else {}
    return tiny, {"amoeba": {condition: rows for condition, rows in seen.items() if rows}}


@given(
    case=genomes(),
    window_size=st.one_of(st.integers(1, 40), st.integers(200, 600)),
    context_size=st.integers(0, 60),
    jitter=st.integers(0, 20),
    flip=st.booleans(),
    lanes=st.integers(1, 3),
)
@settings(max_examples=15)
def test_tiny_genomes_stream_as_the_oracles_say(case, window_size, context_size, jitter, flip, lanes):
    split = SplitOptions(window_size, context_size + jitter, test_fraction=0.3, val_fraction=0.2, override_gates=True)
    augment = {"context_size": context_size, "jitter": jitter, "reverse_complement": flip}
    check_streams(*case, split, {"batch_size": 4 * lanes, "lanes": lanes, "seed": 5, **augment})


def test_contigs_of_one_base_and_of_one_less_than_a_window_are_streamed_whole():
    def gene(name: str, contig: str, strand: int, *exons: tuple[int, int]) -> TinyGene:
        return TinyGene(name, contig, strand, exons[0][0], exons[-1][1], (TinyTranscript(f"{name}.t", exons),))

    contigs = (
        ("one", "G"),
        ("short", "ACGTN" * 19 + "ACGT"),
        ("exact", "CATTA" * 20),
        ("none", "N" * 3),
        ("long", "GATTC" * 61),
    )
    genes = (
        gene("g0", "one", -1, (0, 1)),
        gene("g1", "short", 1, (0, 10), (20, 30), (95, 99)),
        gene("g2", "short", -1, (0, 5), (50, 99)),
        gene("g3", "exact", -1, (0, 40), (60, 100)),
        gene("g4", "long", 1, (90, 120), (250, 305)),
    )
    tiny = {"amoeba": TinyGenome(contigs, genes)}
    introns = sorted(tiny["amoeba"].truth()["introns"])
    seen = {"amoeba": {"heart": [(*intron, 4.0 + n) for n, intron in enumerate(introns)]}}
    split = SplitOptions(100, 70, test_fraction=0.2, val_fraction=0.0, override_gates=True)
    for augment in ({}, {"context_size": 40, "jitter": 30, "reverse_complement": True}):
        n_windows = check_streams(tiny, seen, split, {"batch_size": 8, "seed": 1, **augment})
        assert n_windows > 8
