"""``simulate``: a whole synthetic study with known truth."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from splicestore.cli.output import JSON, print_json


def simulate(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write.")],
    genomes: Annotated[int, typer.Option(min=1, help="Related genomes.")] = 3,
    megabases: Annotated[float, typer.Option(help="Size of each genome, Mb.")] = 2.0,
    genes: Annotated[int, typer.Option(min=1, help="Genes of the ancestor.")] = 200,
    conditions: Annotated[int, typer.Option(min=1, help="Tissue x timepoint conditions.")] = 4,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    annotation_format: Annotated[str, typer.Option(help="gtf | gff3")] = "gtf",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Simulate related genomes with genes, splice usage that depends on motifs, orthologs, and the truth."""
    from splicestore.simulate import SimulateOptions, simulate_study

    if annotation_format not in ("gtf", "gff3"):
        raise typer.BadParameter(f"--annotation-format {annotation_format!r}: gtf or gff3")
    wanted: Any = annotation_format
    options = SimulateOptions(
        genomes=genomes,
        megabases=megabases,
        genes=genes,
        conditions=conditions,
        seed=seed,
        annotation_format=wanted,
    )
    study = simulate_study(out, options)
    if as_json:
        print_json(
            {
                "folder": str(out),
                "genomes": list(study.genome_ids),
                "config": f"{out}/genomes.json",
                "orthologs": f"{out}/orthologs.tsv",
            }
        )
        return
    print(f"simulated {genomes} genomes of {megabases:g} Mb in {out}")
    print(f"next: splicestore ingest genomes STORE {out}/genomes.json")
