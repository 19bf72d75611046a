"""Streaming a FASTA into the sequence array, shard by shard, looking at single bases on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.ingest.tables import Contigs
from splicestore.kernels.sequence import N_CODE
from splicestore.readers.fasta import read_fasta_codes
from splicestore.schema import SEQUENCE_CHUNK, SEQUENCE_SHARD, ArraySpec
from splicestore.storage import Publication

Int64 = NDArray[np.int64]


def sequence_spec(n_bases: int) -> ArraySpec:
    """Specify ``sequence (base,)``: chunk 128 Ki, shard 32 Mi bases, absent = N."""
    return ArraySpec(
        "sequence", (n_bases,), ("base",), "uint8", (SEQUENCE_CHUNK,), (SEQUENCE_SHARD,), fill_value=N_CODE,
        attributes={"bases": "ACGTN", "codes": [0, 1, 2, 3, 4]},
    )  # fmt: skip


def sequence_parts(n_bases: int) -> list[str]:
    """Name the partitions of the sequence, one per shard."""
    return [f"sequence-{i:05d}" for i in range(-(-n_bases // SEQUENCE_SHARD))]


class BaseProbe:
    """Collects the bases at given positions while the sequence streams by."""

    def __init__(self, positions: Int64) -> None:
        self._shape = positions.shape
        self._sorted, self._inverse = np.unique(positions, return_inverse=True)
        self._values = np.full(len(self._sorted), N_CODE, dtype=np.uint8)

    def look(self, start: int, codes: NDArray[np.uint8]) -> None:
        """Look at bases ``[start, start + len(codes))``."""
        first, last = np.searchsorted(self._sorted, (start, start + len(codes)))
        self._values[first:last] = codes[self._sorted[first:last] - start]

    def values(self) -> NDArray[np.uint8]:
        """Return the bases seen, in the shape of the positions; N where none was."""
        return self._values[self._inverse].reshape(self._shape)


def encode_sequence(
    publication: Publication,
    url: str,
    contigs: Contigs,
    probe: BaseProbe,
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> str:
    """Write every shard that is not there yet; at most one shard is held in memory.

    Returns
    -------
    sequence_digest
        sha256 over contig names, lengths and bases: what tracks belong to.
    """
    digest = hashlib.sha256()
    for name, length in zip(contigs.names, contigs.length, strict=True):
        digest.update(f"{name}\t{length}\n".encode())
    buffer = np.empty(min(SEQUENCE_SHARD, max(1, contigs.n_bases)), dtype=np.uint8)
    filled, shard = 0, 0

    def flush() -> None:
        nonlocal filled, shard
        _write_shard(publication, shard, buffer[:filled])
        filled, shard = 0, shard + 1

    position = 0
    for _, codes in read_fasta_codes(url, wanted=set(contigs.names), storage_options=storage_options):
        probe.look(position, codes)
        digest.update(np.ascontiguousarray(codes).data)
        position += len(codes)
        while len(codes):
            room = min(len(codes), len(buffer) - filled)
            buffer[filled : filled + room] = codes[:room]
            filled, codes = filled + room, codes[room:]
            if filled == SEQUENCE_SHARD:
                flush()
        if progress is not None:
            progress(position)
    if filled:
        flush()
    return digest.hexdigest()


def _write_shard(publication: Publication, shard: int, codes: NDArray[np.uint8]) -> None:
    name = f"sequence-{shard:05d}"
    if publication.has_part(name):
        return
    writer = publication.partition(name)
    writer.write("sequence", codes, shard * SEQUENCE_SHARD)
    writer.counts["bases"] = len(codes)
    writer.close()
