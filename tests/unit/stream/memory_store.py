"""A store in memory that a stream can read, random contents for it, and windows cut out of it base by base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from splicestore.schema import BLOCK_BASES

COMPLEMENT = {0: 3, 1: 2, 2: 1, 3: 0, 4: 4}


@dataclass
class MemoryGenome:
    genome_id: str
    contigs: list[np.ndarray]
    """Codes of each contig."""
    sites: list[tuple[int, int, int]]
    """(absolute position, strand, kind), sorted."""
    condition_names: list[str]
    alpha: np.ndarray
    beta: np.ndarray
    generation: str = "g1"
    usage_generations: tuple[str, ...] = ()
    reads: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.contig_length = np.array([len(c) for c in self.contigs], dtype=np.int64)
        self.contig_offset = np.cumsum(self.contig_length) - self.contig_length
        self.bases = self.contigs[0] if len(self.contigs) == 1 else np.concatenate(self.contigs)
        self.n_bases = len(self.bases)
        self.contig_names = [f"chr{number + 1}" for number in range(len(self.contigs))]
        table = np.array(self.sites, dtype=np.int64).reshape(-1, 3)
        self.site_rows = {(p, s): (row, kind) for row, (p, s, kind) in enumerate(self.sites)}
        self.site_position = table[:, 0]
        self.site_strand = table[:, 1].astype(np.int8)
        self.site_kind = table[:, 2].astype(np.uint8)
        edges = np.arange(0, self.n_bases + BLOCK_BASES, BLOCK_BASES)
        self.block_site_ptr = np.searchsorted(self.site_position, edges)

    def read_bases(self, start: int, end: int) -> np.ndarray:
        assert 0 <= start <= end <= self.n_bases
        self.reads.append((start, end))
        return self.bases[start:end]

    def read_block(self, start: int, end: int, first_site: int, last_site: int, threads, out):
        out[:] = self.read_bases(start, end)
        return out, *self.read_usage(first_site, last_site)

    def read_usage(self, first_site: int, last_site: int) -> tuple[np.ndarray, np.ndarray]:
        return self.alpha[first_site:last_site], self.beta[first_site:last_site]


@dataclass
class MemoryGenomes:
    by_name: dict[str, MemoryGenome]

    def at(self, name: str, generation: str) -> MemoryGenome:
        genome = self.by_name[name]
        assert genome.generation == generation
        return genome


@dataclass
class MemorySplit:
    name: str
    genome_ids: tuple[str, ...]
    genome_generations: dict[str, str]
    window_size: int
    context_size: int
    window_genome: np.ndarray
    window_contig: np.ndarray
    window_start: np.ndarray
    window_strand: np.ndarray
    window_subset: np.ndarray
    window_has_gene: np.ndarray
    digest: str = "d1"


@dataclass
class MemoryStore:
    genomes: MemoryGenomes
    splits: dict[str, MemorySplit]

    def open_pinned(self, split, genome_ids):
        return [self.genomes.at(name, split.genome_generations[name]) for name in genome_ids]

    @property
    def n_requests(self) -> int:
        return sum(len(genome.reads) for genome in self.genomes.by_name.values())


def random_genome(
    rng: np.random.Generator,
    name: str,
    lengths: list[int],
    *,
    n_sites: int = 40,
    conditions: tuple[str, ...] = ("brain_1", "liver"),
    special: tuple[int, ...] = (),
) -> MemoryGenome:
    """A genome of contigs of the given lengths; sites lie anywhere, at the ends of contigs, and at ``special`` bases."""
    contigs = [rng.integers(0, 5, n).astype(np.uint8) for n in lengths]
    total, ends = sum(lengths), np.cumsum(lengths)
    positions = {*rng.integers(0, total, n_sites).tolist(), *(ends - 1).tolist(), *(ends - lengths).tolist(), *special}
    places = sorted({(p, int(s)) for p in positions for s in rng.choice([-1, 1], rng.integers(1, 3))})
    sites = [(p, s, int(rng.integers(1, 4))) for p, s in places]
    counts = rng.integers(0, 30, (2, len(sites), len(conditions))).astype(np.float32)
    counts[:, rng.random((len(sites), len(conditions))) < 0.4] = np.nan
    counts[:, rng.random(len(sites)) < 0.3] = np.nan
    return MemoryGenome(name, contigs, sites, list(conditions), counts[0], counts[1])


def grid_split(
    genomes: list[MemoryGenome],
    window_size: int,
    context_size: int,
    rng: np.random.Generator,
    *,
    subset: int | None = 0,
) -> MemorySplit:
    """All grid cells of all contigs on a random strand or both; ``subset=None`` draws subsets."""
    rows = []
    for g, genome in enumerate(genomes):
        for contig, (offset, length) in enumerate(zip(genome.contig_offset, genome.contig_length, strict=True)):
            # One window may begin before its contig, as those of genes shorter than a window do.
            starts = [-int(rng.integers(0, window_size)) - 1, *range(0, int(length), window_size)]
            for start in starts:
                strands = sorted({int(s) for s in rng.choice([-1, 1], rng.integers(1, 3))})
                rows += [(g, contig, int(offset) + start, strand) for strand in strands]
    table = np.array(rows, dtype=np.int64)
    drawn = rng.integers(0, 4, len(rows)) if subset is None else np.full(len(rows), subset)
    return MemorySplit(
        name="run1",
        genome_ids=tuple(g.genome_id for g in genomes),
        genome_generations={g.genome_id: g.generation for g in genomes},
        window_size=window_size,
        context_size=context_size,
        window_genome=table[:, 0].astype(np.int16),
        window_contig=table[:, 1].astype(np.int32),
        window_start=table[:, 2],
        window_strand=table[:, 3].astype(np.int8),
        window_subset=drawn.astype(np.uint8),
        window_has_gene=rng.random(len(rows)) < 0.6,
    )


def make_store(genomes: list[MemoryGenome], split: MemorySplit) -> MemoryStore:
    return MemoryStore(MemoryGenomes({g.genome_id: g for g in genomes}), {split.name: split})


def table_store(blocks: list[list[int]], *, window_size: int = 8, seed: int = 0) -> MemoryStore:
    """A store with chosen windows per block: ``blocks[g]`` lists how many windows each block of genome g has.

    Each block's first window has one site with the block's number as alpha; all bases are C and take no memory.
    """
    rng = np.random.default_rng(seed)
    genomes, rows = [], []
    for g, counts in enumerate(blocks):
        bases = np.broadcast_to(np.uint8(1), len(counts) * BLOCK_BASES)
        sites = [(b * BLOCK_BASES + 10, 1, 2) for b in range(len(counts))]
        alpha = np.arange(len(sites), dtype=np.float32)[:, None]
        genomes.append(MemoryGenome(f"genome{g}", [bases], sites, ["liver"], alpha, alpha + 10))
        rows += [(g, b * BLOCK_BASES + w * window_size + 8) for b, n in enumerate(counts) for w in range(n)]
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    split = MemorySplit(
        name="run1",
        genome_ids=tuple(g.genome_id for g in genomes),
        genome_generations={g.genome_id: g.generation for g in genomes},
        window_size=window_size,
        context_size=4,
        window_genome=table[:, 0].astype(np.int16),
        window_contig=np.zeros(len(table), dtype=np.int32),
        window_start=table[:, 1],
        window_strand=np.ones(len(table), dtype=np.int8),
        window_subset=np.zeros(len(table), dtype=np.uint8),
        window_has_gene=rng.random(len(table)) < 0.5,
    )
    return make_store(genomes, split)


def slow_window(
    genome: MemoryGenome,
    contig: int,
    start: int,
    strand: int,
    window_size: int,
    context_size: int,
    conditions: list[str],
) -> dict[str, Any]:
    """One window, position by position."""
    first = int(genome.contig_offset[contig])
    end = first + int(genome.contig_length[contig])
    sequence = [
        int(genome.bases[p]) if first <= p < end else 4
        for p in range(start - context_size, start + window_size + context_size)
    ]
    centre = list(range(start, start + window_size))
    if strand < 0:
        sequence = [COMPLEMENT[c] for c in reversed(sequence)]
        centre.reverse()
    label, usage = [], []
    for place, position in enumerate(centre):
        row, kind = genome.site_rows.get((position, strand), (-1, 0))
        label.append(255 if not first <= position < end or kind == 3 else kind)
        if row < 0 or not first <= position < end:
            continue
        values = []
        for name in conditions:
            if name in genome.condition_names:
                c = genome.condition_names.index(name)
                values.append((float(genome.alpha[row, c]), float(genome.beta[row, c])))
            else:
                values.append((float("nan"), float("nan")))
        if any(a + b == a + b for a, b in values):
            usage.append((place, values))
    return {"sequence": sequence, "label": label, "usage": usage}
