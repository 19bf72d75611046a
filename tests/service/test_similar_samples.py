"""Samples with nearly the same profile: found among all pairs, reported across subsets, kept together on demand."""

from __future__ import annotations

import json

import numpy as np
import pytest

import splicestore as ss
from splicestore.errors import ConfigError
from splicestore.ingest.count_files import ExpressionOptions
from splicestore.ingest.expression import ingest_expression
from splicestore.kernels.components import group_components
from splicestore.kernels.correlation import SKETCH_MARGIN, SKETCH_REACH, close_pairs
from splicestore.readers.counts import open_counts
from splicestore.split.samples import SampleSplitOptions, split_samples
from splicestore.split.similar import find_similar, place_samples
from splicestore.storage import StoreRoot
from tests.service.study import splicestore
from tests.unit.expression.files import random_counts, write_archs4, write_table

N_AGAIN = 30
"""Tumours that were sequenced twice."""
SHARES = {"test_fraction": 0.3, "val_fraction": 0.2}


@pytest.fixture(scope="module")
def counts(data_dir):
    """Real tumours, some of them again at half the depth: every read is kept with a chance of one half."""
    source = open_counts(str(data_dir / "expression" / "tcga_ov_counts.1125x374.tsv.gz"))
    real = source.read(np.arange(374), 0, 1125)
    again = np.random.default_rng(2).binomial(real[:N_AGAIN].astype(np.int64), 0.5).astype(np.uint32)
    return np.concatenate((real, again))


@pytest.fixture(scope="module")
def store(tmp_path_factory, counts):
    return store_of(tmp_path_factory.mktemp("similar"), counts)


def store_of(folder, counts):
    n, n_genes = counts.shape
    path = write_archs4(folder / "a.h5", counts, symbols=[f"G{i}" for i in range(n_genes)],
                        samples=[f"GSM{i}" for i in range(n)], columns={"series_id": [f"GSE{i}" for i in range(n)]})  # fmt: skip
    root = StoreRoot(str(folder / "store"))
    ingest_expression(root, "x", [str(path)])
    return ss.open_store(root.url)


def slow_correlation(counts):
    """Pearson's r of log scores, all pairs, in double precision."""
    return np.corrcoef(np.log10(counts * (1e7 / counts.sum(axis=1, keepdims=True)) + 1))


def slow_pairs(r, threshold):
    return set(zip(*(rows.tolist() for rows in np.nonzero(np.triu(r >= threshold, 1))), strict=True))


def pairs_of(points, threshold):
    found = set()
    for first, second, _ in close_pairs(points.values, points.limit(threshold)):
        found |= set(zip(first.tolist(), second.tolist(), strict=True))
    return found


def test_pairs_are_those_of_all_pairs(store, counts):
    r = slow_correlation(counts)
    exact = place_samples(store.expression["x"])
    assert exact.is_exact
    for threshold in (0.75, 0.9, 0.97):
        assert pairs_of(exact, threshold) == slow_pairs(r, threshold)
    # Two tumours are never as alike as one that is sequenced twice.
    assert slow_pairs(r, 0.95) == {(i, 374 + i) for i in range(N_AGAIN)}


def test_sketches_miss_no_pair_and_add_none_beyond_their_reach(store, counts):
    r, sketches = slow_correlation(counts), place_samples(store.expression["x"], exact_bytes=0)
    assert (sketches.is_exact, sketches.values.shape) == (False, (404, 512))
    for threshold in (0.7, 0.8, 0.9, 0.97):
        found = pairs_of(sketches, threshold)
        assert slow_pairs(r, threshold) <= found <= slow_pairs(r, 1 - SKETCH_REACH * (1 - threshold))
    unit = (sketches.values**2).sum(axis=1)
    assert abs(unit - 1).max() < SKETCH_MARGIN - 1
    again = place_samples(store.expression["x"], exact_bytes=0)
    np.testing.assert_array_equal(again.values, sketches.values)


