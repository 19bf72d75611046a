"""Windows per second where the dense float32 files do not fit in memory, and the genome does.

All windows of a genome of 100 Mb are 3 GB as float32 one-hot. Memory for it is limited to 768 MiB: the one-hot file is held
to so much of the page cache, by putting pages of it out between batches and outside of the arm's clock, as no memory
controller of cgroup v2 could be relied on. ``mincore`` says how much was there at most, and the kernel how many bytes of
each window came from the disk. The arms are flattered: what a kernel spends on making room is not counted, nor is the
memory of their process, and labels may stay in memory beside the limit. Ours has the limit for all: its peak and its whole
store together.

- ``limited_gather``: rows through a memory map, a whole batch a call, into one buffer; without the disk's reading ahead, which
  made it several times slower
- ``limited_reads``: a read for each row, 16 at a time, into one buffer: what hides a disk's latency best; the target is
  against the faster of the two
- ``one_hot``, ``one_hot_read_anew``, ``tokens``: as in ``bench_stream.py``
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bench_stream import ARMS, CONTEXT, INPUT, WINDOW, add_rounds, our_arms, over, prepare_store
from harness import (
    BENCHMARKS,
    MIB,
    Case,
    Target,
    interleave,
    parse_arguments,
    peak_mib,
    report,
    run_process,
    scratch_folder,
)
from piped import UNIT_WINDOWS, compare_contents, disk_figures, piped_arms, rates

LIMIT_MIB = 768
LIMIT_QUICK_MIB = 16
SHUFFLE_MEMORY_MIB = 256
STEPS = 20
OURS = ("tokens", "one_hot", "one_hot_read_anew")
DENSE = ("limited_gather", "limited_reads")


def main() -> None:
    arguments = parse_arguments(__doc__, add_rounds)
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    limit = LIMIT_QUICK_MIB if quick else LIMIT_MIB
    with scratch_folder() as scratch:
        sizes = {"megabases": 2, "genes": 80} if quick else {"megabases": 100, "genes": 2_000}
        store, _ = prepare_store(arguments.cache, scratch, conditions=4 if quick else 20, **sizes)
        folder = scratch / "windows"
        run_process((sys.executable, BENCHMARKS / "stream_inputs.py", "windows", store, folder))
        options = our_arms(store, OURS, quick)
        for of in options.values():
            of |= {"stream": {"geneless": 1.0, "shuffle_memory": SHUFFLE_MEMORY_MIB * MIB}, "epochs": 1}
        dense = {"folder": str(folder), "limit_mib": limit, "input_length": INPUT, "window": WINDOW, "steps": STEPS}
        with piped_arms({"whole_dense": (ARMS, dense, "")} | {n: (ARMS, o, "") for n, o in options.items()}) as whole:
            described = compare_contents(whole)
        arms = {name: (ARMS, options.get(name, dense), "") for name in (*OURS, *DENSE)}
        with piped_arms(arms) as started:
            runs = interleave({name: arm.round for name, arm in started.items()}, rounds)
    answers = {name: [json.loads(run.output) for run in of] for name, of in runs.items()}
    best = min(DENSE, key=lambda name: sum(run.wall_s for run in runs[name]))
    store_mib, dense_mib = (described[name]["disk_bytes"] / MIB for name in ("one_hot", "whole_dense"))
    resident = max(a["most_resident_bytes"] for name in DENSE for a in answers[name]) / MIB
    targets = (
        Target("one_hot_over_dense_wall", over(runs, "one_hot", best, "wall_s"), 5, "x", at_least=True),
        Target("one_hot_peak_and_store", peak_mib(runs["one_hot"]) + store_mib, limit, "MiB"),
        Target("dense_over_limit", dense_mib / limit, 3, "x", at_least=True),
        Target("dense_in_page_cache", resident, limit * 1.1, "MiB"),
    )
    figures: dict[str, Any] = {"faster_dense_arm": best}
    figures |= {f"{a}_over_{b}_wall": over(runs, a, b, "wall_s") for a in OURS for b in DENSE}
    for name, of in answers.items():
        figures[f"{name}_disk_reads_kib_per_window"] = (
            sum(a["read_bytes"] for a in of) / sum(a["windows"] for a in of) / 1024
        )
    parameters = {
        "unit": f"{UNIT_WINDOWS:,} windows", "window_size": WINDOW, "context_size": CONTEXT, "limit_mib": limit,
        "shuffle_memory_mib": SHUFFLE_MEMORY_MIB, "windows": described["one_hot"]["windows"], **sizes,
    }  # fmt: skip
    figures |= disk_figures(described) | rates(runs)
    report("stream_memory", [Case("memory limit", parameters, runs, targets, figures)], record=not quick)


if __name__ == "__main__":
    main()
