"""What a branch of the tree does to the bases of one element."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from splicestore.simulate.loci import Piece
from splicestore.simulate.packed import Class, class_of

Int64 = NDArray[np.int64]
Codes = NDArray[np.uint8]

RELATIVE_RATE: Final = np.array([1.0, 0.8, 0.25, 0.06, 0.0])
"""Substitutions of each class against neutral ones."""
INDELS_PER_SUBSTITUTION: Final = 0.08
MAX_INDEL: Final = 30


def mutate(rng: np.random.Generator, piece: Piece, neutral_rate: float) -> Piece:
    """Apply the substitutions and indels of a branch.

    Splice signals change slowly, intron ends never, and indels touch spacers and plain intron bases only, so
    every gene stays spliceable while its intergenic neighbourhood drifts away.

    Parameters
    ----------
    neutral_rate
        Expected substitutions per spacer base.
    """
    if neutral_rate == 0.0:
        return piece
    code = _substituted(rng, piece.code, neutral_rate)
    code, prefix = _with_indels(rng, code, neutral_rate * INDELS_PER_SUBSTITUTION)
    if prefix is None or not piece.genes:
        return Piece(code, piece.genes)
    return Piece(code, tuple(gene.moved(prefix) for gene in piece.genes))


def _hits(rng: np.random.Generator, code: Codes, rate: float) -> Int64:
    """Draw positions to change; constrained classes shrug most of theirs off."""
    at = rng.integers(0, len(code), int(rng.binomial(len(code), min(rate, 1.0))))
    return at[rng.random(len(at)) < RELATIVE_RATE[class_of(code[at])]]


def _substituted(rng: np.random.Generator, code: Codes, rate: float) -> Codes:
    at = _hits(rng, code, rate)
    old = code[at]
    step = rng.integers(1, 4, len(at), dtype=np.uint8)
    changed = code.copy()
    changed[at] = (old & np.uint8(0xFC)) | ((old + step) & np.uint8(3))
    return changed


def _with_indels(rng: np.random.Generator, code: Codes, rate: float) -> tuple[Codes, Int64 | None]:
    """Delete and insert short runs; returns the bases and the new coordinate of every old boundary."""
    soft = class_of(code) <= Class.INTRON
    at = np.unique(_hits(rng, code, rate))
    at = at[soft[at]]
    if len(at) == 0:
        return code, None
    size = np.minimum(rng.geometric(0.25, len(at)), MAX_INDEL)
    is_insertion = rng.random(len(at)) < 0.5
    counts = np.ones(len(code), dtype=np.int64)
    gone = _runs(at[~is_insertion], size[~is_insertion])
    gone = gone[gone < len(code)]
    counts[gone[soft[gone]]] = 0
    inserts, size = at[is_insertion], size[is_insertion]
    counts[inserts] += size
    prefix = np.zeros(len(code) + 1, dtype=np.int64)
    np.cumsum(counts, out=prefix[1:])
    if prefix[-1] == 0:
        return code, None
    result = np.repeat(code, counts)
    new = _runs(prefix[inserts + 1] - size, size)
    drawn = rng.integers(0, 4, len(new), dtype=np.uint8)
    result[new] = (result[new] & np.uint8(0xFC)) | drawn
    return result, prefix


def _runs(start: Int64, size: Int64) -> Int64:
    """List ``start, start + 1, .. start + size - 1`` of every run."""
    first = np.cumsum(size) - size
    return np.repeat(start - first, size) + np.arange(int(size.sum()))
