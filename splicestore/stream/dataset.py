"""Streams as torch datasets, and their loader over worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from splicestore.errors import PlanError, StoreError
from splicestore.stream.batch import Batch, RowBatch, join_batches
from splicestore.stream.device import CountedBatches, DeviceBatches, Tensors, device_of, each_batch
from splicestore.stream.sample_batch import SampleBatch, TokenBatch
from splicestore.stream.samples import SampleBatches
from splicestore.stream.source import BatchSource
from splicestore.stream.windows import WindowBatches


class TensorStream(BatchSource, IterableDataset, Generic[Tensors]):
    """What makes a stream a torch dataset of whole batches: tensors, devices, worker processes, ranks.

    Yields batches of torch tensors; ``numpy_batches()`` yields the same as numpy arrays. Rank, world size and the
    default tail come from the torch process group, if there is one.
    """

    _pins = False
    """Whether buffers that are cut into again and again are page-locked."""

    def __iter__(self) -> Iterator[Tensors]:
        yield from self._hand_out(self._tensors_from_here())

    def to_device(self, device: Any, ahead: int = 2) -> DeviceBatches[Tensors]:
        """Iterate over the batches on a device, the next ones being cut and copied while this one is used.

        ``state_dict`` counts the batches that were handed out, not those that are ready; an iteration may end early. On a
        CPU this is the stream itself, without a thread.

        Parameters
        ----------
        device
            ``cuda``, ``cuda:1``, ``cpu`` ... or a ``torch.device``.
        ahead
            Batches that wait on the device, at most.

        Raises
        ------
        ConfigError
            If ``ahead`` is less than 1.
        """
        target = device_of(device)
        self._pins = target.type == "cuda"
        return DeviceBatches(
            self._tensors_from_here, self._hand_out, self.__len__, target, ahead, n_reused=self._reuse_buffers
        )

    def loader(
        self,
        num_workers: int = 0,
        *,
        prefetch_factor: int = 2,
        pin_memory: bool = False,
        multiprocessing_context: str = "spawn",
    ) -> StreamLoader[Tensors]:
        """Iterate over whole batches that worker processes cut; the same batches as without workers.

        Parameters
        ----------
        num_workers
            0: in this process, where tracebacks stay readable. Each worker takes a share of the rank's lanes, so there
            may be at most as many.
        prefetch_factor
            Batches that a worker prepares ahead.
        pin_memory
            Copy batches to page-locked memory, where there is a GPU; ``to_device`` does so by itself.
        multiprocessing_context
            ``spawn`` or ``forkserver``; ``fork`` only in a process that has not read yet.

        Raises
        ------
        PlanError
            For more workers than the rank has lanes.
        """
        return StreamLoader(self, num_workers, prefetch_factor, pin_memory, multiprocessing_context)

    def _tensors_from_here(self) -> CountedBatches[Tensors]:
        if get_worker_info() is not None:
            # A worker's batches wait in a queue before they are copied out of its memory.
            self._reuse_buffers = 0
        return each_batch(self._cut_from_here(), _tensors)

    def _allocate(self, n_bytes: int) -> NDArray[np.uint8]:
        return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=self._pins).numpy()

    def _process_group(self) -> tuple[int, int]:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _part(self) -> tuple[int, int]:
        worker = get_worker_info()
        return (0, 1) if worker is None else (worker.id, worker.num_workers)


class WindowStream(TensorStream[Batch[torch.Tensor]], WindowBatches):
    """Windows of one subset of a split as a torch dataset of whole batches; the options are ``WindowBatches``'.

    Yields ``Batch`` with torch tensors; ``numpy_batches()`` yields the same as numpy arrays. Rank, world size and the
    default tail come from the torch process group, if there is one.

    Iterate it directly, over ``stream.to_device("cuda")`` or over ``stream.loader(num_workers=...)``. A plain
    ``DataLoader(stream, batch_size=None, num_workers=w)`` works too, and torchdata's ``StatefulDataLoader`` restores it in
    the middle of an epoch; but from w = 2 on their items are parts of batches (each worker reads its own lanes; the w items
    of one ``step`` make the batch). Only the loader joins them.

    Examples
    --------
    ::

        stream = WindowStream(store, split="run1", batch_size=256, seed=0)
        for epoch in range(10):
            stream.set_epoch(epoch)
            for batch in stream:
                x = one_hot(batch, device="cuda")
    """


class SampleStream(TensorStream[SampleBatch[torch.Tensor] | TokenBatch[torch.Tensor]], SampleBatches):
    """Samples of a matrix as a torch dataset of whole batches; the options are ``SampleBatches``'.

    Yields ``SampleBatch``, or ``TokenBatch`` where ``tokens`` are asked for. Everything else is as in ``WindowStream``: order,
    lanes, ranks, state, devices, worker processes.

    Examples
    --------
    ::

        stream = SampleStream(store, "training", split="studies", tokens=TokenView("next_gene", top_genes=512))
        for batch in stream.to_device("cuda"):
            loss = network(batch.input_gene, batch.input_level, batch.target)
    """


def _tensors(batch: RowBatch[NDArray[Any]]) -> Any:
    return batch.map_arrays(lambda _, array: torch.from_numpy(array))


class StreamLoader(Generic[Tensors]):
    """Whole batches of a stream, cut by worker processes; the stream's state counts what was handed out here.

    It has the state itself too, for what keeps the states of loaders.
    """

    def __init__(
        self,
        stream: TensorStream[Tensors],
        num_workers: int,
        prefetch_factor: int,
        pin_memory: bool,
        multiprocessing_context: str,
    ) -> None:
        own_lanes = stream.plan.options.lanes // stream.world_size
        if stream.plan.share == "lanes" and num_workers > own_lanes:
            raise PlanError(
                f"{num_workers} workers share {own_lanes} lanes of this rank; give num_workers of at most {own_lanes}"
            )
        self._stream, self._num_workers = stream, num_workers
        self._pins = pin_memory and torch.cuda.is_available()
        self._options: dict[str, Any] = {
            "prefetch_factor": prefetch_factor,
            "multiprocessing_context": multiprocessing_context,
        }

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[Tensors]:
        yield from self._stream._hand_out(self._from_here(self._pins))

    def to_device(self, device: Any, ahead: int = 2) -> DeviceBatches[Tensors]:
        """Iterate over the batches on a device, as the stream's ``to_device``; workers cut, a thread copies."""
        if not self._num_workers:
            return self._stream.to_device(device, ahead)
        return DeviceBatches(self._from_here, self._stream._hand_out, self.__len__, device_of(device), ahead)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: after the batch that was handed out last."""
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the stream stand where a state says."""
        self._stream.load_state_dict(state)

    def _from_here(self, pins: bool = False) -> CountedBatches[Tensors]:
        if not self._num_workers:
            batches = self._stream._tensors_from_here()
            return each_batch(batches, lambda batch: batch.pin_memory()) if pins else batches
        items = iter(
            DataLoader(self._stream, batch_size=None, num_workers=self._num_workers, pin_memory=pins, **self._options)
        )
        # The workers hold copies of the stream made just now, so they begin where this one stands.
        return self._joined(items, self._stream._begin(), len(self._stream))

    def _joined(self, items: Iterator[Tensors], first: int, n_steps: int) -> CountedBatches[Tensors]:
        for _ in range(first, n_steps):
            # torch hands out the workers' items in turn, and every worker has one item a step, perhaps without rows.
            try:
                batch = join_batches([next(items) for _ in range(self._num_workers)], torch.cat)
            except (ConnectionError, EOFError) as error:
                raise StoreError(
                    f"a worker of the loader died ({type(error).__name__}), often of too little memory; the stream stands where it "
                    "handed out its last batch: iterate again, or resume from its state"
                ) from error
            yield batch, batch.n_present
