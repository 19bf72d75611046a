"""Half-open interval algebra on integer arrays: expand, tile on a grid, merge, cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def expand_counts(counts: NDArray[np.integer]) -> tuple[Int64, Int64]:
    """Number the members of ragged groups.

    Parameters
    ----------
    counts : (n,) integer
        Members per group, zero allowed.

    Returns
    -------
    group : (sum(counts),) int64
    member : (sum(counts),) int64
        0-based within its group.

    Examples
    --------
    >>> expand_counts(np.array([2, 0, 1]))
    (array([0, 0, 2]), array([0, 1, 0]))
    """
    counts = np.asarray(counts, dtype=np.int64)
    group = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    first = np.cumsum(counts) - counts
    return group, np.arange(len(group), dtype=np.int64) - first[group]


def pointers(counts: NDArray[np.integer]) -> Int64:
    """Turn counts into CSR pointers: ``(n + 1,)`` int64, starting at 0."""
    ptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=ptr[1:])
    return ptr


def grid_cells(start: Int64, end: Int64, window_size: int) -> tuple[Int64, Int64]:
    """List the grid cells ``[j*W, (j+1)*W)`` that each interval meets.

    Parameters
    ----------
    start, end : (n,) int64
        0-based half-open, not empty.
    window_size
        W, in bp.

    Returns
    -------
    interval : (m,) int64
        Row of the interval.
    cell : (m,) int64
        j, increasing within an interval; ``floor((end-1)/W) - floor(start/W) + 1`` of them each.
    """
    first = np.floor_divide(start, window_size)
    counts = np.floor_divide(end - 1, window_size) - first + 1
    interval, member = expand_counts(counts)
    return interval, first[interval] + member


def merge_intervals(start: Int64, end: Int64) -> tuple[Int64, Int64]:
    """Merge overlapping or touching intervals into sorted disjoint ones.

    Examples
    --------
    >>> merge_intervals(np.array([5, 0, 3]), np.array([9, 2, 5]))
    (array([0, 3]), array([2, 9]))
    """
    if len(start) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    opens = np.concatenate(([True], start[1:] > reach[:-1]))
    firsts = np.flatnonzero(opens)
    lasts = np.concatenate((firsts[1:], [len(start)])) - 1
    return start[firsts], reach[lasts]


def covered_cells(start: Int64, end: Int64, window_size: int, n_cells: int) -> NDArray[np.bool_]:
    """Mark the grid cells that any interval meets: ``(n_cells,)`` bool."""
    steps = np.zeros(n_cells + 1, dtype=np.int64)
    np.add.at(steps, np.floor_divide(start, window_size), 1)
    np.add.at(steps, np.floor_divide(end - 1, window_size) + 1, -1)
    return np.cumsum(steps)[:n_cells] > 0
