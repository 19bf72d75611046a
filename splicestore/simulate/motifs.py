"""The splicing code of the simulation: what marks a site, and what decides how much it is used.

A donor is drawn from a position weight matrix around MAG|GTRAGT, an acceptor from a polypyrimidine tract
with YAG|G behind a branch point. Neither is enough to find sites: random sequence holds more words that
fit than there are sites. Exonic enhancers beside both kinds of sites and G-runs behind donors tell them apart.

How much a site is used is a logistic function of the motifs that stand near it: enhancers and strength
raise it, silencers lower it, and regulators change it by tissue and timepoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.sequence import decode_bases, encode_bases
from splicestore.simulate.seeds import Stream, random_stream

Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def _words(*words: str) -> Codes:
    return np.stack([encode_bases(word.encode()) for word in words])


DONOR_EXON, DONOR_INTRON = 3, 6
ACCEPTOR_INTRON, ACCEPTOR_EXON = 20, 3

DONOR_PWM: Floats = np.array(
    [
        (0.33, 0.36, 0.18, 0.13),
        (0.55, 0.15, 0.14, 0.16),
        (0.11, 0.06, 0.72, 0.11),
        (0.00, 0.00, 1.00, 0.00),
        (0.00, 0.00, 0.00, 1.00),
        (0.53, 0.05, 0.37, 0.05),
        (0.62, 0.11, 0.14, 0.13),
        (0.10, 0.08, 0.73, 0.09),
        (0.19, 0.18, 0.21, 0.42),
    ]
)
"""(9, 4) probabilities of A C G T at -3..+6 of a donor; the intron starts at column 3."""

ACCEPTOR_PWM: Floats = np.array(
    [(0.19, 0.27, 0.16, 0.38)] * 8
    + [(0.15, 0.29, 0.14, 0.42)] * 8
    + [
        (0.24, 0.28, 0.20, 0.28),
        (0.08, 0.58, 0.03, 0.31),
        (1.00, 0.00, 0.00, 0.00),
        (0.00, 0.00, 1.00, 0.00),
        (0.25, 0.16, 0.46, 0.13),
        (0.25, 0.19, 0.22, 0.34),
        (0.26, 0.23, 0.25, 0.26),
    ]
)
"""(23, 4) probabilities at -20..+3 of an acceptor; the exon starts at column 20."""

BRANCH_POINTS = _words("CTAAC", "CTGAC", "CTCAC", "TTAAC", "CTAAT", "CTGAT")
BRANCH_WEIGHTS: Floats = np.array([0.40, 0.22, 0.12, 0.10, 0.10, 0.06])
BRANCH_ADENINE = 3
"""Column of the branching A."""
BRANCH_DISTANCE = (23, 41)
"""Range of the distance from the branching A to the exon, end excluded."""

ENHANCERS = _words(
    "GAAGAA", "AAGAAG", "AGAAGA", "GAAGAC", "GACGAA", "AGGAAG",
    "GGAAGA", "GAAGGA", "AAGGAA", "CGAAGA", "ATGAAG", "TGAAGA",
)  # fmt: skip
SILENCERS = _words("TTAGGG", "TAGACA")
REGULATORS = _words("TGCATG", "GCTTGC", "TCATCA", "TGTGTT", "CATAAC", "GCACGC")
G_RUN = _words("TGGG", "AGGG")
MINOR_DONOR = encode_bases(b"ATATCCTT")
"""First bases of an AT-AC intron."""
MINOR_BRANCH = encode_bases(b"TTCCTTAACCTT")
"""Branch point of an AT-AC intron, ending 6 bases before its AC."""
MINOR_BRANCH_DISTANCE = 20

INTRON_ENDS = _words("GTAG", "GCAG", "ATAC")
"""First two and last two intron bases by intron type."""
INTRON_TYPE_SHARE: Floats = np.array([0.988, 0.010, 0.002])

WORD = 6
ENHANCER_REACH = 60
"""Exon bases beside a site in which enhancers and silencers act."""
REGULATOR_REACH = 100
"""Intron bases beside a site in which regulators act."""
WINDOW_OFFSETS = np.arange(-REGULATOR_REACH, REGULATOR_REACH + WORD - 1)
"""Offsets from a boundary, in transcript orientation, that decide a site's usage; 0 is the first base after it."""

_ENHANCER, _SILENCER, _FIRST_REGULATOR = 1, 2, 3
_POWERS = 4 ** np.arange(WORD - 1, -1, -1)


def _word_classes() -> Codes:
    """Class of every 6-mer: 0 none, 1 enhancer, 2 silencer, 3.. regulators."""
    classes = np.zeros(4**WORD, dtype=np.uint8)
    classes[ENHANCERS @ _POWERS] = _ENHANCER
    classes[SILENCERS @ _POWERS] = _SILENCER
    classes[REGULATORS @ _POWERS] = np.arange(_FIRST_REGULATOR, _FIRST_REGULATOR + len(REGULATORS))
    return classes


_WORD_CLASS = _word_classes()


def _log_odds(pwm: Floats) -> Floats:
    return np.log2(np.maximum(pwm, 0.01) / 0.25)


_DONOR_LOG_ODDS, _ACCEPTOR_LOG_ODDS = _log_odds(DONOR_PWM), _log_odds(ACCEPTOR_PWM)


def information_bits(pwm: Floats) -> float:
    """Sum the information of a matrix against uniform bases, in bits."""
    return float((pwm * np.log2(np.maximum(pwm, 1e-12) / 0.25)).sum())


