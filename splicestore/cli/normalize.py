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
    listed_ids,
    parse_size,
    print_json,
    print_table,
    progress_bar,
    storage_options,
)

app = typer.Typer(
    help="Bin or scale expression by what was fitted and stored.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def group() -> None:
    """Bin or scale expression by what was fitted and stored."""


@app.command("fit")
def fit(
    store: Annotated[str, STORE],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the normalisation.")],
    expression: Annotated[str, typer.Option(help="Name of the counts.")],
    method: Annotated[str, typer.Option(help="bins | cpm | log1p | quantile | tmm.")] = "bins",
    n_bins: Annotated[
        int | None, typer.Option(help="Bin 1 for zeros, the others equally filled.  [default: 2000]")
    ] = None,
    tie_policy: Annotated[
        str | None, typer.Option(help="max | min: the rank that equal scores share.  [default: max]")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="exact | histogram: the latter can be extended.  [default: exact]")
    ] = None,
    extend: Annotated[str | None, typer.Option(help="Add the samples to those of this histogram fit.")] = None,
    log_of: Annotated[str | None, typer.Option(help="Of log1p: cpm | counts.  [default: cpm]")] = None,
    pseudo_count: Annotated[float | None, typer.Option(help="Of log1p: what is added before.  [default: 1]")] = None,
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
    """Fit the edges of every gene's bins, or what a scaling needs, and store them."""
    from splicestore.normalize import FitOptions, ScalingOptions, fit_edges, fit_scaling
    from splicestore.normalize.quality import SampleQuality
    from splicestore.store import open_store

    access = storage_options(storage_option)
    common: dict[str, Any] = {
        "quality": SampleQuality.none() if no_qc else SampleQuality(min_total, max_single_cell, min_nonzero),
        "samples": listed_ids(samples, access),
        "split": split,
        "scheduler": scheduler,
        "max_memory": parse_size(max_memory, "--max-memory"),
        "profile": profile,
        "force": force,
        "steal": steal,
    }
    of_bins = _given(n_bins=n_bins, tie_policy=tie_policy, mode=mode, extend=extend)
    of_logs = _given(log_of=log_of, pseudo_count=pseudo_count)
    _refuse_given({} if method == "bins" else of_bins, "bins")
    _refuse_given({} if method == "log1p" else of_logs, "log1p")
    opened = open_store(store, storage_options=access)
    if method == "bins":
        edges = FitOptions(**of_bins, **common)
        if dry_run:
            _print_plan(opened, expression, edges, as_json)
            return
        with progress_bar(as_json) as progress:
            _print_edges(fit_edges(opened, name, expression, edges, progress=progress), as_json)
        return
    scaling = ScalingOptions(method, **of_logs, **common)  # type: ignore[arg-type]
    if dry_run:
        _print_plan(opened, expression, scaling, as_json)
        return
    with progress_bar(as_json) as progress:
        _print_scaling(fit_scaling(opened, name, expression, scaling, progress=progress), as_json)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse_given(options: dict[str, Any], method: str) -> None:
    if options:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise typer.BadParameter(f"{names}: only of --method {method}")


def _print_edges(report: Any, as_json: bool) -> None:
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
    if report.n_samples_before:
        print(f"{report.n_samples_before:,} of the samples are of the fit that this one extends")
    if report.max_bin_error is not None:
        print(
            f"from an exact fit no value differs by more than {report.max_bin_error:,} bins, and in {report.n_genes_within_one_bin:,} of "
            f"{report.n_genes:,} genes none by more than one"
        )
    _print_dropped_and_peak(report)


def _print_scaling(report: Any, as_json: bool) -> None:
    if as_json:
        print_json(report.document())
        return
    print_table(
        ["normalized", "status", "generation", "method", "samples", "genes", "kept", "expressed"],
        [[report.name, report.status, report.generation, report.method, report.n_samples_fitted, report.n_genes,
          report.n_genes_kept, report.n_genes_expressed]],
    )  # fmt: skip
    if report.factors is not None:
        low, high = report.factors
        print(f"reference sample {report.reference_sample}; factors from {low:.4f} to {high:.4f}")
    _print_dropped_and_peak(report)


def _print_dropped_and_peak(report: Any) -> None:
    from splicestore.memory import format_bytes

    if report.dropped:
        print("samples left out: " + ", ".join(f"{reason} {n:,}" for reason, n in report.dropped.items()))
    print(
        f"peak memory: projected {format_bytes(report.projected_peak_bytes)}, observed {format_bytes(report.observed_peak_bytes)}"
    )


def _print_plan(store: Any, expression: str, options: Any, as_json: bool) -> None:
    """Print what a fit and the values of all samples would cost."""
    from splicestore.normalize.samples import fitted_samples

    counts = store.expression[expression]
    rows, judged = fitted_samples(store, counts, options)
    dropped = {reason: n for reason, n in judged.dropped.items() if n}
    _print_costs(
        {"samples": len(rows), "dropped": dropped}, (len(rows), counts.n_samples, counts.n_genes), options, as_json
    )


def _print_costs(facts: dict[str, Any], sizes: tuple[int, int, int], options: Any, as_json: bool) -> None:
    """Print the passes of a normalisation of so many fitted samples, samples and genes."""
    from splicestore.memory import format_bytes
    from splicestore.normalize.cost import plan_passes

    n_fitted, n_samples, n_genes = sizes
    passes = plan_passes(n_fitted, n_samples, n_genes, options)
    if as_json:
        print_json({**facts, **{name: cost.document() for name, cost in passes.items()}})
        return
    print(f"{n_fitted:,} of {n_samples:,} samples are fitted to, {n_genes:,} genes")
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
    from splicestore.normalize import FitOptions

    _print_costs({"samples": samples}, (samples, samples, genes), FitOptions(n_bins=n_bins), as_json)


@app.command("apply")
def apply(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Path or URL of the store; with -o the file of counts.")
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of the bins or values; not with -o.")
    ] = None,
    edges: Annotated[str, typer.Option(help="Name of the normalisation; with -o STORE/NAME.")] = "",
    generain_reference: Annotated[
        str | None, typer.Option(metavar="REF.npy", help="With -o, instead of edges: GeneRAIN's reference values.")
    ] = None,
    gene_symbols: Annotated[
        str | None, typer.Option(metavar="FILE", help="Symbols of the reference's columns, one a line.")
    ] = None,
    n_bins: Annotated[int, typer.Option(help="With a reference: bins that it is of.")] = 2000,
    expression: Annotated[str | None, typer.Option(help="Counts to take; those it was fitted to by default.")] = None,
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
    """Bin or scale stored counts by a stored normalisation; or, with -o, the samples of a file."""
    from splicestore.normalize import ApplyOptions, apply_edges, apply_scaling, normalize_file
    from splicestore.store import open_store

    access = storage_options(storage_option)
    if generain_reference is not None:
        _apply_reference(store, name, edges, generain_reference, gene_symbols, output, n_bins, layer, access, as_json)
        return
    if not edges:
        raise typer.BadParameter("--edges: name the normalisation")
    if output is not None:
        if name is not None:
            raise typer.BadParameter(
                "with -o write FILE -o OUT --edges STORE/NAME; NAME is of what is published in a store"
            )
        root, _, fitted = edges.rstrip("/").rpartition("/")
        if not root:
            raise typer.BadParameter(f"--edges {edges!r}: with -o write STORE/NAME")
        normalized = open_store(root, storage_options=access).normalized[fitted]
        found = normalize_file(normalized, store, output, layer=layer, all_genes=all_genes, storage_options=access)
        _print_file({**found, "output": output, "generation": normalized.generation}, as_json)
        return
    if name is None:
        raise typer.BadParameter("NAME of the bins or values is missing; or write FILE -o OUT")
    options = ApplyOptions(
        expression=expression,
        all_genes=all_genes,
        scheduler=scheduler,
        max_memory=parse_size(max_memory, "--max-memory"),
        profile=profile,
        force=force,
        steal=steal,
    )
    opened = open_store(store, storage_options=access)
    service = apply_edges if opened.normalized[edges].method == "bins" else apply_scaling
    with progress_bar(as_json) as progress:
        report = service(opened, name, edges, options, progress=progress)
    if as_json:
        print_json(report.document())
        return
    print_table(
        [report.kind, "status", "generation", "samples", "genes", "missing genes"],
        [[report.name, report.status, report.generation, report.n_samples, report.n_genes, report.n_genes_missing]],
    )


def _apply_reference(
    file: str,
    name: str | None,
    edges: str,
    reference: str,
    symbols: str | None,
    output: str | None,
    n_bins: int,
    layer: str,
    access: dict[str, Any],
    as_json: bool,
) -> None:
    from splicestore.normalize.generain_reference import bin_file_among_reference, read_generain_reference

    if output is None or symbols is None or name is not None or edges:
        raise typer.BadParameter(
            "write --generain-reference REF.npy --gene-symbols REF.gene_symbols.txt FILE -o OUT, without --edges"
        )
    read = read_generain_reference(reference, symbols, storage_options=access)
    found = bin_file_among_reference(read, file, output, n_bins=n_bins, layer=layer, storage_options=access)
    _print_file({**found, "output": output}, as_json)


def _print_file(found: dict[str, Any], as_json: bool) -> None:
    """Print what became of a file's samples."""
    if as_json:
        print_json(found)
        return
    print(
        f"{found['output']}: {found['samples']:,} samples, {found['genes']:,} genes, {found['genes_missing']:,} of them missing"
    )


@app.command("tokens")
def tokens(
    store: Annotated[str, STORE],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the tokens.")],
    bins: Annotated[list[str], typer.Option("--bins", help="Bins whose genes are numbered; once a species.")],
    orthology: Annotated[list[str], typer.Option(help="Table of orthologs; repeatable.")] = [],  # noqa: B006
    orthology_format: Annotated[str, typer.Option(help="auto, or a format named in docs/how-to/split.md.")] = "auto",
    orthology_level: Annotated[str | None, typer.Option(help="Level of nested groups (OrthoDB, eggNOG).")] = None,
    column_genome: Annotated[
        list[str],
        typer.Option("--column-genome", metavar="SPECIES=BINS", help="What the table calls a species; repeatable."),
    ] = [],  # noqa: B006
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, FORCE] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Number the genes of bins: one token for two orthologs of different species, its own for any other gene."""
    from splicestore.kernels.ortholog_tokens import RELATIONS
    from splicestore.normalize import TokenOptions, publish_tokens
    from splicestore.store import open_store

    species = dict(pair.split("=", 1) for pair in column_genome if "=" in pair)
    if len(species) != len(column_genome):
        raise typer.BadParameter("--column-genome: write SPECIES=BINS, each species once")
    access = storage_options(storage_option)
    options = TokenOptions(tuple(orthology), orthology_format, orthology_level, species or None, force, steal)
    report = publish_tokens(open_store(store, storage_options=access), name, bins, options, storage_options=access)
    if as_json:
        print_json(report.document())
        return
    print_table(
        ["genes of", *(relation.replace("_", " ") for relation in RELATIONS)],
        [[one, *relations.values()] for one, relations in report.genes.items()],
    )
    print(
        f"tokens {report.name} {report.status}, generation {report.generation}: {report.n_tokens:,} tokens, "
        f"{report.n_shared:,} shared"
    )
