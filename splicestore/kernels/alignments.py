"""Spliced reads -> what they say about intron boundaries: junctions, boundaries crossed, competing splices.

Positions are 0-based on the contig. An intron is ``[start, end)``; its two boundaries are ``start`` (left) and ``end``
(right), and boundary ``x`` lies between the bases ``x - 1`` and ``x``. What a region of a contig sees (``count_region``)
is complete for the boundaries in it, whichever reads lie across its ends; what is a splice site is decided later, from
the junctions of the whole contig and of all samples (``splicestore.kernels.site_counts``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.intervals import expand_counts, pointers
from splicestore.kernels.usage import LEFT, RIGHT

Int64 = NDArray[np.int64]
Int8 = NDArray[np.int8]

_OPERATION = re.compile(r"(\d+)([MIDNSHP=X])")


class CigarParts(NamedTuple):
    """One CIGAR, as offsets from the read's start."""

    blocks: list[tuple[int, int]]
    """Runs aligned without a gap; an insertion, a deletion and an intron end a run, ``=`` and ``X`` do not."""
    introns: list[tuple[int, int, int]]
    """Start, end, overhang: aligned bases of the whole read on that side of the intron which has fewer."""


def parse_cigar(cigar: str) -> CigarParts:
    """Take a CIGAR string apart.

    Examples
    --------
    >>> parse_cigar("2S10M100N3M1D7M")
    CigarParts(blocks=[(0, 10), (110, 113), (114, 121)], introns=[(10, 110, 10)])
    """
    blocks: list[tuple[int, int]] = []
    introns: list[tuple[int, int, int]] = []
    position = n_aligned = 0
    is_open = False
    for digits, letter in _OPERATION.findall(cigar):
        length = int(digits)
        if letter in "M=X":
            blocks.append((blocks.pop()[0] if is_open else position, position + length))
            is_open = True
            n_aligned += length
            position += length
        elif letter in "DN":
            if letter == "N":
                introns.append((position, position + length, n_aligned))
            position += length
            is_open = False
        elif letter == "I":
            is_open = False
    return CigarParts(blocks, [(s, e, min(before, n_aligned - before)) for s, e, before in introns])


@dataclass(frozen=True, slots=True)
class Shapes:
    """Distinct CIGARs as CSR tables of offsets from the read's start."""

    block_ptr: Int64
    block_start: Int64
    block_end: Int64
    intron_ptr: Int64
    intron_start: Int64
    intron_end: Int64
    intron_overhang: Int64

    @classmethod
    def parse(cls, cigars: Sequence[str]) -> Shapes:
        """Parse CIGARs, row i for the i-th."""
        parts = [parse_cigar(cigar) for cigar in cigars]
        blocks = _columns([block for p in parts for block in p.blocks], 2)
        introns = _columns([intron for p in parts for intron in p.introns], 3)
        return cls(
            pointers(np.array([len(p.blocks) for p in parts], dtype=np.int64)), blocks[0], blocks[1],
            pointers(np.array([len(p.introns) for p in parts], dtype=np.int64)), introns[0], introns[1], introns[2],
        )  # fmt: skip


def _columns(rows: Sequence[tuple[int, ...]], n: int) -> Int64:
    return np.array(rows, dtype=np.int64).reshape(len(rows), n).T


