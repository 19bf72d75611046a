"""Executors: every scheduler gives what a loop gives, failures are named, memory decides who gets a task."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import resource
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker, default_client, get_worker
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore import cluster
from splicestore.cluster import TASK_RETRIES, open_executor, parse_scheduler
from splicestore.errors import ConfigError, FailedPartitionsError, InputError, PlanError, TransferError

MIB = 1 << 20


@pytest.fixture(autouse=True)
def short_timeouts():
    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
        yield


@contextmanager
def at_most(seconds):
    """Break off what hangs."""

    def stop(number, frame):
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def becomes(condition, seconds=5.0):
    """Whether a condition is met soon: Dask forgets futures a moment after we do."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


class Calls:
    """A task that counts its calls and fails on some of them; it lives in this process."""

    def __init__(self, behave):
        self.behave, self.calls, self.lock = behave, Counter(), threading.Lock()

    def __call__(self, task):
        with self.lock:
            self.calls[task] += 1
        return self.behave(task, self.calls[task])

    def __reduce__(self):
        # Dask pickles what it is given even for workers in this process.
        _KEPT[id(self)] = self
        return kept, (id(self),)


_KEPT = {}


def kept(number):
    return _KEPT[number]


KINDS = ("sync", "threads:2")
"""This process, and two threads behind a Dask scheduler."""


# -- names -------------------------------------------------------------------------------------------------------


@given(kind=st.sampled_from(["threads", "processes"]), n=st.integers(1, 10_000))
def test_a_number_of_workers_is_read(kind, n):
    assert parse_scheduler(f"{kind}:{n}") == (kind, n)


def test_names_without_numbers():
    assert {parse_scheduler(name) for name in ("auto", "sync", "threads", "processes")} == {
        ("auto", None), ("sync", None), ("threads", None), ("processes", None),
    }  # fmt: skip
    assert parse_scheduler("tcp://10.0.0.1:8786") == ("address", None)
    assert parse_scheduler("/shared/scheduler.json") == ("file", None)


REFUSED = [
    "threads:0",
    "threads:-1",
    "threads:",
    "processes:x",
    "processes:1.5",
    "process",
    "sync:",
    "sync:4",
    "auto:2",
    "slurm:a",
]


@given(st.one_of(st.text(max_size=12), st.sampled_from(REFUSED)))
def test_anything_else_is_refused_with_what_there_is(text):
    if re.fullmatch(r"auto|sync|(threads|processes)(:0*[1-9]\d*)?|(tcp|tls|ucx|ws)://.*|(?s:.*)\.json", text):
        return
    with pytest.raises(
        ConfigError, match="use sync, threads, threads:N, processes:N, tcp://host:port or scheduler.json"
    ):
        parse_scheduler(text)


# -- results -----------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(tasks=st.lists(st.integers(), max_size=30))
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_map(kind, tasks):
    with open_executor(kind) as executor:
        assert dict(executor.map(lambda n: n * n, tasks, memory=1)) == {i: n * n for i, n in enumerate(tasks)}


@pytest.mark.parametrize("kind", KINDS)
def test_each_task_is_run_once_and_results_come_as_they_finish(kind):
    gate, order = threading.Event(), []
    work = Calls(lambda task, call: task if task or kind == "sync" else (gate.wait(5), task)[1])
    with open_executor(kind) as executor:
        for index, _ in executor.map(work, list(range(6))):
            order.append(index)
            if len(order) == 5:
                gate.set()
    assert sorted(order) == list(range(6))
    assert work.calls == dict.fromkeys(range(6), 1)
    assert order[-1] == (5 if kind == "sync" else 0)


def test_few_tasks_are_submitted_ahead():
    """A scheduler of a million tasks holds a handful."""
    with open_executor("threads:2") as executor:
        known = [len(executor.client.futures) for _ in executor.map(lambda n: n, range(60))]
        assert len(known) == 60
        assert max(known) <= cluster.IN_FLIGHT_PER_THREAD * executor.n_workers
        assert becomes(lambda: not executor.client.futures)


