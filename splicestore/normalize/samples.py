"""Which samples of a matrix a normalisation is fitted to: all, a list, a split's training samples; and of them those that pass."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError, close_names
from splicestore.expression import Expression
from splicestore.normalize.quality import SINGLE_CELL_COLUMN, QualityResult, SampleQuality, judge_samples
from splicestore.schema import SUBSET_TRAIN
from splicestore.store import Store


class SampleChoice(Protocol):
    """The options of a fit that choose samples."""

    @property
    def quality(self) -> SampleQuality:
        """Bounds that a sample keeps to."""
        ...

    @property
    def samples(self) -> tuple[str, ...] | None:
        """These alone; None: all of the matrix."""
        ...

    @property
    def split(self) -> str | None:
        """The training samples of this split alone."""
        ...


def refuse_two_choices(options: SampleChoice) -> None:
    """Refuse a split and a list of samples at once.

    Raises
    ------
    ConfigError
        If both are given.
    """
    if options.split is not None and options.samples is not None:
        raise ConfigError("a split and a list of samples exclude each other")


def document_choice(options: SampleChoice) -> dict[str, object]:
    """Spell the choice for a plan."""
    return {
        "min_total": options.quality.min_total,
        "max_single_cell": options.quality.max_single_cell,
        "min_nonzero": options.quality.min_nonzero,
        "samples": None if options.samples is None else sorted(set(options.samples)),
    }


def fitted_samples(store: Store, counts: Expression, options: SampleChoice) -> tuple[NDArray[np.int64], QualityResult]:
    """Choose the samples that are fitted to: (rows of the matrix, what the quality control said).

    Raises
    ------
    InputError
        If none passes.
    """
    chosen = _chosen_samples(store, counts, options)
    single_cell = _single_cell(counts)
    judged = judge_samples(
        options.quality,
        counts.sample_total[chosen],
        counts.array("sample_n_nonzero")[chosen],
        None if single_cell is None else single_cell[chosen],
    )
    rows = chosen[judged.keep]
    if not len(rows):
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in judged.dropped.items() if n)
        raise InputError(
            f"expression {counts.name}: none of {len(chosen):,} samples passes ({reasons}); --no-qc asks for nothing"
        )
    return rows, judged


def _training_samples(store: Store, counts: Expression, name: str) -> NDArray[np.int64]:
    split = store.sample_splits[name]
    if split.expression != (counts.name, counts.generation):
        raise ConfigError(
            f"split {name} is of expression {' generation '.join(split.expression)}, not of {counts.name} generation {counts.generation}: "
            "split the samples of these counts again"
        )
    return np.flatnonzero(split.sample_subset == SUBSET_TRAIN)


def _chosen_samples(store: Store, counts: Expression, options: SampleChoice) -> NDArray[np.int64]:
    if options.split is not None:
        return _training_samples(store, counts, options.split)
    if options.samples is None:
        return np.arange(counts.n_samples, dtype=np.int64)
    known = {name: row for row, name in enumerate(counts.sample_ids)}
    for sample in options.samples:
        if sample not in known:
            raise ConfigError(f"expression {counts.name} has no sample {sample!r}; {close_names(sample, known)}")
    return np.array(sorted({known[sample] for sample in options.samples}), dtype=np.int64)


def _single_cell(counts: Expression) -> NDArray[np.float64] | None:
    return counts.array(SINGLE_CELL_COLUMN) if counts.has(SINGLE_CELL_COLUMN) else None
