"""Which samples a normalisation is fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.schema import LedgerRow

SINGLE_CELL_COLUMN = "sample_singlecellprobability"


@dataclass(frozen=True, slots=True)
class SampleQuality:
    """Bounds of GeneRAIN's sample quality control; None: not asked."""

    min_total: int | None = 1_000_000
    """Counts at least."""
    max_single_cell: float | None = 0.5
    """Probability of being from a single cell, below this; not asked of files that do not say."""
    min_nonzero: int | None = 2000
    """More genes than this with a count."""

    @classmethod
    def none(cls) -> SampleQuality:
        """Keep every sample that has a count."""
        return cls(None, None, None)


@dataclass(frozen=True, slots=True)
class QualityResult:
    """Which samples pass."""

    keep: NDArray[np.bool_]
    """(sample,)."""
    dropped: Mapping[str, int]
    """Samples by the first reason that drops them."""

    def ledger(self) -> list[LedgerRow]:
        """One row a reason."""
        return [LedgerRow("sample", "", reason, "", n) for reason, n in self.dropped.items() if n]


def judge_samples(
    quality: SampleQuality,
    totals: NDArray[np.int64],
    n_nonzero: NDArray[np.int32],
    single_cell: NDArray[Any] | None,
) -> QualityResult:
    """Judge samples by their totals, the genes they have, and their probability of being from a single cell.

    A sample without a count is dropped always: it has no score. A probability that is not known (NaN) drops a sample.
    """
    fails = {"no_counts": totals <= 0}
    if quality.min_total is not None:
        fails["few_counts"] = totals < quality.min_total
    if quality.max_single_cell is not None and single_cell is not None:
        fails["single_cell"] = ~(single_cell < quality.max_single_cell)
    if quality.min_nonzero is not None:
        fails["few_genes"] = n_nonzero <= quality.min_nonzero
    keep, dropped = np.ones(len(totals), dtype=bool), dict[str, int]()
    for reason, failed in fails.items():
        dropped[reason] = int(np.count_nonzero(keep & failed))
        keep &= ~failed
    return QualityResult(keep, dropped)
