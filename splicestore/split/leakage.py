"""Leakage recounted from the finished table, by another road than the one that made it.

Subsets were decided by searching merged intervals; here they are counted by sweeping over sorted borders,
and homology is looked at group by group instead of component by component.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.schema import SUBSET_EXCLUDED, SUBSET_NAMES
from splicestore.split.homology import HomologyEdges
from splicestore.split.values import Codes, Int64, SplitTable

SIDES = SUBSET_NAMES[:3]
SWEEP_WINDOWS = 500_000
"""Windows swept at a time (whole contigs, so a longer contig is swept whole): bounds memory to ~200 MB."""


@dataclass(frozen=True, slots=True)
class Leakage:
    """What crosses from one side of a split to another."""

    groups_crossing: int
    """Homology groups with genes on two sides; must be 0."""
    groups_crossing_inherited: int
    """Such groups in an extended split whose genes on either side were all placed by the old split."""
    windows_shared: int
    """Centres (either strand) that windows of two sides have in common; must be 0."""
    bases: tuple[tuple[str, NDArray[np.int64]], ...]
    """Per genome: (3, 3) int64, bases of row side's inputs inside column side's centres (train, val, test)."""

    def held_out_bases(self) -> int:
        """Bases of centres that the guard ``centre`` keeps out of inputs, over all genomes; must be 0 under it."""
        return sum(int(matrix[0, 1] + matrix[0, 2] + matrix[1, 2]) for _, matrix in self.bases)

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "groups_crossing": self.groups_crossing,
            "groups_crossing_inherited": self.groups_crossing_inherited,
            "windows_shared": self.windows_shared,
            "train_input_in_val_centre_bases": {name: int(matrix[0, 1]) for name, matrix in self.bases},
            "train_input_in_test_centre_bases": {name: int(matrix[0, 2]) for name, matrix in self.bases},
            "val_input_in_test_centre_bases": {name: int(matrix[1, 2]) for name, matrix in self.bases},
            "input_in_centre_bases": {
                name: {a: dict(zip(SIDES, row, strict=True)) for a, row in zip(SIDES, matrix.tolist(), strict=True)}
                for name, matrix in self.bases
            },
        }


def count_leakage(table: SplitTable, edges: HomologyEdges, is_inherited: NDArray[np.bool_] | None = None) -> Leakage:
    """Recount leakage.

    Parameters
    ----------
    table
        The finished split.
    edges
        The homology it was made from.
    is_inherited : (n_genes,) bool
        Genes whose subset was fixed by an older split; None where there is none.
    """
    inherited = np.zeros(table.n_genes, dtype=np.bool_) if is_inherited is None else is_inherited
    crossing, crossing_inherited = _crossing_groups(table.gene_subset, edges, inherited)
    shared, bases = 0, []
    for genome, genome_id in enumerate(table.genome_ids):
        matrix = np.zeros((len(SIDES), len(SIDES)), dtype=np.int64)
        for rows in _contig_batches(table, genome):
            matrix += _swept_bases(table, genome, rows)
            shared += _shared_centres(table, rows)
        bases.append((genome_id, matrix))
    return Leakage(crossing, crossing_inherited, shared, tuple(bases))


def _crossing_groups(subset: Codes, edges: HomologyEdges, inherited: NDArray[np.bool_]) -> tuple[int, int]:
    member_side = subset[edges.gene]
    has_side = np.zeros((edges.n_groups, len(SIDES)), dtype=np.bool_)
    counted = member_side != SUBSET_EXCLUDED
    has_side[edges.group[counted], member_side[counted]] = True
    crosses = has_side.sum(axis=1) > 1
    has_new = np.zeros(edges.n_groups, dtype=np.bool_)
    has_new[edges.group[counted & ~inherited[edges.gene]]] = True
    return int((crosses & has_new).sum()), int((crosses & ~has_new).sum())


def _contig_batches(table: SplitTable, genome: int) -> Iterator[slice]:
    """Cut a genome's rows at contig borders, into pieces of about ``SWEEP_WINDOWS``."""
    rows = table.window_rows(genome)
    borders = np.flatnonzero(np.diff(table.window_contig[rows])) + 1 + rows.start
    first, last = rows.start, rows.start
    for border in [*borders.tolist(), rows.stop]:
        if border - first > SWEEP_WINDOWS and last > first:
            yield slice(first, last)
            first = last
        last = border
    if first < rows.stop:
        yield slice(first, rows.stop)


def _contig_spans(table: SplitTable, genome: int, rows: slice, reach: int) -> tuple[Int64, Int64]:
    contigs = table.contig_rows(genome)
    low = table.contig_offset[contigs][table.window_contig[rows]]
    high = low + table.contig_length[contigs][table.window_contig[rows]]
    start = table.window_start[rows]
    return np.maximum(start - reach, low), np.minimum(start + table.window_size + reach, high)


def _swept_bases(table: SplitTable, genome: int, rows: slice) -> NDArray[np.int64]:
    """Count bases of inputs inside centres, side against side: ``(3, 3)`` int64."""
    subset = table.window_subset[rows]
    position, code, step = [], [], []
    for offset, reach in ((0, table.context_size), (len(SIDES), 0)):
        start, end = _contig_spans(table, genome, rows, reach)
        for side in range(len(SIDES)):
            own = subset == side
            for border, sign in ((start[own], 1), (end[own], -1)):
                position.append(border)
                code.append(np.full(len(border), offset + side, dtype=np.int8))
                step.append(np.full(len(border), sign, dtype=np.int8))
    where = np.concatenate(position)
    order = np.argsort(where, kind="stable")
    where, codes, steps = where[order], np.concatenate(code)[order], np.concatenate(step)[order]
    length = np.diff(where)
    # Borders at one position give pieces of length 0, so their order does not matter.
    covered = [np.cumsum(np.where(codes == c, steps, 0), dtype=np.int32)[:-1] > 0 for c in range(2 * len(SIDES))]
    return np.array(
        [[length[covered[a] & covered[len(SIDES) + b]].sum() for b in range(len(SIDES))] for a in range(len(SIDES))],
        dtype=np.int64,
    )


def _shared_centres(table: SplitTable, rows: slice) -> int:
    """Count centres on which windows of two sides lie, one per strand."""
    start, subset = table.window_start[rows], table.window_subset[rows]
    same = (start[1:] == start[:-1]) & (subset[1:] != subset[:-1])
    counted = (subset[1:] != SUBSET_EXCLUDED) & (subset[:-1] != SUBSET_EXCLUDED)
    return int((same & counted).sum())
