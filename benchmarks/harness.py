"""What the benchmarks share: whole processes measured, arms interleaved, rows written with the machine they ran on.

A row of ``results/NAME.json`` holds one case: the machine and versions, every arm's medians, the paired ratios
between arms, and the targets with what was reached. Running a case again on the same machine replaces its row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
RESULTS = BENCHMARKS / "results"
PACKAGE = BENCHMARKS.parent / "splicestore"
VERSIONED = ("splicestore", "zarr", "numcodecs", "numpy", "numba", "pandas", "scipy", "xarray", "torch")
MIB = 1024 * 1024


# -- what ran where ----------------------------------------------------------------------------------------


def describe_machine() -> dict[str, Any]:
    """Say what the numbers were measured on; nothing that names the host or its folders."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(pages / 2**30), "system": platform.system()}


def describe_versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on, and a digest of our sources.

    Read from metadata: importing the libraries would make this process large, see ``run_process``.
    """
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    versions["splicestore_sources"] = SOURCES_AT_START
    if (now := digest_sources()) != SOURCES_AT_START:
        versions["splicestore_sources_at_end"] = now
    return versions


def digest_sources() -> str:
    """Digest of the package's sources: a row belongs to these, whatever the version says."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


SOURCES_AT_START = digest_sources()
"""Taken before anything runs; a row names both where the sources were edited meanwhile."""


# -- measuring ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run."""

    wall_s: float
    cpu_s: float
    """User and system time, threads and waited-for children included."""
    peak_bytes: int | None = None
    """Largest resident set; None where the run was not a process of its own."""
    output: str = ""


def run_process(command: Sequence[str | Path]) -> Run:
    """Run a command to its end and measure it as a whole, start of the interpreter included.

    Linux hands the resident set of the starting process on to the started one, so the peak is right only as long
    as this process is smaller than that: callers that report peaks import no numpy.

    Raises
    ------
    SystemExit
        If the command fails, with the end of what it printed.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        redirect = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, errors.fileno(), 2)]
        started = time.perf_counter()
        pid = os.posix_spawnp(words[0], words, os.environ, file_actions=redirect)
        try:
            _, status, usage = os.wait4(pid, 0)
        except BaseException:
            # Left alone it would go on writing into a scratch folder that is being removed.
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            raise
        wall = time.perf_counter() - started
        output.seek(0)
        errors.seek(0)
        text, complaint = output.read().decode(), errors.read().decode()
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(words)}\nended with {code}:\n{complaint[-2_000:] or text[-2_000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, text)


def measure(work: Callable[[], Any]) -> Run:
    """Time work in this process: wall and process CPU, all threads included."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Run(time.perf_counter() - wall, time.process_time() - cpu)


def interleave(arms: Mapping[str, Callable[[], Run]], rounds: int, *, warm_up: bool = True) -> dict[str, list[Run]]:
    """Run arms in turn, A B A B ...; a first round that is not kept fills the page cache and compiles."""
    runs: dict[str, list[Run]] = {name: [] for name in arms}
    for number in range(-1 if warm_up else 0, rounds):
        for name, work in arms.items():
            run = work()
            if number >= 0:
                runs[name].append(run)
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return runs


def command_line(*words: str | Path) -> list[str | Path]:
    """Spell a ``splicestore`` command of the interpreter that runs this benchmark."""
    script = Path(sys.executable).with_name("splicestore")
    return [script, *words] if script.exists() else [sys.executable, "-m", "splicestore", *words]


def paired_ratio(runs: Mapping[str, Sequence[Run]], arm: str, base: str, value: str = "cpu_s") -> float:
    """Median over rounds of arm / base: what else the machine does in a round weighs on both."""
    pairs = zip(runs[arm], runs[base], strict=True)
    return float(statistics.median(getattr(a, value) / getattr(b, value) for a, b in pairs))


def median(runs: Sequence[Run], value: str) -> float:
    """Median of one figure over rounds."""
    return float(statistics.median(getattr(run, value) for run in runs))


def peak_mib(runs: Sequence[Run]) -> float:
    """Largest peak over rounds, MiB."""
    return max(run.peak_bytes or 0 for run in runs) / MIB


# -- scratch and inputs ------------------------------------------------------------------------------------


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder that is removed at the end, also where the benchmark is terminated."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="splicestore-bench-") as folder:
        yield Path(folder)


def fresh(path: Path) -> Path:
    """Return a path with nothing there."""
    if path.is_dir():
        shutil.rmtree(path)
    return path


