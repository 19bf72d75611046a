"""Junction matrices: many samples in one file, summed into conditions while they are read.

``gct`` is what GTEx gives out (``#1.2``, dimensions, ``Name Description sample...``; names ``chr1_14830_14969``, optionally with a
strand); ``recount3`` is a MatrixMarket file of counts (``*.MM.gz``) with its row ranges (``*.RR.gz``) and sample ids (``*.ID.gz``)
beside it. Both write introns 1-based, first and last base included, as STAR does; here they are 0-based half-open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from splicestore.config import MATRIX_FORMATS
from splicestore.errors import InputError, close_names
from splicestore.readers.usage import JunctionCounts
from splicestore.storage import input_text_lines, open_input

CHUNK_CELLS = 4_000_000
"""Counts parsed at once: about 32 MB."""
_STRANDS = {"+": 1, "-": -1, "1": 1, "2": -1, "0": 0, "*": 0, ".": 0, "?": 0, "": 0}
_GCT_HEAD_LINES = 3


@dataclass(frozen=True, slots=True)
class JunctionMatrix:
    """Reads of introns by condition."""

    contig: NDArray[np.object_]
    start: NDArray[np.int64]
    """(junction,) 0-based first base of the intron."""
    end: NDArray[np.int64]
    """(junction,) one past its last base."""
    strand: NDArray[np.int8]
    """+1, -1, 0 not known."""
    condition_names: tuple[str, ...]
    reads: sparse.csc_array
    """(junction, condition) float64: samples of a condition summed."""
    n_samples: int
    """Samples of the file; those that no condition names are passed over."""

    def conditions(self) -> Iterator[tuple[str, JunctionCounts]]:
        """Yield each condition's junctions; those without a read are left out."""
        for column, name in enumerate(self.condition_names):
            low, high = self.reads.indptr[column], self.reads.indptr[column + 1]
            rows, values = self.reads.indices[low:high], self.reads.data[low:high]
            order = np.argsort(rows, kind="stable")
            rows, values = rows[order], values[order]
            seen = values > 0
            rows = rows[seen]
            yield (
                name,
                JunctionCounts(self.contig[rows], self.start[rows], self.end[rows], self.strand[rows], values[seen]),
            )


def matrix_companions(url: str, format: str) -> tuple[str, ...]:
    """Return the files a matrix needs beside itself: row ranges and sample ids of recount3.

    Raises
    ------
    InputError
        If a recount3 matrix is not named ``*.MM`` or ``*.MM.gz``.
    """
    if format != "recount3":
        return ()
    for ending in (".MM.gz", ".MM"):
        if url.endswith(ending):
            stem, packed = url.removesuffix(ending), ending.removeprefix(".MM")
            return f"{stem}.RR{packed}", f"{stem}.ID{packed}"
    raise InputError(f"{url}: a recount3 matrix is named *.MM.gz, with *.RR.gz and *.ID.gz beside it")


