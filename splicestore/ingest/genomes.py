"""``ingest genomes``: one genome after another, or several at once, each published on its own.

Order of one genome: digest the inputs (they name the generation), scan the FASTA, parse the annotation,
join the usage, then write: usage first, the genome's pointer last, so that no reader ever sees new sites
with old counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from splicestore.cluster import Executor, open_executor
from splicestore.config import GenomeConfig, GenomesConfig, parse_genomes_config
from splicestore.errors import ConfigError, PlanError, SpliceStoreError, close_names
from splicestore.ingest.inputs import MAIN_PANEL, GenomeInputs, IngestOptions, collect_inputs
from splicestore.ingest.job import (
    GenomeJob,
    Progress,
    WrittenPanel,
    complete_genome,
    read_genome,
    write_main_panel,
    write_partitions,
)
from splicestore.ingest.memory import projected_peak_bytes, quick_peak_bytes
from splicestore.ingest.reannotation import check_reannotation, panel_paths, republish_panels
from splicestore.memory import format_bytes, observed_peak_bytes
from splicestore.storage import (
    Publication,
    StoreRoot,
    input_exists,
    input_text_lines,
    read_group,
    read_pointer,
    write_lease,
)
from splicestore.storage.catalog import list_name
from splicestore.storage.publish import store_exists

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GenomeReport:
    """What became of one genome; ``document`` is its ``--json``."""

    genome_id: str
    status: str
    """published | unchanged."""
    generation: str
    summary: Mapping[str, Any]
    seconds: float
    projected_peak_bytes: int
    observed_peak_bytes: int
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Spell the report as the contract's JSON."""
        return {
            "status": self.status,
            "generation": self.generation,
            **self.summary,
            "seconds": round(self.seconds, 3),
            "projected_peak_bytes": self.projected_peak_bytes,
            "observed_peak_bytes": self.observed_peak_bytes,
        }


def load_genomes_config(url: str, storage_options: Mapping[str, Any] | None = None) -> GenomesConfig:
    """Read and check a configuration: SplicEvo's ``genomes.json`` or our YAML."""
    text = "\n".join(line for _, line in input_text_lines(url, storage_options=storage_options))
    return parse_genomes_config(text, url, lambda path: input_exists(path, storage_options=storage_options))


def choose_genomes(config: GenomesConfig, genome_ids: Sequence[str]) -> list[GenomeConfig]:
    """Return the genomes asked for, all of them by default.

    Raises
    ------
    ConfigError
        If an id is not in the configuration.
    """
    known = [g.genome_id for g in config.genomes]
    for wanted in genome_ids:
        if wanted not in known:
            raise ConfigError(f"no genome {wanted!r} in the configuration; {close_names(wanted, known)}")
    return [g for g in config.genomes if not genome_ids or g.genome_id in genome_ids]


def ingest_genomes(
    root: StoreRoot,
    config: GenomesConfig,
    options: IngestOptions | None = None,
    *,
    genome_ids: Sequence[str] = (),
    progress: Progress | None = None,
) -> Iterator[GenomeReport]:
    """Ingest the genomes of a configuration, yielding a report as each is published.

    With workers, a few large genomes are cut into partitions; many genomes are one task each.

    Parameters
    ----------
    genome_ids
        Only these; all of them by default. Other genomes of the store are never touched.

    Raises
    ------
    ConfigError
        If an id is not in the configuration.
    FormatError
        If the store is of another format.
    InputError, GateError, FailedPartitionsError
        If a genome cannot be ingested; the others are, before this is raised.
    """
    options = options or IngestOptions()
    chosen = choose_genomes(config, genome_ids)
    store_exists(root)
    with open_executor(options.scheduler, urls=[root.url], profile=options.profile) as executor:
        if executor.n_workers > 1 and len(chosen) >= 2 * executor.n_workers:
            yield from _whole_genomes(root, chosen, options, executor)
            return
        failed: list[tuple[GenomeConfig, SpliceStoreError]] = []
        for genome in chosen:
            try:
                yield ingest_genome(root, genome, options, executor=executor, progress=progress)
            except SpliceStoreError as error:
                # Nothing of a genome that fails is published; the night's other genomes should be.
                failed.append((genome, error))
                logger.info("%s: %s", genome.genome_id, error)
        if failed:
            raise _joined_error(failed, len(chosen))


