"""From files of counts to bins: what is published is what a few lines of numpy give, however it is cut and run."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import splicestore as ss
from splicestore.errors import FailedPartitionsError, InputError, PlanError
from splicestore.ingest.expression import ExpressionOptions, ingest_expression
from splicestore.ingest.sample_selection import SampleSelection
from splicestore.kernels.binning import score_counts
from splicestore.normalize import ApplyOptions, FitOptions, apply_edges, fit_edges, normalize_file
from splicestore.normalize import fit as fit_module
from splicestore.normalize.fit import projected_fit_bytes
from splicestore.normalize.match import match_genes
from splicestore.normalize.quality import SampleQuality
from splicestore.storage import StoreRoot
from tests.servers.static import static_server
from tests.service.study import splicestore
from tests.unit.expression.files import random_counts, write_archs4, write_h5ad, write_table
from tests.unit.expression.test_binning import BINS, COUNTS

pytest_plugins = ["tests.servers.fixtures"]

N_SAMPLES, N_GENES, N_BINS = 5000, 600, 40
SYMBOLS = [f"S{i % 590}" for i in range(N_GENES)]
"""The last ten stand twice."""
EVERYTHING = SampleQuality.none()


def slow_bins(counts: np.ndarray, n_bins: int, tie_policy: str = "max") -> np.ndarray:
    """Rank every positive score among its gene's, in exact integers; (sample, gene)."""
    totals = counts.sum(axis=1, dtype=np.int64)
    score = np.log10(counts * (1e7 / np.maximum(totals, 1))[:, None] + 1).astype(np.float32)
    bins = np.ones(counts.shape, dtype=np.uint16)
    for gene in range(counts.shape[1]):
        positive = score[:, gene] > 0
        values = np.sort(score[positive, gene])
        m = len(values)
        if m == 1:
            bins[positive, gene] = 2
        elif m:
            mine = score[positive, gene]
            rank = np.searchsorted(values, mine, "right") - 1 if tie_policy == "max" else np.searchsorted(values, mine)
            bins[positive, gene] = np.minimum(rank * (n_bins - 1) // (m - 1) + 2, n_bins)
    bins[totals == 0] = 0
    return bins


@pytest.fixture(scope="module")
def counts():
    found = random_counts(3, N_SAMPLES, N_GENES)
    found[:, 17] = 0
    found[:, 18] = 0
    found[7, 18] = 5
    found[11] = 0
    return found


@pytest.fixture(scope="module")
def archs4(tmp_path_factory, counts):
    samples = [f"GSM{i}" for i in range(N_SAMPLES)]
    columns = {"series_id": [f"GSE{i // 7}" if i % 5 else f"GSE{i // 7},GSE{i // 7 + 1}" for i in range(N_SAMPLES)],
               "singlecellprobability": np.linspace(0, 1, N_SAMPLES)}  # fmt: skip
    path = tmp_path_factory.mktemp("archs4") / "human.h5"
    return str(write_archs4(path, counts, symbols=SYMBOLS, samples=samples, columns=columns, chunk_genes=250))


@pytest.fixture(scope="module")
def store(tmp_path_factory, archs4):
    root = StoreRoot(str(tmp_path_factory.mktemp("store") / "store"))
    ingest_expression(root, "human", [archs4])
    opened = ss.open_store(root.url)
    fit_edges(opened, "all", "human", FitOptions(n_bins=N_BINS, quality=EVERYTHING))
    apply_edges(ss.open_store(root.url), "all", "all", ApplyOptions(all_genes=True))
    return ss.open_store(root.url)


def test_counts_are_those_of_the_file(store, counts):
    view = store.expression["human"]
    assert repr(view).startswith("Expression('human'")
    np.testing.assert_array_equal(view.read(slice(None)), counts)
    np.testing.assert_array_equal(view.read(slice(4090, 4100), slice(500, 513)), counts[4090:4100, 500:513])
    np.testing.assert_array_equal(view.sample_total, counts.sum(axis=1))
    np.testing.assert_array_equal(view.array("sample_n_nonzero"), np.count_nonzero(counts, axis=1))
    np.testing.assert_array_equal(view.array("sample_max"), counts.max(axis=1))
    samples, genes = view.samples_to_pandas(), view.genes_to_pandas()
    assert samples["id"].tolist()[:2] == ["GSM0", "GSM1"]
    assert samples["series_id"].tolist()[5] == "GSE0,GSE1"
    assert genes["is_repeated"].sum() == 20
    assert genes["biotype"].unique().tolist() == ["protein_coding"]
    ptr, index = view.array("sample_series_ptr"), view.array("sample_series_index")
    assert [str(view.array("series_id")[i]) for i in index[ptr[5] : ptr[6]]] == ["GSE0", "GSE1"]
    lazy = view.to_xarray()
    np.testing.assert_array_equal(lazy.counts[3:9, 7:20].values, counts[3:9, 7:20])


def test_bins_are_ranks(store, counts):
    bins = store.bins["all"]
    np.testing.assert_array_equal(bins.read(slice(None)), slow_bins(counts, N_BINS))
    assert bins.read(slice(None)).dtype == np.uint16
    assert bins.sample_ids == store.expression["human"].sample_ids


def test_statistics_of_genes(store, counts):
    genes = store.normalized["all"].genes_to_pandas()
    score = score_counts(counts, counts.sum(axis=1, dtype=np.int64)).astype(np.float64)
    score = np.delete(score, 11, axis=0)
    np.testing.assert_array_equal(genes["n_positive"], np.count_nonzero(np.delete(counts, 11, axis=0), axis=0))
    np.testing.assert_allclose(genes["mean"], score.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(genes["std"], score.std(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(genes["is_expressed"], score.mean(axis=0) > 0.1)
    pairs = np.array([score[:, i].mean() >= score[:, i + 590].mean() for i in range(10)])
    np.testing.assert_array_equal(genes["is_kept"][:10], pairs)
    np.testing.assert_array_equal(genes["is_kept"][590:], ~pairs)
    assert store.normalized["all"].edges(17, 19).tolist() == [[np.inf] * (N_BINS - 2)] * 2


def test_symbols_that_are_all_a_file_has_and_stand_twice(tmp_path):
    """The kept one of two genes with one id is the second here: its counts are binned, not those of the first."""
    counts = random_counts(6, 50, 8)
    counts[:, 1], counts[:, 5] = counts[:, 1] % 3, counts[:, 5] + 900
    symbols = ["a", "twice", "b", "c", "d", "twice", "e", "f"]
    path = write_archs4(
        tmp_path / "a.h5", counts, symbols=symbols, samples=[f"s{i}" for i in range(50)], layout="gene_symbol"
    )
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "x", [str(path)])
    fit_edges(ss.open_store(root.url), "x", "x", FitOptions(n_bins=7, quality=EVERYTHING))
    apply_edges(ss.open_store(root.url), "x", "x")
    opened = ss.open_store(root.url)
    assert opened.normalized["x"].gene_is_kept.tolist() == [True, False, *[True] * 6]
    expected = slow_bins(counts, 7)[:, [0, 2, 3, 4, 5, 6, 7]]
    np.testing.assert_array_equal(opened.bins["x"].read(slice(None)), expected)
    normalize_file(opened.normalized["x"], str(path), str(tmp_path / "o.npz"))
    np.testing.assert_array_equal(np.load(tmp_path / "o.npz")["bins"], expected)
    splicestore("export", "generain", root.url, "x", str(tmp_path / "out"), "--chunks", "1")
    reference = next((tmp_path / "out").glob("*_subsampled.npy"))
    assert np.load(reference).shape == (0, 7)
    np.testing.assert_array_equal(np.load(next((tmp_path / "out").glob("*_chunk_0.npy"))), expected)


@pytest.mark.parametrize(
    ("fitted", "known", "rows"),
    [
        (["a", "b", "c"], ["c", "x", "a"], [2, -1, 0]),
        (["ENSG1.2", "ENSG2", "b.1"], ["ENSG2.9", "ENSG1.7", "b"], [1, 0, -1]),
        (["ENSG1.2", "ENSG2.1"], ["ENSG1.2", "ENSG2.4"], [0, 1]),
        (["a", "b", "a"], ["x", "a", "a", "b"], [1, 3, 2]),
        (["a", "b", "a"], ["b", "a"], [1, 0, 1]),
        (["a", "b"], ["a", "b", "a"], [-1, 1]),
    ],
)
def test_genes_are_matched_by_id_then_without_versions(fitted, known, rows):
    assert match_genes(fitted, known).tolist() == rows


def test_the_weaker_of_two_symbols_has_no_bins_unless_asked(store, tmp_path, counts):
    apply_edges(store, "kept", "all")
    bins = ss.open_store(store.url).bins["kept"]
    kept = np.flatnonzero(store.normalized["all"].gene_is_kept)
    np.testing.assert_array_equal(bins.read(slice(None)), slow_bins(counts, N_BINS)[:, kept])
    assert len(set(bins.gene_symbols)) == bins.n_genes == 590


@pytest.mark.parametrize("budget", [1, 64 * 8 * N_SAMPLES, 1 << 30])
@pytest.mark.parametrize("scheduler", ["sync", "threads:2"])
def test_edges_do_not_depend_on_bands_or_schedulers(store, budget, scheduler):
    options = FitOptions(n_bins=N_BINS, quality=EVERYTHING, band_budget=budget, scheduler=scheduler)
    report = fit_edges(store, f"b{budget}{scheduler[0]}", "human", options)
    found = ss.open_store(store.url).normalized[report.name]
    np.testing.assert_array_equal(found.edges(0, N_GENES), store.normalized["all"].edges(0, N_GENES))
    # All that decides the content is the same, so is the generation.
    assert found.generation == store.normalized["all"].generation


def test_worker_processes_write_the_same(store, tmp_path, archs4):
    root = StoreRoot(str(tmp_path / "store"))
    report = ingest_expression(root, "human", [archs4], ExpressionOptions(scheduler="processes:2"))
    opened = ss.open_store(root.url)
    assert report.generation == store.expression["human"].generation
    fit_edges(opened, "all", "human", FitOptions(n_bins=N_BINS, quality=EVERYTHING, scheduler="processes:2"))
    apply_edges(ss.open_store(root.url), "all", "all", ApplyOptions(all_genes=True, scheduler="processes:2"))
    sizes = {key: size for key, size in root.sizes("bins").items() if "/c/" in key or "/parts/" in key}
    assert sizes == {key: size for key, size in store.root.sizes("bins").items() if key in sizes}
    for key in sizes:
        assert root.get(f"bins/{key}") == store.root.get(f"bins/{key}")


def test_the_order_of_samples_moves_bins_with_them(store, tmp_path, counts):
    order = np.random.default_rng(0).permutation(N_SAMPLES)
    path = write_archs4(tmp_path / "p.h5", counts[order], symbols=SYMBOLS, samples=[f"GSM{i}" for i in order])
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "human", [str(path)])
    fit_edges(ss.open_store(root.url), "all", "human", FitOptions(n_bins=N_BINS, quality=EVERYTHING))
    apply_edges(ss.open_store(root.url), "all", "all", ApplyOptions(all_genes=True))
    opened = ss.open_store(root.url)
    ours, theirs = opened.normalized["all"], store.normalized["all"]
    np.testing.assert_array_equal(ours.edges(0, N_GENES), theirs.edges(0, N_GENES))
    np.testing.assert_array_equal(ours.array("gene_mean"), theirs.array("gene_mean"))
    np.testing.assert_array_equal(opened.bins["all"].read(slice(None)), store.bins["all"].read(slice(None))[order])


def test_new_samples_get_the_bins_of_their_values_alone(store, tmp_path, counts):
    genes = store.expression["human"].gene_ids
    expected = store.bins["all"].read(slice(None))
    rows = [5, 40, 4999, 11]
    path = write_table(tmp_path / "new.tsv", counts[rows], [f"{g}.7" for g in genes], ["a", "b", "c", "empty"])
    found = normalize_file(store.normalized["all"], str(path), str(tmp_path / "o.npz"), all_genes=True)
    assert found == {"samples": 4, "genes": N_GENES, "genes_missing": 0}
    saved = np.load(tmp_path / "o.npz")
    np.testing.assert_array_equal(saved["bins"], expected[rows])
    one = write_table(tmp_path / "one.tsv", counts[[40]], genes, ["b"])
    normalize_file(store.normalized["all"], str(one), str(tmp_path / "o.tsv"), all_genes=True)
    lines = (tmp_path / "o.tsv").read_text().splitlines()
    assert lines[0] == "gene_id\tb"
    assert [int(line.split("\t")[1]) for line in lines[1:]] == expected[40].tolist()
    some = write_table(tmp_path / "some.tsv", counts[[40]][:, :100], genes[:100], ["b"])
    assert (
        normalize_file(store.normalized["all"], str(some), str(tmp_path / "s.npz"), all_genes=True)["genes_missing"]
        == 500
    )
    assert (np.load(tmp_path / "s.npz")["bins"][:, 100:] == 0).all()
    other = write_table(tmp_path / "other.tsv", counts[[40]], [f"X{i}" for i in range(N_GENES)], ["b"])
    with pytest.raises(InputError, match="has none of the 600 genes of all"):
        normalize_file(store.normalized["all"], str(other), str(tmp_path / "x.npz"), all_genes=True)


@pytest.mark.parametrize("tie_policy", ["max", "min"])
def test_the_worked_example_from_a_table(tmp_path, tie_policy):
    table = write_table(tmp_path / "six.tsv", COUNTS, list("ABCDEF"), [f"s{i}" for i in range(10)])
    store = str(tmp_path / "store")
    splicestore("ingest", "expression", store, "six", str(table))
    arguments = ("--expression", "six", "--n-bins", "4", "--tie-policy", tie_policy, "--no-qc", "--json")
    report = json.loads(splicestore("normalize", "fit", store, "six", *arguments).stdout)
    assert (report["n_samples_fitted"], report["n_genes"], report["n_genes_without_edges"]) == (10, 6, 2)
    splicestore("normalize", "apply", store, "six", "--edges", "six")
    assert ss.open_store(store).bins["six"].read(slice(None)).T.tolist() == BINS[tie_policy]
    out = tmp_path / "out.tsv"
    splicestore("normalize", "apply", str(table), "--edges", f"{store}/six", "-o", str(out))
    rows = [list(map(int, line.split("\t")[1:])) for line in out.read_text().splitlines()[1:]]
    assert rows == BINS[tie_policy]
    assert "six" in splicestore("info", store).stdout
    assert "0 damaged" in splicestore("verify", store).stdout


def test_files_of_generain(store, tmp_path, counts):
    fit_edges(store, "some", "human", FitOptions(n_bins=N_BINS, quality=SampleQuality(1, 0.9, None)))
    apply_edges(ss.open_store(store.url), "some", "some")
    out = tmp_path / "out"
    report = json.loads(
        splicestore("export", "generain", store.url, "some", str(out), "--embedding", "e", "--json").stdout
    )
    opened = ss.open_store(store.url)
    rows = np.flatnonzero((np.linspace(0, 1, N_SAMPLES) < 0.9) & (counts.sum(axis=1) > 0))
    kept = np.flatnonzero(opened.normalized["some"].gene_is_kept)
    assert (report["n_samples"], report["n_genes"]) == (len(rows), len(kept)) == (4499, 590)
    parts = [np.load(out / f"some_bin_tot{N_BINS}_final_e_chunk_{i}.npy") for i in range(5)]
    assert [len(part) for part in parts] == [900, 900, 900, 900, 899]
    assert parts[0].dtype == np.float32
    np.testing.assert_array_equal(np.concatenate(parts), slow_bins(counts[rows], N_BINS)[:, kept])
    tokens = json.loads((out / "some_gene_to_idx.json").read_text())
    symbols = (out / f"some_bin_tot{N_BINS}_e_0.005_subsampled.gene_symbols.txt").read_text().split()
    assert list(tokens) == symbols == [SYMBOLS[g] for g in kept]
    assert list(tokens.values()) == list(range(3, 593))
    statistics = (out / "some_with_zero_expr_genes.gene_stat_filt_on_z_dup.tsv").read_text().splitlines()
    assert statistics[0] == "gene_symbol\tgene_mean\tgene_std\tmax_mean_nondup"
    assert [line.split("\t")[3] for line in statistics[1:]] == [str(g in set(kept)) for g in range(N_GENES)]
    score = score_counts(counts, counts.sum(axis=1, dtype=np.int64))[rows][:, kept]
    picked = np.linspace(0, len(rows) - 1, int(0.005 * len(rows))).astype(int)
    reference = np.load(out / f"some_bin_tot{N_BINS}_e_0.005_subsampled.npy")
    np.testing.assert_array_equal(reference, np.sort(score, axis=0)[picked])


def test_fitted_to_some_samples_and_applied_to_all(store, counts):
    train = [f"GSM{i}" for i in range(0, N_SAMPLES, 3)]
    fit_edges(store, "train", "human", FitOptions(n_bins=N_BINS, quality=EVERYTHING, samples=tuple(train)))
    apply_edges(ss.open_store(store.url), "train", "train", ApplyOptions(all_genes=True))
    opened = ss.open_store(store.url)
    assert opened.normalized["train"].n_samples_fitted == len(train)
    np.testing.assert_array_equal(opened.bins["train"].read(slice(None))[::3], slow_bins(counts[::3], N_BINS))


def test_quality_control_is_in_the_ledger(store):
    report = fit_edges(store, "qc", "human", FitOptions(n_bins=N_BINS, quality=SampleQuality(1, 0.5, 0)))
    assert report.dropped == {"no_counts": 1, "single_cell": 2500}
    ledger = ss.open_store(store.url).normalized["qc"].ledger
    assert dict(zip(ledger["reason"], ledger["count"], strict=True)) == {"no_counts": 1, "single_cell": 2500}
    with pytest.raises(InputError, match=r"none of 5,000 samples passes \(no_counts 1, few_counts 4,999\); --no-qc"):
        fit_edges(store, "qc", "human", FitOptions(quality=SampleQuality(10**9, None, None)))


def test_a_dry_run_prints_the_cost_and_writes_nothing(store):
    before = store.root.sizes("")
    arguments = ("normalize", "fit", store.url, "planned", "--expression", "human", "--no-qc", "--dry-run")
    document = json.loads(splicestore(*arguments, "--json").stdout)
    assert document["samples"] == N_SAMPLES - 1
    assert document["dropped"] == {"no_counts": 1}
    assert (document["fit"]["tasks"], document["apply"]["tasks"]) == (3, 2)
    assert document["fit"]["bytes_read"] == 4 * (N_SAMPLES - 1) * N_GENES
    assert "4,999 of 5,000 samples are fitted to" in splicestore(*arguments).stdout
    assert store.root.sizes("") == before


def test_a_cost_is_estimated_by_numbers_as_a_dry_run_has_it_for_a_store(store):
    arguments = ("--samples", str(N_SAMPLES), "--genes", str(N_GENES), "--n-bins", str(N_BINS), "--json")
    estimated = json.loads(splicestore("normalize", "estimate", *arguments).stdout)
    dry = ("normalize", "fit", store.url, "x", "--expression", "human", "--no-qc", "--dry-run", "--n-bins", str(N_BINS))
    planned = json.loads(splicestore(*dry, "--json").stdout)
    assert estimated["apply"] == planned["apply"]
    assert estimated["fit"]["tasks"] == planned["fit"]["tasks"]
    # One sample has no counts: it is binned and not fitted to.
    assert estimated["fit"]["bytes_read"] - planned["fit"]["bytes_read"] == 4 * N_GENES


def test_a_million_samples_are_read_once_for_each_band_of_a_chunk():
    many = json.loads(splicestore("normalize", "estimate", "--samples", "1000000", "--genes", "67186", "--json").stdout)
    assert (many["fit"]["tasks"], many["apply"]["tasks"]) == (263, 245)
    assert many["fit"]["bytes_read"] == 4 * (4 * 1_000_000 * 67_186)
    assert many["fit"]["peak_bytes"] < 2**30
    assert many["apply"]["bytes_written"] == 2 * 1_000_000 * 67_186


def test_a_narrower_band_is_taken_before_a_fit_is_refused(store):
    least = projected_fit_bytes(N_SAMPLES - 1, 64, N_BINS)
    assert least < projected_fit_bytes(N_SAMPLES - 1, 128, N_BINS)
    options = {"n_bins": N_BINS, "quality": EVERYTHING}
    report = fit_edges(store, "narrow", "human", FitOptions(**options, max_memory=least))
    assert report.projected_peak_bytes == least
    assert report.generation == store.normalized["all"].generation
    with pytest.raises(PlanError, match=r"a task needs up to .*, --max-memory allows"):
        fit_edges(store, "narrow", "human", FitOptions(**options, max_memory=least - 1))


def test_few_samples_for_many_bins_is_said(store):
    report = fit_edges(store, "few", "human", FitOptions(quality=EVERYTHING, samples=("GSM1", "GSM2", "GSM3")))
    assert "3 samples for 2,000 bins" in report.warnings[0]


def test_a_task_that_fails_leaves_the_others_and_the_same_command_goes_on(store, tmp_path, archs4, monkeypatch):
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "human", [archs4])
    options = FitOptions(n_bins=N_BINS, quality=EVERYTHING)
    fit_band, done = fit_module._fit_band, []

    def failing(task):
        done.append(task.first)
        if task.first == 256 and len(done) < 4:
            raise ValueError("poisoned")
        return fit_band(task)

    monkeypatch.setattr(fit_module, "_fit_band", failing)
    with pytest.raises(FailedPartitionsError, match="genes-00001: ValueError: poisoned"):
        fit_edges(ss.open_store(root.url), "all", "human", options)
    assert not list(ss.open_store(root.url).normalized)
    assert sorted(done) == [0, 256, 512]
    report = fit_edges(ss.open_store(root.url), "all", "human", options)
    assert done[3:] == [256]
    assert report.generation == store.normalized["all"].generation
    edges = ss.open_store(root.url).normalized["all"].edges(0, N_GENES)
    np.testing.assert_array_equal(edges, store.normalized["all"].edges(0, N_GENES))
    assert fit_edges(ss.open_store(root.url), "all", "human", options).status == "unchanged"
    assert len(done) == 4


def test_samples_are_selected_and_counted(tmp_path, archs4, counts):
    root = StoreRoot(str(tmp_path / "store"))
    selection = SampleSelection(where=("singlecellprobability<0.5",), series=("GSE3", "GSE4"))
    report = ingest_expression(root, "some", [archs4], ExpressionOptions(selection=selection))
    view = ss.open_store(root.url).expression["some"]
    rows = [int(name.removeprefix("GSM")) for name in view.sample_ids]
    assert rows == [15, 20, *range(21, 35)]
    np.testing.assert_array_equal(view.read(slice(None)), counts[rows])
    assert report.n_not_selected == N_SAMPLES - 16
    assert view.ledger[["reason", "count"]].to_numpy().tolist() == [["not_selected", N_SAMPLES - 16]]
    assert "series GSE3, GSE4" in view.attributes["selected"]


def test_files_follow_one_another_and_may_differ_in_genes_only_if_asked(tmp_path):
    counts = random_counts(9, 8, 30)
    genes = [f"g{i}" for i in range(30)]
    first = write_table(tmp_path / "a.tsv", counts[:5], genes, [f"a{i}" for i in range(5)])
    second = write_h5ad(tmp_path / "b.h5ad", counts[5:][:, 10:], genes[10:], ["b0", "b1", "b2"], "csr_matrix")
    root = StoreRoot(str(tmp_path / "store"))
    with pytest.raises(
        InputError, match=r"lacks 10 genes of it and has 0 others \(first: g0, g1, g2\); --genes-differ union"
    ):
        ingest_expression(root, "both", [str(first), str(second)])
    ingest_expression(root, "both", [str(first), str(second)], ExpressionOptions(genes_differ="union"))
    view = ss.open_store(root.url).expression["both"]
    expected = counts.copy()
    expected[5:, :10] = 0
    np.testing.assert_array_equal(view.read(slice(None)), expected)
    measured = np.ones((8, 30), dtype=bool)
    measured[5:, :10] = False
    np.testing.assert_array_equal(view.measured(slice(None)), measured)
    assert view.samples_to_pandas()["tissue"].tolist() == ["", "", "", "", "", "", "liver", "brain"]
    fit_edges(ss.open_store(root.url), "n", "both", FitOptions(n_bins=4, quality=EVERYTHING))
    apply_edges(ss.open_store(root.url), "n", "n")
    bins = ss.open_store(root.url).bins["n"].read(slice(None))
    assert ((bins == 0) == ~measured).all()
    with pytest.raises(InputError, match=r"sample 'a0' is in .*a\.tsv too; ids must be unique"):
        ingest_expression(root, "twice", [str(first), str(first)])


def test_a_bad_count_far_in_leaves_nothing_published_and_the_corrected_file_is(tmp_path):
    """The last sample of the second partition: the first one is written by then."""
    counts, genes = np.ones((4100, 3), dtype=np.uint32), ["g0", "g1", "g2"]
    path = write_h5ad(tmp_path / "a.h5ad", counts, genes, [f"s{i}" for i in range(4100)], "array")
    root = StoreRoot(str(tmp_path / "store"))
    with h5py.File(path, "a") as file:
        file["X"][4099, 2] = -1
    with pytest.raises((InputError, FailedPartitionsError), match=r"sample 's4099', gene 'g2': -1\.0 is no count"):
        ingest_expression(root, "x", [str(path)])
    assert not list(ss.open_store(root.url).expression)
    corrected = write_h5ad(tmp_path / "b.h5ad", counts, genes, [f"s{i}" for i in range(4100)], "array")
    ingest_expression(root, "x", [str(corrected)])
    np.testing.assert_array_equal(ss.open_store(root.url).expression["x"].read(slice(None)), counts)


def test_columns_of_a_file_never_pass_for_ours(tmp_path):
    counts = random_counts(1, 3, 5)
    columns = {"total": ["many", "few", "none"], "tissue": ["a", "b", "c"]}
    path = write_archs4(tmp_path / "a.h5", counts, symbols=list("vwxyz"), samples=["s0", "s1", "s2"], columns=columns)
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "x", [str(path)])
    view = ss.open_store(root.url).expression["x"]
    table = view.samples_to_pandas()
    assert table["total"].tolist() == counts.sum(axis=1).tolist()
    assert table["tissue"].tolist() == ["a", "b", "c"]
    assert view.ledger[["item", "identifier", "reason"]].to_numpy().tolist() == [
        ["sample_column", "total", "name_taken"]
    ]


