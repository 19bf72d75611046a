"""A tiny hand-made study for service tests: two contigs, four genes, known introns."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

CONTIG_LENGTH = 6_000
N_EXONS = 6
EXON, INTRON = 120, 280


def make_sequence(rng, genes):
    """Random bases with GT..AG written into every intron (reverse-complemented on the - strand)."""
    bases = rng.choice(list("ACGT"), size=CONTIG_LENGTH)
    for start, strand in genes:
        for intron in intron_spans(start):
            first, last = ("GT", "AG") if strand == "+" else ("CT", "AC")
            bases[intron[0] : intron[0] + 2] = list(first)
            bases[intron[1] - 2 : intron[1]] = list(last)
    return "".join(bases)


def intron_spans(start):
    step = EXON + INTRON
    return [(start + i * step + EXON, start + (i + 1) * step) for i in range(N_EXONS - 1)]


def exon_spans(start):
    step = EXON + INTRON
    return [(start + i * step, start + i * step + EXON) for i in range(N_EXONS)]


GENES = {"chrA": [(300, "+"), (3_300, "-")], "chrB": [(200, "-"), (3_100, "+")]}


def write_study(folder: Path, *, convention="spliser", shift=0, condition="Brain", n_genomes=1) -> Path:
    """Write FASTA, GTF, a SpliSER-style table and genomes.json; returns the config."""
    folder.mkdir(parents=True, exist_ok=True)
    genomes, usage = [], {}
    rows = ["ortholog_group\tgenome_id\tgene_id"]
    for number in range(n_genomes):
        genome = f"toy{number + 1}"
        rng = np.random.default_rng(number)
        fasta, gtf, table = "", [], []
        for contig, genes in GENES.items():
            fasta += f">{contig} toy\n{make_sequence(rng, genes)}\n"
            for start, strand in genes:
                gene = f"{genome}_{contig}_{start}"
                rows.append(f"{contig}_{start}\t{genome}\t{gene}")
                attributes = f'gene_id "{gene}"; transcript_id "{gene}.1"; gene_biotype "protein_coding"; transcript_biotype "protein_coding";'
                for low, high in exon_spans(start):
                    gtf.append(f"{contig}\ttoy\texon\t{low + 1}\t{high}\t.\t{strand}\t.\t{attributes}")
                for low, high in intron_spans(start):
                    left = low + shift + (1 if convention == "splicevo" else 0)
                    for site in (left, high + shift):
                        table.append(f"s1\t{contig}\t{site}\t{strand}\t{gene}\t0.9\t90\t5\t5")
        (folder / f"{genome}.fa").write_text(fasta)
        (folder / f"{genome}.gtf.gz").write_bytes(gzip.compress("\n".join(gtf).encode() + b"\n"))
        header = "Sample\tRegion\tSite\tStrand\tGene\tSSE\talpha_count\tbeta1_count\tbeta2_count"
        (folder / f"{genome}.tsv").write_text("\n".join([header, *table]) + "\n")
        genomes.append({"genome_id": genome, "genome_path": f"{genome}.fa", "gtf_path": f"{genome}.gtf.gz", "chromosomes": None,
                        "metadata": {"species": "toy"}, "common_name": "toy"})  # fmt: skip
        usage[genome] = {"files": [{"file": f"{genome}.tsv", "tissue": condition, "timepoint": 1}]}
    config = folder / "genomes.json"
    config.write_text(json.dumps({"genomes": genomes, "usage_files": usage}))
    (folder / "orthologs.tsv").write_text("\n".join(rows) + "\n")
    return config


def splicestore(*arguments, check=None):
    """Run the command line as its own process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "splicestore", *map(str, arguments)], capture_output=True, text=True
    )
    if check is not None:
        assert done.returncode == check, done.stderr + done.stdout
    return done
