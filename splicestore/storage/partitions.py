"""Partitions: what one task writes, whole write units at a time, and the document that says it is done."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from splicestore.errors import PlanError
from splicestore.schema import ArraySpec, canonical_json
from splicestore.storage.keys import StoreRoot
from splicestore.storage.zarr_codecs import create_array, quiet_zarr


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a partition, as it was written."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Part:
    """What one finished partition left behind."""

    objects: Mapping[str, StoredObject]
    """By key relative to the generation; all-fill write units leave no object."""
    content: str
    """sha256 over the decoded values, in the order they were written."""
    counts: Mapping[str, Any]

    def spell(self) -> bytes:
        """Spell the part document."""
        document = {
            "objects": {key: [o.size, o.sha256] for key, o in self.objects.items()},
            "content": self.content,
            "counts": dict(self.counts),
        }
        return canonical_json(document).encode()

    @classmethod
    def parse(cls, data: bytes) -> Part:
        """Parse a part document; ValueError if it is none."""
        document = json.loads(data)
        try:
            objects = {str(k): StoredObject(int(size), str(sha)) for k, (size, sha) in document["objects"].items()}
            return cls(objects, str(document["content"]), dict(document["counts"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a part document: {error}") from error


@dataclass(frozen=True, slots=True)
class PartitionPlace:
    """Where a partition goes: everything a task needs to write it. Picklable."""

    root: StoreRoot
    base: str
    """Key of the generation."""
    name: str
    specs: tuple[ArraySpec, ...]
    """Of the arrays that it writes to."""

    def open(self) -> PartitionWriter:
        """Begin to write."""
        return PartitionWriter(self)


class PartitionWriter:
    """Collects what one partition writes; whole write units only."""

    def __init__(self, place: PartitionPlace) -> None:
        self._place = place
        self._specs = {spec.name: spec for spec in place.specs}
        self._digest = hashlib.sha256()
        self._objects: dict[str, StoredObject] = {}
        self.counts: dict[str, Any] = {}

    def write(self, array: str, values: NDArray[Any] | Sequence[str], start: int | tuple[int, ...] = 0) -> None:
        """Write a box of an array: ``values`` from ``start`` on, along its leading axes.

        Raises
        ------
        PlanError
            If the box is not whole write units (the last one of an axis may be short): two tasks that share
            a shard would each rewrite the object, and the last would silently win.
        """
        spec, place = self._specs[array], self._place
        shape = values.shape if isinstance(values, np.ndarray) else (len(values),)
        corner = (start,) if isinstance(start, int) else start
        box = [slice(a, a + n) for a, n in zip((*corner, *(0,) * (len(shape) - len(corner))), shape, strict=True)]
        for axis, (part, unit, size) in enumerate(zip(box, spec.write_unit, spec.shape, strict=True)):
            if part.start % unit or (part.stop % unit and part.stop != size):
                raise PlanError(
                    f"{place.base}/{array}: {part.start}:{part.stop} on axis {axis} is not whole write units of {unit}"
                )
        for key, data in encode_box(spec, tuple(box), values).items():
            place.root.put(f"{place.base}/{key}", data)
            self._objects[key] = StoredObject(len(data), hashlib.sha256(data).hexdigest())
        self._digest.update(_content_bytes(values))

    def close(self) -> Part:
        """Write the part document: from now on this partition is not redone."""
        place = self._place
        part = Part(self._objects, self._digest.hexdigest(), self.counts)
        place.root.put(part_key(place.base, place.name), part.spell())
        return part


def part_key(base: str, name: str) -> str:
    """Key of a partition's document."""
    return f"{base}/parts/{name}.json"


def encode_box(spec: ArraySpec, box: tuple[slice, ...], values: NDArray[Any] | Sequence[str]) -> dict[str, bytes]:
    """Encode whole write units of an array as the objects zarr would store, by key relative to the generation.

    In memory, so that every object is written whole, by one PUT, with a known digest, and nothing that was stored
    before is read.
    """
    data: Any = values
    if spec.dtype == "string":
        data = np.asarray(list(values), dtype=np.dtypes.StringDType())
    if not data.size:
        return {}
    documents: dict[str, Any] = {}
    with quiet_zarr():
        group = zarr.create_group(store=zarr.storage.MemoryStore(documents), zarr_format=3)
        array = create_array(group, spec)
        array[box] = data
    return {key: value.to_bytes() for key, value in sorted(documents.items()) if not key.endswith("zarr.json")}


def unit_keys(spec: ArraySpec) -> list[str]:
    """Keys of all objects an array may have, relative to the generation."""
    units = [range(-(-size // unit)) for size, unit in zip(spec.shape, spec.write_unit, strict=True)]
    return [f"{spec.name}/c/{'/'.join(map(str, index))}" for index in itertools.product(*units)]


def _content_bytes(values: NDArray[Any] | Sequence[str]) -> bytes:
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OTU":
        return np.ascontiguousarray(values).tobytes()
    return "\0".join(str(v) for v in values).encode()