def read_junction_matrix(
    url: str,
    format: str,
    condition_of: Mapping[str, str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    chunk_cells: int = CHUNK_CELLS,
) -> JunctionMatrix:
    """Read the samples that belong to conditions, and sum them.

    Parameters
    ----------
    format
        ``gct`` or ``recount3``.
    condition_of
        Sample (as the file spells it) -> condition.
    chunk_cells
        Counts in memory at once; the result does not depend on it.

    Raises
    ------
    InputError
        For a sample that the file lacks, dimensions that disagree, rows that are no junctions or come twice, counts
        that are negative or no numbers, a truncated file; with file, line and value.
    """
    if format == "gct":
        return _read_gct(url, condition_of, storage_options, chunk_cells)
    if format == "recount3":
        return _read_recount3(url, condition_of, storage_options, chunk_cells)
    raise InputError(f"{url}: unknown matrix format {format!r}; one of {', '.join(MATRIX_FORMATS)}")


def _chosen(url: str, samples: list[str], condition_of: Mapping[str, str]) -> tuple[NDArray[np.int64], list[str]]:
    """Condition column of every sample (-1: not used), and the conditions in natural order of first use."""
    if len(set(samples)) != len(samples):
        twice = next(s for s in samples if samples.count(s) > 1)
        raise InputError(f"{url}: sample {twice!r} stands twice in its header")
    known = set(samples)
    for name in condition_of:
        if name not in known:
            raise InputError(f"{url}: has no sample {name!r}; {close_names(name, samples)}")
    conditions = list(dict.fromkeys(condition_of.values()))
    column = {name: i for i, name in enumerate(conditions)}
    return np.array([column[condition_of[s]] if s in condition_of else -1 for s in samples], dtype=np.int64), conditions


# -- GCT ---------------------------------------------------------------------------------------------------------


def _read_gct(
    url: str, condition_of: Mapping[str, str], storage_options: Mapping[str, Any] | None, chunk_cells: int
) -> JunctionMatrix:
    samples, n_rows = _gct_header(url, storage_options)
    column, conditions = _chosen(url, samples, condition_of)
    used = np.flatnonzero(column >= 0)
    sums = sparse.csr_array(
        (np.ones(len(used)), (np.arange(len(used)), column[used])), shape=(len(used), len(conditions))
    )
    names: list[NDArray[np.object_]] = []
    blocks: list[sparse.csr_array] = []
    wanted = ["Name", *(samples[i] for i in used)]
    with open_input(url, storage_options=storage_options) as stream:
        chunks = pd.read_csv(
            stream, sep="\t", skiprows=_GCT_HEAD_LINES - 1, usecols=wanted, dtype={"Name": str}, keep_default_na=False,
            chunksize=max(1, chunk_cells // max(1, len(wanted))), low_memory=False,
        )  # fmt: skip
        try:
            for chunk in chunks:
                counts = _counts(url, chunk[wanted[1:]], first_line=_GCT_HEAD_LINES + 1)
                names.append(chunk["Name"].to_numpy(object))
                blocks.append(sparse.csr_array(counts) @ sums)
        except pd.errors.ParserError as error:
            raise InputError(f"{url}: {error}; every row needs the header's number of fields") from error
    name = np.concatenate(names) if names else np.zeros(0, dtype=object)
    if len(name) != n_rows:
        raise InputError(
            f"{url}: its second line announces {n_rows} junctions, it has {len(name)}; copy or download it again"
        )
    _refuse_repeated(url, name)
    contig, start, end, strand = _parse_names(url, name)
    reads = sparse.csc_array(sparse.vstack(blocks)) if blocks else sparse.csc_array((0, len(conditions)))
    return JunctionMatrix(contig, start, end, strand, tuple(conditions), reads, len(samples))


def _gct_header(url: str, storage_options: Mapping[str, Any] | None) -> tuple[list[str], int]:
    lines = [text for _, text in zip(range(_GCT_HEAD_LINES), _lines(url, storage_options), strict=False)]
    if len(lines) < _GCT_HEAD_LINES or not lines[0].startswith("#1."):
        raise InputError(f"{url}: not GCT: its first line must be #1.2 and its third a header (got {lines[:1]})")
    dimensions = lines[1].split("\t")
    header = lines[2].split("\t")
    if len(dimensions) < 2 or not all(d.strip().isdigit() for d in dimensions[:2]):
        raise InputError(f"{url}: line 2: {lines[1]!r} is not the numbers of junctions and samples")
    if header[:2] != ["Name", "Description"]:
        raise InputError(f"{url}: line 3: begins with {header[:2]}, Name and Description were expected")
    samples = [s.strip() for s in header[2:]]
    if len(samples) != int(dimensions[1]):
        raise InputError(f"{url}: line 2 announces {dimensions[1]} samples, the header has {len(samples)}")
    return samples, int(dimensions[0])


def _lines(url: str, storage_options: Mapping[str, Any] | None) -> Iterator[str]:
    for _, text in input_text_lines(url, storage_options=storage_options):
        yield text


def _counts(url: str, chunk: pd.DataFrame, *, first_line: int) -> NDArray[np.float64]:
    """Counts of a chunk as numbers; the first cell that is none is named."""
    line = first_line + int(chunk.index[0]) if len(chunk) else first_line
    for name, values in chunk.items():
        if values.dtype == object or not pd.api.types.is_numeric_dtype(values):
            bad = pd.to_numeric(values, errors="coerce").isna()
            at = int(np.argmax(bad.to_numpy()))
            raise InputError(
                f"{url}: line {line + at}: sample {name!r} has the count {values.iloc[at]!r}, a number was expected"
            )
    counts = chunk.to_numpy(np.float64)
    wrong = ~(np.isfinite(counts) & (counts >= 0))
    if wrong.any():
        row, column = (int(i[0]) for i in np.nonzero(wrong))
        raise InputError(
            f"{url}: line {line + row}: sample {chunk.columns[column]!r} has the count {counts[row, column]:g}, allowed is 0 and more"
        )
    return counts


def _refuse_repeated(url: str, name: NDArray[np.object_]) -> None:
    repeated = pd.Series(name).duplicated().to_numpy()
    if repeated.any():
        at = int(np.argmax(repeated))
        raise InputError(f"{url}: line {_GCT_HEAD_LINES + 1 + at}: junction {name[at]!r} comes a second time")


def _parse_names(
    url: str, name: NDArray[np.object_]
) -> tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """Parse ``contig_start_end``, ``contig:start-end`` and either with a strand at its end."""
    pattern = r"^(?P<contig>.+?)[_:](?P<start>\d+)[_\-](?P<end>\d+)(?:[_:](?P<strand>[+\-.*?012]))?$"
    fields = pd.Series(name, dtype="str").str.extract(pattern)
    wrong = fields["contig"].isna().to_numpy()
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{url}: line {_GCT_HEAD_LINES + 1 + at}: {name[at]!r} names no junction; chr1_14830_14969 or chr1:14830-14969 was expected"
        )
    start = np.asarray(fields["start"].astype(np.int64), dtype=np.int64) - 1
    end = np.asarray(fields["end"].astype(np.int64), dtype=np.int64)
    _refuse_reversed(url, start, end, _GCT_HEAD_LINES + 1)
    strand = np.asarray(fields["strand"].fillna("").map(_STRANDS), dtype=np.int8)
    return np.asarray(fields["contig"], dtype=object), start, end, strand


def _refuse_reversed(url: str, start: NDArray[np.int64], end: NDArray[np.int64], first_line: int) -> None:
    wrong = (start < 0) | (end <= start)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{url}: line {first_line + at}: intron {start[at] + 1}-{end[at]} (1-based) is reversed or begins before 1"
        )


