"""Ingest of a genome against its floor: time, CPU and peak memory, and what a condition of usage costs.

Every run is a whole process from a warm page cache: ``splicestore ingest genomes`` into an empty store, and the floor
(``floor_ingest.py``) on the same FASTA in the same round. The floor's bases are compared with the store's first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

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
    peak_mib,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)

GENOME = "sim1"
SPLICEVO_20MB = {
    "program": "SplicEvo data loader, measured on another machine for a genome of this size",
    "wall_s": 41,
    "peak_mib": 546,
    "us_per_transcript_site_and_condition": 97,
}


def ingest_arm(config: Path, store: Path) -> Callable[[], Run]:
    """Ingest one genome into an empty store."""
    return lambda: run_process(command_line("ingest", "genomes", fresh(store), config, "--genome", GENOME, "--json"))


def floor_arm(study: Path, out: Path) -> Callable[[], Run]:
    """Store the same bases and nothing else."""
    words = (sys.executable, BENCHMARKS / "floor_ingest.py", "write", study / "genomes" / f"{GENOME}.fa.gz", out)
    return lambda: run_process(words)


def check_equal(study: Path, scratch: Path) -> dict[str, int]:
    """Compare what both arms store, and return the counts of the genome."""
    store, frames = scratch / "equal", scratch / "equal.zst"
    document = json.loads(ingest_arm(study / "genomes.json", store)().output)["genomes"][GENOME]
    floor_arm(study, frames)()
    run_process((sys.executable, BENCHMARKS / "floor_ingest.py", "compare", frames, store, GENOME))
    frames.unlink()
    fresh(store)
    counts = {name: document[name] for name in ("n_bases", "n_genes", "n_transcripts", "n_introns")}
    return {**counts, "n_sites": sum(document["n_sites"].values()), "n_conditions": len(document["conditions"])}


def config_of_one_condition(study: Path, out: Path) -> Path:
    """Write a configuration with the same files but for the usage, of which one condition is left."""
    document = json.loads((study / "genomes.json").read_text())
    for genome in document["genomes"]:
        genome["genome_path"], genome["gtf_path"] = str(study / genome["genome_path"]), str(study / genome["gtf_path"])
    for usage in document["usage_files"].values():
        usage["pattern"] = str(study / usage["pattern"])
        usage["tissues"], usage["timepoints"] = usage["tissues"][:1], usage["timepoints"][:1]
    out.write_text(json.dumps(document))
    return out


def bench_small(cache: Path, scratch: Path, quick: bool) -> list[Case]:
    """Measure 20 Mb with 800 genes: 8 conditions, 1 condition and the floor in one interleaved run."""
    study = simulated_study(cache, genomes=1, megabases=2 if quick else 20, genes=80 if quick else 800, conditions=8)
    counts = check_equal(study, scratch)
    one = config_of_one_condition(study, scratch / "one.json")
    runs = interleave(
        {
            "ingest": ingest_arm(study / "genomes.json", scratch / "eight"),
            "ingest_1_condition": ingest_arm(one, scratch / "one"),
            "floor": floor_arm(study, scratch / "floor.zst"),
        },
        rounds=1 if quick else 7,
    )
    transcript_sites = 2 * counts["n_introns"]
    cells = transcript_sites * (counts["n_conditions"] - 1)
    added = {
        value: (median(runs["ingest"], value) - median(runs["ingest_1_condition"], value))
        for value in ("wall_s", "cpu_s")
    }
    genome = Case(
        "genome_20mb" if not quick else "genome_2mb",
        counts,
        {arm: runs[arm] for arm in ("ingest", "floor")},
        targets=(
            Target("wall", median(runs["ingest"], "wall_s"), 4, "s"),
            Target("peak", peak_mib(runs["ingest"]), 400, "MiB"),
            Target("cpu_over_floor", paired_ratio(runs, "ingest", "floor"), 4, "x"),
        ),
        elsewhere=SPLICEVO_20MB,
    )
    join = Case(
        "usage_join",
        {**counts, "n_transcript_sites": transcript_sites},
        {arm: runs[arm] for arm in ("ingest", "ingest_1_condition")},
        targets=(Target("us_per_transcript_site_and_condition", 1e6 * added["cpu_s"] / cells, 2, "us of CPU"),),
        figures={
            "wall_us_per_transcript_site_and_condition": 1e6 * added["wall_s"] / cells,
            "cpu_ms_per_condition": 1e3 * added["cpu_s"] / (counts["n_conditions"] - 1),
        },
        elsewhere=SPLICEVO_20MB,
    )
    return [genome, join]


def bench_large(cache: Path, scratch: Path, quick: bool) -> list[Case]:
    """Measure two sizes with the same genes: memory must not follow the bases."""
    sizes = (4, 12) if quick else (100, 400)
    studies = {
        size: simulated_study(
            cache, genomes=1, megabases=size, genes=100 if quick else 2_000, conditions=4 if quick else 20
        )
        for size in sizes
    }
    counts = {size: check_equal(study, scratch) for size, study in studies.items()}
    arms: dict[str, Callable[[], Run]] = {}
    for size, study in studies.items():
        arms[f"ingest_{size}mb"] = ingest_arm(study / "genomes.json", scratch / f"store-{size}")
        arms[f"floor_{size}mb"] = floor_arm(study, scratch / "floor.zst")
    # The comparison above has filled the page cache.
    runs = interleave(arms, rounds=1 if quick else 3, warm_up=False)
    small, large = (peak_mib(runs[f"ingest_{size}mb"]) for size in sizes)
    return [
        Case(
            "genome_sizes" if not quick else "genome_sizes_quick",
            {f"{size}mb": counts[size] for size in sizes},
            runs,
            targets=(
                *(
                    Target(f"peak_{size}mb", peak, 1024, "MiB")
                    for size, peak in zip(sizes, (small, large), strict=True)
                ),
                Target("peak_growth", abs(large / small - 1), 0.10, "of the smaller"),
            ),
            figures={
                **{f"mb_per_s_{size}mb": size / median(runs[f"ingest_{size}mb"], "wall_s") for size in sizes},
                **{
                    f"cpu_over_floor_{size}mb": paired_ratio(runs, f"ingest_{size}mb", f"floor_{size}mb")
                    for size in sizes
                },
            },
        )
    ]


def main() -> None:
    arguments = parse_arguments(
        __doc__, lambda p: p.add_argument("--only", choices=("small", "large"), help="20 Mb, or 100 and 400 Mb")
    )
    cases: list[Case] = []
    with scratch_folder() as scratch:
        if arguments.only != "large":
            cases += bench_small(arguments.cache, scratch, arguments.quick)
        if arguments.only != "small":
            cases += bench_large(arguments.cache, scratch, arguments.quick)
    report("ingest", cases, record=not arguments.quick)


if __name__ == "__main__":
    main()
