"""From a split and stream options to blocks and how many of them are live: values made before a base is read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, PlanError, SplitError, WindowError, close_names
from splicestore.kernels.intervals import pointers
from splicestore.kernels.mixing import mix_fraction
from splicestore.kernels.naming import natural_key
from splicestore.kernels.shuffle import PURPOSE_WEIGHT, random_words
from splicestore.schema import BLOCK_BASES, SUBSET_EXCLUDED, SUBSET_NAMES
from splicestore.stream.protocols import GenomeSource, SplitSource

Int64 = NDArray[np.int64]

LANES_DEFAULT = 8
BLOCKS_A_LANE_TO_SHARE = 64
"""Below this many blocks a lane, ranks that own lanes would get unequal work: every rank reads all instead."""
SITE_BYTES = 14
"""Position, strand, kind and row of the counts of one site in memory."""
POOL_GROWTH = 1.5
"""Sites and counts of live blocks lie in common arrays that grow by a half when full."""
BLOCKS_IN_FLIGHT = 16
"""Blocks read at once, and read ahead; enough to hide 30 ms of latency on one core."""


Tail = Literal["short", "pad", "drop"]
Share = Literal["lanes", "replicate"]
TAILS = ("short", "pad", "drop")
SHARES = ("auto", "lanes", "replicate")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """All that decides which windows come, in what order and cut how; nothing of who reads them."""

    subset: str
    batch_size: int
    """Windows of a global batch, over all ranks."""
    seed: int
    window_size: int
    context_size: int
    lanes: int
    tail: Tail
    shuffle: bool
    shuffle_memory: int
    """Bytes that the live blocks of all lanes may take together."""
    genomes: tuple[str, ...]
    """Genomes streamed, in the order of the split."""
    conditions: tuple[str, ...] | None
    """Chosen conditions in their order, None for all."""
    geneless: float
    """Share of the windows without a gene that are kept, in [0, 1]."""
    genome_weights: Mapping[str, float]
    jitter: int
    """Largest shift of a window, in bp."""
    reverse_complement: bool
    """Read a random half of the windows from the other strand."""
    share: Literal["auto", "lanes", "replicate"]
    min_reads: float

    @property
    def flank(self) -> int:
        """Bases before the centre that a window may need, in bp: context and jitter."""
        return self.context_size + self.jitter

    @property
    def input_length(self) -> int:
        """L, in bp."""
        return self.window_size + 2 * self.context_size


def check_options(options: StreamOptions, split: SplitSource) -> None:
    """Refuse options that contradict each other or the split.

    Raises
    ------
    ConfigError
        For a value outside its range.
    WindowError
        Where context and jitter reach further than the split was guarded for.
    PlanError
        Where batches cannot be divided into lanes.
    """
    streamed = [name for code, name in enumerate(SUBSET_NAMES) if code != SUBSET_EXCLUDED]
    if options.subset not in streamed:
        raise ConfigError(f"subset must be one of {', '.join(streamed)}, got {options.subset!r}")
    for value, allowed, name in ((options.tail, TAILS, "tail"), (options.share, SHARES, "share")):
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if not 0 <= options.seed < 2**64:
        raise ConfigError(f"seed must lie in [0, 2**64), got {options.seed}")
    if not 0.0 <= options.geneless <= 1.0:
        raise ConfigError(f"geneless is a share and lies in [0, 1], got {options.geneless}")
    if options.context_size < 0 or options.jitter < 0:
        raise ConfigError(f"context_size and jitter are in bp, from 0 on; got {options.context_size}, {options.jitter}")
    if options.flank > split.context_size:
        raise WindowError(
            f"split {split.name}: context_size {options.context_size} + jitter {options.jitter} reach {options.flank} bp "
            f"beyond a window, but its guard kept {split.context_size} bp apart from other subsets; give a context_size of at "
            f"most {max(0, split.context_size - options.jitter)}, or split again with a larger context"
        )
    if options.lanes < 1 or options.batch_size < 1 or options.batch_size % options.lanes:
        raise PlanError(
            f"batch_size {options.batch_size} is not a multiple of lanes {options.lanes}; a batch takes equally many windows of "
            f"each lane, so take {max(1, round(options.batch_size / max(1, options.lanes))) * max(1, options.lanes)} or other lanes"
        )
    if options.shuffle_memory < 1:
        raise ConfigError(f"shuffle_memory is in bytes and positive, got {options.shuffle_memory}")
    for name, weight in options.genome_weights.items():
        if not 0 <= weight < math.inf:
            raise ConfigError(f"genome_weights[{name!r}] must be 0 or more, got {weight}")


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The windows of a stream by block. Windows are numbered by (genome, block, row in the split)."""

    options: StreamOptions
    genome_names: tuple[str, ...]
    condition_names: tuple[str, ...]
    window_id: Int64
    """(n,) int64, row in the split's window table."""
    window_genome: NDArray[np.int16]
    """(rows of the split,) index into ``genome_names``, -1 for genomes left out."""
    window_contig: NDArray[np.int32]
    window_start: Int64
    window_strand: NDArray[np.int8]
    """Columns of the split's window table, whole: indexed by ``window_id``."""
    contig_first: Int64
    """(genome + 1,) first row of each genome in the contig columns."""
    contig_start: Int64
    """(contig,) absolute."""
    contig_end: Int64
    block_genome: Int64
    """(n_blocks,) int64; blocks are sorted by (genome, number) and have at least one window."""
    block_number: Int64
    block_ptr: Int64
    """(n_blocks + 1,) int64, first window of each block."""
    block_low: Int64
    """(n_blocks,) int64, first base that the block's windows need: absolute, within the block."""
    block_high: Int64
    """(n_blocks,) int64, one past the last: at most one input length beyond the block's end."""
    block_bytes: Int64
    """(n_blocks,) int64, at most what a block takes in memory."""
    genome_columns: tuple[tuple[int, ...], ...]
    """For each genome its own columns of the chosen conditions, in the genome's order."""
    column: NDArray[np.int32]
    """(genome, condition) place in ``genome_columns``, -1 where the genome lacks the condition."""
    live_total: int
    """P, over all lanes."""
    share: Share

    @property
    def n_windows(self) -> int:
        """Windows of the stream."""
        return len(self.window_id)

    @property
    def n_blocks(self) -> int:
        """Blocks with at least one window."""
        return len(self.block_genome)

    @property
    def condition_mask(self) -> NDArray[np.bool_]:
        """(genome, condition) bool."""
        return np.asarray(self.column >= 0)

    def entries(self, epoch: int) -> Int64:
        """Blocks that enter the deal, in order of the block table: once, or as their genome's weight says.

        A weight of 2.25 enters every block twice and a quarter of the blocks, drawn anew each epoch, once more.
        """
        times = np.ones(self.n_blocks, dtype=np.int64)
        for name, weight in self.options.genome_weights.items():
            genome = self.genome_names.index(name)
            rows = np.flatnonzero(self.block_genome == genome)
            times[rows] = int(weight)
            extra = math.floor((weight - int(weight)) * len(rows) + 0.5)
            words = random_words(self.options.seed, epoch, genome, PURPOSE_WEIGHT, len(rows))
            times[rows[np.argsort(words, kind="stable")[:extra]]] += 1
        return np.repeat(np.arange(self.n_blocks, dtype=np.int64), times)


