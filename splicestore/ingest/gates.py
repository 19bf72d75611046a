"""The motif gate: introns of a correct annotation read GT-AG, GC-AG or AT-AC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import GateError
from splicestore.kernels.joining import STRATA
from splicestore.kernels.sequence import decode_bases
from splicestore.kernels.sites import Introns, canonical_ends, is_canonical, motif_codes

MOTIF_GATE = 0.9
MOTIF_GATE_SITES = 100


@dataclass(frozen=True, slots=True)
class MotifReport:
    """How many introns and sites are canonical."""

    n_introns: int
    n_canonical: int
    strata: Mapping[tuple[str, str], tuple[int, int]]
    """{(class, strand): (canonical sites, sites)}; a donor is canonical if its intron opens with GT, GC or AT, an
    acceptor if it closes with AG or AC. Judged by itself: a frameshift that passes for an intron spoils one
    end, and must not fail the other."""
    common: Mapping[str, int]
    """The most frequent motifs, distinct introns."""

    @property
    def canonical_fraction(self) -> float:
        """Share of distinct introns."""
        return self.n_canonical / self.n_introns if self.n_introns else 1.0

    def document(self) -> dict[str, object]:
        """Spell the report for attributes."""
        return {
            "n_introns": self.n_introns,
            "n_canonical": self.n_canonical,
            "sites": {f"{k}{s}": list(v) for (k, s), v in self.strata.items()},
            "motifs": dict(self.common),
        }


def motif_report(introns: Introns, strand: NDArray[np.int8], bases: NDArray[np.uint8]) -> MotifReport:
    """Count canonical introns and sites.

    Parameters
    ----------
    strand : (n_introns,) int8
        +1 or -1.
    bases : (n_introns, 4) uint8
        First two and last two bases of every intron, forward strand.
    """
    distinct, first = np.unique(
        np.stack((introns.start, introns.end, strand.astype(np.int64)), axis=1), axis=0, return_index=True
    )
    motifs = motif_codes(bases[first], strand[first]) if len(first) else np.zeros((0, 4), dtype=np.uint8)
    canonical = is_canonical(motifs)
    distinct_motifs, counts = np.unique(motifs, axis=0, return_counts=True)
    common = sorted(
        (
            (f"{decode_bases(m[:2])}-{decode_bases(m[2:])}", int(n))
            for m, n in zip(distinct_motifs, counts, strict=True)
        ),
        key=lambda pair: (-pair[1], pair[0]),
    )
    return MotifReport(len(distinct), int(canonical.sum()), _strata(distinct, motifs), dict(common[:6]))


def _strata(introns: NDArray[np.int64], motifs: NDArray[np.uint8]) -> dict[tuple[str, str], tuple[int, int]]:
    opens, closes = canonical_ends(motifs)
    strata = {}
    for kind, sign in STRATA:
        on_strand = introns[:, 2] == (1 if sign == "+" else -1)
        column = 0 if (kind == "donor") == (sign == "+") else 1
        sites = np.unique(introns[on_strand, column])
        good = np.unique(introns[on_strand & (opens if kind == "donor" else closes), column])
        strata[kind, sign] = (len(good), len(sites))
    return strata


def check_motif_gate(report: MotifReport, genome_id: str) -> None:
    """Refuse an annotation whose introns are not canonical.

    Raises
    ------
    GateError
        If any class and strand with at least 100 sites is below 0.9.
    """
    for (kind, strand), (good, total) in report.strata.items():
        if total >= MOTIF_GATE_SITES and good < MOTIF_GATE * total:
            motifs = ", ".join(f"{m} {n}" for m, n in report.common.items())
            raise GateError(
                f"genome {genome_id}: only {good} of {total} {kind} sites on the {strand} strand have the bases of a "
                f"GT-AG, GC-AG or AT-AC intron (allowed from {MOTIF_GATE:.0%}; most frequent: {motifs}): annotation and "
                "FASTA are probably of different assemblies, or the coordinates are off by one; --override-gates keeps them"
            )
