"""Which boundaries are splice sites, and their alpha, beta1 and beta2Simple in every sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.alignments import (
    CompetingReads,
    Int8,
    Int64,
    JunctionReads,
    RegionCounts,
    group_rows,
    sum_rows,
)
from splicestore.kernels.intervals import expand_counts, pointers
from splicestore.kernels.usage import LEFT, RIGHT


@dataclass(frozen=True, slots=True)
class JunctionFilter:
    """What a junction needs in one sample at least; annotated introns need the length only."""

    min_reads: int = 1
    min_overhang: int = 8
    """Aligned bases on either side, in one read at least."""
    min_intron: int = 21
    max_intron: int = 500_000


@dataclass(frozen=True, slots=True)
class Junctions:
    """Junctions of one contig that passed, sorted by (strand, start, end)."""

    strand: Int8
    """Key strand."""
    start: Int64
    end: Int64
    reads: Int64
    """(n, samples)."""
    votes: Int64
    annotated_strand: Int8
    """Of the annotated intron; 0 where there is none, or one on either strand."""

    def __len__(self) -> int:
        return len(self.start)

    def find(self, strand: Int8, start: Int64, end: Int64) -> NDArray[np.bool_]:
        """Whether introns are among them."""
        columns = ((self.strand, strand), (self.start, start), (self.end, end))
        keys, firsts, order = group_rows(tuple(np.concatenate(pair) for pair in columns))
        has_own = np.zeros(len(firsts), dtype=bool)
        group = np.empty(len(order), dtype=np.int64)
        group[order] = np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, len(order))))
        has_own[group[: len(self)]] = True
        return has_own[group[len(self) :]]


@dataclass(frozen=True, slots=True)
class SiteUsage:
    """Counts of the splice sites of one contig, sorted by (position, strand, side)."""

    position: Int64
    """Left boundary: first intron base; right boundary: one past the last intron base."""
    side: Int8
    strand: Int8
    """+1, -1, 0 not known."""
    alpha: Int64
    """(n, samples), as beta1 and beta2."""
    beta1: Int64
    beta2: Int64
    partner_ptr: Int64
    """(n + 1,) CSR: other ends of the junctions of a site, ascending."""
    partner: Int64
    partner_reads: Int64
    """(partners, samples)."""
    competitor_ptr: Int64
    competitor: Int64
    """Other partners of the partners, ascending."""

    def __len__(self) -> int:
        return len(self.position)


def select_junctions(
    junctions: JunctionReads,
    annotated: tuple[Int8, Int64, Int64],
    rule: JunctionFilter,
    n_samples: int,
    *,
    stranded: bool,
) -> Junctions:
    """Keep the junctions that pass in one sample at least, and the annotated introns.

    Parameters
    ----------
    annotated
        Strand (+1, -1), start and end of the introns of an annotation.
    """
    length = junctions.end - junctions.start
    passes = (junctions.reads >= rule.min_reads) & (junctions.overhang >= rule.min_overhang)
    passes &= (length >= rule.min_intron) & (length <= rule.max_intron)
    strand, start, end = annotated
    fits = (end - start >= rule.min_intron) & (end - start <= rule.max_intron)
    strand, start, end = strand[fits], start[fits], end[fits]
    key_strand = strand if stranded else np.zeros_like(strand)
    n_read = len(junctions.start)
    keys, firsts, order = group_rows(
        (
            np.concatenate((junctions.strand, key_strand)),
            np.concatenate((junctions.start, start)),
            np.concatenate((junctions.end, end)),
        )
    )
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, len(order))))
    kept = np.zeros(len(firsts), dtype=bool)
    kept[group[:n_read][passes]] = True
    kept[group[n_read:]] = True
    reads = np.zeros((len(firsts), n_samples), dtype=np.int64)
    reads[group[:n_read], junctions.sample] = junctions.reads
    votes = np.zeros(len(firsts), dtype=np.int64)
    np.add.at(votes, group[:n_read], junctions.votes)
    on = {sign: np.bincount(group[n_read:][strand == sign], minlength=len(firsts)) > 0 for sign in (1, -1)}
    said = (on[1].astype(np.int8) - on[-1].astype(np.int8)).astype(np.int8)
    return Junctions(keys[0][kept], keys[1][kept], keys[2][kept], reads[kept], votes[kept], said[kept])


def count_sites(counts: RegionCounts, junctions: Junctions) -> SiteUsage:
    """Count the splice sites that the junctions of a contig make.

    alpha: reads of the site's junctions. beta2: reads of junctions that span the site, and reads that run across it and
    splice from a competitor to a partner of it. beta1: the other reads that run across it.

    Parameters
    ----------
    counts
        All regions of the contig.
    junctions
        From ``select_junctions``.
    """
    halves = [_sites_of_side(junctions, side) for side in (LEFT, RIGHT)]
    strand, position, side, alpha, votes, said = (np.concatenate(columns) for columns in zip(*halves, strict=True))
    spanning = _spanning_reads(junctions, strand, position)
    crossing = counts.crossing[_find_boundaries(counts, strand, position)]
    competing = _competing_reads(counts.competing, junctions, strand, position, side)
    shown = np.where(strand != 0, strand, np.where(votes != 0, np.sign(votes), said)).astype(np.int8)
    order = np.lexsort((side, -shown, position))
    partner_ptr, partner, junction = _partners(junctions, strand, position, side)
    competitor_ptr, competitor = _competitors(junctions, side, partner_ptr, junction)
    partner_ptr, partner_row = _reordered(partner_ptr, order)
    competitor_ptr, competitor_row = _reordered(competitor_ptr, order)
    return SiteUsage(
        position[order], side[order], shown[order],
        alpha[order], (crossing - competing)[order], (spanning + competing)[order],
        partner_ptr, partner[partner_row], junctions.reads[junction[partner_row]],
        competitor_ptr, competitor[competitor_row],
    )  # fmt: skip


def _sites_of_side(junctions: Junctions, side: int) -> tuple[NDArray[Any], ...]:
    """Left or right boundaries, sorted by (strand, position): strand, position, side, alpha, votes, annotated strand."""
    at = junctions.start if side == LEFT else junctions.end
    (strand, position), alpha = sum_rows((junctions.strand, at), junctions.reads)
    _, votes = sum_rows((junctions.strand, at), junctions.votes)
    said = {
        sign: sum_rows((junctions.strand, at), (junctions.annotated_strand == sign).astype(np.int64))[1]
        for sign in (1, -1)
    }
    on = ((said[1] > 0).astype(np.int8) - (said[-1] > 0).astype(np.int8)).astype(np.int8)
    return strand, position, np.full(len(position), side, dtype=np.int8), alpha, votes, on


def _spanning_reads(junctions: Junctions, strand: Int8, position: Int64) -> Int64:
    """Reads of junctions ``start < position < end``: those begun before less those ended up to there. (n, samples)."""
    result = np.zeros((len(position), junctions.reads.shape[1]), dtype=np.int64)
    for sign in np.unique(strand):
        ours, theirs = strand == sign, junctions.strand == sign
        reads = junctions.reads[theirs]
        for at, how, weight in ((junctions.start[theirs], "left", 1), (junctions.end[theirs], "right", -1)):
            order = np.argsort(at, kind="stable")
            total = np.zeros((len(order) + 1, reads.shape[1]), dtype=np.int64)
            np.cumsum(reads[order], axis=0, out=total[1:])
            where: Any = how
            result[ours] += weight * total[np.searchsorted(at[order], position[ours], side=where)]
    return result


def _find_boundaries(counts: RegionCounts, strand: Int8, position: Int64) -> Int64:
    """Rows of the counted boundaries; every end of a junction is one."""
    width = int(counts.position.max(initial=0)) + 2
    key = (counts.strand.astype(np.int64) + 1) * width + counts.position
    return np.searchsorted(key, (strand.astype(np.int64) + 1) * width + position)


def _competing_reads(
    competing: CompetingReads, junctions: Junctions, strand: Int8, position: Int64, side: Int8
) -> Int64:
    """Reads that run across a site and splice from a competitor to a partner. (n, samples)."""
    group = competing.row_group
    at, is_left = competing.group_position[group], competing.group_side[group] == LEFT
    row_strand = competing.group_strand[group]
    counts = junctions.find(row_strand, competing.row_start, competing.row_end)
    counts &= junctions.find(
        row_strand, np.where(is_left, at, competing.row_start), np.where(is_left, competing.row_end, at)
    )
    result = np.zeros((len(position), junctions.reads.shape[1]), dtype=np.int64)
    hit = np.unique(group[counts])
    if len(hit) == 0:
        return result
    site_key = _site_key(strand, position, side)
    order = np.argsort(site_key)
    wanted = _site_key(competing.group_strand[hit], competing.group_position[hit], competing.group_side[hit])
    row = order[np.searchsorted(site_key, wanted, sorter=order)]
    np.add.at(result, (row, competing.group_sample[hit]), competing.group_reads[hit])
    return result


def _site_key(strand: Int8, position: Int64, side: Int8) -> Int64:
    return np.asarray((position * 3 + strand + 1) * 2 + (side == RIGHT), dtype=np.int64)


def _partners(junctions: Junctions, strand: Int8, position: Int64, side: Int8) -> tuple[Int64, Int64, Int64]:
    """CSR of the sites as ``count_sites`` has them at first: pointers, partners, rows of their junctions."""
    by_left = np.arange(len(junctions), dtype=np.int64)  # sorted by (strand, start, end) already
    by_right = np.lexsort((junctions.start, junctions.end, junctions.strand))
    junction = np.concatenate((by_left, by_right))
    partner = np.concatenate((junctions.end[by_left], junctions.start[by_right]))
    key = _site_key(strand, position, side)
    order = np.argsort(key)
    sides = np.repeat(np.array([LEFT, RIGHT], dtype=np.int8), len(junctions))
    at = np.concatenate((junctions.start[by_left], junctions.end[by_right]))
    site = order[np.searchsorted(key, _site_key(junctions.strand[junction], at, sides), sorter=order)]
    return pointers(np.bincount(site, minlength=len(position))), partner, junction


def _competitors(junctions: Junctions, side: Int8, partner_ptr: Int64, junction: Int64) -> tuple[Int64, Int64]:
    """CSR of the other boundaries that the partners of each site are joined to."""
    n = len(side)
    site = np.repeat(np.arange(n), np.diff(partner_ptr))
    # A partner is a site of the other side: its own junctions are one stretch of the CSR.
    shared_site = np.empty((2, len(junctions)), dtype=np.int64)
    is_left = side[site] == LEFT
    shared_site[0, junction[is_left]] = site[is_left]
    shared_site[1, junction[~is_left]] = site[~is_left]
    partner_site = np.where(is_left, shared_site[1, junction], shared_site[0, junction])
    row, member = expand_counts(np.diff(partner_ptr)[partner_site])
    other = junction[partner_ptr[partner_site[row]] + member]
    differs = other != junction[row]
    row, other = row[differs], other[differs]
    found = np.where(is_left[row], junctions.start[other], junctions.end[other])
    (of, competitor), _, _ = group_rows((site[row], found))
    return pointers(np.bincount(of, minlength=n)), competitor


def _reordered(ptr: Int64, order: Int64) -> tuple[Int64, Int64]:
    """Pointers and rows of a CSR whose groups take another order."""
    counts = np.diff(ptr)[order]
    group, member = expand_counts(counts)
    return pointers(counts), ptr[order[group]] + member
