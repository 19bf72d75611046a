"""What commands print: one JSON document, or lines for people; progress on a terminal's stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer

STORE = typer.Argument(help="Path or URL of the store.", metavar="STORE")
JSON = typer.Option("--json", help="One JSON document on stdout.")
SCHEDULER = typer.Option("--scheduler", help="sync | threads[:N] | processes:N | tcp://host:port | scheduler.json")
STORAGE_OPTION = typer.Option(
    "--storage-option", metavar="KEY=VALUE", help="Passed to the storage library; repeatable."
)

STEAL = typer.Option("--steal", help="Take over a write lease that has expired.")
FORCE = typer.Option("--force", help="Publish although another writer published meanwhile.")
MAX_MEMORY = typer.Option("--max-memory", metavar="SIZE", help="Refuse what would need more, as 4GiB; says what fits.")
PROFILE = typer.Option("--profile", metavar="FILE.html", help="Dask's performance report of the run.")
PARTITION = typer.Option(
    "--partition", metavar="I/N", help="Do job I's share of N (I from 0) of a job array; `finalise` publishes."
)
DRY_RUN = typer.Option("--dry-run", help="Print partitions, bytes, memory and time; write nothing.")


def parse_size(text: str | None, option: str) -> int | None:
    """Parse a size such as ``4GiB``, ``500MB`` or a number of bytes."""
    if text is None:
        return None
    from dask.utils import parse_bytes

    try:
        n_bytes = int(parse_bytes(text))
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r}: write a size such as 4GiB") from error
    if n_bytes < 2**20:
        raise typer.BadParameter(f"{option} {text!r} is {n_bytes} bytes; write the unit, as in 4GiB")
    return n_bytes


_TEXT_OPTIONS = ("key", "secret", "token", "profile", "region", "region_name", "endpoint_url")
"""Never JSON: a key of digits alone is text."""


def storage_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` pairs; values that are JSON are decoded, but for credentials and names."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"--storage-option {pair!r}: write KEY=VALUE")
        try:
            options[key] = value if key in _TEXT_OPTIONS else json.loads(value)
        except ValueError:
            options[key] = value
    return options


def listed_ids(file: str | None, access: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Read ids, one a line; None without a file."""
    from splicestore.storage import input_text_lines

    if file is None:
        return None
    return tuple(line.strip() for _, line in input_text_lines(file, storage_options=access) if line.strip())


def plain(value: Any) -> Any:
    """Make a value JSON can hold: NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(plain(document), indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print aligned columns; numbers to the right."""
    cells = [[_cell(v) for v in row] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in cells)) if cells else len(c) for i, c in enumerate(columns)]
    numeric = [all(isinstance(r[i], int | float) or r[i] is None for r in rows) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        return "  ".join(
            v.rjust(w) if n else v.ljust(w) for v, w, n in zip(values, widths, numeric, strict=True)
        ).rstrip()

    print(line(list(columns)))
    for row in cells:
        print(line(row))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Any]:
    """Yield a callback ``(what, done, total)`` that draws a bar per item where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TransferSpeedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True),
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}

    def update(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done)

    with bars:
        yield update
