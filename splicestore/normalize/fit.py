"""``normalize fit``: exact edges of every gene's bins over the samples of a matrix, by bands of genes.

A task owns 256 genes. It reads their tiles of all samples, band by band, collects the positive scores of each gene, sorts them
and cuts. A band is as many genes as the budget holds: memory does not grow with the number of genes, and with the number
of samples only until a band is 64 genes.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.cluster import open_executor
from splicestore.errors import ConfigError, InputError, PlanError, close_names
from splicestore.expression import Expression, sample_tiles
from splicestore.kernels.binning import (
    MAX_BINS,
    MIN_BINS,
    TIE_POLICIES,
    TiePolicy,
    edges_of_sorted,
    gather_positive_scores,
    n_edges,
)
from splicestore.memory import INTERPRETER_BYTES, format_bytes, observed_peak_bytes
from splicestore.normalize.quality import SINGLE_CELL_COLUMN, QualityResult, SampleQuality, judge_samples
from splicestore.schema import COUNTS_SHARD, SUBSET_TRAIN, ArraySpec, LedgerRow, Plan, check_name
from splicestore.storage import PartitionPlace, Publication, write_lease
from splicestore.storage.arrays import read_arrays
from splicestore.storage.columns import Column, ledger_columns, write_columns
from splicestore.store import Store

NORMALIZED_ENCODER = 2
TASK_GENES = 256
"""Genes of a task, and of a chunk of edges."""
BAND_STEP = 64
BAND_BUDGET = 256 * 1024 * 1024
"""Bytes that the scores of a band may take, sorted copies included."""
MIN_MEAN_SCORE = 0.1
"""A gene with a higher mean score counts as expressed, as in GeneRAIN."""
_STATISTICS = (
    ("gene_n_positive", "int64"),
    ("gene_mean", "float64"),
    ("gene_std", "float64"),
)
_TABLES = "tables"


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How edges are fitted."""

    n_bins: int = 2000
    tie_policy: TiePolicy = "max"
    quality: SampleQuality = field(default_factory=SampleQuality)
    samples: tuple[str, ...] | None = None
    """Fit to these alone; None: to all of the matrix."""
    split: str | None = None
    """Fit to the training samples of this split of samples alone."""
    scheduler: str = "sync"
    max_memory: int | None = None
    band_budget: int = BAND_BUDGET
    profile: str | None = None
    force: bool = False
    steal: bool = False

    def __post_init__(self) -> None:
        if not MIN_BINS <= self.n_bins <= MAX_BINS:
            raise ConfigError(f"n_bins lies in [{MIN_BINS}, {MAX_BINS}], got {self.n_bins}")
        if self.tie_policy not in TIE_POLICIES:
            raise ConfigError(f"tie policy {self.tie_policy!r}: use {' or '.join(TIE_POLICIES)}")
        if self.split is not None and self.samples is not None:
            raise ConfigError("a split and a list of samples exclude each other")


@dataclass(frozen=True, slots=True)
class FitReport:
    """What was published."""

    name: str
    generation: str
    status: str
    n_genes: int
    n_genes_kept: int
    n_genes_expressed: int
    n_genes_without_edges: int
    """Fewer than two positive samples."""
    n_samples_fitted: int
    dropped: dict[str, int]
    """Samples by reason."""
    projected_peak_bytes: int
    observed_peak_bytes: int
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


