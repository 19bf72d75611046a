"""The windows of a subset as tasks, one a lane, for any executor; no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from splicestore.cluster import Executor
from splicestore.errors import ConfigError, SpliceStoreError, TransferError
from splicestore.memory import INTERPRETER_BYTES
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_NAMES
from splicestore.stream.plan import BLOCKS_IN_FLIGHT, BYTES_IN_FLIGHT
from splicestore.stream.protocols import GenomeSource, SplitSource, StoreSource
from splicestore.stream.window_plan import WindowPlan
from splicestore.stream.window_reader import NumpyBatch
from splicestore.stream.windows import WindowBatches

Value = TypeVar("Value")

LANES_AT_MOST = 64
"""Lanes that windows are cut into: the most workers that share them. Never the number of workers: the rows of a batch, and
with them the last bits of what a network makes of it, would depend on who computes."""


class WindowLanes:
    """The windows of a subset, cut into lanes: whole blocks, about equally many windows, each window in one lane.

    How they are cut depends on the split and the options alone, so whatever is computed lane by lane is the same for any
    executor and any number of workers. The store's current split is held from now on.

    Parameters
    ----------
    store
        From ``open_store``. Tasks carry its address and open it where they run.
    split
        Name of a split.
    batch_size
        Windows of a batch; the last batch of a lane may be smaller, none is empty.
    lanes
        How many, at most: never more than there are blocks.
    options
        Others of ``WindowBatches`` (``subset``, ``context_size``, ``genomes``, ``conditions``, ``geneless`` ...).
        Windows are not shuffled unless they say so.

    Raises
    ------
    ConfigError, WindowError, PlanError, SplitError
        For options that ``WindowBatches`` refuses, fewer than one lane, weights (every window is read once), or options
        of ranks.

    Examples
    --------
    ::

        lanes = WindowLanes(open_store(url), split="run1", subset="test")
        with open_executor("processes:8") as executor:
            n_donors = sum(lanes.map(count_donors, executor))
    """

    def __init__(
        self,
        store: StoreSource,
        *,
        split: str,
        batch_size: int = 64,
        lanes: int = LANES_AT_MOST,
        **options: Any,
    ) -> None:
        if taken := sorted(_DECIDED & options.keys()):
            raise ConfigError(f"{', '.join(taken)}: every window is read once, by the task of its lane; leave it out")
        if lanes < 1:
            raise ConfigError(f"lanes must be 1 or more, got {lanes}")
        whole = _PinnedStore(store, {split: store.splits[split]})
        asked = {"shuffle": False, **options, "split": split}
        plan = _open_lane(whole, asked, batch_size, 0, lanes).plan
        self._store = _PinnedStore(store, {split: _choose(whole.splits[split], plan)})
        self._options = {name: value for name, value in asked.items() if name not in _FILTERS}
        self._batch_size = batch_size
        self._stream = _open_lane(self._store, self._options, batch_size, 0, min(lanes, plan.n_blocks))

    def __len__(self) -> int:
        return self._stream.plan.options.lanes

    def __repr__(self) -> str:
        options = self.plan.options
        return f"WindowLanes({options.subset}: {self.plan.n_windows:,} windows in {len(self)} lanes)"

    @property
    def plan(self) -> WindowPlan:
        """Windows and blocks of all lanes together."""
        return self._stream.plan

    @property
    def task_bytes(self) -> int:
        """Bytes that reading one lane takes at most, the interpreter included; what is made of the windows comes on top."""
        plan = self.plan
        live = max(lane.live + 1 for lane in self._stream.epoch_order().lanes)
        heaviest = np.sort(plan.block_bytes)[::-1]
        ahead = min(int(heaviest[:BLOCKS_IN_FLIGHT].sum()), BYTES_IN_FLIGHT + int(heaviest[0]))
        # The table is held once as the split's and once as the plan's.
        return INTERPRETER_BYTES + int(heaviest[:live].sum()) + ahead + 2 * _table_bytes(plan)

    def map(
        self,
        function: Callable[[Iterator[NumpyBatch]], Value],
        executor: Executor,
        *,
        ordered: bool = True,
        memory: int = 0,
    ) -> Iterator[Value]:
        """Run a function over the batches of every lane.

        Parameters
        ----------
        function
            Takes the batches of one lane as numpy arrays. It is pickled where the executor has other processes.
        executor
            From ``open_executor``. Lanes of workers that are lost are run again.
        ordered
            Yield values in the order of the lanes; those that come early wait here. False: as they come.
        memory
            Bytes one task may need: workers that have less are not given any.

        Raises
        ------
        SpliceStoreError
            The first that a lane raises, at once: values of the other lanes are no whole.
        StateError
            If the store does not hold what was planned any more: usage joined again, a split of other windows.
        FailedPartitionsError
            If lanes failed for another reason; they are named.
        """
        task = _LaneTask(function, self._store, self._options, self._batch_size, len(self), self._stream.state_dict())
        names = [f"lane {lane} of {len(self)}" for lane in range(len(self))]
        early: dict[int, Value] = {}
        due = 0
        for lane, value in executor.map(task, range(len(self)), names=names, memory=memory):
            if isinstance(value, _Refused):
                raise value.error
            if not ordered:
                yield value
                continue
            early[lane] = value
            while due in early:
                yield early.pop(due)
                due += 1


_DECIDED = frozenset({"tail", "share", "rank", "world_size", "genome_weights", "window_weights"})
_FILTERS = frozenset({"chromosomes", "geneless", "siteless", "max_n", "min_coverage"})


class _ChosenSplit:
    """A split whose streamed subset has the chosen windows and no others. Pickled by the split's address and a bit a window.

    Windows are chosen once, where the lanes are planned: some filters look at every base.
    """

    def __init__(self, split: SplitSource, subset: str, bits: NDArray[np.uint8]) -> None:
        self._split, self._subset, self._bits = split, subset, bits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._split, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _ChosenSplit, (self._split, self._subset, self._bits)

    @cached_property
    def window_subset(self) -> NDArray[np.uint8]:
        """(window,) the subset's code, or that of excluded ones."""
        chosen = np.unpackbits(self._bits, count=len(self._split.window_start)).astype(bool)
        return np.where(chosen, SUBSET_NAMES.index(self._subset), SUBSET_EXCLUDED).astype(np.uint8)


