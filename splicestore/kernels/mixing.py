"""A seeded integer hash for choices that must not depend on order: keep this window, or not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mix_fraction(values: NDArray[np.int64], seed: int = 0) -> NDArray[np.float64]:
    """Hash integers to [0, 1): the splitmix64 finaliser, the same on every machine.

    Parameters
    ----------
    values : (n,) int64
    seed
        Another seed, another choice.

    Returns
    -------
    fraction : (n,) float64

    Examples
    --------
    >>> bool((mix_fraction(np.arange(10_000)) < 0.25).mean().round(1) in (0.2, 0.3))
    True
    """
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) / float(1 << 53)
