"""One name -> something that runs tasks: this process, threads, worker processes or a Dask cluster.

The only face is ``Executor.map``: small picklable tasks in, results out as they complete. One task that fails does not
stop the others; what failed is raised by name when the rest is done.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from splicestore.errors import ConfigError, FailedPartitionsError, PlanError, SpliceStoreError, TransferError

logger = logging.getLogger(__name__)
dashboard_logger = logging.getLogger(f"{__name__}.dashboard")
"""The link alone, so that a command line can show it without everything else."""

Task = TypeVar("Task")
Result = TypeVar("Result")

TASK_RETRIES = 2
"""For lost connections and unexpected errors; an error of ours is final at once."""
IN_FLIGHT_PER_THREAD = 3
"""Tasks submitted ahead of their turn: enough to keep a worker busy, few enough for a scheduler's memory."""
WAIT_FOR_WORKERS_S = 60
HEAP = {"MALLOC_MMAP_THRESHOLD_": 32 * 1024 * 1024, "MALLOC_TRIM_THRESHOLD_": 64 * 1024 * 1024}
"""Memory of up to so many bytes a worker process of ours keeps for its next arrays, as any process does. By Dask's 64 KiB each
array would be given back and its pages faulted in anew, which takes a network more time than its arithmetic."""
STRANDED_S = 10
"""How often to look for tasks whose only workers are gone."""
_NAMED_FAILURES = 5


