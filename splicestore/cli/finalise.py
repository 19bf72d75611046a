"""``finalise``: publish what a job array wrote."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splicestore.cli.output import JSON, STORAGE_OPTION, STORE, print_json, print_table, storage_options

if TYPE_CHECKING:
    from splicestore.errors import PartitionMissingError
    from splicestore.storage import StoreRoot


def finalise(
    store: Annotated[str, STORE],
    group: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GROUP]...",
            help="genomes/NAME or predictions/NAME, as `ls` prints them; all that wait by default.",
        ),
    ] = None,
    override_gates: Annotated[bool, typer.Option(help="Publish genomes that the motif gate refuses.")] = False,
    force: Annotated[bool, typer.Option(help="Publish although another writer published meanwhile.")] = False,
    steal: Annotated[bool, typer.Option(help="Take over a write lease that has expired.")] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Publish what `--partition` jobs wrote, or say which jobs have to run again (exit status 4)."""
    from splicestore.errors import PartitionMissingError, StoreError
    from splicestore.ingest.array_jobs import finalise_genome
    from splicestore.storage import StoreRoot, write_lease
    from splicestore.storage.publish import require_store
    from splicestore.storage.runs import finalise_plain, read_run, unfinished_runs

    root = StoreRoot(store, storage_options(storage_option))
    require_store(root)
    paths = group or [
        f"{kind}/{name}"
        for kind in ("genomes", "predictions")
        for name in root.children(kind)
        if unfinished_runs(root, f"{kind}/{name}")
    ]
    done: dict[str, dict[str, Any]] = {}
    missing: list[PartitionMissingError] = []
    for given in paths:
        path, generation = _generation_of(root, given)
        with write_lease(root, path, steal=steal):
            run = read_run(root, f"{path}/{generation}")
            if run is None:
                raise StoreError(
                    f"{root.url_of(f'{path}/{generation}')}: no job array wrote this; run the command that makes it without --partition"
                )
            try:
                if path.startswith("genomes/"):
                    switched = finalise_genome(root, path, generation, run, override_gates=override_gates, force=force)
                else:
                    switched = finalise_plain(root, path, generation, run, force=force)
            except PartitionMissingError as error:
                missing.append(error)
                continue
        done[path] = {"generation": generation, "status": "published" if switched else "unchanged"}
    if as_json:
        print_json({"finalised": done, "missing": [str(error) for error in missing]})
    elif done:
        print_table(
            ["name", "generation", "status"], [[name, d["generation"], d["status"]] for name, d in done.items()]
        )
    elif not missing:
        print(f"{root.url}: nothing waits to be finalised; `splicestore ls {root.url}` shows what is published")
    if missing:
        # The lines before this one reach a pipe first.
        sys.stdout.flush()
        raise _all_missing(root, missing)


def _generation_of(root: StoreRoot, given: str) -> tuple[str, str]:
    """Name and generation of what the user wrote."""
    from splicestore.storage.runs import only_run

    parts = given.strip("/").split("/")
    path = "/".join(parts[:2])
    return path, parts[2] if len(parts) > 2 else only_run(root, path)


def _all_missing(root: StoreRoot, missing: list[PartitionMissingError]) -> PartitionMissingError:
    """One error for every name that waits for jobs."""
    from splicestore.errors import PartitionMissingError

    if len(missing) == 1:
        return missing[0]
    listed = "; ".join(str(error) for error in missing)
    units = [unit for error in missing for unit in error.missing]
    return PartitionMissingError(f"{root.url}: {len(missing)} names wait for jobs: {listed}", missing=units)
