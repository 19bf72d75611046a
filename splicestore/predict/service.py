"""``predict``: run a model over windows of stored genomes and publish what it says, by position.

Output is ``(strand, base, task)`` float16 per genome, in shards of 1 MiB of bases; only shards that hold a
window are written, everything else is absent and reads as NaN. One shard is one partition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splicestore.cluster import Executor, open_executor
from splicestore.errors import ConfigError, InputError, close_names
from splicestore.genome import Genome
from splicestore.kernels.intervals import merge_intervals
from splicestore.memory import INTERPRETER_BYTES, TORCH_BYTES, observed_peak_bytes
from splicestore.predictions import STRANDS, array_name
from splicestore.schema import BLOCK_BASES, SUBSET_NAMES, ArraySpec, Plan, check_name
from splicestore.storage import PartitionPlace, Publication, write_lease
from splicestore.storage.columns import Column, write_columns
from splicestore.storage.runs import JobShare, RunRecord
from splicestore.windows import WindowSet

if TYPE_CHECKING:
    from splicestore.store import Store

PREDICT_ENCODER = 1
PREDICTION_CHUNK = 131_072

WindowScores = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Model on a batch: (window, input) uint8 codes in transcript orientation -> (window, position, task) float32. It is
pickled where the scheduler has other processes."""


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """What to predict."""

    window_size: int
    context_size: int
    tasks: tuple[str, ...]
    model_name: str
    model_digest: str
    """sha256 of the checkpoint."""
    genomes: tuple[str, ...] = ()
    """All genomes of the store (or of the split) by default."""
    split: str | None = None
    subset: str | None = None
    """With a split: only windows of this subset."""
    regions: tuple[str, ...] = ()
    """``genome:contig:start-end`` (0-based half-open), both strands; gene windows on their own strand by default."""
    batch_size: int = 32
    force: bool = False
    steal: bool = False
    """Take over a write lease that has expired."""
    scheduler: str = "sync"
    """Who predicts the shards, as in ``open_executor``; what is stored does not depend on it."""
    profile: str | None = None
    """Write Dask's performance report (HTML) there."""

    @property
    def task_bytes(self) -> int:
        """Bytes to predict one shard on a CPU, but for the weights and what the network holds between its layers."""
        values = BLOCK_BASES * len(self.tasks) * np.dtype(np.float16).itemsize
        scores = self.batch_size * self.window_size * len(self.tasks) * np.dtype(np.float32).itemsize
        # The values, zarr's copy of them, the encoded objects, and the bytes that their digest is taken of.
        return INTERPRETER_BYTES + TORCH_BYTES + 4 * values + 2 * scores


@dataclass(frozen=True, slots=True)
class PredictReport:
    """What was predicted."""

    name: str
    generation: str
    status: str
    n_windows: Mapping[str, int]
    tasks: tuple[str, ...]
    observed_peak_bytes: int

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return {
            "name": self.name,
            "generation": self.generation,
            "status": self.status,
            "windows": dict(self.n_windows),
            "tasks": list(self.tasks),
            "observed_peak_bytes": self.observed_peak_bytes,
        }


