"""Scores, edges and bins against the worked example of six genes, and against ranks counted one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.kernels.binning import (
    _log10_rounded,
    bin_counts,
    edges_of_sorted,
    gather_positive_scores,
    score_counts,
)

# Six genes x ten samples, worked out by hand for four bins, quality control off.
COUNTS = np.array(
    [
        [0, 10, 20, 0, 5, 30, 40, 70, 90, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 7, 0, 0, 0, 0, 0, 0],
        [1, 2, 6, 4, 2, 6, 28, 8, 9, 10],
        [0, 3, 0, 0, 0, 9, 0, 0, 0, 0],
        [999, 985, 1974, 989, 493, 955, 3932, 922, 901, 990],
    ],
    dtype=np.uint32,
).T.copy()
TOTALS = np.array([1000, 1000, 2000, 1000, 500, 1000, 4000, 1000, 1000, 1000])
BINS = {
    "max": [
        [1, 3, 3, 1, 3, 4, 3, 4, 4, 1],
        [1] * 10,
        [1, 1, 1, 2, 1, 1, 1, 1, 1, 1],
        [2, 2, 2, 3, 3, 3, 4, 4, 4, 4],
        [1, 2, 1, 1, 1, 4, 1, 1, 1, 1],
        [4, 3, 4, 4, 3, 2, 3, 2, 2, 4],
    ],
    "min": [
        [1, 2, 2, 1, 2, 4, 2, 4, 4, 1],
        [1] * 10,
        [1, 1, 1, 2, 1, 1, 1, 1, 1, 1],
        [2, 2, 2, 3, 3, 3, 4, 4, 4, 4],
        [1, 2, 1, 1, 1, 4, 1, 1, 1, 1],
        [4, 3, 4, 4, 3, 2, 3, 2, 2, 4],
    ],
}
EDGES = [
    (5.000004, 5.477123),
    (math.inf, math.inf),
    (math.inf, math.inf),
    (4.602071, 4.845104),
    (4.954248, 4.954248),
    (6.992554, 6.994317),
]


def sorted_positives(counts, totals):
    """Positive scores of each gene, ascending."""
    n_found, out = np.zeros(counts.shape[1], dtype=np.int64), np.zeros(counts.shape[::-1], dtype=np.float32)
    gather_positive_scores(counts, totals, n_found, out)
    return [np.sort(row[:n]) for row, n in zip(out, n_found, strict=True)]


def fit(counts, totals, n_bins, tie_policy="max"):
    return np.stack([edges_of_sorted(s, n_bins, tie_policy) for s in sorted_positives(counts, totals)])


def rank_bins(scores, n_bins, tie_policy):
    """GeneRAIN's formula for one gene, ranks counted one by one, in exact integers."""
    positive = [s for s in scores if s > 0]
    m = len(positive)
    found = []
    for score in scores:
        if score <= 0:
            found.append(1)
        elif m == 1:
            found.append(2)
        else:
            below = sum(other < score for other in positive)
            rank = below if tie_policy == "min" else sum(other <= score for other in positive) - 1
            found.append(min(rank * (n_bins - 1) // (m - 1) + 2, n_bins))
    return found


@pytest.mark.parametrize("tie_policy", ["max", "min"])
def test_the_worked_example(tie_policy):
    np.testing.assert_array_equal(COUNTS.sum(axis=1), TOTALS)
    edges = fit(COUNTS, TOTALS, 4, tie_policy)
    assert bin_counts(COUNTS, TOTALS, edges, tie_policy).T.tolist() == BINS[tie_policy]
    if tie_policy == "max":
        np.testing.assert_allclose(edges, EDGES, rtol=0, atol=6e-7)


def test_scores_are_the_formula_in_double_precision_rounded_once():
    rng = np.random.default_rng(0)
    counts = np.concatenate((rng.integers(0, 700, (5, 2000)), rng.integers(0, 2**32, (5, 2000)))).astype(np.uint32)
    totals = counts.sum(axis=1, dtype=np.int64)
    expected = np.log10(counts * (1e7 / totals)[:, None] + 1).astype(np.float32)
    np.testing.assert_array_equal(score_counts(counts, totals), expected)
    assert not score_counts(np.zeros((1, 3), np.uint32), np.array([0])).any()


@given(power=st.floats(-12, 16), total=st.integers(1, 10**12), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_scores_of_any_size_are_those_of_the_c_library(power, total, seed):
    counts = np.random.default_rng(seed).integers(0, min(2**32, max(2, int(10**power * total / 1e7))), (3, 500))
    expected = np.log10(counts.astype(np.uint32) * (1e7 / total) + 1).astype(np.float32)
    found = score_counts(counts.astype(np.uint32), np.full(3, total))
    assert found.tobytes() == expected.tobytes()


@given(score=st.floats(2.0**-20, 16, width=32), side=st.sampled_from([-np.inf, np.inf]), steps=st.integers(-3, 3))
@settings(max_examples=300)
def test_a_value_between_two_scores_is_rounded_as_the_c_library_has_it(score, side, steps):
    """Halfway between two float32, and as few doubles beside it as decide: an error of any logarithm would show here."""
    middle = (np.float64(score) + np.nextafter(np.float32(score), np.float32(side), dtype=np.float32)) / 2
    value = 10.0**middle
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.inf * np.sign(steps))
    values = np.array([value, 1.0, value, 2.0**40])
    out = np.empty(4, dtype=np.float32)
    _log10_rounded(values, np.empty(4), np.empty(4, dtype=np.int32), out)
    assert out.tobytes() == np.log10(values).astype(np.float32).tobytes()


@given(
    values=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    spread=st.booleans(),
    n_bins=st.integers(3, 70),
    tie_policy=st.sampled_from(["max", "min"]),
)
@settings(max_examples=400)
def test_bins_are_ranks_counted_one_by_one(values, spread, n_bins, tie_policy):
    counts = np.array(values, dtype=np.uint32)[:, None]
    if spread:
        counts = counts * 7919 % 100_003
        counts = counts.astype(np.uint32)
    totals = np.full(len(values), 123_457)
    scores = score_counts(counts, totals)[:, 0]
    found = bin_counts(counts, totals, fit(counts, totals, n_bins, tie_policy), tie_policy)
    assert found[:, 0].tolist() == rank_bins(scores.tolist(), n_bins, tie_policy)


@given(seed=st.integers(0, 2**32 - 1), n_bins=st.sampled_from([3, 10, 2000]), split=st.integers(1, 79))
@settings(max_examples=40)
def test_edges_depend_on_the_values_alone_not_on_order_or_parts(seed, n_bins, split):
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(0.5, 0.01, (80, 6)).astype(np.uint32)
    totals = counts.sum(axis=1, dtype=np.int64)
    edges = fit(counts, totals, n_bins)
    order = rng.permutation(80)
    n_found, out = np.zeros(6, dtype=np.int64), np.zeros((6, 80), dtype=np.float32)
    for part in (order[:split], order[split:]):
        gather_positive_scores(counts[part], totals[part], n_found, out)
    again = np.stack([edges_of_sorted(np.sort(row[:n]), n_bins) for row, n in zip(out, n_found, strict=True)])
    np.testing.assert_array_equal(again, edges)
    bins = bin_counts(counts, totals, edges)
    one_by_one = np.concatenate([bin_counts(counts[i : i + 1], totals[i : i + 1], edges) for i in range(80)])
    np.testing.assert_array_equal(bins, one_by_one)
    # No gap larger than the rule allows, the largest score in the last bin.
    for gene in range(6):
        positive = bins[:, gene][counts[:, gene] > 0]
        if len(positive) > 1:
            assert positive.max() == n_bins
            assert positive.min() >= 2


@given(
    values=st.lists(st.floats(2.0**-30, 7, width=32), min_size=1, max_size=40),
    n_inf=st.integers(0, 3),
    n_same=st.integers(0, 5),
    tie_policy=st.sampled_from(["max", "min"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=300)
def test_values_are_looked_up_among_any_edges(values, n_inf, n_same, tie_policy, seed):
    """Edges as close as floats can be, equal, infinite; scores on them, between and beyond."""
    rng = np.random.default_rng(seed)
    counts = np.concatenate((rng.integers(0, 5, 40), rng.integers(0, 10**9, 40))).astype(np.uint32)[:, None]
    totals = 10 ** rng.integers(1, 15, 80)
    scores = score_counts(counts, totals)[:, 0]
    near = np.nextafter(scores[scores > 0][:5], np.float32(np.inf))
    edges = np.sort(np.concatenate((np.float32(values), scores[scores > 0][:n_same], near))).astype(np.float32)
    edges = np.concatenate((edges, np.full(n_inf, np.inf, dtype=np.float32)))
    found = bin_counts(counts, totals, edges[None], tie_policy)[:, 0]
    expected = 2 + np.searchsorted(edges, scores, side="right" if tie_policy == "max" else "left")
    np.testing.assert_array_equal(found, np.where(scores > 0, expected, 1))


@pytest.mark.parametrize("tie_policy", ["max", "min"])
@pytest.mark.parametrize("n_genes", [1, 15, 16, 17, 50])
def test_genes_are_binned_apart_however_many_there_are(n_genes, tie_policy):
    rng = np.random.default_rng(n_genes)
    counts = rng.negative_binomial(0.4, 0.002, (300, n_genes)).astype(np.uint32)
    totals = counts.sum(axis=1, dtype=np.int64) + 1
    edges = fit(counts, totals, 20, tie_policy)
    scores = score_counts(counts, totals)
    expected = [rank_bins(column, 20, tie_policy) for column in scores.T.tolist()]
    assert bin_counts(counts, totals, edges, tie_policy).T.tolist() == expected


def test_new_values_beyond_the_fitted_ones():
    counts = np.array([[5], [6], [7], [8]], dtype=np.uint32)
    totals = np.full(4, 1000)
    edges = fit(counts, totals, 4)
    new = np.array([[0], [1], [2**32 - 1]], dtype=np.uint32)
    assert bin_counts(new, np.full(3, 1000), edges)[:, 0].tolist() == [1, 2, 4]
