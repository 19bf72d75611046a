"""What a scheduler costs: milliseconds for a task that does nothing, and FASTA per CPU-second with one and two workers.

Tasks go through ``Executor.map`` as partitions do, a few in flight per worker; starting the workers is not in the time of
a task, and is given beside it. The ingest is a whole process with all its workers, beside the floor (``floor_ingest.py``)
on the same FASTA in the same round; bases only, no annotation.
"""

from __future__ import annotations

import gzip
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import (
    BENCHMARKS,
    Case,
    Run,
    Target,
    command_line,
    fresh,
    interleave,
    median,
    paired_ratio,
    parse_arguments,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)

GENOME = "sim1"
SCHEDULERS = ("sync", "threads:2", "processes:2")


def add_one(number: int) -> int:
    """Do as good as nothing."""
    return number + 1


# -- overhead ----------------------------------------------------------------------------------------------------


def run_tasks(scheduler: str, n_tasks: int) -> None:
    """Time the tasks of one scheduler, in a process of its own; print seconds to start, wall and CPU per task."""
    sys.path.insert(0, str(BENCHMARKS))
    from bench_dask import add_one as task

    from splicestore.cluster import open_executor

    begun = time.perf_counter()
    with open_executor(scheduler) as executor:
        # The first tasks import what they need in each worker.
        dict(executor.map(task, range(2 * executor.n_workers)))
        started = time.perf_counter() - begun
        wall, cpu = time.perf_counter(), time.process_time()
        found = dict(executor.map(task, range(n_tasks), memory=1))
        took = Run(time.perf_counter() - wall, time.process_time() - cpu)
    if found != {i: i + 1 for i in range(n_tasks)}:
        raise SystemExit(f"{scheduler}: results are wrong")
    print(json.dumps({"start_s": started, "wall_s": took.wall_s / n_tasks, "cpu_s": took.cpu_s / n_tasks}))


def measure_overhead(n_tasks: int, rounds: int) -> Case:
    """Measure trivial tasks under every scheduler; an arm's figures are per task."""
    starts: dict[str, list[float]] = {scheduler: [] for scheduler in SCHEDULERS}

    def arm(scheduler: str) -> Callable[[], Run]:
        def work() -> Run:
            words = (sys.executable, Path(__file__), "--tasks-of", scheduler, "--tasks", str(n_tasks))
            found = json.loads(run_process(words).output)
            starts[scheduler].append(found["start_s"])
            return Run(found["wall_s"], found["cpu_s"])

        return work

    runs = interleave({scheduler: arm(scheduler) for scheduler in SCHEDULERS}, rounds, warm_up=False)
    figures: dict[str, Any] = {}
    for scheduler in SCHEDULERS:
        name = scheduler.replace(":", "_")
        figures[f"{name}_ms_per_task"] = median(runs[scheduler], "wall_s") * 1e3
        figures[f"{name}_client_cpu_ms_per_task"] = median(runs[scheduler], "cpu_s") * 1e3
        figures[f"{name}_start_s"] = statistics.median(starts[scheduler])
    return Case("overhead", {"unit": "one task", "tasks": n_tasks}, runs, figures=figures)


# -- ingest ------------------------------------------------------------------------------------------------------


def measure_ingest(study: Path, scratch: Path, rounds: int) -> Case:
    """Ingest bases with 1 and 2 workers from a plain file and from the gzip it came as, beside the floor."""
    packed, plain = study / "genomes" / f"{GENOME}.fa.gz", scratch / f"{GENOME}.fa"
    with gzip.open(packed) as source, plain.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 22)
    configs = {}
    for name, fasta in (("plain", plain), ("gzip", packed)):
        configs[name] = scratch / f"{name}.json"
        configs[name].write_text(json.dumps({"genomes": [{"genome_id": GENOME, "fasta": str(fasta)}]}))

    def ingest(name: str, scheduler: str) -> Callable[[], Run]:
        store = scratch / "store"
        return lambda: run_process(
            command_line("-q", "ingest", "genomes", fresh(store), configs[name], "--scheduler", scheduler, "--json")
        )

    floor = (sys.executable, BENCHMARKS / "floor_ingest.py", "write", packed, scratch / "floor.zst")
    arms: dict[str, Callable[[], Run]] = {"floor, gzip": lambda: run_process(floor)}
    arms |= {
        f"{name}, {scheduler}": ingest(name, scheduler)
        for name in ("gzip", "plain")
        for scheduler in ("sync", "processes:1", "processes:2")
    }
    document = json.loads(arms["gzip, sync"]().output)["genomes"][GENOME]
    arms["floor, gzip"]()
    run_process(
        (sys.executable, BENCHMARKS / "floor_ingest.py", "compare", scratch / "floor.zst", scratch / "store", GENOME)
    )
    runs = interleave(arms, rounds, warm_up=False)
    n_mb = plain.stat().st_size / 1e6
    figures: dict[str, Any] = {}
    for arm in arms:
        key = arm.replace(", ", "_").replace(":", "_")
        figures[f"{key}_mb_per_cpu_s"] = n_mb / median(runs[arm], "cpu_s")
        figures[f"{key}_mb_per_s"] = n_mb / median(runs[arm], "wall_s")
    figures |= {
        "sync_cpu_over_floor": paired_ratio(runs, "gzip, sync", "floor, gzip"),
        "two_workers_cpu_over_one_process_plain": paired_ratio(runs, "plain, processes:2", "plain, sync"),
        "two_workers_wall_over_one_process_plain": paired_ratio(runs, "plain, processes:2", "plain, sync", "wall_s"),
    }
    parameters = {"unit": "one genome, bases only", "n_bases": document["n_bases"], "fasta_mb": round(n_mb, 1)}
    return Case("fasta per CPU-second", parameters, runs, figures=figures, targets=_targets(figures))


def _targets(figures: dict[str, Any]) -> list[Target]:
    return [
        Target(
            "two_workers_cpu_over_one_process_plain", figures["two_workers_cpu_over_one_process_plain"], 2.0, "times"
        )
    ]


def main() -> None:
    def more(parser: Any) -> None:
        parser.add_argument(
            "--tasks-of", help="time trivial tasks of one scheduler and print them (used by the benchmark itself)"
        )
        parser.add_argument("--tasks", type=int, default=500)

    arguments = parse_arguments(__doc__, more)
    if arguments.tasks_of:
        run_tasks(arguments.tasks_of, arguments.tasks)
        return
    quick = arguments.quick
    with scratch_folder() as scratch:
        if quick:
            study = simulated_study(arguments.cache, genomes=1, megabases=2, genes=80, conditions=4)
        else:
            study = simulated_study(arguments.cache, genomes=1, megabases=100, genes=2_000, conditions=20)
        cases = [
            measure_overhead(50 if quick else 500, 1 if quick else 3),
            measure_ingest(study, scratch, 1 if quick else 3),
        ]
    report("dask", cases, record=not quick)


if __name__ == "__main__":
    main()
