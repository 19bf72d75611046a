"""Which rows of a matrix are correlated: all pairs by blocks, of the rows themselves or of short sketches of them.

Of two rows with mean 0 and length 1, half the squared distance is 1 - r, r being Pearson's correlation. A sketch is a row times a
matrix of random signs (D. Achlioptas, J. Comput. Syst. Sci. 66, 2003); the squared distance of two sketches of k numbers is that of
the rows times chi-squared of k degrees over k, or closer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SKETCH_DIMENSIONS = 512
SKETCH_MARGIN = 1.3
"""Sketches of 512 numbers put a pair further apart than 1.3 times its distance (squared) once in 200,000."""
SKETCH_REACH = 1.75
"""... and one at 1.75 times a distance within 1.3 times of it once in 300,000."""
_ROWS_AT_ONCE = 2048


def random_signs(n_rows: int, seed: int, band: int) -> NDArray[np.float32]:
    """Draw what sketches are made with: ``(n_rows, 512)`` float32, each plus or minus 512 ** -0.5, by bits of Philox."""
    words = np.random.Philox(key=np.array([seed, band], dtype=np.uint64)).random_raw(n_rows * SKETCH_DIMENSIONS // 64)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8)).reshape(n_rows, SKETCH_DIMENSIONS)
    return (bits.astype(np.float32) * 2 - 1) / np.float32(SKETCH_DIMENSIONS**0.5)


def unit_rows(
    values: NDArray[np.float32], mean: NDArray[np.float64], length: NDArray[np.float64], ones: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Move rows, or their sketches, to mean 0 and length 1, in place.

    Parameters
    ----------
    values : (row, k) float32
    mean, length : (row,) float64
        Of the rows; the length once their mean is 0.
    ones : (k,) float32
        What a row of ones has become: ones, or its sketch.

    Returns
    -------
    values
        Rows without any variance are 0.
    """
    values -= mean.astype(np.float32)[:, None] * ones
    values *= np.divide(1.0, length, out=np.zeros(len(length)), where=length > 0).astype(np.float32)[:, None]
    return values


def close_pairs(
    points: NDArray[np.float32], limit: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Find pairs of rows with half a squared distance up to a limit.

    Parameters
    ----------
    points : (row, k) float32
        Rows of zeros are in no pair.

    Yields
    ------
    first, second, half : (n_pairs,)
        Of two blocks of 2,048 rows, ``first < second``; memory is that of 4 million pairs at most.
    """
    half = np.einsum("ij,ij->i", points, points) / np.float32(2)
    half[half == 0] = np.inf
    for i in range(0, len(points), _ROWS_AT_ONCE):
        ours = slice(i, i + _ROWS_AT_ONCE)
        for j in range(i, len(points), _ROWS_AT_ONCE):
            theirs = slice(j, j + _ROWS_AT_ONCE)
            apart = half[ours, None] + half[theirs] - points[ours] @ points[theirs].T
            first, second = np.nonzero(apart <= limit)
            found = apart[first, second]
            first, second = first + i, second + j
            is_pair = first < second
            yield first[is_pair], second[is_pair], found[is_pair]
