"""From exons to introns to splice sites, and what their bases spell.

A splice site is its exon-boundary base (the SpliceAI convention): the last exon base before a donor's
intron, the first exon base after an acceptor's. All positions are 0-based on the forward strand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.intervals import pointers
from splicestore.kernels.sequence import N_CODE
from splicestore.schema import KIND_ACCEPTOR, KIND_DONOR

Int64 = NDArray[np.int64]

_A, _C, _G, _T = range(4)
CANONICAL_MOTIFS = {"GT-AG": (_G, _T, _A, _G), "GC-AG": (_G, _C, _A, _G), "AT-AC": (_A, _T, _A, _C)}
"""Intron ends in transcript orientation: first two and last two bases."""


@dataclass(frozen=True, slots=True)
class Introns:
    """Gaps between neighbouring exons of a transcript."""

    transcript: Int64
    """(n,) row of the transcript."""
    start: Int64
    """(n,) first intron base, on the forward strand."""
    end: Int64
    """(n,) one past the last intron base."""

    def __len__(self) -> int:
        return len(self.start)

    def take(self, which: NDArray[np.bool_]) -> Introns:
        """Keep some of the introns."""
        return Introns(self.transcript[which], self.start[which], self.end[which])


@dataclass(frozen=True, slots=True)
class Sites:
    """Splice sites, one row per (position, strand), sorted by both."""

    position: Int64
    """(n,) exon-boundary base."""
    strand: NDArray[np.int8]
    kind: NDArray[np.uint8]
    """(n,) bit 0 acceptor, bit 1 donor."""
    gene_ptr: Int64
    """(n + 1,) CSR into ``gene_index``."""
    gene_index: NDArray[np.int32]
    """Genes of each site, increasing."""

    def __len__(self) -> int:
        return len(self.position)


def introns_of(exon_ptr: Int64, exon_start: Int64, exon_end: Int64) -> Introns:
    """List the gaps between neighbouring exons.

    Parameters
    ----------
    exon_ptr : (n_transcripts + 1,) int64
    exon_start, exon_end : (n_exons,) int64
        Sorted and disjoint within a transcript.
    """
    exon_transcript = np.repeat(np.arange(len(exon_ptr) - 1, dtype=np.int64), np.diff(exon_ptr))
    inner = np.flatnonzero(exon_transcript[1:] == exon_transcript[:-1])
    return Introns(exon_transcript[inner], exon_end[inner], exon_start[inner + 1])


def sites_of(introns: Introns, strand: NDArray[np.int8], gene: NDArray[np.int32]) -> Sites:
    """Collect the two sites of every intron, one row per (position, strand).

    Parameters
    ----------
    introns
        Their positions decide the coordinate system (contig or absolute).
    strand, gene : (n_transcripts,)
        Of each transcript.
    """
    intron_strand = strand[introns.transcript]
    forward = intron_strand > 0
    position = np.concatenate((introns.start - 1, introns.end))
    strands = np.concatenate((intron_strand, intron_strand))
    kind = np.concatenate(
        (np.where(forward, KIND_DONOR, KIND_ACCEPTOR), np.where(forward, KIND_ACCEPTOR, KIND_DONOR))
    ).astype(np.uint8)
    genes = np.concatenate((gene[introns.transcript],) * 2)
    return merge_sites(position, strands, kind, genes)


def merge_sites(position: Int64, strand: NDArray[np.int8], kind: NDArray[np.uint8], gene: NDArray[np.int32]) -> Sites:
    """Merge rows of the same (position, strand): kinds are united, genes linked once; gene -1 links nothing."""
    order = np.lexsort((gene, strand, position))
    position, strand, kind, gene = position[order], strand[order], kind[order], gene[order]
    new_site = np.ones(len(position), dtype=bool)
    new_site[1:] = (position[1:] != position[:-1]) | (strand[1:] != strand[:-1])
    site = np.cumsum(new_site) - 1
    new_link = new_site.copy()
    new_link[1:] |= gene[1:] != gene[:-1]
    new_link &= gene >= 0
    firsts = np.flatnonzero(new_site)
    return Sites(
        position=position[firsts],
        strand=strand[firsts].astype(np.int8),
        kind=(np.bitwise_or.reduceat(kind, firsts) if len(firsts) else kind[:0]).astype(np.uint8),
        gene_ptr=pointers(np.bincount(site[new_link], minlength=len(firsts))),
        gene_index=gene[new_link].astype(np.int32),
    )


def intron_motif_positions(introns: Introns) -> Int64:
    """Positions of the four bases that name an intron's motif: ``(n, 4)``, forward-strand order."""
    return np.stack((introns.start, introns.start + 1, introns.end - 2, introns.end - 1), axis=1)


def motif_codes(bases: NDArray[np.uint8], strand: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Turn the four forward-strand bases of each intron into transcript orientation: ``(n, 4)`` codes."""
    complemented = np.where(bases < N_CODE, 3 - bases, bases)[:, ::-1]
    return np.where((strand > 0)[:, None], bases, complemented).astype(np.uint8)


def is_canonical(motifs: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether introns read GT-AG, GC-AG or AT-AC: ``(n,)`` bool."""
    found = np.zeros(len(motifs), dtype=bool)
    for bases in CANONICAL_MOTIFS.values():
        found |= (motifs == np.array(bases, dtype=np.uint8)).all(axis=1)
    return found


def canonical_ends(motifs: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether introns open as a canonical one may (GT, GC, AT), and close as one may (AG, AC): two ``(n,)`` bool."""
    opens, closes = np.zeros(len(motifs), dtype=bool), np.zeros(len(motifs), dtype=bool)
    for bases in CANONICAL_MOTIFS.values():
        opens |= (motifs[:, :2] == np.array(bases[:2], dtype=np.uint8)).all(axis=1)
        closes |= (motifs[:, 2:] == np.array(bases[2:], dtype=np.uint8)).all(axis=1)
    return opens, closes


def block_pointers(position: Int64, n_bases: int, block: int) -> Int64:
    """First row of each block of sorted positions: ``(n_blocks + 1,)`` int64."""
    edges = np.arange(-(-n_bases // block) + 1, dtype=np.int64) * block
    return np.searchsorted(position, edges, side="left").astype(np.int64)
