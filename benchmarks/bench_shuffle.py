"""The order of an epoch: how well it mixes, what a rank reads for it, where it can be entered, and when its first batch comes.

Not times alone. Entropy is that of a batch of 256 over 100 neighbourhoods of equally many windows, in bits, meaned over the
first, middle and last batches of an epoch apart; 256 windows drawn from all have ``drawn_from_all``. Blocks read are those
that the readers of 8 ranks asked a store for. An epoch of 10^9 windows is entered at random steps, and what comes is compared
with what a reader gets there that began a hundred steps before. Time to the first batch counts from opening the store, in a
fresh process whose imports are done; cold, all files of the store were put out of the page cache before.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness import (
    BENCHMARKS,
    MIB,
    Case,
    Run,
    Target,
    command_line,
    interleave,
    parse_arguments,
    peak_mib,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)

LANES, BATCH, NEIGHBOURHOODS = 8, 256, 100
LIVE = (16, 32, 64, 128, 256, 512)
LIVE_JUDGED = 256
BATCHES_MEANED = 20
RANKS = 8
SPLIT = "run1"


# -- measured in processes of their own ----------------------------------------------------------------------------


def order_of(n_blocks: int, windows_a_block: int, live: int, epoch: int = 0) -> Any:
    """Order an epoch over equal blocks."""
    import numpy as np

    from splicestore.kernels.shuffle import order_epoch
    from splicestore.stream.epoch import EpochOrder

    ptr = np.arange(n_blocks + 1, dtype=np.int64) * windows_a_block
    lanes = order_epoch(ptr, np.arange(n_blocks, dtype=np.int64), LANES, live, 1, epoch)
    return EpochOrder(lanes, tuple(lane.n_windows for lane in lanes), BATCH, "short", "lanes")


def entropy(neighbourhood: Any) -> float:
    """Bits of the distribution over neighbourhoods."""
    import numpy as np

    share = np.bincount(neighbourhood, minlength=NEIGHBOURHOODS) / len(neighbourhood)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def measure_entropy(n_blocks: int, windows_a_block: int) -> dict[str, Any]:
    """Entropy at the three places for every number of live blocks, and of windows drawn from all."""
    import itertools

    import numpy as np

    from splicestore.stream.epoch import Reader

    n_windows = n_blocks * windows_a_block
    rng = np.random.default_rng(1)
    drawn = [entropy(rng.integers(0, NEIGHBOURHOODS, BATCH)) for _ in range(10 * BATCHES_MEANED)]
    found: dict[str, Any] = {"drawn_from_all": statistics.mean(drawn)}
    for live in LIVE:
        order = order_of(n_blocks, windows_a_block, live)
        # The last batches are those before the first lane runs out.
        last = min(order.lane_rows) // order.per_lane - BATCHES_MEANED
        for place, first in (("start", 0), ("middle", last // 2), ("end", last)):
            steps = itertools.islice(order.steps(Reader(), first), BATCHES_MEANED)
            bits = [entropy(step.window * NEIGHBOURHOODS // n_windows) for step in steps]
            found[f"{live}_live_{place}"] = statistics.mean(bits)
    return found


def measure_blocks_read(n_blocks: int, windows_a_block: int) -> dict[str, Any]:
    """Stream an epoch of a store without content as each of the ranks in turn; count what each reads of it."""
    sys.path.insert(0, str(BENCHMARKS.parent))
    from splicestore.stream import WindowBatches
    from splicestore.stream.plan import BLOCKS_IN_FLIGHT
    from tests.unit.stream.memory_store import table_store

    store = table_store([[windows_a_block] * n_blocks])
    options: dict[str, Any] = {"split": "run1", "batch_size": BATCH, "lanes": LANES, "share": "lanes", "seed": 1}
    one = int(WindowBatches(store, **options).plan.block_bytes.max())  # type: ignore[arg-type]
    memory = one * (LIVE_JUDGED + LANES + BLOCKS_IN_FLIGHT)
    read, seen, live = [], 0, 0
    for rank in range(RANKS):
        stream = WindowBatches(store, rank=rank, world_size=RANKS, shuffle_memory=memory, **options)  # type: ignore[arg-type]
        seen += sum(len(batch) for batch in stream)
        read.append(stream.statistics()["blocks_read"])
        live = stream.plan.live_total
        stream.close()
    if seen != n_blocks * windows_a_block:
        raise SystemExit(f"the ranks saw {seen} windows of {n_blocks * windows_a_block}")
    return {"live": live, "blocks": n_blocks, "most_read": max(read), "read_together": sum(read)}


def measure_resume(n_blocks: int, windows_a_block: int, tries: int) -> dict[str, Any]:
    """Order an epoch, then enter it at random steps: the first batch's seconds, and whether the tail is the same."""
    import itertools

    import numpy as np

    from splicestore.stream.epoch import Reader

    order_of(LANES, 4, LIVE_JUDGED)  # compiles
    began = time.perf_counter()
    order = order_of(n_blocks, windows_a_block, LIVE_JUDGED)
    set_up = time.perf_counter() - began
    before, compared = 100, 200
    seconds = []
    for step in np.random.default_rng(1).integers(before, order.n_steps - compared, tries).tolist():
        began = time.perf_counter()
        steps = order.steps(Reader(), step)
        first = next(steps)
        seconds.append(time.perf_counter() - began)
        tail = [first, *itertools.islice(steps, compared)]
        earlier = itertools.islice(order.steps(Reader(), step - before), before, before + compared + 1)
        if not all(np.array_equal(a.window, b.window) for a, b in zip(tail, earlier, strict=True)):
            raise SystemExit(f"step {step}: entered there, the epoch goes on differently")
    return {"windows": n_blocks * windows_a_block, "set_up_s": set_up, "first_s": seconds}


