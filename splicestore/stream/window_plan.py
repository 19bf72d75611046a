"""From a split and stream options to the windows of every block: values made before a base is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, PlanError, close_names
from splicestore.kernels.intervals import pointers
from splicestore.kernels.naming import natural_key
from splicestore.kernels.shuffle import PURPOSE_WEIGHT, random_words
from splicestore.kernels.window_blocks import Contigs, WindowBlocks, WindowColumns, group_by_block
from splicestore.schema import BLOCK_BASES
from splicestore.stream.plan import BlockPlan, Int64, assign_lanes
from splicestore.stream.protocols import GenomeSource, SplitSource
from splicestore.stream.select import select_windows
from splicestore.stream.window_options import WindowOptions

SITE_BYTES = 14
"""Position, strand, kind and row of the counts of one site in memory."""
POOL_GROWTH = 1.5
"""Sites and counts of live blocks lie in common arrays that grow by a half when full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan(BlockPlan):
    """The windows of a stream by block. Windows are numbered by (genome, block, row in the split)."""

    options: WindowOptions
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
    block_low: Int64
    """(n_blocks,) int64, first base that the block's windows need: absolute, within the block."""
    block_high: Int64
    """(n_blocks,) int64, one past the last: at most one input length beyond the block's end."""
    block_sites: Int64
    """(n_blocks,) int64, at most how many splice sites lie in a block's bases."""
    genome_columns: tuple[tuple[int, ...], ...]
    """For each genome its own columns of the chosen conditions, in the genome's order."""
    column: NDArray[np.int32]
    """(genome, condition) place in ``genome_columns``, -1 where the genome lacks the condition."""

    rows_name: ClassVar[str] = "windows"

    @property
    def n_windows(self) -> int:
        """Windows of the stream."""
        return self.n_rows

    @property
    def condition_mask(self) -> NDArray[np.bool_]:
        """(genome, condition) bool."""
        return np.asarray(self.column >= 0)

    def entries(self, epoch: int) -> Int64:
        """Blocks that enter the deal, in order of the block table: once, or as their genome's weight says.

        A weight of 2.25 enters every block twice and a quarter of the blocks, drawn anew each epoch, once more.

        Raises
        ------
        PlanError
            If none does.
        """
        times = np.ones(self.n_blocks, dtype=np.int64)
        for name, weight in self.options.genome_weights.items():
            genome = self.genome_names.index(name)
            rows = np.flatnonzero(self.block_genome == genome)
            times[rows] = int(weight)
            extra = math.floor((weight - int(weight)) * len(rows) + 0.5)
            words = random_words(self.options.seed, epoch, genome, PURPOSE_WEIGHT, len(rows))
            times[rows[np.argsort(words, kind="stable")[:extra]]] += 1
        if not times.any():
            weights = dict(self.options.genome_weights)
            raise PlanError(f"epoch {epoch}: no block enters the deal under genome_weights {weights}")
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


def make_window_plan(options: WindowOptions, split: SplitSource, genomes: Sequence[GenomeSource]) -> WindowPlan:
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
    names, columns, column = choose_conditions(genomes, options.conditions)
    selected = select_windows(options, split, genomes, columns)
    genome_code = selected.genome
    contig_first = pointers(np.array([len(g.contig_offset) for g in genomes]))
    contig_start = np.concatenate([np.asarray(g.contig_offset, dtype=np.int64) for g in genomes])
    contig_end = contig_start + np.concatenate([np.asarray(g.contig_length, dtype=np.int64) for g in genomes])
    blocks = group_by_block(
        selected.row,
        WindowColumns(genome_code, split.window_contig, split.window_start),
        Contigs(contig_first, contig_start, contig_end),
        options.flank,
        options.window_size + 2 * options.flank,
        BLOCK_BASES,
    )
    block_sites = _block_sites(genomes, blocks)
    block_bytes = blocks.high - blocks.low + block_sites * _site_bytes(columns)[blocks.genome]
    plan = WindowPlan(
        options=options,
        genome_names=options.genomes,
        condition_names=names,
        window_id=blocks.row,
        window_genome=genome_code,
        window_contig=split.window_contig,
        window_start=split.window_start,
        window_strand=split.window_strand,
        contig_first=contig_first,
        contig_start=contig_start,
        contig_end=contig_end,
        block_genome=blocks.genome,
        block_number=blocks.number,
        block_ptr=blocks.ptr,
        block_low=blocks.low,
        block_high=blocks.high,
        block_sites=block_sites,
        block_bytes=block_bytes,
        genome_columns=columns,
        column=column,
    )
    return assign_lanes(plan, options)


def _block_sites(genomes: Sequence[GenomeSource], blocks: WindowBlocks) -> Int64:
    """Splice sites of each block, counted by whole blocks of the store, so never too few."""
    n_sites = np.zeros(len(blocks.genome), dtype=np.int64)
    for g, genome in enumerate(genomes):
        rows = blocks.genome == g
        ptr = np.asarray(genome.block_site_ptr, dtype=np.int64)
        first = ptr[np.minimum(blocks.low[rows] // BLOCK_BASES, len(ptr) - 1)]
        last = ptr[np.minimum(-(-blocks.high[rows] // BLOCK_BASES), len(ptr) - 1)]
        n_sites[rows] = np.maximum(0, last - first)
    return n_sites


def _site_bytes(columns: tuple[tuple[int, ...], ...]) -> Int64:
    """Bytes of a site and its counts in memory, by genome."""
    return np.array([math.ceil(POOL_GROWTH * (SITE_BYTES + 8 * len(chosen))) for chosen in columns], dtype=np.int64)