def choose_conditions(
    genomes: Sequence[GenomeSource], wanted: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], NDArray[np.int32]]:
    """Line the conditions of several genomes up.

    Returns
    -------
    names : tuple of str
        ``wanted``, or the union over the genomes in natural order.
    genome_columns
        For each genome, its own columns that are among ``names``.
    column : (genome, condition) int32
        Place in ``genome_columns``, or -1.

    Raises
    ------
    ConfigError
        If a wanted condition is in no genome, or wanted twice.
    """
    own = [list(genome.condition_names) for genome in genomes]
    known = sorted({name for names in own for name in names}, key=natural_key)
    names = tuple(known) if wanted is None else wanted
    for name in names:
        if name not in known:
            raise ConfigError(f"no streamed genome has the condition {name!r}; {close_names(name, known)}")
        if names.count(name) > 1:
            raise ConfigError(f"condition {name!r} is asked for twice")
    place = {name: c for c, name in enumerate(names)}
    column = np.full((len(genomes), len(names)), -1, dtype=np.int32)
    columns = tuple(tuple(c for c, name in enumerate(mine) if name in place) for mine in own)
    for g, (mine, chosen) in enumerate(zip(own, columns, strict=True)):
        for k, c in enumerate(chosen):
            column[g, place[mine[c]]] = k
    return names, columns, column


