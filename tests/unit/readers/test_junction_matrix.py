"""Junction matrices: sums by condition equal the cell-by-cell oracle; wrong files are named."""

from __future__ import annotations

import gzip
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import InputError
from splicestore.readers.junction_matrix import (
    iter_conditions,
    matrix_companions,
    matrix_sample_names,
    read_junction_matrix,
)
from splicestore.readers.usage import read_usage
from tests.oracles.matrix_oracle import gct_sums, recount3_sums

STEM = "sra.junctions.SRP009615.ALL"


def found(matrix):
    return {
        name: {
            (c, int(s), int(e), int(d)): float(r)
            for c, s, e, d, r in zip(j.contig, j.start, j.end, j.strand, j.reads, strict=True)
        }
        for name, j in iter_conditions(matrix)
    }


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def gct(samples, rows, *, announced=None, end="\n"):
    lines = ["#1.2", f"{len(rows) if announced is None else announced}\t{len(samples)}"]
    lines.append("\t".join(["Name", "Description", *samples]))
    lines += ["\t".join([name, "ENSG00000227232.5", *map(str, cells)]) for name, cells in rows]
    return end.join([*lines, ""])


def recount3(folder, samples, ranges, entries, *, shape=None, n_entries=None, packed=".gz"):
    """Write the three files; ``ranges`` are (chromosome, first, last, strand), ``entries`` lines of the matrix."""
    rows = [
        "chromosome\tstart\tend\tlength\tstrand\tannotated\tleft_motif\tright_motif\tleft_annotated\tright_annotated"
    ]
    rows += [f"{c}\t{a}\t{b}\t{b - a + 1}\t{s}\t0\tGT\tAG\taC19,gC19\t0" for c, a, b, s in ranges]
    n_rows, n_columns = shape or (len(ranges), len(samples))
    sizes = f"{n_rows}\t{n_columns}\t{sum(bool(e.strip()) for e in entries) if n_entries is None else n_entries}"
    market = ["%%MatrixMarket matrix coordinate integer general", "%" + " " * 38, sizes, *entries]
    for kind, lines in (("RR", rows), ("ID", ["rail_id", *samples]), ("MM", market)):
        write(folder / f"{STEM}.{kind}{packed}", "\n".join([*lines, ""]))
    return str(folder / f"{STEM}.MM{packed}")


# -- laws --------------------------------------------------------------------------------------------------------

CONTIGS = st.sampled_from(["chr1", "1", "chrUn_KI270742v1", "scaffold_12", "HLA-A*01:01:01", "ERCC-00002"])
PLACES = st.lists(
    st.tuples(CONTIGS, st.integers(1, 300), st.integers(4, 5000), st.sampled_from(["", "+", "-"])),
    max_size=8, unique=True,
)  # fmt: skip
COUNTS = st.one_of(st.integers(0, 3), st.integers(0, 10**7))
SPELL_PLACE = st.sampled_from(["{}_{}_{}", "{}:{}-{}", "{}:{}:{}"])
SPELL_STRAND = {"": ["", "_0", ":.", ":?", "_*"], "+": ["_+", ":+", "_1", ":1"], "-": ["_-", ":-", "_2", ":2"]}
SPELL_COUNT = st.sampled_from(["{}", "{}", "{}", "{}.0", "{}e0", "000{}", "{:020d}"])
CONDITIONS = st.lists(st.sampled_from(["Brain", "Liver", None]), min_size=1, max_size=6)


@st.composite
def gct_files(draw):
    conditions, rows = draw(CONDITIONS), []
    for contig, start, length, strand in draw(PLACES):
        name = draw(SPELL_PLACE).format(contig, start, start + length - 1) + draw(st.sampled_from(SPELL_STRAND[strand]))
        rows.append((name, [draw(SPELL_COUNT).format(draw(COUNTS)) for _ in conditions]))
    samples = [f"GTEX-{i}" for i in range(len(conditions))]
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = gct(samples, rows, end=end) + end * draw(st.integers(0, 2))
    text = text if draw(st.booleans()) else text.rstrip("\r\n") if rows else text
    return (
        text,
        {s: c for s, c in zip(samples, conditions, strict=True) if c},
        draw(st.sampled_from(["a.gct", "a.gct.gz"])),
    )