def test_ids_that_stand_twice_are_flagged_and_not_joined(tmp_path):
    counts, genes = random_counts(1, 4, 4), ["a", "b", "a", "c"]
    root = StoreRoot(str(tmp_path / "store"))
    first = write_table(tmp_path / "a.tsv", counts[:2], genes, ["s0", "s1"])
    second = write_table(tmp_path / "b.tsv", counts[2:], genes, ["s2", "s3"])
    report = ingest_expression(root, "x", [str(first), str(second)])
    view = ss.open_store(root.url).expression["x"]
    np.testing.assert_array_equal(view.read(slice(None)), counts)
    assert view.array("gene_is_repeated").tolist() == [1, 0, 1, 0]
    assert (report.n_ids_repeated, report.n_symbols_repeated) == (2, 0)
    third = write_table(tmp_path / "c.tsv", counts[2:], list("abde"), ["s2", "s3"])
    union = ExpressionOptions(genes_differ="union")
    with pytest.raises(InputError, match=r"a\.tsv: gene 'a' stands at 1 and again at 3"):
        ingest_expression(root, "y", [str(first), str(third)], union)
    other = write_table(tmp_path / "d.tsv", counts[2:], list("wxyz"), ["s2", "s3"])
    with pytest.raises(
        InputError, match=r"d\.tsv: has none of the genes of .*c\.tsv or others before it \(w here, a there\)"
    ):
        ingest_expression(root, "y", [str(third), str(other)], union)


