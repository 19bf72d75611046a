"""What lies in a store: one listing sorted into names, generations and documents, and who pins what."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from splicestore.errors import StoreError, StoreNotFoundError, close_names
from splicestore.storage import Pointer, StoreRoot, read_group, read_pointer
from splicestore.storage.catalog import CATALOG, KINDS, NESTED_KINDS

GROUP = "zarr.json"
PLAN = "plan.json"
MANIFEST = "manifest.json"
PARTIAL = ".partial"
"""Ending of the files of writers that were killed."""

ABSENT = "absent"
"""Status of a generation without a group document: a run was killed at its start, or its removal was."""
DAMAGED = "damaged"

_GENERATION = re.compile(r"[0-9a-f]{16}")
_LEASE = re.compile(r"lease(-\d+-of-\d+)?\.json")


@dataclass(frozen=True, slots=True)
class StoredName:
    """Everything below ``<kind>/<name>``."""

    path: str
    documents: dict[str, int]
    """The pointer and the leases: {key relative to the name: bytes}."""
    generations: dict[str, dict[str, int]]
    """Generation -> {key relative to it: bytes}."""

    @property
    def leases(self) -> list[str]:
        """Keys of the leases, relative to the name."""
        return sorted(key for key in self.documents if key != GROUP)


@dataclass(frozen=True, slots=True)
class Inventory:
    """One listing of a store, sorted."""

    names: dict[str, StoredName]
    shared: dict[str, int]
    """The catalogue and the group documents above the names."""
    foreign: dict[str, int]
    """Objects outside of any generation that no release writes."""

    def bases(self) -> dict[str, dict[str, int]]:
        """All generations by key, with their objects."""
        return {f"{path}/{g}": sizes for path, name in self.names.items() for g, sizes in name.generations.items()}


def take_inventory(root: StoreRoot, names: Sequence[str] = ()) -> Inventory:
    """List a store, or only some of its names.

    Parameters
    ----------
    names
        ``genomes/hg38``, or what several begin with: ``genomes``, ``usage/hg38``.

    Raises
    ------
    StoreNotFoundError
        If there is no store, or nothing lies below one of the names.
    """
    if not names:
        sizes = root.sizes("")
        if not sizes:
            raise StoreNotFoundError(f"{root.url}: no store here; check the path or URL")
        return sort_keys(sizes)
    shared = [CATALOG, GROUP]
    sizes = {key: size for key, size in zip(shared, root.gather(root.size, shared), strict=True) if size is not None}
    for name in names:
        below = root.sizes(name)
        if not below:
            known = [path for path in take_inventory(root).names if path.split("/")[0] == name.split("/")[0]]
            raise StoreNotFoundError(f"{root.url}: nothing lies below {name!r}; {close_names(name, known)}")
        sizes.update({f"{name.rstrip('/')}/{key}": size for key, size in below.items()})
    return sort_keys(sizes)


def sort_keys(sizes: Mapping[str, int]) -> Inventory:
    """Sort a listing {key: bytes} into names, generations and the rest."""
    inventory = Inventory({}, {}, {})
    for key in sorted(sizes):
        _enter(inventory, key, sizes[key])
    return inventory


def _enter(inventory: Inventory, key: str, size: int) -> None:
    words = key.split("/")
    depth = 3 if words[0] in NESTED_KINDS else 2
    if key in (GROUP, CATALOG) or (words[0] in (*KINDS, *NESTED_KINDS) and len(words) <= depth and words[-1] == GROUP):
        inventory.shared[key] = size
        return
    if words[0] not in (*KINDS, *NESTED_KINDS) or len(words) <= depth:
        inventory.foreign[key] = size
        return
    path, rest = "/".join(words[:depth]), words[depth:]
    if len(rest) == 1 and (rest[0] == GROUP or _LEASE.fullmatch(rest[0])):
        inventory.names.setdefault(path, StoredName(path, {}, {})).documents[rest[0]] = size
    elif len(rest) > 1 and _GENERATION.fullmatch(rest[0]):
        name = inventory.names.setdefault(path, StoredName(path, {}, {}))
        name.generations.setdefault(rest[0], {})["/".join(rest[1:])] = size
    else:
        inventory.foreign[key] = size


def partial_files(root: StoreRoot) -> dict[str, float]:
    """List what killed writers left on a local disk: {key: POSIX time of its last change}."""
    if not root.backend.is_local:
        return {}
    return {key: time for key, time in root.ages("").items() if key.endswith(PARTIAL)}


# -- pointers, groups, pins --------------------------------------------------------------------------------------


def read_pointers(root: StoreRoot, paths: Iterable[str]) -> dict[str, Pointer | StoreError | None]:
    """Read the pointers of names: what each says, None where there is none, or the error of a damaged one."""

    def read(path: str) -> Pointer | StoreError | None:
        try:
            return read_pointer(root, path)
        except StoreError as error:
            return error

    wanted = list(paths)
    return dict(zip(wanted, root.gather(read, wanted), strict=True))


@dataclass(frozen=True, slots=True)
class GroupState:
    """What the group document of a generation says."""

    status: str
    """complete | incomplete | absent | damaged."""
    attributes: Mapping[str, Any]
    """Ours; empty where the document is absent or damaged."""
    error: StoreError | None = None


def read_groups(root: StoreRoot, bases: Iterable[str]) -> dict[str, GroupState]:
    """Read the group documents of generations."""

    def read(base: str) -> GroupState:
        try:
            found = read_group(root, base)
        except StoreError as error:
            return GroupState(DAMAGED, {}, error)
        return GroupState(ABSENT, {}) if found is None else GroupState(str(found[0]["status"]), found[0])

    wanted = list(bases)
    return dict(zip(wanted, root.gather(read, wanted), strict=True))


def pins_of(path: str, attributes: Mapping[str, Any]) -> list[str]:
    """Keys of the generations that a split, predictions, edges, bins or tokens need.

    Predictions record the generation of their split without its name: such a key is spelled ``splits/*/<generation>``.
    """
    pins = attributes.get("pins") or {}
    if path.startswith(("sample_splits/", "normalized/", "bins/", "scaled/", "tokens/")):
        return [f"{kind}/{name}/{generation}" for kind, of in pins.items() for name, generation in of.items()]
    if path.startswith("splits/"):
        return [f"genomes/{genome_id}/{generation}" for genome_id, generation in pins.items()]
    if not path.startswith("predictions/"):
        return []
    keys = [f"genomes/{genome_id}/{generation}" for genome_id, generation in pins.get("genomes", {}).items()]
    keys += [str(key) for panels in pins.get("usage", {}).values() for key in panels]
    return [*keys, *([f"splits/*/{pins['split']}"] if pins.get("split") else [])]