def test_groups_and_crossings_are_those_counted_one_by_one(store, counts, monkeypatch):
    monkeypatch.setattr("splicestore.split.similar._PAIRS_AT_ONCE", 50)
    monkeypatch.setattr("splicestore.kernels.correlation._ROWS_AT_ONCE", 64)
    r = slow_correlation(counts)
    pairs = sorted(slow_pairs(r, 0.85))
    subset = np.random.default_rng(3).integers(0, 3, len(counts)).astype(np.uint8)
    found = find_similar(place_samples(store.expression["x"]), 0.85, subset)
    assert len(pairs) > 1000
    assert found.n_similar == len({row for pair in pairs for row in pair})
    crossing = [(a, b) for a, b in pairs if subset[a] != subset[b]]
    assert found.n_across == len({row for pair in crossing for row in pair})
    member = np.array(pairs).reshape(-1)
    np.testing.assert_array_equal(found.group, group_components(len(counts), member, np.arange(len(member)) // 2))
    best = sorted(crossing, key=lambda pair: -r[pair])[:5]
    assert [pair[:2] for pair in found.examples] == best
    np.testing.assert_allclose([pair[2] for pair in found.examples], [r[pair] for pair in best], atol=1e-5)


def test_resequenced_samples_are_told_of_or_kept_together(store):
    arguments = ("split", "samples", store.url, "apart", "--expression", "x", "--similar", "0.95",
                 "--test-fraction", "0.3", "--val-fraction", "0.2")  # fmt: skip
    told = splicestore(*arguments).stdout
    opened = ss.open_store(store.url)
    subset = opened.sample_splits["apart"].sample_subset
    crossing = subset[:N_AGAIN] != subset[374:]
    assert crossing.any()
    assert f"correlated with another at 0.95 or above: 60, across subsets {2 * crossing.sum()}" in told
    first = told.split("across subsets")[-1].split("\n")[1].split()
    assert int(first[2].removeprefix("GSM").removesuffix(":")) - int(first[0].removeprefix("GSM")) == 374
    report = split_samples(opened, "joined", "x", SampleSplitOptions(**SHARES, similar=0.95, join_similar=True))
    subset = ss.open_store(store.url).sample_splits["joined"].sample_subset
    np.testing.assert_array_equal(subset[:N_AGAIN], subset[374:])
    assert report.n_components == 374
    assert json.loads(json.dumps(report.similar)) == {
        "threshold": 0.95,
        "is_exact": True,
        "n_samples": 60,
        "n_across": 0,
        "examples": [],
    }


def test_looking_for_similar_samples_does_not_change_a_split_joining_does(store):
    plain = split_samples(store, "s", "x", SampleSplitOptions(**SHARES))
    looked = split_samples(store, "s", "x", SampleSplitOptions(**SHARES, similar=0.9))
    joined = split_samples(store, "s", "x", SampleSplitOptions(**SHARES, similar=0.9, join_similar=True))
    assert plain.similar is None
    assert (looked.generation, looked.status) == (plain.generation, "unchanged")
    assert joined.generation != plain.generation


def test_empty_and_unmeasured_make_no_sample_similar(tmp_path):
    counts = random_counts(8, 6, 40) + np.uint32(1)
    counts[4:] = 0
    counts[1] = counts[0]
    genes = [f"g{i}" for i in range(40)]
    first = write_table(tmp_path / "a.tsv", counts[:1], genes, ["a"])
    rest = write_table(tmp_path / "b.tsv", counts[1:, :30], genes[:30], list("bcdef"))
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "x", [str(first), str(rest)], ExpressionOptions(genes_differ="union"))
    found = find_similar(place_samples(ss.open_store(root.url).expression["x"]), 0.999, np.zeros(6, dtype=np.uint8))
    assert found.group.tolist() == [0, 0, 1, 2, 3, 4]
    assert found.n_similar == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similar": 1.0}, r"--similar is a correlation in \[0\.5, 1\), got 1\.0"),
        ({"similar": float("nan")}, "got nan"),
        ({"join_similar": True}, "say from which correlation, as in --similar 0.95"),
    ],
)
def test_thresholds_that_are_none(store, options, message):
    with pytest.raises(ConfigError, match=message):
        split_samples(store, "s", "x", SampleSplitOptions(**options))
