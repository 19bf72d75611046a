"""Laws of the epoch order: integers equal the slow rule, every window once, entered anywhere, few blocks live."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splicestore.kernels.shuffle import (
    MAX_WINDOWS_TIMES_LIVE,
    LaneOrder,
    draw_augmentation,
    live_of_lane,
    order_epoch,
    random_words,
)
from tests.oracles import order_oracle

words64 = st.integers(0, 2**64 - 1)
block_sizes = st.lists(st.integers(1, 30), min_size=1, max_size=25)


def pointers(sizes: list[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


def lanes_of(sizes: list[int], lanes: int, live: int, seed: int, epoch: int, **options) -> tuple[LaneOrder, ...]:
    return order_epoch(pointers(sizes), np.arange(len(sizes)), lanes, live, seed, epoch, **options)


def windows(lane: LaneOrder, position: int = 0) -> list[int]:
    return [int(w) for piece in lane.windows_from(position) for w in piece]


@given(seed=words64, epoch=words64, block=words64, purpose=words64, n=st.integers(0, 40))
@settings(max_examples=50)
def test_words_are_those_of_numpys_philox(seed, epoch, block, purpose, n):
    key, counter = (np.array(v, dtype=np.uint64) for v in ([seed, epoch], [0, 0, block, purpose]))
    expected = np.random.Philox(key=key, counter=counter).random_raw(n)
    np.testing.assert_array_equal(random_words(seed, epoch, block, purpose, n), expected)


@given(sizes=block_sizes, lanes=st.integers(1, 6), live=st.integers(1, 60), seed=words64, epoch=st.integers(0, 9))
@settings(max_examples=150)
@example(sizes=[30] * 25, lanes=1, live=25, seed=0, epoch=0)
@example(sizes=[1], lanes=6, live=1, seed=0, epoch=0)
def test_lanes_equal_the_rule_in_python_integers(sizes, lanes, live, seed, epoch):
    ptr = pointers(sizes)
    ids = [list(range(a, b)) for a, b in zip(ptr, ptr[1:], strict=False)]
    expected = order_oracle.epoch_lanes(ids, lanes, live, seed, epoch)
    assert [windows(lane) for lane in lanes_of(sizes, lanes, live, seed, epoch)] == expected


@given(sizes=block_sizes, entries=st.lists(st.integers(0, 24), max_size=40), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_repeated_and_omitted_blocks_follow_the_same_rule(sizes, entries, seed):
    entries = sorted(e for e in entries if e < len(sizes))
    ptr = pointers(sizes)
    ids = [list(range(a, b)) for a, b in zip(ptr, ptr[1:], strict=False)]
    lanes = order_epoch(ptr, np.array(entries, dtype=np.int64), 3, 9, seed, 1)
    assert [windows(lane) for lane in lanes] == order_oracle.epoch_lanes(ids, 3, 9, seed, 1, entries)


@given(
    sizes=block_sizes, lanes=st.integers(1, 6), live=st.integers(1, 40), seed=st.integers(0, 99), shuffled=st.booleans()
)
@settings(max_examples=60)
def test_every_window_is_in_one_lane_once(sizes, lanes, live, seed, shuffled):
    order = lanes_of(sizes, lanes, live, seed, 0, shuffled=shuffled)
    assert sorted(w for lane in order for w in windows(lane)) == list(range(sum(sizes)))


@given(sizes=block_sizes, live=st.integers(1, 30), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=60)
def test_a_lane_entered_anywhere_goes_on_as_if_read_from_the_start(sizes, live, seed, data):
    lane = lanes_of(sizes, 1, live, seed, 2)[0]
    whole = windows(lane)
    position = data.draw(st.integers(0, len(whole) + 2), label="position")
    assert windows(lane, position) == whole[position:]


def test_a_lane_in_many_pieces_equals_the_rule():
    # 90 blocks of 8,000 windows: the lane comes in several bands, each of which needs blocks of the band before.
    sizes = [8_000] * 90
    lane = lanes_of(sizes, 1, 7, 3, 1)[0]
    pieces = list(lane.windows_from(0))
    assert len(pieces) > 2
    keys = {}
    for i, block in enumerate(lane.block.tolist()):
        rank = np.empty(8_000, dtype=np.int64)
        rank[np.argsort(random_words(3, 1, block, 2, 8_000), kind="stable")] = np.arange(8_000)
        f = order_oracle.phase(3, 1, block)
        for w in (0, 1, 3_999, 7_999):
            keys[8_000 * block + w] = (order_oracle.window_key(i, int(rank[w]), f, 8_000, 7, 90), i, int(rank[w]))
    order = np.concatenate(pieces)
    place = {int(w): n for n, w in enumerate(order) if int(w) in keys}
    assert sorted(keys, key=keys.__getitem__) == sorted(keys, key=place.__getitem__)
    np.testing.assert_array_equal(np.sort(order), np.arange(720_000))
    np.testing.assert_array_equal(np.concatenate(list(lane.windows_from(500_123))), order[500_123:])


@given(n=st.integers(3, 40), live=st.integers(1, 40), per_block=st.integers(1, 50), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_at_most_p_plus_one_blocks_are_live_at_any_window(n, live, per_block, seed):
    lane = lanes_of([per_block] * n, 1, live, seed, 0)[0]
    block = np.array(windows(lane)) // per_block
    first, last, gaps = {}, {}, {}
    for place, b in enumerate(block.tolist()):
        first.setdefault(b, place)
        if b in last and place - last[b] > gaps.get(b, (0, 0, 0))[0]:
            gaps[b] = (place - last[b], last[b], place)
        last[b] = place
    # A block of the wrap is read twice: at the start of the lane and, again, at its end. It is live in both stretches.
    wrapped = {lane.block[i] for i in range(max(0, n - lane.live), n)}
    live_at = np.zeros(len(block), dtype=int)
    for b in first:
        stretches = [(first[b], last[b])]
        if b in wrapped and b in gaps:
            stretches = [(first[b], gaps[b][1]), (gaps[b][2], last[b])]
        for low, high in stretches:
            live_at[low : high + 1] += 1
    assert live_at.max() <= lane.live + 1


@given(
    n_windows=st.lists(st.integers(1, 2**21), min_size=1, max_size=50),
    live=st.integers(1, 2**20),
    lanes=st.integers(1, 64),
)
def test_p_is_capped_by_blocks_and_by_the_range_of_int64(n_windows, live, lanes):
    counts = np.array(n_windows, dtype=np.int64)
    capped = live_of_lane(live, lanes, counts)
    assert 1 <= capped <= len(counts)
    assert capped == 1 or counts.max() * capped <= MAX_WINDOWS_TIMES_LIVE
    assert capped == order_oracle.lane_live_blocks(live, lanes, n_windows)
    largest_numerator = ((int(counts.max()) << 16) * capped) << 20
    assert capped == 1 or largest_numerator < 2**63


def test_the_deal_gives_each_block_to_the_lane_with_the_fewest_windows():
    sizes = [5, 1, 9, 2, 2, 7, 1, 1, 30, 4]
    order = lanes_of(sizes, 3, 4, 0, 0)
    dealt = order_oracle.deal(sizes, 3, 0, 0)
    assert [lane.block.tolist() for lane in order] == dealt
    assert max(lane.n_windows for lane in order) - min(lane.n_windows for lane in order) <= max(sizes)


def test_epochs_and_seeds_differ_and_the_same_ones_agree():
    sizes = [40] * 30
    first = [windows(lane) for lane in lanes_of(sizes, 2, 8, 5, 0)]
    assert first == [windows(lane) for lane in lanes_of(sizes, 2, 8, 5, 0)]
    assert first != [windows(lane) for lane in lanes_of(sizes, 2, 8, 5, 1)]
    assert first != [windows(lane) for lane in lanes_of(sizes, 2, 8, 6, 0)]


def test_the_start_the_middle_and_the_end_of_an_epoch_mix_equally_many_blocks():
    lane = lanes_of([200] * 100, 1, 25, 0, 0)[0]
    block = np.array(windows(lane)) // 200
    distinct = [len(set(block[at : at + 200].tolist())) for at in range(0, len(block), 200)]
    assert min(distinct) >= 24
    assert max(distinct) <= 26 + 1


def test_without_shuffling_one_lane_is_the_table():
    assert windows(lanes_of([3, 1, 4, 1, 5], 1, 9, 0, 0, shuffled=False)[0]) == list(range(14))


def test_augmentation_draws_are_words_of_purpose_three():
    block, place = np.array([4, 4, 9, 0]), np.array([0, 5, 2, 7])
    shift, flip = draw_augmentation(3, 2, block, place, jitter=10)
    words = [order_oracle.raw_draws(3, 2, int(b), 3, 8)[p] for b, p in zip(block, place, strict=True)]
    assert shift.tolist() == [((w >> 32) * 21 >> 32) - 10 for w in words]
    assert flip.tolist() == [bool(w & 1) for w in words]


@pytest.mark.parametrize("jitter", [0, 1, 7])
def test_every_shift_within_the_jitter_occurs_equally_often(jitter):
    shift, flip = draw_augmentation(0, 0, np.zeros(30_000, dtype=np.int64), np.arange(30_000), jitter)
    counts = np.bincount(shift + jitter, minlength=2 * jitter + 1)
    expected = 30_000 / (2 * jitter + 1)
    assert len(counts) == 2 * jitter + 1
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected) + 1).all()
    assert abs(flip.mean() - 0.5) < 0.02


def test_the_order_has_not_changed():
    # Published runs resume by it: if this fails, the order of every stream has changed.
    lanes = lanes_of([5, 3, 7, 1, 4, 6, 2, 9], 2, 6, 7, 3)
    assert [windows(lane)[:10] for lane in lanes] == [
        [17, 8, 11, 18, 9, 13, 16, 12, 4, 10],
        [29, 6, 22, 28, 36, 25, 31, 7, 23, 33],
    ]