def test_a_map_that_is_left_early_leaves_nothing_behind():
    with open_executor("threads:2") as executor:
        running = executor.map(lambda n: n, range(40))
        next(running)
        running.close()
        assert becomes(lambda: not executor.client.futures)
        assert dict(executor.map(lambda n: n + 1, [1, 2])) == {0: 2, 1: 3}


# -- failures ----------------------------------------------------------------------------------------------------


def fails(numbers, error):
    def behave(task, call):
        if task in numbers:
            raise error(task)
        return task

    return behave


@settings(max_examples=15)
@given(broken=st.sets(st.integers(0, 11), min_size=1))
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_fails_stops_no_other_and_is_named(kind, broken):
    work = Calls(fails(broken, lambda n: InputError(f"file {n} is broken")))
    names, found = [f"genome-{n}" for n in range(12)], {}

    def collect():
        with open_executor(kind) as executor:
            for index, result in executor.map(work, range(12), names=names):
                found[index] = result

    if len(broken) == 1:
        with pytest.raises(InputError, match=f"^file {min(broken)} is broken$"):
            collect()
    else:
        with pytest.raises(
            FailedPartitionsError, match=f"^{len(broken)} of 12 tasks failed, the others are done: "
        ) as caught:
            collect()
        listed = re.findall(r"genome-(\d+): file (\d+) is broken", str(caught.value))
        assert len(listed) == min(5, len(broken))
        assert all(a == b and int(a) in broken for a, b in listed)
        assert (f"; and {len(broken) - 5} more" in str(caught.value)) == (len(broken) > 5)
    assert found == {n: n for n in range(12) if n not in broken}
    # Our own errors are final: the same file is as broken the second time.
    assert set(work.calls.values()) == {1}


def test_lost_connections_are_tried_again():
    def behave(task, call):
        if call <= TASK_RETRIES and task % 2 == 0:
            raise TransferError("reset")
        return task

    work = Calls(behave)
    with open_executor("threads:2") as executor:
        assert dict(executor.map(work, range(6))) == {n: n for n in range(6)}
    assert work.calls == {n: 1 if n % 2 else 1 + TASK_RETRIES for n in range(6)}


def gather(kind, work, n, found):
    """Collect results under a scheduler until its error comes."""
    with open_executor(kind) as executor:
        for index, result in executor.map(work, range(n), names=[f"part-{i}" for i in range(n)]):
            found[index] = result


@pytest.mark.parametrize("error", [TransferError("s3://b/k: reset"), ValueError("what is\nthis"), MemoryError()])
def test_what_keeps_failing_is_named_after_its_retries(error):
    def behave(task, call):
        if task == 3:
            raise error
        return task

    work, found = Calls(behave), {}
    named = rf"^1 of 6 tasks failed, the others are done: part-3: {type(error).__name__}: (what is this)?\. The same command"
    ours = isinstance(error, TransferError)
    with pytest.raises(TransferError if ours else FailedPartitionsError, match="^s3://b/k: reset$" if ours else named):
        gather("threads:2", work, 6, found)
    assert found == {n: n for n in range(6) if n != 3}
    assert work.calls[3] == 1 + TASK_RETRIES


def test_unexpected_errors_stop_no_other_task_in_this_process_either():
    found = {}
    with pytest.raises(FailedPartitionsError, match="part-1: ZeroDivisionError"):
        gather("sync", lambda n: 1 // (n - 1), 3, found)
    assert found == {0: -1, 2: 1}


# -- memory ------------------------------------------------------------------------------------------------------


@contextmanager
def workers_of(*limits, threads=1):
    """A cluster in this process whose workers have these memory limits, and an executor on it."""
    spec = {
        f"w{i}": {"cls": Worker, "options": {"nthreads": threads, "memory_limit": limit, "dashboard": False}}
        for i, limit in enumerate(limits)
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "port": 0}}
    # No spilling and no pausing: the limits are numbers here, the process is larger than them.
    with (
        dask.config.set({f"distributed.worker.memory.{x}": False for x in ("target", "spill", "pause", "terminate")}),
        SpecCluster(spec, scheduler, silence_logs=50) as started,
        Client(started),
        open_executor("auto") as executor,
    ):
        yield executor


