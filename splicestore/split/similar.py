"""Samples with nearly the same profile, of all pairs of a cohort: correlation of log scores over the genes that all files have.

A cohort whose scores fit into 512 MiB is compared exactly (to float32). A larger one is compared by sketches of 512 numbers a sample,
2 KB, read and made in one pass: a pair at the threshold or above is missed once in 200,000, one that is 1.75 times as far from
correlation 1 is taken in once in 300,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.expression import Expression
from splicestore.kernels.components import group_components
from splicestore.kernels.correlation import SKETCH_DIMENSIONS, SKETCH_MARGIN, close_pairs, random_signs, unit_rows
from splicestore.schema import COUNTS_SHARD

EXACT_BYTES = 512 * 1024 * 1024
N_EXAMPLES = 5
_SEED = 0
_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True)
class SamplePoints:
    """A point for every sample; half the squared distance of two is 1 - r."""

    values: NDArray[np.float32]
    """(sample, k); 0 for samples without counts."""
    is_exact: bool

    def limit(self, threshold: float) -> float:
        """Half the squared distance up to which two samples count as similar."""
        return (1 - threshold) * (1 if self.is_exact else SKETCH_MARGIN)


@dataclass(frozen=True, slots=True)
class SimilarSamples:
    """What was found among all pairs."""

    group: NDArray[np.int32]
    """(sample,) samples that similar ones lead to from one another have one number."""
    n_similar: int
    """Samples with a similar one."""
    n_across: int
    """Samples with a similar one in another subset."""
    examples: tuple[tuple[int, int, float], ...]
    """Of pairs across subsets the most correlated: rows and correlation."""


def place_samples(counts: Expression, exact_bytes: int = EXACT_BYTES) -> SamplePoints:
    """Read all counts once and make a point of every sample.

    Parameters
    ----------
    exact_bytes
        Up to this size scores are kept whole; beyond, their sketches.
    """
    is_measured = counts.count_measured(np.arange(counts.n_samples), slice(None)) == counts.n_samples
    n_genes = int(is_measured.sum())
    is_exact = 4 * counts.n_samples * n_genes <= exact_bytes
    values = np.zeros((counts.n_samples, n_genes if is_exact else SKETCH_DIMENSIONS), dtype=np.float32)
    total, squares = np.zeros(counts.n_samples), np.zeros(counts.n_samples)
    ones, done = np.zeros(values.shape[1], dtype=np.float32), 0
    for band in range(0, counts.n_genes, COUNTS_SHARD[1]):
        wanted = np.flatnonzero(is_measured[band : band + COUNTS_SHARD[1]])
        place = slice(done, done + len(wanted))
        done += len(wanted)
        signs = None if is_exact else random_signs(len(wanted), _SEED, band)
        for rows, scores in _scores(counts, band, wanted):
            total[rows] += scores.sum(axis=1, dtype=np.float64)
            squares[rows] += np.einsum("ij,ij->i", scores, scores, dtype=np.float64)
            if signs is None:
                values[rows, place] = scores
            else:
                values[rows] += scores @ signs
        if signs is None:
            ones[place] = 1
        else:
            ones += signs.sum(axis=0)
    mean = total / max(1, n_genes)
    length = np.sqrt(np.maximum(0, squares - n_genes * mean * mean))
    return SamplePoints(unit_rows(values, mean, length, ones), is_exact)


def find_similar(points: SamplePoints, threshold: float, subset: NDArray[np.uint8]) -> SimilarSamples:
    """Walk all pairs of samples.

    Parameters
    ----------
    threshold
        Correlation from which two samples are similar.
    subset : (sample,) uint8
        Pairs are looked for across these.
    """
    n_samples = len(points.values)
    group = np.arange(n_samples, dtype=np.int32)
    is_similar, is_across = np.zeros(n_samples, dtype=bool), np.zeros(n_samples, dtype=bool)
    waiting, examples = list[NDArray[np.int64]](), list[tuple[int, int, float]]()
    for first, second, apart in close_pairs(points.values, points.limit(threshold)):
        is_similar[first] = is_similar[second] = True
        across = subset[first] != subset[second]
        is_across[first[across]] = is_across[second[across]] = True
        best = np.flatnonzero(across)[np.argsort(apart[across], kind="stable")[:N_EXAMPLES]]
        found = [(int(first[p]), int(second[p]), 1 - float(apart[p])) for p in best.tolist()]
        examples = sorted(examples + found, key=lambda pair: (-pair[2], pair[:2]))[:N_EXAMPLES]
        apart_yet = group[first] != group[second]
        waiting.append(np.stack((first[apart_yet], second[apart_yet])))
        if sum(pairs.shape[1] for pairs in waiting) > _PAIRS_AT_ONCE:
            group, waiting = _join(group, waiting), []
    return SimilarSamples(_join(group, waiting), int(is_similar.sum()), int(is_across.sum()), tuple(examples))


def _scores(counts: Expression, band: int, wanted: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield (samples, their scores) of some genes of a band, a tile at a time."""
    # Compiled: most splits look at no score.
    from splicestore.kernels.binning import score_counts

    height, width = COUNTS_SHARD
    for first in range(0, counts.n_samples if len(wanted) else 0, height):
        rows = slice(first, min(counts.n_samples, first + height))
        box = counts.read(rows, slice(band, min(counts.n_genes, band + width)))
        yield rows, score_counts(np.ascontiguousarray(box[:, wanted]), counts.sample_total[rows])


def _join(group: NDArray[np.int32], waiting: list[NDArray[np.int64]]) -> NDArray[np.int32]:
    pairs = np.concatenate(waiting, axis=1) if waiting else np.zeros((2, 0), dtype=np.int64)
    number = len(group) + np.arange(pairs.shape[1])
    member = np.concatenate((np.arange(len(group)), *pairs))
    return group_components(len(group), member, np.concatenate((group, number, number)))
