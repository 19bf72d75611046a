"""Named corners of small parts: schedulers, configuration, window options, regions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.cluster import open_executor, parse_scheduler
from splicestore.config import parse_genomes_config
from splicestore.errors import ConfigError, InputError, WindowError
from splicestore.kernels.intervals import covered_cells, grid_cells, merge_intervals
from splicestore.kernels.joining import SiteIndex, join_rates, match_boundaries
from splicestore.kernels.mixing import mix_fraction
from splicestore.kernels.usage import junction_boundary_counts, splice_site_usage, zero_below_alpha
from splicestore.predict.service import parse_region
from splicestore.windows import window_options


@pytest.mark.parametrize("spec", ["sync", "threads", "threads:3", "processes:2", "tcp://host:8786", "cluster.json"])
def test_schedulers_that_exist(spec):
    assert parse_scheduler(spec)[0] in ("sync", "threads", "processes", "address", "file")


@pytest.mark.parametrize("spec", ["slurm", "threads:x", "", "processes:-1"])
def test_schedulers_that_do_not(spec):
    with pytest.raises(ConfigError, match="use sync, threads, threads:N"):
        parse_scheduler(spec)


def double(x):
    return 2 * x


@pytest.mark.parametrize("spec", ["sync", "threads:2"])
def test_executors_give_every_task_once(spec):
    with open_executor(spec) as executor:
        assert sorted(executor.map(double, range(5))) == [(i, 2 * i) for i in range(5)]


def test_an_error_in_a_task_is_raised_as_it_is():
    def fail(_):
        raise InputError("chr1 is wrong")

    with open_executor("threads:1") as executor, pytest.raises(InputError, match="chr1 is wrong"):
        list(executor.map(fail, [1]))


def test_splicevo_patterns_become_conditions_and_may_miss_files():
    document = {
        "genomes": [{"genome_id": "human", "genome_path": "h.fa", "gtf_path": "h.gtf", "chromosomes": ["1"]}],
        "usage_files": {"human": {"pattern": "u/{tissue}.{timepoint}.tsv", "tissues": ["Brain"], "timepoints": [1, 2]}},
    }
    (genome,) = parse_genomes_config(
        json.dumps(document), "/data/genomes.json", lambda p: p.startswith("/data")
    ).genomes
    assert [(u.file, u.condition_id, u.optional) for u in genome.usage] == [
        ("/data/u/Brain.1.tsv", "Brain_1", True),
        ("/data/u/Brain.2.tsv", "Brain_2", True),
    ]
    assert genome.transcripts == "splicevo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "no `genomes` key"),
        ('{"genomes": []}', "genomes"),
        ('{"genomes": [{"genome_id": "a", "fasta": "x", "colour": "red"}]}', r"colour.*[Ee]xtra"),
        ('{"genomes": [{"genome_id": "a/b", "fasta": "x"}]}', "is not a name"),
        (
            '{"genomes": [{"genome_id": "a", "genome_path": "x"}], "usage_files": {"b": {}}}',
            r"usage_files names \['b'\]",
        ),
    ],
)
def test_configurations_that_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_genomes_config(text, "g.json", lambda _: False)


@pytest.mark.parametrize(("option", "value"), [("region", "exon"), ("minus", "no"), ("colour", 1)])
def test_window_options_that_are_refused(option, value):
    with pytest.raises(WindowError, match=option):
        window_options(**{option: value})


def test_regions():
    assert parse_region("hg38:chr1:1,000-2,000") == ("chr1", 1000, 2000)
    for text in ("chr1:1-2", "hg38:chr1:5-5", "hg38:chr1:a-b", "hg38:chr1"):
        with pytest.raises(InputError, match="region"):
            parse_region(text)


intervals = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=12)


def as_arrays(pairs):
    start = np.array([s for s, _ in pairs], dtype=np.int64)
    return start, start + np.array([n for _, n in pairs], dtype=np.int64)


@given(pairs=intervals)
def test_merging_keeps_every_base_and_leaves_no_contact(pairs):
    start, end = as_arrays(pairs)
    merged_start, merged_end = merge_intervals(start, end)
    bases = {b for s, e in zip(start, end, strict=True) for b in range(s, e)}
    assert {b for s, e in zip(merged_start, merged_end, strict=True) for b in range(s, e)} == bases
    assert (merged_start[1:] > merged_end[:-1]).all()


@given(pairs=intervals, window_size=st.integers(1, 50))
def test_grid_cells_are_those_that_share_a_base(pairs, window_size):
    start, end = as_arrays(pairs)
    interval, cell = grid_cells(start, end, window_size)
    expected = [
        (i, j)
        for i, (s, e) in enumerate(zip(start, end, strict=True))
        for j in range(s // window_size, (e - 1) // window_size + 1)
    ]
    assert list(zip(interval.tolist(), cell.tolist(), strict=True)) == expected
    covered = covered_cells(start, end, window_size, 300 // window_size + 1)
    assert set(np.flatnonzero(covered)) == {j for _, j in expected}


junctions = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 20), st.sampled_from([1, -1]), st.integers(1, 9)),
    min_size=1,
    max_size=12,
)


@given(rows=junctions)
def test_junction_counts_equal_spliser_by_definition(rows):
    start, end = as_arrays([(s, n) for s, n, _, _ in rows])
    strand = np.array([d for _, _, d, _ in rows], dtype=np.int8)
    reads = np.array([r for *_, r in rows], dtype=float)
    counts = junction_boundary_counts(np.zeros(len(rows), dtype=np.int64), start, end, strand, reads)
    found = {
        (int(p), int(side), int(s)): (a, b)
        for p, side, s, a, b in zip(counts.position, counts.side, counts.strand, counts.alpha, counts.beta, strict=True)
    }
    listed = list(zip(start.tolist(), end.tolist(), strand.tolist(), reads.tolist(), strict=True))
    expected = {}
    for position, side, sign in {(s, -1, d) for s, _, d, _ in listed} | {(e, 1, d) for _, e, d, _ in listed}:
        own = [j for j in listed if j[2] == sign and j[0 if side < 0 else 1] == position]
        partners = {j[1 if side < 0 else 0] for j in own}
        other = [j for j in listed if j[2] == sign and j[0] < position < j[1] and j[1 if side < 0 else 0] in partners]
        expected[position, side, sign] = (sum(j[3] for j in own), sum(j[3] for j in other))
    assert found == expected


@given(alpha=st.integers(0, 30), beta=st.integers(0, 30), least=st.integers(0, 30))
def test_usage_is_masked_where_evidence_is_thin(alpha, beta, least):
    sse = splice_site_usage(np.array([alpha, np.nan]), np.array([beta, 1.0]), least)
    assert np.isnan(sse[1])
    if alpha + beta >= max(least, 1):
        assert sse[0] == np.float32(alpha / (alpha + beta))
    else:
        assert np.isnan(sse[0])


def test_splicevo_threshold_zeroes_counts_but_not_missing_ones():
    alpha, beta, sse = zero_below_alpha(
        np.array([4.0, 5, np.nan]), np.array([9.0, 9, np.nan]), np.array([0.3, 0.4, np.nan]), 5
    )
    np.testing.assert_array_equal(alpha, np.array([0, 5, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(beta, np.array([0, 9, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(sse, np.array([0, 0.4, np.nan], dtype=np.float32))


def test_a_class_that_misses_shows_as_a_rate_of_zero():
    """Ten introns on +; every acceptor row is off by one and says no side."""
    donors, acceptors = np.arange(10) * 100 + 9, np.arange(10) * 100 + 50
    order = np.argsort(np.concatenate((donors, acceptors)))
    position = np.concatenate((donors, acceptors))[order]
    kind = np.repeat([2, 1], 10).astype(np.uint8)[order]
    index = SiteIndex.build(position, np.ones(20, dtype=np.int8), kind)
    left = np.concatenate((donors, acceptors))  # read as left boundaries
    right = np.concatenate((donors + 1, acceptors + 1))
    match = match_boundaries(index, left, right, np.zeros(20, dtype=np.int8), np.ones(20, dtype=np.int8))
    rates = join_rates(match, np.ones(20))
    assert rates["donor", "+"] == (10.0, 10.0)
    assert rates["acceptor", "+"] == (0.0, 10.0)


@given(seed=st.integers(0, 3))
def test_mixing_is_flat_and_depends_on_the_seed(seed):
    values = np.arange(20_000, dtype=np.int64)
    fraction = mix_fraction(values, seed)
    counts = np.histogram(fraction, bins=10, range=(0, 1))[0]
    assert counts.min() > 1_800
    assert counts.max() < 2_200
    assert (fraction != mix_fraction(values, seed + 1)).mean() > 0.99
