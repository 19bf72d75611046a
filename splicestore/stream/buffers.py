"""Buffers that batches are cut into one after the other, instead of new arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Make = Callable[..., NDArray[Any]]
"""Called as ``numpy.empty``: shape and dtype, giving an array whose contents do not matter."""
_GROWTH = 1.25
_ALIGNMENT = 64


class BufferRing:
    """Arrays for ``n + 1`` batches in turn: those of a batch are overwritten when ``n`` further ones have been cut.

    A fresh array costs a page fault every 4 kB, which takes longer than filling it.

    Parameters
    ----------
    n
        Batches that stay valid beside the newest.
    allocate
        Gives a flat uint8 array of so many bytes; page-locked memory, say.
    """

    def __init__(self, n: int, allocate: Callable[[int], NDArray[np.uint8]] | None = None) -> None:
        self._allocate = allocate or (lambda n_bytes: np.empty(n_bytes, dtype=np.uint8))
        self._sets: list[list[NDArray[np.uint8]]] = [[] for _ in range(n + 1)]
        self._turn = -1

    def next_batch(self) -> Make:
        """Begin a batch; arrays are asked of what is returned, in the same order for every batch."""
        self._turn = (self._turn + 1) % len(self._sets)
        buffers, at = self._sets[self._turn], iter(range(1 << 30))

        def make(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
            kind = np.dtype(dtype)
            n_bytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
            place = next(at)
            if place == len(buffers):
                buffers.append(self._allocate(_rounded(n_bytes)))
            elif len(buffers[place]) < n_bytes:
                buffers[place] = self._allocate(_rounded(int(n_bytes * _GROWTH)))
            return buffers[place][:n_bytes].view(kind).reshape(shape)

        return make


def _rounded(n_bytes: int) -> int:
    return max(_ALIGNMENT, -(-n_bytes // _ALIGNMENT) * _ALIGNMENT)
