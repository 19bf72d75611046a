"""One name -> something that runs tasks: this process, threads, worker processes or a Dask cluster.

The only face is ``Executor.map``: small picklable tasks in, results out as they complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from splicestore.errors import ConfigError

Task = TypeVar("Task")
Result = TypeVar("Result")

TASK_RETRIES = 2
"""A lost worker costs a retry; an error of ours is raised at once."""


class Executor(Protocol):
    """Runs a function over tasks."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, result) as tasks finish."""
        ...


@dataclass(frozen=True, slots=True)
class _ThisProcess:
    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        for index, task in enumerate(tasks):
            yield index, function(task)


@dataclass(frozen=True, slots=True)
class _DaskClient:
    client: Any

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        from distributed import as_completed

        futures = self.client.map(function, list(tasks), retries=TASK_RETRIES, pure=False)
        index_of = {future.key: index for index, future in enumerate(futures)}
        for future, result in as_completed(futures, with_results=True):
            yield index_of[future.key], result


def parse_scheduler(spec: str) -> tuple[str, int | None]:
    """Split a scheduler name into (kind, number of workers).

    Raises
    ------
    ConfigError
        If it is none of ``sync``, ``threads[:N]``, ``processes:N``, ``tcp://host:port``, ``*.json``.
    """
    if spec.startswith(("tcp://", "tls://", "ucx://", "ws://")):
        return "address", None
    if spec.endswith(".json"):
        return "file", None
    kind, _, number = spec.partition(":")
    if kind not in ("sync", "threads", "processes") or (number and not number.isdigit()):
        raise ConfigError(
            f"--scheduler {spec!r}: use sync, threads, threads:N, processes:N, tcp://host:port or scheduler.json"
        )
    return kind, int(number) if number else None


@contextmanager
def open_executor(spec: str = "sync", *, urls: Iterable[str] = ()) -> Iterator[Executor]:
    """Open what a scheduler name stands for; closes what it started, leaves what it found.

    Parameters
    ----------
    spec
        ``sync`` | ``threads[:N]`` | ``processes:N`` | ``tcp://host:port`` | a scheduler file ``*.json``.
    urls
        Stores the tasks will touch: ``memory://`` lives in one process only.

    Raises
    ------
    ConfigError
        For an unknown name, or ``memory://`` with workers in other processes.
    """
    kind, workers = parse_scheduler(spec)
    if kind in ("processes", "address", "file") and any(url.startswith("memory:") for url in urls):
        raise ConfigError(
            f"memory:// is visible to this process only; --scheduler {spec} starts others: use sync or threads"
        )
    if kind == "sync":
        yield _ThisProcess()
        return
    from distributed import Client, LocalCluster

    if kind in ("address", "file"):
        try:
            client = Client(spec) if kind == "address" else Client(scheduler_file=spec)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--scheduler {spec}: no scheduler answers there ({error})") from error
    else:
        n_workers = workers or os.cpu_count() or 1
        processes = kind == "processes"
        cluster = LocalCluster(
            n_workers=n_workers if processes else 1,
            threads_per_worker=1 if processes else n_workers,
            processes=processes,
            dashboard_address=None,
            memory_limit="auto" if processes else 0,
        )
        client = Client(cluster)
    try:
        yield _DaskClient(client)
    finally:
        started = client.cluster
        client.close()
        if started is not None:
            started.close()
