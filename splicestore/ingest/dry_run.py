"""What ``--dry-run`` and ``estimate`` print: the plan of an ingest as rows for people and as one document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from splicestore.cluster import IN_FLIGHT_PER_THREAD, parse_scheduler
from splicestore.ingest.estimate import Estimate, GenomeEstimate, setting_that_fits, spell_seconds
from splicestore.memory import format_bytes

TASK_STATE_BYTES = 4_750
"""What a submitted task adds to the memory of client and scheduler: row ``scheduler_state`` of
``benchmarks/results/plan.json``."""

_SPREAD = " (most where few junctions lie on annotated splice sites)"
PLAN_COLUMNS = (
    "genome", "bases", "genes", "sites", "conditions", "partitions", "tasks", "in", "stored", "objects", "a task", "peak", "CPU",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlannedTasks:
    """What a scheduler is given."""

    n_tasks: int
    """Over the whole run."""
    n_partitions: int
    """Of all genomes: as many tasks, at most, however the work is cut."""
    at_once: int
    """Submitted and not done, at most."""
    state_bytes: int
    """Of those, in the memory of client and scheduler."""


def planned_tasks(estimate: Estimate) -> PlannedTasks:
    """Count the tasks of an ingest, and what they take of the scheduler's memory."""
    if parse_scheduler(estimate.scheduler)[0] == "sync":
        return PlannedTasks(estimate.n_tasks, estimate.n_partitions, 1, 0)
    at_once = min(estimate.n_tasks, IN_FLIGHT_PER_THREAD * estimate.n_workers)
    return PlannedTasks(estimate.n_tasks, estimate.n_partitions, at_once, at_once * TASK_STATE_BYTES)


def plan_rows(estimate: Estimate) -> list[list[Any]]:
    """One row a genome, under ``PLAN_COLUMNS``."""
    return [
        [
            g.genome_id, g.n_bases, g.n_genes, g.n_sites, g.n_conditions, g.n_partitions.total,
            _tasks_of(estimate, g), format_bytes(g.bytes_in), format_bytes(g.stored_bytes), g.n_objects,
            format_bytes(g.peak_bytes if estimate.whole_genomes else g.task_bytes), format_bytes(g.peak_bytes),
            spell_seconds(g.cpu_seconds),
        ]
        for g in estimate.genomes
    ]  # fmt: skip


def _tasks_of(estimate: Estimate, genome: GenomeEstimate) -> int:
    return 1 if estimate.whole_genomes else genome.n_tasks(estimate.n_workers)


def plan_text(estimate: Estimate, max_memory: int | None = None) -> list[str]:
    """Spell what all genomes together take, a line a topic; the verdict for this machine comes last.

    Parameters
    ----------
    max_memory
        Say which setting stays below so many bytes.
    """
    tasks, requests = planned_tasks(estimate), estimate.requests
    unit = "genome" if estimate.whole_genomes else "partition"
    lines = [note for genome in estimate.genomes for note in genome.notes]
    lines += [
        f"tasks: {tasks.n_tasks:,} (a {unit} each; {tasks.n_partitions:,} partitions in all), {tasks.at_once} at once in the "
        f"scheduler, {format_bytes(tasks.state_bytes)}",
        f"bytes: {format_bytes(estimate.bytes_in)} in, {format_bytes(estimate.stored_bytes)} stored in about "
        f"{estimate.n_objects:,} objects",
        f"on an object store: {requests.put:,} PUT, {requests.get:,} GET, {requests.list:,} LIST",
        f"memory: {estimate.peak_text} on this machine{_SPREAD if ' to ' in estimate.peak_text else ''}, up to "
        f"{format_bytes(estimate.worker_bytes)} in a worker",
        f"time: {spell_seconds(estimate.wall_seconds)}, of CPU {spell_seconds(estimate.cpu_seconds)}",
    ]
    if max_memory is not None:
        lines.append(f"--max-memory {format_bytes(max_memory)}: {setting_that_fits(estimate, max_memory)}")
    return [*lines, estimate.verdict]


def document(estimate: Estimate) -> dict[str, Any]:
    """Spell an estimate for ``--json``."""
    tasks, machine = planned_tasks(estimate), estimate.machine
    return {
        "scheduler": estimate.scheduler,
        "n_workers": estimate.n_workers,
        "machine": {
            "cores": machine.cores,
            "memory_bytes": machine.memory_bytes,
            "disk_free_bytes": machine.disk_free_bytes,
        },
        "genomes": {g.genome_id: _genome_document(estimate, g) for g in estimate.genomes},
        "bytes_in": estimate.bytes_in,
        "stored_bytes": estimate.stored_bytes,
        "n_objects": estimate.n_objects,
        "requests": _requests_document(estimate),
        "n_partitions": tasks.n_partitions,
        "n_tasks": tasks.n_tasks,
        "scheduler_state_bytes": tasks.state_bytes,
        "projected_peak_bytes": estimate.peak_bytes,
        "least_peak_bytes": estimate.least_peak_bytes,
        "worker_peak_bytes": estimate.worker_bytes,
        "cpu_seconds": estimate.cpu_seconds.document(),
        "wall_seconds": estimate.wall_seconds.document(),
        "fits": estimate.fits,
        "may_fit": estimate.may_fit,
        "verdict": estimate.verdict,
    }


def _requests_document(of: Estimate | GenomeEstimate) -> dict[str, int]:
    return {"put": of.requests.put, "get": of.requests.get, "list": of.requests.list}


def _genome_document(estimate: Estimate, genome: GenomeEstimate) -> dict[str, Any]:
    parts = genome.n_partitions
    return {
        "n_bases": genome.n_bases,
        "n_genes": genome.n_genes,
        "n_sites": genome.n_sites,
        "n_conditions": genome.n_conditions,
        "n_partitions": {"sequence": parts.sequence, "tables": parts.tables, "usage": parts.usage},
        "n_tasks": _tasks_of(estimate, genome),
        "bytes_in": genome.bytes_in,
        "stored_bytes": genome.stored_bytes,
        "n_objects": genome.n_objects,
        "requests": _requests_document(genome),
        "cpu_seconds": genome.cpu_seconds.document(),
        "driver_peak_bytes": genome.driver_bytes,
        "task_peak_bytes": genome.task_bytes,
        "projected_peak_bytes": genome.peak_bytes,
        "notes": list(genome.notes),
    }
