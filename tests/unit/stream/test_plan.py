"""What a stream refuses, filters and fixes before it reads a base."""

from __future__ import annotations

import numpy as np
import pytest

from splicestore.errors import ConfigError, PlanError, SpliceStoreError, SplitError, WindowError
from splicestore.kernels.naming import natural_key
from splicestore.schema import BLOCK_BASES
from splicestore.stream import WindowBatches
from splicestore.stream.plan import BLOCKS_IN_FLIGHT, choose_live_blocks
from tests.oracles import order_oracle
from tests.unit.stream.memory_store import grid_split, make_store, random_genome, table_store


def ids(stream) -> list[int]:
    return [int(w) for batch in stream for w in batch.window_id]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subset": "dev"}, ConfigError, "subset must be one of train, val, test, got 'dev'"),
        ({"subset": "excluded"}, ConfigError, "subset must be one of train, val, test"),
        ({"tail": "wrap"}, ConfigError, "tail must be one of short, pad, drop, got 'wrap'"),
        ({"share": "all"}, ConfigError, "share must be one of auto, lanes, replicate"),
        ({"seed": -1}, ConfigError, r"seed must lie in \[0, 2\*\*64\), got -1"),
        ({"geneless": 1.5}, ConfigError, r"geneless is a share and lies in \[0, 1\], got 1.5"),
        ({"siteless": -0.5}, ConfigError, r"siteless is a share and lies in \[0, 1\], got -0.5"),
        ({"max_n": 2}, ConfigError, r"max_n is a share and lies in \[0, 1\], got 2.0"),
        ({"min_coverage": -1}, ConfigError, "min_coverage is in reads, from 0 on; got -1.0"),
        ({"min_coverage": 1e9}, SplitError, "subset train leaves 38, min_coverage leaves 0"),
        ({"window_weights": {"genes": 1}}, ConfigError, "window_weights has no class 'genes'; did you mean gene"),
        ({"window_weights": {"gene": -1}}, ConfigError, r"window_weights\['gene'\] must be 0 or more, got -1"),
        ({"chromosomes": ["chr9"]}, ConfigError, "chromosome 'chr9' is in none of genome0, genome1; did you mean chr"),
        ({"chromosomes": {"genome7": ["1"]}}, ConfigError, "chromosomes: the stream has no genome 'genome7'"),
        ({"chromosomes": {"genome1": ["4"]}}, ConfigError, "chromosome '4' is no contig of genome1"),
        ({"reuse_buffers": -1}, ConfigError, "reuse_buffers counts batches, from 0 on; got -1"),
        ({"context_size": 5}, WindowError, "reach 5 bp beyond a window, but its guard kept 4 bp apart"),
        ({"jitter": 1}, WindowError, "give a context_size of at most 3"),
        ({"context_size": -1}, ConfigError, "from 0 on; got -1, 0"),
        ({"batch_size": 12}, PlanError, "batch_size 12 is not a multiple of lanes 8.* so take 16 or"),
        ({"batch_size": 0}, PlanError, "batch_size 0 is not a multiple of lanes 8.* so take 8 or"),
        ({"shuffle_memory": 0}, ConfigError, "shuffle_memory is in bytes and positive, got 0"),
        ({"genomes": ["genome3"]}, ConfigError, "split run1 has no genome 'genome3'; did you mean"),
        ({"genome_weights": {"genome7": 1}}, ConfigError, "genome_weights: the stream has no genome 'genome7'"),
        ({"genome_weights": {"genome0": -1}}, ConfigError, "must be 0 or more, got -1"),
        ({"genome_weights": {"genome0": 0, "genome1": 0}}, PlanError, "no block enters the deal"),
        ({"conditions": ["liver", "liver"]}, ConfigError, "condition 'liver' is asked for twice"),
        ({"subset": "val"}, SplitError, "no window to stream in genome0, genome1: subset val leaves 0"),
        ({"rank": 2, "world_size": 2}, ConfigError, r"rank must lie in \[0, 2\)"),
        ({"world_size": 3}, PlanError, "world_size 3 does not divide lanes 8.*lanes=9"),
        ({"tail": "drop", "batch_size": 2048}, PlanError, "drops all 38 windows: the shortest of 8 lanes"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_that_cannot_hold_are_refused_with_what_to_do(options, error, message):
    store = table_store([[5, 9], [3, 1, 20]])
    with pytest.raises(error, match=message) as raised:
        WindowBatches(store, split="run1", **options)
    assert isinstance(raised.value, SpliceStoreError)


def test_blocks_are_where_the_input_begins_clamped_to_its_contig():
    rng = np.random.default_rng(2)
    genome = random_genome(rng, "a", [BLOCK_BASES - 10, 400, BLOCK_BASES])
    split = grid_split([genome], 50, 30, rng)
    plan = WindowBatches(make_store([genome], split), split="run1", context_size=20, jitter=10).plan
    position = split.window_start - genome.contig_offset[split.window_contig]
    expected = [
        order_oracle.window_block(int(genome.contig_offset[c]), int(p), 20, 10)
        for c, p in zip(split.window_contig, position, strict=True)
    ]
    block = np.repeat(plan.block_number, np.diff(plan.block_ptr))
    assert block.tolist() == [expected[w] for w in plan.window_id]
    assert (np.diff(plan.window_id) > 0).all()
    assert len(set(expected)) == plan.n_blocks == 3


def test_windows_without_a_gene_are_thinned_by_place_and_not_by_epoch_or_row():
    store = table_store([[400, 300], [500]])
    split = store.splits["run1"]
    with_gene = set(np.flatnonzero(split.window_has_gene).tolist())
    none, half, more = (set(ids(WindowBatches(store, split="run1", geneless=share))) for share in (0.0, 0.5, 0.8))
    assert none == with_gene
    assert none < half < more
    n_geneless = 1200 - len(with_gene)
    assert abs(len(half - none) - n_geneless / 2) < 5 * np.sqrt(n_geneless) / 2
    stream = WindowBatches(store, split="run1", geneless=0.5)
    stream.set_epoch(3)
    assert set(ids(stream)) == half
    assert set(ids(WindowBatches(store, split="run1", geneless=0.5, seed=1))) != half
    # Dropping the first rows of the table moves no choice.
    for name in ("genome", "contig", "start", "strand", "subset", "has_gene"):
        setattr(split, f"window_{name}", getattr(split, f"window_{name}")[100:])
    assert {w + 100 for w in ids(WindowBatches(store, split="run1", geneless=0.5))} == {w for w in half if w >= 100}


@pytest.mark.parametrize(("weight", "low", "high"), [(2, 2, 2), (0.5, 0, 1), (2.25, 2, 3), (0, 0, 0)])
def test_a_weight_is_how_often_a_genome_enters_an_epoch(weight, low, high):
    store = table_store([[3] * 8, [5] * 4])
    stream = WindowBatches(store, split="run1", genome_weights={"genome0": weight})
    counts = np.bincount(ids(stream), minlength=44)
    assert set(counts[24:]) == {1}
    assert set(counts[:24]) == {low, high}
    assert counts[:24].sum() == weight * 24
    blocks = counts[:24].reshape(8, 3)
    assert (blocks == blocks[:, :1]).all()
    chosen = []
    for epoch in range(6):
        stream.set_epoch(epoch)
        chosen.append(tuple(np.bincount(ids(stream), minlength=44)))
        assert sum(chosen[-1][:24]) == weight * 24
    assert (len(set(chosen)) > 1) == (weight != int(weight))


def test_p_grows_with_memory_and_the_heaviest_blocks_fit():
    n_bytes = np.array([100, 700, 300, 500] * 50, dtype=np.int64)
    chosen = [choose_live_blocks(n_bytes, 4, memory) for memory in (1, 20_000, 40_000, 60_000, int(n_bytes.sum()))]
    assert chosen == sorted(chosen)
    assert chosen[0] == 4
    assert chosen[-1] >= 4 * len(n_bytes)
    for live, memory in zip(chosen[1:4], (20_000, 40_000, 60_000), strict=True):
        held = live + 4 + BLOCKS_IN_FLIGHT
        assert np.sort(n_bytes)[::-1][:held].sum() <= memory
        assert live % 4 == 0


def test_bytes_of_a_block_are_its_bases_sites_and_counts():
    store = table_store([[5, 9, 2], [3]])
    few = WindowBatches(store, split="run1").plan.block_bytes
    for genome in store.genomes.by_name.values():
        genome.condition_names = [f"c{i}" for i in range(100)]
    many = WindowBatches(store, split="run1").plan
    assert (few >= many.block_high - many.block_low).all()
    # One site a block, and a stretch that may touch the next block's: 99 more conditions of two float32.
    assert ((many.block_bytes - few) >= 99 * 8).all()


def test_share_follows_the_blocks_a_lane():
    small, large = table_store([[1] * 20]), table_store([[1] * 130])
    assert WindowBatches(small, split="run1", lanes=2, batch_size=2).plan.share == "replicate"
    assert WindowBatches(large, split="run1", lanes=2, batch_size=2).plan.share == "lanes"
    assert WindowBatches(small, split="run1", share="lanes").plan.share == "lanes"


@pytest.mark.parametrize(("world", "lanes"), [(1, 8), (8, 8), (16, 16), (24, 24)])
def test_lanes_default_to_eight_or_the_world_rounded_up(world, lanes):
    stream = WindowBatches(table_store([[1] * 20]), split="run1", world_size=world, batch_size=48)
    assert stream.plan.options.lanes == lanes


def test_without_shuffling_one_process_gets_the_table_in_order():
    store = table_store([[5, 9, 70], [3, 1, 20]])
    assert ids(WindowBatches(store, split="run1", shuffle=False, batch_size=16)) == list(range(108))


def test_an_unknown_split_names_those_there_are():
    with pytest.raises(KeyError, match="run2"):
        WindowBatches(table_store([[1]]), split="run2")


def test_names_sort_naturally():
    assert sorted(["b10", "b2", "a", "b2x", "10", "9"], key=natural_key) == ["9", "10", "a", "b2", "b2x", "b10"]