def choose_live_blocks(block_bytes: Int64, lanes: int, memory: int) -> int:
    """Choose P, the live blocks over all lanes, from a budget in bytes.

    A lane holds up to P/lanes + 1 blocks, and ``BLOCKS_IN_FLIGHT`` are read ahead. The largest P is taken for which
    even the heaviest blocks fit, at least one a lane. Where all blocks fit there is no limit: P is then so large that
    every lane, whatever the deal, has all its blocks live.
    """
    heaviest = np.sort(block_bytes)[::-1]
    fitting = int(np.searchsorted(np.cumsum(heaviest), memory, side="right"))
    if fitting == len(block_bytes):
        return lanes * len(block_bytes)
    return lanes * max(1, (fitting - BLOCKS_IN_FLIGHT) // lanes - 1)


def _keep_geneless(split: SplitSource, genome_ids: Sequence[str], seed: int, share: float) -> NDArray[np.bool_]:
    """Windows with a gene, and of the others a share chosen by place, strand, genome and seed: not by row or epoch."""
    keep = np.asarray(split.window_has_gene, dtype=bool).copy()
    if share >= 1.0:
        return np.ones_like(keep)
    for code, name in enumerate(genome_ids):
        rows = np.flatnonzero(~keep & (split.window_genome == code))
        salted = hashlib.sha256(f"splicestore-geneless-1\t{seed}\t{name}".encode()).digest()
        place = split.window_start[rows] * 2 + (split.window_strand[rows] > 0)
        keep[rows] = mix_fraction(place, int.from_bytes(salted[:4], "big")) < share
    return keep


def _select_windows(options: StreamOptions, split: SplitSource) -> tuple[Int64, NDArray[np.int16]]:
    """Rows of the split that are streamed, and the genome code of every row (-1: left out)."""
    code = np.full(len(split.genome_ids), -1, dtype=np.int16)
    for name in options.genomes:
        code[list(split.genome_ids).index(name)] = options.genomes.index(name)
    genome = code[split.window_genome]
    subset = SUBSET_NAMES.index(options.subset)
    keep = (split.window_subset == subset) & (genome >= 0)
    keep &= _keep_geneless(split, split.genome_ids, options.seed, options.geneless)
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise SplitError(
            f"split {split.name}: no window of subset {options.subset} in {', '.join(options.genomes)} "
            f"(geneless={options.geneless}); the split's report counts the windows of every subset"
        )
    return rows, genome


def make_plan(options: StreamOptions, split: SplitSource, genomes: Sequence[GenomeSource]) -> WindowPlan:
    """Sort the chosen windows into blocks and fix P.

    Parameters
    ----------
    options
        Already checked against the split.
    split
        The window table.
    genomes
        In the order of ``options.genomes``.

    Raises
    ------
    SplitError
        If no window is left.
    ConfigError
        For unknown conditions.
    """
    rows, genome_code = _select_windows(options, split)
    genome = genome_code[rows].astype(np.int64)
    contig_first = pointers(np.array([len(g.contig_offset) for g in genomes]))
    contig_start = np.concatenate([np.asarray(g.contig_offset, dtype=np.int64) for g in genomes])
    contig_end = contig_start + np.concatenate([np.asarray(g.contig_length, dtype=np.int64) for g in genomes])
    contig = contig_first[genome] + split.window_contig[rows]
    begin = split.window_start[rows] - options.flank
    low = np.maximum(begin, contig_start[contig])
    high = np.maximum(low, np.minimum(begin + options.window_size + 2 * options.flank, contig_end[contig]))
    block = low // BLOCK_BASES

    key = (genome << np.int64(40)) + block
    if np.any(key[1:] < key[:-1]):
        order = np.argsort(key, kind="stable")
        rows, key, low, high = rows[order], key[order], low[order], high[order]
    firsts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    block_genome, block_number = key[firsts] >> np.int64(40), key[firsts] & np.int64((1 << 40) - 1)
    names, columns, column = choose_conditions(genomes, options.conditions)
    block_low, block_high = np.minimum.reduceat(low, firsts), np.maximum.reduceat(high, firsts)
    block_bytes = _block_bytes(genomes, columns, block_genome, block_low, block_high)
    plan = WindowPlan(
        options=options,
        genome_names=options.genomes,
        condition_names=names,
        window_id=rows,
        window_genome=genome_code,
        window_contig=split.window_contig,
        window_start=split.window_start,
        window_strand=split.window_strand,
        contig_first=contig_first,
        contig_start=contig_start,
        contig_end=contig_end,
        block_genome=block_genome,
        block_number=block_number,
        block_ptr=np.append(firsts, len(rows)),
        block_low=block_low,
        block_high=block_high,
        block_bytes=block_bytes,
        genome_columns=columns,
        column=column,
        live_total=0,
        share="lanes",
    )
    return assign_lanes(plan, options)


def assign_lanes(plan: WindowPlan, options: StreamOptions) -> WindowPlan:
    """Fix P and who reads what, for options that differ from the plan's in lanes, tail, share or memory only."""
    live_total = choose_live_blocks(plan.block_bytes, options.lanes, options.shuffle_memory)
    share: Share = "replicate" if plan.n_blocks < BLOCKS_A_LANE_TO_SHARE * options.lanes else "lanes"
    if options.share != "auto":
        share = options.share
    return replace(plan, options=options, live_total=live_total if options.shuffle else options.lanes, share=share)


def _block_bytes(
    genomes: Sequence[GenomeSource],
    columns: tuple[tuple[int, ...], ...],
    block_genome: Int64,
    block_low: Int64,
    block_high: Int64,
) -> Int64:
    """Bytes of bases, sites and usage; sites are counted by whole blocks, so never too few."""
    n_bytes = block_high - block_low
    for g, genome in enumerate(genomes):
        rows = block_genome == g
        ptr = np.asarray(genome.block_site_ptr, dtype=np.int64)
        first = ptr[np.minimum(block_low[rows] // BLOCK_BASES, len(ptr) - 1)]
        last = ptr[np.minimum(-(-block_high[rows] // BLOCK_BASES), len(ptr) - 1)]
        per_site = math.ceil(POOL_GROWTH * (SITE_BYTES + 8 * len(columns[g])))
        n_bytes[rows] += np.maximum(0, last - first) * per_site
    return n_bytes


def describe_plan(plan: WindowPlan) -> dict[str, Any]:
    """Sizes of a plan, for people and logs."""
    return {
        "windows": plan.n_windows,
        "blocks": plan.n_blocks,
        "live_blocks": min(plan.live_total, plan.n_blocks),
        "live_bytes": int(np.sort(plan.block_bytes)[::-1][: plan.live_total + plan.options.lanes].sum()),
        "share": plan.share,
    }
