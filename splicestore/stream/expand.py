"""Expanding batches on the device: codes to one-hot, ragged usage to dense arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch

from splicestore.errors import ConfigError
from splicestore.kernels.one_hot import N_BASES, expand_one_hot
from splicestore.stream.batch import Batch

_BITS = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}


def one_hot(
    sequence_or_batch: Any,
    *,
    device: Any = None,
    layout: Literal["NCL", "NLC"] = "NCL",
    dtype: torch.dtype = torch.float32,
    out: torch.Tensor | None = None,
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
    out
        Contiguous tensor of the result's shape and dtype, on the device of the codes, that is written and returned: a buffer
        used again spares the page faults of new memory.

    Returns
    -------
    one_hot : (B, 4, L) or (B, L, 4)
        Contiguous; without the first axis for (L,).

    Raises
    ------
    ConfigError
        For an unknown layout, or an ``out`` that does not fit.
    """
    if layout not in ("NCL", "NLC"):
        raise ConfigError(f"layout must be NCL or NLC, got {layout!r}")
    sequence = sequence_or_batch.sequence if isinstance(sequence_or_batch, Batch) else sequence_or_batch
    is_tensor = isinstance(sequence, torch.Tensor) and device is None
    codes = sequence if is_tensor else torch.as_tensor(sequence, device=device)
    length = codes.shape[-1]
    shape = (*codes.shape[:-1], *((N_BASES, length) if layout == "NCL" else (length, N_BASES)))
    if out is None:
        out = torch.empty(shape, dtype=dtype, device=codes.device)
    elif (tuple(out.shape), out.device, out.is_contiguous()) != (shape, codes.device, True):
        raise ConfigError(
            f"out must be a contiguous tensor of shape {shape} on {codes.device}, got {tuple(out.shape)} on {out.device}"
            f"{'' if out.is_contiguous() else ', not contiguous'}"
        )
    if out.numel() == 0:
        return out
    if codes.is_cpu and codes.dtype == torch.uint8:
        _expand_on_host(codes, out, layout)
    else:
        bases = torch.arange(N_BASES, dtype=codes.dtype, device=codes.device)
        axis = -2 if layout == "NCL" else -1
        out.copy_(codes.unsqueeze(axis) == (bases[:, None] if layout == "NCL" else bases))
    return out


def _expand_on_host(codes: torch.Tensor, out: torch.Tensor, layout: str) -> None:
    """The compiled kernel writes the bits of one and zero: so it needs no type that numpy or numba lacks."""
    bits, one = _bits_of_one(out.dtype)
    # As few calls of torch as can be: beside a batch that fills the caches each takes 10 us.
    target = out.view(bits).numpy()
    source = np.ascontiguousarray(codes.numpy())
    expand_one_hot(
        source.reshape(-1, source.shape[-1]),
        target.reshape(-1, *target.shape[-2:]),
        one,
        channels_last=layout == "NLC",
    )


@cache
def _bits_of_one(dtype: torch.dtype) -> tuple[torch.dtype, Any]:
    """An unsigned type as wide as another, and the bits of its one in it."""
    bits = _BITS[torch.empty(0, dtype=dtype).element_size()]
    return bits, torch.ones(1, dtype=dtype).view(bits).numpy()[0]


@dataclass(frozen=True, slots=True)
class DenseUsage:
    """Usage at every position of a batch: (B, W, C) float32, NaN = not measured."""

    sse: torch.Tensor
    """NaN also below the batch's ``min_reads``."""
    alpha: torch.Tensor
    beta: torch.Tensor


def densify_usage(
    batch: Batch[Any], device: Any = None, *, min_reads: float | None = None, alpha_threshold: float | None = None
) -> DenseUsage:
    """Spread the usage rows of a batch over the positions of its windows.

    Parameters
    ----------
    batch
        Of tensors or numpy arrays.
    device
        Where the rows are moved before they are spread; None leaves them where they are.
    min_reads
        Fewer reads (alpha + beta) give no SSE; None for the batch's own.
    alpha_threshold
        SplicEvo's threshold, as in ``Genome.windows``: where alpha is below it, alpha, beta and SSE are 0.

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
    if alpha_threshold is not None:
        low = alpha < alpha_threshold
        alpha, beta, sse = (torch.where(low, 0.0, values) for values in (alpha, beta, sse))

    def spread(values: torch.Tensor) -> torch.Tensor:
        dense = torch.full((n_windows * window_size, n_conditions), torch.nan, device=values.device)
        dense[place] = values
        return dense.view(n_windows, window_size, n_conditions)

    return DenseUsage(sse=spread(sse), alpha=spread(alpha), beta=spread(beta))
