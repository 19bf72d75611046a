"""Stores written array by array through the storage layer: genomes too large, too many-pieced or too odd for files.

Everything goes the way of ``ingest`` and ``split`` (plan, partitions, manifest, switch), so that readers, ``prune`` and
pointers see published generations; only what a stream reads is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.ingest.sequence import sequence_spec
from splicestore.schema import (
    BLOCK_BASES,
    SEQUENCE_SHARD,
    SUBSET_NAMES,
    USAGE_CHUNK_SITES,
    USAGE_SHARD_SITES,
    ArraySpec,
    Plan,
)
from splicestore.storage import PartitionWriter, Publication, StoreRoot
from splicestore.storage.columns import Column, write_columns

Int64 = NDArray[np.int64]
TABLE_CHUNK = 1 << 20
"""Rows of the window table in one object: a table of 10^7 rows is not 10^3 files."""


@dataclass(frozen=True)
class GenomeArrays:
    """A genome as arrays. Positions are absolute."""

    name: str
    contig_length: Int64
    bases: Mapping[int, NDArray[np.uint8]]
    """Shard -> its codes, whole; shards that are not there are never written and read as N."""
    position: Int64
    strand: NDArray[np.int8]
    kind: NDArray[np.uint8]
    """Of the splice sites, sorted by position and strand."""
    conditions: tuple[str, ...] = ()
    alpha: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    beta: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    """(site, condition); without conditions there is no usage."""

    @property
    def contig_offset(self) -> Int64:
        return np.cumsum(self.contig_length) - self.contig_length

    @property
    def n_bases(self) -> int:
        return int(self.contig_length.sum())

    @property
    def contig_names(self) -> list[str]:
        return [f"chr{row + 1}" for row in range(len(self.contig_length))]

    @property
    def site_digest(self) -> str:
        return _digest(self.position, self.strand, self.kind)

    @property
    def block_site_ptr(self) -> Int64:
        return np.searchsorted(self.position, np.arange(0, self.n_bases + BLOCK_BASES, BLOCK_BASES))


def shards_of(codes: NDArray[np.uint8]) -> dict[int, NDArray[np.uint8]]:
    """Cut all bases of a genome into shards."""
    return {i: codes[i * SEQUENCE_SHARD : (i + 1) * SEQUENCE_SHARD] for i in range(-(-len(codes) // SEQUENCE_SHARD))}


def publish_genome(root: StoreRoot, genome: GenomeArrays) -> str:
    """Publish a genome, and its usage as the panel ``main``; return the genome's generation."""
    columns = [
        Column("contig_name", genome.contig_names, "contig", "string"),
        Column("contig_length", genome.contig_length, "contig", "int64"),
        Column("contig_offset", genome.contig_offset, "contig", "int64"),
        Column("alias_name", [], "alias", "string"),
        Column("alias_contig", np.zeros(0, dtype=np.int32), "alias", "int32"),
        Column("site_position", genome.position, "site", "int64"),
        Column("site_strand", genome.strand, "site", "int8"),
        Column("site_kind", genome.kind, "site", "uint8"),
        Column("block_site_ptr", genome.block_site_ptr, "block_edge", "int64"),
    ]

    def shard(number: int) -> Callable[[PartitionWriter], None]:
        return lambda writer: writer.write("sequence", genome.bases[number], number * SEQUENCE_SHARD)

    publication = Publication(
        root,
        f"genomes/{genome.name}",
        _plan("genome", digest=_digest(genome.contig_length, *genome.bases.values()), sites=genome.site_digest),
        [sequence_spec(genome.n_bases), *(column.spec() for column in columns)],
        {"genome_id": genome.name, "site_digest": genome.site_digest, "summary": {}},
    )
    parts = {f"sequence-{number:05d}": shard(number) for number in genome.bases}
    _publish(publication, {**parts, "tables": lambda writer: write_columns(writer, columns)})
    if genome.conditions:
        publish_usage(root, genome)
    return publication.generation


def publish_usage(root: StoreRoot, genome: GenomeArrays, panel: str = "main") -> str:
    """Publish the counts of a genome whose sites are published; return the generation's key."""
    columns = [Column("condition_name", list(genome.conditions), "condition", "string")]
    shape, chunk = genome.alpha.shape, (USAGE_CHUNK_SITES, len(genome.conditions))
    specs = [
        ArraySpec(name, shape, ("site", "condition"), "float32", chunk, (USAGE_SHARD_SITES, chunk[1]), float("nan"))
        for name in ("alpha", "beta")
    ]

    def counts(writer: PartitionWriter) -> None:
        writer.write("alpha", genome.alpha)
        writer.write("beta", genome.beta)
        write_columns(writer, columns)

    publication = Publication(
        root,
        f"usage/{genome.name}/{panel}",
        _plan("usage", digest=_digest(genome.alpha, genome.beta), conditions=genome.conditions),
        [*specs, *(column.spec() for column in columns)],
        {"site_digest": genome.site_digest, "conditions": list(genome.conditions), "dropped": {}},
        pointer_digest=genome.site_digest,
    )
    _publish(publication, {"counts": counts})
    return publication.base


