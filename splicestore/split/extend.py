"""Extending a published split so that nothing in it moves, and listing what moves when it is rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import SplitError
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_NAMES
from splicestore.split.assign import GeneSubsets, count_sides, n_components, side_names
from splicestore.split.values import (
    REASON_BRIDGE,
    REASON_NONE,
    Codes,
    GeneTable,
    GenomeLayout,
    Int64,
    SplitOptions,
    SplitTable,
)
from splicestore.split.windows import SettledWindows, window_key

NOT_ASSIGNED = 255


def check_extendable(old: SplitTable, options: SplitOptions, genome_ids: tuple[str, ...]) -> None:
    """Refuse to extend under other rules, or without a genome that the old split has.

    Raises
    ------
    SplitError
        Naming both sides, line by line.
    """
    names = ("window_size", "context_size", "guard", "seed", "mode")
    different = [name for name in names if getattr(old, name) != getattr(options, name)]
    if different:
        lines = "\n".join(f"  {name}: old {getattr(old, name)}, now {getattr(options, name)}" for name in different)
        raise SplitError(f"a split can only be extended under its own rules, these differ:\n{lines}")
    gone = [genome_id for genome_id in old.genome_ids if genome_id not in genome_ids]
    if gone:
        raise SplitError(
            f"the split to extend has {len(gone)} genomes that are not part of the new one (first: {gone[0]}); "
            "add them, or make a new split"
        )


def old_gene_codes(genes: GeneTable, old: SplitTable) -> tuple[Codes, Codes]:
    """Look genes up in an old split by (genome, gene_id).

    Returns
    -------
    subset, reason : (n_genes,) uint8
        ``NOT_ASSIGNED`` and 0 where the old split does not have the gene.
    """
    subset = np.full(len(genes), NOT_ASSIGNED, dtype=np.uint8)
    reason = np.full(len(genes), REASON_NONE, dtype=np.uint8)
    for genome, genome_id in enumerate(genes.genome_ids):
        if genome_id not in old.genome_ids:
            continue
        rows = old.gene_rows(old.genome_ids.index(genome_id))
        known = {gene_id: row for row, gene_id in enumerate(old.gene_id[rows], start=rows.start)}
        old_row = np.array([known.get(gene_id, -1) for gene_id in genes.gene_id[genes.rows(genome)]], dtype=np.int64)
        here = np.flatnonzero(old_row >= 0)
        subset[genes.rows(genome)][here] = old.gene_subset[old_row[here]]
        reason[genes.rows(genome)][here] = old.gene_reason[old_row[here]]
    return subset, reason


def extend_genes(genes: GeneTable, fresh: GeneSubsets, old: SplitTable) -> GeneSubsets:
    """Let every component inherit what its assigned members have.

    Genes of the old split keep their subset. A new gene takes the one side its component has; where the
    component has several, it bridges them and is excluded; where all old members are excluded, so is it,
    for their reason; where there are no old members, it takes what a fresh split gives.

    Parameters
    ----------
    genes
        Genes of all genomes, old and new.
    fresh
        The assignment a fresh split would make.
    old
        The split to extend.
    """
    old_subset, old_reason = old_gene_codes(genes, old)
    component = fresh.component
    n = n_components(component)
    sides = count_sides(component, old_subset, n)
    n_sides = (sides > 0).sum(axis=1)
    inherited_subset, inherited_reason = _excluded_only(component, old_subset, old_reason, n)
    inherited_subset[n_sides == 1] = np.argmax(sides[n_sides == 1] > 0, axis=1)
    inherited_reason[n_sides == 1] = REASON_NONE
    inherited_subset[n_sides > 1] = SUBSET_EXCLUDED
    inherited_reason[n_sides > 1] = REASON_BRIDGE

    is_old = old_subset != NOT_ASSIGNED
    heir = ~is_old & (inherited_subset[component] != NOT_ASSIGNED)
    subset = np.where(is_old, old_subset, np.where(heir, inherited_subset[component], fresh.subset))
    reason = np.where(is_old, old_reason, np.where(heir, inherited_reason[component], fresh.reason))
    bridging = np.flatnonzero(heir & (n_sides[component] > 1))
    bridges = tuple(
        (genes.genome_ids[int(genes.genome[row])], str(genes.gene_id[row]), side_names(sides[component[row]]))
        for row in bridging
    )
    return replace(fresh, subset=subset, reason=reason, bridges=bridges)


def _excluded_only(component: NDArray[np.int32], old_subset: Codes, old_reason: Codes, n: int) -> tuple[Codes, Codes]:
    """Per component: excluded with the first of its old members' reasons, ``NOT_ASSIGNED`` where it has none."""
    rows = np.flatnonzero(old_subset == SUBSET_EXCLUDED)
    reason = np.full(n, NOT_ASSIGNED, dtype=np.uint8)
    np.minimum.at(reason, component[rows], old_reason[rows])
    subset = np.where(reason == NOT_ASSIGNED, NOT_ASSIGNED, SUBSET_EXCLUDED).astype(np.uint8)
    return subset, np.where(reason == NOT_ASSIGNED, REASON_NONE, reason).astype(np.uint8)


