"""Dask workers that are processes: who does what, what they read, and what is left when one of them dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster, WorkerPlugin

from splicestore import open_store
from splicestore.readers.fasta import SLAB_BYTES
from splicestore.schema import SEQUENCE_SHARD
from splicestore.storage import StoreRoot
from tests.servers.process import REPOSITORY
from tests.servers.rules import latency
from tests.service.remote import Done, check, cli, objects_of, one_line, option_words
from tests.service.study import write_study

pytest_plugins = ["tests.servers.fixtures"]

N_GENOMES = 6
STARTING_S = 60
"""A worker imports for a second, on a busy machine for many."""


def task_log(folder, *, warm=True):
    """A plugin that writes a line per task of a worker: which, by whom, and how many bytes the process read meanwhile.

    Parameters
    ----------
    warm
        Import what tasks need when the worker starts: what is read once per process is no part of a task's input.
    """

    # Defined here, so that it travels by value: a worker that imported this module would import all that it tests.
    class TaskLog(WorkerPlugin):
        name = "task-log"

        def setup(self, worker):
            if warm:
                import splicestore.ingest.genomes  # noqa: F401
            self.pid, self.begun = os.getpid(), {}

        def transition(self, key, start, finish, *args, **kwargs):
            if finish == "executing":
                self.begun[key] = self.bytes_read()
            elif start == "executing":
                line = {"key": str(key), "pid": self.pid, "to": finish, "read": self.bytes_read() - self.begun[key]}
                with open(f"{folder}/{self.pid}", "a") as file:
                    file.write(json.dumps(line) + "\n")

        def bytes_read(self):
            with open("/proc/self/io") as file:
                return int(file.readline().split()[1])

    return TaskLog()


def logged(folder):
    """Lines of all workers."""
    return [json.loads(line) for path in folder.iterdir() for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Small genomes, more than twice as many as workers: each is one task. And their store, made by one process."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder / "in", n_genomes=N_GENOMES)
    check(cli("ingest", "genomes", folder / "store", folder / "in" / "genomes.json"))
    return folder


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """Two worker processes with a log of their tasks."""
    folder = tmp_path_factory.mktemp("log")
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=STARTING_S)
        client.register_plugin(task_log(str(folder)))
        yield cluster, folder


@pytest.fixture
def log(two_workers):
    """Folder of the log, emptied."""
    for path in two_workers[1].iterdir():
        path.unlink()
    return two_workers[1]


def ingest(store, study, *words, root=None):
    options = option_words(root.storage_options) if root else []
    return cli("ingest", "genomes", store, study / "in" / "genomes.json", *words, *options)


def same_store(store, study):
    """Compare a store with the one that one process made, byte for byte."""
    found, expected = (objects_of(StoreRoot(str(folder))) for folder in (store, study / "store"))
    assert found.keys() == expected.keys()
    assert [key for key in found if found[key] != expected[key]] == []


# -- results, tasks and who did them -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheduler",
    ["threads:2", pytest.param("processes:2", marks=pytest.mark.slow), pytest.param("sync", marks=pytest.mark.slow)],
)
def test_every_scheduler_writes_the_same_bytes(tmp_path, study, scheduler):
    check(ingest(tmp_path / "store", study, "--scheduler", scheduler))
    same_store(tmp_path / "store", study)


@pytest.mark.parametrize("given", ["address", "file"])
def test_both_workers_work_and_each_genome_is_one_task(tmp_path, study, two_workers, log, given):
    cluster, _ = two_workers
    scheduler = cluster.scheduler_address
    if given == "file":
        (tmp_path / "scheduler.json").write_text(json.dumps({"address": scheduler}))
        scheduler = str(tmp_path / "scheduler.json")
    check(ingest(tmp_path / "store", study, "--scheduler", scheduler))
    same_store(tmp_path / "store", study)
    lines = logged(log)
    assert len(lines) == len({line["key"] for line in lines}) == N_GENOMES
    assert Counter(line["to"] for line in lines) == {"memory": N_GENOMES}
    assert len({line["pid"] for line in lines}) == 2
    assert os.getpid() not in {line["pid"] for line in lines}
    assert cluster.status.name == "running"


def test_an_active_client_is_used_unasked(tmp_path, study, two_workers, log):
    from splicestore.ingest import IngestOptions, ingest_genomes, load_genomes_config

    config = load_genomes_config(str(study / "in" / "genomes.json"))
    with Client(two_workers[0]) as client:
        reports = list(ingest_genomes(StoreRoot(str(tmp_path / "store")), config, IngestOptions(scheduler="auto")))
        assert client.status == "running"
    assert {r.genome_id for r in reports} == {f"toy{i + 1}" for i in range(N_GENOMES)}
    assert len({line["pid"] for line in logged(log)}) == 2
    same_store(tmp_path / "store", study)


def test_what_is_done_is_no_task_again(tmp_path, study, two_workers, log):
    words = ("--scheduler", two_workers[0].scheduler_address)
    check(ingest(tmp_path / "store", study, "--genome", "toy1"))
    check(ingest(tmp_path / "store", study, *words))
    before = StoreRoot(str(tmp_path / "store")).sizes("")
    done = check(ingest(tmp_path / "store", study, *words, "--json"))
    assert {g["status"] for g in json.loads(done.stdout)["genomes"].values()} == {"unchanged"}
    assert StoreRoot(str(tmp_path / "store")).sizes("") == before


def test_a_split_on_workers_is_the_split_of_one_process(tmp_path, study, two_workers):
    shutil.copytree(study / "store", tmp_path / "two")
    shutil.copytree(study / "store", tmp_path / "one")
    words = ("--orthology", study / "in" / "orthologs.tsv", "--reference-genome", "toy1", "--test-chromosomes", "chrB",
             "--window-size", "400", "--context-size", "100")  # fmt: skip
    check(cli("split", "windows", tmp_path / "two", "run1", *words, "--scheduler", two_workers[0].scheduler_address))
    check(cli("split", "windows", tmp_path / "one", "run1", *words))
    assert objects_of(StoreRoot(str(tmp_path / "two"))) == objects_of(StoreRoot(str(tmp_path / "one")))


# -- partitions of one genome ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_genome(tmp_path_factory):
    """One genome of three shards in two contigs, without annotation; lines of 60 bases."""
    folder = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(0)
    with (folder / "long.fa").open("wb") as file:
        for name, n_lines in (("c1", 800_000), ("c2", 600_000)):
            file.write(f">{name}\n".encode())
            lines = np.full((n_lines, 61), ord("\n"), dtype=np.uint8)
            lines[:, :60] = np.frombuffer(b"ACGT", dtype=np.uint8)[rng.integers(0, 4, (n_lines, 60), dtype=np.uint8)]
            file.write(lines.tobytes())
    config = {"genomes": [{"genome_id": "long", "fasta": "long.fa"}]}
    (folder / "genomes.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_a_partition_reads_its_part_of_the_file(tmp_path, long_genome, two_workers, log):
    scheduler = two_workers[0].scheduler_address
    check(cli("ingest", "genomes", tmp_path / "two", long_genome / "genomes.json", "--scheduler", scheduler))
    lines = logged(log)
    assert len(lines) == 3
    assert len({line["pid"] for line in lines}) == 2
    text = SEQUENCE_SHARD * 61 // 60
    for line in lines:
        assert line["read"] <= text + 2 * SLAB_BYTES + (1 << 20), line
    # Together they read the file about once.
    assert sum(line["read"] for line in lines) <= (long_genome / "long.fa").stat().st_size + 3 * (
        2 * SLAB_BYTES + (1 << 20)
    )
    check(cli("ingest", "genomes", tmp_path / "one", long_genome / "genomes.json"))
    assert objects_of(StoreRoot(str(tmp_path / "two"))) == objects_of(StoreRoot(str(tmp_path / "one")))


# -- deaths ------------------------------------------------------------------------------------------------------


def command(*words):
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "splicestore", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip


def ended(process, timeout=120):
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Done(process.returncode, out, err)


@contextmanager
def dask_processes(folder, *workers):
    """A scheduler and workers as a user starts them, each with its options; yields the scheduler's file and processes."""
    file = folder / "scheduler.json"

    def start(name, *words):
        stack.enter_context(
            process := subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + name, *words, "--no-dashboard"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY, start_new_session=True,
            )
        )  # fmt: skip
        stack.callback(kill_group, process)
        return process

    with ExitStack() as stack:
        words = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        scheduler = start("dask_scheduler", *words)
        started = [
            start(
                "dask_worker",
                "--scheduler-file",
                str(file),
                "--nthreads",
                "1",
                "--local-directory",
                str(folder),
                *options,
            )
            for options in workers
        ]
        until = time.monotonic() + STARTING_S
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(len(workers), timeout=STARTING_S)
        yield file, scheduler, started


