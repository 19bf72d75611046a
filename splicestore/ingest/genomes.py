"""``ingest genomes``: one genome after another, or several at once, each published on its own.

Order of one genome: digest the inputs (they name the generation), scan the FASTA, parse the annotation,
join the usage, then write: usage first, the genome's pointer last, so that no reader ever sees new sites
with old counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

from splicestore.cluster import open_executor
from splicestore.config import GenomeConfig, GenomesConfig, UsageFile, parse_genomes_config
from splicestore.errors import ConfigError, InputError, StoreError, close_names
from splicestore.ingest.gates import check_motif_gate, motif_report
from splicestore.ingest.panel import Panel, build_panel, observed_sites
from splicestore.ingest.sequence import BaseProbe, encode_sequence, sequence_parts, sequence_spec
from splicestore.ingest.tables import (
    GenomeTables,
    annotated_tables,
    n_sites_by_kind,
    select_contigs,
    unannotated_tables,
)
from splicestore.kernels.sites import intron_motif_positions
from splicestore.memory import INTERPRETER_BYTES, observed_peak_bytes
from splicestore.readers.aliases import read_aliases
from splicestore.readers.annotation import read_annotation
from splicestore.readers.fasta import scan_fasta
from splicestore.readers.samples import read_sample_sheet
from splicestore.schema import (
    SEQUENCE_CHUNK,
    SEQUENCE_SHARD,
    USAGE_CHUNK_CONDITIONS,
    USAGE_CHUNK_SITES,
    USAGE_SHARD_SITES,
    ArraySpec,
    InputDigest,
    LedgerRow,
    Plan,
)
from splicestore.storage import (
    Publication,
    StoreRoot,
    digest_input,
    input_exists,
    input_text_lines,
    read_catalog,
    read_pointer,
    rebuild_catalog,
)
from splicestore.storage.columns import write_columns

logger = logging.getLogger(__name__)

GENOME_ENCODER = 1
USAGE_ENCODER = 1
MAIN_PANEL = "main"

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) in bases."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to run; nothing here changes what is stored, except that gates may be overridden."""

    override_gates: bool = False
    force: bool = False
    drop_usage: bool = False
    scheduler: str = "sync"
    storage_options: Mapping[str, Any] = field(default_factory=dict)


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
    return parse_genomes_config(text, url, input_exists)


def ingest_genomes(
    root: StoreRoot,
    config: GenomesConfig,
    options: IngestOptions | None = None,
    *,
    genome_ids: Sequence[str] = (),
    progress: Progress | None = None,
) -> Iterator[GenomeReport]:
    """Ingest the genomes of a configuration, yielding a report as each is published.

    Parameters
    ----------
    genome_ids
        Only these; all of them by default. Other genomes of the store are never touched.

    Raises
    ------
    ConfigError
        If an id is not in the configuration.
    InputError, GateError
        If a file of a genome is wrong; genomes published before it stay.
    """
    options = options or IngestOptions()
    known = [g.genome_id for g in config.genomes]
    for wanted in genome_ids:
        if wanted not in known:
            raise ConfigError(f"no genome {wanted!r} in the configuration; {close_names(wanted, known)}")
    chosen = [g for g in config.genomes if not genome_ids or g.genome_id in genome_ids]
    if options.scheduler == "sync":
        for genome in chosen:
            yield ingest_genome(root, genome, options, progress=progress)
        return
    tasks = [_IngestTask(root, genome, options) for genome in chosen]
    with open_executor(options.scheduler, urls=[root.url]) as executor:
        for _, report in executor.map(_run_task, tasks):
            yield report


@dataclass(frozen=True, slots=True)
class _IngestTask:
    root: StoreRoot
    genome: GenomeConfig
    options: IngestOptions


def _run_task(task: _IngestTask) -> GenomeReport:
    return ingest_genome(task.root, task.genome, task.options)


