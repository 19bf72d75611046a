"""``normalize fit --method cpm|log1p|quantile|tmm``: what a scaling needs of the samples it is fitted to, stored.

Statistics of the genes by bands of genes, as of every normalisation, so that all keep the same of two genes with one symbol. Then, for
``quantile`` and ``tmm``, passes over rows of samples: each task holds some hundred samples of all genes and returns a sum or a number a
sample. These passes are not stored half done: a killed fit repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, PlanError
from splicestore.expression import Expression, sample_tiles
from splicestore.kernels.binning import score_counts
from splicestore.kernels.scaling import (
    MAX_SUMMED,
    MeanOfScores,
    add_sorted_logs,
    choose_reference,
    geometric_mean,
    reference_of_sums,
    trimmed_mean_factor,
    upper_quartile,
)
from splicestore.memory import INTERPRETER_BYTES, observed_peak_bytes
from splicestore.normalize.genes import (
    NORMALIZED_ENCODER,
    STATISTICS,
    TASK_GENES,
    fitted_mask,
    gene_parts,
    gene_specs,
    nested,
    pins_of_fit,
    table_columns,
    written_means,
)
from splicestore.normalize.quality import QualityResult, SampleQuality
from splicestore.normalize.samples import document_choice, fitted_samples, refuse_two_choices
from splicestore.schema import COUNTS_CHUNK, COUNTS_SHARD, Plan, check_name
from splicestore.storage import PartitionPlace, Publication
from splicestore.storage.arrays import read_arrays
from splicestore.storage.columns import Column
from splicestore.store import Store
from splicestore.tasks import Job, Outcome, Progress, publish_in_tasks, refuse_oversized, run_tasks

Method = Literal["cpm", "log1p", "quantile", "tmm"]
METHODS: tuple[Method, ...] = get_args(Method)
LogOf = Literal["cpm", "counts"]
LOG_OF: tuple[LogOf, ...] = get_args(LogOf)
BLOCK_BYTES = 256 * 1024 * 1024
"""Bytes that the counts of a block of samples may take."""
_LEAST_ROWS = 64


@dataclass(frozen=True, slots=True)
class ScalingOptions:
    """How a scaling is fitted."""

    method: Method
    log_of: LogOf = "cpm"
    """What ``log1p`` takes the logarithm of."""
    pseudo_count: float = 1.0
    """What ``log1p`` adds before."""
    quality: SampleQuality = field(default_factory=SampleQuality)
    samples: tuple[str, ...] | None = None
    """Fit to these alone; None: to all of the matrix."""
    split: str | None = None
    """Fit to the training samples of this split of samples alone."""
    scheduler: str = "sync"
    max_memory: int | None = None
    profile: str | None = None
    force: bool = False
    steal: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r}: use bins, {', '.join(METHODS)}")
        if self.log_of not in LOG_OF:
            raise ConfigError(f"logarithm of {self.log_of!r}: use {' or '.join(LOG_OF)}")
        if not (0 < self.pseudo_count < np.inf):
            raise ConfigError(f"the pseudo-count is positive, got {self.pseudo_count}: a zero has no logarithm")
        refuse_two_choices(self)

    def document(self) -> dict[str, Any]:
        """Spell for a plan what decides the values."""
        logs = {"log_of": self.log_of, "pseudo_count": self.pseudo_count} if self.method == "log1p" else {}
        return {"method": self.method, **logs, **document_choice(self)}


@dataclass(frozen=True, slots=True)
class ScalingReport:
    """What was published."""

    name: str
    generation: str
    status: str
    method: str
    n_genes: int
    n_genes_kept: int
    n_genes_expressed: int
    n_samples_fitted: int
    dropped: dict[str, int]
    """Samples by reason."""
    reference_sample: str | None
    """Of ``tmm``."""
    factors: tuple[float, float] | None
    """Of ``tmm``: the lowest and the highest of the fitted samples."""
    projected_peak_bytes: int
    observed_peak_bytes: int

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Fit:
    """One fit as it was planned."""

    store: Store
    name: str
    counts: Expression
    rows: NDArray[np.int64]
    judged: QualityResult
    options: ScalingOptions
    projected: int
    progress: Progress | None

    def run(self, function: Callable[[_RowsTask], Result]) -> Iterator[Result]:
        """Run a function over blocks of the fitted samples; results in no order."""
        tasks = list(_rows_tasks(self.counts, self.rows))
        names = [f"rows from {task.rows[0]:,}" for task in tasks]
        how = self.options
        return run_tasks(self.store.url, function, tasks, names, self.projected, how, self.progress, "samples")


def fit_scaling(
    store: Store, name: str, expression: str, options: ScalingOptions, *, progress: Progress | None = None
) -> ScalingReport:
    """Fit a scaling and publish what it needs.

    Parameters
    ----------
    store
        Where the counts are and the scaling goes.
    name
        Of the normalisation.
    expression
        Name of the counts.

    Raises
    ------
    ConfigError
        For a sample that is not in the matrix.
    InputError
        If no sample passes.
    PlanError
        If a task would need more than ``max_memory``, or there are more samples than an exact sum holds.
    """
    check_name(name, "normalisation")
    counts = store.expression[expression]
    rows, judged = fitted_samples(store, counts, options)
    if len(rows) > MAX_SUMMED:
        raise PlanError(f"normalize {name}: a scaling is fitted to at most {MAX_SUMMED:,} samples, got {len(rows):,}")
    projected = projected_scaling_bytes(counts.n_genes)
    refuse_oversized(f"normalize {name}", projected, options)
    fit = _Fit(store, name, counts, rows, judged, options, projected, progress)
    job = Job(
        path=f"normalized/{name}",
        publication=lambda: _publication(fit),
        tasks=lambda publication: _gene_tasks(publication, fit),
        run=_measure_genes,
        tables=lambda publication: [*_columns(fit, written_means(publication)), *_fitted_columns(fit, publication)],
        memory=projected,
        unit="genes",
    )
    return _report(fit, publish_in_tasks(store.root, job, options, progress))


def block_rows(n_genes: int) -> int:
    """Samples whose counts of all genes are held at once: 64 to 1,024, a power of two, so that chunks are read whole or in parts."""
    rows = COUNTS_CHUNK[0]
    while rows > _LEAST_ROWS and 4 * rows * n_genes > BLOCK_BYTES:
        rows //= 2
    return rows


def projected_scaling_bytes(n_genes: int) -> int:
    """Bytes of one task of a fit: a block of samples and one of them in double precision, or a tile of genes and their scores."""
    block = 4 * block_rows(n_genes) * n_genes + 160 * n_genes
    return INTERPRETER_BYTES + max(block, 40 * COUNTS_SHARD[0] * TASK_GENES)


# -- by bands of genes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _GenesTask:
    """Genes ``[first, last)``; counts by address."""

    place: PartitionPlace
    counts: Expression
    is_fitted: NDArray[np.uint8]
    """One bit a sample."""
    first: int
    last: int


def _gene_tasks(publication: Publication, fit: _Fit) -> Iterator[_GenesTask]:
    packed = np.packbits(fitted_mask(fit.counts.n_samples, fit.rows))
    for part, first, last in gene_parts(fit.counts.n_genes):
        yield _GenesTask(publication.place(part, [name for name, _ in STATISTICS]), fit.counts, packed, first, last)


def _measure_genes(task: _GenesTask) -> int:
    """Count a task's positives and sum its scores; return this process's peak, in bytes."""
    genes, moments = slice(task.first, task.last), MeanOfScores.empty(task.last - task.first)
    rows = np.flatnonzero(np.unpackbits(task.is_fitted, count=task.counts.n_samples))
    for tile, some in sample_tiles(task.counts, rows, genes):
        moments.add(score_counts(tile, task.counts.sample_total[some]), task.counts.count_measured(some, genes))
    writer = task.place.open()
    mean, std = moments.mean_and_std()
    for (name, _), values in zip(STATISTICS, (moments.n_positive, mean, std), strict=True):
        writer.write(name, values, task.first)
    writer.counts.update(genes=task.last - task.first, positives=int(moments.n_positive.sum()))
    writer.close()
    return observed_peak_bytes()


# -- by rows of samples --------------------------------------------------------------------------------------------


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _RowsTask:
    """Some fitted samples, all genes; counts by address."""

    counts: Expression
    rows: NDArray[np.int64]

    def samples(self) -> Iterator[tuple[int, NDArray[np.uint32], int, NDArray[np.bool_] | None]]:
        """Read the samples: row, counts, total, which genes it has (None: all)."""
        first, last = int(self.rows[0]), int(self.rows[-1]) + 1
        block, totals = self.counts.read(slice(first, last)), self.counts.sample_total
        for row in self.rows.tolist():
            has = None if self.counts.is_measured_throughout else self.counts.measured(slice(row, row + 1))[0]
            yield row, block[row - first], int(totals[row]), has


def _rows_tasks(counts: Expression, rows: NDArray[np.int64]) -> Iterator[_RowsTask]:
    height = block_rows(counts.n_genes)
    for first in range(0, counts.n_samples, height):
        mine = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + height)]
        if len(mine):
            yield _RowsTask(counts, mine)


def _sum_sorted(task: _RowsTask) -> NDArray[np.int64]:
    sums = np.zeros(task.counts.n_genes, dtype=np.int64)
    for _, counts, _, has in task.samples():
        add_sorted_logs(counts if has is None else counts[has], sums)
    return sums


@dataclass(frozen=True, slots=True)
class _Quartiles:
    """Upper quartiles and sums of roots of samples, over genes with a count anywhere."""

    is_seen: NDArray[np.bool_]

    def __call__(self, task: _RowsTask) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return rows and (row, 2)."""
        found = [
            (upper_quartile(counts[self.is_seen if has is None else self.is_seen & has], total), np.sqrt(counts).sum())
            for _, counts, total, has in task.samples()
        ]
        return task.rows, np.array(found)


