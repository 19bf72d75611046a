"""Junction matrices: sums by condition equal the cell-by-cell oracle; wrong files are named."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import InputError
from splicestore.readers.junction_matrix import read_junction_matrix
from tests.oracles.matrix_oracle import gct_sums, recount3_sums


def found(matrix):
    return {
        name: {
            (c, int(s), int(e)): float(r)
            for c, s, e, r in zip(counts.contig, counts.start, counts.end, counts.reads, strict=True)
        }
        for name, counts in matrix.conditions()
    }


def write_gct(path, samples, rows, *, announced=None):
    text = f"#1.2\n{announced or len(rows)}\t{len(samples)}\nName\tDescription\t" + "\t".join(samples) + "\n"
    text += "".join(f"{name}\tG\t" + "\t".join(map(str, cells)) + "\n" for name, cells in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def write_recount3(folder, samples, ranges, counts, *, n_entries=None):
    stem = folder / "gtex.junctions.BRAIN.ALL"
    header = "chromosome\tstart\tend\tlength\tstrand\tannotated"
    rows = [f"{c}\t{s}\t{e}\t{e - s + 1}\t{strand}\t1" for c, s, e, strand in ranges]
    entries = [(i + 1, j + 1, v) for i, line in enumerate(counts) for j, v in enumerate(line) if v]
    body = "\n".join(f"{i} {j} {v}" for i, j, v in entries)
    documents = {
        "RR": "\n".join([header, *rows]),
        "ID": "\n".join(["rail_id", *samples]),
        "MM": "%%MatrixMarket matrix coordinate integer general\n%\n"
        f"{len(ranges)} {len(samples)} {len(entries) if n_entries is None else n_entries}\n{body}",
    }
    for name, text in documents.items():
        (folder / f"{stem.name}.{name}.gz").write_bytes(gzip.compress((text + "\n").encode()))
    return str(stem)


MATRICES = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=1, max_size=12),
        st.lists(st.sampled_from(["Brain", "Liver", None]), min_size=n, max_size=n),
    )
)


@settings(max_examples=60)
@given(matrix=MATRICES, chunk_cells=st.integers(1, 40))
def test_sums_equal_the_oracle_whatever_the_chunks(tmp_path_factory, matrix, chunk_cells):
    counts, conditions = matrix
    folder = tmp_path_factory.mktemp("matrix")
    samples = [f"S{i}" for i in range(len(conditions))]
    condition_of = {s: c for s, c in zip(samples, conditions, strict=True) if c}
    places = [("chr1", 100 + 10 * i, 180 + 20 * i) for i in range(len(counts))]
    rows = [(f"{c}_{s}_{e}", line) for (c, s, e), line in zip(places, counts, strict=True)]
    url = write_gct(folder / "x.gct.gz", samples, rows)
    got = read_junction_matrix(url, "gct", condition_of, chunk_cells=chunk_cells)
    assert found(got) == gct_sums(url, condition_of)
    stem = write_recount3(folder, samples, [(*p, "+") for p in places], counts)
    got = read_junction_matrix(f"{stem}.MM.gz", "recount3", condition_of, chunk_cells=chunk_cells)
    assert found(got) == recount3_sums(stem, condition_of)
    assert got.strand.tolist() == [1] * len(places)


def test_names_give_half_open_introns_and_strands(tmp_path):
    names = ["chr1_14830_14969", "chrUn_KI270742v1_5_9", "chr2:11-20", "chr1_7_8_+", "chr1:7-9:-", "chr1_7_10_2"]
    url = write_gct(tmp_path / "x.gct", ["S"], [(n, [1]) for n in names])
    matrix = read_junction_matrix(url, "gct", {"S": "c"})
    assert matrix.contig.tolist() == ["chr1", "chrUn_KI270742v1", "chr2", "chr1", "chr1", "chr1"]
    assert matrix.start.tolist() == [14829, 4, 10, 6, 6, 6]
    assert matrix.end.tolist() == [14969, 9, 20, 8, 9, 10]
    assert matrix.strand.tolist() == [0, 0, 0, 1, -1, -1]


ROW = ("chr1_10_20", [1, 2])
BAD_GCT = {
    "unknown sample": (lambda p: write_gct(p, ["S1", "S2"], [ROW]), {"S3": "c"}, "has no sample 'S3'; known: S1, S2"),
    "sample twice": (lambda p: write_gct(p, ["S1", "S1"], [ROW]), {"S1": "c"}, "sample 'S1' stands twice"),
    "junction twice": (lambda p: write_gct(p, ["S1", "S2"], [ROW, ROW]), {"S1": "c"}, "line 5: junction 'chr1_10_20' comes a second"),
    "negative": (lambda p: write_gct(p, ["S1", "S2"], [("a_1_2", [0, -3])]), {"S2": "c"}, "line 4: sample 'S2' has the count -3"),
    "text": (lambda p: write_gct(p, ["S1", "S2"], [("a_1_2", [0, 1]), ("a_1_3", ["x", 1])]), {"S1": "c"}, "line 5: sample 'S1' has the count 'x'"),
    "rows announced": (lambda p: write_gct(p, ["S1", "S2"], [ROW], announced=7), {"S1": "c"}, "announces 7 junctions, it has 1"),
    "no junction": (lambda p: write_gct(p, ["S1", "S2"], [("gene", [1, 1])]), {"S1": "c"}, "line 4: 'gene' names no junction"),
    "reversed": (lambda p: write_gct(p, ["S1", "S2"], [("a_9_2", [1, 1])]), {"S1": "c"}, r"line 4: intron 9-2 \(1-based\) is reversed"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_GCT)
def test_bad_gct_is_refused_with_its_line(tmp_path, case):
    write, condition_of, message = BAD_GCT[case]
    with pytest.raises(InputError, match=message):
        read_junction_matrix(write(tmp_path / "x.gct"), "gct", condition_of)


def test_bad_recount3_is_refused(tmp_path):
    ranges = [("chr1", 10, 20, "+"), ("chr1", 10, 30, "?")]
    stem = write_recount3(tmp_path, ["r1", "r2"], ranges, np.array([[1, 0], [0, 2]]).tolist(), n_entries=9)
    with pytest.raises(InputError, match="announces 9 entries, it has 2"):
        read_junction_matrix(f"{stem}.MM.gz", "recount3", {"r1": "c"})
    whole = (tmp_path / "gtex.junctions.BRAIN.ALL.MM.gz").read_bytes()
    (tmp_path / "gtex.junctions.BRAIN.ALL.MM.gz").write_bytes(whole[:-12])
    with pytest.raises(InputError, match="gzip stream ends early"):
        read_junction_matrix(f"{stem}.MM.gz", "recount3", {"r1": "c"})
    stem = write_recount3(tmp_path, ["r1", "r2"], [("chr1", 10, 20, "x")], [[1, 1]])
    with pytest.raises(InputError, match="line 2: strand 'x'"):
        read_junction_matrix(f"{stem}.MM.gz", "recount3", {"r1": "c"})
    with pytest.raises(InputError, match=r"named \*\.MM\.gz"):
        read_junction_matrix(str(tmp_path / "x.mtx"), "recount3", {})
    text = gzip.compress(b"%%MatrixMarket matrix coordinate integer general\n1 2 1\n5 1 1\n")
    (tmp_path / "gtex.junctions.BRAIN.ALL.MM.gz").write_bytes(text)
    stem = write_recount3(tmp_path, ["r1", "r2"], [("chr1", 10, 20, "+")], [[1, 1]])
    (tmp_path / "gtex.junctions.BRAIN.ALL.MM.gz").write_bytes(text)
    with pytest.raises(InputError, match=r"line 3: '5 1 1'; row 1 to 1"):
        read_junction_matrix(f"{stem}.MM.gz", "recount3", {"r1": "c"})


def test_a_truncated_gct_is_refused(tmp_path):
    url = write_gct(tmp_path / "x.gct.gz", ["S1", "S2"], [(f"chr1_{i}_{i + 9}", [i, 1]) for i in range(1, 400)])
    data = (tmp_path / "x.gct.gz").read_bytes()
    (tmp_path / "x.gct.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="gzip stream ends early"):
        read_junction_matrix(url, "gct", {"S1": "c"})
