"""What an estimate rests on: CPU of each stage of an ingest, a task in the scheduler's memory, a thousand genomes planned.

The rates of ``splicestore/ingest/costs.py`` are the figures of row ``ingest_rates``; a test compares them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import (
    Case,
    Run,
    Target,
    command_line,
    fresh,
    interleave,
    median,
    parse_arguments,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)

GENOME = "sim1"
JUNCTIONS_ADDED = 2
"""Junctions on no site, per junction of the simulated file."""
SCAN = (
    "import sys; from splicestore.readers.fasta import scan_fasta; from splicestore.storage import digest_input;"
    "digest_input(sys.argv[1], 'fasta'); print(sum(c.length for c in scan_fasta(sys.argv[1]).contigs))"
)
STATE = """
import resource, sys
from distributed import Client
from splicestore.memory import observed_peak_bytes
from splicestore.cluster import _Guarded
def work(task): return task
with Client(n_workers=0, processes=False, dashboard_address=None, memory_limit=0) as client:
    held = [client.submit(_Guarded(work), ("warm", i), pure=False) for i in range(1000)]
    before, n = observed_peak_bytes(), int(sys.argv[1])
    held += [client.submit(_Guarded(work), ("task", i), retries=2, pure=False) for i in range(n)]
    client.run_on_scheduler(lambda: None)
    print((observed_peak_bytes() - before) / n)
"""
PLANNED = """
import json, sys, time
from splicestore.config import GenomeConfig, GenomesConfig, UsageFile
from splicestore.ingest.dry_run import planned_tasks
from splicestore.ingest.estimate import Machine, estimate
folder, n, conditions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
genomes = tuple(
    GenomeConfig(genome_id=f"g{i}", fasta=f"{folder}/g{i}.fa", annotation=f"{folder}/g{i}.gtf.gz",
                 usage=tuple(UsageFile(file=f"{folder}/g{i}.{c}.tsv", condition=f"c{c}") for c in range(conditions)))
    for i in range(n))
