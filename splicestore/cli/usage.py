"""``usage``: splice-site usage counted from alignments."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from splicestore.cli.output import (
    JSON,
    SCHEDULER,
    STORAGE_OPTION,
    print_json,
    print_table,
    progress_bar,
    storage_options,
)

app = typer.Typer(help="Count splice-site usage.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Count splice-site usage."""


@app.command("from-bam")
def from_bam(
    bam: Annotated[list[str], typer.Argument(metavar="BAM...", help="Sorted, indexed BAM; NAME=path names a sample.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="TSV", help="Table to write; .gz compresses it.")],
    annotation: Annotated[
        str | None, typer.Option(help="GTF or GFF3: its sites are counted also where no read is split; names genes.")
    ] = None,
    min_mapping_quality: Annotated[
        int | None,
        typer.Option(
            help="Reads below it are skipped; 10 (STAR's unique reads have 255, others at most 3), "
            "0 with --multi-mapping keep."
        ),
    ] = None,
    multi_mapping: Annotated[str, typer.Option(help="drop | keep reads whose NH tag is above 1.")] = "drop",
    strandedness: Annotated[
        str, typer.Option(help="unstranded | forward (first mate on the transcript's strand) | reverse (dUTP).")
    ] = "unstranded",
    min_overhang: Annotated[
        int, typer.Option(help="Aligned bases on either side of a junction, in one read at least.")
    ] = 8,
    min_junction_reads: Annotated[int, typer.Option(help="Reads of a junction, in one sample at least.")] = 1,
    min_intron: Annotated[int, typer.Option(help="bp; shorter gaps are no introns.")] = 21,
    max_intron: Annotated[int, typer.Option(help="bp; longer ones are no introns.")] = 500_000,
    index: Annotated[bool, typer.Option("--index", help="Write an index next to a BAM that has none.")] = False,
    reference: Annotated[str | None, typer.Option(help="FASTA that CRAM files were written against.")] = None,
    region_size: Annotated[int, typer.Option(min=1, help="bp a task reads: smaller needs less memory.")] = 16_777_216,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace TSV.")] = False,
    scheduler: Annotated[str, SCHEDULER] = "auto",
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Count alpha, beta1 and beta2Simple of every splice site, as SpliSER does, into a table that `ingest` reads."""
    from splicestore.alignments import CountOptions, SampleFile, count_usage

    choices: dict[str, Any] = {"multi_mapping": multi_mapping, "strandedness": strandedness}
    options = CountOptions(
        min_mapping_quality=min_mapping_quality,
        min_overhang=min_overhang,
        min_junction_reads=min_junction_reads,
        min_intron=min_intron,
        max_intron=max_intron,
        **choices,
    )
    with progress_bar(as_json) as progress:
        report = count_usage(
            [SampleFile.parse(text) for text in bam],
            output,
            options,
            annotation=annotation,
            make_index=index,
            reference=reference,
            scheduler=scheduler,
            region_size=region_size,
            overwrite=overwrite,
            storage_options=storage_options(storage_option),
            progress=progress,
        )
    if as_json:
        print_json(report.document())
        return
    rows = [(name, t.counted, t.spliced, t.skipped.total()) for name, t in report.samples.items()]
    print_table(("sample", "reads", "spliced", "skipped"), rows)
    print(
        f"{report.n_sites:,} sites from {report.n_junctions_kept:,} junctions "
        f"({report.n_junctions_seen:,} seen in reads, annotated introns beside them); "
        f"{report.n_sites_without_strand:,} without strand, {report.n_sites_without_reads:,} without a split read"
    )
    print(f"written: {report.path}, format spliser")
