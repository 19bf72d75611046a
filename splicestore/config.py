"""Configuration documents: SplicEvo's ``genomes.json`` as it is, and our YAML. Parsed, checked, never opened here.

Paths stay as the document spells them, resolved against its folder; URLs are left alone.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from splicestore.errors import ConfigError
from splicestore.schema import check_name

UsageFormat = Literal["auto", "spliser", "star", "regtools", "hints", "junctions", "gct", "recount3"]
MATRIX_FORMATS = ("gct", "recount3")
"""Many samples in one file: ``sample`` says which."""
PositionConvention = Literal["auto", "spliser", "splicevo"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def condition_name(tissue: str | None, timepoint: str | None) -> str | None:
    """Join tissue and timepoint as ``tissue_timepoint``; either may be missing."""
    parts = [part for part in (tissue, timepoint) if part]
    return "_".join(parts) if parts else None


class UsageFile(_Document):
    """One usage file and the condition its counts are summed into."""

    file: str
    condition: str | None = None
    """Defaults to ``tissue_timepoint``."""
    tissue: str | None = None
    timepoint: str | None = None
    format: UsageFormat = "auto"
    convention: PositionConvention = "auto"
    """How a SpliSER-like table writes positions; ``auto`` decides by the join rates."""
    sample: str | None = None
    """Take this sample of a combined file only; by default all its samples are summed. A matrix needs it."""
    optional: bool = False
    """A missing file is recorded in the ledger instead of refused (patterns only)."""

    @field_validator("timepoint", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _matrix_has_sample(self) -> UsageFile:
        if self.format in MATRIX_FORMATS and self.sample is None:
            raise ValueError(f"a junction matrix ({self.format}) needs `sample`: which of its columns this row means")
        return self

    @property
    def condition_id(self) -> str:
        """Name of the condition."""
        name = self.condition or condition_name(self.tissue, self.timepoint)
        if not name:
            raise ConfigError(f"usage file {self.file}: give it a `condition`, or a `tissue` (and `timepoint`)")
        return name


class GenomeConfig(_Document):
    """One genome: where its files are and how they are read."""

    genome_id: str
    fasta: str
    annotation: str | None = None
    """GTF or GFF3; without it the genome has no genes and is tiled on its + strand."""
    chromosomes: tuple[str, ...] | None = None
    """Keep these contigs only; everything on others is in the ledger."""
    aliases: str | None = None
    """TSV of alias and contig, for annotation and usage files that spell contigs otherwise."""
    usage: tuple[UsageFile, ...] = ()
    samples: str | None = None
    """Sample sheet: columns sample, file, condition (or tissue, timepoint), optional format and convention."""
    species: str | None = None
    assembly: str | None = None
    common_name: str | None = None
    transcripts: str = "all"
    """all | protein_coding | canonical | splicevo | tag:NAME."""
    min_intron: int = Field(default=5, ge=1)
    """Shorter gaps between exons (bp) are no introns: frameshifts and sequencing errors."""
    missing_contigs: Literal["error", "drop"] = "error"
    """What to do with features on contigs that the FASTA lacks, or beyond a contig's end."""
    observed_sites: int | None = Field(default=None, ge=1)
    """Also keep sites that only junction reads support, from this many reads on."""
    mix_estimators: bool = False
    """Allow junction-only and SpliSER files in one condition."""

    @field_validator("genome_id")
    @classmethod
    def _is_name(cls, value: str) -> str:
        return check_name(value, "genome_id")

    @field_validator("chromosomes", mode="before")
    @classmethod
    def _chromosomes_as_text(cls, value: Any) -> Any:
        if isinstance(value, str | int):
            value = [value]
        return tuple(str(v) for v in value) if isinstance(value, list | tuple) else value


class GenomesConfig(_Document):
    """The whole document."""

    genomes: tuple[GenomeConfig, ...] = Field(min_length=1)

    @field_validator("genomes")
    @classmethod
    def _unique(cls, genomes: tuple[GenomeConfig, ...]) -> tuple[GenomeConfig, ...]:
        twice = [g for g, n in Counter(genome.genome_id for genome in genomes).items() if n > 1]
        if twice:
            raise ValueError(f"genome_id given more than once: {', '.join(twice)}")
        return genomes


