"""Evaluation of a model on a held-out subset, with the motif baseline in the same table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splicestore.errors import ModelError
from splicestore.models.card import LoadedModel, check_fits
from splicestore.models.splice import site_log_odds
from splicestore.stream.batch import Batch as AnyBatch
from splicestore.train.baseline import MotifBaseline
from splicestore.train.losses import real_rows, usage_rows
from splicestore.train.metrics import EXACT_POSITIONS, SitePool, UsagePool, site_rows, usage_rows_of

Batch = AnyBatch[Tensor]

_STRANDS = {1: "+", -1: "-"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics per scorer (``model``, ``baseline``), pooled over all positions of the subset."""

    n_windows: int
    min_reads: float
    is_exact: bool
    """False if scores were rounded to float16 before they were ranked, to bound the memory."""
    scorers: Mapping[str, Mapping[str, Any]]
    """Per scorer ``sites`` (all, strands, genomes: per class average_precision, top_k_accuracy, n_true, n_positions)
    and, for models with conditions, ``usage`` (pooled, conditions, genomes: spearman, pearson, n)."""

    def document(self) -> dict[str, Any]:
        """JSON-ready: a metric that is not defined is null."""
        return {
            "n_windows": self.n_windows,
            "min_reads": self.min_reads,
            "is_exact": self.is_exact,
            "scorers": {name: dict(found) for name, found in self.scorers.items()},
        }

    def rows(self) -> list[dict[str, Any]]:
        """Table rows: scorer, genome ("all" pools them), strand ("+", "-", "both"), task, metric, value, n."""
        table: list[dict[str, Any]] = []
        for name, found in self.scorers.items():
            table += site_rows(name, found["sites"])
            if "usage" in found:
                table += usage_rows_of(name, found["usage"])
        return table


def evaluate(
    model: LoadedModel,
    batches: Iterable[Batch],
    *,
    baseline: MotifBaseline | None = None,
    min_reads: float = 10,
    exact_positions: int = EXACT_POSITIONS,
) -> Evaluation:
    """Score every window once and rank all positions together.

    Parameters
    ----------
    model
        From ``load_model``.
    batches
        Of the subset, each window once; rows with ``window_id`` -1 are left out.
    baseline
        Scored on the same windows.
    min_reads
        Usage counts where alpha + beta has this many reads and the genome has the condition.
    exact_positions
        Positions whose scores are kept as they are, per scorer (9 bytes each); beyond it they are rounded.

    Raises
    ------
    ModelError
        If the windows have another size than the model's, a condition is unknown to it, scores are not finite, or
        there is no window.
    """
    model_sites = SitePool(exact_positions)
    baseline_sites = SitePool(exact_positions)
    usage: UsagePool | None = None
    names: tuple[str, ...] = ()
    n_windows = 0
    for batch in batches:
        if usage is None:
            check_fits(model.card, **_geometry(batch), condition_names=batch.condition_names)
            usage, names = UsagePool(batch.condition_names), tuple(batch.genome_names)
        site_logits, usage_logits = model.logits(batch.sequence)
        _add_sites(model_sites, batch, site_log_odds(site_logits).cpu().numpy())
        _add_usage(usage, batch, usage_logits, model, min_reads)
        if baseline is not None:
            _add_sites(baseline_sites, batch, baseline.score(batch.sequence.cpu().numpy(), batch.label.shape[1]))
        n_windows += int(real_rows(batch).sum())
    if usage is None or n_windows == 0:
        raise ModelError("no window to evaluate on: the subset is empty, or its filters leave none")
    scorers: dict[str, dict[str, Any]] = {"model": {"sites": _site_metrics(model_sites, names)}}
    if model.card.condition_names:
        scorers["model"]["usage"] = usage.metrics(names)
    if baseline is not None:
        scorers["baseline"] = {"sites": _site_metrics(baseline_sites, names)}
    return Evaluation(n_windows, min_reads, model_sites.is_exact, scorers)


def _geometry(batch: Batch) -> dict[str, int]:
    window_size = batch.label.shape[1]
    return {"window_size": window_size, "context_size": (batch.sequence.shape[1] - window_size) // 2}


def _add_sites(pool: SitePool, batch: Batch, scores: NDArray[np.float32]) -> None:
    real = real_rows(batch).cpu().numpy()
    genome, strand, label = (t.cpu().numpy()[real] for t in (batch.genome, batch.strand, batch.label))
    pool.add(genome, strand, scores[real], label)


def _add_usage(pool: UsagePool, batch: Batch, usage_logits: Tensor, model: LoadedModel, min_reads: float) -> None:
    """Take predictions at the usage rows, in the order of the batch's conditions."""
    known = model.card.condition_names
    columns = torch.tensor([known.index(name) for name in batch.condition_names], dtype=torch.long)
    rows = usage_rows(batch, min_reads)
    logits = usage_logits[rows.window.to(usage_logits.device), :, rows.position.to(usage_logits.device)].cpu()  # (n, C)
    observed = torch.where(rows.measured, rows.alpha / rows.reads.clamp(min=1e-9), torch.nan)
    genome = batch.genome.cpu().long()[rows.window]
    pool.add(genome.numpy(), torch.sigmoid(logits[:, columns]).numpy(), observed.numpy())


def _site_metrics(pool: SitePool, genome_names: tuple[str, ...]) -> dict[str, Any]:
    groups = pool.groups
    return {
        "all": pool.metrics(groups),
        "strands": {
            _STRANDS[strand]: pool.metrics([g for g in groups if g[1] == strand])
            for strand in sorted({s for _, s in groups})[::-1]
        },
        "genomes": {
            genome_names[number]: {
                "all": pool.metrics([g for g in groups if g[0] == number]),
                "strands": {_STRANDS[g[1]]: pool.metrics([g]) for g in groups[::-1] if g[0] == number},
            }
            for number in sorted({n for n, _ in groups})
        },
    }
