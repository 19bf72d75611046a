"""``normalize apply``: bins of every sample by stored edges: a function of each value, so of no batch, order or worker."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.cluster import open_executor
from splicestore.errors import ConfigError, InputError, PlanError
from splicestore.expression import Expression, read_ahead
from splicestore.kernels.binning import BIN_MISSING, bin_counts
from splicestore.memory import INTERPRETER_BYTES, format_bytes, observed_peak_bytes
from splicestore.normalized import Normalized
from splicestore.readers.counts import open_counts
from splicestore.schema import COUNTS_SHARD, ArraySpec, Plan, check_name
from splicestore.storage import PartitionPlace, Publication, write_lease
from splicestore.storage.columns import Column, write_columns
from splicestore.storage.outputs import write_file
from splicestore.store import Store

BINS_ENCODER = 2
BINS_CHUNK_SAMPLES = 64
BINS_LEVEL = 1
"""Of zstd: half the time of level 3 for 2.5% more bytes; most bits of a bin are random."""
_BAND_GENES = COUNTS_SHARD[1]
_TABLES = "tables"


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

    name: str
    generation: str
    status: str
    n_samples: int
    n_genes: int
    n_genes_missing: int
    """Genes with edges that the counts lack: their bins are 0."""
    projected_peak_bytes: int
    observed_peak_bytes: int

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


def match_genes(fitted: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """Find the genes of edges in other counts: by id, and those not found so without the versions that Ensembl appends.

    An id may stand several times, where a file has symbols only. If it stands as often on both sides, the first is the first and
    the second the second; if once among ``known``, all are that one; else nobody can say which is meant, and it is missing.

    Returns
    -------
    row : (fitted,) int64
        Into ``known``, -1 where it is missing.
    """
    rows = _rows(fitted, known)
    bare = _rows([_bare(name) for name in fitted], [_bare(name) for name in known])
    return np.where(rows >= 0, rows, bare)


def _rows(fitted: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    ours, theirs = _places(fitted), _places(known)
    found = np.full(len(fitted), -1, dtype=np.int64)
    for name, rows in ours.items():
        places = theirs.get(name, [])
        if len(places) in (1, len(rows)):
            found[rows] = places
    return found


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        places.setdefault(name, []).append(row)
    return places


def _bare(name: str) -> str:
    stem, dot, number = name.rpartition(".")
    return stem if dot and number.isdigit() and stem.startswith("ENS") else name


def apply_edges(
    store: Store,
    name: str,
    edges: str,
    options: ApplyOptions | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
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
    fitted = store.normalized[edges]
    if options.expression is None:
        counts = store.expression.at(*fitted.expression)
    else:
        counts = store.expression[options.expression]
    wanted = np.flatnonzero(fitted.gene_is_kept | options.all_genes)
    gene_of = match_genes(fitted.gene_ids, counts.gene_ids)[wanted]
    if not (gene_of >= 0).any():
        raise InputError(
            f"expression {counts.name} has none of the {len(wanted):,} genes of {edges}: other ids, or another species?"
        )
    projected = projected_apply_bytes(counts.n_samples, len(wanted), fitted.n_bins)
    if options.max_memory is not None and projected > options.max_memory:
        raise PlanError(
            f"normalize {name}: a task needs up to {format_bytes(projected)}, --max-memory allows {format_bytes(options.max_memory)}"
        )
    with write_lease(store.root, f"bins/{name}", steal=options.steal) as lease:
        publication = _publication(store, name, fitted, counts, wanted, options)
        publication.force = options.force
        peak = 0
        if not publication.is_complete():
            publication.begin()
            peak = _write_rows_of_shards(publication, fitted, counts, wanted, gene_of, projected, options, progress)
            if not publication.has_part(_TABLES):
                writer = publication.partition(_TABLES)
                write_columns(writer, _table_columns(fitted, counts, wanted))
                writer.close()
            publication.provenance.update(
                projected_peak_bytes=projected, observed_peak_bytes=max(peak, observed_peak_bytes())
            )
            publication.finalise([_TABLES, *(part for part, _, _ in row_parts(counts.n_samples))])
        lease.check()
        status = "published" if publication.switch() else "unchanged"
    return ApplyReport(
        name=name,
        generation=publication.generation,
        status=status,
        n_samples=counts.n_samples,
        n_genes=len(wanted),
        n_genes_missing=int((gene_of < 0).sum()),
        projected_peak_bytes=projected,
        observed_peak_bytes=max(peak, observed_peak_bytes()),
    )


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


def _write_rows_of_shards(
    publication: Publication,
    fitted: Normalized,
    counts: Expression,
    wanted: NDArray[np.int64],
    gene_of: NDArray[np.int64],
    projected: int,
    options: ApplyOptions,
    progress: Callable[[str, int, int], None] | None,
) -> int:
    # Narrow, because every task carries them.
    genes = wanted.astype(np.int32), gene_of.astype(np.int32)
    tasks = [
        _RowsTask(publication.place(part, ["bins"]), fitted, counts, *genes, first, last)
        for part, first, last in row_parts(counts.n_samples)
        if not publication.has_part(part)
    ]
    peak, done = 0, 0
    with open_executor(options.scheduler, urls=[publication.root.url], profile=options.profile) as executor:
        for _, observed in executor.map(_bin_rows, tasks, names=[t.place.name for t in tasks], memory=projected):
            peak, done = max(peak, observed), done + 1
            if progress is not None:
                progress("samples", done, len(tasks))
    return peak


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


def as_slice(index: NDArray[np.integer]) -> Any:
    """Return a slice where indices follow one another: numpy copies it much faster."""
    follows = len(index) > 0 and np.array_equal(index, np.arange(index[0], index[0] + len(index)))
    return slice(int(index[0]), int(index[0]) + len(index)) if follows else index


# -- the store's side ----------------------------------------------------------------------------------------------


def _table_columns(fitted: Normalized, counts: Expression, wanted: NDArray[np.int64]) -> list[Column]:
    genes = wanted.tolist()
    return [
        Column("gene_id", [fitted.gene_ids[g] for g in genes], "gene", "string"),
        Column("gene_symbol", [fitted.gene_symbols[g] for g in genes], "gene", "string"),
        Column("gene_is_expressed", fitted.array("gene_is_expressed")[wanted].astype(bool), "gene", "bool"),
        Column("sample_id", counts.sample_ids, "sample", "string"),
    ]


def _publication(
    store: Store, name: str, fitted: Normalized, counts: Expression, wanted: NDArray[np.int64], options: ApplyOptions
) -> Publication:
    shape = (counts.n_samples, len(wanted))
    unit = (_shard_height(counts.n_samples), len(wanted))
    plan = Plan(
        kind="bins",
        encoder=BINS_ENCODER,
        inputs=(),
        parents={
            f"expression/{counts.name}": counts.generation,
            f"normalized/{fitted.name}": fitted.generation,
        },
        options={"all_genes": options.all_genes},
        chunking={"bins": [BINS_CHUNK_SAMPLES, *unit]},
    )
    bins = ArraySpec(
        "bins", shape, ("sample", "gene"), "uint16", (BINS_CHUNK_SAMPLES, len(wanted)), unit, level=BINS_LEVEL
    )
    return Publication(
        root=store.root,
        path=f"bins/{name}",
        plan=plan,
        specs=[bins, *(column.spec() for column in _table_columns(fitted, counts, wanted))],
        attributes={
            "options": plan.document()["options"],
            "pins": {
                "expression": {counts.name: counts.generation},
                "normalized": {fitted.name: fitted.generation},
            },
            "n_samples": shape[0],
            "n_genes": shape[1],
        },
        provenance={"versions": {"splicestore": version("splicestore"), "numpy": np.__version__}},
    )


# -- files ---------------------------------------------------------------------------------------------------------


def bin_file(
    fitted: Normalized,
    url: str,
    output: str,
    *,
    layer: str = "X",
    all_genes: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Bin the samples of a file by stored edges and write them to another, without a store of their own.

    Parameters
    ----------
    fitted
        The edges.
    url
        A file of counts.
    output
        ``.npz`` (bins (sample, gene) uint16, sample_id, gene_id), ``.tsv`` or ``.tsv.gz`` (genes in rows).

    Returns
    -------
    counts
        Samples, genes, and genes with edges that the file lacks: their bins are 0.

    Raises
    ------
    ConfigError
        For another ending.
    InputError
        If the file has none of the genes.
    """
    if not output.endswith((".npz", ".tsv", ".tsv.gz")):
        raise ConfigError(f"{output}: bins are written as .npz, .tsv or .tsv.gz")
    source = open_counts(url, layer=layer, storage_options=storage_options)
    try:
        samples, genes = source.head.sample_id, source.head.gene_id
        counts = source.read(np.arange(len(samples)), 0, len(genes))
    finally:
        source.close()
    wanted = np.flatnonzero(fitted.gene_is_kept | all_genes)
    names = [fitted.gene_ids[g] for g in wanted.tolist()]
    gene_of = match_genes(fitted.gene_ids, genes)[wanted]
    known = np.flatnonzero(gene_of >= 0)
    if not len(known):
        raise InputError(
            f"{url}: has none of the {len(wanted):,} genes of {fitted.name}: other ids, or another species?"
        )
    totals = counts.sum(axis=1, dtype=np.int64)
    bins = np.full((len(samples), len(wanted)), BIN_MISSING, dtype=np.uint16)
    edges = fitted.edges(0, fitted.n_genes)[wanted[known]]
    bins[:, known] = bin_counts(np.ascontiguousarray(counts[:, gene_of[known]]), totals, edges, fitted.tie_policy)
    bins[totals <= 0] = BIN_MISSING
    write_file(output, _spell(output, bins, samples, names))
    return {"samples": len(samples), "genes": len(wanted), "genes_missing": len(wanted) - len(known)}


def _spell(output: str, bins: NDArray[np.uint16], samples: Sequence[str], genes: Sequence[str]) -> bytes:
    if output.endswith(".npz"):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, bins=bins, sample_id=np.array(samples), gene_id=np.array(genes))
        return buffer.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["gene_id", *samples])
    writer.writerows([gene, *row] for gene, row in zip(genes, bins.T.tolist(), strict=True))
    data = text.getvalue().encode()
    return gzip.compress(data, mtime=0) if output.endswith(".gz") else data
