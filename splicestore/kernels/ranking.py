"""Ranking metrics over very many scores: average precision, top-k accuracy, correlations.

Only the scores of true positions and the number of scores above them matter, so everything is computed
from *tie groups*: the distinct scores that at least one true position has. They come from the scores
themselves (exact) or from counts per score bin (bounded memory however many scores there are); ties are
resolved by their expectation, so no ranking depends on the order of the input (correlations do in their last digits).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

N_BINS = 65_536
"""Every float16 has a bin of its own."""

_LARGEST_FLOAT16 = 65_504.0


@dataclass(frozen=True, slots=True)
class TieGroups:
    """Distinct scores that true positions have, from the highest to the lowest."""

    n_true: Int64
    """(group,) true positions with this score; at least 1."""
    n_equal: Int64
    """(group,) all positions with this score, true or not."""
    n_above: Int64
    """(group,) all positions with a higher score."""
    n_positions: int
    """All positions that were ranked."""

    @property
    def total_true(self) -> int:
        """True positions in all."""
        return int(self.n_true.sum())


def tie_groups(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> TieGroups:
    """Rank true positions among all of them.

    Parameters
    ----------
    scores : (n,) floating
        Higher means more likely true; finite. One sorted copy is made.
    truth : (n,) bool

    Raises
    ------
    ValueError
        If a score is NaN: it has no rank.
    """
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN and have no rank")
    values, n_true = np.unique(scores[truth], return_counts=True)
    ordered = np.sort(scores)
    below = np.asarray(np.searchsorted(ordered, values, side="left"), dtype=np.int64)
    up_to = np.asarray(np.searchsorted(ordered, values, side="right"), dtype=np.int64)
    return TieGroups(
        n_true=n_true[::-1].astype(np.int64),
        n_equal=np.subtract(up_to, below)[::-1],
        n_above=np.subtract(len(scores), up_to)[::-1],
        n_positions=len(scores),
    )


def tie_groups_from_counts(n_true: Int64, n_equal: Int64) -> TieGroups:
    """Rank true positions from counts per score.

    Parameters
    ----------
    n_true, n_equal : (bin,) int64
        True and all positions per score bin, bins in increasing order of score.
    """
    n_above = int(n_equal.sum()) - np.cumsum(n_equal)
    rows = np.flatnonzero(n_true)[::-1]
    return TieGroups(n_true[rows], n_equal[rows], n_above[rows], int(n_equal.sum()))


def score_bins(scores: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Number scores by their float16 value, in the same order.

    Parameters
    ----------
    scores : (n,) floating
        Finite; beyond the range of float16 they fall into its last bin.

    Returns
    -------
    bins : (n,) uint16
        ``bins[i] < bins[j]`` implies ``scores[i] < scores[j]``.

    Examples
    --------
    >>> np.argsort(score_bins(np.array([0.5, -2.0, 0.0, 3.0]))).tolist()
    [1, 2, 0, 3]
    """
    # Adding 0 turns -0.0, whose bits differ from those of 0.0, into 0.0.
    bits = (np.clip(scores, -_LARGEST_FLOAT16, _LARGEST_FLOAT16).astype(np.float16) + np.float16(0)).view(np.uint16)
    ordered: NDArray[np.uint16] = np.where(bits >= 0x8000, ~bits, bits | np.uint16(0x8000))
    return ordered


def average_precision(groups: TieGroups) -> float | None:
    """Sum precision over the steps of recall: ``sum((R_i - R_{i-1}) * P_i)`` over distinct thresholds.

    This is scikit-learn's definition: positions with equal scores are one step, nothing is interpolated.

    Returns
    -------
    value
        In (0, 1], or None where nothing is true.

    Examples
    --------
    >>> round(average_precision(tie_groups(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))), 4)
    0.8333
    """
    total = groups.total_true
    if total == 0:
        return None
    precision = np.cumsum(groups.n_true) / (groups.n_above + groups.n_equal)
    return float((groups.n_true * precision).sum() / total)


def top_k_accuracy(groups: TieGroups, k: int | None = None) -> float | None:
    """Share of true positions among the ``k`` with the highest scores, as SpliceAI defines it.

    Parameters
    ----------
    groups
        Of one class.
    k
        Defaults to the number of true positions. The divisor is the smaller of ``k`` and that number.

    Returns
    -------
    value
        In [0, 1], or None where nothing is true. Where the k-th score is shared, the expectation over the
        orders of the tied positions.

    Examples
    --------
    >>> top_k_accuracy(tie_groups(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])))
    0.75
    """
    total = groups.total_true
    if k is None:
        k = total
    if total == 0 or k < 1:
        return None
    places = np.clip(k - groups.n_above, 0, groups.n_equal)
    hits = float((groups.n_true * (places / groups.n_equal)).sum())
    return hits / min(k, total)


def average_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rank from 1; equal values share the mean of their ranks.

    Examples
    --------
    >>> average_ranks(np.array([10.0, 30.0, 10.0])).tolist()
    [1.5, 3.0, 1.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = ((last - counts + 1 + last) / 2)[inverse]
    return ranks


def pearson(x: NDArray[np.floating], y: NDArray[np.floating]) -> float | None:
    """Pearson's correlation; None for fewer than two pairs or where one side is constant.

    Examples
    --------
    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    1.0
    """
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return None
    dx = x.astype(np.float64) - x.mean(dtype=np.float64)
    dy = y.astype(np.float64) - y.mean(dtype=np.float64)
    # Scaled to 1 first: the squares of tiny deviations would be zero.
    dx, dy = dx / np.abs(dx).max(), dy / np.abs(dy).max()
    return float(np.clip((dx @ dy) / np.sqrt((dx @ dx) * (dy @ dy)), -1.0, 1.0))


def spearman(x: NDArray[np.floating], y: NDArray[np.floating]) -> float | None:
    """Spearman's correlation: Pearson's of the average ranks; None where that is not defined.

    Examples
    --------
    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 100.0]))
    1.0
    """
    if len(x) < 2:
        return None
    return pearson(average_ranks(x), average_ranks(y))
