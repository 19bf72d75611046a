"""The application: command groups, and how errors end a run."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Sequence

import typer

from splicestore.cli import (
    estimate,
    export,
    finalise,
    ingest,
    inspect,
    learn,
    maintain,
    normalize,
    simulate,
    split,
    usage,
)
from splicestore.errors import SpliceStoreError

app = typer.Typer(
    name="splicestore",
    help="Many genomes in one chunked store: ingest, split by homology, train, predict, export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    epilog="Exit status: 0 ok, 2 usage, 3 input, configuration or a gate, 4 store, 5 storage or disk, 130/143 signals.",
)
app.command("simulate")(simulate.simulate)
app.command("estimate")(estimate.estimate)
app.add_typer(ingest.app, name="ingest")
app.add_typer(split.app, name="split")
app.add_typer(normalize.app, name="normalize")
app.command("train")(learn.train)
app.command("evaluate")(learn.evaluate)
app.command("predict")(learn.predict)
app.add_typer(export.app, name="export")
app.command("info")(inspect.info)
app.command("ls")(maintain.ls)
app.command("verify")(maintain.verify)
app.command("copy")(maintain.copy)
app.command("prune")(maintain.prune)
app.add_typer(usage.app, name="usage")
app.command("finalise")(finalise.finalise)
app.command("explain")(inspect.explain)


@app.callback()
def common(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what is done, on stderr."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Errors only."),
) -> None:
    """Set up logging for every command."""
    level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    if not quiet:
        logging.getLogger("splicestore.cluster.dashboard").setLevel(logging.INFO)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    arguments = list(arguments)
    show_traceback = "--traceback" in arguments
    arguments = [a for a in arguments if a != "--traceback"]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    try:
        app(args=arguments)
    except SpliceStoreError as error:
        if show_traceback:
            traceback.print_exc()
        print(f"splicestore: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    except Exception as error:
        if show_traceback:
            traceback.print_exc()
        print(
            f"splicestore: internal error ({type(error).__name__}: {error}); --traceback shows where", file=sys.stderr
        )
        return 1
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1
    return 0


def _stopped(number: int, frame: object) -> None:
    """End with 130 or 143: what is finished stays, the rest is redone."""
    word = "interrupted" if number == signal.SIGINT else "terminated"
    print(f"splicestore: {word}; the same command goes on where it stopped", file=sys.stderr)
    raise SystemExit(128 + number)
