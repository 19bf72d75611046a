"""Every file of counts gives what was written to it, box by box; what is wrong is named."""

from __future__ import annotations

import gzip

import h5py
import numpy as np
import pytest

from splicestore.errors import InputError
from splicestore.readers.counts import open_counts
from tests.unit.expression.files import random_counts, write_archs4, write_h5ad, write_table

N_SAMPLES, N_GENES = 13, 57
COUNTS = random_counts(0, N_SAMPLES, N_GENES)
GENES = [f"g{i}" for i in range(N_GENES)]
SAMPLES = [f"s{i}" for i in range(N_SAMPLES)]


def assert_boxes(source, counts):
    """Boxes of any rows and genes, as numpy cuts them."""
    rng = np.random.default_rng(1)
    assert source.read(np.arange(len(counts)), 0, counts.shape[1]).dtype == np.uint32
    np.testing.assert_array_equal(source.read(np.arange(len(counts)), 0, counts.shape[1]), counts)
    for _ in range(20):
        rows = np.flatnonzero(rng.random(len(counts)) < rng.random())
        first, last = np.sort(rng.integers(0, counts.shape[1] + 1, 2)).tolist()
        np.testing.assert_array_equal(source.read(rows, first, last), counts[rows, first:last])


@pytest.mark.parametrize("layout", ["new", "gene_symbol", "old"])
@pytest.mark.parametrize("chunk_genes", [2000, 10])
def test_archs4(tmp_path, layout, chunk_genes):
    columns = {
        "series_id": [f"GSE{i % 3}" for i in range(N_SAMPLES)],
        "singlecellprobability": np.linspace(0, 1, N_SAMPLES),
    }
    path = write_archs4(
        tmp_path / "a.h5",
        COUNTS,
        symbols=GENES,
        samples=SAMPLES,
        columns=columns,
        layout=layout,
        chunk_genes=chunk_genes,
    )
    source = open_counts(str(path))
    head = source.head
    assert head.sample_id == tuple(SAMPLES)
    assert head.gene_symbol == tuple(GENES)
    assert head.gene_id[1] == ("ENSG00000000001" if layout == "new" else "g1")
    assert source.gene_step == min(chunk_genes, N_GENES)
    assert head.sample_columns["series_id"].tolist() == columns["series_id"]
    assert head.sample_columns["singlecellprobability"].dtype == np.float64
    assert_boxes(source, COUNTS)


@pytest.mark.parametrize("encoding", ["array", "csr_matrix", "csc_matrix"])
def test_h5ad(tmp_path, encoding):
    source = open_counts(str(write_h5ad(tmp_path / "a.h5ad", COUNTS, GENES, SAMPLES, encoding)))
    assert source.head.sample_id == tuple(SAMPLES)
    assert source.head.gene_id == tuple(GENES)
    assert source.head.gene_symbol == tuple(GENES)
    assert source.head.sample_columns["tissue"].tolist()[:3] == ["", "liver", "brain"]
    assert source.head.sample_columns["depth"].tolist() == COUNTS.sum(axis=1).tolist()
    assert_boxes(source, COUNTS)
    with pytest.raises(InputError, match=r"has no matrix 'spliced'; known: X"):
        open_counts(source.url, layer="spliced")


def test_tables(tmp_path):
    plain = write_table(tmp_path / "a.tsv", COUNTS, GENES, SAMPLES)
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(write_table(tmp_path / "a.csv", COUNTS, GENES, SAMPLES, ",").read_bytes()))
    lines = plain.read_text().splitlines()
    (tmp_path / "r.tsv").write_text("\n".join(["\t".join(SAMPLES), *lines[1:]]) + "\n")
    gct = ["#1.2", f"{N_GENES}\t{N_SAMPLES}", "\t".join(["Name", "Description", *SAMPLES])]
    gct += [
        "\t".join([line.split("\t", 1)[0], "d " + line.split("\t", 1)[0], line.split("\t", 1)[1]]) for line in lines[1:]
    ]
    (tmp_path / "a.gct").write_text("\n".join(gct) + "\n")
    counted = ["# featureCounts", "\t".join(["Geneid", "Chr", "Start", "End", "Strand", "Length", *SAMPLES])]
    counted += [
        "\t".join([line.split("\t", 1)[0], "1;1", "1;9", "5;20", "+;+", "99", line.split("\t", 1)[1]])
        for line in lines[1:]
    ]
    (tmp_path / "f.txt").write_text("\n".join(counted) + "\n")
    for path in (plain, packed, tmp_path / "r.tsv", tmp_path / "a.gct", tmp_path / "f.txt"):
        source = open_counts(str(path))
        assert source.head.sample_id == tuple(SAMPLES), path
        assert source.head.gene_id == tuple(GENES), path
        assert_boxes(source, COUNTS)
    assert open_counts(str(tmp_path / "a.gct")).head.gene_symbol[0] == "d g0"