class Executor(Protocol):
    """Runs a function over tasks."""

    @property
    def n_workers(self) -> int:
        """Tasks that run at once."""
        ...

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        names: Sequence[str] | None = None,
        memory: int = 0,
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, result) as tasks finish.

        Parameters
        ----------
        names
            What failures are called by.
        memory
            Bytes one task may need: workers that have less are not given any.

        Raises
        ------
        FailedPartitionsError
            After all others finished: names of the tasks that failed, with their first error. Where one of our own
            errors is the only one, that error itself.
        PlanError
            If no worker has the memory.
        """
        ...


@dataclass
class _Failures:
    names: Sequence[str]
    found: list[tuple[int, BaseException]] = field(default_factory=list)

    def add(self, index: int, error: BaseException) -> None:
        logger.info("%s failed: %s", self.names[index], _describe(error))
        self.found.append((index, error))

    def raise_any(self) -> None:
        if not self.found:
            return
        index, error = self.found[0]
        if len(self.found) == 1 and isinstance(error, SpliceStoreError):
            raise error
        listed = "; ".join(f"{self.names[i]}: {_describe(e)}" for i, e in self.found[:_NAMED_FAILURES])
        more = f"; and {len(self.found) - _NAMED_FAILURES} more" if len(self.found) > _NAMED_FAILURES else ""
        raise FailedPartitionsError(
            f"{len(self.found)} of {len(self.names)} tasks failed, the others are done: {listed}{more}. The same command "
            "goes on with what is not written"
        ) from error


def _describe(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return (
            "its worker died each time (often out of memory: give workers more, or use fewer per machine; "
            "or this input breaks a library)"
        )
    text = " ".join(str(error).split())
    return text if isinstance(error, SpliceStoreError) else f"{type(error).__name__}: {text[:200]}"


@dataclass(frozen=True, slots=True)
class _ThisProcess:
    n_workers: int = 1

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        names: Sequence[str] | None = None,
        memory: int = 0,
    ) -> Iterator[tuple[int, Result]]:
        failures = _Failures(_names(names, tasks))
        for index, task in enumerate(tasks):
            try:
                result = function(task)
            except Exception as error:  # one bad partition must not keep the others from being done
                failures.add(index, error)
            else:
                yield index, result
        failures.raise_any()


def _names(names: Sequence[str] | None, tasks: Sequence[Any]) -> Sequence[str]:
    return names if names is not None else [f"task {index}" for index in range(len(tasks))]


@dataclass(frozen=True, slots=True)
class _Refused:
    """An error of ours as a value: running the task again would end the same way."""

    error: SpliceStoreError


@dataclass(frozen=True, slots=True)
class _Guarded:
    function: Callable[[Any], Any]

    def __call__(self, task: Any) -> Any:
        try:
            return self.function(task)
        except TransferError:
            raise
        except SpliceStoreError as error:
            return _Refused(error)


@dataclass(frozen=True, slots=True)
class _DaskClient:
    client: Any
    n_workers: int

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        names: Sequence[str] | None = None,
        memory: int = 0,
    ) -> Iterator[tuple[int, Result]]:
        from distributed import wait

        failures, place = _Failures(_names(names, tasks)), _Placement(self.client, memory)
        place.workers()
        waiting = iter(range(len(tasks)))
        running: dict[Any, int] = {}
        try:
            while True:
                for index in itertools.islice(waiting, IN_FLIGHT_PER_THREAD * self.n_workers - len(running)):
                    running[self._submit(function, tasks[index], place)] = index
                if not running:
                    break
                try:
                    with self.client.as_current():
                        done = wait(list(running), timeout=STRANDED_S, return_when="FIRST_COMPLETED").done
                except TimeoutError:
                    self._resubmit_stranded(function, tasks, place, running)
                    continue
                for future in done:
                    index = running.pop(future)
                    if future.status != "finished":
                        failures.add(index, _error_of(future))
                        continue
                    result = future.result()
                    if isinstance(result, _Refused):
                        failures.add(index, result.error)
                    else:
                        yield index, result
        except (OSError, CancelledError) as error:
            if isinstance(error, SpliceStoreError):
                raise
            raise FailedPartitionsError(
                f"the scheduler {self.client.scheduler} was lost while {len(running)} tasks ran; what is finished stays, "
                "the same command goes on"
            ) from error
        failures.raise_any()

    def _submit(self, function: Callable[[Any], Any], task: Any, place: _Placement) -> Any:
        return self.client.submit(_Guarded(function), task, retries=TASK_RETRIES, pure=False, workers=place.workers())

    def _resubmit_stranded(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], place: _Placement, running: dict[Any, int]
    ) -> None:
        """Submit again what was tied to workers that are gone: a restarted one has another address."""
        if place.workers() is None or place.is_empty:
            return
        idle = {key for keys in self.client.processing().values() for key in keys}
        for future, index in list(running.items()):
            if future.status == "pending" and future.key not in idle:
                del running[future]
                future.cancel()
                running[self._submit(function, tasks[index], place)] = index


@dataclass
class _Placement:
    """Which workers may have a task, while workers come and go."""

    client: Any
    memory: int
    """Bytes that one task may need."""
    last: list[str] | None = None
    empty_since: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every worker that could take a task is gone for now."""
        return self.empty_since is not None

    def workers(self) -> list[str] | None:
        """Addresses of workers with the memory for one task in each of their threads; None: all of them.

        Where the last of them is lost, its address stands until another comes: tasks tied to it wait.

        Raises
        ------
        PlanError
            If there is none, or there was none for a minute.
        """
        if not self.memory:
            return None
        try:
            self.last, self.empty_since = self._fitting(), None
        except PlanError:
            self.empty_since = self.empty_since or time.monotonic()
            if self.last is None or time.monotonic() - self.empty_since > WAIT_FOR_WORKERS_S:
                raise
        return self.last

    def _fitting(self) -> list[str] | None:
        memory = self.memory
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        room = {
            address: int(w["memory_limit"]) // max(1, int(w["nthreads"])) if w["memory_limit"] else sys.maxsize
            for address, w in workers.items()
        }
        fitting = [address for address, bytes_each in room.items() if bytes_each >= memory]
        if room and not fitting:
            raise PlanError(
                f"one task needs up to {memory / 2**30:.2f} GiB, the largest worker gives a task {max(room.values()) / 2**30:.2f} GiB; "
                "start workers with more memory or one thread each (--scheduler processes:N with a smaller N)"
            )
        return fitting if len(fitting) < len(room) else None


def _error_of(future: Any) -> BaseException:
    if future.status == "error":
        error = future.exception()
        if isinstance(error, BaseException):
            return error
    return FailedPartitionsError(f"it ended as {future.status}: the scheduler or the client went away")


def parse_scheduler(spec: str) -> tuple[str, int | None]:
    """Split a scheduler name into (kind, number of workers).

    Raises
    ------
    ConfigError
        If it is none of ``auto``, ``sync``, ``threads[:N]``, ``processes:N``, ``tcp://host:port``, ``*.json``.
    """
    if spec.startswith(("tcp://", "tls://", "ucx://", "ws://")):
        return "address", None
    if spec.endswith(".json"):
        return "file", None
    found = _SCHEDULER.fullmatch(spec)
    if found is None:
        raise ConfigError(
            f"--scheduler {spec!r}: use sync, threads, threads:N, processes:N, tcp://host:port or scheduler.json"
        )
    kind, number = found["alone"] or found["kind"], found["n"]
    return kind, int(number) if number else None