def ingest_genome(
    root: StoreRoot, genome: GenomeConfig, options: IngestOptions | None = None, *, progress: Progress | None = None
) -> GenomeReport:
    """Ingest one genome with its annotation and usage; the same inputs again change nothing."""
    options = options or IngestOptions()
    started = time.perf_counter()
    inputs = _collect_inputs(genome, options)
    genome_plan = inputs.genome_plan(genome)
    unchanged = _unchanged(root, genome, genome_plan, inputs)
    if unchanged is not None:
        _mend_catalog(root, genome, inputs)
        return GenomeReport(
            genome.genome_id,
            "unchanged",
            genome_plan.generation,
            unchanged,
            time.perf_counter() - started,
            0,
            observed_peak_bytes(),
        )
    logger.info("%s: scanning %s", genome.genome_id, genome.fasta)
    tables = _read_tables(genome, inputs, options)
    projected = projected_peak_bytes(tables, inputs)
    panel = _read_panel(genome, inputs, tables, options)
    provenance = _provenance(genome, options)
    usage_publication = _write_usage(root, genome, inputs, tables, panel, options, provenance)
    publication, summary = _write_genome(root, genome, genome_plan, tables, panel, options, provenance, progress)
    _refuse_stale_usage(root, genome, tables, panel, options)
    if usage_publication is not None:
        usage_publication.switch()
    switched = publication.switch()
    return GenomeReport(
        genome_id=genome.genome_id,
        status="published" if switched or usage_publication is not None else "unchanged",
        generation=publication.generation,
        summary=summary,
        seconds=time.perf_counter() - started,
        projected_peak_bytes=projected,
        observed_peak_bytes=observed_peak_bytes(),
        warnings=tuple(f"{u.file}: no such file, skipped (in the ledger)" for u in inputs.missing),
    )


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Identity of everything a genome is made from."""

    digests: tuple[InputDigest, ...]
    """FASTA, annotation, aliases."""
    usage: tuple[UsageFile, ...]
    usage_digests: tuple[InputDigest, ...]
    missing: tuple[UsageFile, ...]

    def genome_plan(self, genome: GenomeConfig) -> Plan:
        """Plan of the genome group."""
        observing = genome.observed_sites is not None
        return Plan(
            kind="genome",
            encoder=GENOME_ENCODER,
            inputs=self.digests + (self.usage_digests if observing else ()),
            parents={},
            options={
                "chromosomes": genome.chromosomes,
                "transcripts": genome.transcripts,
                "min_intron": genome.min_intron,
                "missing_contigs": genome.missing_contigs,
                "observed_sites": genome.observed_sites,
                "species": genome.species,
                "assembly": genome.assembly,
                "common_name": genome.common_name,
            },
            chunking={"sequence": [SEQUENCE_CHUNK, SEQUENCE_SHARD]},
        )

    def usage_plan(self, genome: GenomeConfig, site_digest: str, contig_digest: str) -> Plan:
        """Plan of the genome's main panel."""
        return Plan(
            kind="usage",
            encoder=USAGE_ENCODER,
            inputs=self.usage_digests + tuple(d for d in self.digests if d.role == "aliases"),
            parents={"sites": site_digest, "contigs": contig_digest},
            options={
                "files": [
                    {"condition": u.condition_id, "tissue": u.tissue, "timepoint": u.timepoint, "format": u.format,
                     "convention": u.convention, "sample": u.sample}
                    for u in self.usage
                ],
                "missing": [u.condition_id for u in self.missing],
                "mix_estimators": genome.mix_estimators,
            },
            chunking={"usage": [USAGE_CHUNK_SITES, USAGE_CHUNK_CONDITIONS, USAGE_SHARD_SITES]},
        )  # fmt: skip


