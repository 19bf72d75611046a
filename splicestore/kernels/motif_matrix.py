"""Position weight matrices: base counts around labelled positions, log-odds, scans. Codes A C G T N = 0..4."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.sequence import N_CODE


@dataclass(frozen=True, slots=True)
class MotifShape:
    """Where a motif lies relative to the labelled base, in transcript orientation."""

    before: int
    """Bases of the motif before the labelled base."""
    after: int
    """Bases of the motif after the labelled base."""

    @property
    def length(self) -> int:
        """Bases in all, the labelled one included."""
        return self.before + 1 + self.after


# Labels sit on the exon's boundary base: the last base before the intron (donor), the first after it (acceptor).
DONOR_MOTIF = MotifShape(before=2, after=6)
"""9 bases: exon -3..-1, intron +1..+6."""
ACCEPTOR_MOTIF = MotifShape(before=20, after=2)
"""23 bases: intron -20..-1, exon +1..+3."""


def base_counts(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count A, C, G, T over all bases: ``(4,)`` int64; N is not counted."""
    return np.bincount(codes.ravel(), minlength=N_CODE + 1)[:N_CODE].astype(np.int64)


def motif_counts(
    codes: NDArray[np.uint8], row: NDArray[np.integer], position: NDArray[np.integer], shape: MotifShape
) -> NDArray[np.int64]:
    """Count bases at each place of a motif.

    Parameters
    ----------
    codes : (n, L) uint8
        Inputs in transcript orientation.
    row, position : (m,) integer
        The labelled bases: row of ``codes`` and 0-based column. Motif bases outside the input read as N.
    shape
        Extent of the motif.

    Returns
    -------
    counts : (shape.length, 4) int64
        N is not counted.
    """
    column = position.astype(np.int64)[:, None] + np.arange(-shape.before, shape.after + 1)
    inside = (column >= 0) & (column < codes.shape[1])
    bases = np.where(inside, codes[row[:, None], np.clip(column, 0, codes.shape[1] - 1)], N_CODE).astype(np.int64)
    place = np.broadcast_to(np.arange(shape.length), bases.shape)
    flat = np.bincount((place * (N_CODE + 1) + bases).ravel(), minlength=shape.length * (N_CODE + 1))
    return flat.reshape(shape.length, N_CODE + 1)[:, :N_CODE].astype(np.int64)


def log_odds(
    counts: NDArray[np.integer], background: NDArray[np.integer], pseudocount: float = 1.0
) -> NDArray[np.float32]:
    """Turn counts into log2 odds against a background of independent bases.

    Parameters
    ----------
    counts : (k, 4) integer
        Bases per place of the motif.
    background : (4,) integer
        Bases of the background.
    pseudocount
        Added in proportion to the background, so that a place without counts scores 0; above 0.

    Returns
    -------
    matrix : (k, 5) float32
        Bits per place and code; 0 for N.
    """
    expected = (background + 1.0) / (background.sum() + N_CODE)
    observed = (counts + pseudocount * expected) / (counts.sum(axis=1, keepdims=True) + pseudocount)
    matrix = np.zeros((len(counts), N_CODE + 1), dtype=np.float32)
    matrix[:, :N_CODE] = np.log2(observed / expected)
    return matrix


def scan(
    codes: NDArray[np.uint8], matrix: NDArray[np.float32], shape: MotifShape, first: int, n_positions: int
) -> NDArray[np.float32]:
    """Score the motif at every position of a stretch.

    Parameters
    ----------
    codes : (n, L) uint8
    matrix : (shape.length, 5) float32
        From ``log_odds``.
    shape
        Extent of the motif around the scored base.
    first, n_positions
        Columns ``[first, first + n_positions)`` are scored; motif bases outside the input count as N.

    Returns
    -------
    scores : (n, n_positions) float32
        Sum of the log2 odds.
    """
    scores = np.zeros((len(codes), n_positions), dtype=np.float32)
    for place, weights in enumerate(matrix):
        column = first + place - shape.before
        low, high = max(column, 0), min(column + n_positions, codes.shape[1])
        if low < high:
            scores[:, low - column : high - column] += weights[codes[:, low:high]]
    return scores