def measure_first_batch(store: Path) -> dict[str, Any]:
    """Open, plan, cut one batch; what a script imports in its first lines is imported before."""
    import splicestore

    _ = splicestore.WindowStream, splicestore.open_store
    began = time.perf_counter()
    stream = splicestore.WindowStream(splicestore.open_store(str(store)), split=SPLIT, batch_size=BATCH, seed=1)
    planned = time.perf_counter()
    n = len(next(iter(stream)).sequence)
    done = time.perf_counter()
    if n != BATCH:
        raise SystemExit(f"a first batch of {n} windows")
    return {**stream.statistics(), "seconds": done - began, "plan_s": planned - began}


def put_out(store: Path) -> dict[str, Any]:
    """Put a store out of the page cache."""
    from worker import evict, files_below

    kept = evict(files_below(store))
    if kept:
        raise SystemExit(f"{kept} bytes of {store} stayed in the page cache")
    return {"kept": kept}


def make_thousand(scratch: Path, study: Path, n_genomes: int) -> dict[str, Any]:
    """Publish many tiny genomes and split them."""
    import bench_s3

    return {"store": bench_s3.make_many(scratch, study, n_genomes).url}


MEASURES: Mapping[str, Callable[..., dict[str, Any]]] = {
    "entropy": measure_entropy,
    "blocks_read": measure_blocks_read,
    "resume": measure_resume,
    "first_batch": lambda store: measure_first_batch(Path(store)),
    "put_out": lambda store: put_out(Path(store)),
    "thousand": lambda scratch, study, n: make_thousand(Path(scratch), Path(study), n),
}


def measured(what: str, *arguments: Any) -> Run:
    """Run one of ``MEASURES`` in a process; its answer is the output."""
    return run_process((sys.executable, __file__, "measure", what, json.dumps(arguments)))


# -- cases ---------------------------------------------------------------------------------------------------------


def bench_entropy(quick: bool) -> Case:
    """Judge entropy at one number of live blocks, table the others."""
    n_blocks, windows = (600, 100) if quick else (3_000, 950)
    run = measured("entropy", n_blocks, windows)
    figures = json.loads(run.output)
    targets = [
        Target(f"{LIVE_JUDGED}_live_{place}", figures[f"{LIVE_JUDGED}_live_{place}"], 6.2, "bits", at_least=True)
        for place in ("start", "middle", "end")
    ]
    parameters = {"blocks": n_blocks, "windows_a_block": windows, "batch_size": BATCH, "lanes": LANES,
                  "neighbourhoods": NEIGHBOURHOODS}  # fmt: skip
    return Case("entropy", parameters, {"measure": [run]}, targets, figures)


def bench_blocks_read(quick: bool) -> Case:
    """Judge what each of 8 ranks reads."""
    n_blocks, windows = (600, 16) if quick else (3_000, 64)
    run = measured("blocks_read", n_blocks, windows)
    found = json.loads(run.output)
    share, bound = found["most_read"] / n_blocks, 1 / RANKS + found["live"] / n_blocks
    target = Target("most_of_a_rank", share, bound, "of all blocks")
    return Case(
        "blocks read at 8 ranks", {"blocks": n_blocks, "windows_a_block": windows}, {"measure": [run]}, (target,), found
    )


