"""``verify``, ``copy``, ``prune``, ``ls``: upkeep of a store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from splicestore.maintenance import CopyReport, DamagedGeneration, PruneReport, Reencode, VerifyReport
    from splicestore.storage import StoreRoot

STEAL = typer.Option("--steal", help="Take over write leases that have expired.")
DRY_RUN = typer.Option("--dry-run", help="Only say what would be done.")
NAMES = typer.Argument(help="Only these: genomes/hg38, or what several begin with, as usage/hg38.", metavar="[NAME...]")


def verify(
    store: Annotated[str, STORE],
    name: Annotated[list[str], NAMES] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="Sizes of objects only, from one listing.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be, then verify again.")] = False,
    remove_foreign: Annotated[
        bool, typer.Option("--remove-foreign", help="With --repair: remove objects that nothing in the store knows.")
    ] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="With --repair: take out generations that cannot be encoded again.")
    ] = False,
    steal: Annotated[bool, STEAL] = False,
    scheduler: Annotated[str, SCHEDULER] = "sync",
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Check every byte of a store against what was recorded when it was written; exit status 4 if any is damaged."""
    from splicestore import maintenance
    from splicestore.cluster import open_executor
    from splicestore.errors import ConfigError
    from splicestore.storage import StoreRoot

    if quick and repair:
        raise ConfigError("--quick with --repair: a repair reads every byte; leave one of them out")
    if discard and not repair:
        raise ConfigError("--discard goes with --repair; look first at what `splicestore verify` lists")
    if remove_foreign and not repair:
        raise ConfigError(
            "--remove-foreign goes with --repair; look first at what `splicestore verify` lists as foreign"
        )
    options = storage_options(storage_option)
    root = StoreRoot(store, options)
    with open_executor(scheduler, urls=[root.url]) as executor, progress_bar(as_json) as progress:
        if not repair:
            report = maintenance.verify(root, names=name, quick=quick, executor=executor, progress=progress)
            document = report.as_dict()
        else:
            done = maintenance.repair(
                root,
                names=name,
                reencode=_reencode(root, options, discard=discard),
                remove_foreign=remove_foreign,
                steal=steal,
                executor=executor,
                progress=progress,
            )
            report, document = done.after, done.as_dict()
    if as_json:
        print_json(document)
    else:
        for item in document.get("repaired", []):
            print(f"repaired  {item['key']}: {item['how']}")
        for item in document.get("refused", []):
            print(f"left      {item['key']}: {item['why']}")
        _print_verified(report)
    _refuse_damaged(report, repair=repair)


def _reencode(root: StoreRoot, options: dict[str, Any], *, discard: bool) -> Reencode:
    """Hand a damaged generation to the service of its kind."""
    from splicestore.errors import StoreError
    from splicestore.ingest import IngestOptions
    from splicestore.ingest.reencode import reencode as encode_again

    def reencode(damaged: DamagedGeneration) -> None:
        what = ", ".join([*damaged.parts, *damaged.documents])
        if damaged.path.startswith(("genomes/", "usage/")) and not damaged.documents:
            encode_again(root, damaged.path, damaged.generation, damaged.parts, IngestOptions(storage_options=options))
        elif discard:
            # Without its group document a generation is nothing to a reader, and the command that made it makes it again.
            parts = [f"{damaged.base}/parts/{name}.json" for name in damaged.parts]
            root.remove([f"{damaged.base}/zarr.json", *parts])
            raise StoreError(f"{root.url_of(damaged.base)}: taken out ({what}); run the command that made it again")
        else:
            raise StoreError(
                f"{root.url_of(damaged.base)}: {what} cannot be made from what the store and the recorded inputs hold; bring it "
                f"from another copy of the store (`splicestore copy OTHER {root.url} --verify-existing`), or add --discard and "
                "run the command that made it again"
            )

    return reencode


def _print_verified(report: VerifyReport) -> None:
    from splicestore.memory import format_bytes

    for finding in report.findings:
        print(f"{finding.severity:<9} {finding.key}: {finding.what}; {finding.advice}")
    how = "sizes of" if report.quick else "every byte of"
    print(
        f"{report.url}: {how} {report.n_objects:,} objects ({format_bytes(report.n_bytes)}) in {report.n_generations:,} "
        f"generations checked in {report.seconds:.1f} s: {len(report.damage)} damaged, {len(report.notes)} notes"
    )


