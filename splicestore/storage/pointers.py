"""The one small document per name that says which generation readers see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splicestore.errors import FormatError
from splicestore.schema import FORMAT_VERSION
from splicestore.storage.keys import StoreRoot
from splicestore.storage.sealed import BLANK, SEAL_KEY, parse_sealed, seal_bytes


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

    def generations(self) -> list[str]:
        """All generations that are current."""
        return [str(g) for g in self.current.values()] if isinstance(self.current, Mapping) else [str(self.current)]

    def spell(self) -> bytes:
        """Spell the group document that is the pointer."""
        ours = {"format": FORMAT_VERSION, "current": self.current, "superseded": dict(self.superseded), SEAL_KEY: BLANK}
        document = {"zarr_format": 3, "node_type": "group", "attributes": {"splicestore": ours}}
        return seal_bytes(json.dumps(document, indent=1, sort_keys=True).encode())


def read_pointer(root: StoreRoot, path: str) -> Pointer | None:
    """Read a name's pointer; None if nothing was ever published there.

    Raises
    ------
    StoreError
        If a byte of it changed since it was written.
    FormatError
        If another format wrote it.
    """
    return read_tagged_pointer(root, path)[0]


def read_tagged_pointer(root: StoreRoot, path: str) -> tuple[Pointer | None, Any]:
    """Read a name's pointer with what identifies this version of it."""
    found = root.read(f"{path}/zarr.json")
    if found is None:
        return None, None
    document = parse_sealed(found.data, root.url_of(f"{path}/zarr.json"))
    ours = document["attributes"]["splicestore"]
    if ours.get("format") != FORMAT_VERSION:
        raise FormatError(
            f"{root.url_of(path)}: format {ours.get('format')!r}, this release reads format {FORMAT_VERSION}; "
            "upgrade splicestore, or open the store with the release that wrote it"
        )
    return Pointer(current=ours["current"], superseded=ours.get("superseded", {})), found.tag
