"""``normalize``: fit edges of bins by gene, and apply them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from splicestore.cli.output import (
    DRY_RUN,
    FORCE,
    JSON,
    MAX_MEMORY,
    PROFILE,
    SCHEDULER,
    STEAL,
    STORAGE_OPTION,
    STORE,
    parse_size,
    print_json,
    print_table,
    progress_bar,
    storage_options,
)

app = typer.Typer(help="Bin expression by gene, with stored edges.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Bin expression by gene, with stored edges."""


@app.command("fit")
def fit(
    store: Annotated[str, STORE],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the normalisation.")],
    expression: Annotated[str, typer.Option(help="Name of the counts.")],
    n_bins: Annotated[int, typer.Option(help="Bin 1 for zeros, the others equally filled.")] = 2000,
    tie_policy: Annotated[str, typer.Option(help="max | min: the rank that equal scores share.")] = "max",
    min_total: Annotated[int, typer.Option(help="A sample has at least so many counts.")] = 1_000_000,
    max_single_cell: Annotated[float, typer.Option(help="Its probability of being from a single cell is lower.")] = 0.5,
    min_nonzero: Annotated[int, typer.Option(help="More of its genes than this have a count.")] = 2000,
    no_qc: Annotated[bool, typer.Option("--no-qc", help="Take every sample that has a count.")] = False,
    samples: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Fit to these samples alone: one id a line, as of a training set."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Fit to the training samples of this split of samples alone.")
    ] = None,
    dry_run: Annotated[bool, DRY_RUN] = False,
    max_memory: Annotated[str | None, MAX_MEMORY] = None,
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, FORCE] = False,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    profile: Annotated[str | None, PROFILE] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Fit the edges of every gene's bins, exactly, and store them."""
    from splicestore.memory import format_bytes
    from splicestore.normalize import FitOptions, fit_edges
    from splicestore.normalize.quality import SampleQuality
    from splicestore.storage import input_text_lines
    from splicestore.store import open_store

    access = storage_options(storage_option)
    chosen: Any = None
    if samples is not None:
        chosen = tuple(line.strip() for _, line in input_text_lines(samples, storage_options=access) if line.strip())
    options = FitOptions(
        n_bins=n_bins,
        tie_policy=tie_policy,  # type: ignore[arg-type]
        quality=SampleQuality.none() if no_qc else SampleQuality(min_total, max_single_cell, min_nonzero),
        samples=chosen,
        split=split,
        scheduler=scheduler,
        max_memory=parse_size(max_memory, "--max-memory"),
        profile=profile,
        force=force,
        steal=steal,
    )
    opened = open_store(store, storage_options=access)
    if dry_run:
        _print_plan(opened, expression, options, as_json)
        return
    with progress_bar(as_json) as progress:
        report = fit_edges(opened, name, expression, options, progress=progress)
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(report.document())
        return
    print_table(
        ["normalized", "status", "generation", "samples", "genes", "kept", "expressed", "without edges"],
        [[report.name, report.status, report.generation, report.n_samples_fitted, report.n_genes, report.n_genes_kept,
          report.n_genes_expressed, report.n_genes_without_edges]],
    )  # fmt: skip
    if report.dropped:
        print("samples left out: " + ", ".join(f"{reason} {n:,}" for reason, n in report.dropped.items()))
    print(
        f"peak memory: projected {format_bytes(report.projected_peak_bytes)}, observed {format_bytes(report.observed_peak_bytes)}"
    )


def _print_plan(store: Any, expression: str, options: Any, as_json: bool) -> None:
    """Print what a fit and the bins of all samples would cost."""
    from splicestore.normalize.fit import fitted_samples

    counts = store.expression[expression]
    rows, judged = fitted_samples(store, counts, options)
    dropped = {reason: n for reason, n in judged.dropped.items() if n}
    sizes = {"samples": len(rows), "dropped": dropped}
    _print_costs(sizes, len(rows), counts.n_samples, counts.n_genes, options.n_bins, options.band_budget, as_json)


