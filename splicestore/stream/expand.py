"""Expanding batches on the device: codes to one-hot, ragged usage to dense arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from splicestore.errors import ConfigError
from splicestore.stream.batch import Batch

N_BASES = 4


def one_hot(
    sequence_or_batch: Any,
    *,
    device: Any = None,
    layout: Literal["NCL", "NLC"] = "NCL",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Expand base codes; N becomes zeros.

    Parameters
    ----------
    sequence_or_batch
        Codes 0..4 of shape (B, L) or (L,), as a tensor or numpy array, or a batch that has them.
    device
        Where the codes are moved, one byte a base, before they are expanded; None leaves them where they are.
    layout
        ``NCL`` gives (B, 4, L), ``NLC`` gives (B, L, 4); channels are A, C, G, T.
    dtype
        Of the result.

    Returns
    -------
    one_hot : (B, 4, L) or (B, L, 4)
        Contiguous; without the first axis for (L,).
    """
    if layout not in ("NCL", "NLC"):
        raise ConfigError(f"layout must be NCL or NLC, got {layout!r}")
    sequence = sequence_or_batch.sequence if isinstance(sequence_or_batch, Batch) else sequence_or_batch
    codes = torch.as_tensor(sequence, device=device)
    axis = -2 if layout == "NCL" else -1
    bases = torch.arange(N_BASES, dtype=codes.dtype, device=codes.device)
    return (codes.unsqueeze(axis) == (bases[:, None] if layout == "NCL" else bases)).to(dtype)


@dataclass(frozen=True, slots=True)
class DenseUsage:
    """Usage at every position of a batch: (B, W, C) float32, NaN = not measured."""

    sse: torch.Tensor
    """NaN also below the batch's ``min_reads``."""
    alpha: torch.Tensor
    beta: torch.Tensor


def densify_usage(batch: Batch[Any], device: Any = None, *, min_reads: float | None = None) -> DenseUsage:
    """Spread the usage rows of a batch over the positions of its windows.

    Parameters
    ----------
    batch
        Of tensors or numpy arrays.
    device
        Where the rows are moved before they are spread; None leaves them where they are.
    min_reads
        Fewer reads (alpha + beta) give no SSE; None for the batch's own.

    Returns
    -------
    DenseUsage
        At 105 conditions 256 windows of 1,000 bp take 323 MB, so expand on the device and when needed.
    """
    threshold = batch.min_reads if min_reads is None else min_reads
    names = ("usage_row_window", "usage_row_position", "alpha", "beta")
    window, position, alpha, beta = (torch.as_tensor(getattr(batch, name), device=device) for name in names)
    (n_windows, window_size), n_conditions = batch.label.shape, alpha.shape[1]
    place = window.long() * window_size + position.long()
    total = alpha + beta
    sse = torch.where((total >= threshold) & (total > 0), alpha / total, torch.nan)

    def spread(values: torch.Tensor) -> torch.Tensor:
        dense = torch.full((n_windows * window_size, n_conditions), torch.nan, device=values.device)
        dense[place] = values
        return dense.view(n_windows, window_size, n_conditions)

    return DenseUsage(sse=spread(sse), alpha=spread(alpha), beta=spread(beta))
