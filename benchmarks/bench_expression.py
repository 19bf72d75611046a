"""Binning-By-Gene: ``normalize fit`` and ``apply`` beside numpy on everything in memory and beside GeneRAIN's own steps.

Counts are real tumours resampled to the size asked for, as an ARCHS4-shaped file; all arms bin the same counts, and the bins of
ours and numpy's are compared. Bytes are counted at the store. Memory is compared over a tenfold number of samples. At 20,000
genes x 50,000 samples numpy holds counts (4 GB), bins (2 GB) and a thousand genes of doubles; the folder of inputs has 6 GB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from harness import (
    BENCHMARKS,
    MIB,
    Case,
    Run,
    Target,
    command_line,
    interleave,
    median,
    paired_ratio,
    parse_arguments,
    peak_mib,
    report,
    run_process,
    scratch_folder,
)

N_BINS = 2000
OUR_NAME = "bench"
TARGET_SAMPLES = 50_000
"""The speed that is asked for is that of large matrices: at fewer samples two starts of the interpreter and the edges weigh more."""


def counts_file(cache: Path, kind: str, n_samples: int, n_genes: int) -> Path:
    """Return counts of a size, made on first use."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"counts-{n_samples}x{n_genes}.{kind}"
    if not path.exists():
        partial = path.with_suffix(f".partial.{kind}")
        run_process((sys.executable, BENCHMARKS / "expression_inputs.py", kind, partial, str(n_samples), str(n_genes)))
        partial.rename(path)
    return path


def together(*runs: Run) -> Run:
    """Add runs that follow one another."""
    return Run(
        sum(run.wall_s for run in runs),
        sum(run.cpu_s for run in runs),
        max(run.peak_bytes or 0 for run in runs),
        runs[0].output,
    )


def our_arm(store: Path) -> Callable[[], Run]:
    """Fit and apply, in two processes; what the round before wrote is removed."""
    name = OUR_NAME

    def work() -> Run:
        for kind in ("normalized", "bins"):
            shutil.rmtree(store / kind, ignore_errors=True)
        fit = run_process(
            command_line(
                "normalize", "fit", store, name, "--expression", "x", "--n-bins", str(N_BINS), "--no-qc", "--json"
            )
        )
        apply = run_process(command_line("normalize", "apply", store, name, "--edges", name, "--json"))
        return together(fit, apply)

    return work


def other_arm(which: str, counts: Path, scratch: Path) -> Callable[[], Run]:
    """Run one of ``expression_arms``."""

    def work() -> Run:
        output = scratch / f"{which}.npy"
        shutil.rmtree(output.with_suffix(""), ignore_errors=True)
        return run_process((sys.executable, BENCHMARKS / "expression_arms.py", which, counts, output, str(N_BINS)))

    return work


def check_equal(store: Path, scratch: Path) -> None:
    """Refuse to report ours and numpy's if their bins differ. GeneRAIN's differ where scores are equal, and are not compared."""
    code = f"""
import sys, numpy as np, splicestore as ss
bins = ss.open_store({str(store)!r}).bins[{OUR_NAME!r}]
theirs = np.load({str(scratch / "straightforward.npy")!r}, mmap_mode="r")
for first in range(0, bins.n_samples, 4096):
    ours = bins.read(slice(first, first + 4096))
    if not (ours == theirs[first : first + 4096]).all():
        sys.exit("our bins are not numpy's")
"""
    run_process((sys.executable, "-c", code))


def ingest(store: Path, source: Path) -> Run:
    """Put a file's counts into a store."""
    return run_process(command_line("ingest", "expression", store, "x", source, "--json"))


def stored_counts(cache: Path, n_samples: int, n_genes: int) -> tuple[Path, dict[str, float]]:
    """Return a store of counts of a size, made on first use, and what its ingest took then."""
    store = cache / f"store-{n_samples}x{n_genes}"
    if store.exists():
        return store, {}
    partial = cache / f"{store.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    source = counts_file(cache, "h5", n_samples, n_genes)
    run, raw_mib = ingest(partial, source), 4 * n_samples * n_genes / MIB
    partial.rename(store)
    return store, {
        "ingest_cpu_s": run.cpu_s,
        "ingest_wall_s": run.wall_s,
        "ingest_raw_mib_per_cpu_s": raw_mib / run.cpu_s,
        "ingest_h5_mib_per_cpu_s": source.stat().st_size / MIB / run.cpu_s,
        "ingest_peak_mib": peak_mib([run]),
    }