@settings(max_examples=60)
@given(file=gct_files(), chunk_bytes=st.integers(1, 300))
def test_a_gct_gives_the_sums_of_the_oracle_whatever_the_chunks(tmp_path_factory, file, chunk_bytes):
    text, condition_of, name = file
    url = write(tmp_path_factory.getbasetemp() / name, text)
    matrix = read_junction_matrix(url, "gct", condition_of, chunk_bytes=chunk_bytes)
    assert found(matrix) == gct_sums(url, condition_of)
    assert matrix.samples_used == tuple(condition_of)
    assert (*sorted(matrix.samples_used + matrix.samples_unknown),) == tuple(matrix_sample_names(url, "gct"))


@st.composite
def recount3_files(draw):
    conditions = draw(CONDITIONS)
    ranges = [(c, a, a + n - 1, s or "?") for c, a, n, s in draw(PLACES)]
    lines = []
    if ranges:
        cell = st.tuples(st.integers(1, len(ranges)), st.integers(1, len(conditions)))
        for (row, column), reads in draw(st.lists(st.tuples(cell, COUNTS), max_size=30)):
            gap = draw(st.sampled_from(["\t", " ", " \t "]))
            lines.append(gap.join([str(row), str(column), draw(SPELL_COUNT).format(reads)]))
            lines += [""] * draw(st.sampled_from([0, 0, 0, 1]))
    samples = [str(1_000_000 + i) for i in range(len(conditions))]
    return samples, {s: c for s, c in zip(samples, conditions, strict=True) if c}, ranges, lines


@settings(max_examples=60)
@given(file=recount3_files(), chunk_bytes=st.integers(1, 100))
def test_a_recount3_matrix_gives_the_sums_of_the_oracle_whatever_the_chunks(tmp_path_factory, file, chunk_bytes):
    samples, condition_of, ranges, lines = file
    folder = tmp_path_factory.getbasetemp()
    url = recount3(folder, samples, ranges, lines)
    matrix = read_junction_matrix(url, "recount3", condition_of, chunk_bytes=chunk_bytes)
    assert found(matrix) == recount3_sums(folder / STEM, condition_of)
    assert matrix.samples_unknown == tuple(s for s in samples if s not in condition_of)
    assert matrix_sample_names(url, "recount3") == samples


def test_both_formats_give_what_the_same_junctions_give_as_a_table(tmp_path, data_dir):
    source = data_dir / "vertebrates" / "hg38.junctions.tsv.gz"
    one = read_usage(str(source), "junctions")
    rows = pd.DataFrame({"c": one.contig, "s": one.start, "e": one.end, "d": one.strand, "n": one.reads})
    rows = rows.groupby(["c", "s", "e", "d"], as_index=False)["n"].sum()
    assert len(rows) > 200
    strand = rows["d"].map({1: "+", -1: "-", 0: "?"})
    places = zip(rows.c, rows.s, rows.e, strand, rows.n, strict=True)
    cells = [(f"{c}_{s + 1}_{e}_{d}", [int(n), 0]) for c, s, e, d, n in places]
    as_gct = write(tmp_path / "hg38.gct.gz", gct(["a", "b"], cells))
    ranges = list(zip(rows.c, rows.s + 1, rows.e, strand, strict=True))
    as_market = recount3(
        tmp_path, ["a", "b"], ranges, [f"{i}\t1\t{int(n)}" for i, n in enumerate(rows.n, start=1) if n]
    )
    wanted = {(c, s, e, d): n for c, s, e, d, n in rows.itertuples(index=False) if n}
    for url, format in ((as_gct, "gct"), (as_market, "recount3")):
        assert found(read_junction_matrix(url, format, {"a": "Brain"}, chunk_bytes=1000)) == {"Brain": wanted}


