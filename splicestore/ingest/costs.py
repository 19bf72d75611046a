"""What a genome of given counts takes: CPU seconds, memory, bytes and objects in the store, requests. Pure arithmetic.

The seconds are those of row ``ingest_rates`` of ``benchmarks/results/plan.json``, measured on 2 cores of an AMD EPYC with
24 GiB; a test holds the table to that row. Other machines are taken to need ``FASTER`` to ``SLOWER`` times as long. Memory
is a bound, never below what is observed; bytes in the store are an expectation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from splicestore.ingest.panel import CONDITIONS_PER_TASK, Panel
from splicestore.ingest.tables import Contigs, unannotated_tables
from splicestore.memory import INTERPRETER_BYTES
from splicestore.schema import BLOCK_BASES, SEQUENCE_SHARD, USAGE_CHUNK_CONDITIONS, USAGE_SHARD_SITES
from splicestore.storage.columns import Column

# -- the tables --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CpuRates:
    """CPU seconds of ``ingest genomes`` on the machine of the benchmark."""

    start: float = 1.67
    """A process: interpreter, imports, compiled kernels from the cache."""
    worker_start: float = 2.16
    """A worker process: until it has joined and imported what its first task needs."""
    scan_base: float = 3.29e-9
    """Digest and scan of a gzip FASTA, per base; by the driver alone."""
    encode_base: float = 1.69e-8
    """Read again, encode, write; by the tasks."""
    annotation_byte: float = 4.53e-8
    """Per byte of the annotation's text, tables included; by the driver alone."""
    usage_row: float = 2.53e-6
    """Read a row of a usage file and join it to a site; by the tasks."""
    missed_end: float = 4.92e-6
    """An end of a junction that lies on no site: grouped, and written to the ledger."""


RATES = CpuRates()
FASTER, SLOWER = 0.6, 2.5
"""How many times the benchmark machine's seconds others take; a judgement, no measurement."""
_STORED_PER_ROW = {
    "base": 0.32, "contig": 24.0, "alias": 16.0, "gene": 8.0, "transcript": 4.0, "transcript_edge": 1.8, "exon": 2.6,
    "site": 2.4, "site_edge": 1.2, "site_gene_link": 0.2, "block_edge": 1.0, "ledger": 0.0, "condition": 20.0,
}  # fmt: skip
"""Compressed bytes of all arrays of a dimension together, per row; simulated genomes and two yeasts lie on both sides."""
_STORED_PER_CELL = 2.5
"""alpha and beta together, compressed, per (site, condition) of counts in the tens."""
_MARGIN = 1.1
"""Rows that a head may have missed, where objects are counted."""
_DOCUMENT_BYTES = 1_900
"""Metadata of an array: its document, its copy in the group's, its digest in the manifest."""
_GROUP_BYTES = 3_000
_CONDITION_BYTES = 1_100
"""Of one condition in plan, group and manifest."""
_GROUP_DOCUMENTS = 7
"""plan, manifest, group, pointer, the documents of the groups above them, the catalogue."""
_PROBE_BYTES = 2
"""Of an intron end in the documents of the sequence's partitions."""

_ROW_BYTES = 400
"""In memory, per exon, site or transcript of the tables."""
_GENE_BYTES = 2_000
_CONTIG_BYTES = 500
_ANNOTATION_FACTOR, _ANNOTATION_SLAB = 12, 16 * 1024 * 1024
"""Parsing holds so many times a slab of the annotation's text."""
_USAGE_FACTOR = 8
"""Parsing a usage file holds so many times its text; the counts of a condition's other files are held besides."""
_HELD_USAGE_FACTOR = 2
_MISSED_BYTES = 280
"""Per end that joins no site: of a frame, its sort, and a ledger row."""
_SHARD_COPIES = 4
"""A shard as codes or counts, what zarr holds while encoding it, its digest, its object."""