def _refuse_damaged(report: VerifyReport, *, repair: bool) -> None:
    from splicestore.errors import StoreError
    from splicestore.maintenance.findings import count_findings

    if report.is_intact:
        return
    # The lines before this one reach a pipe first.
    sys.stdout.flush()
    now = (
        "what is left is listed with what to do"
        if repair
        else f"`splicestore verify {report.url} --repair` mends what it can"
    )
    raise StoreError(f"{report.url}: {count_findings(report.damage)}; {now}")


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Path or URL of the store to copy from.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Path or URL of the store to copy to.")],
    genome: Annotated[list[str], typer.Option("--genome", help="Only this genome; repeatable.")] = [],  # noqa: B006
    split: Annotated[list[str], typer.Option("--split", help="This split with its genomes.")] = [],  # noqa: B006
    prediction: Annotated[list[str], typer.Option("--prediction", help="These predictions with all they pin.")] = [],  # noqa: B006
    panel: Annotated[list[str], typer.Option("--panel", help="Only these usage panels; all by default.")] = [],  # noqa: B006
    usage: Annotated[bool, typer.Option("--usage/--no-usage", help="Bring the genomes' usage.")] = True,
    verify_existing: Annotated[
        bool, typer.Option("--verify-existing", help="Hash what the target has already, not only its sizes.")
    ] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
    steal: Annotated[bool, STEAL] = False,
    force: Annotated[bool, typer.Option(help="Publish although another writer published meanwhile.")] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    source_option: Annotated[
        list[str], typer.Option("--source-option", metavar="KEY=VALUE", help="For the source only; wins.")
    ] = [],  # noqa: B006
    target_option: Annotated[
        list[str], typer.Option("--target-option", metavar="KEY=VALUE", help="For the target only; wins.")
    ] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Copy a store, or some of its names with all that they need; the same command again goes on where it stopped."""
    from splicestore import maintenance
    from splicestore.storage import StoreRoot

    both = storage_options(storage_option)
    with progress_bar(as_json) as progress:
        report = maintenance.copy_store(
            StoreRoot(source, {**both, **storage_options(source_option)}),
            StoreRoot(target, {**both, **storage_options(target_option)}),
            maintenance.Selection(tuple(genome), tuple(split), tuple(prediction), tuple(panel), usage),
            dry_run=dry_run,
            verify_existing=verify_existing,
            steal=steal,
            force=force,
            progress=progress,
        )
    if as_json:
        print_json(report.as_dict())
    else:
        _print_copied(report)


def _print_copied(report: CopyReport) -> None:
    from splicestore.memory import format_bytes

    print_table(
        ["generation", "why", "status", "current", "objects", "bytes"],
        [
            [r.key, r.why, r.status, "current" if r.current else "", r.n_objects_copied, r.n_bytes_copied]
            for r in report.rows
        ],
    )
    n_objects, n_bytes = (
        sum(values) for values in zip(*((r.n_objects_copied, r.n_bytes_copied) for r in report.rows), strict=True)
    )
    done = "to copy" if report.dry_run else f"copied in {report.seconds:.1f} s"
    print(f"{report.source} -> {report.target}: {n_objects:,} objects, {format_bytes(n_bytes)} {done}")


def prune(
    store: Annotated[str, STORE],
    older_than: Annotated[
        str, typer.Option("--older-than", help="Keep what was superseded, or changed, less than this ago: 30d, 12h, 0.")
    ] = "30d",
    name: Annotated[
        list[str], typer.Option("--name", help="Only below this: genomes/hg38, or what several begin with; repeatable.")
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, DRY_RUN] = False,
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Remove generations that nothing needs any more, and what killed runs left."""
    from splicestore import maintenance
    from splicestore.storage import StoreRoot

    with progress_bar(as_json) as progress:
        report = maintenance.prune(
            StoreRoot(store, storage_options(storage_option)),
            older_than=maintenance.parse_age(older_than),
            names=name,
            dry_run=dry_run,
            progress=progress,
        )
    if as_json:
        print_json(report.as_dict())
    else:
        _print_pruned(store, report)


def _print_pruned(store: str, report: PruneReport) -> None:
    from splicestore.memory import format_bytes

    word = "to remove" if report.dry_run else "removed"
    rows: list[list[Any]] = [[word, i.key, i.why, i.n_objects, i.n_bytes] for i in report.removed]
    rows += [["kept", i.key, i.why, i.n_objects, i.n_bytes] for i in report.kept]
    print_table(["", "generation", "why", "objects", "bytes"], rows)
    print(f"{store}: {format_bytes(report.n_bytes)} in {sum(i.n_objects for i in report.removed):,} objects {word}")


def ls(
    store: Annotated[str, STORE],
    name: Annotated[list[str], NAMES] = [],  # noqa: B006
    storage_option: Annotated[list[str], STORAGE_OPTION] = [],  # noqa: B006
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """List every name with its generations, what they take, and since when they are not current any more."""
    from splicestore import maintenance
    from splicestore.memory import format_bytes
    from splicestore.storage import StoreRoot

    rows = maintenance.list_generations(StoreRoot(store, storage_options(storage_option)), name)
    if as_json:
        print_json({"generations": [row.as_dict() for row in rows]})
        return
    current = {True: "current", False: "", None: "pointer damaged"}
    print_table(
        ["kind", "name", "generation", "status", "current", "superseded", "pinned by", "objects", "bytes"],
        [
            [
                r.kind,
                r.name,
                r.generation,
                r.status,
                current[r.current],
                r.superseded,
                len(r.pinned_by),
                r.n_objects,
                r.n_bytes,
            ]
            for r in rows
        ],
    )
    print(f"{store}: {format_bytes(sum(r.n_bytes for r in rows))} in {sum(r.n_objects for r in rows):,} objects")