def test_the_dense_matrix_is_never_held(tmp_path):
    n_rows, n_samples = 1_000, 1_500
    row = [str(i % 7) for i in range(n_samples)]
    samples = [f"S{i}" for i in range(n_samples)]
    url = write(tmp_path / "x.gct", gct(samples, [(f"chr1_{i}_{i + 99}", row) for i in range(1, n_rows + 1)]))
    condition_of = {s: f"c{i % 5}" for i, s in enumerate(samples)}
    read_junction_matrix(url, "gct", condition_of)  # what is imported and compiled once is not counted
    tracemalloc.start()
    matrix = read_junction_matrix(url, "gct", condition_of, chunk_bytes=64 * 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert matrix.reads.sum() == n_rows * sum(map(int, row))
    assert peak < n_rows * n_samples * 8 / 2


# -- named corners -----------------------------------------------------------------------------------------------


def test_introns_of_known_genes_come_out_half_open(tmp_path):
    # WASH7P has exons that end at 14829 and begin at 14970, DDX11L1 at 12697 and 13221 (1-based).
    url = write(tmp_path / "x.gct", gct(["S"], [("chr1_14830_14969", [7])]))
    assert found(read_junction_matrix(url, "gct", {"S": "c"})) == {"c": {("chr1", 14829, 14969, 0): 7}}
    url = recount3(tmp_path, ["S"], [("chr1", 12698, 13220, "+")], ["1\t1\t3"])
    assert found(read_junction_matrix(url, "recount3", {"S": "c"})) == {"c": {("chr1", 12697, 13220, 1): 3}}


def test_names_give_contigs_places_and_strands(tmp_path):
    names = [
        "chr1_14830_14969",
        "chrUn_KI270742v1_5_9",
        "chr2:11-20",
        "chr1_7_8_+",
        "chr1:7-9:-",
        "chr1_7_10_2",
        "HLA-A*01:01_3_9",
    ]
    url = write(tmp_path / "x.gct", gct(["S"], [(n, [1]) for n in names]))
    matrix = read_junction_matrix(url, "gct", {"S": "c"})
    assert matrix.contig.tolist() == ["chr1", "chrUn_KI270742v1", "chr2", "chr1", "chr1", "chr1", "HLA-A*01:01"]
    assert matrix.start.tolist() == [14829, 4, 10, 6, 6, 6, 2]
    assert matrix.end.tolist() == [14969, 9, 20, 8, 9, 10, 9]
    assert matrix.strand.tolist() == [0, 0, 0, 1, -1, -1, 0]
    assert [a.dtype for a in (matrix.start, matrix.end, matrix.strand, matrix.reads)] == [
        np.int64,
        np.int64,
        np.int8,
        np.float64,
    ]


def test_samples_of_a_condition_are_summed_and_others_passed_over(tmp_path):
    rows = [("chr1_10_20", [1, 2, 4, 8]), ("chr1_10_30", [0, 9, 0, 0]), ("chr1_10_40", [5, 0, 0, 0])]
    url = write(tmp_path / "x.gct", gct(["S1", "S2", "S3", "S4"], rows))
    matrix = read_junction_matrix(url, "gct", {"S4": "Liver", "S1": "Brain", "S3": "Liver"})
    assert (matrix.condition_names, matrix.samples_used, matrix.samples_unknown) == (
        ("Liver", "Brain"), ("S1", "S3", "S4"), ("S2",),
    )  # fmt: skip
    assert matrix.reads.toarray().tolist() == [[12, 1], [0, 0], [0, 5]]
    counts = dict(iter_conditions(matrix))
    assert counts["Liver"].reads.tolist() == [12]
    assert counts["Brain"].end.tolist() == [20, 40]
    assert found(matrix) == {n: found_one(c) for n, c in matrix.conditions()}


def found_one(counts):
    rows = zip(counts.contig, counts.start, counts.end, counts.strand, counts.reads, strict=True)
    return {(c, int(s), int(e), int(d)): float(r) for c, s, e, d, r in rows}


def test_an_entry_order_by_column_gives_the_same_sums(tmp_path):
    rng = np.random.default_rng(3)
    dense = rng.integers(0, 3, (40, 11))
    ranges = [("chr1", 10, 20 + i, "-") for i in range(40)]
    samples = [f"r{i}" for i in range(11)]
    condition_of = {s: f"c{i % 3}" for i, s in enumerate(samples)}
    entries = [(i, j) for i, j in zip(*np.nonzero(dense), strict=True)]
    wanted = np.stack([dense[:, k::3].sum(axis=1) for k in range(3)], axis=1)
    for order in (entries, sorted(entries, key=lambda e: e[1]), [entries[k] for k in rng.permutation(len(entries))]):
        url = recount3(tmp_path, samples, ranges, [f"{i + 1}\t{j + 1}\t{dense[i, j]}" for i, j in order])
        matrix = read_junction_matrix(url, "recount3", condition_of, chunk_bytes=50)
        np.testing.assert_array_equal(matrix.reads.toarray(), wanted)


def test_a_project_table_names_samples_by_their_accession(tmp_path):
    url = recount3(tmp_path, ["77", "99"], [("chr1", 10, 20, "+")], ["1\t1\t3", "1\t2\t5"])
    table = "rail_id\texternal_id\tstudy\n99\tSRR9\tSRP\n55\tSRR5\tSRP\n77\tSRR7\tSRP\n"
    names = write(tmp_path / "sra.recount_project.SRP009615.MD.gz", table)
    assert matrix_sample_names(url, "recount3", samples_url=names) == ["SRR7", "SRR9"]
    matrix = read_junction_matrix(url, "recount3", {"SRR9": "c"}, samples_url=names)
    assert found(matrix) == {"c": {("chr1", 9, 20, 1): 5}}
    assert matrix_companions(url, "recount3", samples_url=names)[1:] == (str(tmp_path / f"{STEM}.ID.gz"), names)
    write(tmp_path / "sra.recount_project.SRP009615.MD.gz", table.replace("77\t", "78\t"))
    with pytest.raises(InputError, match=r"MD.gz: names no rail_id '77', which is in .*ID.gz \(1 such samples\)"):
        read_junction_matrix(url, "recount3", {"SRR9": "c"}, samples_url=names)


def test_companions_lie_beside_the_matrix_or_where_they_are_said_to_be(tmp_path):
    assert matrix_companions("s3://b/x.MM.gz", "recount3") == ("s3://b/x.RR.gz", "s3://b/x.ID.gz")
    assert matrix_companions("x.MM", "recount3", rows_url="y.tsv") == ("y.tsv", "x.ID")
    assert matrix_companions("x.gct.gz", "gct") == ()
    url = recount3(tmp_path, ["r1"], [("chr1", 10, 20, "+")], ["1 1 4"], packed="")
    for kind, name in (("MM", "m.mtx"), ("RR", "rows.tsv"), ("ID", "samples.txt")):
        (tmp_path / f"{STEM}.{kind}").rename(tmp_path / name)
    places = {"rows_url": str(tmp_path / "rows.tsv"), "samples_url": str(tmp_path / "samples.txt")}
    matrix = read_junction_matrix(str(tmp_path / "m.mtx"), "recount3", {"r1": "c"}, **places)
    assert found(matrix) == {"c": {("chr1", 9, 20, 1): 4}}
    with pytest.raises(InputError, match=r"m.mtx: a recount3 matrix is named \*\.MM\.gz"):
        read_junction_matrix(str(tmp_path / "m.mtx"), "recount3", {"r1": "c"})
    with pytest.raises(InputError, match="RR: no such file"):
        read_junction_matrix(url, "recount3", {"r1": "c"}, samples_url=places["samples_url"])
    with pytest.raises(InputError, match="unknown matrix format 'mtx'; one of gct, recount3"):
        read_junction_matrix(url, "mtx", {})


def test_an_empty_matrix_and_no_sample_asked_for_are_no_errors(tmp_path):
    url = write(tmp_path / "x.gct", gct(["S"], []))
    assert found(read_junction_matrix(url, "gct", {"S": "c"})) == {"c": {}}
    url = write(tmp_path / "x.gct", gct(["S"], [("chr1_5_9", [1])]))
    assert read_junction_matrix(url, "gct", {}).reads.shape == (1, 0)
    url = recount3(tmp_path, ["S"], [], [])
    assert found(read_junction_matrix(url, "recount3", {"S": "c"})) == {"c": {}}


ROW = ("chr1_10_20", [1, 2])
BAD_GCT = {
    "unknown sample": (gct(["S1", "S2"], [ROW]), r"has no sample 'S9' \(1 of 2 samples asked for are missing\); known: S1, S2"),
    "sample twice": (gct(["S1", "S1"], [ROW]), "line 3: sample 'S1' comes a second time"),
    "no sample": (gct([], []), "line 3: names no sample"),
    "junction twice": (gct(["S1", "S2"], [ROW, ("chr1_10_30", [1, 1]), ("chr1:10-20", [0, 0])]), r"line 6: junction chr1:10-20 \(1-based\) stands on line 4 already \(1 such"),
    "negative": (gct(["S1", "S2"], [ROW, ("a_1_2", [0, -3])]), "line 5: sample 'S2' has the count '-3', allowed is a whole number"),
    "text": (gct(["S1", "S2"], [ROW, ROW, ("a_1_3", ["x", 1])]), "line 6: sample 'S1' has the count 'x'"),
    "fraction": (gct(["S1", "S2"], [("a_1_3", [1, "0.5"])]), "line 4: sample 'S2' has the count '0.5'"),
    "nan": (gct(["S1", "S2"], [("a_1_3", [1, "NaN"])]), "line 4: sample 'S2' has the count 'NaN'"),
    "infinite": (gct(["S1", "S2"], [("a_1_3", ["inf", 1])]), "line 4: sample 'S1' has the count 'inf'"),
    "truth": (gct(["S1", "S2"], [("a_1_3", ["True", "False"])]), "line 4: sample 'S1' has the count 'True'"),
    "empty cell": (gct(["S1", "S2"], [("a_1_3", ["", 1])]), "line 4: sample 'S1' has the count ''"),
    "empty last cell": (gct(["S1", "S2"], [("a_1_3", [1, ""])]), "line 4: sample 'S2' has the count ''"),
    "few fields": (gct(["S1", "S2"], [ROW, ("a_1_3", [1])]), "line 5: 3 fields, the header has 4"),
    "many fields": (gct(["S1", "S2"], [ROW, ("a_1_3", [1, 2, 3])]), "line 5: 5 fields, the header has 4"),
    "empty line": (gct(["S1", "S2"], [ROW]) + "\n" + "a_1_3\t-\t1\t1\n", "line 5: 1 fields, the header has 4"),
    "quote": (gct(["S1", "S2"], [('"chr1_1_9', [1, 1])], announced=2), "line 2 announces 2 junctions, the file has 1"),
    "rows announced": (gct(["S1", "S2"], [ROW], announced=7), "line 2 announces 7 junctions, the file has 1; copy"),
    "samples announced": (gct(["S1", "S2"], [ROW]).replace("1\t2\n", "1\t3\n", 1), "line 2 announces 3 samples, the header on line 3 has 2"),
    "no dimensions": (gct(["S1", "S2"], [ROW]).replace("1\t2\n", "one\ttwo\n", 1), r"line 2: 'one\\ttwo' is not the numbers"),
    "other header": (gct(["S1", "S2"], [ROW]).replace("Description", "Gene"), r"line 3: begins with \['Name', 'Gene'\]"),
    "other version": (gct(["S1", "S2"], [ROW]).replace("#1.2", "#1.3"), "line 1: got '#1.3', a junction matrix in GCT begins with #1.2"),
    "no file to speak of": ("", "line 1: got ''"),
    "gene": (gct(["S1", "S2"], [ROW, ("ENSG00000227232.5", [1, 1])]), "line 5: 'ENSG00000227232.5' names no junction"),
    "reversed": (gct(["S1", "S2"], [ROW, ("a_9_2", [1, 1])]), r"line 5: intron 9-2 \(1-based\) is reversed"),
    "begins at 0": (gct(["S1", "S2"], [("a_0_9", [1, 1])]), r"line 4: intron 0-9 \(1-based\) is reversed or begins before 1"),
    "huge": (gct(["S1", "S2"], [("a_1_99999999999999999999", [1, 1])]), "line 4: 'a_1_99999999999999999999' names no junction"),
}  # fmt: skip


@pytest.mark.parametrize("chunk_bytes", [9, 1 << 22])
@pytest.mark.parametrize("case", BAD_GCT)
def test_a_bad_gct_is_refused_with_its_line(tmp_path, case, chunk_bytes):
    text, message = BAD_GCT[case]
    condition_of = {"S1": "c", "S9": "c"} if case == "unknown sample" else {}
    with pytest.raises(InputError, match=rf"x\.gct: {message}"):
        read_junction_matrix(write(tmp_path / "x.gct", text), "gct", condition_of, chunk_bytes=chunk_bytes)


RANGES = [("chr1", 10, 20, "+"), ("chr1", 10, 30, "?")]
BAD_RECOUNT3 = {
    "entries announced": ({"n_entries": 9}, {}, "MM.gz: announces 9 entries, the file has 2; copy or download"),
    "rows announced": ({"shape": (3, 2)}, {}, r"MM.gz: line 3: announces 3 junctions and 2 samples, .*RR.gz has 2 and .*ID.gz 2"),
    "row of none": ({"entries": ["1 1 1", "", "3\t1\t1"]}, {}, r"MM.gz: line 6: got '3\\t1\\t1'; a row from 1 to 2, a sample from 1 to 2"),
    "row 0": ({"entries": ["0 1 1"]}, {}, "MM.gz: line 4: got '0 1 1'"),
    "sample of none": ({"entries": ["1 1 1", "1 3 1"]}, {}, "MM.gz: line 5: got '1 3 1'"),
    "negative": ({"entries": ["1 1 -1"]}, {}, "MM.gz: line 4: got '1 1 -1'"),
    "fraction": ({"entries": ["1 1 2", "1 2 1.5"]}, {}, "MM.gz: line 5: got '1 2 1.5'"),
    "text": ({"entries": ["1 1 reads"]}, {}, "MM.gz: line 4: got '1 1 reads'"),
    "few fields": ({"entries": ["1 1 1", "1 2"]}, {}, "MM.gz: line 5: got '1 2'"),
    "few and many fields": ({"entries": ["1 1", "1 1 2 1"]}, {}, "MM.gz: line 4: got '1 1'"),
    "sample twice": ({"samples": ["r1", "r1"]}, {}, "ID.gz: 2 samples: sample 'r1' comes a second time"),
    "unknown sample": ({"samples": ["r1", "rail3", "r22"], "entries": [], "shape": (2, 3)}, {}, r"ID.gz: has no sample 'r2' \(1 of 2 .*did you mean r22\?"),
    "junction twice": ({"ranges": [RANGES[0], RANGES[0]]}, {}, r"RR.gz: line 3: junction chr1:10-20 \(1-based\) stands on line 2"),
    "strand": ({"ranges": [RANGES[0], ("chr1", 5, 9, "x")]}, {}, "RR.gz: line 3: strand is 'x'"),
    "reversed": ({"ranges": [RANGES[0], ("chr1", 9, 5, "+")]}, {}, "RR.gz: line 3: intron 9-5"),
    "half-open": ({}, {"RR": ("\t10\t30\t21", "\t9\t30\t21")}, r"RR.gz: line 3: length 21 is not end - start \+ 1 = 22 \(1 of 2 rows\)"),
    "text as start": ({}, {"RR": ("\t10\t30\t21", "\tten\t30\t21")}, "RR.gz: line 3: start is 'ten', a whole number"),
    "cut row": ({}, {"RR": ("\t21\t?\t0\tGT\tAG\taC19,gC19\t0", "")}, "RR.gz: line 3: length is ''"),
    "no such column": ({}, {"RR": ("strand", "sense")}, "RR.gz: line 1: no column 'strand'"),
    "dense market": ({}, {"MM": ("coordinate", "array")}, "MM.gz: line 1: got '%%MatrixMarket matrix array integer general'"),
    "symmetric market": ({}, {"MM": ("general", "symmetric")}, "MM.gz: line 1: got "),
    "no sizes": ({}, {"MM": ("2\t2\t2", "2\t2")}, r"MM.gz: line 3: '2\\t2' is not the numbers of rows, columns and entries"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_RECOUNT3)
def test_a_bad_recount3_matrix_is_refused_with_its_line(tmp_path, case):
    changed, replaced, message = BAD_RECOUNT3[case]
    url = recount3(tmp_path, **({"samples": ["r1", "r2"], "ranges": RANGES, "entries": ["1 1 1", "2 2 1"]} | changed))
    for kind, (old, new) in replaced.items():
        path = tmp_path / f"{STEM}.{kind}.gz"
        text = gzip.decompress(path.read_bytes()).decode()
        assert old in text
        write(path, text.replace(old, new))
    condition_of = {} if case == "sample twice" else {"r1": "c", "r2": "c"}
    for chunk_bytes in (5, 1 << 22):
        with pytest.raises(InputError, match=message):
            read_junction_matrix(url, "recount3", condition_of, chunk_bytes=chunk_bytes)


def test_truncated_files_are_refused(tmp_path):
    url = write(tmp_path / "x.gct.gz", gct(["S1", "S2"], [(f"chr1_{i}_{i + 9}", [i, 1]) for i in range(1, 400)]))
    data = (tmp_path / "x.gct.gz").read_bytes()
    (tmp_path / "x.gct.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"x\.gct\.gz: gzip stream ends early"):
        read_junction_matrix(url, "gct", {"S1": "c"})
    url = recount3(tmp_path, ["r1", "r2"], RANGES, ["1 1 1", "2 2 1"])
    for kind in ("MM", "RR", "ID"):
        path = tmp_path / f"{STEM}.{kind}.gz"
        whole = path.read_bytes()
        path.write_bytes(whole[:-12])
        with pytest.raises(InputError, match=rf"{kind}\.gz: gzip stream ends early"):
            read_junction_matrix(url, "recount3", {"r1": "c"})
        path.write_bytes(whole)
