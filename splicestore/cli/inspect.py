"""``info``, ``ls``, ``explain``: what is in a store, and what became of one gene."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from splicestore.cli.output import JSON, STORAGE_OPTION, STORE, print_json, print_table, storage_options


def info(
    store: Annotated[str, STORE],
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Say what a store holds: genomes, conditions, splits, predictions, expression."""
    from splicestore.report import store_summary
    from splicestore.store import open_store

    summary = store_summary(open_store(store, storage_options=storage_options(storage_option)))
    if as_json:
        print_json(summary)
        return
    rows = [
        [
            g,
            d["species"],
            d["n_bases"],
            d["n_contigs"],
            d["n_genes"],
            d["n_sites"]["donor"],
            d["n_sites"]["acceptor"],
            len(d["conditions"]),
        ]
        for g, d in summary["genomes"].items()
    ]
    if rows or not summary["expression"]:
        print_table(["genome", "species", "bases", "contigs", "genes", "donors", "acceptors", "conditions"], rows)
    if summary["splits"]:
        print()
        subsets = ("train", "val", "test", "excluded")
        print_table(
            ["split", "genomes", "W", "K", *subsets],
            [
                [s, len(d["genomes"]), d["window_size"], d["context_size"], *(d["windows"].get(x, 0) for x in subsets)]
                for s, d in summary["splits"].items()
            ],
        )
    if summary["predictions"]:
        print()
        print_table(
            ["predictions", "genomes", "tasks"],
            [[p, ", ".join(d["genomes"]), len(d["tasks"])] for p, d in summary["predictions"].items()],
        )
    _print_matrices(summary)


def _print_matrices(summary: dict[str, Any]) -> None:
    columns = {
        "expression": ("samples", "genes"),
        "normalized": ("expression", "samples", "genes", "method", "bins", "tie_policy"),
        "bins": ("expression", "normalized", "samples", "genes"),
        "scaled": ("expression", "normalized", "method", "samples", "genes"),
        "tokens": ("tokens", "bins"),
    }
    for kind, names in columns.items():
        if summary[kind]:
            print()
            rows = [[name, *(found[column] for column in names)] for name, found in summary[kind].items()]
            print_table([kind, *(name.replace("_", " ") for name in names)], rows)


def explain(
    store: Annotated[str, STORE],
    gene: Annotated[str, typer.Argument(metavar="GENE", help="Gene id, symbol or transcript id.")],
    genome: Annotated[str | None, typer.Option(help="Only this genome.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Follow one gene through ingest and every split: where it is, or why it was dropped."""
    from splicestore.report import explain_gene
    from splicestore.store import open_store

    story = explain_gene(
        open_store(store, storage_options=storage_options(storage_option)), gene, genome_id=genome, split_name=split
    )
    if as_json:
        print_json(story)
        return
    for found in story["genomes"]:
        _print_gene(found)


def _print_gene(found: dict[str, Any]) -> None:
    print(f"{found['genome']} (generation {found['generation']})")
    if "gene" in found:
        g = found["gene"]
        print(
            f"  gene      {g['gene_id']} {g['symbol']} {g['contig']}:{g['start']}-{g['end']}:{g['strand']} {g['biotype']}".rstrip()
        )
        print(f"  sites     {g['n_donors']} donors, {g['n_acceptors']} acceptors, {g['n_transcripts']} transcripts")
        print(
            f"  usage     {g['n_measured_sites']} of {g['n_sites']} sites measured in at least one of {g['n_conditions']} conditions"
        )
    for row in found["ledger"]:
        print(f"  ledger    {row['item']} {row['identifier']}: {row['reason']} {row['detail']}".rstrip())
    for s in found["splits"]:
        windows = ", ".join(f"{n} {subset}" for subset, n in s["windows"].items())
        reason = f" ({s['reason']})" if s["reason"] else ""
        component = f"component {s['component']} of {s['component_size']} genes"
        print(f"  split     {s['split']}: {s['subset']}{reason}, {component}; windows: {windows or 'none'}")
    print(f"  verdict   {found['verdict']}")
