"""How long, how much memory, how much disk: of an ingest, before it runs, from file sizes and heads alone.

Sizes of all files and the heads of some of each kind give the counts of every genome; ``costs`` turns counts into seconds
and bytes; the scheduler and the machine turn those into hours and a verdict.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splicestore.cluster import IN_FLIGHT_PER_THREAD, parse_scheduler
from splicestore.config import GenomeConfig, GenomesConfig
from splicestore.errors import ConfigError
from splicestore.ingest.costs import (
    FASTER,
    RATES,
    SLOWER,
    GenomeCounts,
    Partitions,
    Requests,
    Span,
    UsageCounts,
    driver_peak_bytes,
    footprint_of,
    partitions_of,
    task_increment_bytes,
)
from splicestore.ingest.genomes import choose_genomes
from splicestore.ingest.survey import PresentInputs, Survey, count_genome, survey_inputs
from splicestore.memory import INTERPRETER_BYTES, format_bytes
from splicestore.storage import StoreRoot
from splicestore.storage.inputs import READ_BYTES, is_object_url

REQUEST_S = (0.01, 0.1)
"""Seconds a request to an object store takes, taken for granted: same region, or across an ocean."""
BANDWIDTH = (200e6, 20e6)
"""Bytes per second to and from an object store, taken for granted."""

# -- one genome ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GenomeEstimate:
    """What one genome will take."""

    genome_id: str
    counts: GenomeCounts
    is_seekable: bool
    """Whether its FASTA can be entered midway, so that shards are tasks."""
    bytes_in: int
    """Of its inputs, as stored."""
    stored_bytes: int
    n_objects: int
    """At most; its share of the store's own documents included."""
    requests: Requests
    notes: tuple[str, ...] = ()
    """What could not be told from the heads."""

    @property
    def n_bases(self) -> int:
        """Bases of the genome."""
        return self.counts.bases

    @property
    def n_genes(self) -> int:
        """Genes."""
        return self.counts.genes

    @property
    def n_sites(self) -> int:
        """Splice sites."""
        return self.counts.sites

    @property
    def n_conditions(self) -> int:
        """Conditions of the usage panel."""
        return self.counts.usage.n_conditions

    @property
    def n_partitions(self) -> Partitions:
        """How it is cut."""
        return partitions_of(self.counts)

    def n_tasks(self, n_workers: int) -> int:
        """Tasks, where partitions are: a FASTA that cannot be entered midway is read by each worker once."""
        parts = self.n_partitions
        return (parts.sequence if self.is_seekable else min(n_workers, parts.sequence)) + parts.usage

    @property
    def serial_s(self) -> float:
        """CPU seconds of the driver on the benchmark's machine."""
        c = self.counts
        return RATES.scan_base * c.bases + RATES.annotation_byte * c.annotation_text

    @property
    def parallel_s(self) -> float:
        """CPU seconds of all tasks on the benchmark's machine, where everything joins."""
        return RATES.encode_base * self.counts.bases + RATES.usage_row * self.counts.usage.rows

    @property
    def missed_s(self) -> float:
        """CPU seconds more where every junction has an end that joins nothing."""
        return RATES.missed_end * self.counts.usage.junctions

    @property
    def cpu_seconds(self) -> Span:
        """CPU seconds, without the start of the process."""
        all_s = self.serial_s + self.parallel_s
        return Span(FASTER * all_s, SLOWER * (all_s + self.missed_s))

    @property
    def driver_bytes(self) -> int:
        """Peak of the process that plans and gathers."""
        return driver_peak_bytes(self.counts)

    def all_joining(self) -> GenomeEstimate:
        """As if every row of usage lay on a splice site: the least memory, where ``peak_bytes`` is the most."""
        return replace(self, counts=replace(self.counts, usage=self.counts.usage.all_joining()))

    @property
    def task_bytes(self) -> int:
        """Peak of a worker process with one thread."""
        return INTERPRETER_BYTES + task_increment_bytes(self.counts)

    @property
    def peak_bytes(self) -> int:
        """Peak of one process that does it all (``--scheduler sync``)."""
        return self.driver_bytes + task_increment_bytes(self.counts)


