"""Batches on a device: the same ones, made ahead by a thread that leaves nothing behind; the state counts what was handed out."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import ConfigError
from splicestore.stream import WindowStream
from splicestore.stream.batch import ARRAY_FIELDS
from splicestore.stream.device import iterate_ahead
from splicestore.stream.reader import BlockReader
from tests.unit.stream.memory_store import MemoryGenome, grid_split, make_store, random_genome, table_store

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE = 30.0
"""Seconds after which a thread that should have worked is given up."""

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA GPU here: run this file where there is one"
)


def threads_ahead() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "splicestore-ahead"]


class Counted:
    """Numbers from 0 on; knows how many were made, and whether it was closed."""

    def __init__(self, n: int, fails_at: int | None = None) -> None:
        self.n, self.fails_at = n, fails_at
        self.n_made, self.closed = 0, False
        self.changed = threading.Condition()

    def items(self):
        try:
            for number in range(self.n):
                if number == self.fails_at:
                    raise OSError("the disk is gone")
                self.count()
                yield number
        finally:
            self.closed = True

    def count(self) -> None:
        with self.changed:
            self.n_made += 1
            self.changed.notify_all()

    def wait_until(self, n_made: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.n_made >= n_made, PATIENCE)


@given(n=st.integers(0, 12), ahead=st.integers(1, 5))
@settings(max_examples=30)
def test_a_thread_makes_the_same_items_and_is_ahead_by_so_many(n, ahead):
    source, got = Counted(n), []
    for number in iterate_ahead(source.items(), ahead):
        got.append(number)
        source.wait_until(min(n, len(got) + ahead))
        assert source.n_made <= len(got) + ahead
    assert got == list(range(n))
    assert source.closed
    assert not threads_ahead()


def test_an_error_comes_behind_the_items_made_before_it():
    iteration = iterate_ahead(Counted(9, fails_at=4).items(), 3)
    assert [next(iteration) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        next(iteration)
    assert not threads_ahead()


@pytest.mark.parametrize("n_taken", [0, 1, 5])
def test_an_iteration_that_ends_early_leaves_no_thread(n_taken):
    source = Counted(9)
    iteration = iterate_ahead(source.items(), 2)
    assert [next(iteration) for _ in range(n_taken)] == list(range(n_taken))
    assert len(threads_ahead()) == (n_taken > 0)
    iteration.close()
    assert not threads_ahead()
    assert source.closed == (n_taken > 0)


# -- streams. "meta" is a device without memory: batches have shapes and no contents, but go the way they go to a GPU. -----------


def table_stream(**options):
    return WindowStream(
        table_store([[30, 20, 7], [9] * 8]),
        split="run1",
        **{"batch_size": 16, "seed": 3, "jitter": 2, "context_size": 2, **options},
    )


def test_on_a_cpu_it_is_the_stream_without_a_thread():
    stream = table_stream()
    expected, before = list(stream), threading.active_count()
    batches = stream.to_device("cpu")
    assert len(batches) == len(expected)
    for ours, theirs in zip(batches, expected, strict=True):
        assert not threads_ahead()
        for name in ARRAY_FIELDS:
            np.testing.assert_array_equal(getattr(ours, name).numpy(), getattr(theirs, name).numpy(), err_msg=name)
    assert threading.active_count() == before


def test_every_batch_comes_on_the_device_epoch_after_epoch():
    stream = table_stream()
    batches, n_batches = stream.to_device("meta"), 0
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        moved, here = list(batches), list(stream)
        assert [b.step for b in moved] == [b.step for b in here] == list(range(len(batches)))
        assert [b.global_rows for b in moved] == [b.global_rows for b in here]
        n_batches += len(moved) + len(here)
        for ours, theirs in zip(moved, here, strict=True):
            for name in ARRAY_FIELDS:
                tensor = getattr(ours, name)
                assert (tensor.device.type, tensor.shape) == ("meta", getattr(theirs, name).shape), name
    found = stream.statistics()
    assert found["batches"] == n_batches
    assert found["windows"] == 4 * 129
    assert found["blocks_read"] == stream.plan.n_blocks


def test_the_state_counts_what_was_handed_out_not_what_is_ready(monkeypatch):
    cut, counted = BlockReader.cut, Counted(0)

    def counting(self, *what):
        batch = cut(self, *what)
        counted.count()
        return batch

    whole = [b.window_id.tolist() for b in table_stream()]
    monkeypatch.setattr(BlockReader, "cut", counting)
    for n_taken in range(1, len(whole) + 1):
        stream, counted.n_made = table_stream(), 0
        iteration = iter(stream.to_device("meta", ahead=3))
        for step in range(n_taken):
            assert next(iteration).step == step
            assert stream.state_dict()["step"] == step + 1
        counted.wait_until(min(len(whole), n_taken + 3))
        assert stream.state_dict()["step"] == stream.statistics()["batches"] == n_taken
        iteration.close()
        resumed = table_stream()
        resumed.load_state_dict(stream.state_dict())
        assert [b.step for b in resumed.to_device("meta")] == list(range(n_taken, len(whole)))
        resumed.load_state_dict(stream.state_dict())
        assert [b.window_id.tolist() for b in resumed] == whole[n_taken:]


def test_a_read_that_fails_in_the_thread_is_raised_to_the_consumer(monkeypatch):
    stream = table_stream(shuffle=False)

    def broken(self, start, end):
        raise OSError(f"bases {start} to {end} cannot be read")

    monkeypatch.setattr(MemoryGenome, "read_bases", broken)
    with pytest.raises(OSError, match=r"bases \d+ to \d+ cannot be read"):
        list(stream.to_device("meta"))
    assert not threads_ahead()
    monkeypatch.undo()
    assert len(list(stream.to_device("meta"))) == len(stream)


def test_a_loop_left_early_begins_the_epoch_anew_and_leaves_no_thread():
    stream = table_stream()
    for batch in stream.to_device("meta"):
        if batch.step == 3:
            break
    del batch
    assert not threads_ahead()
    assert stream.state_dict()["step"] == 4
    assert [b.step for b in stream.to_device("meta")] == list(range(len(stream)))


def test_less_than_one_batch_ahead_is_refused():
    with pytest.raises(ConfigError, match="ahead is the number of batches that wait on the device, from 1 on; got 0"):
        table_stream().to_device("meta", ahead=0)


def test_a_program_that_ends_in_the_middle_does_not_hang():
    script = """
        from splicestore.stream import WindowStream
        from tests.unit.stream.memory_store import table_store

        batches = iter(WindowStream(table_store([[30] * 4]), split="run1", batch_size=16).to_device("meta"))
        print(next(batches).step, flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


# -- on a GPU --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store():
    rng = np.random.default_rng(9)
    genomes = [
        random_genome(rng, "a", [90_000], n_sites=9_000),
        random_genome(rng, "b", [50_000], conditions=("kidney",)),
    ]
    return make_store(genomes, grid_split(genomes, 200, 100, rng))


@needs_gpu
@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("reuse_buffers", [0, 1, 2])
def test_a_gpu_gets_the_bytes_that_the_host_cut(store, reuse_buffers, ahead):
    """Copies beside a consumer that keeps its CUDA stream busy: neither buffers nor device memory are given away too early."""
    options = {"split": "run1", "batch_size": 64, "seed": 2}
    expected = list(WindowStream(store, **options))
    work = torch.randn(2_000, 2_000, device="cuda")
    kept = []
    for batch in WindowStream(store, **options, reuse_buffers=reuse_buffers).to_device("cuda", ahead=ahead):
        for _ in range(5):
            work = torch.tanh(work @ work)
        kept.append(batch.map_arrays(lambda _, tensor: tensor.clone()))
    for ours, theirs in zip(kept, expected, strict=True):
        for name in ARRAY_FIELDS:
            tensor = getattr(ours, name)
            assert tensor.is_cuda
            np.testing.assert_array_equal(tensor.cpu().numpy(), getattr(theirs, name).numpy(), err_msg=name)


@needs_gpu
def test_reused_buffers_of_a_gpu_are_page_locked(store):
    stream = WindowStream(store, split="run1", batch_size=64, reuse_buffers=1)
    moved = list(stream.to_device("cuda"))
    assert len(moved) == len(stream)
    assert next(iter(stream)).sequence.is_pinned()