def worker_name(task):
    time.sleep(0.01)
    return str(get_worker().name)


def test_only_workers_with_the_memory_get_the_task():
    with workers_of(100 * MIB, 1_000 * MIB) as executor:
        assert executor.n_workers == 2
        assert set(dict(executor.map(worker_name, range(12), memory=500 * MIB)).values()) == {"w1"}
        assert set(dict(executor.map(worker_name, range(12), memory=50 * MIB)).values()) == {"w0", "w1"}
        with pytest.raises(
            PlanError, match=r"needs up to 1\.95 GiB, the largest worker gives a task 0\.98 GiB; start workers"
        ):
            dict(executor.map(worker_name, range(12), memory=2_000 * MIB))


def test_threads_share_their_workers_memory():
    with workers_of(1_000 * MIB, threads=2) as executor:
        assert set(dict(executor.map(worker_name, range(4), memory=500 * MIB)).values()) == {"w0"}
        with pytest.raises(PlanError, match="one thread each"):
            dict(executor.map(worker_name, range(4), memory=501 * MIB))


def test_a_worker_without_a_limit_takes_anything():
    with workers_of(0, 100 * MIB) as executor:
        assert set(dict(executor.map(worker_name, range(8), memory=1 << 50)).values()) == {"w0"}


@pytest.mark.parametrize("gap_s", [0.0, 1.5], ids=["replaced at once", "replaced later"])
def test_tasks_tied_to_a_worker_that_is_gone_go_to_one_that_fits(monkeypatch, gap_s):
    """A restarted worker has another address, and comes back after a while: what waits for the old one must not wait for ever."""
    monkeypatch.setattr(cluster, "STRANDED_S", 0.5)
    gate, found, failed = threading.Event(), {}, []
    work = Calls(lambda task, call: (gate.wait(20), str(get_worker().name))[1])

    def collect(executor):
        try:
            found.update(executor.map(work, range(6), memory=500 * MIB))
        except Exception as error:
            failed.append(error)

    with workers_of(100 * MIB, 1_000 * MIB) as executor, at_most(30):
        collecting = threading.Thread(target=collect, args=[executor])
        collecting.start()
        assert becomes(lambda: work.calls)
        executor.client.sync(replace_worker, executor.client.cluster, gap_s)
        gate.set()
        collecting.join()
    assert failed == []
    assert found == dict.fromkeys(range(6), "larger")


async def replace_worker(started, gap_s):
    """Close the worker that fits as a lost machine does, and start another one."""
    gone = started.workers["w1"]
    started.worker_spec["larger"] = started.worker_spec.pop("w1")
    await gone.close(executor_wait=False, nanny=False)
    await asyncio.sleep(gap_s)
    await started._correct_state()


# -- opening and closing -----------------------------------------------------------------------------------------


def test_auto_takes_the_active_client_and_leaves_it_open():
    with open_executor("auto") as executor:
        assert dict(executor.map(lambda _: os.getpid(), [0])) == {0: os.getpid()}
        assert not hasattr(executor, "client")
    with (
        LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address="127.0.0.1:0") as started,
        Client(started) as client,
    ):
        with open_executor("auto") as executor:
            assert executor.client is client
            assert executor.n_workers == 3
        assert client.status == "running"
        # Others are asked for by name.
        with open_executor("sync") as executor:
            assert executor.n_workers == 1
            assert not hasattr(executor, "client")


@pytest.mark.parametrize("fail", [False, True])
def test_what_was_started_is_closed(fail):
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(RuntimeError) if fail else nothing(), open_executor("threads:2") as executor:
        client = executor.client
        if fail:
            raise RuntimeError
    assert client.status == "closed"
    assert client.cluster.status.name == "closed"
    with pytest.raises(ValueError, match="No clients found"):
        default_client()
    left = {t.name for t in threading.enumerate() if t.name not in before and t.name.startswith("Dask-Worker")}
    assert not left


@contextmanager
def nothing():
    yield


