"""Scalings against slow, obvious versions written from the papers' formulas, and against small matrices worked out by hand."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.kernels.scaling import (
    MeanOfScores,
    add_sorted_logs,
    choose_reference,
    geometric_mean,
    per_million,
    reference_of_sums,
    reference_quantiles,
    trimmed_mean_factor,
    upper_quartile,
)

# -- trimmed mean of M-values ----------------------------------------------------------------------------------------


def mean_ranks(values):
    """Ranks from 1 on, equal values by the mean of theirs, as R's ``rank`` has them."""
    ordered = sorted(values)
    return [(bisect_left(ordered, v) + 1 + bisect_right(ordered, v)) / 2 for v in values]


def slow_factor(y, total, r, reference_total):
    """Robinson and Oshlack's factor, gene by gene."""
    genes = [
        (
            math.log2((a / total) / (b / reference_total)),
            (math.log2(a / total) + math.log2(b / reference_total)) / 2,
            (total - a) / total / a + (reference_total - b) / reference_total / b,
        )
        for a, b in zip(y, r, strict=True)
        if a > 0 and b > 0
    ]
    if not genes or max(abs(m) for m, _, _ in genes) < 1e-6:
        return 1.0
    n = len(genes)
    low_m, low_a = math.floor(n * 0.3) + 1, math.floor(n * 0.05) + 1
    ranks_m, ranks_a = mean_ranks([m for m, _, _ in genes]), mean_ranks([a for _, a, _ in genes])
    kept = [
        (m, v)
        for (m, _, v), rank_m, rank_a in zip(genes, ranks_m, ranks_a, strict=True)
        if low_m <= rank_m <= n + 1 - low_m and low_a <= rank_a <= n + 1 - low_a
    ]
    if not kept:
        return 1.0
    return 2 ** (sum(m / v for m, v in kept) / sum(1 / v for _, v in kept))


