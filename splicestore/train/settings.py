"""Training settings: a YAML document, checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from splicestore.config import load_document, validate
from splicestore.errors import ConfigError, close_names
from splicestore.schema import check_name
from splicestore.stream.token_view import Objective

DEFAULT_FACTORY = "splicestore.models.splice:SpliceNet"
GENE_FACTORY = "splicestore.models.genes:GeneTransformer"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Settings):
    """Which network, and its dimensions."""

    factory: str = DEFAULT_FACTORY
    """``package.module:callable``; called with ``n_conditions``, ``context_size`` and ``options``."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of SpliceNet: ``channels``, ``dilations``, ``kernel_size``."""


class LoopSettings(_Settings):
    """What decides the weights of any network, given the same stream."""

    name: str = "model"
    """Name on the model card."""
    model: ModelSettings = ModelSettings()
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps in all."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the stream, instead of ``steps``."""
    batch_size: int = Field(default=32, ge=1)
    """Windows or samples per step over all ranks; the stream is made with it."""
    seed: int = Field(default=0, ge=0)
    """Of the weights, the stream's order and what it draws."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """At its peak, after the warm-up."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps of linear increase; then a cosine down to ``final_learning_rate``."""
    final_learning_rate: float = Field(default=0.02, ge=0, le=1)
    """Last learning rate, as a fraction of the peak."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW; biases and scales are not decayed."""
    gradient_clip: float = Field(default=5.0, gt=0)
    """Largest norm of the gradient of all parameters."""
    checkpoint_every: int = Field(default=1000, ge=1)
    """Steps between checkpoints."""
    log_every: int = Field(default=50, ge=1)
    """Steps between rows of the history."""
    deterministic: bool = False
    """Refuse operations that are not reproducible on a GPU; a CPU is reproducible without."""

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        return check_name(value, "model name")

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give `steps` or `epochs`, one of them")
        return self


class TrainSettings(LoopSettings):
    """All that decides the weights of a network of positions, given the same stream."""

    class_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of none, acceptor, donor in the cross-entropy."""
    usage_weight: float = Field(default=4.0, ge=0)
    """Of the usage loss against the site loss; above 1, because few positions have usage."""
    max_reads: float = Field(default=50, gt=0)
    """A site with more reads in a condition weighs no more than one with this many."""
    min_reads: float = Field(default=10, ge=0)
    """Sites with fewer reads (alpha + beta) in a condition are not used there."""
    condition_weights: dict[str, float] = Field(default_factory=dict)
    """Weight of a condition in the usage loss; 1 for those not named, 0 leaves one out."""
    geneless_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of the windows without genes that the stream keeps."""
    shuffled_labels: bool = False
    """Control: labels and usage of every window rolled by a seeded offset; nothing can be learned but prevalence."""

    @field_validator("class_weights")
    @classmethod
    def _are_positive(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(math.isfinite(w) and w > 0 for w in value):
            raise ValueError("each of the three weights (none, acceptor, donor) must be above 0")
        return value

    @field_validator("condition_weights")
    @classmethod
    def _are_weights(cls, value: dict[str, float]) -> dict[str, float]:
        if wrong := {k: w for k, w in value.items() if not (math.isfinite(w) and w >= 0)}:
            raise ValueError(f"weights must be 0 or more, got {wrong}")
        return value

    def weights_of(self, condition_names: Sequence[str]) -> list[float]:
        """Weights in the order of the stream's conditions.

        Raises
        ------
        ConfigError
            If a weight names a condition that the data do not have, or nothing is left.
        """
        if unknown := sorted(set(self.condition_weights) - set(condition_names)):
            raise ConfigError(
                f"condition_weights names {unknown[0]!r}, which is no condition of the data; "
                f"{close_names(unknown[0], condition_names)}"
            )
        weights = [self.condition_weights.get(name, 1.0) for name in condition_names]
        if weights and not any(weights) and self.usage_weight > 0:
            raise ConfigError("condition_weights are all 0: leave one above 0, or set usage_weight: 0")
        return weights


class GeneModelSettings(ModelSettings):
    """Which network of genes, and its dimensions (of GeneTransformer: ``width``, ``layers``, ``heads``)."""

    factory: str = GENE_FACTORY
    """``package.module:callable``; called with ``n_tokens``, ``n_levels``, ``objective`` and ``options``."""


class GeneTrainSettings(LoopSettings):
    """All that decides the weights of a network of genes, given the same stream."""

    bins: str
    """Name of the bins."""
    model: GeneModelSettings = GeneModelSettings()
    objective: Objective = "next_gene"
    """``next_gene`` (GPT), ``masked_gene`` or ``masked_level`` (BERT)."""
    top_genes: int = Field(default=2048, ge=1)
    """Genes of a sample, those with the highest bins."""
    n_levels: int = Field(default=100, ge=1)
    """Second-stage levels."""
    mask_share: float = Field(default=0.15, gt=0, le=1)
    """Of the masked objectives."""
    genes: tuple[str, ...] | None = None
    """Ids or symbols; null for all genes of the bins."""
    tokens: str | None = None
    """Name of stored tokens, as of several species; null numbers the genes in their order."""


def parse_train_settings(text: str, url: str) -> TrainSettings | GeneTrainSettings:
    """Parse a YAML (or JSON) document of training settings: of genes where it names ``bins``, else of positions.

    Raises
    ------
    ConfigError
        With the key, what it holds and what is allowed.
    """
    document = load_document(text, url)
    document = {} if document is None else document
    if isinstance(document, dict) and "bins" in document:
        return validate(GeneTrainSettings, document, url)
    return validate(TrainSettings, document, url)


def learning_rate(step: int, settings: LoopSettings, n_steps: int) -> float:
    """Learning rate of one step: linear warm-up, then half a cosine.

    A function of the step alone, so a resumed run has nothing to restore.

    Examples
    --------
    >>> settings = TrainSettings(steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.0)
    >>> [round(learning_rate(step, settings, 100), 3) for step in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, n_steps - settings.warmup_steps)
    floor = settings.final_learning_rate
    return settings.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
