"""The stream of windows as a torch dataset, and its loader over worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from splicestore.errors import PlanError
from splicestore.stream.batch import Batch, join_batches
from splicestore.stream.source import WindowBatches

TensorBatch = Batch[torch.Tensor]


class WindowStream(WindowBatches, IterableDataset):
    """Windows of one subset of a split as a torch dataset of whole batches; the options are ``WindowBatches``'.

    Yields ``Batch`` with torch tensors; ``numpy_batches()`` yields the same as numpy arrays. Rank, world size and the
    default tail come from the torch process group, if there is one.

    Iterate it directly, or over ``stream.loader(num_workers=...)``. A plain ``DataLoader(stream, batch_size=None,
    num_workers=w)`` works too, but from w = 2 on its items are parts of batches (each worker reads its own lanes), and
    only the loader counts their steps.

    Examples
    --------
    ::

        stream = WindowStream(store, split="run1", batch_size=256, seed=0)
        for epoch in range(10):
            stream.set_epoch(epoch)
            for batch in stream:
                x = one_hot(batch, device="cuda")
    """

    def __iter__(self) -> Iterator[TensorBatch]:
        for batch in self.numpy_batches():
            yield batch.map_arrays(lambda _, array: torch.from_numpy(array))

    def loader(
        self,
        num_workers: int = 0,
        *,
        prefetch_factor: int = 2,
        pin_memory: bool = False,
        multiprocessing_context: str = "spawn",
    ) -> StreamLoader:
        """Iterate over whole batches that worker processes cut; the same batches as without workers.

        Parameters
        ----------
        num_workers
            0: in this process, where tracebacks stay readable. Each worker takes a share of the rank's lanes, so there
            may be at most as many.
        prefetch_factor
            Batches that a worker prepares ahead.
        pin_memory
            Copy batches to page-locked memory.
        multiprocessing_context
            ``spawn`` or ``forkserver``; ``fork`` only in a process that has not read yet.

        Raises
        ------
        PlanError
            For more workers than the rank has lanes.
        """
        return StreamLoader(self, num_workers, prefetch_factor, pin_memory, multiprocessing_context)

    def _process_group(self) -> tuple[int, int]:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _part(self) -> tuple[int, int]:
        worker = get_worker_info()
        return (0, 1) if worker is None else (worker.id, worker.num_workers)


class StreamLoader:
    """Whole batches of a stream, cut by worker processes; the stream's state counts what was handed out here."""

    def __init__(
        self,
        stream: WindowStream,
        num_workers: int,
        prefetch_factor: int,
        pin_memory: bool,
        multiprocessing_context: str,
    ) -> None:
        own_lanes = stream.plan.options.lanes // stream.world_size
        if num_workers > own_lanes:
            raise PlanError(
                f"{num_workers} workers share {own_lanes} lanes of this rank; give num_workers of at most {own_lanes}"
            )
        self._stream, self._num_workers = stream, num_workers
        self._options: dict[str, Any] = {"batch_size": None, "num_workers": num_workers, "pin_memory": pin_memory}
        if num_workers:
            self._options |= {"prefetch_factor": prefetch_factor, "multiprocessing_context": multiprocessing_context}

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[TensorBatch]:
        items = iter(DataLoader(self._stream, **self._options))
        if not self._num_workers:
            yield from items
            return
        # The workers hold copies of the stream made just now, so they begin where this one stands.
        for step in range(self._stream._begin(), len(self._stream)):
            # torch hands out the workers' items in turn, and every worker has one item a step, perhaps without rows.
            parts = [next(items) for _ in range(self._num_workers)]
            self._stream._step = step + 1
            yield join_batches(parts, torch.cat)
