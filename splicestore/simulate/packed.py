"""One byte per base that carries what evolution needs: the base, soft mask, gap, and how constrained it is.

Bits 0-1 the base (A C G T = 0..3, so ``^ 3`` complements), bit 2 soft-masked, bit 3 gap (N), bits 4-6 class.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]


class Class(IntEnum):
    """What a base belongs to; the index of its rate of change."""

    SPACER = 0
    INTRON = 1
    EXON = 2
    SIGNAL = 3
    INVARIANT = 4


MASKED: Final = np.uint8(4)
GAP: Final = np.uint8(8)
_CLASS_SHIFT: Final = 4

COMPOSITION = np.array(
    [
        (0.29, 0.21, 0.21, 0.29),
        (0.27, 0.20, 0.21, 0.32),
        (0.27, 0.24, 0.25, 0.24),
    ]
)
"""(3, 4) shares of A C G T in spacers, introns and exons."""


def _base_tables() -> Codes:
    """Base for each value of a random byte, by class; shares are rounded to 1/256."""
    edges = np.round(np.cumsum(COMPOSITION, axis=1)[:, :3] * 256)
    table: Codes = (np.arange(256)[None, :, None] >= edges[:, None, :]).sum(axis=2).astype(np.uint8)
    return table


def _letter_table() -> Codes:
    table = np.full(256, ord("N"), dtype=np.uint8)
    for byte in range(256):
        if not byte & GAP:
            table[byte] = (b"acgt" if byte & MASKED else b"ACGT")[byte & 3]
    return table


_BASE = _base_tables()
LETTERS = _letter_table()
"""Letter of every packed byte; soft-masked bases are lower case."""


def pack(bases: Codes, constraint: Class) -> Codes:
    """Add a class to codes 0..3."""
    return bases | np.uint8(int(constraint) << _CLASS_SHIFT)


def class_of(packed: Codes) -> Codes:
    """Class of each base."""
    return packed >> np.uint8(_CLASS_SHIFT)


def base_of(packed: Codes) -> Codes:
    """Codes 0..3 of the bases (gaps included; they lie outside of genes)."""
    return packed & np.uint8(3)


def reverse_complement(packed: Codes) -> Codes:
    """Reverse and complement; masks, gaps and classes stay with their bases."""
    return packed[::-1] ^ np.uint8(3)


def random_bases(rng: np.random.Generator, length: int, constraint: Class) -> Codes:
    """Draw ``(length,)`` packed bases with the composition of a class."""
    drawn = np.frombuffer(rng.bytes(length), dtype=np.uint8)
    return pack(_BASE[int(constraint)][drawn], constraint)
