"""The network sees exactly its reach, gives every position once, and starts at the prevalence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from splicestore.errors import ModelError
from splicestore.models.splice import SpliceNet, forward_rows, site_log_odds


def small(n_conditions=2, **options) -> SpliceNet:
    torch.manual_seed(1)
    return SpliceNet(
        n_conditions, **{"context_size": 12, "channels": 6, "dilations": (1, 3), "kernel_size": 5, **options}
    ).eval()


def bases(n=2, length=44, seed=0) -> torch.Tensor:
    codes = torch.randint(0, 4, (n, length), generator=torch.Generator().manual_seed(seed))
    return nn.functional.one_hot(codes, 4).transpose(1, 2).float()


def test_shapes():
    site, usage = small()(bases())
    assert tuple(site.shape) == (2, 3, 20)
    assert tuple(usage.shape) == (2, 2, 20)
    site, usage = small(0)(bases())
    assert tuple(usage.shape) == (2, 0, 20)


@pytest.mark.parametrize("n", [0, 1])
def test_batches_of_no_and_one_window_work(n):
    model = small()
    site, usage = model(bases(n))
    (site.sum() + usage.sum()).backward()
    assert tuple(site.shape) == (n, 3, 20)


@settings(max_examples=30)
@given(position=st.integers(0, 43), context=st.integers(0, 12))
def test_a_base_reaches_as_far_as_the_network_says_and_no_further(position, context):
    model = small(context_size=context)
    assert model.reach == 8
    one, other = bases(1), bases(1)
    other[0, :, position] = other[0, :, position].roll(1)
    changed = (model(one)[0] - model(other)[0]).abs().amax(dim=(0, 1)) > 0
    near = (torch.arange(44 - 2 * context) + context - position).abs() <= model.reach
    assert not changed[~near].any()
    same_base = near & (torch.arange(44 - 2 * context) + context == position)
    assert changed[same_base].all()


def test_missing_context_reads_as_n():
    narrow, wide = small(context_size=3), small(context_size=12)
    wide.load_state_dict(narrow.state_dict())
    x = bases(1, 30)
    padded = nn.functional.pad(x, (9, 9))
    torch.testing.assert_close(narrow(x)[0], wide(padded)[0])


def test_prediction_does_not_depend_on_the_other_windows():
    model, x = small(), bases(4)
    whole = model(x)[0]
    for row in range(4):
        torch.testing.assert_close(model(x[row : row + 1])[0][0], whole[row])


def test_shifted_input_gives_shifted_output():
    model, x = small(), bases(1, 60)
    torch.testing.assert_close(model(x[:, :, 7:51])[0], model(x)[0][:, :, 7:27])


def test_usage_at_rows_equals_dense_usage():
    model, x = small(), bases(3)
    window, position = torch.tensor([0, 2, 2], dtype=torch.int32), torch.tensor([5, 0, 19], dtype=torch.int32)
    site, usage = model(x)
    at_site, at_rows = forward_rows(model, x, window, position)
    torch.testing.assert_close(at_site, site)
    torch.testing.assert_close(at_rows, usage[window.long(), :, position.long()])

    class Plain(nn.Module):
        def forward(self, one_hot):
            return model(one_hot)

    torch.testing.assert_close(forward_rows(Plain(), x, window, position)[1], at_rows)
    assert tuple(forward_rows(small(0), x, window, position)[1].shape) == (3, 0)


def test_first_guess_is_the_prevalence():
    model = small(prevalence=(0.98, 0.012, 0.008))
    shares = torch.softmax(model(bases(8))[0], dim=1).mean(dim=(0, 2)).detach()
    np.testing.assert_allclose(shares, [0.98, 0.012, 0.008], rtol=0.2)
    model.set_prevalence((90, 5, 5))
    assert float(torch.softmax(model.site_head.bias.detach(), 0)[1]) == pytest.approx(0.05)


def test_log_odds_are_the_logit_of_the_probability():
    logits = torch.randn(2, 3, 7)
    p = torch.softmax(logits.double(), dim=1)[:, 1:]
    torch.testing.assert_close(site_log_odds(logits).double(), torch.log(p / (1 - p)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "odd kernel_size"),
        ({"channels": 0}, "channels >= 1"),
        ({"dilations": ()}, "at least one dilation"),
        ({"dilations": (1, 0)}, "each at least 1"),
        ({"prevalence": (1.0, 0.0, 0.0)}, "three shares above 0"),
    ],
)
def test_bad_dimensions_are_refused(options, message):
    with pytest.raises(ModelError, match=message):
        small(**options)


@pytest.mark.parametrize("shape", [(2, 4, 24), (2, 44, 4), (4, 44)])
def test_input_of_another_shape_is_refused(shape):
    with pytest.raises(ModelError, match=r"one-hot input \(batch, 4, length\) with length above 24"):
        small()(torch.zeros(shape))