def bench_resume(quick: bool, rounds: int) -> Case:
    """Judge the slowest of the entries."""
    n_blocks, windows = (1_000, 1_000) if quick else (1_000_000, 1_000)
    runs = interleave({"measure": lambda: measured("resume", n_blocks, windows, 10)}, rounds, warm_up=False)
    found = [json.loads(run.output) for run in runs["measure"]]
    slowest = max(second for of in found for second in of["first_s"])
    figures = {
        "set_up_s": statistics.median(of["set_up_s"] for of in found),
        "first_batch_s_median": statistics.median(second for of in found for second in of["first_s"]),
        "peak_mib": peak_mib(runs["measure"]),
    }
    parameters = {"windows": n_blocks * windows, "blocks": n_blocks, "entries": 10 * rounds, "live": LIVE_JUDGED}
    targets = (Target("slowest_entry_after_set_up", slowest, 1, "s"),)
    return Case("resume in an epoch", parameters, runs, targets, figures)


def first_batch_case(name: str, store: Path, limit: float, rounds: int, parameters: dict[str, Any]) -> Case:
    """Judge the first batch from cold files; warm ones beside it."""

    def cold() -> Run:
        measured("put_out", str(store))
        return measured("first_batch", str(store))

    arms = {"cold": cold, "warm": lambda: measured("first_batch", str(store))}
    runs = interleave(arms, rounds)
    answers = {arm: [json.loads(run.output) for run in of] for arm, of in runs.items()}
    seconds = {arm: statistics.median(answer["seconds"] for answer in of) for arm, of in answers.items()}
    figures: dict[str, Any] = {"warm_s": seconds["warm"]}
    for key in ("plan_s", "blocks_read", "requests", "planned_windows", "planned_blocks"):
        figures[f"cold_{key}"] = statistics.median(answer[key] for answer in answers["cold"])
    sizes = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
    figures |= {"disk_mib": sum(sizes) / MIB, "objects": len(sizes), "peak_mib": peak_mib(runs["cold"])}
    return Case(name, parameters, runs, (Target("cold", seconds["cold"], limit, "s"),), figures)


def bench_human(cache: Path, quick: bool, rounds: int) -> Case:
    """Publish a human-sized genome, kept in the cache for the next run, and split it."""
    megabases, genes, conditions = (12, 100, 4) if quick else (3_100, 20_000, 99)
    study = simulated_study(cache, genomes=1, megabases=megabases, genes=genes, conditions=conditions)
    store = cache / f"store-{study.name}"
    # Both do nothing where their result is there and the same.
    run_process(command_line("ingest", "genomes", store, study / "genomes.json"))
    run_process(command_line("split", "windows", store, SPLIT, "--test-fraction", "0.1", "--override-gates"))
    parameters = {"megabases": megabases, "genes": genes, "n_conditions": conditions, "batch_size": BATCH}
    return first_batch_case("first batch, a human-sized genome", store, 2, rounds, parameters)


def bench_thousand(cache: Path, scratch: Path, quick: bool, rounds: int) -> Case:
    """Publish many tiny genomes and split them."""
    n_genomes = 20 if quick else 1_000
    study = simulated_study(cache, genomes=2, megabases=1, genes=60, conditions=4)
    made = json.loads(measured("thousand", str(scratch), str(study), n_genomes).output.splitlines()[-1])
    parameters = {"genomes": n_genomes, "megabases_each": 1, "batch_size": BATCH}
    return first_batch_case("first batch, 1,000 genomes", Path(made["store"]), 5, rounds, parameters)


CASES = ("entropy", "blocks", "resume", "human", "thousand")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(MEASURES[sys.argv[2]](*json.loads(sys.argv[3]))))
        return
    arguments = parse_arguments(
        __doc__, lambda p: p.add_argument("--only", choices=CASES, action="append", help="these cases alone")
    )
    quick, rounds = arguments.quick, 1 if arguments.quick else 3
    with scratch_folder() as scratch:
        known: dict[str, Callable[[], Case]] = {
            "entropy": lambda: bench_entropy(quick),
            "blocks": lambda: bench_blocks_read(quick),
            "resume": lambda: bench_resume(quick, 1 if quick else 3),
            "human": lambda: bench_human(arguments.cache, quick, rounds),
            "thousand": lambda: bench_thousand(arguments.cache, scratch, quick, rounds),
        }
        for name in arguments.only or CASES:
            report("shuffle", [known[name]()], record=not quick)


if __name__ == "__main__":
    main()