def kill_group(process):
    """Kill a process of ours and the session that it leads: a nanny's worker outlives it otherwise."""
    for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
        child.kill()
    process.kill()


@pytest.fixture
def slow_store(s3, s3_proxy, s3_bucket):
    """A store whose every request takes a while: there is time to kill somebody."""
    s3_proxy.set(latency(25))
    return StoreRoot(f"s3://{s3_bucket}/st", s3.storage_options(s3_proxy.url))


def wait_for(condition, seconds=STARTING_S):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    assert condition()


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(study, slow_store, s3, tmp_path):
    direct = StoreRoot(slow_store.url, s3.storage_options())
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        running = command(
            "ingest", "genomes", slow_store.url, study / "in" / "genomes.json", "--scheduler", cluster.scheduler_address,
            *option_words(slow_store.storage_options),
        )  # fmt: skip
        try:
            wait_for(lambda: len(direct.sizes("genomes")) > 40)
            victim = next(iter(client.run(os.getpid).values()))
            os.kill(victim, signal.SIGKILL)
        finally:
            done = ended(running)
        check(done)
        assert victim not in client.run(os.getpid).values()
    expected = objects_of(StoreRoot(str(study / "store")))
    found = objects_of(direct)
    assert {key: data for key, data in found.items() if key in expected} == expected
    # The dead worker's lease was taken over by the task's second run, on the same machine.
    assert found.keys() == expected.keys()


