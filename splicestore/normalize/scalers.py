"""Scalings as functions of one sample, built from what a fit stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError
from splicestore.kernels.scaling import per_million, reference_quantiles, trimmed_mean_factor
from splicestore.normalized import Normalized

MISSING = np.float32(np.nan)


class Scaler(Protocol):
    """Scale one sample."""

    def __call__(self, counts: NDArray[np.uint32], total: int, has: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Scale the counts of a sample.

        Parameters
        ----------
        counts : (gene,) uint32
            Of the fitted genes, 0 where the sample lacks one.
        total
            Over all genes of its source, positive.
        has : (gene,) bool
            Which genes it has; None: all.

        Returns
        -------
        values : (gene,) float64
            Of genes that it lacks anything.
        """
        ...


@dataclass(frozen=True, slots=True)
class PerMillion:
    """Counts per million."""

    def __call__(self, counts: NDArray[np.uint32], total: int, has: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Scale one sample."""
        return per_million(counts, total)


@dataclass(frozen=True, slots=True)
class Logarithm:
    """Natural logarithm of counts, or of counts per million, plus a pseudo-count."""

    of_counts: bool
    pseudo_count: float

    def __call__(self, counts: NDArray[np.uint32], total: int, has: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Scale one sample."""
        values = counts.astype(np.float64) if self.of_counts else per_million(counts, total)
        return np.asarray(np.log(values + self.pseudo_count))


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of the reference."""

    reference: NDArray[np.float64]

    def __call__(self, counts: NDArray[np.uint32], total: int, has: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Scale one sample."""
        if has is None:
            return reference_quantiles(counts, self.reference)
        values = np.zeros(len(counts))
        values[has] = reference_quantiles(counts[has], self.reference)
        return values


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """Counts per million of the effective total: the total times its factor beside the reference sample."""

    reference: NDArray[np.uint32]
    reference_total: int
    factor_mean: float
    """Geometric mean of the fitted samples' factors."""

    def __call__(self, counts: NDArray[np.uint32], total: int, has: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Scale one sample."""
        factor = trimmed_mean_factor(counts, total, self.reference, self.reference_total) / self.factor_mean
        return per_million(counts, total * factor)


def scaler_of(fitted: Normalized) -> Scaler:
    """Build the function of a stored scaling.

    Raises
    ------
    ConfigError
        If it has bins instead.
    """
    options = fitted.attributes["options"]
    makers: dict[str, Callable[[], Scaler]] = {
        "cpm": PerMillion,
        "log1p": lambda: Logarithm(options["log_of"] == "counts", float(options["pseudo_count"])),
        "quantile": lambda: Quantiles(fitted.array("reference_value")),
        "tmm": lambda: TrimmedMean(
            fitted.array("gene_reference_count"),
            int(fitted.array("reference_total")[0]),
            float(fitted.array("factor_mean")[0]),
        ),
    }
    if fitted.method not in makers:
        raise ConfigError(f"normalisation {fitted.name} is no scaling, its method is {fitted.method}")
    return makers[fitted.method]()


def arrange_genes(
    counts: NDArray[np.uint32], measured: NDArray[np.bool_] | None, gene_of: NDArray[np.integer]
) -> tuple[NDArray[np.uint32], NDArray[np.bool_] | None]:
    """Put the counts of some samples in the order of the fitted genes.

    Parameters
    ----------
    counts : (sample, own gene) uint32
    measured : (sample, own gene) bool
        None: all are.
    gene_of : (gene,) integer
        Column of each fitted gene, -1 where there is none.

    Returns
    -------
    counts : (sample, gene) uint32
        0 where a sample lacks the gene.
    has : (sample, gene) bool
        None: each has all.
    """
    known = gene_of >= 0
    if len(gene_of) == counts.shape[1] and np.array_equal(gene_of, np.arange(len(gene_of))):
        return counts, measured
    arranged = np.zeros((len(counts), len(gene_of)), dtype=np.uint32)
    arranged[:, known] = counts[:, gene_of[known]]
    if measured is None and known.all():
        return arranged, None
    has = np.zeros(arranged.shape, dtype=bool)
    has[:, known] = True if measured is None else measured[:, gene_of[known]]
    return arranged, has


def scale_samples(
    scaler: Scaler,
    counts: NDArray[np.uint32],
    totals: NDArray[np.int64],
    has: NDArray[np.bool_] | None,
    wanted: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Scale samples one by one.

    Parameters
    ----------
    counts : (sample, gene) uint32
    totals : (sample,) int64
    has : (sample, gene) bool
        None: each has all genes.
    wanted : (n,) integer
        Genes whose values are returned.

    Returns
    -------
    values : (sample, n) float32
        NaN for genes that a sample lacks, and for samples without a count.
    """
    values = np.full((len(counts), len(wanted)), MISSING, dtype=np.float32)
    for row in np.flatnonzero(totals > 0).tolist():
        mine = None if has is None else has[row]
        values[row] = scaler(counts[row], int(totals[row]), mine)[wanted]
        if mine is not None:
            values[row, ~mine[wanted]] = MISSING
    return values
