"""Binning-By-Gene: expression scores, exact edges of equally filled bins, and the bin of a value.

A score is ``float32(log10(count * (1e7 / total) + 1))``: counts per ten million, as GeneRAIN (github.com/suzheng/GeneRAIN) has it,
so the bins can be compared with theirs. Bins: 0 missing, 1 zero, 2..B the positives of a gene, ``B - 1`` groups of equal size. With m
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
MIN_BINS, MAX_BINS = 3, 65_535

GENERAIN_BATCH = 5
"""New samples that GeneRAIN ranks together."""

_TABLED = 512
"""Counts below this have their score computed once a sample: most counts are small, and a logarithm takes 20 ns."""
_GENES_AT_ONCE = 16
_CELLS = 2048
"""Equally wide cells over the edges of a gene: a score is looked up among the edges of its cell, one of 2,000 bins on average."""


def n_edges(n_bins: int) -> int:
    """Edges between the ``n_bins - 1`` bins of positives."""
    return n_bins - 2


@njit(cache=True, nogil=True)
def _score_of(count, scale):  # type: ignore[no-untyped-def]
    return np.float32(np.log10(np.float64(count) * scale + 1.0))


@njit(cache=True, nogil=True)
def _tabled(scale, table):  # type: ignore[no-untyped-def]
    for count in range(len(table)):
        table[count] = _score_of(count, scale)


@njit(cache=True, nogil=True)
def _score_rows(counts, scale, out):  # type: ignore[no-untyped-def]
    # A table longer than the row would cost more than it saves.
    table = np.empty(min(_TABLED, counts.shape[1]), dtype=np.float32)
    for s in range(counts.shape[0]):
        _tabled(scale[s], table)
        for g in range(counts.shape[1]):
            count = counts[s, g]
            out[s, g] = table[count] if count < len(table) else _score_of(count, scale[s])


@njit(cache=True, nogil=True)
def _gather_positive(counts, scale, n_found, out):  # type: ignore[no-untyped-def]
    table = np.empty(min(_TABLED, counts.shape[1]), dtype=np.float32)
    for s in range(counts.shape[0]):
        _tabled(scale[s], table)
        for g in range(counts.shape[1]):
            count = counts[s, g]
            if count > 0:
                out[g, n_found[g]] = table[count] if count < len(table) else _score_of(count, scale[s])
                n_found[g] += 1


@njit(cache=True, nogil=True)
def _make_grid(edges, starts):  # type: ignore[no-untyped-def]
    """Count the edges before each of equally wide cells; returns how many are finite, the lowest, and cells per unit of score."""
    n_cells = len(starts) - 1
    n_finite = np.searchsorted(edges, np.float32(np.inf))
    if n_finite == 0:
        return 0, np.float32(0), np.float32(0)
    low, high = edges[0], edges[n_finite - 1]
    per_unit = np.float32(n_cells) / (high - low) if high > low else np.float32(0)
    starts[:] = 0
    for k in range(n_finite):
        starts[_cell_of(edges[k], low, per_unit, n_cells) + 1] += 1
    for cell in range(n_cells):
        starts[cell + 1] += starts[cell]
    return n_finite, low, per_unit


@njit(cache=True, nogil=True)
def _cell_of(score, low, per_unit, n_cells):  # type: ignore[no-untyped-def]
    # Rounded, but never falling with the score: an edge in an earlier cell is below it, one in a later cell above.
    place = (score - low) * per_unit
    return np.int64(place) if place < n_cells else n_cells - 1


@njit(cache=True, nogil=True)
def _count_edges(edges, first, last, score, is_max):  # type: ignore[no-untyped-def]
    """Edges at or below a score (``max``) or below it (``min``), where it is known to be from ``first`` to ``last``."""
    while first < last:
        middle = (first + last) >> 1
        if edges[middle] < score or (is_max and edges[middle] == score):
            first = middle + 1
        else:
            last = middle
    return first


@njit(cache=True, nogil=True)
def _look_up(scores, edges, is_max, out):  # type: ignore[no-untyped-def]
    n_genes, starts = scores.shape[1], np.zeros((_GENES_AT_ONCE, _CELLS + 1), dtype=np.int32)
    n_finite, low = np.zeros(_GENES_AT_ONCE, dtype=np.int64), np.zeros(_GENES_AT_ONCE, dtype=np.float32)
    per_unit = np.zeros(_GENES_AT_ONCE, dtype=np.float32)
    # A few genes at a time, all samples: their edges and grids (16 kB a gene) stay in the cache.
    for first in range(0, n_genes, _GENES_AT_ONCE):
        last = min(n_genes, first + _GENES_AT_ONCE)
        for g in range(last - first):
            n_finite[g], low[g], per_unit[g] = _make_grid(edges[first + g], starts[g])
        for s in range(scores.shape[0]):
            for g in range(last - first):
                score = scores[s, first + g]
                # A count that its total drowns scores 0, and is treated as what it rounds to.
                if score <= 0:
                    out[s, first + g] = 1
                elif n_finite[g] == 0 or score < low[g]:
                    out[s, first + g] = 2
                else:
                    cell = _cell_of(score, low[g], per_unit[g], _CELLS)
                    row, begin, end = edges[first + g], starts[g, cell], starts[g, cell + 1]
                    out[s, first + g] = 2 + _count_edges(row, begin, end, score, is_max)


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


@njit(cache=True, nogil=True)
def _bin_among(scores, reference, first_positive, batch, n_bins, out):  # type: ignore[no-untyped-def]
    n_samples, n_reference = scores.shape[0], reference.shape[1]
    for g in range(scores.shape[1]):
        known = reference[g, first_positive[g] :]
        for first in range(0, n_samples, batch):
            last = min(n_samples, first + batch)
            m = n_reference - first_positive[g]
            for s in range(first, last):
                m += scores[s, g] > 0
            for s in range(first, last):
                score = scores[s, g]
                if score <= 0:
                    out[s, g] = 1
                elif m == 1:
                    out[s, g] = 2
                else:
                    # New samples stand before the reference: of equal scores theirs are ranked first.
                    rank = np.searchsorted(known, score)
                    for other in range(first, last):
                        value = scores[other, g]
                        rank += value > 0 and (value < score or (value == score and other < s))
                    out[s, g] = min(rank * (n_bins - 1) // (m - 1) + 2, n_bins)


def bin_among_reference(
    scores: NDArray[np.float32], reference: NDArray[np.float32], n_bins: int, batch: int = GENERAIN_BATCH
) -> NDArray[np.uint16]:
    """Bin new samples as GeneRAIN does: ranked a few at a time among reference scores, so that batch-mates move bins.

    Per gene the scores of ``batch`` samples stand before the reference; with m positives among them all, one of rank r (0-based, stable:
    of equal scores the earlier is first) has bin ``min(r (n_bins - 1) // (m - 1) + 2, n_bins)``, a zero 1, a lone positive 2.

    Parameters
    ----------
    scores : (sample, gene) float32
    reference : (gene, reference) float32
        Scores of each gene, ascending.

    Returns
    -------
    bins : (sample, gene) uint16
    """
    out = np.empty(scores.shape, dtype=np.uint16)
    first_positive = np.count_nonzero(reference <= 0, axis=1)
    _bin_among(scores, np.ascontiguousarray(reference), first_positive, batch, n_bins, out)
    return out
