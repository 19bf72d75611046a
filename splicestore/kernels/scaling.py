"""Scalings of one sample's counts: per million, logarithms, quantiles of a reference, and by trimmed mean of M-values.

Each is a function of the sample's own counts and of what was fitted and stored; so new samples are scaled one by one as all were.

*Counts per million*: ``count / total * 1e6``, the total over all genes of the source.

*Quantiles* (Bolstad et al. 2003, Bioinformatics 19:185-193) of ``log2(1 + count)``. The reference of rank j is the mean over the
fitted samples of their j-th smallest value; a gene gets the reference of its rank in its sample. Equal counts all get the mean of the
references of their ranks, as in the Python package qnorm and so in ARCHS4's tools: a sample's values have the mean of the reference
whatever its ties. A sample that lacks genes is stretched, as by limma's ``normalizeQuantiles``: its g values are points at
``j / (g - 1)``, linear between them. Sums are of integers (``rint(value * 2^32)``), so the reference is the same to the last bit for any
order or cut of the samples.

*Trimmed mean of M-values* (Robinson & Oshlack 2010, Genome Biology 11:R25), with the constants of edgeR's ``calcNormFactors`` (its
``Acutoff`` of -1e10 excludes no gene with counts). Of a sample with counts y, total N, and the reference sample with r, R, over genes
with a count in both: ``M = log2((y / N) / (r / R))``, ``A = (log2(y / N) + log2(r / R)) / 2``, and the asymptotic variance
``v = (N - y) / (N y) + (R - r) / (R r)``. Genes whose rank of M (of equal ones the mean) is in the outer 30 % of either side, or of A in
the outer 5 %, are left out; ``log2 factor = sum(M / v) / sum(1 / v)`` over the others. The reference is the sample whose upper quartile
over total is nearest to the mean of all. Factors are divided by their geometric mean over the fitted samples, so that their product
there is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PER_MILLION = 1e6
FIXED_POINT = 2.0**32
"""Units in one of ``log2(1 + count)``, at most 32: a sum has room for 2^26 samples."""
MAX_SUMMED = 2**26
SCORE_UNITS = 2.0**26
"""Units in one of a score, at most 7."""
LOG_RATIO_TRIM = 0.3
ABUNDANCE_TRIM = 0.05
_SAME = 1e-6
"""Samples whose largest log ratio is below have the factor 1."""
_NO_QUARTILE = 1e-20


@dataclass
class MeanOfScores:
    """Sums of the scores of some genes, in fixed point: the same to the last bit for any order or cut of the samples."""

    n_positive: NDArray[np.int64]
    """(gene,) scores above 0."""
    n_measured: NDArray[np.int64]
    """(gene,) samples that have the gene."""
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]
    """(gene,) of squares all but the last 32 bits."""
    square_rests: NDArray[np.int64]
    """(gene,) of squares the last 32 bits."""

    @classmethod
    def empty(cls, n_genes: int) -> MeanOfScores:
        """Start with no sample."""
        return cls(*(np.zeros(n_genes, dtype=np.int64) for _ in range(5)))

    def add(self, scores: NDArray[np.float32], n_measured: NDArray[np.int64]) -> None:
        """Add some samples: scores (sample, gene), of genes that a sample lacks 0."""
        units = np.rint(scores.astype(np.float64) * SCORE_UNITS).astype(np.int64)
        self.n_positive += np.count_nonzero(scores, axis=0)
        self.n_measured += n_measured
        self.sums += units.sum(axis=0)
        units *= units
        self.squares += (units >> 32).sum(axis=0)
        self.square_rests += (units & 0xFFFFFFFF).sum(axis=0)

    def mean_and_std(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and population standard deviation of each gene, to 1e-8: (gene,) twice, NaN where no sample has it."""
        mean, std = np.full(len(self.sums), np.nan), np.full(len(self.sums), np.nan)
        for gene in np.flatnonzero(self.n_measured).tolist():
            n, total = int(self.n_measured[gene]), int(self.sums[gene])
            squares = (int(self.squares[gene]) << 32) + int(self.square_rests[gene])
            mean[gene] = total / n / SCORE_UNITS
            std[gene] = math.sqrt(n * squares - total * total) / n / SCORE_UNITS
        return mean, std


def per_million(counts: NDArray[np.uint32], total: float) -> NDArray[np.float64]:
    """Scale counts to a million: (gene,) float64. ``total`` may be an effective one: total times factor."""
    return np.asarray(counts * (PER_MILLION / total), dtype=np.float64)


