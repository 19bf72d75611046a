"""Opening input files: any fsspec URL, decompressed, with errors that name the file."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from isal import igzip
from isal.igzip_lib import IsalError

from splicestore.errors import InputError, TransferError
from splicestore.schema import InputDigest
from splicestore.storage.backends import object_errors, read_whole
from splicestore.storage.bgzf import BgzfReader, is_bgzf
from splicestore.storage.keys import io_errors
from splicestore.storage.object_options import OBJECT_SCHEMES, open_object_store

GZIP_MAGIC = b"\x1f\x8b"
READ_BYTES = 4 * 1024 * 1024
BUFFER_BYTES = 1024 * 1024
_HEAD_BYTES = 64

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

    def places(self) -> InputPlaces:
        if self._url.startswith(("http:", "https:")):
            # Not every web server answers ranges, and it is known only when a read fails.
            return InputPlaces(((0, 0),))
        if isinstance(self._payload, BgzfReader):
            return InputPlaces(tuple(self._payload.checkpoints))
        return InputPlaces(None if self._payload is self._raw else ((0, 0),))


@dataclass(frozen=True, slots=True)
class InputPlaces:
    """Where reading of a decompressed input may begin."""

    checkpoints: tuple[tuple[int, int], ...] | None
    """(stored offset, decompressed offset), ascending; None: anywhere, the file is not compressed."""

    @property
    def is_seekable(self) -> bool:
        """Whether a part can be read without what comes before it."""
        return self.checkpoints is None or len(self.checkpoints) > 1

    def before(self, text: int) -> tuple[int, int]:
        """Return (stored offset to begin at, decompressed bytes to skip) that lead to a decompressed offset."""
        if self.checkpoints is None:
            return text, 0
        stored, first = self.checkpoints[bisect_right(self.checkpoints, text, key=lambda c: c[1]) - 1]
        return stored, text - first


def input_places(stream: BinaryIO) -> InputPlaces:
    """Tell where reading may begin, of an input from ``open_input`` that was read to its end."""
    return cast("Any", stream).raw.places()


class _ObjectStream(io.RawIOBase):
    """An object of an object store as a file: read in ranges, whole or from any place."""

    def __init__(self, url: str, storage_options: Mapping[str, Any]) -> None:
        folder, _, self._key = url.rpartition("/")
        self._url, self._at = url, 0
        self._store = open_object_store(folder, storage_options)
        with object_errors(folder, self._key, "reading"):
            self._size = int(self._store.head(self._key)["size"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        n = min(len(buffer), self._size - self._at)
        if n <= 0:
            return 0
        with object_errors(self._url, "", "reading"):
            data = read_whole(lambda: bytes(self._store.get_range(self._key, start=self._at, length=n)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def is_object_url(url: str) -> bool:
    """Whether a URL names an object of an object store."""
    return url.split("://", 1)[0].lower() in OBJECT_SCHEMES if "://" in url else False


def _fsspec_options(url: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options for fsspec; those of an object store mean nothing to a local path or a web server."""
    is_plain = "://" not in url or url.split("://", 1)[0] in ("file", "local", "http", "https", "memory")
    return {} if is_plain else dict(storage_options or {})


def _open_raw(url: str, storage_options: Mapping[str, Any] | None) -> BinaryIO:
    try:
        if is_object_url(url):
            stream = _ObjectStream(url, dict(storage_options or {}))
            return cast("BinaryIO", io.BufferedReader(stream, buffer_size=READ_BYTES))
        return cast("BinaryIO", fsspec.open(url, mode="rb", **_fsspec_options(url, storage_options)).open())
    except FileNotFoundError as error:
        raise InputError(f"{url}: no such file; check the path in the configuration") from error
    except IsADirectoryError as error:
        raise InputError(f"{url}: is a folder, a file was expected") from error
    except TransferError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise TransferError(f"{url}: cannot be opened: {error}") from error


def open_input(url: str, *, storage_options: Mapping[str, Any] | None = None, start: int = 0) -> BinaryIO:
    """Open an input for reading as decompressed bytes.

    Parameters
    ----------
    url
        A path or any URL that fsspec knows.
    storage_options
        Passed to the storage library.
    start
        Stored offset to begin at, one of ``InputPlaces``.

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
    raw.seek(start)
    head = raw.read(_HEAD_BYTES)
    raw.seek(start)
    payload: Any = raw
    if is_bgzf(head):
        payload = BgzfReader(url, raw)
    elif head.startswith(GZIP_MAGIC):
        payload = igzip.IGzipFile(fileobj=raw)
    return cast("BinaryIO", io.BufferedReader(_InputStream(url, raw, payload), buffer_size=BUFFER_BYTES))


def open_seekable(url: str, *, storage_options: Mapping[str, Any] | None = None) -> BinaryIO:
    """Open an input for reading in any order, its bytes as they are stored.

    Raises
    ------
    InputError, TransferError
        As ``open_input``.
    """
    return _open_raw(url, storage_options)


def local_path(url: str) -> str | None:
    """Path of an input on this machine's file system; None for what lies elsewhere.

    Raises
    ------
    InputError
        If there is no such file.
    """
    path = url.removeprefix("file://")
    if "://" in path:
        return None
    _open_raw(path, None).close()
    return path


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
    return input_size(url, storage_options=storage_options) is not None


def input_size(url: str, *, storage_options: Mapping[str, Any] | None = None) -> int | None:
    """Stored size of an input in bytes; None if there is none."""
    with io_errors(url, "reading"):
        try:
            if is_object_url(url):
                folder, _, key = url.rpartition("/")
                with object_errors(folder, key, "reading"):
                    return int(open_object_store(folder, dict(storage_options or {})).head(key)["size"])
            filesystem, path = fsspec.core.url_to_fs(url, **_fsspec_options(url, storage_options))
            return int(filesystem.size(path) or 0) if filesystem.exists(path) else None
        except FileNotFoundError:
            return None


def absolute_url(url: str) -> str:
    """Spell a path from the root, so that it can be found again from another folder; URLs stay."""
    return url if "://" in url else str(Path(url).absolute())
