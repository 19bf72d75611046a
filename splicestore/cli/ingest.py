"""``ingest``: genomes with their annotation and usage, and expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splicestore.cli.output import (
    DRY_RUN,
    FORCE,
    JSON,
    MAX_MEMORY,
    PARTITION,
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

if TYPE_CHECKING:
    from splicestore.ingest.genomes import GenomeReport

app = typer.Typer(help="Put genomes, usage and expression into a store.", no_args_is_help=True, rich_markup_mode=None)

SHEET = typer.Argument(
    metavar="SHEET", help="TSV or CSV: sample, file, condition (or tissue, timepoint), optional format, convention."
)
_READ_TIME = (
    "--{name} is a read-time setting: bases, sites and counts are stored once; "
    "give it to `split windows`, `export splicevo` or `Genome.windows`"
)


@app.callback()
def group() -> None:
    """Put genomes, usage and expression into a store."""


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
    dry_run: Annotated[bool, DRY_RUN] = False,
    max_memory: Annotated[str | None, MAX_MEMORY] = None,
    partition: Annotated[str | None, PARTITION] = None,
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, FORCE] = False,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    profile: Annotated[str | None, PROFILE] = None,
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
    root, document = StoreRoot(store, options), load_genomes_config(config, options)
    run = IngestOptions(
        override_gates=override_gates,
        force=force,
        drop_usage=drop_usage,
        steal=steal,
        scheduler=scheduler,
        profile=profile,
        max_memory=parse_size(max_memory, "--max-memory"),
        storage_options=options,
    )
    if dry_run:
        _print_plan(store, document, run, genome, as_json)
        return
    if partition is not None:
        _write_share(root, document, partition, run, genome, as_json)
        return
    reports = []
    with progress_bar(as_json) as progress:
        for report in ingest_genomes(root, document, run, genome_ids=genome, progress=progress):
            reports.append(report)
            for warning in report.warnings:
                typer.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json({"genomes": {r.genome_id: r.document() for r in reports}})
        return
    columns, rows = _report_table(reports)
    print_table(columns, rows)
    for r in reports:
        if dropped := r.document()["dropped"]:
            print(f"  {r.genome_id} in ledger: " + ", ".join(f"{reason} {n:,}" for reason, n in dropped.items()))
    if reports:
        projected = max(r.projected_peak_bytes for r in reports)
        observed = max(r.observed_peak_bytes for r in reports)
        print(
            f"peak memory: projected {format_bytes(projected)}, observed {format_bytes(observed)}"
            if projected
            else f"peak memory: {format_bytes(observed)}"
        )
        print(f"store: {store}    why was something dropped? `splicestore explain {store} GENE`")


def _report_table(reports: Sequence[GenomeReport]) -> tuple[list[str], list[list[Any]]]:
    """One row a genome."""
    columns = ["genome", "status", "generation", "bases", "contigs", "genes", "donors", "acceptors", "canonical", "conditions",
               "in ledger", "seconds"]  # fmt: skip
    rows: list[list[Any]] = []
    for r in reports:
        d = r.document()
        canonical = d["canonical_fraction"] if d["n_introns"] else None
        sites = d["n_sites"]
        rows.append(
            [r.genome_id, r.status, r.generation, d["n_bases"], d["n_contigs"], d["n_genes"], sites["donor"], sites["acceptor"],
             canonical, len(d["conditions"]), sum(d["dropped"].values()), r.seconds]
        )  # fmt: skip
    return columns, rows


def _write_share(root: Any, document: Any, partition: str, run: Any, genome_ids: list[str], as_json: bool) -> None:
    """Do one job's share of a job array."""
    from splicestore.ingest.array_jobs import ingest_share
    from splicestore.storage.runs import parse_share

    report = ingest_share(root, document, parse_share(partition), run, genome_ids=genome_ids)
    if as_json:
        print_json(report.document())
        return
    rows = [[name, f"{n} units written"] for name, n in report.units.items()]
    print_table(["genome", f"job {partition}"], rows + [[name, status] for name, status in report.published.items()])
    if report.units:
        print(f"when all jobs are done: splicestore finalise {root.url}")


def _print_plan(store: str, document: Any, run: Any, genome_ids: list[str], as_json: bool) -> None:
    """Print what a run would do, from file sizes and heads alone."""
    from splicestore.cli.estimate import print_estimate
    from splicestore.ingest.estimate import Machine, estimate

    found = estimate(
        document,
        scheduler=run.scheduler,
        machine=Machine.here(store),
        storage_options=run.storage_options,
        genome_ids=genome_ids,
    )
    print_estimate(found, run.max_memory, as_json)