def test_a_file_that_was_corrected_is_read_anew(tmp_path):
    counts, genes, samples = random_counts(2, 4, 9), [f"g{i}" for i in range(9)], list("abcd")
    root = StoreRoot(str(tmp_path / "store"))
    first = ingest_expression(root, "x", [str(write_table(tmp_path / "a.tsv", counts, genes, samples))])
    second = ingest_expression(root, "x", [str(write_table(tmp_path / "a.tsv", counts + 1, genes, samples))])
    assert second.generation != first.generation
    np.testing.assert_array_equal(ss.open_store(root.url).expression["x"].read(slice(None)), counts + 1)


def test_a_job_that_needs_more_than_allowed_is_refused(tmp_path, archs4):
    with pytest.raises(PlanError, match=r"needs up to .* --max-memory allows 1\.0 MiB"):
        ingest_expression(StoreRoot(str(tmp_path / "s")), "x", [archs4], ExpressionOptions(max_memory=2**20))
    assert not (tmp_path / "s").exists()


def test_real_counts_of_ovarian_tumours(tmp_path, data_dir):
    url = str(data_dir / "expression" / "tcga_ov_counts.1125x374.tsv.gz")
    store = str(tmp_path / "store")
    splicestore("ingest", "expression", store, "ov", url)
    report = json.loads(
        splicestore(
            "normalize", "fit", store, "ov", "--expression", "ov", "--n-bins", "100", "--no-qc", "--json"
        ).stdout
    )
    assert (report["n_samples_fitted"], report["n_genes"]) == (374, 1125)
    splicestore("normalize", "apply", store, "ov", "--edges", "ov")
    opened = ss.open_store(store)
    counts = opened.expression["ov"].read(slice(None))
    np.testing.assert_array_equal(opened.bins["ov"].read(slice(None)), slow_bins(counts, 100))


