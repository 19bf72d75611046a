"""``catalog.json``: the names of a store for readers that cannot list. A cache, rebuilt from the pointers."""

from __future__ import annotations

import json
from typing import Any

from splicestore.errors import StoreError
from splicestore.schema import FORMAT_VERSION
from splicestore.storage.keys import StoreRoot

KINDS = ("genomes", "splits", "predictions")
NESTED_KINDS = ("usage",)
"""Kinds whose names lie one level deeper, below a genome."""
_MAX_LISTINGS = 20


def read_catalog(root: StoreRoot) -> dict[str, Any]:
    """Read the catalogue, or rebuild it in memory where it does not exist yet."""
    return root.get_json("catalog.json") or _listing(root)


def rebuild_catalog(root: StoreRoot) -> None:
    """Write the catalogue from a listing of the pointers, until two listings agree.

    Two writers that publish at once would otherwise each miss the other's name.
    """
    seen = _listing(root)
    for _ in range(_MAX_LISTINGS):
        data = json.dumps(seen, indent=1, sort_keys=True).encode()
        if root.get("catalog.json") != data:
            root.put("catalog.json", data)
        again = _listing(root)
        if again == seen:
            return
        seen = again
    raise StoreError(f"{root.url}: the pointers kept changing through {_MAX_LISTINGS} listings; run the command again")


def _listing(root: StoreRoot) -> dict[str, Any]:
    catalog: dict[str, Any] = {"format": FORMAT_VERSION}
    for kind in KINDS:
        catalog[kind] = _pointers(root, kind)
    for kind in NESTED_KINDS:
        below = {name: _pointers(root, f"{kind}/{name}") for name in _names(root, kind)}
        catalog[kind] = {name: pointers for name, pointers in below.items() if pointers}
    return catalog


def _names(root: StoreRoot, prefix: str) -> list[str]:
    return [name for name in root.children(prefix) if name != "zarr.json" and not name.endswith(".partial")]


def _pointers(root: StoreRoot, prefix: str) -> dict[str, Any]:
    found = {}
    for name in _names(root, prefix):
        document = root.get_json(f"{prefix}/{name}/zarr.json") or {}
        current = document.get("attributes", {}).get("splicestore", {}).get("current")
        if current is not None:
            found[name] = current
    return found


def pointer_names(root: StoreRoot, prefix: str) -> list[str]:
    """Names published below ``<kind>`` or ``<kind>/<genome>``: from the catalogue, so that nothing is listed."""
    catalog: Any = read_catalog(root)
    for key in prefix.split("/"):
        catalog = catalog.get(key, {})
    return sorted(catalog)
