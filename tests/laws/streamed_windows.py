"""Streams held against the slow oracles: order, bases in every encoding, labels and usage, window by window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splicestore.config import GenomeConfig
from splicestore.ingest import ingest_genome
from splicestore.storage import StoreRoot
from splicestore.store import Store, open_store
from splicestore.stream import Batch, densify_usage, one_hot
from tests.oracles import genome_oracle, order_oracle, usage_oracle, window_oracle
from tests.oracles.comparison import CODES, OVERRIDE

ONE_HOT = {"A": (1, 0, 0, 0), "C": (0, 1, 0, 0), "G": (0, 0, 1, 0), "T": (0, 0, 0, 1), "N": (0, 0, 0, 0)}

Row = tuple[str, str, int, int, int]
"""Genome, contig, start, end, strand: a line of the split's table."""


@dataclass(frozen=True)
class World:
    """A store, and what the oracles read from the same files."""

    store: Store
    truths: dict[str, genome_oracle.Genome]
    counts: dict[str, window_oracle.Usage]

    def conditions(self, name: str) -> set[str]:
        return {condition for measured in self.counts[name].values() for condition in measured}


@dataclass(frozen=True)
class Sources:
    """Files of one genome; junctions by condition, which are written as tables of introns."""

    fasta: Path
    annotation: Path
    junctions: dict[str, list[usage_oracle.Junction]]


def make_world(folder: Path, genomes: dict[str, Sources]) -> World:
    """Ingest genomes, and read the same files with the oracles."""
    root = StoreRoot(str(folder / "store"))
    truths: dict[str, genome_oracle.Genome] = {}
    counts: dict[str, window_oracle.Usage] = {}
    for name, sources in genomes.items():
        truths[name] = truth = genome_oracle.load_genome(sources.fasta, sources.annotation)
        counts[name] = {}
        usage = []
        for condition, junctions in sources.junctions.items():
            table = folder / f"{name}.{condition}.tsv"
            table.write_text(spell_junctions(junctions))
            usage.append({"file": str(table), "condition": condition})
            for site, pair in usage_oracle.junction_counts(junctions, truth["sites"]).items():
                counts[name].setdefault(site, {})[condition] = pair
        files = {"fasta": str(sources.fasta), "annotation": str(sources.annotation)}
        ingest_genome(root, GenomeConfig(genome_id=name, **files, usage=usage), OVERRIDE)
    return World(open_store(root.url), truths, counts)


def spell_junctions(junctions: list[usage_oracle.Junction]) -> str:
    signs = {1: "+", -1: "-", 0: "."}
    rows = [f"{contig}\t{start}\t{end}\t{signs[strand]}\t{reads:g}" for contig, start, end, strand, reads in junctions]
    return "\n".join(["chrom\tstart0\tend\tstrand_by_motif\treads", *rows]) + "\n"


# -- which windows, and in which order ---------------------------------------------------------------------------


def expected_batches(world: World, rows: list[Row], chosen: list[int], state: dict[str, Any]) -> list[list[int]]:
    """Ids of the windows of every batch of the state's epoch.

    ``rows`` is the split's table, ``chosen`` the ids of the windows that are streamed, in the order of the table.
    """
    windows = blocks_of(world, rows, chosen, state)
    lanes, live, seed, epoch = (state[name] for name in ("lanes", "P", "seed", "epoch"))
    ordered = order_oracle.epoch_lanes(windows, lanes, live, seed, epoch)
    return order_oracle.epoch_batches(ordered, state["batch_size"], tail=state["tail"])


def blocks_of(world: World, rows: list[Row], chosen: list[int], state: dict[str, Any]) -> list[list[int]]:
    """Ids of the windows of each block, in the order of the block table."""
    names = state["filters"]["genomes"]
    placed = []
    for row in chosen:
        name, contig, start, _, _ = rows[row]
        offset = contig_offsets(world.truths[name])[contig]
        block = order_oracle.window_block(offset, start, state["context_size"], state["jitter"])
        placed.append((names.index(name), block))
    _, places = order_oracle.block_table(placed)
    return [[chosen[place] for place in block] for block in places]


def expected_augmentation(windows: list[list[int]], state: dict[str, Any]) -> dict[int, tuple[int, bool]]:
    """Shift and flip of every window: bits of the word at the window's place in its block's stream of purpose 3."""
    found = {}
    width = 2 * state["jitter"] + 1
    for block, ids in enumerate(windows):
        words = order_oracle.raw_draws(state["seed"], state["epoch"], block, order_oracle.PURPOSE_JITTER, len(ids))
        for row, word in zip(ids, words, strict=True):
            shift = ((word >> 32) * width >> 32) - state["jitter"]
            found[row] = (shift, bool(word & 1) and state["reverse_complement"])
    return found


def contig_offsets(truth: genome_oracle.Genome) -> dict[str, int]:
    found, total = {}, 0
    for contig, bases in truth["contigs"].items():
        found[contig] = total
        total += len(bases)
    return found


# -- what is in them ---------------------------------------------------------------------------------------------


def check_batch(world: World, batch: Batch[Any], window_size: int, context_size: int) -> list[Row]:
    """Compare a batch of tensors with the oracles, window by window; return where its windows lie."""
    encoded = {layout: one_hot(batch, layout=layout).numpy() for layout in ("NCL", "NLC")}
    dense = {name: values.numpy() for name, values in dense_usage(batch).items()}
    found = []
    for b in range(len(batch)):
        name = batch.genome_names[int(batch.genome[b])]
        truth = world.truths[name]
        contig = list(truth["contigs"])[int(batch.contig[b])]
        start = int(batch.start[b]) - contig_offsets(truth)[contig]
        window = (contig, start, int(batch.strand[b]), ())
        text = window_oracle.input_sequence(truth, window, window_size, context_size)
        assert batch.sequence[b].tolist() == [CODES[base] for base in text]
        hot = np.array([ONE_HOT[base] for base in text], dtype=np.float32)
        np.testing.assert_array_equal(encoded["NLC"][b], hot)
        np.testing.assert_array_equal(encoded["NCL"][b], hot.T)
        assert batch.label[b].tolist() == window_oracle.labels(truth, window, window_size)
        for kind, values in expected_usage(world.counts[name], window, window_size, batch.condition_names).items():
            np.testing.assert_array_equal(dense[kind][b], values, err_msg=f"{kind} of {name} {window}")
        mask = batch.condition_mask[int(batch.genome[b])].tolist()
        assert mask == [condition in world.conditions(name) for condition in batch.condition_names]
        found.append((name, contig, start, start + window_size, int(batch.strand[b])))
    return found


def expected_usage(
    counts: window_oracle.Usage, window: window_oracle.Window, window_size: int, conditions: tuple[str, ...]
) -> dict[str, Any]:
    """alpha, beta, sse as (position, condition); most windows have no measured site, and are not asked about position by position."""
    contig, start, strand, _ = window
    shape = (window_size, len(conditions))
    if not any((contig, position, strand) in counts for position in range(start, start + window_size)):
        return dict.fromkeys(("alpha", "beta", "sse"), np.full(shape, np.nan, dtype=np.float32))
    usage = window_oracle.usage(window, window_size, counts, list(conditions))
    return {kind: np.array(values, dtype=np.float32).reshape(shape) for kind, values in usage.items()}


def dense_usage(batch: Batch[Any]) -> dict[str, Any]:
    """``densify_usage`` by name."""
    dense = densify_usage(batch)
    return {name: getattr(dense, name) for name in ("alpha", "beta", "sse")}
