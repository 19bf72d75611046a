"""Sums of a junction matrix, cell by cell, from the text alone."""

from __future__ import annotations

import gzip


def lines_of(path):
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt") as stream:
        return [line.rstrip("\n") for line in stream]


def gct_sums(path, condition_of):
    """{condition: {(contig, start0, end): reads}}, only cells above zero."""
    lines = lines_of(path)
    samples = lines[2].split("\t")[2:]
    sums = {condition: {} for condition in condition_of.values()}
    for line in lines[3:]:
        name, _, *cells = line.split("\t")
        contig, first, last = name.split("_")[:3]
        for sample, cell in zip(samples, cells, strict=True):
            if sample in condition_of and float(cell) > 0:
                key = (contig, int(first) - 1, int(last))
                counts = sums[condition_of[sample]]
                counts[key] = counts.get(key, 0) + float(cell)
    return sums


def recount3_sums(stem, condition_of):
    ranges = [line.split("\t") for line in lines_of(f"{stem}.RR.gz")[1:]]
    samples = lines_of(f"{stem}.ID.gz")[1:]
    entries = [line for line in lines_of(f"{stem}.MM.gz") if line and not line.startswith("%")][1:]
    sums = {condition: {} for condition in condition_of.values()}
    for entry in entries:
        row, column, reads = entry.split()
        sample = samples[int(column) - 1]
        if sample in condition_of and float(reads) > 0:
            chromosome, start, end = ranges[int(row) - 1][:3]
            key = (chromosome, int(start) - 1, int(end))
            counts = sums[condition_of[sample]]
            counts[key] = counts.get(key, 0) + float(reads)
    return sums