def test_two_columns_of_htseq_are_one_sample_without_its_summary(tmp_path):
    path = tmp_path / "WT_rep01.gene.tab"
    path.write_text("YAL001C\t5\nYAL002W\t0\n__no_feature\t100\n__ambiguous\t7\n")
    head = open_counts(str(path)).head
    assert head.sample_id == ("WT_rep01.gene",)
    assert head.gene_id == ("YAL001C", "YAL002W")
    assert [(row.identifier, row.reason) for row in head.ledger] == [
        ("__no_feature", "summary_row"),
        ("__ambiguous", "summary_row"),
    ]
    assert open_counts(str(path)).read(np.arange(1), 0, 2).tolist() == [[5, 0]]
    path.write_text(
        "YAL001C\t5\nno_feature\t100\nambiguous\t7\ntoo_low_aQual\t0\nnot_aligned\t1\nalignment_not_unique\t2\n"
    )
    assert open_counts(str(path)).head.gene_id == ("YAL001C",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-1", r"sample 's1', gene 'g1': -1\.0 is no count"),
        ("2.5", r"sample 's1', gene 'g1': 2\.5 is no count"),
        ("NA", r"sample 's1', gene 'g1': nan is no count"),
        ("", r"sample 's1', gene 'g1': nan is no count"),
        ("4294967296", "is no count; whole numbers from 0 to 4,294,967,295"),
        ("many", r"line 3: gene 'g1', sample 's1': 'many' is no count"),
    ],
)
def test_what_is_no_count_is_named(tmp_path, value, message):
    path = tmp_path / "a.tsv"
    path.write_text(f"gene_id\ts0\ts1\ng0\t1\t2\ng1\t3\t{value}\n")
    with pytest.raises(InputError, match=message):
        open_counts(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("gene_id\ts0\ts0\ng0\t1\t2\n", "sample 's0' stands at 1 and again at 2"),
        ("gene_id\ts0\t\ng0\t1\t2\n", "sample 2 has no name"),
        ("gene_id\ts0\ts1\n", "holds 2 samples and 0 genes"),
        ("gene_id\tsymbol\ng0\tx\n", "no column of counts behind gene_id, symbol"),
        ("gene_id\ts0\ng0\t1\t2\t3\n", "line 2 has 4 columns, line 1 names 2"),
        ("gene_id\ng0\n", "line 1 has one column"),
        ("gene_id\ts0\ng0\t1\n\t2\n", "gene 2 has neither an id nor a symbol"),
        ("__no_feature\t5\n__ambiguous\t3\n", "holds 1 samples and 0 genes"),
    ],
)
def test_tables_that_are_none(tmp_path, text, message):
    path = tmp_path / "a.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        open_counts(str(path))


def test_genes_may_be_called_like_a_missing_value(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("gene_id\tsymbol\ts0\nNaN\tNA\t1\nNA\tnan\t2\n")
    head = open_counts(str(path)).head
    assert (head.gene_id, head.gene_symbol) == (("NaN", "NA"), ("NA", "nan"))


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("i4", -5, r"sample 's4', gene 'ENSG00000000003': -5 is no count"),
        ("f4", 2.5, r"sample 's4', gene 'ENSG00000000003': 2\.5 is no count.* give raw counts"),
        ("f8", np.nan, r"gene 'ENSG00000000003': nan is no count"),
        ("f8", np.inf, "inf is no count"),
        ("u8", 2**32, "4294967296 is no count; whole numbers from 0 to 4,294,967,295"),
        (h5py.string_dtype(), "7", "counts are stored as text, whole numbers are needed"),
        ("c16", 1, "counts are stored as complex128"),
    ],
)
def test_what_is_no_count_in_hdf5_is_named(tmp_path, dtype, value, message):
    path = write_archs4(tmp_path / "a.h5", COUNTS, symbols=GENES, samples=SAMPLES)
    with h5py.File(path, "a") as file:
        is_text = h5py.check_string_dtype(np.dtype(dtype)) is not None
        matrix = file["data/expression"][...]
        matrix = matrix.astype(str).astype(object) if is_text else matrix.astype(dtype)
        del file["data/expression"]
        matrix[3, 4] = value
        file.create_dataset("data/expression", data=matrix, dtype=dtype)
    with pytest.raises(InputError, match=message):
        open_counts(str(path)).read(np.arange(N_SAMPLES), 0, N_GENES)


