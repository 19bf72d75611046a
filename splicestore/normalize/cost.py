"""What a normalisation will cost, from sizes alone: tasks, bytes, memory, core-hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from splicestore.kernels.binning import n_edges
from splicestore.kernels.histogram import N_CODES
from splicestore.normalize.apply import projected_apply_bytes, row_parts
from splicestore.normalize.edges import FitOptions
from splicestore.normalize.fit import band_genes, projected_fit_bytes
from splicestore.normalize.genes import STATISTICS, TASK_GENES, gene_parts
from splicestore.normalize.histogram import projected_histogram_bytes
from splicestore.normalize.scaled import projected_scaled_bytes
from splicestore.normalize.scaling import Method, ScalingOptions, block_rows, projected_scaling_bytes

DECODE_S = 8e-9
"""CPU-seconds to read and decompress a count."""
FIT_S = 21e-9
"""To score it, sort it and cut, and to write the edges."""
APPLY_S = 47e-9
"""To score it, look it up and compress its bin. All measured at 50,000 samples of 20,000 genes on two busy cores."""


HISTOGRAM_VALUES_PER_CPU_S = 15e6
HISTOGRAM_GENE_S = 3e-3
"""CPU-seconds to cut and encode a gene's histogram, whatever the number of samples."""
STATISTICS_VALUES_PER_CPU_S = 12e6
SAMPLE_PASSES: Mapping[Method, int] = {"cpm": 0, "log1p": 0, "quantile": 1, "tmm": 2}
SCALING_VALUES_PER_CPU_S: Mapping[Method, float] = {"cpm": 12e6, "log1p": 9e6, "quantile": 6e6, "tmm": 5e6}
"""Counts scaled per CPU-second, measured at 20,000 samples of 2,048 genes and rounded down, as those above."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """One pass over a matrix of counts."""

    tasks: int
    bytes_read: int
    """Decoded; as stored about a quarter."""
    bytes_written: int
    """Decoded."""
    peak_bytes: int
    """Of one task."""
    core_hours: float

    def document(self) -> dict[str, Any]:
        """Spell for ``--json``."""
        return asdict(self)


def plan_fit(n_samples: int, n_genes: int, n_bins: int, band_budget: int) -> PassCost:
    """Plan a fit: each chunk of counts is read once for every band of its 256 genes.

    Examples
    --------
    >>> plan_fit(1_000_000, 67_186, 2_000, 256 * 1024**2).tasks
    263
    """
    band = band_genes(n_samples, band_budget)
    values, n_reads = n_samples * n_genes, -(-TASK_GENES // band)
    return PassCost(
        tasks=len(gene_parts(n_genes)),
        bytes_read=4 * values * n_reads,
        bytes_written=4 * n_genes * n_edges(n_bins),
        peak_bytes=projected_fit_bytes(n_samples, band, n_bins),
        core_hours=values * (n_reads * DECODE_S + FIT_S) / 3600,
    )


def plan_apply(n_samples: int, n_genes: int, n_genes_kept: int, n_bins: int) -> PassCost:
    """Plan the bins of a matrix: each count is read once, and the edges once for each task."""
    tasks = len(row_parts(n_samples))
    values, edges = n_samples * n_genes, tasks * n_genes * n_edges(n_bins)
    return PassCost(
        tasks=tasks,
        bytes_read=4 * (values + edges),
        bytes_written=2 * n_samples * n_genes_kept,
        peak_bytes=projected_apply_bytes(n_samples, n_genes_kept, n_bins),
        core_hours=((values + edges) * DECODE_S + values * APPLY_S) / 3600,
    )


def plan_passes(
    n_fitted: int, n_samples: int, n_genes: int, options: FitOptions | ScalingOptions
) -> dict[str, PassCost]:
    """Plan the fit, and the values of all samples: by name of the pass."""
    if isinstance(options, ScalingOptions):
        return _plan_scaling(n_fitted, n_samples, n_genes, options.method)
    apply = plan_apply(n_samples, n_genes, n_genes, options.n_bins)
    if options.mode == "histogram":
        return {"fit": _plan_histogram(n_fitted, n_genes, options.n_bins), "apply": apply}
    return {"fit": plan_fit(n_fitted, n_genes, options.n_bins, options.band_budget), "apply": apply}


def _plan_histogram(n_samples: int, n_genes: int, n_bins: int) -> PassCost:
    values = n_samples * n_genes
    return PassCost(
        tasks=len(gene_parts(n_genes)),
        bytes_read=4 * values,
        bytes_written=4 * n_genes * (n_edges(n_bins) + N_CODES),
        peak_bytes=projected_histogram_bytes(n_bins),
        core_hours=(values / HISTOGRAM_VALUES_PER_CPU_S + n_genes * HISTOGRAM_GENE_S) / 3600,
    )


def _plan_scaling(n_fitted: int, n_samples: int, n_genes: int, method: Method) -> dict[str, PassCost]:
    """Plan a scaling: statistics of the genes, what it needs of the samples, and the values."""
    values, n_blocks = n_fitted * n_genes, -(-n_samples // block_rows(n_genes))
    n_passes = SAMPLE_PASSES[method]
    fit_s = values / STATISTICS_VALUES_PER_CPU_S + n_passes * values / SCALING_VALUES_PER_CPU_S[method]
    fit = PassCost(
        tasks=len(gene_parts(n_genes)) + n_passes * n_blocks,
        bytes_read=4 * values * (1 + n_passes),
        bytes_written=8 * len(STATISTICS) * n_genes,
        peak_bytes=projected_scaling_bytes(n_genes),
        core_hours=fit_s / 3600,
    )
    everything = n_samples * n_genes
    apply = PassCost(
        tasks=n_blocks,
        bytes_read=4 * everything,
        bytes_written=4 * everything,
        peak_bytes=projected_scaled_bytes(n_genes),
        core_hours=everything / SCALING_VALUES_PER_CPU_S[method] / 3600,
    )
    return {"fit": fit, "apply": apply}
