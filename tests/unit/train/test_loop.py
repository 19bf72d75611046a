"""Training: resumed equals uninterrupted, ranks equal one process, signal is learned and shuffling removes it."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from splicestore.errors import ConfigError, ModelError, StateError, TransferError
from splicestore.models.card import load_model
from splicestore.storage import StoreRoot
from splicestore.train import TrainSettings, evaluate, train
from splicestore.train.sites import roll_labels
from tests.unit.train.small_batches import WINDOW, PlantedStream, planted_batch, random_batch

SMALL = {"channels": 6, "dilations": [1, 2], "kernel_size": 5}


def quick(**changes) -> TrainSettings:
    values = {"steps": 20, "warmup_steps": 4, "model": {"options": SMALL}, "checkpoint_every": 7, "log_every": 5}
    return TrainSettings(**{**values, **changes})


def weights(result) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in result.module.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return weights(train(PlantedStream(), quick(), str(tmp_path_factory.mktemp("whole")), device="cpu"))


@pytest.mark.parametrize("stops", [(11,), (8,), (1, 16), (7, 19)], ids=str)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, uninterrupted, stops):
    for stop in stops:  # 8 and 16 are the last batches of an epoch
        torch.rand(3)  # whatever ran before must not matter
        stopped = train(PlantedStream(), quick(), str(tmp_path), device="cpu", stop_at_step=stop)
        assert (stopped.step, stopped.finished, stopped.card) == (stop, False, None)
        assert not (tmp_path / "card.json").exists()
    result = train(PlantedStream(), quick(), str(tmp_path), device="cpu")
    assert (result.step, result.epoch, result.finished) == (20, 2, True)
    assert_same_bits(weights(result), uninterrupted)


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, uninterrupted):
    class Dying(PlantedStream):
        def __iter__(self):
            for batch in super().__iter__():
                if self.epoch == 1 and self.step == 4:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        train(Dying(), quick(), str(tmp_path), device="cpu")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 7
    assert_same_bits(weights(train(PlantedStream(), quick(), str(tmp_path), device="cpu")), uninterrupted)


class Noisy(nn.Module):
    """A network that draws random numbers."""

    def __init__(self, n_conditions: int, context_size: int) -> None:
        super().__init__()
        self.context = context_size
        self.layer = nn.Conv1d(4, 3 + n_conditions, 9, padding=4)

    def forward(self, x):
        out = self.layer(nn.functional.dropout(x, 0.3, self.training))[:, :, self.context : x.shape[2] - self.context]
        return out[:, :3], out[:, 3:]


def test_random_state_and_a_foreign_network_survive_a_checkpoint(tmp_path):
    settings_ = quick(model={"factory": f"{__name__}:Noisy"}, steps=12)
    whole = train(PlantedStream(), settings_, str(tmp_path / "whole"), device="cpu")
    train(PlantedStream(), settings_, str(tmp_path / "parts"), device="cpu", stop_at_step=5)
    torch.rand(7)
    parts = train(PlantedStream(), settings_, str(tmp_path / "parts"), device="cpu")
    assert_same_bits(weights(parts), weights(whole))
    assert whole.card.factory.endswith(":Noisy")


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train(PlantedStream(), quick(steps=6), str(tmp_path), device="cpu")
    again = train(PlantedStream(), quick(steps=6), str(tmp_path), device="cpu")
    assert_same_bits(weights(again), weights(first))
    assert again.finished
    assert again.card == first.card
    assert again.history == first.history


def test_epochs_are_passes_over_the_stream(tmp_path):
    result = train(PlantedStream(n_batches=3), quick(steps=None, epochs=2), str(tmp_path), device="cpu")
    assert (result.step, result.epoch) == (6, 1)


def test_signal_is_learned_and_shuffled_labels_take_it_away(tmp_path):
    longer = quick(steps=80, learning_rate=2e-2, usage_weight=4.0, model={"options": {**SMALL, "channels": 12}})
    held_out = [planted_batch(10**6 + i) for i in range(6)]
    found = {}
    for name, shuffled in (("plain", False), ("shuffled", True)):
        settings_ = longer.model_copy(update={"shuffled_labels": shuffled})
        result = train(PlantedStream(), settings_, str(tmp_path / name), device="cpu")
        found[name, "drop"] = 1 - result.history[-1]["site_loss"] / result.history[0]["site_loss"]
        found[name] = evaluate(load_model(f"{tmp_path / name}/card.json"), held_out).scorers["model"]
    plain, shuffled = (found[n]["sites"]["all"]["donor"]["average_precision"] for n in ("plain", "shuffled"))
    assert found["plain", "drop"] > 0.5
    assert found["shuffled", "drop"] < 0.1
    assert plain > 0.8
    assert shuffled < 0.1  # prevalence is 1/60
    assert found["plain"]["usage"]["pooled"]["pearson"] > 0.5


def test_the_card_says_how_the_model_was_made(tmp_path):
    settings_ = quick(steps=3, name="tiny")
    result = train(PlantedStream(), settings_, str(tmp_path), device="cpu", provenance={"split_digest": "d"})
    loaded = load_model(str(tmp_path / "card.json"), name="tiny", digest=result.card.digest)
    assert loaded.card.tasks == ("acceptor", "donor", "sse:brain")
    assert loaded.card.provenance["split_digest"] == "d"
    assert TrainSettings(**loaded.card.provenance["settings"]) == settings_
    assert_same_bits(dict(loaded.module.state_dict()), weights(result))
    document = json.loads(json.dumps(result.document(), allow_nan=False))
    assert document["step"] == 3
    assert document["history"][-1]["step"] == 3


def test_the_first_step_starts_at_the_prevalence(tmp_path):
    result = train(PlantedStream(), quick(steps=1, log_every=1), str(tmp_path), device="cpu")
    p = np.array([WINDOW - 2, 1, 1]) / WINDOW
    assert result.history[0]["site_loss"] == pytest.approx(-WINDOW * (p * np.log(p)).sum(), rel=0.1)


def test_history_rows_are_reported_as_they_close(tmp_path):
    rows = []
    result = train(PlantedStream(), quick(), str(tmp_path), device="cpu", on_log=rows.append)
    assert [row["step"] for row in rows] == [5, 7, 10, 14, 15, 20]
    assert rows == list(result.history)
    steps = np.diff([0, *(row["step"] for row in rows)])
    waited = [n * row["waiting_share"] / row["batches_per_second"] for n, row in zip(steps, rows, strict=True)]
    np.testing.assert_allclose(waited, steps / 10)
    assert result.document()["stream"] == {"waiting_seconds": 2.0}
    assert result.rows_per_second > 0
    assert result.seconds > 0


# -- refusals ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_other_settings_is_refused_with_both_sides(tmp_path):
    train(PlantedStream(), quick(), str(tmp_path), device="cpu", stop_at_step=2)
    with pytest.raises(StateError, match=r"(?s)learning_rate: checkpoint 0.002, now 0.1.*another folder"):
        train(PlantedStream(), quick(learning_rate=0.1), str(tmp_path), device="cpu")
    renamed = quick(log_every=1, checkpoint_every=2, name="other")
    assert train(PlantedStream(), renamed, str(tmp_path), device="cpu").finished


def test_a_checkpoint_of_other_conditions_is_refused(tmp_path):
    train(PlantedStream(), quick(), str(tmp_path), device="cpu", stop_at_step=2)
    other = PlantedStream()
    other.condition_names = ("liver",)
    with pytest.raises(StateError, match=r"condition_names: checkpoint \['brain'\], now \['liver'\]"):
        train(other, quick(), str(tmp_path), device="cpu")


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK not really")
    with pytest.raises(ModelError, match=r"checkpoint.pt: not a readable checkpoint"):
        train(PlantedStream(), quick(), str(tmp_path), device="cpu")


def test_a_checkpoint_holds_no_objects(tmp_path):
    class WithNumpy(PlantedStream):
        def state_dict(self):
            return {**super().state_dict(), "extra": np.int64(3), "lanes": (1, [2.5, None])}

    train(WithNumpy(), quick(), str(tmp_path / "a"), device="cpu", stop_at_step=1)
    saved = torch.load(io.BytesIO((tmp_path / "a" / "checkpoint.pt").read_bytes()), weights_only=True)
    assert saved["stream"] == {"seed": 0, "epoch": 0, "step": 1, "extra": 3, "lanes": (1, [2.5, None])}

    class WithObject(PlantedStream):
        def state_dict(self):
            return {"lanes": {1, 2}}

    with pytest.raises(StateError, match=r"stream state.lanes holds a set"):
        train(WithObject(), quick(), str(tmp_path / "b"), device="cpu", stop_at_step=1)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    train(PlantedStream(), quick(), str(tmp_path), device="cpu", stop_at_step=2)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(self, key, data):
        raise TransferError(f"{key}: writing failed, no space left")

    with monkeypatch.context() as patch:
        patch.setattr(StoreRoot, "put", full)
        with pytest.raises(TransferError, match="no space left"):
            train(PlantedStream(), quick(), str(tmp_path), device="cpu")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_loss_that_explodes_is_not_kept(tmp_path):
    class Poisoned(PlantedStream):
        def __iter__(self):
            for batch in super().__iter__():
                if self.step == 6:
                    batch = batch.map_arrays(lambda name, t: t * 1e38 if name in ("alpha", "beta") else t)
                yield batch

    with pytest.raises(ModelError, match=r"up to 7: not finite; train into another folder with a lower learning_rate"):
        train(Poisoned(), quick(max_reads=1e38), str(tmp_path), device="cpu")
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_empty_stream_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="yields no batch"):
        train(PlantedStream(n_batches=0), quick(), str(tmp_path), device="cpu")


def test_a_weight_for_an_unknown_condition_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"names 'brian'.*did you mean brain"):
        train(PlantedStream(), quick(condition_weights={"brian": 2}), str(tmp_path), device="cpu")


class NoUsage(nn.Module):
    def __init__(self, n_conditions: int, context_size: int) -> None:
        super().__init__()
        self.layer = nn.Conv1d(4, 3, 1)

    def forward(self, x):
        return self.layer(x), x[:, :1]


def test_a_network_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"gives site logits \(16, 3, 108\).*expected \(16, 3, 60\)"):
        train(PlantedStream(), quick(model={"factory": f"{__name__}:NoUsage"}), str(tmp_path), device="cpu")


def test_deterministic_mode_is_put_back(tmp_path):
    train(PlantedStream(), quick(steps=2, deterministic=True), str(tmp_path), device="cpu")
    assert not torch.are_deterministic_algorithms_enabled()


# -- shuffled labels ---------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(seed=st.integers(0, 100), window=st.integers(2, 40))
def test_rolled_labels_keep_prevalence_and_move_usage_with_its_site(seed, window):
    batch = random_batch(seed, window=window, site_rate=0.2)
    rolled = roll_labels(batch, seed)
    again = roll_labels(batch, seed)
    for b in range(4):
        offsets = [k for k in range(1, window) if torch.equal(batch.label[b].roll(k), rolled.label[b])]
        assert offsets
        assert torch.equal(rolled.label[b], again.label[b])
    keys = list(zip(rolled.usage_row_window.tolist(), rolled.usage_row_position.tolist(), strict=True))
    assert keys == sorted(keys)
    labels = rolled.label[rolled.usage_row_window.long(), rolled.usage_row_position.long()]
    assert ((labels == 1) | (labels == 2)).all()
    for b in range(4):
        before, after = (sorted(map(str, one.alpha[one.usage_row_window == b].tolist())) for one in (batch, rolled))
        assert before == after
    assert torch.equal(rolled.sequence, batch.sequence)


# -- ranks -------------------------------------------------------------------------------------------------------


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    stream = PlantedStream(rows=((0, 5), (5, 16))[rank])
    result = train(stream, quick(steps=6), f"{folder}/run", device="cpu")
    if rank == 1:
        torch.save(result.module.state_dict(), f"{folder}/rank1.pt")
        assert result.card is None
    torch.distributed.destroy_process_group()


def test_two_ranks_train_what_one_process_trains(tmp_path):
    alone = train(PlantedStream(), quick(steps=6), str(tmp_path / "alone"), device="cpu")
    torch.multiprocessing.start_processes(_rank, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    first = load_model(str(tmp_path / "run" / "card.json")).module.state_dict()
    second = torch.load(tmp_path / "rank1.pt", weights_only=True)
    assert_same_bits(dict(first), dict(second))
    for name, value in alone.module.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4)