@pytest.mark.slow
def test_a_scheduler_that_is_killed_ends_the_run_in_one_line_and_the_same_command_goes_on(
    study, slow_store, s3, tmp_path
):
    direct = StoreRoot(slow_store.url, s3.storage_options())
    with dask_processes(tmp_path, (), ()) as (file, scheduler, _):
        running = command(
            "ingest", "genomes", slow_store.url, study / "in" / "genomes.json", "--scheduler", file,
            *option_words(slow_store.storage_options),
        )  # fmt: skip
        try:
            wait_for(lambda: len(direct.sizes("genomes")) > 40)
            scheduler.kill()
        finally:
            done = ended(running)
        line = one_line(done, 4)
        assert "scheduler" in line
        assert "lost" in line
    check(ingest(slow_store.url, study, root=direct))
    expected, found = objects_of(StoreRoot(str(study / "store"))), objects_of(direct)
    assert {key: data for key, data in found.items() if key in expected} == expected


@pytest.mark.parametrize(
    "scheduler",
    ["address", pytest.param("sync", marks=pytest.mark.slow), pytest.param("threads:2", marks=pytest.mark.slow)],
)
def test_a_poisoned_genome_fails_by_name_and_the_others_are_published(tmp_path, study, two_workers, scheduler):
    inputs = tmp_path / "in"
    shutil.copytree(study / "in", inputs)
    text = (inputs / "toy3.fa").read_text()
    (inputs / "toy3.fa").write_text(text[:4_000] + "!" + text[4_001:])
    scheduler = two_workers[0].scheduler_address if scheduler == "address" else scheduler
    done = cli("ingest", "genomes", tmp_path / "store", inputs / "genomes.json", "--scheduler", scheduler)
    assert done.status == 3
    assert "toy3.fa: line " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert sorted(open_store(str(tmp_path / "store")).genomes) == [f"toy{i}" for i in (1, 2, 4, 5, 6)]
    # Mended, the same command does only this one.
    (inputs / "toy3.fa").write_text(text)
    again = json.loads(check(cli("ingest", "genomes", tmp_path / "store", inputs / "genomes.json", "--json")).stdout)
    assert {name for name, g in again["genomes"].items() if g["status"] == "published"} == {"toy3"}
    same_store(tmp_path / "store", study)


