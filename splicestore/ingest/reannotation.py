"""A changed annotation: usage belongs to the splice sites it was joined to, so it is joined again before the switch."""

from __future__ import annotations

import logging

from splicestore.cluster import Executor
from splicestore.ingest.inputs import MAIN_PANEL, UsageInputs
from splicestore.ingest.job import GenomeJob, WrittenPanel, job_panel, write_panel
from splicestore.ingest.recorded import recorded_usage
from splicestore.schema import Plan
from splicestore.storage import StoreRoot, read_pointer
from splicestore.storage.catalog import pointer_names

logger = logging.getLogger(__name__)


def stale_panels(job: GenomeJob) -> dict[str, str]:
    """Panels with counts for the present sites of a genome, and none for its new ones: {panel: present generation}."""
    path = f"genomes/{job.genome.genome_id}"
    pointer = read_pointer(job.root, path)
    if pointer is None:
        return {}
    present = _site_digest(job.root, f"{path}/{pointer.current}")
    stale = {}
    for panel in pointer_names(job.root, f"usage/{job.genome.genome_id}"):
        usage = read_pointer(job.root, f"usage/{job.genome.genome_id}/{panel}")
        is_given = panel == MAIN_PANEL and job.inputs.usage.files
        if usage is None or is_given or usage.generation(job.tables.site_digest) or not usage.generation(present):
            continue
        stale[panel] = str(usage.generation(present))
    return stale


def _site_digest(root: StoreRoot, base: str) -> str:
    manifest = root.get_json(f"{base}/zarr.json") or {}
    return str(manifest["attributes"]["splicestore"]["site_digest"])


def check_reannotation(job: GenomeJob) -> None:
    """Refuse early where a panel cannot be joined again.

    Raises
    ------
    StoreError
        If a recorded input is missing or changed, unless usage may be dropped.
    """
    if not job.options.drop_usage:
        for panel, generation in stale_panels(job).items():
            recorded_inputs(job, panel, generation)


def republish_panels(job: GenomeJob, executor: Executor) -> list[WrittenPanel]:
    """Join every stale panel to the new sites from its recorded inputs; complete, not yet switched to."""
    if job.options.drop_usage:
        return []
    written = []
    for panel, generation in stale_panels(job).items():
        logger.info("%s: joining panel %s again to the new splice sites", job.genome.genome_id, panel)
        usage, mix_estimators = recorded_inputs(job, panel, generation)
        target = job_panel(job, panel, mix_estimators=mix_estimators)
        written.append(write_panel(target, usage, job.options, executor))
    return written


def stale_plans(job: GenomeJob) -> dict[str, Plan]:
    """Plans of the panels that will be joined again: {panel: plan}."""
    plans = {}
    for panel, generation in stale_panels(job).items():
        usage, mix_estimators = recorded_inputs(job, panel, generation)
        plans[panel] = usage.plan(job.tables.site_digest, job.tables.contigs.digest, mix_estimators=mix_estimators)
    return plans


def recorded_inputs(job: GenomeJob, panel: str, generation: str) -> tuple[UsageInputs, bool]:
    """Inputs of a panel as its manifest records them, and whether it may mix estimators; each must still be the same."""
    return recorded_usage(
        job.root,
        f"usage/{job.genome.genome_id}/{panel}/{generation}",
        job.options,
        aliases=next((d for d in job.inputs.digests if d.role == "aliases"), None),
        purpose=f"{job.root.url}: genome {job.genome.genome_id} gets other splice sites, and panel {panel!r} must be joined again",
        what_now="put it back, name the usage files in the configuration, or add --drop-usage to orphan the counts of this panel",
    )
