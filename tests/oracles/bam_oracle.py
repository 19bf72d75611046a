"""Alpha, beta1 and beta2Simple read off CIGARs one read and one site at a time; written from the definition, slow on purpose.

Two counts of the same thing. ``count_sites`` is our definition:

- alpha: reads with an intron that ends at the site;
- beta2Simple: reads that do not use the site and either splice across it, or run across it and splice, with
  another of their introns, from a competitor of the site to one of its partners;
- beta1: all other reads that run across it, with at least one base on each side.

``spliser_process`` walks through a read as SpliSER 0.1.8 ``process`` does (its sites have no sides, its decision depends on
the order of the introns in the read), so that tests can say where the two agree and where they cannot.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass
class OracleRead:
    """One alignment as SAM text has it; ``start`` is 0-based."""

    contig: str
    start: int
    cigar: str
    flag: int = 0
    mapping_quality: int = 255
    tags: dict = field(default_factory=dict)


@dataclass
class OracleOptions:
    min_mapping_quality: int = 10
    min_overhang: int = 8
    min_intron: int = 21
    max_intron: int = 500_000
    drop_multi: bool = True
    strandedness: str = "unstranded"
    min_junction_reads: int = 1


def operations(cigar):
    return [(int(n), letter) for n, letter in re.findall(r"(\d+)([MIDNSHP=X])", cigar)]


def aligned_runs(read):
    """Runs of bases aligned without a gap, [start, end); a deletion, an insertion and an intron all end a run."""
    runs, position, open_run = [], read.start, False
    for length, letter in operations(read.cigar):
        if letter in "M=X":
            if open_run:
                runs[-1] = (runs[-1][0], position + length)
            else:
                runs.append((position, position + length))
            open_run = True
            position += length
        elif letter in "DN":
            position += length
            open_run = False
        elif letter == "I":
            open_run = False
    return runs


def introns(read):
    """(left, right, overhang): aligned bases of the read on the shorter side."""
    found, position = [], read.start
    for length, letter in operations(read.cigar):
        if letter == "N":
            found.append((position, position + length))
        if letter in "M=XDN":
            position += length
    runs = aligned_runs(read)
    return [
        (
            left,
            right,
            min(sum(e - s for s, e in runs if e <= left), sum(e - s for s, e in runs if s >= right)),
        )
        for left, right in found
    ]


def is_counted(read, options):
    if read.flag & (4 | 256 | 512 | 1024 | 2048) or read.cigar == "*":
        return False
    if read.mapping_quality < options.min_mapping_quality:
        return False
    return not (options.drop_multi and read.tags.get("NH", 1) > 1)


def transcript_strand(read, options):
    """What the read says about the strand of its transcript: + - ?."""
    reverse = bool(read.flag & 16)
    if options.strandedness == "unstranded":
        if read.tags.get("XS") in ("+", "-"):
            return read.tags["XS"]
        if read.tags.get("ts") in ("+", "-"):
            return read.tags["ts"] if not reverse else {"+": "-", "-": "+"}[read.tags["ts"]]
        return "?"
    is_second_mate = bool(read.flag & 1) and not read.flag & 64
    flips = reverse + is_second_mate + (options.strandedness == "reverse")
    return "+" if flips % 2 == 0 else "-"


def junction_table(reads, options):
    """{(contig, strand, left, right): [reads, largest overhang, votes]}; one strand "" where data are unstranded."""
    table = defaultdict(lambda: [0, 0, 0])
    for read in reads:
        if not is_counted(read, options):
            continue
        strand = transcript_strand(read, options)
        key_strand = "" if options.strandedness == "unstranded" else strand
        for left, right, overhang in introns(read):
            row = table[read.contig, key_strand, left, right]
            row[0] += 1
            row[1] = max(row[1], overhang)
            row[2] += {"+": 1, "-": -1, "?": 0}[strand]
    return dict(table)


def kept_junctions(samples, options, annotated=()):
    """Those that pass the filters in one sample at least; annotated introns whatever they have.

    ``annotated``: (contig, strand, left, right), strand + or -.
    """
    kept = set()
    for reads in samples:
        for (contig, strand, left, right), (n, overhang, _) in junction_table(reads, options).items():
            if (
                n >= options.min_junction_reads
                and overhang >= options.min_overhang
                and options.min_intron <= right - left <= options.max_intron
            ):
                kept.add((contig, strand, left, right))
    for contig, strand, left, right in annotated:
        if options.min_intron <= right - left <= options.max_intron:
            kept.add((contig, "" if options.strandedness == "unstranded" else strand, left, right))
    return kept


def count_sites(samples, options, annotated=()):
    """{(contig, position, strand, side): ([(alpha, beta1, beta2), one per sample], partners)}.

    Side is L or R. Partners: {position: [reads, one per sample]}.
    """
    kept = kept_junctions(samples, options, annotated)
    tables = [junction_table(reads, options) for reads in samples]
    result = {}
    for contig, strand, position, side in sorted(
        {(c, s, x, d) for c, s, a, b in kept for x, d in ((a, "L"), (b, "R"))}
    ):
        partners = {
            b if side == "L" else a
            for c, s, a, b in kept
            if (c, s) == (contig, strand) and position == (a if side == "L" else b)
        }
        counts = []
        for reads in samples:
            alpha = beta1 = beta2 = 0
            for read in reads:
                if read.contig != contig or not is_counted(read, options):
                    continue
                if strand and transcript_strand(read, options) != strand:
                    continue
                used = [(a, b) for a, b, _ in introns(read) if (contig, strand, a, b) in kept]
                if position in {a if side == "L" else b for a, b in used}:
                    alpha += 1
                elif any(a < position < b for a, b in used):
                    beta2 += 1
                elif any(s < position < e for s, e in aligned_runs(read)):
                    if any((b if side == "L" else a) in partners for a, b in used):
                        beta2 += 1
                    else:
                        beta1 += 1
            counts.append((alpha, beta1, beta2))
        shared = {
            p: [table.get((contig, strand, min(position, p), max(position, p)), [0])[0] for table in tables]
            for p in sorted(partners)
        }
        result[contig, position, shown_strand(contig, strand, position, side, kept, tables, annotated), side] = (
            counts,
            shared,
        )
    return result


def shown_strand(contig, strand, position, side, kept, tables, annotated):
    """Strand of stranded reads, else the majority of the reads that use the site, else the annotation's if it has one."""
    if strand:
        return strand
    at = 2 if side == "L" else 3
    votes = sum(t[k][2] for t in tables for k in t if k in kept and k[0] == contig and k[at] == position)
    if votes:
        return "+" if votes > 0 else "-"
    # An annotated intron that is too long or too short is no evidence, for the strand neither.
    said = {k[1] for k in annotated if k[0] == contig and k[at] == position and (contig, "", *k[2:]) in kept}
    return said.pop() if len(said) == 1 else "?"


