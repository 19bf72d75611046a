"""Usage files: site tables of SpliSER and SplicEvo, junctions of five tools, and their defects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import InputError
from splicestore.readers.usage import JunctionCounts, SiteCounts, detect_usage_format, read_usage

PROCESS = "Region\tSite\tStrand\tGene\tSSE\talpha_count\tbeta1_count\tbeta2Simple_count\tbeta2Cryptic_count\tbeta2Cryptic_weighted\tPartners\tCompetitors"
COMBINED = "Sample\tRegion\tSite\tStrand\tGene\tSSE\talpha_count\tbeta1_count\tbeta2Simple_count\tbeta2Cryptic_count\tbeta2_weighted\tPartners\tCompetitors"
NEWER = "Region\tSite\tStrand\tGene\tSSE\talpha_count\tbeta1_count\tbeta2_count\tMultiGeneFlag\tOthers\tPartners\tCompetitors"
SPLICEVO = "Sample\tRegion\tSite\tStrand\tGene\tSSE\talpha_count\tbeta1_count\tbeta2_count"


def write(tmp_path, text: str, name="x.tsv") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def site_rows(found: SiteCounts) -> list[tuple]:
    return list(
        zip(
            found.contig.tolist(),
            found.position.tolist(),
            found.strand.tolist(),
            found.side.tolist(),
            found.alpha.tolist(),
            found.beta.tolist(),
            strict=True,
        )
    )


def junction_rows(found: JunctionCounts) -> list[tuple]:
    return list(
        zip(
            found.contig.tolist(),
            found.start.tolist(),
            found.end.tolist(),
            found.strand.tolist(),
            found.reads.tolist(),
            strict=True,
        )
    )


def test_spliser_process_table(tmp_path):
    text = f"{PROCESS}\nchr1\t100\t+\tA\t0.833\t10\t1\t1\tNA\tNA\t{{200: 6, 300: 4}}\t[]\nchr1\t200\t?\tNA\t0.000\t0\t3\t0\tNA\tNA\t{{100: 6}}\t[300]\n"
    found = read_usage(write(tmp_path, text))
    assert isinstance(found, SiteCounts)
    assert site_rows(found) == [("chr1", 100, 1, -1, 10.0, 2.0), ("chr1", 200, 0, 1, 0.0, 3.0)]
    assert found.gene is not None
    assert found.gene.tolist() == ["A", "NA"]
    assert len(found.sample_names) == 1
    assert (found.position.dtype, found.strand.dtype, found.side.dtype, found.sample.dtype) == (
        np.int64,
        np.int8,
        np.int8,
        np.int32,
    )


def test_spliser_combined_table_keeps_its_samples_apart(tmp_path):
    rows = [
        f"{s}\tchr1\t100\t-\tA\t0.5\t{a}\t1\t2\tNA\tNA\t{{50: 6}}\t[]" for s, a in (("s2", 4), ("s1", 5), ("s2", 6))
    ]
    found = read_usage(write(tmp_path, "\n".join([COMBINED, *rows])))
    assert isinstance(found, SiteCounts)
    assert [found.sample_names[i] for i in found.sample] == ["s2", "s1", "s2"]
    assert found.alpha.tolist() == [4.0, 5.0, 6.0]
    assert found.beta.tolist() == [3.0, 3.0, 3.0]


def test_newer_spliser_and_splicevo_columns(tmp_path):
    newer = read_usage(write(tmp_path, f"{NEWER}\nc\t9\t+\tA\t1.0\t3\t0\t1\tFalse\t[]\t{{20: 3}}\t[]\n", "a.tsv"))
    splicevo = read_usage(write(tmp_path, f"{SPLICEVO}\ns\tc\t9\t+\tA\t1.0\t3\t0\t1\n", "b.tsv"))
    assert isinstance(newer, SiteCounts)
    assert isinstance(splicevo, SiteCounts)
    assert site_rows(newer) == [("c", 9, 1, -1, 3.0, 1.0)]
    assert site_rows(splicevo) == [("c", 9, 1, 0, 3.0, 1.0)]


@pytest.mark.parametrize(
    ("partners", "side"),
    [
        ("{200: 6}", -1),
        ("{200: 6, 300: 50}", -1),
        ("{50: 200}", 1),
        ("{50:200}", 1),
        ("{50: 6, 200: 6}", 0),
        ("{}", 0),
        ("[]", 0),
        ("[200, 300]", -1),
        ("[20, 30]", 1),
        ("NA", 0),
        ("", 0),
    ],
)
def test_partners_tell_the_side(tmp_path, partners, side):
    found = read_usage(write(tmp_path, f"{PROCESS}\nc\t100\t+\tA\t1\t3\t0\t1\tNA\tNA\t{partners}\t[]\n"))
    assert isinstance(found, SiteCounts)
    assert found.side.tolist() == [side]


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 300), st.dictionaries(st.integers(0, 300), st.integers(0, 500), max_size=4)),
        min_size=1,
        max_size=12,
    )
)
def test_the_side_follows_from_the_keys_alone(tmp_path_factory, rows):
    lines = [f"c\t{x}\t+\tA\t1\t3\t0\t1\tNA\tNA\t{partners}\t[]" for x, partners in rows]
    found = read_usage(write(tmp_path_factory.mktemp("side"), "\n".join([PROCESS, *lines])))
    assert isinstance(found, SiteCounts)
    expected = []
    for x, partners in rows:
        others = [p for p in partners if p != x]
        expected.append(-1 if others and min(others) > x else 1 if others and max(others) < x else 0)
    assert found.side.tolist() == expected


def test_star_counts_unique_reads_of_a_one_based_intron(tmp_path):
    text = "chr1\t101\t200\t1\t1\t0\t7\t3\t30\nchr1\t301\t400\t2\t2\t1\t0\t5\t9\nchr1\t1\t9\t0\t0\t0\t2\t0\t9\n"
    found = read_usage(write(tmp_path, text, "SJ.out.tab"))
    assert isinstance(found, JunctionCounts)
    assert junction_rows(found) == [("chr1", 100, 200, 1, 7.0), ("chr1", 300, 400, -1, 0.0), ("chr1", 0, 9, 0, 2.0)]


def test_regtools_bed12_subtracts_the_overhangs(tmp_path):
    text = "chr1\t90\t230\tJ1\t12\t-\t90\t230\t255,0,0\t2\t10,30\t0,110\nchr1\t90\t230\tJ2\t3\t?\t90\t230\t255,0,0\t2\t10,30,\t0,110,\n"
    found = read_usage(write(tmp_path, f"track name=junctions\n{text}", "x.bed"))
    assert isinstance(found, JunctionCounts)
    assert junction_rows(found) == [("chr1", 100, 200, -1, 12.0), ("chr1", 100, 200, 0, 3.0)]


def test_hints_count_mult_and_skip_other_rows(tmp_path):
    rows = [
        "c\tb2h\tep\t1\t9\t0\t.\t.\tmult=7;src=E",
        "c\tb2h\tintron\t101\t200\t0\t+\t.\tmult=5;pri=4;src=E",
        "c\tb2h\tintron\t101\t200\t0\t.\t.\tpri=4;src=E",
    ]
    found = read_usage(write(tmp_path, "\n".join(rows), "x.gff"))
    assert isinstance(found, JunctionCounts)
    assert junction_rows(found) == [("c", 100, 200, 1, 5.0), ("c", 100, 200, 0, 1.0)]


@pytest.mark.parametrize(
    "header",
    [
        "contig\tstart\tend\tstrand\treads",
        "chrom\tstart0\tend\tstrand_by_motif\tcount",
        "chr\tstart\tend\tstrand\tscore",
    ],
)
def test_plain_junction_tables_under_any_of_their_headers(tmp_path, header):
    found = read_usage(write(tmp_path, f"{header}\nc\t100\t200\t+\t4\nc\t100\t200\t.\t2\n"))
    assert isinstance(found, JunctionCounts)
    assert junction_rows(found) == [("c", 100, 200, 1, 4.0), ("c", 100, 200, 0, 2.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{PROCESS}\n", "spliser"),
        (f"{SPLICEVO}\n", "spliser"),
        ("c\t1\t9\t0\t0\t0\t2\t0\t9\n", "star"),
        ("c\t0\t9\tJ\t1\t+\t0\t9\t0\t2\t1,1\t0,8\n", "regtools"),
        ("##gff\nc\tb2h\tep\t1\t9\t0\t.\t.\tmult=7\n", "hints"),
        ("chrom\tstart0\tend\tstrand_by_motif\treads\tmotif\n", "junctions"),
    ],
)
def test_formats_show_in_the_first_line(tmp_path, text, expected):
    assert detect_usage_format(write(tmp_path, text)) == expected


SITE = "c\t9\t+\tA\t1\t{alpha}\t{beta1}\t{beta2}\tNA\tNA\t{{}}\t[]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{PROCESS}\n{SITE.format(alpha=1, beta1=0, beta2=0)}\n{SITE.format(alpha=-3, beta1=0, beta2=0)}\n",
            r"x\.tsv: line 3, column alpha_count: got '-3'",
        ),
        (f"{PROCESS}\n{SITE.format(alpha=1, beta1='NA', beta2=0)}\n", r"line 2, column beta1_count: got 'NA'"),
        (f"{PROCESS}\n{SITE.format(alpha=1, beta1=0, beta2='nan')}\n", r"line 2, column beta2Simple_count: got 'nan'"),
        (f"{PROCESS}\n{SITE.format(alpha='many', beta1=0, beta2=0)}\n", r"line 2, column alpha_count: got 'many'"),
        (f"{PROCESS}\n{SITE.format(alpha='inf', beta1=0, beta2=0)}\n", r"line 2, column alpha_count: got 'inf'"),
        ("c\t1\t9\t0\t0\t0\t2\t0\t9\nc\t1\t9\t7\t0\t0\t2\t0\t9\n", r"line 2, column strand: got '7'"),
        ("c\t20\t9\t1\t0\t0\t2\t0\t9\n", r"line 1: intron \[19, 9\) is empty or reversed"),
        ("contig\tstart\tend\tstrand\treads\nc\t5\t9\t+\t-1\n", r"line 2, column reads: got '-1'"),
        ("c\t0\t9\tJ\t1\t+\n", r"not recognised as a usage file"),
        ("", r"no data lines"),
    ],
)
def test_defects_are_refused_with_line_column_and_value(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_usage(write(tmp_path, text))


def test_a_site_table_without_counts_names_the_missing_column(tmp_path):
    with pytest.raises(InputError, match="no column 'beta1_count'"):
        read_usage(write(tmp_path, "Region\tSite\tStrand\talpha_count\tbeta2_count\nc\t1\t+\t1\t1\n"))


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown usage format 'bam'"):
        read_usage(write(tmp_path, "x"), "bam")


REAL = {
    "hg38.isoseq.SJ.tab.gz": ("star", 119),
    "mm10.16493_7_4.SJ.tab.gz": ("star", 2798),
    "mm10.ERR033015.SJ.tab.gz": ("star", 1672),
    "mm10.ERR033016.SJ.tab.gz": ("star", 2829),
    "rheMac3.SRR636926.SJ.tab.gz": ("star", 130),
    "galGal4.junctions.tsv.gz": ("junctions", 129),
    "hg38.junctions.tsv.gz": ("junctions", 267),
    "mm10.junctions.tsv.gz": ("junctions", 378),
    "rheMac3.junctions.tsv.gz": ("junctions", 265),
    "galGal4.hints.gff.gz": ("hints", 129),
    "hg38.hints.gff.gz": ("hints", 267),
    "mm10.hints.gff.gz": ("hints", 378),
    "rheMac3.hints.gff.gz": ("hints", 265),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", list(REAL))
def test_real_junction_files_have_their_literal_counts(data_dir, name):
    url = str(data_dir / "vertebrates" / name)
    found = read_usage(url)
    assert isinstance(found, JunctionCounts)
    assert (detect_usage_format(url), len(found.reads)) == REAL[name]


@pytest.mark.real_data
@pytest.mark.parametrize("genome", ["hg38", "mm10", "rheMac3", "galGal4"])
def test_junction_tables_equal_the_hints_they_were_made_from(data_dir, genome):
    rows = []
    for suffix in ("junctions.tsv.gz", "hints.gff.gz"):
        found = read_usage(str(data_dir / "vertebrates" / f"{genome}.{suffix}"))
        assert isinstance(found, JunctionCounts)
        rows.append(
            sorted(
                zip(found.contig.tolist(), found.start.tolist(), found.end.tolist(), found.reads.tolist(), strict=True)
            )
        )
    assert rows[0] == rows[1]
