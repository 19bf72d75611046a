"""Lanes as tasks: together every window once, each by its own blocks, the same whoever runs them."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.cluster import open_executor
from splicestore.errors import ConfigError, FailedPartitionsError, ModelError, PlanError, StateError
from splicestore.schema import BLOCK_BASES
from splicestore.stream import WindowBatches, WindowLanes
from splicestore.stream.batch import ARRAY_FIELDS
from tests.unit.stream.memory_store import grid_split, make_store, random_genome, table_store

genome_blocks = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=8), min_size=1, max_size=3)


def ids(batches) -> list[list[int]]:
    return [batch.window_id.tolist() for batch in batches]


def run(lanes: WindowLanes, function, **options) -> list:
    with open_executor("sync") as executor:
        return list(lanes.map(function, executor, **options))


class Backwards:
    """An executor whose last task ends first."""

    n_workers = 1

    def map(self, function, tasks, *, names=None, memory=0):
        for index in reversed(range(len(tasks))):
            yield index, function(tasks[index])


@given(blocks=genome_blocks, lanes=st.integers(1, 40), batch_size=st.integers(1, 9), shuffle=st.booleans())
@settings(max_examples=60)
def test_every_window_comes_once_in_whole_batches(blocks, lanes, batch_size, shuffle):
    store = table_store(blocks)
    cut = WindowLanes(store, split="run1", lanes=lanes, batch_size=batch_size, shuffle=shuffle)
    n_windows, n_blocks = sum(map(sum, blocks)), sum(map(len, blocks))
    values = run(cut, ids)
    assert len(values) == len(cut) == min(lanes, n_blocks)
    assert sorted(w for value in values for batch in value for w in batch) == list(range(n_windows))
    for value in values:
        assert [len(batch) for batch in value[:-1]] == [batch_size] * (len(value) - 1)
        assert 0 < len(value[-1]) <= batch_size


@given(seed=st.integers(0, 1_000), jitter=st.integers(0, 4), flip=st.booleans(), shuffle=st.booleans())
@settings(max_examples=20)
def test_a_lane_is_what_a_rank_reads_array_by_array(seed, jitter, flip, shuffle):
    store = table_store([[9, 4, 7], [3]], seed=seed)
    options = {
        "shuffle": shuffle,
        "seed": seed,
        "jitter": jitter,
        "reverse_complement": flip,
        "context_size": 4 - jitter,
    }
    values = run(WindowLanes(store, split="run1", lanes=3, batch_size=4, **options), list)
    for lane, batches in enumerate(values):
        rank = WindowBatches(
            store, split="run1", lanes=3, batch_size=12, tail="short", share="lanes", rank=lane, world_size=3, **options
        )
        expected = [batch for batch in rank if len(batch)]
        assert len(batches) == len(expected)
        for ours, theirs in zip(batches, expected, strict=True):
            for name in ARRAY_FIELDS:
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_task_reads_the_blocks_of_its_lane_and_no_others():
    store = table_store([[3] * 40, [5] * 7])
    reads = {name: genome.reads for name, genome in store.genomes.by_name.items()}

    def blocks_needed_and_read(batches):
        """Blocks in which the windows of a lane lie, and those read since the task before."""
        needed = set()
        for batch in batches:
            names = [batch.genome_names[g] for g in batch.genome]
            needed |= set(zip(names, ((batch.start - 4) // BLOCK_BASES).tolist(), strict=True))
        found = [(name, low // BLOCK_BASES) for name, places in reads.items() for low, _ in places]
        for places in reads.values():
            places.clear()
        return needed, found

    values = run(WindowLanes(store, split="run1", lanes=6), blocks_needed_and_read)
    for needed, found in values:
        assert sorted(needed) == sorted(found)
    assert Counter(block for _, found in values for block in found) == dict.fromkeys(
        [("genome0", b) for b in range(40)] + [("genome1", b) for b in range(7)], 1
    )


@pytest.fixture(scope="module")
def mixed_store():
    rng = np.random.default_rng(8)
    genomes = [
        random_genome(rng, "hen", [900, 700], n_sites=12),
        random_genome(rng, "cow", [800], n_sites=9, conditions=("liver",)),
    ]
    return make_store(genomes, grid_split(genomes, 40, 10, rng, subset=None))


@pytest.mark.parametrize(
    "filters",
    [
        {"max_n": 0.15},
        {"min_coverage": 20.0},
        {"geneless": 0.3, "siteless": 0.4, "seed": 5},
        {"chromosomes": ["chr1"]},
        {"genomes": ["cow"], "subset": "val"},
    ],
    ids=lambda filters: ",".join(filters),
)
def test_windows_are_chosen_as_a_stream_chooses_them_and_only_once(mixed_store, filters):
    expected = sorted(
        w for batch in WindowBatches(mixed_store, split="run1", **filters) for w in batch.window_id.tolist()
    )
    assert expected
    everything = WindowBatches(mixed_store, split="run1", subset=filters.get("subset", "train")).plan.n_windows
    assert len(expected) < everything
    lanes = WindowLanes(mixed_store, split="run1", **filters)
    for genome in mixed_store.genomes.by_name.values():
        genome.reads.clear()
    assert sorted(w for value in run(lanes, ids) for batch in value for w in batch) == expected
    # One block a genome: choosing in the tasks would read them again.
    assert sum(len(genome.reads) for genome in mixed_store.genomes.by_name.values()) == len(lanes)


def test_values_come_in_the_order_of_the_lanes_or_as_they_end():
    lanes = WindowLanes(table_store([[2] * 9]), split="run1", lanes=5)
    expected = run(lanes, ids)
    assert list(lanes.map(ids, Backwards())) == expected
    assert list(lanes.map(ids, Backwards(), ordered=False)) == expected[::-1]


def test_threads_give_what_one_process_gives(mixed_store):
    lanes = WindowLanes(mixed_store, split="run1", batch_size=3, shuffle=True, seed=4)
    with open_executor("threads:2") as executor:
        assert list(lanes.map(ids, executor)) == run(lanes, ids)


def test_a_lane_that_is_not_read_to_its_end_leaves_no_thread():
    lanes = WindowLanes(table_store([[20] * 30]), split="run1", lanes=3, batch_size=2)
    before = set(threading.enumerate())
    assert run(lanes, lambda batches: next(batches).window_id.tolist()) == [[0, 1], [20, 21], [40, 41]]
    assert set(threading.enumerate()) <= before


def test_an_error_of_ours_ends_it_at_once():
    called = []

    def refuse(batches):
        called.append(len(next(batches)))
        raise ModelError("the model is broken")

    with pytest.raises(ModelError, match="the model is broken"):
        run(WindowLanes(table_store([[2] * 9]), split="run1", lanes=5), refuse)
    assert called == [4]  # of five lanes, the first alone


def test_lanes_that_fail_otherwise_are_named():
    def divide(batches):
        return [1 / (w - 6) for batch in batches for w in batch.window_id.tolist()]

    with pytest.raises(FailedPartitionsError, match=r"1 of 5 tasks failed, .*lane 3 of 5: ZeroDivisionError"):
        run(WindowLanes(table_store([[2] * 5]), split="run1", lanes=5), divide)


def test_usage_that_was_joined_again_meanwhile_is_refused():
    store = table_store([[2] * 5])
    lanes = WindowLanes(store, split="run1", lanes=5)
    store.genomes.by_name["genome0"].usage_generations = ("usage/genome0/main/1",)
    with pytest.raises(StateError, match=r"(?s)usage.genome0.*usage was joined again from other files"):
        run(lanes, ids)


def test_a_split_published_meanwhile_does_not_count():
    store = table_store([[2] * 5])
    lanes = WindowLanes(store, split="run1", lanes=5)
    expected = run(lanes, ids)
    store.splits["run1"] = table_store([[1] * 5]).splits["run1"]
    assert run(lanes, ids) == expected


@pytest.mark.parametrize("option", ["tail", "share", "rank", "world_size", "genome_weights", "window_weights"])
def test_options_that_would_repeat_or_drop_windows_are_refused(option):
    with pytest.raises(ConfigError, match=f"{option}: every window is read once"):
        WindowLanes(table_store([[2]]), split="run1", **{option: None})


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="lanes must be 1 or more, got 0"):
        WindowLanes(table_store([[2]]), split="run1", lanes=0)
    with pytest.raises(PlanError, match="batch_size 0"):
        WindowLanes(table_store([[2]]), split="run1", batch_size=0)


def test_workers_are_asked_for_the_memory_of_a_task():
    lanes = WindowLanes(table_store([[2] * 5]), split="run1")
    asked = []

    class Asking(Backwards):
        def map(self, function, tasks, *, names=None, memory=0):
            asked.append((names, memory))
            return super().map(function, tasks)

    list(lanes.map(ids, Asking(), memory=lanes.task_bytes))
    assert asked == [([f"lane {n} of 5" for n in range(5)], lanes.task_bytes)]
    assert lanes.task_bytes > int(lanes.plan.block_bytes.max())
