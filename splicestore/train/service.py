"""``train`` and ``evaluate`` on a store's splits: the streams, the baseline and the control around the loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.metadata import version
from typing import Any

from splicestore.cluster import open_executor
from splicestore.models.card import LoadedModel, load_network
from splicestore.models.genes import GeneCard
from splicestore.storage import input_text_lines
from splicestore.store import Store
from splicestore.stream import SampleStream, TokenView, WindowLanes, WindowStream
from splicestore.train.baseline import MotifBaseline
from splicestore.train.evaluate import Evaluation, evaluate_lanes
from splicestore.train.genes import GeneEvaluation, evaluate_genes, train_genes
from splicestore.train.loop import TrainResult
from splicestore.train.settings import GeneTrainSettings, TrainSettings, parse_train_settings
from splicestore.train.sites import train

EVALUATION_BATCH = 64
GENE_BATCH = 32
GENELESS_EVALUATED = 0.1
"""Share of held-out windows without a gene that metrics include, beside all that meet a gene body."""
BASELINE_WINDOWS = 20_000
"""Training windows that the motif baseline is estimated from."""


def load_train_settings(url: str) -> TrainSettings | GeneTrainSettings:
    """Read training settings from YAML or JSON."""
    text = "\n".join(line for _, line in input_text_lines(url))
    return parse_train_settings(text, url)


def train_on_split(
    store: Store,
    split: str,
    settings: TrainSettings,
    output: str,
    *,
    device: str | None = None,
    on_log: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainResult:
    """Train on the training windows of a split; a run that was stopped goes on from its checkpoint.

    Raises
    ------
    StateError
        If the checkpoint belongs to another split, seed, batch size or settings.
    """
    view = store.splits[split]
    stream = WindowStream(
        store,
        split=split,
        subset="train",
        batch_size=settings.batch_size,
        seed=settings.seed,
        geneless=settings.geneless_fraction,
        reuse_buffers=2,
    )
    provenance = {
        "splicestore": version("splicestore"),
        "split": split,
        "split_generation": view.generation,
        "split_digest": view.digest,
        "genomes": view.genome_generations,
        "usage": {g: list(view.genome(g).usage_generations) for g in view.genome_ids},
    }
    return train(stream, settings, output, device=device, provenance=provenance, on_log=on_log)


def train_genes_on_split(
    store: Store,
    split: str,
    settings: GeneTrainSettings,
    output: str,
    *,
    device: str | None = None,
    on_log: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainResult:
    """Train on the training samples of a split of samples; a run that was stopped goes on from its checkpoint.

    Raises
    ------
    ConfigError
        If the split is of other counts than the bins.
    StateError
        If the checkpoint belongs to other bins, another split, seed, batch size or settings.
    """
    view = TokenView(settings.objective, settings.top_genes, settings.n_levels, settings.mask_share)
    stream = SampleStream(
        store,
        settings.bins,
        split=split,
        genes=settings.genes,
        gene_tokens=settings.tokens,
        tokens=view,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    provenance = {
        "splicestore": version("splicestore"),
        "bins": store.bins[settings.bins].path,
        "sample_split": store.sample_splits[split].path,
    }
    return train_genes(stream, settings, output, device=device, provenance=provenance, on_log=on_log)


def evaluate_genes_on_split(
    store: Store, split: str, url: str, *, bins: str | None = None, subset: str = "test", device: str = "cpu"
) -> GeneEvaluation:
    """Score the held-out samples of a split of samples, beside what needs no network.

    Parameters
    ----------
    url
        Card of the network.
    bins
        Name of the bins; None: those it was trained on.
    subset
        ``train``, ``val`` or ``test``.
    """
    card, module = load_network(url, GeneCard, device=device)
    options: dict[str, Any] = {
        "split": split,
        "genes": card.gene_ids,
        "gene_tokens": dict(zip(card.gene_ids, card.gene_tokens, strict=True)),
        "tokens": TokenView(card.target, card.top_genes, card.n_levels, card.mask_share),
        "batch_size": GENE_BATCH,
    }
    name = card.bins if bins is None else bins
    with (
        closing(SampleStream(store, name, subset="train", **options)) as training,
        closing(SampleStream(store, name, subset=subset, shuffle=False, **options)) as held_out,
    ):
        return evaluate_genes(card, module, training, held_out, device)


def evaluate_on_split(
    store: Store,
    split: str,
    model: LoadedModel,
    *,
    subset: str = "test",
    control: LoadedModel | None = None,
    min_reads: float = 10,
    scheduler: str = "sync",
    profile: str | None = None,
) -> Evaluation:
    """Score held-out windows: all that meet a gene body, and a tenth of the others.

    Parameters
    ----------
    model
        Must have been trained with the split's window size.
    control
        A model trained on shuffled labels; its metrics stand beside the model's.
    min_reads
        Sites with fewer reads in a condition do not count for usage.
    scheduler
        Who scores the windows, as in ``open_executor``; the baseline is estimated here. Metrics do not depend on it.
    profile
        Write Dask's performance report (HTML) there.

    Returns
    -------
    evaluation
        Scorers ``model``, ``baseline`` (motif matrices estimated from training windows) and ``control``.
    """
    context = model.card.context_size
    training = WindowStream(
        store, split=split, subset="train", batch_size=EVALUATION_BATCH, context_size=context, geneless=0.0
    )
    with open_executor(scheduler, urls=[store.url], profile=profile) as executor:
        with closing(training):
            baseline = MotifBaseline.from_batches(training, BASELINE_WINDOWS)
        held_out = _held_out(store, split, subset, context)
        found = evaluate_lanes(model, held_out, executor, baseline=baseline, min_reads=min_reads)
        if control is None:
            return found
        held_out = _held_out(store, split, subset, control.card.context_size)
        beside = evaluate_lanes(control, held_out, executor, min_reads=min_reads)
    scorers: dict[str, Any] = {**found.scorers, "control": beside.scorers["model"]}
    return Evaluation(found.n_windows, found.min_reads, found.is_exact, scorers)


def _held_out(store: Store, split: str, subset: str, context_size: int) -> WindowLanes:
    return WindowLanes(
        store,
        split=split,
        subset=subset,
        batch_size=EVALUATION_BATCH,
        context_size=context_size,
        geneless=GENELESS_EVALUATED,
    )
