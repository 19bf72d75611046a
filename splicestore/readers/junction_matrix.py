"""Junction matrices: many samples in one file, summed into conditions while they are read.

``gct`` is what GTEx gives out: ``#1.2``, a line of dimensions, ``Name Description sample...``, then a row per junction.
Names are ``chr1_14830_14969``: STAR's first and last base of the intron, 1-based, both included (exons of that gene
end at 14829 and begin at 14970); no strand, uniquely mapped reads. Other makers write ``chr1:14830-14969``, and a strand
at the end of either.

``recount3`` is three files: a MatrixMarket of counts (``*.MM.gz``), its row ranges (``*.RR.gz``: chromosome, start, end,
length, strand, ...; 1-based, both ends included, so ``length = end - start + 1``, which is checked) and its sample ids
(``*.ID.gz``: ``rail_id``, a line per column). ``*.ALL.*`` counts multimapped reads too, ``*.UNIQUE.*`` does not.

Here introns are 0-based half-open: ``[14829, 14969)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from splicestore.config import MATRIX_FORMATS
from splicestore.errors import InputError, close_names
from splicestore.readers.usage import JunctionCounts
from splicestore.storage import input_text_lines, open_input

CHUNK_BYTES = 4 * 1024 * 1024
"""Text parsed at once; about 25 times as much memory is in use meanwhile."""
_STRANDS = {"+": 1, "-": -1, "1": 1, "2": -1, "0": 0, "*": 0, ".": 0, "?": 0, "": 0}
# Lazily up to the first separator behind which only two positions and a strand are left: contigs may hold `_`, `:` and
# `-`. Eighteen digits always fit int64.
_NAME = r"^(?P<contig>.+?)[_:\-](?P<start>[0-9]{1,18})[_:\-](?P<end>[0-9]{1,18})(?:[_:](?P<strand>[+\-.*?012]))?$"
_GCT_HEAD_LINES = 3
_PLAIN_DIGITS = 15
_TAB, _NEWLINE, _SPACE, _ZERO, _NINE = b"\t\n 09"
_ID_HEADERS = ("rail_id", "external_id", "sample", "sample_id", "id")

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Letters = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class JunctionMatrix:
    """Reads of introns ``[start, end)`` by condition."""

    contig: NDArray[np.object_]
    start: Int64
    """(junction,) 0-based first base of the intron."""
    end: Int64
    """(junction,) one past its last base."""
    strand: NDArray[np.int8]
    """+1, -1, 0 not known."""
    condition_names: tuple[str, ...]
    """In the order in which the table first names them."""
    reads: sparse.csc_array
    """(junction, condition) float64: samples of a condition summed; indices sorted, no stored zeros."""
    samples_used: tuple[str, ...]
    samples_unknown: tuple[str, ...]
    """In the file, named by no condition: passed over."""

    def conditions(self) -> Iterator[tuple[str, JunctionCounts]]:
        """Yield each condition's junctions; those without a read are left out."""
        return iter_conditions(self)


def iter_conditions(matrix: JunctionMatrix) -> Iterator[tuple[str, JunctionCounts]]:
    """Yield (condition, its junctions), one condition at a time; junctions without a read are left out."""
    reads = matrix.reads
    for column, name in enumerate(matrix.condition_names):
        stored = slice(reads.indptr[column], reads.indptr[column + 1])
        rows = reads.indices[stored]
        yield (
            name,
            JunctionCounts(
                matrix.contig[rows],
                matrix.start[rows],
                matrix.end[rows],
                matrix.strand[rows],
                reads.data[stored].copy(),
            ),
        )


def matrix_companions(
    url: str, format: str, *, rows_url: str | None = None, samples_url: str | None = None
) -> tuple[str, ...]:
    """Return the files that a matrix cannot be read without.

    Parameters
    ----------
    rows_url, samples_url
        As in ``read_junction_matrix``.

    Returns
    -------
    urls
        None of a GCT; of recount3 row ranges, sample ids and, where given, the table that names the samples.

    Raises
    ------
    InputError
        If one has to be found beside a recount3 matrix that is not named ``*.MM`` or ``*.MM.gz``.
    """
    if format != "recount3":
        return ()
    return rows_url or _beside(url, "RR"), *_sample_urls(url, samples_url)


