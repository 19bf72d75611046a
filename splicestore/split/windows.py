"""Windows of one genome: subset by genes, subset without genes, guard. One pure task per genome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import SplitError
from splicestore.kernels.guard import clipped_spans, meets_any
from splicestore.kernels.seeded_hash import as_fraction, seeded_hash
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_TEST, SUBSET_TRAIN, SUBSET_VAL
from splicestore.split.values import (
    REASON_NONE,
    REASON_TEST,
    REASON_TRAIN,
    REASON_VAL,
    REASONS,
    Codes,
    GenomeLayout,
    Guard,
    Int64,
    WindowTiles,
    subset_of_draw,
)

GENELESS_BIN = 1_000_000
"""Bases of a contig that share one draw where there are no genes."""


@dataclass(frozen=True, slots=True)
class GenelessRule:
    """Where windows without a gene go."""

    contig_subset: Codes | None = None
    """(n_contigs,) uint8: the contig decides. None: the hash of contig and megabase."""
    seed: int = 0
    test_share: float = 0.0
    val_share: float = 0.0


@dataclass(frozen=True, slots=True)
class SettledWindows:
    """Windows of a split that is being extended, in the coordinates of the genome as it is now."""

    start: Int64
    strand: NDArray[np.int8]
    subset: Codes
    reason: Codes


@dataclass(frozen=True, slots=True)
class WindowTask:
    """All that decides the subsets of one genome's windows; plain arrays, so it can travel to a worker."""

    layout: GenomeLayout
    tiles: WindowTiles
    gene_subset: Codes
    """(n_genes,) uint8, for the genes of ``layout``."""
    gene_reason: Codes
    geneless: GenelessRule
    window_size: int
    context_size: int
    guard: Guard
    settled: SettledWindows | None = None


@dataclass(frozen=True, slots=True)
class WindowSubsets:
    """What a task returns: three bytes a window."""

    subset: Codes
    reason: Codes
    has_gene: NDArray[np.bool_]
    n_vanished: int = 0
    """Settled windows that the genome no longer has."""


@dataclass(frozen=True, slots=True)
class _Spans:
    """Centres and inputs, absolute, clipped to their contig."""

    centre_start: Int64
    centre_end: Int64
    input_start: Int64
    input_end: Int64


def assign_windows(task: WindowTask) -> WindowSubsets:
    """Assign the windows of one genome.

    A window takes the strongest subset (test > val > train) among the genes whose body its centre meets, on
    either strand; an excluded gene takes a window that would otherwise be train. A window that meets no gene
    follows ``task.geneless``. Then the guard excludes windows whose input touches what is held out.
    Settled windows keep what they have.

    Raises
    ------
    SplitError
        If the windows are not sorted by contig, start, strand, or start outside their contig.
    """
    check_tiles(task.tiles, task.layout)
    spans = _spans(task)
    subset, reason, has_gene = _by_genes(task, spans)
    free = np.flatnonzero(~has_gene)
    subset[free] = _without_genes(task, free)
    settled = np.zeros(len(subset), dtype=np.bool_)
    n_vanished = 0
    if task.settled is not None:
        settled, n_vanished = _keep_settled(task.tiles, task.settled, subset, reason)
    apply_guard(subset, reason, spans, task.guard, settled)
    return WindowSubsets(subset=subset, reason=reason, has_gene=has_gene, n_vanished=n_vanished)


def check_tiles(tiles: WindowTiles, layout: GenomeLayout) -> None:
    """Refuse windows that are out of order or start outside their contig."""
    if not len(tiles):
        return
    key = window_key(tiles.start, tiles.strand)
    unsorted = np.flatnonzero(np.diff(key) <= 0)
    if len(unsorted):
        raise SplitError(
            f"windows of {layout.genome_id} must be sorted by contig, start and strand, each once; "
            f"row {int(unsorted[0]) + 1} is not after the row before it ({len(unsorted)} such rows)"
        )
    first = layout.contig_offset[tiles.contig]
    outside = np.flatnonzero((tiles.start < first) | (tiles.start >= first + layout.contig_length[tiles.contig]))
    if len(outside):
        row = int(outside[0])
        raise SplitError(
            f"window {row} of {layout.genome_id} starts at base {int(tiles.start[row])}, outside its contig "
            f"{layout.contig_name[int(tiles.contig[row])]} ({len(outside)} such windows); splits use grid windows"
        )


def window_key(start: Int64, strand: NDArray[np.int8]) -> Int64:
    """Number windows so that keys sort like (contig, start, strand); absolute starts carry the contig."""
    return start * 2 + (strand > 0)


def _spans(task: WindowTask) -> _Spans:
    layout, tiles, size = task.layout, task.tiles, task.window_size
    where = (tiles.start, tiles.contig, layout.contig_offset, layout.contig_length)
    centre = clipped_spans(*where, before=0, after=size)
    wide = clipped_spans(*where, before=task.context_size, after=size + task.context_size)
    return _Spans(*centre, *wide)


