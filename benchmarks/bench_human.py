"""One human-sized genome, from end to end: 3.1 Gb, 20,000 genes, 99 conditions.

Whole processes from a warm page cache: ``splicestore ingest genomes`` into an empty store, alone and with two worker
processes, and the floor (``floor_ingest.py``: inflate, translate, compress, write; one core) on the same FASTA. The peak of
a run is that of its largest process.
"""

from __future__ import annotations

import json
import sys
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
    parse_arguments,
    peak_mib,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)

GENOME = "sim1"
SMALL_MB = 100


def ingest(config: Path, store: Path, *options: str) -> Run:
    """Ingest one genome into an empty store."""
    return run_process(command_line("ingest", "genomes", fresh(store), config, "--genome", GENOME, "--json", *options))


def stored(store: Path) -> tuple[int, int]:
    """Bytes and objects of a store."""
    sizes = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
    return sum(sizes), len(sizes)


def main() -> None:
    arguments = parse_arguments(__doc__)
    megabases = 12 if arguments.quick else 3_100
    genes, conditions = (100, 4) if arguments.quick else (20_000, 99)
    small_mb = 4 if arguments.quick else SMALL_MB
    human = simulated_study(arguments.cache, genomes=1, megabases=megabases, genes=genes, conditions=conditions)
    small = simulated_study(arguments.cache, genomes=1, megabases=small_mb, genes=genes, conditions=conditions)
    with scratch_folder() as scratch:
        store = scratch / "store"
        fasta = human / "genomes" / f"{GENOME}.fa.gz"
        runs = interleave(
            {
                "ingest": lambda: ingest(human / "genomes.json", store),
                "ingest_small": lambda: ingest(small / "genomes.json", scratch / "small"),
                "floor": lambda: run_process(
                    (sys.executable, BENCHMARKS / "floor_ingest.py", "write", fasta, scratch / "floor.zst")
                ),
                "ingest_2_workers": lambda: ingest(
                    human / "genomes.json", scratch / "two", "--scheduler", "processes:2"
                ),
            },
            rounds=1,
            warm_up=False,
        )
        document = json.loads(runs["ingest"][0].output)["genomes"][GENOME]
        n_bytes, n_objects = stored(store)
        run_process((sys.executable, BENCHMARKS / "floor_ingest.py", "compare", scratch / "floor.zst", store, GENOME))
    n_bases = document["n_bases"]
    counts = {name: document[name] for name in ("n_bases", "n_genes", "n_transcripts", "n_introns")}
    peak, small_peak = peak_mib(runs["ingest"]), peak_mib(runs["ingest_small"])
    case = Case(
        "genome_human" if not arguments.quick else "genome_human_quick",
        {
            **counts,
            "n_sites": sum(document["n_sites"].values()),
            "n_conditions": len(document["conditions"]),
            "stored_bytes": n_bytes,
            "objects": n_objects,
            "small_mb": small_mb,
        },
        runs,
        targets=(
            Target("wall", median(runs["ingest"], "wall_s") / 60, 15, "min"),
            Target("peak", peak, 1536, "MiB"),
            Target("peak_growth", abs(peak / small_peak - 1), 0.10, f"of the peak at {small_mb} Mb, the same genes"),
        ),
        figures={
            **{
                f"mb_per_cpu_s_{arm}": n_bases / 1e6 / median(runs[arm], "cpu_s")
                for arm in ("ingest", "ingest_2_workers", "floor")
            },
            **{
                f"mb_per_wall_s_{arm}": n_bases / 1e6 / median(runs[arm], "wall_s")
                for arm in ("ingest", "ingest_2_workers", "floor")
            },
            "projected_peak_mib": document["projected_peak_bytes"] / 2**20,
        },
    )
    report("human", [case], record=not arguments.quick)


if __name__ == "__main__":
    main()
