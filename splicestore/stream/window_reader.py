"""Blocks of many genomes in memory, and batches of windows cut out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.gather import (
    LiveBases,
    LiveSites,
    LiveUsage,
    WindowRows,
    cut_bases,
    cut_labels,
    cut_usage,
)
from splicestore.kernels.shuffle import draw_augmentation
from splicestore.schema import LABEL_IGNORE
from splicestore.stream.batch import Batch
from splicestore.stream.buffers import BufferRing, Make
from splicestore.stream.epoch import StepRows
from splicestore.stream.live import Block, SegmentPool
from splicestore.stream.plan import Int64
from splicestore.stream.protocols import GenomeSource
from splicestore.stream.reader import BlockReader
from splicestore.stream.statistics import StreamStatistics
from splicestore.stream.window_plan import WindowPlan

NumpyBatch = Batch[NDArray[Any]]


class WindowReader(BlockReader[Block]):
    """Keeps blocks of genomes in memory and cuts windows from them.

    Parameters
    ----------
    plan
        Which blocks there are.
    genomes
        In the order of ``plan.genome_names``; a genome's sites are loaded when its first block is due.
    n_slots
        Blocks that windows are cut from at most. Bases take the longest block in every slot.
    statistics
        Counted up while reading.
    buffers
        Where batches are cut to; None: into new arrays.
    """

    _plan: WindowPlan

    def __init__(
        self,
        plan: WindowPlan,
        genomes: Sequence[GenomeSource],
        n_slots: int,
        statistics: StreamStatistics,
        buffers: BufferRing | None = None,
    ) -> None:
        super().__init__(plan, n_slots, statistics, buffers)
        self._genomes = genomes
        n_rows = self._n_places
        longest = int((plan.block_high - plan.block_low).max())
        # Not touched before a block is read into it, so it takes memory only as blocks become live.
        self._codes = np.empty((n_rows, longest), dtype=np.uint8)
        self._first_base = np.zeros(n_rows, dtype=np.int64)
        self._last_base = np.zeros(n_rows, dtype=np.int64)
        self._n_columns = np.array([len(columns) for columns in plan.genome_columns], dtype=np.int64)
        n_counts = plan.block_sites * self._n_columns[plan.block_genome]
        self._sites = SegmentPool(
            n_rows, (np.int64, np.int8, np.uint8, np.int32), _sum_of_largest(plan.block_sites, self.n_slots)
        )
        self._usage = SegmentPool(n_rows, (np.float32, np.float32), _sum_of_largest(n_counts, self.n_slots))
        self._condition_mask = plan.condition_mask

    def _rows(self, step: StepRows, block: Int64, slot: Int64, epoch: int) -> tuple[WindowRows, NDArray[np.int32]]:
        """Windows as they are read: jittered, flipped. A window read from the other strand takes that strand's sites."""
        plan, options = self._plan, self._plan.options
        ids = plan.window_id[step.row]
        genome, contig = plan.window_genome[ids], plan.window_contig[ids]
        start, strand = plan.window_start[ids], plan.window_strand[ids]
        if options.jitter or options.reverse_complement:
            in_block = step.row - plan.block_ptr[block]
            shift, flip = draw_augmentation(options.seed, epoch, block, in_block, options.jitter)
            start = start + shift
            if options.reverse_complement:
                strand = np.where(flip, -strand, strand)
        row = plan.contig_first[genome] + contig
        return WindowRows(slot, genome, start, strand, plan.contig_start[row], plan.contig_end[row]), contig

    def _cut_live(self, step: StepRows, block: Int64, slot: Int64, epoch: int, make: Make) -> NumpyBatch:
        plan, options = self._plan, self._plan.options
        rows, contig = self._rows(step, block, slot, epoch)
        bases = LiveBases(self._codes, self._first_base, self._last_base)
        sites = LiveSites(self._sites.first, self._sites.count, *self._sites.columns)
        alpha, beta = self._usage.columns
        usage = LiveUsage(self._usage.first, alpha, beta, self._n_columns, plan.column)
        label, found = cut_labels(rows, sites, options.window_size, make)
        # A repeated row must not count twice even where a loop forgets to look at its window_id.
        label[step.repeated] = LABEL_IGNORE
        found.n_measured[step.repeated] = 0
        measured = cut_usage(rows, sites, usage, options.window_size, found, make)
        return Batch(
            sequence=cut_bases(rows, bases, options.context_size, options.input_length, make),
            label=label,
            genome=rows.genome,
            contig=contig,
            start=rows.start,
            strand=rows.strand,
            window_id=np.where(step.repeated, -1, plan.window_id[step.row]),
            usage_row_window=measured.window,
            usage_row_position=measured.position,
            alpha=measured.alpha,
            beta=measured.beta,
            condition_mask=self._condition_mask,
            genome_names=plan.genome_names,
            condition_names=plan.condition_names,
            step=step.step,
            global_rows=step.global_rows,
            min_reads=options.min_reads,
        )

    def _put(self, block: int, slot: int, content: Block) -> None:
        self._first_base[slot], self._last_base[slot] = self._plan.block_low[block], self._plan.block_high[block]
        self._sites.put(slot, content.sites)
        self._usage.put(slot, content.usage)

    def _drop(self, slot: int) -> None:
        self._sites.drop(slot)
        self._usage.drop(slot)

    def _read(self, block: int, slot: int) -> Block:
        """Read a block: its bases into a slot, the rest into new arrays."""
        plan, g = self._plan, int(self._plan.block_genome[block])
        low, high = int(plan.block_low[block]), int(plan.block_high[block])
        source, columns = self._genomes[g], list(plan.genome_columns[g])
        position, strand, kind = source.site_position, source.site_strand, source.site_kind
        first, last = (int(i) for i in np.searchsorted(position, (low, high)))
        out = self._codes[slot, : high - low]
        bases, alpha, beta = source.read_block(low, high, first, last if columns else first, self._threads, out)
        measured = np.full(last - first, -1, dtype=np.int32)
        if len(alpha):
            alpha, beta = alpha[:, columns], beta[:, columns]
            is_measured = ~np.isnan(alpha + beta).all(axis=1)
            measured[is_measured] = np.arange(np.count_nonzero(is_measured), dtype=np.int32)
            alpha, beta = alpha[is_measured], beta[is_measured]
        sites = (position[first:last], strand[first:last], kind[first:last], measured)
        n_bytes = bases.nbytes + sum(a.nbytes for a in (*sites, alpha, beta))
        return Block(sites, (alpha.ravel(), beta.ravel()), n_bytes)


def _sum_of_largest(values: Int64, n: int) -> int:
    return int(np.sort(values)[::-1][:n].sum())