def _collect_inputs(genome: GenomeConfig, options: IngestOptions) -> _Inputs:
    files = list(genome.usage)
    if genome.samples is not None:
        files += read_sample_sheet(genome.samples, genome_id=genome.genome_id)
    present = [u for u in files if not u.optional or input_exists(u.file)]
    if files and not present:
        raise InputError(
            f"genome {genome.genome_id}: none of its {len(files)} usage files exists (first: {files[0].file}); check the pattern "
            "and the folder it is relative to, or leave usage out"
        )
    named = [("fasta", genome.fasta), ("annotation", genome.annotation), ("aliases", genome.aliases)]
    return _Inputs(
        digests=tuple(
            digest_input(url, role, storage_options=options.storage_options) for role, url in named if url is not None
        ),
        usage=tuple(present),
        usage_digests=tuple(digest_input(u.file, "usage", storage_options=options.storage_options) for u in present),
        missing=tuple(u for u in files if u not in present),
    )


def _unchanged(root: StoreRoot, genome: GenomeConfig, plan: Plan, inputs: _Inputs) -> Mapping[str, Any] | None:
    """The stored summary if genome and usage are both current, else None."""
    path = f"genomes/{genome.genome_id}"
    pointer = read_pointer(root, path)
    if pointer is None or pointer.generation(None) != plan.generation:
        return None
    document = root.get_json(f"{path}/{plan.generation}/zarr.json") or {}
    attributes = document.get("attributes", {}).get("splicestore", {})
    if inputs.usage:
        usage_plan = inputs.usage_plan(genome, attributes["site_digest"], attributes["contig_digest"])
        usage_pointer = read_pointer(root, f"usage/{genome.genome_id}/{MAIN_PANEL}")
        if usage_pointer is None or usage_pointer.generation(attributes["site_digest"]) != usage_plan.generation:
            return None
    conditions, dropped = _panel_facts(root, genome.genome_id, attributes["site_digest"])
    summary = attributes["summary"]
    return {**summary, "dropped": {**summary["dropped"], **dropped}, "conditions": conditions}


def _mend_catalog(root: StoreRoot, genome: GenomeConfig, inputs: _Inputs) -> None:
    """List a genome that an earlier run published and was killed before it wrote the catalogue."""
    catalog = read_catalog(root)
    lists_usage = MAIN_PANEL in catalog["usage"].get(genome.genome_id, {})
    if genome.genome_id not in catalog["genomes"] or (inputs.usage and not lists_usage):
        rebuild_catalog(root)


def _panel_facts(root: StoreRoot, genome_id: str, site_digest: str) -> tuple[list[str], dict[str, int]]:
    """Conditions and ledger counts of the current main panel."""
    pointer = read_pointer(root, f"usage/{genome_id}/{MAIN_PANEL}")
    generation = pointer.generation(site_digest) if pointer else None
    if generation is None:
        return [], {}
    document = root.get_json(f"usage/{genome_id}/{MAIN_PANEL}/{generation}/zarr.json") or {}
    ours = document["attributes"]["splicestore"]
    return list(ours["conditions"]), dict(ours["dropped"])


def _read_tables(genome: GenomeConfig, inputs: _Inputs, options: IngestOptions) -> GenomeTables:
    aliases = read_aliases(genome.aliases) if genome.aliases else {}
    found = scan_fasta(genome.fasta, storage_options=options.storage_options)
    contigs = select_contigs(found, genome, aliases)
    observed = observed_sites(genome, inputs.usage, contigs)
    if genome.annotation is None:
        return unannotated_tables(contigs, observed)
    annotation = read_annotation(genome.annotation, storage_options=options.storage_options)
    return annotated_tables(annotation, contigs, found, genome, observed)


def _read_panel(genome: GenomeConfig, inputs: _Inputs, tables: GenomeTables, options: IngestOptions) -> Panel | None:
    if not inputs.usage:
        return None
    logger.info("%s: joining %d usage files to %d sites", genome.genome_id, len(inputs.usage), len(tables.sites))
    return build_panel(tables, genome, inputs.usage, inputs.missing, check_gate=not options.override_gates)