@pytest.mark.parametrize("encoding", ["array", "csr_matrix", "csc_matrix"])
def test_fractions_in_h5ad_are_named(tmp_path, encoding):
    path = write_h5ad(tmp_path / "a.h5ad", COUNTS, GENES, SAMPLES, encoding)
    with h5py.File(path, "a") as file:
        name = "X" if encoding == "array" else "X/data"
        values, attributes = file[name][...].astype(np.float32), dict(file[name].attrs)
        del file[name]
        values.reshape(-1)[0] = 0.5
        file[name] = values
        file[name].attrs.update(attributes)
    with pytest.raises(InputError, match=r"0\.5 is no count"):
        open_counts(str(path)).read(np.arange(N_SAMPLES), 0, N_GENES)


def test_tables_of_archs4_that_name_nothing_or_one_thing_twice(tmp_path):
    with pytest.raises(InputError, match="sample 's0' stands at 1 and again at 2"):
        open_counts(str(write_archs4(tmp_path / "a.h5", COUNTS, symbols=GENES, samples=["s0", *SAMPLES[:-1]])))
    path = write_archs4(tmp_path / "b.h5", COUNTS, symbols=["", *GENES[1:]], samples=SAMPLES, layout="gene_symbol")
    with pytest.raises(InputError, match="gene 1 has neither an id nor a symbol"):
        open_counts(str(path))
    ids = ["", *(f"ENSG{i}" for i in range(1, N_GENES))]
    path = write_archs4(tmp_path / "c.h5", COUNTS, symbols=GENES, samples=SAMPLES, gene_ids=ids)
    assert open_counts(str(path)).head.gene_id[:2] == ("g0", "ENSG1")
    path = write_archs4(tmp_path / "d.h5", COUNTS, symbols=GENES, samples=SAMPLES, columns={"series_id": ["GSE1"]})
    with pytest.raises(InputError, match="column 'series_id' has 1 values for 13 samples"):
        open_counts(str(path))


def test_damaged_hdf5_is_an_error_never_zeros(tmp_path):
    path = write_archs4(tmp_path / "a.h5", random_counts(1, 60, 4000), symbols=[f"g{i}" for i in range(4000)],
                        samples=[f"s{i}" for i in range(60)])  # fmt: skip
    data = path.read_bytes()
    (tmp_path / "short.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="truncated or damaged"):
        open_counts(str(tmp_path / "short.h5"))
    with h5py.File(path, "r") as file:
        at = file["data/expression"].id.get_chunk_info(70).byte_offset
    (tmp_path / "hole.h5").write_bytes(data[:at] + bytes(40) + data[at + 40 :])
    source = open_counts(str(tmp_path / "hole.h5"))
    with pytest.raises(InputError, match=r"/data/expression: not readable .* truncated or damaged"):
        source.read(np.arange(60), 0, 4000)


def test_tables_that_disagree_with_the_matrix(tmp_path):
    path = write_archs4(tmp_path / "a.h5", COUNTS, symbols=GENES, samples=SAMPLES)
    with h5py.File(path, "a") as file:
        del file["meta/genes/ensembl_gene"]
        file["meta/genes/ensembl_gene"] = np.array(["E1", "E2"], dtype=h5py.string_dtype())
    with pytest.raises(InputError, match="57 gene symbols for 2 genes"):
        open_counts(str(path))
    path = write_archs4(tmp_path / "b.h5", COUNTS[:, :50], symbols=GENES, samples=SAMPLES)
    with pytest.raises(InputError, match="50 genes x 13 samples, the tables have 57 x 13"):
        open_counts(str(path))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(InputError, match="neither data/expression"):
        open_counts(str(tmp_path / "c.h5"))