def test_several_poisoned_genomes_are_listed(tmp_path, study, two_workers):
    inputs = tmp_path / "in"
    shutil.copytree(study / "in", inputs)
    for name in ("toy2", "toy5"):
        (inputs / f"{name}.fa").write_text(">chrA\nAC!T\n")
    words = (
        "ingest",
        "genomes",
        tmp_path / "store",
        inputs / "genomes.json",
        "--scheduler",
        two_workers[0].scheduler_address,
    )
    line = one_line(cli(*words), 4)
    assert "2 of 6 tasks failed, the others are done" in line
    assert "toy2: " in line
    assert "toy5: " in line
    assert sorted(open_store(str(tmp_path / "store")).genomes) == ["toy1", "toy3", "toy4", "toy6"]


# -- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_workers_that_are_too_small_are_refused_with_what_fits(tmp_path, study):
    with dask_processes(tmp_path, ("--memory-limit", "200MB"), ("--memory-limit", "250MB")) as (file, *_):
        line = one_line(ingest(tmp_path / "store", study, "--scheduler", file), 3)
    assert "one task needs up to 0.3" in line
    assert "the largest worker gives a task 0.23 GiB" in line
    assert "start workers with more memory" in line


@pytest.mark.slow
def test_only_the_large_worker_is_given_the_tasks(tmp_path, study):
    log = tmp_path / "log"
    log.mkdir()
    with dask_processes(tmp_path, ("--memory-limit", "330MB"), ("--memory-limit", "2GB")) as (file, _, workers):
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.register_plugin(task_log(str(log), warm=False))
            info = client.scheduler_info(n_workers=-1)["workers"]
            pids = client.run(os.getpid)
        large = {pids[address] for address, worker in info.items() if worker["memory_limit"] > 1e9}
        check(ingest(tmp_path / "store", study, "--scheduler", file))
    lines = logged(log)
    assert len(lines) == N_GENOMES
    assert {line["pid"] for line in lines} == large
    same_store(tmp_path / "store", study)


def test_more_memory_than_allowed_is_refused_before_anything_is_written(tmp_path, study):
    line = one_line(ingest(tmp_path / "store", study, "--max-memory", "100MiB", "--genome", "toy1"), 3)
    assert "--max-memory allows 100.0 MiB" in line
    assert not StoreRoot(str(tmp_path / "store")).sizes("")


# -- what users see ----------------------------------------------------------------------------------------------


def test_a_profile_is_a_page(tmp_path, study):
    pytest.importorskip("bokeh", reason="pip install 'splicestore[dashboard]'")
    check(ingest(tmp_path / "store", study, "--scheduler", "threads:2", "--profile", tmp_path / "run.html"))
    assert "<html" in (tmp_path / "run.html").read_text()[:500].lower()


def test_job_arrays_do_without_a_scheduler(tmp_path, study):
    """More jobs than genomes: the units of each genome are dealt out, and `finalise` publishes; or says who is missing."""
    words = (
        "ingest",
        "genomes",
        tmp_path / "store",
        study / "in" / "genomes.json",
        "--genome",
        "toy1",
        "--genome",
        "toy2",
    )
    for job in (2, 0):
        check(cli(*words, "--partition", f"{job}/3"))
    line = one_line(cli("finalise", tmp_path / "store"), 4)
    assert "--array=1 " in line
    check(cli(*words, "--partition", "1/3"))
    check(cli("finalise", tmp_path / "store"))
    expected = objects_of(StoreRoot(str(study / "store")))
    found = objects_of(StoreRoot(str(tmp_path / "store")))
    assert {
        key: data for key, data in expected.items() if key.startswith(("genomes/toy1", "usage/toy2"))
    }.items() <= found.items()
    assert sorted(open_store(str(tmp_path / "store")).genomes) == ["toy1", "toy2"]
