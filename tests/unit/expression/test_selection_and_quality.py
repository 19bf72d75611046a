"""Which samples are taken, and which a normalisation is fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from splicestore.errors import ConfigError, InputError
from splicestore.ingest.sample_selection import SampleSelection, select_samples
from splicestore.normalize import FitOptions, ScalingOptions
from splicestore.normalize.cost import plan_apply, plan_fit, plan_passes
from splicestore.normalize.edges import BAND_BUDGET
from splicestore.normalize.fit import BAND_STEP, band_genes, moments
from splicestore.normalize.genes import TASK_GENES, keep_strongest
from splicestore.normalize.quality import SampleQuality, judge_samples
from splicestore.normalize.scaling import block_rows

SAMPLES = ["GSM1", "GSM2", "GSM3", "GSM4"]
COLUMNS = {
    "series_id": np.array(["GSE1", "GSE1,GSE2", "GSE22", ""], dtype=object),
    "tissue": np.array(["Brain cortex", "liver", "brain", ""], dtype=object),
    "depth": np.array([1.0, 2.0, 3.0, np.nan]),
}


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        (SampleSelection(), [0, 1, 2, 3]),
        (SampleSelection(series=("GSE1",)), [0, 1]),
        (SampleSelection(series=("GSE2",)), [1]),
        (SampleSelection(series=("GSE2", "GSE22")), [1, 2]),
        (SampleSelection(where=("tissue~BRAIN",)), [0, 2]),
        (SampleSelection(where=("tissue=liver",)), [1]),
        (SampleSelection(where=("tissue != liver", "depth<=2")), [0]),
        (SampleSelection(where=("depth>1",)), [1, 2]),
        (SampleSelection(where=("sample=GSM3",)), [2]),
        (SampleSelection(search="gse22"), [2]),
    ],
)
def test_samples_are_selected(selection, rows):
    assert select_samples("f", SAMPLES, COLUMNS, selection).tolist() == rows


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        (SampleSelection(where=("tissue",)), ConfigError, "write COLUMN=VALUE"),
        (SampleSelection(where=("tisue=liver",)), ConfigError, "has no column 'tisue'; did you mean tissue"),
        (SampleSelection(where=("depth=deep",)), ConfigError, "has numbers, 'deep' is none"),
        (SampleSelection(where=("tissue<liver",)), ConfigError, "has text"),
        (SampleSelection(series=("GSE9",)), InputError, r"none of its 4 samples is selected \(series GSE9\)"),
    ],
)
def test_selections_that_cannot_be_made(selection, error, message):
    with pytest.raises(error, match=message):
        select_samples("f", SAMPLES, COLUMNS, selection)


def test_bounds_of_the_quality_control():
    totals = np.array([1_000_000, 999_999, 2_000_000, 2_000_000, 2_000_000, 0, 2_000_000])
    nonzero = np.array([2001, 5000, 2000, 5000, 5000, 0, 5000], dtype=np.int32)
    single = np.array([0.49, 0.1, 0.1, 0.5, np.nan, 0.0, 0.499999])
    judged = judge_samples(SampleQuality(), totals, nonzero, single)
    assert judged.keep.tolist() == [True, False, False, False, False, False, True]
    assert judged.dropped == {"no_counts": 1, "few_counts": 1, "single_cell": 2, "few_genes": 1}
    assert sum(row.count for row in judged.ledger()) == 5
    assert judge_samples(SampleQuality(), totals, nonzero, None).keep.tolist() == [
        True,
        False,
        False,
        True,
        True,
        False,
        True,
    ]
    assert judge_samples(SampleQuality.none(), totals, nonzero, single).keep.tolist() == [True] * 5 + [False, True]


def test_the_strongest_of_one_symbol_is_kept_the_first_of_equal_ones():
    symbols = ["A", "B", "A", "", "", "B", "A"]
    mean = np.array([1.0, 2.0, 3.0, 0.0, 0.0, 2.0, 3.0])
    assert keep_strongest(symbols, mean).tolist() == [False, True, True, True, True, False, False]


def test_moments_count_the_zeros():
    scores = np.sort(np.random.default_rng(0).gamma(2, 1, 50).astype(np.float32))
    everything = np.concatenate((scores, np.zeros(30, np.float32))).astype(np.float64)
    assert moments(scores, 80) == pytest.approx((everything.mean(), everything.std()), rel=1e-12)
    assert all(np.isnan(moments(scores[:0], 0)))


@pytest.mark.parametrize("n_samples", [1, 10_000, 100_000, 131_072, 500_000, 1_000_000])
def test_a_band_is_a_multiple_of_64_genes_within_the_budget(n_samples):
    budget = 256 * 2**20
    band = band_genes(n_samples, budget)
    assert band % BAND_STEP == 0
    assert BAND_STEP <= band <= TASK_GENES
    assert band == BAND_STEP or 8 * band * n_samples <= budget
    assert band == TASK_GENES or 8 * (band + BAND_STEP) * n_samples > budget


def test_the_cost_of_archs4():
    fit = plan_fit(1_000_000, 67_186, 2000, BAND_BUDGET)
    assert fit.tasks == 263
    assert fit.bytes_read == 4 * 4 * 1_000_000 * 67_186
    assert fit.bytes_written == 67_186 * 1998 * 4
    assert fit.peak_bytes < 2**30
    apply = plan_apply(1_000_000, 67_186, 20_000, 2000)
    assert apply.tasks == 245
    assert apply.bytes_written == 2 * 1_000_000 * 20_000
    assert 0.5 < fit.core_hours < 10
    assert plan_fit(10_000, 1_000, 2000, BAND_BUDGET).bytes_read == 4 * 10_000 * 1_000


def test_the_cost_of_histograms_and_scalings_at_a_million_samples():
    n_samples, n_genes = 1_000_000, 67_186
    exact, counted = (
        plan_passes(n_samples, n_samples, n_genes, FitOptions(mode=mode))["fit"] for mode in ("exact", "histogram")
    )
    # A histogram needs no more memory for more samples, so each chunk is read once; its cells are 17.6 GB before compression.
    assert (exact.bytes_read, counted.bytes_read) == (4 * 4 * n_samples * n_genes, 4 * n_samples * n_genes)
    assert counted.bytes_written == 4 * n_genes * (1998 + 65_536)
    assert counted.peak_bytes == plan_passes(1_000, 1_000, n_genes, FitOptions(mode="histogram"))["fit"].peak_bytes
    for method, n_passes in (("cpm", 0), ("log1p", 0), ("quantile", 1), ("tmm", 2)):
        passes = plan_passes(n_samples, 2 * n_samples, n_genes, ScalingOptions(method))
        assert passes["fit"].bytes_read == 4 * n_samples * n_genes * (1 + n_passes)
        assert passes["apply"].bytes_written == 2 * 4 * n_samples * n_genes
        assert passes["apply"].peak_bytes < 1.2 * 2**30
        assert block_rows(n_genes) == 512
        assert passes["apply"].tasks == -(-2 * n_samples // 512)
