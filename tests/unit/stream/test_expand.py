"""Expanding on the host: every type and layout, into new tensors and into buffers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from splicestore.errors import ConfigError
from splicestore.kernels.usage import zero_below_alpha
from splicestore.stream import WindowBatches, densify_usage, one_hot
from tests.unit.stream.memory_store import grid_split, make_store, random_genome

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool]


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@settings(deadline=None, max_examples=20)
@given(codes=hnp.arrays(np.uint8, st.tuples(st.integers(0, 4), st.integers(0, 9)), elements=st.integers(0, 255)))
def test_a_base_is_a_one_in_its_channel_in_every_type(dtype, layout, codes):
    expected = np.stack([codes == base for base in range(4)], axis=1 if layout == "NCL" else 2)
    expected = torch.from_numpy(expected).to(dtype)
    found = one_hot(codes, layout=layout, dtype=dtype)
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    buffer = torch.full_like(expected, 1)
    assert one_hot(torch.from_numpy(codes), layout=layout, out=buffer) is buffer
    assert torch.equal(buffer, expected)


def test_one_sequence_and_codes_that_are_not_contiguous():
    codes = torch.from_numpy(np.arange(24, dtype=np.uint8).reshape(4, 6) % 5)
    assert torch.equal(one_hot(codes[2]), one_hot(codes)[2])
    assert torch.equal(one_hot(codes[:, ::2]), one_hot(codes)[:, :, ::2])
    assert torch.equal(one_hot(codes.long()), one_hot(codes))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.empty(4, 6, 4), r"shape \(4, 4, 6\) on cpu, got \(4, 6, 4\)"),
        (torch.empty(4, 6, 4).permute(0, 2, 1), r"got \(4, 4, 6\) on cpu, not contiguous"),
        (torch.empty(4, 4, 6, device="meta"), "on meta"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(out, message):
    with pytest.raises(ConfigError, match=message):
        one_hot(torch.zeros(4, 6, dtype=torch.uint8), out=out)


def test_the_alpha_threshold_is_that_of_the_windows():
    rng = np.random.default_rng(4)
    genome = random_genome(rng, "g0", [400], n_sites=60)
    (batch, *_) = WindowBatches(make_store([genome], grid_split([genome], 40, 5, rng)), split="run1", batch_size=64)
    plain, cut = densify_usage(batch, min_reads=3), densify_usage(batch, min_reads=3, alpha_threshold=12)
    expected = zero_below_alpha(plain.alpha.numpy(), plain.beta.numpy(), plain.sse.numpy(), 12)
    for found, wanted, before in zip(
        (cut.alpha, cut.beta, cut.sse), expected, (plain.alpha, plain.beta, plain.sse), strict=True
    ):
        np.testing.assert_array_equal(found.numpy(), wanted)
        assert not np.array_equal(found.numpy(), before.numpy(), equal_nan=True)
