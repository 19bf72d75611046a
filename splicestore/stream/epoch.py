"""One epoch of a plan: lanes, global batches, and which rows of them a rank or worker reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import PlanError
from splicestore.kernels.shuffle import LaneOrder, order_epoch
from splicestore.stream.options import Share, Tail
from splicestore.stream.plan import BlockPlan

Int64 = NDArray[np.int64]

_STEPS_AT_ONCE = 64
_NO_ROW = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: one of the ranks, and one of the parts (worker processes) that share a rank's work."""

    rank: int = 0
    world_size: int = 1
    part: int = 0
    n_parts: int = 1

    def lanes(self, n_lanes: int) -> range:
        """Lanes of this part: a run of the rank's lanes ``rank, rank + world_size, ...``."""
        mine = range(self.rank, n_lanes, self.world_size)
        return mine[self._bound(self.part, len(mine)) : self._bound(self.part + 1, len(mine))]

    def rows(self, n_rows: int) -> slice:
        """Rows of this part in a global batch, where every rank reads all blocks: a run of every R-th row."""
        mine = range(self.rank, n_rows, self.world_size)
        first, last = self._bound(self.part, len(mine)), self._bound(self.part + 1, len(mine))
        return slice(self.rank + first * self.world_size, self.rank + last * self.world_size, self.world_size)

    def _bound(self, part: int, n: int) -> int:
        return part * n // self.n_parts


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows that one reader cuts for one global batch."""

    step: int
    row: Int64
    """(B,) numbers in the plan."""
    repeated: NDArray[np.bool_]
    """(B,) True for rows that only fill the batch."""
    global_rows: int


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """All lanes of one epoch, and the steps that read them."""

    lanes: tuple[LaneOrder, ...]
    lane_rows: tuple[int, ...]
    batch_size: int
    tail: Tail
    share: Share

    @property
    def per_lane(self) -> int:
        """Rows of each lane in a global batch."""
        return self.batch_size // len(self.lanes)

    @property
    def n_steps(self) -> int:
        """Global batches of the epoch, the same for every rank."""
        if self.tail == "drop":
            return min(self.lane_rows) // self.per_lane
        return -(-max(self.lane_rows) // self.per_lane)

    def lanes_read(self, reader: Reader) -> range:
        """Lanes whose blocks the reader needs."""
        return range(len(self.lanes)) if self.share == "replicate" else reader.lanes(len(self.lanes))

    def live_limit(self, reader: Reader) -> int:
        """Blocks that a reader holds at most: P + 1 for each of its lanes, no more than it has."""
        lanes = [self.lanes[lane] for lane in self.lanes_read(reader)]
        return max(1, sum(min(lane.live + 1, len(lane.block)) for lane in lanes))

    def steps(self, reader: Reader, first_step: int = 0) -> Iterator[StepRows]:
        """Yield the rows of every global batch from ``first_step`` on; some batches may have none."""
        cursors = [_LaneCursor(self.lanes[n], first_step * self.per_lane) for n in self.lanes_read(reader)]
        # All lanes are whole for so many steps: these are taken many at a time, so that a step costs a few slices.
        n_whole = min(self.lane_rows) // self.per_lane
        step = first_step
        while step < self.n_steps:
            n = max(1, min(_STEPS_AT_ONCE, n_whole - step))
            yield from self._taken(reader, cursors, step, n)
            step += n

    def _taken(self, reader: Reader, cursors: Sequence[_LaneCursor], first: int, n: int) -> Iterator[StepRows]:
        """``n`` steps from ``first`` on; more than one only where no lane runs out."""
        taken = [cursor.take(n * self.per_lane, pad=self.tail == "pad") for cursor in cursors]
        if n == 1:
            window = np.concatenate([_NO_ROW, *(w for w, _ in taken)])
            repeated = np.concatenate([_NO_ROW.astype(bool), *(r for _, r in taken)])
            done = first * self.per_lane
            present = sum(min(max(n - done, 0), self.per_lane) for n in self.lane_rows)
            yield self._step(reader, first, window, repeated, present)
            return
        lanes = np.stack([w.reshape(n, self.per_lane) for w, _ in taken], axis=1) if taken else _NO_ROW
        windows, repeated = lanes.reshape(n, -1), np.zeros(len(taken) * self.per_lane, dtype=bool)
        for place in range(n):
            yield self._step(reader, first + place, windows[place], repeated, self.batch_size)

    def _step(self, reader: Reader, step: int, window: Int64, repeated: NDArray[np.bool_], present: int) -> StepRows:
        if self.share == "replicate" and (reader.world_size, reader.n_parts) != (1, 1):
            rows = reader.rows(len(window))
            window, repeated = window[rows], repeated[rows]
        return StepRows(step, window, repeated, present)


class _LaneCursor:
    """Takes consecutive windows of a lane."""

    def __init__(self, lane: LaneOrder, position: int) -> None:
        self._pieces = lane.windows_from(position)
        self._rest: Int64 = np.zeros(0, dtype=np.int64)
        self._lane, self._last = lane, -1

    def take(self, n: int, *, pad: bool) -> tuple[Int64, NDArray[np.bool_]]:
        """Return up to n windows; with ``pad`` exactly n, the missing ones repeating the lane's last window."""
        while len(self._rest) < n:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest = np.concatenate((self._rest, piece))
        window, self._rest = self._rest[:n], self._rest[n:]
        if len(window):
            self._last = int(window[-1])
        missing = n - len(window) if pad else 0
        repeated = np.concatenate((np.zeros(len(window), dtype=bool), np.ones(missing, dtype=bool)))
        return np.concatenate((window, np.full(missing, self._last_window() if missing else 0))), repeated

    def _last_window(self) -> int:
        """The lane's last window; for a lane without blocks the plan's first, which some lane holds."""
        if self._last < 0 and self._lane.n_windows:
            self._last = int(next(self._lane.windows_from(self._lane.n_windows - 1))[-1])
        return max(self._last, 0)


def plan_epoch(plan: BlockPlan, epoch: int) -> EpochOrder:
    """Order one epoch of a plan.

    Raises
    ------
    PlanError
        If no block enters the deal, or ``tail="drop"`` would drop every window.
    """
    options = plan.options
    lanes = order_epoch(
        plan.block_ptr,
        plan.entries(epoch),
        options.lanes,
        plan.live_total,
        options.seed,
        epoch,
        shuffled=options.shuffle,
    )
    counts = tuple(lane.n_windows for lane in lanes)
    order = EpochOrder(lanes, counts, options.batch_size, options.tail, plan.share)
    if order.n_steps == 0:
        raise PlanError(
            f'tail="drop" drops all {sum(counts):,} {plan.rows_name}: the shortest of {options.lanes} lanes has {min(counts):,}, a batch '
            f'takes {order.per_lane} of each; take fewer lanes, smaller batches or tail="short"'
        )
    return order
