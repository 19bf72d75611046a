"""Losses equal slow loops, ignore what they must, and add up over ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.train.losses import real_rows, site_loss, usage_loss, usage_rows
from tests.unit.train.small_batches import random_batch, take_rows


def slow_site_loss(logits, batch, weights):
    total = 0.0
    for b in range(len(batch)):
        for w in range(batch.label.shape[1]):
            code = int(batch.label[b, w])
            if code == 255 or batch.window_id[b] < 0:
                continue
            z = logits[b, :, w].double()
            total += weights[code] * float(torch.logsumexp(z, 0) - z[code])
    return total / batch.global_rows


def slow_usage_loss(logits, batch, weights, min_reads, max_reads):
    total = 0.0
    for row in range(len(batch.alpha)):
        window = int(batch.usage_row_window[row])
        for c in range(batch.alpha.shape[1]):
            a, b = float(batch.alpha[row, c]), float(batch.beta[row, c])
            if math.isnan(a + b) or a + b < max(min_reads, 1e-9) or batch.window_id[window] < 0:
                continue
            if not batch.condition_mask[int(batch.genome[window]), c]:
                continue
            p = 1 / (1 + math.exp(-float(logits[row, c])))
            nll = -(a * math.log(p) + b * math.log(1 - p)) / (a + b)
            total += weights[c] * nll * min(a + b, max_reads) / max_reads
    return total / (batch.global_rows * sum(weights))


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), padded=st.integers(0, 2), min_reads=st.sampled_from([0, 1, 10, 16, 1000]))
def test_losses_equal_a_loop(seed, padded, min_reads):
    batch = random_batch(seed, padded=padded)
    generator = torch.Generator().manual_seed(seed)
    site_logits = torch.randn(4, 3, batch.label.shape[1], generator=generator)
    row_logits = torch.randn(batch.alpha.shape, generator=generator)
    weights, by_condition = [0.5, 2.0, 3.0], [1.0, 0.25]
    found = site_loss(site_logits, batch.label, real_rows(batch), batch.global_rows, torch.tensor(weights))
    assert float(found) == pytest.approx(slow_site_loss(site_logits, batch, weights), rel=1e-4, abs=1e-9)
    rows = usage_rows(batch, min_reads)
    found = usage_loss(row_logits, rows, batch.global_rows, torch.tensor(by_condition), 15)
    assert float(found) == pytest.approx(
        slow_usage_loss(row_logits, batch, by_condition, min_reads, 15), rel=1e-4, abs=1e-9
    )


def test_losses_of_the_ranks_add_up_to_the_global_loss():
    batch = random_batch(5, n=5)
    logits, at_rows = torch.randn(5, 3, 60), torch.randn(batch.alpha.shape)
    shares = [slice(0, 2), slice(2, 5), slice(5, 5)]

    def losses(part, rows):
        window = batch.usage_row_window.long()
        mine = torch.isin(window, torch.arange(5)[rows])
        site = site_loss(logits[rows], part.label, real_rows(part), part.global_rows)
        usage = usage_loss(at_rows[mine], usage_rows(part, 10), part.global_rows, torch.ones(2), 100)
        return torch.stack([site, usage])

    whole = losses(batch, slice(None))
    parts = sum(losses(take_rows(batch, rows), rows) for rows in shares)
    torch.testing.assert_close(parts, whole)


def test_gradient_is_zero_where_nothing_is_labelled():
    batch = random_batch(2, padded=1)
    logits = torch.randn(4, 3, 60, requires_grad=True)
    site_loss(logits, batch.label, real_rows(batch), batch.global_rows).backward()
    ignored = (batch.label == 255) | (batch.window_id < 0)[:, None]
    assert ignored.any()
    assert (logits.grad.abs().sum(dim=1) == 0).equal(ignored)


def test_gradient_of_unmeasured_usage_is_zero_and_finite():
    batch = random_batch(3)
    at_rows = torch.randn(batch.alpha.shape, requires_grad=True)
    rows = usage_rows(batch, 10)
    usage_loss(at_rows, rows, 4, torch.ones(2), 100).backward()
    assert torch.isfinite(at_rows.grad).all()
    assert (at_rows.grad != 0).equal(rows.measured)
    assert 0 < int(rows.measured.sum()) < rows.measured.numel()


def test_a_genome_without_a_condition_gives_it_no_loss():
    batch = random_batch(4)
    rows = usage_rows(batch, 0)
    in_cow = batch.genome[batch.usage_row_window.long()] == 1
    assert in_cow.any()
    assert not rows.measured[in_cow, 1].any()
    assert rows.measured[in_cow, 0].any()


def test_the_best_usage_is_the_observed_one():
    batch = random_batch(6)
    rows = usage_rows(batch, 10)
    sse = (rows.alpha / rows.reads.clamp(min=1)).clamp(1e-3, 1 - 1e-3)

    def loss(p):
        return float(usage_loss(torch.logit(p), rows, 4, torch.ones(2), 100))

    assert loss(sse) < min(loss((sse + 0.05).clamp(max=0.999)), loss((sse - 0.05).clamp(min=0.001)))


def test_reads_above_the_cap_weigh_no_more():
    batch = random_batch(7)
    many = batch.map_arrays(lambda name, t: t * 1000 if name in ("alpha", "beta") else t)
    logits = torch.randn(batch.alpha.shape)
    rows, many_rows = usage_rows(batch, 10), usage_rows(many, 10_000)
    assert rows.measured.equal(many_rows.measured)
    at_cap, above_cap = (float(usage_loss(logits, r, 4, torch.ones(2), 10)) for r in (rows, many_rows))
    assert above_cap == pytest.approx(at_cap, rel=1e-5)


@pytest.mark.parametrize("conditions", [(), ("brain",)])
def test_no_usage_is_no_loss(conditions):
    batch = random_batch(1, conditions=conditions, genomes=("hen",), site_rate=0.0)
    rows = usage_rows(batch, 10)
    logits = torch.zeros(batch.alpha.shape, requires_grad=True)
    loss = usage_loss(logits, rows, 4, torch.ones(len(conditions)), 100)
    loss.backward()
    assert float(loss.detach()) == 0
    assert np.isfinite(float(loss.detach()))
