"""Steps 4 to 6 of publishing, from what lies in the store alone: all parts there, manifest, complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import zarr
from zarr.buffer.cpu import Buffer

from splicestore.errors import PartitionMissingError, StoreError
from splicestore.schema import FORMAT_VERSION
from splicestore.storage.keys import StoreRoot
from splicestore.storage.partitions import Part, part_key
from splicestore.storage.sealed import BLANK, SEAL_KEY, seal_bytes, seal_document
from splicestore.storage.zarr_codecs import quiet_zarr

STATUS_INCOMPLETE = "incomplete"
STATUS_COMPLETE = "complete"


def check_parts(root: StoreRoot, base: str, parts: Sequence[str]) -> dict[str, bytes]:
    """Compare every part with one listing; return the part documents.

    Raises
    ------
    PartitionMissingError
        Naming the parts that are missing, or the objects that are not as their part says.
    """
    listed = root.sizes(base)
    missing = [p for p in parts if f"parts/{p}.json" not in listed]
    if missing:
        raise PartitionMissingError(
            f"{root.url_of(base)}: cannot publish, {len(missing)} of {len(parts)} partitions are not "
            f"encoded (first: {missing[:5]}); run the same command again",
            missing=missing,
        )
    spelled = dict(zip(parts, root.gather(lambda p: root.get(part_key(base, p)) or b"", parts), strict=True))
    wrong, broken = [], []
    for name, data in spelled.items():
        try:
            part = Part.parse(data)
        except ValueError:
            wrong.append(f"parts/{name}.json")
            broken.append(name)
            continue
        off = [key for key, stored in part.objects.items() if listed.get(key) != stored.size]
        wrong += off
        broken += [name] if off else []
    if wrong:
        raise PartitionMissingError(
            f"{root.url_of(base)}: cannot publish, {len(wrong)} objects are missing or have another size "
            f"than their partition recorded (first: {wrong[:5]}); run the same command again",
            missing=broken,
        )
    return spelled


def finalise_generation(
    root: StoreRoot,
    base: str,
    parts: Sequence[str],
    attributes: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    documents: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Check every part, write the manifest, mark the group complete.

    Parameters
    ----------
    base
        Key of the generation.
    parts
        Names of all its partitions.
    attributes
        Added to what the incomplete group says of itself.
    documents
        Metadata documents by key relative to the generation, where the caller has them; else they are read.

    Returns
    -------
    manifest

    Raises
    ------
    PartitionMissingError
        If a part is missing or an object has another size than its part says.
    """
    spelled = check_parts(root, base, parts)
    done = {name: Part.parse(data) for name, data in spelled.items()}
    metadata = complete_metadata(documents or read_metadata(root, base), attributes)
    manifest = {
        "format": FORMAT_VERSION,
        "generation": base.rsplit("/", 1)[-1],
        "metadata": {key: hashlib.sha256(data).hexdigest() for key, data in sorted(metadata.items())},
        "parts": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(spelled.items())},
        "content": hashlib.sha256("".join(done[p].content for p in sorted(done)).encode()).hexdigest(),
        "n_objects": sum(len(p.objects) for p in done.values()),
        "n_bytes": sum(o.size for p in done.values() for o in p.objects.values()),
        "provenance": {**provenance, "published": datetime.now(UTC).isoformat(timespec="seconds")},
    }
    root.put(f"{base}/manifest.json", seal_document(manifest))
    # Status and consolidated metadata in one PUT: a kill between two would leave a complete group that
    # opens slowly and with a warning, and that no later run touches again.
    root.put(f"{base}/zarr.json", metadata["zarr.json"])
    return manifest


def read_metadata(root: StoreRoot, base: str) -> dict[str, bytes]:
    """Read all metadata documents of a generation, by key relative to it."""
    keys = [key for key in root.sizes(base) if key.endswith("zarr.json")]
    found = root.gather(lambda key: root.get(f"{base}/{key}"), keys)
    documents = {key: data for key, data in zip(keys, found, strict=True) if data is not None}
    if "zarr.json" not in documents:
        raise StoreError(f"{root.url_of(base)}: no such generation; `splicestore ls {root.url}` shows what is there")
    return documents


def complete_metadata(documents: Mapping[str, bytes], attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """Spell the metadata of a group that is complete: status, more attributes, consolidated arrays, a new seal."""
    group = json.loads(documents["zarr.json"])
    ours = {**group["attributes"]["splicestore"], **attributes, "status": STATUS_COMPLETE, SEAL_KEY: BLANK}
    group["attributes"]["splicestore"] = ours
    group.pop("consolidated_metadata", None)
    spelled = {key: data for key, data in documents.items() if key != "zarr.json"}
    held: dict[str, Any] = {key: Buffer.from_bytes(data) for key, data in spelled.items()}
    held["zarr.json"] = Buffer.from_bytes(json.dumps(group).encode())
    with quiet_zarr():
        zarr.consolidate_metadata(zarr.storage.MemoryStore(held), zarr_format=3)
    return {**spelled, "zarr.json": seal_bytes(held["zarr.json"].to_bytes())}
