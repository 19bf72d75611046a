"""Views and exports of matrices: what other programs read back is what is stored, whatever part of it is asked for."""

from __future__ import annotations

import io
import json

import fastparquet
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splicestore as ss
from splicestore.errors import ConfigError, StoreError, StoreNotFoundError
from splicestore.export import MatrixOptions, export_h5ad, export_parquet
from splicestore.export.matrix import MatrixPart
from splicestore.ingest.expression import ingest_expression
from splicestore.normalize import ApplyOptions, FitOptions, apply_edges, fit_edges
from splicestore.normalize.quality import SampleQuality
from splicestore.split.samples import SampleSplitOptions, split_samples
from splicestore.storage import StoreRoot
from tests.service.study import splicestore
from tests.unit.expression.files import random_counts, write_archs4, write_table

N_SAMPLES, N_GENES = 1100, 300
"""Two rows and two columns of chunks."""
BLOCK = MatrixOptions(block_bytes=4 * 64 * N_GENES).block_bytes
"""64 samples of all genes."""


@pytest.fixture(scope="module")
def counts():
    return random_counts(8, N_SAMPLES, N_GENES)


@pytest.fixture(scope="module")
def store(tmp_path_factory, counts):
    folder = tmp_path_factory.mktemp("exports")
    columns = {"series_id": [f"GSE{i // 7}" for i in range(N_SAMPLES)], "tissue": ["liver", "brain"] * (N_SAMPLES // 2),
               "singlecellprobability": np.linspace(0, 1, N_SAMPLES)}  # fmt: skip
    symbols = [f"S{i % 299}" for i in range(N_GENES)]
    path = write_archs4(
        folder / "a.h5", counts, symbols=symbols, samples=[f"GSM{i}" for i in range(N_SAMPLES)], columns=columns
    )
    root = StoreRoot(str(folder / "store"))
    ingest_expression(root, "human", [str(path)])
    opened = ss.open_store(root.url)
    split_samples(opened, "studies", "human", SampleSplitOptions())
    fit_edges(opened, "edges", "human", FitOptions(n_bins=20, quality=SampleQuality.none()))
    apply_edges(ss.open_store(root.url), "bins", "edges", ApplyOptions(all_genes=True))
    return ss.open_store(root.url)


@pytest.fixture(scope="module")
def views(store):
    return {"human": store.expression["human"], "bins": store.bins["bins"]}


@pytest.fixture(scope="module")
def values(views):
    return {name: view.read(slice(None)) for name, view in views.items()}


# -- selections ----------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    name=st.sampled_from(["human", "bins"]),
    rows=st.lists(st.integers(0, N_SAMPLES - 1), max_size=30),
    genes=st.lists(st.integers(0, N_GENES - 1), max_size=30),
)
def test_any_box_in_any_order_is_that_of_the_matrix(views, values, name, rows, genes):
    found = views[name].pick(np.array(rows, dtype=np.int64), np.array(genes, dtype=np.int64))
    expected = [[values[name][row, gene] for gene in genes] for row in rows]
    assert found.tolist() == (expected if genes else [[] for _ in rows])
    assert found.dtype == values[name].dtype


@pytest.mark.parametrize(
    ("samples", "rows"),
    [
        (None, list(range(N_SAMPLES))),
        (slice(10, 4, -2), [10, 8, 6]),
        (["GSM7", "GSM3"], [7, 3]),
        ([5, 2], [5, 2]),
        (np.arange(N_SAMPLES) % 500 == 1, [1, 501, 1001]),
        ([], []),
    ],
    ids=["all", "slice", "ids", "rows", "booleans", "none"],
)
def test_samples_are_selected_by_ids_rows_and_booleans(views, samples, rows):
    assert views["human"].sample_rows(samples).tolist() == rows


def test_genes_are_selected_by_id_or_by_a_symbol_that_one_gene_has(views):
    view = views["human"]
    assert view.gene_rows(["S4", view.gene_ids[299], view.gene_ids[0]]).tolist() == [4, 299, 0]
    with pytest.raises(ConfigError, match="expression human: several genes are called 'S0'; select them by their rows"):
        view.gene_rows(["S4", "S0"])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (["GSM1", "GMS2"], r"has no sample 'GMS2' \(1 of 2 are not there\); did you mean GSM2"),
        ([0, N_SAMPLES], r"sample rows lie in \[0, 1,100\), got 0 to 1100"),
        ([-1], r"got -1 to -1"),
        ([True, False], r"2 booleans for 1,100 samples"),
    ],
    ids=["name", "past the end", "negative", "too few"],
)
def test_a_sample_that_is_not_there_is_refused(views, samples, message):
    with pytest.raises(ConfigError, match=message):
        views["human"].sample_rows(samples)