def test_real_counts_of_yeast_replicates(tmp_path, data_dir):
    for group in ("WT", "Snf2"):
        with tarfile.open(data_dir / "expression" / f"yeast48.{group}_countdata.tar.gz") as archive:
            for member in archive.getmembers():
                if member.isfile():
                    (tmp_path / f"{group}-{Path(member.name).name}").write_bytes(archive.extractfile(member).read())
    files = sorted(str(path) for path in tmp_path.rglob("*.gbgout"))
    assert len(files) == 96
    root = StoreRoot(str(tmp_path / "store"))
    report = ingest_expression(root, "yeast", files)
    assert (report.n_samples, report.n_genes) == (96, 7126)
    view = ss.open_store(root.url).expression["yeast"]
    assert view.ledger["reason"].value_counts().to_dict() == {"summary_row": 5 * 96}
    row = view.sample_row("WT-WT_rep01_MID39_allLanes_tophat2.0.5.bam.gbgout")
    lines = next(f for f in files if "WT_rep01_" in f)
    expected = dict(line.split("\t") for line in Path(lines).read_text().splitlines())
    counts = view.read(slice(row, row + 1))[0]
    assert {gene: int(expected[gene]) for gene in view.gene_ids} == dict(
        zip(view.gene_ids, counts.tolist(), strict=True)
    )
    # Every sample has more than a million reads and 2,000 genes: the usual bounds keep all of them.
    fitted = fit_edges(ss.open_store(root.url), "yeast", "yeast", FitOptions(n_bins=20))
    assert (fitted.n_samples_fitted, fitted.dropped) == (96, {})
    apply_edges(ss.open_store(root.url), "yeast", "yeast")
    everything = view.read(slice(None))
    bins = ss.open_store(root.url).bins["yeast"].read(slice(None))
    np.testing.assert_array_equal(bins, slow_bins(everything, 20))


