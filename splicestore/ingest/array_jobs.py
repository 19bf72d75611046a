"""Job arrays without a scheduler: every job does its share of the units, ``finalise`` publishes when all are there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from splicestore.cluster import Executor, open_executor
from splicestore.config import GenomeConfig, GenomesConfig
from splicestore.errors import PointerMovedError
from splicestore.ingest.genomes import choose_genomes, ingest_genome, is_unchanged
from splicestore.ingest.inputs import MAIN_PANEL, IngestOptions, collect_inputs
from splicestore.ingest.job import USAGE, GenomeJob, complete_genome, read_genome, write_main_panel, write_partitions
from splicestore.ingest.reannotation import (
    check_reannotation,
    current_site_digest,
    republish_panels,
    stale_panels,
    stale_plans,
)
from splicestore.storage import StoreRoot, generation_status, read_pointer, write_lease
from splicestore.storage.publish import store_exists, switch_pointer
from splicestore.storage.runs import JobShare, RunRecord, missing_units, refuse_missing, remove_run


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
    store_exists(root)
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
        old_sites = check_reannotation(job)
        # Another start for each genome, so that the first job does not get the first unit of all.
        dealt = {unit: (number + i) % share.of for i, unit in enumerate(_units(job, old_sites))}
        mine = [unit for unit, index in dealt.items() if index == share.index]
        if not job.publication.is_complete():
            job.publication.begin()
        panels = _panels(job, old_sites)
        sites = None if options.drop_usage else job.tables.site_digest
        RunRecord(share.of, dealt, panels, job.publication.provenance, sites).write(root, job.publication.base)
        if not job.publication.is_complete():
            todo = [unit for unit in mine if unit != USAGE and not job.publication.has_part(unit)]
            write_partitions(job, executor, todo)
        if USAGE in mine:
            write_main_panel(job, executor)
            republish_panels(job, executor, old_sites)
        return len(mine)


def _units(job: GenomeJob, old_sites: str | None) -> list[str]:
    return [*job.parts, *([USAGE] if _panels(job, old_sites) else [])]


def _panels(job: GenomeJob, old_sites: str | None) -> dict[str, str]:
    """Panels that are published with the genome, and their generations."""
    genome_id = job.genome.genome_id
    panels = {}
    if job.inputs.usage.files:
        plan = job.inputs.usage.plan(
            job.tables.site_digest, job.tables.contigs.digest, mix_estimators=job.genome.mix_estimators
        )
        panels[f"usage/{genome_id}/{MAIN_PANEL}"] = plan.generation
    stale = {} if job.options.drop_usage else stale_plans(job, old_sites)
    return {**panels, **{f"usage/{genome_id}/{panel}": plan.generation for panel, plan in stale.items()}}


# -- finalise ----------------------------------------------------------------------------------------------------


def finalise_genome(
    root: StoreRoot, path: str, generation: str, run: RunRecord, *, override_gates: bool = False, force: bool = False
) -> bool:
    """Publish a genome that a job array wrote, its panels first; whether it was not current before.

    Raises
    ------
    PartitionMissingError
        With the jobs to run again, as a batch system takes them.
    GateError
        If its introns are not canonical.
    """
    base = f"{path}/{generation}"
    expected = read_pointer(root, path)
    refuse_missing(root, base, run, _missing_units(root, base, run))
    _refuse_late_panels(root, path, run)
    attributes = complete_genome(root, base, run.provenance, override_gates=override_gates)
    for panel, panel_generation in run.panels.items():
        digest = str(attributes["site_digest"])
        before = read_pointer(root, panel)
        switch_pointer(root, panel, panel_generation, digest=digest, expected=before, force=force)
    switched = switch_pointer(root, path, generation, digest=None, expected=expected, force=force)
    remove_run(root, base)
    return switched


def _refuse_late_panels(root: StoreRoot, path: str, run: RunRecord) -> None:
    """Panels that were published since the jobs ran know the old sites only."""
    genome_id = path.removeprefix("genomes/")
    if run.sites is None:
        return
    stale = stale_panels(root, genome_id, current_site_digest(root, genome_id), run.sites)
    late = sorted(stale.keys() - run.panels.keys())
    if late:
        raise PointerMovedError(
            f"{root.url_of(path)}: {', '.join(late)} was published since the jobs ran and knows the old splice sites only; "
            "run the jobs again (only the usage is written), then finalise"
        )


def _missing_units(root: StoreRoot, base: str, run: RunRecord) -> list[str]:
    missing = [unit for unit in missing_units(root, base, run) if unit != USAGE]
    states = [generation_status(root, f"{panel}/{generation}") for panel, generation in run.panels.items()]
    return missing if all(state == "complete" for state in states) else [*missing, USAGE]
