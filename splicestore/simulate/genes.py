"""Ancestral genes: how many exons, where, which alternatives, and the bases that make them spliceable.

Everything here is in transcript orientation, 0-based half-open, from the gene's first base. A boundary is the
position between two bases: an acceptor's exon starts at it, a donor's intron starts at it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.simulate import motifs
from splicestore.simulate.packed import Class, pack, random_bases

Int64 = NDArray[np.int64]
Codes = NDArray[np.uint8]

MIN_INTRON = 130  # room for a donor's and an acceptor's neighbourhood
MAX_INTRON = 100_000
MAX_EXONS = 30
MIN_TERMINAL_EXON = 120
NO_BOUNDARY = -1
AT_AC = 2

P_SINGLE_EXON = 0.10
P_CASSETTE, P_ALTERNATIVE_DONOR, P_ALTERNATIVE_ACCEPTOR = 0.13, 0.06, 0.06
WEAK_SITE = 0.25
"""Share of uniform bases in the matrices of alternative sites."""


@dataclass(frozen=True, slots=True)
class GeneShape:
    """Exons of a gene with all alternatives, without bases."""

    start: Int64
    """(n_exons,) boundaries where exons start."""
    end: Int64
    """(n_exons,) boundaries where exons end."""
    alternative_start: Int64
    """(n_exons,) second acceptor, upstream of ``start``; -1 where there is none."""
    alternative_end: Int64
    """(n_exons,) second donor, downstream of ``end``; -1 where there is none."""
    is_cassette: NDArray[np.bool_]
    """(n_exons,) exons that some transcripts skip."""
    intron_type: NDArray[np.int8]
    """(n_exons - 1,) 0 GT-AG, 1 GC-AG, 2 AT-AC."""

    @property
    def n_exons(self) -> int:
        """Number of exons."""
        return len(self.start)

    @property
    def length(self) -> int:
        """Length of the gene, in bp."""
        return int(self.end[-1])

    @property
    def outer_start(self) -> Int64:
        """(n_exons,) starts with the longer alternative."""
        return np.where(self.alternative_start >= 0, self.alternative_start, self.start)

    @property
    def outer_end(self) -> Int64:
        """(n_exons,) ends with the longer alternative."""
        return np.where(self.alternative_end >= 0, self.alternative_end, self.end)


def draw_shape(rng: np.random.Generator, intron_mean: float, *, min_exons: int = 1, max_exons: int = 30) -> GeneShape:
    """Draw the exons of a gene.

    Parameters
    ----------
    intron_mean
        Mean intron length, in bp.
    """
    n_exons = 1 if rng.random() < P_SINGLE_EXON else 2 + int(rng.poisson(rng.gamma(1.3, 5.2 / 1.3)))
    n_exons = int(np.clip(n_exons, min_exons, min(max_exons, MAX_EXONS)))
    is_cassette, has_second_donor, has_second_acceptor = _draw_events(rng, n_exons)
    exon = np.clip(rng.lognormal(np.log(135), 0.45, n_exons), 54, 400).astype(np.int64)
    exon[is_cassette] = rng.integers(54, 100, n_exons)[is_cassette]
    exon[0] = rng.integers(MIN_TERMINAL_EXON, 320)
    exon[-1] = rng.integers(300, 800) if n_exons > 1 else rng.integers(400, 1_600)
    extension_5 = np.where(has_second_acceptor, 48 + 3 * rng.integers(0, 14, n_exons), 0)
    extension_3 = np.where(has_second_donor, 21 + 3 * rng.integers(0, 18, n_exons), 0)
    spread = rng.lognormal(-0.5 * 0.9**2, 0.9, n_exons) * max(intron_mean - MIN_INTRON, 0.0)
    intron = np.minimum(MIN_INTRON + spread, MAX_INTRON).astype(np.int64)
    total = extension_5 + exon + extension_3
    outer_end = np.cumsum(total + intron) - intron
    start = outer_end - extension_3 - exon
    intron_type = rng.choice(3, n_exons - 1, p=motifs.INTRON_TYPE_SHARE).astype(np.int8)
    plain = ~(has_second_donor[:-1] | has_second_acceptor[1:])
    return GeneShape(
        start=start,
        end=start + exon,
        alternative_start=np.where(has_second_acceptor, start - extension_5, NO_BOUNDARY),
        alternative_end=np.where(has_second_donor, outer_end, NO_BOUNDARY),
        is_cassette=is_cassette,
        intron_type=np.where((intron_type == AT_AC) & ~plain, 0, intron_type).astype(np.int8),
    )


def _draw_events(
    rng: np.random.Generator, n_exons: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Choose cassette exons, second donors and second acceptors so that each intron takes part in one event."""
    cassette, donor, acceptor = (np.zeros(n_exons, dtype=bool) for _ in range(3))
    draws = rng.random(n_exons)
    slot = 0
    while slot < n_exons - 1:
        u = draws[slot]
        if u < P_CASSETTE and slot + 2 < n_exons:
            cassette[slot + 1] = True
            slot += 2
            continue
        u -= P_CASSETTE
        donor[slot] = 0 <= u < P_ALTERNATIVE_DONOR
        acceptor[slot + 1] = P_ALTERNATIVE_DONOR <= u < P_ALTERNATIVE_DONOR + P_ALTERNATIVE_ACCEPTOR
        slot += 1
    return cassette, donor, acceptor