def _sample_urls(url: str, samples_url: str | None) -> tuple[str, ...]:
    """Sample ids, and the project table that names them where there is one."""
    if samples_url is not None and samples_url.endswith((".MD", ".MD.gz")):
        return _beside(url, "ID"), samples_url
    return (samples_url or _beside(url, "ID"),)


def _beside(url: str, kind: str) -> str:
    for ending in (".MM.gz", ".MM"):
        if url.endswith(ending):
            return f"{url.removesuffix(ending)}.{kind}{ending.removeprefix('.MM')}"
    raise InputError(
        f"{url}: a recount3 matrix is named *.MM.gz, with *.RR.gz and *.ID.gz beside it; say where rows and samples are"
    )


def matrix_sample_names(
    url: str, format: str, *, samples_url: str | None = None, storage_options: Mapping[str, Any] | None = None
) -> list[str]:
    """Read the samples of a matrix in their order; of a GCT only its first three lines are read.

    Raises
    ------
    InputError
        If the header is none, or names a sample twice.
    """
    if _checked_format(url, format) == "gct":
        with open_input(url, storage_options=storage_options) as stream:
            return _gct_header(url, stream)[0]
    return _recount3_samples(_sample_urls(url, samples_url), storage_options)


def read_junction_matrix(
    url: str,
    format: str,
    condition_of: Mapping[str, str],
    *,
    rows_url: str | None = None,
    samples_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> JunctionMatrix:
    """Read the samples that belong to conditions, and sum them.

    The dense matrix is never held: memory is the result, the names of the junctions and a piece of text.

    Parameters
    ----------
    url
        The GCT or MatrixMarket file; plain or gzip, path or URL.
    format
        ``gct`` or ``recount3``.
    condition_of
        Sample (as the file spells it) -> condition.
    rows_url
        Row ranges of recount3; by default ``*.RR.gz`` beside ``*.MM.gz``.
    samples_url
        Sample ids of recount3; by default ``*.ID.gz`` beside the matrix. A project table instead (``*.MD.gz``, with
        ``rail_id`` and ``external_id``) names the samples of that ``*.ID.gz`` by their external id, such as SRR387777.
    chunk_bytes
        Text in memory at once, and at least one line; the result does not depend on it.

    Raises
    ------
    InputError
        For a sample that the file lacks, samples or junctions that come twice, dimensions that disagree, rows that are no
        junctions, counts that are no whole numbers from 0 on, a truncated file; with file, line and value.
    """
    if _checked_format(url, format) == "gct":
        return _read_gct(url, condition_of, storage_options, chunk_bytes)
    companions = matrix_companions(url, format, rows_url=rows_url, samples_url=samples_url)
    return _read_recount3(url, companions, condition_of, storage_options, chunk_bytes)


def _checked_format(url: str, format: str) -> str:
    if format not in MATRIX_FORMATS:
        raise InputError(f"{url}: unknown matrix format {format!r}; one of {', '.join(MATRIX_FORMATS)}")
    return format


# -- samples and conditions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which samples are summed into which conditions."""

    samples: tuple[str, ...]
    conditions: tuple[str, ...]
    column: Int64
    """(sample,) condition of every sample of the file, -1: passed over."""

    @classmethod
    def of(cls, url: str, samples: Sequence[str], condition_of: Mapping[str, str]) -> _Selection:
        known = set(samples)
        missing = [name for name in condition_of if name not in known]
        if missing:
            raise InputError(
                f"{url}: has no sample {missing[0]!r} ({len(missing)} of {len(condition_of)} samples asked for are "
                f"missing); {close_names(missing[0], samples)}"
            )
        conditions = tuple(dict.fromkeys(condition_of.values()))
        place = {name: i for i, name in enumerate(conditions)}
        column = np.array([place[condition_of[s]] if s in condition_of else -1 for s in samples], dtype=np.int64)
        return cls(tuple(samples), conditions, column)

    def sums(self) -> sparse.csr_array:
        """(condition, sample) ones where a sample belongs to a condition: times counts by sample, counts by condition."""
        used = np.flatnonzero(self.column >= 0)
        shape = (len(self.conditions), len(self.samples))
        return sparse.csr_array((np.ones(len(used)), (self.column[used], used)), shape=shape)

    def named(self, *, used: bool) -> tuple[str, ...]:
        return tuple(s for s, column in zip(self.samples, self.column, strict=True) if (column >= 0) == used)


def _refuse_repeated_samples(url: str, line: str, samples: Sequence[str]) -> None:
    repeated = pd.Series(samples, dtype=object).duplicated().to_numpy()
    if repeated.any():
        raise InputError(f"{url}: {line}: sample {samples[int(np.argmax(repeated))]!r} comes a second time")


# -- numbers in text ---------------------------------------------------------------------------------------------


def _line_blocks(stream: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    """Yield whole lines, each with its newline; empty lines at the end of the file are dropped."""
    rest: list[bytes] = []
    while data := stream.read(chunk_bytes):
        rest.append(data)
        if b"\n" not in data:
            continue
        text = b"".join(rest)
        body = len(text[: text.rfind(b"\n")].rstrip(b"\r\n"))
        # Empty lines are kept back until it is known whether anything follows them.
        cut = text.find(b"\n", body) + 1 if body else 0
        if cut:
            yield _unix(text[:cut])
        rest = [text[cut:]]
    if text := b"".join(rest).rstrip(b"\r\n"):
        yield _unix(text) + b"\n"


def _unix(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text


def _spans(starts: Int64, ends: Int64, size: int) -> NDArray[np.bool_]:
    """Mark the bytes of ascending, disjoint ``[start, end)``."""
    borders = np.concatenate(([0], np.stack((starts, ends), axis=1).ravel(), [size]))
    return np.repeat(np.arange(len(borders) - 1) % 2 == 1, np.diff(borders))


def _whole_numbers(letters: Letters, inside: NDArray[np.bool_], starts: Int64, ends: Int64) -> Float64:
    """Parse pieces of text as counts; NaN where one is no whole number from 0 on.

    Parameters
    ----------
    letters
        The text.
    inside
        (letter,) whether it belongs to a piece.
    starts, ends
        (piece,) ``[start, end)``, ascending, with a letter or more between them.
    """
    odd_letters = np.flatnonzero(inside & ((letters < _ZERO) | (letters > _NINE)))
    is_odd = (ends - starts > _PLAIN_DIGITS) | (ends == starts)
    is_odd[np.searchsorted(starts, odd_letters, side="right") - 1] = True
    odd = np.flatnonzero(is_odd)
    values = np.full(len(starts), np.nan)
    # Digits alone are parsed in one call; the few others (3.0, 1e+06, mistakes) one by one.
    if len(odd):
        inside = inside & ~_spans(starts[odd], ends[odd], len(letters))
    if len(odd) < len(starts):
        text = np.where(inside, letters, np.uint8(_SPACE)).tobytes()
        values[~is_odd] = np.fromstring(text, sep=" ", dtype=np.int64)
    words = [_text(letters, a, b) for a, b in zip(starts[odd], ends[odd], strict=True)]
    parsed = pd.to_numeric(pd.Series(words, dtype=object), errors="coerce").to_numpy(np.float64)
    is_whole = np.isfinite(parsed) & (parsed >= 0) & (parsed == np.floor(parsed))
    values[odd] = np.where(is_whole, parsed, np.nan)
    return values


def _text(letters: Letters, start: int, end: int) -> str:
    return letters[start:end].tobytes().decode("utf-8", errors="replace")


# -- GCT ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Introns:
    """Places of junctions, in the order of the file."""

    contig: NDArray[np.object_]
    start: Int64
    end: Int64
    strand: NDArray[np.int8]

    def check(self, url: str, first_line: int) -> None:
        """Refuse introns that are empty, reversed or begin before the contig."""
        wrong = (self.start < 0) | (self.end <= self.start)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(
                f"{url}: line {first_line + at}: intron {self.start[at] + 1}-{self.end[at]} (1-based) is reversed or begins before 1"
            )

    def refuse_repeated(self, url: str, first_line: int) -> None:
        """Refuse a junction that has two rows: which of them counts, nobody knows."""
        table = pd.DataFrame(
            {"contig": pd.factorize(self.contig)[0], "start": self.start, "end": self.end, "strand": self.strand}
        )
        repeated = table.duplicated().to_numpy()
        if repeated.any():
            at = int(np.argmax(repeated))
            same = int(np.argmax((table == table.iloc[at]).all(axis=1).to_numpy()))
            raise InputError(
                f"{url}: line {first_line + at}: junction {self.contig[at]}:{self.start[at] + 1}-{self.end[at]} (1-based) "
                f"stands on line {first_line + same} already ({int(repeated.sum())} such rows)"
            )


def _read_gct(
    url: str, condition_of: Mapping[str, str], storage_options: Mapping[str, Any] | None, chunk_bytes: int
) -> JunctionMatrix:
    introns: list[_Introns] = []
    reads: list[sparse.csr_array] = []
    with open_input(url, storage_options=storage_options) as stream:
        samples, n_announced = _gct_header(url, stream)
        selection = _Selection.of(url, samples, condition_of)
        sums = selection.sums()
        n_rows = 0
        for block in _line_blocks(stream, chunk_bytes):
            table = _GctBlock.of(url, _GCT_HEAD_LINES + 1 + n_rows, block, samples)
            introns.append(_parse_names(url, table.first_line, table.names()))
            reads.append(sparse.csr_array((sums @ table.counts().T).T))
            n_rows += len(table.starts)
    if n_rows != n_announced:
        raise InputError(
            f"{url}: line 2 announces {n_announced} junctions, the file has {n_rows}; copy or download it again"
        )
    found = _joined(introns)
    found.refuse_repeated(url, _GCT_HEAD_LINES + 1)
    total = sparse.vstack(reads, format="csr") if reads else sparse.csr_array((0, len(selection.conditions)))
    return _matrix(found, total, selection)


def _gct_header(url: str, stream: BinaryIO) -> tuple[list[str], int]:
    """Samples and the announced number of junctions; the stream is left at the first row."""
    lines = [stream.readline().decode("utf-8", errors="replace").rstrip("\r\n") for _ in range(_GCT_HEAD_LINES)]
    if lines[0].strip() != "#1.2":
        raise InputError(f"{url}: line 1: got {lines[0]!r:.80}, a junction matrix in GCT begins with #1.2")
    dimensions = lines[1].split()
    if len(dimensions) != 2 or not all(d.isascii() and d.isdigit() for d in dimensions):
        raise InputError(f"{url}: line 2: {lines[1]!r:.80} is not the numbers of junctions and samples")
    header = [name.strip() for name in lines[2].split("\t")]
    if [name.lower() for name in header[:2]] != ["name", "description"]:
        raise InputError(f"{url}: line 3: begins with {header[:2]!r:.80}, Name and Description were expected")
    samples = header[2:]
    if not samples:
        raise InputError(f"{url}: line 3: names no sample behind Name and Description")
    if len(samples) != int(dimensions[1]):
        raise InputError(f"{url}: line 2 announces {dimensions[1]} samples, the header on line 3 has {len(samples)}")
    _refuse_repeated_samples(url, "line 3", samples)
    return samples, int(dimensions[0])


@dataclass(frozen=True, slots=True)
class _GctBlock:
    """Some lines of a GCT, and where their fields are."""

    url: str
    first_line: int
    samples: Sequence[str]
    letters: Letters
    starts: Int64
    """(line,) of lines"""
    ends: Int64
    """(line,) of lines: their newlines"""
    tabs: Int64
    """(line, sample + 1) separators"""

    @classmethod
    def of(cls, url: str, first_line: int, block: bytes, samples: Sequence[str]) -> _GctBlock:
        letters = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(letters == _NEWLINE)
        starts = np.concatenate(([0], ends[:-1] + 1))
        tabs = np.flatnonzero(letters == _TAB)
        n_tabs = np.searchsorted(tabs, ends) - np.searchsorted(tabs, starts)
        wrong = n_tabs != len(samples) + 1
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(
                f"{url}: line {first_line + at}: {n_tabs[at] + 1} fields, the header has {len(samples) + 2}; "
                "copy or download the file again"
            )
        return cls(url, first_line, samples, letters, starts, ends, tabs.reshape(len(ends), len(samples) + 1))

    def names(self) -> list[str]:
        """First field of every line."""
        kept = _spans(self.starts, self.tabs[:, 0], len(self.letters)) | (self.letters == _NEWLINE)
        text = bytes(self.letters[kept])
        try:
            return text.decode("utf-8").split("\n")[:-1]
        except UnicodeDecodeError as error:
            last = self.first_line + len(self.starts) - 1
            raise InputError(
                f"{self.url}: lines {self.first_line} to {last}: a name is not UTF-8 text ({error.reason})"
            ) from error

    def counts(self) -> Float64:
        """(line, sample) counts."""
        starts = self.tabs[:, 1:] + 1
        ends = np.concatenate((self.tabs[:, 2:], self.ends[:, None]), axis=1)[:, : starts.shape[1]]
        inside = _spans(self.tabs[:, 1] + 1, self.ends, len(self.letters)) & (self.letters != _TAB)
        values = _whole_numbers(self.letters, inside, starts.ravel(), ends.ravel()).reshape(starts.shape)
        wrong = np.isnan(values)
        if wrong.any():
            row, sample = (int(i[0]) for i in np.nonzero(wrong))
            cell = _text(self.letters, starts[row, sample], ends[row, sample])
            raise InputError(
                f"{self.url}: line {self.first_line + row}: sample {self.samples[sample]!r} has the count {cell!r:.80}, "
                "allowed is a whole number from 0 on"
            )
        return values


def _parse_names(url: str, first_line: int, names: list[str]) -> _Introns:
    """Parse ``contig_start_end``, ``contig:start-end`` and either with a strand at its end."""
    fields = pd.Series(names, dtype="str").str.extract(_NAME)
    wrong = fields["contig"].isna().to_numpy()
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{url}: line {first_line + at}: {names[at]!r:.80} names no junction; chr1_14830_14969 or chr1:14830-14969, "
            "with or without a strand, was expected"
        )
    introns = _Introns(
        contig=fields["contig"].to_numpy(object),
        start=fields["start"].to_numpy(object).astype(np.int64) - 1,
        end=fields["end"].to_numpy(object).astype(np.int64),
        strand=np.asarray(fields["strand"].fillna("").map(_STRANDS), dtype=np.int8),
    )
    introns.check(url, first_line)
    return introns


def _joined(parts: Sequence[_Introns]) -> _Introns:
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return _Introns(none.astype(object), none, none, none.astype(np.int8))
    return _Introns(
        np.concatenate([p.contig for p in parts]),
        np.concatenate([p.start for p in parts]),
        np.concatenate([p.end for p in parts]),
        np.concatenate([p.strand for p in parts]),
    )


def _matrix(introns: _Introns, reads: Any, selection: _Selection) -> JunctionMatrix:
    total = sparse.csc_array(reads)
    total.sort_indices()
    total.eliminate_zeros()
    return JunctionMatrix(
        introns.contig, introns.start, introns.end, introns.strand, selection.conditions, total,
        selection.named(used=True), selection.named(used=False),
    )  # fmt: skip


# -- recount3 ----------------------------------------------------------------------------------------------------


def _read_recount3(
    url: str,
    companions: Sequence[str],
    condition_of: Mapping[str, str],
    storage_options: Mapping[str, Any] | None,
    chunk_bytes: int,
) -> JunctionMatrix:
    rows_url, *samples_urls = companions
    samples = _recount3_samples(samples_urls, storage_options)
    selection = _Selection.of(samples_urls[-1], samples, condition_of)
    introns = _row_ranges(rows_url, storage_options)
    shape = (len(introns.start), len(samples))
    parts: list[sparse.csc_array] = []
    with open_input(url, storage_options=storage_options) as stream:
        n_rows, n_columns, n_announced, line = _market_header(url, stream)
        if (n_rows, n_columns) != shape:
            raise InputError(
                f"{url}: line {line - 1}: announces {n_rows} junctions and {n_columns} samples, {rows_url} has {shape[0]} "
                f"and {samples_urls[0]} {shape[1]}; the files must be of one release"
            )
        n_entries = 0
        for block in _line_blocks(stream, chunk_bytes):
            row, sample, reads = _entries(url, line, block, shape)
            line += block.count(b"\n")
            n_entries += len(row)
            column = selection.column[sample]
            used = column >= 0
            entries = (reads[used], (row[used], column[used]))
            _add(parts, sparse.csc_array(sparse.coo_array(entries, shape=(n_rows, len(selection.conditions)))))
    if n_entries != n_announced:
        raise InputError(f"{url}: announces {n_announced} entries, the file has {n_entries}; copy or download it again")
    total: Any = sparse.csc_array((n_rows, len(selection.conditions)), dtype=np.float64)
    for part in reversed(parts):
        total = total + part
    return _matrix(introns, total, selection)


def _add(parts: list[sparse.csc_array], new: sparse.csc_array) -> None:
    """Append, and sum neighbours of like size: as many additions per entry as there are doublings, not blocks."""
    parts.append(new)
    while len(parts) > 1 and 2 * parts[-1].nnz >= parts[-2].nnz:
        last = parts.pop()
        parts[-1] = sparse.csc_array(parts[-1] + last)


def _recount3_samples(urls: Sequence[str], storage_options: Mapping[str, Any] | None) -> list[str]:
    """Names of the columns: the ids of ``*.ID``, or what a table beside it calls them."""
    ids_url, *tables = urls
    lines = [text for _, text in input_text_lines(ids_url, storage_options=storage_options) if text.strip()]
    samples = [line.split("\t")[0].strip() for line in lines]
    if samples and samples[0].lower() in _ID_HEADERS:
        samples = samples[1:]
    if tables:
        samples = _external_names(tables[0], ids_url, samples, storage_options)
    _refuse_repeated_samples(urls[-1], f"{len(samples)} samples", samples)
    return samples


def _external_names(url: str, ids_url: str, ids: Sequence[str], storage_options: Mapping[str, Any] | None) -> list[str]:
    rows = [text.split("\t") for _, text in input_text_lines(url, storage_options=storage_options) if text.strip()]
    header = [name.strip().lower() for name in rows[0]] if rows else []
    missing = [name for name in ("rail_id", "external_id") if name not in header]
    if missing:
        raise InputError(f"{url}: line 1: no column {missing[0]!r}; a project table has rail_id and external_id")
    key, value = header.index("rail_id"), header.index("external_id")
    short = [number for number, row in enumerate(rows, start=1) if len(row) <= max(key, value)]
    if short:
        raise InputError(f"{url}: row {short[0]} has {len(rows[short[0] - 1])} fields, the header {len(header)}")
    name_of = {row[key].strip(): row[value].strip() for row in rows[1:]}
    unnamed = [i for i in ids if i not in name_of]
    if unnamed:
        raise InputError(f"{url}: names no rail_id {unnamed[0]!r}, which is in {ids_url} ({len(unnamed)} such samples)")
    return [name_of[i] for i in ids]


def _row_ranges(url: str, storage_options: Mapping[str, Any] | None) -> _Introns:
    columns = ("chromosome", "start", "end", "length", "strand")
    with open_input(url, storage_options=storage_options) as stream:
        try:
            table = pd.read_csv(
                stream, sep="\t", usecols=lambda name: name in columns, keep_default_na=False, quoting=3, low_memory=False,
                dtype={"chromosome": "str", "strand": "category"}, skip_blank_lines=False,
            )  # fmt: skip
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise InputError(f"{url}: not a table of row ranges: {error}") from error
    missing = [name for name in columns if name not in table.columns and name != "length"]
    if missing:
        raise InputError(
            f"{url}: line 1: no column {missing[0]!r}; row ranges of recount3 have chromosome, start, end, length, strand"
        )
    start, end = _positions(url, table["start"]), _positions(url, table["end"])
    # Read as categories, names that are all numbers would come as numbers: 01 as 1.
    codes, names = pd.factorize(table["chromosome"])
    introns = _Introns(np.asarray(names, dtype=object)[codes], start - 1, end, _strands(url, table["strand"]))
    introns.check(url, 2)
    if "length" in table.columns:
        _check_lengths(url, _positions(url, table["length"]), start, end)
    introns.refuse_repeated(url, 2)
    return introns


def _positions(url: str, column: pd.Series[Any]) -> Int64:
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    wrong = ~((values >= 0) & (values == np.floor(values)) & (values < 2**53))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{url}: line {at + 2}: {column.name} is {str(column.iloc[at])!r}, a whole number from 0 on was expected"
        )
    return values.astype(np.int64)


def _check_lengths(url: str, length: Int64, start: Int64, end: Int64) -> None:
    """Both ends of an intron are included; a table that was converted to half-open would be off by one base."""
    wrong = length != end - start + 1
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{url}: line {at + 2}: length {length[at]} is not end - start + 1 = {end[at] - start[at] + 1} "
            f"({int(wrong.sum())} of {len(wrong)} rows); start and end must be the first and last base of the intron, 1-based"
        )


