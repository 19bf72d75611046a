"""Splits by chromosomes with homology: the whole process of ``splicestore split windows``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

from harness import (
    Case,
    Run,
    Target,
    command_line,
    interleave,
    median,
    parse_arguments,
    peak_mib,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)

SPLICEVO_TWO = {
    "program": "SplicEvo data splitter, measured on another machine for two genomes of this size",
    "wall_s": 16.4,
}


def split_arm(study: Path, store: Path) -> Callable[[], Run]:
    """Split under a new name each time: the same name again would find its split there and do nothing."""
    numbers = itertools.count()

    def work() -> Run:
        return run_process(
            command_line("split", "windows", store, f"bench{next(numbers)}", "--orthology", study / "orthologs.tsv",
                         "--reference-genome", "sim1", "--test-chromosomes", "chr2", "--val-chromosomes", "chr3", "--json")
        )  # fmt: skip

    return work


def bench(
    cache: Path, scratch: Path, *, name: str, genomes: int, megabases: float, genes: int, conditions: int, rounds: int
) -> tuple[dict[str, object], dict[str, list[Run]]]:
    """Ingest a study and split it ``rounds`` times."""
    study = simulated_study(cache, genomes=genomes, megabases=megabases, genes=genes, conditions=conditions)
    store = scratch / name
    ingested = json.loads(
        run_process(command_line("ingest", "genomes", store, study / "genomes.json", "--json")).output
    )
    runs = interleave({"split": split_arm(study, store)}, rounds=rounds)
    split = json.loads(runs["split"][-1].output)
    parameters = {
        "genomes": genomes,
        "megabases": megabases,
        "n_genes": sum(g["n_genes"] for g in ingested["genomes"].values()),
        "windows": split["windows"],
        "genes": split["genes"],
        "n_components": split["n_components"],
    }
    return parameters, runs


def main() -> None:
    arguments = parse_arguments(__doc__)
    quick = arguments.quick
    with scratch_folder() as scratch:
        two = bench(
            arguments.cache, scratch, name="two", genomes=2, megabases=2 if quick else 20, genes=80 if quick else 800,
            conditions=8, rounds=1 if quick else 7,
        )  # fmt: skip
        three = bench(
            arguments.cache, scratch, name="three", genomes=3, megabases=4 if quick else 100,
            genes=800 if quick else 20_000, conditions=1, rounds=1 if quick else 3,
        )  # fmt: skip
    cases = [
        Case(
            "two_genomes_20mb" if not quick else "two_genomes_quick",
            *two,
            targets=(Target("wall", median(two[1]["split"], "wall_s"), 3, "s"),),
            elsewhere=SPLICEVO_TWO,
        ),
        Case(
            "three_genomes_20000_genes" if not quick else "three_genomes_quick",
            *three,
            targets=(
                Target("wall", median(three[1]["split"], "wall_s"), 30, "s"),
                Target("peak", peak_mib(three[1]["split"]), 1024, "MiB"),
            ),
        ),
    ]
    report("split", cases, record=not quick)


if __name__ == "__main__":
    main()
