"""The order of an epoch: a pure function of (seed, epoch), exact in integers, entered anywhere at once.

Blocks are dealt into lanes. In a lane of ``n`` blocks with ``P`` of them live, the window of rank ``r`` among the
``n_i`` windows of the lane's block ``i`` has the key ``(i*T + ((r << 16) + f_i) * P * T // (n_i << 16)) mod (n*T)``
with ``T = 2**20``; the order of the keys, ties by ``(i, r)``, is the lane. A block's windows are so spread evenly
over the ``P`` buckets of width ``T`` that begin at its own place, cyclically: density is flat from the first window
to the last, at most ``P + 1`` blocks are needed at a time, and how many windows lie below a bucket is a closed form,
so a lane is entered at any position without generating what comes before.

Every random number is a raw word of Philox 4x64-10: distributions drawn by numpy's ``Generator`` may change
between versions, the raw words may not.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Words = NDArray[np.uint64]

PURPOSE_DEAL = 0
PURPOSE_PHASE = 1
PURPOSE_RANK = 2
PURPOSE_AUGMENT = 3
"""Jitter and strand of a window."""
PURPOSE_WEIGHT = 4
"""Which blocks of a genome enter the deal once more for the fraction of its weight."""
PURPOSE_MASK = 5
"""Which places of a sample's sequence of genes are hidden, and how."""

BUCKET_BITS = 20
"""T = 2**20, the width of a block's bucket in keys."""
PHASE_BITS = 16
MAX_WINDOWS_TIMES_LIVE = (1 << 27) - 1
"""``n_i * P`` stays below 2**27, so that the key's numerator stays below 2**63."""

_BAND_WINDOWS = 1 << 18
"""Windows ordered at once in a lane."""
_BAND_WINDOWS_MOST = 1 << 21

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_JITTER_SHIFT = np.uint64(32)


@njit(cache=True, nogil=True)
def _multiply_high(a, b):  # type: ignore[no-untyped-def]
    """Upper 64 bits of the 128-bit product."""
    a_low, a_high, b_low, b_high = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    middle = a_high * b_low + ((a_low * b_low) >> _HALF)
    other = a_low * b_high + (middle & _LOW)
    return a_high * b_high + (middle >> _HALF) + (other >> _HALF)


@njit(cache=True, nogil=True)
def _philox(count, block, purpose, seed, epoch):  # type: ignore[no-untyped-def]
    """Four words of Philox 4x64-10 at counter ``[count, 0, block, purpose]`` under key ``[seed, epoch]``."""
    c0, c1, c2, c3 = np.uint64(count), np.uint64(0), np.uint64(block), np.uint64(purpose)
    k0, k1 = np.uint64(seed), np.uint64(epoch)
    for _ in range(10):
        high_0, low_0 = _multiply_high(_MULTIPLIER_0, c0), _MULTIPLIER_0 * c0
        high_1, low_1 = _multiply_high(_MULTIPLIER_1, c2), _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0, k1 = k0 + _WEYL_0, k1 + _WEYL_1
    return c0, c1, c2, c3


