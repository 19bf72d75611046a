"""Loci and spacers: the pieces that genomes are made of and that rearrangements move as wholes.

A locus holds one gene, or two: a pair on opposite strands whose outer exons overlap, or a host with a gene in
one of its introns. Coordinates are the locus's own, 0-based half-open, in the orientation it was born in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from splicestore.simulate.genes import MIN_INTRON, NO_BOUNDARY, GeneShape, build_sequence, draw_shape
from splicestore.simulate.packed import Class, pack, random_bases, reverse_complement
from splicestore.simulate.seeds import Stream, random_stream

Int64 = NDArray[np.int64]
Codes = NDArray[np.uint8]

NEST_FLANK: Final = 120
"""Host intron bases kept on either side of a nested gene."""
MAX_SPACER: Final = 262_144
"""Longer spacers are several elements, so that memory does not grow with them."""


class Arrangement(IntEnum):
    """How the genes of a locus lie to each other."""

    SINGLE = 0
    TAIL_OVERLAP = 1
    HEAD_OVERLAP = 2
    NESTED = 3


@dataclass(frozen=True, slots=True)
class Spacer:
    """Intergenic bases."""

    length: int


@dataclass(frozen=True, slots=True)
class Locus:
    """One or two genes, by family."""

    arrangement: Arrangement
    families: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlacedGene:
    """A gene in its locus; boundaries as in ``GeneShape`` but in locus coordinates and order of transcription."""

    family: int
    strand: int
    role: str
    """single, overlapping, host or nested."""
    start: Int64
    end: Int64
    alternative_start: Int64
    alternative_end: Int64
    is_cassette: NDArray[np.bool_]

    def moved(self, prefix: Int64) -> PlacedGene:
        """Map all boundaries through ``prefix``, the new coordinate of every old boundary."""
        return replace(
            self,
            start=prefix[self.start],
            end=prefix[self.end],
            alternative_start=_keep_missing(self.alternative_start, prefix[self.alternative_start]),
            alternative_end=_keep_missing(self.alternative_end, prefix[self.alternative_end]),
        )

    def shifted(self, offset: int) -> PlacedGene:
        """Move to ``offset`` further right."""
        return replace(
            self,
            start=self.start + offset,
            end=self.end + offset,
            alternative_start=_keep_missing(self.alternative_start, self.alternative_start + offset),
            alternative_end=_keep_missing(self.alternative_end, self.alternative_end + offset),
        )

    def flipped(self, length: int) -> PlacedGene:
        """Mirror in a piece of ``length`` bases."""
        return replace(
            self,
            strand=-self.strand,
            start=length - self.start,
            end=length - self.end,
            alternative_start=_keep_missing(self.alternative_start, length - self.alternative_start),
            alternative_end=_keep_missing(self.alternative_end, length - self.alternative_end),
        )

    @property
    def span(self) -> tuple[int, int]:
        """Forward start and end."""
        first, last = int(self.start[0]), int(self.end[-1])
        return min(first, last), max(first, last)


def _keep_missing(old: Int64, new: Int64) -> Int64:
    return np.where(old == NO_BOUNDARY, NO_BOUNDARY, new)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bases of an element with the genes on it."""

    code: Codes
    genes: tuple[PlacedGene, ...]

    def flipped(self) -> Piece:
        """Reverse-complement bases and genes."""
        return Piece(reverse_complement(self.code), tuple(g.flipped(len(self.code)) for g in self.genes))


