"""Filters and weights against a look at every window on its own: alone, together, over ranks, epochs and restarts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import SplitError
from splicestore.stream import WindowBatches
from tests.oracles import order_oracle
from tests.unit.stream.memory_store import MemoryStore, grid_split, make_store, random_genome, slow_window

WINDOW_SIZE, CONTEXT = 25, 12
INPUT = WINDOW_SIZE + 2 * CONTEXT
CONDITIONS = {"a": ("brain", "liver"), "b": ("kidney", "liver")}


@dataclass(frozen=True)
class Facts:
    """One window of a split."""

    genome: str
    chromosome: str
    has_gene: bool
    has_site: bool
    n_unknown: int
    reads: dict[str, float]
    """Of the site that has most, by condition that measured any."""

    @property
    def kind(self) -> str:
        return "site" if self.has_site else "gene" if self.has_gene else "geneless"


def make_facts(store: MemoryStore) -> list[Facts]:
    split = store.splits["run1"]
    found = []
    for row in range(len(split.window_start)):
        genome = store.genomes.by_name[split.genome_ids[split.window_genome[row]]]
        contig, start, strand = (
            int(values[row]) for values in (split.window_contig, split.window_start, split.window_strand)
        )
        first = int(genome.contig_offset[contig])
        last = first + int(genome.contig_length[contig])
        slow = slow_window(genome, contig, start, strand, WINDOW_SIZE, CONTEXT, genome.condition_names)
        totals = [[a + b for a, b in values] for _, values in slow["usage"]]
        reads = {}
        for c, name in enumerate(genome.condition_names):
            measured = [each[c] for each in totals if each[c] == each[c]]
            reads |= {name: max(measured)} if measured else {}
        has_site = any(
            (position, strand) in genome.site_rows
            for position in range(start, start + WINDOW_SIZE)
            if first <= position < last
        )
        n_unknown = slow["sequence"].count(4)
        has_gene = bool(split.window_has_gene[row])
        found.append(Facts(genome.genome_id, f"chr{contig + 1}", has_gene, has_site, n_unknown, reads))
    return found


def a_store(seed: int, lengths: tuple[tuple[int, ...], ...] = ((170, 60, 9), (120, 200)), n_sites: int = 8):
    """Two genomes of small contigs; runs of N at the ends of some."""
    rng = np.random.default_rng(seed)
    genomes = []
    for (name, conditions), each in zip(CONDITIONS.items(), lengths, strict=True):
        genome = random_genome(rng, name, list(each), n_sites=n_sites, conditions=conditions)
        genome.bases[genome.bases == 4] = 0
        for end in np.cumsum(each)[::2]:
            genome.bases[end - int(rng.integers(0, 40)) : end] = 4
        genomes.append(genome)
    split = grid_split(genomes, WINDOW_SIZE, CONTEXT, rng)
    return make_store(genomes, split)


def stream_of(store: MemoryStore, **options) -> WindowBatches:
    return WindowBatches(store, split="run1", **{"batch_size": 8, "seed": 2, **options})


def ids(stream) -> list[list[int]]:
    return [batch.window_id.tolist() for batch in stream]


def rows(stream) -> list[int]:
    return sorted(row for batch in ids(stream) for row in batch)


def is_kept(facts: Facts, options: dict) -> bool:
    """Whether a window stays under filters whose shares are 0 or 1."""
    chosen = options.get("conditions", ("brain", "kidney", "liver"))
    most = max((reads for name, reads in facts.reads.items() if name in chosen), default=0)
    return (
        (facts.chromosome in options.get("chromosomes", (facts.chromosome,)))
        and (facts.has_gene or options.get("geneless", 1.0) == 1.0)
        and (facts.has_site or options.get("siteless", 1.0) == 1.0)
        and facts.n_unknown / INPUT <= options.get("max_n", 1.0)
        and (not options.get("min_coverage") or most >= options["min_coverage"])
    )


filters = st.fixed_dictionaries(
    {},
    optional={
        "chromosomes": st.sampled_from([("chr1",), ("chr2",), ("chr1", "chr3")]),
        "geneless": st.sampled_from([0.0, 1.0]),
        "siteless": st.sampled_from([0.0, 1.0]),
        "max_n": st.integers(0, INPUT).map(lambda n: n / INPUT),
        "min_coverage": st.integers(0, 50),
        "conditions": st.sampled_from([("liver",), ("kidney", "brain"), ("liver", "brain")]),
    },
)


@given(seed=st.integers(0, 10_000), options=filters, data=st.data())
@settings(max_examples=120)
def test_filters_together_keep_what_each_keeps_alone(seed, options, data):
    store = a_store(seed)
    expected = [row for row, facts in enumerate(make_facts(store)) if is_kept(facts, options)]
    if not expected:
        with pytest.raises(SplitError, match="no window"):
            stream_of(store, **options)
        return
    stream = stream_of(store, **options)
    assert stream.plan.n_windows == len(expected)
    batches = ids(stream)
    assert len(stream) == len(batches)
    assert sorted(row for batch in batches for row in batch) == expected
    world = data.draw(st.sampled_from([2, 4, 8]), label="world")
    ranks = [stream_of(store, rank=rank, world_size=world, **options) for rank in range(world)]
    assert sorted(row for rank in ranks for row in rows(rank)) == expected
    step = data.draw(st.integers(0, len(batches)), label="step")
    resumed = stream_of(store, **options)
    resumed.load_state_dict({**stream.state_dict(), "step": step})
    assert ids(resumed) == batches[step:]


@given(seed=st.integers(0, 10_000), epoch=st.integers(0, 3), options=filters)
@settings(max_examples=30)
def test_neither_epoch_nor_shift_nor_flip_changes_which_windows_come(seed, epoch, options):
    """Filters look at a window where the table has it."""
    store = a_store(seed)
    store.splits["run1"].context_size = CONTEXT + 6
    if not any(is_kept(facts, options) for facts in make_facts(store)):
        return
    plain = stream_of(store, context_size=CONTEXT, **options)
    moved = stream_of(store, context_size=CONTEXT, jitter=6, reverse_complement=True, **options)
    moved.set_epoch(epoch)
    assert rows(moved) == rows(plain)


def test_a_share_of_n_that_equals_the_limit_is_kept():
    """49 is the first input length for which 1/49 * 49 is less than 1 in floating point."""
    assert INPUT == 49
    for seed in range(20):
        store = a_store(seed)
        facts = make_facts(store)
        for n in {f.n_unknown for f in facts}:
            expected = [row for row, f in enumerate(facts) if f.n_unknown <= n]
            assert rows(stream_of(store, max_n=n / INPUT)) == expected, (seed, n)


def test_coverage_that_equals_the_limit_is_kept_and_other_conditions_do_not_count():
    n_checked = 0
    for seed in range(10):
        store = a_store(seed)
        facts = make_facts(store)
        for condition in ("brain", "kidney", "liver"):
            seen = sorted({f.reads[condition] for f in facts if f.reads.get(condition, 0) > 0})
            for reads in seen:
                expected = [row for row, f in enumerate(facts) if f.reads.get(condition, -1) >= reads]
                assert rows(stream_of(store, min_coverage=reads, conditions=[condition])) == expected
                n_checked += 1
    assert n_checked > 50


class CountingName(str):
    """A name that counts how often it is compared."""

    n_compared = 0

    def __eq__(self, other: object) -> bool:
        CountingName.n_compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_names_of_many_chromosomes_are_looked_up_and_not_compared_with_every_contig():
    """Assemblies have 10^5 contigs: each name against each contig would be 10^10 comparisons."""
    n = 1_000
    store = a_store(6, lengths=((30,) * n, (40,)))
    wanted = [CountingName(f"chr{number + 1}") for number in range(0, n, 2)]
    CountingName.n_compared = 0
    stream = stream_of(store, chromosomes=wanted)
    assert CountingName.n_compared < 10 * n
    split = store.splits["run1"]
    # The other genome has a chr1 too.
    assert rows(stream) == np.flatnonzero(split.window_contig % 2 == 0).tolist()


# -- shares --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> tuple[MemoryStore, list[Facts]]:
    store = a_store(1, lengths=((40_000, 9_000), (30_000, 2_000)), n_sites=700)
    return store, make_facts(store)


@pytest.mark.parametrize(("name", "is_certain"), [("siteless", "has_site"), ("geneless", "has_gene")])
def test_shares_grow_with_the_number_and_are_as_large_as_it_says(large, name, is_certain):
    store, facts = large
    certain = {row for row, f in enumerate(facts) if getattr(f, is_certain)}
    others = len(facts) - len(certain)
    assert min(others, len(certain)) > 500
    before = certain
    assert set(rows(stream_of(store, **{name: 0.0}))) == certain
    for share in (0.1, 0.35, 0.8, 1.0):
        stream = stream_of(store, **{name: share})
        found = set(rows(stream))
        assert before <= found
        assert abs(len(found - certain) - share * others) <= 5 * np.sqrt(share * (1 - share) * others)
        stream.set_epoch(4)
        assert set(rows(stream)) == found
        before = found
    assert set(rows(stream_of(store, **{name: 0.35, "seed": 3}))) != set(rows(stream_of(store, **{name: 0.35})))


def test_two_shares_are_drawn_apart(large):
    """A window without gene and site stays by both: the draws of one do not decide the other."""
    store, facts = large
    bare = {row for row, f in enumerate(facts) if not f.has_gene and not f.has_site}
    found = set(rows(stream_of(store, siteless=0.5, geneless=0.5))) & bare
    assert abs(len(found) - len(bare) / 4) <= 5 * np.sqrt(len(bare) * 3 / 16)


# -- weights of windows ------------------------------------------------------------------------------------------------

weights = st.dictionaries(st.sampled_from(["site", "gene", "geneless"]), st.sampled_from([0, 1, 2, 3]), min_size=1)


@given(seed=st.integers(0, 10_000), weights=weights, options=filters, lanes=st.sampled_from([1, 3, 8]))
@settings(max_examples=80)
def test_whole_weights_repeat_windows_in_the_order_of_the_rule(seed, weights, options, lanes):
    store = a_store(seed)
    facts = make_facts(store)
    times = [weights.get(f.kind, 1) * is_kept(f, options) for f in facts]
    if not sum(times):
        with pytest.raises(SplitError, match="no window"):
            stream_of(store, window_weights=weights, **options)
        return
    stream = stream_of(store, window_weights=weights, lanes=lanes, batch_size=4 * lanes, **options)
    # All windows of a genome lie in its one block, and copies of a window beside each other.
    blocks = [
        [row for row, f in enumerate(facts) if f.genome == name for _ in range(times[row])] for name in CONDITIONS
    ]
    blocks = [block for block in blocks if block]
    ordered = order_oracle.epoch_lanes(blocks, lanes, stream.plan.live_total, 2, 0)
    assert ids(stream) == order_oracle.epoch_batches(ordered, 4 * lanes)
    assert Counter(rows(stream)) == Counter({row: n for row, n in enumerate(times) if n})
    assert stream.plan.n_windows == sum(times)


@pytest.mark.parametrize("weight", [0.25, 1.5, 2.75])
def test_a_fraction_of_a_weight_is_that_share_of_the_windows(large, weight):
    store, facts = large
    stream = stream_of(store, window_weights={"gene": weight})
    for epoch in range(3):
        stream.set_epoch(epoch)
        found = Counter(rows(stream))
        mine = [found[row] for row, f in enumerate(facts) if f.kind == "gene"]
        assert {found[row] for row, f in enumerate(facts) if f.kind != "gene"} == {1}
        assert set(mine) == {int(weight), int(weight) + 1}
        share = weight % 1
        assert abs(sum(mine) - weight * len(mine)) <= 5 * np.sqrt(share * (1 - share) * len(mine))
        assert len(stream) == len(ids(stream))


def test_weights_of_windows_and_of_genomes_multiply():
    store = a_store(3)
    facts = make_facts(store)
    found = Counter(rows(stream_of(store, window_weights={"site": 3}, genome_weights={"a": 2})))
    for row, f in enumerate(facts):
        assert found[row] == (3 if f.has_site else 1) * (2 if f.genome == "a" else 1)


def test_a_weighted_and_filtered_stream_restored_at_every_step_gives_the_same_tail():
    store = a_store(4)
    options = {
        "window_weights": {"site": 2.5, "geneless": 0.5},
        "genome_weights": {"b": 1.5},
        "siteless": 0.8,
        "max_n": 0.7,
        "tail": "pad",
        "reverse_complement": True,
    }
    whole = stream_of(store, **options)
    whole.set_epoch(1)
    states = [whole.state_dict()]
    batches = []
    for batch in whole:
        batches.append((batch.window_id.tolist(), batch.strand.tolist(), batch.global_rows))
        states.append(whole.state_dict())
    assert len(batches) > 5
    for state in states:
        resumed = stream_of(store, **options)
        resumed.load_state_dict(state)
        tail = [(b.window_id.tolist(), b.strand.tolist(), b.global_rows) for b in resumed]
        assert tail == batches[state["step"] :]


def test_copies_of_a_window_are_shifted_and_flipped_apart():
    store = a_store(5)
    store.splits["run1"].context_size = CONTEXT + 10
    options = {"window_weights": {"site": 8, "gene": 8, "geneless": 8}, "jitter": 10, "reverse_complement": True}
    seen: dict[int, set[tuple[int, int]]] = {}
    for batch in stream_of(store, context_size=CONTEXT, **options):
        for row, start, strand in zip(batch.window_id, batch.start, batch.strand, strict=True):
            seen.setdefault(int(row), set()).add((int(start), int(strand)))
    assert np.mean([len(places) for places in seen.values()]) > 6