@dataclass(frozen=True, slots=True)
class _Factors:
    """Factors of samples beside the reference."""

    reference: NDArray[np.uint32]
    total: int

    def __call__(self, task: _RowsTask) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return rows and factors."""
        found = [
            trimmed_mean_factor(counts, total, self.reference, self.total) for _, counts, total, _ in task.samples()
        ]
        return task.rows, np.array(found)


def _gather(results: Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Put the results of blocks in the order of their samples."""
    return np.concatenate([values for _, values in sorted(results, key=lambda found: int(found[0][0]))])


def _fitted_columns(fit: _Fit, publication: Publication) -> list[Column]:
    """Fit what the method needs of the samples."""
    if fit.options.method == "quantile":
        sums = np.zeros(fit.counts.n_genes, dtype=np.int64)
        for found in fit.run(_sum_sorted):
            sums += found
        return _reference_columns(reference_of_sums(sums, len(fit.rows)))
    if fit.options.method == "tmm":
        seen = read_arrays(publication.root, publication.base, ["gene_n_positive"])["gene_n_positive"] > 0
        quartiles, roots = _gather(fit.run(_Quartiles(seen))).T
        chosen = int(fit.rows[choose_reference(quartiles, roots)])
        reference, total = fit.counts.read(slice(chosen, chosen + 1))[0], int(fit.counts.sample_total[chosen])
        factors = _gather(fit.run(_Factors(reference, total)))
        return _factor_columns(fit, chosen, reference, factors)
    return []


