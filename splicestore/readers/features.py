"""Rows of GFF-like files (GTF, GFF3, hints) as data frames, slab by slab, and their attributes.

A slab is parsed by pandas' C engine after its comment lines are cut out, so that a ``#`` inside an attribute
stays. Line numbers are found by reading the file again, and only when there is an error to report.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.storage.inputs import input_text_lines, open_input

SLAB_BYTES = 4 * 1024 * 1024
COLUMNS = ("contig", "source", "feature", "start", "end", "score", "strand", "phase", "attributes")

_USED = [0, 2, 3, 4, 6, 8]
_DTYPES: dict[str, Any] = {
    "contig": "category",
    "feature": "category",
    "start": np.int64,
    "end": np.int64,
    "strand": "category",
    "attributes": object,
}
_COMMENT = re.compile(rb"\n#[^\n]*")
_BLANK = re.compile(rb"\n[ \t\r]*(?=\n)")


def iter_feature_rows(url: str, *, storage_options: Mapping[str, Any] | None = None) -> Iterator[pd.DataFrame]:
    """Yield the rows of a nine-column feature file in slabs.

    Parameters
    ----------
    url
        Plain or gzip; ``#`` lines and blank lines are skipped, a FASTA part ends the file.
    storage_options
        Passed to fsspec.

    Yields
    ------
    rows : DataFrame
        contig, feature, strand (categories), start, end (int64, 0-based half-open), attributes (str). The
        index numbers the data rows of the file from 0, for ``line_of_row``.

    Raises
    ------
    InputError
        If a line has not nine columns, a coordinate is no integer, start < 1 or end < start; with the line.
    """
    n_rows = 0
    with open_input(url, storage_options=storage_options) as stream:
        carry, ended = b"", False
        while not ended:
            data = stream.read(SLAB_BYTES)
            ended = not data
            slab = b"\n" + carry + data
            cut = len(slab) if ended else slab.rfind(b"\n")
            slab, carry = slab[:cut], slab[cut + 1 :]
            slab, has_fasta = _cut_fasta(slab)
            rows = _parse_slab(url, _COMMENT.sub(b"", slab), storage_options)
            if rows is not None:
                rows.index = pd.RangeIndex(n_rows, n_rows + len(rows))
                n_rows += len(rows)
                _check_coordinates(url, rows, storage_options)
                rows["start"] -= 1
                yield rows
            if has_fasta:
                return


def _cut_fasta(slab: bytes) -> tuple[bytes, bool]:
    starts = [at for at in (slab.find(b"\n##FASTA"), slab.find(b"\n>")) if at >= 0]
    return (slab[: min(starts)], True) if starts else (slab, False)


def _parse_slab(url: str, slab: bytes, storage_options: Mapping[str, Any] | None) -> pd.DataFrame | None:
    """Parse one slab without comments; None if it has no row."""
    slab = slab.lstrip(b"\r\n")
    if not slab:
        return None
    try:
        rows = _read_rows(slab)
    except (ValueError, OverflowError):
        rows = None
    if rows is None or slab.count(b"\t") != 8 * len(rows):
        # Lines of blanks alone are harmless; whatever else is wrong has a line number.
        refuse_first_bad_line(url, storage_options=storage_options)
        slab = _BLANK.sub(b"", b"\n" + slab + b"\n").strip(b"\r\n")
        rows = _read_rows(slab) if slab else None
    return rows


def _read_rows(slab: bytes) -> pd.DataFrame:
    return pd.read_csv(
        io.BytesIO(slab),
        sep="\t",
        header=None,
        names=[COLUMNS[column] for column in _USED],
        usecols=_USED,
        dtype=_DTYPES,
        quoting=csv.QUOTE_NONE,
        na_filter=False,
        engine="c",
    )


def _check_coordinates(url: str, rows: pd.DataFrame, storage_options: Mapping[str, Any] | None) -> None:
    start, end = rows["start"].to_numpy(), rows["end"].to_numpy()
    if ((start < 1) | (end < start)).any():
        refuse_first_bad_line(url, storage_options=storage_options)


def refuse_first_bad_line(url: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
    """Raise an ``InputError`` for the first line that is no feature; return if there is none."""
    for number, line in _data_lines(url, storage_options):
        fields = line.split("\t")
        where = f"{url}: line {number}"
        if len(fields) != 9:
            raise InputError(
                f"{where}: {len(fields)} tab-separated columns, a GTF or GFF3 line has 9 ({line[:80]!r}); "
                "check that the file is complete and separated by tabs"
            )
        for name, text in (("start", fields[3]), ("end", fields[4])):
            if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text):
                raise InputError(f"{where}: {name} is {text!r}, expected an integer (1-based); correct the line")
        start, end = int(fields[3]), int(fields[4])
        if start < 1:
            raise InputError(f"{where}: start is {start}, positions are 1-based; was the file written 0-based?")
        if end < start:
            raise InputError(f"{where}: start {start} lies after end {end}; positions ascend on both strands")


def line_of_row(url: str, row: int, *, storage_options: Mapping[str, Any] | None = None) -> tuple[int, str]:
    """Find the 1-based line number and the text of a data row."""
    for index, (number, line) in enumerate(_data_lines(url, storage_options)):
        if index == row:
            return number, line
    raise IndexError(f"{url} has no data row {row}")


def _data_lines(url: str, storage_options: Mapping[str, Any] | None) -> Iterator[tuple[int, str]]:
    for number, line in input_text_lines(url, storage_options=storage_options):
        if line.startswith((">", "##FASTA")):
            return
        if line.strip() and not line.startswith("#"):
            yield number, line


def first_lines(url: str, n: int, *, storage_options: Mapping[str, Any] | None = None) -> tuple[list[str], list[str]]:
    """Return the comment lines before and among the first ``n`` data lines, and those data lines."""
    comments: list[str] = []
    data: list[str] = []
    for _, line in input_text_lines(url, storage_options=storage_options):
        if line.startswith((">", "##FASTA")) or len(data) == n:
            break
        if line.startswith("#"):
            comments.append(line)
        elif line.strip():
            data.append(line)
    return comments, data


def strand_codes(strand: pd.Series[Any]) -> NDArray[np.int8]:
    """Turn ``+``, ``-`` and anything else into +1, -1 and 0: ``(n,)`` int8."""
    categories = strand.cat.categories
    table = np.array([{"+": 1, "-": -1}.get(str(c), 0) for c in categories] or [0], dtype=np.int8)
    return table[strand.cat.codes.to_numpy()]


def gtf_values(attributes: pd.Series[Any], key: str) -> pd.Series[Any]:
    """Value of the first ``key "value"`` of each row, quoted or not; "" where it is absent."""
    # One compiled search per row, as pandas' str.extract does behind more layers of calls. A pattern that opens
    # with a literal is found by memchr, 4 to 7 times faster than one that opens with (?:^|;).
    search = re.compile(rf';\s*{key}\s+(?:"([^"]*)"|([^\s;"]+))').search
    values = [found[found.lastindex or 0] if (found := search(f";{text}")) else "" for text in attributes]
    return pd.Series(values, index=attributes.index, dtype=object)


def gtf_all_values(attributes: pd.Series[Any], key: str) -> pd.Series[Any]:
    """All values of a key that repeats, joined by commas."""
    find = re.compile(rf';\s*{key}\s+"?([^";]*)"?').findall
    return pd.Series([",".join(find(f";{text}")) for text in attributes], index=attributes.index, dtype=object)


def gff3_values(attributes: pd.Series[Any], key: str, *, decode: bool = True) -> pd.Series[Any]:
    """Value of the first ``key=value`` of each row; "" where it is absent.

    Percent codes are decoded unless the caller has to split a list first.
    """
    search = re.compile(rf";\s*{key}=([^;]*)").search
    texts = [found[1].strip() if (found := search(f";{text}")) else "" for text in attributes]
    values = pd.Series(texts, index=attributes.index, dtype=object)
    return decode_percent(values) if decode else values


def decode_percent(values: pd.Series[Any]) -> pd.Series[Any]:
    """Decode the percent codes of GFF3; rows without ``%`` are not touched."""
    coded = values.str.contains("%", regex=False)
    if coded.any():
        values = values.copy()
        values[coded] = [unquote(value) for value in values[coded]]
    return values.astype(object)
