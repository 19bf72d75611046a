"""``estimate``: hours, memory, disk and objects of an ingest, before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from splicestore.cli.output import (
    JSON,
    MAX_MEMORY,
    SCHEDULER,
    STORAGE_OPTION,
    STORE,
    parse_size,
    print_json,
    print_table,
    storage_options,
)

if TYPE_CHECKING:
    from splicestore.ingest.estimate import Estimate


def estimate(
    store: Annotated[str, STORE],
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="SplicEvo's genomes.json, or YAML.")],
    genome: Annotated[list[str], typer.Option("--genome", help="Only this genome; repeatable.")] = [],  # noqa: B006
    scheduler: Annotated[str, SCHEDULER] = "sync",
    workers: Annotated[int | None, typer.Option(min=1, help="Workers of a cluster that was started elsewhere.")] = None,
    max_memory: Annotated[str | None, MAX_MEMORY] = None,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Estimate an ingest of CONFIG from file sizes and headers: hours, memory, disk, objects. Nothing is written."""
    from splicestore.ingest.estimate import Machine
    from splicestore.ingest.estimate import estimate as estimate_ingest
    from splicestore.ingest.genomes import load_genomes_config

    options = storage_options(storage_option)
    limit = parse_size(max_memory, "--max-memory")
    found = estimate_ingest(
        load_genomes_config(config, options),
        scheduler=scheduler,
        n_workers=workers,
        machine=Machine.here(store),
        storage_options=options,
        genome_ids=genome,
    )
    print_estimate(found, limit, as_json)


def print_estimate(found: Estimate, max_memory: int | None, as_json: bool) -> None:
    """Print what an ingest will take: a row a genome, the sums, the setting that fits, the verdict."""
    from splicestore.ingest.dry_run import PLAN_COLUMNS, document, plan_rows, plan_text
    from splicestore.ingest.estimate import setting_that_fits

    if as_json:
        advice = {"max_memory_bytes": max_memory, "advice": setting_that_fits(found, max_memory)} if max_memory else {}
        print_json({**document(found), **advice})
        return
    print_table(PLAN_COLUMNS, plan_rows(found))
    for line in plan_text(found, max_memory):
        print(line)
