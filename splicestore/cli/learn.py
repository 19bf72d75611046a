"""``train``, ``evaluate``, ``predict``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from splicestore.cli.output import (
    FORCE,
    JSON,
    PARTITION,
    PROFILE,
    SCHEDULER,
    STEAL,
    STORAGE_OPTION,
    STORE,
    print_json,
    print_table,
    progress_bar,
    storage_options,
)

SPLIT = typer.Argument(metavar="SPLIT", help="Name of the split.")
CARD = typer.Argument(metavar="MODEL", help="The model's card.json.")
DEVICE = typer.Option(help="cpu, cuda, cuda:1 ...; a GPU by default if there is one.")


def train(
    store: Annotated[str, STORE],
    split: Annotated[str, SPLIT],
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="YAML of training settings, see docs/how-to/train.md.")
    ],
    output: Annotated[str, typer.Option(help="Folder for checkpoint, model and card.")],
    shuffled_labels: Annotated[bool, typer.Option(help="Control: nothing can be learned but prevalence.")] = False,
    device: Annotated[str | None, DEVICE] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Train a reference network on a split of windows, or of samples (`bins:` in CONFIG); the same command goes on where it stopped."""
    from splicestore.memory import format_bytes
    from splicestore.store import open_store
    from splicestore.train import GeneTrainSettings, load_train_settings, train_genes_on_split, train_on_split

    settings = load_train_settings(config)
    opened = open_store(store, storage_options=storage_options(storage_option))
    device, on_log = _device(device), None if as_json else _log
    if isinstance(settings, GeneTrainSettings):
        if shuffled_labels:
            raise typer.BadParameter("--shuffled-labels is of splice sites; the baselines of genes need no control")
        result = train_genes_on_split(opened, split, settings, output, device=device, on_log=on_log)
    else:
        if shuffled_labels:
            settings = settings.model_copy(update={"shuffled_labels": True})
        result = train_on_split(opened, split, settings, output, device=device, on_log=on_log)
    if as_json:
        print_json(result.document())
        return
    print(
        f"{result.step} steps in {result.seconds:.0f} s, {result.rows_per_second:.0f} {result.rows_name}/s, "
        f"peak memory {format_bytes(result.observed_peak_bytes)}"
    )
    if result.stream["batches"]:
        print(stream_line(result.stream))
    print(f"model: {output}/card.json    next: splicestore evaluate {store} {split} {output}/card.json")


def stream_line(stream: Mapping[str, Any]) -> str:
    """Say in one line how fast a stream was and what it read."""
    from splicestore.memory import format_bytes

    needed = stream["cache_hits"] + stream["cache_misses"]
    return (
        f"stream: {stream['batches_per_second']:.1f} batches/s, {stream['waiting_share']:.1%} of the time waited for, "
        f"{stream['blocks_read']} blocks ({format_bytes(stream['bytes'])}) read in {stream['requests']} requests, "
        f"{stream['cache_hits'] / max(1, needed):.0%} found in memory"
    )


def _log(row: Mapping[str, float]) -> None:
    print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), file=sys.stderr)


