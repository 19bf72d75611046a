"""``split``: windows into train, val and test, closed under homology; samples, closed under shared studies."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from splicestore.cli.output import (
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
    storage_options,
)

app = typer.Typer(help="Split a store without copying it.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Split a store without copying it."""


def _names(text: str | None) -> tuple[str, ...]:
    """Parse ``1,3,5``."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


@app.command("windows")
def windows(
    store: Annotated[str, STORE],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the split.")],
    orthology: Annotated[list[str], typer.Option(help="Table of orthologs or other homology; repeatable.")] = [],  # noqa: B006
    orthology_format: Annotated[str, typer.Option(help="auto, or a format named in docs/how-to/split.md.")] = "auto",
    orthology_level: Annotated[str | None, typer.Option(help="Level of nested groups (OrthoDB, eggNOG).")] = None,
    column_genome: Annotated[
        list[str],
        typer.Option("--column-genome", metavar="COLUMN=GENOME", help="Species column of a wide table; repeatable."),
    ] = [],  # noqa: B006
    reference_genome: Annotated[str | None, typer.Option(help="Whose chromosomes (or genes) decide.")] = None,
    test_chromosomes: Annotated[str | None, typer.Option(help="Comma-separated, of the reference genome.")] = None,
    val_chromosomes: Annotated[str | None, typer.Option(help="Comma-separated, of the reference genome.")] = None,
    test_fraction: Annotated[float | None, typer.Option(help="Share of components, instead of chromosomes.")] = None,
    val_fraction: Annotated[float | None, typer.Option(help="Share of components, instead of chromosomes.")] = None,
    seed: Annotated[int, typer.Option(help="Of the hashes.")] = 0,
    window_size: Annotated[int, typer.Option(min=1, help="bp with labels.")] = 1000,
    context_size: Annotated[int, typer.Option(min=0, help="bp of input on each side.")] = 450,
    guard: Annotated[str, typer.Option(help="centre | input | none")] = "centre",
    conflict: Annotated[str, typer.Option(help="test | train | majority | drop")] = "test",
    unassigned: Annotated[str, typer.Option(help="train | drop | hash: components without a reference gene")] = "train",
    genome: Annotated[list[str], typer.Option("--genome", help="Only this genome; repeatable.")] = [],  # noqa: B006
    extend: Annotated[
        str | None, typer.Option(metavar="OLD", help="Keep every window of this split where it is.")
    ] = None,
    rebuild: Annotated[bool, typer.Option(help="With --extend: start afresh and list every move.")] = False,
    override_gates: Annotated[bool, typer.Option(help="Publish although a gate refuses.")] = False,
    max_memory: Annotated[str | None, MAX_MEMORY] = None,
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, FORCE] = False,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    profile: Annotated[str | None, PROFILE] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Split all windows of the store's genomes, by chromosomes of a reference genome or by fractions."""
    from splicestore.split import HomologyInput, SplitOptions, split_windows
    from splicestore.store import open_store

    columns = dict(pair.split("=", 1) for pair in column_genome if "=" in pair)
    if len(columns) != len(column_genome):
        raise typer.BadParameter("--column-genome: write COLUMN=GENOME, each column once")
    choices: dict[str, Any] = {"guard": guard, "conflict": conflict, "unassigned": unassigned}
    options = SplitOptions(
        window_size=window_size,
        context_size=context_size,
        reference_genome=reference_genome,
        test_chromosomes=_names(test_chromosomes),
        val_chromosomes=_names(val_chromosomes),
        test_fraction=test_fraction,
        val_fraction=val_fraction,
        seed=seed,
        override_gates=override_gates,
        **choices,
    )
    access = storage_options(storage_option)
    report = split_windows(
        open_store(store, storage_options=access),
        name,
        options,
        homology_url=[HomologyInput(url, orthology_format, orthology_level, columns or None) for url in orthology],
        genome_ids=genome or None,
        extend=extend,
        rebuild=rebuild,
        scheduler=scheduler,
        storage_options=access,
        force=force,
        steal=steal,
        max_memory=parse_size(max_memory, "--max-memory"),
        profile=profile,
    )
    document = report.as_dict()
    if as_json:
        print_json(document)
        return
    subsets = ("train", "val", "test", "excluded")
    print_table(
        ["", *subsets],
        [
            ["windows", *(document["windows"].get(s, 0) for s in subsets)],
            ["genes", *(document["genes"].get(s, 0) for s in subsets)],
        ],
    )
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in document["reasons"].items() if n) or "none"
    print(f"excluded by reason: {reasons}")
    print(
        f"components: {document['n_components']:,}, the largest with {document['largest_component_fraction']:.1%} of the genes"
    )
    print(f"leakage: {', '.join(f'{k} {v}' for k, v in document['leakage'].items() if isinstance(v, int))}")
    for warning in document.get("warnings", []):
        typer.echo(f"warning: {warning}", err=True)
    print(f"split {name}, generation {document['generation']}; where is a gene? `splicestore explain {store} GENE`")


@app.command("samples")
def samples(
    store: Annotated[str, STORE],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the split.")],
    expression: Annotated[str, typer.Option(help="Name of the counts.")],
    by: Annotated[
        str, typer.Option(help="series | sample | a column of the sample table: samples with one label stay together.")
    ] = "series",
    test_fraction: Annotated[float, typer.Option(help="Share of components.")] = 0.1,
    val_fraction: Annotated[float, typer.Option(help="Share of components.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the hashes.")] = 0,
    allow_identical: Annotated[
        bool,
        typer.Option(
            "--allow-identical", help="Let samples with the same counts fall into different subsets; they are counted."
        ),
    ] = False,
    similar: Annotated[
        float | None,
        typer.Option(
            metavar="R", help="Count samples in different subsets whose log scores are correlated at least so."
        ),
    ] = None,
    join_similar: Annotated[
        bool, typer.Option("--join-similar", help="With --similar: keep such samples together.")
    ] = False,
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, FORCE] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Split the samples of a matrix of counts; studies that share a sample stay together, and so do identical samples."""
    from splicestore.split.samples import SampleSplitOptions, split_samples
    from splicestore.store import open_store

    options = SampleSplitOptions(
        by=by,
        test_fraction=test_fraction,
        val_fraction=val_fraction,
        seed=seed,
        join_identical=not allow_identical,
        similar=similar,
        join_similar=join_similar,
        force=force,
        steal=steal,
    )
    report = split_samples(
        open_store(store, storage_options=storage_options(storage_option)), name, expression, options
    )
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(report.document())
        return
    print_table(
        ["split", "status", "generation", "train", "val", "test", "components"],
        [[report.name, report.status, report.generation, *report.samples.values(), report.n_components]],
    )
    print(
        f"largest component: {report.largest_component_fraction:.1%} of the samples; with the same counts as another: "
        f"{report.n_identical:,}, across subsets {report.n_identical_across:,}"
    )
    if report.similar is not None:
        found = report.similar
        how = "" if found["is_exact"] else ", by sketches"
        print(
            f"correlated with another at {found['threshold']} or above{how}: {found['n_samples']:,}, across subsets {found['n_across']:,}"
        )
        for first, second, r in found["examples"]:
            print(f"  {first} and {second}: {r:.4f}")
