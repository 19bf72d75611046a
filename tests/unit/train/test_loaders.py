"""Loaders of a split's subsets, without lightning and with its trainer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from splicestore.errors import ConfigError, StateError
from splicestore.models.splice import SpliceNet
from splicestore.stream import WindowStream, one_hot
from splicestore.train.loaders import SplitLoaders
from splicestore.train.losses import real_rows, site_loss
from tests.unit.stream.memory_store import table_store

REPOSITORY = Path(__file__).resolve().parents[3]
OPTIONS = {
    "batch_size": 8,
    "seed": 4,
    "lanes": 4,
    "context_size": 2,
    "jitter": 2,
    "conditions": ["liver"],
    "geneless": 0.5,
}
LENGTH = 7
"""Batches of epoch 0."""


@pytest.fixture(scope="module")
def store():
    made = table_store([[30, 20, 7], [9] * 8])
    split = made.splits["run1"]
    split.window_subset = np.random.default_rng(1).choice([0, 0, 0, 1, 2], len(split.window_start)).astype(np.uint8)
    return made


def ids(batches):
    return [batch.window_id.tolist() for batch in batches]


def windows_of(store, subset):
    return np.flatnonzero(store.splits["run1"].window_subset == subset).tolist()


def test_each_loader_has_the_windows_of_its_subset(store):
    loaders = SplitLoaders(store, "run1", **OPTIONS)
    training = WindowStream(store, split="run1", **OPTIONS)
    assert ids(loaders.train_dataloader()) == ids(training)
    assert len(loaders.train_dataloader()) == len(training)
    for subset, loader in ((1, loaders.val_dataloader()), (2, loaders.test_dataloader())):
        batches = list(loader)
        # Every held-out window once and in order, whatever training leaves out; batches of the same shape.
        assert sum(ids(batches), []) == windows_of(store, subset)
        assert {(b.sequence.shape[1], b.alpha.shape[1]) for b in batches} == {(12, 1)}
    chosen = SplitLoaders(store, "run1", **OPTIONS, evaluation={"batch_size": 4, "genomes": ["genome1"]})
    batches = list(chosen.val_dataloader())
    assert {len(b) for b in batches[:-1]} == {4}
    assert {b.genome_names for b in batches} == {("genome1",)}


def test_the_state_restores_the_rest_of_the_epoch(store):
    whole = ids(SplitLoaders(store, "run1", **OPTIONS).train_dataloader())
    stopped = SplitLoaders(store, "run1", **OPTIONS)
    assert stopped.state_dict() == {}
    iteration = iter(stopped.train_dataloader())
    for _ in range(3):
        next(iteration)
    list(stopped.val_dataloader())
    resumed = SplitLoaders(store, "run1", **OPTIONS)
    resumed.load_state_dict(stopped.state_dict())
    assert ids(resumed.train_dataloader()) == whole[3:]
    stopped.close()
    other = SplitLoaders(store, "run1", **{**OPTIONS, "seed": 5})
    with pytest.raises(StateError, match=r"(?s)seed.*state:  4.*stream: 5"):
        other.load_state_dict(stopped.state_dict())


def test_without_lightning_the_module_says_how_to_get_it():
    script = """
import sys
sys.modules["lightning"] = None
import splicestore.train
try:
    splicestore.train.SplitDataModule
except ModuleNotFoundError as error:
    print(error, error.name)
"""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout == "SplitDataModule needs lightning: pip install 'splicestore[lightning]' lightning\n", (
        done.stderr
    )


# -- with its trainer --------------------------------------------------------------------------------------------

trainer_warnings = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning")


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning", reason="lightning is not installed: pip install 'splicestore[lightning]'")


@pytest.fixture
def learner(lightning):
    class Learner(lightning.LightningModule):
        """A network that notes the windows it was given."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network = SpliceNet(n_conditions=1, context_size=2, channels=4, dilations=(1,), kernel_size=3)
            self.seen, self.held_out = [], []

        def training_step(self, batch, step):
            self.seen.append((self.current_epoch, batch.step, batch.window_id.tolist()))
            logits, _ = self.network(one_hot(batch))
            return site_loss(logits, batch.label, real_rows(batch), batch.global_rows)

        def validation_step(self, batch, step):
            self.held_out += batch.window_id.tolist()

        def test_step(self, batch, step):
            self.held_out += batch.window_id.tolist()

        def configure_optimizers(self):
            return torch.optim.Adam(self.network.parameters(), lr=1e-2)

    return Learner


