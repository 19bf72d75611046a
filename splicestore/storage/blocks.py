"""Rows and boxes of one published array, by few range requests per shard: what streams read blocks with.

zarr-python asks for a shard's index at every read and for its inner chunks one after another. Here the index is
kept, the chunks that a range of rows needs are asked for as one run of bytes (those of a box, which need not lie
together, as few), and each is decompressed where it belongs. Only the codec chains that this project writes are
read: little-endian bytes and zstd, or blosc and crc32c, in shards or not.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Literal, Protocol

import google_crc32c
import numpy as np
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray

from splicestore.errors import StoreError

INDEX_CACHE_BYTES = 64 * 1024 * 1024
"""All shard indexes of about 130 human genomes with usage; one is 4 KiB per 32 MiB of bases."""

_INDEX_ENTRY_BYTES = 16
_CHECKSUM_BYTES = 4
_CACHE_ENTRY_OVERHEAD = 512
"""Keys, future and array header of one cached index, roughly; what an absent shard costs."""
_ABSENT = -1
"""A chunk that was never written has 2**64 - 1 for offset and length."""

_MAX_GAP = 64 * 1024
"""Bytes between two chunks that are read along rather than asked for around."""

_DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)
_KNOWN_FIELDS = frozenset(
    ["zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs",
     "attributes", "dimension_names", "storage_transformers"]
)  # fmt: skip
_ADVICE = "`splicestore verify` lists all that is damaged; copy the object again from a good store or ingest again"

_zstd, _blosc = Zstd(), Blosc()
_start_of = itemgetter(0)


class RangeSource(Protocol):
    """Where objects are read from; ``StoreRoot`` is one. Must allow calls from several threads."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes from ``start`` on, fewer where the object ends before; FileNotFoundError if absent."""
        ...

    def get_suffix(self, key: str, length: int) -> bytes | None:
        """Read the last ``length`` bytes; None if the object is absent."""
        ...

    def get(self, key: str) -> bytes | None:
        """Read the object whole; None if it is absent."""
        ...


class IndexCache:
    """Shard indexes held in memory, those not used for longest dropped first. Share one between arrays and threads.

    Threads that miss the same index at once wait for the one request of the first.

    Parameters
    ----------
    max_bytes
        Bound on what is held; an index larger than that is read every time.
    """

    def __init__(self, max_bytes: int = INDEX_CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, Future[NDArray[np.int64] | None]] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}
        self._n_bytes = 0

    @property
    def n_bytes(self) -> int:
        """Bytes held now."""
        return self._n_bytes

    def get(self, key: Hashable, load: Callable[[], NDArray[np.int64] | None]) -> NDArray[np.int64] | None:
        """Return the index of ``key``, loaded on first use; None, remembered too, where there is no shard."""
        with self._lock:
            known = self._held.get(key)
            if known is not None:
                self._held.move_to_end(key)
            else:
                loading: Future[NDArray[np.int64] | None] = Future()
                self._held[key] = loading
        if known is not None:
            return known.result()
        try:
            index = load()
        except BaseException as error:
            with self._lock:
                del self._held[key]
            loading.set_exception(error)
            raise
        with self._lock:
            self._sizes[key] = _CACHE_ENTRY_OVERHEAD + (0 if index is None else index.nbytes)
            self._n_bytes += self._sizes[key]
            self._shrink()
        loading.set_result(index)
        return index

    def _shrink(self) -> None:
        # Indexes still being loaded have no size yet and stay: others wait for them.
        for key in list(self._held) if self._n_bytes > self.max_bytes else []:
            if self._n_bytes <= self.max_bytes:
                return
            if key in self._sizes:
                self._n_bytes -= self._sizes.pop(key)
                del self._held[key]


