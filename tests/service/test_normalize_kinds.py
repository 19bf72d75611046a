"""Histograms that grow, and scalings: what is published is what a few lines of numpy give, however it is cut, run and added up."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

import splicestore as ss
from splicestore.errors import ConfigError, InputError, PlanError
from splicestore.export.generain import export_generain
from splicestore.ingest.expression import ExpressionOptions, ingest_expression
from splicestore.kernels.binning import score_counts
from splicestore.maintenance import copy_store, prune, verify
from splicestore.normalize import (
    ApplyOptions,
    FitOptions,
    ScalingOptions,
    apply_edges,
    apply_scaling,
    fit_edges,
    fit_scaling,
    normalize_file,
)
from splicestore.normalize import scaling as scaling_module
from splicestore.normalize.quality import SampleQuality
from splicestore.report import store_summary
from splicestore.storage import StoreRoot
from tests.service.study import splicestore
from tests.unit.expression.files import random_counts, write_table
from tests.unit.expression.test_scaling import slow_factor, slow_factors, slow_quantiles, slow_reference

N_SAMPLES, N_GENES, N_BINS, N_OLD = 180, 270, 40, 70
GENES = [f"g{i}" for i in range(N_GENES)]
SAMPLES = [f"s{i}" for i in range(N_SAMPLES)]
EMPTY = 11
EVERYTHING = SampleQuality.none()
HISTOGRAM = FitOptions(n_bins=N_BINS, quality=EVERYTHING, mode="histogram")
METHODS = ["cpm", "log1p", "quantile", "tmm"]


@pytest.fixture(scope="module")
def counts():
    found = random_counts(8, N_SAMPLES, N_GENES)
    found[:, 5] = 0
    found[EMPTY] = 0
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory, counts):
    """All samples as ``all``; the first as ``old``; all with genes in another order, some lacking, some more, as ``new``."""
    folder = tmp_path_factory.mktemp("kinds")
    root = StoreRoot(str(folder / "store"))
    write_table(folder / "all.tsv", counts, GENES, SAMPLES)
    write_table(folder / "old.tsv", counts[:N_OLD], GENES, SAMPLES[:N_OLD])
    order = np.random.default_rng(1).permutation(N_GENES)[: N_GENES - 3]
    genes = [*(GENES[g] for g in order), "new1"]
    more = np.concatenate((counts[:, order], 7 * (counts.sum(axis=1, keepdims=True) > 0)), axis=1)
    write_table(folder / "new.tsv", more, genes, SAMPLES)
    for name in ("all", "old", "new"):
        ingest_expression(root, name, [str(folder / f"{name}.tsv")])
    opened = ss.open_store(root.url)
    fit_edges(opened, "exact", "all", FitOptions(n_bins=N_BINS, quality=EVERYTHING))
    fit_edges(opened, "whole", "all", HISTOGRAM)
    fit_edges(opened, "old", "old", HISTOGRAM)
    for method in METHODS:
        fit_scaling(opened, method, "all", ScalingOptions(method, quality=EVERYTHING))
    opened = ss.open_store(root.url)
    for method in METHODS:
        apply_scaling(opened, method, method)
    return ss.open_store(root.url)


@pytest.fixture(scope="module")
def scaled(counts):
    """What every scaling should give, from formulas written elsewhere, sample by sample."""
    rows = np.delete(np.arange(N_SAMPLES), EMPTY)
    lists, totals = counts[rows].tolist(), counts[rows].sum(axis=1, dtype=np.int64)
    million = counts[rows] / totals[:, None] * 1e6
    reference = slow_reference(lists)
    factors, reference_row = slow_factors(lists)
    found = {
        "cpm": million,
        "log1p": np.log1p(million),
        "quantile": np.array([slow_quantiles(sample, reference) for sample in lists]),
        "tmm": million / np.array(factors)[:, None],
    }
    values = {method: np.insert(values, EMPTY, np.nan, axis=0) for method, values in found.items()}
    return values, np.insert(factors, EMPTY, np.nan), int(rows[reference_row])


# -- histograms ------------------------------------------------------------------------------------------------------


def same_fit(ours, theirs):
    for name in ("edges", "histogram", "gene_n_positive", "gene_mean", "gene_std", "gene_n_measured", "gene_max_cell",
                 "gene_max_bin_error", "gene_is_kept"):  # fmt: skip
        np.testing.assert_array_equal(ours.array(name), theirs.array(name), err_msg=name)


def test_a_histogram_is_of_all_positive_scores(store, counts):
    view = store.normalized["whole"]
    assert (view.method, view.n_samples_fitted, len(view.fitted_ids)) == ("bins", N_SAMPLES - 1, N_SAMPLES - 1)
    score = score_counts(counts, counts.sum(axis=1, dtype=np.int64))
    code = np.rint(score.astype(np.float64) * 65_535 / 7).astype(np.int64)
    histogram = view.histogram(0, N_GENES)
    for gene in range(N_GENES):
        expected = np.bincount(code[score[:, gene] > 0, gene], minlength=65_536)
        np.testing.assert_array_equal(histogram[gene], expected)
    np.testing.assert_array_equal(view.array("gene_n_positive"), (counts > 0).sum(axis=0))
    np.testing.assert_array_equal(view.array("gene_max_cell"), histogram.max(axis=1))


@pytest.mark.parametrize("tie_policy", ["max", "min"])
def test_bins_are_within_the_certificate_of_an_exact_fit(store, tie_policy):
    bins = {}
    for mode in ("exact", "histogram"):
        name = f"{mode}-{tie_policy}"
        options = FitOptions(n_bins=2000, tie_policy=tie_policy, quality=EVERYTHING, mode=mode)
        report = fit_edges(ss.open_store(store.url), name, "all", options)
        apply_edges(ss.open_store(store.url), name, name, ApplyOptions(all_genes=True))
        bins[mode] = ss.open_store(store.url).bins[name].read(slice(None)).astype(np.int64)
    error = np.abs(bins["exact"] - bins["histogram"]).max(axis=0)
    certificate = ss.open_store(store.url).normalized[name].array("gene_max_bin_error")
    assert (error <= certificate).all()
    # 2,000 bins of 179 samples: eleven bins a sample, so two samples in one cell do differ.
    assert error.max() > 0
    assert report.max_bin_error == certificate.max()
    assert report.n_genes_within_one_bin == (certificate <= 1).sum()


def test_samples_added_to_a_histogram_give_the_fit_of_all(store):
    options = FitOptions(**keep(HISTOGRAM), extend="old", scheduler="threads:2")
    report = fit_edges(store, "grown", "all", options)
    grown = ss.open_store(store.url).normalized[report.name]
    same_fit(grown, store.normalized["whole"])
    assert (report.n_samples_fitted, report.n_samples_before) == (N_SAMPLES - 1, N_OLD - 1)
    assert report.dropped == {"no_counts": 1, "counted_before": N_OLD - 1}
    assert sorted(grown.fitted_ids) == sorted(store.normalized["whole"].fitted_ids)
    assert grown.attributes["extends"] == {"old": store.normalized["old"].generation}
    with pytest.raises(InputError, match=r"all 179 samples that pass are counted in grown already"):
        fit_edges(ss.open_store(store.url), "again", "all", FitOptions(**{**keep(options), "extend": report.name}))


def keep(options):
    return {"n_bins": options.n_bins, "quality": options.quality, "mode": options.mode}


def test_samples_whose_file_has_other_genes_are_added_where_they_have_them(store, counts):
    options = FitOptions(**keep(HISTOGRAM), extend="old")
    fit_edges(store, "other", "new", options)
    other, whole = ss.open_store(store.url).normalized["other"], store.normalized["whole"]
    assert other.gene_ids == GENES
    has = np.isin(GENES, store.expression["new"].gene_ids)
    ledger = other.ledger.set_index("reason")["count"].to_dict()
    assert ledger == {"no_counts": 1, "counted_before": N_OLD - 1, "not_in_extended_fit": 1, "not_in_counts": 3}
    measured = np.where(has, N_SAMPLES - 1, N_OLD - 1)
    np.testing.assert_array_equal(other.array("gene_n_measured"), measured)
    # Totals are of the file's own genes, so scores differ; how many are positive does not.
    positive = np.where(has, (counts > 0).sum(axis=0), (counts[:N_OLD] > 0).sum(axis=0))
    np.testing.assert_array_equal(other.array("gene_n_positive"), positive)
    np.testing.assert_array_equal(
        other.histogram(0, N_GENES)[~has], store.normalized["old"].histogram(0, N_GENES)[~has]
    )
    assert (whole.histogram(0, N_GENES).sum(axis=1)[has] == positive[has]).all()


def test_what_cannot_be_extended_is_refused(store, tmp_path, counts):
    with pytest.raises(ConfigError, match="normalisation exact has no histogram, it cannot be extended"):
        fit_edges(store, "x", "all", FitOptions(**keep(HISTOGRAM), extend="exact"))
    with pytest.raises(ConfigError, match="only a histogram can be extended"):
        FitOptions(extend="old")
    with pytest.raises(ConfigError, match="mode 'sketch': use exact or histogram"):
        FitOptions(mode="sketch")
    ingest_expression(
        store.root, "alien", [str(write_table(tmp_path / "a.tsv", counts[:3, :4], list("abcd"), list("xyz")))]
    )
    with pytest.raises(InputError, match="expression alien has none of the 270 genes of old"):
        fit_edges(ss.open_store(store.url), "x", "alien", FitOptions(**keep(HISTOGRAM), extend="old"))
    with pytest.raises(PlanError, match=r"a task needs up to .*, --max-memory allows 1\.0 MiB"):
        fit_edges(store, "x", "all", FitOptions(**keep(HISTOGRAM), max_memory=2**20))
    assert "x" not in ss.open_store(store.url).normalized


def test_files_of_generain_are_not_made_of_samples_that_are_elsewhere(store, tmp_path):
    fit_edges(store, "extended", "all", FitOptions(**keep(HISTOGRAM), extend="old"))
    apply_edges(ss.open_store(store.url), "extended", "extended")
    with pytest.raises(ConfigError, match="extended extends a fit to other counts"):
        export_generain(ss.open_store(store.url), "extended", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# -- scalings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_values_are_those_of_the_formulas(store, scaled, method):
    view = store.scaled[method]
    values = view.read(slice(None))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, scaled[0][method], rtol=2e-7, atol=1e-9)
    assert (view.method, view.gene_ids, view.sample_ids) == (method, GENES, SAMPLES)


def test_factors_and_the_reference_are_stored(store, counts, scaled):
    _, factors, reference = scaled
    fitted = store.normalized["tmm"]
    np.testing.assert_allclose(fitted.array("sample_factor"), factors, rtol=1e-12)
    assert [str(name) for name in fitted.array("reference_id")] == [SAMPLES[reference]]
    np.testing.assert_array_equal(fitted.array("gene_reference_count"), counts[reference])


def test_the_same_genes_are_kept_and_expressed_as_with_bins(store):
    exact = store.normalized["exact"].genes_to_pandas()
    for method in METHODS:
        genes = store.normalized[method].genes_to_pandas()
        for column in ("n_positive", "is_kept", "is_expressed"):
            np.testing.assert_array_equal(genes[column], exact[column])
        np.testing.assert_allclose(genes["mean"], exact["mean"], rtol=0, atol=1e-8)
        np.testing.assert_allclose(genes["std"], exact["std"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_new_samples_get_the_values_of_their_counts_alone(store, tmp_path, counts, method):
    """Of a file, one by one, with genes in another order and versions: what the store has of them, to the last bit."""
    rows, order = [40, EMPTY, 3], np.random.default_rng(5).permutation(N_GENES)
    path = write_table(tmp_path / "n.tsv", counts[rows][:, order], [GENES[g] for g in order], ["a", "empty", "b"])
    found = normalize_file(store.normalized[method], str(path), str(tmp_path / "o.npz"))
    assert found == {"samples": 3, "genes": N_GENES, "genes_missing": 0}
    expected = store.scaled[method].read(slice(None))[rows]
    np.testing.assert_array_equal(np.load(tmp_path / "o.npz")["values"], expected)
    normalize_file(store.normalized[method], str(path), str(tmp_path / "o.tsv"))
    lines = [line.split("\t") for line in (tmp_path / "o.tsv").read_text().splitlines()]
    assert lines[0] == ["gene_id", "a", "empty", "b"]
    np.testing.assert_array_equal(np.array([line[1:] for line in lines[1:]], dtype=np.float32).T, expected)


@pytest.mark.parametrize("method", METHODS)
def test_blocks_and_schedulers_change_nothing(store, method, monkeypatch):
    monkeypatch.setattr(scaling_module, "BLOCK_BYTES", 1)
    options = ScalingOptions(method, quality=EVERYTHING, scheduler="threads:2", force=True)
    assert scaling_module.block_rows(N_GENES) == 64
    # Of another name, so nothing is there yet; all that decides the content is the same, so is the generation.
    report = fit_scaling(store, f"{method}-again", "all", options)
    assert report.generation == store.normalized[method].generation
    apply_scaling(ss.open_store(store.url), report.name, report.name, ApplyOptions(scheduler="threads:2"))
    opened = ss.open_store(store.url)
    assert len([key for key in store.root.sizes(f"scaled/{report.name}") if "/parts/rows-" in key]) == 3
    np.testing.assert_array_equal(opened.scaled[report.name].read(slice(None)), store.scaled[method].read(slice(None)))
    for name in {"quantile": ["reference_value"], "tmm": ["sample_factor", "factor_mean"]}.get(method, []):
        np.testing.assert_array_equal(opened.normalized[report.name].array(name), store.normalized[method].array(name))


def test_genes_that_samples_lack_are_missing_and_count_nowhere(tmp_path, counts):
    """Two files of other genes: quantiles are stretched over those that a sample has, factors are of shared genes."""
    counts = counts[:20, :30] + np.uint32(1)
    lacking = slice(20, 30)
    first = write_table(tmp_path / "a.tsv", counts[:12], GENES[:30], SAMPLES[:12])
    second = write_table(tmp_path / "b.tsv", np.delete(counts[12:], lacking, axis=1), GENES[:20], SAMPLES[12:20])
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "x", [str(first), str(second)], ExpressionOptions(genes_differ="union"))
    lists = [row.tolist() for row in counts[:12]] + [row.tolist()[:20] for row in counts[12:]]
    totals = np.array([sum(row) for row in lists])
    for method in ("cpm", "quantile", "tmm"):
        fit_scaling(ss.open_store(root.url), method, "x", ScalingOptions(method, quality=EVERYTHING))
        apply_scaling(ss.open_store(root.url), method, method)
    opened = ss.open_store(root.url)
    values = {method: opened.scaled[method].read(slice(None)) for method in ("cpm", "quantile", "tmm")}
    for found in values.values():
        assert np.isnan(found[12:, lacking]).all()
        assert np.isfinite(np.delete(found, lacking, axis=1)).all()
    np.testing.assert_allclose(values["cpm"][12:, :20], counts[12:, :20] / totals[12:, None] * 1e6, rtol=2e-7)
    places = [
        np.interp(np.arange(30) / 29, np.arange(len(row)) / (len(row) - 1), np.log2(1 + np.sort(row))) for row in lists
    ]
    reference = np.mean(places, axis=0)
    of_twenty = np.interp(np.arange(20) / 19, np.arange(30) / 29, reference)
    for row in (0, 15):
        expected = slow_quantiles(lists[row], (reference if row < 12 else of_twenty).tolist())
        np.testing.assert_allclose(values["quantile"][row, : len(expected)], expected, rtol=1e-6)
    factor = opened.normalized["tmm"].array("sample_factor")
    chosen = opened.expression["x"].sample_row(str(opened.normalized["tmm"].array("reference_id")[0]))
    padded = [[*row, *[0] * (30 - len(row))] for row in lists]
    ours = [slow_factor(row, sum(row), padded[chosen], totals[chosen]) for row in padded]
    np.testing.assert_allclose(factor / factor[chosen], ours, rtol=1e-12)


def test_logarithms_of_counts_with_another_pseudo_count(store, tmp_path, counts):
    options = ScalingOptions("log1p", log_of="counts", pseudo_count=0.5, quality=EVERYTHING)
    fit_scaling(store, "logs", "all", options)
    path = write_table(tmp_path / "n.tsv", counts[:2], GENES, ["a", "b"])
    normalize_file(ss.open_store(store.url).normalized["logs"], str(path), str(tmp_path / "o.npz"))
    np.testing.assert_allclose(np.load(tmp_path / "o.npz")["values"], np.log(counts[:2] + 0.5), rtol=2e-7)


def test_the_commands_fit_and_apply_a_scaling(store, tmp_path, counts):
    """What is there already is not made anew; a histogram is extended; options of another method are refused."""
    fit = ("normalize", "fit", store.url, "tmm", "--expression", "all", "--no-qc")
    done = splicestore(*fit, "--method", "tmm", check=0).stdout
    assert "unchanged" in done
    assert "factors from" in done
    path, out = write_table(tmp_path / "n.tsv", counts[:2], GENES, ["a", "b"]), tmp_path / "o.npz"
    splicestore("normalize", "apply", path, "--edges", f"{store.url}/tmm", "-o", out, check=0)
    np.testing.assert_array_equal(np.load(out)["values"], store.scaled["tmm"].read(slice(0, 2)))
    extended = splicestore(
        *fit[:3], "more", *fit[4:], "--mode", "histogram", "--extend", "old", "--n-bins", "9", check=0
    )
    assert "69 of the samples are of the fit that this one extends" in extended.stdout
    assert "from an exact fit no value differs by more than" in extended.stdout
    wrong = splicestore(*fit, "--method", "tmm", "--n-bins", "9", "--mode", "histogram", check=2)
    assert "--n-bins, --mode: only of --method bins" in " ".join(wrong.stderr.replace("│", " ").split())


def test_upkeep_knows_scalings(store, tmp_path):
    """Summaries, verify, copy and prune; a superseded scaling goes only when no values pin it any more."""
    root = StoreRoot(str(tmp_path / "copy"))
    copy_store(store.root, root)
    opened = ss.open_store(root.url)
    np.testing.assert_array_equal(opened.scaled["tmm"].read(slice(None)), store.scaled["tmm"].read(slice(None)))
    summary = store_summary(opened)
    assert summary["scaled"]["tmm"]["method"] == summary["normalized"]["tmm"]["method"] == "tmm"
    assert summary["normalized"]["tmm"]["bins"] is None
    assert verify(root).is_intact
    key = next(key for key in root.sizes("scaled/cpm") if "/values/c/" in key)
    root.put(f"scaled/cpm/{key}", b"damaged")
    assert [finding.key for finding in verify(root).findings] == [f"scaled/cpm/{key}"]
    root.put(f"scaled/cpm/{key}", store.root.get(f"scaled/cpm/{key}"))
    old = f"normalized/tmm/{opened.normalized['tmm'].generation}"
    options = ScalingOptions("tmm", quality=EVERYTHING, samples=tuple(SAMPLES[:50]))
    fit_scaling(opened, "tmm", "all", options)
    now = timedelta(0)
    assert old not in [item.key for item in prune(root, older_than=now).removed]
    apply_scaling(ss.open_store(root.url), "tmm", "tmm")
    assert old in [item.key for item in prune(root, older_than=now).removed]
    assert verify(root).is_intact


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rlog"}, "method 'rlog': use bins, cpm, log1p, quantile, tmm"),
        ({"method": "log1p", "pseudo_count": 0.0}, "the pseudo-count is positive, got 0.0: a zero has no logarithm"),
        ({"method": "log1p", "log_of": "tpm"}, "logarithm of 'tpm': use cpm or counts"),
        ({"method": "cpm", "samples": ("a",), "split": "b"}, "a split and a list of samples exclude each other"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ScalingOptions(**options)


def test_scalings_have_no_bins_and_bins_no_scaling(store):
    with pytest.raises(ConfigError, match="normalisation tmm has no bins, its method is tmm"):
        apply_edges(store, "x", "tmm")
    with pytest.raises(ConfigError, match="normalisation exact is no scaling, its method is bins"):
        apply_scaling(store, "x", "exact")
    assert "tmm, fitted to 179 samples" in repr(store.normalized["tmm"])


def test_real_counts_of_ovarian_tumours(tmp_path, data_dir):
    url = str(data_dir / "expression" / "tcga_ov_counts.1125x374.tsv.gz")
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "ov", [url])
    opened = ss.open_store(root.url)
    fit_scaling(opened, "tmm", "ov", ScalingOptions("tmm", quality=EVERYTHING))
    fit_scaling(opened, "quantile", "ov", ScalingOptions("quantile", quality=EVERYTHING))
    opened = ss.open_store(root.url)
    view, fitted = opened.expression["ov"], opened.normalized["tmm"]
    chosen, factor = view.sample_row(str(fitted.array("reference_id")[0])), fitted.array("sample_factor")
    reference = view.read(slice(chosen, chosen + 1))[0].tolist()
    np.testing.assert_allclose(np.log(factor).sum(), 0, atol=1e-10)
    for row in (0, 200, 373):
        sample = view.read(slice(row, row + 1))[0].tolist()
        expected = slow_factor(sample, sum(sample), reference, sum(reference))
        np.testing.assert_allclose(factor[row] / factor[chosen], expected, rtol=1e-12)
    logs = np.sort(np.log2(1 + view.read(slice(None)).astype(np.float64)), axis=1)
    np.testing.assert_allclose(opened.normalized["quantile"].array("reference_value"), logs.mean(axis=0), atol=1e-9)
