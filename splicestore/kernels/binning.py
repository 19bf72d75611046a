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

_GENES_AT_ONCE = 16
"""Counts of a line of the cache: they are read from memory once, although a gene is a column."""
_LINE = 16
"""Columns lie so many counts further apart: at powers of two all would share a few lines of the cache."""
_CELLS = 2048
"""Equally wide cells over the edges of a gene: a score is looked up among the edges of its cell, one of 2,000 bins on average."""
_LOG10_2 = 0.30102999566398120
_HALF_LOG10 = 0.86858896380650366
"""2 / log(10)."""
_SQRT_HALF_BITS = 0x3FE6A09E00000000
_LOG_ERROR = 2.0**-46
"""Far above the relative error of a logarithm here (a few times 2**-52) and in any C library."""


def n_edges(n_bins: int) -> int:
    """Edges between the ``n_bins - 1`` bins of positives."""
    return n_bins - 2


# Divisions raise in numba's default model, and loops that may raise are not vectorised.
@njit(cache=True, nogil=True, error_model="numpy")
def _log10_rounded(values, mantissa, exponent, out):  # type: ignore[no-untyped-def]
    """Write ``float32(log10(value))`` of values from 1 on, as the C library has it, several at a time.

    ``log((1 + t) / (1 - t)) = 2 (t + t**3 / 3 + t**5 / 5 + ...)``, of values in [sqrt(1/2), sqrt(2)), so t**2 < 0.03 and nine
    terms are exact to 2**-53. Where the error might decide how a float32 is rounded, the C library is asked.
    """
    n = len(values)
    bits, mantissa_bits = values.view(np.uint64), mantissa.view(np.uint64)
    for i in range(n):
        power = (bits[i] - np.uint64(_SQRT_HALF_BITS)) >> np.uint64(52)
        mantissa_bits[i] = bits[i] - (power << np.uint64(52))
        exponent[i] = np.int32(power)
    n_doubtful = 0
    for i in range(n):
        t = (mantissa[i] - 1.0) / (mantissa[i] + 1.0)
        z = t * t
        series = 1 / 17
        for k in range(15, 0, -2):
            series = series * z + 1 / k
        score = exponent[i] * _LOG10_2 + _HALF_LOG10 * t * series
        out[i] = np.float32(score * (1.0 - _LOG_ERROR))
        n_doubtful += out[i] != np.float32(score * (1.0 + _LOG_ERROR))
    if n_doubtful:
        for i in range(n):
            out[i] = np.float32(np.log10(values[i]))


@njit(cache=True, nogil=True)
def _score_rows(counts, scale, out):  # type: ignore[no-untyped-def]
    n = counts.shape[1]
    values, mantissa, exponent = np.empty(n), np.empty(n), np.empty(n, dtype=np.int32)
    for s in range(counts.shape[0]):
        for g in range(n):
            values[g] = np.float64(counts[s, g]) * scale[s] + 1.0
        _log10_rounded(values, mantissa, exponent, out[s])


@njit(cache=True, nogil=True)
def _transpose(block, out):  # type: ignore[no-untyped-def]
    for s in range(block.shape[0]):
        for g in range(block.shape[1]):
            out[g, s] = block[s, g]


@njit(cache=True, nogil=True)
def _collect_positive(counts, scale, values, rows):  # type: ignore[no-untyped-def]
    """Collect the positive counts of one gene, scaled, plus one, and their rows; returns how many there are."""
    # Without a branch, which would be taken for half of all counts, in no order.
    n = np.uint32(0)
    for s in range(len(counts)):
        values[n] = np.float64(counts[s]) * scale[s] + 1.0
        rows[n] = s
        n += np.uint32(counts[s] > 0)
    return np.int64(n)


@njit(cache=True, nogil=True)
def _gather_positive(counts, scale, n_found, out):  # type: ignore[no-untyped-def]
    n_samples, n_genes = counts.shape
    columns = np.empty((_GENES_AT_ONCE, n_samples + _LINE), dtype=np.uint32)
    values, rows = np.empty(n_samples), np.empty(n_samples, dtype=np.int32)
    mantissa, exponent = np.empty(n_samples), np.empty(n_samples, dtype=np.int32)
    for first in range(0, n_genes, _GENES_AT_ONCE):
        _transpose(counts[:, first : first + _GENES_AT_ONCE], columns)
        for g in range(first, min(n_genes, first + _GENES_AT_ONCE)):
            n = _collect_positive(columns[g - first, :n_samples], scale, values, rows)
            _log10_rounded(values[:n], mantissa[:n], exponent[:n], out[g, n_found[g] : n_found[g] + n])
            n_found[g] += n


