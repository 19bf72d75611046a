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
                matrix.contig[rows], matrix.start[rows], matrix.end[rows], matrix.strand[rows], reads.data[stored].copy()
            ),
        )


def matrix_companions(
    url: str, format: str, *, rows_url: str | None = None, samples_url: str | None = None
) -> tuple[str, ...]:
    """Return the files that a matrix cannot be read without: row ranges and sample ids of recount3, none of a GCT.

    Parameters
    ----------
    rows_url, samples_url
        Where they are, if not beside the matrix under its name.

    Raises
    ------
    InputError
        If one has to be found beside a recount3 matrix that is not named ``*.MM`` or ``*.MM.gz``.
    """
    if format != "recount3":
        return ()
    return rows_url or _beside(url, "RR"), samples_url or _beside(url, "ID")


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
    return _recount3_samples(url, samples_url, storage_options)


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
        Sample ids of recount3; by default ``*.ID.gz``. A table with the columns ``rail_id`` and ``external_id``
        (``*.recount_project.*.MD.gz``) lets samples be named by their external id, such as SRR387777.
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
    companions = _Companions(rows_url or _beside(url, "RR"), samples_url)
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
            yield text[:cut].replace(b"\r\n", b"\n")
        rest = [text[cut:]]
    if text := b"".join(rest).rstrip(b"\r\n"):
        yield text.replace(b"\r\n", b"\n") + b"\n"


def _spans(starts: Int64, ends: Int64, size: int) -> NDArray[np.bool_]:
    """Mark the bytes of disjoint ``[start, end)``."""
    steps = np.zeros(size + 1, dtype=np.int8)
    np.add.at(steps, starts, 1)
    np.subtract.at(steps, ends, 1)
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool)


def _whole_numbers(letters: Letters, starts: Int64, ends: Int64) -> Float64:
    """Parse ``[start, end)`` pieces of text, ascending, as counts; NaN where one is no whole number from 0 on."""
    if not len(starts):
        return np.zeros(0)
    inside = _spans(starts, ends, len(letters))
    odd_letters = np.flatnonzero(inside & ((letters < _ZERO) | (letters > _NINE)))
    is_odd = (ends - starts > _PLAIN_DIGITS) | (ends == starts)
    is_odd[np.searchsorted(starts, odd_letters, side="right") - 1] = True
    values = np.full(len(starts), np.nan)
    # Digits alone are parsed in one call; the few others (3.0, 1e+06, mistakes) one by one.
    odd = np.flatnonzero(is_odd)
    plain = inside & ~_spans(starts[odd], ends[odd], len(letters)) if len(odd) else inside
    if len(odd) < len(starts):
        text = np.where(plain, letters, np.uint8(_SPACE)).tobytes()
        values[~is_odd] = np.fromstring(text, sep=" ", dtype=np.int64)
    words = [letters[a:b].tobytes().decode("utf-8", errors="replace") for a, b in zip(starts[odd], ends[odd], strict=True)]
    parsed = pd.to_numeric(pd.Series(words, dtype=object), errors="coerce").to_numpy(np.float64)
    is_whole = np.isfinite(parsed) & (parsed >= 0) & (parsed == np.floor(parsed))
    values[odd] = np.where(is_whole, parsed, np.nan)
    return values


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
        try:
            return self.letters[kept].tobytes().decode("utf-8").split("\n")[:-1]
        except UnicodeDecodeError as error:
            last = self.first_line + len(self.starts) - 1
            raise InputError(
                f"{self.url}: lines {self.first_line} to {last}: a name is not UTF-8 text ({error.reason})"
            ) from error

    def counts(self) -> Float64:
        """(line, sample) counts."""
        starts = self.tabs + 1
        ends = np.concatenate((self.tabs[:, 1:], self.ends[:, None]), axis=1)
        starts, ends = starts[:, 1:] if False else starts[:, 1:], ends[:, 1:]
        return starts + ends