# -- recount3 ----------------------------------------------------------------------------------------------------


def _read_recount3(
    url: str, condition_of: Mapping[str, str], storage_options: Mapping[str, Any] | None, chunk_cells: int
) -> JunctionMatrix:
    rows_url, samples_url = matrix_companions(url, "recount3")
    contig, start, end, strand = _row_ranges(rows_url, storage_options)
    samples = [text.split("\t")[0].strip() for text in _lines(samples_url, storage_options) if text.strip()]
    samples = samples[1:] if samples and samples[0].lower() in ("rail_id", "external_id", "sample", "id") else samples
    column, conditions = _chosen(samples_url, samples, condition_of)
    parts = []
    with open_input(url, storage_options=storage_options) as stream:
        n_rows, n_columns, n_entries, line = _market_header(url, stream)
        if (n_rows, n_columns) != (len(start), len(samples)):
            raise InputError(
                f"{url}: is {n_rows} x {n_columns}, {rows_url} has {len(start)} junctions and {samples_url} {len(samples)} samples"
            )
        seen = 0
        chunks = pd.read_csv(stream, sep=r"\s+", header=None, names=["row", "sample", "reads"], chunksize=chunk_cells)
        for chunk in chunks:
            parts.append(_entries(url, chunk, line + seen, (n_rows, n_columns), column, len(conditions)))
            seen += len(chunk)
    if seen != n_entries:
        raise InputError(f"{url}: announces {n_entries} entries, it has {seen}; copy or download it again")
    total = parts[0] if parts else sparse.csc_array((n_rows, len(conditions)))
    for part in parts[1:]:
        total = total + part
    return JunctionMatrix(contig, start, end, strand, tuple(conditions), sparse.csc_array(total), len(samples))


