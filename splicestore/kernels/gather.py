"""Cutting windows out of blocks that are in memory: bases, labels and usage of a whole batch per call.

Positions are absolute bases. A window on the minus strand comes out reverse-complemented, its labels and usage
positions mirrored; bases outside the window's contig are N, centre positions outside it carry label 255, whatever
the neighbouring contig has there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from splicestore.kernels.sequence import N_CODE as _N_CODE
from splicestore.schema import KIND_ACCEPTOR, KIND_BOTH, LABEL_ACCEPTOR, LABEL_DONOR, LABEL_IGNORE, LABEL_NONE

Int64 = NDArray[np.int64]

# Typed, so that the compiled code stores bytes and computes no int64 in between.
_N, _LAST_BASE = np.uint8(_N_CODE), np.uint8(3)
_ACCEPTOR, _BOTH = np.uint8(KIND_ACCEPTOR), np.uint8(KIND_BOTH)
_LABEL_ACCEPTOR, _LABEL_DONOR, _IGNORE = np.uint8(LABEL_ACCEPTOR), np.uint8(LABEL_DONOR), np.uint8(LABEL_IGNORE)


class WindowRows(NamedTuple):
    """Windows to cut, one row each; all arrays (B,)."""

    slot: Int64
    """Slot of the live block where the window's input starts."""
    genome: NDArray[np.int16]
    start: Int64
    """First base of the centre; may lie before the contig."""
    strand: NDArray[np.int8]
    contig_start: Int64
    contig_end: Int64


class LiveBases(NamedTuple):
    """Bases of the live blocks."""

    codes: NDArray[np.uint8]
    """(slot, base): each block from the left."""
    first_base: Int64
    """(slot,) the first base a slot holds."""
    last_base: Int64
    """(slot,) one past the last."""


class LiveSites(NamedTuple):
    """Splice sites of the live blocks: ragged segments of common columns, sorted by (position, strand)."""

    first: Int64
    """(slot,) first row of a slot in the site columns."""
    n_sites: Int64
    """(slot,)"""
    position: Int64
    strand: NDArray[np.int8]
    kind: NDArray[np.uint8]
    measured: NDArray[np.int32]
    """Row among the slot's measured sites, -1 where no chosen condition is measured."""


class LiveUsage(NamedTuple):
    """Counts of the measured sites of the live blocks; a slot's rows have its genome's own columns."""

    first: Int64
    """(slot,) first value of a slot in ``alpha`` and ``beta``."""
    alpha: NDArray[np.float32]
    beta: NDArray[np.float32]
    n_columns: Int64
    """(genome,) columns of a genome."""
    column: NDArray[np.int32]
    """(genome, condition): the genome's column of a condition, -1 where it has none."""


class SitesFound(NamedTuple):
    """Where the sites of the windows' centres lie in the columns of ``LiveSites``; all arrays (B,)."""

    first: Int64
    last: Int64
    """One past the last row."""
    n_measured: Int64
    """How many of them lie on the window's strand and are measured."""


class UsageRows(NamedTuple):
    """Measured sites of a batch, sorted by (window, position)."""

    window: NDArray[np.int32]
    """(n,) row in the batch."""
    position: NDArray[np.int32]
    """(n,) position in the centre, in transcript orientation."""
    alpha: NDArray[np.float32]
    """(n, condition), NaN = not measured."""
    beta: NDArray[np.float32]


# Three plain loops over whole rows, which numba compiles to vector code; assignments of slices become calls, and
# signed indices that count down are checked for wrapping at every base: both are many times slower.


@njit(cache=True, nogil=True)
def _fill(row, value):  # type: ignore[no-untyped-def]
    for j in range(len(row)):
        row[j] = value


@njit(cache=True, nogil=True)
def _copy(source, row):  # type: ignore[no-untyped-def]
    for j in range(len(row)):
        row[j] = source[j]


@njit(cache=True, nogil=True)
def _copy_reverse_complement(source, row):  # type: ignore[no-untyped-def]
    last = np.uint64(len(source) - 1)
    for j in range(np.uint64(len(source))):
        code = source[last - j]
        row[j] = code ^ _LAST_BASE if code <= _LAST_BASE else code


@njit(cache=True, nogil=True)
def _cut_bases(rows, live, flank, out):  # type: ignore[no-untyped-def]
    length = out.shape[1]
    for b in range(out.shape[0]):
        slot, begin, row = rows.slot[b], rows.start[b] - flank, out[b]
        low, high = max(begin, rows.contig_start[b]), min(begin + length, rows.contig_end[b])
        if high <= low:
            _fill(row, _N)
            continue
        # Compiled code does not check bounds: a wrong plan would read another block's bases in silence.
        if low < live.first_base[slot] or high > live.last_base[slot]:
            return b
        source = live.codes[slot][low - live.first_base[slot] : high - live.first_base[slot]]
        # Mirrored, what the contig lacks on the right lies on the left.
        left = low - begin if rows.strand[b] >= 0 else begin + length - high
        right = left + high - low
        _fill(row[:left], _N)
        if rows.strand[b] >= 0:
            _copy(source, row[left:right])
        else:
            _copy_reverse_complement(source, row[left:right])
        _fill(row[right:], _N)
    return -1


