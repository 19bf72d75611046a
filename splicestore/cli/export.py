"""``export``: files for other programs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from splicestore.cli.output import (
    JSON,
    STORAGE_OPTION,
    STORE,
    listed_ids,
    print_json,
    progress_bar,
    storage_options,
)

app = typer.Typer(help="Write files that other programs read.", no_args_is_help=True, rich_markup_mode=None)

MATRIX = typer.Argument(metavar="NAME", help="Name of the counts or bins.")
KIND = typer.Option(help="expression | bins, where both have something of that name.")
SAMPLES = typer.Option(metavar="FILE", help="Only these samples: one id a line.")
GENES = typer.Option(metavar="FILE", help="Only these genes, in this order: one id or symbol a line.")
SPLIT = typer.Option(help="A split of the samples: their subset is written too.")
SUBSET = typer.Option(help="train | val | test: only the samples of this subset of the split.")
OVERWRITE = typer.Option(help="Replace OUT.")


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
    tokens: Annotated[str | None, typer.Option(help="Number the genes by these tokens.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT.")] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write GeneRAIN's files: bins by chunks of samples, statistics and tokens of genes, the reference of new samples."""
    from splicestore.export import export_generain
    from splicestore.store import open_store

    opened = open_store(store, storage_options=storage_options(storage_option))
    report = export_generain(
        opened, bins, out, n_chunks=chunks, embedding=embedding, tokens=tokens, overwrite=overwrite
    )
    if as_json:
        print_json(report.document())
        return
    for name in report.files:
        print(f"{out}/{name}")
    print(f"{report.n_samples:,} samples, {report.n_genes:,} genes, {report.n_reference:,} reference values a gene")


@app.command("h5ad")
def h5ad(
    store: Annotated[str, STORE],
    name: Annotated[str, MATRIX],
    out: Annotated[str, typer.Argument(metavar="OUT.h5ad", help="File to write.")],
    kind: Annotated[str | None, KIND] = None,
    samples: Annotated[str | None, SAMPLES] = None,
    genes: Annotated[str | None, GENES] = None,
    split: Annotated[str | None, SPLIT] = None,
    subset: Annotated[str | None, SUBSET] = None,
    sparse: Annotated[bool, typer.Option("--sparse", help="As compressed sparse rows.")] = False,
    overwrite: Annotated[bool, OVERWRITE] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write counts or bins as one AnnData file."""
    from splicestore.export import MatrixOptions, export_h5ad
    from splicestore.store import open_store

    access = storage_options(storage_option)
    options = MatrixOptions(kind, listed_ids(samples, access), listed_ids(genes, access), split, subset, overwrite)
    with progress_bar(as_json) as progress:
        report = export_h5ad(
            open_store(store, storage_options=access), name, out, options, sparse=sparse, progress=progress
        )
    _print_matrix(report, as_json)


@app.command("parquet")
def parquet(
    store: Annotated[str, STORE],
    name: Annotated[str, MATRIX],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write.")],
    kind: Annotated[str | None, KIND] = None,
    samples: Annotated[str | None, SAMPLES] = None,
    genes: Annotated[str | None, GENES] = None,
    split: Annotated[str | None, SPLIT] = None,
    subset: Annotated[str | None, SUBSET] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write counts or bins as Parquet files, a row a sample, by subsets if a split is named."""
    from splicestore.export import MatrixOptions, export_parquet
    from splicestore.store import open_store

    access = storage_options(storage_option)
    options = MatrixOptions(kind, listed_ids(samples, access), listed_ids(genes, access), split, subset, overwrite)
    with progress_bar(as_json) as progress:
        report = export_parquet(open_store(store, storage_options=access), name, out, options, progress=progress)
    _print_matrix(report, as_json)


@app.command("embeddings")
def embeddings(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="card.json of a model of genes.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help=".tsv, or .npy with the ids beside it.")],
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write the embedding of every gene of a trained network."""
    from splicestore.export.embeddings import export_embeddings

    n_genes, width = export_embeddings(model, out, storage_options=storage_options(storage_option))
    if as_json:
        print_json({"output": out, "genes": n_genes, "width": width})
    else:
        print(f"{out}: {n_genes:,} genes, {width} values each")


def _print_matrix(report: Any, as_json: bool) -> None:
    from splicestore.memory import format_bytes

    if as_json:
        print_json(report.document())
        return
    for file in report.files:
        print(file)
    values = report.n_samples * report.n_genes
    print(
        f"{report.path}: {report.n_samples:,} samples, {report.n_genes:,} genes of {report.kind}, {report.n_nonzero / values:.0%} of the "
        f"values not zero, {format_bytes(report.n_bytes)}"
    )