# -- values ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """A figure from ``low`` to ``high``."""

    low: float
    high: float

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.high + other.high)

    def document(self) -> dict[str, float]:
        """Spell for ``--json``."""
        return {"low": float(f"{self.low:.4g}"), "high": float(f"{self.high:.4g}")}


@dataclass(frozen=True, slots=True)
class UsageCounts:
    """What the usage files of a genome hold."""

    n_conditions: int = 0
    n_files: int = 0
    bytes_in: int = 0
    rows: float = 0.0
    """Of all conditions; a file read by two conditions counts twice."""
    junctions: float = 0.0
    """Rows that are junctions."""
    largest_text: float = 0.0
    """Decompressed bytes of the largest file."""
    condition_text: float = 0.0
    """Of the files of the condition that has most."""
    widest_group: int = 0
    """Conditions that one task joins."""

    @property
    def missed_ends(self) -> float:
        """Ends that join no site, at most: half of a site table's rows (the join gate), both ends of a junction."""
        return 2 * self.junctions + (self.rows - self.junctions) / 2

    def all_joining(self) -> UsageCounts:
        """As if every end lay on a splice site."""
        return replace(self, rows=0.0, junctions=0.0)

    def of_conditions(self, n_conditions: int) -> UsageCounts:
        """Scale to a panel of fewer conditions."""
        share = n_conditions / max(1, self.n_conditions)
        return replace(
            self,
            n_conditions=n_conditions,
            rows=self.rows * share,
            junctions=self.junctions * share,
            widest_group=min(self.widest_group, n_conditions),
        )


