"""Buffers that batches are cut into one after the other, instead of new arrays."""

from __future__ import annotations

import math
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
        self._sets: list[list[_Buffer]] = [[] for _ in range(n + 1)]
        self._turn = -1

    def next_batch(self) -> Make:
        """Begin a batch; arrays are asked of what is returned, in the same order for every batch."""
        self._turn = (self._turn + 1) % len(self._sets)
        buffers, place = self._sets[self._turn], 0

        def make(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
            nonlocal place
            if place == len(buffers):
                buffers.append(_Buffer(self._allocate))
            buffer = buffers[place]
            place += 1
            return buffer.array(shape, dtype)

        return make


class _Buffer:
    """Memory of one array; the same shape again is the same array, not made anew."""

    def __init__(self, allocate: Callable[[int], NDArray[np.uint8]]) -> None:
        self._allocate = allocate
        self._memory = allocate(_ALIGNMENT)
        self._made: NDArray[Any] | None = None
        self._asked: tuple[Any, Any] | None = None

    def array(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        if self._made is not None and self._asked == (shape, dtype):
            return self._made
        kind = np.dtype(dtype)
        sides = (shape,) if isinstance(shape, int) else shape
        n_bytes = math.prod(sides) * kind.itemsize
        if len(self._memory) < n_bytes:
            self._memory = self._allocate(-(-int(n_bytes * _GROWTH) // _ALIGNMENT) * _ALIGNMENT)
        self._made, self._asked = self._memory[:n_bytes].view(kind).reshape(sides), (shape, dtype)
        return self._made