def test_samples_of_a_subset(store):
    split = store.sample_splits["studies"]
    table = split.to_pandas()
    for subset in ("train", "val", "test"):
        assert split.samples_in(subset) == table["id"][table["subset"] == subset].tolist() != []
    with pytest.raises(ConfigError, match="split studies has no subset 'validate'"):
        split.samples_in("validate")


def test_tables_have_no_indices_of_other_dimensions(store, views):
    """A sample is in one series here: the index of the series has as many values as there are samples."""
    assert views["human"].array("sample_series_index").shape == (N_SAMPLES,)
    assert "series_index" not in views["human"].samples_to_pandas()


def test_xarray_is_lazy_and_labelled(views, values):
    import dask.array

    dataset = views["human"].to_xarray()
    assert isinstance(dataset.counts.data, dask.array.Array)
    assert dataset.counts.data.chunksize == (1024, 256)
    gene = views["human"].gene_ids[270]
    assert dataset.counts.sel(sample="GSM1050", gene=gene).values == values["human"][1050, 270]
    liver = dataset.counts.isel(sample=(dataset.sample_tissue == "liver").values)
    np.testing.assert_array_equal(liver[:5, :5].values, values["human"][:10:2, :5])
    assert views["bins"].to_xarray().bins.sel(sample="GSM3", gene=gene).values == values["bins"][3, 270]


@pytest.mark.filterwarnings("ignore:The '.*' option is deprecated")
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("name", ["human", "bins"])
def test_anndata_of_a_selection(views, values, name, lazy):
    pytest.importorskip("anndata", reason="pip install 'splicestore[anndata]', on Python 3.11 anndata 'pandas<3'")
    import dask.array

    samples, genes = ["GSM900", "GSM2", "GSM3"], views[name].gene_ids[290:250:-7]
    found = views[name].to_anndata(samples, genes, lazy=lazy)
    assert isinstance(found.X, dask.array.Array if lazy else np.ndarray)
    np.testing.assert_array_equal(np.asarray(found.X), values[name][[900, 2, 3]][:, 290:250:-7])
    assert found.obs_names.tolist() == samples
    assert found.var_names.tolist() == genes
    assert found.var["symbol"].tolist() == [f"S{i}" for i in range(290, 250, -7)]
    if name == "human":
        assert found.obs["tissue"].tolist() == ["liver", "liver", "brain"]
    assert found.uns["splicestore"]["generation"] == views[name].generation
    assert views[name].to_anndata().shape == (N_SAMPLES, N_GENES)


def test_without_anndata_the_extra_is_named(views, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "anndata", None)
    with pytest.raises(ConfigError, match=r"need anndata: pip install 'splicestore\[anndata\]'"):
        views["human"].to_anndata()


# -- h5ad ----------------------------------------------------------------------------------------------------------


def encodings(file):
    """Every element that says what it is: path, type, version."""
    found = {"/": (file.attrs["encoding-type"], file.attrs["encoding-version"])}

    def note(path, element):
        if "encoding-type" in element.attrs:
            found[path] = (element.attrs["encoding-type"], element.attrs["encoding-version"])

    file.visititems(note)
    return found


FRAME = ("dataframe", "0.2.0")
TEXT, ARRAY, DICT = ("string-array", "0.2.0"), ("array", "0.2.0"), ("dict", "0.1.0")
SPECIFICATION = {
    "/": ("anndata", "0.1.0"), "obs": FRAME, "obs/_index": TEXT, "obs/tissue": TEXT, "obs/geo_accession": TEXT, "obs/series_id": TEXT,
    "obs/singlecellprobability": ARRAY, "obs/file": ARRAY, "obs/total": ARRAY, "obs/max": ARRAY, "obs/n_nonzero": ARRAY,
    "obs/subset": ("categorical", "0.2.0"), "obs/subset/categories": TEXT, "obs/subset/codes": ARRAY,
    "var": FRAME, "var/_index": TEXT, "var/symbol": TEXT, "var/biotype": TEXT, "var/is_repeated": ARRAY, "var/version": ARRAY,
    "layers": DICT, "obsm": DICT, "obsp": DICT, "varm": DICT, "varp": DICT, "uns": DICT, "uns/splicestore": DICT,
    "uns/splicestore/store": ("string", "0.2.0"), "uns/splicestore/kind": ("string", "0.2.0"),
    "uns/splicestore/name": ("string", "0.2.0"), "uns/splicestore/generation": ("string", "0.2.0"),
}  # fmt: skip
"""AnnData's on-disk format, as its documentation has it."""


