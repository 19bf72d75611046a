"""Scores in fixed point and their histogram: edges of bins without sorting, the same for any order and any cut of the samples.

A score (0 to 7) is rounded to one of 65,536 codes, ``rint(score * 65535 / 7)``, and a gene's positive scores are counted by code. Edges
are cut from the counts as ``kernels.binning`` cuts them from sorted scores: the code of rank ``ceil(k (m - 1) / (B - 1))`` for
``k = 1..B-2``, spelled as the lowest score that has it (tie policy ``max``), or the highest (``min``, of the rank before). So the bins are
those of an exact fit to the codes: integers add up to the same sum in any order, and more samples are added by adding.

How far that is from the bins of an exact fit to the scores: for any value, fitted or new, only edges in its own cell can be judged
otherwise, all on one side. So the bins differ by at most the largest number of edges in one cell, ``max_bin_error``. A cell holding M of
m scores has at most ``ceil(M (B - 1) / (m - 1))`` edges; and for a fitted score, whose rank is one of the M, the
difference is at most ``ceil((M - 1) (B - 1) / (m - 1))``, which is no more than ``ceil(M / m (B - 1))``.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from splicestore.kernels.binning import TiePolicy, n_edges

N_CODES = 65_536
MAX_SCORE = 7.0
"""``log10(1e7 + 1)`` rounded to float32: a sample's only count."""
PER_SCORE = (N_CODES - 1) / MAX_SCORE
"""Codes in one unit of score."""


def encode_scores(scores: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round scores to codes: ``rint(score * 65535 / 7)`` in double precision, half to even, at most 65,535."""
    return np.minimum(np.rint(scores.astype(np.float64) * PER_SCORE), N_CODES - 1).astype(np.uint16)


@njit(cache=True, nogil=True)
def _add_scores(scores, row_of, histogram):  # type: ignore[no-untyped-def]
    top = histogram.shape[1] - 1
    for s in range(scores.shape[0]):
        for g in range(scores.shape[1]):
            score = scores[s, g]
            if score > 0:
                histogram[row_of[g], min(top, np.int64(np.rint(np.float64(score) * PER_SCORE)))] += 1


def add_scores(scores: NDArray[np.float32], row_of: NDArray[np.int64], histogram: NDArray[np.uint32]) -> None:
    """Count the positive scores of some samples.

    Parameters
    ----------
    scores : (sample, gene) float32
    row_of : (gene,) int64
        Where a gene is counted.
    histogram : (row, 65536) uint32
        Counted up; scores of zero are not counted.
    """
    _add_scores(scores, row_of, histogram)


def lowest_scores() -> NDArray[np.float32]:
    """Return the lowest float32 that has each code: (65536,), ascending, the first 0."""
    lowest = ((np.arange(N_CODES) - 0.5) / PER_SCORE).astype(np.float32)
    lowest[0] = 0
    # The quotient above is rounded twice: step to the float where the code changes.
    for _ in range(2):
        below = np.nextafter(lowest[1:], np.float32(0))
        lowest[1:] = np.where(encode_scores(below) >= np.arange(1, N_CODES), below, lowest[1:])
    for _ in range(2):
        above = np.nextafter(lowest[1:], np.float32(np.inf))
        lowest[1:] = np.where(encode_scores(lowest[1:]) < np.arange(1, N_CODES), above, lowest[1:])
    return lowest


def edge_codes(histogram: NDArray[np.uint32], n_bins: int, tie_policy: TiePolicy = "max") -> NDArray[np.int64] | None:
    """Cut the histogram of one gene into ``n_bins - 1`` groups: the codes of the edges.

    Parameters
    ----------
    histogram : (65536,) uint32

    Returns
    -------
    codes : (n_bins - 2,) int64
        Ascending; None for fewer than two positive scores.
    """
    upto = np.cumsum(histogram, dtype=np.int64)
    m, n_groups = int(upto[-1]), n_bins - 1
    if m < 2:
        return None
    rank = -(-np.arange(1, n_groups, dtype=np.int64) * (m - 1) // n_groups)
    return np.searchsorted(upto, rank if tie_policy == "max" else rank - 1, side="right")


def edges_of_codes(
    codes: NDArray[np.int64] | None, n_bins: int, lowest: NDArray[np.float32], tie_policy: TiePolicy = "max"
) -> NDArray[np.float32]:
    """Spell the codes of edges as scores, so that a score is beyond an edge exactly if its code is.

    Parameters
    ----------
    codes : (n_bins - 2,) int64 or None
    lowest : (65536,) float32
        From ``lowest_scores``.

    Returns
    -------
    edges : (n_bins - 2,) float32
        All ``inf`` without codes; by ``min`` those of the highest code, which no score is above.
    """
    if codes is None:
        return np.full(n_edges(n_bins), np.inf, dtype=np.float32)
    if tie_policy == "max":
        return np.asarray(lowest[codes])
    highest = np.append(np.nextafter(lowest[1:], np.float32(0)), np.float32(np.inf))
    return np.asarray(highest[codes], dtype=np.float32)


def max_bin_error(codes: NDArray[np.int64] | None) -> int:
    """Count the edges in the fullest cell: by so many bins at most does any value differ from an exact fit; 0 without edges."""
    return 0 if codes is None else int(np.bincount(codes).max())


def moments_of_histogram(histogram: NDArray[np.uint32], n_values: int) -> tuple[float, float]:
    """Mean and population standard deviation of ``n_values`` scores, those that are not counted zero.

    From integer sums of codes, so the same for any order of samples; within half a code (5.4e-5) of the scores' own mean.
    """
    if not n_values:
        return float("nan"), float("nan")
    codes = np.flatnonzero(histogram)
    times = histogram[codes].astype(np.int64)
    # Exact: a square of a code has 32 bits, so there is room for two thousand million samples.
    total, squares = int(times @ codes), int(times @ (codes * codes))
    variance = (n_values * squares - total * total) / (n_values * n_values)
    return total / n_values / PER_SCORE, float(np.sqrt(variance)) / PER_SCORE
