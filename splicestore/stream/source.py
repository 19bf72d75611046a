"""The stream of windows as an iterable of numpy batches; no torch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, PlanError, StateError, close_names
from splicestore.stream.batch import Batch
from splicestore.stream.buffers import BufferRing
from splicestore.stream.epoch import EpochOrder, Reader, StepWindows, plan_epoch
from splicestore.stream.options import LANES_DEFAULT, StreamOptions, check_options
from splicestore.stream.plan import WindowPlan, assign_lanes, describe_plan, make_plan
from splicestore.stream.protocols import StoreSource
from splicestore.stream.reader import BlockReader, NumpyBatch, claim_process
from splicestore.stream.state import check_state, describe_stream
from splicestore.stream.statistics import StreamStatistics

SHUFFLE_MEMORY_DEFAULT = 512 * 1024 * 1024
STEPS_AHEAD = 64
"""Steps planned ahead, at most, to find blocks worth reading early."""


class WindowBatches:
    """Windows of one subset of a split, in whole batches, in an order that depends on (seed, epoch) alone.

    Parameters
    ----------
    store
        From ``open_store``.
    split
        Name of a split. Its generation, and the generations of the genomes that it pins, are held from now on.
    subset
        ``train``, ``val`` or ``test``.
    batch_size
        Windows of a global batch, over all ranks; a multiple of ``lanes``.
    seed
        In [0, 2**64).
    context_size
        Bases on each side of a window, at most the split's; None for the split's.
    lanes
        Independent runs of blocks that a batch draws from equally; a multiple of the world size. None: 8, or the
        world size rounded up to a multiple of 8; without shuffling one per rank, so that one process gets the
        windows in the order of the table.
    tail
        When the lanes run out: ``short`` (smaller batches; every window exactly once), ``pad`` (repeated rows with
        ``window_id`` -1, label 255 and no usage) or ``drop`` (whole batches only). None: ``pad`` under a
        torch process group, else ``short``.
    shuffle
        False: blocks and windows in the order of the table.
    shuffle_memory
        Bytes that live blocks may take, over all lanes and ranks; decides how many blocks are mixed (P).
    genomes, conditions
        Names to restrict the stream to; None for all. Chosen conditions keep the order given.
    chromosomes
        Names, for all genomes or as a mapping from genome to names; ``1`` also finds ``chr1``. None for all.
    geneless, siteless
        Share of the windows without a gene, and without a splice site on their strand, that are kept: the same ones in
        every epoch.
    max_n
        Largest share of a window's input that may be N or beyond the contig; reads the bases of all windows once, when
        the stream is made.
    min_coverage
        Only windows with a site on their strand that has this many reads (alpha + beta) in a chosen condition.
    genome_weights
        How often a genome's blocks enter an epoch: 2.25 = twice, and a quarter of them once more.
    window_weights
        How often windows of a class enter an epoch: ``site`` (a splice site on their strand), else ``gene`` (meets one),
        else ``geneless``. 2.25 = twice, and a quarter of them (the same ones in every epoch) once more.
    jitter
        Largest random shift of a window, in bp; ``context_size + jitter`` is at most the split's context, so
        that no shifted window reaches bases the split kept apart.
    reverse_complement
        Read a random half of the windows from the other strand: the input is reverse-complemented, and labels and
        usage are those of *that* strand's sites. A donor read backwards is no donor, so labels are never just
        mirrored.
    min_reads
        Travels with the batches: SSE below this many reads is not measured. Labels and rows do not depend on it.
    reuse_buffers
        0: every batch has arrays of its own. n > 0: the arrays of a batch are overwritten when n further ones have been cut,
        which spares the page faults of new memory; for loops that copy or consume a batch before they ask for the next.
    rank, world_size
        Who this process is; None: the torch process group's, or the only one.
    share
        ``lanes``: each rank reads its own lanes. ``replicate``: every rank reads all blocks and takes every R-th row of
        the same global batch. ``auto``: lanes from 64 blocks a lane on.

    Raises
    ------
    ConfigError, WindowError, PlanError, SplitError
        For options out of range, a context beyond the split's, batches that lanes do not divide, no windows.
    """

    def __init__(
        self,
        store: StoreSource,
        *,
        split: str,
        subset: str = "train",
        batch_size: int = 256,
        seed: int = 0,
        context_size: int | None = None,
        lanes: int | None = None,
        tail: str | None = None,
        shuffle: bool = True,
        shuffle_memory: int = SHUFFLE_MEMORY_DEFAULT,
        genomes: Sequence[str] | None = None,
        conditions: Sequence[str] | None = None,
        chromosomes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        geneless: float = 1.0,
        siteless: float = 1.0,
        max_n: float = 1.0,
        min_coverage: float = 0.0,
        genome_weights: Mapping[str, float] | None = None,
        window_weights: Mapping[str, float] | None = None,
        jitter: int = 0,
        reverse_complement: bool = False,
        min_reads: float = 10,
        reuse_buffers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        share: str = "auto",
    ) -> None:
        group_rank, group_size = self._process_group()
        self.rank = group_rank if rank is None else rank
        self.world_size = group_size if world_size is None else world_size
        table = store.splits[split]
        options = StreamOptions(
            subset=subset,
            batch_size=batch_size,
            seed=seed,
            window_size=table.window_size,
            context_size=table.context_size if context_size is None else context_size,
            lanes=_default_lanes(self.world_size, shuffle) if lanes is None else lanes,
            tail=("pad" if group_size > 1 else "short") if tail is None else tail,  # type: ignore[arg-type]
            shuffle=shuffle,
            shuffle_memory=int(shuffle_memory),
            genomes=_chosen(genomes, table.genome_ids, f"split {split}"),
            conditions=None if conditions is None else tuple(conditions),
            chromosomes=_chromosome_names(chromosomes),
            geneless=float(geneless),
            siteless=float(siteless),
            max_n=float(max_n),
            min_coverage=float(min_coverage),
            genome_weights=dict(genome_weights or {}),
            window_weights=dict(window_weights or {}),
            jitter=jitter,
            reverse_complement=bool(reverse_complement),
            share=share,  # type: ignore[arg-type]
            min_reads=min_reads,
        )
        check_options(options, table)
        self._check_world(options)
        _chosen(list(options.genome_weights), options.genomes, "genome_weights: the stream")
        if isinstance(options.chromosomes, Mapping):
            _chosen(list(options.chromosomes), options.genomes, "chromosomes: the stream")
        self._generations = {name: table.genome_generations[name] for name in options.genomes}
        self._genomes = store.open_pinned(table, options.genomes)
        self._usage = {
            name: genome.usage_generations for name, genome in zip(options.genomes, self._genomes, strict=True)
        }
        self._split_digest = table.digest
        self._plan = make_plan(options, table, self._genomes)
        self._defaulted = {name for name, value in (("lanes", lanes), ("tail", tail)) if value is None}
        self._epoch, self._step, self._resume_at = 0, 0, 0
        self._order: EpochOrder | None = None
        if reuse_buffers < 0:
            raise ConfigError(f"reuse_buffers counts batches, from 0 on; got {reuse_buffers}")
        self._reuse_buffers = reuse_buffers
        self._store = store
        self._reader: BlockReader | None = None
        self._statistics = StreamStatistics()
        self._requests_before: int | None = None
        self.epoch_order()

    def __repr__(self) -> str:
        options = self._plan.options
        return (
            f"{type(self).__name__}({options.subset}: {self._plan.n_windows:,} windows in {self._plan.n_blocks:,} blocks of "
            f"{len(self._plan.genome_names)} genomes, {len(self):,} steps of {options.batch_size})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # The order is cheap to make and may be large; blocks, threads and counts belong to a process.
        left_behind = {"_order": None, "_reader": None, "_statistics": StreamStatistics(), "_requests_before": None}
        return {**self.__dict__, **left_behind}

    # -- what there is ---------------------------------------------------------------------------------------

    @property
    def plan(self) -> WindowPlan:
        """Windows, blocks and P: fixed before anything is read."""
        return self._plan

    @property
    def genome_names(self) -> tuple[str, ...]:
        """What ``batch.genome`` indexes."""
        return self._plan.genome_names

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Columns of alpha and beta."""
        return self._plan.condition_names

    @property
    def input_length(self) -> int:
        """Bases of an input, in bp: window and context."""
        return self._plan.options.input_length

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
        requests = 0 if before is None else self._store.n_requests - before
        return {**self._statistics.as_dict(), "requests": requests, **planned}

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
        return {**describe_stream(self._plan, self._generations, self._usage, self._split_digest), **position}

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
            if options.lanes % self.world_size:
                raise StateError(
                    "the state does not fit this world size: every rank reads equally many lanes\n"
                    f"    state:  lanes {options.lanes}\n    stream: world_size {self.world_size}\n"
                    f"resume with a world size that divides {options.lanes}, or start without the state"
                )
            plan = assign_lanes(plan, options)
        epoch, step = check_state(state, describe_stream(plan, self._generations, self._usage, self._split_digest))
        order = plan_epoch(plan, epoch)
        if step > order.n_steps:
            raise StateError(f"the state stands at step {step}, but epoch {epoch} has {order.n_steps} steps")
        self._plan, self._order = plan, order
        self._epoch, self._step, self._resume_at = epoch, step, step

    # -- iteration -------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return self.numpy_batches()

    def numpy_batches(self) -> Iterator[NumpyBatch]:
        """Yield the rank's part of every remaining batch of the epoch as numpy arrays.

        After ``load_state_dict`` the first call goes on where the state stands; every other begins the epoch anew.
        """
        yield from self._hand_out(self._cut_from_here())

    def _cut_from_here(self) -> Generator[tuple[NumpyBatch, int], None, None]:
        """Begin to cut the remaining batches of the epoch; another thread may go on."""
        return self._cut_batches(self.epoch_order(), self._epoch, self._begin())

    def _cut_batches(self, order: EpochOrder, epoch: int, first: int) -> Generator[tuple[NumpyBatch, int], None, None]:
        """Yield batches from a step on, each with the number of its windows, repeated rows not counted."""
        who = self._who()
        reader = self._take_reader(order.live_limit(who))
        try:
            for step, block in _read_ahead(reader, order.steps(who, first)):
                yield reader.cut(step, block, epoch), len(step.repeated) - int(step.repeated.sum())
        finally:
            self._keep_reader(reader)

    def _hand_out(self, batches: Iterator[tuple[Batch[Any], int]]) -> Iterator[Batch[Any]]:
        """Pass batches on to the consumer: the place in the epoch and the counts are of what it got, not of what was cut."""
        counts, asked = self._statistics, time.perf_counter()
        for batch, n_windows in batches:
            counts.batches += 1
            counts.windows += n_windows
            self._step = batch.step + 1
            handed_out = time.perf_counter()
            counts.waiting_seconds += handed_out - asked
            counts.seconds += handed_out - asked
            yield batch
            asked = time.perf_counter()
            counts.seconds += asked - handed_out

    def _take_reader(self, n_slots: int) -> BlockReader:
        """Blocks from the epoch before, if they were kept and there is room enough."""
        claim_process()
        if self._requests_before is None:
            self._requests_before = self._store.n_requests
        kept, self._reader = self._reader, None
        if kept is not None and kept.serves(self._plan, n_slots):
            return kept
        if kept is not None:
            kept.close()
        buffers = BufferRing(self._reuse_buffers, self._allocate) if self._reuse_buffers else None
        return BlockReader(self._plan, self._genomes, n_slots, self._statistics, buffers)

    def _keep_reader(self, reader: BlockReader) -> None:
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

    def _check_world(self, options: StreamOptions) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank must lie in [0, {self.world_size}), the world size, got {self.rank}")
        if options.lanes % self.world_size:
            raise PlanError(
                f"world_size {self.world_size} does not divide lanes {options.lanes}: every rank reads equally many lanes; give "
                f"lanes={-(-options.lanes // self.world_size) * self.world_size} at the first start, or another world size"
            )


