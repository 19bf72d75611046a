"""Independent random streams, each named by integers, so that any piece can be drawn alone and in any order."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a random stream is for; the first key after the study's seed."""

    TREE = 1
    LAYOUT = 2
    BRANCH = 3
    SHAPE = 4
    SEQUENCE = 5
    LOCUS = 6
    SPACER = 7
    REPEATS = 8
    MUTATION = 9
    GAP = 10
    EXPRESSION = 11
    READS = 12
    MODEL = 13
    ORTHOLOGY = 14
    GENE_PROFILE = 15
    SYMBOL = 16
    SERIES = 17
    SAMPLE = 18
    BATCH = 19
    COPY = 20
    COPY_PLACE = 21


def random_stream(seed: int, purpose: Stream, *keys: int) -> np.random.Generator:
    """Open the stream of (seed, purpose, keys); equal arguments give equal draws, whatever was drawn before."""
    return np.random.default_rng(np.random.SeedSequence([seed, int(purpose), *keys]))
