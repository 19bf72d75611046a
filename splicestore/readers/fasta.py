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
from splicestore.storage.inputs import InputPlaces, input_places, open_input

SLAB_BYTES = 2 * 1024 * 1024
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
class FastaIndex:
    """Contigs of a FASTA file, and where in it their bases are."""

    contigs: tuple[FastaContig, ...]
    """In file order."""
    piece_contig: NDArray[np.int32]
    """(piece,) contig of each stretch of sequence lines, in file order."""
    piece_base: NDArray[np.int64]
    """(piece,) first base of the stretch within its contig."""
    piece_offset: NDArray[np.int64]
    """(piece,) decompressed offset of the stretch."""
    places: InputPlaces

    def piece_of(self, contig: int, base: int) -> int:
        """Last stretch that begins at or before a base of a contig."""
        first, last = np.searchsorted(self.piece_contig, (contig, contig + 1))
        return int(first + np.searchsorted(self.piece_base[first:last], base, side="right") - 1)


@dataclass(frozen=True, slots=True)
class FastaSpan:
    """Where to begin reading so that the next bases are those of ``contig`` from ``base`` on. Picklable."""

    stored: int
    """Offset in the file as stored."""
    skip: int
    """Decompressed bytes to pass over."""
    contig: str
    base: int
    """Within the contig, 0-based."""


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
    offset: int
    """Of its first byte, in the decompressed text that was read."""


def scan_fasta(url: str, *, storage_options: Mapping[str, Any] | None = None) -> FastaIndex:
    """List the contigs of a FASTA file, find where their bases are, and check every byte of it.

    Parameters
    ----------
    url
        Plain, gzip or bgzip.
    storage_options
        Passed to the storage library.

    Returns
    -------
    index
        Contigs in file order. Lower case, CRLF, blank lines and a missing last line end are accepted.

    Raises
    ------
    InputError
        If a name comes twice, a record has no name or no bases, text comes before the first header, a byte
        is no IUPAC letter (``-``, ``.`` and ``*`` count as N), or the gzip stream is damaged; with the
        contig, the line and the byte.

    Notes
    -----
    Peak memory is about 4 slabs of 2 MiB, and 20 bytes a slab.
    """
    lengths: dict[str, int] = {}
    pieces: list[tuple[int, int, int]] = []
    with open_input(url, storage_options=storage_options) as stream:
        for piece in _read_pieces(stream, url, storage_options):
            base = lengths.setdefault(piece.name, 0)
            if piece.codes:
                pieces.append((len(lengths) - 1, base, piece.offset))
                lengths[piece.name] = base + len(piece.codes)
        places = input_places(stream)
    columns = np.array(pieces, dtype=np.int64).reshape(-1, 3)
    contigs = tuple(FastaContig(name, length) for name, length in lengths.items())
    return FastaIndex(contigs, columns[:, 0].astype(np.int32), columns[:, 1].copy(), columns[:, 2].copy(), places)


def span_from(index: FastaIndex, contig: int, base: int) -> FastaSpan:
    """Find the nearest place at or before a base from which a file can be read."""
    piece = index.piece_of(contig, base)
    stored, skip = index.places.before(int(index.piece_offset[piece]))
    return FastaSpan(stored, skip, index.contigs[contig].name, int(index.piece_base[piece]))


def read_fasta_codes(
    url: str,
    *,
    wanted: Collection[str] | None = None,
    span: FastaSpan | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the bases of a FASTA file as codes, from its beginning or from a place inside.

    Parameters
    ----------
    url
        Plain, gzip or bgzip.
    wanted
        Contigs to yield; the rest is skipped. By default all.
    span
        Begin there: the first codes are those of its contig from its base on.
    storage_options
        Passed to the storage library.

    Yields
    ------
    contig : str
    codes : (n,) uint8
        Read-only, 0..4 for A C G T N, at most 2 MiB. The slabs of a contig follow each other, contigs come
        in file order.

    Raises
    ------
    InputError
        As ``scan_fasta``, and if a wanted contig is not in the file.
    """
    missing = None if wanted is None else set(wanted)
    names = []
    start = span.stored if span else 0
    with open_input(url, storage_options=storage_options, start=start) as stream:
        _skip(stream, span.skip if span else 0)
        for piece in _read_pieces(stream, url, storage_options, opened=span.contig if span else None):
            if not piece.codes:
                names.append(piece.name)
            if missing is not None:
                missing.discard(piece.name)
            if piece.codes and (wanted is None or piece.name in wanted):
                yield piece.name, np.frombuffer(piece.codes, dtype=np.uint8)
    if missing and span is None:
        name = min(missing)
        raise InputError(
            f"{url}: has no contig {name!r} ({len(missing)} of the wanted contigs are missing); "
            f"{close_names(name, names)}"
        )


def _skip(stream: BinaryIO, n_bytes: int) -> None:
    while n_bytes > 0 and (data := stream.read(min(SLAB_BYTES, n_bytes))):
        n_bytes -= len(data)


def _read_pieces(
    stream: BinaryIO, url: str, storage_options: Mapping[str, Any] | None, *, opened: str | None = None
) -> Iterator[_Piece]:
    """Yield checked pieces of all records, each record opened by a piece without codes.

    A stream that begins inside a record (``opened``) was checked when it was scanned; its errors count lines from there.
    """
    names: set[str] = set()
    name: str | None = opened
    opened_at, length = 0, 0 if opened is None else 1
    for segment in _segments(stream, url):
        if segment.is_header:
            _check_not_empty(url, name, length, opened_at, storage_options)
            name = _contig_name(url, segment, names, storage_options)
            names.add(name)
            opened_at, length = segment.offset, 0
            yield _Piece(name, b"", segment.offset)
            continue
        codes = segment.data.translate(CODE_TABLE, _LINE_ENDS)
        if codes and (name is None or _INVALID_CODE in codes):
            raise _bad_byte(url, name, segment, storage_options)
        if codes and name is not None:
            length += len(codes)
            yield _Piece(name, codes, segment.offset)
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
