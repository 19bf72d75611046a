"""Binning-By-Gene: expression scores, exact edges of equally filled bins, and the bin of a value.

A score is ``float32(log10(count * (1e7 / total) + 1))``: counts per ten million, as GeneRAIN has it (Su et al. 2023), so the
bins can be compared with theirs. Bins: 0 missing, 1 zero, 2..B the positives of a gene, ``B - 1`` groups of equal size. With m
sorted positives ``s`` the edges are ``s[ceil(k (m - 1) / (B - 1))]`` for ``k = 1..B-2``, in integers; a positive has bin
``2 + #{k: edges[k] <= score}``. That is GeneRAIN's ``min(trunc(r / w) + 2, B)`` with ``w = (m - 1) / (B - 1)`` and r the rank that
the last of equal scores has (tie policy ``max``), or the first (``min``: the edges one place lower, and ``<``). Where no two
scores of a gene are equal, both are GeneRAIN's bins.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

TiePolicy = Literal["max", "min"]
TIE_POLICIES: tuple[TiePolicy, ...] = get_args(TiePolicy)

COUNTS_PER = 1e7
"""Counts are scaled to so many a sample."""
BIN_MISSING = 0
BIN_ZERO = 1
FIRST_POSITIVE_BIN = 2
MIN_BINS, MAX_BINS = 3, 65_535

_TABLED = 512
"""Counts below this have their score computed once a sample: most counts are small, and a logarithm takes 20 ns."""
_GENES_AT_ONCE = 16


def n_edges(n_bins: int) -> int:
    """Edges between the ``n_bins - 1`` bins of positives."""
    return n_bins - 2


@njit(cache=True, nogil=True)
def _score_of(count, scale):  # type: ignore[no-untyped-def]
    return np.float32(np.log10(np.float64(count) * scale + 1.0))


@njit(cache=True, nogil=True)
def _score_rows(counts, scale, out):  # type: ignore[no-untyped-def]
    table = np.empty(_TABLED, dtype=np.float32)
    for s in range(counts.shape[0]):
        n_tabled = min(_TABLED, counts.shape[1])
        for count in range(n_tabled):
            table[count] = _score_of(count, scale[s])
        for g in range(counts.shape[1]):
            count = counts[s, g]
            out[s, g] = table[count] if count < n_tabled else _score_of(count, scale[s])


@njit(cache=True, nogil=True)
def _gather_positive(counts, scale, n_found, out):  # type: ignore[no-untyped-def]
    table = np.empty(_TABLED, dtype=np.float32)
    n_tabled = min(_TABLED, counts.shape[1])
    for s in range(counts.shape[0]):
        for count in range(n_tabled):
            table[count] = _score_of(count, scale[s])
        for g in range(counts.shape[1]):
            count = counts[s, g]
            if count > 0:
                out[g, n_found[g]] = table[count] if count < n_tabled else _score_of(count, scale[s])
                n_found[g] += 1


@njit(cache=True, nogil=True)
def _count_edges(edges, score, is_max):  # type: ignore[no-untyped-def]
    """Edges at or below a score (``max``) or below it (``min``); without branches that depend on the values."""
    base, left = np.uint64(0), np.uint64(len(edges))
    while left > np.uint64(1):
        half = left >> np.uint64(1)
        edge = edges[base + half - np.uint64(1)]
        base = base + half if (edge < score) | (is_max & (edge == score)) else base
        left -= half
    return base + np.uint64((edges[base] < score) | (is_max & (edges[base] == score)))


@njit(cache=True, nogil=True)
def _look_up(scores, edges, is_max, out):  # type: ignore[no-untyped-def]
    # A few genes at a time, all samples: their edges (8 kB a gene) stay in the cache.
    for first in range(0, scores.shape[1], _GENES_AT_ONCE):
        last = min(scores.shape[1], first + _GENES_AT_ONCE)
        for s in range(scores.shape[0]):
            for g in range(first, last):
                score = scores[s, g]
                # A count that its total drowns scores 0, and is treated as what it rounds to.
                out[s, g] = 2 + _count_edges(edges[g], score, is_max) if score > 0 else 1


def scales(totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what counts are multiplied by; 0 for samples without counts, whose scores are then all 0."""
    return np.divide(COUNTS_PER, totals, out=np.zeros(len(totals)), where=totals > 0)


def score_counts(counts: NDArray[np.uint32], totals: NDArray[np.int64]) -> NDArray[np.float32]:
    """Score counts.

    Parameters
    ----------
    counts : (sample, gene) uint32
    totals : (sample,) int64
        Counts of each sample over all genes of its source, those not in ``counts`` included.

    Returns
    -------
    score : (sample, gene) float32
        ``log10`` of counts per ten million plus one.
    """
    out = np.empty(counts.shape, dtype=np.float32)
    _score_rows(counts, scales(totals), out)
    return out


def gather_positive_scores(
    counts: NDArray[np.uint32],
    totals: NDArray[np.int64],
    n_found: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Append the positive scores of some samples to the rows of their genes.

    Parameters
    ----------
    counts : (sample, gene) uint32
    totals : (sample,) int64
    n_found : (gene,) int64
        How many a gene has so far; counted up.
    out : (gene, capacity) float32
        Written from ``n_found`` on.
    """
    _gather_positive(counts, scales(totals), n_found, out)


def edges_of_sorted(scores: NDArray[np.float32], n_bins: int, tie_policy: TiePolicy = "max") -> NDArray[np.float32]:
    """Cut the sorted positive scores of one gene into ``n_bins - 1`` groups.

    Parameters
    ----------
    scores : (m,) float32
        Ascending, all positive.

    Returns
    -------
    edges : (n_bins - 2,) float32
        Ascending; all ``inf`` for fewer than two scores.
    """
    n_groups, m = n_bins - 1, len(scores)
    if m < 2:
        return np.full(n_edges(n_bins), np.inf, dtype=np.float32)
    rank = -(-np.arange(1, n_groups, dtype=np.int64) * (m - 1) // n_groups)
    return np.asarray(scores[rank if tie_policy == "max" else rank - 1], dtype=np.float32)


def bin_counts(
    counts: NDArray[np.uint32],
    totals: NDArray[np.int64],
    edges: NDArray[np.float32],
    tie_policy: TiePolicy = "max",
) -> NDArray[np.uint16]:
    """Bin counts by the edges of their genes: a function of each value alone.

    Parameters
    ----------
    counts : (sample, gene) uint32
    totals : (sample,) int64
    edges : (gene, n_bins - 2) float32

    Returns
    -------
    bins : (sample, gene) uint16
        1 for zeros, 2..n_bins for positives; below all edges 2, above all ``n_bins``.
    """
    out = np.empty(counts.shape, dtype=np.uint16)
    _look_up(score_counts(counts, totals), edges, tie_policy == "max", out)
    return out
