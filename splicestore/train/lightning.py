"""A split's windows as a ``LightningDataModule``; needs ``lightning``, which nothing else here does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from splicestore.errors import ConfigError, StateError
from splicestore.stream.batch import Batch
from splicestore.stream.device import DeviceBatches
from splicestore.stream.protocols import StoreSource
from splicestore.train.loaders import SplitLoaders

try:
    from lightning import LightningDataModule
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "SplitDataModule needs lightning: pip install 'splicestore[lightning]'", name="lightning"
    ) from error


class EpochBatches:
    """Batches whose place the module keeps; the trainer resumes within an epoch only where a loader has a state too."""

    def __init__(self, batches: DeviceBatches[Batch[Tensor]]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch[Tensor]]:
        return iter(self._batches)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the module's state says where the stream stands."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Change nothing: a state from the end of an epoch must not take the stream back to it."""


class SplitDataModule(SplitLoaders, LightningDataModule):
    """Training, validation and test windows of a split for a Lightning trainer; the options are ``SplitLoaders``'.

    Batches are on the trainer's device, copied while the step before runs. A checkpoint of the trainer holds where the
    training stream stands, and fitting from it goes on at the next batch, in the middle of an epoch too.

    Lightning averages the gradients of its ranks, where ``train`` sums them: under DDP multiply a loss that is divided by
    ``batch.global_rows`` by the world size.

    Examples
    --------
    ::

        data = SplitDataModule(store, "run1", batch_size=256, seed=0, geneless=0.1)
        Trainer(max_epochs=10, reload_dataloaders_every_n_epochs=1).fit(module, datamodule=data)
    """

    def __init__(self, store: StoreSource, split: str, **options: Any) -> None:
        LightningDataModule.__init__(self)
        SplitLoaders.__init__(self, store, split, **options)

    def setup(self, stage: str) -> None:
        """Take the trainer's device.

        Raises
        ------
        ConfigError
            If the trainer would not ask for the loader of every epoch.
        """
        if self.trainer is None:
            return
        if stage == "fit" and self.trainer.reload_dataloaders_every_n_epochs != 1:
            raise ConfigError(
                "give Trainer(reload_dataloaders_every_n_epochs=1): epochs differ in their order and their number of batches, and "
                f"with {self.trainer.reload_dataloaders_every_n_epochs} the trainer would repeat the first or cut the others short"
            )
        self.device = self.trainer.strategy.root_device

    def train_dataloader(self) -> EpochBatches:  # type: ignore[override]
        """Training batches of the trainer's epoch, from where the stream stands in it.

        Raises
        ------
        StateError
            If the trainer goes on from a checkpoint from which it would skip batches.
        """
        if self.trainer is not None:
            self._check_place(self.trainer.fit_loop)
            self.stream("train").set_epoch(self.trainer.current_epoch)
        return EpochBatches(super().train_dataloader())

    def _check_place(self, loop: Any) -> None:
        """Lightning sees an epoch's end in its last batch only where the next epoch is no longer."""
        stream = self.stream("train")
        epoch, is_at_end = stream.epoch, stream.state_dict()["step"] == len(stream)
        if loop.restarting and is_at_end and loop.epoch_progress.current.processed == epoch:
            raise StateError(
                f"the checkpoint was written after the last batch of epoch {epoch}, before the epoch had ended, and the trainer "
                f"would skip as many batches of epoch {epoch + 1}: fit from one of another step, or of the end of the epoch"
            )

    def teardown(self, stage: str) -> None:
        """Let go of the blocks in memory."""
        self.close()