def _joined_error(failed: Sequence[tuple[GenomeConfig, SpliceStoreError]], n_genomes: int) -> SpliceStoreError:
    """One error for all, of the first one's kind."""
    first = failed[0][1]
    if len(failed) == 1:
        return first
    listed = "; ".join(f"{genome.genome_id}: {error}" for genome, error in failed)
    others = "; the others are published" if len(failed) < n_genomes else ""
    return type(first)(f"{len(failed)} of {n_genomes} genomes were not ingested{others}: {listed}")


@dataclass(frozen=True, slots=True)
class _IngestTask:
    root: StoreRoot
    genome: GenomeConfig
    options: IngestOptions


def _run_task(task: _IngestTask) -> GenomeReport:
    return ingest_genome(task.root, task.genome, task.options)


def _whole_genomes(
    root: StoreRoot, chosen: Sequence[GenomeConfig], options: IngestOptions, executor: Executor
) -> Iterator[GenomeReport]:
    inner = replace(options, scheduler="sync", profile=None)
    tasks = [_IngestTask(root, genome, inner) for genome in chosen]
    memory = max(quick_peak_bytes(genome, options.storage_options) for genome in chosen)
    for _, report in executor.map(_run_task, tasks, names=[g.genome_id for g in chosen], memory=memory):
        yield report


