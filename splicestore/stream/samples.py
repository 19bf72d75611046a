"""The stream of samples as an iterable of numpy batches; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, close_names
from splicestore.schema import SUBSET_NAMES
from splicestore.stream.buffers import BufferRing
from splicestore.stream.options import SHUFFLE_MEMORY_DEFAULT, OrderOptions, check_order, check_subset
from splicestore.stream.plan import BlockPlan, Int64
from splicestore.stream.sample_plan import (
    MatrixSource,
    SamplePlan,
    choose_columns,
    choose_samples,
    is_shared_by_all,
    make_sample_plan,
)
from splicestore.stream.sample_reader import SampleReader
from splicestore.stream.source import BatchSource
from splicestore.stream.statistics import StreamStatistics
from splicestore.stream.token_view import TokenView, Vocabulary

LAYERS = {"bins": "bins", "counts": "expression", "scaled": "scaled"}
"""Layers, and what a store calls them."""
ALL_SAMPLES = "all"


class SampleStore(Protocol):
    """What a stream of samples asks of a store; ``open_store`` gives one."""

    @property
    def bins(self) -> Mapping[str, Any]:
        """Bins by name."""
        ...

    @property
    def expression(self) -> Mapping[str, Any]:
        """Counts by name."""
        ...

    @property
    def scaled(self) -> Mapping[str, Any]:
        """Scaled values by name."""
        ...

    @property
    def sample_splits(self) -> Mapping[str, Any]:
        """Splits of samples by name."""
        ...

    @property
    def tokens(self) -> Mapping[str, Any]:
        """Tokens of the genes of several species by name."""
        ...

    @property
    def n_requests(self) -> int:
        """Reads that the storage was asked for so far, in this process."""
        ...


class SampleBatches(BatchSource):
    """Samples of a matrix, in whole batches, in an order that depends on (seed, epoch) alone.

    Parameters
    ----------
    store
        From ``open_store``.
    name
        Name of bins (or of what ``layer`` says). Its generation is held from now on.
    layer
        ``bins``, ``scaled`` (values of cpm, log1p, quantile, tmm) or ``counts``. Counts lie in tiles of 1,024 samples, the others
        in rows of 64: stream those.
    split
        Name of a split of the samples of the same counts; None: all samples.
    subset
        ``train``, ``val`` or ``test`` of the split.
    samples, genes
        Ids to restrict the stream to (genes by id or symbol, and in the order given); None for all.
    tokens
        See samples as sequences of their most expressed genes: yields ``TokenBatch`` instead of ``SampleBatch``.
    gene_tokens
        Tokens by gene id, from 3 on, or the name of stored ones (``normalize tokens``); None: the genes of the stream numbered
        from 3 on in their order.
    batch_size
        Samples of a global batch, over all ranks; a multiple of ``lanes``.
    seed
        In [0, 2**64).
    lanes, tail, shuffle, shuffle_memory, reuse_buffers, rank, world_size, share
        As for ``WindowBatches``; blocks are runs of rows that the matrix compresses together. A matrix of few blocks (fewer than 512)
        is one lane, which every rank reads.

    Raises
    ------
    ConfigError, PlanError, SplitError
        For options out of range, a split of other counts, batches that lanes do not divide, no samples.
    """

    _plan: SamplePlan

    def __init__(
        self,
        store: SampleStore,
        name: str,
        *,
        layer: str = "bins",
        split: str | None = None,
        subset: str = "train",
        samples: Sequence[str] | None = None,
        genes: Sequence[str] | None = None,
        tokens: TokenView | None = None,
        gene_tokens: Mapping[str, int] | str | None = None,
        batch_size: int = 256,
        seed: int = 0,
        lanes: int | None = None,
        tail: str | None = None,
        shuffle: bool = True,
        shuffle_memory: int = SHUFFLE_MEMORY_DEFAULT,
        reuse_buffers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        share: str = "auto",
    ) -> None:
        group_size = self._choose_process(rank, world_size)
        matrix = _matrix(store, name, layer)
        is_chosen = choose_samples(matrix, samples)
        self._split_path: str | None = None
        if split is not None:
            is_chosen &= _in_subset(store.sample_splits[split], matrix, subset)
            self._split_path = store.sample_splits[split].path
        chosen = np.flatnonzero(is_chosen)
        options = OrderOptions(
            **self._order_options(
                group_size,
                subset=ALL_SAMPLES if split is None else subset,
                batch_size=batch_size,
                seed=seed,
                lanes=lanes,
                tail=tail,
                shuffle=shuffle,
                shuffle_memory=shuffle_memory,
                share=share,
            )
        )
        if lanes is None and share == "auto" and is_shared_by_all(chosen, matrix):
            # Lanes would only make batches uneven: every rank reads all blocks anyway.
            options = replace(options, lanes=1, share="replicate")
        check_order(options, "samples")
        self._check_world(options)
        what = f"{layer} {name}" + ("" if split is None else f", {subset} of split {split}")
        plan = make_sample_plan(options, matrix, chosen, choose_columns(matrix, genes), what)
        if tokens is not None and layer != "bins":
            raise ConfigError(f"tokens are made of bins, not of {layer}: normalize apply makes them")
        if isinstance(gene_tokens, str):
            gene_tokens = dict(zip(matrix.gene_ids, store.tokens[gene_tokens].token_of(matrix).tolist(), strict=True))
        self._tokens = None if tokens is None else (tokens, _vocabulary(plan.gene_ids, gene_tokens))
        self._matrix, self._store = matrix, store
        self._begin_stream(plan, reuse_buffers)

    def __repr__(self) -> str:
        plan = self._plan
        return (
            f"{type(self).__name__}({plan.options.subset}: {plan.n_samples:,} samples of {len(plan.gene_ids):,} genes in "
            f"{plan.n_blocks:,} blocks, {len(self):,} steps of {plan.options.batch_size})"
        )

    @property
    def plan(self) -> SamplePlan:
        """Samples, blocks and P: fixed before anything is read."""
        return self._plan

    @property
    def gene_ids(self) -> tuple[str, ...]:
        """Columns of ``batch.values``."""
        return self._plan.gene_ids

    @property
    def sample_ids(self) -> Sequence[str]:
        """What ``batch.sample_row`` indexes."""
        return self._matrix.sample_ids

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokens of the genes.

        Raises
        ------
        ConfigError
            If the stream has no tokens.
        """
        if self._tokens is None:
            raise ConfigError("this stream has values gene by gene: give it tokens=TokenView(...)")
        return self._tokens[1]

    @property
    def token_view(self) -> TokenView | None:
        """How samples are seen as sequences."""
        return None if self._tokens is None else self._tokens[0]

    def _identity(self, plan: BlockPlan) -> dict[str, Any]:
        return describe_samples(plan, self._matrix.path, self._split_path, self._tokens)  # type: ignore[arg-type]

    def _make_reader(self, n_slots: int, statistics: StreamStatistics, buffers: BufferRing | None) -> SampleReader:
        return SampleReader(self._plan, self._matrix, n_slots, self._tokens, statistics, buffers)

    def _count_requests(self) -> int:
        return self._store.n_requests


