"""Batches on the device they are used on: the next ones are cut and copied while the consumer works."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import torch

from splicestore.errors import ConfigError
from splicestore.stream.batch import RowBatch

Tensors = TypeVar("Tensors", bound=RowBatch[Any])
"""Batches of tensors."""
CountedBatches = Generator[tuple[Tensors, int], None, None]
"""Batches with the number of their rows, those that pad not counted."""
HandOut = Callable[[Iterator[tuple[Tensors, int]]], Iterator[Tensors]]
Item = TypeVar("Item")


class DeviceBatches(Generic[Tensors]):
    """Batches of a stream on a device, as many times as it is iterated; ``to_device`` of a stream or loader makes one.

    Parameters
    ----------
    begin
        Called once an iteration, in the consumer's thread: what is left of the epoch, in host memory.
    hand_out
        Passes batches on to the consumer and counts them.
    n_steps
        Batches of the current epoch.
    device
        On a CPU the batches are handed out as they are cut. For any other device a thread cuts and copies them, for a CUDA
        device from page-locked memory and on a CUDA stream of its own.
    ahead
        Batches that wait on the device, at most.
    n_reused
        ``reuse_buffers`` of the stream.

    Raises
    ------
    ConfigError
        If ``ahead`` is less than 1.
    """

    def __init__(
        self,
        begin: Callable[[], CountedBatches[Tensors]],
        hand_out: HandOut[Tensors],
        n_steps: Callable[[], int],
        device: torch.device,
        ahead: int,
        n_reused: int = 0,
    ) -> None:
        if ahead < 1:
            raise ConfigError(f"ahead is the number of batches that wait on the device, from 1 on; got {ahead}")
        self._begin, self._hand_out, self._n_steps = begin, hand_out, n_steps
        self.device = device
        self._ahead, self._n_reused = ahead, n_reused

    def __len__(self) -> int:
        return self._n_steps()

    def __iter__(self) -> Iterator[Tensors]:
        yield from self._hand_out(self._moved(self._begin()))

    def _moved(self, batches: CountedBatches) -> Iterator[tuple[Tensors, int]]:
        if self.device.type == "cpu":
            return batches
        if self.device.type == "cuda":
            return _through_cuda(batches, CudaSender(self.device, self._n_reused), self._ahead)
        return iterate_ahead(each_batch(batches, lambda batch: batch.to(self.device)), self._ahead)


def _through_cuda(batches: CountedBatches[Tensors], sender: CudaSender, ahead: int) -> Iterator[tuple[Tensors, int]]:
    for (batch, copied), n_rows in iterate_ahead(each_batch(batches, sender.send), ahead):
        sender.receive(batch, copied)
        yield batch, n_rows


def each_batch(
    batches: CountedBatches[Tensors], change: Callable[[Tensors], Item]
) -> Generator[tuple[Item, int], None, None]:
    """Change every batch on its way; closing the result closes ``batches``."""
    with closing(batches):
        for batch, n_rows in batches:
            yield change(batch), n_rows


class CudaSender:
    """Copies batches to a GPU on a CUDA stream of its own, beside the kernels of the consumer's.

    Parameters
    ----------
    device
        A CUDA device.
    n_reused
        The arrays of a batch are overwritten when this many further ones have been cut, so copies are waited for in time;
        0: every batch has arrays of its own.
    """

    def __init__(self, device: torch.device, n_reused: int) -> None:
        self._stream = torch.cuda.Stream(device)
        self._device, self._n_reused = self._stream.device, n_reused
        self._copies: deque[torch.cuda.Event] = deque()

    def send(self, batch: Tensors) -> tuple[Tensors, torch.cuda.Event]:
        """Begin to copy a batch; the event says when its tensors are there."""
        with torch.cuda.stream(self._stream):
            moved = batch.pin_memory().to(self._device, non_blocking=True)
            copied = torch.cuda.Event(blocking=True)
            copied.record(self._stream)
        if self._n_reused:
            self._copies.append(copied)
            if len(self._copies) > self._n_reused:
                self._copies.popleft().synchronize()
        return moved, copied

    def receive(self, batch: Tensors, copied: torch.cuda.Event) -> None:
        """Let the consumer's CUDA stream wait for a batch, on the GPU; call in the consumer's thread."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copied)
        for name in batch.arrays:
            # The allocator must not give this memory to the next copy while the consumer's kernels still read it.
            getattr(batch, name).record_stream(stream)


def iterate_ahead(items: Generator[Item, None, None], ahead: int) -> Iterator[Item]:
    """Run a generator in a thread, up to ``ahead`` items before the consumer.

    The thread begins with the first item that is asked for. Its errors are raised here, behind the items made before.
    However the iteration ends, the generator is closed and the thread has stopped when this returns.
    """
    made: SimpleQueue[tuple[Item | None, BaseException | None]] = SimpleQueue()
    room, stopped = threading.Semaphore(ahead), threading.Event()

    def run() -> None:
        try:
            with closing(items):
                while room.acquire() and not stopped.is_set():
                    made.put((next(items), None))
        except BaseException as error:
            made.put((None, error))

    # A daemon: an interpreter that ends with an iteration half done must not wait for it.
    thread = threading.Thread(target=run, name="splicestore-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        room.release()
        thread.join()


def device_of(device: Any) -> torch.device:
    """Spell a device with its number, so that threads mean the same one."""
    found = torch.device(device)
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return found
