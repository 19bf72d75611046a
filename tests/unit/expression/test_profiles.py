"""Digests of profiles against the same sums in Python's own integers; ids with and without versions."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.kernels.naming import split_version
from splicestore.kernels.profiles import add_digests, name_keys
from splicestore.normalize.match import match_genes

MASK = 2**64 - 1


def slow_digest(row, names):
    """SplitMix64's finaliser over key + count * golden ratio, summed, in integers without an end."""
    total, seen = 0, {}
    for count, name in zip(row, names, strict=True):
        times = seen.get(name, 0)
        seen[name] = times + 1
        if count:
            key = int.from_bytes(hashlib.sha256(f"{name}\t{times}".encode()).digest()[:8], "big")
            z = (key + count * 0x9E3779B97F4A7C15) & MASK
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
            total += z ^ (z >> 31)
    return total & MASK


def digests(counts, names):
    found = np.zeros(len(counts), dtype=np.uint64)
    add_digests(counts, name_keys(names), found)
    return found


@given(
    rows=st.lists(st.lists(st.integers(0, 2**32 - 1) | st.just(0), min_size=5, max_size=5), min_size=1, max_size=4),
    names=st.lists(st.sampled_from("abcd"), min_size=5, max_size=5),
    cut=st.integers(0, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_digests_are_sums_over_genes_in_any_parts(rows, names, cut, seed):
    counts = np.array(rows, dtype=np.uint32)
    found = digests(counts, names)
    assert found.tolist() == [slow_digest(row, names) for row in rows]
    key, parts = name_keys(names), np.zeros(len(rows), dtype=np.uint64)
    order = np.random.default_rng(seed).permutation(5)
    for part in (order[:cut], order[cut:]):
        add_digests(counts[:, part], key[part], parts)
    np.testing.assert_array_equal(parts, found)


def test_one_count_more_or_elsewhere_is_another_profile():
    counts = np.random.default_rng(0).integers(0, 3, (200, 40)).astype(np.uint32)
    names = [f"g{i}" for i in range(40)]
    variants = [counts, counts + np.eye(1, 40, dtype=np.uint32), np.roll(counts, 1, axis=1), counts * 2]
    everything = np.concatenate(variants)
    assert len(np.unique(digests(everything, names))) == len(np.unique(everything, axis=0))
    assert digests(np.zeros((1, 40), np.uint32), names).tolist() == [0]


@pytest.mark.parametrize(
    ("name", "parted"),
    [
        ("ENSG00000141510.17", ("ENSG00000141510", 17)),
        ("ENSMUSG00000059552.8", ("ENSMUSG00000059552", 8)),
        ("ENSG00000182378.15_PAR_Y", ("ENSG00000182378_PAR_Y", 15)),
        ("ENSGR0000182378.10", ("ENSGR0000182378", 10)),
        ("ENSG00000141510", ("ENSG00000141510", 0)),
        ("AT1G01010.1", ("AT1G01010.1", 0)),
        ("RP11-34P13.7", ("RP11-34P13.7", 0)),
        ("ENSA.2", ("ENSA.2", 0)),
        ("", ("", 0)),
    ],
)
def test_versions_are_of_ensembl_ids_alone(name, parted):
    assert split_version(name) == parted


def test_the_copies_on_x_and_y_are_matched_each_to_its_own():
    known = ["ENSG00000182378.15", "ENSG00000182378.15_PAR_Y"]
    assert match_genes(["ENSG00000182378_PAR_Y", "ENSG00000182378.9"], known).tolist() == [1, 0]
