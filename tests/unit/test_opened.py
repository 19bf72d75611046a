"""Properties that are read once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from splicestore.opened import lazy


class Slow:
    """Notes each read of its properties; one waits until ``go``."""

    def __init__(self) -> None:
        self.n_read, self.go, self.error = 0, threading.Event(), None

    @lazy
    def table(self):
        """What is read."""
        self.n_read += 1
        self.go.wait(10)
        if self.error is not None:
            raise self.error
        return [self.n_read]

    @lazy
    def derived(self):
        return [*self.table, "derived"]


def test_sixteen_threads_read_once():
    slow = Slow()
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(lambda: slow.table) for _ in range(12)]
        asked += [threads.submit(lambda: slow.derived) for _ in range(4)]
        slow.go.set()
        found = [future.result(timeout=20) for future in asked]
    assert slow.n_read == 1
    assert all(value is found[0] for value in found[:12])
    assert found[12:] == [[1, "derived"]] * 4


def test_what_failed_is_read_again():
    slow = Slow()
    slow.go.set()
    slow.error = OSError("cut off")
    for _ in range(2):
        with pytest.raises(OSError, match="cut off"):
            _ = slow.table
    slow.error = None
    assert (slow.table, slow.n_read) == ([3], 3)


def test_instances_do_not_wait_for_one_another():
    many = [Slow() for _ in range(40)]
    others, threads = many[1:], ThreadPoolExecutor(1)
    held = threads.submit(lambda: many[0].table)
    for other in others:
        other.go.set()
    lock_of = Slow.__dict__["table"]._lock_of
    free = [other for other in others if lock_of(other) is not lock_of(many[0])]
    assert len(free) > 20
    assert [other.table for other in free] == [[1]] * len(free)
    assert not held.done()
    many[0].go.set()
    assert held.result(timeout=20) == [1]
    threads.shutdown()


def test_on_the_class_it_is_itself():
    assert Slow.table.__doc__ == "What is read."
