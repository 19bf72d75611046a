"""FASTA: contig names and lengths, and bases as codes, one slab at a time.

Nothing here holds more than a few slabs, whatever the length of a contig or of a line. Line numbers are
found by reading the file again, and only when there is an error to report.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError, close_names
from splicestore.kernels.sequence import CODE_TABLE
from splicestore.storage.inputs import open_input

SLAB_BYTES = 8 * 1024 * 1024
MAX_HEADER_BYTES = 1024 * 1024

_LINE_ENDS = b"\r\n"
_INVALID_CODE = b"\xff"


@dataclass(frozen=True, slots=True)
class FastaContig:
    """One record of a FASTA file."""

    name: str
    """The header up to its first blank."""
    length: int
    """Bases, without line ends."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """Bytes of one header (without ``>`` and line end), or of consecutive sequence lines."""

    is_header: bool
    offset: int
    """Of the first byte, in the decompressed file."""
    data: bytes


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of one record; a record opens with an empty piece."""

    name: str
    codes: bytes


def scan_fasta(url: str, *, storage_options: Mapping[str, Any] | None = None) -> list[FastaContig]:
    """List the contigs of a FASTA file and check every byte of it.

    Parameters
    ----------
    url
        Plain, gzip or bgzip.
    storage_options
        Passed to fsspec.

    Returns
    -------
    contigs
        In file order. Lower case, CRLF, blank lines and a missing last line end are accepted.

    Raises
    ------
    InputError
        If a name comes twice, a record has no name or no bases, text comes before the first header, a byte
        is no IUPAC letter (``-``, ``.`` and ``*`` count as N), or the gzip stream is damaged; with the
        contig, the line and the byte.

    Notes
    -----
    Peak memory is about 4 slabs of 8 MiB.
    """
    lengths: dict[str, int] = {}
    for piece in _read_pieces(url, storage_options):
        lengths[piece.name] = lengths.get(piece.name, 0) + len(piece.codes)
    return [FastaContig(name, length) for name, length in lengths.items()]


