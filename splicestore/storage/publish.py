"""The write sequence: plan, incomplete metadata, partitions with parts, manifest, complete, switch, catalogue.

A generation is named by the digest of its plan, so the same inputs write the same bytes to the same keys:
resuming and racing twins need no lock. A reader follows one pointer per name and never sees a generation
that is not complete. ``docs/format.md`` gives the keys.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from splicestore.errors import FormatError, PartitionMissingError, PlanError, PointerMovedError, StoreError
from splicestore.schema import FORMAT_VERSION, ArraySpec, Plan, canonical_json
from splicestore.storage.catalog import rebuild_catalog
from splicestore.storage.keys import StoreRoot, io_errors
from splicestore.storage.zarr_codecs import create_array, quiet_zarr

logger = logging.getLogger(__name__)

STATUS_INCOMPLETE = "incomplete"
STATUS_COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Pointer:
    """What ``<kind>/<name>/zarr.json`` says."""

    current: Any
    """A generation, or for usage and tracks a map {digest: generation}."""
    superseded: Mapping[str, str]
    """Generation -> UTC time at which it ceased to be current."""

    def generation(self, digest: str | None) -> str | None:
        """Return the current generation (of one digest, where the pointer is a map)."""
        if isinstance(self.current, Mapping):
            return None if digest is None else self.current.get(digest)
        return str(self.current)


def read_pointer(root: StoreRoot, path: str) -> Pointer | None:
    """Read a name's pointer; None if nothing was ever published there."""
    document = root.get_json(f"{path}/zarr.json")
    ours = (document or {}).get("attributes", {}).get("splicestore", {})
    if "current" not in ours:
        return None
    check_format(ours, root.url_of(path))
    return Pointer(current=ours["current"], superseded=ours.get("superseded", {}))


def check_format(attributes: Mapping[str, Any], url: str) -> None:
    """Refuse a store written by an unknown format version."""
    version = attributes.get("format")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{url}: format {version!r}, this release reads format {FORMAT_VERSION}; "
            "upgrade splicestore, or open the store with the release that wrote it"
        )