def _row_ranges(
    url: str, storage_options: Mapping[str, Any] | None
) -> tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    with open_input(url, storage_options=storage_options) as stream:
        try:
            table = pd.read_csv(stream, sep="\t", dtype={"chromosome": str, "strand": str}, keep_default_na=False)
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise InputError(f"{url}: not a table of row ranges: {error}") from error
    missing = [c for c in ("chromosome", "start", "end", "strand") if c not in table.columns]
    if missing:
        raise InputError(
            f"{url}: has no column {missing[0]!r}; row ranges of recount3 have chromosome, start, end, strand"
        )
    for name in ("start", "end"):
        if not pd.api.types.is_integer_dtype(table[name]):
            bad = pd.to_numeric(table[name], errors="coerce").isna().to_numpy()
            at = int(np.argmax(bad))
            raise InputError(f"{url}: line {at + 2}: {name} is {table[name].iloc[at]!r}, a whole number was expected")
    start, end = np.asarray(table["start"], dtype=np.int64) - 1, np.asarray(table["end"], dtype=np.int64)
    _refuse_reversed(url, start, end, 2)
    unknown = sorted(set(table["strand"]) - set(_STRANDS))
    if unknown:
        at = int(np.argmax((table["strand"] == unknown[0]).to_numpy()))
        raise InputError(f"{url}: line {at + 2}: strand {unknown[0]!r}; + - . ? * 0 1 2 are allowed")
    strand = np.asarray(table["strand"].map(_STRANDS), dtype=np.int8)
    return np.asarray(table["chromosome"], dtype=object), start, end, strand


def _market_header(url: str, stream: Any) -> tuple[int, int, int, int]:
    """Rows, columns and entries of a MatrixMarket file, and the number of its first entry's line."""
    first = stream.readline().decode("utf-8", errors="replace")
    if not first.startswith("%%MatrixMarket matrix coordinate"):
        raise InputError(
            f"{url}: not MatrixMarket: its first line is {first[:60]!r}, %%MatrixMarket matrix coordinate was expected"
        )
    line, number = "%", 1
    while line.startswith("%"):
        line, number = stream.readline().decode("utf-8", errors="replace"), number + 1
    sizes = line.split()
    if len(sizes) != 3 or not all(s.isdigit() for s in sizes):
        raise InputError(f"{url}: line {number}: {line.strip()!r} is not rows, columns and entries")
    return int(sizes[0]), int(sizes[1]), int(sizes[2]), number + 1


def _entries(
    url: str, chunk: pd.DataFrame, first_line: int, shape: tuple[int, int], column: NDArray[np.int64], n_conditions: int
) -> sparse.csc_array:
    numbers = [pd.to_numeric(chunk[name], errors="coerce").to_numpy(np.float64) for name in ("row", "sample", "reads")]
    row, sample, reads = numbers
    wrong = ~((row >= 1) & (row <= shape[0]) & (sample >= 1) & (sample <= shape[1]) & (reads >= 0) & np.isfinite(reads))
    if wrong.any():
        at = int(np.argmax(wrong))
        found = " ".join(str(v) for v in chunk.iloc[at])
        raise InputError(
            f"{url}: line {first_line + at}: {found!r}; row 1 to {shape[0]}, sample 1 to {shape[1]}, and reads of 0 and more were expected"
        )
    target = column[sample.astype(np.int64) - 1]
    used = target >= 0
    return sparse.csc_array(
        sparse.coo_array((reads[used], (row[used].astype(np.int64) - 1, target[used])), shape=(shape[0], n_conditions))
    )
