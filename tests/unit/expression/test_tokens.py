"""Sequences of genes against sorted lists, exact fractions and numpy's own quantiles."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.kernels.shuffle import PURPOSE_MASK, draw_masks
from splicestore.kernels.tokens import (
    NO_TARGET,
    TOKEN_PAD,
    TOKEN_START,
    mask_values,
    second_stage,
    shift_genes,
    top_genes,
)
from splicestore.stream.sample_batch import SampleBatch
from splicestore.stream.token_view import TokenView, Vocabulary, view_tokens

SAMPLES = st.lists(st.lists(st.integers(0, 40), min_size=9, max_size=9), min_size=1, max_size=4)
DESCENDING = st.lists(st.integers(0, 60), min_size=1, max_size=40).map(lambda v: sorted(v, reverse=True))


def fraction_levels(bins, n_levels):
    """Edges as fractions, by the definition of numpy's linear quantiles; every value compared with every edge."""
    positive = sorted(b for b in bins if b > 1)
    edges = []
    for j in range(n_levels + 1):
        at = Fraction(j * (len(positive) - 1), n_levels)
        low = int(at)
        high = min(low + 1, len(positive) - 1)
        edges.append(positive[low] + (at - low) * (positive[high] - positive[low]) if positive else 0)
    return [0 if b == 0 else 1 if b == 1 else max(1, sum(edge < b for edge in edges)) for b in bins]


@given(SAMPLES, st.integers(1, 12))
def test_top_genes_are_those_of_a_sorted_list(samples, k):
    found = top_genes(np.array(samples, dtype=np.uint16), k)
    for row, bins in zip(found.tolist(), samples, strict=True):
        expected = sorted((g for g in range(len(bins)) if bins[g] > 0), key=lambda g: (-bins[g], g))[:k]
        assert row == expected + [-1] * (k - len(expected))


@given(DESCENDING, st.integers(1, 30))
def test_levels_are_those_of_exact_fractions(bins, n_levels):
    found = second_stage(np.array([bins], dtype=np.uint16), n_levels)[0].tolist()
    assert found == fraction_levels(bins, n_levels)


def test_levels_of_the_documented_example():
    """Edges 5, 9, 11, 18.25, 20."""
    assert second_stage(np.array([[20, 20, 13, 9, 9, 5, 1, 1]], dtype=np.uint16), 4).tolist() == [
        [4, 4, 3, 1, 1, 1, 1, 1]
    ]


