"""How long one waits before anything begins: import, help, and the summary of a store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import (
    Case,
    Run,
    Target,
    command_line,
    interleave,
    median,
    parse_arguments,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)


def command_arm(words: Sequence[str | Path]) -> Callable[[], Run]:
    """Run one command."""
    return lambda: run_process(words)


def main() -> None:
    arguments = parse_arguments(__doc__)
    study = simulated_study(arguments.cache, genomes=2, megabases=1, genes=60, conditions=4)
    with scratch_folder() as scratch:
        store = scratch / "store"
        run_process(command_line("ingest", "genomes", store, study / "genomes.json"))
        commands: dict[str, Sequence[str | Path]] = {
            "python_pass": [sys.executable, "-c", "pass"],
            "import_splicestore": [sys.executable, "-c", "import splicestore"],
            "import_open_store": [sys.executable, "-c", "from splicestore import open_store"],
            "help": command_line("--help"),
            "info": command_line("info", store),
        }
        arms = {name: command_arm(words) for name, words in commands.items()}
        runs = interleave(arms, rounds=1 if arguments.quick else 9)
    bare = median(runs["python_pass"], "wall_s")
    case = Case(
        "startup",
        {"store": "2 genomes of 1 Mb, 4 conditions"},
        runs,
        targets=(
            Target("import_over_bare_python", median(runs["import_splicestore"], "wall_s") - bare, 0.5, "s"),
            Target("help", median(runs["help"], "wall_s"), 1.0, "s"),
        ),
        figures={
            "open_store_import_over_bare_python_s": median(runs["import_open_store"], "wall_s") - bare,
            "info_s": median(runs["info"], "wall_s"),
        },
    )
    report("startup", [case], record=not arguments.quick)


if __name__ == "__main__":
    main()
