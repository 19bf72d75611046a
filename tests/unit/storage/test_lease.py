"""Write leases: one writer at a time, the other is told who; a dead one keeps nobody out."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from splicestore.errors import LeaseHeldError, TransferError
from splicestore.storage import StoreRoot, write_lease
from splicestore.storage import lease as lease_module
from splicestore.storage.lease import holder_is_dead, lease_key, process_started, read_holder
from splicestore.storage.sealed import parse_sealed, seal_document

PATH = "genomes/toy1"
KEY = "genomes/toy1/lease.json"
numbers = itertools.count()


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path):
    return StoreRoot(str(tmp_path / "store") if request.param == "disk" else f"memory://lease-{next(numbers)}")


def holder(**changes):
    """The lease document of this process, changed."""
    own = {
        "host": socket.gethostname(),
        "boot": lease_module._boot_id(),
        "pid": os.getpid(),
        "pid_started": process_started(os.getpid()),
        "since": "2026-01-01T00:00:00+00:00",
        "until": time.time() + 30,
        "token": "somebody",
    }
    return seal_document({**own, **changes})


ELSEWHERE = {"host": "another-machine", "boot": "another-boot"}


def test_it_is_there_while_the_block_runs(root):
    assert lease_key(PATH) == KEY
    assert lease_key(PATH, "3-of-7") == "genomes/toy1/lease-3-of-7.json"
    with write_lease(root, PATH) as lease:
        lease.check()
        document = parse_sealed(root.get(KEY), KEY)
        assert (document["host"], document["pid"]) == (socket.gethostname(), os.getpid())
        assert 50 < document["until"] - time.time() <= 60
        assert read_holder(root, PATH)["token"] == lease.token
    assert root.get(KEY) is None
    assert read_holder(root, PATH) is None


def test_it_is_given_back_where_the_block_fails(root):
    with pytest.raises(ValueError, match="oops"), write_lease(root, PATH):
        raise ValueError("oops")
    assert root.get(KEY) is None


@pytest.mark.parametrize("steal", [True, False])
def test_the_second_is_told_host_and_process_of_the_first(root, steal):
    """``steal`` is for leases that have expired; a living one is not taken."""
    with write_lease(root, PATH):
        before = root.get(KEY)
        wanted = (
            rf"genomes/toy1: is being written by process {os.getpid()} on {socket.gethostname()} since \S+; wait for it"
        )
        with pytest.raises(LeaseHeldError, match=wanted), write_lease(root, PATH, steal=steal):
            pytest.fail("two at once")
        assert root.get(KEY) == before
        with write_lease(root, "genomes/toy2"):
            pass


def test_of_many_at_once_one_gets_it(root):
    for _ in range(5):
        together, got, told = threading.Barrier(6), [], []
        inside = threading.Barrier(6)

        def run(together=together, inside=inside, got=got, told=told):
            together.wait()
            try:
                with write_lease(root, PATH) as lease:
                    got.append(lease.token)
                    inside.wait()
            except LeaseHeldError as error:
                told.append(error)
                inside.wait()

        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(got), len(told)) == (1, 5)
        assert root.get(KEY) is None


def test_one_that_is_given_back_just_now_is_not_mistaken_for_ours(tmp_path):
    """Created by another when we try, gone when we look whose it is: we do not hold what is not there."""

    class JustGivenBack:
        def __init__(self, backend):
            self.backend, self.is_there = backend, True

        def __getattr__(self, name):
            return getattr(self.backend, name)

        def create(self, key, data):
            if self.is_there:
                self.is_there = False
                return False
            return self.backend.create(key, data)

    root = StoreRoot(str(tmp_path / "store"))
    root.__dict__["backend"] = JustGivenBack(root.backend)
    with write_lease(root, PATH) as lease:
        assert read_holder(root, PATH) is not None
        assert read_holder(root, PATH)["token"] == lease.token


# -- the dead ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"pid": 2**22 + 7}, {"pid_started": 1}, {"boot": "an-earlier-boot"}],
    ids=["no such process", "another process has its number", "the machine was started again"],
)
def test_one_of_a_dead_process_of_this_machine_is_taken_over(root, changes):
    root.put(KEY, holder(**changes))
    assert read_holder(root, PATH) is None
    with write_lease(root, PATH) as lease:
        assert read_holder(root, PATH)["token"] == lease.token
    assert root.get(KEY) is None


def test_one_of_another_machine_is_taken_over_after_it_expired_and_when_asked_for(root):
    root.put(KEY, holder(**ELSEWHERE, pid=77))
    for steal in (True, False):
        told = r"written by process 77 on another-machine .* expires in \d+ s: then run the same command with --steal"
        with pytest.raises(LeaseHeldError, match=told), write_lease(root, PATH, steal=steal):
            pytest.fail("it lives")
    root.put(KEY, holder(**ELSEWHERE, pid=77, until=time.time() - 100))
    assert read_holder(root, PATH) is None
    with (
        pytest.raises(LeaseHeldError, match=r"stopped renewing its lease 1\d\d s ago; .* with --steal"),
        write_lease(root, PATH),
    ):
        pytest.fail("not asked for")
    with write_lease(root, PATH, steal=True) as lease:
        assert read_holder(root, PATH)["token"] == lease.token
    assert root.get(KEY) is None


def test_a_damaged_one_keeps_nobody_out(root):
    root.put(KEY, holder()[:-9])
    assert read_holder(root, PATH) is None
    with write_lease(root, PATH):
        pass


def test_one_of_a_killed_process_is_taken_over(tmp_path):
    url = str(tmp_path / "store")
    code = (
        "import time\nfrom splicestore.storage import StoreRoot, write_lease\n"
        f"with write_lease(StoreRoot({url!r}), {PATH!r}):\n    print('mine', flush=True)\n    time.sleep(60)\n"
    )
    root = StoreRoot(url)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(LeaseHeldError, match=f"process {process.pid} on"), write_lease(root, PATH):
            pytest.fail("it lives")
        process.send_signal(signal.SIGKILL)
        # Dead and not waited for: it writes nothing any more.
        while process_started(process.pid) is not None:
            time.sleep(0.01)
        with write_lease(root, PATH):
            pass


def test_when_a_process_started():
    assert process_started(os.getpid()) > 0
    assert process_started(2**22 + 7) is None
    assert not holder_is_dead(parse_sealed(holder(), KEY))


# -- renewing ----------------------------------------------------------------------------------------------------


def wait_until(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_it_is_renewed(root):
    with write_lease(root, PATH, seconds=0.3) as lease:
        first = parse_sealed(root.get(KEY), KEY)["until"]
        wait_until(lambda: parse_sealed(root.get(KEY), KEY)["until"] > first + 0.2)
        lease.check()
    assert root.get(KEY) is None


def test_one_that_was_taken_over_is_noticed_and_left_to_the_other(root):
    other = holder(**ELSEWHERE)
    with write_lease(root, PATH, seconds=0.3) as lease:
        root.put(KEY, other)
        wait_until(lease._lost.is_set)
        with pytest.raises(LeaseHeldError, match="another writer took the lease over while this run was silent"):
            lease.check()
    assert root.get(KEY) == other


def test_a_storage_that_fails_for_a_while_is_asked_again(root, monkeypatch, caplog):
    real, failing = StoreRoot.put_if, threading.Event()

    def put_if(self, *arguments):
        if failing.is_set():
            raise TransferError("no network")
        return real(self, *arguments)

    monkeypatch.setattr(StoreRoot, "put_if", put_if)
    with write_lease(root, PATH, seconds=0.3) as lease:
        first = root.get(KEY)
        failing.set()
        wait_until(lambda: "could not be renewed: no network" in caplog.text)
        assert root.get(KEY) == first
        failing.clear()
        wait_until(lambda: root.get(KEY) != first)
        lease.check()


# -- jobs --------------------------------------------------------------------------------------------------------


def test_jobs_do_not_keep_each_other_out_but_the_same_job_twice_is_told(root):
    with write_lease(root, PATH, job="0-of-2"), write_lease(root, PATH, job="1-of-2"):
        assert sorted(k for k in root.children(PATH)) == ["lease-0-of-2.json", "lease-1-of-2.json"]
        with pytest.raises(LeaseHeldError, match="is being written by process"), write_lease(root, PATH, job="1-of-2"):
            pytest.fail("the same job twice")
    assert root.children(PATH) == []


def test_a_job_is_told_where_the_name_is_written_whole(root):
    with write_lease(root, PATH):
        told = rf"is being written whole by process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(LeaseHeldError, match=told), write_lease(root, PATH, job="0-of-2"):
            pytest.fail("both at once")
    root.put(KEY, holder(pid_started=1))
    with write_lease(root, PATH, job="0-of-2"):
        pass
