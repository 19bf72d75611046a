"""Evaluation of a model on a held-out subset, with the motif baseline in the same table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splicestore.cluster import Executor
from splicestore.errors import ModelError
from splicestore.memory import TORCH_BYTES
from splicestore.models.card import LoadedModel, check_fits, one_thread
from splicestore.models.splice import site_log_odds
from splicestore.stream.batch import Batch as AnyBatch
from splicestore.stream.lanes import WindowLanes
from splicestore.stream.window_reader import NumpyBatch
from splicestore.train.baseline import MotifBaseline
from splicestore.train.losses import real_rows, usage_rows
from splicestore.train.metrics import (
    COUNTED_BYTES,
    EXACT_POSITIONS,
    POSITION_BYTES,
    SitePool,
    UsagePool,
    site_rows,
    usage_rows_of,
)

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
    scores = Scores.of_batches(model, batches, baseline=baseline, min_reads=min_reads, exact_positions=exact_positions)
    return scores.evaluation()


def evaluate_lanes(
    model: LoadedModel,
    lanes: WindowLanes,
    executor: Executor,
    *,
    baseline: MotifBaseline | None = None,
    min_reads: float = 10,
    exact_positions: int = EXACT_POSITIONS,
) -> Evaluation:
    """Score lanes as tasks and rank all positions together; to the last digit the same for any executor on equal devices.

    Scores are kept as they are only if all positions of all windows may be: a lane cannot know what the others have.

    Parameters
    ----------
    model
        One from ``load_model`` travels by the address of its card.
    lanes
        Of the subset.
    executor
        From ``open_executor``.
    baseline, min_reads, exact_positions
        As in ``evaluate``.

    Raises
    ------
    ModelError
        As in ``evaluate``, from the first lane that fails.
    PlanError
        If no worker has the memory for a lane.
    """
    n_positions = lanes.plan.n_windows * lanes.plan.options.window_size
    kept = exact_positions if n_positions <= exact_positions else 0
    score = _LaneScorer(model, baseline, min_reads, kept)
    total: Scores | None = None
    for scores in lanes.map(score, executor, ordered=False, memory=score.task_bytes(lanes)):
        if total is None:
            total = scores
        else:
            total.merge(scores)
    if total is None:
        raise ModelError(_NO_WINDOW)
    return total.evaluation()


@dataclass(frozen=True, slots=True)
class _LaneScorer:
    """What a task of an evaluation carries."""

    model: LoadedModel
    baseline: MotifBaseline | None
    min_reads: float
    exact_positions: int

    def __call__(self, batches: Iterator[NumpyBatch]) -> Scores:
        with one_thread():
            return Scores.of_batches(
                self.model,
                (batch.map_arrays(lambda _, array: torch.from_numpy(array)) for batch in batches),
                baseline=self.baseline,
                min_reads=self.min_reads,
                exact_positions=self.exact_positions,
            )

    def task_bytes(self, lanes: WindowLanes) -> int:
        """Bytes of one task on a CPU, but for what the network holds between its layers."""
        options, n_scorers = lanes.plan.options, 1 if self.baseline is None else 2
        if self.exact_positions:
            pools = -(-lanes.plan.n_windows // len(lanes)) * options.window_size * POSITION_BYTES
        else:
            pools = len(options.genomes) * len(_STRANDS) * COUNTED_BYTES
        weights = sum(value.nbytes for value in self.model.module.state_dict().values())
        return lanes.task_bytes + TORCH_BYTES + 2 * weights + n_scorers * pools


@dataclass(slots=True)
class Scores:
    """What a model, and perhaps the baseline, said of some windows. Scores of several parts of a subset merge exactly."""

    genome_names: tuple[str, ...]
    min_reads: float
    sites: Mapping[str, SitePool]
    """By scorer: ``model``, ``baseline``."""
    usage: UsagePool | None
    """The model's; None if it has no conditions."""
    n_windows: int = 0

    @classmethod
    def of_batches(
        cls,
        model: LoadedModel,
        batches: Iterable[Batch],
        *,
        baseline: MotifBaseline | None = None,
        min_reads: float = 10,
        exact_positions: int = EXACT_POSITIONS,
    ) -> Scores:
        """Score windows; see ``evaluate``."""
        scores: Scores | None = None
        for batch in batches:
            if scores is None:
                check_fits(model.card, **_geometry(batch), condition_names=batch.condition_names)
                pools = {"model": SitePool(exact_positions)}
                if baseline is not None:
                    pools["baseline"] = SitePool(exact_positions)
                usage = UsagePool(batch.condition_names) if model.card.condition_names else None
                scores = cls(tuple(batch.genome_names), min_reads, pools, usage)
            scores._add(batch, model, baseline)
        if scores is None:
            raise ModelError(_NO_WINDOW)
        return scores

    def _add(self, batch: Batch, model: LoadedModel, baseline: MotifBaseline | None) -> None:
        site_logits, usage_logits = model.logits(batch.sequence)
        _add_sites(self.sites["model"], batch, site_log_odds(site_logits).cpu().numpy())
        if self.usage is not None:
            _add_usage(self.usage, batch, usage_logits, model, self.min_reads)
        if baseline is not None:
            scores = baseline.score(batch.sequence.cpu().numpy(), batch.label.shape[1])
            _add_sites(self.sites["baseline"], batch, scores)
        self.n_windows += int(real_rows(batch).sum())

    def merge(self, other: Scores) -> None:
        """Add the scores of other windows, by the same scorers."""
        for name, pool in self.sites.items():
            pool.merge(other.sites[name])
        if self.usage is not None and other.usage is not None:
            self.usage.merge(other.usage)
        self.n_windows += other.n_windows

    def evaluation(self) -> Evaluation:
        """Rank all positions together.

        Raises
        ------
        ModelError
            If there is no window.
        """
        if not self.n_windows:
            raise ModelError(_NO_WINDOW)
        found: dict[str, dict[str, Any]] = {
            name: {"sites": _site_metrics(pool, self.genome_names)} for name, pool in self.sites.items()
        }
        if self.usage is not None:
            found["model"]["usage"] = self.usage.metrics(self.genome_names)
        return Evaluation(self.n_windows, self.min_reads, self.sites["model"].is_exact, found)


_NO_WINDOW = "no window to evaluate on: the subset is empty, or its filters leave none"


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
