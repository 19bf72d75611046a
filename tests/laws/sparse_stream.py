"""The sparse genome of 4.4e9 bases, and a process that streams it under a limit: prints what it saw as JSON.

    python -m tests.laws.sparse_stream STORE [STATE]

Without a state it streams the whole epoch and prints the state after ``RESUME_STEP`` steps; with one it goes on there.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.genome import Genome
from splicestore.schema import BLOCK_BASES, SEQUENCE_SHARD
from splicestore.splits import Split
from splicestore.store import Store, open_store
from splicestore.stream import Batch, WindowBatches
from tests.oracles.array_oracle import ArrayTruth, cut_windows
from tests.published import GenomeArrays

Int64 = NDArray[np.int64]

WINDOW_SIZE, CONTEXT_SIZE = 880, 450
CONTIG_LENGTH = np.array([2_300_000_123, 1_200_000_007, 899_999_000], dtype=np.int64)
"""The first is longer than 2^31, the last begins below and ends above 2^32."""
N_BASES = int(CONTIG_LENGTH.sum())
WRITTEN = (0, 68, 2**32 // SEQUENCE_SHARD - 1, 2**32 // SEQUENCE_SHARD, (N_BASES - 1) // SEQUENCE_SHARD)
"""Shards with bases, the others are holes: both ends, the border of the first contigs, both sides of 2^32."""
CONDITIONS = ("brain", "liver")
RESUME_STEP = 30_000
CHECK_EVERY = 200
"""Steps of which every base is compared; sums are compared over all."""
OPTIONS: dict[str, Any] = {"split": "run1", "batch_size": 256, "seed": 3}


def base_at(position: Int64) -> NDArray[np.uint8]:
    """Bases of the genome, at any position."""
    written = np.isin(position // SEQUENCE_SHARD, WRITTEN)
    return np.where(written, _written_base(position), np.uint8(4))


def _written_base(position: Int64) -> NDArray[np.uint8]:
    # Differs between positions 2^32 apart, so that one read for the other is noticed.
    return ((position ^ (position >> 7) ^ (position >> 13) ^ (position >> 32)) & 3).astype(np.uint8)


def sparse_genome(n_sites: int = 200_000) -> GenomeArrays:
    """Sites lie anywhere and at every border; half of the counts are not measured."""
    rng = np.random.default_rng(0)
    ends = np.cumsum(CONTIG_LENGTH)
    edges = np.concatenate([[0, 2**31, 2**32, N_BASES], ends, np.arange(BLOCK_BASES, N_BASES, 97 * BLOCK_BASES)])
    near = (edges[:, None] + np.array([-1_300, -451, -450, -1, 0, 1, 449, 450, 1_300])).ravel()
    near = near[(near >= 0) & (near < N_BASES)]
    position = np.unique(np.concatenate([rng.integers(0, N_BASES, n_sites), near]))
    counts = rng.integers(0, 50, (2, len(position), len(CONDITIONS))).astype(np.float32)
    counts[:, rng.random((len(position), len(CONDITIONS))) < 0.5] = np.nan
    bases = {i: _bases_of_shard(i) for i in WRITTEN}
    strand = rng.choice(np.array([-1, 1], dtype=np.int8), len(position))
    kind = rng.integers(1, 4, len(position)).astype(np.uint8)
    return GenomeArrays("wide", CONTIG_LENGTH, bases, position, strand, kind, CONDITIONS, *counts)


def _bases_of_shard(number: int) -> NDArray[np.uint8]:
    edges = [*range(number * SEQUENCE_SHARD, min((number + 1) * SEQUENCE_SHARD, N_BASES), BLOCK_BASES)]
    return np.concatenate([_written_base(np.arange(e, min(e + BLOCK_BASES, N_BASES))) for e in edges])


def truth_of(genome: Genome) -> ArrayTruth:
    """What windows of a genome with these bases must hold; sites and counts are the genome's own."""
    start, counts = genome.contig_offset, genome.read_usage(0, len(genome.site_position))
    sites = (genome.site_position, genome.site_strand, genome.site_kind)
    return ArrayTruth(base_at, start, start + genome.contig_length, *sites, *counts)