@dataclass(frozen=True, slots=True)
class _SitePlan:
    """Sites of one kind, in transcript orientation."""

    boundary: Int64
    exon_start: Int64
    """Outermost bounds of the site's exon."""
    exon_end: Int64
    intron_edge: Int64
    """The other end of the intron side that motifs may fill."""
    is_alternative: NDArray[np.bool_]
    """The site's use varies: its neighbourhood gets silencers and regulators."""
    intron_type: NDArray[np.int8]


def build_sequence(rng: np.random.Generator, shape: GeneShape) -> Codes:
    """Write the bases of a gene.

    Later motifs overwrite earlier ones, so the order is from the loosest (enhancers) to the strictest
    (matrix columns and intron ends).

    Returns
    -------
    packed : (length,) uint8
        As ``packed.pack``.
    """
    is_exon = np.zeros(shape.length + 1, dtype=np.int8)
    np.add.at(is_exon, shape.outer_start, 1)
    np.add.at(is_exon, shape.outer_end, -1)
    exonic = np.cumsum(is_exon[:-1], dtype=np.int8) > 0
    code = random_bases(rng, shape.length, Class.INTRON)
    code[exonic] = random_bases(rng, int(exonic.sum()), Class.EXON)
    if shape.n_exons == 1:
        return code
    donors, acceptors = _donor_plan(shape), _acceptor_plan(shape)
    _plant_enhancers(rng, code, donors, is_donor=True)
    _plant_enhancers(rng, code, acceptors, is_donor=False)
    _plant_silencers(rng, code, shape)
    _plant_g_runs(rng, code, donors)
    _plant_regulators(rng, code, donors, is_donor=True)
    _plant_regulators(rng, code, acceptors, is_donor=False)
    _plant_acceptors(rng, code, acceptors)
    _plant_donors(rng, code, donors)
    return code


def _donor_plan(shape: GeneShape) -> _SitePlan:
    second = np.flatnonzero(shape.alternative_end[:-1] >= 0)
    exon = np.concatenate((np.arange(shape.n_exons - 1), second))
    is_second = np.arange(len(exon)) >= shape.n_exons - 1
    has_second = shape.alternative_end[exon] >= 0
    return _SitePlan(
        boundary=np.where(is_second, shape.alternative_end[exon], shape.end[exon]),
        exon_start=shape.outer_start[exon],
        exon_end=shape.outer_end[exon],
        intron_edge=np.where(
            has_second & ~is_second, shape.alternative_end[exon] - 4, shape.outer_start[exon + 1] - 60
        ),
        is_alternative=has_second | shape.is_cassette[exon],
        intron_type=shape.intron_type[exon],
    )


def _acceptor_plan(shape: GeneShape) -> _SitePlan:
    second = np.flatnonzero(shape.alternative_start >= 0)
    exon = np.concatenate((np.arange(1, shape.n_exons), second))
    is_second = np.arange(len(exon)) >= shape.n_exons - 1
    has_second = shape.alternative_start[exon] >= 0
    return _SitePlan(
        boundary=np.where(is_second, shape.alternative_start[exon], shape.start[exon]),
        exon_start=shape.outer_start[exon],
        exon_end=shape.outer_end[exon],
        intron_edge=np.where(
            has_second & ~is_second, shape.alternative_start[exon] + 4, shape.outer_end[exon - 1] + 10
        ),
        is_alternative=has_second | shape.is_cassette[exon],
        intron_type=shape.intron_type[exon - 1],
    )


def _plant(code: Codes, at: Int64, words: Codes, constraint: Class = Class.SIGNAL) -> None:
    """Overwrite ``(n, width)`` words at ``(n,)`` positions."""
    code[at[:, None] + np.arange(words.shape[1])] = pack(words, constraint)


def _plant_enhancers(rng: np.random.Generator, code: Codes, sites: _SitePlan, *, is_donor: bool) -> None:
    """Fill 7-base slots of the exon beside each site with enhancers, more beside constitutive sites."""
    slot = np.arange(8) * (motifs.WORD + 1) + rng.integers(0, 2, (len(sites.boundary), 8))
    if is_donor:
        at = sites.boundary[:, None] - motifs.DONOR_EXON - motifs.WORD - slot
    else:
        at = sites.boundary[:, None] + motifs.ACCEPTOR_EXON + slot
    share = np.where(sites.is_alternative, 0.60, 0.75)[:, None]
    chosen = (rng.random(at.shape) < share) & (at > sites.exon_start[:, None])
    chosen &= at + motifs.WORD < sites.exon_end[:, None]
    _plant(code, at[chosen], motifs.ENHANCERS[rng.integers(0, len(motifs.ENHANCERS), int(chosen.sum()))])


