"""How much memory a genome will need: from its tables, or from the sizes of its files alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splicestore.config import GenomeConfig
from splicestore.ingest.inputs import GenomeInputs
from splicestore.ingest.tables import GenomeTables
from splicestore.memory import INTERPRETER_BYTES
from splicestore.schema import SEQUENCE_SHARD
from splicestore.storage import input_size

_ANNOTATION_CAP = 32 << 20
_USAGE_CAP = 64 << 20
_COMPRESSION = 5
"""Text of a gzip file per stored byte, at most, for FASTA."""


def projected_peak_bytes(tables: GenomeTables, inputs: GenomeInputs) -> int:
    """Upper bound of the memory one genome needs: interpreter, one shard in flight, tables, counts."""
    shard = min(SEQUENCE_SHARD, tables.contigs.n_bases)
    n_conditions = len({u.condition_id for u in inputs.usage.files})
    largest_usage = max((d.size for d in inputs.usage.digests), default=0)
    tables_bytes = 400 * (len(tables.exon_start) + len(tables.sites)) + 2_000 * len(tables.genes)
    counts = 3 * 4 * len(tables.sites) * (n_conditions + 8)
    return (
        INTERPRETER_BYTES
        + 4 * shard
        + tables_bytes
        + counts
        + 40 * min(largest_usage, _USAGE_CAP)
        + 12 * min(inputs.size("annotation"), _ANNOTATION_CAP)
    )


def quick_peak_bytes(genome: GenomeConfig, storage_options: Mapping[str, Any] | None = None) -> int:
    """Bound from file sizes alone, before anything is read: what a worker must have to be given the genome."""
    fasta = input_size(genome.fasta, storage_options=storage_options) or 0
    annotation = input_size(genome.annotation, storage_options=storage_options) or 0 if genome.annotation else 0
    return INTERPRETER_BYTES + 4 * min(SEQUENCE_SHARD, _COMPRESSION * fasta) + 12 * min(annotation, _ANNOTATION_CAP)