@pytest.fixture
def trainer(lightning, tmp_path):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }

    def make(**options):
        options = {"accelerator": "cpu", "reload_dataloaders_every_n_epochs": 1, **quiet, **options}
        return lightning.Trainer(default_root_dir=tmp_path, **options)

    return make


@pytest.fixture
def module(lightning, store):
    from splicestore.train import SplitDataModule

    return lambda **options: SplitDataModule(store, "run1", **{**OPTIONS, **options})


def expected_epochs(store, n_epochs):
    stream = WindowStream(store, split="run1", **OPTIONS)
    expected = []
    for epoch in range(n_epochs):
        stream.set_epoch(epoch)
        expected += [(epoch, batch.step, batch.window_id.tolist()) for batch in stream]
    return expected


@trainer_warnings
def test_a_trainer_gets_every_batch_of_every_epoch(store, learner, trainer, module):
    n_steps = [sum(epoch == e for e, _, _ in expected_epochs(store, 6)) for epoch in range(6)]
    assert max(n_steps) > n_steps[0] == LENGTH  # what a trainer that asks for its loader once would cut off
    network = learner()
    trainer(max_epochs=6, num_sanity_val_steps=0).fit(network, datamodule=module())
    assert network.seen == expected_epochs(store, 6)
    assert network.held_out == windows_of(store, 1) * 6
    network.held_out.clear()
    trainer().test(network, datamodule=module(), verbose=False)
    assert network.held_out == windows_of(store, 2)


TWO_EPOCHS = {"max_epochs": 2, "limit_val_batches": 0}


class Killed(Exception):
    """The machine went away."""


@pytest.fixture
def dying(lightning, tmp_path):
    """A callback that writes a checkpoint after a step and then ends the run."""

    def make(hook, stop):
        def save(self, trainer, *_):
            if trainer.global_step == stop:
                trainer.save_checkpoint(tmp_path / "last.ckpt")
                raise Killed

        return type("Dying", (lightning.Callback,), {hook: save})()

    return make


@trainer_warnings
@pytest.mark.parametrize(
    ("hook", "stop"),
    [
        *(("on_train_batch_end", stop) for stop in (1, LENGTH - 1, LENGTH + 1, LENGTH + 4)),
        ("on_train_epoch_end", LENGTH),
    ],
)
def test_fitting_from_a_checkpoint_goes_on_at_the_next_batch(
    store, learner, trainer, module, tmp_path, dying, hook, stop
):
    whole, first, second = learner(), learner(), learner()
    trainer(**TWO_EPOCHS).fit(whole, datamodule=module())
    with pytest.raises(Killed):
        trainer(**TWO_EPOCHS, callbacks=[dying(hook, stop)]).fit(first, datamodule=module())
    trainer(**TWO_EPOCHS).fit(second, datamodule=module(), ckpt_path=tmp_path / "last.ckpt")
    assert first.seen == expected_epochs(store, 2)[:stop]
    assert first.seen + second.seen == whole.seen == expected_epochs(store, 2)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


@trainer_warnings
def test_a_checkpoint_from_which_the_trainer_would_skip_batches_is_refused(learner, trainer, module, tmp_path, dying):
    with pytest.raises(Killed):
        trainer(**TWO_EPOCHS, callbacks=[dying("on_train_batch_end", LENGTH)]).fit(learner(), datamodule=module())
    with pytest.raises(StateError, match=r"after the last batch of epoch 0.*skip as many batches of epoch 1"):
        trainer(**TWO_EPOCHS).fit(learner(), datamodule=module(), ckpt_path=tmp_path / "last.ckpt")


@trainer_warnings
def test_a_trainer_that_asks_for_its_loader_once_is_refused(learner, trainer, module):
    once = trainer(max_epochs=2, reload_dataloaders_every_n_epochs=0)
    with pytest.raises(ConfigError, match=r"give Trainer\(reload_dataloaders_every_n_epochs=1\).*with 0 the trainer"):
        once.fit(learner(), datamodule=module())
