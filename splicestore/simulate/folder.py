"""The folder of a study: written whole, and found again by the options it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splicestore.errors import ConfigError
from splicestore.storage.outputs import OutputFolder

SIMULATION = 1
"""Raised whenever the same options begin to give other bytes."""
_DOCUMENT = "truth/study.json"
_OPTIONS = ("options", "cohort")
"""Sections that decide the bytes; a study has one or both."""


def find_study(root: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the totals of the same study where it is there already.

    Nothing is written over: a store may live in the folder by now. Folders appear whole, so one that holds a
    study holds all of it.

    Parameters
    ----------
    wanted
        Sections of options.

    Raises
    ------
    ConfigError
        If the folder holds anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    found = _read_document(root / _DOCUMENT)
    sections = {name: found[name] for name in _OPTIONS if name in found}
    if found.get("simulation") == SIMULATION and sections == wanted:
        totals: dict[str, Any] = found["totals"]
        return totals
    what = "holds a study of other options" if found else "holds files that are not a simulated study"
    raise ConfigError(f"{root}: {what}; simulate into a new or empty folder, or remove this one first")


def write_study_document(output: OutputFolder, sections: Mapping[str, Any], totals: Mapping[str, Any]) -> None:
    """Write what a study is made of and how much is in it."""
    output.write_text(_DOCUMENT, json_text({"simulation": SIMULATION, **sections, "totals": totals}))


def json_text(document: Mapping[str, Any]) -> str:
    """Spell a document."""
    return json.dumps(document, indent=2) + "\n"


def no_progress(line: str) -> None:
    """Ignore progress."""


def _read_document(path: Path) -> dict[str, Any]:
    """Read the document of a study; empty where there is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