@njit(cache=True, nogil=True)
def _cell_of(score, low, per_unit):  # type: ignore[no-untyped-def]
    # Rounded, but never falling with the score: an edge in an earlier cell is below it, one in a later cell above.
    place = (score - low) * per_unit
    place = place if place > 0 else np.float32(0)
    return np.int64(place) if place < _CELLS else _CELLS - 1


@njit(cache=True, nogil=True)
def _make_grid(edges, starts, padded):  # type: ignore[no-untyped-def]
    """Count the edges before each of equally wide cells, and copy the edges before infinite ones.

    Returns the lowest edge, cells per unit of score, and the halvings that find a place among the edges of any cell.
    """
    padded[: len(edges)] = edges
    starts[:] = 0
    n_finite = np.searchsorted(edges, np.float32(np.inf))
    if n_finite == 0:
        return np.float32(0), np.float32(0), 0
    low, high = edges[0], edges[n_finite - 1]
    per_unit = np.float32(_CELLS) / (high - low) if high > low else np.float32(0)
    for k in range(n_finite):
        starts[_cell_of(edges[k], low, per_unit) + 1] += 1
    most, n_halvings = starts.max(), 0
    while most >> n_halvings:
        n_halvings += 1
    for cell in range(_CELLS):
        starts[cell + 1] += starts[cell]
    return low, per_unit, n_halvings


@njit(cache=True, nogil=True)
def _look_up(scores, edges, starts, padded, is_max, found):  # type: ignore[no-untyped-def]
    """Find the bins of scores of one gene. Floats from 0 on are in order as integers are, so ``<=`` is ``<`` of the next one."""
    low, per_unit, n_halvings = _make_grid(edges, starts, padded)
    bits, edge_bits = scores.view(np.int32), padded.view(np.int32)
    for i in range(len(scores)):
        at = np.int64(starts[_cell_of(scores[i], low, per_unit)])
        bound = bits[i] + is_max
        for halving in range(n_halvings - 1, -1, -1):
            half = np.int64(1) << halving
            at += half * (edge_bits[at + half - 1] < bound)
        # A count that its total drowns scores 0, and is treated as what it rounds to.
        found[i] = 2 + at if bits[i] > 0 else 1


@njit(cache=True, nogil=True)
def _bin_all(counts, scale, edges, is_max, out):  # type: ignore[no-untyped-def]
    n_samples, n_genes = counts.shape
    columns = np.empty((_GENES_AT_ONCE, n_samples + _LINE), dtype=np.uint32)
    values, rows = np.empty(n_samples), np.empty(n_samples, dtype=np.int32)
    mantissa, exponent = np.empty(n_samples), np.empty(n_samples, dtype=np.int32)
    scores, found = np.empty(n_samples, dtype=np.float32), np.empty(n_samples, dtype=np.uint32)
    starts = np.empty(_CELLS + 1, dtype=np.int32)
    # Halvings reach up to twice as far as a cell has edges.
    padded = np.full(3 * edges.shape[1], np.inf, dtype=np.float32)
    for first in range(0, n_genes, _GENES_AT_ONCE):
        last = min(n_genes, first + _GENES_AT_ONCE)
        _transpose(counts[:, first:last], columns)
        for g in range(first, last):
            column = columns[g - first, :n_samples]
            n = _collect_positive(column, scale, values, rows)
            _log10_rounded(values[:n], mantissa[:n], exponent[:n], scores[:n])
            _look_up(scores[:n], edges[g], starts, padded, is_max, found)
            column[:] = 1
            for i in range(n):
                column[rows[i]] = found[i]
        for s in range(n_samples):
            for g in range(first, last):
                out[s, g] = columns[g - first, s]


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
    _bin_all(counts, scales(totals), edges, tie_policy == "max", out)
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
