"""From a gene's bases to junctions, true usage and read counts.

Counts follow SpliSER's definitions. alpha: reads of junctions that use a site. beta1: reads that cross it
unspliced, because the intron was retained or because a neighbouring alternative site was used. beta2Simple:
reads of junctions that span the site and end at one of its partners.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.simulate import motifs
from splicestore.simulate.loci import PlacedGene
from splicestore.simulate.packed import base_of

Int64 = NDArray[np.int64]
Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]

ALTERNATIVE_RETENTION = 0.01
"""Unspliced reads at alternative sites, as a share of the spliced ones."""
STRAY_PER_INTRON = 0.1
"""Expected stray junctions (true donor, cryptic acceptor) per intron."""
UNKNOWN_BASE = np.uint8(4)


@dataclass(frozen=True, slots=True)
class SpliceGraph:
    """Sites and junctions of a gene; positions are half-open intron boundaries in the piece's coordinates."""

    boundary: Int64
    """(n_sites,) donors first, then acceptors; within each the exons' first sites, then their second ones."""
    is_donor: NDArray[np.bool_]
    is_second: NDArray[np.bool_]
    """(n_sites,) the alternative that makes its exon longer."""
    donor: Int64
    """(n_junctions,) site row."""
    acceptor: Int64
    is_annotated: NDArray[np.bool_]

    @property
    def n_sites(self) -> int:
        """Number of sites."""
        return len(self.boundary)

    def intron_bounds(self) -> tuple[Int64, Int64]:
        """Forward start and end of the junctions' introns."""
        ends = self.boundary[np.stack((self.donor, self.acceptor))]
        return ends.min(axis=0), ends.max(axis=0)


def splice_graph(gene: PlacedGene) -> SpliceGraph:
    """List sites and junctions of all transcripts of a gene."""
    n = len(gene.start)
    second_donor = np.flatnonzero(gene.alternative_end[:-1] >= 0)
    second_acceptor = np.flatnonzero(gene.alternative_start >= 0)
    first, rest = np.arange(n - 1), np.arange(1, n)
    is_second = np.repeat([False, True, False, True], [n - 1, len(second_donor), n - 1, len(second_acceptor)])
    n_donors = n - 1 + len(second_donor)
    acceptor_of = n_donors - 1  # row of exon i's first acceptor is acceptor_of + i
    cassette = np.flatnonzero(gene.is_cassette)
    donor = np.concatenate((first, n - 1 + np.arange(len(second_donor)), second_acceptor - 1, cassette - 1))
    acceptor = np.concatenate(
        (
            acceptor_of + rest,
            acceptor_of + second_donor + 1,
            acceptor_of + n + np.arange(len(second_acceptor)),
            acceptor_of + cassette + 1,
        )
    )
    return SpliceGraph(
        boundary=np.concatenate(
            (gene.end[:-1], gene.alternative_end[second_donor], gene.start[1:], gene.alternative_start[second_acceptor])
        ),
        is_donor=np.arange(len(is_second)) < n_donors,
        is_second=is_second,
        donor=donor,
        acceptor=acceptor,
        is_annotated=np.ones(len(donor), dtype=bool),
    )


def site_windows(code: Codes, boundary: Int64, strand: int) -> Codes:
    """Cut the bases around boundaries in transcript orientation: ``(n, len(WINDOW_OFFSETS))`` codes."""
    at = boundary[:, None] + motifs.WINDOW_OFFSETS if strand > 0 else boundary[:, None] - 1 - motifs.WINDOW_OFFSETS
    inside = (at >= 0) & (at < len(code))
    bases = base_of(code[np.where(inside, at, 0)])
    if strand < 0:
        bases = bases ^ np.uint8(3)
    return np.where(inside, bases, UNKNOWN_BASE).astype(np.uint8)


def intron_dinucleotides(windows: Codes, is_donor: NDArray[np.bool_]) -> Codes:
    """Take the two intron bases beside each site, in transcript orientation: ``(n, 2)``."""
    zero = motifs.REGULATOR_REACH
    return np.where(is_donor[:, None], windows[:, zero : zero + 2], windows[:, zero - 2 : zero])


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected reads per condition in units of the gene's coverage, and the usage that follows."""

    junction: Floats
    """(n_junctions, n_conditions)."""
    unspliced: Floats
    """(n_sites, n_conditions): beta1."""
    sse: Floats
    """(n_sites, n_conditions): true usage."""


def expected_usage(graph: SpliceGraph, gene: PlacedGene, log_odds: Floats) -> Expected:
    """Turn the sites' log odds into expected reads.

    A cassette exon is included with the mean log odds of its two sites; of two rival sites the first is chosen
    with its own log odds. Every other site is spliced with its own log odds, else its intron is retained.
    """
    used = _logistic(log_odds)
    n = len(gene.start)
    n_first = n - 1
    n_donors = int(graph.is_donor.sum())
    share = np.ones((len(graph.donor), log_odds.shape[1]))
    varies = graph.is_second.copy()
    crossing = np.zeros_like(log_odds)
    second_donor = np.flatnonzero(gene.alternative_end[:-1] >= 0)
    second_acceptor = np.flatnonzero(gene.alternative_start >= 0)
    cassette = np.flatnonzero(gene.is_cassette)
    rival_rows = n_first + np.arange(len(second_donor) + len(second_acceptor))
    first_site = np.concatenate((second_donor, n_donors - 1 + second_acceptor))
    first_junction = np.concatenate((second_donor, second_acceptor - 1))
    share[first_junction] = used[first_site]
    share[rival_rows] = 1.0 - used[first_site]
    crossing[first_site] = share[rival_rows]
    sites = np.stack((n_donors - 1 + cassette, cassette))
    included = _logistic(log_odds[sites].mean(axis=0))
    share[cassette - 1] = included
    share[cassette] = included
    share[len(share) - len(cassette) :] = 1.0 - included
    varies[first_site] = True
    varies[sites] = True
    alpha_of, beta2_of = _incidence(graph)
    alpha, beta2 = alpha_of @ share, beta2_of @ share
    retained = np.where(varies[:, None], ALTERNATIVE_RETENTION, (1.0 - used) / used)
    unspliced = crossing + retained * alpha
    return Expected(share, unspliced, alpha / (alpha + unspliced + beta2))


