"""Connected components of members joined by groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def group_components(n_members: int, member: NDArray[np.integer], group: NDArray[np.integer]) -> NDArray[np.int32]:
    """Close members under "is in the same group".

    Groups are nodes of the graph beside the members (a star per group), so a group of n costs n edges
    and not n * (n - 1) / 2.

    Parameters
    ----------
    n_members
        Members are rows ``0..n_members - 1``; those in no group are components of their own.
    member : (n_rows,) integer
        One row per (member, group); the order of rows and repeated rows do not matter.
    group : (n_rows,) integer
        Any labels.

    Returns
    -------
    component : (n_members,) int32
        Numbered 0, 1, ... by the first member of each.

    Examples
    --------
    >>> group_components(5, np.array([3, 1, 1, 2]), np.array([7, 7, 9, 9]))
    array([0, 1, 1, 1, 2], dtype=int32)
    """
    if n_members == 0:
        return np.zeros(0, dtype=np.int32)
    # Here, because it takes 0.2 s to import and most commands join nothing.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, node = np.unique(np.asarray(group), return_inverse=True)
    n_nodes = n_members + len(names)
    edges = coo_array(
        (np.ones(len(node), dtype=np.int8), (np.asarray(member, dtype=np.int64), n_members + node)),
        shape=(n_nodes, n_nodes),
    )
    _, labels = connected_components(edges, directed=False)
    return number_by_first(np.asarray(labels[:n_members], dtype=np.int64))


def number_by_first(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Renumber labels 0, 1, ... in the order in which they first appear.

    Examples
    --------
    >>> number_by_first(np.array([9, 4, 9, 0]))
    array([0, 1, 0, 2], dtype=int32)
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse]
