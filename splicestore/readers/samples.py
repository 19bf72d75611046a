"""Sample sheets: which file and sample belongs to which condition."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Any

from splicestore.config import UsageFile, condition_name, resolve_path, validate
from splicestore.errors import InputError, close_names
from splicestore.storage import input_exists, input_text_lines

_COLUMNS = ("sample", "file", "condition", "tissue", "timepoint", "format", "convention")


def read_sample_sheet(
    url: str, *, genome_id: str | None = None, storage_options: Mapping[str, Any] | None = None
) -> list[UsageFile]:
    """Read a TSV or CSV with a header: sample, file, condition (or tissue, timepoint), optional format and convention.

    Parameters
    ----------
    genome_id
        With a ``genome_id`` column: rows of this genome only.

    Returns
    -------
    files
        One per row; rows of one condition are summed.

    Raises
    ------
    InputError
        For missing columns, an empty file or condition, the same sample of a file twice; with file, line and value. If no row
        is left, with the genomes that have some.
    """
    lines = [(n, text) for n, text in input_text_lines(url, storage_options=storage_options) if text.strip()]
    if not lines:
        raise InputError(f"{url}: sample sheet is empty")
    delimiter = "\t" if "\t" in lines[0][1] else ","
    header = [h.strip().lower() for h in next(csv.reader([lines[0][1]], delimiter=delimiter))]
    missing = [c for c in ("sample", "file") if c not in header]
    if missing or not {"condition", "tissue"} & set(header):
        raise InputError(
            f"{url}: sample sheet needs columns sample, file and condition (or tissue); has {', '.join(header)}"
        )
    rows, others = [], dict[str, None]()
    for number, text in lines[1:]:
        cells = [c.strip() for c in next(csv.reader([text], delimiter=delimiter))]
        if len(cells) != len(header):
            raise InputError(f"{url}: line {number}: {len(cells)} fields, the header has {len(header)}")
        row = dict(zip(header, cells, strict=True))
        if genome_id is None or row.get("genome_id", genome_id) == genome_id:
            rows.append((number, row))
        else:
            others[row["genome_id"]] = None
    if not rows:
        of_genome = (
            f" for genome {genome_id!r} in its column genome_id; {close_names(str(genome_id), others)}"
            if others
            else ""
        )
        raise InputError(f"{url}: has no row{of_genome}")
    return _usage_files(url, rows, storage_options)


def _usage_files(
    url: str, rows: list[tuple[int, dict[str, str]]], storage_options: Mapping[str, Any] | None
) -> list[UsageFile]:
    seen: dict[tuple[str, str], int] = {}
    for number, row in rows:
        key = (row["sample"], row["file"])
        if key in seen:
            raise InputError(
                f"{url}: line {number}: sample {key[0]!r} of {key[1]!r} stands on line {seen[key]} already"
            )
        seen[key] = number
        if not row["file"]:
            raise InputError(f"{url}: line {number}: sample {row['sample']!r} has no file")
        if not (row.get("condition") or condition_name(row.get("tissue"), row.get("timepoint"))):
            raise InputError(f"{url}: line {number}: sample {row['sample']!r} has no condition")
    files = []

    def exists(path: str) -> bool:
        return input_exists(path, storage_options=storage_options)

    for number, row in rows:
        document: dict[str, Any] = {k: v for k, v in row.items() if k in _COLUMNS and v}
        document["file"] = resolve_path(row["file"], url, exists)
        files.append(validate(UsageFile, document, f"{url}: line {number}"))
    return files
