"""Real commands, killed with all they started: readers see old or new, and the same command finishes."""

from __future__ import annotations

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from splicestore.ingest import ingest_genomes, load_genomes_config
from splicestore.storage import StoreRoot, read_catalog, read_pointer
from splicestore.storage import lease as lease_module
from splicestore.storage.catalog import list_pointers
from tests.servers.kills import run_and_kill, splicestore_command
from tests.servers.s3 import moto_server
from tests.service.killing import (
    COMMANDS,
    GENOME,
    SPLIT_OPTIONS,
    STEPS,
    Kill,
    Place,
    Study,
    command_of,
    content,
    draw_kills,
    kill_and_check,
    prepare,
    step_of,
)
from tests.service.study import splicestore, write_study

SEED = 7
FEW = {"ingest": 3, "re-ingest": 3, "split": 2, "predict": 1}
"""Kills on disk in the default run."""
FEW_S3 = {"ingest": 2, "re-ingest": 2, "split": 2}
MANY = 8


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study.make(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def scenarios(study, tmp_path_factory):
    """Each command at each place, run once without a kill; made when first asked for."""
    known = {}
    with moto_server() as server:
        places = {
            "disk": Place("disk", str(tmp_path_factory.mktemp("stores"))),
            "s3": Place("s3", f"s3://{server.bucket()}", server.storage_options()),
        }

        def scenario(place, command):
            if (place, command) not in known:
                known[place, command] = prepare(command_of(study, command), places[place])
            return known[place, command]

        yield scenario


def check_all(scenario, kills):
    """Two kills at a time: the machines that run tests have at least two cores."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda item: kill_and_check(scenario, item[1], f"kill-{item[0]}"), enumerate(kills)))


@pytest.mark.parametrize(
    ("place", "command", "n"), [*(("disk", c, n) for c, n in FEW.items()), *(("s3", c, n) for c, n in FEW_S3.items())]
)
def test_killed_anywhere_it_is_old_or_new_and_the_same_command_finishes(scenarios, place, command, n):
    scenario = scenarios(place, command)
    assert len(check_all(scenario, draw_kills(scenario, n, SEED))) == n


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["disk", "s3"])
def test_killed_many_times(scenarios, place, command):
    scenario = scenarios(place, command)
    outcomes = check_all(scenario, draw_kills(scenario, MANY, SEED + 1))
    assert len({outcome.step for outcome in outcomes}) > 3


def test_every_write_belongs_to_a_step(scenarios):
    """What the benchmark counts by: an ingest has every step, and the lease comes first."""
    writes = scenarios("disk", "ingest").writes
    steps = Counter(step_of(write) for write in writes)
    assert set(steps) == set(STEPS)
    assert (steps["plan"], steps["manifest"], steps["complete"], steps["pointer"], steps["catalogue"]) == (2,) * 5
    assert [step_of(w) for w in writes[:2]] == ["lease", "lease"]
    assert [step_of(w) for w in writes[-2:]] == ["pointer", "catalogue"]


def test_workers_are_killed_with_the_command(study, tmp_path):
    """The command has worker processes: none of them outlives it, and the next run uses what they finished."""
    place = Place("disk", str(tmp_path))
    command = command_of(study, "ingest")
    parallel = SimpleNamespace(**{**vars(command), "words": (*command.words, "--scheduler", "processes:2")})
    parallel.line = lambda root, place: type(command).line(parallel, root, place)
    scenario = prepare(parallel, place)
    shard = next(w.number for w in scenario.writes if w.key.endswith("sequence/c/0"))
    assert scenario.writes[shard - 1].pid != scenario.writes[0].pid
    outcome = kill_and_check(scenario, Kill(shard, "after"), "killed")
    assert (outcome.step, outcome.saw) == ("shard", "old")


def test_an_extension_under_its_own_name_killed_before_the_catalogue_is_finished(tmp_path):
    """The second run finds nothing to add to the split that the first has switched to; the catalogue must say so too."""
    config, store = write_study(tmp_path / "in", n_genomes=2), tmp_path / "store"
    splicestore("ingest", "genomes", store, config, check=0)
    split = ("split", "windows", store, "run1", *SPLIT_OPTIONS)
    splicestore(*split, "--genome", GENOME, check=0)
    before = read_catalog(StoreRoot(str(store)))["splits"]["run1"]
    line = splicestore_command(*split, "--extend", "run1")
    shutil.copytree(store, tmp_path / "aside")
    whole = run_and_kill([str(tmp_path / "aside") if word == str(store) else word for word in line])
    assert step_of(whole.writes[-1]) == "catalogue"
    killed = run_and_kill(line, on_write=len(whole.writes))
    assert killed.status == -9
    root = StoreRoot(str(store))
    assert read_catalog(root)["splits"]["run1"] == before != read_pointer(root, "splits/run1").current
    again = run_and_kill(line)
    assert again.status == 0, again.stderr
    assert read_catalog(root) == list_pointers(root)


# -- every write, in this process --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moments(study, tmp_path_factory):
    """The store on disk after each key write of an ingest of a changed annotation: what a kill there leaves."""
    folder = tmp_path_factory.mktemp("moments")
    store = folder / "store"
    list(ingest_genomes(StoreRoot(str(store)), load_genomes_config(str(study.config))))
    old = content(StoreRoot(str(store)), f"genomes/{GENOME}")
    steps = []

    def copying(method):
        real = getattr(StoreRoot, method)

        def call(self, *arguments):
            answer = real(self, *arguments)
            shutil.copytree(store, folder / str(len(steps)))
            steps.append((method, arguments[0]))
            return answer

        return call

    with pytest.MonkeyPatch.context() as patch:
        for method in ("put", "create", "put_if", "remove"):
            patch.setattr(StoreRoot, method, copying(method))
        list(ingest_genomes(StoreRoot(str(store)), load_genomes_config(str(study.changed_config))))
    new = content(StoreRoot(str(store)), f"genomes/{GENOME}")
    return SimpleNamespace(folder=folder, steps=steps, old=old, new=new)


def check_moment(study, moments, at, monkeypatch):
    again = moments.folder / "again"
    shutil.rmtree(again, ignore_errors=True)
    shutil.copytree(moments.folder / str(at), again)
    root = StoreRoot(str(again))
    seen = content(root, f"genomes/{GENOME}")
    assert seen in (moments.old, moments.new)
    # Another process with this one's number: the one that held the leases is gone.
    monkeypatch.setattr(lease_module, "process_started", lambda pid: -1)
    list(ingest_genomes(root, load_genomes_config(str(study.changed_config))))
    assert content(root, f"genomes/{GENOME}") == moments.new, moments.steps[at]
    assert read_catalog(root) == list_pointers(root)
    return seen == moments.new


def test_what_every_tenth_write_leaves_on_disk(study, moments, monkeypatch):
    """And each of the last, from the manifest on."""
    n = len(moments.steps)
    chosen = sorted({*range(0, n, 10), *range(n - 9, n)})
    outcomes = [check_moment(study, moments, at, monkeypatch) for at in chosen]
    assert outcomes == sorted(outcomes), "new is never followed by old"
    assert set(outcomes) == {False, True}


@pytest.mark.slow
def test_what_every_write_leaves_on_disk(study, moments, monkeypatch):
    outcomes = [check_moment(study, moments, at, monkeypatch) for at in range(len(moments.steps))]
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}
