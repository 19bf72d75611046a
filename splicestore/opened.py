"""One complete generation of anything, opened for reading: metadata once, arrays by the block reader or by zarr."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, overload

import pandas as pd
import zarr
from numpy.typing import NDArray

from splicestore.errors import StoreError, StoreNotFoundError
from splicestore.storage import StoreRoot, open_group, read_group
from splicestore.storage.arrays import read_array
from splicestore.storage.blocks import ShardedArray, read_together
from splicestore.storage.keys import REQUESTS_IN_FLIGHT

Value = TypeVar("Value")
_N_LOCKS = 64


class lazy(Generic[Value]):  # noqa: N801 - used as a decorator
    """A property that is read once for each instance, by as many threads at a time as ask for those of several.

    ``functools.cached_property`` holds one lock for all instances while it reads (until Python 3.12), so threads that read many
    genomes from an object store would wait for one another; later it holds none, so the threads of one genome would all read.
    """

    def __init__(self, read: Callable[[Any], Value]) -> None:
        self._read, self.__doc__ = read, read.__doc__
        # Not in the instances: those are pickled. Two of them seldom share a lock.
        self._locks = tuple(threading.RLock() for _ in range(_N_LOCKS))

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> Value | lazy[Value]:
        if instance is None:
            return self
        with self._lock_of(instance):
            # Not a data descriptor: from now on the instance answers itself.
            if self._name not in instance.__dict__:
                instance.__dict__[self._name] = self._read(instance)
            value: Value = instance.__dict__[self._name]
        return value

    def _lock_of(self, instance: object) -> threading.RLock:
        # An address is a multiple of 16.
        return self._locks[id(instance) // 16 % _N_LOCKS]


class OpenedGeneration:
    """One complete generation: its group for tables, its sharded arrays for reads by the block."""

    def __init__(self, root: StoreRoot, path: str) -> None:
        self._root, self._path = root, path
        self._blocks: dict[str, ShardedArray | None] = {}

    @lazy
    def _document(self) -> bytes:
        return read_complete(self._root, self._path)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the group says of itself, without zarr."""
        found: Mapping[str, Any] = json.loads(self._document)["attributes"]["splicestore"]
        return found

    @lazy
    def group(self) -> zarr.Group:
        """The generation as zarr opens it."""
        return open_group(self._root.zarr_store(self._path, read_only=True), self._document)

    @lazy
    def _metadata(self) -> Mapping[str, Any]:
        metadata: Mapping[str, Any] = json.loads(self._document)["consolidated_metadata"]["metadata"]
        return metadata

    def blocks(self, name: str) -> ShardedArray | None:
        """One array for reads by the block; None if zarr must read it."""
        if name not in self._blocks:
            self._blocks[name] = ShardedArray.open(
                self._root,
                f"{self._path}/{name}",
                self._metadata[name],
                indexes=self._root.indexes,
                check_absent=self._refuse_if_gone,
            )
        return self._blocks[name]

    def _refuse_if_gone(self) -> None:
        """Objects of a generation may be absent; all of them are once it was pruned, and its group document goes first."""
        if self._root.size(f"{self._path}/zarr.json") is None:
            raise StoreNotFoundError(
                f"{self._root.url_of(self._path)}: this generation is gone, probably pruned while it was read; open the store again, "
                f"`splicestore ls {self._root.url}` shows what is there"
            )

    def read(self, name: str, start: int, end: int, columns: tuple[int, int] | None = None) -> NDArray[Any]:
        """Read rows ``[start, end)`` of an array, all columns or from the first to before the last of two."""
        array = self.blocks(name)
        if array is not None:
            return array.read(start, end, columns)
        return read_array(self.group, name, (slice(start, end), *([] if columns is None else [slice(*columns)])))

    def read_all(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read several arrays whole, all their objects at once where each costs a round trip."""
        known = {name: self.blocks(name) for name in names}
        arrays = [(array, 0, array.n_rows) for array in known.values() if array is not None]
        with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as threads:
            values = iter(read_together(arrays, threads))
        return {name: next(values) if array is not None else self.read_whole(name) for name, array in known.items()}

    def read_whole(self, name: str) -> NDArray[Any]:
        """Read an array; numbers without opening the group through zarr, which takes longer than reading them."""
        array = self.blocks(name) if name in self._metadata else None
        return read_array(self.group, name) if array is None else array.read(0, array.n_rows)


def read_complete(root: StoreRoot, path: str) -> bytes:
    """Read the group document of a complete generation; anything else is refused by name."""
    found = read_group(root, path)
    if found is None:
        raise StoreNotFoundError(
            f"{root.url_of(path)}: no such generation; it may have been pruned, `splicestore ls {root.url}` shows what is there"
        )
    attributes, document = found
    if attributes["status"] != "complete":
        raise StoreError(
            f"{root.url_of(path)}: generation is {attributes['status']}, run the command that writes it again"
        )
    return document


def open_generation(root: StoreRoot, path: str) -> zarr.Group:
    """Open one complete generation; anything else is refused by name."""
    return open_group(root.zarr_store(path, read_only=True), read_complete(root, path))


def ledger_frame(group: zarr.Group) -> pd.DataFrame:
    """Read the ledger of any published group."""

    def words(name: str) -> list[str]:
        vocabulary = list(group[name].attrs["vocabulary"])  # type: ignore[arg-type]
        return [str(vocabulary[int(code)]) for code in read_array(group, name)]

    frame = pd.DataFrame(
        {
            "item": words("ledger_item"),
            "identifier": [str(s) for s in read_array(group, "ledger_identifier")],
            "reason": words("ledger_reason"),
            "detail": [str(s) for s in read_array(group, "ledger_detail")],
            "count": read_array(group, "ledger_count"),
        }
    )
    # An empty column of strings would otherwise come out as floats.
    return frame.astype(dict.fromkeys(("item", "identifier", "reason", "detail"), object))
