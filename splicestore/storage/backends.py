"""Where keys live: files of this machine, an object store, or anything fsspec opens.

One face for all: whole small reads, ranges, whole writes, conditional writes, listings. Retries, timeouts and
credentials are the libraries' own, configured in ``object_options``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import fsspec
import zarr.storage
from zarr.abc.store import Store as ZarrStore

from splicestore.errors import ConfigError, StoreError, TransferError
from splicestore.storage.object_options import HTTP_SCHEMES, OBJECT_SCHEMES, open_object_store, split_bucket

Answer = TypeVar("Answer")

ROOT_DOCUMENT = "zarr.json"
"""Every store has it."""
PARTIAL = ".partial"
"""Ending of files that are being written; never listed."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """A document and what identifies this version of it."""

    data: bytes
    tag: Any


class Backend(Protocol):
    """Keys of one store. A missing key reads as None; everything else that fails raises."""

    @property
    def is_local(self) -> bool:
        """Whether keys are files of this machine."""
        ...

    @property
    def swaps(self) -> bool:
        """Whether ``put_if`` is atomic here."""
        ...

    def get(self, key: str) -> Tagged | None: ...
    def get_range(self, key: str, start: int, length: int) -> bytes: ...
    def get_suffix(self, key: str, length: int) -> bytes | None: ...
    def put(self, key: str, data: bytes) -> None: ...
    def create(self, key: str, data: bytes) -> bool:
        """Write unless the key exists; False if it does."""
        ...

    def put_if(self, key: str, data: bytes, tag: Any) -> bool:
        """Write if the key still holds the version of ``tag`` (None: is absent); False if not."""
        ...

    def size(self, key: str) -> int | None: ...
    def sizes(self, prefix: str) -> dict[str, int]:
        """Every object below a prefix: {key relative to the prefix: bytes}."""
        ...

    def ages(self, prefix: str) -> dict[str, float]:
        """Like ``sizes``, unfinished files included: {key: POSIX time of the last change}."""
        ...

    def children(self, prefix: str) -> list[str]: ...
    def remove(self, key: str) -> None: ...
    def zarr_store(self, prefix: str, *, read_only: bool) -> ZarrStore: ...


def open_backend(url: str, options: Mapping[str, Any]) -> Backend:
    """Choose the backend of a URL.

    Raises
    ------
    StoreError
        If no library knows this kind of URL.
    """
    scheme = url.split("://", 1)[0].lower() if "://" in url else "file"
    if scheme in OBJECT_SCHEMES or scheme in HTTP_SCHEMES:
        return ObjectBackend(url, dict(options))
    if scheme in ("file", "local"):
        return LocalBackend(Path(url.split("://", 1)[-1]).absolute())
    return FsspecBackend(url, dict(options))


_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

# -- this machine ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """Files below a folder. A write is a file aside, flushed to disk, renamed into place."""

    folder: Path
    is_local = True
    swaps = True

    def get(self, key: str) -> Tagged | None:
        try:
            data = (self.folder / key).read_bytes()
        except _NO_FILE:
            return None
        return Tagged(data, hashlib.sha256(data).digest())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with (self.folder / key).open("rb", buffering=0) as stream:
            return os.pread(stream.fileno(), length, start)

    def get_suffix(self, key: str, length: int) -> bytes | None:
        try:
            with (self.folder / key).open("rb", buffering=0) as stream:
                size = os.fstat(stream.fileno()).st_size
                return os.pread(stream.fileno(), length, max(0, size - length))
        except _NO_FILE:
            return None

    def put(self, key: str, data: bytes) -> None:
        replace_file(self.folder / key, data)

    def create(self, key: str, data: bytes) -> bool:
        return create_file(self.folder / key, data)

    def put_if(self, key: str, data: bytes, tag: Any) -> bool:
        target = self.folder / key
        if tag is not None and not target.exists():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent):
            now = self.get(key)
            if (now.tag if now else None) != tag:
                return False
            replace_file(target, data)
            return True

    def size(self, key: str) -> int | None:
        try:
            status = (self.folder / key).stat()
        except _NO_FILE:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def sizes(self, prefix: str) -> dict[str, int]:
        return {key: status.st_size for key, status in self._walk(prefix) if not key.endswith(PARTIAL)}

    def ages(self, prefix: str) -> dict[str, float]:
        return {key: status.st_mtime for key, status in self._walk(prefix)}

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        base = self.folder / prefix
        for folder, _, names in os.walk(base):
            for name in names:
                path = Path(folder, name)
                # A racing writer may have renamed its file between the listing and the look.
                with contextlib.suppress(FileNotFoundError):
                    yield path.relative_to(base).as_posix(), path.stat()

    def children(self, prefix: str) -> list[str]:
        try:
            return sorted(os.listdir(self.folder / prefix))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)
        # Folders exist only for what is in them, as prefixes do.
        for parent in (self.folder / key).parents:
            if parent == self.folder:
                return
            try:
                parent.rmdir()
            except OSError:
                return

    def zarr_store(self, prefix: str, *, read_only: bool) -> ZarrStore:
        return zarr.storage.LocalStore(self.folder / prefix, read_only=read_only)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's advisory lock; it goes with the process, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            # File systems without locks: the lease alone keeps writers apart there.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF):
                raise
        yield
    finally:
        os.close(descriptor)


def _write_aside(target: Path, data: bytes, *, durable: bool) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.", suffix=PARTIAL)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        aside.chmod(0o644)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return aside


def replace_file(target: Path, data: bytes) -> None:
    """Write a file aside, flush it to disk, and rename it into place."""
    # A prune may take the empty folder away between its making and the file.
    with contextlib.suppress(FileNotFoundError):
        _write_aside(target, data, durable=True).replace(target)
        return
    _write_aside(target, data, durable=True).replace(target)


def create_file(target: Path, data: bytes) -> bool:
    """Write a file unless it exists; False if it does."""
    if target.exists():
        return False
    # Metadata of an unfinished generation: a run that meets a damaged one stops and says so.
    aside = _write_aside(target, data, durable=False)
    try:
        # link() fails if the name exists: create-if-absent without a lock.
        os.link(aside, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # No hard links on this file system: metadata of one plan is the same bytes whoever writes it last.
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return True


# -- object stores -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObjectBackend:
    """``s3://`` (and ``https://``, to read) through obstore. Picklable: connections are opened where they are used."""

    url: str
    options: dict[str, Any]

    is_local = False
    swaps = True

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @property
    def _store(self) -> Any:
        refuse_fork()
        return self._opened

    @cached_property
    def _opened(self) -> Any:
        return open_object_store(self.url, self.options)

    def get(self, key: str) -> Tagged | None:
        with object_errors(self.url, key, "reading"):
            try:
                return read_whole(lambda: self._tagged(key))
            except _absent_errors() as error:
                self._refuse_unless_absent(key, error)
                return None

    def _tagged(self, key: str) -> Tagged:
        answer = self._store.get(key)
        return Tagged(bytes(answer.bytes()), answer.meta["e_tag"])

    def get_range(self, key: str, start: int, length: int) -> bytes:
        from obstore.exceptions import BaseError

        with object_errors(self.url, key, "reading"):
            try:
                return read_whole(lambda: bytes(self._store.get_range(key, start=start, length=length)))
            except _absent_errors() as error:
                self._refuse_unless_absent(key, error)
                raise FileNotFoundError(f"{self.url}/{key}") from error
            except BaseError as error:
                if _is_behind_the_end(error):
                    return b""
                raise

    def get_suffix(self, key: str, length: int) -> bytes | None:
        from obstore.exceptions import BaseError

        with object_errors(self.url, key, "reading"):
            try:
                options: Any = {"range": {"suffix": length}}
                return read_whole(lambda: bytes(self._store.get(key, options=options).bytes()))
            except _absent_errors() as error:
                self._refuse_unless_absent(key, error)
                return None
            except BaseError:
                # An empty object has no last byte: S3 refuses the range, others answer without one.
                if self.size(key) == 0:
                    return b""
                raise

    def put(self, key: str, data: bytes) -> None:
        with object_errors(self.url, key, "writing"):
            self._refuse_http()
            try:
                # A multipart upload would make one key many requests, and its parts outlive a kill.
                self._store.put(key, data, use_multipart=False)
            except FileNotFoundError as error:
                self._refuse_no_bucket(error)
                raise

    def create(self, key: str, data: bytes) -> bool:
        return self._put_mode(key, data, "create")

    def put_if(self, key: str, data: bytes, tag: Any) -> bool:
        return self._put_mode(key, data, "create" if tag is None else {"e_tag": tag})

    def _put_mode(self, key: str, data: bytes, mode: Any) -> bool:
        for attempts_left in reversed(range(_CONDITIONAL_ATTEMPTS)):
            with object_errors(self.url, key, "writing"):
                self._refuse_http()
                answer = self._try_put_mode(key, data, mode, may_fail=attempts_left > 0)
            if answer is not None:
                return answer
        raise AssertionError("the last attempt answers or raises")

    def _try_put_mode(self, key: str, data: bytes, mode: Any, *, may_fail: bool) -> bool | None:
        """Put under a condition; None where the answer was lost and the object is not ours."""
        from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

        try:
            self._store.put(key, data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            # A request whose answer was lost is repeated; the one that got through was ours.
            return self._is_now(key, data)
        except FileNotFoundError as error:
            self._refuse_no_bucket(error)
            return False
        except GenericError as error:
            # The library repeats a conditional write on 503, not when the connection breaks: only we can tell whether it
            # got through.
            if not _is_broken_connection(error):
                raise
            if self._is_now(key, data):
                return True
            if not may_fail:
                raise
            return None
        return True

    def _is_now(self, key: str, data: bytes) -> bool:
        now = self.get(key)
        return now is not None and now.data == data

    def size(self, key: str) -> int | None:
        with object_errors(self.url, key, "reading"):
            try:
                return int(self._store.head(key)["size"])
            except _absent_errors() as error:
                self._refuse_unless_absent(key, error)
                return None

    def sizes(self, prefix: str) -> dict[str, int]:
        return {key: int(entry["size"]) for key, entry in self._list(prefix) if not key.endswith(PARTIAL)}

    def ages(self, prefix: str) -> dict[str, float]:
        return {key: entry["last_modified"].timestamp() for key, entry in self._list(prefix)}

    def _list(self, prefix: str) -> Iterator[tuple[str, Any]]:
        base = prefix.rstrip("/")
        self._refuse_listing()
        with object_errors(self.url, prefix, "listing"):
            for chunk in self._store.list(f"{base}/" if base else None):
                for entry in chunk:
                    yield str(entry["path"])[len(base) + 1 if base else 0 :], entry

    def children(self, prefix: str) -> list[str]:
        base = prefix.rstrip("/")
        self._refuse_listing()
        with object_errors(self.url, prefix, "listing"):
            found = self._store.list_with_delimiter(f"{base}/" if base else None)
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def remove(self, key: str) -> None:
        with object_errors(self.url, key, "removing"), contextlib.suppress(FileNotFoundError):
            self._refuse_http()
            self._store.delete(key)

    def zarr_store(self, prefix: str, *, read_only: bool) -> ZarrStore:
        url = f"{self.url}/{prefix}" if prefix else self.url
        return _ZarrObjects(open_object_store(url, self.options), read_only=read_only, backend=self, prefix=prefix)

    def _refuse_unless_absent(self, key: str, error: Exception) -> None:
        """Return where an error means that the key is absent, else raise it.

        S3 answers 403 instead of 404 for an absent key to whoever may not list. If the store's own document can be read,
        the credentials are good and the key is absent.
        """
        if isinstance(error, FileNotFoundError):
            self._refuse_no_bucket(error)
        elif key == ROOT_DOCUMENT or not self._may_read():
            raise error

    def _may_read(self) -> bool:
        # Asked anew each time: rights may be withdrawn, and what may not be read must never pass for absent.
        try:
            self._store.head(ROOT_DOCUMENT)
        except _absent_errors():
            return False
        return True

    def _refuse_no_bucket(self, error: Exception) -> None:
        if "NoSuchBucket" in str(error):
            raise TransferError(
                f"{self.url}: there is no bucket {split_bucket(self.url)[0]!r}; make it, or check its name and the endpoint"
            ) from error

    def _refuse_listing(self) -> None:
        if self.url.startswith("http"):
            raise StoreError(
                f"{self.url}: a store on http(s) cannot be listed, so `ls`, `verify` and `prune` do not work on it; `info` and "
                "reading do, and `splicestore copy` brings it to a disk"
            )

    def _refuse_http(self) -> None:
        if self.url.startswith("http"):
            raise StoreError(f"{self.url}: http(s) stores are read-only; write to a folder or an s3:// URL")


_client_process: int | None = None
# Module state that a fork copies: so its child can tell that the parent's client, whose threads are gone, is all it has.


def refuse_fork() -> None:
    """Note that this process talks to an object store.

    Raises
    ------
    StoreError
        In a process forked from one that did: a request would wait for ever for threads that the fork did not copy.
    """
    global _client_process
    if _client_process not in (None, os.getpid()):
        raise StoreError(
            f"process {os.getpid()} was forked from {_client_process} after that had read from a store on object storage; its "
            "connections did not survive the fork. Start workers afresh: stream.loader(num_workers=...) does, or give DataLoader "
            'multiprocessing_context="spawn"'
        )
    _client_process = os.getpid()


def read_whole(read: Callable[[], Answer]) -> Answer:
    """Read again where a body broke off: the library repeats a request that has no answer, not half an answer."""
    from obstore.exceptions import GenericError

    for attempt in range(_BODY_ATTEMPTS - 1):
        try:
            return read()
        except GenericError as error:
            if "body error" not in str(error):
                raise
            time.sleep(0.05 * 4**attempt)
    return read()


class _ZarrObjects(zarr.storage.ObjectStore[Any]):
    """What zarr reads through: an absent chunk is absent whatever the storage calls it, and errors are ours."""

    def __init__(self, store: Any, *, read_only: bool, backend: ObjectBackend, prefix: str) -> None:
        super().__init__(store, read_only=read_only)
        self._backend, self._prefix = backend, prefix

    def __str__(self) -> str:
        return f"{self._backend.url}/{self._prefix}"

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        with object_errors(str(self), key, "reading"):
            try:
                return await super().get(key, prototype, byte_range)
            except _absent_errors() as error:
                self._backend._refuse_unless_absent(f"{self._prefix}/{key}", error)
                return None


def _absent_errors() -> tuple[type[Exception], ...]:
    from obstore.exceptions import PermissionDeniedError

    return (FileNotFoundError, PermissionDeniedError)


@contextmanager
def object_errors(url: str, key: str, what: str) -> Iterator[None]:
    """Turn obstore's errors into one line with the key; credentials never stand in them."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    where = f"{url}/{key}" if key else url
    try:
        yield
    except BaseError as error:
        line = _first_line(error)
        # A refused listing comes without a class of its own.
        if any(path in line for path in _INSTANCE_METADATA):
            raise TransferError(
                f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, give --storage-option key=... "
                "and secret=..., or anon=true for a public bucket"
            ) from error
        if isinstance(error, UnauthenticatedError | PermissionDeniedError) or line in _REFUSALS:
            right = {"listing": "s3:ListBucket", "writing": "s3:PutObject", "removing": "s3:DeleteObject"}.get(
                what, "s3:GetObject, and s3:ListBucket to tell absent from refused"
            )
            raise TransferError(
                f"{where}: {what} was refused ({line}); check the credentials and what they allow ({right}), "
                "or --storage-option anon=true for a public bucket"
            ) from error
        raise TransferError(
            f"{where}: {what} failed ({line}); when the storage answers again, the same command goes on"
        ) from error


_REFUSALS = ("AccessDenied", "Forbidden", "SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken")


_INSTANCE_METADATA = ("/latest/api/token", "/latest/meta-data/")
"""Where credentials are looked for when there are none at all."""
_CONDITIONAL_ATTEMPTS = 4
_BODY_ATTEMPTS = 4


def _is_behind_the_end(error: Exception) -> bool:
    return "416 Range Not Satisfiable" in str(error) or "InvalidRange" in str(error)


def _is_broken_connection(error: Exception) -> bool:
    text = str(error).split("\nDebug source", 1)[0]
    return "HTTP error" in text or "Server returned non-2xx status code: 5" in text


def _first_line(error: Exception) -> str:
    text = str(error).split("\nDebug source", 1)[0]
    if "<Code>" in text:
        return text.split("<Code>", 1)[1].split("</Code>", 1)[0]
    return " ".join(text.split())[:300]


# -- anything else -----------------------------------------------------------------------------------------------


_memory_lock = threading.Lock()


@dataclass(frozen=True)
class FsspecBackend:
    """``memory://`` and whatever else fsspec opens."""

    url: str
    options: dict[str, Any]

    is_local = False

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @property
    def swaps(self) -> bool:
        return self.url.startswith("memory:")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            filesystem, path = fsspec.core.url_to_fs(self.url, **self.options)
        except (ValueError, ImportError, TypeError) as error:
            raise ConfigError(f"{self.url}: cannot open this kind of URL: {error}") from error
        return filesystem, str(path).rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._opened[1]}/{key}" if key else self._opened[1]

    def get(self, key: str) -> Tagged | None:
        try:
            data = bytes(self._opened[0].cat_file(self._path(key)))
        except (FileNotFoundError, IsADirectoryError):
            return None
        return Tagged(data, hashlib.sha256(data).digest())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return bytes(self._opened[0].cat_file(self._path(key), start=start, end=start + length))

    def get_suffix(self, key: str, length: int) -> bytes | None:
        size = self.size(key)
        return None if size is None else self.get_range(key, max(0, size - length), min(size, length))

    def put(self, key: str, data: bytes) -> None:
        self._opened[0].pipe_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        return self.put_if(key, data, None)

    def put_if(self, key: str, data: bytes, tag: Any) -> bool:
        with _memory_lock:
            now = self.get(key)
            if (now.tag if now else None) != tag:
                return False
            self.put(key, data)
            return True

    def size(self, key: str) -> int | None:
        try:
            found = self._opened[0].info(self._path(key))
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None

    def sizes(self, prefix: str) -> dict[str, int]:
        return {key: int(info["size"]) for key, info in self._find(prefix) if not key.endswith(PARTIAL)}

    def ages(self, prefix: str) -> dict[str, float]:
        filesystem = self._opened[0]
        return {key: filesystem.modified(info["name"]).timestamp() for key, info in self._find(prefix)}

    def _find(self, prefix: str) -> Iterable[tuple[str, Any]]:
        filesystem, base = self._opened[0], f"{self._path(prefix).rstrip('/')}/"
        filesystem.invalidate_cache()
        found = filesystem.find(base, detail=True)
        below = base.lstrip("/")
        names = {str(name).lstrip("/"): info for name, info in found.items()}
        return [(name.removeprefix(below), info) for name, info in names.items() if name.startswith(below)]

    def children(self, prefix: str) -> list[str]:
        filesystem, base = self._opened[0], self._path(prefix).strip("/")
        filesystem.invalidate_cache()
        try:
            entries = filesystem.ls(self._path(prefix), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        # Asked for a file, some file systems list that file.
        paths = [str(entry).strip("/") for entry in entries]
        return sorted(path.rsplit("/", 1)[-1] for path in paths if path != base)

    def remove(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._opened[0].rm_file(self._path(key))

    def zarr_store(self, prefix: str, *, read_only: bool) -> ZarrStore:
        url = f"{self.url}/{prefix}" if prefix else self.url
        return zarr.storage.FsspecStore.from_url(url, storage_options=self.options, read_only=read_only)