def group_document(attributes: Mapping[str, Any] | None = None) -> bytes:
    """Spell the ``zarr.json`` of a group."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}
    return json.dumps(document, indent=1, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Part:
    """What one finished partition left behind."""

    objects: Mapping[str, int]
    """Key relative to the generation -> stored size in bytes; all-fill write units leave no object."""
    content: str
    """sha256 over the decoded values, in the order they were written."""
    counts: Mapping[str, int]


class PartitionWriter:
    """Collects what one partition writes; whole write units only."""

    def __init__(self, publication: Publication, name: str) -> None:
        self._publication, self._name = publication, name
        self._digest = hashlib.sha256()
        self._keys: list[str] = []
        self.counts: dict[str, int] = {}

    def write(self, array: str, values: NDArray[Any] | Sequence[str], start: int | tuple[int, ...] = 0) -> None:
        """Write a box of an array: ``values`` from ``start`` on, along its leading axes.

        Raises
        ------
        PlanError
            If the box is not whole write units (the last one of an axis may be short): two tasks that share
            a shard would each rewrite the object, and the last would silently win.
        """
        spec = self._publication.spec(array)
        shape = values.shape if isinstance(values, np.ndarray) else (len(values),)
        corner = (start,) if isinstance(start, int) else start
        box = [slice(a, a + n) for a, n in zip((*corner, *(0,) * (len(shape) - len(corner))), shape, strict=True)]
        for axis, (part, unit, size) in enumerate(zip(box, spec.write_unit, spec.shape, strict=True)):
            if part.start % unit or (part.stop % unit and part.stop != size):
                raise PlanError(
                    f"{self._publication.path}/{array}: {part.start}:{part.stop} on axis {axis} is not whole write units of {unit}"
                )
        self._publication.write_box(spec, tuple(box), values)
        self._digest.update(_content_bytes(values))
        self._keys += _unit_keys(spec, box)

    def close(self) -> Part:
        """Write the part file: from now on this partition is not redone."""
        root, base = self._publication.root, self._publication.base
        sizes = {key: root.size(f"{base}/{key}") for key in self._keys}
        part = Part(
            objects={key: size for key, size in sizes.items() if size is not None},
            content=self._digest.hexdigest(),
            counts=self.counts,
        )
        document = {"objects": dict(part.objects), "content": part.content, "counts": dict(part.counts)}
        root.put(f"{base}/parts/{self._name}.json", canonical_json(document).encode())
        return part


def _content_bytes(values: NDArray[Any] | Sequence[str]) -> bytes:
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OTU":
        return np.ascontiguousarray(values).tobytes()
    return "\0".join(str(v) for v in values).encode()


def _unit_keys(spec: ArraySpec, box: Sequence[slice]) -> list[str]:
    """Keys of the objects that hold a box."""
    units = [range(part.start // unit, -(-part.stop // unit)) for part, unit in zip(box, spec.write_unit, strict=True)]
    return [f"{spec.name}/c/{'/'.join(map(str, index))}" for index in itertools.product(*units)]


@dataclass
class Publication:
    """One generation on its way into the store.

    Examples
    --------
    ::

        publication = Publication(root, "splits/run1", plan, specs, attributes)
        if not publication.is_complete():
            publication.begin()
            if not publication.has_part("all"):
                writer = publication.partition("all")
                writer.write("window_start", starts)
                writer.close()
            publication.finalise(["all"])
        publication.switch()
    """

    root: StoreRoot
    path: str
    """``<kind>/<name>`` (usage and tracks: ``<kind>/<genome>/<name>``)."""
    plan: Plan
    specs: Sequence[ArraySpec]
    attributes: Mapping[str, Any]
    """Group attributes that are known before the first chunk."""
    pointer_digest: str | None = None
    """For pointers that are maps: the digest under which this generation is current."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Versions, paths, options that do not change content; goes to the manifest."""
    force: bool = False

    def __post_init__(self) -> None:
        self.generation = self.plan.generation
        self.base = f"{self.path}/{self.generation}"
        self.pointer_at_start = read_pointer(self.root, self.path)
        self._specs = {spec.name: spec for spec in self.specs}
        self._arrays: dict[str, Any] = {}

    def spec(self, array: str) -> ArraySpec:
        """Return the specification of one of the planned arrays."""
        return self._specs[array]

    def is_complete(self) -> bool:
        """Whether this generation was finished before."""
        document = self.root.get_json(f"{self.base}/zarr.json")
        ours = (document or {}).get("attributes", {}).get("splicestore", {})
        return bool(ours.get("status") == STATUS_COMPLETE)

    def is_current(self) -> bool:
        """Whether readers already see this generation."""
        pointer = read_pointer(self.root, self.path)
        return pointer is not None and pointer.generation(self.pointer_digest) == self.generation

    def begin(self) -> None:
        """Steps 1 and 2: the plan and the incomplete metadata, each created if absent, compared if present."""
        self._create_parents()
        self._create(f"{self.base}/plan.json", self.plan.canonical_json().encode())
        documents = self._metadata_documents(STATUS_INCOMPLETE)
        group = documents.pop("zarr.json")
        self._create(f"{self.base}/zarr.json", group)
        for key, document in documents.items():
            self._create(f"{self.base}/{key}", document)

    def has_part(self, name: str) -> bool:
        """Whether a partition was finished, and its objects are still there with their sizes."""
        document = self.root.get_json(f"{self.base}/parts/{name}.json")
        if document is None:
            return False
        return all(self.root.size(f"{self.base}/{key}") == size for key, size in document["objects"].items())

    def partition(self, name: str) -> PartitionWriter:
        """Open a partition for writing (step 3)."""
        return PartitionWriter(self, name)

    def write_box(self, spec: ArraySpec, box: tuple[slice, ...], values: NDArray[Any] | Sequence[str]) -> None:
        """Write one box of an array through zarr."""
        if spec.name not in self._arrays:
            with quiet_zarr():
                store = self.root.zarr_store(f"{self.base}/{spec.name}")
                self._arrays[spec.name] = zarr.open_array(store, mode="r+", zarr_format=3)
        data: Any = values
        if spec.dtype == "string":
            data = np.asarray(list(values), dtype=np.dtypes.StringDType())
        if data.size:
            with io_errors(self.root.url_of(f"{self.base}/{spec.name}"), "writing"):
                try:
                    self._arrays[spec.name][box] = data
                except (ValueError, RuntimeError):
                    # zarr decodes the shard it is about to replace; one that an earlier run left damaged
                    # must not stand in the way of its own repair.
                    self.root.remove([f"{self.base}/{key}" for key in _unit_keys(spec, box)])
                    self._arrays[spec.name][box] = data

    def finalise(self, parts: Iterable[str], attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Steps 4 to 6: check every part against a listing, write the manifest, mark complete, consolidate.

        Raises
        ------
        PartitionMissingError
            If a part is missing or an object has another size than its part says.
        """
        documents = self._check_parts(list(parts))
        self.attributes = {**self.attributes, **(attributes or {})}
        metadata = self._metadata_documents(STATUS_COMPLETE)
        manifest = {
            "format": FORMAT_VERSION,
            "generation": self.generation,
            "metadata": {key: hashlib.sha256(data).hexdigest() for key, data in sorted(metadata.items())},
            "content": hashlib.sha256("".join(documents[p]["content"] for p in sorted(documents)).encode()).hexdigest(),
            "n_objects": sum(len(d["objects"]) for d in documents.values()),
            "n_bytes": sum(sum(d["objects"].values()) for d in documents.values()),
            "provenance": self.provenance,
        }
        self.root.put(f"{self.base}/manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())
        # Status and consolidated metadata in one PUT: a kill between two would leave a complete group that
        # opens slowly and with a warning, and that no later run touches again.
        self.root.put(f"{self.base}/zarr.json", metadata["zarr.json"])
        return manifest

    def switch(self) -> bool:
        """Steps 7 and 8: make this generation current, rebuild the catalogue; False if it was current before.

        Raises
        ------
        PointerMovedError
            If another generation was published since this run started.
        """
        now = read_pointer(self.root, self.path)
        if now is not None and now.generation(self.pointer_digest) == self.generation:
            rebuild_catalog(self.root)
            return False
        if now != self.pointer_at_start and not self.force:
            raise PointerMovedError(
                f"{self.root.url_of(self.path)}: another writer published {now.current if now else None} while this "
                f"run was under way (it started from {self.pointer_at_start and self.pointer_at_start.current}); "
                "look at what it published, then run the same command again, or add --force"
            )
        self.root.put(f"{self.path}/zarr.json", group_document({"splicestore": self._next_pointer(now)}))
        rebuild_catalog(self.root)
        return True

    def _next_pointer(self, now: Pointer | None) -> dict[str, Any]:
        superseded = dict(now.superseded) if now else {}
        old = now.generation(self.pointer_digest) if now else None
        if old is not None:
            superseded[old] = datetime.now(UTC).isoformat(timespec="seconds")
        superseded.pop(self.generation, None)
        current: Any = self.generation
        if self.pointer_digest is not None:
            current = {**(now.current if now else {}), self.pointer_digest: self.generation}
        return {"format": FORMAT_VERSION, "current": current, "superseded": superseded}

    def _create_parents(self) -> None:
        names = self.path.split("/")
        for depth in range(len(names)):
            key = "/".join([*names[:depth], "zarr.json"])
            self.root.create(key, group_document({"splicestore": {"format": FORMAT_VERSION}} if depth == 0 else None))
        self.root.create(f"{self.path}/zarr.json", group_document())

    def _create(self, key: str, document: bytes) -> None:
        present = self.root.create(key, document)
        if present == document:
            return
        if key.endswith(f"{self.generation}/zarr.json") and self.is_complete():
            return
        raise StoreError(
            f"{self.root.url_of(key)}: holds another document than this run would write; "
            f"the unfinished generation {self.root.url_of(self.base)} is damaged or of another release: remove it and run again"
        )

    def _metadata_documents(self, status: str) -> dict[str, bytes]:
        """Let zarr spell the metadata in memory, so that storage decides how each document is written."""
        ours = {
            "format": FORMAT_VERSION,
            "kind": self.plan.kind,
            "generation": self.generation,
            "status": status,
            **self.attributes,
        }
        documents: dict[str, Any] = {}
        memory = zarr.storage.MemoryStore(documents)
        with quiet_zarr():
            group = zarr.create_group(store=memory, zarr_format=3, attributes={"splicestore": ours})
            for spec in self.specs:
                create_array(group, spec)
            if status == STATUS_COMPLETE:
                zarr.consolidate_metadata(memory, zarr_format=3)
        return {key: value.to_bytes() for key, value in documents.items() if key.endswith("zarr.json")}

    def _check_parts(self, parts: list[str]) -> dict[str, dict[str, Any]]:
        listed = self.root.sizes(self.base)
        missing = [p for p in parts if f"parts/{p}.json" not in listed]
        if missing:
            raise PartitionMissingError(
                f"{self.root.url_of(self.base)}: cannot publish, {len(missing)} of {len(parts)} partitions are not "
                f"encoded (first: {missing[:5]}); run the same command again"
            )
        documents = {p: self.root.get_json(f"{self.base}/parts/{p}.json") or {} for p in parts}
        wrong = [key for d in documents.values() for key, size in d["objects"].items() if listed.get(key) != size]
        if wrong:
            raise PartitionMissingError(
                f"{self.root.url_of(self.base)}: cannot publish, {len(wrong)} objects are missing or have another size "
                f"than their partition recorded (first: {wrong[:5]}); run the same command again"
            )
        return documents
