"""Homology rows of any source, as edges between rows of the gene table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import SplitError, close_names
from splicestore.kernels.components import group_components
from splicestore.split.values import GeneTable, Int64


class HomologyRows(Protocol):
    """What the orthology reader returns: one row per (group, gene)."""

    @property
    def group(self) -> Int64:
        """(n,) int64, labels of groups."""
        ...

    @property
    def genome(self) -> NDArray[np.int32]:
        """(n,) int32, index into ``genome_ids``."""
        ...

    @property
    def gene(self) -> NDArray[np.int32]:
        """(n,) int32, row of that genome's genes."""
        ...

    @property
    def genome_ids(self) -> tuple[str, ...]:
        """Genomes of these rows, in any order."""
        ...


@dataclass(frozen=True, slots=True)
class HomologyEdges:
    """Homology as (gene row, group) pairs over all genomes."""

    gene: Int64
    """(n,) int64, rows of the gene table."""
    group: Int64
    """(n,) int64, from 0 without gaps."""
    n_groups: int


def homology_edges(genes: GeneTable, sources: Sequence[HomologyRows]) -> HomologyEdges:
    """Bring the rows of several sources to one numbering of genes and groups.

    Groups of different sources stay apart whatever their labels: two files both call a group 1.

    Raises
    ------
    SplitError
        If a source names a genome that is not part of the split, or a row past its genes.
    """
    gene, group, n_groups = [], [], 0
    for source in sources:
        gene.append(_global_rows(genes, source))
        labels, dense = np.unique(np.asarray(source.group), return_inverse=True)
        group.append(dense.astype(np.int64) + n_groups)
        n_groups += len(labels)
    empty = [np.zeros(0, dtype=np.int64)]
    return HomologyEdges(gene=np.concatenate(gene or empty), group=np.concatenate(group or empty), n_groups=n_groups)


def _global_rows(genes: GeneTable, source: HomologyRows) -> Int64:
    index = {genome_id: i for i, genome_id in enumerate(genes.genome_ids)}
    for genome_id in source.genome_ids:
        if genome_id not in index:
            raise SplitError(
                f"homology rows name genome {genome_id!r}, which is not part of the split; "
                f"{close_names(genome_id, genes.genome_ids)}"
            )
    own = np.array([index[genome_id] for genome_id in source.genome_ids], dtype=np.int64)
    if len(source.gene) == 0:
        return np.zeros(0, dtype=np.int64)
    genome = own[np.asarray(source.genome)]
    row = np.asarray(source.gene, dtype=np.int64)
    wrong = np.flatnonzero((row < 0) | (row >= np.diff(genes.first_gene)[genome]))
    if len(wrong):
        first = int(wrong[0])
        raise SplitError(
            f"homology row {first} points at gene {int(row[first])} of {genes.genome_ids[genome[first]]}, "
            f"which has {int(np.diff(genes.first_gene)[genome[first]])} genes ({len(wrong)} such rows)"
        )
    return genes.first_gene[genome] + row


def gene_components(genes: GeneTable, edges: HomologyEdges) -> NDArray[np.int32]:
    """Close genes under homology.

    Rows of one genome that share a gene id (both copies of a pseudoautosomal gene, say) are one gene and
    join too: components are keyed by (genome, gene_id).

    Returns
    -------
    component : (n_genes,) int32
        Numbered by their first gene.
    """
    same_row, same_group = _repeated_ids(genes)
    return group_components(
        len(genes),
        np.concatenate((edges.gene, same_row)),
        np.concatenate((edges.group, same_group + edges.n_groups)),
    )


def _repeated_ids(genes: GeneTable) -> tuple[Int64, Int64]:
    rows: list[int] = []
    groups: list[int] = []
    for genome in range(len(genes.genome_ids)):
        first: dict[str, int] = {}
        base = int(genes.first_gene[genome])
        for row, gene_id in enumerate(genes.gene_id[genes.rows(genome)], start=base):
            original = first.setdefault(gene_id, row)
            if original != row:
                rows += [original, row]
                groups += [original, original]
    return np.array(rows, dtype=np.int64), np.array(groups, dtype=np.int64)