@dataclass(frozen=True, slots=True)
class ReadGroups:
    """Reads of one sample that are aligned alike, with how many there are."""

    start: Int64
    shape: NDArray[np.int64]
    """Row of ``Shapes``."""
    strand: Int8
    """Of the transcript: +1, -1, 0 not known."""
    reads: Int64

    @classmethod
    def collect(cls, start: Int64, code: Int64, reads: Int64 | None = None) -> ReadGroups:
        """Group reads by start and code, which is ``shape * 3 + strand + 1``."""
        (start, code), counts = sum_rows((start, code), np.ones(len(start), dtype=np.int64) if reads is None else reads)
        return cls(start, code // 3, (code % 3 - 1).astype(np.int8), counts)

    @property
    def code(self) -> Int64:
        """Shape and strand in one number, as ``collect`` takes them."""
        return self.shape * 3 + self.strand + 1


def sum_rows(keys: tuple[NDArray[Any], ...], values: Int64) -> tuple[tuple[NDArray[Any], ...], Int64]:
    """Sum integers of equal keys, ``(n,)`` or ``(n, samples)``; rows come out sorted, the last key fastest."""
    keys, firsts, order = group_rows(keys)
    if len(order) == 0:
        return keys, values
    return keys, np.add.reduceat(values[order], firsts, axis=0)


def group_rows(keys: tuple[NDArray[Any], ...]) -> tuple[tuple[NDArray[Any], ...], Int64, Int64]:
    """Sort rows by keys; return the distinct keys, where each begins in the order, and the order."""
    order = np.lexsort(keys[::-1])
    keys = tuple(k[order] for k in keys)
    is_new = np.ones(len(order), dtype=bool)
    if len(order):
        is_new[1:] = np.logical_or.reduce([k[1:] != k[:-1] for k in keys])
    firsts = np.flatnonzero(is_new)
    return tuple(k[firsts] for k in keys), firsts, order


@dataclass(frozen=True, slots=True)
class JunctionReads:
    """Reads of introns, one row per (sample, key strand, start, end), sorted."""

    sample: Int64
    strand: Int8
    """Key strand: +1 or -1 of stranded reads, 0 where the reads do not tell strands apart."""
    start: Int64
    end: Int64
    reads: Int64
    overhang: Int64
    """Largest over the reads: aligned bases on the shorter side."""
    votes: Int64
    """Reads that say ``+`` less reads that say ``-``."""

    def take(self, rows: NDArray[Any]) -> JunctionReads:
        """Keep some rows."""
        return JunctionReads(*(getattr(self, name)[rows] for name in JunctionReads.__slots__))


@dataclass(frozen=True, slots=True)
class CompetingReads:
    """Reads that run across a boundary and splice past it elsewhere, to what may be a partner of the boundary.

    A group is one kind of read at one boundary. It counts once, if any of its introns competes: for a left boundary x and
    an intron ``[start, end)`` of the read, if both ``[x, end)`` and ``[start, end)`` are junctions.
    """

    group_sample: Int64
    group_position: Int64
    group_side: Int8
    group_strand: Int8
    group_reads: Int64
    row_group: Int64
    row_start: Int64
    row_end: Int64


@dataclass(frozen=True, slots=True)
class RegionCounts:
    """What the reads of all samples say about the boundaries in one region of a contig."""

    junctions: JunctionReads
    """Those that start in the region: every junction of a contig is in one region."""
    position: Int64
    """(n,) boundaries of introns that any read or the annotation has, sorted by (strand, position)."""
    strand: Int8
    crossing: Int64
    """(n, samples) reads aligned across the boundary without a gap, one base on either side at least."""
    competing: CompetingReads


def count_region(
    samples: Sequence[ReadGroups],
    shapes: Shapes,
    region: tuple[int, int],
    annotated: tuple[Int8, Int64, Int64],
    *,
    stranded: bool,
) -> RegionCounts:
    """Count one region of a contig.

    Parameters
    ----------
    samples
        Reads that overlap the region, a sample each.
    region
        ``[start, end)``: boundaries outside it are left to other regions.
    annotated
        Key strand, start and end of annotated introns with a boundary in the region.
    stranded
        Whether strands are counted apart; otherwise the key strand of all is 0.
    """
    tables = [_Expanded.of(i, groups, shapes, stranded=stranded) for i, groups in enumerate(samples)]
    junctions = _sum_junctions(tables)
    observed = (junctions.strand, junctions.start, junctions.end)
    known = tuple(np.concatenate((observed[i], annotated[i])) for i in range(len(observed)))
    (strand, start, end), _, _ = group_rows(known)
    boundaries, _, _ = group_rows((np.concatenate((strand, strand)), np.concatenate((start, end))))
    boundary_strand, position = (a[_inside(boundaries[1], region)] for a in boundaries)
    crossing = np.zeros((len(position), len(samples)), dtype=np.int64)
    for i, table in enumerate(tables):
        crossing[:, i] = table.crossing(position, boundary_strand)
    return RegionCounts(
        junctions.take(_inside(junctions.start, region)),
        position, boundary_strand, crossing,
        _join_competing([t.competing(strand, start, end, region) for t in tables]),
    )  # fmt: skip


def _inside(position: Int64, region: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray((position >= region[0]) & (position < region[1]))


@dataclass(frozen=True, slots=True)
class _Expanded:
    """Blocks and introns of the read groups of one sample."""

    sample: int
    strand: Int8
    """(groups,) key strand."""
    vote: Int8
    reads: Int64
    block_group: Int64
    block_start: Int64
    block_end: Int64
    intron_group: Int64
    intron_start: Int64
    intron_end: Int64
    intron_overhang: Int64

    @classmethod
    def of(cls, sample: int, groups: ReadGroups, shapes: Shapes, *, stranded: bool) -> _Expanded:
        block_group, block = _rows_of(groups.shape, shapes.block_ptr)
        intron_group, intron = _rows_of(groups.shape, shapes.intron_ptr)
        return cls(
            sample,
            groups.strand if stranded else np.zeros_like(groups.strand),
            groups.strand,
            groups.reads,
            block_group,
            groups.start[block_group] + shapes.block_start[block],
            groups.start[block_group] + shapes.block_end[block],
            intron_group,
            groups.start[intron_group] + shapes.intron_start[intron],
            groups.start[intron_group] + shapes.intron_end[intron],
            shapes.intron_overhang[intron],
        )

    def crossing(self, position: Int64, strand: Int8) -> Int64:
        """Reads of blocks ``start < position < end``, for boundaries of each strand: blocks begun less blocks ended."""
        result = np.zeros(len(position), dtype=np.int64)
        block_strand = self.strand[self.block_group]
        for sign in np.unique(strand):
            ours, theirs = strand == sign, block_strand == sign
            weight = self.reads[self.block_group[theirs]]
            begun = _cumulated(self.block_start[theirs], weight, position[ours], "left")
            result[ours] = begun - _cumulated(self.block_end[theirs], weight, position[ours], "right")
        return result

    def competing(self, strand: Int8, start: Int64, end: Int64, region: tuple[int, int]) -> CompetingReads:
        """Find boundaries in the region that reads run across while splicing to a partner of the boundary.

        Parameters
        ----------
        strand, start, end
            The junctions that make partners, sorted.
        """
        sides = []
        for side, shared, own in ((LEFT, end, start), (RIGHT, start, end)):
            ends = self.intron_end if side == LEFT else self.intron_start
            group, intron, boundary = self._crossed_partners(side, ends, strand, shared, own)
            inside = _inside(boundary, region)
            sides.append(
                (np.full(int(inside.sum()), side, dtype=np.int8), group[inside], intron[inside], boundary[inside])
            )
        found_side, group, intron, boundary = (np.concatenate(columns) for columns in zip(*sides, strict=True))
        keys, firsts, order = group_rows((group, found_side, boundary))
        row_group = np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, len(order))))
        return CompetingReads(
            np.full(len(firsts), self.sample, dtype=np.int64), keys[2], keys[1], self.strand[keys[0]], self.reads[keys[0]],
            row_group, self.intron_start[intron[order]], self.intron_end[intron[order]],
        )  # fmt: skip

    def _crossed_partners(
        self, side: int, shared_end: Int64, strand: Int8, shared: Int64, own: Int64
    ) -> tuple[Int64, Int64, Int64]:
        """For the introns of each group: boundaries that share an end with them and lie within a block of the same group.

        Returns
        -------
        group, intron, boundary : (n,) int64
        """
        n_blocks = np.bincount(self.block_group, minlength=len(self.reads))
        first_block = np.cumsum(n_blocks) - n_blocks
        intron, member = expand_counts(n_blocks[self.intron_group])
        block = first_block[self.intron_group[intron]] + member
        # Blocks on the intron's own side only: those on the other cannot hold a boundary of a junction to the shared end.
        if side == LEFT:
            near = self.block_end[block] <= self.intron_start[intron]
        else:
            near = self.block_start[block] >= self.intron_end[intron]
        intron, block = intron[near], block[near]
        # One number per (strand, shared end), then per boundary within it, so that a block is two binary searches.
        width = int(max(own.max(initial=0), self.block_end.max(initial=0))) + 2
        ends, code = np.unique(shared * 3 + strand, return_inverse=True)
        order = np.lexsort((own, code))
        key = code[order] * width + own[order]
        wanted = shared_end[intron] * 3 + self.strand[self.intron_group[intron]]
        base = np.searchsorted(ends, wanted) * width
        low = np.searchsorted(key, base + self.block_start[block], side="right")
        high = np.searchsorted(key, base + self.block_end[block], side="left")
        pair, place = expand_counts(np.maximum(high - low, 0))
        return self.intron_group[intron[pair]], intron[pair], own[order][low[pair] + place]