def _input_requests(urls_and_sizes: Iterable[tuple[str, int]]) -> int:
    """Read an input of an object store: digested, read, and (a FASTA) read again; a few to look at its beginning."""
    return sum(6 + 3 * -(-size // READ_BYTES) for url, size in urls_and_sizes if is_object_url(url))


def _estimate_one(survey: Survey, inputs: PresentInputs) -> GenomeEstimate:
    counts, notes = count_genome(survey, inputs)
    genome = inputs.genome
    urls = dict.fromkeys(u for u in (genome.fasta, genome.annotation, genome.aliases, genome.samples) if u is not None)
    sizes = [(url, survey.sizes[url] or 0) for url in {**urls, **dict.fromkeys(u.file for u in inputs.usage)}]
    footprint = footprint_of(counts)
    reads = Requests(0, _input_requests(sizes), 0)
    return GenomeEstimate(
        genome_id=genome.genome_id,
        counts=counts,
        is_seekable=survey.is_seekable(genome.fasta),
        bytes_in=sum(size for _, size in sizes),
        stored_bytes=footprint.stored_bytes,
        n_objects=footprint.n_objects,
        requests=footprint.requests + reads,
        notes=notes,
    )


def estimate_genome(genome: GenomeConfig, storage_options: Mapping[str, Any] | None = None) -> GenomeEstimate:
    """Estimate what a genome will take, from the sizes and heads of its files.

    Parameters
    ----------
    genome
        As configured.
    storage_options
        For inputs on object storage.

    Raises
    ------
    InputError
        Naming every file that is missing and not optional.
    """
    return estimate_genomes([genome], storage_options)[0]


def estimate_genomes(
    genomes: Sequence[GenomeConfig], storage_options: Mapping[str, Any] | None = None
) -> list[GenomeEstimate]:
    """Estimate several genomes together: of files of the same role and ending, the heads of at most six are read."""
    survey, inputs = survey_inputs(genomes, storage_options)
    return [_estimate_one(survey, one) for one in inputs]


# -- the machine and the whole -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Machine:
    """What an ingest may use where it is started."""

    cores: int
    memory_bytes: int
    disk_free_bytes: int | None = None
    """Of the store's file system; None: the store is on an object store."""

    @classmethod
    def here(cls, store_url: str) -> Machine:
        """Describe this machine, within the limits of its control group, and the disk that a store is on."""
        return cls(_cores(), _memory_bytes(), _free_bytes(store_url))


_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [Path(name).read_text().strip() for name in _CGROUP_LIMITS if Path(name).exists()]
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])


