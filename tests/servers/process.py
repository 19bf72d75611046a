"""Servers in processes of their own: ready when handed out, gone for sure when the process that asked for them is.

The server prints its port, chosen by the kernel, on its standard output and watches its standard input: the pipe ends when
the other side closes it, however that side died.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[2]

START_SECONDS = 60.0
"""Generous: a loaded machine imports slowly, and a server that fails says so at once."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that runs."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        """Where it answers, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def server_process(module: str, *arguments: str) -> Iterator[ServerProcess]:
    """Run ``python -m module arguments`` until the block ends.

    Parameters
    ----------
    module
        A module of this repository that calls ``announce`` once its socket listens.

    Raises
    ------
    RuntimeError
        If it does not announce a port; with what it wrote to its standard error.
    """
    command = [sys.executable, "-m", module, *arguments]
    with (
        tempfile.TemporaryFile() as errors,
        # A session of its own: an interrupt at the terminal lets the fixtures, not the signal, end the server.
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield ServerProcess(process.pid, _announced_port(process, module, errors))
        finally:
            process.kill()


def _announced_port(process: subprocess.Popen[bytes], module: str, errors: IO[bytes]) -> int:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if ready else b""
    if not line.strip().isdigit():
        process.kill()
        process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")[-2_000:]
        raise RuntimeError(f"{module} announced no port within {START_SECONDS:.0f} s but {line!r}; it wrote:\n{said}")
    return int(line)


def announce(port: int) -> None:
    """Tell the process that started this server its port, and end with that process. Called in the server."""
    parent = os.getppid()
    print(port, flush=True)

    def watch() -> None:
        # A fork of the parent may hold the pipe open after its death: the parent's number is looked at too.
        while os.getppid() == parent and not select.select([0], [], [], 1.0)[0]:
            pass
        os._exit(0)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()


def serve_forever() -> None:
    """Keep the main thread of a server whose work is done by other threads."""
    while True:
        time.sleep(3600)
