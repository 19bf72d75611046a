"""Binning-By-Gene: ``normalize fit`` and ``apply`` beside numpy on everything in memory and beside GeneRAIN's own steps.

Counts are real tumours resampled to the size asked for, as an ARCHS4-shaped file; all arms bin the same counts; ours and
numpy's are compared before they are timed. Memory is compared over a tenfold number of samples.
"""

from __future__ import annotations

import itertools
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
    """Fit and apply under new names each time, in two processes; what the round before wrote is removed."""
    numbers = itertools.count()

    def work() -> Run:
        name = f"bench{next(numbers)}"
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
    """Refuse to time ours and numpy's if their bins differ. GeneRAIN's differ where scores are equal, and are not compared."""
    code = f"""
import sys, numpy as np, splicestore as ss
bins = next(iter(ss.open_store({str(store)!r}).bins.values()))
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


def stored_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bench_size(cache: Path, scratch: Path, n_samples: int, n_genes: int, rounds: int) -> Case:
    """Compare speed at one size."""
    store = scratch / "store"
    source = counts_file(cache, "h5", n_samples, n_genes)
    ingested = ingest(store, source)
    array = counts_file(cache, "npy", n_samples, n_genes)
    arms = {
        "ours": our_arm(store),
        "straightforward": other_arm("straightforward", array, scratch),
        "generain": other_arm("generain", array, scratch),
    }
    for name in ("ours", "straightforward"):
        arms[name]()
    check_equal(store, scratch)
    runs = interleave(arms, rounds, warm_up=False)
    elements = n_samples * n_genes
    figures = {f"{name}_elements_per_cpu_s": elements / median(runs[name], "cpu_s") for name in arms}
    figures |= {
        "ingest_wall_s": ingested.wall_s,
        "ingest_cpu_s": ingested.cpu_s,
        "ingest_raw_mib_per_cpu_s": 4 * elements / MIB / ingested.cpu_s,
        "ingest_h5_mib_per_cpu_s": source.stat().st_size / MIB / ingested.cpu_s,
        "ingest_peak_mib": (ingested.peak_bytes or 0) / MIB,
        "counts_stored_mib": stored_bytes(store / "expression") / MIB,
        "stored_bytes_per_count": stored_bytes(store / "expression") / elements,
        "bins_stored_mib": stored_bytes(store / "bins") / MIB,
        "counts_raw_mib": 4 * elements / MIB,
        "ours_over_generain": paired_ratio(runs, "generain", "ours"),
    }
    targets = [
        Target("ours_over_straightforward", paired_ratio(runs, "straightforward", "ours"), 2, "x", at_least=True),
        Target("ours_peak", peak_mib(runs["ours"]), 1.2 * 1024, "MiB"),
    ]
    return Case("fit and apply", {"samples": n_samples, "genes": n_genes, "n_bins": N_BINS}, runs, targets, figures)


def bench_memory(cache: Path, scratch: Path, sizes: tuple[int, int], n_genes: int) -> Case:
    """Compare the peak of a fit over a tenfold number of samples."""
    runs = {}
    for n_samples in sizes:
        store = scratch / f"store-{n_samples}"
        ingest(store, counts_file(cache, "h5", n_samples, n_genes))
        runs[f"{n_samples}_samples"] = [our_arm(store)()]
    small, large = (peak_mib(of) for of in runs.values())
    target = Target("peak_growth", large / small, 1.15, "x")
    return Case("memory over samples", {"samples": list(sizes), "genes": n_genes, "n_bins": N_BINS}, runs, (target,))


def main() -> None:
    arguments = parse_arguments(
        __doc__,
        lambda p: p.add_argument("--samples", type=int, default=10_000, help="of the speed case (default: 10,000)"),
    )
    quick = arguments.quick
    with scratch_folder() as scratch:
        n_samples, n_genes = (600, 500) if quick else (arguments.samples, 20_000)
        cases = [bench_size(arguments.cache, scratch, n_samples, n_genes, rounds=1 if quick else 3)]
        sizes, genes = ((500, 5_000), 300) if quick else ((10_000, 100_000), 1_024)
        cases.append(bench_memory(arguments.cache, scratch, sizes, genes))
    report("expression", cases, record=not quick)


if __name__ == "__main__":
    main()