@dataclass(frozen=True, slots=True)
class _GenomeWindows:
    """The windows of one genome that will be predicted, sorted by start."""

    genome: Genome
    windows: WindowSet

    def shards(self) -> NDArray[np.int64]:
        """Shards that hold a base of any window."""
        first, last = self.spans()
        touched = np.concatenate((first // BLOCK_BASES, (last - 1) // BLOCK_BASES))
        return np.unique(touched)

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Absolute centres, clipped to their contigs."""
        offset = self.genome.contig_offset[self.windows.contig]
        end = offset + self.genome.contig_length[self.windows.contig]
        return np.maximum(self.windows.start, offset), np.minimum(self.windows.start + self.windows.window_size, end)


def predict_windows(
    store: Store,
    name: str,
    scores: WindowScores,
    options: PredictOptions,
    *,
    share: JobShare | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> PredictReport:
    """Predict and publish; killed and started again, it goes on at the first shard that is not there.

    Parameters
    ----------
    share
        Predict only one job's share of the shards; ``finalise`` publishes when all are there.

    Raises
    ------
    ConfigError, InputError
        If a genome, contig, split or subset is unknown, or nothing is left to predict.
    """
    check_name(name, "prediction name")
    if options.split is not None and options.regions:
        raise ConfigError("--split and --region exclude each other: a split names its windows")
    if options.subset is not None and options.split is None:
        raise ConfigError("--subset needs --split: without one there are no subsets")
    chosen = [_chosen_windows(store, genome_id, options) for genome_id in _genome_ids(store, options)]
    chosen = [c for c in chosen if len(c.windows)]
    if not chosen:
        raise InputError(f"{store.url}: no window to predict with these genomes, regions and subset")
    n_windows = {c.genome.genome_id: len(c.windows) for c in chosen}
    with write_lease(store.root, f"predictions/{name}", job=share.name if share else "", steal=options.steal) as lease:
        publication, peak = _publication(store, name, chosen, options), 0
        if not publication.is_complete():
            publication.begin()
            units = _units(chosen)
            dealt = {part: i % share.of if share else 0 for i, part in enumerate(units)}
            if share is not None:
                RunRecord(share.of, dealt, {}, publication.provenance).write(store.root, publication.base)
            mine = [part for part, job in dealt.items() if job == (share.index if share else 0)]
            with open_executor(options.scheduler, urls=[store.url], profile=options.profile) as executor:
                peak = _write_parts(publication, chosen, mine, scores, options, executor, progress)
            if share is not None:
                return _report(name, publication, "partition", n_windows, options, peak)
            publication.finalise(units)
        lease.check()
        status = "published" if publication.switch() else "unchanged"
    return _report(name, publication, status, n_windows, options, peak)


def _report(
    name: str, publication: Publication, status: str, n_windows: Mapping[str, int], options: PredictOptions, peak: int
) -> PredictReport:
    observed = max(peak, observed_peak_bytes())
    return PredictReport(name, publication.generation, status, n_windows, options.tasks, observed)


def _units(chosen: Sequence[_GenomeWindows]) -> list[str]:
    return ["tables", *(f"{c.genome.genome_id}-{shard:05d}" for c in chosen for shard in c.shards().tolist())]


def _write_parts(
    publication: Publication,
    chosen: Sequence[_GenomeWindows],
    parts: Sequence[str],
    scores: WindowScores,
    options: PredictOptions,
    executor: Executor,
    progress: Callable[[str, int, int], None] | None,
) -> int:
    """Write those of the parts that are not there yet; return the largest peak memory of a worker, in bytes."""
    wanted = {part for part in parts if not publication.has_part(part)}
    tasks = [task for one in chosen for task in _shard_tasks(publication, one, wanted, scores, options)]
    left = Counter(task.one.genome.genome_id for task in tasks)
    total, peak = dict(left), 0
    names = [task.place.name for task in tasks]
    for index, observed in executor.map(_predict_shard, tasks, names=names, memory=options.task_bytes):
        genome_id = tasks[index].one.genome.genome_id
        left[genome_id] -= 1
        peak = max(peak, observed)
        if progress is not None:
            progress(genome_id, total[genome_id] - left[genome_id], total[genome_id])
    if "tables" in wanted:
        writer = publication.partition("tables")
        write_columns(writer, _region_columns(chosen))
        writer.close()
    return peak


@dataclass(frozen=True, slots=True)
class _ShardTask:
    """One shard to predict: the windows that reach into it, store and model by address."""

    place: PartitionPlace
    one: _GenomeWindows
    shard: int
    scores: WindowScores
    options: PredictOptions


def _shard_tasks(
    publication: Publication,
    one: _GenomeWindows,
    wanted: Collection[str],
    scores: WindowScores,
    options: PredictOptions,
) -> Iterator[_ShardTask]:
    """Cut the windows of a genome by shard; one that straddles two is predicted for both."""
    array = array_name(one.genome.genome_id)
    start, end = one.spans()
    for shard in one.shards().tolist():
        part = f"{one.genome.genome_id}-{shard:05d}"
        if part in wanted:
            inside = np.flatnonzero((start < (shard + 1) * BLOCK_BASES) & (end > shard * BLOCK_BASES))
            mine = _GenomeWindows(one.genome, one.windows.take(inside))
            yield _ShardTask(publication.place(part, [array]), mine, shard, scores, options)


def _genome_ids(store: Store, options: PredictOptions) -> list[str]:
    available = list(store.splits[options.split].genome_ids) if options.split else list(store.genomes)
    named = sorted({r.split(":", 1)[0] for r in options.regions})
    wanted = list(options.genomes) or named or available
    for genome_id in wanted:
        if genome_id not in available:
            raise ConfigError(
                f"no genome {genome_id!r} in {options.split or store.url}; {close_names(genome_id, available)}"
            )
    return wanted


def _chosen_windows(store: Store, genome_id: str, options: PredictOptions) -> _GenomeWindows:
    if options.split is not None:
        view = store.splits[options.split]
        genome = view.genome(genome_id)
        if (options.window_size, options.context_size > view.context_size) != (view.window_size, False):
            raise ConfigError(
                f"the model has windows of {options.window_size} + 2 x {options.context_size} bp, split {view.name} of "
                f"{view.window_size} with a guarded context of {view.context_size}: "
                "predict with --split needs the same window and no more context"
            )
        windows = genome.windows(options.window_size, options.context_size, geneless=True)
        rows = view.window_genome == view.genome_ids.index(genome_id)
        keep = view.window_has_gene[rows]
        if options.subset is not None:
            if options.subset not in SUBSET_NAMES:
                raise ConfigError(f"no subset {options.subset!r}; {close_names(options.subset, SUBSET_NAMES)}")
            keep &= view.window_subset[rows] == SUBSET_NAMES.index(options.subset)
        return _GenomeWindows(genome, windows.take(np.flatnonzero(keep)))
    genome = store.genomes[genome_id]
    mine = [r for r in options.regions if r.split(":", 1)[0] == genome_id]
    if not options.regions:
        return _GenomeWindows(genome, genome.windows(options.window_size, options.context_size))
    whole = genome.windows(options.window_size, options.context_size, region="genome")
    return _GenomeWindows(genome, whole.take(np.flatnonzero(_in_regions(genome, whole, mine))))


def _in_regions(genome: Genome, windows: WindowSet, regions: Sequence[str]) -> NDArray[np.bool_]:
    keep = np.zeros(len(windows), dtype=bool)
    for region in regions:
        contig, start, end = parse_region(region)
        row = genome.contig_row(contig)
        low = windows.start - genome.contig_offset[row]
        keep |= (windows.contig == row) & (low < end) & (low + windows.window_size > start)
    return keep


def parse_region(text: str) -> tuple[str, int, int]:
    """Parse ``genome:contig:start-end`` into (contig, start, end), 0-based half-open.

    Raises
    ------
    InputError
        If it is spelled otherwise.
    """
    try:
        _, contig, span = text.rsplit(":", 2)
        start, end = (int(p.replace(",", "")) for p in span.split("-"))
    except ValueError as error:
        raise InputError(f"region {text!r}: write GENOME:CONTIG:START-END, 0-based with the end excluded") from error
    if not 0 <= start < end:
        raise InputError(f"region {text!r}: start {start} must lie below end {end}")
    return contig, start, end


def _publication(store: Store, name: str, chosen: Sequence[_GenomeWindows], options: PredictOptions) -> Publication:
    pins: dict[str, Any] = {
        "genomes": {c.genome.genome_id: c.genome.generation for c in chosen},
        "usage": {c.genome.genome_id: list(c.genome.usage_generations) for c in chosen},
        "model": options.model_digest,
        "split": store.splits[options.split].generation if options.split else None,
    }
    plan = Plan(
        kind="prediction",
        encoder=PREDICT_ENCODER,
        inputs=(),
        parents={f"genomes/{g}": generation for g, generation in pins["genomes"].items()} | {"model": options.model_digest},
        options={
            "window_size": options.window_size, "context_size": options.context_size, "tasks": options.tasks,
            "split": pins["split"], "subset": options.subset, "regions": options.regions,
        },
        chunking={"prediction": [PREDICTION_CHUNK, BLOCK_BASES]},
    )  # fmt: skip
    specs = [_array_spec(c.genome, len(options.tasks)) for c in chosen]
    return Publication(
        root=store.root,
        path=f"predictions/{name}",
        plan=plan,
        specs=[*specs, *(c.spec() for c in _region_columns(chosen))],
        attributes={"tasks": list(options.tasks), "strands": list(STRANDS), "pins": pins, "model": options.model_name},
        provenance={"versions": {"splicestore": version("splicestore")}, "batch_size": options.batch_size},
        force=options.force,
    )


def _array_spec(genome: Genome, n_tasks: int) -> ArraySpec:
    return ArraySpec(
        array_name(genome.genome_id),
        (len(STRANDS), genome.n_bases, n_tasks),
        ("strand", f"base_{genome.genome_id}", "task"),
        "float16",
        (1, PREDICTION_CHUNK, n_tasks),
        (1, BLOCK_BASES, n_tasks),
        fill_value=float("nan"),
    )


def _region_columns(chosen: Sequence[_GenomeWindows]) -> list[Column]:
    columns = []
    for one in chosen:
        start, end = merge_intervals(*one.spans())
        dimension = f"region_{one.genome.genome_id}"
        columns.append(Column(f"region_start_{one.genome.genome_id}", start, dimension, "int64"))
        columns.append(Column(f"region_end_{one.genome.genome_id}", end, dimension, "int64"))
    return columns


def _predict_shard(task: _ShardTask) -> int:
    """Predict and write a shard; return the peak memory of this process, in bytes."""
    one, first = task.one, task.shard * BLOCK_BASES
    last = min(first + BLOCK_BASES, one.genome.n_bases)
    writer = task.place.open()
    for row, strand in enumerate(STRANDS):
        mine = np.flatnonzero(one.windows.strand == strand)
        if not len(mine):
            continue
        values = np.full((1, last - first, len(task.options.tasks)), np.nan, dtype=np.float16)
        for positions, rows in _scored(one, mine, task.scores, task.options.batch_size):
            keep = (positions >= first) & (positions < last)
            values[0, positions[keep] - first] = rows[keep]
        writer.write(array_name(one.genome.genome_id), values, (row, first))
    writer.counts["windows"] = len(one.windows)
    writer.close()
    return observed_peak_bytes()


def _scored(
    one: _GenomeWindows, rows: NDArray[np.int64], scores: WindowScores, batch_size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield (absolute positions, (position, task) scores) of windows, in forward coordinates, inside their contigs."""
    windows = one.windows.take(rows)
    start, end = (span[rows] for span in one.spans())
    for low in range(0, len(rows), batch_size):
        high = min(low + batch_size, len(rows))
        batch = scores(windows.sequence(low, high))
        minus = windows.strand[low:high] < 0
        batch[minus] = batch[minus, ::-1]
        positions = windows.start[low:high, None] + np.arange(windows.window_size)
        valid = (positions >= start[low:high, None]) & (positions < end[low:high, None])
        yield positions[valid], batch[valid]
