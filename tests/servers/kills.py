"""Runs commands and kills them, with everything they started, after a time or at their k-th write to a store."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from tests.servers import kill_hook
from tests.servers.kill_hook import marked_processes

DEATH_SECONDS = 10.0
"""A killed process may first have to come back from the disk."""
ENDING_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Write:
    """One call that writes a key."""

    number: int
    """In the order in which the calls began, from 1, over all processes of the command."""
    method: str
    """put, create or put_if."""
    key: str
    root: str
    """URL of the store."""
    pid: int
    state: str
    """begun (killed in or before it), done, or failed with the error's name."""


@dataclass(frozen=True, slots=True)
class KilledRun:
    """What became of a command."""

    status: int
    """Exit status; negative: the signal that ended it."""
    stdout: str
    stderr: str
    seconds: float
    writes: tuple[Write, ...]
    """By number."""
    killed_at: Write | None
    """The write at which it was killed; None where the time ran out, or where it ended by itself."""
    marker: str
    """For ``processes_left``."""
    orphans: tuple[str, ...]
    """Command lines of processes that outlived the command itself, before they were killed as well."""

    @property
    def keys(self) -> list[str]:
        """Keys whose writing ended well."""
        return [write.key for write in self.writes if write.state == "done"]


def splicestore_command(*arguments: object) -> list[str]:
    """Spell ``splicestore ARGUMENTS`` for this interpreter."""
    return [sys.executable, "-m", "splicestore", *map(str, arguments)]


def run_and_kill(
    command: Sequence[str],
    *,
    after: float | None = None,
    on_write: int | None = None,
    when: Literal["before", "after"] = "before",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120.0,
) -> KilledRun:
    """Run a command and kill it and all it started; without ``after`` and ``on_write`` count its writes.

    Parameters
    ----------
    after
        Kill it after so many seconds.
    on_write
        Kill it at its k-th write, from 1: of all calls of ``StoreRoot.put``, ``create`` and ``put_if`` in all its processes.
        Calls that began earlier may be under way in other threads; none that begins later writes.
    when
        Whether that write is done first.
    env
        Added to the environment of this process.

    Raises
    ------
    TimeoutError
        If it runs longer than ``timeout`` seconds; it is killed then, too.
    """
    marker = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        folder = Path(name)
        environment = {**os.environ, **(env or {}), **_hook(folder, marker, on_write, when)}
        started = time.monotonic()
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            # Files, not pipes: what the command leaves behind may hold a pipe open for ever.
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        with process:
            try:
                is_late = _wait(process, after, timeout)
                orphans = _outliving(marker) if process.returncode not in (None, -signal.SIGKILL) else ()
            finally:
                # A number that was waited for may belong to another process by now.
                kill_tree(process.pid if process.returncode is None else None, marker)
        seconds = time.monotonic() - started
        stdout, stderr = ((folder / part).read_text(errors="replace") for part in ("stdout", "stderr"))
        if is_late:
            raise TimeoutError(f"{' '.join(command)}: ran longer than {timeout:.0f} s; it wrote:\n{stderr[-2_000:]}")
        writes = _read_writes(folder / "log")
    at = next((write for write in writes if write.number == on_write), None)
    return KilledRun(process.returncode, stdout, stderr, seconds, writes, at, marker, orphans)


def processes_left(marker: str) -> list[str]:
    """Command lines of the living processes of a run, in whatever session they are."""
    lines = []
    for pid in marked_processes(marker):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if _is_alive(process):
                lines.append(f"{pid}: {' '.join(process.cmdline())}")
    return lines


def kill_tree(pid: int | None, marker: str = "") -> None:
    """Kill a process and all that came from it: its descendants, its session, and whatever inherited the marker.

    All are stopped before the first is killed, and looked for again until no new one is found: none escapes by being born
    meanwhile, none acts on the death of another.

    Parameters
    ----------
    pid
        Number of the process; None where it has ended and only what it left behind is meant.

    Raises
    ------
    TimeoutError
        If one of them does not die.
    """
    found: set[psutil.Process] = set()
    while new := set(_tree(pid, marker)) - found:
        for process in new:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        found |= new
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    until = time.monotonic() + DEATH_SECONDS
    while alive := [process for process in found if _is_alive(process)]:
        if time.monotonic() > until:
            raise TimeoutError(f"killed {DEATH_SECONDS:.0f} s ago and alive: {', '.join(map(str, alive))}")
        time.sleep(0.005)


def _tree(pid: int | None, marker: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter() if pid is not None else ():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if process.pid == pid or os.getsid(process.pid) == pid:
                yield process
                yield from _descendants(process)
    for number in marked_processes(marker) if marker else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            yield psutil.Process(number)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    # One that is dead but not waited for by its parent does nothing any more; its parent may never wait.
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _wait(process: subprocess.Popen[bytes], after: float | None, timeout: float) -> bool:
    """Wait for a command, ``after`` seconds at most; whether it took longer than it may."""
    try:
        process.wait(timeout if after is None else min(after, timeout))
    except subprocess.TimeoutExpired:
        return after is None or after > timeout
    return False


def _outliving(marker: str) -> tuple[str, ...]:
    """What a command that ended by itself left running; helpers that are about to end get a moment."""
    until = time.monotonic() + ENDING_SECONDS
    while (left := processes_left(marker)) and time.monotonic() < until:
        time.sleep(0.02)
    return tuple(left)


def _hook(folder: Path, marker: str, on_write: int | None, when: str) -> dict[str, str]:
    """Place the hook where every Python process of the command finds it; return the variables that lead there."""
    hooks = folder / "hooks"
    hooks.mkdir()
    shutil.copy(kill_hook.__file__, hooks / "sitecustomize.py")
    path = os.pathsep.join([str(hooks), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {"PYTHONPATH": path, kill_hook.MARKER: marker, kill_hook.FOLDER: str(folder), kill_hook.WHEN: when}
    return variables | ({} if on_write is None else {kill_hook.AT: str(on_write)})


def _read_writes(log: Path) -> tuple[Write, ...]:
    begun: dict[int, dict[str, object]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        entry = json.loads(line)
        begun.setdefault(entry["number"], {}).update(entry)
    return tuple(Write(**begun[number]) for number in sorted(begun))  # type: ignore[arg-type]