def _free_bytes(store_url: str) -> int | None:
    if not StoreRoot(store_url).backend.is_local:
        return None
    folder = Path(store_url.split("://", 1)[-1]).absolute()
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an ingest of several genomes will take on a machine, under a scheduler."""

    genomes: tuple[GenomeEstimate, ...]
    scheduler: str
    n_workers: int
    """Tasks that run at once."""
    machine: Machine

    @property
    def whole_genomes(self) -> bool:
        """Whether a task is a genome, as it is where there are at least two for each worker, not a partition."""
        return self.n_workers > 1 and len(self.genomes) >= 2 * self.n_workers

    @property
    def bytes_in(self) -> int:
        """Of all inputs, as stored."""
        return sum(g.bytes_in for g in self.genomes)

    @property
    def stored_bytes(self) -> int:
        """In the store in the end."""
        return sum(g.stored_bytes for g in self.genomes)

    @property
    def n_objects(self) -> int:
        """In the store in the end, at most."""
        return sum(g.n_objects for g in self.genomes)

    @property
    def requests(self) -> Requests:
        """To object stores."""
        return sum((g.requests for g in self.genomes), Requests(0, 0, 0))

    @property
    def n_partitions(self) -> int:
        """Of all genomes."""
        return sum(g.n_partitions.total for g in self.genomes)

    @property
    def n_tasks(self) -> int:
        """Submitted to the scheduler, over the whole run."""
        if self.whole_genomes:
            return len(self.genomes)
        return sum(g.n_tasks(self.n_workers) for g in self.genomes)

    @property
    def cpu_seconds(self) -> Span:
        """Of all processes."""
        starts = RATES.start + self.n_workers * self._worker_start
        return sum((g.cpu_seconds for g in self.genomes), Span(FASTER * starts, SLOWER * starts))

    @property
    def wall_seconds(self) -> Span:
        """From start to end, if nothing else runs on the cores."""
        start = RATES.start + self._worker_start * max(1.0, self.n_workers / self.machine.cores)
        low, high = (FASTER * (start + self._busy(missed=False)), SLOWER * (start + self._busy(missed=True)))
        if self.machine.disk_free_bytes is None:
            at_once = self.n_workers if self.whole_genomes else 1
            waits = [self.requests.total * s / at_once + self.stored_bytes / b
                     for s, b in zip(REQUEST_S, BANDWIDTH, strict=True)]  # fmt: skip
            low, high = low + waits[0], high + waits[1]
        return Span(low, high)

    def _busy(self, *, missed: bool) -> float:
        """Seconds until all is done, on cores as fast as the benchmark's."""
        at_once = self.n_workers if self._is_elsewhere else min(self.n_workers, self.machine.cores)
        whole = [g.serial_s + g.parallel_s + (g.missed_s if missed else 0) for g in self.genomes]
        if self.whole_genomes:
            return max(sum(whole) / at_once, *whole)
        shared = [max(1, min(at_once, g.n_tasks(self.n_workers))) for g in self.genomes]
        return sum(g.serial_s + (w - g.serial_s) / n for g, w, n in zip(self.genomes, whole, shared, strict=True))

    @property
    def _kind(self) -> str:
        return parse_scheduler(self.scheduler)[0]

    @property
    def _worker_start(self) -> float:
        """Workers of a cluster are there already."""
        return RATES.worker_start if self._kind == "processes" else 0.0

    @property
    def _is_elsewhere(self) -> bool:
        return self._kind in ("address", "file")

    @property
    def worker_bytes(self) -> int:
        """Peak of one worker process with one thread."""
        return max(g.peak_bytes if self.whole_genomes else g.task_bytes for g in self.genomes)

    @property
    def peak_bytes(self) -> int:
        """Peak of all processes on this machine together."""
        return peak_on_machine(self.genomes, self._kind, self.n_workers)

    @property
    def least_peak_bytes(self) -> int:
        """The same, where every row of usage lies on a splice site."""
        return peak_on_machine([g.all_joining() for g in self.genomes], self._kind, self.n_workers)

    @property
    def fits(self) -> bool:
        """Whether memory and disk are enough here, whatever the usage files hold."""
        return self.peak_bytes <= self.machine.memory_bytes and self._has_disk

    @property
    def may_fit(self) -> bool:
        """Whether they are enough where most junctions lie on annotated splice sites."""
        return self.least_peak_bytes <= self.machine.memory_bytes and self._has_disk

    @property
    def _has_disk(self) -> bool:
        disk = self.machine.disk_free_bytes
        return disk is None or self.stored_bytes <= disk

    @property
    def peak_text(self) -> str:
        """Least and most memory on this machine."""
        return spell_bytes_span(self.least_peak_bytes, self.peak_bytes)

    @property
    def verdict(self) -> str:
        """One line: whether it fits here, what it needs of what there is, and how long it takes."""
        memory, disk = self.machine.memory_bytes, self.machine.disk_free_bytes
        needs = f"{self.scheduler} needs {self.peak_text} of {format_bytes(memory)}"
        room = "on the object store" if disk is None else f"of {format_bytes(disk)} free disk"
        needs += f" and {format_bytes(self.stored_bytes)} {room}"
        if self._is_elsewhere:
            needs += f", workers {format_bytes(self.worker_bytes)} a thread"
        if self.fits:
            return f"fits: {needs}; {spell_seconds(self.wall_seconds)}"
        advice = []
        if self.peak_bytes > memory:
            advice.append(setting_that_fits(self, memory))
        if disk is not None and self.stored_bytes > disk:
            advice.append(f"free {format_bytes(self.stored_bytes - disk)} more, or name a store elsewhere")
        return f"{'may' if self.may_fit else 'does'} not fit: {needs}; {'; '.join(advice)}"


def spell_bytes_span(least: int, most: int) -> str:
    """Spell least and most bytes; one figure where they are near.

    Examples
    --------
    >>> spell_bytes_span(900 * 2**20, 3 * 2**30)
    '900.0 MiB to 3.0 GiB'
    """
    return format_bytes(most) if most < 1.25 * least else f"{format_bytes(least)} to {format_bytes(most)}"


def peak_on_machine(genomes: Sequence[GenomeEstimate], kind: str, n_workers: int) -> int:
    """Peak memory of all processes here, in bytes.

    Parameters
    ----------
    kind
        Of the scheduler: sync, threads, processes; address and file have their workers elsewhere.
    n_workers
        Tasks that run at once.
    """
    largest = max(g.peak_bytes for g in genomes)
    if kind in ("sync", "auto") or (n_workers == 1 and kind == "threads"):
        return largest
    if n_workers > 1 and len(genomes) >= 2 * n_workers:
        here = {"threads": n_workers * (largest - INTERPRETER_BYTES), "processes": n_workers * largest}
        return INTERPRETER_BYTES + here.get(kind, 0)
    peak = 0
    for genome in genomes:
        n_tasks = max(1, min(n_workers, genome.n_tasks(n_workers)))
        here = {"threads": n_tasks * (genome.task_bytes - INTERPRETER_BYTES),
                "processes": n_tasks * genome.task_bytes + (n_workers - n_tasks) * INTERPRETER_BYTES}  # fmt: skip
        # Counts that came back and wait for their turn.
        results = IN_FLIGHT_PER_THREAD * n_workers * 8 * genome.n_sites * genome.counts.usage.widest_group
        results = min(results, 8 * genome.n_sites * genome.n_conditions)
        peak = max(peak, genome.driver_bytes + here.get(kind, 0) + results)
    return peak


