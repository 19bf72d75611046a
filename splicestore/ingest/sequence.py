"""Encoding a FASTA into the sequence array: partitions of whole shards, each read from the nearest place before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.ingest.tables import Contigs
from splicestore.kernels.sequence import N_CODE, decode_bases
from splicestore.readers.fasta import FastaIndex, FastaSpan, read_fasta_codes, span_from
from splicestore.schema import SEQUENCE_CHUNK, SEQUENCE_SHARD, ArraySpec
from splicestore.storage import PartitionPlace

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


@dataclass(frozen=True, slots=True)
class SequenceTask:
    """Shards that one task reads from the FASTA and writes. Picklable; a few kB."""

    url: str
    span: FastaSpan
    first_base: int
    """Absolute base that the first code from ``span`` is."""
    contigs: tuple[str, ...]
    """Contigs of the genome from the span's on, in file order: all others are passed over."""
    n_bases: int
    """Of the genome."""
    places: tuple[PartitionPlace, ...]
    """One per shard, consecutive."""
    shards: tuple[int, ...]
    probes: tuple[Int64, ...]
    """Per shard: absolute positions of bases to note in its part document, sorted."""
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def n_bytes(self) -> int:
        """Bases of the task's shards."""
        return min((self.shards[-1] + 1) * SEQUENCE_SHARD, self.n_bases) - self.shards[0] * SEQUENCE_SHARD


def sequence_tasks(
    url: str,
    index: FastaIndex,
    contigs: Contigs,
    places: Mapping[int, PartitionPlace],
    probe: Int64,
    *,
    n_workers: int = 1,
    storage_options: Mapping[str, Any] | None = None,
) -> list[SequenceTask]:
    """Cut the work into tasks: one per shard, or one run of shards per worker where the file cannot be entered midway.

    Parameters
    ----------
    places
        Shard -> where it goes; shards that are done already are not in it.
    probe
        Absolute positions of bases to note, sorted and distinct.
    """
    wanted = sorted(places)
    runs: list[list[int]]
    if index.places.is_seekable:
        runs = [[shard] for shard in wanted]
    else:
        runs = [[int(s) for s in run] for run in np.array_split(wanted, n_workers) if len(run)]
    rows = {contig.name: row for row, contig in enumerate(index.contigs)}
    tasks = []
    for run in runs:
        start = run[0] * SEQUENCE_SHARD
        row = int(np.searchsorted(contigs.offset, start, side="right")) - 1
        span = span_from(index, rows[contigs.names[row]], start - int(contigs.offset[row]))
        bounds = [np.searchsorted(probe, (s * SEQUENCE_SHARD, (s + 1) * SEQUENCE_SHARD)) for s in run]
        tasks.append(
            SequenceTask(
                url=url,
                span=span,
                first_base=int(contigs.offset[row]) + span.base,
                contigs=contigs.names[row:],
                n_bases=contigs.n_bases,
                places=tuple(places[s] for s in run),
                shards=tuple(run),
                probes=tuple(probe[low:high] for low, high in bounds),
                storage_options=dict(storage_options or {}),
            )
        )
    return tasks


def encode_sequence(task: SequenceTask) -> int:
    """Read, encode and write the shards of a task; return their bases. Holds one shard at a time.

    Raises
    ------
    InputError
        If the file ends before its index says, so it changed since it was scanned.
    """
    done = 0
    codes_of = _codes_from(task)
    held = np.empty(0, dtype=np.uint8)
    position = task.first_base
    for shard, place, probe in zip(task.shards, task.places, task.probes, strict=True):
        start, end = shard * SEQUENCE_SHARD, min((shard + 1) * SEQUENCE_SHARD, task.n_bases)
        buffer = np.empty(end - start, dtype=np.uint8)
        filled = 0
        while filled < len(buffer):
            if not len(held):
                held = next(codes_of, held)
                if not len(held):
                    raise InputError(
                        f"{task.url}: ends at base {position} of {task.n_bases}; it changed while it was read"
                    )
            before = max(0, start + filled - position)
            taken = held[before : before + len(buffer) - filled]
            buffer[filled : filled + len(taken)] = taken
            used = min(len(held), before + len(taken))
            filled, position, held = filled + len(taken), position + used, held[used:]
        _write_shard(place, shard, buffer, probe - start)
        done += len(buffer)
    return done


def _codes_from(task: SequenceTask) -> Iterator[NDArray[np.uint8]]:
    spans = read_fasta_codes(task.url, wanted=set(task.contigs), span=task.span, storage_options=task.storage_options)
    return (codes for _, codes in spans)


def _write_shard(place: PartitionPlace, shard: int, codes: NDArray[np.uint8], probe: Int64) -> None:
    writer = place.open()
    writer.write("sequence", codes, shard * SEQUENCE_SHARD)
    writer.counts["bases"] = len(codes)
    # The motif gate looks at the bases of introns when all shards are there; noted here, nothing is read again.
    writer.counts["intron_bases"] = decode_bases(codes[probe])
    writer.close()


def sequence_digest(contigs: Contigs, contents: Sequence[str]) -> str:
    """Digest what tracks belong to: contig names, lengths and bases.

    Parameters
    ----------
    contents
        Content digest (sha256 of the codes) of every shard, in order.
    """
    digest = hashlib.sha256(contigs.digest.encode())
    for content in contents:
        digest.update(content.encode())
    return digest.hexdigest()
