"""Which intervals touch any of a set of others: the sweep behind subsets by gene and behind the guard."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.intervals import merge_intervals

Int64 = NDArray[np.int64]


def meets_any(start: Int64, end: Int64, other_start: Int64, other_end: Int64) -> NDArray[np.bool_]:
    """Say of each interval whether it shares a base with any of the others.

    Parameters
    ----------
    start, end : (n,) int64
        0-based half-open; an empty interval meets nothing.
    other_start, other_end : (m,) int64
        In any order, overlapping or not; empty ones are ignored.

    Returns
    -------
    meets : (n,) bool

    Examples
    --------
    >>> meets_any(np.array([0, 10]), np.array([10, 20]), np.array([19, 30]), np.array([25, 31]))
    array([False,  True])
    """
    filled = other_start < other_end
    merged_start, merged_end = merge_intervals(other_start[filled], other_end[filled])
    if len(merged_start) == 0:
        return np.zeros(len(start), dtype=np.bool_)
    # Merged intervals are disjoint, so the first that ends after ``start`` is the only one to ask.
    nearest = np.searchsorted(merged_end, start, side="right")
    found = nearest < len(merged_end)
    np.minimum(nearest, len(merged_end) - 1, out=nearest)
    return found & (merged_start[nearest] < end) & (start < end)


def clipped_spans(
    start: Int64,
    contig: NDArray[np.int32],
    contig_offset: Int64,
    contig_length: Int64,
    *,
    before: int,
    after: int,
) -> tuple[Int64, Int64]:
    """Spread positions to spans that stay on their contig.

    Contigs lie one behind the other in absolute coordinates, so a span that is not clipped would reach
    into a neighbour it has nothing to do with.

    Parameters
    ----------
    start : (n,) int64
        Absolute bases.
    contig : (n,) int32
        Contig of each.
    contig_offset, contig_length : (n_contigs,) int64
        Absolute first base and bases of each contig.
    before, after
        Bases before ``start``, and from ``start`` on.

    Returns
    -------
    span_start, span_end : (n,) int64
        Absolute, half-open.
    """
    first = contig_offset[contig]
    last = first + contig_length[contig]
    return np.clip(start - before, first, last), np.clip(start + after, first, last)
