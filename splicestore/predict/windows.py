"""Running a model over a genome: tiles of its window size on both strands, every base once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from splicestore.errors import WindowError
from splicestore.kernels.intervals import expand_counts, grid_cells, merge_intervals
from splicestore.kernels.sequence import N_CODE, reverse_complement
from splicestore.models.card import LoadedModel

Int64 = NDArray[np.int64]

SLAB_BASES = 1024 * 1024
"""Bases read at a time: a block of the store."""


class BaseSource(Protocol):
    """What tiles need of a genome; positions are absolute bases."""

    @property
    def contig_offset(self) -> Int64:
        """(contig,) absolute start of each contig."""

    @property
    def contig_length(self) -> Int64:
        """(contig,) bp."""

    def read_bases(self, start: int, end: int) -> NDArray[np.uint8]:
        """Codes of ``[start, end)``."""


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Grid cells ``[j*W, (j+1)*W)`` of their contigs, each with the part of it that is asked for."""

    contig: Int64
    """(tile,) row of the contig."""
    start: Int64
    """(tile,) absolute start of the cell; increasing."""
    keep_start: Int64
    """(tile,) first absolute base that is asked for and lies in the contig."""
    keep_end: Int64
    """(tile,) one past the last."""

    def __len__(self) -> int:
        return len(self.start)


def tile_regions(genome: BaseSource, regions: Int64, window_size: int) -> Tiles:
    """Lay the model's windows over regions, on the grid that ``Genome.windows`` uses.

    Parameters
    ----------
    genome
        Its contigs.
    regions : (n, 2) int64
        Absolute start and end, 0-based half-open, in any order; overlaps are merged, contig borders are cut.
    window_size
        W, bp.

    Returns
    -------
    tiles
        A cell appears once per region that meets it, with disjoint parts.

    Raises
    ------
    WindowError
        If a region is empty or leaves the genome.
    """
    regions = np.asarray(regions, dtype=np.int64).reshape(-1, 2)
    offset, end = genome.contig_offset, genome.contig_offset + genome.contig_length
    n_bases = int(end[-1]) if len(end) else 0
    wrong = np.flatnonzero((regions[:, 0] < 0) | (regions[:, 1] <= regions[:, 0]) | (regions[:, 1] > n_bases))
    if len(wrong):
        first = regions[wrong[0]].tolist()
        raise WindowError(
            f"{len(wrong)} of {len(regions)} regions are empty or leave the genome, first {first}; absolute regions "
            f"lie in [0, {n_bases}) with start below end"
        )
    start, stop = merge_intervals(regions[:, 0], regions[:, 1])
    first_contig = np.searchsorted(end, start, side="right")
    last_contig = np.searchsorted(offset, stop, side="left") - 1
    region, member = expand_counts(last_contig - first_contig + 1)
    contig = first_contig[region] + member
    low, high = np.maximum(start[region], offset[contig]), np.minimum(stop[region], end[contig])
    contig, low, high = (a[low < high] for a in (contig, low, high))
    piece, cell = grid_cells(low - offset[contig], high - offset[contig], window_size)
    cell_start = offset[contig[piece]] + cell * window_size
    return Tiles(
        contig=contig[piece],
        start=cell_start,
        keep_start=np.maximum(cell_start, low[piece]),
        keep_end=np.minimum(cell_start + window_size, high[piece]),
    )


def predict_tiles(
    model: LoadedModel, genome: BaseSource, regions: Int64, *, batch_size: int = 32
) -> Iterator[tuple[int, int, NDArray[np.float16]]]:
    """Predict both strands of regions.

    Parameters
    ----------
    model
        Its card gives window, context and tasks.
    genome
        Bases beyond a contig's ends read as N.
    regions : (n, 2) int64
        Absolute start and end, 0-based half-open.
    batch_size
        Windows per run of the model, both strands counted; at least 2. No prediction depends on it.

    Yields
    ------
    start : int
        Absolute first base.
    strand : int
        +1, then -1 of the same bases; starts increase.
    scores : (n, tasks) float16
        Of the bases ``[start, start + n)`` in forward order on both strands; n is at most W, and every base
        of the regions is in exactly one piece per strand.

    Raises
    ------
    WindowError
        If a region is empty or leaves the genome, or ``batch_size`` is below 2.
    """
    if batch_size < 2:
        raise WindowError(f"batch_size must be at least 2, a window on each strand, got {batch_size}")
    tiles = tile_regions(genome, regions, model.card.window_size)
    inputs = _tile_inputs(genome, tiles, model.card.window_size, model.card.context_size)
    first = 0
    while batch := list(islice(inputs, batch_size // 2)):
        forward = np.stack(batch)  # (tile, L)
        codes = torch.from_numpy(np.concatenate([forward, reverse_complement(forward)]))
        scores = model.scores(codes).to(torch.float16).cpu().numpy()  # (2 * tile, W, tasks)
        for row in range(len(batch)):
            tile = first + row
            kept = slice(int(tiles.keep_start[tile] - tiles.start[tile]), int(tiles.keep_end[tile] - tiles.start[tile]))
            start = int(tiles.keep_start[tile])
            yield start, 1, scores[row, kept]
            yield start, -1, scores[len(batch) + row, ::-1][kept]
        first += len(batch)


def _tile_inputs(genome: BaseSource, tiles: Tiles, window_size: int, context_size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield each tile's input, (window + 2 * context,) uint8 in forward orientation, N beyond the contig.

    Neighbouring tiles share one read of at most ``SLAB_BASES`` and an input.
    """
    length = window_size + 2 * context_size
    low = tiles.start - context_size
    slab = tiles.start // max(SLAB_BASES, window_size)
    opens = np.flatnonzero(np.diff(slab, prepend=-1) | np.diff(tiles.contig, prepend=-1))
    for first, last in pairwise([*opens.tolist(), len(tiles)]):
        contig = int(tiles.contig[first])
        begin, stop = int(low[first]), int(low[last - 1]) + length
        contig_start = int(genome.contig_offset[contig])
        inside_start = max(begin, contig_start)
        inside_end = min(stop, contig_start + int(genome.contig_length[contig]))
        bases = np.full(stop - begin, N_CODE, dtype=np.uint8)
        bases[inside_start - begin : inside_end - begin] = genome.read_bases(inside_start, inside_end)
        for tile in range(first, last):
            at = int(low[tile]) - begin
            yield bases[at : at + length]