def test_our_worker_processes_keep_memory_for_their_next_arrays():
    def pages_faulted_in(n_bytes):
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(100):
            np.ones(n_bytes, dtype=np.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with open_executor("processes:1") as executor:
        faults = dict(executor.map(pages_faulted_in, [2 * MIB]))[0]
    # Given back each time, there would be a hundred times as many as the array has pages.
    assert faults < 10 * 2 * MIB // resource.getpagesize()


@pytest.mark.parametrize("spec", ["processes:2", "tcp://127.0.0.1:9", "scheduler.json"])
def test_memory_urls_do_not_go_with_other_processes(spec):
    with (
        pytest.raises(ConfigError, match=rf"memory:// is visible to this process only; --scheduler {re.escape(spec)}"),
        open_executor(spec, urls=["memory://x"]),
    ):
        pass


def test_a_client_of_ours_is_nobodys_default():
    with open_executor("threads:1") as executor:
        assert dask.config.get("scheduler", None) is None
        with pytest.raises(ValueError, match="No client"):
            default_client()
        # "auto" within a task would wait for the one thread that runs it, were it to find this client.
        assert dict(executor.map(task_that_opens_auto, [3])) == {0: 9}


def task_that_opens_auto(n):
    with open_executor("auto") as inner:
        return dict(inner.map(lambda x: x * x, [n]))[0]


def test_memory_urls_do_not_go_with_an_active_client_of_other_processes():
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as started,
        Client(started),
        pytest.raises(ConfigError, match="memory:// is visible to this process only"),
        open_executor("auto", urls=["memory://x"]),
    ):
        pass


@pytest.mark.parametrize("spec", ["sync", "threads:2", "auto"])
def test_memory_urls_go_with_this_process(spec):
    with open_executor(spec, urls=["memory://x"]) as executor:
        assert dict(executor.map(lambda n: n, [7])) == {0: 7}


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://no-port"])
def test_an_address_where_nobody_answers_is_said(address):
    with (
        at_most(20),
        pytest.raises(ConfigError, match=f"--scheduler {address}: no scheduler answers there"),
        open_executor(address),
    ):
        pass


@pytest.mark.parametrize(
    "text", [None, "", "no json", "{}", json.dumps({"address": "tcp://127.0.0.1:9"})],
    ids=["missing", "empty", "no json", "no address", "nobody there"],
)  # fmt: skip
def test_a_scheduler_file_that_leads_nowhere_is_said(tmp_path, text):
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    with (
        at_most(8),
        pytest.raises(ConfigError, match="scheduler.json: no scheduler answers there"),
        open_executor(str(file)),
    ):
        pass


def test_a_scheduler_file_is_followed(tmp_path):
    file = tmp_path / "scheduler.json"
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0"
    ) as started:
        with Client(started) as client:
            client.write_scheduler_file(str(file))
        with open_executor(str(file)) as executor:
            assert (executor.n_workers, dict(executor.map(lambda n: -n, [4]))) == (2, {0: -4})
        with open_executor(started.scheduler_address) as executor:
            assert (executor.n_workers, dict(executor.map(lambda n: -n, [4]))) == (2, {0: -4})
        # It was not ours to stop.
        assert started.status.name == "running"


def test_a_scheduler_without_workers_is_said(monkeypatch):
    monkeypatch.setattr(cluster, "WAIT_FOR_WORKERS_S", 1)
    with (
        LocalCluster(n_workers=0, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0") as started,
        pytest.raises(ConfigError, match="no worker joined within 1 s; start workers first"),
        open_executor(started.scheduler_address),
    ):
        pass


def test_profile_is_a_page_of_the_run(tmp_path):
    pytest.importorskip("bokeh", reason="pip install bokeh for Dask's reports")
    file = tmp_path / "run.html"
    with open_executor("threads:1", profile=str(file)) as executor:
        dict(executor.map(lambda n: n, range(3)))
    assert "<html" in file.read_text()[:500].lower()


def test_our_errors_survive_the_way_from_a_worker():
    for error in (InputError("a"), PlanError("b"), TransferError("c"), FailedPartitionsError("d")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
