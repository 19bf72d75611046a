"""Which windows of a split a stream yields: by subset, genome, chromosome, and what lies in them; how often each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, SplitError, close_names
from splicestore.kernels.mixing import mix_fraction
from splicestore.kernels.naming import ContigMatcher
from splicestore.kernels.sequence import N_CODE
from splicestore.schema import BLOCK_BASES, SUBSET_NAMES
from splicestore.stream.protocols import GenomeSource, SplitSource
from splicestore.stream.window_options import WINDOW_CLASSES, WindowOptions

Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

_THREADS = 8
_SITES_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class SelectedWindows:
    """Rows of a split's window table, in its order."""

    row: Int64
    """(n,) a row that a weight repeats stands there several times in a run."""
    genome: NDArray[np.int16]
    """(rows of the split,) index into ``options.genomes``, -1 for genomes left out."""


def select_windows(
    options: WindowOptions,
    split: SplitSource,
    genomes: Sequence[GenomeSource],
    columns: Sequence[tuple[int, ...]],
) -> SelectedWindows:
    """Choose the windows of a stream; the choice depends on the table and the options, never on the epoch.

    Sites and bases are looked at only where an option asks for them: ``siteless``, ``min_coverage`` and window weights read the
    sites of every genome once, ``min_coverage`` its counts too, ``max_n`` the bases of all candidate windows.

    Parameters
    ----------
    genomes
        In the order of ``options.genomes``.
    columns
        For each genome the columns of its chosen conditions.

    Raises
    ------
    SplitError
        If no window is left, with how many each filter left.
    ConfigError
        If a chromosome is in no genome.
    """
    code = np.full(len(split.genome_ids), -1, dtype=np.int16)
    for name in options.genomes:
        code[list(split.genome_ids).index(name)] = options.genomes.index(name)
    genome = code[split.window_genome]
    subset = SUBSET_NAMES.index(options.subset)
    rows = np.flatnonzero((split.window_subset == subset) & (genome >= 0))
    left = {f"subset {options.subset}": len(rows)}
    look = _Windows(options, split, genomes, genome)
    filters: list[tuple[str, bool, Callable[[Int64], Mask]]] = [
        ("chromosomes", options.chromosomes is not None, look.on_chromosomes),
        ("geneless", options.geneless < 1.0, look.thinned_geneless),
        ("siteless", options.siteless < 1.0, look.thinned_siteless),
        ("min_coverage", options.min_coverage > 0, lambda rows: look.covered(rows, columns)),
        ("max_n", options.max_n < 1.0, look.known_bases),
    ]
    for name, is_asked, keep in filters:
        if is_asked and len(rows):
            rows = rows[keep(rows)]
            left[name] = len(rows)
    if options.window_weights and len(rows):
        rows = np.repeat(rows, look.times(rows))
        left["window_weights"] = len(rows)
    if not len(rows):
        counts = ", ".join(f"{name} leaves {n:,}" for name, n in left.items())
        raise SplitError(
            f"split {split.name}: no window to stream in {', '.join(options.genomes)}: {counts}; the split's report counts the "
            "windows of every subset"
        )
    return SelectedWindows(rows, genome)


