"""Training and evaluation on the real stream, over a store in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from splicestore.errors import StateError
from splicestore.models.card import load_model
from splicestore.stream import WindowStream
from splicestore.train import MotifBaseline, TrainSettings, evaluate, train
from tests.unit.stream.memory_store import grid_split, make_store, random_genome

SETTINGS = TrainSettings(
    steps=20,
    warmup_steps=2,
    checkpoint_every=6,
    batch_size=8,
    model={"options": {"channels": 4, "dilations": [1], "kernel_size": 3}},
)


@pytest.fixture(scope="module")
def store():
    rng = np.random.default_rng(1)
    genomes = [
        random_genome(rng, "hen", [900, 400], n_sites=60),
        random_genome(rng, "cow", [700], n_sites=40, conditions=("liver", "heart")),
    ]
    return make_store(genomes, grid_split(genomes, 32, 12, rng, subset=None))


def stream(store, subset="train", **options):
    return WindowStream(
        store, split="run1", subset=subset, **{"batch_size": 8, "lanes": 4, "context_size": 10, **options}
    )


def test_a_resumed_run_over_the_stream_ends_with_the_same_bits(store, tmp_path):
    whole = train(stream(store), SETTINGS, str(tmp_path / "whole"), device="cpu")
    assert len(stream(store)) < 11  # the stops below lie in different epochs
    for stop in (4, len(stream(store)), 15):
        train(stream(store), SETTINGS, str(tmp_path / "parts"), device="cpu", stop_at_step=stop)
    parts = train(stream(store), SETTINGS, str(tmp_path / "parts"), device="cpu")
    for name, value in whole.module.state_dict().items():
        assert torch.equal(parts.module.state_dict()[name], value), name


def test_a_checkpoint_of_another_stream_is_refused(store, tmp_path):
    train(stream(store), SETTINGS, str(tmp_path), device="cpu", stop_at_step=3)
    with pytest.raises(StateError, match=r"(?s)seed.*state:  0.*stream: 5"):
        train(stream(store, seed=5), SETTINGS, str(tmp_path), device="cpu")


def test_evaluation_counts_every_held_out_site(store, tmp_path):
    train(stream(store), SETTINGS, str(tmp_path), device="cpu")
    baseline = MotifBaseline.from_batches(stream(store))
    found = evaluate(
        load_model(str(tmp_path / "card.json")), stream(store, "val", shuffle=False), baseline=baseline, min_reads=5
    )
    padded = evaluate(load_model(str(tmp_path / "card.json")), stream(store, "val", tail="pad", seed=9), min_reads=5)
    labels = np.concatenate([b.label.numpy().ravel() for b in stream(store, "val")])
    for scorer in ("model", "baseline"):
        sites = found.scorers[scorer]["sites"]["all"]
        assert sites["acceptor"]["n_true"] == (labels == 1).sum() > 0
        assert sites["donor"]["n_true"] == (labels == 2).sum() > 0
        assert sites["donor"]["n_positions"] == (labels != 255).sum()
    # the order of the windows and rows that only pad a batch change nothing
    assert padded.n_windows == found.n_windows
    for task, values in padded.scorers["model"]["sites"]["all"].items():
        expected = found.scorers["model"]["sites"]["all"][task]
        assert values["n_positions"] == expected["n_positions"]
        assert values["average_precision"] == pytest.approx(expected["average_precision"], rel=1e-3)
    usage = found.scorers["model"]["usage"]
    assert set(usage["conditions"]) == {"brain_1", "liver", "heart"}
    measured = 0
    for batch in stream(store, "val"):
        measured += int((batch.alpha + batch.beta >= 5).sum())
    assert usage["pooled"]["n"] == measured > 0
