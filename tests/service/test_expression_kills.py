"""Ingest, fit and apply of expression killed at any write: readers see nothing new or all of it, the same command finishes."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest

import splicestore as ss
from splicestore.storage import StoreRoot
from tests.servers.kills import processes_left, run_and_kill, splicestore_command
from tests.unit.expression.files import random_counts, write_table

N_GENES = 600
KINDS = {"ingest": "expression", "fit": "normalized", "apply": "bins"}
ARRAYS = {"ingest": "counts", "fit": "edges", "apply": "bins"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("counts") / "x.tsv"
    counts = random_counts(5, 40, N_GENES)
    return write_table(path, counts, [f"g{i}" for i in range(N_GENES)], [f"s{i}" for i in range(40)])


def command_of(what, store, table):
    """Spell one of the three commands."""
    words = {
        "ingest": ("ingest", "expression", store, "x", table),
        "fit": ("normalize", "fit", store, "x", "--expression", "x", "--n-bins", 7, "--no-qc"),
        "apply": ("normalize", "apply", store, "x", "--edges", "x"),
    }
    return splicestore_command(*words[what])


@pytest.fixture(scope="module")
def before(tmp_path_factory, table):
    """A store as each command finds it, what it writes there, and what comes of it undisturbed."""
    found, folder = {}, tmp_path_factory.mktemp("whole")
    store = folder / "store"
    for what in KINDS:
        ready = folder / f"before-{what}"
        if store.exists():
            shutil.copytree(store, ready)
        else:
            ready.mkdir()
        run = run_and_kill(command_of(what, store, table))
        assert run.status == 0, run.stderr
        found[what] = (ready, len(run.writes), values(store, what))
    return found


def values(store, what):
    """The array that a command publishes, decoded; None where nothing of it is published."""
    root = StoreRoot(str(store))
    if not root.sizes("") or root.read("zarr.json") is None:
        return None
    views = getattr(ss.open_store(root.url), KINDS[what])
    return views["x"].to_xarray()[ARRAYS[what]].values if "x" in views else None


def kill_and_check(tmp_path, before, table, what, number, when):
    ready, _, whole = before[what]
    store = tmp_path / f"{what}-{number}-{when}"
    shutil.copytree(ready, store)
    killed = run_and_kill(command_of(what, store, table), on_write=number, when=when)
    assert killed.status == -9
    assert not processes_left(killed.marker)
    seen = values(store, what)
    assert seen is None or np.array_equal(seen, whole, equal_nan=True)
    again = run_and_kill(command_of(what, store, table))
    assert again.status == 0, again.stderr
    np.testing.assert_array_equal(values(store, what), whole)
    parts = [write.key for write in (*killed.writes, *again.writes) if "/parts/" in write.key and write.state == "done"]
    # What was finished before the kill is not done again.
    assert len(parts) == len(set(parts)), parts


def kills(before, what, n, seed):
    chosen = random.Random(f"{seed} {what}").sample(range(1, before[what][1] + 1), n)
    return [(number, "before" if i % 2 else "after") for i, number in enumerate(chosen)]


@pytest.mark.parametrize("what", KINDS)
def test_killed_anywhere_and_run_again(tmp_path, before, table, what):
    for number, when in kills(before, what, 2, 1):
        kill_and_check(tmp_path, before, table, what, number, when)


@pytest.mark.slow
@pytest.mark.parametrize("what", KINDS)
def test_killed_many_times(tmp_path, before, table, what):
    for number, when in kills(before, what, 8, 2):
        kill_and_check(tmp_path, before, table, what, number, when)