class _Windows:
    """Looks at windows, genome by genome."""

    def __init__(
        self,
        options: WindowOptions,
        split: SplitSource,
        genomes: Sequence[GenomeSource],
        genome: NDArray[np.int16],
    ) -> None:
        self._options, self._split, self._genomes, self._genome = options, split, genomes, genome

    def on_chromosomes(self, rows: Int64) -> Mask:
        """Windows on the chosen chromosomes."""
        chosen = choose_contigs(self._options.chromosomes, self._options.genomes, self._genomes)
        contig, keep = self._split.window_contig, np.zeros(len(rows), dtype=bool)
        for g, mine in self._by_genome(rows):
            names = chosen[g]
            keep[mine] = True if names is None else np.isin(contig[rows[mine]], names)
        return keep

    def thinned_geneless(self, rows: Int64) -> Mask:
        """Windows with a gene, and a share of the others."""
        return self._thinned(
            rows, np.asarray(self._split.window_has_gene, dtype=bool)[rows], self._options.geneless, "geneless"
        )

    def thinned_siteless(self, rows: Int64) -> Mask:
        """Windows with a splice site on their strand, and a share of the others."""
        return self._thinned(rows, self.has_site(rows), self._options.siteless, "siteless")

    def covered(self, rows: Int64, columns: Sequence[tuple[int, ...]]) -> Mask:
        """Windows in which a site of their strand has enough reads in a chosen condition."""
        keep = np.zeros(len(rows), dtype=bool)
        for g, mine in self._by_genome(rows):
            reads = _most_reads(self._genomes[g], columns[g])
            keep[mine] = self._n_sites(g, rows[mine], reads >= self._options.min_coverage) > 0
        return keep

    def has_site(self, rows: Int64) -> Mask:
        """Whether the centre has a splice site on the window's strand."""
        found = np.zeros(len(rows), dtype=bool)
        for g, mine in self._by_genome(rows):
            found[mine] = self._n_sites(g, rows[mine], np.ones(len(self._genomes[g].site_position), dtype=bool)) > 0
        return found

    def known_bases(self, rows: Int64) -> Mask:
        """Windows of whose input (context included) no more than a share is N or beyond the contig."""
        options, length = self._options, self._options.input_length
        keep = np.zeros(len(rows), dtype=bool)
        for g, mine in self._by_genome(rows):
            begin = self._split.window_start[rows[mine]] - options.context_size
            low, high = self._within_contig(g, rows[mine], begin, begin + length)
            unknown = length - (high - low) + _count_n(self._genomes[g], low, high)
            keep[mine] = unknown / length <= options.max_n
        return keep

    def times(self, rows: Int64) -> Int64:
        """How often each window enters an epoch: the integer part of its class's weight, and once more for a share."""
        has_gene = np.asarray(self._split.window_has_gene, dtype=bool)[rows]
        window_class = np.where(self.has_site(rows), 0, np.where(has_gene, 1, 2))
        weight = np.array([self._options.window_weights.get(name, 1.0) for name in WINDOW_CLASSES])[window_class]
        whole = np.floor(weight)
        return (whole + (self._fraction(rows, "window-weight") < weight - whole)).astype(np.int64)

    def _thinned(self, rows: Int64, kept: Mask, share: float, salt: str) -> Mask:
        """Add a share of the windows that are not kept, chosen by place, strand, genome and seed: not by row or epoch."""
        keep = kept.copy()
        others = np.flatnonzero(~kept)
        keep[others] = self._fraction(rows[others], salt) < share
        return keep

    def _fraction(self, rows: Int64, salt: str) -> NDArray[np.float64]:
        fraction = np.zeros(len(rows))
        for g, mine in self._by_genome(rows):
            name = self._options.genomes[g]
            salted = hashlib.sha256(f"splicestore-{salt}-1\t{self._options.seed}\t{name}".encode()).digest()
            place = self._split.window_start[rows[mine]] * 2 + (self._split.window_strand[rows[mine]] > 0)
            fraction[mine] = mix_fraction(place, int.from_bytes(salted[:4], "big"))
        return fraction

    def _n_sites(self, g: int, rows: Int64, counted: Mask) -> Int64:
        """Sites that count, in the centre of each window and on its strand."""
        source, start = self._genomes[g], self._split.window_start[rows]
        low, high = self._within_contig(g, rows, start, start + self._options.window_size)
        strand, n = self._split.window_strand[rows], np.zeros(len(rows), dtype=np.int64)
        for sign in (1, -1):
            position = np.asarray(source.site_position)[counted & (np.asarray(source.site_strand) == sign)]
            mine = strand == sign
            n[mine] = np.searchsorted(position, high[mine]) - np.searchsorted(position, low[mine])
        return n

    def _within_contig(self, g: int, rows: Int64, begin: Int64, end: Int64) -> tuple[Int64, Int64]:
        contig = self._split.window_contig[rows]
        first = np.asarray(self._genomes[g].contig_offset, dtype=np.int64)[contig]
        last = first + np.asarray(self._genomes[g].contig_length, dtype=np.int64)[contig]
        low = np.clip(begin, first, last)
        return low, np.maximum(low, np.clip(end, first, last))

    def _by_genome(self, rows: Int64) -> list[tuple[int, Int64]]:
        genome = self._genome[rows]
        return [(g, np.flatnonzero(genome == g)) for g in np.unique(genome).tolist()]


