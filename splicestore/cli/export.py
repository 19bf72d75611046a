"""``export``: files for other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from splicestore.cli.output import JSON, STORAGE_OPTION, STORE, print_json, storage_options

app = typer.Typer(help="Write files that other programs read.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Write files that other programs read."""


@app.command("splicevo")
def splicevo(
    store: Annotated[str, STORE],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write.")],
    split: Annotated[str | None, typer.Option(help="Write train/, val/ and test/ of this split.")] = None,
    genome: Annotated[list[str], typer.Option("--genome", help="Only this genome; repeatable.")] = [],  # noqa: B006
    window_size: Annotated[int | None, typer.Option(min=1, help="bp with labels; 1000, or the split's.")] = None,
    context_size: Annotated[int | None, typer.Option(min=0, help="bp on each side; 450, or the split's.")] = None,
    preset: Annotated[
        str, typer.Option(help="splicevo: its windows, orientation, labels; splicestore: ours.")
    ] = "splicevo",
    alpha_threshold: Annotated[
        float | None, typer.Option(help="Below it alpha, beta and sse read 0; splicevo takes 5.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT.")] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write SplicEvo's dense arrays (sequences, labels, usage) for existing training code."""
    from splicestore.export import export_splicevo
    from splicestore.memory import format_bytes
    from splicestore.store import open_store

    report = export_splicevo(
        open_store(store, storage_options=storage_options(storage_option)),
        out,
        split=split,
        genomes=genome,
        window_size=window_size,
        context_size=context_size,
        preset=preset,
        alpha_threshold=alpha_threshold,
        overwrite=overwrite,
    )
    if as_json:
        print_json(report.document())
        return
    for name, n in report.n_windows.items():
        print(f"{out}/{name}: {n:,} windows")
    print(f"{format_bytes(report.n_bytes)} written")


@app.command("generain")
def generain(
    store: Annotated[str, STORE],
    bins: Annotated[str, typer.Argument(metavar="BINS", help="Name of the bins.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write.")],
    chunks: Annotated[int, typer.Option(min=1, help="Files that the samples are cut into.")] = 5,
    embedding: Annotated[str, typer.Option(help="Stands in the files' names.")] = "splicestore",
    overwrite: Annotated[bool, typer.Option(help="Replace OUT.")] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write GeneRAIN's files: bins by chunks of samples, statistics and tokens of genes, the reference of new samples."""
    from splicestore.export import export_generain
    from splicestore.store import open_store

    opened = open_store(store, storage_options=storage_options(storage_option))
    report = export_generain(opened, bins, out, n_chunks=chunks, embedding=embedding, overwrite=overwrite)
    if as_json:
        print_json(report.document())
        return
    for name in report.files:
        print(f"{out}/{name}")
    print(f"{report.n_samples:,} samples, {report.n_genes:,} genes, {report.n_reference:,} reference values a gene")
