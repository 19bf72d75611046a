"""How samples become sequences of genes, and what of them a network predicts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError
from splicestore.kernels.ortholog_tokens import FIRST_GENE_TOKEN
from splicestore.kernels.tokens import (
    LEVEL_MASK,
    NO_TARGET,
    TOKEN_MASK,
    TOKEN_PAD,
    mask_values,
    second_stage,
    shift_genes,
    top_genes,
)
from splicestore.stream.sample_batch import SampleBatch, TokenBatch

Objective = Literal["next_gene", "masked_gene", "masked_level"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True, slots=True)
class TokenView:
    """Samples of bins as GeneRAIN trains on them: its top genes, second stage, order and objectives.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    objective: Objective | None = "next_gene"
    """``next_gene`` (GPT), ``masked_gene`` or ``masked_level`` (BERT); None: nothing is predicted."""
    top_genes: int = 2048
    """k: genes of a sample, those with the highest bins."""
    n_levels: int = 100
    """Second-stage levels."""
    mask_share: float = 0.15
    """Share of the places that the masked objectives choose."""

    def __post_init__(self) -> None:
        if self.objective is not None and self.objective not in OBJECTIVES:
            raise ConfigError(f"objective must be one of {', '.join(OBJECTIVES)} or None, got {self.objective!r}")
        if self.top_genes < 1 or self.n_levels < 1:
            raise ConfigError(f"top_genes and n_levels are 1 or more, got {self.top_genes} and {self.n_levels}")
        if not 0 < self.mask_share <= 1:
            raise ConfigError(f"mask_share lies in (0, 1], got {self.mask_share}")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens of the genes of a stream."""

    token: NDArray[np.int32]
    """(gene,) int32, from 3 on; no two genes alike."""
    gene_ids: tuple[str, ...]

    @classmethod
    def by_place(cls, gene_ids: tuple[str, ...]) -> Vocabulary:
        """Number genes in their order."""
        return cls(np.arange(FIRST_GENE_TOKEN, FIRST_GENE_TOKEN + len(gene_ids), dtype=np.int32), gene_ids)

    @property
    def n_tokens(self) -> int:
        """Tokens, special ones included: one more than the largest."""
        return int(self.token.max()) + 1

    @property
    def digest(self) -> str:
        """Says which gene has which token."""
        spelled = "\n".join(f"{token}\t{gene}" for token, gene in zip(self.token.tolist(), self.gene_ids, strict=True))
        return hashlib.sha256(spelled.encode()).hexdigest()[:16]


def view_tokens(
    view: TokenView, vocabulary: Vocabulary, batch: SampleBatch[NDArray[Any]], seed: int, epoch: int
) -> TokenBatch[NDArray[Any]]:
    """See a batch of bins as sequences of genes; a function of each sample, seed and epoch.

    Parameters
    ----------
    vocabulary
        Of the columns of the batch.
    """
    column = top_genes(batch.values, min(view.top_genes, batch.values.shape[1]))
    is_there = column >= 0
    bins = np.where(is_there, np.take_along_axis(batch.values, np.maximum(column, 0), axis=1), 0).astype(np.uint16)
    gene = np.where(is_there, vocabulary.token[column], np.int32(TOKEN_PAD))
    level = second_stage(bins, view.n_levels)
    input_gene, input_level = gene, level
    target = np.full(gene.shape, NO_TARGET, dtype=np.int32)
    row = batch.sample_row
    if view.objective == "next_gene":
        input_gene, input_level, target = shift_genes(gene, level)
    elif view.objective == "masked_gene":
        input_gene, target = mask_values(
            gene, TOKEN_PAD, TOKEN_MASK, vocabulary.token, row, seed, epoch, view.mask_share
        )
    elif view.objective == "masked_level":
        levels = np.arange(1, view.n_levels + 1, dtype=np.int32)
        input_level, target = mask_values(level, LEVEL_MASK, LEVEL_MASK, levels, row, seed, epoch, view.mask_share)
    target[row < 0] = NO_TARGET
    return TokenBatch(
        gene=gene,
        bin=bins,
        level=level,
        is_zero=bins == 1,
        input_gene=input_gene,
        input_level=input_level,
        target=target,
        sample_row=row,
        step=batch.step,
        global_rows=batch.global_rows,
    )