def _rows_of(shape: Int64, ptr: Int64) -> tuple[Int64, Int64]:
    """Rows of the shape of every group: (group, row)."""
    group, member = expand_counts(np.diff(ptr)[shape])
    return group, ptr[shape[group]] + member


def _cumulated(position: Int64, weight: Int64, at: Int64, side: Any) -> Int64:
    """Weight at positions before ``at`` (side "left") or up to it ("right")."""
    order = np.argsort(position, kind="stable")
    total = pointers(weight[order])
    return total[np.searchsorted(position[order], at, side=side)]


def _sum_junctions(tables: Sequence[_Expanded]) -> JunctionReads:
    sample = np.concatenate([np.full(len(t.intron_group), t.sample, dtype=np.int64) for t in tables])
    strand = np.concatenate([t.strand[t.intron_group] for t in tables])
    vote = np.concatenate([t.vote[t.intron_group] for t in tables]).astype(np.int64)
    start, end, overhang, reads = (
        np.concatenate(columns)
        for columns in zip(
            *((t.intron_start, t.intron_end, t.intron_overhang, t.reads[t.intron_group]) for t in tables), strict=True
        )
    )
    (sample, strand, start, end), firsts, order = group_rows((sample, strand, start, end))
    if len(order) == 0:
        return JunctionReads(sample, strand, start, end, reads, overhang, vote)
    return JunctionReads(
        sample, strand, start, end,
        np.add.reduceat(reads[order], firsts),
        np.maximum.reduceat(overhang[order], firsts),
        np.add.reduceat((reads * vote)[order], firsts),
    )  # fmt: skip


def _join_competing(parts: Sequence[CompetingReads]) -> CompetingReads:
    """Put the groups of several samples or regions into one table."""
    offset = pointers(np.array([len(p.group_reads) for p in parts], dtype=np.int64))
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in CompetingReads.__slots__}
    columns["row_group"] = np.concatenate([p.row_group + o for p, o in zip(parts, offset[:-1], strict=True)])
    return CompetingReads(**columns)


def join_regions(parts: Sequence[RegionCounts]) -> RegionCounts:
    """Put the regions of one contig together, in any order."""
    strand = np.concatenate([p.strand for p in parts])
    position = np.concatenate([p.position for p in parts])
    order = np.lexsort((position, strand))
    rows = JunctionReads(
        *(np.concatenate([getattr(p.junctions, name) for p in parts]) for name in JunctionReads.__slots__)
    )
    return RegionCounts(
        rows.take(np.lexsort((rows.end, rows.start, rows.strand, rows.sample))),
        position[order],
        strand[order],
        np.concatenate([p.crossing for p in parts])[order],
        _join_competing([p.competing for p in parts]),
    )