def projected_peak_bytes(tables: GenomeTables, inputs: _Inputs) -> int:
    """Upper bound of the memory one genome needs: interpreter, one shard in flight, tables, counts."""
    shard = min(SEQUENCE_SHARD, tables.contigs.n_bases)
    n_conditions = len({u.condition_id for u in inputs.usage})
    largest_usage = max((d.size for d in inputs.usage_digests), default=0)
    annotation = sum(d.size for d in inputs.digests if d.role == "annotation")
    tables_bytes = 400 * (len(tables.exon_start) + len(tables.sites)) + 2_000 * len(tables.genes)
    counts = 3 * 4 * len(tables.sites) * (n_conditions + 8)
    return (
        INTERPRETER_BYTES
        + 4 * shard
        + tables_bytes
        + counts
        + 40 * min(largest_usage, 64 << 20)
        + 12 * min(annotation, 32 << 20)
    )


def _provenance(genome: GenomeConfig, options: IngestOptions) -> dict[str, Any]:
    return {
        "splicestore": version("splicestore"),
        "fasta": PurePath(genome.fasta).name,
        "annotation": PurePath(genome.annotation).name if genome.annotation else None,
        "usage": [PurePath(u.file).name for u in genome.usage],
        "scheduler": options.scheduler.split("://")[0],
        "override_gates": options.override_gates,
    }


def _write_usage(
    root: StoreRoot,
    genome: GenomeConfig,
    inputs: _Inputs,
    tables: GenomeTables,
    panel: Panel | None,
    options: IngestOptions,
    provenance: Mapping[str, Any],
) -> Publication | None:
    """Steps 1 to 6 of the usage panel; the switch waits until the genome is complete too."""
    if panel is None:
        return None
    columns = panel.columns()
    publication = Publication(
        root=root,
        path=f"usage/{genome.genome_id}/{MAIN_PANEL}",
        plan=inputs.usage_plan(genome, tables.site_digest, tables.contigs.digest),
        specs=[*_usage_specs(*panel.alpha.shape), *(c.spec() for c in columns)],
        attributes={
            "site_digest": tables.site_digest,
            "conditions": list(panel.conditions),
            "joins": [j.document() for j in panel.joins],
            "dropped": ledger_counts(panel.ledger),
        },
        pointer_digest=tables.site_digest,
        provenance=dict(provenance),
        force=options.force,
    )
    if publication.is_complete():
        return publication
    publication.begin()
    parts = []
    for shard, first in enumerate(range(0, len(panel.alpha), USAGE_SHARD_SITES)):
        parts.append(f"usage-{shard:05d}")
        if not publication.has_part(parts[-1]):
            writer = publication.partition(parts[-1])
            for name, values in (("alpha", panel.alpha), ("beta", panel.beta)):
                writer.write(name, values[first : first + USAGE_SHARD_SITES], first)
            writer.close()
    parts.append("tables")
    writer = publication.partition("tables")
    write_columns(writer, columns)
    writer.close()
    publication.finalise(parts)
    return publication


def _usage_specs(n_sites: int, n_conditions: int) -> list[ArraySpec]:
    chunk = (USAGE_CHUNK_SITES, min(USAGE_CHUNK_CONDITIONS, max(1, n_conditions)))
    shard = (USAGE_SHARD_SITES, chunk[1])
    return [
        ArraySpec(
            name, (n_sites, n_conditions), ("site", "condition"), "float32", chunk, shard, fill_value=float("nan")
        )
        for name in ("alpha", "beta")
    ]


