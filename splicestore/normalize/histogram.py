"""``normalize fit --mode histogram``: edges from counts of fixed-point scores, to which samples can be added without reading the old.

A task owns 256 genes and their histograms, 64 MiB, however many samples there are. The histograms are stored, so that a later fit
begins with them: it reads new samples alone, and is to the last bit the fit of all of them at once. Samples are known by their ids:
one that was counted before is not counted again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError
from splicestore.expression import Expression, sample_tiles
from splicestore.kernels.binning import TiePolicy, n_edges, score_counts
from splicestore.kernels.histogram import (
    N_CODES,
    add_scores,
    edge_codes,
    edges_of_codes,
    lowest_scores,
    max_bin_error,
    moments_of_histogram,
)
from splicestore.memory import INTERPRETER_BYTES, observed_peak_bytes
from splicestore.normalize.edges import EdgesFit, FitOptions, FitReport
from splicestore.normalize.genes import STATISTICS, TASK_GENES, fitted_mask, gene_parts, gene_specs, written_means
from splicestore.normalize.match import match_genes
from splicestore.normalize.samples import fitted_samples
from splicestore.normalized import Normalized
from splicestore.schema import COUNTS_SHARD, ArraySpec, LedgerRow
from splicestore.storage import PartitionPlace, Publication
from splicestore.storage.columns import Column
from splicestore.store import Store
from splicestore.tasks import Job, Progress, publish_in_tasks, refuse_oversized

HISTOGRAM_CHUNK_GENES = 8
HISTOGRAM_SHARD_GENES = 64
_COLUMNS = (("gene_n_measured", "int64"), ("gene_max_cell", "int64"), ("gene_max_bin_error", "int32"))


def fit_histogram(
    store: Store, name: str, counts: Expression, options: FitOptions, progress: Progress | None
) -> FitReport:
    """Fit edges to histograms and publish both.

    Raises
    ------
    ConfigError
        If the fit to extend has no histogram.
    InputError
        If no sample passes, all are counted already, or the counts have none of the genes of the fit to extend.
    PlanError
        If a task would need more than ``max_memory``.
    """
    fit = _plan(store, name, counts, options)
    projected = projected_histogram_bytes(options.n_bins)
    refuse_oversized(f"normalize {name}", projected, options)
    gene_of = None if fit.before is None else match_genes(fit.before.gene_ids, counts.gene_ids)
    ids = fitted_ids(fit)
    job = Job(
        path=f"normalized/{name}",
        publication=lambda: fit.publication([*_specs(fit), ids.spec()], **_extends(fit)),
        tasks=lambda publication: _tasks(publication, fit, gene_of),
        run=_fit_cells,
        tables=lambda publication: [*fit.columns(written_means(publication)), ids],
        memory=projected,
        unit="genes",
    )
    return fit.report(publish_in_tasks(store.root, job, options, progress), projected)


def projected_histogram_bytes(n_bins: int) -> int:
    """Bytes of one task: its genes' histograms, those of the extended fit, one shard encoded, a tile and its scores, edges."""
    cells = 4 * N_CODES * (TASK_GENES + 4 * HISTOGRAM_SHARD_GENES)
    return INTERPRETER_BYTES + cells + 16 * COUNTS_SHARD[0] * TASK_GENES + 8 * TASK_GENES * n_edges(n_bins)


# -- what is added to what -----------------------------------------------------------------------------------------


def _plan(store: Store, name: str, counts: Expression, options: FitOptions) -> EdgesFit:
    rows, judged = fitted_samples(store, counts, options)
    if options.extend is None:
        return EdgesFit(store, name, counts, rows, judged, options)
    before = store.normalized[options.extend]
    if not before.has("histogram"):
        raise ConfigError(
            f"normalisation {before.name} has no histogram, it cannot be extended: fit it with --mode histogram once"
        )
    counted = set(before.fitted_ids)
    is_new = np.array([counts.sample_ids[row] not in counted for row in rows.tolist()], dtype=bool)
    if not is_new.any():
        raise InputError(
            f"expression {counts.name}: all {len(rows):,} samples that pass are counted in {before.name} already, nothing is left to add"
        )
    if not (match_genes(before.gene_ids, counts.gene_ids) >= 0).any():
        raise InputError(
            f"expression {counts.name} has none of the {before.n_genes:,} genes of {before.name}: other ids, or another species?"
        )
    judged = replace(judged, dropped={**judged.dropped, "counted_before": int((~is_new).sum())})
    return EdgesFit(store, name, counts, rows[is_new], judged, options, before, tuple(_gene_ledger(before, counts)))


def _gene_ledger(before: Normalized, counts: Expression) -> Iterator[LedgerRow]:
    """Count the genes that only one side has: those of the counts get no edges, those of the fit are not measured."""
    theirs = match_genes(counts.gene_ids, before.gene_ids)
    ours = match_genes(before.gene_ids, counts.gene_ids)
    for reason, n in (("not_in_extended_fit", (theirs < 0).sum()), ("not_in_counts", (ours < 0).sum())):
        if n:
            yield LedgerRow("gene", "", reason, "", int(n))