@pytest.mark.parametrize(("sparse", "matrix"), [(False, ("array", "0.2.0")), (True, ("csr_matrix", "0.1.0"))])
def test_a_h5ad_file_is_as_the_format_says(store, tmp_path, counts, sparse, matrix):
    out = tmp_path / "a.h5ad"
    report = export_h5ad(store, "human", str(out), MatrixOptions(split="studies", block_bytes=BLOCK), sparse=sparse)
    assert (report.n_samples, report.n_genes, report.n_nonzero) == (N_SAMPLES, N_GENES, np.count_nonzero(counts))
    assert report.n_bytes == out.stat().st_size
    with h5py.File(out) as file:
        assert encodings(file) == {**SPECIFICATION, "X": matrix}
        for side in ("obs", "var"):
            order = file[side].attrs["column-order"].tolist()
            assert sorted([*order, file[side].attrs["_index"]]) == sorted(file[side])
        if sparse:
            assert file["X"].attrs["shape"].tolist() == [N_SAMPLES, N_GENES]
            ptr, index, data = (file["X"][name][:] for name in ("indptr", "indices", "data"))
            rows = [dict(zip(index[a:b].tolist(), data[a:b].tolist(), strict=True)) for a, b in zip(ptr, ptr[1:])]  # noqa: B905
            assert rows == [{g: n for g, n in enumerate(row) if n} for row in counts.tolist()]
            assert all(np.all(np.diff(index[a:b]) > 0) for a, b in zip(ptr, ptr[1:]))  # noqa: B905
        else:
            np.testing.assert_array_equal(file["X"][:], counts)
            assert file["X"].dtype == np.uint32
        words = file["obs/subset/categories"].asstr()[:]
        table = store.sample_splits["studies"].to_pandas()
        assert words[file["obs/subset/codes"][:]].tolist() == table["subset"].tolist()
        assert file["obs/_index"].asstr()[:].tolist() == table["id"].tolist()
        np.testing.assert_array_equal(file["obs/total"][:], counts.sum(axis=1))


@pytest.mark.parametrize("sparse", [False, True])
def test_counts_that_are_written_and_ingested_again_are_the_same(store, tmp_path, counts, sparse):
    samples, genes = [f"GSM{i}" for i in (7, 1090, 3, 512)], store.expression["human"].gene_ids[280:260:-1]
    export_h5ad(store, "human", str(tmp_path / "a.h5ad"), MatrixOptions(samples=samples, genes=genes), sparse=sparse)
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "again", [str(tmp_path / "a.h5ad")])
    view = ss.open_store(root.url).expression["again"]
    assert view.sample_ids == ["GSM3", "GSM7", "GSM512", "GSM1090"]
    assert view.gene_ids == genes
    np.testing.assert_array_equal(view.read(slice(None)), counts[[3, 7, 512, 1090]][:, 280:260:-1])
    assert view.samples_to_pandas()["tissue"].tolist() == ["brain", "brain", "liver", "liver"]
    assert view.gene_symbols == [f"S{i}" for i in range(280, 260, -1)]


@pytest.mark.filterwarnings("ignore:The '.*' option is deprecated")
@pytest.mark.parametrize("sparse", [False, True])
def test_anndata_reads_the_file(store, tmp_path, values, sparse):
    anndata = pytest.importorskip(
        "anndata", reason="pip install 'splicestore[anndata]', on Python 3.11 anndata 'pandas<3'"
    )
    for name in ("human", "bins"):
        out = tmp_path / f"{name}.h5ad"
        export_h5ad(store, name, str(out), MatrixOptions(split="studies", block_bytes=BLOCK), sparse=sparse)
        found = anndata.read_h5ad(out)
        np.testing.assert_array_equal(found.X.toarray() if sparse else found.X, values[name])
        assert found.obs_names.tolist() == store.expression["human"].sample_ids
        assert found.obs["subset"].tolist() == store.sample_splits["studies"].to_pandas()["subset"].tolist()
        backed = anndata.read_h5ad(out, backed="r")[5:9, :10].to_memory().X
        np.testing.assert_array_equal(backed.toarray() if sparse else backed, values[name][5:9, :10])


