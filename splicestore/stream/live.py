"""Blocks in memory: bases in slots, ragged sites and counts in common columns that compiled code can index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.stream.window_plan import POOL_GROWTH


@dataclass(frozen=True, slots=True)
class Block:
    """Sites and usage of one block as read; its bases were written to their slot."""

    sites: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
    """Position, strand, kind, row among the measured sites or -1."""
    usage: tuple[NDArray[np.float32], NDArray[np.float32]]
    """Alpha and beta of the measured sites, flat: site by site, the genome's chosen conditions."""
    n_bytes: int


class SegmentPool:
    """Ragged segments, one a slot, in common columns that compiled code can index.

    New segments go to the end; when the columns are full, the live ones move together, and the columns grow if
    those fill more than ``1 / POOL_GROWTH`` of them.

    Parameters
    ----------
    n_slots
        Segments at most.
    dtypes
        Of the columns.
    n_expected
        Values that all segments together are expected to have: room for them is set aside, and takes memory as it is used.
    """

    def __init__(self, n_slots: int, dtypes: Sequence[type], n_expected: int = 0) -> None:
        self.first, self.count = np.zeros(n_slots, dtype=np.int64), np.zeros(n_slots, dtype=np.int64)
        room = int(POOL_GROWTH * n_expected)
        self.columns: list[NDArray[Any]] = [np.empty(room, dtype=dtype) for dtype in dtypes]
        self._end = 0

    def put(self, slot: int, values: Sequence[NDArray[Any]]) -> None:
        """Give a slot new segments, one a column, all equally long."""
        n, self.count[slot] = len(values[0]), 0
        if self._end + n > len(self.columns[0]):
            self._make_room(n)
        for column, new in zip(self.columns, values, strict=True):
            column[self._end : self._end + n] = new
        self.first[slot], self.count[slot] = self._end, n
        self._end += n

    def drop(self, slot: int) -> None:
        """Let go of a slot's segments."""
        self.count[slot] = 0

    def _make_room(self, n: int) -> None:
        needed = int(self.count.sum()) + n
        grown = int(POOL_GROWTH * needed)
        target = self.columns
        if grown > len(self.columns[0]):
            target = [np.empty(grown, dtype=column.dtype) for column in self.columns]
        self._end = 0
        for slot in np.argsort(self.first, kind="stable"):
            old, length = int(self.first[slot]), int(self.count[slot])
            for column, new in zip(self.columns, target, strict=True):
                # In place this moves a segment left; numpy copies overlapping slices safely.
                new[self._end : self._end + length] = column[old : old + length]
            self.first[slot] = self._end
            self._end += length
        self.columns = target