_SCHEDULER = re.compile(r"(?P<alone>auto|sync)|(?P<kind>threads|processes)(:(?P<n>0*[1-9][0-9]*))?")


@contextmanager
def open_executor(spec: str = "auto", *, urls: Iterable[str] = (), profile: str | None = None) -> Iterator[Executor]:
    """Open what a scheduler name stands for; closes what it started, leaves what it found.

    Parameters
    ----------
    spec
        ``auto`` (the active Dask client if there is one, else ``sync``) | ``sync`` | ``threads[:N]`` | ``processes:N`` |
        ``tcp://host:port`` | a scheduler file ``*.json``.
    urls
        Stores the tasks will touch: ``memory://`` lives in one process only.
    profile
        Write Dask's performance report (HTML) there.

    Raises
    ------
    ConfigError
        For an unknown name, ``memory://`` with workers in other processes, or a scheduler that does not answer.
    """
    kind, workers = parse_scheduler(spec)
    active = _active_client() if kind == "auto" else None
    if kind == "sync" or (kind == "auto" and active is None):
        yield _ThisProcess()
        return
    is_elsewhere = kind in ("processes", "address", "file") or (active is not None and not _is_in_process(active))
    if is_elsewhere and any(url.startswith("memory:") for url in urls):
        raise ConfigError(
            f"memory:// is visible to this process only; --scheduler {spec} uses others: use sync or threads"
        )
    client = active or _connect(kind, spec, workers)
    try:
        with _performance_report(client, profile):
            if client.dashboard_link and active is None and _has_dashboard():
                dashboard_logger.info("%s", client.dashboard_link)
            yield _DaskClient(client, _n_threads(client, spec))
    finally:
        if active is None:
            started = client.cluster if kind in ("threads", "processes") else None
            client.close()
            if started is not None:
                started.close()


def _active_client() -> Any:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        client = distributed.default_client()
    except ValueError:
        return None
    return client if client.status == "running" else None


def _is_in_process(client: Any) -> bool:
    return bool(client.scheduler.address.startswith("inproc://"))


def _connect(kind: str, spec: str, workers: int | None) -> Any:
    import dask
    from distributed import Client, LocalCluster

    # distributed sets itself to INFO when it is imported and would tell a root handler each connection.
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        for name in ("distributed", "distributed.client", "tornado", "bokeh"):
            logging.getLogger(name).setLevel(
                logging.CRITICAL if logger.getEffectiveLevel() > logging.INFO else logging.WARNING
            )

    if kind in ("address", "file"):
        try:
            return Client(spec if kind == "address" else _address_in(spec), set_as_default=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"--scheduler {spec}: no scheduler answers there ({error})") from error
    n_workers = workers or os.cpu_count() or 1
    processes = kind == "processes"
    with dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in HEAP.items()}):
        cluster = LocalCluster(
            n_workers=n_workers if processes else 1,
            threads_per_worker=1 if processes else n_workers,
            processes=processes,
            dashboard_address="127.0.0.1:0" if _has_dashboard() else None,
            memory_limit="auto" if processes else 0,
            silence_logs=logging.CRITICAL,
        )
    # Not the default: that would change how dask computes in the caller's process, and `auto` within a task
    # on a thread would find this client and wait for itself.
    return Client(cluster, set_as_default=False)


def _address_in(scheduler_file: str) -> str:
    # Client(scheduler_file=...) waits without end for a file that is not there.
    return str(json.loads(Path(scheduler_file).read_text())["address"])


def _n_threads(client: Any, spec: str) -> int:
    threads = sum(client.nthreads().values())
    if not threads:
        try:
            client.wait_for_workers(1, timeout=WAIT_FOR_WORKERS_S)
        except TimeoutError as error:
            raise ConfigError(
                f"--scheduler {spec}: no worker joined within {WAIT_FOR_WORKERS_S} s; start workers first"
            ) from error
        threads = sum(client.nthreads().values())
    return max(1, threads)


def _has_dashboard() -> bool:
    from importlib.util import find_spec

    return find_spec("bokeh") is not None


@contextmanager
def _performance_report(client: Any, profile: str | None) -> Iterator[None]:
    if profile is None:
        yield
        return
    if not _has_dashboard():
        raise ConfigError("--profile needs bokeh: pip install 'splicestore[dashboard]'")
    from distributed import performance_report

    with client.as_current(), performance_report(filename=profile):
        yield