# -- parquet -------------------------------------------------------------------------------------------------------


def open_parquet(path):
    """Open a file by another library than wrote it; of a path that library would leave the file open."""
    return fastparquet.ParquetFile(io.BytesIO(path.read_bytes()))


def read_parquet(path, column):
    """(table without the lists, values) of one file."""
    table = open_parquet(path).to_pandas()
    return table.drop(columns=column), np.array(table[column].tolist())


@pytest.mark.parametrize("name", ["human", "bins"])
def test_parquet_has_a_row_a_sample_and_a_file_a_subset(store, views, values, tmp_path, name):
    report = export_parquet(
        store, name, str(tmp_path / "out"), MatrixOptions(split="studies", block_bytes=BLOCK), file_bytes=BLOCK * 4
    )
    column = views[name].array_name
    table = store.sample_splits["studies"].to_pandas()
    places = {sample: row for row, sample in enumerate(table["id"])}
    seen = []
    for subset in ("train", "val", "test"):
        files = sorted((tmp_path / "out" / "data").glob(f"{subset}-*.parquet"))
        assert [path.name for path in files] == [
            f"{subset}-{i:05d}-of-{len(files):05d}.parquet" for i in range(len(files))
        ]
        mine = []
        for path in files:
            rows, lists = read_parquet(path, column)
            mine += rows["sample_id"].tolist()
            np.testing.assert_array_equal(lists, values[name][[places[s] for s in rows["sample_id"]]])
            assert set(rows["sample_subset"]) == {subset}
        assert mine == table["id"][table["subset"] == subset].tolist()
        seen += mine
    assert len(seen) == N_SAMPLES == report.n_samples
    assert len(list((tmp_path / "out" / "data").glob("train-*"))) > 1
    assert sorted(report.files) == sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.parquet")
    )
    genes = open_parquet(tmp_path / "out" / "genes.parquet").to_pandas()
    assert genes["gene_id"].tolist() == views[name].gene_ids
    assert genes["gene_symbol"].tolist() == views[name].gene_symbols


def test_a_row_group_is_a_block_of_samples(store, tmp_path):
    export_parquet(store, "human", str(tmp_path / "out"), MatrixOptions(block_bytes=BLOCK))
    file = open_parquet(tmp_path / "out" / "data" / "samples-00000-of-00001.parquet")
    sizes = [group.num_rows for group in file.row_groups]
    assert sizes == [64] * 17 + [12]
    table = file.to_pandas(columns=["sample_tissue", "sample_total", "sample_singlecellprobability"])
    expected = store.expression["human"].samples_to_pandas()
    for column in table:
        assert table[column].tolist() == expected[column.removeprefix("sample_")].tolist()


@given(n_genes=st.integers(1, N_GENES), block_bytes=st.integers(1, 2**21))
def test_blocks_keep_to_their_size_and_to_chunks(views, n_genes, block_bytes):
    for view in views.values():
        part = MatrixPart(view, np.arange(N_SAMPLES), np.arange(n_genes), None, block_bytes)
        height, chunk = part.block_rows, view.chunk_shape[0]
        assert height == 1 or 4 * n_genes * height <= block_bytes
        assert height % chunk == 0 or chunk % height == 0
        # No larger one would do.
        assert 4 * n_genes * (height + chunk if height >= chunk else 2 * height) > block_bytes


# -- commands ------------------------------------------------------------------------------------------------------