def sample_pwm(rng: np.random.Generator, pwm: Floats, weakness: Floats) -> Codes:
    """Draw one word per site.

    Parameters
    ----------
    pwm : (width, 4) float64
    weakness : (n,) float64
        Share of uniform bases mixed into the matrix for each site.

    Returns
    -------
    words : (n, width) uint8
    """
    words = (rng.random((len(weakness), len(pwm), 1)) > np.cumsum(pwm, axis=1)[None, :, :3]).sum(axis=2)
    uniform = rng.integers(0, 4, words.shape)
    mixed = np.where(rng.random(words.shape) < weakness[:, None], uniform, words)
    return np.asarray(mixed, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class UsageModel:
    """Weights of the logistic usage function."""

    base: float
    """Log odds of a site of average strength with three enhancers and nothing else."""
    enhancer: float
    """Per enhancer word in reach; five count at most."""
    silencer: float
    strength: float
    """Per bit of the site's matrix score above the mean of true sites."""
    regulator: Floats
    """(n_regulators, n_conditions): effect of a word behind a donor; before an acceptor the sign turns."""

    def document(self, condition_names: tuple[str, ...]) -> dict[str, Any]:
        """Return the model as a JSON-ready mapping."""
        return {
            "base": self.base,
            "enhancer": {"weight": self.enhancer, "words": [decode_bases(w) for w in ENHANCERS]},
            "silencer": {"weight": self.silencer, "words": [decode_bases(w) for w in SILENCERS]},
            "strength": self.strength,
            "regulator": {
                decode_bases(word): dict(zip(condition_names, np.round(row, 6).tolist(), strict=True))
                for word, row in zip(REGULATORS, self.regulator, strict=True)
            },
        }


def draw_usage_model(seed: int, n_tissues: int, n_timepoints: int) -> UsageModel:
    """Draw the regulators' effects: each has one tissue where it is strong, and grows or fades with time.

    Returns
    -------
    UsageModel
        Conditions ordered by tissue, then timepoint.
    """
    rng = random_stream(seed, Stream.MODEL)
    n = len(REGULATORS)
    profile = rng.uniform(0.0, 0.25, (n, n_tissues))
    profile[np.arange(n), (np.arange(n) + rng.integers(n_tissues)) % n_tissues] = 1.0
    trend = np.ones((n, n_timepoints)) if n_timepoints == 1 else np.tile(np.linspace(0.4, 1.4, n_timepoints), (n, 1))
    trend[1::2] = trend[1::2, ::-1]
    direction = np.where(np.arange(n) % 2 == 0, 2.4, -2.4)
    regulator = direction[:, None, None] * profile[:, :, None] * trend[:, None, :]
    return UsageModel(
        base=4.0, enhancer=0.25, silencer=-1.7, strength=0.25, regulator=regulator.reshape(n, n_tissues * n_timepoints)
    )


def site_log_odds(model: UsageModel, windows: Codes, is_donor: NDArray[np.bool_]) -> Floats:
    """Compute the log odds that sites are used, from the bases around them.

    Parameters
    ----------
    windows : (n_sites, len(WINDOW_OFFSETS)) uint8
        Codes 0..3 in transcript orientation, 4 for bases outside the locus.
    is_donor : (n_sites,) bool

    Returns
    -------
    log_odds : (n_sites, n_conditions) float64
    """
    n_starts = len(WINDOW_OFFSETS) - WORD + 1
    starts = WINDOW_OFFSETS[:n_starts]
    known = windows < 4
    word = np.zeros((len(windows), n_starts), dtype=np.int64)
    complete = np.ones(word.shape, dtype=bool)
    for column in range(WORD):
        word += windows[:, column : column + n_starts].astype(np.int64) * _POWERS[column]
        complete &= known[:, column : column + n_starts]
    found = np.where(complete, _WORD_CLASS[np.where(complete, word, 0)], 0)
    side = np.where(is_donor, 1, -1)[:, None]
    into_intron = np.where(is_donor[:, None], starts, -(starts + WORD))  # 0: touches the boundary
    in_exon = (into_intron <= -WORD) & (into_intron >= -ENHANCER_REACH)
    in_intron = (into_intron >= 0) & (into_intron <= REGULATOR_REACH - WORD)
    enhancers = ((found == _ENHANCER) & in_exon).sum(axis=1)
    silencers = ((found == _SILENCER) & in_exon).sum(axis=1)
    kinds = np.arange(_FIRST_REGULATOR, _FIRST_REGULATOR + len(REGULATORS))
    regulators = ((found[:, :, None] == kinds) & in_intron[:, :, None]).sum(axis=1) * side
    constant = (
        model.base
        + model.enhancer * (np.minimum(enhancers, 5) - 3)
        + model.silencer * silencers
        + model.strength * _strength(windows, is_donor)
    )
    return np.asarray(constant[:, None] + regulators @ model.regulator)


def _strength(windows: Codes, is_donor: NDArray[np.bool_]) -> Floats:
    """Matrix score of each site in bits, relative to the mean of true sites: ``(n_sites,)``."""
    result = np.zeros(len(windows))
    for donors, log_odds, pwm, first in (
        (True, _DONOR_LOG_ODDS, DONOR_PWM, -DONOR_EXON),
        (False, _ACCEPTOR_LOG_ODDS, ACCEPTOR_PWM, -ACCEPTOR_INTRON),
    ):
        chosen = is_donor == donors
        column = first + REGULATOR_REACH
        words = np.minimum(windows[chosen, column : column + len(pwm)], 3)
        score = log_odds[np.arange(len(pwm)), words].sum(axis=1)
        result[chosen] = np.clip(score - (pwm * log_odds).sum(), -8.0, 4.0)
    return result