def add_sorted_logs(counts: NDArray[np.uint32], sums: NDArray[np.int64]) -> None:
    """Add the sorted ``log2(1 + count)`` of one sample to the sums of ranks, in fixed point.

    Parameters
    ----------
    counts : (g,) uint32
        Of the genes that the sample has.
    sums : (gene,) int64
        Counted up; g or more.
    """
    ordered = np.log2(1.0 + np.sort(counts))
    sums += np.rint(_stretch(ordered, len(sums)) * FIXED_POINT).astype(np.int64)


def reference_of_sums(sums: NDArray[np.int64], n_samples: int) -> NDArray[np.float64]:
    """Return the mean value of each rank: (gene,) float64, ascending."""
    return np.asarray(sums / (n_samples * FIXED_POINT), dtype=np.float64)


def _stretch(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    if len(values) == n:
        return values
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(values)), values)


def reference_quantiles(counts: NDArray[np.uint32], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace the counts of one sample by the reference values of their ranks.

    Parameters
    ----------
    counts : (g,) uint32
        Of the genes that the sample has.
    reference : (gene,) float64
        Ascending; g or more.

    Returns
    -------
    values : (g,) float64
        Equal where counts are; their mean is that of the reference if g is all genes.
    """
    order = np.argsort(counts)
    ordered = counts[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(counts) else np.zeros(0, dtype=np.int64)
    n_tied = np.diff(np.append(first, len(counts)))
    means = np.add.reduceat(_stretch(reference, len(counts)), first) / n_tied if len(counts) else np.zeros(0)
    values = np.empty(len(counts))
    values[order] = np.repeat(means, n_tied)
    return values


def upper_quartile(counts: NDArray[np.uint32], total: int) -> float:
    """Return the upper quartile of one sample's counts, linear between ranks as in R's ``quantile``, over its total."""
    return float(np.quantile(counts, 0.75)) / total if len(counts) else 0.0


def choose_reference(quartiles: NDArray[np.float64], root_sums: NDArray[np.float64]) -> int:
    """Choose the reference sample as edgeR does.

    Parameters
    ----------
    quartiles : (sample,) float64
        From ``upper_quartile``, over genes with a count in any sample.
    root_sums : (sample,) float64
        Sums of the square roots of counts: where most quartiles are 0, the sample with the largest is taken.

    Returns
    -------
    row
        The first of equally good ones.
    """
    if np.median(quartiles) < _NO_QUARTILE:
        return int(np.argmax(root_sums))
    return int(np.argmin(np.abs(quartiles - quartiles.mean())))


def trimmed_mean_factor(
    counts: NDArray[np.uint32], total: int, reference: NDArray[np.uint32], reference_total: int
) -> float:
    """Return the scaling factor of a sample beside the reference, by trimmed mean of M-values, not divided by the others' mean.

    Parameters
    ----------
    counts, reference : (gene,) uint32
    total, reference_total
        Over all genes of the source.

    Returns
    -------
    factor
        1 where the samples share no gene, or have the same proportions.
    """
    shared = (counts > 0) & (reference > 0)
    y, r = counts[shared].astype(np.float64), reference[shared].astype(np.float64)
    # In the order of edgeR's operations, so that equal ratios are equal floats there and here.
    ratio = np.log2((y / total) / (r / reference_total))
    abundance = (np.log2(y / total) + np.log2(r / reference_total)) / 2
    variance = (total - y) / total / y + (reference_total - r) / reference_total / r
    if not len(ratio) or np.abs(ratio).max() < _SAME:
        return 1.0
    keep = _untrimmed(ratio, LOG_RATIO_TRIM) & _untrimmed(abundance, ABUNDANCE_TRIM)
    if not keep.any():
        return 1.0
    return float(2 ** (np.sum(ratio[keep] / variance[keep]) / np.sum(1 / variance[keep])))


def _untrimmed(values: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Whether the rank of each value, from 1 on, equal ones by their mean, is neither among the lowest nor the highest ``share``."""
    n, ordered = len(values), np.sort(values)
    low = int(n * share) + 1
    first, last = _ranks_of(ordered, ordered[low - 1])
    # Equal values at the bound are in or out together, by their mean rank.
    lowest = first if first + last >= 2 * low else last + 1
    first, last = _ranks_of(ordered, ordered[n - low])
    highest = last if first + last <= 2 * (n + 1 - low) else first - 1
    if lowest > highest:
        return np.zeros(n, dtype=bool)
    return np.asarray((values >= ordered[lowest - 1]) & (values <= ordered[highest - 1]))


def _ranks_of(ordered: NDArray[np.float64], value: float) -> tuple[int, int]:
    """First and last rank, from 1 on, of the values equal to one."""
    return int(np.searchsorted(ordered, value, "left")) + 1, int(np.searchsorted(ordered, value, "right"))


def geometric_mean(factors: NDArray[np.float64]) -> float:
    """Return what factors are divided by so that their product is 1."""
    return float(np.exp(np.mean(np.log(factors))))