def match_pin(pin: str, bases: Collection[str]) -> list[str]:
    """Generations that a pin stands for; ``bases`` should look up fast."""
    if "*" not in pin:
        return [pin] if pin in bases else []
    head, tail = pin.split("*")
    return [base for base in bases if base.startswith(head) and base.endswith(tail)]


# -- ls ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """One generation as ``ls`` shows it."""

    kind: str
    name: str
    generation: str
    status: str
    """complete | incomplete | absent | damaged."""
    current: bool | None
    """Whether the pointer names it; None where the pointer is damaged."""
    superseded: str | None
    """UTC time at which it ceased to be current."""
    pinned_by: tuple[str, ...]
    """Generations of splits and predictions that need it."""
    n_objects: int
    n_bytes: int
    """As stored, documents included."""

    def as_dict(self) -> dict[str, Any]:
        """Spell the row for ``--json``."""
        return {field: getattr(self, field) for field in self.__slots__}


def list_generations(root: StoreRoot, names: Sequence[str] = ()) -> list[GenerationRow]:
    """List every generation below every name with what it takes: one listing and one read per name and generation.

    With ``names``, only pins among these are seen.

    Raises
    ------
    StoreNotFoundError
        If there is no store, or nothing lies below one of the names.
    """
    inventory = take_inventory(root, names)
    pointers = read_pointers(root, inventory.names)
    groups = read_groups(root, inventory.bases())
    pinning: dict[str, list[str]] = {}
    for base, group in groups.items():
        for pin in pins_of(base.rsplit("/", 1)[0], group.attributes):
            for pinned in match_pin(pin, groups):
                pinning.setdefault(pinned, []).append(base)
    rows = []
    for path, name in inventory.names.items():
        pointer = pointers[path]
        kind, _, short = path.partition("/")
        for generation, sizes in name.generations.items():
            base = f"{path}/{generation}"
            readable = pointer if isinstance(pointer, Pointer) else None
            rows.append(
                GenerationRow(
                    kind=kind,
                    name=short,
                    generation=generation,
                    status=groups[base].status,
                    current=None
                    if isinstance(pointer, StoreError)
                    else readable is not None and generation in readable.generations(),
                    superseded=readable.superseded.get(generation) if readable else None,
                    pinned_by=tuple(sorted(pinning.get(base, []))),
                    n_objects=len(sizes),
                    n_bytes=sum(sizes.values()),
                )
            )
    return rows
