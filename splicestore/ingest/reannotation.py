"""A changed annotation: usage belongs to the splice sites it was joined to, so it is joined again before the switch."""

from __future__ import annotations

import logging
from dataclasses import replace

from splicestore.cluster import Executor
from splicestore.errors import GateError
from splicestore.ingest.inputs import MAIN_PANEL
from splicestore.ingest.job import GenomeJob, WrittenPanel, job_panel, write_panel
from splicestore.ingest.recorded import RecordedUsage, recorded_usage
from splicestore.schema import Plan
from splicestore.storage import StoreRoot, read_group, read_pointer

logger = logging.getLogger(__name__)


def current_site_digest(root: StoreRoot, genome_id: str) -> str | None:
    """Digest of the splice sites that a genome has now; None where it is not stored."""
    pointer = read_pointer(root, f"genomes/{genome_id}")
    found = read_group(root, f"genomes/{genome_id}/{pointer.current}") if pointer else None
    return str(found[0]["site_digest"]) if found else None


def panel_paths(root: StoreRoot, genome_id: str) -> list[str]:
    """Every panel of a genome, by a listing: one that was switched to a moment ago may not be in the catalogue yet."""
    prefix = f"usage/{genome_id}"
    return [f"{prefix}/{name}" for name in root.children(prefix) if read_pointer(root, f"{prefix}/{name}") is not None]


def stale_panels(root: StoreRoot, genome_id: str, old_sites: str | None, new_sites: str) -> dict[str, str]:
    """Panels with counts for old sites of a genome, and none for its new ones: {path: generation for the old}."""
    if old_sites is None or old_sites == new_sites:
        return {}
    pointers = {path: read_pointer(root, path) for path in panel_paths(root, genome_id)}
    return {
        path: str(pointer.generation(old_sites))
        for path, pointer in pointers.items()
        if pointer is not None and pointer.generation(old_sites) and not pointer.generation(new_sites)
    }


def _stale_of(job: GenomeJob, old_sites: str | None) -> dict[str, str]:
    """Stale panels of a job by name, but for one whose files it was given."""
    stale = stale_panels(job.root, job.genome.genome_id, old_sites, job.tables.site_digest)
    named = {path.rsplit("/", 1)[-1]: generation for path, generation in stale.items()}
    if job.inputs.usage.files:
        named.pop(MAIN_PANEL, None)
    return named


def check_reannotation(job: GenomeJob) -> str | None:
    """Refuse early where a panel cannot be joined again; return the digest of the sites that the genome has now.

    Raises
    ------
    StoreError
        If a recorded input is missing or changed, unless usage may be dropped.
    """
    old_sites = current_site_digest(job.root, job.genome.genome_id)
    if not job.options.drop_usage:
        for panel, generation in _stale_of(job, old_sites).items():
            recorded_inputs(job, panel, generation)
    return old_sites


def republish_panels(job: GenomeJob, executor: Executor, old_sites: str | None) -> list[WrittenPanel]:
    """Join every panel of the old sites to the new ones from its recorded inputs; complete, not yet switched to."""
    if job.options.drop_usage:
        return []
    written = []
    for panel, generation in _stale_of(job, old_sites).items():
        logger.info("%s: joining panel %s again to the new splice sites", job.genome.genome_id, panel)
        recorded = recorded_inputs(job, panel, generation)
        target = job_panel(job, panel, mix_estimators=recorded.mix_estimators)
        options = replace(job.options, override_gates=job.options.override_gates or recorded.override_gates)
        try:
            written.append(write_panel(target, recorded.inputs, options, executor))
        except GateError as error:
            raise GateError(
                f"genome {job.genome.genome_id}: panel {panel!r} does not join the new splice sites: {error}; --drop-usage leaves "
                "its counts with the old ones"
            ) from error
    return written


def stale_plans(job: GenomeJob, old_sites: str | None) -> dict[str, Plan]:
    """Plans of the panels that will be joined again: {panel: plan}."""
    plans = {}
    for panel, generation in _stale_of(job, old_sites).items():
        recorded = recorded_inputs(job, panel, generation)
        plans[panel] = recorded.inputs.plan(
            job.tables.site_digest, job.tables.contigs.digest, mix_estimators=recorded.mix_estimators
        )
    return plans


def recorded_inputs(job: GenomeJob, panel: str, generation: str) -> RecordedUsage:
    """Inputs of a panel as its manifest records them; each must still be the same."""
    return recorded_usage(
        job.root,
        f"usage/{job.genome.genome_id}/{panel}/{generation}",
        job.options,
        aliases=next((d for d in job.inputs.digests if d.role == "aliases"), None),
        purpose=f"{job.root.url}: genome {job.genome.genome_id} gets other splice sites, and panel {panel!r} must be joined again",
        what_now="put it back, name the usage files in the configuration, or add --drop-usage to orphan the counts of this panel",
    )
