"""Keys of one store: small documents and chunk objects behind any URL.

Every write of the project goes through ``StoreRoot.put``, ``create``, ``put_if`` and ``remove``, so one place can count,
order or break them in tests.
"""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from zarr.abc.store import Store as ZarrStore

from splicestore.errors import ConfigError, SpliceStoreError, StoreError, TransferError
from splicestore.storage.backends import Backend, Tagged, open_backend, replace_file
from splicestore.storage.blocks import IndexCache

__all__ = ["StoreRoot", "io_errors", "replace_file"]

REQUESTS_IN_FLIGHT = 16
"""Small documents asked for at once where each costs a round trip."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@contextmanager
def io_errors(url: str, what: str) -> Iterator[None]:
    """Turn I/O errors of the libraries into ours, with the URL."""
    try:
        yield
    except (FileNotFoundError, SpliceStoreError):
        raise
    except (NotADirectoryError, FileExistsError) as error:
        if what == "reading":
            raise
        raise ConfigError(f"{url}: a file stands where a folder is needed; name another place") from error
    except PermissionError as error:
        raise TransferError(f"{url}: {what} is not allowed here ({error.strerror}); check the permissions") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise TransferError(
                f"{url}: {what} failed, no space left ({error.strerror}); free space and run the same command "
                "again, it goes on where it stopped"
            ) from error
        raise TransferError(f"{url}: {what} failed: {error}") from error


class ReadCount:
    """Counts reads from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.n = 0

    def add(self) -> None:
        """One more."""
        with self._lock:
            self.n += 1


@dataclass(frozen=True)
class StoreRoot:
    """A store's address: URL plus the options that open it. Picklable, holds no connection."""

    url: str
    """Path or URL of the store, without a trailing slash."""
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Passed to the storage library; never written or printed anywhere."""

    def __post_init__(self) -> None:
        if self.url.endswith("://"):
            raise ConfigError(f"{self.url}: names no place; write {self.url}BUCKET/PREFIX or another whole URL")
        object.__setattr__(self, "url", self.url.rstrip("/") or "/")

    def __getstate__(self) -> dict[str, Any]:
        # Handles stay behind: a connection must never cross a process border.
        return {"url": self.url, "storage_options": dict(self.storage_options)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @cached_property
    def backend(self) -> Backend:
        """Where the keys live."""
        return open_backend(self.url, self.storage_options)

    @cached_property
    def indexes(self) -> IndexCache:
        """Shard indexes read so far; generations never change, so they never go stale."""
        return IndexCache()

    @cached_property
    def reads(self) -> ReadCount:
        """Reads through this root so far."""
        return ReadCount()

    def url_of(self, key: str) -> str:
        """URL of a key, for messages and for plain readers."""
        return f"{self.url}/{key}" if key else self.url

    def zarr_store(self, key: str = "", *, read_only: bool = False) -> ZarrStore:
        """Return a zarr store rooted at ``key``."""
        return self.backend.zarr_store(key, read_only=read_only)

    # -- reading ---------------------------------------------------------------------------------------------

    def read(self, key: str) -> Tagged | None:
        """Read a small document with what identifies this version of it; None if there is none."""
        self.reads.add()
        with io_errors(self.url_of(key), "reading"):
            return self.backend.get(key)

    def get(self, key: str) -> bytes | None:
        """Read a small document; None if there is none."""
        found = self.read(key)
        return None if found is None else found.data

    def get_json(self, key: str) -> dict[str, Any] | None:
        """Read a JSON document; None if there is none.

        Raises
        ------
        StoreError
            If it is no JSON object.
        """
        data = self.get(key)
        if data is None:
            return None
        try:
            return dict(json.loads(data))
        except ValueError as error:
            raise StoreError(
                f"{self.url_of(key)}: not valid JSON ({error}); the document is damaged, `splicestore verify` says more"
            ) from error

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes from ``start`` on (fewer where the object ends before); FileNotFoundError if absent."""
        self.reads.add()
        with io_errors(self.url_of(key), "reading"):
            return self.backend.get_range(key, start, length)

    def get_suffix(self, key: str, length: int) -> bytes | None:
        """Read the last ``length`` bytes; None if the object is absent."""
        self.reads.add()
        with io_errors(self.url_of(key), "reading"):
            return self.backend.get_suffix(key, length)

    def sizes(self, prefix: str) -> dict[str, int]:
        """List every object below a prefix as {key relative to the prefix: size in bytes}."""
        with io_errors(self.url_of(prefix), "listing"):
            return self.backend.sizes(prefix)

    def ages(self, prefix: str) -> dict[str, float]:
        """List every object below a prefix, unfinished files too, with the POSIX time of its last change."""
        with io_errors(self.url_of(prefix), "listing"):
            return self.backend.ages(prefix)

    def size(self, key: str) -> int | None:
        """Size of one object in bytes; None if it does not exist."""
        with io_errors(self.url_of(key), "reading"):
            return self.backend.size(key)

    def children(self, prefix: str) -> list[str]:
        """Names directly below a prefix, sorted."""
        with io_errors(self.url_of(prefix), "listing"):
            return self.backend.children(prefix)

    def gather(self, function: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
        """Apply a reading function to items, several at once where each costs a round trip; in order."""
        todo: Sequence[Item] = list(items)
        if self.backend.is_local or len(todo) < 2:
            return [function(item) for item in todo]
        with ThreadPoolExecutor(min(REQUESTS_IN_FLIGHT, len(todo))) as pool:
            return list(pool.map(function, todo))

    # -- writing ---------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole: readers see the old or the new one, never a part."""
        with io_errors(self.url_of(key), "writing"):
            self.backend.put(key, data)

    def create(self, key: str, data: bytes) -> bytes:
        """Write a document unless one is there; return what is there now."""
        with io_errors(self.url_of(key), "writing"):
            while True:
                if self.backend.create(key, data):
                    return data
                # Gone again, where another took it away in between.
                if (present := self.backend.get(key)) is not None:
                    return present.data

    def put_if(self, key: str, data: bytes, tag: Any) -> bool:
        """Write a document if it still is the version of ``tag`` (None: absent); False if it changed meanwhile."""
        with io_errors(self.url_of(key), "writing"):
            return self.backend.put_if(key, data, tag)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that do not exist are passed over."""
        for key in keys:
            with io_errors(self.url_of(key), "removing"):
                self.backend.remove(key)