def _plant_silencers(rng: np.random.Generator, code: Codes, shape: GeneShape) -> None:
    """Put one to three silencers into cassette exons, and into the exon beside a site that has a rival."""
    beside_donor = np.flatnonzero(shape.alternative_end >= 0)
    beside_acceptor = np.flatnonzero(shape.alternative_start >= 0)
    cassette = np.flatnonzero(shape.is_cassette)
    low = np.concatenate((shape.start[cassette] + 4, shape.end[beside_donor] - 46, shape.start[beside_acceptor] + 4))
    third: Int64 = np.concatenate(
        ((shape.end[cassette] - shape.start[cassette] - 8) // 3, np.full(len(beside_donor) + len(beside_acceptor), 14))
    )
    n_words = rng.choice([1, 2, 3], len(low), p=[0.2, 0.5, 0.3])
    at = low[:, None] + third[:, None] * np.arange(3) + rng.integers(0, 8, (len(low), 3))
    chosen = rng.permuted(np.tile(np.arange(3), (len(low), 1)), axis=1) < n_words[:, None]
    _plant(code, at[chosen], motifs.SILENCERS[rng.integers(0, len(motifs.SILENCERS), int(chosen.sum()))])


def _plant_g_runs(rng: np.random.Generator, code: Codes, donors: _SitePlan) -> None:
    at = donors.boundary[:, None] + 9 + 10 * np.arange(6) + rng.integers(0, 6, (len(donors.boundary), 6))
    chosen = (rng.random(at.shape) < 0.65) & (at + 4 <= donors.intron_edge[:, None])
    _plant(code, at[chosen], motifs.G_RUN[rng.integers(0, 2, int(chosen.sum()))])


def _plant_regulators(rng: np.random.Generator, code: Codes, sites: _SitePlan, *, is_donor: bool) -> None:
    """Give most alternative sites, and a few others, one or two regulators in their intron."""
    n = len(sites.boundary)
    offset: Int64 = np.stack((rng.integers(10, 48, n), rng.integers(54, 90, n)), axis=1)
    if is_donor:
        at = sites.boundary[:, None] + offset
        fits = at + motifs.WORD <= sites.intron_edge[:, None]
    else:
        at = sites.boundary[:, None] - np.maximum(offset, 46) - motifs.WORD
        fits = at >= sites.intron_edge[:, None]
    share = np.where(sites.is_alternative, 0.60, 0.04)[:, None]
    chosen = (rng.random(at.shape) < share) & fits
    _plant(code, at[chosen], motifs.REGULATORS[rng.integers(0, len(motifs.REGULATORS), int(chosen.sum()))])


def _plant_acceptors(rng: np.random.Generator, code: Codes, sites: _SitePlan) -> None:
    """Branch point, polypyrimidine tract, AG (or AC) and the first exon bases."""
    n = len(sites.boundary)
    minor = sites.intron_type == AT_AC
    distance = rng.integers(*motifs.BRANCH_DISTANCE, n)
    branch = motifs.BRANCH_POINTS[rng.choice(len(motifs.BRANCH_POINTS), n, p=motifs.BRANCH_WEIGHTS)]
    _plant(code, sites.boundary - distance - motifs.BRANCH_ADENINE, branch)
    words = motifs.sample_pwm(rng, motifs.ACCEPTOR_PWM, np.where(sites.is_alternative, WEAK_SITE, 0.0))
    _plant(code, sites.boundary - motifs.ACCEPTOR_INTRON, words)
    at = sites.boundary[minor] - motifs.MINOR_BRANCH_DISTANCE
    _plant(code, at, np.tile(motifs.MINOR_BRANCH, (len(at), 1)))
    _plant(code, sites.boundary - 2, motifs.INTRON_ENDS[sites.intron_type, 2:], Class.INVARIANT)


def _plant_donors(rng: np.random.Generator, code: Codes, sites: _SitePlan) -> None:
    """Last exon bases, GT (GC, AT) and the next four."""
    minor = sites.intron_type == AT_AC
    words = motifs.sample_pwm(rng, motifs.DONOR_PWM, np.where(sites.is_alternative, WEAK_SITE, 0.0))
    _plant(code, sites.boundary - motifs.DONOR_EXON, words)
    at = sites.boundary[minor]
    _plant(code, at, np.tile(motifs.MINOR_DONOR, (len(at), 1)))
    _plant(code, sites.boundary, motifs.INTRON_ENDS[sites.intron_type, :2], Class.INVARIANT)