def _print_costs(
    sizes: dict[str, Any], n_fitted: int, n_samples: int, n_genes: int, n_bins: int, band_budget: int, as_json: bool
) -> None:
    from splicestore.memory import format_bytes
    from splicestore.normalize.cost import plan_apply, plan_fit

    passes = {
        "fit": plan_fit(n_fitted, n_genes, n_bins, band_budget),
        "apply": plan_apply(n_samples, n_genes, n_genes, n_bins),
    }
    if as_json:
        print_json({**sizes, **{name: cost.document() for name, cost in passes.items()}})
        return
    print(f"{n_fitted:,} of {n_samples:,} samples are fitted to, {n_genes:,} genes, {n_bins:,} bins")
    print_table(
        ["pass", "tasks", "read (decoded)", "written (decoded)", "a task", "core-hours"],
        [
            [name, cost.tasks, format_bytes(cost.bytes_read), format_bytes(cost.bytes_written), format_bytes(cost.peak_bytes),
             round(cost.core_hours, 3)]
            for name, cost in passes.items()
        ],
    )  # fmt: skip


@app.command("estimate")
def estimate(
    samples: Annotated[int, typer.Option(min=1, help="Samples; all are fitted to.")],
    genes: Annotated[int, typer.Option(min=1, help="Genes.")],
    n_bins: Annotated[int, typer.Option(min=3, max=65_535, help="Bins.")] = 2000,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Estimate a fit and the bins of all samples by their numbers alone, before there is a store."""
    from splicestore.normalize.fit import BAND_BUDGET

    _print_costs({"samples": samples}, samples, samples, genes, n_bins, BAND_BUDGET, as_json)


@app.command("apply")
def apply(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL of the store; with -o the file to bin.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the bins; not with -o.")] = None,
    edges: Annotated[str, typer.Option(help="Name of the normalisation; with -o STORE/NAME.")] = "",
    expression: Annotated[str | None, typer.Option(help="Counts to bin; those it was fitted to by default.")] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", metavar="OUT", help=".npz, .tsv or .tsv.gz.")] = None,
    all_genes: Annotated[bool, typer.Option(help="Also the weaker of two genes with one symbol.")] = False,
    layer: Annotated[str, typer.Option(help="Of h5ad files: X, raw/X or a layer.")] = "X",
    max_memory: Annotated[str | None, MAX_MEMORY] = None,
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, FORCE] = False,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    profile: Annotated[str | None, PROFILE] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Bin stored counts by stored edges; or, with -o, the samples of a file."""
    from splicestore.normalize import ApplyOptions, apply_edges, bin_file
    from splicestore.store import open_store

    if not edges:
        raise typer.BadParameter("--edges: name the normalisation")
    access = storage_options(storage_option)
    if output is not None:
        if name is not None:
            raise typer.BadParameter("with -o write FILE -o OUT --edges STORE/NAME; NAME is of bins in a store")
        root, _, fitted = edges.rstrip("/").rpartition("/")
        if not root:
            raise typer.BadParameter(f"--edges {edges!r}: with -o write STORE/NAME")
        normalized = open_store(root, storage_options=access).normalized[fitted]
        found = bin_file(normalized, store, output, layer=layer, all_genes=all_genes, storage_options=access)
        if as_json:
            print_json({**found, "output": output, "generation": normalized.generation})
        else:
            print(
                f"{output}: {found['samples']:,} samples, {found['genes']:,} genes, {found['genes_missing']:,} of them missing (bin 0)"
            )
        return
    if name is None:
        raise typer.BadParameter("NAME of the bins is missing; or write FILE -o OUT")
    options = ApplyOptions(
        expression=expression,
        all_genes=all_genes,
        scheduler=scheduler,
        max_memory=parse_size(max_memory, "--max-memory"),
        profile=profile,
        force=force,
        steal=steal,
    )
    with progress_bar(as_json) as progress:
        report = apply_edges(open_store(store, storage_options=access), name, edges, options, progress=progress)
    if as_json:
        print_json(report.document())
        return
    print_table(
        ["bins", "status", "generation", "samples", "genes", "missing genes"],
        [[report.name, report.status, report.generation, report.n_samples, report.n_genes, report.n_genes_missing]],
    )
