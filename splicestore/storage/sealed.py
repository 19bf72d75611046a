"""Small JSON documents that carry their own digest, so that a flipped byte never passes for a value."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from splicestore.errors import StoreError
from splicestore.storage.keys import StoreRoot

SEAL_KEY = "seal"
BLANK = "0" * 64
_SEAL = re.compile(rb'"seal": ?"([0-9a-f]{64})"')


def seal_bytes(data: bytes) -> bytes:
    """Fill the blank seal of a spelled document: sha256 of the bytes with the seal as 64 zeros.

    Raises
    ------
    ValueError
        If the document does not have exactly one seal.
    """
    found = list(_SEAL.finditer(data))
    if [match[1] for match in found] != [BLANK.encode()]:
        raise ValueError(f"a document to be sealed holds one blank seal, this one has {len(found)}")
    return _with_seal(data, found[0], hashlib.sha256(data).hexdigest().encode())


def _with_seal(data: bytes, place: re.Match[bytes], seal: bytes) -> bytes:
    return data[: place.start(1)] + seal + data[place.end(1) :]


def seal_document(document: Mapping[str, Any]) -> bytes:
    """Spell a document as JSON with a seal at its top level."""
    return seal_bytes(json.dumps({**document, SEAL_KEY: BLANK}, indent=1, sort_keys=True).encode())


def is_intact(data: bytes) -> bool:
    """Whether a document has one seal and its bytes are those that were sealed."""
    found = list(_SEAL.finditer(data))
    if len(found) != 1:
        return False
    blank = _with_seal(data, found[0], BLANK.encode())
    return hashlib.sha256(blank).hexdigest().encode() == found[0][1]


def parse_sealed(data: bytes, url: str) -> dict[str, Any]:
    """Parse a sealed document.

    Raises
    ------
    StoreError
        If a byte of it changed since it was written.
    """
    if not is_intact(data):
        raise StoreError(
            f"{url}: the document is damaged (its bytes do not match its seal); `splicestore verify` says what is wrong in "
            "the store and --repair mends what it can"
        )
    return dict(json.loads(data))


def read_sealed(root: StoreRoot, key: str) -> dict[str, Any] | None:
    """Read and check a sealed document of a store; None if there is none."""
    data = root.get(key)
    return None if data is None else parse_sealed(data, root.url_of(key))
