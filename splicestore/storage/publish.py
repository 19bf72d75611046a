"""The write sequence: plan, incomplete metadata, partitions with parts, manifest, complete, switch, catalogue.

A generation is named by the digest of its plan, so the same inputs write the same bytes to the same keys:
resuming and racing twins need no lock. A reader follows one pointer per name and never sees a generation
that is not complete. ``docs/format.md`` gives the keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import zarr

from splicestore.errors import FormatError, PointerMovedError, StoreError, StoreNotFoundError
from splicestore.schema import FORMAT_VERSION, ArraySpec, Plan
from splicestore.storage.catalog import list_name
from splicestore.storage.finalise import STATUS_COMPLETE, STATUS_INCOMPLETE, finalise_generation
from splicestore.storage.keys import StoreRoot
from splicestore.storage.partitions import Part, PartitionPlace, PartitionWriter, part_key
from splicestore.storage.pointers import Pointer, read_pointer, read_tagged_pointer
from splicestore.storage.sealed import BLANK, SEAL_KEY, parse_sealed, seal_bytes
from splicestore.storage.zarr_codecs import create_array, quiet_zarr


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
        self._listed: dict[str, int] | None = None

    def spec(self, array: str) -> ArraySpec:
        """Return the specification of one of the planned arrays."""
        return self._specs[array]

    def is_complete(self) -> bool:
        """Whether this generation was finished before."""
        return generation_status(self.root, self.base) == STATUS_COMPLETE

    def begin(self) -> None:
        """Steps 1 and 2: the plan and the incomplete metadata, each created if absent, compared if present."""
        self._create_parents()
        plan = self.plan.canonical_json().encode()
        is_new = self.root.read(f"{self.base}/plan.json") is None
        self._create(f"{self.base}/plan.json", plan)
        documents = self._metadata_documents()
        group = documents.pop("zarr.json")
        self._create(f"{self.base}/zarr.json", group)
        self.root.gather(lambda item: self._create(f"{self.base}/{item[0]}", item[1]), documents.items())
        # What an earlier run left is listed once, not asked for object by object.
        self._listed = {} if is_new else self.root.sizes(self.base)

    def has_part(self, name: str) -> bool:
        """Whether a partition was finished, and its objects are still there with their sizes."""
        if self._listed is None:
            self._listed = self.root.sizes(self.base)
        if f"parts/{name}.json" not in self._listed:
            return False
        try:
            part = Part.parse(self.root.get(part_key(self.base, name)) or b"")
        except ValueError:
            return False
        return all(self._listed.get(key) == stored.size for key, stored in part.objects.items())

    def place(self, name: str, arrays: Iterable[str] | None = None) -> PartitionPlace:
        """Say where a partition goes; what a task in another process needs."""
        specs = self.specs if arrays is None else [self._specs[array] for array in arrays]
        return PartitionPlace(self.root, self.base, name, tuple(specs))

    def partition(self, name: str) -> PartitionWriter:
        """Open a partition for writing (step 3)."""
        return self.place(name).open()

    def finalise(self, parts: Iterable[str], attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Steps 4 to 6: check every part against a listing, write the manifest, mark complete, consolidate.

        Raises
        ------
        PartitionMissingError
            If a part is missing or an object has another size than its part says.
        """
        self.attributes = {**self.attributes, **(attributes or {})}
        return finalise_generation(
            self.root,
            self.base,
            list(parts),
            self.attributes,
            self.provenance,
            documents=self._metadata_documents(),
        )

    def switch(self) -> bool:
        """Steps 7 and 8: make this generation current and list its name; False if it was current before.

        Raises
        ------
        PointerMovedError
            If another generation was published since this run started.
        """
        return switch_pointer(
            self.root,
            self.path,
            self.generation,
            digest=self.pointer_digest,
            expected=self.pointer_at_start,
            force=self.force,
        )

    def _create_parents(self) -> None:
        for key, document in parent_documents(self.path).items():
            self.root.create(key, document)

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

    def _metadata_documents(self) -> dict[str, bytes]:
        """Let zarr spell the incomplete metadata in memory, so that storage decides how each document is written."""
        ours = {
            "format": FORMAT_VERSION,
            "kind": self.plan.kind,
            "generation": self.generation,
            "status": STATUS_INCOMPLETE,
            **self.attributes,
            SEAL_KEY: BLANK,
        }
        documents: dict[str, Any] = {}
        with quiet_zarr():
            group = zarr.create_group(
                store=zarr.storage.MemoryStore(documents), zarr_format=3, attributes={"splicestore": ours}
            )
            for spec in self.specs:
                create_array(group, spec)
        spelled = {key: value.to_bytes() for key, value in documents.items() if key.endswith("zarr.json")}
        return {**spelled, "zarr.json": seal_bytes(spelled["zarr.json"])}


