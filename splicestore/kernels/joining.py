"""Matching intron boundaries that a usage file reports to the sites of a genome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.usage import LEFT, RIGHT
from splicestore.schema import KIND_ACCEPTOR, KIND_DONOR

Int64 = NDArray[np.int64]

UNMATCHED, AMBIGUOUS = -1, -2

STRATA = (("donor", "+"), ("donor", "-"), ("acceptor", "+"), ("acceptor", "-"))
"""Class x strand, the rows of every join and motif report."""


@dataclass(frozen=True, slots=True)
class SiteIndex:
    """Sites of one genome, ready for look-up by (exon-boundary base, strand)."""

    key: Int64
    """(n,) ``2 * position + (strand is +)``, sorted."""
    kind: NDArray[np.uint8]
    strand: NDArray[np.int8]

    @classmethod
    def build(cls, position: Int64, strand: NDArray[np.int8], kind: NDArray[np.uint8]) -> SiteIndex:
        """Index sites that are sorted by (position, strand)."""
        return cls(position * 2 + (strand > 0), kind, strand)

    def find(self, base: Int64, strand: NDArray[np.int8] | int, side: int) -> Int64:
        """Row of the site at each base whose intron lies on that side's boundary; -1 where there is none.

        Parameters
        ----------
        base : (n,) int64
            Absolute exon-boundary base.
        strand
            +1 or -1, one or one each.
        side
            -1: the base is left of its intron (+ donor, - acceptor); +1: right of it.
        """
        if len(self.key) == 0:
            return np.full(len(base), UNMATCHED, dtype=np.int64)
        forward = np.asarray(strand) > 0
        wanted = base * 2 + forward
        row = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
        needed = np.where(forward == (side == LEFT), KIND_DONOR, KIND_ACCEPTOR)
        return np.where((self.key[row] == wanted) & ((self.kind[row] & needed) > 0), row, UNMATCHED)


@dataclass(frozen=True, slots=True)
class BoundaryMatch:
    """Which site each boundary is."""

    row: Int64
    """(n,) row of the site, -1 unmatched, -2 ambiguous."""
    side: NDArray[np.int8]
    """(n,) side of the reading that matched; as given where nothing matched."""
    strand: NDArray[np.int8]
    """(n,) strand of the reading that matched; as given where nothing matched."""


def match_boundaries(
    index: SiteIndex, left_base: Int64, right_base: Int64, side: NDArray[np.int8], strand: NDArray[np.int8]
) -> BoundaryMatch:
    """Try every reading of a boundary (left or right, + or -) that its row allows; exactly one may match.

    Parameters
    ----------
    left_base, right_base : (n,) int64
        Absolute exon-boundary base if the position is a left or a right boundary; -1 = off its contig.
    side, strand : (n,) int8
        0 where the file does not say.
    """
    row = np.full(len(side), UNMATCHED, dtype=np.int64)
    matches = np.zeros(len(side), dtype=np.int64)
    found_side, found_strand = side.copy(), strand.copy()
    for try_side, base in ((LEFT, left_base), (RIGHT, right_base)):
        for try_strand in (1, -1):
            allowed = ((side == 0) | (side == try_side)) & ((strand == 0) | (strand == try_strand)) & (base >= 0)
            hit = np.where(allowed, index.find(base, try_strand, try_side), UNMATCHED)
            new = hit >= 0
            row[new], found_side[new], found_strand[new] = hit[new], try_side, try_strand
            matches += new
    row[matches > 1] = AMBIGUOUS
    return BoundaryMatch(row, found_side, found_strand)


def join_rates(match: BoundaryMatch, weight: NDArray[np.float64]) -> dict[tuple[str, str], tuple[float, float]]:
    """Matched and total weight of every class and strand.

    A row that matched nothing and does not say its side is dealt to the class of its strand that has fewer rows:
    every intron has one donor and one acceptor, so a convention that is wrong for one class shows as a rate
    near 0 there instead of hiding in an average. A row without a strand counts half to each.

    Returns
    -------
    rates
        {(class, strand): (matched weight, total weight)}.
    """
    matched = match.row >= 0
    rates = {}
    for strand, sign in (("+", 1), ("-", -1)):
        share = weight * np.where(match.strand == 0, 0.5, match.strand == sign)
        undecided = float(share[~matched & (match.side == 0)].sum())
        sided = {kind: _in_class(match, kind, strand) & (match.side != 0) for kind in ("donor", "acceptor")}
        known = {kind: float(share[rows].sum()) for kind, rows in sided.items()}
        to_donors = min(max((known["acceptor"] + undecided - known["donor"]) / 2, 0.0), undecided)
        dealt = {"donor": to_donors, "acceptor": undecided - to_donors}
        for kind, rows in sided.items():
            rates[kind, strand] = (float(share[rows & matched].sum()), known[kind] + dealt[kind])
    return {stratum: rates[stratum] for stratum in STRATA}


def _in_class(match: BoundaryMatch, kind: str, strand: str) -> NDArray[np.bool_]:
    """Whether a boundary of known side is of a class, on the strand in question."""
    left_class = "donor" if strand == "+" else "acceptor"
    return np.asarray(match.side == (LEFT if kind == left_class else RIGHT))
