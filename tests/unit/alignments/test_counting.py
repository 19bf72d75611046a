"""The table against the oracle, whatever the reads, the region size and the scheduler; and corners by hand."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.alignments import CountOptions, SampleFile, count_usage
from splicestore.errors import InputError
from splicestore.kernels.alignments import parse_cigar
from tests.oracles.bam_oracle import OracleOptions, OracleRead, count_sites, junction_table, spliser_process
from tests.unit.alignments.bam_files import CONTIGS, read_table, write_bam

pytest.importorskip("pysam", reason="BAM files need pysam: pip install 'splicestore[bio]'")

# Few places, so that reads share boundaries, cross each other's and compete.
LEFTS = (40, 60, 90, 150, 230)
RIGHTS = (90, 120, 180, 260, 300)
OPEN = OracleOptions(min_mapping_quality=0, min_overhang=1, min_intron=1, drop_multi=False)


@st.composite
def cigars(draw, start, spliced):
    """An alignment from ``start``; introns mostly between the shared places."""
    position, text = start, ""
    if draw(st.integers(0, 5)) == 0:
        text += f"{draw(st.integers(1, 4))}S"
    for _ in range(draw(st.integers(0, 3)) if spliced else 0):
        lefts = [p for p in LEFTS if p > position]
        if not lefts:
            break
        left = draw(st.sampled_from(lefts))
        rights = [p for p in RIGHTS if p > left]
        right = draw(st.sampled_from(rights)) + draw(st.sampled_from([0, 0, 0, 0, 1]))
        text += draw(runs(left - position)) + f"{right - left}N"
        position = right
    text += draw(runs(draw(st.integers(1, 60))))
    return text


@st.composite
def runs(draw, length):
    """Aligned bases over ``length`` reference bases, sometimes with =, X, an insertion or a deletion."""
    kind = draw(st.integers(0, 6))
    if length < 4 or kind > 3:
        return f"{length}M"
    cut = draw(st.integers(1, length - 2))
    return {
        0: f"{cut}={length - cut}X",
        1: f"{cut}M1I{length - cut}M",
        2: f"{cut}M1D{length - cut - 1}M",
        3: f"{cut}M{length - cut}=",
    }[kind]


NO_TAGS = st.just({})


@st.composite
def reads(draw, flags=(0,), tags=NO_TAGS):
    contig = draw(st.sampled_from(["chrA", "chrA", "chrA", "chrB"]))
    start = (
        draw(st.integers(0, 60)) if contig == "chrB" else draw(st.sampled_from([5, 20, 35, 55, 58, 89, 100, 119, 180]))
    )
    cigar = f"{draw(st.integers(1, 25))}M" if contig == "chrB" else draw(cigars(start, draw(st.booleans())))
    return OracleRead(
        contig, start, cigar, draw(st.sampled_from(flags)), draw(st.sampled_from([255, 255, 60, 9, 0])), draw(tags)
    )  # fmt: skip


READ_LISTS = st.lists(reads(), min_size=1, max_size=25)
STRAND_TAGS = st.sampled_from([{}, {"XS": "+"}, {"XS": "-"}, {"ts": "+"}, {"ts": "-"}, {"XS": -7, "NH": 1}, {"NH": 2}])
MATES = (0, 16, 99, 147, 83, 163, 256, 1024, 2048 + 16, 512)
ANNOTATED = (("chrA", "+", 60, 120), ("chrA", "-", 60, 120), ("chrA", "-", 150, 260), ("chrA", "+", 300, 390))


def gtf_of(introns):
    rows = []
    for number, (contig, strand, left, right) in enumerate(introns):
        for low, high in ((left - 20, left), (right, min(right + 10, CONTIGS[contig]))):
            rows.append(
                f'{contig}\ttoy\texon\t{low + 1}\t{high}\t.\t{strand}\t.\tgene_id "g{number}"; transcript_id "t{number}";\n'
            )
    return "".join(rows)


def counted(folder, samples, oracle_options, *, annotation=None, **more):
    """Count with our code; None where it says that nothing was found."""
    paths = [write_bam(folder / f"s{i}.bam", sample) for i, sample in enumerate(samples)]
    options = CountOptions(
        min_mapping_quality=oracle_options.min_mapping_quality,
        multi_mapping="drop" if oracle_options.drop_multi else "keep",
        strandedness=oracle_options.strandedness,
        min_overhang=oracle_options.min_overhang,
        min_junction_reads=oracle_options.min_junction_reads,
        min_intron=oracle_options.min_intron,
        max_intron=oracle_options.max_intron,
    )
    if annotation:
        (folder / "a.gtf").write_text(gtf_of(annotation))
        more["annotation"] = str(folder / "a.gtf")
    out = folder / "out.tsv"
    try:
        count_usage([SampleFile.parse(p) for p in paths], str(out), options, overwrite=True, **more)
    except InputError as error:
        if "no splice site" not in str(error):
            raise
        return None
    return read_table(out)


def expected(samples, options, annotated=()):
    table = {}
    sites = count_sites(samples, options, annotated)
    partners_of = {(c, x, side, s): set(p) for (c, x, s, side), (_, p) in sites.items()}
    for (contig, position, strand, side), (counts, partners) in sites.items():
        other = "R" if side == "L" else "L"
        # Competitors: all that a partner is joined to. A partner may show another strand, its key strand is the same.
        rivals = sorted(
            {
                c
                for (k, x, d, s), ps in partners_of.items()
                for c in ps
                if k == contig
                and d == other
                and x in partners
                and c != position
                and (options.strandedness == "unstranded" or s == strand)
            }
        )
        for i, triple in enumerate(counts):
            name = f"s{i}" if len(samples) > 1 else ""
            table[name, contig, position, strand, side] = (*triple, {p: n[i] for p, n in partners.items()}, rivals)
    return table


def check(samples, options, *, annotation=(), **more):
    with tempfile.TemporaryDirectory() as folder:
        found = counted(Path(folder), samples, options, annotation=annotation, **more)
    assert (found or {}) == expected(samples, options, annotation)


@settings(max_examples=40)
@given(READ_LISTS)
def test_counts_are_those_of_the_definition(sample):
    check([sample], OPEN)


@settings(max_examples=40)
@given(st.lists(READ_LISTS, min_size=2, max_size=3), st.integers(17, 401))
def test_region_size_never_shows_and_samples_share_their_sites(samples, region_size):
    check(samples, OPEN, region_size=region_size)


@settings(max_examples=40)
@given(
    st.lists(reads(flags=MATES, tags=STRAND_TAGS), min_size=1, max_size=25),
    st.sampled_from(["unstranded", "forward", "reverse"]),
    st.booleans(),
    st.sampled_from([7, 64, 1_000]),
)
def test_strands_flags_and_tags(sample, strandedness, with_annotation, region_size):
    options = OracleOptions(min_overhang=1, min_intron=1, strandedness=strandedness)
    check([sample], options, annotation=ANNOTATED if with_annotation else (), region_size=region_size)


@settings(max_examples=40)
@given(
    st.lists(READ_LISTS, min_size=1, max_size=2),
    st.integers(1, 30), st.integers(1, 4), st.integers(1, 60), st.integers(60, 300), st.booleans(),
)  # fmt: skip
def test_filters_remove_junctions_as_evidence_too(samples, overhang, n_reads, shortest, longest, with_annotation):
    options = OracleOptions(0, overhang, shortest, longest, False, "unstranded", n_reads)
    check(samples, options, annotation=ANNOTATED if with_annotation else (), region_size=50)


@settings(max_examples=40)
@given(READ_LISTS)
def test_the_counts_are_spliser_s_where_it_has_sides_and_order_right(sample):
    """SpliSER keeps one site per position and lets a competing intron hide introns further right in the same read."""
    sample = [r for r in sample if r.contig == "chrA" and "=" not in r.cigar and "X" not in r.cigar]
    junctions = {(a, b): n for (_, _, a, b), (n, _, _) in junction_table(sample, OPEN).items()}
    ours = count_sites([sample], OPEN)
    theirs = spliser_process(sample, junctions)
    for (_, position, _, side), (((alpha, beta1, beta2),), _) in ours.items():
        both_sides = ("chrA", position, "?", "R" if side == "L" else "L") in ours
        if both_sides or any(("chrA", p, "?", side) in ours for p in ours["chrA", position, "?", side][1]):
            continue
        assert theirs[position][:2] == (alpha, beta1)
        assert theirs[position][2] <= beta2
        if not any(r.cigar.count("N") > 1 for r in sample):
            assert theirs[position][2] == beta2


@pytest.mark.parametrize(("scheduler", "region_size"), [("sync", 1), ("threads:2", 33)])
def test_the_scheduler_never_shows(tmp_path, scheduler, region_size):
    sample = [
        OracleRead("chrA", 20, "20M50N30M"), OracleRead("chrA", 35, "30M"), OracleRead("chrA", 10, "50M60N10M"),
        OracleRead("chrA", 10, "30M80N10M"), OracleRead("chrA", 5, "15M"),
    ]  # fmt: skip
    found = counted(tmp_path, [sample, sample[:2]], OPEN, scheduler=scheduler, region_size=region_size)
    assert found == expected([sample, sample[:2]], OPEN)


# Site 100 (left, partner 200), competitor 140 of the same partner; each read is typed out.
@pytest.mark.parametrize(
    ("cigar", "start", "triple"),
    [
        ("20M100N20M", 80, (2, 0, 0)),  # uses it
        ("30M", 80, (1, 1, 0)),  # runs across
        ("21M", 80, (1, 1, 0)),  # one base past it
        ("20M", 80, (1, 0, 0)),  # ends at it
        ("20M", 100, (1, 0, 0)),  # begins at it
        ("10M1D20M", 89, (1, 0, 0)),  # last base before it deleted
        ("11M1D20M", 89, (1, 0, 0)),  # first base after it deleted
        ("11M2I20M", 89, (1, 0, 0)),  # inserted at it
        ("10=10X", 90, (1, 0, 0)),  # = and X meet at 100, and 110 is the end: see below
        ("60M60N20M", 80, (1, 0, 1)),  # runs across, then from the competitor to the partner
        ("10M150N20M", 80, (1, 0, 1)),  # splices across to 240
        ("30M20N20M", 80, (1, 1, 0)),  # runs across, splices to nobody's partner
    ],
)
def test_one_read_at_one_site(tmp_path, cigar, start, triple):
    sample = [OracleRead("chrA", 80, "20M100N20M"), OracleRead("chrA", start, cigar)]
    if cigar == "10=10X":
        triple = (1, 1, 0)  # one alignment, two ways to write it
    table = counted(tmp_path, [sample], OPEN)
    assert table["", "chrA", 100, "?", "L"][:3] == triple


def test_the_mirror_image_gives_the_mirrored_counts(tmp_path):
    """A right site, its partner, and a competitor upstream; then everything reversed."""
    length = CONTIGS["chrA"]
    sample = [OracleRead("chrA", 80, "20M100N20M"), OracleRead("chrA", 80, "20M60N60M"), OracleRead("chrA", 190, "30M"), OracleRead("chrA", 30, "20M100N5M20N80M")]  # fmt: skip
    mirrored = []
    for read in sample:
        parts = parse_cigar(read.cigar)
        span = parts.blocks[-1][1]
        pieces = [f"{n}{c}" for n, c in _operations(read.cigar)][::-1]
        mirrored.append(OracleRead("chrA", length - read.start - span, "".join(pieces)))
    table = counted(tmp_path, [sample], OPEN)
    image = counted(tmp_path, [mirrored], OPEN)
    flipped = {("", "chrA", length - x, s, "R" if d == "L" else "L"): v[:3] for (_, _, x, s, d), v in image.items()}
    assert {k: v[:3] for k, v in table.items()} == flipped
    # Its own junction; two run across; the second read runs across after splicing from the partner to a competitor.
    assert table["", "chrA", 200, "?", "R"][:3] == (1, 2, 1)


def _operations(cigar):
    import re

    return re.findall(r"(\d+)([A-Z=])", cigar)


def test_both_mates_count_as_spliser_counts_reads(tmp_path):
    pair = [OracleRead("chrA", 80, "20M100N20M", 99), OracleRead("chrA", 85, "15M100N25M", 147)]
    assert counted(tmp_path, [pair], OPEN)["", "chrA", 100, "?", "L"][0] == 2


def test_annotated_sites_without_a_split_read_have_alpha_0(tmp_path):
    annotation = [("chrA", "-", 100, 200)]
    table = counted(
        tmp_path, [[OracleRead("chrA", 90, "40M"), OracleRead("chrA", 195, "3M")]], OPEN, annotation=annotation
    )
    assert table == {
        ("", "chrA", 100, "-", "L"): (0, 1, 0, {200: 0}, []),
        ("", "chrA", 200, "-", "R"): (0, 0, 0, {100: 0}, []),
    }
    lines = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()[1:]]
    assert [(f[3], f[4]) for f in lines] == [("g0", "0.000"), ("g0", "NA")]
