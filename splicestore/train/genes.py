"""Learning the genes of a sample: the next most expressed one, or what was masked; and how well it was learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from splicestore.errors import ConfigError, ModelError
from splicestore.kernels.tokens import NO_TARGET
from splicestore.models.card import save_network
from splicestore.models.genes import GeneCard
from splicestore.models.splice import PrevalenceModel
from splicestore.storage.keys import StoreRoot
from splicestore.stream import SampleStream, TokenBatch
from splicestore.train.loop import TrainResult, sum_over_ranks, train_network
from splicestore.train.settings import GeneTrainSettings

Batch = TokenBatch[Tensor]


@dataclass(frozen=True, slots=True)
class GeneTask:
    """Cross-entropy of the targets of one stream of tokens, nats per target."""

    settings: GeneTrainSettings
    gene_ids: tuple[str, ...]
    gene_tokens: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens, special ones included."""
        return max(self.gene_tokens) + 1

    @property
    def n_classes(self) -> int:
        """What is told apart: tokens, or levels and the absent one."""
        return self.settings.n_levels + 1 if self.settings.objective == "masked_level" else self.n_tokens

    @property
    def rows_name(self) -> str:
        """Samples."""
        return "samples"

    @property
    def losses(self) -> Mapping[str, float]:
        """One loss."""
        return {"loss": 1.0}

    def factory_options(self) -> dict[str, Any]:
        """What the network is built with."""
        settings = self.settings
        return {
            "n_tokens": self.n_tokens,
            "n_levels": settings.n_levels,
            "objective": settings.objective,
            **settings.model.options,
        }

    def identity(self) -> Mapping[str, Any]:
        """Genes and tokens are in the stream's own state."""
        return {}

    def begin(self, module: nn.Module, batch: Batch) -> None:
        """Let the head begin at the shares of the first batch's targets, where it can."""
        if isinstance(module, PrevalenceModel):
            target = batch.target[batch.target != NO_TARGET]
            counts = torch.bincount(target.long(), minlength=self.n_classes).double()
            device = next(module.parameters()).device
            module.set_prevalence((sum_over_ranks(counts.to(device)) + 1.0).tolist())

    def compute(self, module: nn.Module, batch: Batch) -> Tensor:
        """Share of this rank in the mean over the targets of the global batch, (1,)."""
        device = next(module.parameters()).device
        target = batch.target.to(device).long()
        logits = target_logits(module, batch, self.n_classes, device)
        n_targets = sum_over_ranks((target != NO_TARGET).sum().float())
        summed = functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=NO_TARGET, reduction="sum"
        )
        return (summed / n_targets.clamp(min=1)).reshape(1)

    def publish(self, root: StoreRoot, module: nn.Module, provenance: Mapping[str, Any]) -> GeneCard:
        """Write the trained weights and their card."""
        settings = self.settings
        return save_network(
            root, module, GeneCard, name=settings.name, factory=settings.model.factory,
            factory_options=self.factory_options(), provenance=dict(provenance), target=settings.objective,
            bins=settings.bins, gene_ids=self.gene_ids, gene_tokens=self.gene_tokens, top_genes=settings.top_genes,
            n_levels=settings.n_levels, mask_share=settings.mask_share,
        )  # fmt: skip


def target_logits(module: nn.Module, batch: Batch, n_classes: int, device: torch.device) -> Tensor:
    """Logits of a batch, (B, k, n_classes).

    Raises
    ------
    ModelError
        If the network gives another shape.
    """
    logits: Tensor = module(batch.input_gene.to(device), batch.input_level.to(device))
    expected = (*batch.target.shape, n_classes)
    if tuple(logits.shape) != expected:
        raise ModelError(
            f"the network gives logits {tuple(logits.shape)}, expected {expected}: (batch, genes, classes)"
        )
    return logits


