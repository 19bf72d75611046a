"""One genome's work: what is parsed once, the partitions that write it, and how it becomes complete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.cluster import Executor
from splicestore.config import GenomeConfig
from splicestore.errors import GateError, StoreError
from splicestore.ingest.gates import check_motif_gate, motif_report
from splicestore.ingest.inputs import (
    MAIN_PANEL,
    GenomeInputs,
    IngestOptions,
    UsageInputs,
    genome_provenance,
    usage_provenance,
)
from splicestore.ingest.panel import Panel, PanelRules, PanelSites, build_panel, observed_sites
from splicestore.ingest.sequence import (
    SequenceTask,
    encode_sequence,
    sequence_digest,
    sequence_parts,
    sequence_spec,
    sequence_tasks,
)
from splicestore.ingest.tables import (
    Contigs,
    GenomeTables,
    annotated_tables,
    n_sites_by_kind,
    select_contigs,
    unannotated_tables,
)
from splicestore.kernels.sequence import encode_bases
from splicestore.kernels.sites import Introns, intron_motif_positions, introns_of
from splicestore.memory import INTERPRETER_BYTES, observed_peak_bytes
from splicestore.readers.aliases import read_aliases
from splicestore.readers.annotation import read_annotation
from splicestore.readers.fasta import FastaIndex, scan_fasta
from splicestore.schema import (
    SEQUENCE_SHARD,
    USAGE_CHUNK_CONDITIONS,
    USAGE_CHUNK_SITES,
    USAGE_SHARD_SITES,
    ArraySpec,
    LedgerRow,
    Plan,
)
from splicestore.storage import (
    Part,
    PartitionPlace,
    PartitionWriter,
    Publication,
    StoreRoot,
    finalise_generation,
    read_group,
)
from splicestore.storage.arrays import read_arrays
from splicestore.storage.columns import write_columns
from splicestore.storage.partitions import part_key

logger = logging.getLogger(__name__)

TABLES = "tables"
USAGE = "usage"

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) in bases."""


@dataclass(frozen=True, slots=True)
class GenomeJob:
    """A genome, read and ready to be written."""

    root: StoreRoot
    genome: GenomeConfig
    inputs: GenomeInputs
    options: IngestOptions
    index: FastaIndex
    tables: GenomeTables
    publication: Publication

    @property
    def parts(self) -> list[str]:
        """Partitions of the genome group."""
        return [*sequence_parts(self.tables.contigs.n_bases), TABLES]

    @property
    def units(self) -> list[str]:
        """What can be done independently, by a job array too: the partitions, and the usage panel as one."""
        return [*self.parts, *([USAGE] if self.inputs.usage.files else [])]


def read_genome(root: StoreRoot, genome: GenomeConfig, inputs: GenomeInputs, options: IngestOptions) -> GenomeJob:
    """Scan the FASTA, parse the annotation, derive the tables.

    Raises
    ------
    InputError
        If a file is wrong, with file, line or contig, and value.
    """
    reading = options.storage_options
    aliases = read_aliases(genome.aliases, storage_options=reading) if genome.aliases else {}
    index = scan_fasta(genome.fasta, storage_options=reading)
    contigs = select_contigs(index.contigs, genome, aliases)
    observed = observed_sites(genome, inputs.usage.files, contigs, reading)
    if genome.annotation is None:
        tables = unannotated_tables(contigs, observed)
    else:
        annotation = read_annotation(genome.annotation, storage_options=reading)
        tables = annotated_tables(annotation, contigs, index.contigs, genome, observed)
    publication = Publication(
        root=root,
        path=f"genomes/{genome.genome_id}",
        plan=inputs.genome_plan(genome),
        specs=[sequence_spec(contigs.n_bases), *(c.spec() for c in tables.columns())],
        attributes={
            "genome_id": genome.genome_id,
            "site_digest": tables.site_digest,
            "contig_digest": contigs.digest,
            **_identity(genome),
        },
        provenance=genome_provenance(genome, inputs, options),
        force=options.force,
    )
    return GenomeJob(root, genome, inputs, options, index, tables, publication)


