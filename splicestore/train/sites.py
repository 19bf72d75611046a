"""Learning splice sites and their usage at every position of a window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from splicestore.errors import ModelError
from splicestore.kernels.mixing import mix_fraction
from splicestore.models.card import ModelCard, save_model
from splicestore.models.splice import N_CLASSES, PrevalenceModel, forward_rows
from splicestore.storage.keys import StoreRoot
from splicestore.stream.batch import Batch as AnyBatch
from splicestore.stream.expand import one_hot
from splicestore.train.loop import TrainingStream, TrainResult, sum_over_ranks, train_network
from splicestore.train.losses import real_rows, site_loss, usage_loss, usage_rows
from splicestore.train.settings import TrainSettings

Batch = AnyBatch[Tensor]


class StreamGeometry(Protocol):
    """Sizes of the windows of a stream."""

    @property
    def window_size(self) -> int:
        """Labelled positions of a window, bp."""

    @property
    def context_size(self) -> int:
        """Bases of input on each side, bp."""


class StreamPlan(Protocol):
    """What a stream was made with."""

    @property
    def options(self) -> StreamGeometry:
        """Its options."""


class WindowTrainingStream(TrainingStream, Protocol):
    """A stream of windows; ``WindowStream`` is one."""

    @property
    def condition_names(self) -> Sequence[str]:
        """Columns of the usage."""

    @property
    def plan(self) -> StreamPlan:
        """Windows and how they are read."""


def train(
    stream: WindowTrainingStream,
    settings: TrainSettings,
    output: str | StoreRoot,
    *,
    device: str | torch.device | None = None,
    provenance: Mapping[str, Any] | None = None,
    stop_at_step: int | None = None,
    on_log: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainResult:
    """Train a network of positions on a stream of windows, as ``train_network`` does.

    Raises
    ------
    ConfigError, StateError, ModelError
        As ``train_network``.
    """
    task = SiteTask(settings, tuple(stream.condition_names), stream.plan.options)
    return train_network(
        stream, task, output, device=device, provenance=provenance, stop_at_step=stop_at_step, on_log=on_log
    )


@dataclass(frozen=True, slots=True)
class SiteTask:
    """Sites as classes and usage as binomial counts, of the windows of one stream."""

    settings: TrainSettings
    condition_names: tuple[str, ...]
    geometry: StreamGeometry

    @property
    def rows_name(self) -> str:
        """Windows."""
        return "windows"

    @property
    def losses(self) -> Mapping[str, float]:
        """Weights of the two losses."""
        return {"site_loss": 1.0, "usage_loss": self.settings.usage_weight}

    def factory_options(self) -> dict[str, Any]:
        """What the network is built with."""
        return {
            "n_conditions": len(self.condition_names),
            "context_size": self.geometry.context_size,
            **self.settings.model.options,
        }

    def identity(self) -> Mapping[str, Any]:
        """Conditions and geometry.

        Raises
        ------
        ConfigError
            If a condition has a weight that the data do not have.
        """
        self.settings.weights_of(self.condition_names)
        return {
            "condition_names": list(self.condition_names),
            "window_size": self.geometry.window_size,
            "context_size": self.geometry.context_size,
        }

    def begin(self, module: nn.Module, batch: Batch) -> None:
        """Let the class head begin at the label shares of the first global batch, where it can."""
        if not isinstance(module, PrevalenceModel):
            return
        labels = batch.label[real_rows(batch)].flatten()
        counts = torch.bincount(labels[labels < N_CLASSES].long(), minlength=N_CLASSES).double()
        device = next(module.parameters()).device
        module.set_prevalence((sum_over_ranks(counts.to(device)) + 1.0).tolist())

    def compute(self, module: nn.Module, batch: Batch) -> Tensor:
        """Site and usage loss of this rank's share of a global batch."""
        settings, device = self.settings, next(module.parameters()).device
        if settings.shuffled_labels:
            batch = roll_labels(batch, settings.seed)
        class_weights = _on_device(settings.class_weights, device)
        condition_weights = _on_device(tuple(settings.weights_of(self.condition_names)), device)
        label = batch.label.to(device)  # (B, W)
        rows = usage_rows(batch, settings.min_reads, device)
        site_logits, row_logits = forward_rows(
            module, one_hot(batch.sequence, device=device), rows.window, rows.position
        )
        expected = (label.shape[0], N_CLASSES, label.shape[1])
        if site_logits.shape != expected or row_logits.shape != rows.alpha.shape:
            raise ModelError(
                f"the network gives site logits {tuple(site_logits.shape)} and usage logits {tuple(row_logits.shape)} at "
                f"the measured sites, expected {expected} and {tuple(rows.alpha.shape)}; it must return "
                "(batch, 3, window) and (batch, conditions, window)"
            )
        site = site_loss(site_logits, label, real_rows(batch).to(device), batch.global_rows, class_weights)
        usage = usage_loss(row_logits, rows, batch.global_rows, condition_weights, settings.max_reads)
        return torch.stack([site, usage])

    def publish(self, root: StoreRoot, module: nn.Module, provenance: Mapping[str, Any]) -> ModelCard:
        """Write the trained weights and their card."""
        settings = self.settings
        return save_model(
            root, module, name=settings.name, factory=settings.model.factory, factory_options=self.factory_options(),
            window_size=self.geometry.window_size, context_size=self.geometry.context_size,
            condition_names=self.condition_names, provenance=dict(provenance),
        )  # fmt: skip


@cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Weights as a tensor, copied to a device once and not every step."""
    return torch.tensor(values, device=device)


def roll_labels(batch: Batch, seed: int) -> Batch:
    """Roll labels and usage of each window by an offset of its own: prevalence stays, the sequence's signal goes.

    Parameters
    ----------
    batch
        A dataclass; its arrays are not changed.
    seed
        The offset, 1 to W - 1, is a hash of seed and ``window_id``: the same in every epoch and on every rank.
    """
    width = batch.label.shape[1]
    fraction = mix_fraction(batch.window_id.cpu().numpy().astype(np.int64), seed)
    offset = torch.from_numpy(np.minimum(1 + (fraction * (width - 1)).astype(np.int64), width - 1))
    offset = offset.to(batch.label.device)
    source = (torch.arange(width, device=offset.device) - offset[:, None]) % width  # (B, W)
    window = batch.usage_row_window.long()
    position = (batch.usage_row_position.long() + offset[window]) % width
    order = torch.argsort(window * width + position)
    return replace(
        batch,
        label=batch.label.gather(1, source),
        usage_row_position=position[order].to(batch.usage_row_position.dtype),
        alpha=batch.alpha[order],  # rows of a window stay together: only their order within it changes
        beta=batch.beta[order],
    )
