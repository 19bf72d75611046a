"""What a normalisation will cost, from sizes alone: tasks, bytes, memory, core-hours."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from splicestore.kernels.binning import n_edges
from splicestore.normalize.apply import projected_apply_bytes, row_parts
from splicestore.normalize.fit import TASK_GENES, band_genes, gene_parts, projected_fit_bytes

DECODE_S = 8e-9
"""CPU-seconds to read and decompress a count."""
FIT_S = 21e-9
"""To score it, sort it and cut, and to write the edges."""
APPLY_S = 47e-9
"""To score it, look it up and compress its bin. All measured at 50,000 samples of 20,000 genes on two busy cores."""


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