@dataclass(frozen=True, slots=True)
class _Layout:
    """What an array's ``zarr.json`` says. Everything is (row, column); one-dimensional arrays have one column."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: NDArray[Any]
    chunk: tuple[int, int]
    """What is compressed as one frame."""
    shard: tuple[int, int]
    """What is one object: ``chunk`` itself where the array is not sharded."""
    sharded: bool
    index_first: bool
    separator: str
    compression: Literal["zstd", "blosc"]

    @property
    def n_columns(self) -> int:
        return self.shape[1] if len(self.shape) == 2 else 1

    @property
    def chunks_per_shard(self) -> tuple[int, int]:
        return self.shard[0] // self.chunk[0], self.shard[1] // self.chunk[1]

    @property
    def index_bytes(self) -> int:
        rows, columns = self.chunks_per_shard
        return rows * columns * _INDEX_ENTRY_BYTES + _CHECKSUM_BYTES


class ShardedArray:
    """One array of a published generation, read by ranges of rows, or boxes.

    Published generations never change, so what is cached never goes stale. Safe to use from several threads.
    """

    def __init__(
        self,
        source: RangeSource,
        path: str,
        layout: _Layout,
        indexes: IndexCache,
        check_absent: Callable[[], None] | None = None,
    ) -> None:
        self._source, self._path, self._layout, self._indexes = source, path, layout, indexes
        self._check_absent = check_absent or (lambda: None)
        self._identity = object()  # the cache may outlive this array: its path alone says not which store

    @property
    def n_rows(self) -> int:
        """Length of the first axis."""
        return self._layout.shape[0]

    @classmethod
    def open(
        cls,
        source: RangeSource,
        path: str,
        metadata: Mapping[str, Any],
        *,
        indexes: IndexCache | None = None,
        check_absent: Callable[[], None] | None = None,
    ) -> ShardedArray | None:
        """Open an array by its metadata; nothing is read.

        Parameters
        ----------
        source
            Where its objects are.
        path
            Key of the array, without a trailing slash.
        metadata
            Its ``zarr.json`` document.
        indexes
            Cache of shard indexes to share with other arrays; by default the array has its own.
        check_absent
            Called where an object is not there, before that is taken for fill values: raises if it should be.

        Returns
        -------
        array
            None where codecs, chunk grid or dtype are not those known here: read it with zarr then.
        """
        layout = _parse_layout(metadata)
        return None if layout is None else cls(source, path.rstrip("/"), layout, indexes or IndexCache(), check_absent)

    def __repr__(self) -> str:
        return f"ShardedArray({self._path!r}, shape {self.shape}, {self.dtype})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and columns where there are two dimensions."""
        return self._layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one value."""
        return self._layout.dtype

    def read(self, start: int, end: int, columns: tuple[int, int] | None = None) -> NDArray[Any]:
        """Read rows ``[start, end)``: one range request per shard for all columns, plus its index the first time.

        Parameters
        ----------
        start, end
            Rows of the leading axis, half-open; ``0 <= start <= end <= shape[0]``.
        columns
            Of an array of two dimensions the first, and one past the last; None: all. Chunks that do not lie together in
            a shard cost a request each.

        Returns
        -------
        rows : (end - start,) or (end - start, n_columns)
            A new array. What was never written has the fill value.

        Raises
        ------
        IndexError
            If the rows or columns are not within the array.
        StoreError
            If an object is damaged: a wrong checksum, a frame that does not decompress, a wrong length.
        """
        rows, tasks = self._prepare(start, end, columns=columns)
        for task in tasks:
            task()
        return rows

    def read_into(self, start: int, end: int, out: NDArray[Any]) -> None:
        """Read rows as ``read`` does, into a C-contiguous array of their shape and type.

        Raises
        ------
        IndexError, StoreError
            As ``read``.
        ValueError
            If ``out`` does not fit.
        """
        for task in self._prepare(start, end, out)[1]:
            task()

    def _prepare(
        self, start: int, end: int, out: NDArray[Any] | None = None, columns: tuple[int, int] | None = None
    ) -> tuple[NDArray[Any], list[Callable[[], None]]]:
        """Allocate the rows, or take ``out`` for them; list what fills them, one task per object."""
        layout = self._layout
        if not 0 <= start <= end <= layout.shape[0]:
            raise IndexError(f"{self._path}: rows [{start}, {end}) do not lie in [0, {layout.shape[0]})")
        if columns is not None and len(layout.shape) == 1:
            raise IndexError(f"{self._path}: has one dimension, so no columns {list(columns)}")
        left, right = columns or (0, layout.n_columns)
        if not 0 <= left <= right <= layout.n_columns:
            raise IndexError(f"{self._path}: columns [{left}, {right}) do not lie in [0, {layout.n_columns})")
        shape = (end - start, right - left)[: len(layout.shape)]
        if out is not None and not (out.shape == shape and out.dtype == layout.dtype and out.flags.c_contiguous):
            raise ValueError(
                f"{self._path}: out is {out.dtype} {out.shape}, the rows are {layout.dtype} {shape}, C-contiguous"
            )
        rows = np.empty(shape, layout.dtype) if out is None else out
        table = rows.reshape(end - start, right - left)
        tasks: list[Callable[[], None]] = []
        if table.size == 0:
            return rows, tasks
        height, width = layout.shard
        for i in range(start // height, (end - 1) // height + 1):
            top, bottom = max(start, i * height), min(end, (i + 1) * height)
            for j in range(left // width, (right - 1) // width + 1):
                first, last = max(left, j * width), min(right, (j + 1) * width)
                part = table[top - start : bottom - start, first - left : last - left]
                key = f"{self._path}/c{layout.separator}{i}"
                if len(layout.shape) == 2:
                    key += f"{layout.separator}{j}"
                tasks.append(partial(self._fill_part, key, (top - i * height, first - j * width), part))
        return rows, tasks

    def _fill_part(self, key: str, corner: tuple[int, int], part: NDArray[Any]) -> None:
        """Fill ``part`` (row, column) from one object, whose place ``corner`` is the part's first."""
        if not self._layout.sharded:
            whole = self._source.get(key)
            if whole is None:
                self._check_absent()
                part[...] = self._layout.fill
            else:
                self._place(key, 0, memoryview(whole), corner, part)
            return
        index = self._indexes.get((self._identity, key), partial(self._load_index, key))
        if index is None:
            part[...] = self._layout.fill
            return
        (height, width), (top, left) = self._layout.chunk, corner
        row, column = top // height, left // width
        # Columns of chunks beyond the array's edge are padding, whether stored or not.
        needed = index[row : -(-(top + part.shape[0]) // height), column : -(-(left + part.shape[1]) // width)]
        runs = self._fetch_runs(key, needed)
        for i, line in enumerate(needed.tolist(), start=row):
            above, below = max(0, i * height - top), (i + 1) * height - top
            for j, (offset, length) in enumerate(line, start=column):
                before, behind = max(0, j * width - left), (j + 1) * width - left
                piece = part[above:below, before:behind]
                if offset == _ABSENT:
                    piece[...] = self._layout.fill
                    continue
                start, run = runs[bisect_right(runs, offset, key=_start_of) - 1]
                frame = run[offset - start : offset - start + length]
                self._place(key, offset, frame, (top + above - i * height, left + before - j * width), piece)

    def _fetch_runs(self, key: str, extents: NDArray[np.int64]) -> list[tuple[int, memoryview]]:
        """Fetch the bytes of these frames (..., offset and length), neighbours at once: (start, bytes), in order."""
        present = extents[extents[..., 0] != _ABSENT]
        if not len(present):
            return []
        starts = np.sort(present[:, 0])
        ends = np.maximum.accumulate(present.sum(axis=1)[np.argsort(present[:, 0])])
        breaks = np.flatnonzero(starts[1:] - ends[:-1] > _MAX_GAP) + 1
        bounds = zip([0, *breaks.tolist()], [*breaks.tolist(), len(starts)], strict=True)
        return [self._fetch_run(key, int(starts[first]), int(ends[last - 1])) for first, last in bounds]

    def _fetch_run(self, key: str, start: int, end: int) -> tuple[int, memoryview]:
        try:
            run = self._source.get_range(key, start, end - start)
        except FileNotFoundError as error:
            raise StoreError(
                f"{key}: the object was there when its index was read and is gone; if the generation was pruned, open "
                f"the store again, else {_ADVICE}"
            ) from error
        if len(run) != end - start:
            raise StoreError(f"{key}: bytes [{start}, {end}) were asked for, {len(run)} came: truncated; {_ADVICE}")
        return start, memoryview(run)

    def _place(self, key: str, offset: int, frame: memoryview, corner: tuple[int, int], piece: NDArray[Any]) -> None:
        """Decompress one chunk and put what lies from ``corner`` on, as much as there is, into ``piece``."""
        layout = self._layout
        try:
            # Whole chunks are decompressed where they belong; those at the borders of the range beside it.
            if piece.shape == layout.chunk and piece.flags.c_contiguous:
                _decompress(frame, piece, layout.compression)
                return
            chunk = np.empty(layout.chunk, layout.dtype)
            _decompress(frame, chunk, layout.compression)
        except (RuntimeError, ValueError) as error:
            raise StoreError(
                f"{key}: the chunk at bytes [{offset}, {offset + len(frame)}) is damaged: {error}; {_ADVICE}"
            ) from error
        top, left = corner
        piece[...] = chunk[top : top + piece.shape[0], left : left + piece.shape[1]]

    def _load_index(self, key: str) -> NDArray[np.int64] | None:
        """Read a shard's index: (row, column, 2) offset and length of each chunk, -1 where there is none."""
        layout = self._layout
        if layout.index_first:
            try:
                data: bytes | None = self._source.get_range(key, 0, layout.index_bytes)
            except FileNotFoundError:
                data = None
        else:
            data = self._source.get_suffix(key, layout.index_bytes)
        if data is None:
            self._check_absent()
            return None
        if len(data) != layout.index_bytes:
            raise StoreError(
                f"{key}: its shard index has {layout.index_bytes} bytes, {len(data)} came: truncated; {_ADVICE}"
            )
        pairs, checksum = data[:-_CHECKSUM_BYTES], int.from_bytes(data[-_CHECKSUM_BYTES:], "little")
        if google_crc32c.value(pairs) != checksum:
            raise StoreError(f"{key}: the checksum of its shard index is wrong; {_ADVICE}")
        index = np.frombuffer(pairs, "<i8").astype(np.int64).reshape(*layout.chunks_per_shard, 2)
        absent = (index == _ABSENT).all(axis=-1)
        if not (absent | (index >= (0, 1)).all(axis=-1)).all():
            raise StoreError(f"{key}: its shard index points outside of the object; {_ADVICE}")
        return index


def read_together(
    requests: Sequence[tuple[ShardedArray, int, int] | tuple[ShardedArray, int, int, NDArray[Any] | None]],
    threads: Executor,
) -> list[NDArray[Any]]:
    """Read several ranges at once, such as bases, alpha and beta of one block: one round trip when indexes are known.

    Parameters
    ----------
    requests
        (array, start, end) as ``ShardedArray.read`` takes them, and optionally where the rows go: a C-contiguous array
        of their shape and type.
    threads
        A thread pool. The caller does what no thread has begun, so a call from inside the same pool never hangs.

    Returns
    -------
    rows
        One array per request, in order.

    Raises
    ------
    IndexError, StoreError
        As ``ShardedArray.read``; the first one met.
    ValueError
        If an array to read into does not fit its rows.
    """
    prepared = [array._prepare(*where) for array, *where in requests]
    _run_all([task for _, tasks in prepared for task in tasks], threads)
    return [rows for rows, _ in prepared]


def _run_all(tasks: Sequence[Callable[[], None]], threads: Executor) -> None:
    if not tasks:
        return
    own, *others = tasks
    submitted = [(threads.submit(task), task) for task in others]
    try:
        own()
        # From the end: what was submitted last is most likely still waiting.
        for future, task in reversed(submitted):
            if future.cancel():
                task()
            else:
                future.result()
    except BaseException:
        for future, _ in submitted:
            future.cancel()
        raise


# -- frames ------------------------------------------------------------------------------------------------------


def _decompress(frame: memoryview, out: NDArray[Any], compression: Literal["zstd", "blosc"]) -> None:
    """Decompress one frame into a C-contiguous array that it must fill; ValueError or RuntimeError if it does not."""
    flat = out.reshape(-1).view(np.uint8)
    if compression == "zstd":
        _decompress_zstd(frame, flat)
    else:
        _decompress_blosc(frame, flat)


def _decompress_blosc(frame: memoryview, out: NDArray[np.uint8]) -> None:
    """Decompress a blosc frame and the crc32c after it: blosc has no checksum of its own."""
    data, checksum = bytes(frame[:-_CHECKSUM_BYTES]), int.from_bytes(frame[-_CHECKSUM_BYTES:], "little")
    if google_crc32c.value(data) != checksum:
        raise ValueError("its checksum is wrong")
    announced = int.from_bytes(data[4:8], "little")
    if announced != out.nbytes:
        raise ValueError(f"it holds {announced} bytes, a chunk has {out.nbytes}")
    _blosc.decode(data, out)


def _decompress_zstd(frame: memoryview, out: NDArray[np.uint8]) -> None:
    announced = _announced_size(frame)
    if announced == out.nbytes:
        _zstd.decode(frame, out)
        return
    if announced is not None:
        raise ValueError(f"it holds {announced} bytes, a chunk has {out.nbytes}")
    decoded = _zstd.decode(frame)
    if len(decoded) != out.nbytes:
        raise ValueError(f"it holds {len(decoded)} bytes, a chunk has {out.nbytes}")
    out[:] = np.frombuffer(decoded, np.uint8)


def _announced_size(frame: memoryview) -> int | None:
    """Decoded size that a frame's header announces; None where it does not say (RFC 8878, section 3.1.1.1).

    numcodecs does not say how much of an output it filled: a shorter chunk would leave the rest as it was.
    """
    if bytes(frame[:4]) != b"\x28\xb5\x2f\xfd":
        raise ValueError("it is no zstd frame")
    if len(frame) < 6:
        raise ValueError("its header is cut off")
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    if width == 0:
        return None
    at = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(frame[at : at + width], "little")
    return size + 256 if width == 2 else size


# -- metadata ----------------------------------------------------------------------------------------------------


def _parse_layout(metadata: Mapping[str, Any]) -> _Layout | None:
    try:
        return _known_layout(metadata)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _known_layout(metadata: Mapping[str, Any]) -> _Layout | None:
    """Read a layout; None, or any error of a mapping that is shaped otherwise, where it is not known here."""
    shape = tuple(int(n) for n in metadata["shape"])
    name = metadata["data_type"]
    keys, grid = metadata["chunk_key_encoding"], metadata["chunk_grid"]
    known = (
        _KNOWN_FIELDS.issuperset(metadata)
        and (metadata["zarr_format"], metadata["node_type"]) == (3, "array")
        and not metadata.get("storage_transformers")
        and name in _DTYPES
        and len(shape) in (1, 2)
        and keys["name"] == "default"
        and grid["name"] == "regular"
    )
    if not known:
        return None
    dtype = np.dtype(name).newbyteorder("<")
    codecs = [_name_and_configuration(codec) for codec in metadata["codecs"]]
    grid_chunk = _two_sides(grid["configuration"]["chunk_shape"], len(shape))
    chunk, index_first = grid_chunk, False
    sharded = [name for name, _ in codecs] == ["sharding_indexed"]
    if sharded:
        _, sharding = codecs[0]
        codecs = [_name_and_configuration(codec) for codec in sharding["codecs"]]
        chunk = _two_sides(sharding["chunk_shape"], len(shape))
        index_codecs = [_name_and_configuration(codec) for codec in sharding["index_codecs"]]
        location = sharding.get("index_location", "end")
        index_first = location == "start"
        index_known = index_codecs == [("bytes", {"endian": "little"}), ("crc32c", {})] and location in ("start", "end")
        if not index_known or any(outer % inner for outer, inner in zip(grid_chunk, chunk, strict=True)):
            return None
    compression = _compression(codecs, dtype.itemsize)
    if compression is None:
        return None
    separator = (keys.get("configuration") or {}).get("separator", "/")
    if separator not in ("/", "."):
        return None
    fill = _parse_fill(metadata["fill_value"], dtype)
    return _Layout(shape, dtype, fill, chunk, grid_chunk, sharded, index_first, separator, compression)


def _name_and_configuration(codec: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(codec, str):
        return codec, {}
    return codec["name"], dict(codec.get("configuration") or {})


def _two_sides(sides: Sequence[int], n_dimensions: int) -> tuple[int, int]:
    if len(sides) != n_dimensions or min(sides) < 1:
        raise ValueError(f"a chunk of {n_dimensions} dimensions has no sides {sides}")
    return int(sides[0]), int(sides[1]) if n_dimensions == 2 else 1


def _compression(codecs: Sequence[tuple[str, Mapping[str, Any]]], itemsize: int) -> Literal["zstd", "blosc"] | None:
    names, endian = [name for name, _ in codecs], codecs[0][1].get("endian")
    if endian != "little" and not (endian is None and itemsize == 1):
        return None
    if names == ["bytes", "zstd"]:
        return "zstd"
    return "blosc" if names == ["bytes", "blosc", "crc32c"] else None


def _parse_fill(value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read a fill value as Zarr spells it: a number, ``NaN``, ``Infinity``, ``-Infinity`` or the bits in hexadecimal."""
    if value is None:
        raise TypeError("a fill value is never null in Zarr v3")
    if isinstance(value, str) and value.startswith("0x"):
        return np.array(int(value, 16), f"<u{dtype.itemsize}").view(dtype)
    return np.array(float(value) if isinstance(value, str) else value).astype(dtype, casting="unsafe")