def _by_genes(task: WindowTask, spans: _Spans) -> tuple[Codes, Codes, NDArray[np.bool_]]:
    subset = np.full(len(task.tiles), SUBSET_TRAIN, dtype=np.uint8)
    reason = np.full(len(task.tiles), REASON_NONE, dtype=np.uint8)

    def meets(genes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return meets_any(
            spans.centre_start, spans.centre_end, task.layout.gene_start[genes], task.layout.gene_end[genes]
        )

    # Written from the weakest to the strongest; among reasons the first of the vocabulary wins.
    excluded = task.gene_subset == SUBSET_EXCLUDED
    for code in range(len(REASONS) - 1, REASON_NONE, -1):
        if (of_reason := excluded & (task.gene_reason == code)).any():
            met = meets(of_reason)
            subset[met], reason[met] = SUBSET_EXCLUDED, code
    for side in (SUBSET_VAL, SUBSET_TEST):
        met = meets(task.gene_subset == side)
        subset[met], reason[met] = side, REASON_NONE
    return subset, reason, meets(np.ones(len(task.gene_subset), dtype=np.bool_))


def _without_genes(task: WindowTask, rows: Int64) -> Codes:
    """Subsets of windows that meet no gene: ``(len(rows),)`` uint8."""
    rule = task.geneless
    contig = task.tiles.contig[rows]
    if rule.contig_subset is not None:
        return rule.contig_subset[contig]
    megabase = (task.tiles.start[rows] - task.layout.contig_offset[contig]) // GENELESS_BIN
    # Rows are sorted by contig and start, so equal places follow each other.
    opens = np.ones(len(rows), dtype=np.bool_)
    opens[1:] = (np.diff(contig) != 0) | (np.diff(megabase) != 0)
    firsts = np.flatnonzero(opens)
    names = [
        f"{task.layout.contig_name[c]}:{m}"
        for c, m in zip(contig[firsts].tolist(), megabase[firsts].tolist(), strict=True)
    ]
    draw = as_fraction(seeded_hash("geneless", rule.seed, task.layout.genome_id, names))
    return np.repeat(subset_of_draw(draw, rule.test_share, rule.val_share), np.diff(firsts, append=len(rows)))


def _keep_settled(
    tiles: WindowTiles, settled: SettledWindows, subset: Codes, reason: Codes
) -> tuple[NDArray[np.bool_], int]:
    """Write the settled windows' subsets in place; return which rows they are and how many are gone."""
    new_key = window_key(tiles.start, tiles.strand)
    old_key = window_key(settled.start, settled.strand)
    row = np.searchsorted(new_key, old_key)
    found = row < len(new_key)
    found[found] = new_key[row[found]] == old_key[found]
    kept = row[found]
    subset[kept], reason[kept] = settled.subset[found], settled.reason[found]
    is_settled = np.zeros(len(tiles), dtype=np.bool_)
    is_settled[kept] = True
    return is_settled, int((~found).sum())


def apply_guard(subset: Codes, reason: Codes, spans: _Spans, guard: Guard, settled: NDArray[np.bool_]) -> None:
    """Exclude, in place, windows whose input touches what is held out from them.

    ``centre``: a train window whose input overlaps a test or val centre, a val window whose input overlaps a
    test centre. ``input``: the same with inputs on both sides. All are judged by the subsets before the
    guard: a val window that is itself excluded still keeps train windows away. A settled window never
    moves, so a *new* held-out window inside the input of a settled one gives way instead.
    """
    if guard == "none":
        return
    if guard == "input":
        held = (spans.input_start, spans.input_end)
    else:
        held = (spans.centre_start, spans.centre_end)
    inputs = (spans.input_start, spans.input_end)

    def exclude(
        rows: NDArray[np.bool_],
        spans_of_rows: tuple[Int64, Int64],
        others: NDArray[np.bool_],
        spans_of_others: tuple[Int64, Int64],
        code: int,
    ) -> None:
        index = np.flatnonzero(rows)
        start, end = spans_of_rows
        hit = meets_any(start[index], end[index], spans_of_others[0][others], spans_of_others[1][others])
        subset[index[hit]], reason[index[hit]] = SUBSET_EXCLUDED, code

    free = ~settled
    if settled.any():
        is_train, is_val = settled & (subset == SUBSET_TRAIN), settled & (subset == SUBSET_VAL)
        exclude(free & ((subset == SUBSET_TEST) | (subset == SUBSET_VAL)), held, is_train, inputs, REASON_TRAIN)
        exclude(free & (subset == SUBSET_TEST), held, is_val, inputs, REASON_VAL)
    is_test, is_val = subset == SUBSET_TEST, subset == SUBSET_VAL
    exclude(free & ((subset == SUBSET_TRAIN) | is_val), inputs, is_test, held, REASON_TEST)
    exclude(free & (subset == SUBSET_TRAIN), inputs, is_val, held, REASON_VAL)
