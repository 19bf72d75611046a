"""``simulate``: a whole synthetic study with known truth."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from splicestore.cli.output import JSON, print_json


def simulate(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write.")],
    genomes: Annotated[
        int | None, typer.Option(min=1, help="Related genomes.", show_default="3; none with --samples")
    ] = None,
    megabases: Annotated[float | None, typer.Option(help="Size of each genome, Mb.", show_default="2")] = None,
    genes: Annotated[int | None, typer.Option(min=1, help="Genes of the ancestor.", show_default="200")] = None,
    conditions: Annotated[
        int | None, typer.Option(min=1, help="Tissue x timepoint conditions.", show_default="4")
    ] = None,
    annotation_format: Annotated[str | None, typer.Option(help="gtf | gff3", show_default="gtf")] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of expression as an ARCHS4 file; of each genome with --genomes.")
    ] = None,
    expression_genes: Annotated[
        int | None, typer.Option(min=1, help="Genes of the samples.", show_default="those of the genome, or 6000")
    ] = None,
    tissues: Annotated[int | None, typer.Option(min=1, help="Tissues of the samples.", show_default="8")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Simulate related genomes with genes, splice usage that depends on motifs, orthologs, samples of expression, and the truth."""
    of_genomes = _given(
        genomes=genomes, megabases=megabases, genes=genes, conditions=conditions, annotation_format=annotation_format
    )
    of_samples = _given(samples=samples, genes=expression_genes, tissues=tissues)
    if annotation_format not in (None, "gtf", "gff3"):
        raise typer.BadParameter(f"--annotation-format {annotation_format!r}: gtf or gff3")
    if of_samples and samples is None:
        raise typer.BadParameter("--expression-genes and --tissues are of samples of expression; add --samples N")
    if samples is not None and of_genomes and genomes is None:
        raise typer.BadParameter(
            "--megabases, --genes, --conditions and --annotation-format are of genomes; with --samples add --genomes N"
        )
    if samples is not None and genomes is None:
        _simulate_samples(out, {**of_samples, "seed": seed}, as_json)
    else:
        _simulate_genomes(
            out, {**of_genomes, "seed": seed}, {**of_samples, "seed": seed} if of_samples else None, as_json
        )


def _given(**options: Any) -> dict[str, Any]:
    """Keep what was given; the services know the defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _simulate_samples(out: str, of_samples: dict[str, Any], as_json: bool) -> None:
    from splicestore.simulate import CohortOptions, simulate_samples

    cohort = simulate_samples(out, CohortOptions(**of_samples), _progress(as_json))
    if as_json:
        print_json({"folder": out, "expression": {cohort.counts.stem: str(cohort.counts)}, "truth": str(cohort.truth)})
        return
    print(f"simulated {cohort.n_samples:,} samples of {cohort.n_genes:,} genes in {out}")
    print(f"next: splicestore ingest expression STORE {cohort.counts.stem} {cohort.counts}")


def _simulate_genomes(out: str, of_genomes: dict[str, Any], of_samples: dict[str, Any] | None, as_json: bool) -> None:
    from splicestore.simulate import CohortOptions, SimulateOptions, simulate_study

    options = SimulateOptions(**of_genomes)
    cohort = CohortOptions(**of_samples) if of_samples else None
    study = simulate_study(out, options, _progress(as_json) if cohort else None, cohort=cohort)
    if as_json:
        expression = {name: str(path) for name, path in study.counts.items()}
        print_json(
            {
                "folder": out,
                "genomes": list(study.genome_ids),
                "config": f"{out}/genomes.json",
                "orthologs": f"{out}/orthologs.tsv",
                **({"expression": expression} if expression else {}),
            }
        )
        return
    print(f"simulated {options.genomes} genomes of {options.megabases:g} Mb in {out}")
    print(f"next: splicestore ingest genomes STORE {out}/genomes.json")
    if cohort:
        print(
            f"and {cohort.samples:,} samples of each genome: splicestore ingest expression STORE NAME {out}/expression/NAME.h5"
        )


def _progress(quiet: bool) -> Callable[[str], None] | None:
    """Report lines where stderr is a terminal."""
    return None if quiet or not sys.stderr.isatty() else lambda line: typer.echo(line, err=True)
