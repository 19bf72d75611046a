"""Writing small BAM files for tests."""

from __future__ import annotations

import pysam

CONTIGS = {"chrA": 400, "chrB": 90}


def write_bam(path, reads, *, contigs=None, sort_order="coordinate", index=True):
    """Write oracle reads, sorted; names are given so that mates share one."""
    contigs = contigs or CONTIGS
    header = pysam.AlignmentHeader.from_dict(
        {"HD": {"VN": "1.6", "SO": sort_order}, "SQ": [{"SN": n, "LN": length} for n, length in contigs.items()]}
    )
    names = list(contigs)
    if sort_order == "coordinate":
        reads = sorted(reads, key=lambda r: (names.index(r.contig), r.start))
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for number, read in enumerate(reads):
            segment = pysam.AlignedSegment(header)
            segment.query_name = f"read{number}"
            segment.flag = read.flag
            segment.reference_id = names.index(read.contig)
            segment.reference_start = read.start
            segment.mapping_quality = read.mapping_quality
            if read.cigar != "*":
                segment.cigarstring = read.cigar
            for tag, value in read.tags.items():
                segment.set_tag(tag, value, value_type="A" if isinstance(value, str) else "i")
            file.write(segment)
    if index:
        pysam.index(str(path))
    return str(path)


def read_table(path):
    """{(sample, region, site, strand, side): (alpha, beta1, beta2, partners, competitors)} of a table, as text."""
    with open(path) as lines:
        columns = next(lines).rstrip("\n").split("\t")
        rows = [dict(zip(columns, line.rstrip("\n").split("\t"), strict=True)) for line in lines]
    table = {}
    for row in rows:
        site = int(row["Site"])
        partners = {int(p): int(n) for p, n in (cell.split(": ") for cell in row["Partners"].strip("{}").split(", "))}
        sides = {"L" if p > site else "R" for p in partners}
        assert len(sides) == 1
        key = (row.get("Sample", ""), row["Region"], site, row["Strand"], sides.pop())
        assert key not in table
        competitors = [int(c) for c in row["Competitors"].strip("[]").split(", ") if c]
        table[key] = (
            int(row["alpha_count"]),
            int(row["beta1_count"]),
            int(row["beta2Simple_count"]),
            partners,
            competitors,
        )
    return table