def _strands(url: str, column: pd.Series[Any]) -> NDArray[np.int8]:
    words = [str(word) for word in column.cat.categories]
    codes = column.cat.codes.to_numpy()
    wrong = (codes < 0) | np.isin(codes, [i for i, word in enumerate(words) if word not in _STRANDS])
    if wrong.any():
        at = int(np.argmax(wrong))
        word = repr(words[codes[at]]) if codes[at] >= 0 else "missing"
        raise InputError(f"{url}: line {at + 2}: strand is {word}; {' '.join(w for w in _STRANDS if w)} are allowed")
    signs = np.array([_STRANDS.get(word, 0) for word in words] or [0], dtype=np.int8)
    return np.asarray(signs[codes], dtype=np.int8)


def _market_header(url: str, stream: BinaryIO) -> tuple[int, int, int, int]:
    """Rows, columns and entries of a MatrixMarket file, and the number of the line behind them."""
    first = stream.readline().decode("utf-8", errors="replace")
    words = first.lower().split()
    if words[:3] != ["%%matrixmarket", "matrix", "coordinate"] or words[3:] not in (
        ["integer", "general"],
        ["real", "general"],
    ):
        raise InputError(
            f"{url}: line 1: got {first.strip()!r:.80}, %%MatrixMarket matrix coordinate integer general was expected"
        )
    line, number = "%", 1
    while line.startswith("%") or line.isspace():
        line, number = stream.readline().decode("utf-8", errors="replace"), number + 1
    sizes = line.split()
    if len(sizes) != 3 or not all(s.isascii() and s.isdigit() for s in sizes):
        raise InputError(f"{url}: line {number}: {line.strip()!r:.80} is not the numbers of rows, columns and entries")
    return int(sizes[0]), int(sizes[1]), int(sizes[2]), number + 1


