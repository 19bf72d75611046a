"""Genes of a normalisation found among the genes of other counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.naming import split_version


def match_genes(fitted: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """Find fitted genes in other counts: by id, and those not found so without the versions that Ensembl appends.

    An id may stand several times, where a file has symbols only. If it stands as often on both sides, the first is the first and
    the second the second; if once among ``known``, all are that one; else nobody can say which is meant, and it is missing.

    Returns
    -------
    row : (fitted,) int64
        Into ``known``, -1 where it is missing.
    """
    rows = _rows(fitted, known)
    bare = _rows([split_version(name)[0] for name in fitted], [split_version(name)[0] for name in known])
    return np.where(rows >= 0, rows, bare)


def _rows(fitted: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    ours, theirs = _places(fitted), _places(known)
    found = np.full(len(fitted), -1, dtype=np.int64)
    for name, rows in ours.items():
        places = theirs.get(name, [])
        if len(places) in (1, len(rows)):
            found[rows] = places
    return found


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        places.setdefault(name, []).append(row)
    return places