def slow_factors(counts):
    """EdgeR's ``calcNormFactors``, TMM: (gene-wise lists of samples) -> factors, reference."""
    totals = [sum(sample) for sample in counts]
    seen = [any(column) for column in zip(*counts, strict=True)]
    quartiles = []
    for sample, total in zip(counts, totals, strict=True):
        values = sorted(x for x, is_seen in zip(sample, seen, strict=True) if is_seen)
        place = Fraction(3 * (len(values) - 1), 4)
        below = values[math.floor(place)]
        above = values[math.ceil(place)]
        quartiles.append(float(below + (above - below) * (place - math.floor(place))) / total)
    if sorted(quartiles)[len(quartiles) // 2] + sorted(quartiles)[(len(quartiles) - 1) // 2] < 2e-20:
        sums = [sum(math.sqrt(x) for x in sample) for sample in counts]
        reference = sums.index(max(sums))
    else:
        middle = sum(quartiles) / len(quartiles)
        distance = [abs(q - middle) for q in quartiles]
        reference = distance.index(min(distance))
    factors = [slow_factor(s, t, counts[reference], totals[reference]) for s, t in zip(counts, totals, strict=True)]
    mean = math.exp(sum(map(math.log, factors)) / len(factors))
    return [f / mean for f in factors], reference


def our_factors(counts):
    totals = counts.sum(axis=1, dtype=np.int64)
    seen = (counts > 0).any(axis=0)
    quartiles = np.array([upper_quartile(row[seen], int(t)) for row, t in zip(counts, totals, strict=True)])
    reference = choose_reference(quartiles, np.sqrt(counts).sum(axis=1))
    factors = np.array([
        trimmed_mean_factor(row, int(t), counts[reference], int(totals[reference]))
        for row, t in zip(counts, totals, strict=True)
    ])  # fmt: skip
    return factors / geometric_mean(factors), reference


@given(
    seed=st.integers(0, 2**32 - 1), n_samples=st.integers(1, 7), n_genes=st.integers(1, 60),
    mean=st.sampled_from([0.3, 3, 400]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_factors_are_those_of_the_formula(seed, n_samples, n_genes, mean):
    rng = np.random.default_rng(seed)
    rates = mean * rng.lognormal(0, 1, n_genes) * rng.lognormal(0, 0.5, (n_samples, n_genes))
    counts = rng.poisson(rates).astype(np.uint32)
    counts[:, 0] += 1
    expected, reference = slow_factors([[int(x) for x in row] for row in counts])
    found, chosen = our_factors(counts)
    assert chosen == reference
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert math.isclose(math.prod(found), 1, rel_tol=1e-9)


def test_factors_by_hand_of_one_gene_that_takes_half_a_library():
    """Genes 1 to 4 are the same in all; gene 5 makes up half of C and little of D. Effective totals are 10,000 in all."""
    counts = np.array(
        [[200, 300, 500, 2000, 7000], [400, 600, 1000, 4000, 14000], [200, 300, 500, 2000, 17000],
         [200, 300, 500, 2000, 2000]], dtype=np.uint32
    )  # fmt: skip
    factors, reference = our_factors(counts)
    # Upper quartiles over totals 0.2, 0.2, 0.1, 0.4: their mean, 0.225, is nearest to the first.
    assert reference == 0
    # Of C, M is -1 four times and log2(0.85/0.7) once; floor(5 * 0.3) = 1 is cut on each side, the four have mean rank 2.5.
    np.testing.assert_allclose(factors, [1, 1, 0.5, 2], rtol=1e-15)
    totals = counts.sum(axis=1)
    scaled = np.stack([per_million(row, t * f) for row, t, f in zip(counts, totals, factors, strict=True)])
    np.testing.assert_allclose(
        scaled[:, :4] / [20_000, 30_000, 50_000, 200_000],
        [[1] * 4, [2] * 4, [1] * 4, [1] * 4] / np.array([[1], [2], [1], [1]]),
        rtol=1e-12,
    )


def test_a_factor_by_hand_with_weights():
    """Two genes survive the trimming of four, with log ratios 0 and 1 and their variances."""
    y, r = np.array([1, 10, 40, 80], dtype=np.uint32), np.array([100, 10, 20, 10], dtype=np.uint32)
    # Totals 1000: M = log2(y / r) = -6.64, 0, 1, 3; the outer two go. v = (1 - y/1000) / y + (1 - r/1000) / r.
    v_zero, v_one = 0.99 / 10 + 0.99 / 10, 0.96 / 40 + 0.98 / 20
    expected = 2 ** ((0 / v_zero + 1 / v_one) / (1 / v_zero + 1 / v_one))
    assert math.isclose(trimmed_mean_factor(y, 1000, r, 1000), expected, rel_tol=1e-14)


@pytest.mark.parametrize(
    ("y", "r"), [([0, 5, 0], [3, 0, 2]), ([0, 0, 0], [3, 1, 2]), ([6, 2, 4], [3, 1, 2])], ids=["none", "zero", "same"]
)
def test_samples_without_a_shared_gene_or_of_one_proportion_have_the_factor_one(y, r):
    y, r = np.array(y, dtype=np.uint32), np.array(r, dtype=np.uint32)
    assert trimmed_mean_factor(y, max(1, int(y.sum())), r, int(r.sum())) == 1


# -- quantiles -------------------------------------------------------------------------------------------------------


def slow_reference(samples):
    """Mean of the samples' j-th smallest ``log2(1 + count)``."""
    columns = [sorted(math.log2(1 + x) for x in sample) for sample in samples]
    return [sum(column[j] for column in columns) / len(columns) for j in range(len(columns[0]))]


def slow_quantiles(sample, reference):
    """Each gene's share of the reference values of the ranks that its count spans."""
    found, ordered = [], sorted(sample)
    for x in sample:
        first, last = bisect_left(ordered, x), bisect_right(ordered, x)
        found.append(sum(reference[first:last]) / (last - first))
    return found


def our_reference(samples, n_genes):
    sums = np.zeros(n_genes, dtype=np.int64)
    for sample in samples:
        add_sorted_logs(np.asarray(sample, dtype=np.uint32), sums)
    return reference_of_sums(sums, len(samples))


counts_of = st.lists(st.one_of(st.integers(0, 4), st.integers(0, 2**32 - 1)), min_size=1, max_size=25)


@given(seed=st.integers(0, 2**32 - 1), n_samples=st.integers(1, 6), n_genes=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_quantiles_are_means_of_sorted_samples(seed, n_samples, n_genes):
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(0.3, 0.02, (n_samples, n_genes)).astype(np.uint32)
    reference = our_reference(counts, n_genes)
    expected = slow_reference(counts.tolist())
    np.testing.assert_allclose(reference, expected, rtol=0, atol=2**-32)
    np.testing.assert_array_equal(our_reference(counts[rng.permutation(n_samples)], n_genes), reference)
    for sample in counts:
        found = reference_quantiles(sample, reference)
        np.testing.assert_allclose(found, slow_quantiles(sample.tolist(), reference.tolist()), rtol=1e-12)
        np.testing.assert_allclose(found.mean(), reference.mean(), rtol=1e-12)


@given(counts=counts_of, seed=st.integers(0, 99))
@settings(max_examples=100)
def test_quantiles_keep_the_order_of_counts_and_nothing_else_of_them(counts, seed):
    rng = np.random.default_rng(seed)
    sample, reference = np.array(counts, dtype=np.uint32), np.sort(rng.gamma(1, 3, len(counts)))
    found = reference_quantiles(sample, reference)
    order = np.argsort(sample, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    assert all((found[i] == found[j]) == (counts[i] == counts[j]) for i in range(len(counts)) for j in range(i))
    np.testing.assert_array_equal(
        found, reference_quantiles(np.unique(sample, return_inverse=True)[1].astype(np.uint32), reference)
    )
    moved = rng.permutation(len(counts))
    np.testing.assert_array_equal(reference_quantiles(sample[moved], reference), found[moved])


def test_quantiles_of_the_usual_example():
    """The four-gene example of the encyclopedias, with ties: counts whose log2(1 + x) are 5 4 3, 2 1 4, 3 4 6, 4 2 8."""
    values = np.array([[5, 2, 3, 4], [4, 1, 4, 2], [3, 4, 6, 8]])
    counts = (2**values - 1).astype(np.uint32)
    reference = our_reference(counts, 4)
    np.testing.assert_allclose(reference, [2, 3, 14 / 3, 17 / 3], atol=1e-9)
    found = np.stack([reference_quantiles(sample, reference) for sample in counts])
    expected = [[17 / 3, 2, 3, 14 / 3], [31 / 6, 2, 31 / 6, 3], [2, 3, 14 / 3, 17 / 3]]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_sample_that_lacks_genes_is_stretched_over_the_reference():
    """Five values over three ranks: the lowest, the middle, the highest; three over five: between neighbours half way."""
    reference = np.array([0, 1, 2, 4, 8], dtype=np.float64)
    assert reference_quantiles(np.array([7, 0, 9], dtype=np.uint32), reference).tolist() == [2, 0, 8]
    sums = np.zeros(5, dtype=np.int64)
    add_sorted_logs(np.array([3, 0, 15], dtype=np.uint32), sums)
    np.testing.assert_allclose(reference_of_sums(sums, 1), [0, 1, 2, 3, 4], atol=1e-9)
    assert reference_quantiles(np.zeros(0, dtype=np.uint32), reference).tolist() == []


# -- statistics ------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), n_parts=st.integers(1, 6))
@settings(max_examples=50)
def test_statistics_of_scores_are_the_same_for_any_order_and_parts(seed, n_parts):
    rng = np.random.default_rng(seed)
    scores = (rng.gamma(1, 2, (40, 4)) * rng.integers(0, 2, (40, 4))).astype(np.float32)
    lacking = rng.integers(0, 40, 4)
    for gene, n in enumerate(lacking):
        scores[:n, gene] = 0
    found = []
    for parts in ([np.arange(40)], np.array_split(rng.permutation(40), n_parts)):
        moments = MeanOfScores.empty(4)
        for part in parts:
            moments.add(scores[part], (part[:, None] >= lacking).sum(axis=0))
        found.append((moments.n_positive, *moments.mean_and_std()))
    for ours, again in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, again)
    exact = scores.astype(np.float64)
    for gene, n in enumerate(lacking):
        np.testing.assert_allclose(found[0][1][gene], exact[n:, gene].mean(), rtol=0, atol=1e-8)
        np.testing.assert_allclose(found[0][2][gene], exact[n:, gene].std(), rtol=0, atol=1e-8)


def test_a_gene_that_no_sample_has_has_no_mean():
    mean, std = MeanOfScores.empty(1).mean_and_std()
    assert np.isnan(mean).all()
    assert np.isnan(std).all()
