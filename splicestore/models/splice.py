"""A small dilated residual network: splice sites and their usage at every position of a window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from splicestore.errors import ModelError

N_CLASSES = 3
"""none, acceptor, donor: the label codes 0, 1, 2."""


@runtime_checkable
class RowModel(Protocol):
    """A network that can give usage at some positions without computing it at all of them."""

    def forward_rows(self, one_hot: Tensor, row_window: Tensor, row_position: Tensor) -> tuple[Tensor, Tensor]:
        """Site logits (B, 3, W) and usage logits (n, C)."""


@runtime_checkable
class PrevalenceModel(Protocol):
    """A network whose class head can be started at the shares of the classes."""

    def set_prevalence(self, prevalence: Sequence[float]) -> None:
        """Start at these shares of none, acceptor, donor."""


class ResidualConvolution(nn.Module):
    """``x + scale * conv(relu(x))`` without padding: the skip is cropped to what the convolution sees whole."""

    def __init__(self, channels: int, kernel_size: int, dilation: int, scale: float) -> None:
        super().__init__()
        self.margin = dilation * (kernel_size - 1) // 2
        self.convolution = nn.Conv1d(channels, channels, kernel_size, dilation=dilation)
        self.scale = nn.Parameter(torch.full((channels, 1), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, M) -> (B, channels, M - 2 * margin)."""
        return x[:, :, self.margin : x.shape[2] - self.margin] + self.scale * self.convolution(functional.relu(x))


