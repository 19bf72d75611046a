"""The stream of windows as an iterable of numpy batches; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from splicestore.errors import ConfigError, close_names
from splicestore.stream.buffers import BufferRing
from splicestore.stream.options import SHUFFLE_MEMORY_DEFAULT
from splicestore.stream.plan import BlockPlan
from splicestore.stream.protocols import StoreSource
from splicestore.stream.source import BatchSource
from splicestore.stream.statistics import StreamStatistics
from splicestore.stream.window_options import WindowOptions, check_options
from splicestore.stream.window_plan import WindowPlan, make_window_plan
from splicestore.stream.window_reader import WindowReader


class WindowBatches(BatchSource):
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

    _plan: WindowPlan

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
        group_size = self._choose_process(rank, world_size)
        table = store.splits[split]
        options = WindowOptions(
            **self._order_options(
                group_size,
                subset=subset,
                batch_size=batch_size,
                seed=seed,
                lanes=lanes,
                tail=tail,
                shuffle=shuffle,
                shuffle_memory=shuffle_memory,
                share=share,
            ),
            window_size=table.window_size,
            context_size=table.context_size if context_size is None else context_size,
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
        self._store = store
        self._begin_stream(make_window_plan(options, table, self._genomes), reuse_buffers)

    def __repr__(self) -> str:
        options = self._plan.options
        return (
            f"{type(self).__name__}({options.subset}: {self._plan.n_windows:,} windows in {self._plan.n_blocks:,} blocks of "
            f"{len(self._plan.genome_names)} genomes, {len(self):,} steps of {options.batch_size})"
        )

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

    def _identity(self, plan: BlockPlan) -> dict[str, Any]:
        return describe_windows(plan, self._generations, self._usage, self._split_digest)  # type: ignore[arg-type]

    def _make_reader(self, n_slots: int, statistics: StreamStatistics, buffers: BufferRing | None) -> WindowReader:
        return WindowReader(self._plan, self._genomes, n_slots, statistics, buffers)

    def _count_requests(self) -> int:
        return self._store.n_requests


def describe_windows(
    plan: WindowPlan, generations: Mapping[str, str], usage: Mapping[str, Sequence[str]], split_digest: str
) -> dict[str, Any]:
    """Describe which windows a stream has and how they are cut, JSON-ready."""
    options = plan.options
    return {
        "filters": {
            "genomes": list(plan.genome_names),
            "conditions": list(plan.condition_names),
            "chromosomes": options.chromosomes,
            "geneless": options.geneless,
            "siteless": options.siteless,
            "max_n": options.max_n,
            "min_coverage": options.min_coverage,
            "window_weights": {name: float(weight) for name, weight in sorted(options.window_weights.items())},
        },
        "weights": {name: float(weight) for name, weight in sorted(options.genome_weights.items())},
        "window_size": options.window_size,
        "context_size": options.context_size,
        "jitter": options.jitter,
        "reverse_complement": options.reverse_complement,
        "generations": dict(generations),
        "usage": {name: list(paths) for name, paths in usage.items()},
        "split_digest": split_digest,
    }


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