def stored_mib(folder: Path) -> float:
    """Size of all files of a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / MIB


def bench_size(cache: Path, scratch: Path, n_samples: int, n_genes: int, rounds: int, *, generain: bool) -> Case:
    """Compare speed at one size. Ours reads a store; numpy holds counts and bins in memory; GeneRAIN's steps go through files."""
    store, figures = stored_counts(cache, n_samples, n_genes)
    array = counts_file(cache, "npy", n_samples, n_genes)
    arms = {
        "ours": our_arm(store),
        "straightforward": other_arm("straightforward", array, scratch),
    }
    if generain:
        arms["generain"] = other_arm("generain", array, scratch)
    # Kernels are compiled before anything is timed.
    our_arm(stored_counts(cache, 600, 500)[0])()
    runs = interleave(arms, rounds, warm_up=False)
    check_equal(store, scratch)
    elements = n_samples * n_genes
    figures |= {f"{name}_elements_per_cpu_s": elements / median(runs[name], "cpu_s") for name in arms}
    figures |= {f"{name}_{what}_mib": n / MIB for name in arms if name != "ours"
                for what, n in json.loads(runs[name][-1].output).items()}  # fmt: skip
    figures |= {
        "counts_stored_mib": stored_mib(store / "expression"),
        "stored_bytes_per_count": stored_mib(store / "expression") * MIB / elements,
        "bins_stored_mib": stored_mib(store / "bins"),
        "counts_raw_mib": 4 * elements / MIB,
    }
    if generain:
        figures["ours_over_generain"] = paired_ratio(runs, "generain", "ours")
    ratio = paired_ratio(runs, "straightforward", "ours")
    targets = [Target("ours_peak", peak_mib(runs["ours"]), 1.2 * 1024, "MiB")]
    if n_samples >= TARGET_SAMPLES:
        targets.append(Target("ours_over_straightforward", ratio, 2, "x", at_least=True))
    else:
        figures["ours_over_straightforward"] = ratio
    parameters = {"samples": n_samples, "genes": n_genes, "n_bins": N_BINS}
    return Case(f"fit and apply of {n_samples:,} samples", parameters, runs, targets, figures)


def bench_bytes(cache: Path, n_samples: int, n_genes: int) -> Case:
    """Count what a fit and an apply read and write through the store, against every stored tile once a pass."""
    store, _ = stored_counts(cache, n_samples, n_genes)
    for kind in ("normalized", "bins"):
        shutil.rmtree(store / kind, ignore_errors=True)
    run = run_process((sys.executable, BENCHMARKS / "expression_arms.py", "counted", store, "-", str(N_BINS)))
    found = {name: n / MIB for name, n in json.loads(run.output).items()}
    counts = sum(stored_mib(folder) for folder in (store / "expression").rglob("counts"))
    edges, bins = found["written_edges"], found["written_bins"]
    read, written = (sum(n for name, n in found.items() if what in name) for what in ("read_", "written_"))
    figures = {
        **{f"{name}_mib": n for name, n in found.items()},
        "minimum_read_mib": 2 * counts + edges,
        "minimum_written_mib": edges + bins,
        "read_over_minimum": read / (2 * counts + edges),
        "written_over_minimum": written / (edges + bins),
    }
    targets = [
        Target("counts_read_by_fit_over_stored", found["fit_read_counts"] / counts, 1.01, "x"),
        Target("counts_read_by_apply_over_stored", found["apply_read_counts"] / counts, 1.01, "x"),
    ]
    parameters = {"samples": n_samples, "genes": n_genes, "n_bins": N_BINS}
    return Case(f"bytes of {n_samples:,} samples", parameters, {"counted": [run]}, targets, figures)


def bench_memory(cache: Path, sizes: tuple[int, int], n_genes: int) -> Case:
    """Compare the peak of a fit over a tenfold number of samples."""
    runs = {f"{n}_samples": [our_arm(stored_counts(cache, n, n_genes)[0])()] for n in sizes}
    small, large = (peak_mib(of) for of in runs.values())
    target = Target("peak_growth", large / small, 1.15, "x")
    return Case("memory over samples", {"samples": list(sizes), "genes": n_genes, "n_bins": N_BINS}, runs, (target,))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--samples", type=int, default=10_000, help="of speed and bytes (default: 10,000)")
    parser.add_argument("--rounds", type=int, default=3, help="of the speed case (default: 3)")
    parser.add_argument("--no-generain", action="store_true", help="leave its steps out: 7 minutes at 50,000 samples")
    parser.add_argument("--case", choices=["speed", "bytes", "memory"], help="only this one")


def main() -> None:
    arguments = parse_arguments(__doc__, add_options)
    quick, cache = arguments.quick, arguments.cache
    n_samples, n_genes, rounds = (600, 500, 1) if quick else (arguments.samples, 20_000, arguments.rounds)
    sizes, genes = ((500, 5_000), 300) if quick else ((10_000, 100_000), 1_024)
    with scratch_folder() as scratch:
        makers = {
            "speed": lambda: bench_size(cache, scratch, n_samples, n_genes, rounds, generain=not arguments.no_generain),
            "bytes": lambda: bench_bytes(cache, n_samples, n_genes),
            "memory": lambda: bench_memory(cache, sizes, genes),
        }
        cases = [make() for name, make in makers.items() if arguments.case in (None, name)]
    report("expression", cases, record=not quick)


if __name__ == "__main__":
    main()
