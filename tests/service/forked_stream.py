"""A fork of a process that touched a store, for a test that looks on from outside: prints what the child met as JSON.

    python -m tests.service.forked_stream SCENARIO URL OPTIONS

In a process of its own: a fork that goes wrong may also stop its parent, whose connections it shares.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from splicestore.store import Store, open_store
from splicestore.stream import WindowBatches

CHILD_SECONDS = 20.0
STREAM: dict[str, Any] = {"split": "run1", "batch_size": 128, "shuffle_memory": 1 << 24}


def prepare(scenario: str, store: Store) -> Callable[[], int]:
    """Do in the parent what comes before the fork; return what the child does."""
    stream = WindowBatches(store, **STREAM)
    if scenario == "only made":
        return lambda: count_windows(stream)
    batches = iter(stream)
    next(batches)
    if scenario == "iterated":
        return lambda: count_windows(stream)
    if scenario == "another stream":
        return lambda: count_windows(WindowBatches(store, **STREAM))
    if scenario == "the parent's iterator":
        return lambda: count_windows(batches)
    if scenario == "after an epoch":
        count_windows(batches)
        return lambda: count_windows(stream)
    raise ValueError(f"no scenario {scenario!r}")


def count_windows(batches: Any) -> int:
    return sum(len(batch) for batch in batches)


def in_a_fork(do: Callable[[], int]) -> str:
    """What a forked child says: its number of windows, its error, or nothing in time."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = str(do())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write_end, answer.encode())
        os._exit(0)
    os.close(write_end)
    ended, deadline = 0, time.monotonic() + CHILD_SECONDS
    while not ended and time.monotonic() < deadline:
        ended, _ = os.waitpid(child, os.WNOHANG)
        time.sleep(0.02)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "hung"
    with os.fdopen(read_end) as pipe:
        return pipe.read()


def main(scenario: str, url: str, options: str) -> None:
    store = open_store(url, storage_options=json.loads(options))
    n_windows = int((store.splits["run1"].window_subset == 0).sum())
    print(json.dumps({"windows": n_windows, "child": in_a_fork(prepare(scenario, store))}))
    # What hangs must not hold this process up at its end.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