def _entries(url: str, first_line: int, block: bytes, shape: tuple[int, int]) -> tuple[Int64, Int64, Float64]:
    """0-based row and column, and the value, of every entry of some lines; empty lines are passed over."""
    letters = np.frombuffer(block, dtype=np.uint8)
    is_blank = (letters == _SPACE) | (letters == _TAB) | (letters == _NEWLINE)
    was_blank = np.concatenate(([True], is_blank[:-1]))
    starts, ends = np.flatnonzero(~is_blank & was_blank), np.flatnonzero(is_blank & ~was_blank)
    line_ends = np.flatnonzero(letters == _NEWLINE)
    n_fields = np.diff(np.searchsorted(starts, line_ends), prepend=0)

    def refusal(line: int) -> InputError:
        text = _text(letters, line_ends[line - 1] + 1 if line else 0, line_ends[line])
        return InputError(
            f"{url}: line {first_line + line}: got {text!r:.80}; a row from 1 to {shape[0]}, a sample from 1 to {shape[1]} "
            "and a whole number of reads from 0 on were expected"
        )

    wrong_lines = (n_fields != 0) & (n_fields != 3)
    if wrong_lines.any():
        raise refusal(int(np.argmax(wrong_lines)))
    row, sample, reads = _whole_numbers(letters, ~is_blank, starts, ends).reshape(-1, 3).T
    wrong = ~((row >= 1) & (row <= shape[0]) & (sample >= 1) & (sample <= shape[1]) & (reads >= 0))
    if wrong.any():
        raise refusal(int(np.searchsorted(line_ends, starts[3 * int(np.argmax(wrong))])))
    return row.astype(np.int64) - 1, sample.astype(np.int64) - 1, reads