started = time.perf_counter()
found = estimate(GenomesConfig(genomes=genomes), scheduler="processes:32", machine=Machine(32, 2**37, 2**50))
seconds = time.perf_counter() - started
tasks = planned_tasks(found)
print(json.dumps({"seconds": seconds, "n_tasks": tasks.n_tasks, "n_partitions": tasks.n_partitions,
                  "state_bytes": tasks.state_bytes, "windows": sum(g.n_bases for g in found.genomes) // 1000}))
"""


# -- rates ---------------------------------------------------------------------------------------------------------


def write_config(out: Path, fasta: Path, annotation: Path | None = None, usage: Sequence[Path] = ()) -> Path:
    """Write a configuration of one genome."""
    genome: dict[str, Any] = {"genome_id": GENOME, "fasta": str(fasta)}
    if annotation is not None:
        genome |= {"annotation": str(annotation), "transcripts": "splicevo"}
    genome["usage"] = [{"file": str(path), "condition": f"c{i}"} for i, path in enumerate(usage)]
    out.write_text(json.dumps({"genomes": [genome]}))
    return out


def copies(path: Path, folder: Path, n: int) -> list[Path]:
    """Give a usage file several names, so that each is read."""
    folder.mkdir(exist_ok=True)
    links = [folder / f"{i}-{path.name}" for i in range(n)]
    for link in links:
        link.symlink_to(path)
    return links


def missing_sites(path: Path, out: Path) -> Path:
    """Add junctions to a STAR file that lie on no site: those of the file, moved by distances no two of them share."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    with out.open("w") as stream:
        for i, row in enumerate(rows):
            stream.write("\t".join(row) + "\n")
            for k in range(JUNCTIONS_ADDED):
                start = 1_000 + 7 * (JUNCTIONS_ADDED * i + k)
                stream.write("\t".join([row[0], str(start), str(start + 3_001 + k), *row[3:6], "1", *row[7:]]) + "\n")
    return out


def bench_rates(cache: Path, scratch: Path, quick: bool) -> Case:
    """Measure whole ingests that differ by one stage; rates are differences over counts."""
    study = simulated_study(
        cache, genomes=3, megabases=4 if quick else 100, genes=800 if quick else 20_000, conditions=1
    )
    tiny = simulated_study(cache, genomes=2, megabases=1, genes=60, conditions=4) / "genomes" / f"{GENOME}.fa.gz"
    fasta, annotation = study / "genomes" / f"{GENOME}.fa.gz", study / "annotation" / f"{GENOME}.gtf.gz"
    table, star = study / "usage" / f"{GENOME}.Brain.1.combined.tsv", study / "usage" / f"{GENOME}.Brain_1.1.SJ.out.tab"
    n_tables, n_stars = 8, 2
    missing = missing_sites(star, scratch / "missing.SJ.out.tab")
    configs = {
        "tiny": write_config(scratch / "tiny.json", tiny),
        "bases": write_config(scratch / "bases.json", fasta),
        "annotated": write_config(scratch / "annotated.json", fasta, annotation),
        "tables": write_config(scratch / "t.json", fasta, annotation, copies(table, scratch / "tables", n_tables)),
        "junctions": write_config(scratch / "j.json", fasta, annotation, copies(star, scratch / "stars", n_stars)),
        "missing": write_config(scratch / "m.json", fasta, annotation, copies(missing, scratch / "missed", n_stars)),
    }
    arms: dict[str, Callable[[], Run]] = {name: _ingest(config, scratch, "sync") for name, config in configs.items()}
    arms["tiny_2_processes"] = _ingest(configs["tiny"], scratch, "processes:2")
    arms["scan"] = lambda: run_process((sys.executable, "-c", SCAN, fasta))
    arms["scan_tiny"] = lambda: run_process((sys.executable, "-c", SCAN, tiny))
    runs = interleave(arms, rounds=1 if quick else 3, warm_up=False)
    counts = {
        "n_bases": int(runs["scan"][0].output) - int(runs["scan_tiny"][0].output),
        "annotation_bytes": int(run_process(("bash", "-c", f"zcat '{annotation}' | wc -c")).output),
        "table_rows": n_tables * _lines(table),
        "missed_ends": n_stars * 2 * (_lines(missing) - _lines(star)),
    }
    return Case("ingest_rates" if not quick else "ingest_rates_quick", counts, runs, figures=rates(runs, counts))


def rates(runs: Mapping[str, Sequence[Run]], counts: Mapping[str, int]) -> dict[str, float]:
    """Seconds per base, byte, row and end."""
    cpu = {arm: median(found, "cpu_s") for arm, found in runs.items()}
    scan = (cpu["scan"] - cpu["scan_tiny"]) / counts["n_bases"]
    return {
        "start": cpu["tiny"],
        "worker_start": (cpu["tiny_2_processes"] - cpu["tiny"]) / 2,
        "scan_base": scan,
        "encode_base": (cpu["bases"] - cpu["tiny"]) / counts["n_bases"] - scan,
        "annotation_byte": (cpu["annotated"] - cpu["bases"]) / counts["annotation_bytes"],
        "usage_row": (cpu["tables"] - cpu["annotated"]) / counts["table_rows"],
        "missed_end": (cpu["missing"] - cpu["junctions"]) / counts["missed_ends"],
    }


def _ingest(config: Path, scratch: Path, scheduler: str) -> Callable[[], Run]:
    words = ("ingest", "genomes", scratch / "store", config, "--scheduler", scheduler, "--json")

    def run() -> Run:
        fresh(scratch / "store")
        return run_process(command_line(*words))

    return run


def _lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


# -- scheduler, a thousand genomes -----------------------------------------------------------------------------------


def bench_state(quick: bool) -> Case:
    """Measure what a submitted task adds to the memory of scheduler and client."""
    n_tasks = 2_000 if quick else 20_000
    runs = interleave({"submit": lambda: run_process((sys.executable, "-c", STATE, str(n_tasks)))}, 1 if quick else 3)
    each = max(float(run.output.split()[-1]) for run in runs["submit"])
    return Case(
        "scheduler_state" if not quick else "scheduler_state_quick", {"n_tasks": n_tasks}, runs,
        figures={"bytes_per_task": each},
    )  # fmt: skip


def write_genomes(study: Path, folder: Path, n: int, megabases: int, conditions: int) -> None:
    """Lay out many genomes: FASTA files of full size with a real beginning and a hole after it, usage by link."""
    folder.mkdir()
    text = run_process(("bash", "-c", f"zcat '{study}/genomes/{GENOME}.fa.gz' | head -c 1048576")).output
    annotation, usage = study / "annotation" / f"{GENOME}.gtf.gz", sorted((study / "usage").glob("*.combined.tsv"))
    for i in range(n):
        with (folder / f"g{i}.fa").open("w") as stream:
            stream.write(text)
            stream.truncate(megabases * 1_000_000)
        (folder / f"g{i}.gtf.gz").symlink_to(annotation)
        for c in range(conditions):
            (folder / f"g{i}.{c}.tsv").symlink_to(usage[c % len(usage)])


def bench_thousand(cache: Path, scratch: Path, quick: bool) -> Case:
    """Plan 1,000 genomes of a million windows of 1,000 bases and 99 conditions each."""
    study = simulated_study(cache, genomes=1, megabases=2, genes=80, conditions=4)
    n, megabases, conditions = (20, 100, 9) if quick else (1_000, 1_000, 99)
    write_genomes(study, scratch / "genomes", n, megabases, conditions)
    words = (sys.executable, "-c", PLANNED, scratch / "genomes", str(n), str(conditions))
    runs = interleave({"estimate": lambda: run_process(words)}, rounds=1 if quick else 3)
    found = json.loads(runs["estimate"][-1].output)
    seconds = sorted(json.loads(run.output)["seconds"] for run in runs["estimate"])[len(runs["estimate"]) // 2]
    return Case(
        "planned_thousand" if not quick else "planned_thousand_quick",
        {"n_genomes": n, "megabases": megabases, "n_conditions": conditions, "n_windows": found["windows"]},
        runs,
        targets=(
            Target("estimate", seconds, 5, "s"),
            Target("partitions", found["n_partitions"], 100_000, "of all genomes"),
            Target("state", found["state_bytes"] / 2**20, 64, "MiB in the scheduler"),
        ),
        figures={"n_tasks": found["n_tasks"]},
    )


def main() -> None:
    arguments = parse_arguments(
        __doc__, lambda p: p.add_argument("--only", choices=("rates", "state", "thousand"), help="one of the three")
    )
    cases = []
    with scratch_folder() as scratch:
        if arguments.only in (None, "rates"):
            cases.append(bench_rates(arguments.cache, scratch, arguments.quick))
        if arguments.only in (None, "state"):
            cases.append(bench_state(arguments.quick))
        if arguments.only in (None, "thousand"):
            cases.append(bench_thousand(arguments.cache, scratch, arguments.quick))
    report("plan", cases, record=not arguments.quick)


if __name__ == "__main__":
    main()
