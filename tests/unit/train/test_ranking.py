"""Ranking metrics equal slow, obvious definitions, ties included."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from splicestore.kernels.ranking import (
    N_BINS,
    average_precision,
    average_ranks,
    pearson,
    score_bins,
    spearman,
    tie_groups,
    tie_groups_from_counts,
    top_k_accuracy,
)

FEW_VALUES = st.sampled_from([-2.5, -1.0, 0.0, 0.25, 0.5, 3.0])
RANKED = st.lists(st.tuples(FEW_VALUES, st.booleans()), min_size=1, max_size=40)


def split(pairs):
    scores, truth = zip(*pairs, strict=True)
    return np.array(scores, dtype=np.float32), np.array(truth, dtype=bool)


def slow_average_precision(scores, truth):
    total, before, area = int(truth.sum()), 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = scores >= threshold
        recall = (truth & called).sum() / total
        area += (recall - before) * (truth & called).sum() / called.sum()
        before = recall
    return area


@given(RANKED)
def test_average_precision_equals_its_definition(pairs):
    scores, truth = split(pairs)
    found = average_precision(tie_groups(scores, truth))
    if not truth.any():
        assert found is None
    else:
        assert found == pytest.approx(slow_average_precision(scores, truth), abs=1e-12)


def test_average_precision_of_a_known_ranking():
    # scikit-learn's documented example: labels 0 0 1 1, scores 0.1 0.4 0.35 0.8.
    groups = tie_groups(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    assert average_precision(groups) == pytest.approx(0.8333333, abs=1e-6)


def test_equal_scores_give_the_prevalence():
    groups = tie_groups(np.zeros(1000), np.arange(1000) < 30)
    assert average_precision(groups) == pytest.approx(0.03)
    assert top_k_accuracy(groups) == pytest.approx(0.03)


@given(st.lists(st.tuples(FEW_VALUES, st.booleans()), min_size=1, max_size=6), st.integers(1, 6))
def test_top_k_is_the_mean_over_all_orders_of_tied_positions(pairs, k):
    scores, truth = split(pairs)
    total = int(truth.sum())
    if total == 0:
        assert top_k_accuracy(tie_groups(scores, truth), k) is None
        return
    hits = []
    for order in permutations(range(len(scores))):
        ranked = sorted(order, key=lambda i: -scores[i])  # sorted() is stable: ties stay in this order
        hits.append(truth[ranked[:k]].sum() / min(k, total))
    assert top_k_accuracy(tie_groups(scores, truth), k) == pytest.approx(float(np.mean(hits)), abs=1e-12)


def test_top_k_equals_spliceai_where_no_scores_tie():
    rng = np.random.default_rng(0)
    scores, truth = rng.permutation(5000) / 7.0, rng.random(5000) < 0.02
    k = int(truth.sum())
    called = np.argsort(scores)[-k:]
    assert top_k_accuracy(tie_groups(scores, truth)) == pytest.approx(
        np.intersect1d(np.flatnonzero(truth), called).size / k
    )


@given(RANKED, st.randoms())
def test_order_of_the_input_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    one, other = tie_groups(*split(pairs)), tie_groups(*split(shuffled))
    assert average_precision(one) == average_precision(other)
    assert top_k_accuracy(one) == top_k_accuracy(other)


@given(st.lists(st.floats(-70_000, 70_000, width=32), min_size=2, max_size=50))
def test_score_bins_keep_the_order_of_float16(values):
    scores = np.array(values, dtype=np.float32)
    halves = np.clip(scores, -65504, 65504).astype(np.float16)
    bins = score_bins(scores).astype(int)
    assert (
        np.sign(np.subtract.outer(bins, bins)) == np.sign(np.subtract.outer(halves.astype(float), halves.astype(float)))
    ).all()


@given(RANKED)
def test_counts_per_bin_rank_like_the_scores(pairs):
    scores, truth = split(pairs)  # all of them are float16 numbers
    bins = score_bins(scores)
    counted = tie_groups_from_counts(np.bincount(bins[truth], minlength=N_BINS), np.bincount(bins, minlength=N_BINS))
    exact = tie_groups(scores, truth)
    for name in ("n_true", "n_equal", "n_above"):
        np.testing.assert_array_equal(getattr(counted, name), getattr(exact, name))
    assert counted.n_positions == exact.n_positions


def test_a_nan_score_is_refused():
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        tie_groups(np.array([np.nan, 1.0]), np.array([True, False]))


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=40))
def test_correlations_equal_scipy(pairs):
    x, y = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    np.testing.assert_array_equal(average_ranks(x), scipy.stats.rankdata(x))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert pearson(x, y) is None
        assert spearman(x, y) is None
        return
    assert pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-9)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-9)


def test_one_pair_has_no_correlation():
    assert pearson(np.array([1.0]), np.array([2.0])) is None
    assert spearman(np.array([]), np.array([])) is None