def _extends(fit: EdgesFit) -> dict[str, dict[str, str]]:
    return {} if fit.before is None else {"extends": {fit.before.name: fit.before.generation}}


def fitted_ids(fit: EdgesFit) -> Column:
    """List the samples that are counted, those of the extended fit first."""
    ids = [*([] if fit.before is None else fit.before.fitted_ids), *(fit.counts.sample_ids[row] for row in fit.rows)]
    return Column("fitted_id", ids, "fitted", "string")


def _specs(fit: EdgesFit) -> list[ArraySpec]:
    n_genes = len(fit.gene_ids)
    shard = min(HISTOGRAM_SHARD_GENES, -(-n_genes // HISTOGRAM_CHUNK_GENES) * HISTOGRAM_CHUNK_GENES)
    histogram = ArraySpec(
        "histogram", (n_genes, N_CODES), ("gene", "code"), "uint32", (HISTOGRAM_CHUNK_GENES, N_CODES), (shard, N_CODES)
    )
    return [histogram, *gene_specs(_COLUMNS, n_genes)]


# -- tasks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _CellsTask:
    """Genes ``[first, last)``; counts and the extended fit by address."""

    place: PartitionPlace
    counts: Expression
    is_fitted: NDArray[np.uint8]
    """One bit a sample."""
    first: int
    last: int
    gene_of: NDArray[np.int64]
    """(last - first,) their columns of the counts, -1 where there are none."""
    before: Normalized | None
    n_bins: int
    tie_policy: TiePolicy

    def rows(self) -> NDArray[np.int64]:
        """Samples that are counted."""
        return np.flatnonzero(np.unpackbits(self.is_fitted, count=self.counts.n_samples))


def _tasks(publication: Publication, fit: EdgesFit, gene_of: NDArray[np.int64] | None) -> Iterator[_CellsTask]:
    arrays = ["edges", "histogram", *(name for name, _ in (*STATISTICS, *_COLUMNS))]
    packed = np.packbits(fitted_mask(fit.counts.n_samples, fit.rows))
    for part, first, last in gene_parts(len(fit.gene_ids)):
        own = np.arange(first, last) if gene_of is None else gene_of[first:last]
        yield _CellsTask(
            publication.place(part, arrays), fit.counts, packed, first, last, own, fit.before, fit.options.n_bins,
            fit.options.tie_policy,
        )  # fmt: skip


def _fit_cells(task: _CellsTask) -> int:
    """Count a task's scores, cut the edges, write both; return this process's peak, in bytes."""
    histogram, n_measured = _count(task)
    edges = np.empty((len(histogram), n_edges(task.n_bins)), dtype=np.float32)
    error, mean, std = np.zeros(len(edges), dtype=np.int32), np.zeros(len(edges)), np.zeros(len(edges))
    lowest = lowest_scores()
    for gene, cells in enumerate(histogram):
        codes = edge_codes(cells, task.n_bins, task.tie_policy)
        edges[gene] = edges_of_codes(codes, task.n_bins, lowest, task.tie_policy)
        error[gene] = max_bin_error(codes)
        mean[gene], std[gene] = moments_of_histogram(cells, int(n_measured[gene]))
    n_positive = histogram.sum(axis=1, dtype=np.int64)
    writer = task.place.open()
    writer.write("edges", edges, task.first)
    for first in range(0, len(histogram), HISTOGRAM_SHARD_GENES):
        writer.write("histogram", histogram[first : first + HISTOGRAM_SHARD_GENES], (task.first + first, 0))
    values = (n_positive, mean, std, n_measured, histogram.max(axis=1).astype(np.int64), error)
    for (name, _), column in zip((*STATISTICS, *_COLUMNS), values, strict=True):
        writer.write(name, column, task.first)
    writer.counts.update(genes=len(edges), positives=int(n_positive.sum()))
    writer.close()
    return observed_peak_bytes()


def _count(task: _CellsTask) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count the scores of a task's genes by code, and the samples that measured each gene; both from the extended fit on."""
    if task.before is None:
        histogram = np.zeros((task.last - task.first, N_CODES), dtype=np.uint32)
        n_measured = np.zeros(task.last - task.first, dtype=np.int64)
    else:
        histogram = task.before.histogram(task.first, task.last)
        n_measured = task.before.array("gene_n_measured")[task.first : task.last].copy()
    rows = task.rows()
    for first in range(0, task.counts.n_genes, TASK_GENES):
        genes = slice(first, min(task.counts.n_genes, first + TASK_GENES))
        mine = np.flatnonzero((task.gene_of >= genes.start) & (task.gene_of < genes.stop))
        if not len(mine):
            continue
        own = task.gene_of[mine] - first
        for tile, some in sample_tiles(task.counts, rows, genes):
            scores = score_counts(np.ascontiguousarray(tile[:, own]), task.counts.sample_total[some])
            add_scores(scores, mine, histogram)
            n_measured[mine] += task.counts.count_measured(some, genes)[own]
    return histogram, n_measured
