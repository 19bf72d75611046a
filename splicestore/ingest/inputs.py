"""Identity of everything a genome is made from: digests that name its generations, addresses that are recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from splicestore.config import MATRIX_FORMATS, GenomeConfig, UsageFile
from splicestore.errors import InputError
from splicestore.readers.samples import read_sample_sheet
from splicestore.schema import (
    SEQUENCE_CHUNK,
    SEQUENCE_SHARD,
    USAGE_CHUNK_CONDITIONS,
    USAGE_CHUNK_SITES,
    USAGE_SHARD_SITES,
    InputDigest,
    Plan,
)
from splicestore.storage import absolute_url, digest_input, input_exists

GENOME_ENCODER = 2
USAGE_ENCODER = 1
MAIN_PANEL = "main"


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to run; nothing here changes what is stored, except that gates may be overridden."""

    override_gates: bool = False
    force: bool = False
    drop_usage: bool = False
    steal: bool = False
    """Take over write leases that have expired."""
    scheduler: str = "auto"
    profile: str | None = None
    """File for Dask's performance report."""
    max_memory: int | None = None
    """Refuse what would need more bytes than this on one machine."""
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """For inputs on object storage."""


@dataclass(frozen=True, slots=True)
class UsageInputs:
    """Usage files of one panel and who they are."""

    files: tuple[UsageFile, ...]
    digests: tuple[InputDigest, ...]
    missing: tuple[UsageFile, ...] = ()
    aliases: InputDigest | None = None

    def plan(self, site_digest: str, contig_digest: str, *, mix_estimators: bool) -> Plan:
        """Plan of a panel joined to the sites of ``site_digest``."""
        return Plan(
            kind="usage",
            encoder=USAGE_ENCODER,
            inputs=self.digests + ((self.aliases,) if self.aliases else ()),
            parents={"sites": site_digest, "contigs": contig_digest},
            options={
                "files": [
                    {"condition": u.condition_id, "tissue": u.tissue, "timepoint": u.timepoint, "format": u.format,
                     "convention": u.convention, "sample": u.sample}
                    for u in self.files
                ],
                "missing": [u.condition_id for u in self.missing],
                "mix_estimators": mix_estimators,
            },
            chunking={"usage": [USAGE_CHUNK_SITES, USAGE_CHUNK_CONDITIONS, USAGE_SHARD_SITES]},
        )  # fmt: skip

    def recorded(self) -> list[dict[str, Any]]:
        """Spell files and digests for the manifest, so that they can be joined again to other sites."""
        return [
            {**u.model_copy(update={"file": absolute_url(u.file)}).model_dump(exclude_none=True), "sha256": d.sha256}
            for u, d in zip(self.files, self.digests, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class GenomeInputs:
    """Identity of everything a genome is made from."""

    digests: tuple[InputDigest, ...]
    """FASTA, annotation, aliases."""
    usage: UsageInputs

    def genome_plan(self, genome: GenomeConfig) -> Plan:
        """Plan of the genome group."""
        observing = genome.observed_sites is not None
        return Plan(
            kind="genome",
            encoder=GENOME_ENCODER,
            inputs=self.digests + (self.usage.digests if observing else ()),
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

    def size(self, role: str) -> int:
        """Stored bytes of the inputs of a role."""
        return sum(d.size for d in (*self.digests, *self.usage.digests) if d.role == role)


def collect_inputs(genome: GenomeConfig, options: IngestOptions) -> GenomeInputs:
    """Digest the files of a genome.

    Raises
    ------
    InputError
        If a file does not exist that is not optional, or none of the usage files does.
    """
    files = list(genome.usage)
    if genome.samples is not None:
        files += read_sample_sheet(genome.samples, genome_id=genome.genome_id, storage_options=options.storage_options)
    named = [("fasta", genome.fasta), ("annotation", genome.annotation), ("aliases", genome.aliases)]
    digests = tuple(
        digest_input(url, role, storage_options=options.storage_options) for role, url in named if url is not None
    )
    aliases = next((d for d in digests if d.role == "aliases"), None)
    return GenomeInputs(digests, collect_usage(genome.genome_id, files, aliases, options))


def collect_usage(
    genome_id: str, files: Sequence[UsageFile], aliases: InputDigest | None, options: IngestOptions
) -> UsageInputs:
    """Digest the usage files of a panel; a file named by many rows is read once."""
    exists = {u.file: not u.optional or input_exists(u.file, storage_options=options.storage_options) for u in files}
    present = tuple(u for u in files if exists[u.file])
    if files and not present:
        raise InputError(
            f"genome {genome_id}: none of its {len(files)} usage files exists (first: {files[0].file}); check the pattern "
            "and the folder it is relative to, or leave usage out"
        )
    digests = {u.file: digest_usage(u, options) for u in {u.file: u for u in present}.values()}
    return UsageInputs(
        files=present,
        digests=tuple(digests[u.file] for u in present),
        missing=tuple(u for u in files if not exists[u.file]),
        aliases=aliases,
    )


def digest_usage(usage: UsageFile, options: IngestOptions) -> InputDigest:
    """Digest a usage file; with the files beside it that it cannot be read without."""
    urls = [usage.file]
    if usage.format in MATRIX_FORMATS:
        # Not at the top: scipy's sparse matrices take 0.2 s to import.
        from splicestore.readers.junction_matrix import matrix_companions

        urls += matrix_companions(usage.file, usage.format)
    found = [digest_input(url, "usage", storage_options=options.storage_options) for url in urls]
    if len(found) == 1:
        return found[0]
    joined = hashlib.sha256("".join(d.sha256 for d in found).encode()).hexdigest()
    return InputDigest("usage", sum(d.size for d in found), joined)


def genome_provenance(genome: GenomeConfig, inputs: GenomeInputs, options: IngestOptions) -> dict[str, Any]:
    """What is recorded of a genome's making; its configuration makes it again, for repairs."""
    recorded = genome.model_copy(
        update={
            "fasta": absolute_url(genome.fasta),
            "annotation": absolute_url(genome.annotation) if genome.annotation else None,
            "aliases": absolute_url(genome.aliases) if genome.aliases else None,
            "samples": None,
            "usage": tuple(u.model_copy(update={"file": absolute_url(u.file)}) for u in inputs.usage.files)
            if genome.observed_sites is not None
            else (),
        }
    )
    return {
        **run_provenance(options),
        "config": recorded.model_dump(mode="json", exclude_none=True),
        "inputs": [{"role": d.role, "size": d.size, "sha256": d.sha256} for d in inputs.digests],
    }


def usage_provenance(
    inputs: UsageInputs, options: IngestOptions, aliases: str | None, mix_estimators: bool
) -> dict[str, Any]:
    """What is recorded of a panel's making."""
    return {
        **run_provenance(options),
        "files": inputs.recorded(),
        "aliases": absolute_url(aliases) if aliases else None,
        "mix_estimators": mix_estimators,
    }


def run_provenance(options: IngestOptions) -> dict[str, Any]:
    """Versions and settings of a run."""
    libraries = ("splicestore", "zarr", "numcodecs", "numpy")
    return {
        "versions": {name: version(name) for name in libraries},
        "scheduler": options.scheduler.split("://")[0],
        "override_gates": options.override_gates,
    }
