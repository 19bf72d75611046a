"""Job arrays without a scheduler: every job does its share of the units, ``finalise`` publishes when all are there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from splicestore.cluster import Executor, open_executor
from splicestore.config import GenomeConfig, GenomesConfig
from splicestore.errors import PartitionMissingError, StoreError
from splicestore.ingest.genomes import choose_genomes, ingest_genome, is_unchanged
from splicestore.ingest.inputs import MAIN_PANEL, IngestOptions, collect_inputs
from splicestore.ingest.job import USAGE, GenomeJob, complete_genome, read_genome, write_main_panel, write_partitions
from splicestore.ingest.reannotation import check_reannotation, republish_panels, stale_plans
from splicestore.storage import StoreRoot, generation_status, read_pointer, write_lease
from splicestore.storage.publish import switch_pointer
from splicestore.storage.runs import JobShare, RunRecord, array_string, read_run


@dataclass(frozen=True, slots=True)
class ShareReport:
    """What one job of an array did."""

    units: Mapping[str, int]
    """Genome -> units of this job that are written now."""
    published: Mapping[str, str]
    """Whole genomes that this job published: status."""
    seconds: float

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return {"units": dict(self.units), "published": dict(self.published), "seconds": round(self.seconds, 3)}


def ingest_share(
    root: StoreRoot,
    config: GenomesConfig,
    share: JobShare,
    options: IngestOptions | None = None,
    *,
    genome_ids: Sequence[str] = (),
) -> ShareReport:
    """Do one job's share of an ingest; the same job again does only what is missing.

    With at least as many genomes as jobs, a job takes whole genomes and publishes them. With fewer, the units of each
    genome (shards of the sequence, tables, usage) are dealt out, and ``finalise`` publishes.

    Raises
    ------
    LeaseHeldError
        If the same job runs already, or somebody writes the genome whole.
    """
    options = options or IngestOptions()
    started = time.perf_counter()
    chosen = choose_genomes(config, genome_ids)
    units: dict[str, int] = {}
    published: dict[str, str] = {}
    with open_executor(options.scheduler, urls=[root.url], profile=options.profile) as executor:
        for number, genome in enumerate(chosen):
            if len(chosen) >= share.of:
                if number % share.of == share.index:
                    published[genome.genome_id] = ingest_genome(root, genome, options, executor=executor).status
            else:
                units[genome.genome_id] = _write_share(root, genome, share, number, options, executor)
    return ShareReport(units, published, time.perf_counter() - started)


def _write_share(
    root: StoreRoot, genome: GenomeConfig, share: JobShare, number: int, options: IngestOptions, executor: Executor
) -> int:
    inputs = collect_inputs(genome, options)
    if is_unchanged(root, genome, inputs):
        return 0
    with ExitStack() as held:
        held.enter_context(write_lease(root, f"genomes/{genome.genome_id}", job=share.name, steal=options.steal))
        job = read_genome(root, genome, inputs, options)
        check_reannotation(job)
        # Another start for each genome, so that the first job does not get the first unit of all.
        dealt = {unit: (number + i) % share.of for i, unit in enumerate(_units(job))}
        mine = [unit for unit, index in dealt.items() if index == share.index]
        if not job.publication.is_complete():
            job.publication.begin()
        RunRecord(share.of, dealt, _panels(job), job.publication.provenance).write(root, job.publication.base)
        if not job.publication.is_complete():
            todo = [unit for unit in mine if unit != USAGE and not job.publication.has_part(unit)]
            write_partitions(job, executor, todo)
        if USAGE in mine:
            write_main_panel(job, executor)
            republish_panels(job, executor)
        return len(mine)


def _units(job: GenomeJob) -> list[str]:
    return [*job.parts, *([USAGE] if _panels(job) else [])]


def _panels(job: GenomeJob) -> dict[str, str]:
    """Panels that are published with the genome, and their generations."""
    genome_id = job.genome.genome_id
    panels = {}
    if job.inputs.usage.files:
        plan = job.inputs.usage.plan(
            job.tables.site_digest, job.tables.contigs.digest, mix_estimators=job.genome.mix_estimators
        )
        panels[f"usage/{genome_id}/{MAIN_PANEL}"] = plan.generation
    stale = {} if job.options.drop_usage else stale_plans(job)
    return {**panels, **{f"usage/{genome_id}/{panel}": plan.generation for panel, plan in stale.items()}}


# -- finalise ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FinaliseReport:
    """What ``finalise`` published."""

    path: str
    generation: str
    switched: bool


def unfinished_runs(root: StoreRoot, path: str) -> list[str]:
    """Generations of a name that a job array wrote and nobody published."""
    pointer = read_pointer(root, path)
    seen = {*pointer.generations(), *pointer.superseded} if pointer else set()
    names = [name for name in root.children(path) if "." not in name and name not in seen]
    return [name for name in names if read_run(root, f"{path}/{name}") is not None]


def finalise_genome(
    root: StoreRoot,
    path: str,
    generation: str | None = None,
    *,
    override_gates: bool = False,
    steal: bool = False,
    force: bool = False,
) -> FinaliseReport:
    """Publish a genome that a job array wrote.

    Parameters
    ----------
    path
        ``genomes/<id>``.
    generation
        Which one, where several are unfinished.

    Raises
    ------
    PartitionMissingError
        With the jobs to run again, as a batch system takes them.
    StoreError
        If there is nothing to finalise, or several generations are unfinished.
    """
    generation = generation or _only_run(root, path)
    base = f"{path}/{generation}"
    run = read_run(root, base)
    if run is None:
        raise StoreError(
            f"{root.url_of(base)}: no job array wrote this; run `splicestore ingest genomes` without --partition"
        )
    with write_lease(root, path, steal=steal) as lease:
        expected = read_pointer(root, path)
        missing = _missing_units(root, base, run)
        if missing:
            jobs = array_string(run.units[unit] for unit in missing)
            raise PartitionMissingError(
                f"{root.url_of(base)}: {len(missing)} of {len(run.units)} units are not written (first: {missing[:5]}); run these "
                f"jobs again: --array={jobs} with --partition I/{run.of}",
                missing=missing,
            )
        attributes = complete_genome(root, base, run.provenance, override_gates=override_gates)
        lease.check()
        for panel, panel_generation in run.panels.items():
            switch_pointer(
                root,
                panel,
                panel_generation,
                digest=str(attributes["site_digest"]),
                expected=read_pointer(root, panel),
                force=force,
            )
        switched = switch_pointer(root, path, generation, digest=None, expected=expected, force=force)
    return FinaliseReport(path, generation, switched)


def _only_run(root: StoreRoot, path: str) -> str:
    runs = unfinished_runs(root, path)
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise StoreError(
            f"{root.url_of(path)}: nothing here waits to be finalised; `splicestore ls {root.url}` shows what is published"
        )
    raise StoreError(
        f"{root.url_of(path)}: {len(runs)} generations wait to be finalised: name one, as in {path}/{runs[0]} "
        f"(all: {', '.join(runs)})"
    )


def _missing_units(root: StoreRoot, base: str, run: RunRecord) -> list[str]:
    listed = root.sizes(base)
    missing = [unit for unit in run.units if unit != USAGE and f"parts/{unit}.json" not in listed]
    pending = [
        panel
        for panel, generation in run.panels.items()
        if generation_status(root, f"{panel}/{generation}") != "complete"
    ]
    return [*missing, *([USAGE] if pending else [])]
