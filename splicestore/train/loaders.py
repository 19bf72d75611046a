"""Training, validation and test windows of one split, as loops that ask for their loaders want them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from splicestore.stream import WindowStream
from splicestore.stream.batch import Batch
from splicestore.stream.device import DeviceBatches
from splicestore.stream.protocols import StoreSource

BATCH_OPTIONS = ("context_size", "conditions", "min_reads", "shuffle_memory", "reuse_buffers")
"""Options that shape batches, and so hold for all subsets; the others choose windows."""


class SplitLoaders:
    """Batches of the subsets of a split, on a device; each stream is made when its loader is first asked for.

    Parameters
    ----------
    store
        From ``open_store``.
    split
        Name of a split.
    batch_size
        Windows of a global batch, over all ranks and for all subsets.
    num_workers
        Processes that cut; 0: in this one.
    ahead
        Batches that wait on the device.
    evaluation
        ``WindowStream`` options of ``val`` and ``test``. Their windows come unshuffled, and batches are shaped as in training
        (context, conditions, reads); what chooses windows in training does not hold for them.
    options
        ``WindowStream`` options of ``train``.
    """

    device = torch.device("cpu")
    """Where batches go."""

    def __init__(
        self,
        store: StoreSource,
        split: str,
        *,
        batch_size: int = 256,
        num_workers: int = 0,
        ahead: int = 2,
        evaluation: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._store, self._split = store, split
        self._num_workers, self._ahead = num_workers, ahead
        shaped = {name: options[name] for name in BATCH_OPTIONS if name in options}
        held_out = {"batch_size": batch_size, "shuffle": False, **shaped, **(evaluation or {})}
        self._options = {"train": {"batch_size": batch_size, **options}, "val": held_out, "test": held_out}
        self._streams: dict[str, WindowStream] = {}

    def stream(self, subset: str) -> WindowStream:
        """Stream of ``train``, ``val`` or ``test``; under a process group this rank's."""
        if subset not in self._streams:
            self._streams[subset] = WindowStream(self._store, split=self._split, subset=subset, **self._options[subset])
        return self._streams[subset]

    def train_dataloader(self) -> DeviceBatches[Batch[torch.Tensor]]:
        """Training batches from where the stream stands to the end of the epoch."""
        return self._batches("train")

    def val_dataloader(self) -> DeviceBatches[Batch[torch.Tensor]]:
        """Validation batches, the same in every epoch."""
        return self._batches("val")

    def test_dataloader(self) -> DeviceBatches[Batch[torch.Tensor]]:
        """Test batches."""
        return self._batches("test")

    def state_dict(self) -> dict[str, Any]:
        """Where the training stream stands; nothing, if it was not used."""
        return {name: stream.state_dict() for name, stream in self._streams.items() if name == "train"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the training stream stand where a state says.

        Raises
        ------
        StateError
            If the state is of another stream.
        """
        for name, state in state_dict.items():
            self.stream(name).load_state_dict(state)

    def close(self) -> None:
        """Let go of the blocks in memory; loaders asked for later read anew."""
        for stream in self._streams.values():
            stream.close()

    def _batches(self, subset: str) -> DeviceBatches[Batch[torch.Tensor]]:
        return self.stream(subset).loader(self._num_workers).to_device(self.device, self._ahead)
