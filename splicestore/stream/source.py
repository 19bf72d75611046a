"""What all streams are: whole batches in an order of (seed, epoch) alone, resumable, read ahead; no torch."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, PlanError, StateError
from splicestore.stream.batch import RowBatch
from splicestore.stream.buffers import BufferRing
from splicestore.stream.epoch import EpochOrder, Reader, StepRows, plan_epoch
from splicestore.stream.options import OrderOptions, default_lanes
from splicestore.stream.plan import BlockPlan, assign_lanes, describe_plan
from splicestore.stream.reader import BlockReader, claim_process
from splicestore.stream.state import check_state, describe_order
from splicestore.stream.statistics import StreamStatistics

STEPS_AHEAD = 64
"""Steps planned ahead, at most, to find blocks worth reading early."""

NumpyRows = RowBatch[NDArray[Any]]
Rows = TypeVar("Rows", bound=RowBatch[Any])


class BatchSource(ABC):
    """Rows in whole batches, in an order that depends on (seed, epoch) alone; subclasses say what rows are.

    A subclass's ``__init__`` calls ``_choose_process``, builds its plan, and hands it to ``_begin_stream``.
    """

    _plan: BlockPlan

    # -- what subclasses say ---------------------------------------------------------------------------------

    @abstractmethod
    def _identity(self, plan: BlockPlan) -> dict[str, Any]:
        """What decides the batches beside their order, JSON-ready."""

    @abstractmethod
    def _make_reader(self, n_slots: int, statistics: StreamStatistics, buffers: BufferRing | None) -> BlockReader[Any]:
        """Make a reader of the plan's blocks."""

    @abstractmethod
    def _count_requests(self) -> int:
        """Reads that the store was asked for so far, in this process."""

    # -- setting up ------------------------------------------------------------------------------------------

    def _choose_process(self, rank: int | None, world_size: int | None) -> int:
        """Take who this process is from the arguments or the process group; return the group's size."""
        group_rank, group_size = self._process_group()
        self.rank = group_rank if rank is None else rank
        self.world_size = group_size if world_size is None else world_size
        return group_size

    def _order_options(
        self, group_size: int, *, lanes: int | None, tail: str | None, shuffle: bool, shuffle_memory: int, **given: Any
    ) -> dict[str, Any]:
        """Options of the order, those that were not given chosen for this world."""
        self._defaulted = {name for name, value in (("lanes", lanes), ("tail", tail)) if value is None}
        return {
            **given,
            "lanes": default_lanes(self.world_size, shuffle) if lanes is None else lanes,
            "tail": ("pad" if group_size > 1 else "short") if tail is None else tail,
            "shuffle": shuffle,
            "shuffle_memory": int(shuffle_memory),
        }

    def _begin_stream(self, plan: BlockPlan, reuse_buffers: int) -> None:
        """Stand at the first step of epoch 0 of a plan."""
        if reuse_buffers < 0:
            raise ConfigError(f"reuse_buffers counts batches, from 0 on; got {reuse_buffers}")
        self._plan, self._reuse_buffers = plan, reuse_buffers
        self._epoch, self._step, self._resume_at = 0, 0, 0
        self._order: EpochOrder | None = None
        self._reader: BlockReader[Any] | None = None
        self._statistics = StreamStatistics()
        self._requests_before: int | None = None
        self.epoch_order()

    def __getstate__(self) -> dict[str, Any]:
        # The order is cheap to make and may be large; blocks, threads and counts belong to a process.
        left_behind = {"_order": None, "_reader": None, "_statistics": StreamStatistics(), "_requests_before": None}
        return {**self.__dict__, **left_behind}

    # -- what there is ---------------------------------------------------------------------------------------

    @property
    def plan(self) -> BlockPlan:
        """Rows, blocks and P: fixed before anything is read."""
        return self._plan

    @property
    def epoch(self) -> int:
        """The epoch that iteration walks through."""
        return self._epoch

    def epoch_order(self) -> EpochOrder:
        """Lanes and steps of the current epoch; a pure function of seed and epoch."""
        if self._order is None:
            self._order = plan_epoch(self._plan, self._epoch)
        return self._order

    def __len__(self) -> int:
        return self.epoch_order().n_steps

    def statistics(self) -> dict[str, Any]:
        """Counts and times so far in this process, and the plan's sizes.

        ``waiting_share`` is the share of ``seconds`` that the consumer spent waiting for batches, ``requests`` what the store
        was asked for since the first batch.
        """
        planned = {f"planned_{name}": value for name, value in describe_plan(self._plan).items()}
        before = self._requests_before
        requests = 0 if before is None else self._count_requests() - before
        return {**self._statistics.as_dict(self._plan.rows_name), "requests": requests, **planned}

    def close(self) -> None:
        """Let go of the blocks in memory and of the threads that read; the next iteration reads anew."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # -- where it stands -------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch. Another one begins at its first step; the same one changes nothing.

        So a loop may call it after ``load_state_dict`` and go on where the state says.
        """
        if not 0 <= epoch < 2**64:
            raise ConfigError(f"epoch must lie in [0, 2**64), got {epoch}")
        if epoch != self._epoch:
            self._epoch, self._step, self._resume_at, self._order = epoch, 0, 0, None

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, JSON-ready: ``step`` counts the batches handed to the consumer."""
        position = {"epoch": self._epoch, "step": self._step}
        return {**self._describe(self._plan), **position}

    def _describe(self, plan: BlockPlan) -> dict[str, Any]:
        return {**describe_order(plan), **self._identity(plan)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where a state says; the next iteration goes on from there.

        The world size may differ. Lanes and tail that were not given are taken from the state.

        Raises
        ------
        StateError
            If the state is of another stream; both sides are printed, line by line.
        """
        plan = self._plan
        taken = {
            name: state[name] for name in self._defaulted if state.get(name) not in (None, getattr(plan.options, name))
        }
        if taken and isinstance(taken.get("lanes", 1), int):
            options = replace(plan.options, **taken)
            if not _fits_world(options, self.world_size):
                raise StateError(
                    "the state does not fit this world size: every rank reads equally many lanes\n"
                    f"    state:  lanes {options.lanes}\n    stream: world_size {self.world_size}\n"
                    f"resume with a world size that divides {options.lanes}, or start without the state"
                )
            plan = assign_lanes(plan, options)
        epoch, step = check_state(state, self._describe(plan))
        order = plan_epoch(plan, epoch)
        if step > order.n_steps:
            raise StateError(f"the state stands at step {step}, but epoch {epoch} has {order.n_steps} steps")
        self._plan, self._order = plan, order
        self._epoch, self._step, self._resume_at = epoch, step, step

    # -- iteration -------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return self.numpy_batches()

    def numpy_batches(self) -> Iterator[Any]:
        """Yield the rank's part of every remaining batch of the epoch as numpy arrays.

        After ``load_state_dict`` the first call goes on where the state stands; every other begins the epoch anew.
        """
        yield from self._hand_out(self._cut_from_here())

    def _cut_from_here(self) -> Generator[tuple[NumpyRows, int], None, None]:
        """Begin to cut the remaining batches of the epoch; another thread may go on."""
        return self._cut_batches(self.epoch_order(), self._epoch, self._begin())

    def _cut_batches(self, order: EpochOrder, epoch: int, first: int) -> Generator[tuple[NumpyRows, int], None, None]:
        """Yield batches from a step on, each with the number of its rows, repeated ones not counted."""
        who = self._who()
        reader = self._take_reader(order.live_limit(who))
        try:
            for step, block in _read_ahead(reader, order.steps(who, first)):
                yield reader.cut(step, block, epoch), len(step.repeated) - int(step.repeated.sum())
        finally:
            self._keep_reader(reader)

    def _hand_out(self, batches: Iterator[tuple[Rows, int]]) -> Iterator[Rows]:
        """Pass batches on to the consumer: the place in the epoch and the counts are of what it got, not of what was cut."""
        counts, asked = self._statistics, time.perf_counter()
        for batch, n_rows in batches:
            counts.batches += 1
            counts.rows += n_rows
            self._step = batch.step + 1
            handed_out = time.perf_counter()
            counts.waiting_seconds += handed_out - asked
            counts.seconds += handed_out - asked
            yield batch
            asked = time.perf_counter()
            counts.seconds += asked - handed_out

    def _take_reader(self, n_slots: int) -> BlockReader[Any]:
        """Blocks from the epoch before, if they were kept and there is room enough."""
        claim_process()
        if self._requests_before is None:
            self._requests_before = self._count_requests()
        kept, self._reader = self._reader, None
        if kept is not None and kept.serves(self._plan, n_slots):
            return kept
        if kept is not None:
            kept.close()
        buffers = BufferRing(self._reuse_buffers, self._allocate) if self._reuse_buffers else None
        return self._make_reader(n_slots, self._statistics, buffers)

    def _keep_reader(self, reader: BlockReader[Any]) -> None:
        """Keep the blocks of the iteration that ended last; two at once do not share."""
        reader.pause()
        if self._reader is not None:
            self._reader.close()
        self._reader = reader

    def _allocate(self, n_bytes: int) -> NDArray[np.uint8]:
        """Memory of a reused buffer."""
        return np.empty(n_bytes, dtype=np.uint8)

    def _begin(self) -> int:
        """First step of an iteration that starts now."""
        first, self._resume_at = self._resume_at, 0
        self._step = first
        return first

    def _process_group(self) -> tuple[int, int]:
        """Rank and world size where none is given."""
        return 0, 1

    def _part(self) -> tuple[int, int]:
        """Which of the processes that share this rank's work this one is."""
        return 0, 1

    def _who(self) -> Reader:
        part, n_parts = self._part()
        return Reader(self.rank, self.world_size, part, n_parts)

    def _check_world(self, options: OrderOptions) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank must lie in [0, {self.world_size}), the world size, got {self.rank}")
        if not _fits_world(options, self.world_size):
            raise PlanError(
                f"world_size {self.world_size} does not divide lanes {options.lanes}: every rank reads equally many lanes; give "
                f"lanes={-(-options.lanes // self.world_size) * self.world_size} at the first start, or another world size"
            )


def _fits_world(options: OrderOptions, world_size: int) -> bool:
    """Whether every rank reads equally many lanes, or all of them."""
    return options.share == "replicate" or options.lanes % world_size == 0


def _read_ahead(reader: BlockReader[Any], steps: Iterator[StepRows]) -> Iterator[tuple[StepRows, NDArray[np.int64]]]:
    """Yield steps and the blocks of their rows, the blocks of the next steps already being read."""
    waiting: deque[tuple[StepRows, NDArray[np.int64]]] = deque()
    for step in steps:
        block = reader.block_of(step)
        reader.prefetch(block)
        waiting.append((step, block))
        while waiting and (len(waiting) > STEPS_AHEAD or not reader.may_read_ahead):
            yield waiting.popleft()
    yield from waiting
