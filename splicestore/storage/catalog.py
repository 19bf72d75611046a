"""``catalog.json``: the names of a store for readers that cannot list. A cache, made from the pointers."""

from __future__ import annotations

from typing import Any

from splicestore.errors import StoreError
from splicestore.schema import FORMAT_VERSION
from splicestore.storage.backends import ROOT_DOCUMENT
from splicestore.storage.keys import StoreRoot
from splicestore.storage.pointers import read_pointer
from splicestore.storage.sealed import SEAL_KEY, is_intact, parse_sealed, seal_document

KINDS = ("genomes", "splits", "predictions", "expression", "sample_splits", "normalized", "bins", "scaled", "tokens")
NESTED_KINDS = ("usage",)
"""Kinds whose names lie one level deeper, below a genome."""
CATALOG = "catalog.json"
_MAX_ROUNDS = 100


def read_catalog(root: StoreRoot) -> dict[str, Any]:
    """Read the catalogue without listing; empty where nothing was published yet.

    Raises
    ------
    StoreError
        If a byte of it changed since it was written.
    """
    data = root.get(CATALOG)
    if data is None:
        return _empty()
    document = parse_sealed(data, root.url_of(CATALOG))
    document.pop(SEAL_KEY)
    return document


def list_name(root: StoreRoot, path: str) -> None:
    """Enter what a name's pointer says now, by compare-and-swap: two writers at once lose neither's name.

    Costs three requests however many names there are. A catalogue that is missing or damaged, or a storage that
    cannot swap, is made from a listing of all pointers instead.
    """
    if not root.backend.swaps:
        rebuild_catalog(root)
        return
    for _ in range(_MAX_ROUNDS):
        found = root.read(CATALOG)
        if found is None or not is_intact(found.data):
            catalog = list_pointers(root)
        else:
            catalog = parse_sealed(found.data, root.url_of(CATALOG))
        pointer = read_pointer(root, path)
        _enter(catalog, path, pointer.current if pointer else None)
        data = seal_document(catalog)
        if found is not None and found.data == data:
            return
        # Read again after writing: another writer may have switched the same name in between.
        if root.put_if(CATALOG, data, found.tag if found else None) and read_pointer(root, path) == pointer:
            return
    raise StoreError(f"{root.url}: the catalogue kept changing through {_MAX_ROUNDS} attempts; run the command again")


def rebuild_catalog(root: StoreRoot) -> dict[str, Any]:
    """Make the catalogue from a listing of all pointers, until two listings agree; return it."""
    seen = list_pointers(root)
    for _ in range(_MAX_ROUNDS):
        data = seal_document(seen)
        if root.get(CATALOG) != data:
            root.put(CATALOG, data)
        again = list_pointers(root)
        if again == seen:
            return seen
        seen = again
    raise StoreError(f"{root.url}: the pointers kept changing through {_MAX_ROUNDS} listings; run the command again")


def list_pointers(root: StoreRoot) -> dict[str, Any]:
    """Make a catalogue from a listing, in memory."""
    catalog = _empty()
    # Most stores have few of the kinds, and a listing of nothing costs as much as one of a thousand names.
    present = set(root.children(""))
    paths = [f"{kind}/{name}" for kind in KINDS if kind in present for name in _names(root, kind)]
    for kind in (kind for kind in NESTED_KINDS if kind in present):
        paths += [f"{kind}/{outer}/{name}" for outer in _names(root, kind) for name in _names(root, f"{kind}/{outer}")]
    for path, pointer in zip(paths, root.gather(lambda path: read_pointer(root, path), paths), strict=True):
        if pointer is not None:
            _enter(catalog, path, pointer.current)
    return catalog


def _empty() -> dict[str, Any]:
    return {"format": FORMAT_VERSION, **{kind: {} for kind in (*KINDS, *NESTED_KINDS)}}


def _enter(catalog: dict[str, Any], path: str, current: Any) -> None:
    *groups, name = path.split("/")
    names = catalog
    for group in groups:
        names = names.setdefault(group, {})
    if current is None:
        names.pop(name, None)
    else:
        names[name] = current


def _names(root: StoreRoot, prefix: str) -> list[str]:
    # Documents of the level itself, and such as are being written.
    return [
        name for name in root.children(prefix) if name != ROOT_DOCUMENT and not name.startswith(f"{ROOT_DOCUMENT}.")
    ]


def pointer_names(root: StoreRoot, prefix: str) -> list[str]:
    """Names published below ``<kind>`` or ``<kind>/<genome>``: from the catalogue, so that nothing is listed."""
    catalog: Any = read_catalog(root)
    for key in prefix.split("/"):
        catalog = catalog.get(key, {})
    return sorted(catalog)
