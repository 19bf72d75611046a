"""Which windows a stream has, held against a look at every window base by base."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import ConfigError
from splicestore.kernels.naming import ContigMatcher
from splicestore.schema import BLOCK_BASES
from splicestore.stream import WindowBatches
from tests.unit.stream.memory_store import grid_split, make_store, random_genome

SIZE, CONTEXT = 20, 6


def a_store(seed, lengths=((90, 33), (150,))):
    rng = np.random.default_rng(seed)
    genomes = [random_genome(rng, f"g{i}", list(each), n_sites=6) for i, each in enumerate(lengths)]
    split = grid_split(genomes, SIZE, CONTEXT, rng)
    split.window_has_gene = rng.random(len(split.window_start)) < 0.5
    return make_store(genomes, split), genomes, split


def rows_of(store, **options):
    """Rows that one epoch yields, and how often."""
    stream = WindowBatches(store, split="run1", batch_size=8, context_size=CONTEXT, **options)
    return Counter(np.concatenate([batch.window_id for batch in stream]).tolist())


class Look:
    """One window, looked at base by base."""

    def __init__(self, genomes, split, row):
        self.genome = genomes[split.window_genome[row]]
        contig = split.window_contig[row]
        self.first = int(self.genome.contig_offset[contig])
        self.last = self.first + int(self.genome.contig_length[contig])
        self.start, self.strand = int(split.window_start[row]), int(split.window_strand[row])
        self.has_gene = bool(split.window_has_gene[row])

    def sites(self):
        inside = range(max(self.start, self.first), min(self.start + SIZE, self.last))
        return [i for i, (p, s, _) in enumerate(self.genome.sites) if p in inside and s == self.strand]

    def n_share(self):
        places = range(self.start - CONTEXT, self.start + SIZE + CONTEXT)
        unknown = [p for p in places if not self.first <= p < self.last or self.genome.bases[p] == 4]
        return len(unknown) / len(places)

    def most_reads(self, columns):
        reads = [self.genome.alpha[i, c] + self.genome.beta[i, c] for i in self.sites() for c in columns]
        return max([r for r in reads if not np.isnan(r)], default=0)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), max_n=st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5]), reads=st.integers(0, 60))
def test_windows_that_stay_are_those_that_a_look_at_each_keeps(seed, max_n, reads):
    store, genomes, split = a_store(seed)
    looks = [Look(genomes, split, row) for row in range(len(split.window_start))]
    kept = {row for row, look in enumerate(looks) if look.n_share() <= max_n}
    assume_some = kept or {-1}
    if assume_some != {-1}:
        assert rows_of(store, max_n=max_n) == Counter(kept)
    sited = {row for row, look in enumerate(looks) if look.sites()}
    if sited:
        assert rows_of(store, siteless=0.0) == Counter(sited)
    covered = {row for row, look in enumerate(looks) if look.most_reads([1]) >= max(reads, 1)}
    if covered:
        assert rows_of(store, min_coverage=max(reads, 1), conditions=["liver"]) == Counter(covered)


def test_filters_hold_across_the_borders_of_blocks_and_contigs():
    rng = np.random.default_rng(3)
    genome = random_genome(rng, "g0", [BLOCK_BASES - 7, BLOCK_BASES + 11], n_sites=10, special=(BLOCK_BASES - 8,))
    genome.bases[:] = np.where(rng.random(genome.n_bases) < 0.3, 4, genome.bases)
    split = grid_split([genome], 5_000, CONTEXT, rng)
    store = make_store([genome], split)
    is_n = np.concatenate(([0], np.cumsum(genome.bases == 4)))
    expected = set()
    for row in range(len(split.window_start)):
        first = int(genome.contig_offset[split.window_contig[row]])
        last = first + int(genome.contig_length[split.window_contig[row]])
        begin = int(split.window_start[row]) - CONTEXT
        low, high = max(begin, first), min(begin + 5_000 + 2 * CONTEXT, last)
        if is_n[high] - is_n[low] + 5_000 + 2 * CONTEXT - (high - low) <= 0.44 * (5_000 + 2 * CONTEXT):
            expected.add(row)
    assert 10 < len(expected) < len(split.window_start) - 10
    assert rows_of(store, max_n=0.44) == Counter(expected)


def test_weights_repeat_the_windows_of_a_class_and_thin_them_by_place():
    store, genomes, split = a_store(5, [(900, 330), (1_500,)])
    looks = [Look(genomes, split, row) for row in range(len(split.window_start))]
    classes = ["site" if look.sites() else "gene" if look.has_gene else "geneless" for look in looks]
    found = rows_of(store, window_weights={"site": 2.5, "geneless": 0.25})
    times = {name: [found[row] for row, c in enumerate(classes) if c == name] for name in set(classes)}
    assert set(times["site"]) == {2, 3}
    assert set(times["gene"]) == {1}
    assert set(times["geneless"]) == {0, 1}
    assert 0.05 < np.mean(times["geneless"]) < 0.5
    assert found == rows_of(store, window_weights={"site": 2.5, "geneless": 0.25}, lanes=4)
    assert found != rows_of(store, window_weights={"site": 2.5, "geneless": 0.25}, seed=1)
    stream = WindowBatches(store, split="run1", batch_size=8, window_weights={"site": 2.5, "geneless": 0.25})
    assert stream.plan.n_windows == sum(found.values())
    assert len(stream) == len(list(stream))


def test_chromosomes_are_found_with_or_without_chr():
    store, _, split = a_store(6)
    first = {row for row in range(len(split.window_start)) if split.window_contig[row] == 0}
    assert rows_of(store, chromosomes=["1"]) == Counter(first)
    assert rows_of(store, chromosomes="chr1") == Counter(first)
    only = {row for row in first if split.window_genome[row] == 1}
    both = {row for row in range(len(split.window_start)) if split.window_genome[row] == 0} | only
    assert rows_of(store, chromosomes={"g1": ["chr1"]}) == Counter(both)
    # chr2 is a contig of g0 alone, so g1 has no window; a name that nothing has is refused.
    second = {row for row in range(len(split.window_start)) if split.window_contig[row] == 1}
    assert rows_of(store, chromosomes=["chr2"]) == Counter(second)
    with pytest.raises(ConfigError, match="chromosome 'chr7' is in none of g0, g1"):
        rows_of(store, chromosomes=["chr1", "chr7"])


def test_an_alias_is_an_exact_name_and_a_contigs_own_name_goes_first():
    assert ContigMatcher(["chrM", "chr1"], {"MT": "chrM"}).rows_of("MT") == [0]
    assert ContigMatcher(["1", "2"], {"1": "2"}).rows_of("1") == [0]
    assert ContigMatcher(["1"]).rows_of("X") == []
