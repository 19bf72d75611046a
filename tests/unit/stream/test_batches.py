"""Batches equal windows cut out one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import ConfigError
from splicestore.kernels.gather import LiveBases, WindowRows, cut_bases
from splicestore.schema import BLOCK_BASES
from splicestore.stream import WindowBatches
from splicestore.stream.batch import ARRAY_FIELDS, join_batches
from tests.unit.stream.memory_store import MemoryStore, grid_split, make_store, random_genome, slow_window


def assert_equals_slow(store: MemoryStore, batch, context_size: int) -> int:
    """Compare every row of a batch with its window cut out base by base; return how many usage rows there were."""
    split = store.splits["run1"]
    conditions, n_usage = list(batch.condition_names), 0
    keys = list(zip(batch.usage_row_window.tolist(), batch.usage_row_position.tolist(), strict=True))
    assert keys == sorted(keys)
    for b in range(len(batch)):
        name = batch.genome_names[int(batch.genome[b])]
        genome = store.genomes.by_name[name]
        window = (int(batch.contig[b]), int(batch.start[b]), int(batch.strand[b]))
        slow = slow_window(genome, *window, split.window_size, context_size, conditions)
        assert batch.sequence[b].tolist() == slow["sequence"]
        if batch.window_id[b] < 0:
            assert (batch.label[b] == 255).all()
            assert not (batch.usage_row_window == b).any()
            continue
        assert batch.label[b].tolist() == slow["label"]
        rows = np.flatnonzero(batch.usage_row_window == b)
        assert batch.usage_row_position[rows].tolist() == [place for place, _ in slow["usage"]]
        values = np.array([v for _, v in slow["usage"]], dtype=np.float32).reshape(len(rows), len(conditions), 2)
        np.testing.assert_array_equal(np.stack([batch.alpha[rows], batch.beta[rows]], axis=-1), values)
        n_usage += len(rows)
    return n_usage


@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=6), min_size=1, max_size=3),
    window_size=st.integers(1, 40),
    context_size=st.integers(0, 30),
    lanes=st.integers(1, 3),
    tail=st.sampled_from(["short", "pad"]),
)
@settings(max_examples=60)
def test_batches_equal_windows_cut_out_one_by_one(seed, lengths, window_size, context_size, lanes, tail):
    rng = np.random.default_rng(seed)
    panels = [("brain_10", "brain_2"), ("brain_2", "liver"), ()]
    genomes = [random_genome(rng, f"g{i}", n, conditions=panels[i]) for i, n in enumerate(lengths)]
    split = grid_split(genomes, window_size, context_size, rng)
    stream = WindowBatches(make_store(genomes, split), split="run1", batch_size=7 * lanes, lanes=lanes, tail=tail)
    seen = []
    for batch in stream:
        assert_equals_slow(make_store(genomes, split), batch, context_size)
        seen += batch.window_id[batch.window_id >= 0].tolist()
        rows = batch.window_id[batch.window_id >= 0]
        assert (batch.start[batch.window_id >= 0] == split.window_start[rows]).all()
        assert (batch.strand[batch.window_id >= 0] == split.window_strand[rows]).all()
    assert sorted(seen) == list(range(len(split.window_start)))


@given(seed=st.integers(0, 10_000), context_size=st.integers(0, 6), jitter=st.integers(0, 6), flip=st.booleans())
@settings(max_examples=40)
def test_shifted_and_flipped_windows_equal_the_windows_they_became(seed, context_size, jitter, flip):
    rng = np.random.default_rng(seed)
    genomes = [random_genome(rng, "g0", [50, 7, 120])]
    split = grid_split(genomes, 16, 12, rng)
    store = make_store(genomes, split)
    stream = WindowBatches(
        store, split="run1", batch_size=8, context_size=context_size, jitter=jitter, reverse_complement=flip
    )
    for batch in stream:
        assert_equals_slow(store, batch, context_size)
        shift = batch.start - split.window_start[batch.window_id]
        assert (np.abs(shift) <= jitter).all()
        assert flip or (batch.strand == split.window_strand[batch.window_id]).all()


@pytest.fixture(scope="module")
def several_blocks() -> MemoryStore:
    """Blocks that begin inside a contig, contigs that begin inside a block, sites on both sides of every border."""
    rng = np.random.default_rng(11)
    border = BLOCK_BASES
    lengths = [border + 500, 300, 2 * border - 900, 40]
    edges = [b * border for b in (1, 2, 3)] + np.cumsum(lengths)[:-1].tolist()
    special = tuple(edge + d for edge in edges for d in (*range(-601, 600, 30), -1, 1) if edge + d < sum(lengths))
    genome = random_genome(rng, "wide", lengths, n_sites=3_000, special=special)
    other = random_genome(rng, "other", [5_000], n_sites=100, conditions=("kidney",))
    split = grid_split([genome, other], 600, 450, rng, subset=1)
    # All windows near a border are streamed, and a few of the others.
    near = np.abs(split.window_start[:, None] - np.array(edges)).min(axis=1) < 3_000
    split.window_subset[near | (rng.random(len(near)) < 0.03)] = 0
    return make_store([genome, other], split)


@pytest.mark.parametrize("memory", [1, 4 << 20, 1 << 29], ids=["one block a lane", "few blocks", "all blocks"])
def test_windows_at_the_borders_of_blocks_and_contigs_are_whole(several_blocks, memory):
    stream = WindowBatches(
        several_blocks, split="run1", batch_size=64, shuffle_memory=memory, jitter=50, context_size=400
    )
    usage = sum(assert_equals_slow(several_blocks, batch, 400) for batch in stream)
    assert usage > 100
    split = several_blocks.splits["run1"]
    assert stream.statistics()["windows"] == int((split.window_subset == 0).sum())


def test_a_block_is_read_within_its_bases_and_one_input_length(several_blocks):
    for genome in several_blocks.genomes.by_name.values():
        genome.reads.clear()
    stream = WindowBatches(several_blocks, split="run1", batch_size=64)
    list(stream)
    reads = [r for genome in several_blocks.genomes.by_name.values() for r in genome.reads]
    assert len(reads) == stream.plan.n_blocks == stream.statistics()["blocks_read"]
    for low, high in reads:
        assert high <= (low // BLOCK_BASES + 1) * BLOCK_BASES + stream.input_length


def test_conditions_of_several_genomes_line_up_in_natural_order():
    rng = np.random.default_rng(5)
    genomes = [
        random_genome(rng, "a", [300], conditions=("heart_10", "heart_2")),
        random_genome(rng, "b", [300], conditions=("heart_2", "Liver")),
    ]
    store = make_store(genomes, grid_split(genomes, 20, 5, rng))
    batch = next(iter(WindowBatches(store, split="run1")))
    assert batch.condition_names == ("Liver", "heart_2", "heart_10")
    assert batch.condition_mask.tolist() == [[False, True, True], [True, True, False]]
    with pytest.raises(ConfigError, match="no streamed genome has the condition 'heart_10'; did you mean heart_2"):
        WindowBatches(store, split="run1", conditions=["heart_10"], genomes=["b"])


def test_chosen_conditions_keep_their_order_and_their_rows():
    rng = np.random.default_rng(6)
    genomes = [random_genome(rng, "a", [400], n_sites=80, conditions=("c1", "c2", "c3"))]
    store = make_store(genomes, grid_split(genomes, 20, 5, rng))
    batch = next(iter(WindowBatches(store, split="run1", conditions=["c3", "c1"])))
    assert batch.condition_names == ("c3", "c1")
    assert assert_equals_slow(store, batch, 5) > 5
    measured = ~np.isnan(batch.alpha + batch.beta)
    assert measured.any(axis=1).all()


def test_a_batch_as_a_dict_has_the_fields_of_the_contract():
    rng = np.random.default_rng(7)
    genomes = [random_genome(rng, "a", [400])]
    batch = next(iter(WindowBatches(make_store(genomes, grid_split(genomes, 20, 5, rng)), split="run1")))
    fields = batch.as_dict()
    assert list(fields) == [*ARRAY_FIELDS, "genome_names", "condition_names"]
    dtypes = {name: str(fields[name].dtype) for name in ARRAY_FIELDS}
    assert dtypes == {
        "sequence": "uint8",
        "label": "uint8",
        "genome": "int16",
        "contig": "int32",
        "start": "int64",
        "strand": "int8",
        "window_id": "int64",
        "usage_row_window": "int32",
        "usage_row_position": "int32",
        "alpha": "float32",
        "beta": "float32",
        "condition_mask": "bool",
    }
    assert batch.sequence.shape == (len(batch), 30)
    assert batch.label.shape == (len(batch), 20)


def test_joined_parts_count_usage_rows_from_the_first_part():
    rng = np.random.default_rng(8)
    genomes = [random_genome(rng, "a", [400], n_sites=80)]
    store = make_store(genomes, grid_split(genomes, 20, 5, rng))
    parts = list(WindowBatches(store, split="run1", batch_size=8))[:3]
    joined = join_batches(parts, np.concatenate)
    assert len(joined) == sum(len(p) for p in parts)
    assert assert_equals_slow(store, joined, 5) == sum(len(p.alpha) for p in parts) > 0


def test_a_window_beyond_its_block_is_refused_instead_of_read():
    one = np.array([0])
    rows = WindowRows(one, one.astype(np.int16), one + 95, np.ones(1, np.int8), one, one + 200)
    live = LiveBases(np.zeros((1, 100), dtype=np.uint8), one, one + 100)
    with pytest.raises(IndexError, match=r"needs bases \[90, 110\), beyond the block in slot 0"):
        cut_bases(rows, live, flank=5, length=20)