def parse_genomes_config(text: str, url: str, exists: Callable[[str], bool]) -> GenomesConfig:
    """Parse SplicEvo's JSON or our YAML (JSON is YAML too).

    Parameters
    ----------
    text
        The document.
    url
        Where it came from: relative paths are resolved against its folder, then against the current folder.
    exists
        Tells whether a path exists, to choose between the two.

    Raises
    ------
    ConfigError
        With the place in the document, what was there and what is allowed.
    """
    document = load_document(text, url)
    if not isinstance(document, Mapping) or "genomes" not in document:
        raise ConfigError(f"{url}: no `genomes` key at the top; see docs/how-to/ingest.md for both accepted forms")
    genomes = document["genomes"]
    if not isinstance(genomes, list) or not all(isinstance(g, Mapping) for g in genomes):
        raise ConfigError(f"{url}: `genomes` must be a list of mappings, got {genomes!r:.80}")
    if "usage_files" in document or any("genome_path" in g for g in genomes):
        try:
            document = _from_splicevo(document, url)
        except (TypeError, AttributeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"{url}: not in the form of genomes.json ({error}); see docs/how-to/ingest.md for its keys and their types"
            ) from error
    config = validate(GenomesConfig, document, url)
    return GenomesConfig(genomes=tuple(_resolved(g, url, exists) for g in config.genomes))


def load_document(text: str, url: str) -> Any:
    """Parse YAML or JSON text.

    Raises
    ------
    ConfigError
        With the line of the mistake.
    """
    try:
        return json.loads(text) if url.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{url}: not valid {'JSON' if url.endswith('.json') else 'YAML'}: {error}") from error


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], document: Any, url: str) -> Model:
    """Validate a document; pydantic's findings become one readable error."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        findings = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'document'}: {e['msg']} (got {e['input']!r:.80})"
            for e in error.errors()
        )
        raise ConfigError(f"{url}: {findings}") from error


def _resolved(genome: GenomeConfig, url: str, exists: Callable[[str], bool]) -> GenomeConfig:
    def resolve(path: str | None) -> str | None:
        return None if path is None else resolve_path(path, url, exists)

    return genome.model_copy(
        update={
            "fasta": resolve(genome.fasta),
            "annotation": resolve(genome.annotation),
            "aliases": resolve(genome.aliases),
            "samples": resolve(genome.samples),
            "usage": tuple(u.model_copy(update={"file": resolve(u.file)}) for u in genome.usage),
        }
    )


def resolve_path(path: str, document_url: str, exists: Callable[[str], bool]) -> str:
    """Resolve a path against the folder of the document that names it; absolute paths and URLs stay."""
    if "://" in path or path.startswith("/"):
        return path
    folder = document_url.rsplit("/", 1)[0] if "/" in document_url else ""
    beside = f"{folder}/{path}" if folder else path
    return path if not exists(beside) and exists(path) else beside


_SPLICEVO_GENOME_KEYS = {"genome_id", "genome_path", "gtf_path", "chromosomes", "metadata", "common_name"}


def _from_splicevo(document: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Translate SplicEvo's keys into ours."""
    genomes = []
    usage = dict(document.get("usage_files") or {})
    for entry in document["genomes"]:
        if unknown := sorted(set(entry) - _SPLICEVO_GENOME_KEYS):
            raise ConfigError(
                f"{url}: genome {entry.get('genome_id')}: unknown keys {unknown}; a genomes.json entry has "
                f"{sorted(_SPLICEVO_GENOME_KEYS)}"
            )
        metadata = entry.get("metadata") or {}
        genomes.append(
            {
                "genome_id": entry.get("genome_id"),
                "fasta": entry.get("genome_path"),
                "annotation": entry.get("gtf_path"),
                "chromosomes": entry.get("chromosomes"),
                "species": metadata.get("species"),
                "assembly": metadata.get("assembly"),
                "common_name": entry.get("common_name"),
                "transcripts": "splicevo",
                "usage": _splicevo_usage(usage.pop(entry.get("genome_id"), None) or {}, url),
            }
        )
    if usage:
        known = [g["genome_id"] for g in genomes]
        raise ConfigError(f"{url}: usage_files names {sorted(usage)}, which are not among the genomes {known}")
    return {"genomes": genomes}


def _splicevo_usage(entry: Mapping[str, Any], url: str) -> list[dict[str, Any]]:
    files = [dict(f) for f in entry.get("files", [])]
    if pattern := entry.get("pattern"):
        tissues, timepoints = entry.get("tissues") or [], entry.get("timepoints") or [None]
        if not tissues:
            raise ConfigError(f"{url}: usage pattern {pattern!r} needs a list `tissues`")
        for tissue, timepoint in itertools.product(tissues, timepoints):
            name = pattern.replace("{tissue}", str(tissue)).replace("{timepoint}", str(timepoint))
            files.append({"file": name, "tissue": str(tissue), "timepoint": timepoint, "optional": True})
    return files
