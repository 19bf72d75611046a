"""``normalize fit``: exact edges of every gene's bins over the samples of a matrix, by bands of genes.

A task owns 256 genes. It reads their tiles of all samples, band by band, collects the positive scores of each gene, sorts them
and cuts. A band is as many genes as the budget holds: memory does not grow with the number of genes, and with the number
of samples only until a band is 64 genes.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.expression import Expression, sample_tiles
from splicestore.kernels.binning import TiePolicy, edges_of_sorted, gather_positive_scores, n_edges
from splicestore.memory import INTERPRETER_BYTES, observed_peak_bytes
from splicestore.normalize.edges import BAND_BUDGET, EdgesFit, FitOptions, FitReport
from splicestore.normalize.genes import STATISTICS, TASK_GENES, fitted_mask, gene_parts, written_means
from splicestore.normalize.histogram import fit_histogram
from splicestore.normalize.samples import fitted_samples
from splicestore.schema import COUNTS_SHARD, check_name
from splicestore.storage import PartitionPlace, Publication
from splicestore.store import Store
from splicestore.tasks import Job, Progress, publish_in_tasks, refuse_oversized

BAND_STEP = 64


def fit_edges(
    store: Store,
    name: str,
    expression: str,
    options: FitOptions | None = None,
    *,
    progress: Progress | None = None,
) -> FitReport:
    """Fit the edges of every gene's bins and publish them.

    Parameters
    ----------
    store
        Where the counts are and the edges go.
    name
        Of the normalisation.
    expression
        Name of the counts.

    Raises
    ------
    ConfigError
        For a number of bins or a tie policy out of range, a sample that is not in the matrix, a fit that cannot be extended.
    InputError
        If no sample passes.
    PlanError
        If a task would need more than ``max_memory``.
    """
    options = options or FitOptions()
    check_name(name, "normalisation")
    counts = store.expression[expression]
    if options.mode == "histogram":
        return fit_histogram(store, name, counts, options, progress)
    rows, judged = fitted_samples(store, counts, options)
    fit = EdgesFit(store, name, counts, rows, judged, options)
    band = affordable_band(len(rows), options)
    projected = projected_fit_bytes(len(rows), band, options.n_bins)
    refuse_oversized(f"normalize {name}", projected, options)
    job = Job(
        path=f"normalized/{name}",
        publication=lambda: fit.publication([]),
        tasks=lambda publication: _band_tasks(publication, fit, band),
        run=_fit_band,
        tables=lambda publication: fit.columns(written_means(publication)),
        memory=projected,
        unit="genes",
    )
    return fit.report(publish_in_tasks(store.root, job, options, progress), projected)


def band_genes(n_samples: int, budget: int = BAND_BUDGET) -> int:
    """Genes whose scores and their sorted copies fit a budget: a multiple of 64, at least one, at most a task's."""
    fitting = budget // max(1, 8 * n_samples) // BAND_STEP * BAND_STEP
    return int(min(TASK_GENES, max(BAND_STEP, fitting)))


def affordable_band(n_samples: int, options: FitOptions) -> int:
    """Genes of a band, fewer where ``max_memory`` allows less than the budget; at least 64."""
    band = band_genes(n_samples, options.band_budget)
    allowed = options.max_memory or sys.maxsize
    while band > BAND_STEP and projected_fit_bytes(n_samples, band, options.n_bins) > allowed:
        band -= BAND_STEP
    return band


# -- bands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _BandTask:
    """Genes ``[first, last)``; counts by address."""

    place: PartitionPlace
    counts: Expression
    is_fitted: NDArray[np.uint8]
    """One bit a sample: hundreds of tasks carry it, of a million samples perhaps."""
    first: int
    last: int
    band: int
    n_bins: int
    tie_policy: TiePolicy

    def rows(self) -> NDArray[np.int64]:
        """Samples that are fitted to."""
        return np.flatnonzero(np.unpackbits(self.is_fitted, count=self.counts.n_samples))


def projected_fit_bytes(n_samples: int, band: int, n_bins: int) -> int:
    """Bytes of one task: the scores of a band, one gene's sorted, a tile of counts, the edges of its genes."""
    tile = 4 * COUNTS_SHARD[0] * TASK_GENES
    return INTERPRETER_BYTES + 4 * band * n_samples + 8 * n_samples + 4 * tile + 8 * TASK_GENES * n_edges(n_bins)


def _band_tasks(publication: Publication, fit: EdgesFit, band: int) -> Iterator[_BandTask]:
    arrays = ["edges", *(name for name, _ in STATISTICS)]
    packed = np.packbits(fitted_mask(fit.counts.n_samples, fit.rows))
    n_bins, tie_policy = fit.options.n_bins, fit.options.tie_policy
    for part, first, last in gene_parts(fit.counts.n_genes):
        yield _BandTask(publication.place(part, arrays), fit.counts, packed, first, last, band, n_bins, tie_policy)


def _fit_band(task: _BandTask) -> int:
    """Fit a task's genes band by band and write their edges; return this process's peak, in bytes."""
    n_genes, rows = task.last - task.first, task.rows()
    edges = np.empty((n_genes, n_edges(task.n_bins)), dtype=np.float32)
    n_positive, mean, std = np.zeros(n_genes, dtype=np.int64), np.zeros(n_genes), np.zeros(n_genes)
    for first in range(task.first, task.last, task.band):
        last = min(task.last, first + task.band)
        scores, n_found, n_measured = _positive_scores(task.counts, rows, first, last)
        for g in range(last - first):
            row, ordered = first - task.first + g, scores[g, : n_found[g]]
            ordered.sort()
            edges[row] = edges_of_sorted(ordered, task.n_bins, task.tie_policy)
            n_positive[row] = n_found[g]
            mean[row], std[row] = moments(ordered, int(n_measured[g]))
    writer = task.place.open()
    writer.write("edges", edges, task.first)
    for (name, _), values in zip(STATISTICS, (n_positive, mean, std), strict=True):
        writer.write(name, values, task.first)
    writer.counts.update(genes=n_genes, positives=int(n_positive.sum()))
    writer.close()
    return observed_peak_bytes()


def _positive_scores(
    counts: Expression, rows: NDArray[np.int64], first: int, last: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Collect the positive scores of genes ``[first, last)``, how many there are, and how many samples measured the gene."""
    # Rows are filled as far as a gene is positive. numpy's own memory comes in huge pages, of which the rest would be resident too.
    memory = mmap.mmap(-1, 4 * (last - first) * len(rows))
    scores = np.frombuffer(memory, dtype=np.float32).reshape(last - first, len(rows))
    n_found, n_measured = np.zeros(last - first, dtype=np.int64), np.zeros(last - first, dtype=np.int64)
    for tile, some in sample_tiles(counts, rows, slice(first, last)):
        gather_positive_scores(tile, counts.sample_total[some], n_found, scores)
        n_measured += counts.count_measured(some, slice(first, last))
    return scores, n_found, n_measured


def moments(positive: NDArray[np.float32], n: int) -> tuple[float, float]:
    """Mean and population standard deviation of n scores, all but the given ones zero.

    Summed in the order of the sorted scores, so the same whatever the order of the samples was.
    """
    if not n:
        return float("nan"), float("nan")
    values = positive.astype(np.float64)
    mean = float(values.sum()) / n
    squares = float(np.square(values - mean).sum()) + (n - len(values)) * mean * mean
    return mean, float(np.sqrt(squares / n))
