"""Splits of samples: closed under shared series and identical profiles, whatever else; fits on their training samples."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import splicestore as ss
from splicestore.errors import ConfigError, SplitError
from splicestore.ingest.expression import ingest_expression
from splicestore.normalize import FitOptions, fit_edges
from splicestore.normalize.quality import SampleQuality
from splicestore.split.samples import SampleSplitOptions, split_samples
from splicestore.storage import StoreRoot
from tests.service.study import splicestore
from tests.unit.expression.files import random_counts, write_archs4

N_GENES = 12


def store_of(folder, series, counts=None, tissue=None):
    """A store with one matrix whose samples have these series."""
    n = len(series)
    counts = random_counts(1, n, N_GENES) + np.arange(1, n + 1, dtype=np.uint32)[:, None] if counts is None else counts
    columns = {"series_id": series, "tissue": tissue or [f"t{i % 4}" for i in range(n)]}
    path = write_archs4(folder / "a.h5", counts, symbols=[f"G{i}" for i in range(N_GENES)],
                        samples=[f"GSM{i}" for i in range(n)], columns=columns)  # fmt: skip
    root = StoreRoot(str(folder / "store"))
    ingest_expression(root, "x", [str(path)])
    return ss.open_store(root.url)


def slow_components(series):
    """Samples that are reached from one another over shared series, walked one by one."""
    names = [set(s.split(",")) - {""} for s in series]
    component = list(range(len(series)))
    changed = True
    while changed:
        changed = False
        for i in range(len(series)):
            for j in range(len(series)):
                if names[i] & names[j] and component[i] != component[j]:
                    component[i] = component[j] = min(component[i], component[j])
                    changed = True
    return component


@given(series=st.lists(st.lists(st.integers(0, 25), max_size=2), min_size=12, max_size=30), seed=st.integers(0, 99))
@settings(max_examples=12)
def test_no_series_is_on_two_sides(tmp_path_factory, series, seed):
    joined = [",".join(f"GSE{n}" for n in of) for of in series]
    assume(any(joined))
    store = store_of(tmp_path_factory.mktemp("split"), joined)
    try:
        report = split_samples(store, "s", "x", SampleSplitOptions(test_fraction=0.3, val_fraction=0.2, seed=seed))
    except SplitError:  # One component may be all there is; hypothesis complains if it is so too often.
        assume(False)
    table = ss.open_store(store.url).sample_splits["s"].to_pandas()
    slow = slow_components(joined)
    pairs = set(zip(slow, table["component"], strict=True))
    assert len(pairs) == len(set(slow)) == report.n_components
    assert len(set(zip(slow, table["subset"], strict=True))) == len(set(slow))
    assert sum(report.samples.values()) == len(series)


def test_identical_samples_stay_together_or_are_counted(tmp_path):
    counts = random_counts(4, 60, N_GENES) + np.arange(1, 61, dtype=np.uint32)[:, None]
    counts[30:] = counts[:30]
    counts[59] = 0
    counts[29] = 0
    store = store_of(tmp_path, [f"GSE{i}" for i in range(60)], counts)
    shares = {"test_fraction": 0.3, "val_fraction": 0.3}
    joined = split_samples(store, "joined", "x", SampleSplitOptions(**shares))
    assert (joined.n_identical, joined.n_identical_across, joined.n_components) == (58, 0, 31)
    apart = split_samples(store, "apart", "x", SampleSplitOptions(**shares, join_identical=False))
    subset = ss.open_store(store.url).sample_splits["apart"].sample_subset
    assert apart.n_components == 60
    assert apart.n_identical_across == 2 * int((subset[:29] != subset[30:59]).sum()) > 0


def test_more_samples_move_nothing_that_stays_in_its_component(tmp_path):
    series = [f"GSE{i // 3}" for i in range(90)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    small, large = store_of(tmp_path / "a", series[:60]), store_of(tmp_path / "b", series)
    found = []
    for store in (small, large):
        split_samples(store, "s", "x", SampleSplitOptions(test_fraction=0.3, val_fraction=0.3, seed=5))
        found.append(ss.open_store(store.url).sample_splits["s"].sample_subset)
    np.testing.assert_array_equal(found[0], found[1][:60])


def test_shares_are_near_what_was_asked(tmp_path):
    store = store_of(tmp_path, [f"GSE{i}" for i in range(2000)])
    report = split_samples(store, "s", "x", SampleSplitOptions(test_fraction=0.2, val_fraction=0.1))
    assert abs(report.samples["test"] / 2000 - 0.2) < 0.03
    assert abs(report.samples["val"] / 2000 - 0.1) < 0.03


def test_by_a_label_by_sample_and_what_cannot_be(tmp_path):
    store = store_of(tmp_path, [""] * 40, tissue=[f"t{i % 8}" for i in range(40)])
    with pytest.raises(ConfigError, match="its samples have no series; --by sample"):
        split_samples(store, "s", "x")
    with pytest.raises(ConfigError, match="no column 'tisue'; did you mean tissue"):
        split_samples(store, "s", "x", SampleSplitOptions(by="tisue"))
    with pytest.raises(ConfigError, match="nothing is left to train on"):
        split_samples(store, "s", "x", SampleSplitOptions(by="sample", test_fraction=0.5, val_fraction=0.5))
    options = SampleSplitOptions(by="tissue", test_fraction=0.4, val_fraction=0.3, seed=1)
    report = split_samples(store, "s", "x", options)
    assert report.n_components == 8
    table = ss.open_store(store.url).sample_splits["s"].to_pandas()
    assert table.groupby(np.arange(40) % 8)["subset"].nunique().max() == 1
    with pytest.raises(SplitError, match="no sample falls into"):
        split_samples(store, "one", "x", SampleSplitOptions(by="tissue", test_fraction=0.01, val_fraction=0.01))
    one = store_of(tmp_path_of(tmp_path, "one"), ["GSE1"] * 40)
    with pytest.raises(SplitError, match="no sample falls into"):
        split_samples(one, "s", "x")


def tmp_path_of(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_edges_are_fitted_to_the_training_samples(tmp_path):
    store = store_of(tmp_path, [f"GSE{i // 2}" for i in range(80)])
    arguments = ("--expression", "x", "--test-fraction", "0.3", "--val-fraction", "0.2", "--json")
    report = json.loads(splicestore("split", "samples", store.url, "s", *arguments).stdout)
    splicestore("normalize", "fit", store.url, "n", "--expression", "x", "--split", "s", "--n-bins", "5", "--no-qc")
    opened = ss.open_store(store.url)
    assert opened.normalized["n"].n_samples_fitted == report["samples"]["train"] < 80
    train = opened.sample_splits["s"].sample_subset == 0
    names = tuple(np.array(opened.expression["x"].sample_ids, dtype=object)[train])
    fit_edges(opened, "m", "x", FitOptions(n_bins=5, quality=SampleQuality.none(), samples=names))
    again = ss.open_store(store.url)
    np.testing.assert_array_equal(again.normalized["n"].edges(0, N_GENES), again.normalized["m"].edges(0, N_GENES))
    listed = splicestore("ls", store.url).stdout
    assert "sample_splits" in listed
    pinned = next(line for line in listed.splitlines() if line.startswith("sample_splits")).split()
    assert pinned[6] == "1"
    with pytest.raises(ConfigError, match="exclude each other"):
        FitOptions(n_bins=5, samples=names, split="s")
