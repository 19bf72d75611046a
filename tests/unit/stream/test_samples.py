"""The stream of samples against the matrix itself and the order's oracle; the laws of windows hold for samples too."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splicestore as ss
from splicestore.errors import ConfigError, PlanError, SplitError, StateError
from splicestore.normalize import (
    ApplyOptions,
    FitOptions,
    ScalingOptions,
    apply_edges,
    apply_scaling,
    fit_edges,
    fit_scaling,
)
from splicestore.normalize.quality import SampleQuality
from splicestore.split.samples import SampleSplitOptions, split_samples
from splicestore.stream import SampleBatches, TokenView
from tests.oracles import order_oracle
from tests.unit.expression.files import random_counts
from tests.unit.stream.sample_store import N_GENES, N_SAMPLES, make_sample_store

HEIGHT = 64


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_sample_store(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def bins(store):
    return store.bins["b"].read(slice(None))


def rows_of(stream):
    return [batch.sample_row.tolist() for batch in stream]


def in_blocks(rows):
    """Rows of each run of 64 that has any."""
    return [[row for row in rows if row // HEIGHT == block] for block in sorted({row // HEIGHT for row in rows})]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 5),
    lanes=st.sampled_from([1, 2, 4]),
    live=st.integers(1, 12),
    share=st.sampled_from(["lanes", "replicate"]),
)
def test_the_order_is_the_one_that_windows_have(store, bins, seed, epoch, lanes, live, share):
    memory = (live + 17) * HEIGHT * N_GENES * 2
    stream = SampleBatches(
        store, "b", split="s", batch_size=4 * lanes, lanes=lanes, seed=seed, share=share, shuffle_memory=memory
    )
    stream.set_epoch(epoch)
    train = np.flatnonzero(store.sample_splits["s"].sample_subset == 0).tolist()
    ordered = order_oracle.epoch_lanes(in_blocks(train), lanes, stream.plan.live_total, seed, epoch)
    found = list(stream)
    assert [batch.sample_row.tolist() for batch in found] == order_oracle.epoch_batches(ordered, 4 * lanes)
    for batch in found:
        np.testing.assert_array_equal(batch.values, bins[batch.sample_row])
        assert (batch.values.dtype, batch.global_rows) == (np.uint16, len(batch.sample_row))
    stream.close()


def test_an_epoch_has_every_sample_of_the_subset_once(store):
    subset = store.sample_splits["s"].sample_subset
    for code, name in enumerate(("train", "val", "test")):
        stream = SampleBatches(store, "b", split="s", subset=name, batch_size=32)
        assert sorted(sum(rows_of(stream), [])) == np.flatnonzero(subset == code).tolist()
        assert len(stream) == -(-int((subset == code).sum()) // 32)
    assert sorted(sum(rows_of(SampleBatches(store, "b")), [])) == list(range(N_SAMPLES))


def test_few_blocks_make_one_lane_that_any_number_of_ranks_shares(store):
    whole = SampleBatches(store, "b", batch_size=50, seed=4)
    assert (whole.plan.options.lanes, whole.plan.share) == (1, "replicate")
    expected = rows_of(whole)
    assert [len(rows) for rows in expected] == [50] * (N_SAMPLES // 50)
    parts = [rows_of(SampleBatches(store, "b", batch_size=50, seed=4, rank=r, world_size=3)) for r in range(3)]
    for step, rows in enumerate(expected):
        assert [parts[place % 3][step][place // 3] for place in range(len(rows))] == rows


def test_ranks_that_own_lanes_make_up_the_global_batches(store):
    options = {"lanes": 4, "batch_size": 20, "seed": 1, "share": "lanes", "tail": "pad"}
    expected = rows_of(SampleBatches(store, "b", **options))
    streams = [SampleBatches(store, "b", **options, rank=rank, world_size=2) for rank in range(2)]
    parts = [rows_of(stream) for stream in streams]
    for step, rows in enumerate(expected):
        assert sorted(parts[0][step] + parts[1][step]) == sorted(rows)
    assert all(stream.statistics()["blocks_read"] < len(in_blocks(range(N_SAMPLES))) for stream in streams)


@pytest.mark.parametrize("view", [None, TokenView("masked_gene", top_genes=7, n_levels=5)], ids=["values", "tokens"])
def test_a_state_taken_anywhere_gives_the_same_rest(store, view):
    options = {"split": "s", "batch_size": 64, "seed": 9, "tokens": view}
    stream = SampleBatches(store, "b", **options)
    stream.set_epoch(2)
    states, batches = [], []
    for batch in stream:
        batches.append(batch)
        states.append(json.loads(json.dumps(stream.state_dict())))
    for step, state in enumerate(states):
        resumed = SampleBatches(store, "b", **options)
        resumed.load_state_dict(state)
        rest = list(resumed)
        assert len(rest) == len(batches) - step - 1
        for found, expected in zip(rest, batches[step + 1 :], strict=True):
            for name in found.arrays:
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_genes_come_in_the_order_asked_for_and_counts_are_counts(store, bins):
    genes = ["G7", "G0", "G22"]
    for batch in SampleBatches(store, "b", genes=genes, batch_size=64):
        np.testing.assert_array_equal(batch.values, bins[batch.sample_row][:, [7, 0, 22]])
    counts = store.expression["x"].read(slice(None))
    stream = SampleBatches(store, "x", layer="counts", split="s", batch_size=64)
    for batch in stream:
        np.testing.assert_array_equal(batch.values, counts[batch.sample_row])
        assert batch.values.dtype == np.uint32
    assert stream.gene_ids == tuple(store.expression["x"].gene_ids)


def test_scaled_values_are_streamed_too(tmp_path):
    store = make_sample_store(tmp_path, random_counts(4, 130, 6) + (np.arange(130) != 7).astype(np.uint32)[:, None])
    fit_scaling(store, "l", "x", ScalingOptions("log1p", quality=SampleQuality.none()))
    apply_scaling(ss.open_store(store.url), "l", "l")
    opened = ss.open_store(store.url)
    values = opened.scaled["l"].read(slice(None))
    for batch in SampleBatches(opened, "l", layer="scaled", split="s", batch_size=32):
        np.testing.assert_array_equal(batch.values, values[batch.sample_row])
        assert batch.values.dtype == np.float32


def test_chosen_samples_are_the_only_ones(store):
    wanted = ["S5", "S699", "S64"]
    stream = SampleBatches(store, "b", samples=wanted, batch_size=8)
    assert sorted(stream.sample_ids[row] for row in sum(rows_of(stream), [])) == sorted(wanted)


def test_repeated_rows_have_no_target(store):
    stream = SampleBatches(
        store, "b", samples=["S1", "S2", "S3"], batch_size=8, lanes=4, tail="pad", tokens=TokenView(top_genes=5)
    )
    repeated = np.concatenate([batch.target[batch.sample_row < 0] for batch in stream])
    assert len(repeated) > 0
    assert (repeated == -100).all()


def test_tensors_devices_and_workers_give_the_same_batches(store):
    options = {"split": "s", "batch_size": 64, "seed": 3, "tokens": TokenView(top_genes=6)}
    expected = list(SampleBatches(store, "b", **options))
    stream = ss.SampleStream(store, "b", **options)
    ways = {
        "itself": stream,
        "device": stream.to_device("cpu"),
        "loader": stream.loader(num_workers=2),
        "pickled": pickle.loads(pickle.dumps(stream)),
    }
    for way, batches in ways.items():
        for found, one in zip(batches, expected, strict=True):
            for name in one.arrays:
                np.testing.assert_array_equal(getattr(found, name).numpy(), getattr(one, name), err_msg=way)
            assert (found.step, found.global_rows) == (one.step, one.global_rows)


def test_an_epoch_goes_on_with_the_generation_it_began_with(tmp_path):
    store = make_sample_store(tmp_path, random_counts(1, 200, 5) + 1)
    stream = SampleBatches(store, "b", batch_size=16, seed=2)
    expected = [batch.values.copy() for batch in stream]
    batches = iter(stream)
    found = [next(batches).values.copy()]
    again = ss.open_store(store.url)
    fit_edges(again, "e", "x", FitOptions(n_bins=9, quality=SampleQuality.none()))
    apply_edges(ss.open_store(store.url), "b", "e", ApplyOptions())
    assert ss.open_store(store.url).bins["b"].generation != store.bins["b"].generation
    found += [batch.values for batch in batches]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))
    fresh = SampleBatches(ss.open_store(store.url), "b", batch_size=16, seed=2)
    with pytest.raises(StateError, match="matrix"):
        fresh.load_state_dict(stream.state_dict())


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"split": "s"}, "sample_split"),
        ({"genes": ["G1", "G0"]}, "genes_digest"),
        ({"samples": ["S1", "S9"]}, "samples_digest"),
        ({"tokens": TokenView("masked_level", top_genes=7)}, "tokens.objective"),
        ({"seed": 1}, "seed"),
    ],
)
def test_a_state_of_another_stream_is_refused_by_field(store, changed, field):
    state = SampleBatches(store, "b", batch_size=16).state_dict()
    with pytest.raises(StateError, match=field.replace(".", r"\.")):
        SampleBatches(store, "b", **{"batch_size": 16, **changed}).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"layer": "logs"}, ConfigError, "layer must be one of bins, counts, scaled, got 'logs'"),
        ({"split": "s", "subset": "excluded"}, ConfigError, "subset must be one of train, val, test"),
        ({"genes": ["G1", "G99"]}, ConfigError, "has no gene 'G99'.*G9"),
        ({"genes": ["G1", "G1"]}, ConfigError, "gene 'G1' is asked for twice"),
        ({"genes": []}, ConfigError, "no gene is asked for"),
        ({"samples": ["S1", "T2"]}, ConfigError, "has no sample 'T2'"),
        ({"samples": []}, SplitError, "no sample is left of 700"),
        ({"batch_size": 12, "lanes": 5}, PlanError, "batch_size 12 is not a multiple of lanes 5.*samples"),
        ({"gene_tokens": {"G0": 3}, "tokens": TokenView()}, ConfigError, "no token for 'G1'"),
        ({"gene_tokens": dict.fromkeys([f"G{i}" for i in range(N_GENES)], 3), "tokens": TokenView()}, ConfigError,
         "no two genes"),
        ({"reuse_buffers": -1}, ConfigError, "reuse_buffers"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_to_do(store, options, error, says):
    with pytest.raises(error, match=says):
        SampleBatches(store, "b", **{"batch_size": 16, **options})


def test_tokens_are_made_of_bins_only(store):
    with pytest.raises(ConfigError, match="normalize apply"):
        SampleBatches(store, "x", layer="counts", tokens=TokenView())


def test_a_split_of_other_counts_is_refused(tmp_path):
    store = make_sample_store(tmp_path, random_counts(2, 80, 4) + 1)
    from splicestore.ingest.expression import ingest_expression
    from tests.unit.stream.sample_store import write_tsv

    path = write_tsv(tmp_path / "y.tsv", random_counts(5, 80, 4), [f"S{i}" for i in range(80)], list("abcd"))
    ingest_expression(store.root, "y", [str(path)])
    split_samples(ss.open_store(store.url), "other", "y", SampleSplitOptions(by="sample"))
    with pytest.raises(ConfigError, match="split other is of expression y"):
        SampleBatches(ss.open_store(store.url), "b", split="other", batch_size=16)


@pytest.mark.parametrize("options", [{"objective": "gpt"}, {"top_genes": 0}, {"n_levels": 0}, {"mask_share": 0.0}])
def test_views_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        TokenView(**options)


def test_what_is_read_is_counted_in_samples(store):
    stream = SampleBatches(store, "b", batch_size=64)
    rows = rows_of(stream)
    found = stream.statistics()
    assert (found["samples"], found["planned_samples"], found["batches"]) == (N_SAMPLES, N_SAMPLES, len(rows))
    assert found["bytes"] == N_SAMPLES * N_GENES * 2
    assert "700 samples of 23 genes" in repr(stream)