def spliser_process(reads, junctions):
    """{position: (alpha, beta1, beta2Simple)} of one contig, unstranded, as SpliSER 0.1.8 ``process`` counts.

    ``junctions``: {(left, right): reads}, its BED file. Reads are all those of the BAM: SpliSER filters none.
    """
    partners = defaultdict(set)
    alpha = Counter()
    for (left, right), n in junctions.items():
        partners[left].add(right)
        partners[right].add(left)
        alpha[left] += n
        alpha[right] += n
    result = {}
    for site in partners:
        competitors = {c for p in partners[site] for c in partners[p]} - {site}
        beta1 = beta2 = 0
        for read in reads:
            position = read.start
            crosses = uses = competes = jumped_by_competitor = jumped_by_other = False
            for length, letter in operations(read.cigar):
                if letter not in "M=XDN":
                    continue
                before, position = position, position + length
                if letter in "M=X" and before < site < position:
                    crosses = True
                if letter != "N":
                    continue
                uses |= site in (before, position)
                competes |= position in competitors and before in partners[site]
                competes |= before in competitors and position in partners[site]
                if before < site < position:
                    jumped_by_competitor |= competes
                    jumped_by_other |= not uses and not competes
            if uses and competes:
                continue
            if jumped_by_competitor:
                continue  # comes from the BED file below
            if jumped_by_other or (crosses and competes):
                beta2 += 1
            elif crosses:
                beta1 += 1
        for p in partners[site]:
            for c in partners[p]:
                if min(p, c) < site < max(p, c):
                    beta2 += junctions[min(p, c), max(p, c)]
        result[site] = (alpha[site], beta1, beta2)
    return result
