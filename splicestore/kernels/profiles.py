"""Digests of the counts of a sample: equal for equal counts, whatever the order of genes, and cut down to some genes by subtraction.

A digest is the sum, modulo 2^64, of a mixed word for each (gene, count) with a count above zero; the mixing is the finaliser of
SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Two of a million different profiles have one digest with a chance of 3e-8.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_ROWS_AT_ONCE = 64  # their words stay in the cache; compiled it would be faster, and cost each worker 100 MiB


def name_keys(names: Sequence[str]) -> NDArray[np.uint64]:
    """Give every name a number that depends on it alone, and where it stands several times on which of them it is.

    Returns
    -------
    key : (n_names,) uint64
        First 8 bytes, big-endian, of the sha256 of ``name TAB times it stood before``.
    """
    seen, keys = Counter[str](), []
    for name in names:
        keys.append(hashlib.sha256(f"{name}\t{seen[name]}".encode()).digest()[:8])
        seen[name] += 1
    return np.frombuffer(b"".join(keys), dtype=">u8").astype(np.uint64)


def add_digests(counts: NDArray[np.uint32], key: NDArray[np.uint64], out: NDArray[np.uint64]) -> None:
    """Add the counts of some genes to the digests of samples.

    Parameters
    ----------
    counts : (sample, gene) uint32
    key : (gene,) uint64
        Of ``name_keys``.
    out : (sample,) uint64
        Zeros at first; genes in any order and any parts give the same.
    """
    for first in range(0, len(counts), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        word = counts[rows] * _STEP
        word += key
        word ^= word >> _SHIFT_1
        word *= _FIRST
        word ^= word >> _SHIFT_2
        word *= _SECOND
        word ^= word >> _SHIFT_3
        word *= counts[rows] > 0
        out[rows] += word.sum(axis=1, dtype=np.uint64)