def choose_contigs(
    wanted: Sequence[str] | Mapping[str, Sequence[str]] | None,
    genome_names: Sequence[str],
    genomes: Sequence[GenomeSource],
) -> list[Int64 | None]:
    """Find the contigs of each genome that chromosome names mean, with a ``chr`` more or less; None: all of them.

    Names without a genome mean the chromosomes of that name in every genome that has one.

    Raises
    ------
    ConfigError
        If a name is in none of the genomes it is meant for, or fits several contigs.
    """
    if wanted is None:
        return [None for _ in genomes]
    by_genome = wanted if isinstance(wanted, Mapping) else dict.fromkeys(genome_names, tuple(wanted))
    found: list[Int64 | None] = []
    missing = {name: False for names in by_genome.values() for name in names}
    for genome_name, source in zip(genome_names, genomes, strict=True):
        if genome_name not in by_genome:
            found.append(None)
            continue
        contigs = list(source.contig_names)
        matcher, rows = ContigMatcher(contigs), list[int]()
        for name in by_genome[genome_name]:
            matches = matcher.rows_of(name)
            if len(matches) > 1:
                names = ", ".join(contigs[row] for row in matches)
                raise ConfigError(
                    f"chromosome {name!r} of {genome_name} could be any of {names}; write the name in full"
                )
            if not matches and isinstance(wanted, Mapping):
                raise ConfigError(f"chromosome {name!r} is no contig of {genome_name}; {close_names(name, contigs)}")
            rows += matches
            missing[name] = missing[name] or bool(matches)
        found.append(np.array(sorted(rows), dtype=np.int64))
    if unknown := [name for name, is_found in missing.items() if not is_found]:
        contigs = [name for source in genomes for name in source.contig_names]
        raise ConfigError(
            f"chromosome {unknown[0]!r} is in none of {', '.join(genome_names)}; {close_names(unknown[0], contigs)}"
        )
    return found


def _most_reads(source: GenomeSource, columns: Sequence[int]) -> NDArray[np.float32]:
    """Reads of each site in the chosen condition that has most; 0 where nothing is measured."""
    most = np.zeros(len(source.site_position), dtype=np.float32)
    if not columns:
        return most
    for first in range(0, len(most), _SITES_AT_ONCE):
        alpha, beta = source.read_usage(first, min(first + _SITES_AT_ONCE, len(most)))
        reads = np.nan_to_num((alpha + beta)[:, list(columns)], nan=0.0)
        most[first : first + len(reads)] = reads.max(axis=1)
    return most


def _count_n(source: GenomeSource, low: Int64, high: Int64) -> Int64:
    """Bases N in ``[low, high)``, each block read once."""
    edge = np.unique(np.concatenate((low, high)))
    blocks = _blocks_met(low, high)
    before = np.zeros(len(edge), dtype=np.int64)

    def count(block: int) -> tuple[slice, NDArray[Any], int]:
        first, last = block * BLOCK_BASES, min((block + 1) * BLOCK_BASES, source.n_bases)
        is_n = np.concatenate(([0], np.cumsum(source.read_bases(first, last) == N_CODE)))
        inside = slice(*np.searchsorted(edge, (first, last)).tolist())
        return inside, is_n[edge[inside] - first], int(is_n[-1])

    total = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        for inside, upto, n in threads.map(count, blocks):
            before[inside] = total + upto
            total += n
            # The next block overwrites what stands at its own first base; only an end of the genome keeps this.
            before[inside.stop : inside.stop + 1] = total
    return before[np.searchsorted(edge, high)] - before[np.searchsorted(edge, low)]


def _blocks_met(low: Int64, high: Int64) -> list[int]:
    """Blocks that ranges of bases meet, in order; ranges are shorter than a block or a few."""
    first, last = low // BLOCK_BASES, np.maximum(low, high - 1) // BLOCK_BASES
    met = {int(block) for block in np.unique(np.concatenate((first, last)))}
    for a, b in np.unique(np.stack((first, last), axis=1)[last - first > 1], axis=0).tolist():
        met.update(range(a, b))
    return sorted(met)