def train_genes(
    stream: SampleStream,
    settings: GeneTrainSettings,
    output: str | StoreRoot,
    *,
    device: str | torch.device | None = None,
    provenance: Mapping[str, Any] | None = None,
    stop_at_step: int | None = None,
    on_log: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainResult:
    """Train a network of genes on a stream of tokens, as ``train_network`` does.

    Raises
    ------
    ConfigError, StateError, ModelError
        As ``train_network``; and if the stream has other tokens than the settings say.
    """
    view = stream.token_view
    asked = (settings.objective, settings.top_genes, settings.n_levels, settings.mask_share)
    if view is None or (view.objective, view.top_genes, view.n_levels, view.mask_share) != asked:
        raise ConfigError(f"the stream has {view or 'no tokens'}, the settings say {asked}")
    task = GeneTask(settings, stream.gene_ids, tuple(stream.vocabulary.token.tolist()))
    return train_network(
        stream, task, output, device=device, provenance=provenance, stop_at_step=stop_at_step, on_log=on_log
    )


# -- evaluation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GeneEvaluation:
    """How well targets are predicted, beside what needs no network; losses in nats per target."""

    n_samples: int
    n_targets: int
    loss: float
    accuracy: float
    """Share of the targets that have the highest logit."""
    unigram: float
    """Loss of the targets' shares in the training samples, one added to every count."""
    conditional: float | None
    """``next_gene``: of those shares among the genes not met yet in the sample. ``masked_level``: of the shares of the
    levels of the gene itself. None for ``masked_gene``."""

    def document(self) -> dict[str, Any]:
        """Spell for ``--json``."""
        return {name: getattr(self, name) for name in self.__slots__}


class GeneBaseline:
    """Shares of targets in training samples.

    Parameters
    ----------
    batches
        Of training samples; the same view as what is scored.
    n_tokens, n_classes
        Of genes, and of what is predicted.
    objective
        Of the view.
    """

    def __init__(
        self, batches: Iterable[TokenBatch[NDArray[Any]]], n_tokens: int, n_classes: int, objective: str
    ) -> None:
        self._objective = objective
        by_gene = (n_tokens, n_classes) if objective == "masked_level" else (1, n_classes)
        self._counts = np.zeros(by_gene, dtype=np.int64)
        for batch in batches:
            is_target = batch.target != NO_TARGET
            row = batch.gene[is_target] if objective == "masked_level" else 0
            np.add.at(self._counts, (row, batch.target[is_target]), 1)
        pooled = self._counts.sum(axis=0) + 1
        self._share = pooled / pooled.sum()

    def unigram(self, batch: TokenBatch[NDArray[Any]]) -> float:
        """Summed loss of a batch."""
        return -float(np.log(self._share[batch.target[batch.target != NO_TARGET]]).sum())

    def conditional(self, batch: TokenBatch[NDArray[Any]]) -> float:
        """Summed loss of a batch given what is known without a network: the genes before, or the gene."""
        is_target = batch.target != NO_TARGET
        if self._objective == "masked_level":
            counts = self._counts[batch.gene[is_target]]
            # A pseudo-count of one, shared out as the levels of all genes are.
            share = (counts[np.arange(len(counts)), batch.target[is_target]] + self._share[batch.target[is_target]]) / (
                counts.sum(axis=1) + 1
            )
            return -float(np.log(share).sum())
        share = np.where(is_target, self._share[np.where(is_target, batch.target, 0)], 0.0)
        left = 1.0 - (np.cumsum(share, axis=1) - share)
        return -float(np.log(share[is_target] / np.maximum(left[is_target], share[is_target])).sum())


def evaluate_genes(
    card: GeneCard,
    module: nn.Module,
    training: SampleStream,
    held_out: SampleStream,
    device: str | torch.device = "cpu",
) -> GeneEvaluation:
    """Score the targets of held-out samples.

    Parameters
    ----------
    training
        What the baselines are estimated from.
    held_out
        Samples to score; the same genes and view.

    Raises
    ------
    ConfigError
        If the stream has other genes or tokens than the network.
    """
    found = (held_out.gene_ids, tuple(held_out.vocabulary.token.tolist()))
    if found != (card.gene_ids, card.gene_tokens):
        raise ConfigError(
            f"model {card.name} knows {len(card.gene_ids):,} genes, the stream has {len(found[0]):,}, or others, or with other "
            "tokens; score the bins it was trained on, or bins made by the same edges"
        )
    n_tokens = max(card.gene_tokens) + 1
    n_classes = card.n_levels + 1 if card.target == "masked_level" else n_tokens
    baseline = GeneBaseline(training.numpy_batches(), n_tokens, n_classes, card.target)
    totals = np.zeros(4)
    n_samples = n_targets = 0
    for batch in held_out.numpy_batches():
        loss, n_right, n = _score(module, batch, n_classes, torch.device(device))
        conditional = 0.0 if card.target == "masked_gene" else baseline.conditional(batch)
        totals += (loss, n_right, baseline.unigram(batch), conditional)
        n_samples, n_targets = n_samples + batch.n_present, n_targets + n
    if not n_targets:
        raise ConfigError("the held-out samples have no target: no gene is measured in them")
    loss, accuracy, unigram, conditional = (totals / n_targets).tolist()
    return GeneEvaluation(
        n_samples, n_targets, loss, accuracy, unigram, None if card.target == "masked_gene" else conditional
    )


@torch.inference_mode()
def _score(
    module: nn.Module, batch: TokenBatch[NDArray[Any]], n_classes: int, device: torch.device
) -> tuple[float, int, int]:
    """Summed loss, targets predicted right, targets."""
    tensors: Batch = batch.map_arrays(lambda _, array: torch.from_numpy(array))
    logits = target_logits(module, tensors, n_classes, device).flatten(0, 1)
    target = tensors.target.to(device).long().flatten()
    loss = functional.cross_entropy(logits, target, ignore_index=NO_TARGET, reduction="sum")
    is_right = (logits.argmax(dim=1) == target) & (target != NO_TARGET)
    return float(loss), int(is_right.sum()), int((target != NO_TARGET).sum())
