"""Publishing what tasks write: lease, partitions that are not there yet, tables, manifest, switch, and what memory it took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from splicestore.cluster import open_executor
from splicestore.errors import PlanError
from splicestore.memory import format_bytes, observed_peak_bytes
from splicestore.storage import PartitionPlace, Publication, StoreRoot, write_lease
from splicestore.storage.columns import Column, write_columns

TABLES = "tables"
"""Name of the partition that holds the small columns of a generation."""

Progress = Callable[[str, int, int], None]
"""Called with what is counted, how many tasks are done, and of how many."""


class TaskOptions(Protocol):
    """The options of a service that decide how its tasks run, and nothing of what they write."""

    @property
    def scheduler(self) -> str:
        """As in ``open_executor``."""
        ...

    @property
    def max_memory(self) -> int | None:
        """Bytes that one task may need."""
        ...

    @property
    def profile(self) -> str | None:
        """File for Dask's profile."""
        ...

    @property
    def force(self) -> bool:
        """Switch even if another writer published meanwhile."""
        ...

    @property
    def steal(self) -> bool:
        """Take a lease that another holds."""
        ...


class PlacedTask(Protocol):
    """A task that writes one partition."""

    @property
    def place(self) -> PartitionPlace:
        """Where to."""
        ...


Task = TypeVar("Task")
Result = TypeVar("Result")
Placed = TypeVar("Placed", bound=PlacedTask)


@dataclass(frozen=True, slots=True)
class Job(Generic[Placed]):
    """One generation that tasks write."""

    path: str
    """``<kind>/<name>``."""
    publication: Callable[[], Publication]
    """Called once the lease is held: it reads the pointer that the switch compares with."""
    tasks: Callable[[Publication], Iterable[Placed]]
    """All of them, done before or not."""
    run: Callable[[Placed], int]
    """Write the partition of a task; returns the peak memory of its process, in bytes."""
    tables: Callable[[Publication], Iterable[Column]]
    """The columns of the partition ``tables``, called when all tasks are done."""
    memory: int
    """Bytes that a task may need."""
    unit: str
    """What the tasks divide, for progress."""
    attributes: Callable[[Publication], Mapping[str, Any]] = lambda _: {}
    """Group attributes that are known when all is written."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job."""

    publication: Publication
    status: str
    """published | unchanged."""
    observed_peak_bytes: int
    """Of this process and all workers."""


def refuse_oversized(what: str, needed: int, options: TaskOptions, advice: str = "") -> None:
    """Refuse a job before it runs.

    Raises
    ------
    PlanError
        If a task needs more than ``max_memory``.
    """
    if options.max_memory is not None and needed > options.max_memory:
        raise PlanError(
            f"{what}: a task needs up to {format_bytes(needed)}, --max-memory allows {format_bytes(options.max_memory)}{advice}"
        )


def publish_in_tasks(root: StoreRoot, job: Job[Placed], options: TaskOptions, progress: Progress | None) -> Outcome:
    """Write the partitions of a generation that are not there yet, its tables, and make it current.

    Raises
    ------
    LeaseHeldError
        If another process is writing this name.
    FailedPartitionsError
        If tasks failed; the others are done, and the same call goes on.
    """
    peak = 0
    with write_lease(root, job.path, steal=options.steal) as lease:
        publication = job.publication()
        publication.force = options.force
        if not publication.is_complete():
            publication.begin()
            tasks = list(job.tasks(publication))
            todo = [task for task in tasks if not publication.has_part(task.place.name)]
            names = [task.place.name for task in todo]
            peak = max(run_tasks(root.url, job.run, todo, names, job.memory, options, progress, job.unit), default=0)
            if not publication.has_part(TABLES):
                writer = publication.partition(TABLES)
                write_columns(writer, job.tables(publication))
                writer.close()
            publication.provenance.update(
                projected_peak_bytes=job.memory, observed_peak_bytes=max(peak, observed_peak_bytes())
            )
            parts = [TABLES, *(task.place.name for task in tasks)]
            publication.finalise(parts, job.attributes(publication))
        lease.check()
        status = "published" if publication.switch() else "unchanged"
    return Outcome(publication, status, max(peak, observed_peak_bytes()))


def run_tasks(
    url: str,
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    names: Sequence[str],
    memory: int,
    options: TaskOptions,
    progress: Progress | None,
    unit: str,
) -> Iterator[Result]:
    """Run a function over tasks on the chosen scheduler; yield results as they complete."""
    if not tasks:
        return
    with open_executor(options.scheduler, urls=[url], profile=options.profile) as executor:
        for done, (_, result) in enumerate(executor.map(function, tasks, names=names, memory=memory), start=1):
            yield result
            if progress is not None:
                progress(unit, done, len(tasks))