def wrong_windows(truth: ArrayTruth, batch: Batch[Any]) -> int:
    """Windows of a batch with another base, label or usage row than they must have."""
    if not len(batch):
        return 0
    expected = cut_windows(truth, batch.contig, batch.start, batch.strand.astype(int), WINDOW_SIZE, CONTEXT_SIZE)
    wrong = (batch.sequence != expected["sequence"]).any(axis=1) | (batch.label != expected["label"]).any(axis=1)
    usage = ("usage_row_window", "usage_row_position", "alpha", "beta")
    if not all(np.array_equal(getattr(batch, n), expected[n], equal_nan=n in ("alpha", "beta")) for n in usage):
        return max(1, int(wrong.sum()))
    return int(wrong.sum())


class CountingGenome:
    """A genome that notes which bases it was asked for."""

    def __init__(self, genome: Genome) -> None:
        self._genome, self.reads = genome, list[tuple[int, int]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._genome, name)

    def read_bases(self, start: int, end: int) -> NDArray[np.uint8]:
        self.reads.append((start, end))
        return self._genome.read_bases(start, end)

    def read_block(self, start: int, end: int, *sites_threads_and_out: Any) -> Any:
        self.reads.append((start, end))
        return self._genome.read_block(start, end, *sites_threads_and_out)


class CountingStore(Store):
    """A store whose genomes note what streams read of them."""

    def __init__(self, url: str) -> None:
        super().__init__(open_store(url).root)
        self.opened: list[CountingGenome] = []

    def open_pinned(self, split: Split, genome_ids: Sequence[str]) -> Any:
        self.opened = [CountingGenome(genome) for genome in super().open_pinned(split, genome_ids)]
        return self.opened


def watch_epoch(url: str, state: dict[str, Any] | None) -> dict[str, Any]:
    """Stream an epoch, or what a state leaves of it."""
    store = CountingStore(url)
    stream = WindowBatches(store, **OPTIONS)
    truth = truth_of(store.genomes["wide"])
    (genome,) = store.opened
    if state is not None:
        stream.load_state_dict(state)
    first_step = stream.state_dict()["step"]
    times_seen = np.zeros(stream.plan.n_windows, dtype=np.uint8)
    seen: dict[str, Any] = {"labels": np.zeros(256, dtype=np.int64), "known_bases": 0, "alpha": 0.0, "usage_rows": 0}
    tail, wrong, reads_before_first = 0, 0, None
    for batch in stream:
        reads_before_first = len(genome.reads) if reads_before_first is None else reads_before_first
        times_seen[batch.window_id] += 1
        seen["labels"] += np.bincount(batch.label[batch.label > 0], minlength=256)
        seen["known_bases"] += int((batch.sequence < 4).sum())
        seen["usage_rows"] += len(batch.alpha)
        seen["alpha"] += float(np.nansum(batch.alpha, dtype=np.float64))
        if batch.step % CHECK_EVERY == 0:
            wrong += wrong_windows(truth, batch)
        if batch.step >= RESUME_STEP:
            tail = digest_batch(batch, tail)
        if batch.step + 1 == RESUME_STEP:
            state = stream.state_dict()
    return {
        "first_step": first_step,
        "steps": len(stream),
        "blocks": stream.plan.n_blocks,
        "live": stream.plan.live_total,
        "times_seen": np.bincount(times_seen, minlength=2).tolist(),
        "labels": {label: int(seen["labels"][label]) for label in (1, 2, 255)},
        **{name: seen[name] for name in ("known_bases", "usage_rows", "alpha")},
        "wrong": wrong,
        "tail": tail,
        "state": state,
        "reads": len(genome.reads),
        "reads_before_first": reads_before_first,
        "longest_read": max(end - start for start, end in genome.reads),
        "statistics": stream.statistics(),
        "peak_address_space_mib": peak_address_space(),
    }


def digest_batch(batch: Batch[Any], before: int) -> int:
    """Checksum of a batch's arrays after those before."""
    for name in (
        "sequence",
        "label",
        "window_id",
        "start",
        "strand",
        "usage_row_window",
        "usage_row_position",
        "alpha",
        "beta",
    ):
        before = zlib.crc32(np.ascontiguousarray(getattr(batch, name)).view(np.uint8).data, before)
    return before


def peak_address_space() -> int:
    """MiB of address space that this process had at most."""
    found = re.search(r"VmPeak:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) >> 10 if found else 0


if __name__ == "__main__":
    saved = json.loads(Path(sys.argv[2]).read_text()) if len(sys.argv) > 2 else None
    print(json.dumps(watch_epoch(sys.argv[1], saved)))