def _logistic(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -6.0, 8.0))))


def _incidence(graph: SpliceGraph, is_seen: NDArray[np.bool_] | None = None) -> tuple[Floats, Floats]:
    """Say which junctions count as alpha and as beta2Simple of which sites.

    Returns
    -------
    alpha_of, beta2_of : (n_sites, n_junctions) float64 of 0 and 1
    """
    seen = np.ones(len(graph.donor), dtype=bool) if is_seen is None else is_seen
    n, junctions = graph.n_sites, np.arange(len(graph.donor))
    alpha_of = np.zeros((n, len(junctions)))
    alpha_of[graph.donor, junctions] = 1.0
    alpha_of[graph.acceptor, junctions] = 1.0
    partner = np.zeros((n, n), dtype=bool)
    partner[graph.donor[seen], graph.acceptor[seen]] = True
    partner |= partner.T
    low, high = graph.intron_bounds()
    spans = (low < graph.boundary[:, None]) & (graph.boundary[:, None] < high)
    shares_partner = np.where(graph.is_donor[:, None], partner[:, graph.acceptor], partner[:, graph.donor])
    return alpha_of, (spans & shares_partner).astype(np.float64)


def with_stray_junctions(rng: np.random.Generator, graph: SpliceGraph, code: Codes, strand: int) -> SpliceGraph:
    """Add unannotated junctions from true donors to AGs inside their introns; they get a read now and then."""
    low, high = graph.intron_bounds()
    chosen = np.flatnonzero((rng.random(len(low)) < STRAY_PER_INTRON) & (high - low > 160))
    taken = set(graph.boundary.tolist())
    cryptic: list[int] = []
    donors: list[int] = []
    for junction in chosen.tolist():
        bases = base_of(code[low[junction] : high[junction]])
        bases = bases if strand > 0 else bases[::-1] ^ np.uint8(3)
        ends = 2 + np.flatnonzero((bases[60:-42] == 0) & (bases[61:-41] == 2)) + 60
        if len(ends) == 0:
            continue
        offset = int(rng.choice(ends))
        boundary = int(low[junction]) + offset if strand > 0 else int(high[junction]) - offset
        if boundary not in taken:
            taken.add(boundary)
            cryptic.append(boundary)
            donors.append(int(graph.donor[junction]))
    n = len(cryptic)
    return SpliceGraph(
        boundary=np.concatenate((graph.boundary, np.array(cryptic, dtype=np.int64))),
        is_donor=np.concatenate((graph.is_donor, np.zeros(n, dtype=bool))),
        is_second=np.concatenate((graph.is_second, np.zeros(n, dtype=bool))),
        donor=np.concatenate((graph.donor, np.array(donors, dtype=np.int64))),
        acceptor=np.concatenate((graph.acceptor, graph.n_sites + np.arange(n))),
        is_annotated=np.concatenate((graph.is_annotated, np.zeros(n, dtype=bool))),
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """Reads of one gene."""

    junction: Int64
    """(n_junctions, n_samples)."""
    alpha: Int64
    """(n_sites, n_samples)."""
    beta1: Int64
    beta2: Int64
    is_detected: NDArray[np.bool_]
    """(n_sites,) some sample has a junction that uses the site."""
    is_seen: NDArray[np.bool_]
    """(n_junctions,) some sample has reads of the junction."""


def draw_counts(
    rng: np.random.Generator, graph: SpliceGraph, expected: Expected, coverage: Floats, sample_condition: Int64
) -> Counts:
    """Draw the reads of every sample.

    Parameters
    ----------
    coverage : (n_samples,) float64
        Expected reads over a constitutive junction, its biological scatter included. Given the coverage,
        reads are Poisson, so a site's alpha is binomial in its alpha + beta.
    sample_condition : (n_samples,) int64
    """
    n_true, n_sites = len(expected.junction), len(expected.unspliced)
    n_stray = len(graph.donor) - n_true
    junction = np.concatenate(
        (
            rng.poisson(expected.junction[:, sample_condition] * coverage),
            rng.poisson(np.minimum(0.003 * coverage, 0.25) * np.ones((n_stray, 1))),
        )
    )
    beta1 = np.concatenate(
        (
            rng.poisson(expected.unspliced[:, sample_condition] * coverage),
            rng.poisson(0.01 * coverage * np.ones((graph.n_sites - n_sites, 1))),
        )
    )
    is_seen = np.any(junction > 0, axis=1)
    alpha_of, beta2_of = _incidence(graph, is_seen)
    alpha, beta2 = (alpha_of @ junction).astype(np.int64), (beta2_of @ junction).astype(np.int64)
    return Counts(junction, alpha, beta1, beta2, np.any(alpha > 0, axis=1), is_seen)
