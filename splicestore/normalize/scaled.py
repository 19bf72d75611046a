"""``normalize apply`` of a scaling: values of every sample as float32, a function of its own counts and what was fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.expression import Expression
from splicestore.memory import INTERPRETER_BYTES, observed_peak_bytes
from splicestore.normalize.apply import (
    ApplyOptions,
    ApplyReport,
    FoundGenes,
    find_genes,
    matrix_publication,
    table_columns,
)
from splicestore.normalize.scalers import arrange_genes, scale_samples, scaler_of
from splicestore.normalize.scaling import block_rows
from splicestore.normalized import Normalized
from splicestore.schema import ArraySpec, check_name
from splicestore.storage import PartitionPlace, Publication
from splicestore.store import Store
from splicestore.tasks import Job, Progress, publish_in_tasks, refuse_oversized

SCALED_ENCODER = 1
SCALED_CHUNK_SAMPLES = 64


def apply_scaling(
    store: Store,
    name: str,
    normalisation: str,
    options: ApplyOptions | None = None,
    *,
    progress: Progress | None = None,
) -> ApplyReport:
    """Scale a matrix of counts and publish the values.

    Parameters
    ----------
    store
        Where counts and the fitted scaling are, and the values go.
    name
        Of the values.
    normalisation
        Name of the fitted scaling.

    Raises
    ------
    ConfigError
        If it has bins instead.
    InputError
        If the counts have none of its genes.
    PlanError
        If a task would need more than ``max_memory``.
    """
    options = options or ApplyOptions()
    check_name(name, "scaled values")
    genes = find_genes(store, normalisation, options)
    scaler_of(genes.fitted)
    projected = projected_scaled_bytes(max(genes.counts.n_genes, genes.fitted.n_genes))
    refuse_oversized(f"normalize {name}", projected, options)
    job = Job(
        path=f"scaled/{name}",
        publication=lambda: matrix_publication(
            store,
            f"scaled/{name}",
            _values_spec(genes),
            genes,
            options,
            encoder=SCALED_ENCODER,
            method=genes.fitted.method,
        ),
        tasks=lambda publication: _tasks(publication, genes),
        run=_scale_rows,
        tables=lambda _: table_columns(genes.fitted, genes.counts, genes.wanted),
        memory=projected,
        unit="samples",
    )
    return genes.report("scaled", name, publish_in_tasks(store.root, job, options, progress), projected)


def projected_scaled_bytes(n_genes: int) -> int:
    """Bytes of one task: its counts, those in the order of the fitted genes and which it has, values, zarr's copy and the encoded shard."""
    return INTERPRETER_BYTES + 17 * block_rows(n_genes) * n_genes + 160 * n_genes


@dataclass(frozen=True, slots=True)
class _RowsTask:
    """Samples ``[first, last)``, all genes; counts and what was fitted by address."""

    place: PartitionPlace
    fitted: Normalized
    counts: Expression
    gene_of: NDArray[np.int32]
    """(fitted gene,) its column of the counts, -1 where there is none."""
    wanted: NDArray[np.int32]
    """(gene,) which of the fitted genes."""
    first: int
    last: int


def _height(genes: FoundGenes) -> int:
    rows = block_rows(max(genes.counts.n_genes, genes.fitted.n_genes))
    return min(rows, -(-genes.counts.n_samples // SCALED_CHUNK_SAMPLES) * SCALED_CHUNK_SAMPLES)


def _tasks(publication: Publication, genes: FoundGenes) -> Iterator[_RowsTask]:
    height, n_samples = _height(genes), genes.counts.n_samples
    gene_of, wanted = genes.gene_of.astype(np.int32), genes.wanted.astype(np.int32)
    for first in range(0, n_samples, height):
        place = publication.place(f"rows-{first // height:05d}", ["values"])
        last = min(n_samples, first + height)
        yield _RowsTask(place, genes.fitted, genes.counts, gene_of, wanted, first, last)


def _scale_rows(task: _RowsTask) -> int:
    """Scale the samples of a task and write a shard; return this process's peak, in bytes."""
    rows = slice(task.first, task.last)
    measured = None if task.counts.is_measured_throughout else task.counts.measured(rows)
    counts, has = arrange_genes(task.counts.read(rows), measured, task.gene_of)
    values = scale_samples(scaler_of(task.fitted), counts, task.counts.sample_total[rows], has, task.wanted)
    writer = task.place.open()
    writer.write("values", values, (task.first, 0))
    writer.counts.update(samples=len(values))
    writer.close()
    return observed_peak_bytes()


def _values_spec(genes: FoundGenes) -> ArraySpec:
    n_samples, n_genes = genes.counts.n_samples, len(genes.wanted)
    unit = (_height(genes), n_genes)
    return ArraySpec(
        "values",
        (n_samples, n_genes),
        ("sample", "gene"),
        "float32",
        (SCALED_CHUNK_SAMPLES, n_genes),
        unit,
        float("nan"),
    )