def _choose(split: SplitSource, plan: WindowPlan) -> SplitSource:
    chosen = np.zeros(len(split.window_start), dtype=bool)
    chosen[plan.window_id] = True
    return cast("SplitSource", _ChosenSplit(split, plan.options.subset, np.packbits(chosen)))


@dataclass(frozen=True, slots=True)
class _PinnedStore:
    """A store, and of its splits one generation of one. Pickled by address."""

    store: StoreSource
    splits: Mapping[str, SplitSource]

    def open_pinned(self, split: Any, genome_ids: Sequence[str]) -> Sequence[GenomeSource]:
        return self.store.open_pinned(split, genome_ids)

    @property
    def n_requests(self) -> int:
        return self.store.n_requests


@dataclass(frozen=True, slots=True)
class _Refused:
    """An error of ours as a value: a task that raised it would not keep the other lanes from being computed."""

    error: SpliceStoreError


@dataclass(frozen=True, slots=True)
class _LaneTask(Generic[Value]):
    """Opens a store, cuts one lane, runs the function over its batches."""

    function: Callable[[Iterator[NumpyBatch]], Value]
    store: _PinnedStore
    options: Mapping[str, Any]
    batch_size: int
    n_lanes: int
    state: Mapping[str, Any]
    """Of the planned stream: a task that finds another one in the store refuses."""

    def __call__(self, lane: int) -> Value | _Refused:
        try:
            stream = _open_lane(self.store, self.options, self.batch_size, lane, self.n_lanes)
            stream.load_state_dict(self.state)
            with closing(stream):
                # Lanes differ in length by up to a block; the steps of the longest are empty in the others.
                return self.function(batch for batch in stream if len(batch))
        except TransferError:
            raise
        except SpliceStoreError as error:
            return _Refused(error)


def _open_lane(
    store: _PinnedStore, options: Mapping[str, Any], batch_size: int, lane: int, n_lanes: int
) -> WindowBatches:
    """A lane is what one rank reads where there are as many ranks as lanes."""
    return WindowBatches(
        store,
        **options,
        batch_size=n_lanes * batch_size,
        lanes=n_lanes,
        rank=lane,
        world_size=n_lanes,
        tail="short",
        share="lanes",
    )


def _table_bytes(plan: WindowPlan) -> int:
    values = (getattr(plan, field.name) for field in fields(plan))
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))
