"""Numbers of genes for models of several species: one for an ortholog pair, its own for any other gene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FIRST_GENE_TOKEN = 3
"""0, 1 and 2 are GeneRAIN's own."""
RELATIONS = ("one_to_one", "one_to_many", "many_to_one", "many_to_many", "no_pair")
"""A gene's own species to the other: how many genes of each belong together."""
ONE_TO_ONE = RELATIONS.index("one_to_one")
NO_PAIR = RELATIONS.index("no_pair")


def relate_genes(species: NDArray[np.integer], component: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Tell how many genes of its own and of other species belong together with each gene.

    Of several other species the one with the fewest genes counts, of those that have any: a gene that has one ortholog in
    mouse and two in zebrafish is ``one_to_one``.

    Parameters
    ----------
    species : (gene,)
        From 0 on.
    component : (gene,)
        Homologous genes have one; from 0 on.

    Returns
    -------
    relation : (gene,) uint8
        Index into ``RELATIONS``.
    """
    n_species = int(species.max(initial=0)) + 1
    pairs, pair_of, size = np.unique(
        component.astype(np.int64) * n_species + species, return_inverse=True, return_counts=True
    )
    own, fewest = size[pair_of], _fewest_of_others(pairs // n_species, size)[pair_of]
    relation = np.where(own == 1, 0, 2) + np.where(fewest == 1, 0, 1)
    return np.where(fewest == 0, NO_PAIR, relation).astype(np.uint8)


def _fewest_of_others(component: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each (component, species), sorted by component: the smallest size among the other species; 0 if there is none."""
    fewest = np.zeros(len(size), dtype=np.int64)
    order = np.lexsort((size, component))
    start = np.flatnonzero(np.diff(component[order], prepend=-1))
    n = np.diff(start, append=len(size))
    of = np.repeat(np.arange(len(start)), n)
    has_others = (n > 1)[of]
    least, second = size[order][start], size[order][np.minimum(start + 1, len(size) - 1)]
    is_least = np.zeros(len(size), dtype=bool)
    is_least[start] = True
    fewest[order] = np.where(has_others, np.where(is_least, second[of], least[of]), 0)
    return fewest


def number_tokens(component: NDArray[np.integer], relation: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Number genes from ``FIRST_GENE_TOKEN`` on, in their order: one token for the ``one_to_one`` genes of a component.

    Parameters
    ----------
    component : (gene,)
    relation : (gene,) uint8
        Index into ``RELATIONS``.

    Returns
    -------
    token : (gene,) int32
    """
    n = len(component)
    # Genes that share are keyed by their component, the others by themselves behind all components.
    key = np.where(relation == ONE_TO_ONE, component, n + np.arange(n))
    _, first, of = np.unique(key, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(FIRST_GENE_TOKEN, FIRST_GENE_TOKEN + len(first), dtype=np.int32)
    return np.asarray(rank[of], dtype=np.int32)