@dataclass(frozen=True, slots=True)
class GenomeCounts:
    """What the files of a genome hold, as far as their heads tell."""

    bases: int
    contigs: int = 1
    genes: int = 0
    transcripts: int = 0
    """Of the annotation; ``selected`` of them are stored."""
    selected: int = 0
    exons: int = 0
    introns: int = 0
    sites: int = 0
    annotation_text: float = 0.0
    aliases: int = 0
    usage: UsageCounts = field(default_factory=UsageCounts)

    def rows(self) -> dict[str, int]:
        """Length of every dimension of the genome group."""
        return {
            "base": self.bases, "contig": self.contigs, "alias": self.aliases, "gene": self.genes,
            "transcript": self.selected, "transcript_edge": self.selected + 1, "exon": self.exons, "site": self.sites,
            "site_edge": self.sites + 1, "site_gene_link": self.sites,
            "block_edge": -(-self.bases // BLOCK_BASES) + 1, "ledger": max(1, self.transcripts - self.selected),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Partitions:
    """How a genome is cut."""

    sequence: int
    """Shards of bases: a task each where the FASTA can be entered midway (plain, bgzip)."""
    tables: int
    usage: int
    """Groups of conditions: a task each."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.sequence + self.tables + self.usage


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests to an object store that holds the store; those for inputs on object stores are in ``get``."""

    put: int
    get: int
    list: int

    def __add__(self, other: Requests) -> Requests:
        return Requests(self.put + other.put, self.get + other.get, self.list + other.list)

    @property
    def total(self) -> int:
        """All of them."""
        return self.put + self.get + self.list


# -- memory ------------------------------------------------------------------------------------------------------


def driver_peak_bytes(counts: GenomeCounts) -> int:
    """Bound of what the driver holds: interpreter, tables, a slab of annotation, counts of the panel, what did not join."""
    usage = counts.usage
    tables = _ROW_BYTES * (counts.exons + counts.sites + counts.transcripts) + _GENE_BYTES * counts.genes
    annotation = _ANNOTATION_FACTOR * min(counts.annotation_text, _ANNOTATION_SLAB)
    panel = 3 * 4 * counts.sites * (usage.n_conditions + CONDITIONS_PER_TASK) if usage.n_conditions else 0
    shard = _SHARD_COPIES * 4 * min(counts.sites, USAGE_SHARD_SITES) * usage.n_conditions
    missed = _MISSED_BYTES * usage.missed_ends
    return int(INTERPRETER_BYTES + tables + _CONTIG_BYTES * counts.contigs + annotation + panel + shard + missed)


def task_increment_bytes(counts: GenomeCounts) -> int:
    """Bound of what a running task adds to its process: a shard of bases, or a group of conditions."""
    usage = counts.usage
    group = 0.0
    if usage.n_conditions:
        share = usage.widest_group / usage.n_conditions
        group = (
            counts.sites * (8 * usage.widest_group + 64)
            + _USAGE_FACTOR * usage.largest_text
            + _HELD_USAGE_FACTOR * usage.condition_text
            + _MISSED_BYTES / 2 * usage.missed_ends * share
        )
    return int(max(_SHARD_COPIES * min(SEQUENCE_SHARD, counts.bases), group))


# -- disk and requests -------------------------------------------------------------------------------------------


def partitions_of(counts: GenomeCounts) -> Partitions:
    """How a genome is cut."""
    groups = -(-counts.usage.n_conditions // max(1, min(CONDITIONS_PER_TASK, counts.usage.n_conditions)))
    return Partitions(-(-counts.bases // SEQUENCE_SHARD), 1, groups)


@cache
def _genome_columns() -> tuple[Column, ...]:
    """Columns of the genome group, empty: which arrays there are, on which dimension, in which chunks."""
    return tuple(unannotated_tables(Contigs((), np.zeros(0, dtype=np.int64), {})).columns())


@cache
def _panel_columns() -> tuple[Column, ...]:
    nothing = np.zeros((0, 0), dtype=np.float32)
    return tuple(Panel((), (), (), (), nothing, nothing, (), ()).columns())


def _array_objects(columns: Iterable[Column], rows: Mapping[str, int]) -> int:
    return sum(-(-rows[column.dimension] // column.chunk) for column in columns)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What lies in the store in the end, and what it took to get there."""

    stored_bytes: int
    n_objects: int
    requests: Requests


def footprint_of(counts: GenomeCounts) -> Footprint:
    """Objects, bytes and requests of a genome and its panel; requests as counted at a server."""
    columns, rows, parts = _genome_columns(), counts.rows(), partitions_of(counts)
    most = {name: round(_MARGIN * n) for name, n in rows.items()}
    # The sequence array is no column.
    n_arrays = len(columns) + 1
    n_objects = n_arrays + _array_objects(columns, most) + 2 * parts.sequence + parts.tables + _GROUP_DOCUMENTS
    stored = sum(_STORED_PER_ROW[name] * n for name, n in rows.items()) + _PROBE_BYTES * counts.sites
    stored += n_arrays * _DOCUMENT_BYTES + _GROUP_BYTES
    read = [c for c in columns if c.name in ("exon_start", "exon_end", "transcript_exon_ptr", "transcript_gene",
                                             "gene_strand")]  # fmt: skip
    put, get, lists = n_objects + 2, 60 + 2 * parts.sequence + _array_objects(read, rows), 6
    usage = counts.usage
    if usage.n_conditions:
        columns = _panel_columns()
        shards = -(-round(_MARGIN * counts.sites) // USAGE_SHARD_SITES)
        missed = max(1, round(usage.missed_ends / usage.n_conditions))
        tables = _array_objects(columns, {"condition": usage.n_conditions, "ledger": missed})
        per_shard = 2 * -(-usage.n_conditions // USAGE_CHUNK_CONDITIONS) + 1
        n_arrays = len(columns) + 2
        of_panel = n_arrays + tables + shards * per_shard + 1 + _GROUP_DOCUMENTS
        stored += counts.sites * usage.n_conditions * _STORED_PER_CELL + usage.n_conditions * _CONDITION_BYTES
        stored += n_arrays * _DOCUMENT_BYTES + _GROUP_BYTES
        n_objects, put, get, lists = n_objects + of_panel, put + of_panel + 4, get + 12 + shards, lists + 2
    lists += 4 * (n_objects // 1000)
    return Footprint(int(stored), n_objects, Requests(put, get, lists))