@njit(cache=True, nogil=True)
def _fill_words(out, seed, epoch, block, purpose):  # type: ignore[no-untyped-def]
    # numpy steps the counter before it draws, so the first four words come from count 1.
    for place in range(0, len(out), 4):
        words = _philox(place // 4 + 1, block, purpose, seed, epoch)
        for j in range(min(4, len(out) - place)):
            out[place + j] = words[j]


def random_words(seed: int, epoch: int, block: int, purpose: int, n: int) -> Words:
    """Draw the words of ``numpy.random.Philox(key=[seed, epoch], counter=[0, 0, block, purpose]).random_raw(n)``.

    Returns
    -------
    words : (n,) uint64
    """
    out = np.empty(n, dtype=np.uint64)
    _fill_words(out, np.uint64(seed), np.uint64(epoch), np.uint64(block), np.uint64(purpose))
    return out


@njit(cache=True, nogil=True)
def _fill_rows(out, seed, epoch, block, purpose):  # type: ignore[no-untyped-def]
    for row in range(len(block)):
        _fill_words(out[row], seed, epoch, block[row], purpose)


def draw_masks(seed: int, epoch: int, sample: Int64, n: int) -> Words:
    """Draw the first n words of each sample's stream of purpose 5; a sample is named by its row in its matrix.

    Returns
    -------
    words : (sample, n) uint64
    """
    out = np.empty((len(sample), n), dtype=np.uint64)
    _fill_rows(out, np.uint64(seed), np.uint64(epoch), sample.astype(np.uint64), np.uint64(PURPOSE_MASK))
    return out


@njit(cache=True, nogil=True)
def _phases(block, seed, epoch):  # type: ignore[no-untyped-def]
    out = np.empty(len(block), dtype=np.int64)
    for i in range(len(block)):
        out[i] = np.int64(_philox(1, block[i], PURPOSE_PHASE, seed, epoch)[0] >> np.uint64(64 - PHASE_BITS))
    return out


@njit(cache=True, nogil=True)
def _augment_words(block, place, seed, epoch):  # type: ignore[no-untyped-def]
    out = np.empty(len(block), dtype=np.uint64)
    for i in range(len(block)):
        words = _philox(place[i] // 4 + 1, block[i], PURPOSE_AUGMENT, seed, epoch)
        out[i] = words[place[i] % 4]
    return out


def draw_augmentation(
    seed: int, epoch: int, block: Int64, place: Int64, jitter: int
) -> tuple[Int64, NDArray[np.bool_]]:
    """Draw jitter and strand flips of windows: word ``place`` of each block's stream of purpose 3.

    Parameters
    ----------
    block : (n,) int64
        Row in the block table.
    place : (n,) int64
        The window's place in its block, in table order.
    jitter
        Largest shift J, in bp.

    Returns
    -------
    shift : (n,) int64
        ``floor(upper 32 bits * (2J + 1) / 2**32) - J``, in bp, forward coordinates.
    flip : (n,) bool
        The lowest bit.
    """
    words = _augment_words(block, place, np.uint64(seed), np.uint64(epoch))
    upper = (words >> _JITTER_SHIFT).astype(np.int64)
    return ((upper * (2 * jitter + 1)) >> 32) - jitter, (words & np.uint64(1)).astype(bool)


@njit(cache=True, nogil=True)
def _deal(n_windows, order, n_lanes):  # type: ignore[no-untyped-def]
    # Equal loads go to the lowest lane: tuples compare by their second member.
    heap = [(np.int64(0), np.int64(lane)) for lane in range(n_lanes)]
    lane_of = np.empty(len(order), dtype=np.int64)
    for place in range(len(order)):
        load, lane = heap[0]
        lane_of[place] = lane
        heapq.heapreplace(heap, (load + n_windows[order[place]], lane))
    return lane_of


@njit(cache=True, nogil=True)
def _ranks_below(offset, count, phase, live):  # type: ignore[no-untyped-def]
    """Ranks whose key lies less than ``offset`` above their block's place; 0 <= offset <= live * T.

    ``((r << 16) + f) * live * T // (count << 16) < offset`` solved for r.
    """
    span = live << BUCKET_BITS
    bound = -((-offset * (count << PHASE_BITS)) // span)
    ranks = (bound - phase + (1 << PHASE_BITS) - 1) >> PHASE_BITS
    return min(max(ranks, 0), count)


@njit(cache=True, nogil=True)
def _unwrapped(count, phase, live):  # type: ignore[no-untyped-def]
    """For each block of a lane, how many of its windows stay left of the lane's end."""
    n = len(count)
    out = count.copy()
    for i in range(max(0, n - live), n):
        out[i] = _ranks_below(min(n - i, live) << BUCKET_BITS, count[i], phase[i], live)
    return out


@njit(cache=True, nogil=True)
def _windows_below(bucket, count, phase, live, before):  # type: ignore[no-untyped-def]
    """Windows of a lane whose key is below ``bucket * T``; O(live)."""
    n = len(count)
    opening = max(0, bucket - live + 1)
    total = before[opening]
    for i in range(opening, min(bucket, n)):
        total += _ranks_below((bucket - i) << BUCKET_BITS, count[i], phase[i], live)
    for i in range(max(0, n - live + 1), n):
        reach = min(bucket + n - i, live) << BUCKET_BITS
        total += _ranks_below(reach, count[i], phase[i], live) - (before[i + 1] - before[i])
    return total


@njit(cache=True, nogil=True)
def _find_bucket(position, count, phase, live, before):  # type: ignore[no-untyped-def]
    """Last bucket with at most ``position`` windows below it, and how many those are."""
    low, high = 0, len(count)
    while high - low > 1:
        middle = (low + high) // 2
        if _windows_below(middle, count, phase, live, before) <= position:
            low = middle
        else:
            high = middle
    return low, _windows_below(low, count, phase, live, before)


@njit(cache=True, nogil=True)
def _rank_ranges(low, high, count, phase, live):  # type: ignore[no-untyped-def]
    """Ranks of each block whose key lies in the buckets ``[low, high)``: (n, 4) first, last; wrapped first, last."""
    n, span = len(count), live << BUCKET_BITS
    ranges = np.zeros((n, 4), dtype=np.int64)
    total = 0
    for i in range(n):
        touches = low - live < i < high
        wraps = i > low + n - live
        if not (touches or wraps):
            continue
        for side in range(2):
            for end in range(2):
                offset = ((high if end else low) + side * n - i) << BUCKET_BITS
                ranges[i, 2 * side + end] = _ranks_below(min(max(offset, 0), span), count[i], phase[i], live)
            total += ranges[i, 2 * side + 1] - ranges[i, 2 * side]
    return ranges, total


@njit(cache=True, nogil=True)
def _band(ranges, total, block, first, count, phase, live, seed, epoch, shuffled):  # type: ignore[no-untyped-def]
    """Keys and windows of the ranks in ``ranges``, by (place in the lane, rank)."""
    n = len(count)
    keys, windows = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.int64)
    out = 0
    for i in range(n):
        if ranges[i, 1] == ranges[i, 0] and ranges[i, 3] == ranges[i, 2]:
            continue
        if shuffled:
            words = np.empty(count[i], dtype=np.uint64)
            _fill_words(words, seed, epoch, block[i], PURPOSE_RANK)
            by_rank = np.argsort(words, kind="mergesort")
        else:
            by_rank = np.arange(count[i])
        for side in range(2):
            for rank in range(ranges[i, 2 * side], ranges[i, 2 * side + 1]):
                spread = ((rank << PHASE_BITS) + phase[i]) * (live << BUCKET_BITS) // (count[i] << PHASE_BITS)
                keys[out] = ((i - side * n) << BUCKET_BITS) + spread
                windows[out] = first[i] + by_rank[rank]
                out += 1
    return keys, windows


@dataclass(frozen=True, slots=True)
class LaneOrder:
    """The windows of one lane in one epoch, in order, generated on demand."""

    seed: int
    epoch: int
    shuffled: bool
    """False: blocks as dealt, windows as in the table."""
    block: Int64
    """(n,) int64: rows of the block table in the order of the deal."""
    first_window: Int64
    """(n,) int64: the first window of each block, in a numbering where a block's windows are consecutive."""
    n_windows_of: Int64
    """(n,) int64: windows of each block."""
    phase: Int64
    """(n,) int64 in [0, 2**16)."""
    live: int
    """P of this lane: over how many buckets a block's windows are spread."""
    before: Int64
    """(n + 1,) int64: windows that do not wrap, in all blocks before each."""

    @property
    def n_windows(self) -> int:
        """Windows of the lane."""
        return int(self.n_windows_of.sum())

    def windows_from(self, position: int) -> Iterator[Int64]:
        """Yield the lane's windows from a position on, in pieces of about 2**18.

        Finding the position costs O(P log n), whatever the position.
        """
        if position >= self.n_windows:
            return
        n = len(self.block)
        bucket, below = _find_bucket(position, self.n_windows_of, self.phase, self.live, self.before)
        skip, width = position - int(below), self._buckets_at_once()
        while bucket < n:
            end = min(n, bucket + width)
            windows = self._ordered(bucket, end)[skip:]
            if len(windows):
                yield windows
            bucket, skip = end, 0

    def _buckets_at_once(self) -> int:
        # A band orders its own buckets but has to rank the windows of `live` blocks before it too:
        # bands of two such spans keep that overhead below a half.
        mean = max(1, self.n_windows // len(self.block))
        return max(1, _BAND_WINDOWS // mean, min(2 * self.live, _BAND_WINDOWS_MOST // mean))

    def _ordered(self, low: int, high: int) -> Int64:
        counts = (self.n_windows_of, self.phase, self.live)
        ranges, total = _rank_ranges(low, high, *counts)
        draws = (np.uint64(self.seed), np.uint64(self.epoch), self.shuffled)
        keys, windows = _band(ranges, total, self.block, self.first_window, *counts, *draws)
        ordered: Int64 = windows[np.argsort(keys, kind="stable")]
        return ordered


def live_of_lane(live_total: int, n_lanes: int, n_windows_of: Int64) -> int:
    """P of one lane: its share of the total, at least 1, at most its blocks, with ``n_i * P < 2**27``."""
    share = min(max(1, live_total // n_lanes), len(n_windows_of))
    return max(1, min(share, MAX_WINDOWS_TIMES_LIVE // int(n_windows_of.max(initial=1))))


def order_epoch(
    block_ptr: Int64,
    entries: Int64,
    n_lanes: int,
    live_total: int,
    seed: int,
    epoch: int,
    *,
    shuffled: bool = True,
) -> tuple[LaneOrder, ...]:
    """Deal the blocks of an epoch into lanes.

    Parameters
    ----------
    block_ptr : (n_blocks + 1,) int64
        First window of each block, in a numbering where a block's windows are consecutive; no block is empty.
    entries : (m,) int64
        Blocks that enter the deal; a block may be there several times, or not at all.
    n_lanes
        Number of lanes; a block goes to the lane with the fewest windows so far, ties to the lowest.
    live_total
        P over all lanes, in blocks.
    seed, epoch
        The key of every draw, each in [0, 2**64).
    shuffled
        False: blocks in the order of ``entries``, windows in the order of the table, one block live a lane.

    Returns
    -------
    lanes : tuple of LaneOrder
        ``n_lanes`` of them, some empty where there are fewer blocks than lanes.
    """
    n_windows_of = np.diff(block_ptr)[entries]
    if shuffled:
        order = np.argsort(random_words(seed, epoch, 0, PURPOSE_DEAL, len(entries)), kind="stable")
    else:
        order = np.arange(len(entries), dtype=np.int64)
    lane_of = _deal(n_windows_of, order, n_lanes)
    lanes = []
    for lane in range(n_lanes):
        mine = order[lane_of == lane]
        block, count = entries[mine], n_windows_of[mine]
        live = live_of_lane(live_total, n_lanes, count) if shuffled else 1
        phase = _phases(block, np.uint64(seed), np.uint64(epoch)) if shuffled else np.zeros(len(block), dtype=np.int64)
        before = np.zeros(len(block) + 1, dtype=np.int64)
        np.cumsum(_unwrapped(count, phase, live), out=before[1:])
        lanes.append(LaneOrder(seed, epoch, shuffled, block, block_ptr[block], count, phase, live, before))
    return tuple(lanes)
