"""Counts the writes of a command in all its processes, and kills the whole command at the k-th.

``run_and_kill`` puts a copy of this file, named ``sitecustomize.py``, on the command's ``PYTHONPATH``: every Python process of
the command runs it at start, worker processes included. It needs the standard library only and wakes up when the module with
the writing class is imported. Linux: it reads ``/proc``.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

MARKER = "KILL_HOOK_RUN"
"""Every process of a command inherits this variable; its value names the run."""
FOLDER = "KILL_HOOK_FOLDER"
AT = "KILL_HOOK_AT"
WHEN = "KILL_HOOK_WHEN"

MODULE, CLASS, METHODS = "splicestore.storage.keys", "StoreRoot", ("put", "create", "put_if")


def marked_processes(marker: str) -> list[int]:
    """Numbers of the living processes that inherited the marker, other than this one."""
    wanted, found = f"{MARKER}={marker}".encode(), []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in variables:
            found.append(int(folder.name))
    return sorted(found)


def die_together(marker: str) -> None:
    """Kill every process of the run, this one last. All are stopped first, so that none acts on another's death."""
    others = marked_processes(marker)
    for name in (signal.SIGSTOP, signal.SIGKILL):
        for pid in others:
            try:
                os.kill(pid, name)
            except ProcessLookupError:
                continue
    os.kill(os.getpid(), signal.SIGKILL)


def next_number(folder: Path) -> int:
    """Take the next number, from 1, among all processes of the run."""
    # The kernel appends and moves the position in one step, so two writers never get the same number.
    handle = os.open(folder / "count", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, b".")
        return os.lseek(handle, 0, os.SEEK_CUR)
    finally:
        os.close(handle)


def note(folder: Path, **line: Any) -> None:
    """Append a line to the run's log, whole."""
    handle = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, f"{json.dumps({**line, 'pid': os.getpid()})}\n".encode())
    finally:
        os.close(handle)


def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a writing method."""
    folder, marker = Path(os.environ[FOLDER]), os.environ[MARKER]
    at, when = int(os.environ.get(AT, sys.maxsize)), os.environ.get(WHEN, "before")

    @functools.wraps(method)
    def call(self: Any, key: str, *arguments: Any, **options: Any) -> Any:
        number = next_number(folder)
        while number > at:
            # The k-th write kills this process any moment now; nothing may be written after it.
            time.sleep(1)
        note(folder, number=number, method=name, key=key, root=self.url, state="begun")
        if number == at and when == "before":
            die_together(marker)
        try:
            answer = method(self, key, *arguments, **options)
            note(folder, number=number, state="done")
            return answer
        except BaseException as error:
            note(folder, number=number, state=f"failed: {type(error).__name__}")
            raise
        finally:
            if number == at:
                die_together(marker)

    return call


def wrap(module: ModuleType) -> None:
    """Wrap the writing methods of the class."""
    writer = getattr(module, CLASS)
    for name in METHODS:
        setattr(writer, name, counted(name, getattr(writer, name)))


class WrapWhenImported(importlib.abc.MetaPathFinder):
    """Lets the module be found as usual and wraps its class as soon as it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the one module; leave all others to the usual finders."""
        if fullname != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_wrap(module: ModuleType) -> None:
            run(module)
            wrap(module)

        spec.loader.exec_module = run_and_wrap  # type: ignore[method-assign]
        return spec


if FOLDER in os.environ:
    sys.meta_path.insert(0, WrapWhenImported())
