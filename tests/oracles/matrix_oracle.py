"""Sums of a junction matrix, cell by cell, from the text alone; Python's own numbers, no arrays."""

from __future__ import annotations

import gzip
import re

STRANDS = {"+": 1, "-": -1, "1": 1, "2": -1}


def lines_of(path):
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="") as stream:
        return [line.rstrip("\r") for line in stream.read().split("\n")]


def junction_of(name):
    """(contig, 0-based start, end, strand) of ``chr1_14830_14969``, ``chr1:14830-14969:+`` and their mixtures."""
    pieces = re.split(r"([_:-])", name)
    strand = 0
    if name.endswith("-"):  # the separator is the strand
        strand, pieces = -1, pieces[:-4]
    elif pieces[-1] in ("+", ".", "?", "*", "0") or (
        pieces[-1] in ("1", "2") and pieces[-3].isdigit() and pieces[-5].isdigit()
    ):
        strand, pieces = STRANDS.get(pieces[-1], 0), pieces[:-2]
    return "".join(pieces[:-4]), int(pieces[-3]) - 1, int(pieces[-1]), strand


def whole(cell):
    value = float(cell)
    assert value >= 0
    assert value == int(value)
    return int(value)


def add(sums, condition, junction, reads):
    if reads > 0:
        sums[condition][junction] = sums[condition].get(junction, 0) + reads


def gct_sums(path, condition_of):
    """{condition: {(contig, start, end, strand): reads}}, only junctions with reads."""
    lines = [line for line in lines_of(path) if line]
    samples = lines[2].split("\t")[2:]
    sums = {condition: {} for condition in condition_of.values()}
    for line in lines[3:]:
        name, _, *cells = line.split("\t")
        for sample, cell in zip(samples, cells, strict=True):
            if sample in condition_of:
                add(sums, condition_of[sample], junction_of(name), whole(cell))
    return sums


def recount3_sums(stem, condition_of):
    """As ``gct_sums``; samples by the names of ``<stem>.ID.gz``, entries of one cell summed."""
    ranges = [line.split("\t") for line in lines_of(f"{stem}.RR.gz")[1:]]
    samples = lines_of(f"{stem}.ID.gz")[1:]
    entries = [line for line in lines_of(f"{stem}.MM.gz") if line.strip() and not line.startswith("%")][1:]
    sums = {condition: {} for condition in condition_of.values()}
    for entry in entries:
        row, column, reads = entry.split()
        sample = samples[int(column) - 1]
        if sample in condition_of:
            chromosome, first, last, _, strand = ranges[int(row) - 1][:5]
            junction = (chromosome, int(first) - 1, int(last), STRANDS.get(strand, 0))
            add(sums, condition_of[sample], junction, whole(reads))
    return sums
