"""Keeping a bounded number of blocks in memory, and cutting batches out of them; what a block is, subclasses know."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import StoreError
from splicestore.stream.batch import RowBatch, join_batches
from splicestore.stream.buffers import BufferRing, Make
from splicestore.stream.epoch import StepRows
from splicestore.stream.plan import BLOCKS_IN_FLIGHT, BYTES_IN_FLIGHT, BlockPlan
from splicestore.stream.statistics import StreamStatistics

Int64 = NDArray[np.int64]


class Content(Protocol):
    """What the thread that reads a block hands over beside what it wrote to the block's slot."""

    @property
    def n_bytes(self) -> int:
        """Decoded bytes of the whole block."""
        ...


Block = TypeVar("Block", bound=Content)

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


class BlockReader(ABC, Generic[Block]):
    """Keeps a bounded number of blocks in memory, least recently used out first, and cuts batches from them.

    Parameters
    ----------
    plan
        Which blocks there are.
    n_slots
        Blocks that rows are cut from at most; those that are being read have slots beside them.
    statistics
        Counted up while reading.
    buffers
        Where batches are cut to; None: into new arrays.
    """

    def __init__(
        self, plan: BlockPlan, n_slots: int, statistics: StreamStatistics, buffers: BufferRing | None = None
    ) -> None:
        claim_process()
        self._plan, self._statistics, self._buffers = plan, statistics, buffers
        self.n_slots = min(n_slots, plan.n_blocks)
        self._n_places = min(self.n_slots + BLOCKS_IN_FLIGHT + 1, plan.n_blocks)
        """Slots, those of blocks that are being read included."""
        self._slot_of = np.full(plan.n_blocks, -1, dtype=np.int64)
        self._block_in = np.zeros(self._n_places, dtype=np.int64)
        self._used = np.full(self._n_places, _NEVER, dtype=np.int64)
        """When a live slot was used last, in calls; the oldest makes room."""
        self._free = list(range(self._n_places))[::-1]
        self._n_live, self._tick = 0, 0
        self._in_flight: dict[int, tuple[Future[Block], int]] = {}
        """Block: what comes of it, and the slot that it is written to."""
        self._given_up: dict[Future[Block], int] = {}
        """Slots of what nobody waits for any more: free again once nothing writes to them."""
        self._in_flight_bytes = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="splicestore-read")

    # -- what a block is -------------------------------------------------------------------------------------

    @abstractmethod
    def _read(self, block: int, slot: int) -> Block:
        """Read a block, in a thread: what has its fixed room into the slot, the rest into new arrays."""

    @abstractmethod
    def _put(self, block: int, slot: int, content: Block) -> None:
        """Make what was read part of a live slot."""

    def _drop(self, slot: int) -> None:
        """Let go of what a slot holds beside its fixed room."""

    @abstractmethod
    def _cut_live(self, step: StepRows, block: Int64, slot: Int64, epoch: int, make: Make) -> RowBatch[NDArray[Any]]:
        """Cut rows from live slots into the arrays that ``make`` gives."""

    # -- cutting ---------------------------------------------------------------------------------------------

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

    def serves(self, plan: BlockPlan, n_slots: int) -> bool:
        """Whether this reader is of a plan and has room for so many blocks."""
        return self._plan is plan and self.n_slots >= min(n_slots, plan.n_blocks)

    @property
    def may_read_ahead(self) -> bool:
        """Whether fewer blocks and bytes are in flight (being read, or read and not yet used) than allowed."""
        return len(self._in_flight) < BLOCKS_IN_FLIGHT and self._in_flight_bytes < BYTES_IN_FLIGHT

    def block_of(self, step: StepRows) -> Int64:
        """Block of each row of a step."""
        return np.searchsorted(self._plan.block_ptr, step.row, side="right") - 1

    def prefetch(self, block: Int64) -> None:
        """Begin to read the blocks of some rows that are not in memory, as long as little is in flight."""
        claim_process()
        for missing in np.unique(block[self._slot_of[block] < 0]).tolist():
            if not self.may_read_ahead:
                return
            if missing not in self._in_flight:
                self._submit(missing)

    def cut(self, step: StepRows, block: Int64, epoch: int) -> RowBatch[NDArray[Any]]:
        """Cut the rows of a step, given their blocks, from at most ``n_slots`` blocks at a time."""
        claim_process()
        return self._cut(step, block, epoch, self._buffers)

    def _cut(self, step: StepRows, block: Int64, epoch: int, buffers: BufferRing | None) -> RowBatch[NDArray[Any]]:
        slots = self._slots_of(block)
        if slots is None:
            half = len(block) // 2
            halves = (slice(None, half), slice(half, None))
            return join_batches(
                [
                    self._cut(replace(step, row=step.row[h], repeated=step.repeated[h]), block[h], epoch, None)
                    for h in halves
                ],
                np.concatenate,
            )
        return self._cut_live(step, block, slots, epoch, np.empty if buffers is None else buffers.next_batch())

    # -- live blocks -----------------------------------------------------------------------------------------

    def _slots_of(self, block: Int64) -> Int64 | None:
        """Slots of the blocks of some rows; those not in memory are read. None: more blocks than fit at once."""
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
        """Make a block live that was read into a slot; the one used longest ago makes room."""
        if self._n_live == self.n_slots:
            self._evict(int(self._used.argmin()))
        self._n_live += 1
        self._slot_of[block], self._block_in[slot], self._used[slot] = slot, block, self._tick
        self._put(block, slot, content)
        self._statistics.blocks_read += 1
        self._statistics.bytes += content.n_bytes

    def _evict(self, slot: int) -> None:
        self._slot_of[self._block_in[slot]] = -1
        self._drop(slot)
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
