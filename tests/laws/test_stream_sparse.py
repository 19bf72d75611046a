"""A genome of more bases than 32 bits count, and one of very many contigs: streamed right, in bounded memory and reads."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splicestore import open_store
from splicestore.schema import BLOCK_BASES, SEQUENCE_SHARD
from splicestore.storage import StoreRoot
from splicestore.stream import WindowBatches
from tests.laws.sparse_stream import CONTEXT_SIZE as CONTEXT
from tests.laws.sparse_stream import (
    CONTIG_LENGTH,
    N_BASES,
    OPTIONS,
    RESUME_STEP,
    WINDOW_SIZE,
    WRITTEN,
    CountingStore,
    sparse_genome,
    truth_of,
    wrong_windows,
)
from tests.oracles.array_oracle import ArrayTruth, cut_windows
from tests.published import GenomeArrays, Windows, publish_genome, publish_split, shards_of, tile_contigs

REPOSITORY = Path(__file__).resolve().parents[2]
ADDRESS_LIMIT = 2 << 30


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """The store, with all windows as split ``run1`` and those near borders as ``near``."""
    root = StoreRoot(str(tmp_path_factory.mktemp("sparse") / "store"))
    genome = sparse_genome()
    published = {publish_genome(root, genome): genome}
    windows = tile_contigs([genome], WINDOW_SIZE, CONTEXT)
    publish_split(root, "run1", published, windows)
    publish_split(root, "near", published, near_borders(genome, windows))
    return root.url


def near_borders(genome: GenomeArrays, windows: Windows) -> Windows:
    """Windows within 6 kb of the ends of contigs, of written shards and of what 31 and 32 bits count."""
    shards = np.array(WRITTEN) * SEQUENCE_SHARD
    ends = genome.contig_offset + genome.contig_length
    edges = np.concatenate([[0, 2**31, 2**32], ends, shards, np.minimum(shards + SEQUENCE_SHARD, N_BASES)])
    first, last = np.searchsorted(windows.start, [edges - 6_000, edges + 6_000])
    near = np.unique(np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)]))
    columns = {name: getattr(windows, name)[near] for name in ("genome", "contig", "start", "strand")}
    return replace(windows, **columns)


def under_limit(url: str, *words: str) -> dict:
    """Stream in a process of its own that may take 2 GiB of addresses."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.laws.sparse_stream", url, *words],
        cwd=REPOSITORY,
        # glibc reserves 64 MiB of addresses, not memory, for an arena of each thread that reads: 1.1 GiB that hold nothing.
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "MALLOC_ARENA_MAX": "2"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_LIMIT, ADDRESS_LIMIT)),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def epoch(sparse):
    """A whole epoch of 10^7 windows, once for all tests that look at it."""
    return under_limit(sparse)


@pytest.mark.slow
def test_ten_million_windows_come_once_each_under_an_address_limit(epoch):
    genome = sparse_genome()
    windows = tile_contigs([genome], WINDOW_SIZE, CONTEXT)
    assert CONTIG_LENGTH[0] > 2**31
    assert N_BASES > 2**32
    assert len(windows) > 10**7
    assert epoch["times_seen"] == [0, len(windows)]
    assert epoch["statistics"]["windows"] == len(windows)
    assert epoch["wrong"] == 0
    assert epoch["known_bases"] == known_bases(genome, windows)
    beyond = 2 * int((-genome.contig_length % WINDOW_SIZE).sum())
    kinds = np.bincount(genome.kind, minlength=4)
    assert epoch["labels"] == {"1": kinds[1], "2": kinds[2], "255": kinds[3] + beyond}
    measured = ~np.isnan(genome.alpha).all(axis=1)
    assert epoch["usage_rows"] == measured.sum()
    assert epoch["alpha"] == np.nansum(genome.alpha, dtype=np.float64)


def known_bases(genome: GenomeArrays, windows: Windows) -> int:
    """Bases other than N in all inputs together: what lies in a written shard and in the window's contig."""
    offset = genome.contig_offset[windows.contig]
    low = np.maximum(windows.start - CONTEXT, offset)
    high = np.minimum(windows.start + WINDOW_SIZE + CONTEXT, offset + genome.contig_length[windows.contig])
    return sum(
        int(np.maximum(0, np.minimum(high, (s + 1) * SEQUENCE_SHARD) - np.maximum(low, s * SEQUENCE_SHARD)).sum())
        for s in WRITTEN
    )