def evaluate(
    store: Annotated[str, STORE],
    split: Annotated[str, SPLIT],
    model: Annotated[str, CARD],
    subset: Annotated[str, typer.Option(help="test | val | train")] = "test",
    control: Annotated[str | None, typer.Option(help="Card of a model trained with --shuffled-labels.")] = None,
    min_reads: Annotated[float, typer.Option(help="Sites with fewer reads do not count for usage.")] = 10,
    bins: Annotated[
        str | None, typer.Option(help="For a model of genes: bins to score; those it was trained on by default.")
    ] = None,
    device: Annotated[str | None, DEVICE] = None,
    output: Annotated[str | None, typer.Option(help="Also write the JSON document here.")] = None,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    profile: Annotated[str | None, PROFILE] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Score held-out windows or samples, beside baselines: average precision, top-k accuracy, usage; loss and accuracy of genes."""
    import json

    from splicestore.cli.output import plain
    from splicestore.models.card import card_target, load_model
    from splicestore.storage.outputs import write_file
    from splicestore.store import open_store
    from splicestore.train import evaluate_genes_on_split, evaluate_on_split

    target = _device(device)
    opened = open_store(store, storage_options=storage_options(storage_option))
    if card_target(model) != "positions":
        genes = evaluate_genes_on_split(opened, split, model, bins=bins, subset=subset, device=target).document()
        if output is not None:
            write_file(output, json.dumps(plain(genes), indent=2).encode())
        if as_json:
            print_json(genes)
        else:
            print_table(list(genes), [["-" if value is None else value for value in genes.values()]])
        return
    found = evaluate_on_split(
        opened,
        split,
        load_model(model, device=target),
        subset=subset,
        control=load_model(control, device=target) if control else None,
        min_reads=min_reads,
        scheduler=scheduler,
        profile=profile,
    )
    if output is not None:
        write_file(output, json.dumps(plain(found.document()), indent=2).encode())
    if as_json:
        print_json(found.document())
        return
    print_metrics(found.document())


def print_metrics(document: Mapping[str, Any]) -> None:
    """Print the pooled metrics, one row per scorer and class, then usage."""
    rows = []
    for scorer, scores in document["scorers"].items():
        for site_class, values in scores["sites"]["all"].items():
            rows.append(
                [
                    scorer,
                    site_class,
                    values["average_precision"],
                    values["top_k_accuracy"],
                    values["n_true"],
                    values["n_positions"],
                ]
            )
    print_table(["scorer", "class", "average precision", "top-k accuracy", "sites", "positions"], rows)
    usage = {name: scores["usage"]["pooled"] for name, scores in document["scorers"].items() if "usage" in scores}
    if usage:
        print()
        print_table(
            ["scorer", "SSE Spearman", "SSE Pearson", "measured"],
            [[n, u["spearman"], u["pearson"], u["n"]] for n, u in usage.items()],
        )


def predict(
    store: Annotated[str, STORE],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the predictions.")],
    model: Annotated[str, typer.Option(help="The model's card.json.")],
    split: Annotated[str | None, typer.Option(help="Genomes and windows of this split.")] = None,
    subset: Annotated[str | None, typer.Option(help="With --split: only this subset.")] = None,
    genome: Annotated[list[str], typer.Option("--genome", help="Only this genome; repeatable.")] = [],  # noqa: B006
    region: Annotated[
        list[str],
        typer.Option("--region", help="GENOME:CONTIG:START-END, 0-based half-open, both strands; repeatable."),
    ] = [],  # noqa: B006
    batch_size: Annotated[int, typer.Option(min=1, help="Windows at once.")] = 32,
    device: Annotated[str | None, DEVICE] = None,
    partition: Annotated[str | None, PARTITION] = None,
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, FORCE] = False,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    profile: Annotated[str | None, PROFILE] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Predict by position into the store: gene windows by default, or regions, or a subset of a split."""
    from splicestore.memory import format_bytes
    from splicestore.models.card import load_model
    from splicestore.predict import PredictOptions, predict_windows
    from splicestore.storage.runs import parse_share
    from splicestore.store import open_store

    loaded = load_model(model, device=_device(device))
    options = PredictOptions(
        window_size=loaded.card.window_size,
        context_size=loaded.card.context_size,
        tasks=loaded.card.tasks,
        model_name=loaded.card.name,
        model_digest=loaded.card.digest,
        genomes=tuple(genome),
        split=split,
        subset=subset,
        regions=tuple(region),
        batch_size=batch_size,
        force=force,
        steal=steal,
        scheduler=scheduler,
        profile=profile,
    )
    opened = open_store(store, storage_options=storage_options(storage_option))
    share = parse_share(partition) if partition is not None else None
    with progress_bar(as_json) as progress:
        report = predict_windows(opened, name, loaded.window_scores, options, share=share, progress=progress)
    if as_json:
        print_json(report.document())
        return
    print_table(["genome", "windows"], [[g, n] for g, n in report.n_windows.items()])
    print(f"predictions {report.name}, generation {report.generation} ({report.status}): {', '.join(report.tasks)}")
    if share is not None:
        print(f"job {partition} is done; when all are: splicestore finalise {store} predictions/{name}")
        return
    print(
        f"peak memory {format_bytes(report.observed_peak_bytes)}; "
        f"read them: open_store({store!r}).predictions[{name!r}].fetch(GENOME, CONTIG, START, END)"
    )


def _device(wanted: str | None) -> str:
    """Check a device's name, or choose one."""
    import torch

    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise typer.BadParameter(f"--device {wanted!r} cannot be used here: {first}") from error
    return wanted
