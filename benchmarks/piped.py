"""Arms as processes of their own, asked for one round at a time over a pipe: their rounds interleave, their peaks stay apart.

An arm may so run under another interpreter, with the libraries of another environment. The other end is ``worker.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from harness import BENCHMARKS, MIB, Run

PEERS = BENCHMARKS / "peers.txt"
UNIT_WINDOWS = 1_000
"""Times of a piped arm are for so many windows: arms that differ a thousandfold need not deliver equally many a round."""
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "GVL_NUM_THREADS", "POLARS_MAX_THREADS")


class PipedArm:
    """A worker process.

    Parameters
    ----------
    name
        Which arm of the script to serve.
    script
        Calls ``worker.serve``.
    options
        What the arm is made with; JSON.
    python
        The interpreter.
    """

    def __init__(
        self, name: str, script: Path, options: Mapping[str, Any], python: str | Path = sys.executable
    ) -> None:
        self.name = name
        environment = os.environ | dict.fromkeys(ONE_THREAD, "1")
        # Only what the arm prints for us is ours; what its libraries print goes to the errors.
        self._process = subprocess.Popen(
            [str(python), str(script), name, json.dumps(dict(options))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, what: str) -> dict[str, Any]:
        """Have the worker do something and return its answer.

        Raises
        ------
        SystemExit
            If it ended instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"arm {self.name} ended with {self._process.wait()} when asked for {what!r}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def round(self, what: str = "round") -> Run:
        """Time one round; seconds are those of ``UNIT_WINDOWS`` windows, ``output`` is the whole answer."""
        answer = self.ask(what)
        per_unit = UNIT_WINDOWS / answer["windows"]
        peak = answer["peak_bytes"]
        return Run(answer["wall_s"] * per_unit, answer["cpu_s"] * per_unit, peak, json.dumps(answer))

    def stop(self) -> None:
        """Let the worker end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def piped_arms(arms: Mapping[str, tuple[Path, Mapping[str, Any], str | Path]]) -> Iterator[dict[str, PipedArm]]:
    """Start a worker for each name: (script, options, interpreter, or nothing for this one)."""
    with ExitStack() as stack:
        started = {}
        for name, (script, options, python) in arms.items():
            arm = PipedArm(name, script, options, python or sys.executable)
            stack.callback(arm.stop)
            started[name] = arm
        yield started


def compare_contents(arms: Mapping[str, PipedArm]) -> dict[str, Any]:
    """Compare what arms deliver in an epoch, as sets of windows; return each arm's description.

    Raises
    ------
    SystemExit
        If two arms that deliver a field (bases; bases and labels; these and usage) differ in it.
    """
    found = {name: arm.ask("check") for name, arm in arms.items()}
    for field in ("bases", "labels", "usage"):
        digests = {name: (d["windows"], d[field]) for name, d in found.items() if d.get(field)}
        if len(set(digests.values())) > 1:
            raise SystemExit(f"arms differ in {field} (windows, digest): {digests}")
    return found


def disk_figures(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Bytes on disk of what each arm reads, in MiB."""
    return {f"{name}_disk_mib": d["disk_bytes"] / MIB for name, d in described.items() if d["disk_bytes"]}


def rates(runs: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    """Windows per second of wall time and of CPU time; medians."""
    from harness import median

    return {
        f"{name}_windows_per_{label}": UNIT_WINDOWS / median(of, value)
        for label, value in (("s", "wall_s"), ("cpu_s", "cpu_s"))
        for name, of in runs.items()
    }


# -- environments of peers ---------------------------------------------------------------------------------------


def peer_requirements() -> dict[str, list[list[str]]]:
    """Read ``peers.txt``: the name of an environment, and what is installed into it, step by step."""
    found: dict[str, list[list[str]]] = {}
    for line in PEERS.read_text().splitlines():
        words = line.split("#", 1)[0].split()
        if words:
            found.setdefault(words[0].rstrip(":"), []).append(words[1:])
    return found


def peer_python(name: str, folder: Path) -> Path:
    """Return the interpreter of a peer's environment, made on first use (minutes, and up to 2.5 GB)."""
    python = folder / name / "bin" / "python"
    finished = folder / name / "finished"
    steps = peer_requirements()[name]
    if finished.exists() and json.loads(finished.read_text()) == steps:
        return python
    print(f"installing {name} into {folder / name}", file=sys.stderr, flush=True)
    shutil.rmtree(folder / name, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
    for step in steps:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *step], check=True)
    finished.write_text(json.dumps(steps))
    return python
