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
def _channels_last(codes, table, out):  # type: ignore[no-untyped-def]
    # Unsigned: signed indices are checked for wrapping at every base.
    n = np.uint64(codes.shape[1])
    for b in range(codes.shape[0]):
        source, row = codes[b], out[b]
        for j in range(n):
            row[j] = table[np.uint64(source[j])]


_WORD = {1: np.uint32, 2: np.uint64, 4: np.complex128}
"""The four channels of a base as one value, by bytes a channel; complex128 for its 16 bytes, which are only moved."""


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
    table = np.zeros((256, N_BASES), dtype=out.dtype)
    table[np.arange(N_BASES), np.arange(N_BASES)] = value
    word = _WORD.get(out.itemsize)
    if word is None:
        out[:] = table[codes]
        return
    _channels_last(codes, table.view(word)[:, 0], out.view(word)[..., 0])
