"""Metrics are pooled over all positions, per class, strand and genome; memory is bounded."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from splicestore.cluster import open_executor
from splicestore.errors import ModelError
from splicestore.kernels.ranking import average_precision, tie_groups, top_k_accuracy
from splicestore.models.card import LoadedModel, ModelCard, task_names
from splicestore.models.splice import SpliceNet, site_log_odds
from splicestore.stream import WindowLanes
from splicestore.train.baseline import MotifBaseline
from splicestore.train.evaluate import evaluate, evaluate_lanes
from splicestore.train.metrics import SitePool, UsagePool
from tests.unit.stream.memory_store import grid_split, make_store, random_genome
from tests.unit.train.small_batches import CONTEXT, WINDOW, planted_batch, random_batch

CONDITIONS = ("brain", "liver")


def model(conditions=("liver", "heart", "brain"), module=None, window=WINDOW) -> LoadedModel:
    torch.manual_seed(2)
    module = module or SpliceNet(len(conditions), CONTEXT, 6, (1, 2), 5)
    card = ModelCard(
        name="m", factory="a:b", digest="0" * 64, window_size=window, context_size=CONTEXT, tasks=task_names(conditions)
    )
    return LoadedModel(card, module.eval(), torch.device("cpu"))


@pytest.fixture(scope="module")
def batches():
    return [random_batch(s, n=6, padded=s % 3) for s in range(5)]


@pytest.fixture(scope="module")
def evaluated(batches):
    return evaluate(model(), batches, baseline=MotifBaseline.from_batches(batches))


def pooled(batches, row, code, keep):
    """Scores and truth of one class over the positions that ``keep`` chooses."""
    scores, truth = [], []
    for batch in batches:
        odds = site_log_odds(model().logits(batch.sequence)[0])[:, row]
        for b in range(len(batch)):
            if batch.window_id[b] < 0 or not keep(int(batch.genome[b]), int(batch.strand[b])):
                continue
            counted = batch.label[b] != 255
            scores.append(odds[b][counted].numpy())
            truth.append((batch.label[b][counted] == code).numpy())
    return np.concatenate(scores), np.concatenate(truth)


@pytest.mark.parametrize(
    ("path", "keep"),
    [
        (("all",), lambda g, s: True),
        (("strands", "+"), lambda g, s: s == 1),
        (("strands", "-"), lambda g, s: s == -1),
        (("genomes", "hen", "all"), lambda g, s: g == 0),
        (("genomes", "cow", "strands", "-"), lambda g, s: (g, s) == (1, -1)),
    ],
)
@pytest.mark.parametrize(("row", "task", "code"), [(0, "acceptor", 1), (1, "donor", 2)])
def test_site_metrics_are_pooled_over_positions(batches, evaluated, path, keep, row, task, code):
    found = evaluated.scorers["model"]["sites"]
    for key in path:
        found = found[key]
    scores, truth = pooled(batches, row, code, keep)
    groups = tie_groups(scores, truth)
    assert found[task] == {
        "average_precision": pytest.approx(average_precision(groups), rel=1e-5),
        "top_k_accuracy": pytest.approx(top_k_accuracy(groups), rel=1e-5),
        "n_true": truth.sum(),
        "n_positions": len(truth),
    }


def test_usage_metrics_are_over_measured_sites_of_the_named_condition(batches, evaluated):
    pairs = {name: [] for name in CONDITIONS}
    for batch in batches:
        usage = torch.sigmoid(model().logits(batch.sequence)[1])
        for row in range(len(batch.alpha)):
            window = int(batch.usage_row_window[row])
            for c, name in enumerate(CONDITIONS):
                reads = float(batch.alpha[row, c] + batch.beta[row, c])
                known = bool(batch.condition_mask[int(batch.genome[window]), c])
                if reads >= 10 and known and batch.window_id[window] >= 0:
                    column = ("liver", "heart", "brain").index(name)
                    predicted = float(usage[window, column, int(batch.usage_row_position[row])])
                    pairs[name].append((predicted, float(batch.alpha[row, c]) / reads))
    found = evaluated.scorers["model"]["usage"]
    for name in CONDITIONS:
        x, y = np.array(pairs[name]).T
        assert found["conditions"][name]["n"] == len(x)
        assert found["conditions"][name]["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-4)
        assert found["conditions"][name]["spearman"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-3)
    assert found["pooled"]["n"] == sum(map(len, pairs.values())) == sum(g["n"] for g in found["genomes"].values())
    assert "liver" in found["conditions"]


def test_padding_is_not_evaluated(batches, evaluated):
    assert evaluated.n_windows == sum(int((b.window_id >= 0).sum()) for b in batches) == 26


def test_baseline_is_in_the_same_table(evaluated):
    rows = evaluated.rows()
    sites = [(r["scorer"], r["genome"], r["strand"], r["task"], r["metric"]) for r in rows]
    assert len(set(sites)) == len(sites)
    for scorer in ("model", "baseline"):
        assert (scorer, "all", "both", "donor", "average_precision") in sites
        assert (scorer, "hen", "-", "acceptor", "top_k_accuracy") in sites
    assert ("model", "all", "both", "sse:liver", "spearman") in sites
    n = {r["n"] for r in rows if r["genome"] == "all" and r["strand"] == "both" and r["task"] == "donor"}
    assert len(n) == 1
    assert json.loads(json.dumps(evaluated.document(), allow_nan=False))["scorers"]["baseline"]


def test_a_good_baseline_beats_an_untrained_model():
    found = evaluate(
        model(("brain",)), [planted_batch(5)], baseline=MotifBaseline.from_batches([planted_batch(1)])
    ).scorers
    assert found["baseline"]["sites"]["all"]["donor"]["average_precision"] == 1.0
    assert found["model"]["sites"]["all"]["donor"]["average_precision"] < 0.5


def test_counted_scores_rank_nearly_like_kept_ones(batches, evaluated):
    rounded = evaluate(model(), batches, exact_positions=300)
    assert (evaluated.is_exact, rounded.is_exact) == (True, False)
    one, other = (e.scorers["model"]["sites"] for e in (evaluated, rounded))
    for task in ("acceptor", "donor"):
        assert other["all"][task]["n_true"] == one["all"][task]["n_true"]
        assert other["all"][task]["n_positions"] == one["all"][task]["n_positions"]
        assert other["all"][task]["average_precision"] == pytest.approx(one["all"][task]["average_precision"], abs=5e-3)
        assert (
            other["genomes"]["hen"]["strands"]["+"][task]["n_true"]
            == one["genomes"]["hen"]["strands"]["+"][task]["n_true"]
        )


def test_metrics_that_are_not_defined_are_null():
    batch = random_batch(1, site_rate=0.0)
    found = evaluate(model(), [batch])
    assert found.scorers["model"]["sites"]["all"]["donor"]["average_precision"] is None
    assert found.scorers["model"]["usage"]["pooled"] == {"spearman": None, "pearson": None, "n": 0}
    json.dumps(found.document(), allow_nan=False)


def test_a_model_without_conditions_has_no_usage():
    found = evaluate(model(()), [random_batch(1, conditions=(), genomes=("hen",))])
    assert "usage" not in found.scorers["model"]


def test_ten_million_positions_take_less_than_400_megabytes():
    n, width, rounds = 100, 1000, 20  # a fifth of it
    pool, rng = SitePool(), np.random.default_rng(0)
    tracemalloc.start()
    for _ in range(rounds):
        scores = rng.normal(size=(n, 2, width)).astype(np.float32)
        pool.add(np.zeros(n), rng.choice([1, -1], n), scores, (rng.random((n, width)) < 0.003).astype(np.uint8))
    found = pool.metrics(pool.groups)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found["acceptor"]["n_positions"] == n * width * rounds
    assert peak / (n * width * rounds) < 40


def test_memory_stays_where_it_is_once_scores_are_counted():
    pool, rng = SitePool(exact_positions=10_000), np.random.default_rng(0)

    def add(rounds):
        for _ in range(rounds):
            pool.add(
                np.zeros(10),
                np.ones(10),
                rng.normal(size=(10, 2, 1000)).astype(np.float32),
                np.zeros((10, 1000), np.uint8),
            )

    add(3)
    tracemalloc.start()
    add(30)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000
    assert pool.metrics(pool.groups)["donor"]["n_positions"] == 330_000


class Broken(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 3, WINDOW), torch.nan), torch.zeros((len(x), 2, WINDOW))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="not finite"):
        evaluate(model(CONDITIONS, Broken()), [random_batch(1)])
    with pytest.raises(ModelError, match="does not predict 1 of 2 conditions"):
        evaluate(model(("brain",)), [random_batch(1)])
    with pytest.raises(ModelError, match=r"the data have 60 \+ 2 x 24 bp"):
        evaluate(model(window=61), [random_batch(1)])
    with pytest.raises(ModelError, match="no window to evaluate on"):
        evaluate(model(), [])


def test_unmeasured_sites_are_not_held():
    pool = UsagePool(["brain"])
    pool.add(np.array([0, 0]), np.array([[0.1], [0.2]]), np.array([[np.nan], [0.5]], dtype=np.float32))
    assert pool.metrics(["hen"])["pooled"]["n"] == 1


# -- parts of a subset -------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1_000), parts=st.lists(st.integers(0, 3), min_size=6, max_size=6), data=st.data())
@settings(max_examples=30)
def test_merged_pools_give_the_digits_of_one_pool(seed, parts, data):
    limit = data.draw(st.sampled_from([0, 200, 10_000]), label="exact_positions")
    rng = np.random.default_rng(seed)
    added = []
    for n in rng.integers(1, 5, len(parts)):
        label = rng.choice([0, 1, 2, 255], size=(n, 20)).astype(np.uint8)
        scores = rng.normal(size=(n, 2, 20)).astype(np.float32).round(1)
        added.append((rng.integers(0, 2, n), rng.choice([-1, 1], n), scores, label))
    whole, pools = SitePool(limit), [SitePool(limit) for _ in range(4)]
    for part, windows in zip(parts, added, strict=True):
        whole.add(*windows)
        pools[part].add(*windows)
    merged = SitePool(limit)
    for number in data.draw(st.permutations(range(4)), label="order"):
        merged.merge(pools[number])
    assert merged.groups == whole.groups
    assert (
        merged.is_exact
        == whole.is_exact
        == (limit == 10_000 or whole.metrics(whole.groups)["donor"]["n_positions"] <= limit)
    )
    for groups in (whole.groups, whole.groups[:1], whole.groups[1:]):
        assert merged.metrics(groups) == whole.metrics(groups)


@given(seed=st.integers(0, 1_000), n=st.integers(0, 60), data=st.data())
@settings(max_examples=30)
def test_correlations_have_the_same_digits_in_any_order_and_parts(seed, n, data):
    rng = np.random.default_rng(seed)
    genome, predicted = rng.integers(0, 2, n), rng.random((n, 2)).astype(np.float32)
    observed = np.where(rng.random((n, 2)) < 0.3, np.nan, rng.random((n, 2)).round(1)).astype(np.float32)
    whole, merged = UsagePool(CONDITIONS), UsagePool(CONDITIONS)
    whole.add(genome, predicted, observed)
    order = np.array(data.draw(st.permutations(range(n)), label="order"), dtype=int)
    for rows in np.array_split(order, 3):
        part = UsagePool(CONDITIONS)
        part.add(genome[rows], predicted[rows], observed[rows])
        merged.merge(part)
    assert merged.metrics(["hen", "cow"]) == whole.metrics(["hen", "cow"])


@pytest.fixture(scope="module")
def lanes():
    rng = np.random.default_rng(6)
    genomes = [
        random_genome(rng, "hen", [3_000, 900], n_sites=160, conditions=CONDITIONS),
        random_genome(rng, "cow", [2_000], n_sites=90, conditions=CONDITIONS[1:]),
        random_genome(rng, "emu", [2_500], n_sites=90, conditions=CONDITIONS[:1]),
    ]
    store = make_store(genomes, grid_split(genomes, WINDOW, CONTEXT, rng))
    return WindowLanes(store, split="run1", batch_size=7)


@pytest.mark.parametrize("scheduler", ["sync", "threads:2"])
def test_lanes_are_evaluated_as_their_batches_are_to_the_last_digit(lanes, scheduler):
    with open_executor("sync") as executor:
        batches = [b.map_arrays(lambda _, a: torch.from_numpy(a)) for value in lanes.map(list, executor) for b in value]
    baseline = MotifBaseline.from_batches(batches)
    with open_executor(scheduler) as executor:
        found = evaluate_lanes(model(), lanes, executor, baseline=baseline, min_reads=3)
    assert found == evaluate(model(), batches, baseline=baseline, min_reads=3)
    assert found.n_windows == lanes.plan.n_windows
    assert len(lanes) == 3
    assert found.scorers["model"]["usage"]["pooled"]["n"] > 50


def test_lanes_keep_scores_only_where_those_of_all_windows_may_be_kept(lanes):
    most = lanes.plan.n_windows * WINDOW
    with open_executor("sync") as executor:
        exact, rounded = (evaluate_lanes(model(), lanes, executor, exact_positions=n) for n in (most, most - 1))
    assert (exact.is_exact, rounded.is_exact) == (True, False)
    for task, values in exact.scorers["model"]["sites"]["all"].items():
        other = rounded.scorers["model"]["sites"]["all"][task]
        assert other["n_positions"] == values["n_positions"] < most
        assert other["average_precision"] == pytest.approx(values["average_precision"], abs=5e-3)


def test_a_model_that_does_not_fit_is_refused_by_the_first_lane(lanes):
    with open_executor("sync") as executor, pytest.raises(ModelError, match="does not predict 1 of 2 conditions"):
        evaluate_lanes(model(("brain",)), lanes, executor)