def settled_windows(old: SplitTable, layout: GenomeLayout) -> tuple[SettledWindows | None, int]:
    """Bring the old windows of a genome into its present coordinates, by contig name.

    Returns
    -------
    settled
        None if the old split does not have the genome.
    n_vanished
        Old windows on contigs that the genome no longer has, or past their present end.
    """
    if layout.genome_id not in old.genome_ids:
        return None, 0
    genome = old.genome_ids.index(layout.genome_id)
    rows, contigs = old.window_rows(genome), old.contig_rows(genome)
    now = {name: index for index, name in enumerate(layout.contig_name)}
    target = np.array([now.get(name, -1) for name in old.contig_name[contigs]], dtype=np.int64)
    old_contig = old.window_contig[rows]
    position = old.window_start[rows] - old.contig_offset[contigs][old_contig]
    # A last entry for target -1, which has no bases: contigs that are gone keep no window.
    length, offset = np.append(layout.contig_length, 0), np.append(layout.contig_offset, 0)
    there = np.flatnonzero(position < length[target[old_contig]])
    settled = SettledWindows(
        start=position[there] + offset[target[old_contig[there]]],
        strand=old.window_strand[rows][there],
        subset=old.window_subset[rows][there],
        reason=old.window_reason[rows][there],
    )
    return settled, len(old_contig) - len(there)


@dataclass(frozen=True, slots=True)
class Moves:
    """What two splits of the same genomes have in different subsets."""

    genes: tuple[tuple[str, str, str, str], ...]
    """(genome, gene_id, old subset, new subset)."""
    window_row: Int64
    """Rows of the new window table."""
    window_old: Codes
    """(n_moved,) uint8, the old subset of each."""
    window_new: Codes
    n_vanished: int
    """Windows of the old split that the new one does not have."""

    def summary(self) -> dict[str, Any]:
        """JSON: every moved gene, and the moved windows counted by ``old->new``."""
        n = len(SUBSET_NAMES)
        counts = np.bincount(self.window_old.astype(np.int64) * n + self.window_new, minlength=n * n)
        pairs = {f"{SUBSET_NAMES[k // n]}->{SUBSET_NAMES[k % n]}": int(counts[k]) for k in np.flatnonzero(counts)}
        columns = ("genome", "gene_id", "old", "new")
        return {
            "genes": [dict(zip(columns, row, strict=True)) for row in self.genes],
            "windows": dict(sorted(pairs.items())),
            "vanished_windows": self.n_vanished,
        }


def list_moves(old: SplitTable, new: SplitTable, genes: GeneTable, layouts: tuple[GenomeLayout, ...]) -> Moves:
    """Compare a rebuilt split with the one it replaces.

    Parameters
    ----------
    old, new
        The two tables.
    genes, layouts
        The genomes of the new one.
    """
    old_subset, _ = old_gene_codes(genes, old)
    moved = np.flatnonzero((old_subset != NOT_ASSIGNED) & (old_subset != new.gene_subset))
    gene_moves = tuple(
        (
            genes.genome_ids[int(genes.genome[row])],
            str(genes.gene_id[row]),
            SUBSET_NAMES[int(old_subset[row])],
            SUBSET_NAMES[int(new.gene_subset[row])],
        )
        for row in moved
    )
    row_parts, old_parts, n_vanished = [], [], 0
    for genome, layout in enumerate(layouts):
        settled, n_lost = settled_windows(old, layout)
        n_vanished += n_lost
        if settled is None:
            continue
        rows = new.window_rows(genome)
        at = _rows_of(settled, new.window_start[rows], new.window_strand[rows])
        n_vanished += int((at < 0).sum())
        differs = np.flatnonzero((at >= 0) & (new.window_subset[rows][at] != settled.subset))
        row_parts.append(at[differs] + rows.start)
        old_parts.append(settled.subset[differs])
    window_row = np.concatenate([*row_parts, np.zeros(0, dtype=np.int64)])
    return Moves(
        genes=gene_moves,
        window_row=window_row,
        window_old=np.concatenate([*old_parts, np.zeros(0, dtype=np.uint8)]),
        window_new=new.window_subset[window_row],
        n_vanished=n_vanished,
    )


def _rows_of(settled: SettledWindows, start: Int64, strand: NDArray[np.int8]) -> Int64:
    """Row of each settled window among windows, -1 where it is gone."""
    if not len(start):
        return np.full(len(settled.start), -1, dtype=np.int64)
    key, wanted = window_key(start, strand), window_key(settled.start, settled.strand)
    at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    return np.where(key[at] == wanted, at, -1)
