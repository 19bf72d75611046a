"""``normalize apply``: bins of every sample by stored edges: a function of each value, so of no batch, order or worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.expression import Expression, as_slice, read_ahead
from splicestore.kernels.binning import BIN_MISSING, bin_counts
from splicestore.memory import INTERPRETER_BYTES, observed_peak_bytes
from splicestore.normalize.match import match_genes
from splicestore.normalized import Normalized
from splicestore.schema import COUNTS_SHARD, ArraySpec, Plan, check_name
from splicestore.storage import PartitionPlace, Publication
from splicestore.storage.columns import Column
from splicestore.store import Store
from splicestore.tasks import Job, Outcome, Progress, publish_in_tasks, refuse_oversized

BINS_ENCODER = 2
BINS_CHUNK_SAMPLES = 64
BINS_LEVEL = 1
"""Of zstd: half the time of level 3 for 2.5% more bytes; most bits of a bin are random."""
_BAND_GENES = COUNTS_SHARD[1]


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """What is binned."""

    expression: str | None = None
    """Counts to bin; None: those the edges were fitted to."""
    all_genes: bool = False
    """Also the weaker of two genes with one symbol."""
    scheduler: str = "sync"
    max_memory: int | None = None
    profile: str | None = None
    force: bool = False
    steal: bool = False


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What was published."""

    kind: str
    """``bins``, or ``scaled`` values."""
    name: str
    generation: str
    status: str
    n_samples: int
    n_genes: int
    n_genes_missing: int
    """Fitted genes that the counts lack: their bins are 0, their scaled values NaN."""
    projected_peak_bytes: int
    observed_peak_bytes: int

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


def apply_edges(
    store: Store,
    name: str,
    edges: str,
    options: ApplyOptions | None = None,
    *,
    progress: Progress | None = None,
) -> ApplyReport:
    """Bin a matrix of counts and publish the bins.

    Parameters
    ----------
    store
        Where counts and edges are, and the bins go.
    name
        Of the bins.
    edges
        Name of the normalisation.

    Raises
    ------
    InputError
        If the counts have none of its genes.
    PlanError
        If a task would need more than ``max_memory``.
    """
    options = options or ApplyOptions()
    check_name(name, "bins")
    genes = find_genes(store, edges, options)
    fitted, counts = genes.fitted, genes.counts
    projected = projected_apply_bytes(counts.n_samples, len(genes.wanted), fitted.n_bins)
    refuse_oversized(f"normalize {name}", projected, options)
    job = Job(
        path=f"bins/{name}",
        publication=lambda: matrix_publication(
            store, f"bins/{name}", _bins_spec(genes), genes, options, encoder=BINS_ENCODER
        ),
        tasks=lambda publication: _rows_tasks(publication, fitted, counts, genes.wanted, genes.gene_of[genes.wanted]),
        run=_bin_rows,
        tables=lambda _: table_columns(fitted, counts, genes.wanted),
        memory=projected,
        unit="samples",
    )
    return genes.report("bins", name, publish_in_tasks(store.root, job, options, progress), projected)


@dataclass(frozen=True, slots=True)
class FoundGenes:
    """A normalisation, the counts it is applied to, and where they have its genes."""

    fitted: Normalized
    counts: Expression
    wanted: NDArray[np.int64]
    """(gene,) which of the fitted genes get values."""
    gene_of: NDArray[np.int64]
    """(fitted gene,) its column of the counts, -1 where there is none."""

    def report(self, kind: str, name: str, outcome: Outcome, projected: int) -> ApplyReport:
        """Say what was published."""
        return ApplyReport(
            kind=kind,
            name=name,
            generation=outcome.publication.generation,
            status=outcome.status,
            n_samples=self.counts.n_samples,
            n_genes=len(self.wanted),
            n_genes_missing=int((self.gene_of[self.wanted] < 0).sum()),
            projected_peak_bytes=projected,
            observed_peak_bytes=outcome.observed_peak_bytes,
        )


def find_genes(store: Store, normalisation: str, options: ApplyOptions) -> FoundGenes:
    """Find the genes of a normalisation in the counts it is applied to.

    Raises
    ------
    InputError
        If the counts have none of them.
    """
    fitted = store.normalized[normalisation]
    if options.expression is None:
        counts = store.expression.at(*fitted.expression)
    else:
        counts = store.expression[options.expression]
    wanted = np.flatnonzero(fitted.gene_is_kept | options.all_genes)
    gene_of = match_genes(fitted.gene_ids, counts.gene_ids)
    if not (gene_of[wanted] >= 0).any():
        raise InputError(
            f"expression {counts.name} has none of the {len(wanted):,} genes of {normalisation}: other ids, or another species?"
        )
    return FoundGenes(fitted, counts, wanted, gene_of)


# -- tasks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _RowsTask:
    """Samples ``[first, last)``, all genes; counts and edges by address."""

    place: PartitionPlace
    fitted: Normalized
    counts: Expression
    wanted: NDArray[np.int32]
    """(gene,) its edges."""
    gene_of: NDArray[np.int32]
    """(gene,) its counts, -1 where there are none."""
    first: int
    last: int


