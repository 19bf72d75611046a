"""What the dense arrays of a SplicEvo export must hold, filled value by value."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracles.genome_oracle import Genome
from tests.oracles.window_oracle import IGNORE, Usage, Window, splicevo_window, splicevo_windows

BASE_ORDER = "ACGT"


def one_hot(sequence: str) -> np.ndarray:
    """(L, 4) float32 in the order A, C, G, T; N is all zero."""
    table = np.zeros((len(sequence), 4), dtype=np.float32)
    for row, base in enumerate(sequence):
        if base in BASE_ORDER:
            table[row, BASE_ORDER.index(base)] = 1.0
    return table


def dense_arrays(
    genome: Genome,
    window_size: int,
    context_size: int,
    counts: Usage | None = None,
    conditions: list[str] | None = None,
    *,
    window_list: list[Window] | None = None,
    alpha_threshold: float = 5,
    min_reads: float = 0,
    ignore_label: int = IGNORE,
) -> dict[str, Any]:
    """Arrays over the preset's windows (or a given list), and the windows themselves.

    sequences (N, W + 2K, 4) float32, labels (N, W) uint8 with 1 donor and 2 acceptor, usage_alpha, usage_beta and
    usage_sse (N, W, C) float32 with NaN where nothing was measured. `ignore_label` is what stands for 255.
    """
    conditions = conditions or []
    chosen = splicevo_windows(genome, window_size) if window_list is None else window_list
    n, length, c = len(chosen), window_size + 2 * context_size, len(conditions)
    sequences = np.zeros((n, length, 4), dtype=np.float32)
    labels = np.zeros((n, window_size), dtype=np.uint8)
    usage = {name: np.full((n, window_size, c), np.nan, dtype=np.float32) for name in ("alpha", "beta", "sse")}
    for row, window in enumerate(chosen):
        shown = splicevo_window(
            genome,
            window,
            window_size,
            context_size,
            counts,
            conditions,
            alpha_threshold=alpha_threshold,
            min_reads=min_reads,
        )
        sequences[row] = one_hot(shown["sequence"])
        labels[row] = [ignore_label if code == IGNORE else code for code in shown["labels"]]
        for name, array in usage.items():
            for position, values in enumerate(shown[name]):
                for condition, value in enumerate(values):
                    if value is not None:
                        array[row, position, condition] = value
    return {
        "windows": chosen,
        "sequences": sequences,
        "labels": labels,
        "usage_alpha": usage["alpha"],
        "usage_beta": usage["beta"],
        "usage_sse": usage["sse"],
    }