def _identity(genome: GenomeConfig) -> dict[str, Any]:
    named = {"species": genome.species, "assembly": genome.assembly, "common_name": genome.common_name}
    return {key: value for key, value in named.items() if value is not None}


# -- writing -----------------------------------------------------------------------------------------------------


def write_partitions(
    job: GenomeJob, executor: Executor, parts: Sequence[str], *, progress: Progress | None = None
) -> int:
    """Write partitions of the genome group; return the peak memory of the workers, in bytes."""
    contigs = job.tables.contigs
    shards = {i: name for i, name in enumerate(sequence_parts(contigs.n_bases)) if name in set(parts)}
    tasks = sequence_tasks(
        job.genome.fasta,
        job.index,
        contigs,
        {shard: job.publication.place(name, ["sequence"]) for shard, name in shards.items()},
        np.unique(intron_motif_positions(job.tables.introns)),
        n_workers=executor.n_workers,
        storage_options=job.options.storage_options,
    )
    if TABLES in parts:
        _write_tables(job)
    names = [f"{job.genome.genome_id} {task.places[0].name}" for task in tasks]
    peak, done = 0, contigs.n_bases - sum(task.n_bytes for task in tasks)
    for _, (n_bases, observed) in executor.map(
        _encode, tasks, names=names, memory=sequence_task_bytes(contigs.n_bases)
    ):
        peak, done = max(peak, observed), done + n_bases
        if progress is not None:
            progress(job.genome.genome_id, done, contigs.n_bases)
    return peak


def _encode(task: SequenceTask) -> tuple[int, int]:
    return encode_sequence(task), observed_peak_bytes()


def sequence_task_bytes(n_bases: int) -> int:
    """Bound of what one sequence task needs: interpreter, a shard as codes, what zarr holds while encoding it, objects."""
    return INTERPRETER_BYTES + 4 * min(SEQUENCE_SHARD, n_bases)


def _write_tables(job: GenomeJob) -> None:
    writer = job.publication.partition(TABLES)
    write_columns(writer, job.tables.columns())
    writer.counts.update(job.tables.counts)
    writer.counts["summary"] = table_summary(job.tables)
    writer.close()


def table_summary(tables: GenomeTables) -> dict[str, Any]:
    """Count what a genome holds and what was dropped, by reason."""
    return {
        "n_bases": tables.contigs.n_bases,
        "n_contigs": len(tables.contigs.names),
        "n_genes": len(tables.genes),
        "n_transcripts": len(tables.transcripts),
        "n_introns": len(tables.introns),
        "n_sites": n_sites_by_kind(tables.sites),
        "dropped": ledger_counts(tables.ledger),
    }


def ledger_counts(rows: Sequence[LedgerRow]) -> dict[str, int]:
    """Count a ledger's input rows by ``item:reason``."""
    counts: dict[str, int] = {}
    for row in rows:
        key = f"{row.item}:{row.reason}"
        counts[key] = counts.get(key, 0) + row.count
    return dict(sorted(counts.items()))


# -- complete ----------------------------------------------------------------------------------------------------


def complete_genome(
    root: StoreRoot, base: str, provenance: Mapping[str, Any], *, override_gates: bool
) -> Mapping[str, Any]:
    """Steps 4 to 6 for a genome generation, from what lies in the store: gate the motifs, sum up, mark complete.

    Returns
    -------
    attributes
        Of the complete group.

    Raises
    ------
    PartitionMissingError
        If a partition is missing.
    GateError
        If the introns are not canonical.
    """
    found = read_group(root, base)
    if found is None:
        raise StoreError(f"{root.url_of(base)}: no such generation; run the command that writes it")
    attributes, _ = found
    if attributes["status"] == "complete":
        return attributes
    arrays = read_arrays(root, base, _TABLE_ARRAYS)
    contigs = Contigs(tuple(str(n) for n in arrays["contig_name"]), arrays["contig_length"], {})
    shards = sequence_parts(contigs.n_bases)
    parts = {name: _read_part(root, base, name) for name in [*shards, TABLES]}
    missing = [name for name, part in parts.items() if part is None]
    gated = {}
    if not missing:
        kept = {name: part for name, part in parts.items() if part is not None}
        introns, strand = _stored_introns(root, base, arrays)
        letters = "".join(kept[name].counts["intron_bases"] for name in shards)
        motifs = motif_report(introns, strand, _bases_at(intron_motif_positions(introns), letters))
        if not override_gates:
            check_motif_gate(motifs, str(attributes["genome_id"]))
        summary = {**kept[TABLES].counts["summary"], "canonical_fraction": round(motifs.canonical_fraction, 6)}
        digest = sequence_digest(contigs, [kept[name].content for name in shards])
        gated = {"sequence_digest": digest, "summary": summary, "motifs": motifs.document()}
    # Where a part is missing this says so, by name.
    finalise_generation(root, base, [*shards, TABLES], gated, provenance)
    return {**attributes, **gated, "status": "complete"}


