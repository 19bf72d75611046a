"""``ingest``: genomes with their annotation and usage."""

from __future__ import annotations

from typing import Annotated

import typer

from splicestore.cli.output import (
    JSON,
    SCHEDULER,
    STORAGE_OPTION,
    STORE,
    print_json,
    print_table,
    progress_bar,
    storage_options,
)

app = typer.Typer(help="Put genomes into a store.", no_args_is_help=True, rich_markup_mode=None)

_READ_TIME = (
    "--{name} is a read-time setting: bases, sites and counts are stored once; "
    "give it to `split windows`, `export splicevo` or `Genome.windows`"
)


@app.callback()
def group() -> None:
    """Put genomes into a store."""


def _refuse(name: str) -> typer.models.OptionInfo:
    """Accept a setting of SplicEvo's loader only to say where it lives now."""

    def callback(value: str | None) -> None:
        if value is not None:
            raise typer.BadParameter(_READ_TIME.format(name=name))

    option: typer.models.OptionInfo = typer.Option(f"--{name}", hidden=True, callback=callback)
    return option


@app.command("genomes")
def genomes(
    store: Annotated[str, STORE],
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="SplicEvo's genomes.json, or YAML.")],
    genome: Annotated[list[str], typer.Option("--genome", help="Only this genome; repeatable.")] = [],  # noqa: B006
    override_gates: Annotated[bool, typer.Option(help="Keep data that the motif or join gate refuses.")] = False,
    drop_usage: Annotated[bool, typer.Option(help="Let a new annotation orphan usage that is not in CONFIG.")] = False,
    force: Annotated[bool, typer.Option(help="Publish although another writer published meanwhile.")] = False,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
    window_size: Annotated[str | None, _refuse("window-size")] = None,
    context_size: Annotated[str | None, _refuse("context-size")] = None,
    alpha_threshold: Annotated[str | None, _refuse("alpha-threshold")] = None,
) -> None:
    """Ingest the genomes of CONFIG: bases, genes, splice sites, usage.

    The same command again does nothing; a changed input makes a new generation; other genomes of the
    store are never touched.
    """
    from splicestore.ingest import IngestOptions, ingest_genomes, load_genomes_config
    from splicestore.memory import format_bytes
    from splicestore.storage import StoreRoot

    options = storage_options(storage_option)
    document = load_genomes_config(config)
    run = IngestOptions(
        override_gates=override_gates, force=force, drop_usage=drop_usage, scheduler=scheduler, storage_options={}
    )
    reports = []
    with progress_bar(as_json) as progress:
        for report in ingest_genomes(StoreRoot(store, options), document, run, genome_ids=genome, progress=progress):
            reports.append(report)
            for warning in report.warnings:
                typer.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json({"genomes": {r.genome_id: r.document() for r in reports}})
        return
    rows = []
    for r in reports:
        d = r.document()
        rows.append(
            [r.genome_id, r.status, r.generation, d["n_bases"], d["n_contigs"], d["n_genes"], d["n_sites"]["donor"],
             d["n_sites"]["acceptor"], d["canonical_fraction"], len(d["conditions"]), sum(d["dropped"].values()), r.seconds]
        )  # fmt: skip
    columns = [
        "genome",
        "status",
        "generation",
        "bases",
        "contigs",
        "genes",
        "donors",
        "acceptors",
        "canonical",
        "conditions",
        "in ledger",
        "seconds",
    ]
    print_table(columns, rows)
    if reports:
        projected = max(r.projected_peak_bytes for r in reports)
        observed = max(r.observed_peak_bytes for r in reports)
        print(
            f"peak memory: projected {format_bytes(projected)}, observed {format_bytes(observed)}"
            if projected
            else f"peak memory: {format_bytes(observed)}"
        )
        print(f"store: {store}    why was something dropped? `splicestore explain {store} GENE`")