def _shard_height(n_samples: int) -> int:
    return min(COUNTS_SHARD[0], -(-n_samples // BINS_CHUNK_SAMPLES) * BINS_CHUNK_SAMPLES)


def row_parts(n_samples: int) -> list[tuple[str, int, int]]:
    """Tasks of an apply: (name, first sample, one past the last)."""
    height = _shard_height(n_samples)
    return [
        (f"rows-{first // height:05d}", first, min(n_samples, first + height)) for first in range(0, n_samples, height)
    ]


def projected_apply_bytes(n_samples: int, n_genes: int, n_bins: int) -> int:
    """Bytes of one task."""
    rows = _shard_height(n_samples)
    # Bins, zarr's copy of them and the encoded shard; a band of counts, its bins and edges.
    return INTERPRETER_BYTES + 6 * rows * n_genes + _BAND_GENES * (10 * rows + 12 * n_bins)


def _rows_tasks(
    publication: Publication,
    fitted: Normalized,
    counts: Expression,
    wanted: NDArray[np.int64],
    gene_of: NDArray[np.int64],
) -> Iterator[_RowsTask]:
    # Narrow, because every task carries them.
    genes = wanted.astype(np.int32), gene_of.astype(np.int32)
    for part, first, last in row_parts(counts.n_samples):
        yield _RowsTask(publication.place(part, ["bins"]), fitted, counts, *genes, first, last)


def _bin_rows(task: _RowsTask) -> int:
    """Bin the samples of a task, band by band of the counts' genes; return this process's peak, in bytes."""
    rows = slice(task.first, task.last)
    bins = np.full((task.last - task.first, len(task.wanted)), BIN_MISSING, dtype=np.uint16)
    totals = task.counts.sample_total[rows]

    def read(columns: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        own, genes = task.gene_of[columns], task.wanted[columns]
        counts = task.counts.read(rows, _spanning(own))[:, as_slice(own - own.min())]
        edges = task.fitted.edges(int(genes.min()), int(genes.max()) + 1)[as_slice(genes - genes.min())]
        return np.ascontiguousarray(counts), edges

    band_of = task.gene_of // _BAND_GENES
    bands = [np.flatnonzero(band_of == band) for band in range(-(-task.counts.n_genes // _BAND_GENES))]
    bands = [columns for columns in bands if len(columns)]
    for columns, (counts, edges) in zip(bands, read_ahead(read, bands, 1), strict=True):
        found = bin_counts(counts, totals, edges, task.fitted.tie_policy)
        if not task.counts.is_measured_throughout:
            own = task.gene_of[columns]
            found[~task.counts.measured(rows, _spanning(own))[:, as_slice(own - own.min())]] = BIN_MISSING
        bins[:, as_slice(columns)] = found
    # A sample without a count says nothing of any gene.
    bins[totals <= 0] = BIN_MISSING
    writer = task.place.open()
    writer.write("bins", bins, (task.first, 0))
    writer.counts.update(samples=len(bins))
    writer.close()
    return observed_peak_bytes()


def _spanning(index: NDArray[np.integer]) -> slice:
    return slice(int(index.min()), int(index.max()) + 1)


# -- the store's side ----------------------------------------------------------------------------------------------


def table_columns(fitted: Normalized, counts: Expression, wanted: NDArray[np.int64]) -> list[Column]:
    """Build the columns of genes and samples beside their values."""
    genes = wanted.tolist()
    return [
        Column("gene_id", [fitted.gene_ids[g] for g in genes], "gene", "string"),
        Column("gene_symbol", [fitted.gene_symbols[g] for g in genes], "gene", "string"),
        Column("gene_is_expressed", fitted.array("gene_is_expressed")[wanted].astype(bool), "gene", "bool"),
        Column("sample_id", counts.sample_ids, "sample", "string"),
    ]


def _bins_spec(genes: FoundGenes) -> ArraySpec:
    n_samples, n_genes = genes.counts.n_samples, len(genes.wanted)
    unit = (_shard_height(n_samples), n_genes)
    return ArraySpec(
        "bins",
        (n_samples, n_genes),
        ("sample", "gene"),
        "uint16",
        (BINS_CHUNK_SAMPLES, n_genes),
        unit,
        level=BINS_LEVEL,
    )


def matrix_publication(
    store: Store,
    path: str,
    values: ArraySpec,
    genes: FoundGenes,
    options: ApplyOptions,
    *,
    encoder: int,
    **attributes: Any,
) -> Publication:
    """Prepare the generation of a matrix that a normalisation makes of counts; it pins both.

    Parameters
    ----------
    path
        ``<kind>/<name>``.
    values
        The (sample, gene) matrix, in shards.
    attributes
        Of the group, beside options, pins and sizes.
    """
    fitted, counts = genes.fitted, genes.counts
    plan = Plan(
        kind=path.split("/")[0],
        encoder=encoder,
        inputs=(),
        parents={
            f"expression/{counts.name}": counts.generation,
            f"normalized/{fitted.name}": fitted.generation,
        },
        options={"all_genes": options.all_genes},
        chunking={values.name: [values.chunks[0], *values.write_unit]},
    )
    return Publication(
        root=store.root,
        path=path,
        plan=plan,
        specs=[values, *(column.spec() for column in table_columns(fitted, counts, genes.wanted))],
        attributes={
            "options": plan.document()["options"],
            **attributes,
            "pins": {
                "expression": {counts.name: counts.generation},
                "normalized": {fitted.name: fitted.generation},
            },
            "n_samples": values.shape[0],
            "n_genes": values.shape[1],
        },
        provenance={"versions": {"splicestore": version("splicestore"), "numpy": np.__version__}},
    )