_TABLE_ARRAYS = ("contig_name", "contig_length", "gene_strand", "transcript_gene", "transcript_exon_ptr", "exon_start",
                 "exon_end")  # fmt: skip


def _read_part(root: StoreRoot, base: str, name: str) -> Part | None:
    data = root.get(part_key(base, name))
    try:
        return None if data is None else Part.parse(data)
    except ValueError:
        return None


def _stored_introns(root: StoreRoot, base: str, arrays: Mapping[str, NDArray[Any]]) -> tuple[Introns, NDArray[np.int8]]:
    """Kept introns and their strands, from the tables as stored."""
    plan = root.get_json(f"{base}/plan.json") or {}
    introns = introns_of(arrays["transcript_exon_ptr"], arrays["exon_start"], arrays["exon_end"])
    introns = introns.take(introns.end - introns.start >= int(plan["options"]["min_intron"]))
    if not len(introns):
        return introns, np.zeros(0, dtype=np.int8)
    return introns, arrays["gene_strand"][arrays["transcript_gene"][introns.transcript]]


def _bases_at(positions: NDArray[np.int64], letters: str) -> NDArray[np.uint8]:
    """Codes at positions, from the letters noted at the sorted distinct positions."""
    _, inverse = np.unique(positions, return_inverse=True)
    return encode_bases(letters.encode())[inverse.reshape(positions.shape)]


# -- usage -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WrittenPanel:
    """A panel generation that is complete, and not yet switched to."""

    publication: Publication
    conditions: tuple[str, ...]
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PanelTarget:
    """Where a panel goes and what it is joined to."""

    root: StoreRoot
    genome_id: str
    panel: str
    sites: PanelSites
    site_digest: str
    mix_estimators: bool = False
    aliases: str | None = None
    """Recorded only: the sites' contigs hold the aliases."""
    allow_new_sites: bool = True
    """False: refuse rows that lie on no site, instead of counting them in the ledger."""

    @property
    def path(self) -> str:
        """Name in the store."""
        return f"usage/{self.genome_id}/{self.panel}"


def write_panel(target: PanelTarget, usage: UsageInputs, options: IngestOptions, executor: Executor) -> WrittenPanel:
    """Steps 1 to 6 of a usage panel: join, write, mark complete.

    Raises
    ------
    GateError
        If the coordinates of a file are off, or rows lie on no site and that is not allowed.
    """
    plan = usage.plan(target.site_digest, target.sites.contigs.digest, mix_estimators=target.mix_estimators)
    stored = read_group(target.root, f"{target.path}/{plan.generation}")
    if stored is not None and stored[0]["status"] == "complete":
        publication = Publication(
            target.root, target.path, plan, (), {}, pointer_digest=target.site_digest, force=options.force
        )
        return WrittenPanel(publication, tuple(stored[0]["conditions"]), stored[0]["dropped"])
    panel = _join(target, usage, options, executor)
    dropped = ledger_counts(panel.ledger)
    if not target.allow_new_sites and dropped.get("usage_site:unknown_site"):
        raise GateError(
            f"{target.path}: {dropped['usage_site:unknown_site']} rows lie on no splice site of genome {target.genome_id}; "
            "--new-sites drop counts them in the ledger, `observed_sites` in the configuration of `ingest genomes` makes them sites"
        )
    publication = _panel_publication(target, plan, panel, options.force)
    publication.provenance.update(usage_provenance(usage, options, target.aliases, target.mix_estimators))
    publication.begin()
    publication.finalise(_write_counts(publication, panel))
    return WrittenPanel(publication, panel.conditions, dropped)


