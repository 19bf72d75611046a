"""A small transformer over the most expressed genes of a sample: the next gene, or what was masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from splicestore.errors import ModelError
from splicestore.kernels.ortholog_tokens import FIRST_GENE_TOKEN
from splicestore.kernels.tokens import TOKEN_PAD
from splicestore.models.card import NetworkCard, load_network

Target = Literal["next_gene", "masked_gene", "masked_level"]


class GeneBlock(nn.Module):
    """Attention and a perceptron, each on the normalised input and added to it."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.before_perceptron = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width)
        )

    def forward(self, x: Tensor, seen: Tensor | None, *, causal: bool) -> Tensor:
        """(B, k, width) -> the same; ``seen`` (B, 1, 1, k) bool: places that may be looked at."""
        rows, places, width = x.shape
        parts = self.queries_keys_values(self.before_attention(x)).view(
            rows, places, 3, self.heads, width // self.heads
        )
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (B, heads, k, width / heads) each
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=causal)
        x = x + self.mixed(mixed.transpose(1, 2).reshape(rows, places, width))
        return x + self.perceptron(self.before_perceptron(x))


class GeneTransformer(nn.Module):
    """Genes and levels embedded and added, blocks of attention, one head for the objective.

    There is no embedding of places: genes come in the order of their expression, and the level says about where one stands.

    Parameters
    ----------
    n_tokens
        Tokens, special ones included.
    n_levels
        Second-stage levels, 1..n.
    objective
        ``next_gene``: a place sees the places up to itself. ``masked_gene``, ``masked_level``: all but padding.
    width
        Of the embeddings and of every layer; a multiple of ``heads``.
    layers, heads, expansion
        Blocks, attention heads, width of the perceptron by ``width``.

    Raises
    ------
    ModelError
        If a size is out of range.
    """

    def __init__(
        self,
        n_tokens: int,
        n_levels: int,
        objective: Target,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        if min(n_tokens, n_levels, width, layers, heads, expansion) < 1 or width % heads:
            raise ModelError(
                f"sizes are 1 or more and width is a multiple of heads; got width {width}, heads {heads}, layers {layers}, "
                f"expansion {expansion}, {n_tokens} tokens, {n_levels} levels"
            )
        self.objective = objective
        self.gene = nn.Embedding(n_tokens, width)
        self.level = nn.Embedding(n_levels + 1, width)
        for table in (self.gene, self.level):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList(GeneBlock(width, heads, expansion) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        n_classes = n_levels + 1 if objective == "masked_level" else n_tokens
        self.head = nn.Linear(width, n_classes)
        if objective != "masked_level":
            self.head.weight = self.gene.weight
        nn.init.zeros_(self.head.bias)

    def forward(self, gene: Tensor, level: Tensor) -> Tensor:
        """Tokens (B, k) and levels (B, k), int -> logits (B, k, tokens), or (B, k, levels + 1) for ``masked_level``."""
        causal = self.objective == "next_gene"
        # Padding stands at the end, so a place that sees only those before it never sees it.
        seen = None if causal else (gene != TOKEN_PAD)[:, None, None, :]
        x = self.gene(gene) + self.level(level)  # (B, k, width)
        for block in self.blocks:
            x = block(x, seen, causal=causal)
        logits: Tensor = self.head(self.last(x))
        return logits

    def set_prevalence(self, prevalence: Sequence[float]) -> None:
        """Start at these shares of the targets, one a class."""
        shares = torch.tensor(prevalence, dtype=torch.float64)
        with torch.no_grad():
            self.head.bias.copy_((shares / shares.sum()).log())


class GeneCard(NetworkCard):
    """What one must know to run a trained network of genes."""

    target: Target
    bins: str
    """Name of the bins it was trained on."""
    gene_ids: tuple[str, ...]
    gene_tokens: tuple[int, ...]
    """Token of each gene, from 3 on."""
    top_genes: int = Field(ge=1)
    """Genes of a sample."""
    n_levels: int = Field(ge=1)
    mask_share: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _has_a_token_for_each_gene(self) -> GeneCard:
        tokens = self.gene_tokens
        if (
            len(tokens) != len(self.gene_ids)
            or len(set(tokens)) != len(tokens)
            or min(tokens, default=0) < FIRST_GENE_TOKEN
        ):
            raise ValueError(
                f"gene_tokens: one for each of {len(self.gene_ids)} genes, from {FIRST_GENE_TOKEN} on, no two alike"
            )
        return self


def gene_embeddings(url: str, *, storage_options: Mapping[str, Any] | None = None) -> tuple[tuple[str, ...], Tensor]:
    """Read what a trained network knows of its genes.

    Returns
    -------
    gene_ids
        Genes.
    embeddings : (gene, width) float32

    Raises
    ------
    ModelError
        If the card is of no network of genes, or its network has no ``gene`` embedding.
    """
    card, module = load_network(url, GeneCard, storage_options=storage_options)
    table = getattr(module, "gene", None)
    if not isinstance(table, nn.Embedding):
        raise ModelError(f"{url}: {card.factory} has no embedding named gene")
    return card.gene_ids, table.weight.detach()[list(card.gene_tokens)].cpu()