def setting_that_fits(estimate: Estimate, max_memory: int) -> str:
    """Say which scheduler, how many workers, or which split into panels stays below a memory limit; or that none does.

    Parameters
    ----------
    max_memory
        Bytes that all processes here may take together.
    """
    genomes, (kind, _) = estimate.genomes, parse_scheduler(estimate.scheduler)

    def fits(kind: str, n_workers: int) -> bool:
        return peak_on_machine(genomes, kind, n_workers) <= max_memory

    if fits(kind, estimate.n_workers):
        return f"--scheduler {estimate.scheduler} fits in {format_bytes(max_memory)}"
    most = max(estimate.n_workers, 2)
    choices = [(k, n) for k in dict.fromkeys((kind, "processes", "threads")) if k in ("processes", "threads")
               for n in range(most - (k == kind), 1, -1)]  # fmt: skip
    for name, n_workers in [*choices, ("sync", 1)]:
        if fits(name, n_workers):
            spec = name if name == "sync" else f"{name}:{n_workers}"
            return f"use --scheduler {spec} ({format_bytes(peak_on_machine(genomes, name, n_workers))})"
    largest = max(genomes, key=lambda g: g.peak_bytes)
    n_conditions = _conditions_that_fit(largest, max_memory)
    if n_conditions:
        panels = -(-largest.n_conditions // n_conditions)
        return (
            f"use --scheduler sync and {panels} panels of {n_conditions} conditions or fewer for {largest.genome_id}: "
            "the first in CONFIG, the others by `splicestore ingest usage`"
        )
    n_least = min(1, largest.n_conditions)
    need = _peak_with(largest, n_least)
    what = "one condition" if n_least else "no usage"
    return (
        f"no setting fits in {format_bytes(max_memory)}: {largest.genome_id} needs {format_bytes(need)} with {what}; "
        f"give --max-memory {-(-need // 2**20)}MiB, or another machine"
    )


def _conditions_that_fit(genome: GenomeEstimate, max_memory: int) -> int:
    """Largest number of conditions in one panel that stays below a limit; 0: none does."""
    low, high = 0, genome.n_conditions
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _peak_with(genome, middle) <= max_memory else (low, middle - 1)
    return low


def _peak_with(genome: GenomeEstimate, n_conditions: int) -> int:
    usage = genome.counts.usage.of_conditions(n_conditions) if n_conditions else UsageCounts()
    counts = replace(genome.counts, usage=usage)
    return driver_peak_bytes(counts) + task_increment_bytes(counts)


def spell_seconds(span: Span) -> str:
    """Spell a time for people.

    Examples
    --------
    >>> spell_seconds(Span(700, 1800))
    '0.2 to 0.5 h'
    """
    if span.high < 1:
        return "below 1 s"
    if span.high < 120:
        return f"{span.low:.0f} to {span.high:.0f} s"
    if span.high < 1_200:
        return f"{span.low / 60:.0f} to {span.high / 60:.0f} min"
    digits = 1 if span.high < 36_000 else 0
    return f"{span.low / 3600:.{digits}f} to {span.high / 3600:.{digits}f} h"


def estimate(
    config: GenomesConfig,
    *,
    scheduler: str = "sync",
    n_workers: int | None = None,
    machine: Machine,
    storage_options: Mapping[str, Any] | None = None,
    genome_ids: Sequence[str] = (),
) -> Estimate:
    """Estimate an ingest from the sizes and heads of its files.

    Parameters
    ----------
    scheduler
        As ``--scheduler`` takes it.
    n_workers
        Tasks that run at once; by default what ``scheduler`` says, or one per core.
    machine
        Where the command is started, with the disk that the store is on.
    storage_options
        For inputs on object storage.
    genome_ids
        Only these; all of them by default.

    Raises
    ------
    ConfigError
        If an id is not in the configuration, or the scheduler is elsewhere and ``n_workers`` is not given.
    InputError
        Naming every file that is missing and not optional.
    """
    kind, said = parse_scheduler(scheduler)
    if kind in ("address", "file") and n_workers is None:
        raise ConfigError(
            f"--scheduler {scheduler}: say how many of its workers there are: `splicestore estimate ... --workers N`"
        )
    default = 1 if kind in ("sync", "auto") else said or machine.cores
    genomes = estimate_genomes(choose_genomes(config, genome_ids), storage_options)
    return Estimate(tuple(genomes), "sync" if kind == "auto" else scheduler, n_workers or default, machine)
