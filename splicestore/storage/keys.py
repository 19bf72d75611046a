"""Keys of one store: small documents and chunk objects behind any URL.

Every write of the project goes through ``StoreRoot.put`` and ``StoreRoot.create`` or through the zarr
store that ``StoreRoot.zarr_store`` hands out, so one place can count, order or break them in tests.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import zarr.storage
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store as ZarrStore

from splicestore.errors import ConfigError, StoreError, TransferError


@contextmanager
def io_errors(url: str, what: str) -> Iterator[None]:
    """Turn I/O errors of the libraries into ours, with the URL."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (NotADirectoryError, FileExistsError) as error:
        if what == "reading":
            raise
        raise ConfigError(f"{url}: a file stands where a folder is needed; name another place") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise TransferError(
                f"{url}: {what} failed, no space left ({error.strerror}); free space and run the same command "
                "again, it goes on where it stopped"
            ) from error
        raise TransferError(f"{url}: {what} failed: {error}") from error


@dataclass(frozen=True)
class StoreRoot:
    """A store's address: URL plus the options that open it. Picklable, holds no connection."""

    url: str
    """Path or URL of the store, without a trailing slash."""
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to fsspec; never written anywhere."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/") or "/")

    def __getstate__(self) -> dict[str, Any]:
        # Filesystem handles stay behind: a connection must never cross a process border.
        return {"url": self.url, "storage_options": dict(self.storage_options)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            filesystem, path = fsspec.core.url_to_fs(self.url, **dict(self.storage_options))
        except (ValueError, ImportError) as error:
            raise StoreError(f"{self.url}: cannot open this kind of URL: {error}") from error
        return filesystem, path

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem behind the URL."""
        return self._opened[0]

    @property
    def is_local(self) -> bool:
        """Whether keys are files of this machine."""
        return isinstance(self.filesystem, LocalFileSystem)

    def path(self, key: str) -> str:
        """Path of a key inside the filesystem."""
        return f"{self._opened[1].rstrip('/')}/{key}" if key else str(self._opened[1])

    def url_of(self, key: str) -> str:
        """URL of a key, for messages and for plain readers."""
        return f"{self.url}/{key}"

    def zarr_store(self, key: str = "", *, read_only: bool = False) -> ZarrStore:
        """Return a zarr store rooted at ``key``."""
        if self.is_local:
            return zarr.storage.LocalStore(self.path(key), read_only=read_only)
        return zarr.storage.FsspecStore.from_url(
            self.url_of(key) if key else self.url, storage_options=dict(self.storage_options), read_only=read_only
        )

    def get(self, key: str) -> bytes | None:
        """Read a small document; None if there is none."""
        try:
            with io_errors(self.url_of(key), "reading"):
                return bytes(self.filesystem.cat_file(self.path(key)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def get_json(self, key: str) -> dict[str, Any] | None:
        """Read a JSON document; None if there is none."""
        data = self.get(key)
        if data is None:
            return None
        try:
            return dict(json.loads(data))
        except ValueError as error:
            raise StoreError(f"{self.url_of(key)}: not valid JSON ({error}); the document is damaged") from error

    def put(self, key: str, data: bytes) -> None:
        """Write a document whole: readers see the old or the new one, never a part."""
        with io_errors(self.url_of(key), "writing"):
            if self.is_local:
                replace_file(Path(self.path(key)), data)
            else:
                self.filesystem.pipe_file(self.path(key), data)

    def create(self, key: str, data: bytes) -> bytes:
        """Write a document unless one is there; return what is there now."""
        with io_errors(self.url_of(key), "writing"):
            if self.is_local:
                return _create_file(Path(self.path(key)), data)
            present = self.get(key)
            if present is not None:
                return present
            self.filesystem.pipe_file(self.path(key), data)
            return data

    def sizes(self, prefix: str) -> dict[str, int]:
        """List every object below a prefix as {key relative to the prefix: size in bytes}."""
        base = self.path(prefix).rstrip("/") + "/"
        with io_errors(self.url_of(prefix), "listing"):
            self.filesystem.invalidate_cache()
            found = self.filesystem.find(base, detail=True)
        plain_base = base.lstrip("/")
        return {
            str(name).lstrip("/").removeprefix(plain_base): int(info["size"])
            for name, info in found.items()
            if not str(name).endswith(".partial")
        }

    def size(self, key: str) -> int | None:
        """Size of one object in bytes; None if it does not exist."""
        try:
            return int(self.filesystem.size(self.path(key)))
        except FileNotFoundError:
            return None

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects of an unfinished generation; those that do not exist are passed over."""
        for key in keys:
            if self.size(key) is not None:
                with io_errors(self.url_of(key), "removing"):
                    self.filesystem.rm_file(self.path(key))

    def children(self, prefix: str) -> list[str]:
        """Names directly below a prefix, sorted."""
        try:
            self.filesystem.invalidate_cache()
            entries = self.filesystem.ls(self.path(prefix), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)


def _write_aside(target: Path, data: bytes, *, durable: bool) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.", suffix=".partial")
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
    _write_aside(target, data, durable=True).replace(target)


def _create_file(target: Path, data: bytes) -> bytes:
    if target.exists():
        return target.read_bytes()
    # Metadata of an unfinished generation: a run that meets a damaged one stops and says so.
    aside = _write_aside(target, data, durable=False)
    try:
        # link() fails if the name exists: create-if-absent without a lock.
        os.link(aside, target)
    except FileExistsError:
        return target.read_bytes()
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # No hard links on this file system: metadata of one plan is the same bytes whoever writes it last.
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return data