@dataclass(frozen=True, slots=True)
class LocusFactory:
    """Builds ancestral loci; equal arguments give equal loci."""

    seed: int
    intron_mean: float

    def length(self, element: int, locus: Locus) -> int:
        """Length of the ancestral locus without drawing its bases."""
        shapes = self._shapes(locus)
        total = sum(shape.length for shape in shapes)
        if locus.arrangement == Arrangement.SINGLE:
            return total
        if locus.arrangement == Arrangement.NESTED:
            return total + 2 * NEST_FLANK
        return total - self._overlap(element, locus, shapes)

    def build(self, element: int, locus: Locus) -> Piece:
        """Draw the ancestral locus."""
        shapes = self._shapes(locus)
        pieces = [
            _gene_piece(family, shape, build_sequence(random_stream(self.seed, Stream.SEQUENCE, family), shape))
            for family, shape in zip(locus.families, shapes, strict=True)
        ]
        if locus.arrangement == Arrangement.SINGLE:
            return pieces[0]
        if locus.arrangement == Arrangement.NESTED:
            return _nest(random_stream(self.seed, Stream.LOCUS, element), pieces[0], shapes[0], pieces[1])
        overlap = self._overlap(element, locus, shapes)
        if locus.arrangement == Arrangement.TAIL_OVERLAP:
            return _join(pieces[0], pieces[1].flipped(), overlap)
        return _join(pieces[0].flipped(), pieces[1], overlap)

    def _shapes(self, locus: Locus) -> list[GeneShape]:
        streams = [random_stream(self.seed, Stream.SHAPE, family) for family in locus.families]
        if locus.arrangement == Arrangement.NESTED:
            host = draw_shape(streams[0], self.intron_mean, min_exons=4)
            inner_mean = min(self.intron_mean, 2.0 * MIN_INTRON)
            return [host, draw_shape(streams[1], inner_mean, min_exons=2, max_exons=4)]
        return [draw_shape(stream, self.intron_mean) for stream in streams]

    def _overlap(self, element: int, locus: Locus, shapes: list[GeneShape]) -> int:
        """Bases that the outer exons of a pair share, short of both exons' motifs."""
        exon = -1 if locus.arrangement == Arrangement.TAIL_OVERLAP else 0
        room = min(int(shape.end[exon] - shape.start[exon]) for shape in shapes) - 90
        return int(random_stream(self.seed, Stream.LOCUS, element).integers(room // 2, room + 1))


def _gene_piece(family: int, shape: GeneShape, code: Codes) -> Piece:
    gene = PlacedGene(
        family=family,
        strand=1,
        role="single",
        start=shape.start,
        end=shape.end,
        alternative_start=shape.alternative_start,
        alternative_end=shape.alternative_end,
        is_cassette=shape.is_cassette,
    )
    return Piece(code, (gene,))


def _join(left: Piece, right: Piece, overlap: int) -> Piece:
    """Lay two genes over each other; the shared bases are the left one's."""
    offset = len(left.code) - overlap
    genes = (*left.genes, right.genes[0].shifted(offset))
    return Piece(
        np.concatenate((left.code, right.code[overlap:])), tuple(replace(g, role="overlapping") for g in genes)
    )


def _nest(rng: np.random.Generator, host: Piece, shape: GeneShape, inner: Piece) -> Piece:
    """Put a gene, on a random strand, into the middle of the host's longest intron."""
    intron_start, intron_end = shape.outer_end[:-1], shape.outer_start[1:]
    longest = int(np.argmax(intron_end - intron_start))
    middle = int(intron_start[longest] + intron_end[longest]) // 2
    if rng.random() < 0.5:
        inner = inner.flipped()
    flanks = [random_bases(rng, NEST_FLANK, Class.INTRON) for _ in range(2)]
    inserted = len(inner.code) + 2 * NEST_FLANK
    prefix = np.arange(len(host.code) + 1, dtype=np.int64)
    prefix[middle + 1 :] += inserted
    code = np.concatenate((host.code[:middle], flanks[0], inner.code, flanks[1], host.code[middle:]))
    outer = replace(host.genes[0].moved(prefix), role="host")
    return Piece(code, (outer, replace(inner.genes[0].shifted(middle + NEST_FLANK), role="nested")))


@dataclass(frozen=True, slots=True)
class SpacerFactory:
    """Builds ancestral spacers: random bases, interspersed repeats (soft-masked) and microsatellites."""

    seed: int
    repeats: tuple[Codes, ...]
    """Consensus sequences."""

    @classmethod
    def draw(cls, seed: int) -> SpacerFactory:
        """Draw the repeat families of a study."""
        rng = random_stream(seed, Stream.REPEATS)
        lengths = (300, 280, 310, 150, 220, 340, 1_100, 900)
        return cls(seed, tuple(random_bases(rng, length, Class.SPACER) for length in lengths))

    def build(self, element: int, spacer: Spacer) -> Piece:
        """Draw an ancestral spacer."""
        rng = random_stream(self.seed, Stream.SPACER, element)
        code = random_bases(rng, spacer.length, Class.SPACER)
        for consensus in self.repeats:
            n_copies = int(rng.poisson(0.025 * spacer.length / len(consensus)))
            if n_copies and spacer.length > len(consensus):
                _insert_repeats(rng, code, consensus, n_copies)
        _insert_microsatellites(rng, code)
        return Piece(code, ())


def _insert_repeats(rng: np.random.Generator, code: Codes, consensus: Codes, n_copies: int) -> None:
    at = rng.integers(0, len(code) - len(consensus) + 1, n_copies)
    copies = np.tile(consensus, (n_copies, 1))
    backward = rng.random(n_copies) < 0.5
    copies[backward] = reverse_complement(consensus)
    age = rng.uniform(0.02, 0.2, (n_copies, 1))
    changed = rng.random(copies.shape, dtype=np.float32) < age
    copies[changed] = (copies[changed] + rng.integers(1, 4, int(changed.sum()), dtype=np.uint8)) & np.uint8(3)
    code[at[:, None] + np.arange(len(consensus))] = pack(copies, Class.SPACER) | np.uint8(4)


def _insert_microsatellites(rng: np.random.Generator, code: Codes, width: int = 48) -> None:
    n_copies = int(rng.poisson(len(code) / 20_000))
    if not n_copies or len(code) <= width:
        return
    at = rng.integers(0, len(code) - width + 1, n_copies)
    unit = rng.integers(0, 4, (n_copies, 4), dtype=np.uint8)
    period = rng.integers(1, 5, n_copies)
    copies = unit[np.arange(n_copies)[:, None], np.arange(width) % period[:, None]]
    code[at[:, None] + np.arange(width)] = pack(copies, Class.SPACER) | np.uint8(4)
