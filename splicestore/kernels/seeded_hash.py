"""Hashes that decide subsets: the same on every machine, release and language.

Python's own ``hash`` is salted per process, and numpy's generators draw by position, so that one more gene
would move all that follow. A hash of the name moves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

HASH_DOMAIN = "splicestore-split-1"
"""First field of every hashed text; raised if the rule ever changes."""


def seeded_hash(salt: str, seed: int, genome_id: str, names: Iterable[str]) -> NDArray[np.uint64]:
    """Hash names of one genome: big-endian first 8 bytes of sha256, as integers.

    The hashed text is ``splicestore-split-1 TAB salt TAB seed TAB genome_id TAB name`` in UTF-8.

    Parameters
    ----------
    salt
        What the hash is for: ``anchor``, ``subset`` or ``geneless``.
    seed
        Written in decimal.
    genome_id, names
        The genome and the names (gene ids) in it.

    Returns
    -------
    h : (n_names,) uint64
        Divide by 2**64 (``as_fraction``) for a uniform draw from [0, 1).

    Examples
    --------
    >>> [hex(h) for h in seeded_hash("subset", 0, "human", ["BRCA1"]).tolist()]
    ['0xe258d885147560c4']
    """
    # The common start is hashed once; copying its state costs less than hashing it again.
    prefix = hashlib.sha256(f"{HASH_DOMAIN}\t{salt}\t{seed}\t{genome_id}\t".encode())
    digests = []
    for name in names:
        state = prefix.copy()
        state.update(name.encode())
        digests.append(state.digest()[:8])
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def as_fraction(h: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Divide by 2**64: ``(n,)`` float64 between 0 and 1."""
    return h.astype(np.float64) / 2.0**64