def fit_edges(
    store: Store,
    name: str,
    expression: str,
    options: FitOptions | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
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
        For a number of bins or a tie policy out of range, a sample that is not in the matrix.
    InputError
        If no sample passes.
    PlanError
        If a task would need more than ``max_memory``.
    """
    options = options or FitOptions()
    check_name(name, "normalisation")
    counts = store.expression[expression]
    rows, judged = fitted_samples(store, counts, options)
    band = band_genes(len(rows), options.band_budget)
    while band > BAND_STEP and projected_fit_bytes(len(rows), band, options.n_bins) > (
        options.max_memory or sys.maxsize
    ):
        band -= BAND_STEP
    projected = projected_fit_bytes(len(rows), band, options.n_bins)
    if options.max_memory is not None and projected > options.max_memory:
        raise PlanError(
            f"normalize {name}: a task needs up to {format_bytes(projected)}, --max-memory allows {format_bytes(options.max_memory)}"
        )
    with write_lease(store.root, f"normalized/{name}", steal=options.steal) as lease:
        publication = _publication(store, name, counts, rows, judged.ledger(), options)
        publication.force = options.force
        peak = 0
        if not publication.is_complete():
            publication.begin()
            peak = _write_bands(publication, counts, rows, band, projected, options, progress)
            _finish(publication, counts, rows, judged.ledger(), projected, peak)
        lease.check()
        status = "published" if publication.switch() else "unchanged"
    observed = max(peak, observed_peak_bytes())
    return _report(publication, name, status, counts, len(rows), dict(judged.dropped), options, projected, observed)


def fitted_samples(store: Store, counts: Expression, options: FitOptions) -> tuple[NDArray[np.int64], QualityResult]:
    """Choose the samples that edges are fitted to: (rows of the matrix, what the quality control said).

    Raises
    ------
    InputError
        If none passes.
    """
    chosen = _chosen_samples(store, counts, options)
    single_cell = _single_cell(counts)
    judged = judge_samples(
        options.quality,
        counts.sample_total[chosen],
        counts.array("sample_n_nonzero")[chosen],
        None if single_cell is None else single_cell[chosen],
    )
    rows = chosen[judged.keep]
    if not len(rows):
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in judged.dropped.items() if n)
        raise InputError(
            f"expression {counts.name}: none of {len(chosen):,} samples passes ({reasons}); --no-qc asks for nothing"
        )
    return rows, judged


def band_genes(n_samples: int, budget: int = BAND_BUDGET) -> int:
    """Genes whose scores and their sorted copies fit a budget: a multiple of 64, at least one, at most a task's."""
    fitting = budget // max(1, 8 * n_samples) // BAND_STEP * BAND_STEP
    return int(min(TASK_GENES, max(BAND_STEP, fitting)))


# -- samples -------------------------------------------------------------------------------------------------------


def _training_samples(store: Store, counts: Expression, name: str) -> NDArray[np.int64]:
    split = store.sample_splits[name]
    if split.expression != (counts.name, counts.generation):
        raise ConfigError(
            f"split {name} is of expression {' generation '.join(split.expression)}, not of {counts.name} generation {counts.generation}: "
            "split the samples of these counts again"
        )
    return np.flatnonzero(split.sample_subset == SUBSET_TRAIN)


def _chosen_samples(store: Store, counts: Expression, options: FitOptions) -> NDArray[np.int64]:
    if options.split is not None:
        return _training_samples(store, counts, options.split)
    if options.samples is None:
        return np.arange(counts.n_samples, dtype=np.int64)
    known = {name: row for row, name in enumerate(counts.sample_ids)}
    for sample in options.samples:
        if sample not in known:
            raise ConfigError(f"expression {counts.name} has no sample {sample!r}; {close_names(sample, known)}")
    return np.array(sorted({known[sample] for sample in options.samples}), dtype=np.int64)


def _single_cell(counts: Expression) -> NDArray[np.float64] | None:
    return counts.array(SINGLE_CELL_COLUMN) if counts.has(SINGLE_CELL_COLUMN) else None


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


def gene_parts(n_genes: int) -> list[tuple[str, int, int]]:
    """Tasks of a fit: (name, first gene, one past the last)."""
    return [
        (f"genes-{first // TASK_GENES:05d}", first, min(n_genes, first + TASK_GENES))
        for first in range(0, n_genes, TASK_GENES)
    ]


def _write_bands(
    publication: Publication,
    counts: Expression,
    rows: NDArray[np.int64],
    band: int,
    projected: int,
    options: FitOptions,
    progress: Callable[[str, int, int], None] | None,
) -> int:
    arrays = ["edges", *(name for name, _ in _STATISTICS)]
    is_fitted = np.zeros(counts.n_samples, dtype=bool)
    is_fitted[rows] = True
    packed = np.packbits(is_fitted)
    tasks = [
        _BandTask(
            publication.place(part, arrays), counts, packed, first, last, band, options.n_bins, options.tie_policy
        )
        for part, first, last in gene_parts(counts.n_genes)
        if not publication.has_part(part)
    ]
    peak, done = 0, 0
    with open_executor(options.scheduler, urls=[publication.root.url], profile=options.profile) as executor:
        for _, observed in executor.map(_fit_band, tasks, names=[t.place.name for t in tasks], memory=projected):
            peak, done = max(peak, observed), done + 1
            if progress is not None:
                progress("genes", done, len(tasks))
    return peak


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
    for (name, _), values in zip(_STATISTICS, (n_positive, mean, std), strict=True):
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


# -- the store's side ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _GeneFlags:
    """What is known of the genes when all bands are fitted."""

    is_kept: NDArray[np.bool_]
    is_expressed: NDArray[np.bool_]


def _flags(counts: Expression, mean: NDArray[np.float64]) -> _GeneFlags:
    return _GeneFlags(keep_strongest(counts.gene_symbols, mean), mean > MIN_MEAN_SCORE)


def keep_strongest(symbols: Sequence[str], mean: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of genes with one symbol keep the one with the highest mean score, the first of equal ones; those without a symbol all."""
    best: dict[str, int] = {}
    for gene, symbol in enumerate(symbols):
        if symbol and (symbol not in best or mean[gene] > mean[best[symbol]]):
            best[symbol] = gene
    return np.array([not symbol or best[symbol] == gene for gene, symbol in enumerate(symbols)], dtype=bool)


def _table_columns(
    counts: Expression, rows: NDArray[np.int64], ledger: Sequence[LedgerRow], flags: _GeneFlags
) -> list[Column]:
    is_fitted = np.zeros(counts.n_samples, dtype=bool)
    is_fitted[rows] = True
    return [
        Column("gene_id", counts.gene_ids, "gene", "string"),
        Column("gene_symbol", counts.gene_symbols, "gene", "string"),
        Column("gene_is_kept", flags.is_kept, "gene", "bool"),
        Column("gene_is_expressed", flags.is_expressed, "gene", "bool"),
        Column("sample_is_fitted", is_fitted, "sample", "bool"),
        *ledger_columns(ledger),
    ]


def _pins(store: Store, counts: Expression, options: FitOptions) -> list[tuple[str, str]]:
    """What decides the edges: the counts, and the split whose training samples they are fitted to."""
    pins = [(f"expression/{counts.name}", counts.generation)]
    if options.split is not None:
        pins.append((f"sample_splits/{options.split}", store.sample_splits[options.split].generation))
    return pins


def _nested(pins: Sequence[tuple[str, str]]) -> dict[str, dict[str, str]]:
    return {path.split("/")[0]: {path.split("/")[1]: generation} for path, generation in pins}


def _publication(
    store: Store,
    name: str,
    counts: Expression,
    rows: NDArray[np.int64],
    ledger: Sequence[LedgerRow],
    options: FitOptions,
) -> Publication:
    width = n_edges(options.n_bins)
    plan = Plan(
        kind="normalized",
        encoder=NORMALIZED_ENCODER,
        inputs=(),
        parents=dict(_pins(store, counts, options)),
        options={
            "n_bins": options.n_bins,
            "tie_policy": options.tie_policy,
            "min_total": options.quality.min_total,
            "max_single_cell": options.quality.max_single_cell,
            "min_nonzero": options.quality.min_nonzero,
            "samples": None if options.samples is None else sorted(set(options.samples)),
        },
        chunking={"edges": [TASK_GENES, width]},
    )
    edges = ArraySpec(
        "edges",
        (counts.n_genes, width),
        ("gene", "edge"),
        "float32",
        (TASK_GENES, width),
        fill_value=float("nan"),
        shuffled=True,
    )
    statistics = [
        ArraySpec(column, (counts.n_genes,), ("gene",), dtype, (TASK_GENES,)) for column, dtype in _STATISTICS
    ]
    nothing = np.zeros(counts.n_genes, dtype=bool)
    tables = _table_columns(counts, rows, ledger, _GeneFlags(nothing, nothing))
    return Publication(
        root=store.root,
        path=f"normalized/{name}",
        plan=plan,
        specs=[edges, *statistics, *(column.spec() for column in tables)],
        attributes={
            "options": plan.document()["options"],
            "pins": _nested(_pins(store, counts, options)),
            "n_genes": counts.n_genes,
            "n_samples_fitted": len(rows),
        },
        provenance={"versions": {"splicestore": version("splicestore"), "numpy": np.__version__}},
    )


def _finish(
    publication: Publication,
    counts: Expression,
    rows: NDArray[np.int64],
    ledger: Sequence[LedgerRow],
    projected: int,
    peak: int,
) -> None:
    if not publication.has_part(_TABLES):
        mean = read_arrays(publication.root, publication.base, ["gene_mean"])["gene_mean"]
        writer = publication.partition(_TABLES)
        write_columns(writer, _table_columns(counts, rows, ledger, _flags(counts, mean)))
        writer.close()
    publication.provenance.update(projected_peak_bytes=projected, observed_peak_bytes=max(peak, observed_peak_bytes()))
    publication.finalise([_TABLES, *(part for part, _, _ in gene_parts(counts.n_genes))])


def _report(
    publication: Publication,
    name: str,
    status: str,
    counts: Expression,
    n_fitted: int,
    dropped: dict[str, int],
    options: FitOptions,
    projected: int,
    observed: int,
) -> FitReport:
    names = ["gene_n_positive", "gene_is_kept", "gene_is_expressed"]
    found = read_arrays(publication.root, publication.base, names)
    warnings = []
    if n_fitted < options.n_bins - 1:
        warnings.append(
            f"{n_fitted:,} samples for {options.n_bins:,} bins: bins are spread over the whole range with gaps; --n-bins {n_fitted:,} or "
            "fewer leaves none"
        )
    return FitReport(
        name=name,
        generation=publication.generation,
        status=status,
        n_genes=counts.n_genes,
        n_genes_kept=int(found["gene_is_kept"].sum()),
        n_genes_expressed=int(found["gene_is_expressed"].sum()),
        n_genes_without_edges=int((found["gene_n_positive"] < 2).sum()),
        n_samples_fitted=n_fitted,
        dropped={reason: n for reason, n in dropped.items() if n},
        projected_peak_bytes=projected,
        observed_peak_bytes=observed,
        warnings=tuple(warnings),
    )