class SpliceNet(nn.Module):
    """Dilated convolutions over one-hot bases, one head per question.

    No layer looks at other windows or at the whole window (no batch or layer statistics), and none pads:
    what is predicted at a base depends on the ``reach`` bases on each side of it and on nothing else, so
    tiles, batch sizes and ranks change a prediction in its last bits at most. Bases further away than the context read as N.

    Parameters
    ----------
    n_conditions
        C, conditions whose splice-site usage is predicted; 0 is allowed.
    context_size
        K, bases of input on each side of the window, bp.
    channels
        Width of every hidden layer.
    dilations
        One residual convolution each; ``reach = (kernel_size - 1) / 2 * sum(dilations)`` bp on each side.
    kernel_size
        Odd.
    prevalence
        Expected shares of none, acceptor and donor; the class head starts by predicting them.

    Raises
    ------
    ModelError
        If a size is out of range.
    """

    def __init__(
        self,
        n_conditions: int,
        context_size: int = 450,
        channels: int = 32,
        dilations: Sequence[int] = (1, 1, 1, 4, 4, 4, 10, 10),
        kernel_size: int = 11,
        prevalence: Sequence[float] = (0.995, 0.0025, 0.0025),
    ) -> None:
        super().__init__()
        if n_conditions < 0 or context_size < 0 or channels < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ModelError(
                f"SpliceNet needs n_conditions >= 0, context_size >= 0, channels >= 1 and an odd kernel_size, got "
                f"{n_conditions}, {context_size}, {channels}, {kernel_size}"
            )
        if not dilations or min(dilations) < 1:
            raise ModelError(f"SpliceNet needs at least one dilation, each at least 1, got {list(dilations)}")
        self.n_conditions = n_conditions
        self.context_size = context_size
        self.reach = (kernel_size - 1) // 2 * sum(dilations)
        self.bases = nn.Conv1d(4, channels, 1)
        # Blocks start small, so that the sum of all of them keeps the variance of one.
        scale = 1 / math.sqrt(len(dilations))
        self.blocks = nn.ModuleList(ResidualConvolution(channels, kernel_size, d, scale) for d in dilations)
        self.site_head = nn.Linear(channels, N_CLASSES)
        self.usage_head = nn.Linear(channels, n_conditions) if n_conditions else None
        with torch.no_grad():
            self.site_head.weight.mul_(0.1)  # the first guess is the prevalence, nearly everywhere
        self.set_prevalence(prevalence)

    def set_prevalence(self, prevalence: Sequence[float]) -> None:
        """Start the class head at these shares of none, acceptor and donor.

        Raises
        ------
        ModelError
            Unless there are three shares above 0.
        """
        if len(prevalence) != N_CLASSES or min(prevalence) <= 0:
            raise ModelError(f"prevalence needs three shares above 0 (none, acceptor, donor), got {list(prevalence)}")
        shares = torch.tensor([p / sum(prevalence) for p in prevalence], dtype=torch.float64)
        with torch.no_grad():
            self.site_head.bias.copy_(shares.log())

    def features(self, one_hot: Tensor) -> Tensor:
        """One-hot inputs (B, 4, L) -> hidden state of the window (B, channels, W), W = L - 2 * context_size."""
        spare = self.context_size - self.reach
        if one_hot.ndim != 3 or one_hot.shape[1] != 4 or one_hot.shape[2] <= 2 * self.context_size:
            raise ModelError(
                f"SpliceNet takes one-hot input (batch, 4, length) with length above {2 * self.context_size} "
                f"(its context on both sides), got {tuple(one_hot.shape)}"
            )
        x = functional.pad(one_hot, (-spare, -spare))  # (B, 4, W + 2 * reach); negative padding crops
        x = self.bases(x)  # (B, channels, W + 2 * reach)
        for block in self.blocks:
            x = block(x)  # (B, channels, M - 2 * margin of the block)
        return functional.relu(x)  # (B, channels, W)

    def site_logits(self, features: Tensor) -> Tensor:
        """(B, channels, W) -> (B, 3, W) logits of none, acceptor, donor."""
        return functional.conv1d(features, self.site_head.weight[:, :, None], self.site_head.bias)

    def usage_logits(self, features: Tensor) -> Tensor:
        """(B, channels, W) -> (B, C, W) logits of the splice-site usage per condition."""
        if self.usage_head is None:
            return features.new_zeros((features.shape[0], 0, features.shape[2]))
        return functional.conv1d(features, self.usage_head.weight[:, :, None], self.usage_head.bias)

    def forward(self, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot (B, 4, L) -> site logits (B, 3, W) and usage logits (B, C, W)."""
        features = self.features(one_hot)
        return self.site_logits(features), self.usage_logits(features)

    def forward_rows(self, one_hot: Tensor, row_window: Tensor, row_position: Tensor) -> tuple[Tensor, Tensor]:
        """Site logits (B, 3, W), and usage logits (n, C) at the asked positions only."""
        features = self.features(one_hot)
        at_rows = features[row_window.long(), :, row_position.long()]  # (n, channels)
        if self.usage_head is None:
            return self.site_logits(features), at_rows.new_zeros((at_rows.shape[0], 0))
        return self.site_logits(features), self.usage_head(at_rows)


def forward_rows(model: nn.Module, one_hot: Tensor, row_window: Tensor, row_position: Tensor) -> tuple[Tensor, Tensor]:
    """Run any network of positions and keep usage logits at the asked positions only.

    Parameters
    ----------
    model
        ``model(one_hot)`` gives site logits (B, 3, W) and usage logits (B, C, W). A method ``forward_rows``
        of the same meaning, which saves the dense usage, is used where there is one.
    one_hot : (B, 4, L) float32
    row_window, row_position : (n,) integer
        Window of the batch, position in the window.

    Returns
    -------
    site_logits : (B, 3, W)
    usage_logits : (n, C)
    """
    if isinstance(model, RowModel):
        return model.forward_rows(one_hot, row_window, row_position)
    site, usage = model(one_hot)
    return site, usage[row_window.long(), :, row_position.long()]


def site_log_odds(site_logits: Tensor) -> Tensor:
    """Site logits (B, 3, W) -> log-odds of acceptor and donor (B, 2, W): class against the other two.

    Ranks like the probability, and keeps apart what float32 probabilities near 0 and 1 would merge.
    """
    none, acceptor, donor = site_logits.unbind(dim=1)
    return torch.stack([acceptor - torch.logaddexp(none, donor), donor - torch.logaddexp(none, acceptor)], dim=1)
