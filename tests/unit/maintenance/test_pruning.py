"""What nothing needs goes; a reader or a kill in between never sees a complete group with objects missing."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import ConfigError, StoreError, StoreNotFoundError
from splicestore.maintenance import parse_age, prune, verify
from splicestore.storage import Pointer, StoreRoot, generation_status, read_pointer, write_lease
from splicestore.storage.publish import switch_pointer
from tests.unit.maintenance.small_store import Killed, Kills, begin, dump, fill, generation, publish

NOW = timedelta(0)


def gone(report):
    return {item.key for item in report.removed}


def reasons(report):
    return {item.key: item.why for item in report.kept}


def supersede(root, path, base, days):
    """Say that a generation ceased to be current some days ago."""
    pointer = read_pointer(root, path)
    then = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    root.put(f"{path}/zarr.json", Pointer(pointer.current, {**pointer.superseded, generation(base): then}).spell())


def age(root, base, days):
    """Make files look old."""
    then = time.time() - days * 86_400
    for key in root.ages(base):
        os.utime(f"{root.url}/{base}/{key}", (then, then))


def test_only_what_nothing_needs_goes(root):
    keys = fill(root)
    report = prune(root, older_than=NOW)
    assert gone(report) == {keys["middle"], keys["never"], keys["unfinished"]}
    why = reasons(report)
    assert why[keys["old"]] in (f"pinned by {keys['split']}", f"pinned by {keys['scores']}")
    assert why[keys["new"]] == why[keys["old_usage"]] == why[keys["split"]] == "current"
    assert verify(root).findings == ()
    assert not any(key.startswith(tuple(gone(report))) for key in root.sizes(""))


def test_dry_run_says_the_same_and_touches_nothing(root):
    fill(root)
    whole = dump(root)
    planned = prune(root, older_than=NOW, dry_run=True)
    assert dump(root) == whole
    done = prune(root, older_than=NOW)
    assert [(i.key, i.n_objects, i.n_bytes) for i in planned.removed] == [
        (i.key, i.n_objects, i.n_bytes) for i in done.removed
    ]
    left = dump(root)
    assert done.n_bytes == sum(len(data) for key, data in whole.items() if key not in left)
    assert planned.as_dict()["dry_run"] is True


def test_default_age_keeps_what_was_superseded_lately(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    keys = fill(root)
    assert gone(prune(root)) == set()
    supersede(root, "genomes/a", keys["middle"], days=29)
    assert gone(prune(root)) == set()
    supersede(root, "genomes/a", keys["middle"], days=31)
    assert gone(prune(root)) == {keys["middle"]}


def test_unfinished_runs_and_partial_files_go_when_old(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    keys = fill(root)
    partial = f"{keys['new']}/sequence/c/0.x.partial"
    (tmp_path / "store" / partial).write_bytes(b"abc")
    age(root, keys["unfinished"], 31)
    age(root, keys["never"], 31)
    assert gone(prune(root)) == {keys["unfinished"], keys["never"]}
    age(root, keys["new"], 31)
    report = prune(root)
    assert gone(report) == {partial}
    assert report.n_bytes == 3
    assert verify(root).findings == ()


def test_a_run_that_still_writes_is_not_old(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    base = begin(root, "genomes/c", 7, ["sequence-0"])
    age(root, base, 31)
    root.put(f"{base}/sequence/c/1", b"new")
    assert gone(prune(root)) == set()


@pytest.mark.parametrize("job", ["", "1-of-2"])
def test_names_being_written_are_kept_whole(root, job):
    keys = fill(root)
    with write_lease(root, "genomes/a", job=job):
        report = prune(root, older_than=NOW)
    assert keys["middle"] not in gone(report)
    assert "being written by process" in reasons(report)[keys["middle"]]
    assert keys["unfinished"] in gone(report)


def test_a_lease_taken_after_the_look_keeps_the_name(root, monkeypatch):
    keys = fill(root)
    import sys

    module = sys.modules["splicestore.maintenance.pruning"]
    real = module._decide
    held = write_lease(root, "genomes/a")

    def decide_then_lease(*arguments):
        decided = real(*arguments)
        held.__enter__()
        return decided

    monkeypatch.setattr(module, "_decide", decide_then_lease)
    report = prune(root, older_than=NOW)
    held.__exit__(None, None, None)
    assert keys["middle"] not in gone(report)
    assert "is being written by process" in reasons(report)[keys["middle"]]
    assert generation_status(root, keys["middle"]) == "complete"


def test_a_generation_that_becomes_current_meanwhile_is_put_back(root, monkeypatch):
    keys = fill(root)
    real = StoreRoot.remove

    def remove_after_switch(self, names):
        names = list(names)
        if names == [f"{keys['middle']}/zarr.json"]:
            switch_pointer(root, "genomes/a", generation(keys["middle"]), digest=None, expected=None, force=True)
        real(self, names)

    monkeypatch.setattr(StoreRoot, "remove", remove_after_switch)
    assert keys["middle"] not in gone(prune(root, older_than=NOW))
    monkeypatch.undo()
    assert verify(root).is_intact
    assert read_pointer(root, "genomes/a").current == generation(keys["middle"])


def test_names_limit_what_goes_not_what_pins(root):
    keys = fill(root)
    assert gone(prune(root, older_than=NOW, names=["genomes/a"])) == {keys["middle"]}
    assert gone(prune(root, older_than=NOW, names=["genomes"])) == {keys["unfinished"]}
    assert reasons(prune(root, older_than=NOW, names=["genomes"]))[keys["never"]] == "not asked for"
    with pytest.raises(StoreNotFoundError, match="nothing lies below 'genomes/aa'"):
        prune(root, older_than=NOW, names=["genomes/aa"])


def test_pins_of_a_split_that_goes_do_not_count(root):
    keys = fill(root)
    publish(root, "splits/run1", 12, {"pins": {"a": generation(keys["new"])}})
    # Still pinned: the predictions pin the genome and, by its generation, the old split.
    assert {keys["old"], keys["split"]} <= set(reasons(prune(root, older_than=NOW)))
    publish(root, "predictions/p", 13, {"pins": {"genomes": {}, "usage": {}, "model": "m", "split": None}})
    assert gone(prune(root, older_than=NOW)) == {keys["scores"], keys["split"], keys["old"]}
    assert verify(root).is_intact


def test_damaged_pointers_and_pins_stop_everything(root):
    keys = fill(root)
    whole = dump(root)
    for key in ("genomes/b/zarr.json", f"{keys['split']}/zarr.json"):
        root.put(key, whole[key][:-1] + b"]")
        before = dump(root)
        with pytest.raises(StoreError, match=r"cannot tell what .* nothing was removed: .*the document is damaged"):
            prune(root, older_than=NOW)
        assert dump(root) == before
        root.put(key, whole[key])


def test_a_kill_at_any_write_leaves_a_sound_store_and_the_same_command_finishes(tmp_path, monkeypatch):
    template = tmp_path / "template"
    made = StoreRoot(str(template))
    bases = [publish(made, "genomes/a", seed) for seed in range(3)]
    bases.append(publish(made, "splits/run1", 0, {"pins": {"a": generation(bases[0])}}))
    bases.append(begin(made, "genomes/a", 9, ["sequence-0"]))
    whole = tmp_path / "whole"
    shutil.copytree(template, whole)
    kills = Kills(monkeypatch, StoreRoot)
    kills.watch(str(whole))
    prune(StoreRoot(str(whole)), older_than=NOW)
    n_writes, wanted = kills.n, dump(StoreRoot(str(whole)))
    assert n_writes > 20
    monkeypatch.setattr("splicestore.storage.lease.holder_is_dead", lambda holder: True)
    import sys

    monkeypatch.setattr(sys.modules["splicestore.maintenance.pruning"], "holder_is_dead", lambda holder: True)
    n_complete = set()
    for stop in range(n_writes):
        store = tmp_path / f"kill{stop}"
        shutil.copytree(template, store)
        root = StoreRoot(str(store))
        kills.watch(str(store), stop)
        with pytest.raises(Killed):
            prune(root, older_than=NOW)
        kills.watch("")
        # Whatever calls itself complete is whole, down to its bytes.
        assert verify(root).is_intact
        n_complete.add(sum(generation_status(root, base) == "complete" for base in bases))
        prune(root, older_than=NOW)
        left = dump(root)
        assert {key: left[key] for key in wanted} == wanted
        assert {key for key in left if key not in wanted} <= {key for key in left if key.endswith("/lease.json")}
        shutil.rmtree(store)
    assert n_complete == {4, 3}


@given(number=st.integers(0, 10_000), unit=st.sampled_from("smhdw"))
def test_ages_are_read(number, unit):
    seconds = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}[unit]
    assert parse_age(f"{number}{unit}") == timedelta(seconds=number * seconds)
    assert parse_age("0") == timedelta(0)


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "30 days"])
def test_other_ages_are_refused(text):
    with pytest.raises(ConfigError, match="write a number and s, m, h, d or w, as in 30d"):
        parse_age(text)
