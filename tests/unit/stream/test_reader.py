"""Blocks in memory: bounded, read once while live, shared tables that grow and close up."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import StoreError
from splicestore.schema import BLOCK_BASES
from splicestore.stream import WindowBatches
from splicestore.stream.live import SegmentPool
from tests.unit.stream.memory_store import table_store


@given(
    n_slots=st.integers(1, 6),
    puts=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60),
)
@settings(max_examples=80)
def test_segments_keep_their_values_whatever_is_put_beside_them(n_slots, puts):
    pool, expected = SegmentPool(n_slots, (np.int64, np.float32)), {}
    for number, (slot, length) in enumerate(puts):
        slot %= n_slots
        values = np.arange(length) + 1_000 * number
        pool.put(slot, (values, values.astype(np.float32)))
        expected[slot] = values
        for other, kept in expected.items():
            held = slice(pool.first[other], pool.first[other] + pool.count[other])
            np.testing.assert_array_equal(pool.columns[0][held], kept)
            np.testing.assert_array_equal(pool.columns[1][held], kept)
    most = n_slots * max((length for _, length in puts), default=0)
    assert len(pool.columns[0]) <= 1.5 * most


@pytest.mark.parametrize("lanes", [1, 4])
def test_live_blocks_stay_within_p_and_one_a_lane(lanes):
    store = table_store([[30] * 12, [50] * 10])
    stream = WindowBatches(
        store, split="run1", lanes=lanes, batch_size=8, shuffle_memory=20 * 2000, share="lanes", tail="short"
    )
    per_lane = stream.plan.live_total // lanes
    list(stream)
    statistics = stream.statistics()
    assert statistics["live_blocks_peak"] <= stream.plan.live_total + lanes
    # Read once, plus the blocks of the wrap.
    assert 22 <= statistics["blocks_read"] <= 22 + lanes * per_lane


def test_a_batch_of_more_blocks_than_fit_is_cut_in_pieces():
    store = table_store([[1] * 60], seed=3)
    stream = WindowBatches(store, split="run1", lanes=1, batch_size=60, shuffle_memory=1)
    (batch,) = list(stream)
    assert stream.statistics()["live_blocks_peak"] == 2
    assert sorted(batch.window_id.tolist()) == list(range(60))
    rows = dict(zip(batch.usage_row_window.tolist(), batch.alpha[:, 0].tolist(), strict=True))
    assert [rows.get(b) for b in range(60)] == [float(w) for w in batch.window_id]


def test_each_rank_reads_only_the_blocks_of_its_lanes():
    reads = []
    for rank in range(4):
        store = table_store([[3] * 40])
        list(WindowBatches(store, split="run1", batch_size=8, share="lanes", rank=rank, world_size=4))
        reads.append({low // BLOCK_BASES for low, _ in store.genomes.by_name["genome0"].reads})
    assert set().union(*reads) == set(range(40))
    assert sum(len(r) for r in reads) == 40


def test_statistics_count_what_was_handed_out():
    stream = WindowBatches(table_store([[30, 20]]), split="run1", batch_size=16)
    list(stream)
    statistics = stream.statistics()
    assert statistics["batches"] == len(stream)
    assert statistics["windows"] == 50
    assert statistics["live_blocks"] == 2
    assert statistics["bytes"] >= 2 * 15 * 8
    assert statistics["planned_windows"] == 50


def test_iterating_in_a_fork_of_a_process_that_read_is_refused():
    stream = WindowBatches(table_store([[30, 20]]), split="run1", batch_size=16)
    next(iter(stream))
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            next(iter(stream))
            answer = "no error"
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write_end, answer.encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end) as pipe:
        answer = pipe.read()
    assert answer.startswith("StoreError: ")
    assert f"was forked from {os.getpid()} after that had read" in answer
    assert 'multiprocessing_context="spawn"' in answer
    assert issubclass(StoreError, RuntimeError)


def test_an_error_of_the_store_reaches_the_consumer():
    store = table_store([[30, 20]])
    genome = store.genomes.by_name["genome0"]
    genome.read_bases = lambda start, end: (_ for _ in ()).throw(StoreError(f"chunk at {start} is damaged"))
    with pytest.raises(StoreError, match="is damaged"):
        next(iter(WindowBatches(store, split="run1", batch_size=16)))


def copies(stream):
    """Every batch of an epoch, copied before the next one is asked for."""
    return [{name: np.array(value) for name, value in batch.as_dict().items()} for batch in stream]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        for name, values in left.items():
            np.testing.assert_array_equal(values, right[name], err_msg=name)
            assert values.dtype == right[name].dtype


@pytest.mark.parametrize("memory", [20 * 2000, 1 << 30])
def test_reused_buffers_hold_what_new_arrays_hold_until_they_are_overwritten(memory):
    options = {"split": "run1", "batch_size": 16, "shuffle_memory": memory, "reverse_complement": True, "tail": "pad"}
    store = table_store([[30] * 12, [50] * 10])
    fresh, reused = WindowBatches(store, **options), WindowBatches(store, reuse_buffers=1, **options)
    assert_same(copies(reused), copies(fresh))
    held = []
    for batch in reused:
        held.append(batch.sequence)
    shared = [np.shares_memory(held[0], other) for other in held[1:3]]
    assert shared == [False, True]


def test_blocks_stay_in_memory_for_the_next_epoch_until_the_stream_is_closed():
    store = table_store([[30] * 12, [50] * 10])
    stream = WindowBatches(store, split="run1", batch_size=16)
    first = copies(stream)
    assert stream.statistics()["blocks_read"] == 22
    n_reads = store.n_requests
    assert_same(copies(stream), first)
    stream.set_epoch(1)
    list(stream)
    assert store.n_requests == n_reads
    assert stream.statistics()["blocks_read"] == 22
    stream.close()
    stream.set_epoch(0)
    assert_same(copies(stream), first)
    assert stream.statistics()["blocks_read"] == 44


def test_two_iterations_at_once_yield_what_each_would_alone():
    store = table_store([[30] * 12, [50] * 10])
    stream = WindowBatches(store, split="run1", batch_size=16, shuffle_memory=20 * 2000)
    alone = copies(stream)
    both = list(zip(stream, stream, strict=True))
    for side in (0, 1):
        assert_same([{n: np.array(v) for n, v in pair[side].as_dict().items()} for pair in both], alone)


def test_an_iteration_that_is_left_early_leaves_nothing_in_flight():
    stream = WindowBatches(table_store([[30] * 60]), split="run1", batch_size=16, shuffle_memory=20 * 2000)
    alone = copies(stream)
    for batch in stream:
        assert len(batch) == 16
        break
    assert_same(copies(stream), alone)


def test_reads_that_are_given_up_write_to_no_slot_in_use():
    """Left early again and again, the slow reads of the iteration before are still writing when the next one begins."""
    store = table_store([[30] * 60])
    stream = WindowBatches(store, split="run1", batch_size=16, shuffle_memory=20 * 2000)
    alone = copies(stream)
    genome = store.genomes.by_name["genome0"]
    read_bases, rng = genome.read_bases, np.random.default_rng(4)

    def slowly(start, end):
        time.sleep(float(rng.uniform(0, 0.003)))
        return read_bases(start, end)

    genome.read_bases = slowly
    slow = WindowBatches(store, split="run1", batch_size=16, shuffle_memory=20 * 2000)
    for n_taken in (1, 2, 1, 5, 1, 3):
        found = []
        for batch in slow:
            found.append({name: np.array(value) for name, value in batch.as_dict().items()})
            if len(found) == n_taken:
                break
        assert_same(found, alone[:n_taken])
    assert_same(copies(slow), alone)


def test_a_read_that_fails_gives_its_slot_back():
    store = table_store([[30] * 60])
    stream = WindowBatches(store, split="run1", batch_size=16, shuffle_memory=20 * 2000)
    alone = copies(stream)
    genome = store.genomes.by_name["genome0"]
    read_bases = genome.read_bases
    for n_good in range(0, 60, 7):
        left = iter(range(n_good))

        def failing(start, end, left=left):
            if next(left, None) is None:
                raise StoreError("cut off")
            return read_bases(start, end)

        genome.read_bases = failing
        stream.close()
        for _ in range(3):
            with pytest.raises(StoreError, match="cut off"):
                list(stream)
    genome.read_bases = read_bases
    assert_same(copies(stream), alone)


def test_what_is_read_ahead_is_bounded_in_bytes(monkeypatch):
    from splicestore.stream import reader

    in_flight = []
    submit = reader.BlockReader._submit

    def watched(self, block):
        submit(self, block)
        in_flight.append((len(self._in_flight), self._in_flight_bytes))

    monkeypatch.setattr(reader.BlockReader, "_submit", watched)
    sizes = [[30] * 60]
    for limit, most in ((1, 1), (1 << 40, reader.BLOCKS_IN_FLIGHT)):
        in_flight.clear()
        monkeypatch.setattr(reader, "BYTES_IN_FLIGHT", limit)
        list(WindowBatches(table_store(sizes), split="run1", batch_size=16, shuffle_memory=20 * 2000))
        assert max(n for n, _ in in_flight) == most


def test_statistics_say_how_long_the_consumer_waited():
    stream = WindowBatches(table_store([[30] * 12]), split="run1", batch_size=16)
    for _ in stream:
        pass
    found = stream.statistics()
    assert 0 < found["waiting_seconds"] <= found["seconds"]
    assert found["reading_seconds"] <= found["waiting_seconds"]
    assert found["waiting_share"] == found["waiting_seconds"] / found["seconds"]
    assert found["batches_per_second"] == found["batches"] / found["seconds"]
    assert found["cache_misses"] == 12
    assert found["cache_hits"] > 12
    assert found["requests"] == 12