@dataclass(frozen=True)
class Windows:
    """The window table of a split over several genomes, sorted by genome, contig, start, strand."""

    genome: NDArray[np.int16]
    contig: NDArray[np.int32]
    start: Int64
    """Absolute, of the centre."""
    strand: NDArray[np.int8]
    window_size: int
    context_size: int

    def __len__(self) -> int:
        return len(self.start)


def tile_contigs(genomes: Sequence[GenomeArrays], window_size: int, context_size: int) -> Windows:
    """All grid cells of all contigs on both strands."""
    columns: list[list[NDArray[Any]]] = [[], [], []]
    for code, genome in enumerate(genomes):
        cells = -(-genome.contig_length // window_size)
        contig = np.repeat(np.arange(len(cells), dtype=np.int32), cells)
        cell = np.arange(len(contig)) - np.repeat(np.cumsum(cells) - cells, cells)
        start = genome.contig_offset[contig] + cell * window_size
        for column, values in zip(columns, (np.full(len(start), code, dtype=np.int16), contig, start), strict=True):
            column.append(np.repeat(values, 2))
    genome_code, contig, start = (np.concatenate(column) for column in columns)
    strand = np.tile(np.array([-1, 1], dtype=np.int8), len(start) // 2)
    return Windows(genome_code, contig, start, strand, window_size, context_size)


def publish_split(
    root: StoreRoot,
    name: str,
    genomes: Mapping[str, GenomeArrays],
    windows: Windows,
    subset: str | NDArray[np.uint8] = "train",
) -> str:
    """Publish a split; return its generation.

    Parameters
    ----------
    genomes
        By the generation that is pinned, in the order of ``windows.genome``.
    subset
        Of all windows, or the code of each.
    """
    codes = np.full(len(windows), SUBSET_NAMES.index(subset), dtype=np.uint8) if isinstance(subset, str) else subset
    window = {
        "window_genome": windows.genome,
        "window_contig": windows.contig,
        "window_start": windows.start,
        "window_strand": windows.strand,
        "window_subset": codes,
        "window_has_gene": np.ones(len(windows), dtype=bool),
    }
    pins = {genome.name: generation for generation, genome in genomes.items()}
    digest = _digest(*window.values())
    columns = [*(_column(name, values, "window") for name, values in window.items()), *_genome_columns(genomes)]
    publication = Publication(
        root,
        f"splits/{name}",
        _plan("split", digest=digest, pins=pins),
        [column.spec() for column in columns],
        {
            "window_size": windows.window_size,
            "context_size": windows.context_size,
            "genome_ids": list(pins),
            "pins": pins,
            "site_digests": {genome.name: genome.site_digest for genome in genomes.values()},
            "digest": digest,
        },
    )
    _publish(publication, {"table": lambda writer: write_columns(writer, columns)})
    return publication.generation


def _genome_columns(genomes: Mapping[str, GenomeArrays]) -> list[Column]:
    """What a split knows of its genomes, so that a plan opens none."""
    all_of = list(genomes.values())
    code = np.repeat(np.arange(len(all_of), dtype=np.int16), [len(genome.contig_length) for genome in all_of])
    counts = [len(genome.block_site_ptr) for genome in all_of]
    return [
        _column("contig_genome", code, "contig"),
        _column("contig_length", np.concatenate([genome.contig_length for genome in all_of]), "contig"),
        _column("contig_offset", np.concatenate([genome.contig_offset for genome in all_of]), "contig"),
        _column("genome_block_ptr", np.cumsum([0, *counts]), "genome_edge"),
        _column("block_site_ptr", np.concatenate([genome.block_site_ptr for genome in all_of]), "genome_block_edge"),
    ]


def _column(name: str, values: NDArray[Any], dimension: str) -> Column:
    return Column(name, values, dimension, values.dtype.name, chunk=TABLE_CHUNK)


def _plan(kind: str, **options: Any) -> Plan:
    return Plan(kind, 1, (), {}, options, {})


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _publish(publication: Publication, parts: Mapping[str, Callable[[PartitionWriter], None]]) -> None:
    if not publication.is_complete():
        publication.begin()
        for name, write in parts.items():
            writer = publication.partition(name)
            write(writer)
            writer.close()
        publication.finalise(parts)
    publication.switch()
