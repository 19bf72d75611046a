"""Laws of streams: every window once, ranks disjoint and complete, resumed anywhere equals uninterrupted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import PlanError
from splicestore.stream import WindowBatches
from splicestore.stream.batch import ARRAY_FIELDS
from tests.oracles import order_oracle
from tests.unit.stream.memory_store import MemoryStore, table_store

WORLDS = (1, 2, 4, 8)
genome_blocks = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=8), min_size=1, max_size=3)
tails = st.sampled_from(["short", "pad", "drop"])
shares = st.sampled_from(["lanes", "replicate"])


def stream_of(store: MemoryStore, **options) -> WindowBatches:
    return WindowBatches(store, split="run1", **{"batch_size": 16, "seed": 3, "tail": "short", **options})


def stream_unless_all_dropped(store: MemoryStore, **options) -> WindowBatches | None:
    """None where ``drop`` leaves no whole batch, which is refused."""
    try:
        return stream_of(store, **options)
    except PlanError:
        return None


def ids(stream) -> list[list[int]]:
    return [batch.window_id.tolist() for batch in stream]


def assert_equal_batches(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for name in ARRAY_FIELDS:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert (a.step, a.global_rows) == (b.step, b.global_rows)


@given(
    blocks=genome_blocks, lanes=st.integers(1, 6), per_lane=st.integers(1, 4), seed=st.integers(0, 99), data=st.data()
)
@settings(max_examples=50)
def test_batches_are_those_of_the_rule_for_every_tail(blocks, lanes, per_lane, seed, data):
    store = table_store(blocks)
    sizes = [n for genome in blocks for n in genome]
    ends = np.cumsum(sizes)
    windows = [list(range(e - n, e)) for e, n in zip(ends.tolist(), sizes, strict=True)]
    tail = data.draw(tails, label="tail")
    epoch = data.draw(st.integers(0, 3), label="epoch")
    memory = data.draw(st.sampled_from([1, 8_000, 1 << 29]), label="memory")
    options = {"lanes": lanes, "batch_size": lanes * per_lane, "seed": seed, "shuffle_memory": memory, "tail": tail}
    stream = stream_unless_all_dropped(store, **options)
    if stream is None:
        assert tail == "drop"
        return
    ordered = order_oracle.epoch_lanes(windows, lanes, stream.plan.live_total, seed, epoch)
    expected = order_oracle.epoch_batches(ordered, lanes * per_lane, tail=tail)
    stream.set_epoch(epoch)
    if not expected:
        with pytest.raises(PlanError, match="drops all"):
            len(stream)
        return
    assert len(stream) == len(expected)
    assert ids(stream) == expected


@given(blocks=genome_blocks, tail=tails, seed=st.integers(0, 99))
@settings(max_examples=40)
def test_every_window_comes_exactly_once(blocks, tail, seed):
    store = table_store(blocks)
    n = sum(map(sum, blocks))
    stream = stream_unless_all_dropped(store, lanes=2, batch_size=4, tail=tail, seed=seed)
    if stream is None:
        assert tail == "drop"
        return
    batches = ids(stream)
    real = [w for batch in batches for w in batch if w >= 0]
    assert len(set(real)) == len(real)
    if tail == "drop":
        assert all(len(batch) == 4 for batch in batches)
        assert set(real) <= set(range(n))
    else:
        assert sorted(real) == list(range(n))
    if tail == "pad":
        assert all(len(batch) == 4 for batch in batches)


@given(blocks=genome_blocks, tail=tails, share=shares, seed=st.integers(0, 99), augmented=st.booleans())
@settings(max_examples=15)
def test_the_global_batch_is_the_same_for_any_world_size(blocks, tail, share, seed, augmented):
    blocks = [[n + 4 for n in genome] for genome in blocks] * 3
    store = table_store(blocks)
    augment = {"context_size": 2, "jitter": 2, "reverse_complement": True} if augmented else {}
    options = {"lanes": 8, "batch_size": 16, "tail": tail, "share": share, "seed": seed, **augment}
    stream = stream_unless_all_dropped(store, **options)
    if stream is None:
        assert tail == "drop"
        return
    alone = list(stream)
    for world in WORLDS:
        ranks = [list(stream_of(store, rank=r, world_size=world, **options)) for r in range(world)]
        assert {len(batches) for batches in ranks} == {len(alone)}
        for step, whole in enumerate(alone):
            assert {rank[step].global_rows for rank in ranks} == {whole.global_rows}
            assert sum(int((rank[step].window_id >= 0).sum()) for rank in ranks) == whole.global_rows
            key = [
                sorted(zip(b.window_id.tolist(), b.start.tolist(), b.strand.tolist(), strict=True))
                for b in (rank[step] for rank in ranks)
            ]
            together = sorted(row for rows in key for row in rows)
            assert together == sorted(
                zip(whole.window_id.tolist(), whole.start.tolist(), whole.strand.tolist(), strict=True)
            )
            if tail == "pad":
                assert {len(rank[step]) for rank in ranks} == {16 // world}


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_of_lanes_yield_the_oracles_rows(world):
    blocks = [[9, 4, 6, 6, 2], [7] * 12]
    store = table_store(blocks)
    sizes = [n for genome in blocks for n in genome]
    ends = np.cumsum(sizes)
    windows = [list(range(e - n, e)) for e, n in zip(ends.tolist(), sizes, strict=True)]
    for rank in range(world):
        stream = stream_of(store, lanes=8, rank=rank, world_size=world, share="lanes")
        ordered = order_oracle.epoch_lanes(windows, 8, stream.plan.live_total, 3, 0)
        assert ids(stream) == order_oracle.epoch_batches(ordered, 16, rank=rank, world=world)


@pytest.mark.parametrize("tail", ["short", "pad", "drop"])
@pytest.mark.parametrize("share", ["lanes", "replicate"])
def test_a_stream_restored_at_every_step_gives_the_same_tail(tail, share):
    store = table_store([[11, 5, 9, 14], [3, 8, 2, 2, 17]])
    options = {"lanes": 4, "batch_size": 4, "tail": tail, "share": share, "shuffle_memory": 30_000}
    options |= {"context_size": 2, "jitter": 2, "reverse_complement": True}
    running = stream_of(store, **options)
    running.set_epoch(2)
    whole = list(running)
    assert len(whole) == len(running) > 5
    states = [stream_of(store, **options).state_dict() | {"epoch": 2}]
    states += [running.state_dict() for _ in running]
    assert [state["step"] for state in states] == list(range(len(whole) + 1))
    for step, state in enumerate(states):
        resumed = stream_of(store, **options)
        resumed.load_state_dict(state)
        assert resumed.epoch == 2
        assert_equal_batches(list(resumed), whole[step:])


@pytest.mark.parametrize("world", WORLDS)
def test_a_state_of_one_world_resumes_in_another(world):
    store = table_store([[11, 5, 9, 14], [3, 8, 2, 2, 17]])
    alone = stream_of(store, lanes=8)
    whole = ids(alone)
    iterator = iter(stream_of(store, lanes=8, rank=world - 1, world_size=world))
    next(iterator)
    iterator.close()
    first = stream_of(store, lanes=8, rank=world - 1, world_size=world)
    for _, _ in zip(range(2), first, strict=False):
        state = first.state_dict()
    alone.load_state_dict(state)
    assert ids(alone) == whole[state["step"] :]


def test_epochs_differ_and_the_same_epoch_agrees():
    store = table_store([[11, 5, 9, 14], [3, 8, 2, 2, 17]])
    stream = stream_of(store)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        orders.append(ids(stream))
    assert orders[0] == orders[2] != orders[1]
    assert sorted(sum(orders[0], [])) == sorted(sum(orders[1], []))


def test_changing_what_is_drawn_for_augmentation_does_not_change_the_order():
    store = table_store([[11, 5, 9, 14], [3, 8, 2, 2, 17]])
    plain = ids(stream_of(store, context_size=2))
    assert ids(stream_of(store, context_size=2, reverse_complement=True)) == plain


def test_the_first_windows_of_a_stream_have_not_changed():
    store = table_store([[11, 5, 9, 14], [3, 8, 2, 2, 17]])
    stream = WindowBatches(store, split="run1", batch_size=8, seed=12, lanes=4, shuffle_memory=1 << 29)
    stream.set_epoch(5)
    assert [w for batch in ids(stream) for w in batch][:20] == [
        32,
        30,
        16,
        50,
        62,
        64,
        0,
        10,
        38,
        12,
        24,
        41,
        54,
        60,
        44,
        5,
        29,
        28,
        21,
        18,
    ]
