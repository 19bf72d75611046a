"""Grouping windows by the block that holds their first base: one pass without an array per step of the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


class WindowColumns(NamedTuple):
    """Columns of a window table, whole."""

    genome: NDArray[np.int16]
    contig: NDArray[np.int32]
    """Row among the genome's contigs."""
    start: Int64
    """Absolute start of the centre, may lie before the contig."""


class Contigs(NamedTuple):
    """Contigs of all genomes in one table."""

    first: Int64
    """(genome + 1,) first contig of each genome."""
    start: Int64
    """(contig,) absolute."""
    end: Int64


@dataclass(frozen=True, slots=True)
class WindowBlocks:
    """Windows by block, sorted by (genome, block); every block has one at least."""

    row: Int64
    """(window,) row in the window table."""
    genome: Int64
    """(block,)."""
    number: Int64
    """(block,) number within the genome."""
    ptr: Int64
    """(block + 1,) first window of each block."""
    low: Int64
    """(block,) first base that the windows need, absolute."""
    high: Int64
    """(block,) one past the last."""


@njit(cache=True, nogil=True)
def _extent(row, windows, contigs, flank, length, block_bases):  # type: ignore[no-untyped-def]
    """Genome, block and the bases within the contig of one window's input."""
    genome = np.int64(windows.genome[row])
    contig = contigs.first[genome] + windows.contig[row]
    begin = windows.start[row] - flank
    low = max(begin, contigs.start[contig])
    return genome, low // block_bases, low, max(low, min(begin + length, contigs.end[contig]))


@njit(cache=True, nogil=True)
def _count_blocks(rows, windows, contigs, flank, length, block_bases):  # type: ignore[no-untyped-def]
    """Runs of windows in one block; -1 where the rows are not sorted by genome and block."""
    n, last_genome, last_block = 0, np.int64(-1), np.int64(-1)
    for row in rows:
        genome, block, _, _ = _extent(row, windows, contigs, flank, length, block_bases)
        if genome != last_genome or block != last_block:
            if genome < last_genome or (genome == last_genome and block < last_block):
                return -1
            n, last_genome, last_block = n + 1, genome, block
    return n


@njit(cache=True, nogil=True)
def _keys(rows, windows, contigs, flank, length, block_bases):  # type: ignore[no-untyped-def]
    keys = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        genome, block, _, _ = _extent(row, windows, contigs, flank, length, block_bases)
        keys[i] = (genome << 40) + block
    return keys


@njit(cache=True, nogil=True)
def _fill(rows, windows, contigs, flank, length, block_bases, out):  # type: ignore[no-untyped-def]
    genomes, numbers, ptr, lows, highs = out
    at, last_genome, last_block = -1, np.int64(-1), np.int64(-1)
    for i, row in enumerate(rows):
        genome, block, low, high = _extent(row, windows, contigs, flank, length, block_bases)
        if genome != last_genome or block != last_block:
            at, last_genome, last_block = at + 1, genome, block
            genomes[at], numbers[at], ptr[at], lows[at], highs[at] = genome, block, i, low, high
        lows[at], highs[at] = min(lows[at], low), max(highs[at], high)
    ptr[at + 1] = len(rows)


def group_by_block(
    rows: Int64, windows: WindowColumns, contigs: Contigs, flank: int, length: int, block_bases: int
) -> WindowBlocks:
    """Group the inputs ``[start - flank, start - flank + length)`` of some windows.

    Parameters
    ----------
    rows : (n,) int64
        Rows of the window table; one may be there several times. Best in the order of genomes and places: else they are sorted.
    windows, contigs
        The tables that the rows point into.
    flank, length
        In bp.
    block_bases
        Bases of a block; block k of a genome begins at base ``k * block_bases``.
    """
    where = (windows, contigs, flank, length, block_bases)
    n_blocks = _count_blocks(rows, *where)
    if n_blocks < 0:
        rows = rows[np.argsort(_keys(rows, *where), kind="stable")]
        n_blocks = _count_blocks(rows, *where)
    genome, number, low, high = (np.empty(n_blocks, dtype=np.int64) for _ in range(4))
    ptr = np.zeros(n_blocks + 1, dtype=np.int64)
    _fill(rows, *where, (genome, number, ptr, low, high))
    return WindowBlocks(rows, genome, number, ptr, low, high)