def read_fasta_codes(
    url: str, *, wanted: Collection[str] | None = None, storage_options: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the bases of a FASTA file as codes.

    Parameters
    ----------
    url
        Plain, gzip or bgzip.
    wanted
        Contigs to yield; the rest is skipped. By default all.
    storage_options
        Passed to fsspec.

    Yields
    ------
    contig : str
    codes : (n,) uint8
        Read-only, 0..4 for A C G T N, at most 8 MiB. The slabs of a contig follow each other, contigs come
        in file order.

    Raises
    ------
    InputError
        As ``scan_fasta``, and if a wanted contig is not in the file.
    """
    missing = None if wanted is None else set(wanted)
    names = []
    for piece in _read_pieces(url, storage_options):
        if not piece.codes:
            names.append(piece.name)
        if missing is not None:
            missing.discard(piece.name)
        if piece.codes and (wanted is None or piece.name in wanted):
            yield piece.name, np.frombuffer(piece.codes, dtype=np.uint8)
    if missing:
        name = min(missing)
        raise InputError(
            f"{url}: has no contig {name!r} ({len(missing)} of the wanted contigs are missing); "
            f"{close_names(name, names)}"
        )


def _read_pieces(url: str, storage_options: Mapping[str, Any] | None) -> Iterator[_Piece]:
    """Yield checked pieces of all records, each record opened by a piece without codes."""
    names: set[str] = set()
    name: str | None = None
    opened_at, length = 0, 0
    with open_input(url, storage_options=storage_options) as stream:
        for segment in _segments(stream, url):
            if segment.is_header:
                _check_not_empty(url, name, length, opened_at, storage_options)
                name = _contig_name(url, segment, names, storage_options)
                names.add(name)
                opened_at, length = segment.offset, 0
                yield _Piece(name, b"")
                continue
            codes = segment.data.translate(CODE_TABLE, _LINE_ENDS)
            if codes and (name is None or _INVALID_CODE in codes):
                raise _bad_byte(url, name, segment, storage_options)
            if codes and name is not None:
                length += len(codes)
                yield _Piece(name, codes)
    _check_not_empty(url, name, length, opened_at, storage_options)
    if name is None:
        raise InputError(f"{url}: no FASTA record, a line that starts with '>' was expected; check the path")


def _segments(stream: BinaryIO, url: str) -> Iterator[_Segment]:
    """Cut a stream into headers and stretches of sequence lines of at most one slab."""
    offset, carry, at_line_start = 0, b"", True
    while data := stream.read(max(1, SLAB_BYTES - len(carry))):
        data, carry, at = carry + data, b"", 0
        while at < len(data):
            if at_line_start and data.startswith(b">", at):
                stop = data.find(b"\n", at)
                if stop < 0:
                    carry = data[at:]
                    _check_header_size(url, carry)
                    break
                yield _Segment(True, offset + at, data[at + 1 : stop])
                at = stop + 1
                continue
            # A '>' inside a line ends the stretch too; the next one starts with it and is refused as no letter.
            stop = data.find(b">", at + 1)
            stop = len(data) if stop < 0 else stop
            yield _Segment(False, offset + at, data[at:stop])
            at_line_start = data[stop - 1 : stop] == b"\n"
            at = stop
        offset += len(data) - len(carry)
    if carry:
        yield _Segment(True, offset, carry[1:])


def _check_header_size(url: str, header: bytes) -> None:
    if len(header) > MAX_HEADER_BYTES:
        raise InputError(
            f"{url}: the header {header[:40]!r}... is longer than {MAX_HEADER_BYTES} bytes; "
            "line ends must be LF or CRLF, check that the file is FASTA"
        )


def _contig_name(url: str, header: _Segment, known: set[str], storage_options: Mapping[str, Any] | None) -> str:
    """Take the name from a header."""
    words = header.data.split(maxsplit=1)
    blank_first = header.data[:1] in (b" ", b"\t")
    if not words or blank_first:
        line = _line_at(url, header.offset, storage_options)
        raise InputError(
            f"{url}: line {line}: a header without a name ({header.data[:40]!r}); write the name right after '>'"
        )
    try:
        name = words[0].decode("utf-8")
    except UnicodeDecodeError as error:
        line = _line_at(url, header.offset, storage_options)
        raise InputError(f"{url}: line {line}: the contig name {words[0]!r} is not UTF-8 text") from error
    if name in known:
        line = _line_at(url, header.offset, storage_options)
        raise InputError(f"{url}: line {line}: contig {name!r} comes a second time; names must be unique, rename one")
    return name


def _check_not_empty(
    url: str, name: str | None, length: int, offset: int, storage_options: Mapping[str, Any] | None
) -> None:
    if name is not None and length == 0:
        line = _line_at(url, offset, storage_options)
        raise InputError(f"{url}: line {line}: contig {name!r} has no bases; remove the record or copy the file again")


def _bad_byte(url: str, name: str | None, segment: _Segment, storage_options: Mapping[str, Any] | None) -> InputError:
    """Describe the first byte of a segment that may not be there."""
    data = np.frombuffer(segment.data, dtype=np.uint8)
    codes = np.frombuffer(segment.data.translate(CODE_TABLE), dtype=np.uint8)
    wrong = ~np.isin(data, list(_LINE_ENDS)) & ((codes == _INVALID_CODE[0]) | (name is None))
    at = int(np.argmax(wrong))
    byte = segment.data[at : at + 1]
    line = _line_at(url, segment.offset + at, storage_options)
    if name is None:
        return InputError(
            f"{url}: line {line}: text before the first header ({byte!r}); a FASTA file starts with '>', "
            "check the format"
        )
    return InputError(
        f"{url}: line {line}: contig {name!r} has the byte {byte!r} (0x{byte[0]:02x}); allowed are the IUPAC letters "
        "ACGTUNRYSWKMBDHV in either case, '-', '.', '*'; check that the file is DNA and not damaged"
    )


def _line_at(url: str, offset: int, storage_options: Mapping[str, Any] | None) -> int:
    """1-based number of the line that holds a byte of the decompressed file."""
    line = 1
    with open_input(url, storage_options=storage_options) as stream:
        while offset > 0 and (data := stream.read(min(SLAB_BYTES, offset))):
            line += data.count(b"\n")
            offset -= len(data)
    return line
