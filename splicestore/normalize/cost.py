"""What a normalisation will cost, from sizes alone: tasks, bytes, memory, core-hours."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from splicestore.kernels.binning import n_edges
from splicestore.normalize.apply import projected_apply_bytes, row_parts
from splicestore.normalize.fit import band_genes, projected_fit_bytes
from splicestore.normalize.genes import TASK_GENES, gene_parts

FIT_VALUES_PER_CPU_S = 12e6
APPLY_VALUES_PER_CPU_S = 8e6
"""Counts fitted and binned per CPU-second, measured at 10,000 samples of 20,000 genes and rounded down."""


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
    """Plan a fit: each chunk of counts is read once for every band of its 256 genes."""
    band = band_genes(n_samples, band_budget)
    values = n_samples * n_genes
    return PassCost(
        tasks=len(gene_parts(n_genes)),
        bytes_read=4 * values * (TASK_GENES // band),
        bytes_written=4 * n_genes * n_edges(n_bins),
        peak_bytes=projected_fit_bytes(n_samples, band, n_bins),
        core_hours=values / FIT_VALUES_PER_CPU_S / 3600,
    )


def plan_apply(n_samples: int, n_genes: int, n_genes_kept: int, n_bins: int) -> PassCost:
    """Plan the bins of a matrix: each count is read once, and the edges once for each task."""
    tasks = len(row_parts(n_samples))
    return PassCost(
        tasks=tasks,
        bytes_read=4 * n_samples * n_genes + tasks * 4 * n_genes * n_edges(n_bins),
        bytes_written=2 * n_samples * n_genes_kept,
        peak_bytes=projected_apply_bytes(n_samples, n_genes_kept, n_bins),
        core_hours=n_samples * n_genes / APPLY_VALUES_PER_CPU_S / 3600,
    )
