"""Usage from BAM: the whole command against pysam reading the same file and doing nothing with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import (
    Case,
    Run,
    Target,
    interleave,
    median,
    paired_ratio,
    parse_arguments,
    report,
    run_process,
    scratch_folder,
)

ITERATE = "import sys, pysam\nfor read in pysam.AlignmentFile(sys.argv[1]).fetch(): pass"
COUNT = "from splicestore.cli.usage import app; app()"
IMPORT = "import splicestore.cli.usage, splicestore.alignments, pysam"

# Written by a process of its own: this one stays small, so that the peaks are the arms' own.
WRITE = """
import sys, numpy as np, pysam
path, n_reads, n_genes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(1)
length, contigs, read_length = 40_000_000, 4, 100
header = pysam.AlignmentHeader.from_dict({"HD": {"VN": "1.6", "SO": "coordinate"},
    "SQ": [{"SN": f"chr{i + 1}", "LN": length} for i in range(contigs)]})
letters = np.frombuffer(b"ACGT", dtype=np.uint8)
with pysam.AlignmentFile(path, "wb", header=header) as file:
    for contig in range(contigs):
        gene_start = np.sort(rng.integers(1000, length - 60_000, n_genes))
        gene = np.repeat(np.arange(n_genes), rng.multinomial(n_reads // contigs, rng.dirichlet(np.full(n_genes, 0.3))))
        # Exons of 150 bp every 2,000; a read begins anywhere in one of the first twelve, a tenth lies in introns.
        exon, offset = rng.integers(0, 12, len(gene)), rng.integers(0, 150, len(gene))
        start = gene_start[gene] + exon * 2000 + np.where(rng.random(len(gene)) < 0.1, offset + 300, offset)
        inside = (start - gene_start[gene]) % 2000
        for i in np.argsort(start, kind="stable").tolist():
            read = pysam.AlignedSegment(header)
            left = 150 - int(inside[i])
            spliced = 0 < left < read_length
            read.query_name, read.flag, read.mapping_quality = f"r{i}", 16 * (i % 2), 255 if i % 12 else 3
            read.reference_id, read.reference_start = contig, int(start[i])
            read.cigarstring = f"{left}M{1850}N{read_length - left}M" if spliced else f"{read_length}M"
            read.query_sequence = letters[rng.integers(0, 4, read_length)].tobytes().decode()
            read.query_qualities_str = (rng.integers(50, 74, read_length).astype(np.uint8)).tobytes().decode()
            read.set_tags([("NH", 1 if i % 12 else 2), ("HI", 1), ("AS", 98), ("nM", 0)]
                          + ([("XS", "+", "A")] if spliced else []))
            file.write(read)
pysam.index(path)
"""


def python_arm(code: str, *words: str | Path) -> Callable[[], Run]:
    """Run some Python as a process of its own."""
    command: Sequence[str | Path] = [sys.executable, "-c", code, *words]
    return lambda: run_process(command)


def main() -> None:
    arguments = parse_arguments(__doc__)
    n_reads, n_genes = (40_000, 50) if arguments.quick else (2_000_000, 600)
    bam = arguments.cache / f"reads-{n_reads}-{n_genes}.bam"
    if not bam.with_suffix(".bam.bai").exists():
        arguments.cache.mkdir(parents=True, exist_ok=True)
        print(f"writing {n_reads:,} alignments", file=sys.stderr, flush=True)
        run_process([sys.executable, "-c", WRITE, bam, str(n_reads), str(n_genes)])
    with scratch_folder() as scratch:
        count = ("from-bam", bam, "-o", scratch / "out.tsv", "--overwrite", "--json")
        arms = {
            "pysam_iteration": python_arm(ITERATE, bam),
            "from_bam": python_arm(COUNT, *count),
            "imports_alone": python_arm(IMPORT),
        }
        runs = interleave(arms, rounds=1 if arguments.quick else 3)
    counted = json.loads(runs["from_bam"][-1].output)
    ratio = paired_ratio(runs, "from_bam", "pysam_iteration", "cpu_s")
    case = Case(
        "from-bam",
        {"alignments": n_reads, "bam_mb": round(bam.stat().st_size / 1e6, 1), "sites": counted["n_sites"]},
        runs,
        targets=(Target("cpu_over_pysam_iteration", ratio, 3.0, "x"),),
        figures={
            "alignments_per_s": n_reads / median(runs["from_bam"], "wall_s"),
            "alignments_per_s_pysam_iteration": n_reads / median(runs["pysam_iteration"], "wall_s"),
        },
    )
    report("from_bam", [case], record=not arguments.quick)


if __name__ == "__main__":
    main()
