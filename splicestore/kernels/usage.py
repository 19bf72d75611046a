"""Splice-site usage from counts: SSE, thresholds, and SpliSER's alpha and beta2 from junction reads.

Definitions are SpliSER's: alpha counts reads that use the site, beta reads that show it unused (beta1 cross
it unspliced, beta2Simple skip it towards one of its partners), SSE = alpha / (alpha + beta).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Floats = NDArray[Any]

LEFT, RIGHT = -1, 1
"""Side of an intron that a boundary lies on, in forward coordinates."""


def splice_site_usage(alpha: Floats, beta: Floats, min_reads: float = 10) -> Floats:
    """Compute SSE, NaN where there is too little evidence.

    Parameters
    ----------
    alpha, beta
        Counts, NaN = not measured; equal shapes.
    min_reads
        Sites with ``alpha + beta < min_reads`` (or none at all) read as NaN.

    Returns
    -------
    sse
        float32 in [0, 1] or NaN, shape of ``alpha``.
    """
    total = np.asarray(alpha) + np.asarray(beta)
    with np.errstate(invalid="ignore", divide="ignore"):
        sse = np.asarray(alpha) / total
        return np.where((total >= min_reads) & (total > 0), sse, np.nan).astype(np.float32)


def zero_below_alpha(alpha: Floats, beta: Floats, sse: Floats, threshold: float) -> tuple[Floats, Floats, Floats]:
    """SplicEvo's threshold: where ``alpha < threshold`` all three become 0; NaN stays NaN."""
    low = alpha < threshold
    return tuple(np.where(low, np.float32(0), a).astype(np.float32) for a in (alpha, beta, sse))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class BoundaryCounts:
    """Counts of intron boundaries, one row per (contig, position, side, strand)."""

    contig: Int64
    position: Int64
    """Left boundary: first intron base; right boundary: one past the last intron base."""
    side: NDArray[np.int8]
    strand: NDArray[np.int8]
    alpha: Floats
    beta: Floats


def sum_by_key(keys: tuple[NDArray[Any], ...], values: Floats) -> tuple[tuple[NDArray[Any], ...], Floats]:
    """Sum values of equal keys; rows come out sorted with the last key as the fastest."""
    order = np.lexsort(keys[::-1])
    keys = tuple(k[order] for k in keys)
    if len(order) == 0:
        return keys, values
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.logical_or.reduce([k[1:] != k[:-1] for k in keys])
    firsts = np.flatnonzero(new)
    return tuple(k[firsts] for k in keys), np.add.reduceat(values[order], firsts)


def junction_boundary_counts(
    contig: Int64, start: Int64, end: Int64, strand: NDArray[np.int8], reads: Floats
) -> BoundaryCounts:
    """Count alpha and beta2Simple of both ends of every junction.

    Parameters
    ----------
    contig, start, end, strand, reads : (n,)
        Introns ``[start, end)``, 0-based half-open; duplicates are summed first.

    Returns
    -------
    BoundaryCounts
        alpha: reads of the junctions that end there. beta: reads of junctions on the same strand that
        strictly span the boundary and share their other end with one of its partners (SpliSER's
        beta2Simple; beta1 needs coverage, which junctions do not carry).
    """
    (contig, strand, start, end), reads = sum_by_key((contig, strand, start, end), reads.astype(np.float64))
    left = _skipping_reads(contig, strand, shared=end, own=start, reads=reads)
    right = _skipping_reads(contig, strand, shared=start, own=-end, reads=reads)
    sides = np.repeat(np.array([LEFT, RIGHT], dtype=np.int8), len(reads))
    keys = (
        np.concatenate((contig, contig)),
        np.concatenate((start, end)),
        sides,
        np.concatenate((strand, strand)),
    )
    summed, alpha = sum_by_key(keys, np.concatenate((reads, reads)))
    _, beta = sum_by_key(keys, np.concatenate((left, right)))
    return BoundaryCounts(summed[0], summed[1], summed[2], summed[3], alpha, beta)


def _skipping_reads(contig: Int64, strand: NDArray[np.int8], *, shared: Int64, own: Int64, reads: Floats) -> Floats:
    """For each junction, reads of junctions with the same shared end whose own end lies further out."""
    order = np.lexsort((own, shared, strand, contig))
    group_start = np.ones(len(order), dtype=bool)
    group_start[1:] = np.logical_or.reduce([k[order][1:] != k[order][:-1] for k in (contig, strand, shared)])
    cumulated = np.cumsum(reads[order]) - reads[order]
    first_of_group = np.maximum.accumulate(np.where(group_start, np.arange(len(order)), 0))
    result = np.empty(len(order))
    result[order] = cumulated - cumulated[first_of_group] if len(order) else cumulated
    return result


def boundary_to_base(position: Int64, side: NDArray[np.int8]) -> Int64:
    """Exon-boundary base of a half-open intron boundary: left ``x - 1``, right ``x``."""
    return np.asarray(position - (side == LEFT), dtype=np.int64)