# -- the store's side ----------------------------------------------------------------------------------------------


def _reference_columns(reference: NDArray[np.float64]) -> list[Column]:
    return [Column("reference_value", reference, "rank", "float64")]


def _factor_columns(
    fit: _Fit, chosen: int, reference: NDArray[np.uint32], factors: NDArray[np.float64]
) -> list[Column]:
    mean, of_samples = geometric_mean(factors), np.full(fit.counts.n_samples, np.nan)
    of_samples[fit.rows] = factors / mean
    return [
        Column("gene_reference_count", reference, "gene", "uint32"),
        Column("reference_id", [fit.counts.sample_ids[chosen]], "reference", "string"),
        Column("reference_total", np.array([fit.counts.sample_total[chosen]]), "reference", "int64"),
        Column("factor_mean", np.array([mean]), "reference", "float64"),
        Column("sample_factor", of_samples, "sample", "float64"),
    ]


def _columns(fit: _Fit, mean: NDArray[np.float64]) -> list[Column]:
    counts = fit.counts
    is_fitted = fitted_mask(counts.n_samples, fit.rows)
    return table_columns(counts.gene_ids, counts.gene_symbols, mean, is_fitted, fit.judged.ledger())


def _shaped_columns(fit: _Fit) -> list[Column]:
    """Columns of the method, of the shapes they will have."""
    n_genes, first = fit.counts.n_genes, int(fit.rows[0])
    if fit.options.method == "quantile":
        return _reference_columns(np.zeros(n_genes))
    if fit.options.method == "tmm":
        return _factor_columns(fit, first, np.zeros(n_genes, dtype=np.uint32), np.ones(len(fit.rows)))
    return []


def _publication(fit: _Fit) -> Publication:
    n_genes, pins = fit.counts.n_genes, pins_of_fit(fit.store, fit.counts, fit.options)
    plan = Plan(
        kind="normalized",
        encoder=NORMALIZED_ENCODER,
        inputs=(),
        parents=pins,
        options=fit.options.document(),
        chunking={},
    )
    columns = [*_columns(fit, np.zeros(n_genes)), *_shaped_columns(fit)]
    return Publication(
        root=fit.store.root,
        path=f"normalized/{fit.name}",
        plan=plan,
        specs=[*gene_specs(STATISTICS, n_genes), *(column.spec() for column in columns)],
        attributes={
            "options": plan.document()["options"],
            "pins": nested(pins),
            "n_genes": n_genes,
            "n_samples_fitted": len(fit.rows),
        },
        provenance={"versions": {"splicestore": version("splicestore"), "numpy": np.__version__}},
    )


def _report(fit: _Fit, outcome: Outcome) -> ScalingReport:
    is_tmm = fit.options.method == "tmm"
    names = ["gene_is_kept", "gene_is_expressed", *(["reference_id", "sample_factor"] if is_tmm else [])]
    found = read_arrays(outcome.publication.root, outcome.publication.base, names)
    factors = found["sample_factor"][fit.rows] if is_tmm else None
    return ScalingReport(
        name=fit.name,
        generation=outcome.publication.generation,
        status=outcome.status,
        method=fit.options.method,
        n_genes=fit.counts.n_genes,
        n_genes_kept=int(found["gene_is_kept"].sum()),
        n_genes_expressed=int(found["gene_is_expressed"].sum()),
        n_samples_fitted=len(fit.rows),
        dropped={reason: n for reason, n in fit.judged.dropped.items() if n},
        reference_sample=str(found["reference_id"][0]) if is_tmm else None,
        factors=None if factors is None else (float(factors.min()), float(factors.max())),
        projected_peak_bytes=fit.projected,
        observed_peak_bytes=outcome.observed_peak_bytes,
    )