def test_a_file_on_the_web_and_a_store_in_a_bucket(tmp_path, archs4, counts, s3, s3_bucket):
    with static_server(Path(archs4).parent) as url:
        options = s3.storage_options()
        root = StoreRoot(f"s3://{s3_bucket}/store", options)
        here = StoreRoot(str(tmp_path / "store"))
        for target in (root, here):
            selection = SampleSelection(series=("GSE3", "GSE4", "GSE90"))
            ingest_expression(target, "web", [f"{url}/human.h5"], ExpressionOptions(selection=selection))
    remote = ss.open_store(root.url, storage_options=options)
    fit_edges(remote, "n", "web", FitOptions(n_bins=5, quality=EVERYTHING))
    apply_edges(ss.open_store(root.url, storage_options=options), "n", "n")
    found = ss.open_store(root.url, storage_options=options)
    rows = [int(name.removeprefix("GSM")) for name in found.expression["web"].sample_ids]
    np.testing.assert_array_equal(found.expression["web"].read(slice(None)), counts[rows])
    assert found.expression["web"].generation == ss.open_store(here.url).expression["web"].generation
    kept = np.flatnonzero(found.normalized["n"].gene_is_kept)
    np.testing.assert_array_equal(found.bins["n"].read(slice(None)), slow_bins(counts[rows], 5)[:, kept])