def test_commands_write_what_was_selected(store, views, values, tmp_path):
    (tmp_path / "samples").write_text("GSM5\nGSM900\nGSM4\n")
    (tmp_path / "genes").write_text("S9\nS2\n")
    chosen = ("--samples", str(tmp_path / "samples"), "--genes", str(tmp_path / "genes"))
    arguments = ("export", "h5ad", store.url, "bins", str(tmp_path / "a.h5ad"), *chosen, "--sparse", "--json")
    report = json.loads(splicestore(*arguments, check=0).stdout)
    assert (report["kind"], report["n_samples"], report["n_genes"]) == ("bins", 3, 2)
    assert "exists already" in splicestore(*arguments, check=3).stderr
    text = splicestore("export", "parquet", store.url, "human", str(tmp_path / "out"), *chosen, check=0).stdout
    assert "3 samples, 2 genes of expression" in text
    rows, lists = read_parquet(tmp_path / "out" / "data" / "samples-00000-of-00001.parquet", "counts")
    assert rows["sample_id"].tolist() == ["GSM4", "GSM5", "GSM900"]
    np.testing.assert_array_equal(lists, values["human"][[4, 5, 900]][:, [9, 2]])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("huma", {}, "no expression or bins is called 'huma'; did you mean human"),
        ("human", {"kind": "bins"}, "no bins is called 'human'"),
        ("human", {"kind": "counts"}, "kind 'counts': use expression or bins"),
        ("human", {"subset": "test"}, "a subset is one of a split; name the split too"),
        ("human", {"samples": ["GSM1", "GSX"]}, "has no sample 'GSX'"),
        ("human", {"samples": []}, "nothing to write: 0 samples and 300 genes are left"),
        ("human", {"genes": ["S3", "S3"]}, "a gene is asked for twice"),
    ],
    ids=["name", "other kind", "no kind", "subset", "sample", "nothing", "twice"],
)
def test_a_selection_that_cannot_be_is_refused_and_nothing_written(store, tmp_path, name, options, message):
    with pytest.raises((ConfigError, StoreNotFoundError), match=message):
        export_h5ad(store, name, str(tmp_path / "a.h5ad"), MatrixOptions(**options))
    with pytest.raises((ConfigError, StoreNotFoundError), match=message):
        export_parquet(store, name, str(tmp_path / "a"), MatrixOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_names_and_splits_that_mean_something_else_are_refused(tmp_path):
    counts, root = random_counts(1, 6, 5), StoreRoot(str(tmp_path / "store"))
    for number, name in enumerate(("x", "y")):
        table = write_table(tmp_path / f"{name}.tsv", counts + number, list("abcde"), [f"s{i}" for i in range(6)])
        ingest_expression(root, name, [str(table)])
    store = ss.open_store(root.url)
    fit_edges(store, "x", "x", FitOptions(n_bins=3, quality=SampleQuality.none()))
    apply_edges(ss.open_store(root.url), "x", "x")
    split_samples(store, "ofy", "y", SampleSplitOptions(by="sample", test_fraction=0.4, val_fraction=0))
    store = ss.open_store(root.url)
    with pytest.raises(ConfigError, match="counts and bins are both called 'x'; say which with --kind"):
        export_h5ad(store, "x", str(tmp_path / "a.h5ad"))
    for kind in ("expression", "bins"):
        with pytest.raises(ConfigError, match=rf"split ofy is of expression y generation .*, {kind} x of x generation"):
            export_h5ad(store, "x", str(tmp_path / "a.h5ad"), MatrixOptions(kind=kind, split="ofy"))
    export_h5ad(store, "x", str(tmp_path / "a.h5ad"), MatrixOptions(kind="bins"))
    assert h5py.File(tmp_path / "a.h5ad")["X"].dtype == np.uint16


@pytest.mark.parametrize("export", [export_h5ad, export_parquet])
def test_a_damaged_store_leaves_no_file(tmp_path, export):
    table = write_table(
        tmp_path / "x.tsv", random_counts(1, 60, 50), [f"g{i}" for i in range(50)], [f"s{i}" for i in range(60)]
    )
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "x", [str(table)])
    (shard,) = [path for path in (tmp_path / "store").rglob("counts/c/*/*") if path.is_file()]
    data = bytearray(shard.read_bytes())
    data[200] ^= 255
    shard.write_bytes(data)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StoreError, match="is damaged: its checksum is wrong"):
        export(ss.open_store(root.url), "x", str(out / "a"))
    assert list(out.iterdir()) == []


def test_real_counts_through_every_format(tmp_path, data_dir):
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "ov", [str(data_dir / "expression" / "tcga_ov_counts.1125x374.tsv.gz")])
    store = ss.open_store(root.url)
    counts = store.expression["ov"].read(slice(None))
    export_h5ad(store, "ov", str(tmp_path / "ov.h5ad"), sparse=True)
    ingest_expression(root, "again", [str(tmp_path / "ov.h5ad")])
    np.testing.assert_array_equal(ss.open_store(root.url).expression["again"].read(slice(None)), counts)
    export_parquet(store, "ov", str(tmp_path / "out"))
    rows, lists = read_parquet(tmp_path / "out" / "data" / "samples-00000-of-00001.parquet", "counts")
    assert rows["sample_id"].tolist() == store.expression["ov"].sample_ids
    np.testing.assert_array_equal(lists, counts)