@app.command("usage")
def usage(
    store: Annotated[str, STORE],
    panel: Annotated[str, typer.Argument(metavar="PANEL", help="Name of the panel: conditions ingested together.")],
    sheet: Annotated[
        str,
        typer.Argument(
            metavar="SHEET", help="TSV or CSV: sample, file, condition (or tissue, timepoint), format, convention."
        ),
    ],
    genome: Annotated[str, typer.Option("--genome", help="The stored genome that the files belong to.")],
    new_sites: Annotated[
        str, typer.Option(help="Rows on no stored splice site: drop (counted in the ledger) | error.")
    ] = "drop",
    mix_estimators: Annotated[
        bool, typer.Option(help="Let a condition mix SpliSER tables and junction counts.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Let conditions go that PANEL has and SHEET has not.")
    ] = False,
    override_gates: Annotated[bool, typer.Option(help="Keep files that the join gate refuses.")] = False,
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, FORCE] = False,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    profile: Annotated[str | None, PROFILE] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Add conditions to a stored genome, as one more panel; nothing that is stored is touched."""
    from splicestore.ingest import IngestOptions, ingest_usage
    from splicestore.memory import format_bytes
    from splicestore.storage import StoreRoot

    options = storage_options(storage_option)
    run = IngestOptions(
        override_gates=override_gates,
        force=force,
        steal=steal,
        scheduler=scheduler,
        profile=profile,
        storage_options=options,
    )
    report = ingest_usage(
        StoreRoot(store, options),
        genome,
        panel,
        sheet,
        run,
        new_sites=new_sites,
        mix_estimators=mix_estimators,
        replace=replace,
    )
    if as_json:
        print_json(report.document())
        return
    print_table(
        ["genome", "panel", "status", "generation", "conditions", "in ledger", "seconds"],
        [[report.genome_id, report.panel, report.status, report.generation, len(report.conditions),
          sum(report.dropped.values()), report.seconds]],
    )  # fmt: skip
    for reason, n in report.dropped.items():
        print(f"  {reason}: {n:,}")
    print(f"peak memory: {format_bytes(report.observed_peak_bytes)}")


@app.command("expression")
def expression(
    store: Annotated[str, STORE],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the matrix.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="ARCHS4 h5, h5ad, TSV, CSV, GCT, featureCounts, htseq-count; paths or URLs."
        ),
    ],
    where: Annotated[
        list[str],
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Only samples of which this holds; also != < <= > >= and ~ (contains). Repeatable: all.",
        ),
    ] = [],  # noqa: B006
    series: Annotated[
        str | None, typer.Option(metavar="GSE1,GSE2", help="Only samples of one of these GEO series.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only samples that mention this somewhere.")
    ] = None,
    genes_differ: Annotated[
        str,
        typer.Option(
            help="error | union: files with other genes are refused, or what one lacks is marked as not measured."
        ),
    ] = "error",
    layer: Annotated[str, typer.Option(help="Of h5ad files: X, raw/X or a layer.")] = "X",
    release_of: Annotated[
        str | None,
        typer.Option(metavar="OLD", help="FILE is a newer release of this matrix: store what came, went and changed."),
    ] = None,
    max_memory: Annotated[str | None, MAX_MEMORY] = None,
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, FORCE] = False,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    profile: Annotated[str | None, PROFILE] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Put raw counts of samples by genes into a store; files follow one another."""
    from splicestore.ingest.count_files import ExpressionOptions
    from splicestore.ingest.expression import ingest_expression
    from splicestore.ingest.sample_selection import SampleSelection, split_series
    from splicestore.memory import format_bytes
    from splicestore.storage import StoreRoot

    if genes_differ not in ("error", "union"):
        raise typer.BadParameter(f"--genes-differ {genes_differ!r}: use error or union")
    options = storage_options(storage_option)
    run = ExpressionOptions(
        selection=SampleSelection(tuple(where), tuple(split_series(series or "")), search),
        genes_differ=genes_differ,  # type: ignore[arg-type]
        layer=layer,
        release_of=release_of,
        scheduler=scheduler,
        max_memory=parse_size(max_memory, "--max-memory"),
        storage_options=options,
        profile=profile,
        force=force,
        steal=steal,
    )
    with progress_bar(as_json) as progress:
        report = ingest_expression(StoreRoot(store, options), name, files, run, progress=progress)
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(report.document())
        return
    print_table(
        ["expression", "status", "generation", "samples", "genes", "not selected", "empty samples", "repeated symbols", "repeated ids"],
        [[report.name, report.status, report.generation, report.n_samples, report.n_genes, report.n_not_selected,
          report.n_samples_empty, report.n_symbols_repeated, report.n_ids_repeated]],
    )  # fmt: skip
    if report.release is not None:
        _print_release(report.release)
    print(
        f"peak memory: projected {format_bytes(report.projected_peak_bytes)}, observed {format_bytes(report.observed_peak_bytes)}"
    )


def _print_release(release: Mapping[str, Any]) -> None:
    """Print how a matrix differs from the one that it is a newer release of."""
    for item in ("samples", "genes"):
        told = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in release[item].items())
        print(f"{item} since {release['of']}: {told}")
