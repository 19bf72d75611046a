"""How arrays are spelled in Zarr: codecs, shards, fill values, and the two warnings we answer for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import WrapperStore

from splicestore.schema import ArraySpec


@contextmanager
def quiet_zarr() -> Iterator[None]:
    """Silence, by message, the two zarr warnings that our layout provokes on purpose.

    Consolidated metadata is used per generation although Zarr v3 does not specify it yet; ``plan.json``,
    ``manifest.json`` and ``parts`` lie beside arrays although they are not Zarr objects.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component of a Zarr")
        yield


def create_array(group: Any, spec: ArraySpec) -> Any:
    """Create one array in a zarr group as its specification says.

    zstd carries its own checksum here, blosc is followed by one: without it a flipped bit decodes to other values without an
    error.
    """
    compressors: list[BytesBytesCodec] = [ZstdCodec(level=spec.level, checksum=True)]
    if spec.shuffled:
        compressors = [BloscCodec(cname="zstd", clevel=spec.level, shuffle="shuffle"), Crc32cCodec()]
    return group.create_array(
        spec.name,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=tuple(max(1, c) for c in spec.chunks),
        shards=spec.shards,
        compressors=compressors,
        fill_value=spec.fill_value,
        dimension_names=spec.dimensions,
        attributes=dict(spec.attributes),
    )


class _CheckedMetadata(WrapperStore[Store]):
    """A store whose group document was read and checked before: it is not asked for again."""

    def __init__(self, store: Store, document: bytes) -> None:
        super().__init__(store)
        self._document = document

    def __str__(self) -> str:
        return str(self._store)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if key == "zarr.json" and byte_range is None:
            return prototype.buffer.from_bytes(self._document)
        return await self._store.get(key, prototype, byte_range)


def open_group(store: Store, document: bytes) -> zarr.Group:
    """Open a published generation read-only through its consolidated metadata, which was read before."""
    with quiet_zarr():
        return zarr.open_group(_CheckedMetadata(store, document), mode="r", zarr_format=3, use_consolidated=True)
