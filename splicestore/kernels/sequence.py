"""DNA as uint8 codes: A C G T N = 0 1 2 3 4."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N_CODE = 4
BASES = b"ACGTN"

_IUPAC_AMBIGUOUS = b"NRYSWKMBDHVX-.*"
_INVALID = 255


def _code_table() -> bytes:
    table = np.full(256, _INVALID, dtype=np.uint8)
    for letters, code in ((b"Aa", 0), (b"Cc", 1), (b"Gg", 2), (b"TtUu", 3)):
        table[list(letters)] = code
    table[list(_IUPAC_AMBIGUOUS + _IUPAC_AMBIGUOUS.lower())] = N_CODE
    return table.tobytes()


CODE_TABLE = _code_table()
"""Translation table for ``bytes.translate``: IUPAC letters to codes, anything else to 255."""


def encode_bases(letters: bytes) -> NDArray[np.uint8]:
    """Encode IUPAC letters; ambiguity codes become N, bytes that are no letter of DNA become 255.

    Parameters
    ----------
    letters
        Upper or lower case, without line ends.

    Returns
    -------
    codes : (len(letters),) uint8
        Read-only view.

    Examples
    --------
    >>> encode_bases(b"ACGTnR!")
    array([  0,   1,   2,   3,   4,   4, 255], dtype=uint8)
    """
    return np.frombuffer(letters.translate(CODE_TABLE), dtype=np.uint8)


def decode_bases(codes: NDArray[np.uint8]) -> str:
    """Spell codes 0..4 as letters.

    Examples
    --------
    >>> decode_bases(np.array([0, 1, 2, 3, 4], dtype=np.uint8))
    'ACGTN'
    """
    return bytes(np.frombuffer(BASES, dtype=np.uint8)[codes]).decode("ascii")


def complement(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Complement without reversing; N stays N.

    Arithmetic instead of a table: ``3 - c`` equals ``c ^ 3`` for the four bases.

    Examples
    --------
    >>> complement(np.array([0, 1, 2, 3, 4], dtype=np.uint8))
    array([3, 2, 1, 0, 4], dtype=uint8)
    """
    return np.where(codes < N_CODE, codes ^ np.uint8(3), codes).astype(np.uint8, copy=False)


def reverse_complement(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reverse and complement along the last axis.

    Examples
    --------
    >>> decode_bases(reverse_complement(encode_bases(b"AACGN")))
    'NCGTT'
    """
    return complement(codes[..., ::-1])


_ONE_HOT = np.concatenate((np.eye(4, dtype=np.float32), np.zeros((1, 4), dtype=np.float32)))


def one_hot_float(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Expand codes to float32 one-hot on a new last axis, bases A C G T; N is all zero.

    Examples
    --------
    >>> one_hot_float(np.array([2, 4], dtype=np.uint8))
    array([[0., 0., 1., 0.],
           [0., 0., 0., 0.]], dtype=float32)
    """
    return _ONE_HOT[codes]
