"""Splice usage of one file: SpliSER-like site tables and junction counts of five tools.

A site table has one row per intron boundary and sample, with alpha, beta1 and beta2; its positions are kept
as written (two conventions exist, the join decides). Junction files give introns with read counts; they come
out as 0-based half-open ``[start, end)``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.storage import open_input

Strings = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class SiteCounts:
    """Counts of intron boundaries, one row per boundary and sample."""

    contig: Strings
    position: NDArray[np.int64]
    """As the file writes it."""
    strand: NDArray[np.int8]
    """+1, -1, 0 not known."""
    side: NDArray[np.int8]
    """-1 left (low) end of the intron, +1 right end, 0 not known."""
    alpha: NDArray[np.float64]
    beta: NDArray[np.float64]
    """beta1 + beta2Simple."""
    sample: NDArray[np.int32]
    sample_names: tuple[str, ...]
    gene: Strings | None


@dataclass(frozen=True, slots=True)
class JunctionCounts:
    """Reads of introns ``[start, end)``, 0-based half-open."""

    contig: Strings
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    strand: NDArray[np.int8]
    """+1, -1, 0 not known."""
    reads: NDArray[np.float64]


FORMATS = ("spliser", "star", "regtools", "hints", "junctions")

_SNIFF_BYTES = 262_144
_JUNCTION_COLUMNS = {
    "contig": ("contig", "chrom", "chr", "chromosome", "seqname"),
    "start": ("start", "start0", "intron_start"),
    "end": ("end", "intron_end"),
    "strand": ("strand", "strand_by_motif"),
    "reads": ("reads", "count", "score", "unique_reads"),
}
_TEXT_COLUMNS = dict.fromkeys(
    ("Sample", "Region", "Gene", "Strand", "Partners", "Competitors", "contig", "chrom", "chr", "chromosome", "seqname", "strand",
     "strand_by_motif", "attributes", "blockCount", "blockSizes", "blockStarts", "feature"), str,
)  # fmt: skip
_STRANDS = {"+": 1, "-": -1, "1": 1, "-1": -1, "2": -1, "0": 0, ".": 0, "?": 0, "*": 0}
_STAR_STRANDS = {"0": 0, "1": 1, "2": -1}


def detect_usage_format(url: str, *, storage_options: Mapping[str, Any] | None = None) -> str:
    """Tell the format of a usage file from its first lines: one of ``FORMATS``.

    Raises
    ------
    InputError
        If it looks like none of them.
    """
    with open_input(url, storage_options=storage_options) as stream:
        head = stream.read(_SNIFF_BYTES).decode("utf-8", errors="replace")
    lines = [line for line in head.splitlines() if line and not line.startswith(("#", "track", "browser"))]
    if not lines:
        raise InputError(f"{url}: no data lines; a usage file was expected")
    fields = lines[0].split("\t")
    names = {f.strip().lower() for f in fields}
    if "site" in names and "alpha_count" in names:
        return "spliser"
    if names & set(_JUNCTION_COLUMNS["contig"]) and names & set(_JUNCTION_COLUMNS["reads"]):
        return "junctions"
    if len(fields) == 9 and all(f.lstrip("-").isdigit() for f in fields[1:]):
        return "star"
    if len(fields) == 9:
        return "hints"
    if len(fields) == 12 and fields[1].isdigit() and fields[2].isdigit():
        return "regtools"
    raise InputError(
        f"{url}: not recognised as a usage file (first line has {len(fields)} tab-separated fields: {lines[0]:.80}); "
        f"declare its format, one of {', '.join(FORMATS)}"
    )


def read_usage(
    url: str, format: str = "auto", *, storage_options: Mapping[str, Any] | None = None
) -> SiteCounts | JunctionCounts:
    """Read one usage file.

    Parameters
    ----------
    url
        Plain or gzip, path or URL.
    format
        One of ``FORMATS`` or ``auto``.

    Returns
    -------
    SiteCounts
        For ``spliser`` (process, combined and SplicEvo's columns).
    JunctionCounts
        For all others.

    Raises
    ------
    InputError
        For missing columns, counts that are negative or no numbers, reversed introns; with file, line, column and value.
    """
    if format == "auto":
        format = detect_usage_format(url, storage_options=storage_options)
    readers: dict[str, Callable[[_Source], SiteCounts | JunctionCounts]] = {
        "spliser": _read_spliser,
        "star": _read_star,
        "regtools": _read_regtools,
        "hints": _read_hints,
        "junctions": _read_junctions,
    }
    if format not in readers:
        raise InputError(f"{url}: unknown usage format {format!r}; one of {', '.join(FORMATS)}, or auto")
    with open_input(url, storage_options=storage_options) as stream:
        return readers[format](_Source(url, stream.read()))


@dataclass(frozen=True, slots=True)
class _Source:
    """A file's bytes and the errors that name its lines."""

    url: str
    data: bytes

    def table(self, names: Sequence[str] | None, *, comment: bool = False) -> pd.DataFrame:
        """Parse tab-separated text; row i of the result carries its line number as index.

        Columns of plain numbers come out as numbers, anything else as text, so that a bad cell can be quoted.
        """
        data = self.data
        if comment:
            data = re.sub(rb"(?m)^(#|track|browser)[^\n]*", b"", data)
        try:
            frame = pd.read_csv(
                io.BytesIO(data),
                sep="\t",
                header=None if names is not None else 0,
                names=list(names) if names is not None else None,
                dtype=_TEXT_COLUMNS,
                keep_default_na=False,
                na_values=[],
                skip_blank_lines=False,
                quoting=3,
                engine="c",
                index_col=False,
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise InputError(f"{self.url}: not a tab-separated table: {error}") from error
        frame.index = pd.RangeIndex(1 if names is not None else 2, len(frame) + (1 if names is not None else 2))
        return frame[frame[frame.columns[0]] != ""]

    def fail(self, line: int, column: str, value: object, allowed: str) -> InputError:
        """Build the error for one cell."""
        return InputError(f"{self.url}: line {line}, column {column}: got {str(value)!r}, allowed is {allowed}")

    def counts(self, column: pd.Series[Any]) -> NDArray[np.float64]:
        """Parse counts: finite and not negative."""
        values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        bad = ~np.isfinite(values) | (values < 0)
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise self.fail(
                int(column.index[i]), str(column.name), column.iloc[i],
                f"a count from 0 on ({int(bad.sum())} such rows); remove the rows or repair the table",
            )  # fmt: skip
        return values

    def positions(self, column: pd.Series[Any]) -> NDArray[np.int64]:
        """Parse positions: integers from 0 on."""
        values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        bad = ~np.isfinite(values) | (values < 0) | (values != np.floor(values))
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise self.fail(int(column.index[i]), str(column.name), column.iloc[i], "an integer from 0 on")
        return values.astype(np.int64)

    def strands(self, column: pd.Series[Any], words: Mapping[str, int]) -> NDArray[np.int8]:
        """Parse strands through a vocabulary."""
        codes, spelled = pd.factorize(column.to_numpy(object))
        for code, word in enumerate(spelled):
            if str(word).strip() not in words:
                i = int(np.flatnonzero(codes == code)[0])
                raise self.fail(int(column.index[i]), str(column.name), word, f"one of {', '.join(words)}")
        table = np.array([words[str(word).strip()] for word in spelled], dtype=np.int8)
        return table[codes] if len(codes) else np.zeros(0, dtype=np.int8)

    def junctions(
        self,
        frame: pd.DataFrame,
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        strand: NDArray[np.int8],
        reads: NDArray[np.float64],
    ) -> JunctionCounts:
        """Check that introns are not reversed."""
        bad = (end <= start) | (start < 0)
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"{self.url}: line {int(frame.index[i])}: intron [{start[i]}, {end[i]}) is empty or reversed "
                f"({int(bad.sum())} of {len(frame)} rows); is this the declared format?"
            )
        return JunctionCounts(frame.iloc[:, 0].to_numpy(object), start, end, strand, reads)


def _read_spliser(source: _Source) -> SiteCounts:
    frame = source.table(None)
    frame.columns = [str(c).strip() for c in frame.columns]
    beta2 = next((c for c in ("beta2Simple_count", "beta2_count") if c in frame.columns), None)
    missing = [c for c in ("Region", "Site", "Strand", "alpha_count", "beta1_count") if c not in frame.columns]
    if missing or beta2 is None:
        raise InputError(
            f"{source.url}: not a SpliSER table, no column {missing[0] if missing else 'beta2Simple_count or beta2_count'!r} "
            f"(has {', '.join(frame.columns)})"
        )
    samples = frame["Sample"].to_numpy(object) if "Sample" in frame.columns else np.full(len(frame), "", dtype=object)
    codes, names = pd.factorize(samples)
    position = source.positions(frame["Site"])
    return SiteCounts(
        contig=frame["Region"].to_numpy(object),
        position=position,
        strand=source.strands(frame["Strand"], _STRANDS),
        side=_sides(frame["Partners"], position)
        if "Partners" in frame.columns
        else np.zeros(len(frame), dtype=np.int8),
        alpha=source.counts(frame["alpha_count"]),
        beta=source.counts(frame["beta1_count"]) + source.counts(frame[beta2]),
        sample=codes.astype(np.int32),
        sample_names=tuple(str(n) for n in names),
        gene=frame["Gene"].to_numpy(object) if "Gene" in frame.columns else None,
    )


def _sides(partners: pd.Series[Any], position: NDArray[np.int64]) -> NDArray[np.int8]:
    """Tell the side from SpliSER's Partners, ``{position: reads, ...}``: partners further right, a left end.

    Numbers behind a colon are read counts, all others are positions of partners.
    """
    text = "\n".join(partners.astype(object).tolist()).encode() + b"\n"
    letters = np.frombuffer(text, dtype=np.uint8)
    row_of = np.cumsum(letters == ord("\n")) - (letters == ord("\n"))
    is_digit = (letters >= ord("0")) & (letters <= ord("9"))
    starts = np.flatnonzero(is_digit & ~np.concatenate(([False], is_digit[:-1])))
    ends = np.flatnonzero(is_digit & ~np.concatenate((is_digit[1:], [False]))) + 1
    # The last visible letter before each number tells a count from a position.
    visible = np.maximum.accumulate(np.where((letters != ord(" ")) & ~is_digit, np.arange(len(letters)), 0))
    is_partner = letters[visible[starts]] != ord(":")
    starts, ends = starts[is_partner], ends[is_partner]
    values = np.zeros(len(starts), dtype=np.int64)
    for place in range(int((ends - starts).max()) if len(starts) else 0):
        inside = starts + place < ends
        values[inside] = values[inside] * 10 + (letters[starts[inside] + place] - ord("0"))
    row = row_of[starts]
    right = np.bincount(row[values > position[row]], minlength=len(position))
    left = np.bincount(row[values < position[row]], minlength=len(position))
    return np.where((right > 0) & (left == 0), -1, np.where((left > 0) & (right == 0), 1, 0)).astype(np.int8)


def _read_star(source: _Source) -> JunctionCounts:
    names = ("contig", "first", "last", "strand", "motif", "annotated", "unique", "multi", "overhang")
    frame = source.table(names, comment=True)
    return source.junctions(
        frame,
        source.positions(frame["first"]) - 1,
        source.positions(frame["last"]),
        source.strands(frame["strand"], _STAR_STRANDS),
        source.counts(frame["unique"]),
    )


def _read_regtools(source: _Source) -> JunctionCounts:
    names = ("contig", "chromStart", "chromEnd", "name", "score", "strand", "thickStart", "thickEnd", "rgb", "blockCount",
             "blockSizes", "blockStarts")  # fmt: skip
    frame = source.table(names, comment=True)
    if frame.empty:
        none = np.zeros(0, dtype=np.int64)
        return source.junctions(frame, none, none, none.astype(np.int8), none.astype(np.float64))
    two = frame["blockCount"].str.strip() == "2"
    if not two.all():
        i = int(np.flatnonzero(~two.to_numpy())[0])
        raise source.fail(
            int(frame.index[i]), "blockCount", frame["blockCount"].iloc[i], "2 (the two overhangs of a junction)"
        )
    sizes = frame["blockSizes"].str.rstrip(",").str.split(",", expand=True)
    left = source.positions(sizes[0].rename("blockSizes"))
    right = source.positions(sizes[1].rename("blockSizes"))
    return source.junctions(
        frame,
        source.positions(frame["chromStart"]) + left,
        source.positions(frame["chromEnd"]) - right,
        source.strands(frame["strand"], _STRANDS),
        source.counts(frame["score"]),
    )


def _read_hints(source: _Source) -> JunctionCounts:
    names = ("contig", "source", "feature", "start", "end", "score", "strand", "frame", "attributes")
    frame = source.table(names, comment=True)
    frame = frame[frame["feature"] == "intron"]
    mult = frame["attributes"].str.extract(r"(?:^|[;\s])mult=([^;\s]+)")[0].fillna("1").rename("mult")
    return source.junctions(
        frame,
        source.positions(frame["start"]) - 1,
        source.positions(frame["end"]),
        source.strands(frame["strand"], _STRANDS),
        source.counts(mult),
    )


def _read_junctions(source: _Source) -> JunctionCounts:
    frame = source.table(None)
    lower = {str(c).strip().lower(): c for c in frame.columns}
    found = {}
    for column, spellings in _JUNCTION_COLUMNS.items():
        name = next((lower[s] for s in spellings if s in lower), None)
        if name is None and column != "strand":
            raise InputError(
                f"{source.url}: junction table without a {column} column (one of {', '.join(spellings)}); has {', '.join(lower)}"
            )
        found[column] = name
    strand = found["strand"]
    ordered = frame[[found["contig"]]]
    return source.junctions(
        ordered,
        source.positions(frame[found["start"]]),
        source.positions(frame[found["end"]]),
        source.strands(frame[strand], _STRANDS) if strand else np.zeros(len(frame), dtype=np.int8),
        source.counts(frame[found["reads"]]),
    )
