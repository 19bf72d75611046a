"""Reading blocks of many genomes and cutting batches out of the live ones."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import StoreError
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
from splicestore.stream.batch import Batch, join_batches
from splicestore.stream.buffers import BufferRing
from splicestore.stream.epoch import StepWindows
from splicestore.stream.live import Block, SegmentPool
from splicestore.stream.plan import BLOCKS_IN_FLIGHT, BYTES_IN_FLIGHT, WindowPlan
from splicestore.stream.protocols import GenomeSource
from splicestore.stream.statistics import StreamStatistics

Int64 = NDArray[np.int64]
NumpyBatch = Batch[NDArray[Any]]

_THREADS = 2 * BLOCKS_IN_FLIGHT
"""A block is three requests (bases, alpha, beta), made at the same time; over a network two of them wait at any one."""
_NEVER = np.iinfo(np.int64).max

_reading_process: int | None = None
# The one piece of module state: a fork copies it, and so tells its child that the parent had begun to read.


def claim_process() -> None:
    """Note that this process reads blocks.

    Raises
    ------
    StoreError
        In a process forked from one that had already read: the threads and connections of its storage libraries
        did not survive the fork, and the first read could hang for ever.
    """
    global _reading_process
    if _reading_process not in (None, os.getpid()):
        raise StoreError(
            f"process {os.getpid()} was forked from {_reading_process} after that had read from a store; its connections did "
            "not survive the fork. Start the workers afresh: stream.loader(num_workers=...) does, or give DataLoader "
            'multiprocessing_context="spawn"'
        )
    _reading_process = os.getpid()


class BlockReader:
    """Keeps a bounded number of blocks in memory, least recently used out first, and cuts batches from them.

    Parameters
    ----------
    plan
        Which blocks there are.
    genomes
        In the order of ``plan.genome_names``; a genome's sites are loaded when its first block is due.
    n_slots
        Blocks that windows are cut from at most; those that are being read have slots beside them. Bases take the longest
        block in every slot.
    statistics
        Counted up while reading.
    buffers
        Where batches are cut to; None: into new arrays.
    """

    def __init__(
        self,
        plan: WindowPlan,
        genomes: Sequence[GenomeSource],
        n_slots: int,
        statistics: StreamStatistics,
        buffers: BufferRing | None = None,
    ) -> None:
        claim_process()
        self._plan, self._genomes, self._statistics, self._buffers = plan, genomes, statistics, buffers
        self.n_slots = min(n_slots, plan.n_blocks)
        n_rows = min(self.n_slots + BLOCKS_IN_FLIGHT + 1, plan.n_blocks)
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
        self._slot_of = np.full(plan.n_blocks, -1, dtype=np.int64)
        self._block_in = np.zeros(n_rows, dtype=np.int64)
        self._used = np.full(n_rows, _NEVER, dtype=np.int64)
        """When a live slot was used last, in calls; the oldest makes room."""
        self._free = list(range(n_rows))[::-1]
        self._n_live, self._tick = 0, 0
        self._condition_mask = plan.condition_mask
        self._in_flight: dict[int, tuple[Future[Block], int]] = {}
        """Block: what comes of it, and the slot that its bases are written to."""
        self._given_up: dict[Future[Block], int] = {}
        """Slots of what nobody waits for any more: free again once nothing writes to them."""
        self._in_flight_bytes = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="splicestore-read")

    def close(self) -> None:
        """Stop reading and let go of the blocks."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def pause(self) -> None:
        """Stop reading ahead; what is in memory stays for the next epoch."""
        for future, slot in self._in_flight.values():
            future.cancel()
            self._given_up[future] = slot
        self._in_flight.clear()
        self._in_flight_bytes = 0

    def serves(self, plan: WindowPlan, n_slots: int) -> bool:
        """Whether this reader is of a plan and has room for so many blocks."""
        return self._plan is plan and self.n_slots >= min(n_slots, plan.n_blocks)

    @property
    def may_read_ahead(self) -> bool:
        """Whether fewer blocks and bytes are in flight (being read, or read and not yet used) than allowed."""
        return len(self._in_flight) < BLOCKS_IN_FLIGHT and self._in_flight_bytes < BYTES_IN_FLIGHT

    def block_of(self, step: StepWindows) -> Int64:
        """Block of each window of a step."""
        return np.searchsorted(self._plan.block_ptr, step.window, side="right") - 1

    def prefetch(self, block: Int64) -> None:
        """Begin to read the blocks of some windows that are not in memory, as long as little is in flight."""
        claim_process()
        for missing in np.unique(block[self._slot_of[block] < 0]).tolist():
            if not self.may_read_ahead:
                return
            if missing not in self._in_flight:
                self._submit(missing)

    def cut(self, step: StepWindows, block: Int64, epoch: int) -> NumpyBatch:
        """Cut the windows of a step, given their blocks, from at most ``n_slots`` blocks at a time."""
        claim_process()
        return self._cut(step, block, epoch, self._buffers)

    def _cut(self, step: StepWindows, block: Int64, epoch: int, buffers: BufferRing | None) -> NumpyBatch:
        slots = self._slots_of(block)
        if slots is None:
            half = len(block) // 2
            halves = (slice(None, half), slice(half, None))
            return join_batches(
                [
                    self._cut(replace(step, window=step.window[h], repeated=step.repeated[h]), block[h], epoch, None)
                    for h in halves
                ],
                np.concatenate,
            )
        return self._cut_live(step, block, slots, epoch, buffers)

    # -- cutting ---------------------------------------------------------------------------------------------

    def _rows(self, step: StepWindows, block: Int64, slot: Int64, epoch: int) -> tuple[WindowRows, NDArray[np.int32]]:
        """Windows as they are read: jittered, flipped. A window read from the other strand takes that strand's sites."""
        plan, options = self._plan, self._plan.options
        ids = plan.window_id[step.window]
        genome, contig = plan.window_genome[ids], plan.window_contig[ids]
        start, strand = plan.window_start[ids], plan.window_strand[ids]
        if options.jitter or options.reverse_complement:
            in_block = step.window - plan.block_ptr[block]
            shift, flip = draw_augmentation(options.seed, epoch, block, in_block, options.jitter)
            start = start + shift
            if options.reverse_complement:
                strand = np.where(flip, -strand, strand)
        row = plan.contig_first[genome] + contig
        return WindowRows(slot, genome, start, strand, plan.contig_start[row], plan.contig_end[row]), contig

    def _cut_live(
        self, step: StepWindows, block: Int64, slot: Int64, epoch: int, buffers: BufferRing | None
    ) -> NumpyBatch:
        plan, options = self._plan, self._plan.options
        rows, contig = self._rows(step, block, slot, epoch)
        bases = LiveBases(self._codes, self._first_base, self._last_base)
        sites = LiveSites(self._sites.first, self._sites.count, *self._sites.columns)
        alpha, beta = self._usage.columns
        usage = LiveUsage(self._usage.first, alpha, beta, self._n_columns, plan.column)
        make = np.empty if buffers is None else buffers.next_batch()
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
            window_id=np.where(step.repeated, -1, plan.window_id[step.window]),
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

    # -- live blocks -----------------------------------------------------------------------------------------

    def _slots_of(self, block: Int64) -> Int64 | None:
        """Slots of the blocks of some windows; those not in memory are read. None: more blocks than fit at once."""
        self._tick += 1
        slots = self._slot_of[block]
        if slots.min(initial=0) < 0:
            distinct = np.unique(block)
            if len(distinct) > self.n_slots:
                return None
            # What is needed becomes the most recent, so that making room for the others cannot evict it.
            self._used[slots[slots >= 0]] = self._tick
            self._read_missing(distinct[self._slot_of[distinct] < 0].tolist())
            slots = self._slot_of[block]
        self._used[slots] = self._tick
        self._statistics.cache_hits += int(np.count_nonzero(self._used == self._tick))
        return slots

    def _read_missing(self, missing: list[int]) -> None:
        unread = deque(block for block in missing if block not in self._in_flight)
        for block in missing:
            while unread and (unread[0] == block or self.may_read_ahead):
                self._submit(unread.popleft())
            self._install(block, *self._await(block))
        counts = self._statistics
        counts.cache_misses += len(missing)
        counts.cache_hits -= len(missing)
        counts.live_blocks = self._n_live
        counts.live_blocks_peak = max(counts.live_blocks_peak, self._n_live)

    def _await(self, block: int) -> tuple[int, Block]:
        future, slot = self._in_flight.pop(block)
        self._in_flight_bytes -= int(self._plan.block_bytes[block])
        began = time.perf_counter()
        is_done = future.done()
        try:
            content = future.result()
        except BaseException:
            self._given_up[future] = slot
            raise
        if not is_done:
            self._statistics.reading_seconds += time.perf_counter() - began
        return slot, content

    def _install(self, block: int, slot: int, content: Block) -> None:
        """Make a block live whose bases are in their slot; the one used longest ago makes room."""
        if self._n_live == self.n_slots:
            self._evict(int(self._used.argmin()))
        self._n_live += 1
        self._slot_of[block], self._block_in[slot], self._used[slot] = slot, block, self._tick
        self._first_base[slot], self._last_base[slot] = self._plan.block_low[block], self._plan.block_high[block]
        self._sites.put(slot, content.sites)
        self._usage.put(slot, content.usage)
        self._statistics.blocks_read += 1
        self._statistics.bytes += content.n_bytes

    def _evict(self, slot: int) -> None:
        self._slot_of[self._block_in[slot]] = -1
        self._sites.drop(slot)
        self._usage.drop(slot)
        self._used[slot] = _NEVER
        self._free.append(slot)
        self._n_live -= 1

    def _submit(self, block: int) -> None:
        slot = self._free_slot()
        self._in_flight[block] = self._threads.submit(self._read, block, slot), slot
        self._in_flight_bytes += int(self._plan.block_bytes[block])

    def _free_slot(self) -> int:
        # More are free than may be in flight, but for those that a given up read still writes to.
        if not self._free:
            wait(self._given_up, return_when=FIRST_COMPLETED)
        for future in [future for future in self._given_up if future.done()]:
            self._free.append(self._given_up.pop(future))
        return self._free.pop()

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