def _read_ahead(reader: BlockReader, steps: Iterator[StepWindows]) -> Iterator[tuple[StepWindows, NDArray[np.int64]]]:
    """Yield steps and the blocks of their windows, the blocks of the next steps already being read."""
    waiting: deque[tuple[StepWindows, NDArray[np.int64]]] = deque()
    for step in steps:
        block = reader.block_of(step)
        reader.prefetch(block)
        waiting.append((step, block))
        while waiting and (len(waiting) > STEPS_AHEAD or not reader.may_read_ahead):
            yield waiting.popleft()
    yield from waiting


def _default_lanes(world_size: int, shuffle: bool) -> int:
    if not shuffle:
        return world_size
    return max(LANES_DEFAULT, -(-world_size // LANES_DEFAULT) * LANES_DEFAULT)


def _chromosome_names(
    wanted: Sequence[str] | Mapping[str, Sequence[str]] | None,
) -> Mapping[str, tuple[str, ...]] | tuple[str, ...] | None:
    if wanted is None:
        return None
    if isinstance(wanted, Mapping):
        return {genome: (names,) if isinstance(names, str) else tuple(names) for genome, names in wanted.items()}
    return (wanted,) if isinstance(wanted, str) else tuple(wanted)


def _chosen(wanted: Sequence[str] | None, known: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the wanted names in the order of ``known``."""
    if wanted is None:
        return tuple(known)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{where} has no genome {name!r}; {close_names(name, known)}")
    return tuple(name for name in known if name in wanted)