def ingest_genome(
    root: StoreRoot,
    genome: GenomeConfig,
    options: IngestOptions | None = None,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> GenomeReport:
    """Ingest one genome with its annotation and usage; the same inputs again change nothing.

    Raises
    ------
    LeaseHeldError
        If another process is writing this genome.
    """
    options = options or IngestOptions()
    if executor is None:
        with open_executor(options.scheduler, urls=[root.url], profile=options.profile) as opened:
            return ingest_genome(root, genome, options, executor=opened, progress=progress)
    started = time.perf_counter()
    _check_memory(genome, quick_peak_bytes(genome, options.storage_options), options)
    inputs = collect_inputs(genome, options)
    unchanged = _unchanged(root, genome, inputs)
    if unchanged is not None:
        generation, summary = unchanged
        return GenomeReport(
            genome.genome_id, "unchanged", generation, summary, time.perf_counter() - started, 0, observed_peak_bytes()
        )
    with ExitStack() as held:
        leases = [
            held.enter_context(write_lease(root, path, steal=options.steal)) for path in _leased_paths(genome, inputs)
        ]
        logger.info("%s: scanning %s", genome.genome_id, genome.fasta)
        job = read_genome(root, genome, inputs, options)
        projected = projected_peak_bytes(job.tables, inputs)
        _check_memory(genome, projected, options)
        old_sites = check_reannotation(job)
        panel = write_main_panel(job, executor)
        observed = write_genome(job, executor, progress)
        attributes = complete_genome(
            root,
            job.publication.base,
            {
                **job.publication.provenance,
                "projected_peak_bytes": projected,
                "observed_peak_bytes": max(observed, observed_peak_bytes()),
            },
            override_gates=options.override_gates,
        )
        republished = republish_panels(job, executor, old_sites)
        for lease in leases:
            lease.check()
        switched = switch_all([*([panel] if panel else []), *republished], job.publication)
        if old_sites is not None:
            _bring_panels_along(job, executor, old_sites)
    return GenomeReport(
        genome_id=genome.genome_id,
        status="published" if switched else "unchanged",
        generation=job.publication.generation,
        summary=_with_panel(attributes["summary"], panel),
        seconds=time.perf_counter() - started,
        projected_peak_bytes=projected,
        observed_peak_bytes=max(observed, observed_peak_bytes()),
        warnings=tuple(f"{u.file}: no such file, skipped (in the ledger)" for u in inputs.usage.missing),
    )


def _check_memory(genome: GenomeConfig, projected: int, options: IngestOptions) -> None:
    if options.max_memory is not None and projected > options.max_memory:
        raise PlanError(
            f"genome {genome.genome_id} needs up to {format_bytes(projected)}, --max-memory allows "
            f"{format_bytes(options.max_memory)}: give it --max-memory {-(-projected // 2**20)}MiB"
            + (
                ", or fewer conditions at once (`ingest usage` adds the others as panels)"
                if genome.usage or genome.samples
                else ""
            )
        )


def _leased_paths(genome: GenomeConfig, inputs: GenomeInputs) -> list[str]:
    usage = [f"usage/{genome.genome_id}/{MAIN_PANEL}"] if inputs.usage.files else []
    return [f"genomes/{genome.genome_id}", *usage]


def write_genome(job: GenomeJob, executor: Executor, progress: Progress | None = None) -> int:
    """Steps 1 to 3 of the genome group, what is there already left alone; return the workers' peak memory in bytes."""
    if job.publication.is_complete():
        return 0
    job.publication.begin()
    todo = [part for part in job.parts if not job.publication.has_part(part)]
    return write_partitions(job, executor, todo, progress=progress)


def switch_all(panels: Sequence[WrittenPanel], genome: Publication) -> bool:
    """Switch panels first and the genome last; whether anything changed."""
    changed = [panel.publication.switch() for panel in panels]
    return genome.switch() or any(changed)


def _bring_panels_along(job: GenomeJob, executor: Executor, old_sites: str) -> None:
    """Join what `ingest usage` published for the old sites while this run was under way; list every panel."""
    for late in republish_panels(job, executor, old_sites):
        late.publication.switch()
    for path in panel_paths(job.root, job.genome.genome_id):
        list_name(job.root, path)


def _unchanged(root: StoreRoot, genome: GenomeConfig, inputs: GenomeInputs) -> tuple[str, Mapping[str, Any]] | None:
    """Generation and stored summary if genome and usage are both current, else None."""
    path, generation = f"genomes/{genome.genome_id}", inputs.genome_plan(genome).generation
    pointer = read_pointer(root, path)
    if pointer is None or pointer.generation(None) != generation:
        return None
    found = read_group(root, f"{path}/{generation}")
    if found is None:
        return None
    attributes = found[0]
    panel = f"usage/{genome.genome_id}/{MAIN_PANEL}"
    usage_pointer = read_pointer(root, panel)
    current = usage_pointer.generation(attributes["site_digest"]) if usage_pointer else None
    if inputs.usage.files:
        plan = inputs.usage.plan(
            attributes["site_digest"], attributes["contig_digest"], mix_estimators=genome.mix_estimators
        )
        if current != plan.generation:
            return None
        list_name(root, panel)
    # An earlier run may have been killed between the switch and the catalogue.
    list_name(root, path)
    usage = read_group(root, f"{panel}/{current}") if current else None
    conditions = list(usage[0]["conditions"]) if usage else []
    dropped = {**attributes["summary"]["dropped"], **(usage[0]["dropped"] if usage else {})}
    return generation, {**attributes["summary"], "dropped": dropped, "conditions": conditions}


def is_unchanged(root: StoreRoot, genome: GenomeConfig, inputs: GenomeInputs) -> bool:
    """Whether genome and usage are current as these inputs make them."""
    return _unchanged(root, genome, inputs) is not None


def _with_panel(summary: Mapping[str, Any], panel: WrittenPanel | None) -> dict[str, Any]:
    """A genome's summary with the conditions of its panel and what did not join."""
    return {
        **summary,
        "dropped": {**summary["dropped"], **(panel.dropped if panel else {})},
        "conditions": list(panel.conditions) if panel else [],
    }