def simulated_study(cache: Path, *, genomes: int, megabases: float, genes: int, conditions: int, seed: int = 1) -> Path:
    """Return the folder of a simulated study, made on first use (about 3 Mb/s)."""
    folder = cache / f"sim-{genomes}x{megabases:g}Mb-{genes}g-{conditions}c-s{seed}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"simulating {genomes} x {megabases:g} Mb with {genes:,} genes", file=sys.stderr, flush=True)
    # A study that is there and the same is left as it is; one of another release is refused by name.
    run_process(
        command_line("simulate", folder, "--genomes", str(genomes), "--megabases", f"{megabases:g}", "--genes", str(genes),
                     "--conditions", str(conditions), "--seed", str(seed))
    )  # fmt: skip
    return folder


# -- rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and what it should be."""

    name: str
    value: float
    limit: float
    unit: str
    at_least: bool = False
    """Whether the limit is a lower one."""

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def document(self) -> dict[str, Any]:
        """Spell for a row."""
        bound = "at_least" if self.at_least else "at_most"
        return {"value": _rounded(self.value), bound: self.limit, "unit": self.unit, "met": self.met}


@dataclass(frozen=True, slots=True)
class Case:
    """One measured case, ready to be printed and recorded."""

    name: str
    parameters: Mapping[str, Any]
    runs: Mapping[str, Sequence[Run]]
    targets: Sequence[Target] = ()
    figures: Mapping[str, Any] | None = None
    """Derived numbers without a target."""
    elsewhere: Mapping[str, Any] | None = None
    """Published numbers of other programs on other machines: for orientation, never for a ratio."""

    def document(self) -> dict[str, Any]:
        """Spell as a row."""
        return {
            "case": self.name,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine(),
            "load_average": [round(x, 2) for x in os.getloadavg()],
            "versions": describe_versions(),
            "parameters": dict(self.parameters),
            "arms": {arm: _arm_document(runs) for arm, runs in self.runs.items()},
            "figures": {k: _rounded(v) for k, v in (self.figures or {}).items()},
            "targets": {target.name: target.document() for target in self.targets},
            **({"elsewhere": dict(self.elsewhere)} if self.elsewhere else {}),
        }

    def print_table(self, *, judged: bool = True) -> None:
        """Print arms, figures and targets; the targets' figures only where the sizes are not those they are set for."""
        print(f"\n{self.name}: {', '.join(f'{k} {v}' for k, v in self.parameters.items())}")
        rows = [("arm", "rounds", "wall s", "min-max", "CPU s", "min-max", "peak MiB")]
        for arm, runs in self.runs.items():
            walls, cpus = [r.wall_s for r in runs], [r.cpu_s for r in runs]
            peak = f"{peak_mib(runs):.0f}" if any(r.peak_bytes for r in runs) else "-"
            rows.append(
                (arm, str(len(runs)), f"{statistics.median(walls):.3f}", f"{min(walls):.3f}-{max(walls):.3f}",
                 f"{statistics.median(cpus):.3f}", f"{min(cpus):.3f}-{max(cpus):.3f}", peak)
            )  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            print(
                "  "
                + "  ".join(
                    c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
                )
            )
        for name, value in (self.figures or {}).items():
            print(f"  {name}: {_rounded(value)}")
        for target in self.targets:
            verdict = ("met" if target.met else "MISSED") if judged else "target"
            bound = f"{'>=' if target.at_least else '<='} {target.limit:g}"
            print(f"  {verdict:6} {target.name} {target.value:.4g} {target.unit} ({bound})")
        if self.elsewhere:
            print(f"  elsewhere: {json.dumps(self.elsewhere)}")


def report(results: str, cases: Sequence[Case], *, record: bool) -> None:
    """Print the cases and, unless this was a quick run, put their rows into ``results/RESULTS.json``."""
    for case in cases:
        case.print_table(judged=record)
    if not record:
        print("\nnot recorded, targets not judged: quick inputs are too small")
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{results}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    for case in cases:
        new = case.document()
        rows = [row for row in rows if (row["case"], row["machine"]) != (new["case"], new["machine"])] + [new]
    path.write_text(json.dumps(rows, indent=1) + "\n")


def parse_arguments(description: str | None, *more: Callable[[argparse.ArgumentParser], Any]) -> argparse.Namespace:
    """Parse ``--quick`` and ``--cache``, and what a benchmark adds."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny inputs, one round: does it run? records nothing")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "splicestore-bench",
        help="folder that keeps simulated inputs between runs (default: in the system's temporary folder)",
    )  # fmt: skip
    for add in more:
        add(parser)
    return parser.parse_args()


def _arm_document(runs: Sequence[Run]) -> dict[str, Any]:
    document: dict[str, Any] = {"rounds": len(runs)}
    for name in ("wall_s", "cpu_s"):
        values = [getattr(run, name) for run in runs]
        document[name] = {
            "median": _rounded(statistics.median(values)),
            "min": _rounded(min(values)),
            "max": _rounded(max(values)),
        }
    if any(run.peak_bytes for run in runs):
        document["peak_mib"] = round(peak_mib(runs), 1)
    return document


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