def switch_pointer(
    root: StoreRoot, path: str, generation: str, *, digest: str | None, expected: Pointer | None, force: bool = False
) -> bool:
    """Make a complete generation current, by compare-and-swap, and list its name; False if it was current before.

    Parameters
    ----------
    digest
        For pointers that are maps: the digest under which the generation is current.
    expected
        What the run saw when it started.

    Raises
    ------
    PointerMovedError
        If another generation was published since then, unless ``force``.
    """
    while True:
        now, tag = read_tagged_pointer(root, path)
        if now is not None and now.generation(digest) == generation:
            list_name(root, path)
            return False
        if now != expected and not force:
            raise PointerMovedError(
                f"{root.url_of(path)}: another writer published {now.current if now else None} while this "
                f"run was under way (it started from {expected and expected.current}); "
                "look at what it published, then run the same command again, or add --force"
            )
        if root.put_if(f"{path}/zarr.json", next_pointer(now, generation, digest).spell(), tag):
            list_name(root, path)
            return True


def next_pointer(now: Pointer | None, generation: str, digest: str | None) -> Pointer:
    """Build the pointer that makes a generation current; the one that was gets the time at which it ceased to be."""
    superseded = dict(now.superseded) if now else {}
    old = now.generation(digest) if now else None
    if old is not None:
        superseded[old] = datetime.now(UTC).isoformat(timespec="seconds")
    superseded.pop(generation, None)
    current: Any = generation
    if digest is not None:
        current = {**(now.current if now else {}), digest: generation}
    return Pointer(current, superseded)


def parent_documents(path: str) -> dict[str, bytes]:
    """Group documents above a name: of the store, of the kind (and genome). Constant, so they need no order."""
    names = path.split("/")
    keys = ["/".join([*names[:depth], "zarr.json"]) for depth in range(len(names))]
    return {key: group_document({"splicestore": {"format": FORMAT_VERSION}} if depth == 0 else None)
            for depth, key in enumerate(keys)}  # fmt: skip


def group_document(attributes: Mapping[str, Any] | None = None) -> bytes:
    """Spell the ``zarr.json`` of a group."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}
    return json.dumps(document, indent=1, sort_keys=True).encode()


def read_group(root: StoreRoot, base: str) -> tuple[dict[str, Any], bytes] | None:
    """Read a generation's group: (our attributes, the document); None if there is none.

    Raises
    ------
    StoreError
        If a byte of the document changed since it was written.
    FormatError
        If another format wrote it.
    """
    key = f"{base}/zarr.json"
    data = root.get(key)
    if data is None:
        return None
    document = parse_sealed(data, root.url_of(key))
    ours = dict(document["attributes"]["splicestore"])
    check_format(ours, root.url_of(base))
    return ours, data


def generation_status(root: StoreRoot, base: str) -> str | None:
    """Status of a generation: complete, incomplete, or None where there is none."""
    found = read_group(root, base)
    return None if found is None else str(found[0]["status"])


def store_exists(root: StoreRoot) -> bool:
    """Whether a store is at a URL.

    Raises
    ------
    FormatError
        If another format wrote it.
    """
    document = root.get_json("zarr.json")
    if document is None:
        return False
    check_format(document.get("attributes", {}).get("splicestore", {}), root.url)
    return True


def require_store(root: StoreRoot) -> None:
    """Refuse a URL without a store.

    Raises
    ------
    StoreNotFoundError
        If there is none.
    FormatError
        If another format wrote it.
    """
    if not store_exists(root):
        is_http = root.url.startswith("http")
        made = "check the address" if is_http else f"`splicestore ingest genomes {root.url} CONFIG` makes one"
        raise StoreNotFoundError(f"{root.url}: no store here; {made}")


def check_format(attributes: Mapping[str, Any], url: str) -> None:
    """Refuse a store written by an unknown format version."""
    version = attributes.get("format")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{url}: format {version!r}, this release reads format {FORMAT_VERSION}; "
            "upgrade splicestore, or open the store with the release that wrote it"
        )