def test_levels_are_numpys_where_its_quantiles_are_exact():
    """With n a power of two and m - 1 a multiple of it every quantile is one of the values."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        bins = np.sort(rng.integers(2, 300, 16 * rng.integers(1, 9) + 1))[::-1].astype(np.uint16)
        edges = np.quantile(bins, np.linspace(0, 1, 17))
        expected = np.maximum(1, np.digitize(bins, edges, right=True))
        np.testing.assert_array_equal(second_stage(bins[None], 16)[0], expected)


def test_masks_are_words_of_philox_by_sample():
    found = draw_masks(5, 2, np.array([7, 2**40]), 9)
    for sample, words in zip((7, 2**40), found, strict=True):
        counter = np.array([0, 0, sample, PURPOSE_MASK], dtype=np.uint64)
        philox = np.random.Philox(key=np.array([5, 2], dtype=np.uint64), counter=counter)
        np.testing.assert_array_equal(words, philox.random_raw(9))


def slow_mask(values, absent, mask, others, sample, seed, epoch, share):
    masked, target = [list(row) for row in values], [[NO_TARGET] * len(row) for row in values]
    for s, row in enumerate(values):
        counter = np.array([0, 0, sample[s], PURPOSE_MASK], dtype=np.uint64)
        words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64), counter=counter).random_raw(len(row))
        for place, (value, word) in enumerate(zip(row, map(int, words), strict=True)):
            upper, lower = divmod(word, 2**32)
            if value == absent or upper >= round(share * 2**32):
                continue
            target[s][place] = value
            choice, rest = divmod(10 * lower, 2**32)
            if choice < 8:
                masked[s][place] = mask
            elif choice == 8:
                masked[s][place] = others[rest * len(others) >> 32]
    return masked, target


@given(SAMPLES, st.integers(0, 2**64 - 1), st.integers(0, 9), st.sampled_from([0.15, 0.5, 1.0]))
def test_masks_are_those_of_a_loop(values, seed, epoch, share):
    others = np.array([11, 12, 13], dtype=np.int32)
    sample = np.arange(len(values), dtype=np.int64) * 1000 + 5
    found = mask_values(np.array(values, dtype=np.int32), 1, 0, others, sample, seed, epoch, share)
    expected = slow_mask(values, 1, 0, others.tolist(), sample, seed, epoch, share)
    assert (found[0].tolist(), found[1].tolist()) == expected


def test_masks_hide_the_share_that_is_asked_for():
    values = np.full((400, 500), 7, dtype=np.int32)
    others = np.arange(100, 200, dtype=np.int32)
    masked, target = mask_values(values, 0, 0, others, np.arange(400), 3, 1, 0.15)
    chosen = target == 7
    # Five standard deviations of 200,000 draws are 0.004.
    assert abs(chosen.mean() - 0.15) < 0.004
    kinds = [(masked[chosen] == 0).mean(), (masked[chosen] >= 100).mean(), (masked[chosen] == 7).mean()]
    np.testing.assert_allclose(kinds, [0.8, 0.1, 0.1], atol=0.012)
    assert len(np.unique(masked[chosen & (masked >= 100)])) == 100
    assert (masked[~chosen] == 7).all()


def test_a_shift_predicts_each_gene_from_those_before():
    gene = np.array([[9, 4, 7], [5, TOKEN_PAD, TOKEN_PAD]], dtype=np.int32)
    level = np.array([[3, 2, 1], [1, 0, 0]], dtype=np.int32)
    input_gene, input_level, target = shift_genes(gene, level)
    assert input_gene.tolist() == [[TOKEN_START, 9, 4], [TOKEN_START, 5, TOKEN_PAD]]
    assert input_level.tolist() == [[0, 3, 2], [0, 1, 0]]
    assert target.tolist() == [[9, 4, 7], [5, NO_TARGET, NO_TARGET]]


@given(SAMPLES, st.sampled_from([None, "next_gene", "masked_gene", "masked_level"]), st.integers(1, 12))
def test_a_view_is_a_function_of_the_sample(samples, objective, top):
    """Whatever else is in the batch, and in whatever order."""
    bins = np.array(samples, dtype=np.uint16)
    vocabulary = Vocabulary(np.array([30, 3, 29, 4, 28, 5, 27, 6, 26], dtype=np.int32), tuple("abcdefghi"))
    view = TokenView(objective, top_genes=top, n_levels=4, mask_share=0.5)

    def seen(rows):
        batch = SampleBatch(values=bins[rows], sample_row=np.array(rows), step=0, global_rows=len(rows))
        return view_tokens(view, vocabulary, batch, 8, 1)

    whole = seen(list(range(len(bins))))
    for row in range(len(bins)):
        alone = seen([row])
        for name in alone.arrays:
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[row])
    for row, values in enumerate(samples):
        order = sorted((g for g in range(9) if values[g] > 0), key=lambda g: (-values[g], g))[:top]
        n = len(order)
        assert whole.gene[row, :n].tolist() == vocabulary.token[order].tolist()
        assert whole.bin[row, :n].tolist() == [values[g] for g in order]
        assert whole.is_zero[row, :n].tolist() == [values[g] == 1 for g in order]
        assert set(whole.gene[row, n:].tolist()) <= {TOKEN_PAD}
        assert not whole.bin[row, n:].any()
        assert not whole.level[row, n:].any()
        assert (whole.target[row, n:] == NO_TARGET).all()


@pytest.mark.parametrize("objective", [None, "next_gene", "masked_gene", "masked_level"])
def test_what_an_objective_predicts(objective):
    bins = np.random.default_rng(1).integers(1, 50, (20, 30)).astype(np.uint16)
    vocabulary = Vocabulary.by_place(tuple(f"g{i}" for i in range(30)))
    assert (vocabulary.token.tolist(), vocabulary.n_tokens) == (list(range(3, 33)), 33)
    batch = SampleBatch(values=bins, sample_row=np.arange(20), step=0, global_rows=20)
    found = view_tokens(TokenView(objective, top_genes=30, n_levels=6), vocabulary, batch, 0, 0)
    predicted = found.target != NO_TARGET
    truth = found.level if objective == "masked_level" else found.gene
    np.testing.assert_array_equal(found.target[predicted], truth[predicted])
    assert predicted.mean() == {None: 0.0, "next_gene": 1.0}.get(objective, pytest.approx(0.15, abs=0.06))
    # What is not predicted is read as it is.
    if objective == "masked_gene":
        np.testing.assert_array_equal(found.input_level, found.level)
        np.testing.assert_array_equal(found.input_gene[~predicted], found.gene[~predicted])
    if objective == "masked_level":
        np.testing.assert_array_equal(found.input_gene, found.gene)
        np.testing.assert_array_equal(found.input_level[~predicted], found.level[~predicted])