def _join(target: PanelTarget, usage: UsageInputs, options: IngestOptions, executor: Executor) -> Panel:
    logger.info("%s: joining %d usage files to %d sites", target.genome_id, len(usage.files), len(target.sites.sites))
    return build_panel(
        target.sites,
        PanelRules(target.genome_id, target.mix_estimators, not options.override_gates),
        usage.files,
        usage.missing,
        executor,
        storage_options=options.storage_options,
    )


def write_panel_parts(
    target: PanelTarget,
    usage: UsageInputs,
    base: str,
    parts: Sequence[str],
    options: IngestOptions,
    executor: Executor,
) -> None:
    """Write some partitions of a panel generation again, whatever is there."""
    panel = _join(target, usage, replace(options, override_gates=True), executor)
    specs = (*_usage_specs(*panel.alpha.shape), *(c.spec() for c in panel.columns()))
    for name, write in _panel_parts(panel).items():
        if name in parts:
            writer = PartitionPlace(target.root, base, name, specs).open()
            write(writer)
            writer.close()


def _panel_publication(target: PanelTarget, plan: Plan, panel: Panel, force: bool) -> Publication:
    return Publication(
        root=target.root,
        path=target.path,
        plan=plan,
        specs=[*_usage_specs(*panel.alpha.shape), *(c.spec() for c in panel.columns())],
        attributes={
            "site_digest": target.site_digest,
            "conditions": list(panel.conditions),
            "joins": [j.document() for j in panel.joins],
            "dropped": ledger_counts(panel.ledger),
        },
        pointer_digest=target.site_digest,
        force=force,
    )


def _write_counts(publication: Publication, panel: Panel) -> list[str]:
    parts = _panel_parts(panel)
    for name, write in parts.items():
        if not publication.has_part(name):
            writer = publication.partition(name)
            write(writer)
            writer.close()
    return list(parts)


def _panel_parts(panel: Panel) -> dict[str, Callable[[PartitionWriter], None]]:
    """Partitions of a panel, and what each writes."""

    def shard(first: int) -> Callable[[PartitionWriter], None]:
        def write(writer: PartitionWriter) -> None:
            for name, values in (("alpha", panel.alpha), ("beta", panel.beta)):
                writer.write(name, values[first : first + USAGE_SHARD_SITES], first)

        return write

    starts = range(0, len(panel.alpha), USAGE_SHARD_SITES)
    parts = {f"usage-{number:05d}": shard(first) for number, first in enumerate(starts)}
    return {**parts, TABLES: lambda writer: write_columns(writer, panel.columns())}


def _usage_specs(n_sites: int, n_conditions: int) -> list[ArraySpec]:
    chunk = (USAGE_CHUNK_SITES, min(USAGE_CHUNK_CONDITIONS, max(1, n_conditions)))
    shard = (USAGE_SHARD_SITES, chunk[1])
    return [
        ArraySpec(
            name, (n_sites, n_conditions), ("site", "condition"), "float32", chunk, shard, fill_value=float("nan")
        )
        for name in ("alpha", "beta")
    ]


def write_main_panel(job: GenomeJob, executor: Executor) -> WrittenPanel | None:
    """Write the panel of the configuration's usage files; None where there are none."""
    if not job.inputs.usage.files:
        return None
    return write_panel(job_panel(job, MAIN_PANEL), job.inputs.usage, job.options, executor)


def job_panel(job: GenomeJob, panel: str, *, mix_estimators: bool | None = None) -> PanelTarget:
    """Target of a panel that is joined to the sites of a genome that is being written."""
    return PanelTarget(
        root=job.root,
        genome_id=job.genome.genome_id,
        panel=panel,
        sites=PanelSites.of(job.tables),
        site_digest=job.tables.site_digest,
        mix_estimators=job.genome.mix_estimators if mix_estimators is None else mix_estimators,
        aliases=job.genome.aliases,
    )
