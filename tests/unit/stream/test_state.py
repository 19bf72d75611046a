"""States: what they hold, what they refuse, and how they print a difference."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from splicestore.errors import StateError
from splicestore.stream import WindowBatches
from tests.unit.stream.memory_store import table_store

BLOCKS = [[5, 9, 2, 8], [3, 1, 20]]


def make(**options) -> WindowBatches:
    return WindowBatches(table_store(BLOCKS), split="run1", **{"batch_size": 8, "seed": 4, **options})


def ids(stream) -> list[list[int]]:
    return [batch.window_id.tolist() for batch in stream]


def test_a_state_holds_what_the_contract_lists_and_survives_json():
    stream = make(genome_weights={"genome1": 2})
    state = stream.state_dict()
    assert state == json.loads(json.dumps(state))
    assert state == {
        "version": 2,
        "seed": 4,
        "batch_size": 8,
        "lanes": 8,
        "P": 56,
        "share": "replicate",
        "subset": "train",
        "filters": {
            "genomes": ["genome0", "genome1"],
            "conditions": ["liver"],
            "chromosomes": None,
            "geneless": 1.0,
            "siteless": 1.0,
            "max_n": 1.0,
            "min_coverage": 0.0,
            "window_weights": {},
        },
        "weights": {"genome1": 2.0},
        "window_size": 8,
        "context_size": 4,
        "jitter": 0,
        "reverse_complement": False,
        "shuffle": True,
        "tail": "short",
        "generations": {"genome0": "g1", "genome1": "g1"},
        "usage": {"genome0": [], "genome1": []},
        "split_digest": "d1",
        "epoch": 0,
        "step": 0,
    }


@pytest.mark.parametrize(
    ("options", "field", "theirs", "ours"),
    [
        ({"seed": 5}, "seed", "4", "5"),
        ({"batch_size": 16}, "batch_size", "8", "16"),
        ({"lanes": 4}, "lanes", "8", "4"),
        ({"shuffle_memory": 1}, "P", "56", "8"),
        ({"share": "lanes"}, "share", "replicate", "lanes"),
        ({"context_size": 3}, "context_size", "4", "3"),
        ({"context_size": 3, "jitter": 1}, "jitter", "0", "1"),
        ({"reverse_complement": True}, "reverse_complement", "False", "True"),
        ({"tail": "pad"}, "tail", "short", "pad"),
        ({"geneless": 0.5}, "filters.geneless", "1.0", "0.5"),
        ({"genomes": ["genome1"]}, "filters.genomes", "['genome0', 'genome1']", "['genome1']"),
        ({"conditions": []}, "filters.conditions", "['liver']", "[]"),
        ({"genome_weights": {"genome0": 2}}, "weights.genome0", "(absent)", "2.0"),
        ({"shuffle": False, "lanes": 8}, "shuffle", "True", "False"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_stream_is_refused_with_both_sides(options, field, theirs, ours):
    state = make().state_dict()
    stream = make(**options)
    with pytest.raises(StateError, match="does not belong to this stream") as raised:
        stream.load_state_dict(state)
    assert f"  {field}\n    state:  {theirs}\n    stream: {ours}\n" in str(raised.value)
    assert stream.state_dict()["step"] == 0


def test_a_republished_genome_is_refused_by_name():
    state = make().state_dict()
    store = table_store(BLOCKS)
    store.genomes.by_name["genome1"].generation = "g2"
    split = store.splits["run1"]
    store.splits["run1"] = replace(split, genome_generations={"genome0": "g1", "genome1": "g2"}, digest="d2")
    stream = WindowBatches(store, split="run1", batch_size=8, seed=4)
    with pytest.raises(StateError, match=re.escape("  generations.genome1\n    state:  g1\n    stream: g2")) as raised:
        stream.load_state_dict(state)
    assert "genome0" not in str(raised.value)
    assert "split_digest" in str(raised.value)


def test_lanes_and_tail_that_were_not_given_come_from_the_state():
    first = make(world_size=16, lanes=None, batch_size=16, tail="pad", rank=3)
    whole = ids(make(lanes=16, batch_size=16, tail="pad"))
    resumed = make(batch_size=16)
    resumed.load_state_dict({**first.state_dict(), "step": 1})
    assert ids(resumed) == whole[1:]


def test_a_world_size_that_does_not_divide_the_lanes_of_the_state_is_refused():
    state = make(lanes=4).state_dict()
    with pytest.raises(StateError, match=r"state:  lanes 4\n    stream: world_size 8"):
        make(world_size=8).load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 1_000}, "stands at step 1000, but epoch 0 has"),
        ({"step": -1}, "step must be a whole number from 0 on, got -1"),
        ({"epoch": "two"}, "epoch must be a whole number from 0 on, got 'two'"),
        ({"version": 1}, "  version\n    state:  1\n    stream: 2"),
        ({"extra": 1}, "  extra\n    state:  1\n    stream: (absent)"),
    ],
)
def test_a_damaged_state_is_refused(change, message):
    with pytest.raises(StateError, match=re.escape(message)):
        make().load_state_dict({**make().state_dict(), **change})


def test_setting_the_same_epoch_keeps_the_place_and_another_one_starts_anew():
    stream, whole = make(), ids(make())
    state = {**stream.state_dict(), "step": 2}
    stream.load_state_dict(state)
    stream.set_epoch(0)
    assert ids(stream) == whole[2:]
    stream.load_state_dict(state)
    stream.set_epoch(1)
    assert stream.state_dict()["step"] == 0
    other = make()
    other.set_epoch(1)
    assert ids(stream) == ids(other) != whole


def test_an_epoch_iterated_again_begins_at_its_first_step():
    stream = make()
    iterator = iter(stream)
    first = [next(iterator).window_id.tolist() for _ in range(2)]
    assert stream.state_dict()["step"] == 2
    iterator.close()
    assert ids(stream)[:2] == first
    assert stream.state_dict()["step"] == len(stream)


def test_a_state_after_the_last_batch_has_nothing_left_and_then_goes_on():
    stream = make()
    list(stream)
    resumed = make()
    resumed.load_state_dict(stream.state_dict())
    assert ids(resumed) == []
    resumed.set_epoch(1)
    assert sum(len(b) for b in ids(resumed)) == 48
