"""Windows per second of one process, beside dense files read batch by batch or row by row, SplicEvo's dataset and a copy.

Every arm is a process of its own with one torch thread and delivers the windows of the same subset; the dense files are what
``export splicevo --preset splicestore`` wrote:

- ``tokens``: ``WindowStream`` as numpy batches: codes, labels, ragged usage; blocks stay in memory between epochs
- ``tokens_read_anew``: the same, blocks let go after each epoch, then read and decompressed again
- ``one_hot``, ``one_hot_read_anew``: the stream as tensors, the bases expanded to float32 one-hot on the host
- ``one_hot_dense_usage``: that, and alpha, beta and SSE spread over all positions on the host
- ``gather``, ``gather_reused``: a whole batch per call from float32 one-hot and labels, into new arrays or the same ones; no
  usage, whose dense rows would outweigh all else. ``gather_codes``: the same with one byte a base instead of sixteen
- ``per_sample``: a map-style dataset over the same two files, a row an item, collated by torch's loader
- ``one_hot_ncl``, ``gather_ncl``, ``per_sample_ncl``: in the layout that convolutions take, channels before positions
- ``splicevo``: SplicEvo's training dataset, re-created from its description, see ``stream_arms.TableScanDataset``; void
  below 250 windows/s, as it would then be slower than the original
- ``memcpy``: as many bytes of one-hot copied from one buffer to another, both in the processor's caches: a floor

Warm: from the page cache. Cold: files are put out of it before each round; the arms' seconds then include the disk.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
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
    paired_ratio,
    parse_arguments,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)
from piped import UNIT_WINDOWS, PipedArm, compare_contents, disk_figures, piped_arms, rates

WINDOW, CONTEXT, BATCH = 1_000, 450, 256
INPUT = WINDOW + 2 * CONTEXT
ARMS = BENCHMARKS / "stream_arms.py"
EPOCHS = {
    "tokens": 20, "tokens_read_anew": 2, "one_hot": 10, "one_hot_read_anew": 2, "one_hot_dense_usage": 1, "one_hot_ncl": 10,
    "memcpy": 20, "gather_ncl": 5, "gather": 10, "gather_reused": 10, "gather_codes": 20, "per_sample": 1, "per_sample_ncl": 1,
    "splicevo": 1,
}  # fmt: skip
"""Passes of a round: a few tenths of a second each."""
SPLICEVO_STEPS = 2
COLD = ("tokens", "one_hot", "gather", "gather_reused", "gather_codes", "per_sample")
SPLICEVO_ELSEWHERE = {"program": "SplicEvo's training dataset on a genome of this size", "windows_per_s": 330}


def prepare_store(cache: Path, scratch: Path, *, megabases: float, genes: int, conditions: int) -> tuple[Path, Path]:
    """Publish a split genome; return the store and the study it came from."""
    study = simulated_study(cache, genomes=1, megabases=megabases, genes=genes, conditions=conditions)
    store = scratch / "store"
    run_process(command_line("ingest", "genomes", store, study / "genomes.json"))
    run_process(
        command_line("split", "windows", store, "bench", "--orthology", study / "orthologs.tsv", "--reference-genome", "sim1",
                     "--test-chromosomes", "chr2", "--window-size", str(WINDOW), "--context-size", str(CONTEXT))
    )  # fmt: skip
    return store, study


def prepare_dense(store: Path, scratch: Path) -> tuple[Path, Path]:
    """Export densely; return the export and what is made from it. The dense usage is removed: its rows are in a table."""
    import sys

    words = (
        "--genome",
        "sim1",
        "--preset",
        "splicestore",
        "--window-size",
        str(WINDOW),
        "--context-size",
        str(CONTEXT),
    )
    run_process(command_line("export", "splicevo", store, scratch / "dense", *words))
    dense, beside = scratch / "dense" / "sim1", scratch / "beside"
    run_process((sys.executable, BENCHMARKS / "stream_inputs.py", "dense", store, dense, beside))
    for name in ("alpha", "beta", "sse"):
        # Holes of the same size: the arrays are still described, and nobody reads them.
        path = dense / f"usage_{name}.mmap"
        size = path.stat().st_size
        path.unlink()
        with path.open("wb") as stream:
            stream.truncate(size)
    return dense, beside


def our_arms(store: Path, names: Sequence[str], quick: bool) -> dict[str, Any]:
    """Options of the arms that stream."""
    return {
        name: {"store": str(store), "epochs": 1 if quick else EPOCHS[name], "read_anew": name.endswith("read_anew")}
        for name in names
    }


def over(runs: Mapping[str, Sequence[Run]], arm: str, base: str, value: str = "cpu_s") -> float:
    """How many times as many windows a second an arm delivers as a base does."""
    return paired_ratio(runs, base, arm, value)


def warm_case(arms: Mapping[str, PipedArm], described: Mapping[str, Any], parameters: Any, rounds: int) -> Case:
    """Time all arms from the page cache."""
    runs = interleave({name: arm.round for name, arm in arms.items()}, rounds)
    found = rates(runs)
    targets = (
        Target("tokens_over_memcpy", over(runs, "tokens", "memcpy"), 0.6, "x", at_least=True),
        Target("one_hot_over_memcpy", over(runs, "one_hot", "memcpy"), 0.4, "x", at_least=True),
        Target("one_hot_over_splicevo", over(runs, "one_hot", "splicevo"), 300, "x", at_least=True),
        Target("splicevo_reaches_its_own_speed", found["splicevo_windows_per_s"], 250, "windows/s", at_least=True),
        Target("one_hot_over_per_sample", over(runs, "one_hot", "per_sample"), 20, "x", at_least=True),
        Target("one_hot_over_gather_reused", over(runs, "one_hot", "gather_reused"), 1.2, "x", at_least=True),
        Target("tokens_over_gather_reused", over(runs, "tokens", "gather_reused"), 1.2, "x", at_least=True),
    )
    others = [
        ("one_hot_ncl", "gather_ncl"),
        ("one_hot_ncl", "per_sample_ncl"),
        ("one_hot", "gather"),
        ("tokens", "gather"),
        ("tokens", "gather_codes"),
        ("tokens", "splicevo"),
        ("one_hot_dense_usage", "splicevo"),
        ("tokens_read_anew", "memcpy"),
        ("tokens_read_anew", "gather_reused"),
        ("one_hot_read_anew", "gather_reused"),
        ("one_hot_read_anew", "per_sample"),
    ]
    figures = {f"{a}_over_{b}": over(runs, a, b) for a, b in others}
    figures |= {f"{t.name}_wall": over(runs, *t.name.split("_over_"), "wall_s") for t in targets if "_over_" in t.name}
    figures |= disk_figures(described) | found
    return Case("one process, warm", parameters, runs, targets, figures, elsewhere=SPLICEVO_ELSEWHERE)


def cold_case(arms: Mapping[str, PipedArm], described: Mapping[str, Any], parameters: Any, rounds: int) -> Case:
    """Time one epoch of each arm after its files were put out of the page cache.

    Raises
    ------
    SystemExit
        If they did not go.
    """
    for arm in arms.values():
        arm.ask("close")
    runs = interleave({name: (lambda arm=arms[name]: arm.round("cold")) for name in COLD}, rounds, warm_up=False)  # type: ignore[misc]
    answers = {name: [json.loads(run.output) for run in of] for name, of in runs.items()}
    for name, of in answers.items():
        if any(answer["kept_bytes"] for answer in of):
            raise SystemExit(f"{name}: files stayed in the page cache: {[answer['kept_bytes'] for answer in of]} bytes")
    figures: dict[str, Any] = {
        f"{arm}_over_{base}_wall": over(runs, arm, base, "wall_s")
        for arm in ("tokens", "one_hot") for base in ("gather", "gather_reused", "gather_codes", "per_sample")
    }  # fmt: skip
    figures |= {f"{name}_read_mib": max(a["read_bytes"] for a in of) / MIB for name, of in answers.items()}
    figures |= disk_figures({name: described[name] for name in COLD}) | rates(runs)
    return Case("one process, cold", parameters, runs, figures=figures)


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """Let a busy machine take fewer."""
    parser.add_argument("--rounds", type=int, default=7, help="rounds of every arm (default: 7)")


def main() -> None:
    arguments = parse_arguments(__doc__, add_rounds)
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    with scratch_folder() as scratch:
        sizes = {"megabases": 2, "genes": 80} if quick else {"megabases": 20, "genes": 800}
        store, _ = prepare_store(arguments.cache, scratch, conditions=8, **sizes)
        dense, beside = prepare_dense(store, scratch)
        options = our_arms(store, [name for name in EPOCHS if name.startswith(("tokens", "one_hot"))], quick)
        for name in EPOCHS.keys() - options.keys():
            options[name] = {"dense": str(dense), "beside": str(beside), "epochs": 1 if quick else EPOCHS[name]}
        options["splicevo"]["steps"] = SPLICEVO_STEPS
        with piped_arms({name: (ARMS, options[name], "") for name in EPOCHS}) as arms:
            described = compare_contents({name: arm for name, arm in arms.items() if name != "memcpy"})
            parameters = {
                "unit": f"{UNIT_WINDOWS:,} windows", "window_size": WINDOW, "context_size": CONTEXT, "batch_size": BATCH,
                "n_conditions": 8, "windows": described["tokens"]["windows"], **sizes,
            }  # fmt: skip
            for make in (warm_case, cold_case):
                report("stream", [make(arms, described, parameters, rounds)], record=not quick)


if __name__ == "__main__":
    main()
