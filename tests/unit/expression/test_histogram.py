"""Edges from histograms: exactly those of an exact fit to the codes, and no further from one to the scores than the certificate says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.kernels.binning import edges_of_sorted, score_counts
from splicestore.kernels.histogram import (
    N_CODES,
    add_scores,
    edge_codes,
    edges_of_codes,
    encode_scores,
    lowest_scores,
    max_bin_error,
    moments_of_histogram,
)
from tests.unit.expression.test_binning import COUNTS, TOTALS, rank_bins

LOWEST = lowest_scores()
ONE_CODE = 7 / 65_535
# Positive scores, many of them within a few codes of each other, some within one.
close_scores = st.lists(
    st.tuples(st.integers(0, 65_535), st.floats(-0.6, 0.6)).map(lambda at: (at[0], at[1])), min_size=1, max_size=30
)


def scores_of(places, n_codes):
    """Scores at places (code, offset), the codes folded into few."""
    values = [(code % n_codes + 1 + offset) * ONE_CODE for code, offset in places]
    return np.array(values, dtype=np.float32)


def histogram_of(scores):
    histogram = np.zeros((1, N_CODES), dtype=np.uint32)
    add_scores(scores[:, None], np.array([0]), histogram)
    return histogram[0]


def look_up(values, edges, tie_policy):
    """Bins by definition: edges counted one by one."""
    beyond = (lambda value: edges <= value) if tie_policy == "max" else (lambda value: edges < value)
    return np.array([2 + np.count_nonzero(beyond(value)) if value > 0 else 1 for value in values])


def both_fits(scores, n_bins, tie_policy):
    codes = edge_codes(histogram_of(scores), n_bins, tie_policy)
    exact = edges_of_sorted(np.sort(scores[scores > 0]), n_bins, tie_policy)
    return edges_of_codes(codes, n_bins, LOWEST, tie_policy), exact, codes


def test_a_code_begins_at_its_lowest_score():
    codes = np.arange(N_CODES)
    np.testing.assert_array_equal(encode_scores(LOWEST), codes)
    np.testing.assert_array_equal(encode_scores(np.nextafter(LOWEST[1:], np.float32(0))), codes[:-1])
    assert LOWEST[0] == 0
    # By hand: half a code is the lowest score of code 1, for ties go to even; 7 is the last code and so is all above.
    assert LOWEST[1] == np.nextafter(np.float32(0.5 * ONE_CODE), np.float32(1))
    assert encode_scores(np.float32([0, 7, 7.5, ONE_CODE])).tolist() == [0, 65_535, 65_535, 1]


@pytest.mark.parametrize("tie_policy", ["max", "min"])
def test_the_worked_example_has_the_same_bins(tie_policy):
    scores = score_counts(COUNTS, TOTALS)
    for gene in scores.T:
        ours, _, _ = both_fits(gene, 4, tie_policy)
        assert look_up(gene, ours, tie_policy).tolist() == rank_bins(gene.tolist(), 4, tie_policy)


@given(
    places=close_scores, n_codes=st.sampled_from([3, 40, 65_534]), n_bins=st.integers(3, 60),
    tie_policy=st.sampled_from(["max", "min"]),
)  # fmt: skip
@settings(max_examples=150)
def test_bins_are_ranks_of_codes(places, n_codes, n_bins, tie_policy):
    scores = scores_of(places, n_codes)
    ours, _, _ = both_fits(scores, n_bins, tie_policy)
    # Shifted by one, because a rank of the oracle needs a positive value and a code may be 0.
    codes = np.rint(scores.astype(np.float64) * 65_535 / 7).astype(int) + 1
    assert look_up(scores, ours, tie_policy).tolist() == rank_bins(codes.tolist(), n_bins, tie_policy)


@given(
    places=close_scores, others=close_scores, n_codes=st.sampled_from([2, 5, 40, 65_534]), n_bins=st.integers(3, 60),
    tie_policy=st.sampled_from(["max", "min"]),
)  # fmt: skip
@settings(max_examples=200)
def test_no_value_is_further_from_an_exact_fit_than_the_certificate(places, others, n_codes, n_bins, tie_policy):
    scores = scores_of(places, n_codes)
    ours, exact, codes = both_fits(scores, n_bins, tie_policy)
    anything = np.concatenate((scores, scores_of(others, n_codes), LOWEST[:4], np.float32([7])))
    error = np.abs(look_up(anything, ours, tie_policy) - look_up(anything, exact, tie_policy))
    certificate = max_bin_error(codes)
    assert error.max() <= certificate
    m, fullest = len(scores), int(histogram_of(scores).max())
    # The two bounds by mass alone: for fitted scores, and for the edges of a cell.
    assert error[:m].max() <= math.ceil(fullest * (n_bins - 1) / m)
    assert m < 2 or certificate <= math.ceil(fullest * (n_bins - 1) / (m - 1))


def test_the_certificate_is_reached_and_is_zero_without_edges():
    scores = np.float32([1.0, 1.0 + 0.1 * ONE_CODE, 1.0 + 0.2 * ONE_CODE, 3.0])
    ours, exact, codes = both_fits(scores, 4, "max")
    assert encode_scores(scores)[:3].tolist() == [9362] * 3
    assert look_up(scores, exact, "max").tolist() == [2, 3, 4, 4]
    assert look_up(scores, ours, "max").tolist() == [4, 4, 4, 4]
    assert max_bin_error(codes) == 2
    assert max_bin_error(edge_codes(histogram_of(np.float32([0, 2.5])), 4)) == 0


@given(seed=st.integers(0, 2**32 - 1), n_parts=st.integers(1, 7))
@settings(max_examples=25)
def test_histograms_of_parts_add_up_in_any_order(seed, n_parts):
    rng = np.random.default_rng(seed)
    scores = score_counts(rng.negative_binomial(0.5, 0.01, (60, 3)).astype(np.uint32), rng.integers(10**4, 10**6, 60))
    whole, parts = np.zeros((5, N_CODES), dtype=np.uint32), np.zeros((5, N_CODES), dtype=np.uint32)
    rows = np.array([4, 0, 2])
    add_scores(scores, rows, whole)
    for part in np.array_split(rng.permutation(60), n_parts):
        add_scores(scores[part], rows, parts)
    np.testing.assert_array_equal(parts, whole)
    assert whole.sum(axis=1)[rows].tolist() == np.count_nonzero(scores, axis=0).tolist()
    assert not whole[[1, 3]].any()
    for gene, row in enumerate(rows):
        mean, std = moments_of_histogram(whole[row], 60)
        codes = np.rint(scores[:, gene].astype(np.float64) * 65_535 / 7)
        np.testing.assert_allclose([mean, std], [codes.mean() * ONE_CODE, codes.std() * ONE_CODE], rtol=1e-12)
        assert abs(mean - scores[:, gene].mean(dtype=np.float64)) <= ONE_CODE / 2


def test_no_samples_have_no_mean():
    assert all(map(math.isnan, moments_of_histogram(np.zeros(N_CODES, dtype=np.uint32), 0)))
