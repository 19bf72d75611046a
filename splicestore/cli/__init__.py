"""The command line: parse, call one service, print. One file per command group."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``splicestore``; errors of ours become one line and their exit status."""
    from splicestore.cli.app import run

    sys.exit(run(sys.argv[1:]))


__all__ = ["main"]
