"""Many windows of one genome at once: every base and site of every window is looked up on its own, by plain numpy.

For genomes that strings cannot hold; `window_oracle` says the same rules in words. Positions are absolute bases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

COMPLEMENT = np.array([3, 2, 1, 0, 4], dtype=np.uint8)
LABEL_OF_KIND = np.array([0, 1, 2, 255], dtype=np.uint8)
"""None, acceptor, donor, both."""


@dataclass(frozen=True)
class ArrayTruth:
    """What a genome holds."""

    base_at: Callable[[Int64], NDArray[np.uint8]]
    """Codes 0..4 of absolute positions within the genome."""
    contig_start: Int64
    contig_end: Int64
    position: Int64
    strand: NDArray[np.int8]
    kind: NDArray[np.uint8]
    """Of the sites, sorted by position and strand."""
    alpha: NDArray[np.float32]
    beta: NDArray[np.float32]
    """(site, condition)."""


def cut_windows(
    truth: ArrayTruth, contig: Int64, start: Int64, strand: Int64, window_size: int, context_size: int
) -> dict[str, NDArray[Any]]:
    """Arrays of a batch: sequence, label, and the usage rows of sites that some condition measured."""
    low, high = truth.contig_start[contig][:, None], truth.contig_end[contig][:, None]
    minus = (strand < 0)[:, None]
    inputs = _in_reading_order(start - context_size, window_size + 2 * context_size, minus)
    codes = truth.base_at(np.clip(inputs, low, high - 1))
    codes = np.where(minus, COMPLEMENT[codes], codes)
    sequence = np.where((low <= inputs) & (inputs < high), codes, np.uint8(4))

    centre = _in_reading_order(start, window_size, minus)
    inside = (low <= centre) & (centre < high)
    site = _site_rows(truth, centre, np.broadcast_to(strand[:, None], centre.shape))
    site[~inside] = -1
    label = (
        np.where(site >= 0, LABEL_OF_KIND[truth.kind[site]], np.uint8(0)) if len(truth.kind) else np.zeros_like(site)
    )
    measured = np.append((~np.isnan(truth.alpha + truth.beta)).any(axis=1), False)
    window, position = np.nonzero(measured[site])
    rows = site[window, position]
    return {
        "sequence": sequence,
        "label": np.where(inside, label, 255).astype(np.uint8),
        "usage_row_window": window.astype(np.int32),
        "usage_row_position": position.astype(np.int32),
        "alpha": truth.alpha[rows],
        "beta": truth.beta[rows],
    }


def _in_reading_order(first: Int64, length: int, minus: NDArray[np.bool_]) -> Int64:
    """(window, place) positions; on the minus strand from the last base to the first."""
    forward = first[:, None] + np.arange(length)
    return np.where(minus, forward[:, ::-1], forward)


def _site_rows(truth: ArrayTruth, position: Int64, strand: Int64) -> Int64:
    """Row of the site at each (position, strand), -1 where there is none."""
    key, known = position * 2 + (strand > 0), truth.position * 2 + (truth.strand > 0)
    row = np.searchsorted(known, key)
    found = row < len(known)
    found[found] = known[row[found]] == key[found]
    return np.where(found, row, -1)
