"""Motif counts, log-odds and scans equal slow loops; the motifs lie where splicing has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import ModelError
from splicestore.kernels.motif_matrix import (
    ACCEPTOR_MOTIF,
    DONOR_MOTIF,
    MotifShape,
    base_counts,
    log_odds,
    motif_counts,
    scan,
)
from splicestore.kernels.sequence import encode_bases
from splicestore.train.baseline import MotifBaseline
from tests.unit.train.small_batches import CONTEXT, WINDOW, planted_batch, random_batch

SHAPES = st.builds(MotifShape, before=st.integers(0, 6), after=st.integers(0, 6))


@given(SHAPES, st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_counts_equal_a_loop(shape, seed, length):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 5, size=(3, length)).astype(np.uint8)
    row, position = rng.integers(0, 3, size=7), rng.integers(0, length, size=7)
    slow = np.zeros((shape.length, 4), dtype=int)
    for r, p in zip(row, position, strict=True):
        for place in range(shape.length):
            at = p - shape.before + place
            if 0 <= at < length and codes[r, at] < 4:
                slow[place, codes[r, at]] += 1
    np.testing.assert_array_equal(motif_counts(codes, row, position, shape), slow)


@given(SHAPES, st.integers(0, 2**32 - 1), st.integers(1, 30), st.data())
def test_scan_equals_a_loop(shape, seed, length, data):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 5, size=(2, length)).astype(np.uint8)
    first = data.draw(st.integers(0, length - 1))
    n = data.draw(st.integers(1, length - first))
    matrix = np.zeros((shape.length, 5), dtype=np.float32)
    matrix[:, :4] = rng.normal(size=(shape.length, 4))
    slow = np.zeros((2, n))
    for r in range(2):
        for i in range(n):
            for place in range(shape.length):
                at = first + i - shape.before + place
                slow[r, i] += matrix[place, codes[r, at]] if 0 <= at < length else 0
    np.testing.assert_allclose(scan(codes, matrix, shape, first, n), slow, atol=1e-4)


def test_log_odds_of_known_counts():
    background = np.array([300, 300, 300, 96])  # with one added to each: 301 301 301 97 of 1000
    matrix = log_odds(np.array([[10, 0, 0, 0], [0, 0, 0, 0]]), background, pseudocount=1.0)
    assert matrix[0, 0] == pytest.approx(np.log2((10 + 0.301) / 11 / 0.301), abs=1e-5)
    assert matrix[0, 3] == pytest.approx(np.log2(1 / 11), abs=1e-5)
    assert matrix[1].tolist() == [0, 0, 0, 0, 0]
    assert matrix[0, 4] == 0


def test_n_is_not_counted_as_a_base():
    assert base_counts(encode_bases(b"AACGTNNN")).tolist() == [2, 1, 1, 1]


def test_motifs_lie_around_the_exon_boundary():
    # label on the last exon base of CAG|GTAAGT and on the first exon base of ...CAG|GT
    donor = encode_bases(b"TTCAGGTAAGTTT")
    counts = motif_counts(donor[None], np.array([0]), np.array([4]), DONOR_MOTIF)
    assert "".join("ACGT"[b] for b in counts.argmax(axis=1)) == "CAGGTAAGT"
    acceptor = encode_bases(b"GG" + b"T" * 17 + b"CAG" + b"GTA" + b"CC")
    counts = motif_counts(acceptor[None], np.array([0]), np.array([22]), ACCEPTOR_MOTIF)
    assert "".join("ACGT"[b] for b in counts.argmax(axis=1)) == "T" * 17 + "CAG" + "GTA"


def test_baseline_finds_planted_sites():
    baseline = MotifBaseline.from_batches([planted_batch(1), planted_batch(2)])
    held_out = planted_batch(3)
    scores = baseline.score(held_out.sequence.numpy(), WINDOW)
    assert scores.shape == (16, 2, WINDOW)
    label = held_out.label.numpy()
    assert (scores[:, 0].argmax(axis=1) == (label == 1).argmax(axis=1)).all()
    assert (scores[:, 1].argmax(axis=1) == (label == 2).argmax(axis=1)).all()


def test_baseline_counts_each_window_once_and_no_padding():
    batch = random_batch(3, n=6, padded=2)
    baseline = MotifBaseline.from_batches([batch])
    assert baseline.n_windows == 4
    label, codes = batch.label.numpy()[:4], batch.sequence.numpy()[:4]
    row, position = np.nonzero(label == 2)
    first_place = codes[row, CONTEXT + position - 2]
    assert baseline.donor[0].tolist() == [(first_place == b).sum() for b in range(4)]
    assert baseline.background.sum() == (codes < 4).sum()


def test_baseline_stops_at_max_windows():
    assert MotifBaseline.from_batches((planted_batch(s) for s in range(9)), max_windows=20).n_windows == 32


def test_baseline_survives_json():
    baseline = MotifBaseline.from_batches([planted_batch(1)])
    again = MotifBaseline.from_document(baseline.document())
    codes = planted_batch(2).sequence.numpy()
    np.testing.assert_array_equal(again.score(codes, WINDOW), baseline.score(codes, WINDOW))


@pytest.mark.parametrize("document", [{}, {"acceptor": [[1]], "donor": [[1]], "background": [1], "n_windows": 1}])
def test_a_document_that_is_no_baseline_is_refused(document):
    with pytest.raises(ModelError, match="not a motif baseline"):
        MotifBaseline.from_document(document)


def test_windows_without_sites_make_no_baseline():
    with pytest.raises(ModelError, match="no acceptor and no donor in the 4 training windows"):
        MotifBaseline.from_batches([random_batch(0, site_rate=0.0)])
