"""Opening input files: any fsspec URL, decompressed, with errors that name the file."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

import fsspec
from isal import igzip
from isal.igzip_lib import IsalError

from splicestore.errors import InputError, TransferError
from splicestore.schema import InputDigest

GZIP_MAGIC = b"\x1f\x8b"
READ_BYTES = 4 * 1024 * 1024

_DAMAGED: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error, cast("type[Exception]", IsalError))


class _InputStream(io.RawIOBase):
    """Decompressed bytes of one input; turns damage into an ``InputError`` that names the URL."""

    def __init__(self, url: str, raw: BinaryIO, payload: BinaryIO) -> None:
        self._url, self._raw, self._payload = url, raw, payload

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._payload.read(len(buffer))
        except EOFError as error:
            raise InputError(
                f"{self._url}: gzip stream ends early, the file is truncated; copy or download it again"
            ) from error
        except _DAMAGED as error:
            raise InputError(f"{self._url}: not readable as gzip ({error}); copy or download it again") from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._payload.close()
            self._raw.close()
        super().close()


def _open_raw(url: str, storage_options: Mapping[str, Any] | None) -> BinaryIO:
    try:
        return cast("BinaryIO", fsspec.open(url, mode="rb", **dict(storage_options or {})).open())
    except FileNotFoundError as error:
        raise InputError(f"{url}: no such file; check the path in the configuration") from error
    except IsADirectoryError as error:
        raise InputError(f"{url}: is a folder, a file was expected") from error
    except (OSError, ValueError, ImportError) as error:
        raise TransferError(f"{url}: cannot be opened: {error}") from error


def open_input(url: str, *, storage_options: Mapping[str, Any] | None = None) -> BinaryIO:
    """Open an input for reading as decompressed bytes.

    Parameters
    ----------
    url
        A path or any URL that fsspec knows.
    storage_options
        Passed to fsspec.

    Returns
    -------
    stream
        Buffered; gzip and bgzip are recognised by their magic number, not by the name.

    Raises
    ------
    InputError
        If the file does not exist, or (while reading) if its gzip stream is truncated or damaged.
    TransferError
        If the storage cannot be reached.
    """
    raw = _open_raw(url, storage_options)
    magic = raw.read(2)
    raw.seek(0)
    payload = cast("BinaryIO", igzip.IGzipFile(fileobj=raw)) if magic == GZIP_MAGIC else raw
    return cast("BinaryIO", io.BufferedReader(_InputStream(url, raw, payload), buffer_size=READ_BYTES))


def input_text_lines(url: str, *, storage_options: Mapping[str, Any] | None = None) -> Iterator[tuple[int, str]]:
    """Yield (1-based line number, line without its end) of a text input.

    Raises
    ------
    InputError
        As ``open_input``, and where a line is not UTF-8.
    """
    with open_input(url, storage_options=storage_options) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(f"{url}: line {number} is not UTF-8 text ({error.reason})") from error


def digest_input(url: str, role: str, *, storage_options: Mapping[str, Any] | None = None) -> InputDigest:
    """Identify an input by size and sha256 of its bytes as stored (compressed where it is)."""
    digest, size = hashlib.sha256(), 0
    with _open_raw(url, storage_options) as raw:
        while data := raw.read(READ_BYTES):
            digest.update(data)
            size += len(data)
    return InputDigest(role=role, size=size, sha256=digest.hexdigest())


def input_exists(url: str, *, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Whether there is a file or object at a URL."""
    filesystem, path = fsspec.core.url_to_fs(url, **dict(storage_options or {}))
    return bool(filesystem.exists(path))
