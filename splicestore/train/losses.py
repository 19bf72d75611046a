"""Losses of position models: sites as classes, usage as binomial counts on ragged rows.

Both are sums over the windows of this rank divided by the number of windows of all ranks: nats per window. So
the gradients of the ranks add up to the gradient of the global batch, however short a rank's share is. Rows
that only pad a batch (``window_id`` -1) count nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from splicestore.schema import LABEL_IGNORE
from splicestore.stream.batch import Batch as AnyBatch

Batch = AnyBatch[Tensor]


@dataclass(frozen=True, slots=True)
class UsageRows:
    """Measured usage of a batch, on the device of the loss."""

    window: Tensor
    """(n,) int64 row of the batch."""
    position: Tensor
    """(n,) int64 position in the window, in transcript orientation."""
    alpha: Tensor
    """(n, C) float32; 0 where not measured."""
    beta: Tensor
    """(n, C) float32; 0 where not measured."""
    measured: Tensor
    """(n, C) bool: the genome has the condition and the site has enough reads in it."""

    @property
    def reads(self) -> Tensor:
        """(n, C) alpha + beta."""
        return self.alpha + self.beta


def real_rows(batch: Batch) -> Tensor:
    """Which rows are windows and not padding: (B,) bool."""
    return batch.window_id >= 0


def usage_rows(batch: Batch, min_reads: float, device: torch.device | str = "cpu") -> UsageRows:
    """Take the usage rows of a batch and decide what of them is measured.

    Parameters
    ----------
    batch
        ``condition_mask`` (genomes, C) says which genome has which condition.
    min_reads
        Least alpha + beta; sites without any read are never measured.
    device
        Where the tensors go.
    """
    window, position = (t.to(device).long() for t in (batch.usage_row_window, batch.usage_row_position))
    alpha, beta = batch.alpha.to(device), batch.beta.to(device)
    reads = alpha + beta
    known = batch.condition_mask.to(device)[batch.genome.to(device).long()[window]]  # (n, C)
    real = real_rows(batch).to(device)[window]  # (n,)
    # Comparisons with NaN are false: what was not measured stays out.
    measured = (reads >= min_reads) & (reads > 0) & known & real[:, None]
    zero = torch.zeros((), dtype=alpha.dtype, device=alpha.device)
    return UsageRows(window, position, torch.where(measured, alpha, zero), torch.where(measured, beta, zero), measured)


def site_loss(
    site_logits: Tensor, label: Tensor, real: Tensor, n_windows: float, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the site classes, per window of the global batch.

    Parameters
    ----------
    site_logits : (B, 3, W) float32
        none, acceptor, donor.
    label : (B, W) uint8
        0, 1, 2; 255 is ignored.
    real : (B,) bool
        False for rows that pad the batch.
    n_windows
        Windows of the global batch, padding not counted.
    class_weights : (3,) float32, optional
        Weight of each class.

    Returns
    -------
    loss : () float32
        Sum over positions, divided by ``n_windows``.
    """
    counted = (label != LABEL_IGNORE) & real[:, None]  # (B, W)
    classes = torch.where(counted, label, torch.zeros_like(label)).long()
    # A product with the one-hot classes: gathering has no reproducible gradient on a GPU.
    chosen = functional.one_hot(classes, site_logits.shape[1]).transpose(1, 2) * counted[:, None]  # (B, 3, W)
    weighted = chosen if class_weights is None else chosen * class_weights[:, None]
    total = -(weighted * functional.log_softmax(site_logits, dim=1)).sum()
    return total / max(1.0, n_windows)


def usage_loss(
    row_logits: Tensor, rows: UsageRows, n_windows: float, condition_weights: Tensor, max_reads: float
) -> Tensor:
    """Binomial negative log-likelihood of alpha reads out of alpha + beta, at measured sites only.

    A site weighs as many reads as it has, up to ``max_reads``; the weight of a fully measured site is 1. A
    constant of the data (the binomial coefficient) is left out.

    Parameters
    ----------
    row_logits : (n, C) float32
        Logits of the usage at the rows.
    rows
        From ``usage_rows``.
    n_windows
        Windows of the global batch.
    condition_weights : (C,) float32
        Relative weights; only their ratios matter.
    max_reads
        Cap of a site's reads in one condition.

    Returns
    -------
    loss : () float32
        Sum over sites of the weighted mean over conditions, divided by ``n_windows``.
    """
    capped = rows.reads.clamp(min=1.0)
    scale = capped.clamp(max=max_reads) / (capped * max_reads)  # (n, C)
    # -log(sigmoid(z)) = softplus(-z), -log(1 - sigmoid(z)) = softplus(z)
    nll = rows.alpha * functional.softplus(-row_logits) + rows.beta * functional.softplus(row_logits)  # (n, C)
    total = (torch.where(rows.measured, nll * scale, torch.zeros_like(nll)) * condition_weights).sum()
    return total / (max(1.0, n_windows) * condition_weights.sum().clamp(min=1e-12))
