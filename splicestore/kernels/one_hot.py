"""Expanding base codes to one-hot on the host: one pass over the codes, every output byte written once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

N_BASES = 4


@njit(cache=True, nogil=True)
def _channels_first(codes, one, out):  # type: ignore[no-untyped-def]
    zero = out.dtype.type(0)
    for b in range(codes.shape[0]):
        for channel in range(N_BASES):
            row, base = out[b, channel], np.uint8(channel)
            for j in range(codes.shape[1]):
                row[j] = one if codes[b, j] == base else zero


@njit(cache=True, nogil=True)
def _channels_last_one_word(codes, table, out):  # type: ignore[no-untyped-def]
    for b in range(codes.shape[0]):
        row = out[b]
        for j in range(codes.shape[1]):
            row[j] = table[codes[b, j], 0]


@njit(cache=True, nogil=True)
def _channels_last_two_words(codes, table, out):  # type: ignore[no-untyped-def]
    for b in range(codes.shape[0]):
        row = out[b]
        for j in range(codes.shape[1]):
            code = codes[b, j]
            row[2 * j] = table[code, 0]
            row[2 * j + 1] = table[code, 1]


def expand_one_hot(codes: NDArray[np.uint8], out: NDArray[Any], one: Any, *, channels_last: bool = False) -> None:
    """Write the one-hot of base codes.

    Parameters
    ----------
    codes : (B, L) uint8
        A C G T N = 0..4; N and anything above becomes zeros.
    out : (B, 4, L), or (B, L, 4) for ``channels_last``
        C-contiguous.
    one
        What stands for a base, in the type of ``out``: 1, or the bits of a one in some other type; zero bits stand for none.
    """
    value = out.dtype.type(one)
    if not channels_last:
        _channels_first(codes, value, out)
        return
    # The four channels of a base are written as one or two words.
    table = np.zeros((256, N_BASES), dtype=out.dtype)
    table[np.arange(N_BASES), np.arange(N_BASES)] = value
    word = np.uint32 if out.itemsize == 1 else np.uint64
    words, rows = table.view(word), out.reshape(len(out), -1).view(word)
    if words.shape[1] == 1:
        _channels_last_one_word(codes, words, rows)
    elif words.shape[1] == 2:
        _channels_last_two_words(codes, words, rows)
    else:
        out[:] = table[codes]