@pytest.mark.slow
def test_an_epoch_reads_each_block_once_and_the_live_ones_of_the_wrap_again(epoch):
    assert epoch["blocks"] == -(-N_BASES // BLOCK_BASES)
    assert epoch["blocks"] <= epoch["reads"] <= epoch["blocks"] + epoch["live"]
    assert epoch["reads"] == epoch["statistics"]["blocks_read"]
    assert epoch["live"] < epoch["blocks"] / 4
    assert epoch["statistics"]["live_blocks_peak"] <= epoch["live"] + 8
    assert epoch["longest_read"] <= BLOCK_BASES + WINDOW_SIZE + 2 * CONTEXT


@pytest.mark.slow
def test_an_epoch_resumed_at_step_30000_reads_little_and_ends_the_same(epoch, sparse, tmp_path):
    state = tmp_path / "state.json"
    state.write_text(json.dumps(epoch["state"]))
    resumed = under_limit(sparse, str(state))
    assert resumed["first_step"] == RESUME_STEP
    assert RESUME_STEP < resumed["steps"] == epoch["steps"]
    assert 0 < resumed["reads_before_first"] <= 2 * resumed["live"]
    assert resumed["tail"] == epoch["tail"]
    assert resumed["wrong"] == 0
    left = epoch["statistics"]["windows"] - RESUME_STEP * 256
    assert resumed["statistics"]["windows"] == left


@pytest.mark.parametrize("flip", [False, True], ids=["as in the table", "shifted and flipped"])
def test_windows_beyond_32_bits_and_at_all_borders_are_right(sparse, flip):
    store = CountingStore(sparse)
    augment = {"context_size": 430, "jitter": 20, "reverse_complement": True} if flip else {}
    stream = WindowBatches(store, **{**OPTIONS, "split": "near", **augment})
    truth, seen, known, usage = truth_of(store.genomes["wide"]), [], 0, 0
    for batch in stream:
        context = augment.get("context_size", CONTEXT)
        expected = cut_windows(truth, batch.contig, batch.start, batch.strand.astype(int), WINDOW_SIZE, context)
        for name, values in expected.items():
            np.testing.assert_array_equal(getattr(batch, name), values, err_msg=name)
        seen += batch.window_id.tolist()
        known, usage = known + int((batch.sequence < 4).sum()), usage + len(batch.alpha)
    table = store.splits["near"]
    assert sorted(seen) == list(range(len(table.window_start)))
    assert (table.window_start > 2**32).sum() > 20
    assert known > 10**5
    assert usage > 20
    assert sum(end - start for start, end in store.opened[0].reads) < 60 * BLOCK_BASES


def test_a_wrong_base_would_be_noticed(sparse):
    """The comparison of the long tests, with one base, label or count changed."""
    store = open_store(sparse)
    batch = next(iter(WindowBatches(store, **{**OPTIONS, "split": "near", "batch_size": 1_024})))
    truth = truth_of(store.genomes["wide"])
    assert wrong_windows(truth, batch) == 0
    assert len(batch.alpha)
    for name in ("sequence", "label", "usage_row_position", "alpha"):
        changed = getattr(batch, name).copy()
        changed[-1] = changed[-1] + 1
        assert wrong_windows(truth, replace(batch, **{name: changed})) >= 1, name


# -- very many contigs ---------------------------------------------------------------------------------------------

N_TINY = 100_000


def tiny_contigs(n: int) -> tuple[GenomeArrays, ArrayTruth]:
    """Contigs of 1 to 400 bases, most of them shorter than an input."""
    rng = np.random.default_rng(7)
    length = rng.integers(1, 401, n)
    codes = rng.integers(0, 5, int(length.sum())).astype(np.uint8)
    end = np.cumsum(length)
    position = np.unique(np.concatenate([rng.integers(0, len(codes), n), end[::3] - 1, (end - length)[::3]]))
    counts = rng.integers(0, 50, (2, len(position), 1)).astype(np.float32)
    counts[:, rng.random((len(position), 1)) < 0.3] = np.nan
    strand = rng.choice(np.array([-1, 1], dtype=np.int8), len(position))
    kind = rng.integers(1, 4, len(position)).astype(np.uint8)
    genome = GenomeArrays("pieces", length, shards_of(codes), position, strand, kind, ("liver",), *counts)
    return genome, ArrayTruth(codes.__getitem__, end - length, end, position, strand, kind, *counts)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """100,000 contigs and a tenth of them, in a store of each."""
    found = {}
    for n in (N_TINY, N_TINY // 10):
        root = StoreRoot(str(tmp_path_factory.mktemp("pieces") / "store"))
        genome, truth = tiny_contigs(n)
        windows = tile_contigs([genome], 120, 100)
        publish_split(root, "run1", {publish_genome(root, genome): genome}, windows)
        found[n] = (root.url, truth, len(windows))
    return found


def test_every_window_of_very_many_contigs_is_right(pieces):
    url, truth, n_windows = pieces[N_TINY]
    assert n_windows > 4 * N_TINY
    assert (truth.contig_end - truth.contig_start < 320).mean() > 0.7
    stream = WindowBatches(open_store(url), split="run1", batch_size=4_096)
    seen = np.zeros(n_windows, dtype=np.int64)
    for batch in stream:
        seen[batch.window_id] += 1
        expected = cut_windows(truth, batch.contig, batch.start, batch.strand.astype(int), 120, 100)
        for name, values in expected.items():
            np.testing.assert_array_equal(getattr(batch, name), values, err_msg=name)
    assert (seen == 1).all()


def count_calls(url: str) -> int:
    """Calls, of Python and of C functions, that the set-up of a stream and its first batches make in this thread."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        stream = WindowBatches(open_store(url), split="run1", batch_size=4_096)
        for _, _ in zip(range(10), stream, strict=False):
            pass
    finally:
        sys.setprofile(before)
    return calls


def test_neither_set_up_nor_a_batch_walks_over_contigs_or_windows_in_python(pieces):
    """Counted and not timed: ten times the contigs and windows make far fewer calls more than there are contigs more."""
    # What is compiled or imported on first use is not counted.
    _, few, many = (count_calls(pieces[n][0]) for n in (N_TINY // 10, N_TINY // 10, N_TINY))
    assert many - few < N_TINY // 4
    assert few < N_TINY