@njit(cache=True, nogil=True)
def _cut_labels(rows, sites, out, found):  # type: ignore[no-untyped-def]
    size = out.shape[1]
    for b in range(out.shape[0]):
        slot, start, forward = rows.slot[b], rows.start[b], rows.strand[b] >= 0
        low, high = max(start, rows.contig_start[b]), min(start + size, rows.contig_end[b])
        if high <= low:
            _fill(out[b], _IGNORE)
            continue
        left = low - start if forward else start + size - high
        _fill(out[b][:left], _IGNORE)
        _fill(out[b][left + high - low :], _IGNORE)
        site, end = sites.first[slot], sites.first[slot] + sites.n_sites[slot]
        site += np.searchsorted(sites.position[site:end], low)
        found.first[b] = site
        while site < end and sites.position[site] < high:
            if sites.strand[site] == rows.strand[b]:
                offset, kind = sites.position[site] - start, sites.kind[site]
                label = _LABEL_ACCEPTOR if kind == _ACCEPTOR else _LABEL_DONOR
                out[b, offset if forward else size - 1 - offset] = _IGNORE if kind == _BOTH else label
                found.n_measured[b] += sites.measured[site] >= 0
            site += 1
        found.last[b] = site


@njit(cache=True, nogil=True)
def _cut_usage(rows, sites, usage, size, found, out):  # type: ignore[no-untyped-def]
    row = 0
    for b in range(len(rows.start)):
        if found.n_measured[b] == 0:
            continue
        start, forward, genome = rows.start[b], rows.strand[b] >= 0, rows.genome[b]
        for step in range(found.last[b] - found.first[b]):
            site = found.first[b] + step if forward else found.last[b] - 1 - step
            if sites.strand[site] != rows.strand[b] or sites.measured[site] < 0:
                continue
            offset = sites.position[site] - start
            out.window[row] = b
            out.position[row] = offset if forward else size - 1 - offset
            values = usage.first[rows.slot[b]] + sites.measured[site] * usage.n_columns[genome]
            for c in range(out.alpha.shape[1]):
                column = usage.column[genome, c]
                out.alpha[row, c] = usage.alpha[values + column] if column >= 0 else np.nan
                out.beta[row, c] = usage.beta[values + column] if column >= 0 else np.nan
            row += 1


def cut_bases(
    rows: WindowRows, live: LiveBases, flank: int, length: int, make: Callable[..., NDArray[Any]] = np.empty
) -> NDArray[np.uint8]:
    """Cut the inputs ``[start - flank, start - flank + length)``.

    Parameters
    ----------
    make
        Where the result comes from, called as ``numpy.empty``.

    Returns
    -------
    sequence : (B, length) uint8
        Codes 0..4 in transcript orientation.

    Raises
    ------
    IndexError
        If a window needs bases that its block does not hold.
    """
    out = make((len(rows.start), length), np.uint8)
    b = _cut_bases(rows, live, flank, out)
    if b >= 0:
        low = max(int(rows.start[b]) - flank, int(rows.contig_start[b]))
        high = min(int(rows.start[b]) - flank + length, int(rows.contig_end[b]))
        raise IndexError(f"window {b} needs bases [{low}, {high}), beyond the block in slot {rows.slot[b]}")
    return out


def cut_labels(
    rows: WindowRows, sites: LiveSites, window_size: int, make: Callable[..., NDArray[Any]] = np.empty
) -> tuple[NDArray[np.uint8], SitesFound]:
    """Label the centres with the sites of each window's strand.

    Returns
    -------
    label : (B, window_size) uint8
        0 none, 1 acceptor, 2 donor, 255 outside the contig or both kinds; transcript orientation.
    found : SitesFound
        The sites of either strand, for ``cut_usage``.
    """
    n = len(rows.start)
    label = make((n, window_size), np.uint8)
    label.fill(LABEL_NONE)
    found = SitesFound(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64))
    _cut_labels(rows, sites, label, found)
    return label, found


def cut_usage(
    rows: WindowRows,
    sites: LiveSites,
    usage: LiveUsage,
    window_size: int,
    found: SitesFound,
    make: Callable[..., NDArray[Any]] = np.empty,
) -> UsageRows:
    """Collect the usage of the measured sites that ``cut_labels`` found; windows with ``n_measured`` 0 have none."""
    shape: Any = (int(found.n_measured.sum()), usage.column.shape[1])
    out = UsageRows(
        window=make(shape[0], np.int32),
        position=make(shape[0], np.int32),
        alpha=make(shape, np.float32),
        beta=make(shape, np.float32),
    )
    _cut_usage(rows, sites, usage, window_size, found, out)
    return out


@njit(cache=True, nogil=True)
def _cut_rows(live, slot, place, column, out):  # type: ignore[no-untyped-def]
    for i in range(len(slot)):
        source = live[slot[i], place[i]]
        for j in range(len(column)):
            out[i, j] = source[column[j]]


def cut_rows(
    live: NDArray[Any],
    slot: NDArray[np.int64],
    place: NDArray[np.int64],
    column: NDArray[np.int32] | None,
    make: Callable[..., NDArray[Any]] = np.empty,
) -> NDArray[Any]:
    """Cut rows of matrices out of their live blocks.

    Parameters
    ----------
    live : (slot, row, column)
        Blocks.
    slot, place : (B,) int64
        Where each row lies.
    column : (G,) int32
        Columns of the result; None: all.

    Returns
    -------
    values : (B, G)
        Of the type of ``live``.
    """
    n_columns = live.shape[2] if column is None else len(column)
    out = make((len(slot), n_columns), live.dtype)
    if column is None:
        # Whole rows are copied as memory, which no loop over values beats.
        for i, where in enumerate(zip(slot.tolist(), place.tolist(), strict=True)):
            out[i] = live[where]
    else:
        _cut_rows(live, slot, place, column, out)
    return out
