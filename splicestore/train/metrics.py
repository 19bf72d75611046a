"""Metrics pooled over all positions of a subset, never averaged over windows: sites by rank, usage by correlation.

Memory is bounded: scores are kept as they are up to a number of positions, and as counts per float16 score
beyond it. A scorer takes 9 bytes a position, one metric another 10 while it is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ModelError
from splicestore.kernels.ranking import (
    N_BINS,
    TieGroups,
    average_precision,
    pearson,
    score_bins,
    spearman,
    tie_groups,
    tie_groups_from_counts,
    top_k_accuracy,
)
from splicestore.schema import LABEL_ACCEPTOR, LABEL_DONOR, LABEL_IGNORE

EXACT_POSITIONS = 10_000_000
"""Positions whose scores are kept: 90 MB a scorer. Beyond it they are rounded to float16 and counted."""

POSITION_BYTES = 9
"""Two scores and the label of a position whose scores are kept."""

SITE_CLASSES = (("acceptor", LABEL_ACCEPTOR), ("donor", LABEL_DONOR))

COUNTED_BYTES = 2 * len(SITE_CLASSES) * N_BINS * 8
"""Counts of one genome and strand."""

Group = tuple[int, int]
"""Genome and strand."""


class SitePool:
    """Scores and labels of every position of a subset, by genome and strand."""

    def __init__(self, exact_positions: int = EXACT_POSITIONS) -> None:
        self._limit = exact_positions
        self._kept: dict[Group, list[tuple[NDArray[np.float32], NDArray[np.uint8]]]] = {}
        self._counts: dict[Group, NDArray[np.int64]] = {}
        self._n_kept = 0
        self.is_exact = True
        """False once scores were rounded."""

    def add(
        self,
        genome: NDArray[np.integer],
        strand: NDArray[np.integer],
        scores: NDArray[np.float32],
        label: NDArray[np.uint8],
    ) -> None:
        """Add windows.

        Parameters
        ----------
        genome, strand : (B,) integer
        scores : (B, 2, W) float32
            Of acceptor and donor; higher is more likely.
        label : (B, W) uint8
            255 is left out.

        Raises
        ------
        ModelError
            If a score is not finite.
        """
        if not np.isfinite(scores).all():
            raise ModelError(
                f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores of a batch are not finite; the model is "
                "broken: train again with a lower learning_rate"
            )
        for key in {(int(g), int(s)) for g, s in zip(genome, strand, strict=True)}:
            rows = (genome == key[0]) & (strand == key[1])
            counted = label[rows] != LABEL_IGNORE  # (b, W)
            values = np.moveaxis(scores[rows], 1, 0)[:, counted].astype(np.float32, copy=False)  # (2, positions)
            self._kept.setdefault(key, []).append((values, label[rows][counted]))
            self._n_kept += values.shape[1]
        if not self.is_exact or self._n_kept > self._limit:
            self._fold()

    def merge(self, other: SitePool) -> None:
        """Add what another pool holds; metrics are the same as if its windows had been added here, in any order."""
        for group, pieces in other._kept.items():
            self._kept.setdefault(group, []).extend(pieces)
        for group, counts in other._counts.items():
            self._counts[group] = self._counts.get(group, 0) + counts
        self._n_kept += other._n_kept
        if not (self.is_exact and other.is_exact) or self._n_kept > self._limit:
            self._fold()

    @property
    def groups(self) -> list[Group]:
        """Genomes and strands that have been added, sorted."""
        return sorted({*self._kept, *self._counts})

    def metrics(self, groups: Iterable[Group]) -> dict[str, dict[str, float | int | None]]:
        """Average precision and top-k accuracy per class, over all positions of some groups."""
        chosen = list(groups)
        found: dict[str, dict[str, float | int | None]] = {}
        for row, (name, code) in enumerate(SITE_CLASSES):
            ranked = self._ranked(chosen, row, code)
            found[name] = {
                "average_precision": average_precision(ranked),
                "top_k_accuracy": top_k_accuracy(ranked),
                "n_true": ranked.total_true,
                "n_positions": ranked.n_positions,
            }
        return found

    def _ranked(self, groups: Sequence[Group], row: int, code: int) -> TieGroups:
        if not self.is_exact:
            counts = np.zeros((2, N_BINS), dtype=np.int64)
            for group in groups:
                counts += self._counts[group][row]
            return tie_groups_from_counts(counts[0], counts[1])
        kept = [piece for group in groups for piece in self._kept[group]]
        scores = np.concatenate([np.zeros(0, dtype=np.float32), *(values[row] for values, _ in kept)])
        truth = np.concatenate([np.zeros(0, dtype=bool), *(label == code for _, label in kept)])
        return tie_groups(scores, truth)

    def _fold(self) -> None:
        """Turn what is kept into counts: per group (class, true or all, bin)."""
        self.is_exact = False
        for group, pieces in self._kept.items():
            counts = self._counts.setdefault(group, np.zeros((len(SITE_CLASSES), 2, N_BINS), dtype=np.int64))
            for values, label in pieces:
                for row, (_, code) in enumerate(SITE_CLASSES):
                    bins = score_bins(values[row])
                    counts[row, 0] += np.bincount(bins[label == code], minlength=N_BINS)
                    counts[row, 1] += np.bincount(bins, minlength=N_BINS)
        self._kept.clear()
        self._n_kept = 0


class UsagePool:
    """Predicted and observed usage at measured sites: 8 bytes per site and condition."""

    def __init__(self, condition_names: Sequence[str]) -> None:
        self._condition_names = list(condition_names)
        self._genome: list[NDArray[np.int64]] = []
        self._predicted: list[NDArray[np.float32]] = []
        self._observed: list[NDArray[np.float32]] = []

    def add(self, genome: NDArray[np.integer], predicted: NDArray[np.float32], observed: NDArray[np.float32]) -> None:
        """Add sites.

        Parameters
        ----------
        genome : (n,) integer
        predicted, observed : (n, C) float32
            Usage in [0, 1]; ``observed`` is NaN where not measured.
        """
        any_measured = ~np.isnan(observed).all(axis=1)
        self._genome.append(genome[any_measured].astype(np.int64))
        self._predicted.append(predicted[any_measured].astype(np.float32, copy=False))
        self._observed.append(observed[any_measured].astype(np.float32, copy=False))

    def merge(self, other: UsagePool) -> None:
        """Add what another pool of the same conditions holds; metrics do not depend on the order."""
        self._genome += other._genome
        self._predicted += other._predicted
        self._observed += other._observed

    def metrics(self, genome_names: Sequence[str]) -> dict[str, Any]:
        """Spearman's and Pearson's correlation: pooled, per condition, per genome.

        Returns
        -------
        metrics : dict
            ``pooled``, ``conditions`` by name, ``genomes`` by name: each spearman, pearson, n (measured pairs).
        """
        width = len(self._condition_names)
        empty = np.zeros((0, width), dtype=np.float32)
        genome = np.concatenate([np.zeros(0, dtype=np.int64), *self._genome])
        predicted = np.concatenate([empty, *self._predicted])
        observed = np.concatenate([empty, *self._observed])
        return {
            "pooled": _correlations(predicted, observed),
            "conditions": {
                name: _correlations(predicted[:, column], observed[:, column])
                for column, name in enumerate(self._condition_names)
            },
            "genomes": {
                genome_names[number]: _correlations(predicted[genome == number], observed[genome == number])
                for number in np.unique(genome).tolist()
            },
        }


def _correlations(predicted: NDArray[np.float32], observed: NDArray[np.float32]) -> dict[str, float | int | None]:
    measured = ~np.isnan(observed)
    pairs = np.stack((predicted[measured], observed[measured]), axis=1)
    # Sums of floats depend on their order: sorted by their bits, the same pairs give the same digits in any order.
    pairs.view(np.uint64)[:, 0].sort()
    x, y = np.ascontiguousarray(pairs.T)
    return {"spearman": spearman(x, y), "pearson": pearson(x, y), "n": len(x)}


def site_rows(scorer: str, sites: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Flatten the site metrics of one scorer as table rows."""
    places = [("all", "both", sites["all"])]
    places += [("all", strand, found) for strand, found in sites["strands"].items()]
    for genome, found in sites["genomes"].items():
        places.append((genome, "both", found["all"]))
        places += [(genome, strand, by_class) for strand, by_class in found["strands"].items()]
    return [
        {"scorer": scorer, "genome": genome, "strand": strand, "task": task, "metric": metric,
         "value": values[metric], "n": values["n_true"]}
        for genome, strand, found in places
        for task, values in found.items()
        for metric in ("average_precision", "top_k_accuracy")
    ]  # fmt: skip


def usage_rows_of(scorer: str, usage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Flatten the usage metrics of one scorer as table rows."""
    places = [("all", "sse", usage["pooled"])]
    places += [("all", f"sse:{name}", found) for name, found in usage["conditions"].items()]
    places += [(name, "sse", found) for name, found in usage["genomes"].items()]
    return [
        {"scorer": scorer, "genome": genome, "strand": "both", "task": task, "metric": metric,
         "value": found[metric], "n": found["n"]}
        for genome, task, found in places
        for metric in ("spearman", "pearson")
    ]  # fmt: skip
