"""Bins of samples as sequences of genes, as GeneRAIN trains on: most expressed genes, second-stage levels, masks, shifts.

A sample becomes its k genes with the highest bins, highest first, equal ones by their column: a rule, where GeneRAIN
(github.com/suzheng/GeneRAIN) leaves ties to ``argpartition`` and an unstable sort. Its second stage (``uniform_bin_count_keep_ones``)
puts the bins above 1 of a sample into ``n`` levels by their own quantiles: edges
``e_j = v[h // n] + (v[h // n + 1] - v[h // n]) (h mod n) / n``
with ``h = j (m - 1)``, ``j = 0..n``, over the m sorted values v (numpy's linear quantiles at ``j / n``), and a value has the level
``max(1, #{j: e_j < value})``. Here all of it is in integers, so no level depends on rounding.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from splicestore.kernels.shuffle import draw_masks

TOKEN_MASK, TOKEN_PAD, TOKEN_START = 0, 1, 2
"""Special tokens, below those of genes; GeneRAIN keeps 0..2 for them too, and masks with 0."""
NO_TARGET = -100
"""No loss here: what torch's cross entropy ignores."""
LEVEL_MASK = 0
"""Level of a masked or absent value; levels are 1..n."""
_BIN_ZERO = 1

Int32 = NDArray[np.int32]
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


@njit(cache=True, nogil=True)
def _top_genes(bins, n_bins, out):  # type: ignore[no-untyped-def]
    place = np.empty(n_bins + 2, dtype=np.int64)
    for s in range(bins.shape[0]):
        place[:] = 0
        for g in range(bins.shape[1]):
            place[bins[s, g]] += 1
        above = 0
        for b in range(n_bins + 1, -1, -1):
            above, place[b] = above + place[b], above
        for g in range(bins.shape[1]):
            b = bins[s, g]
            if b > 0 and place[b] < out.shape[1]:
                out[s, place[b]] = g
            place[b] += 1


def top_genes(bins: NDArray[np.uint16], k: int) -> Int32:
    """Columns of the k highest bins of each sample, highest first, equal bins by column; missing genes (bin 0) never.

    Parameters
    ----------
    bins : (sample, gene) uint16
    k
        How many; fewer genes leave places empty.

    Returns
    -------
    column : (sample, k) int32
        -1 where a sample has no further measured gene.
    """
    out = np.full((len(bins), k), -1, dtype=np.int32)
    _top_genes(bins, int(bins.max(initial=0)), out)
    return out


@njit(cache=True, nogil=True)
def _levels(ordered, n_levels, out):  # type: ignore[no-untyped-def]
    for s in range(ordered.shape[0]):
        m = 0
        while m < ordered.shape[1] and ordered[s, m] > _BIN_ZERO:
            m += 1
        j = 0
        # Ascending values and ascending edges: both are walked once.
        for rank in range(m):
            value = np.int64(ordered[s, m - 1 - rank])
            while j <= n_levels:
                h = j * (m - 1)
                low, part = h // n_levels, h % n_levels
                below = np.int64(ordered[s, m - 1 - low])
                above = np.int64(ordered[s, m - 2 - low]) if part else below
                if (above - below) * part >= (value - below) * n_levels:
                    break
                j += 1
            out[s, m - 1 - rank] = max(1, j)
        for place in range(m, ordered.shape[1]):
            out[s, place] = 1 if ordered[s, place] == _BIN_ZERO else LEVEL_MASK


def second_stage(ordered: NDArray[np.uint16], n_levels: int) -> Int32:
    """Levels 1..n of each sample's bins by the quantiles of those above 1; a bin of 1 (zero) has level 1 too.

    Parameters
    ----------
    ordered : (sample, k) uint16
        Bins, highest first.
    n_levels
        n.

    Returns
    -------
    level : (sample, k) int32
        0 for bin 0 (missing).
    """
    out = np.empty(ordered.shape, dtype=np.int32)
    _levels(ordered, n_levels, out)
    return out


def shift_genes(gene: Int32, level: Int32) -> tuple[Int32, Int32, Int32]:
    """What a GPT reads and predicts: at each place the genes before it, and the gene there.

    Parameters
    ----------
    gene, level : (sample, k) int32
        Tokens (``TOKEN_PAD`` where there is none) and levels.

    Returns
    -------
    input_gene, input_level, target : (sample, k) int32
        ``TOKEN_START`` and then all but the last; the target is ``NO_TARGET`` at padding.
    """
    input_gene, input_level = np.empty_like(gene), np.empty_like(level)
    input_gene[:, 0], input_level[:, 0] = TOKEN_START, LEVEL_MASK
    input_gene[:, 1:], input_level[:, 1:] = gene[:, :-1], level[:, :-1]
    return input_gene, input_level, np.where(gene == TOKEN_PAD, np.int32(NO_TARGET), gene)


@njit(cache=True, nogil=True)
def _mask(values, absent, words, threshold, mask, others, masked, target):  # type: ignore[no-untyped-def]
    for s in range(values.shape[0]):
        for place in range(values.shape[1]):
            value = values[s, place]
            masked[s, place], target[s, place] = value, NO_TARGET
            if value == absent or (words[s, place] >> _HALF) >= threshold:
                continue
            target[s, place] = value
            kind = (words[s, place] & _LOW) * np.uint64(10)
            choice, rest = kind >> _HALF, kind & _LOW
            if choice < 8:
                masked[s, place] = mask
            elif choice == 8:
                masked[s, place] = others[(rest * np.uint64(len(others))) >> _HALF]


def mask_values(
    values: Int32, absent: int, mask: int, others: Int32, sample: NDArray[np.int64], seed: int, epoch: int, share: float
) -> tuple[Int32, Int32]:
    """Hide a share of the values as BERT does: of those chosen 80% are masked, 10% replaced at random, 10% kept.

    A place is chosen if the upper half of its word (``draw_masks``) is below ``share * 2**32``; ten times the lower half
    says what becomes of it, and its rest which other value is taken. So a sample is masked alike in every run of an epoch,
    in whatever batch it comes.

    Parameters
    ----------
    values : (sample, k) int32
        Tokens or levels.
    absent
        Value at padding: never chosen.
    mask
        What stands for a masked value.
    others : (n,) int32
        What a value may be replaced by.
    sample : (sample,) int64
        Row of each sample in its matrix.
    share
        In [0, 1].

    Returns
    -------
    masked, target : (sample, k) int32
        ``target`` is the value where one was chosen, else ``NO_TARGET``.
    """
    masked, target = np.empty_like(values), np.empty_like(values)
    words = draw_masks(seed, epoch, sample, values.shape[1])
    _mask(values, absent, words, np.uint64(round(share * 2**32)), mask, others, masked, target)
    return masked, target