def describe_samples(
    plan: SamplePlan, matrix: str, split: str | None, tokens: tuple[TokenView, Vocabulary] | None
) -> dict[str, Any]:
    """Describe which samples a stream has and how they are cut, JSON-ready."""
    view: dict[str, Any] = {}
    if tokens is not None:
        how, vocabulary = tokens
        view = {
            "objective": how.objective,
            "top_genes": how.top_genes,
            "n_levels": how.n_levels,
            "mask_share": how.mask_share,
            "vocabulary": vocabulary.digest,
        }
    return {
        "matrix": matrix,
        "sample_split": split,
        "n_samples": plan.n_samples,
        "samples_digest": _digest(plan.sample_row),
        "n_genes": len(plan.gene_ids),
        "genes_digest": hashlib.sha256("\n".join(plan.gene_ids).encode()).hexdigest()[:16],
        "tokens": view,
    }


def _digest(values: Int64) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<i8").tobytes()).hexdigest()[:16]


def _matrix(store: SampleStore, name: str, layer: str) -> MatrixSource:
    if layer not in LAYERS:
        raise ConfigError(f"layer must be one of {', '.join(LAYERS)}, got {layer!r}")
    matrix: MatrixSource = getattr(store, LAYERS[layer])[name]
    return matrix


def _in_subset(split: Any, matrix: Any, subset: str) -> NDArray[np.bool_]:
    """Which samples a split has in a subset.

    Raises
    ------
    ConfigError
        For another subset, or a split of other counts than the matrix has.
    """
    check_subset(subset)
    if split.expression != matrix.expression:
        theirs, ours = (" generation ".join(pair) for pair in (split.expression, matrix.expression))
        raise ConfigError(
            f"split {split.name} is of expression {theirs}, {matrix.path} of {ours}: split the samples of these counts again"
        )
    return np.asarray(split.sample_subset == SUBSET_NAMES.index(subset))


def _vocabulary(gene_ids: tuple[str, ...], tokens: Mapping[str, int] | None) -> Vocabulary:
    if tokens is None:
        return Vocabulary.by_place(gene_ids)
    for gene in gene_ids:
        if gene not in tokens:
            raise ConfigError(f"gene_tokens has no token for {gene!r}; {close_names(gene, tokens)}")
    own = np.array([tokens[gene] for gene in gene_ids], dtype=np.int32)
    if len(np.unique(own)) < len(own) or own.min() < 3:
        raise ConfigError("gene_tokens: tokens are from 3 on, and no two genes of a stream have the same")
    return Vocabulary(own, gene_ids)