def _write_genome(
    root: StoreRoot,
    genome: GenomeConfig,
    plan: Plan,
    tables: GenomeTables,
    panel: Panel | None,
    options: IngestOptions,
    provenance: Mapping[str, Any],
    progress: Progress | None,
) -> tuple[Publication, Mapping[str, Any]]:
    """Steps 1 to 6 of the genome group; returns it with its summary."""
    columns = tables.columns()
    publication = Publication(
        root=root,
        path=f"genomes/{genome.genome_id}",
        plan=plan,
        specs=[sequence_spec(tables.contigs.n_bases), *(c.spec() for c in columns)],
        attributes={
            "genome_id": genome.genome_id,
            "site_digest": tables.site_digest,
            "contig_digest": tables.contigs.digest,
            **_identity(genome),
        },
        provenance=dict(provenance),
        force=options.force,
    )
    if publication.is_complete():
        document = root.get_json(f"{publication.base}/zarr.json") or {}
        return publication, _with_panel(document["attributes"]["splicestore"]["summary"], panel)
    publication.begin()
    probe = BaseProbe(intron_motif_positions(tables.introns))
    total = tables.contigs.n_bases
    digest = encode_sequence(
        publication,
        genome.fasta,
        tables.contigs,
        probe,
        storage_options=options.storage_options,
        progress=(lambda done: progress(genome.genome_id, done, total)) if progress else None,
    )
    motifs = motif_report(tables, probe.values())
    if not options.override_gates:
        check_motif_gate(motifs, genome.genome_id)
    if not publication.has_part("tables"):
        writer = publication.partition("tables")
        write_columns(writer, columns)
        writer.counts.update(tables.counts)
        writer.close()
    summary = genome_summary(tables, motifs.canonical_fraction)
    publication.finalise(
        [*sequence_parts(total), "tables"],
        {"sequence_digest": digest, "summary": summary, "motifs": motifs.document()},
    )
    return publication, _with_panel(summary, panel)


def _with_panel(summary: Mapping[str, Any], panel: Panel | None) -> dict[str, Any]:
    """A genome's summary with the conditions of its panel and what did not join."""
    usage = ledger_counts(panel.ledger) if panel else {}
    return {
        **summary,
        "dropped": {**summary["dropped"], **usage},
        "conditions": list(panel.conditions) if panel else [],
    }


def _identity(genome: GenomeConfig) -> dict[str, Any]:
    named = {"species": genome.species, "assembly": genome.assembly, "common_name": genome.common_name}
    return {key: value for key, value in named.items() if value is not None}


def ledger_counts(rows: Sequence[LedgerRow]) -> dict[str, int]:
    """Count a ledger's input rows by ``item:reason``."""
    counts: dict[str, int] = {}
    for row in rows:
        key = f"{row.item}:{row.reason}"
        counts[key] = counts.get(key, 0) + row.count
    return dict(sorted(counts.items()))


def genome_summary(tables: GenomeTables, canonical_fraction: float) -> dict[str, Any]:
    """Count what a genome holds and what was dropped, by reason."""
    return {
        "n_bases": tables.contigs.n_bases,
        "n_contigs": len(tables.contigs.names),
        "n_genes": len(tables.genes),
        "n_transcripts": len(tables.transcripts),
        "n_introns": len(tables.introns),
        "n_sites": n_sites_by_kind(tables.sites),
        "canonical_fraction": round(canonical_fraction, 6),
        "dropped": ledger_counts(tables.ledger),
    }


def _refuse_stale_usage(
    root: StoreRoot, genome: GenomeConfig, tables: GenomeTables, panel: Panel | None, options: IngestOptions
) -> None:
    """Changed sites orphan counts that were joined to the old ones: republish them or say so."""
    pointer = read_pointer(root, f"usage/{genome.genome_id}/{MAIN_PANEL}")
    if panel is not None or pointer is None or options.drop_usage or pointer.generation(tables.site_digest):
        return
    raise StoreError(
        f"{root.url}: genome {genome.genome_id} has usage for its present splice sites, and the new annotation has others; "
        "name the usage files in the configuration so that they are joined again, or add --drop-usage"
    )
