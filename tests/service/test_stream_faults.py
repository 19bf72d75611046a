"""Streams whose store, network, workers or state go wrong: they go on rightly, or stop and say why; they never hang."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from splicestore import open_store
from splicestore.errors import PlanError, SpliceStoreError, SplitError, StateError, StoreError, TransferError
from splicestore.maintenance.pruning import prune
from splicestore.storage import StoreRoot
from splicestore.stream import WindowBatches
from splicestore.stream.batch import ARRAY_FIELDS
from tests.oracles.array_oracle import ArrayTruth, cut_windows
from tests.published import GenomeArrays, publish_genome, publish_split, publish_usage, shards_of, tile_contigs
from tests.servers.rules import cut, deny, latency, no_list_bucket, reset, slow_down, truncate
from tests.service.forked_stream import CHILD_SECONDS
from tests.service.killed_worker import KILL_AFTER

pytest_plugins = ["tests.servers.fixtures"]

REPOSITORY = Path(__file__).resolve().parents[2]
WINDOW_SIZE, CONTEXT = 1_000, 400
STREAM = {"split": "run1", "batch_size": 128, "shuffle_memory": 1 << 24}
"""Fewer blocks in memory than there are, so that reads go on through the epoch."""
LOOK_AT_SITES = {"site": 1.0}
"""Weights that leave every window once, but read all sites when the stream is made."""
QUICK = {"max_retries": 1, "retry_seconds": 10, "timeout": "2s", "connect_timeout": "2s"}
BASES = r"/sequence/c/"


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """End a block that hangs: a wait of this thread is interrupted, and the test fails."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError(f"nothing came for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# -- a study of two genomes and 41 blocks ------------------------------------------------------------------------


def make_genome(name: str, lengths: list[int], seed: int) -> GenomeArrays:
    """Random bases and counts that depend on the seed; sites that do not."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(len(name))
    n_bases = sum(lengths)
    position = np.unique(fixed.integers(0, n_bases, n_bases // 10_000))
    strand = fixed.choice(np.array([-1, 1], dtype=np.int8), len(position))
    counts = rng.integers(0, 60, (2, len(position), 2)).astype(np.float32)
    counts[:, rng.random((len(position), 2)) < 0.4] = np.nan
    return GenomeArrays(
        name, np.array(lengths), shards_of(rng.integers(0, 5, n_bases).astype(np.uint8)), position, strand,
        fixed.integers(1, 4, len(position)).astype(np.uint8), ("brain", "liver"), *counts,
    )  # fmt: skip


def make_study(seed: int) -> dict[str, GenomeArrays]:
    return {
        "long": make_genome("long", [21 << 20, 17_340_123], seed),
        "short": make_genome("short", [3_000_000], seed),
    }


def publish_study(root: StoreRoot, study: dict[str, GenomeArrays], split: str = "run1", keep: int = 16) -> None:
    """Publish the genomes and a split of one window in ``keep``."""
    genomes = list(study.values())
    windows = tile_contigs(genomes, WINDOW_SIZE, CONTEXT)
    chosen = np.random.default_rng(keep).random(len(windows)) < 1 / keep
    columns = {name: getattr(windows, name)[chosen] for name in ("genome", "contig", "start", "strand")}
    publish_split(root, split, {publish_genome(root, g): g for g in genomes}, replace(windows, **columns))


@dataclass(frozen=True)
class Study:
    """A published study."""

    root: StoreRoot
    genomes: dict[str, GenomeArrays]

    def stream(self, **options) -> WindowBatches:
        store = open_store(self.root.url, storage_options=self.root.storage_options)
        return WindowBatches(store, **{**STREAM, **options})


def truth_of(genome: GenomeArrays) -> ArrayTruth:
    missing = np.full(genome.n_bases if not genome.bases else 0, 4, dtype=np.uint8)
    codes = np.concatenate([missing, *(genome.bases[number] for number in sorted(genome.bases))])
    end = genome.contig_offset + genome.contig_length
    sites = (genome.position, genome.strand, genome.kind)
    return ArrayTruth(codes.__getitem__, genome.contig_offset, end, *sites, genome.alpha, genome.beta)


def check_batches(batches, genomes: dict[str, GenomeArrays]) -> list[list[int]]:
    """Compare every base, label and count of batches with the genomes; return the ids of their windows."""
    truths = {name: truth_of(genome) for name, genome in genomes.items()}
    for batch in batches:
        for code, name in enumerate(batch.genome_names):
            mine = np.flatnonzero(batch.genome == code)
            if not len(mine):
                continue
            expected = cut_windows(
                truths[name],
                batch.contig[mine],
                batch.start[mine],
                batch.strand[mine].astype(int),
                WINDOW_SIZE,
                CONTEXT,
            )
            rows = np.isin(batch.usage_row_window, mine)
            np.testing.assert_array_equal(batch.sequence[mine], expected["sequence"])
            np.testing.assert_array_equal(batch.label[mine], expected["label"])
            np.testing.assert_array_equal(batch.usage_row_window[rows], mine[expected["usage_row_window"]])
            for field in ("usage_row_position", "alpha", "beta"):
                np.testing.assert_array_equal(getattr(batch, field)[rows], expected[field])
    return [batch.window_id.tolist() for batch in batches]


def assert_same_batches(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for one, two in zip(ours, theirs, strict=True):
        for name in ARRAY_FIELDS:
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def take(batches, n: int) -> list:
    return [batch for _, batch in zip(range(n), batches, strict=False)]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Study:
    """Never changed."""
    root = StoreRoot(str(tmp_path_factory.mktemp("original") / "store"))
    genomes = make_study(1)
    publish_study(root, genomes)
    return Study(root, genomes)


@pytest.fixture
def local(original, tmp_path) -> Study:
    """A copy to change."""
    shutil.copytree(original.root.url, tmp_path / "store")
    return Study(StoreRoot(str(tmp_path / "store")), original.genomes)


@pytest.fixture(scope="module")
def uploaded(original, s3) -> StoreRoot:
    root = StoreRoot(f"s3://{s3.bucket()}/st", s3.storage_options())
    for key in original.root.sizes(""):
        root.put(key, original.root.get(key))
    return root


@pytest.fixture
def remote(original, uploaded, s3, s3_proxy) -> Study:
    """The study behind the fault proxy."""
    return Study(StoreRoot(uploaded.url, s3.storage_options(s3_proxy.url)), original.genomes)


@pytest.fixture(scope="module")
def expected(original) -> list:
    """The batches of an epoch that nothing disturbs."""
    batches = list(original.stream())
    ids = [row for rows in check_batches(batches, original.genomes) for row in rows]
    assert sorted(ids) == list(range(len(ids)))
    assert len(batches) > 35
    assert sum(len(batch.alpha) for batch in batches) > 100
    return batches


# -- generations -------------------------------------------------------------------------------------------------


def test_an_epoch_goes_on_with_the_generations_it_began_with(local, expected):
    stream = local.stream()
    state, batches = stream.state_dict(), iter(stream)
    found = take(batches, 5)
    changed = make_study(2)
    publish_study(local.root, changed, keep=12)
    found += list(batches)
    assert_same_batches(found, expected)
    stream.set_epoch(1)
    check_batches(stream, local.genomes)
    stream.set_epoch(0)
    assert {**stream.state_dict(), "step": 0} == state
    fresh = local.stream()
    check_batches(fresh, changed)
    assert fresh.state_dict()["generations"] != state["generations"]
    for name in local.genomes:
        ours, theirs = (s["generations"][name] for s in (state, fresh.state_dict()))
        with pytest.raises(StateError, match=f"generations.{name}\n    state:  {ours}\n    stream: {theirs}\n"):
            fresh.load_state_dict(state)


@pytest.mark.parametrize("panel", ["main", "another"])
def test_counts_published_during_an_epoch_do_not_reach_it(local, expected, panel):
    """Neither in this process nor in a worker that is started afterwards, where the stream arrives pickled."""
    stream = local.stream()
    state, batches = stream.state_dict(), iter(stream)
    found = take(batches, 5)
    for genome in local.genomes.values():
        # Another panel's conditions sort before the old ones: columns would move.
        names = ("brain", "liver") if panel == "main" else ("Adipose", "Bladder")
        publish_usage(local.root, replace(genome, conditions=names, alpha=genome.alpha + 1_000), panel)
    assert_same_batches([*found, *batches], expected)
    sent = pickle.loads(pickle.dumps(stream))
    assert_same_batches(list(sent), expected)
    assert {**sent.state_dict(), "step": 0} == state
    fresh = local.stream(conditions=["brain"] if panel == "main" else ["Adipose"])
    assert min(float(np.nanmin(batch.alpha)) for batch in fresh if len(batch.alpha)) >= 1_000
    with pytest.raises(StateError, match="usage"):
        fresh.load_state_dict(state)


def supersede_and_prune(study: Study, names: tuple[str, ...] = ()) -> list[str]:
    publish_study(study.root, make_study(2))
    removed = prune(study.root, older_than=timedelta(0), names=names).removed
    return [item.key for item in removed]


def until_error(batches, kind: type[Exception]) -> tuple[list, str]:
    """Iterate; what came, and what the error said that ended it (nothing where none did)."""
    found: list = []
    with within(60):
        try:
            for batch in batches:
                found.append(batch)
        except kind as error:
            return found, str(error)
    return found, ""


def assert_stops_naming(batches, removed: list[str]) -> list:
    """Iterate to the error, which must name a generation that is gone and say that it was pruned; return what came before."""
    found, said = until_error(batches, StoreError)
    assert said, f"{len(found)} batches and no error; all N: {sum((batch.sequence == 4).all() for batch in found)}"
    assert any(key.rsplit("/", 1)[1] in said for key in removed), said
    assert "pruned" in said
    return found


@pytest.mark.parametrize(
    ("n_before", "options"),
    [(0, {}), (0, {"window_weights": LOOK_AT_SITES}), (1, {})],
    ids=["before anything was read", "after its tables were read", "during the epoch"],
)
def test_a_generation_pruned_under_a_stream_stops_it_by_name(local, expected, n_before, options):
    stream = local.stream(**options)
    batches = iter(stream)
    found = take(batches, n_before)
    removed = supersede_and_prune(local)
    assert {key.split("/")[0] for key in removed} == {"genomes", "splits", "usage"}
    found += assert_stops_naming(batches, removed)
    # What came before it stopped was still the old generation's.
    assert_same_batches(found, expected[: len(found)])
    assert stream.state_dict()["step"] == len(found) < len(expected)


def test_a_genome_pruned_before_its_first_block_stops_a_stream_that_has_read_others(local, expected):
    stream = local.stream(shuffle=False, batch_size=64)
    batches = iter(stream)
    assert set(next(batches).genome.tolist()) == {0}
    removed = supersede_and_prune(local, names=("genomes/short", "splits"))
    found = assert_stops_naming(batches, [key for key in removed if key.startswith("genomes/short/")])
    check_batches(found, local.genomes)
    assert {int(code) for batch in found for code in batch.genome} == {0}


@pytest.mark.parametrize("n_before", [0, 1], ids=["before the first batch", "during the epoch"])
def test_counts_pruned_under_a_stream_stop_it_by_name(local, expected, n_before):
    """Counts that are gone must not read as not measured."""
    stream = local.stream()
    batches = iter(stream)
    found = take(batches, n_before)
    for genome in local.genomes.values():
        publish_usage(local.root, replace(genome, alpha=genome.alpha + 1_000))
    removed = [item.key for item in prune(local.root, older_than=timedelta(0)).removed]
    assert {key.split("/")[0] for key in removed} == {"usage"}
    found += assert_stops_naming(batches, removed)
    assert_same_batches(found, expected[: len(found)])


def test_a_pruned_stream_that_was_sent_to_a_worker_stops_there_too(local):
    sent = pickle.dumps(local.stream())
    removed = supersede_and_prune(local)
    assert_stops_naming(pickle.loads(sent), removed)


# -- network -----------------------------------------------------------------------------------------------------


def test_a_network_cut_during_an_epoch_and_restored_is_not_noticed(remote, s3_proxy, expected):
    stream = remote.stream()
    s3_proxy.set(cut(operation="get", key=BASES, nth=14))
    restored = threading.Timer(1.5, s3_proxy.restore)
    restored.start()
    with within(120):
        found = list(stream)
    restored.join()
    assert s3_proxy.counts().faults == {"cut": 1}
    assert_same_batches(found, expected)
    assert stream.statistics()["blocks_read"] <= stream.plan.n_blocks + stream.plan.live_total


def test_a_stream_that_lost_the_network_goes_on_from_its_state(remote, s3_proxy, expected):
    quick = Study(StoreRoot(remote.root.url, {**remote.root.storage_options, **QUICK}), remote.genomes)
    stream = quick.stream()
    batches = iter(stream)
    found = take(batches, 2)
    s3_proxy.cut()
    more, said = until_error(batches, TransferError)
    found += more
    # Bases and counts of a block are asked for at once: whichever is refused first is named.
    assert said.startswith((f"{remote.root.url}/genomes/", f"{remote.root.url}/usage/"))
    assert "\n" not in said
    state = stream.state_dict()
    assert state["step"] == len(found)
    assert 0 < len(found) < len(expected)
    assert_same_batches(found, expected[: len(found)])
    s3_proxy.restore()
    s3_proxy.set()
    for resumed in (stream, quick.stream()):
        resumed.load_state_dict(state)
        with within(120):
            assert_same_batches(list(resumed), expected[len(found) :])


@pytest.mark.parametrize(
    "rules",
    [
        (slow_down(key=BASES, nth=9), truncate(operation="get", key=BASES, nth=12), reset(key=BASES, nth=15)),
        (latency(0, jitter_ms=40),),
    ],
    ids=["one fault of each kind", "answers in another order"],
)
def test_faults_that_pass_are_not_noticed(remote, s3_proxy, expected, rules):
    stream = remote.stream()
    s3_proxy.set(*rules, seed=5)
    with within(120):
        assert_same_batches(list(stream), expected)
    assert sum(s3_proxy.counts().faults.values()) == sum(rule.fault != "latency" for rule in rules)


def test_bodies_that_keep_breaking_off_end_a_stream_or_not_but_give_no_wrong_base(remote, s3_proxy, expected):
    quick = Study(StoreRoot(remote.root.url, {**remote.root.storage_options, **QUICK}), remote.genomes)
    stream = quick.stream()
    s3_proxy.set(truncate(operation="get", fraction=0.4, keep=0.7), slow_down(fraction=0.1), seed=4)
    found, said = until_error(stream, TransferError)
    assert f"{remote.root.url}/" in said or len(found) == len(expected)
    assert_same_batches(found, expected[: len(found)])
    assert s3_proxy.counts().faults["truncate"] > 3


def test_rights_withdrawn_during_an_epoch_do_not_read_as_holes(remote, s3_proxy, expected):
    """Who may not list is answered 403 for what is absent: once that was seen, a 403 must still not mean N."""
    s3_proxy.set(*no_list_bucket())
    store = open_store(remote.root.url, storage_options=remote.root.storage_options)
    assert "absent" not in store.genomes
    # Weights look at the sites: from here on only blocks are read.
    batches = iter(WindowBatches(store, **STREAM, window_weights=LOOK_AT_SITES))
    s3_proxy.set(deny("get|head|list"))
    found, said = until_error(batches, SpliceStoreError)
    assert said, f"{len(found)} batches and no error; all N: {sum((batch.sequence == 4).all() for batch in found)}"
    assert "check the credentials" in said
    assert_same_batches(found, expected[: len(found)])


# -- workers and forks -------------------------------------------------------------------------------------------


def run_module(module: str, *words: str, seconds: int = 150) -> dict:
    """Run a module of the tests in a process of its own; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.service.{module}", *words],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_killed_worker_ends_the_epoch_and_the_state_goes_on(original, expected):
    met = run_module("killed_worker", original.root.url)
    ids = [batch.window_id.tolist() for batch in expected]
    assert "worker" in met["error"], met["error"]
    assert met["left"] == []
    n = len(met["batches"])
    assert KILL_AFTER <= n < len(ids)
    assert met["state"]["step"] == n
    # Workers cut the lanes apart, in whole batches: the same windows, in the order of the lanes.
    assert met["batches"] == ids[:n]
    resumed = original.stream()
    resumed.load_state_dict(met["state"])
    assert_same_batches(list(resumed), expected[n:])


SCENARIOS = ("only made", "iterated", "another stream", "the parent's iterator", "after an epoch")


@pytest.mark.parametrize("place", ["local", "s3"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_stream_in_a_fork_is_right_or_refused_and_never_hangs(original, uploaded, expected, scenario, place):
    root = original.root if place == "local" else uploaded
    met = run_module("forked_stream", scenario, root.url, json.dumps(dict(root.storage_options)))
    assert met["child"] != "hung", f"no answer within {CHILD_SECONDS} s"
    if scenario == "only made" and met["child"] == str(met["windows"]):
        return
    assert met["child"].startswith("StoreError: "), met["child"]
    assert "forked" in met["child"]
    assert "spawn" in met["child"]


# -- states of other streams -------------------------------------------------------------------------------------


def refused(stream: WindowBatches, state: dict) -> str:
    """Load a state that is refused, and check that the stream is where it was; return what was said."""
    before = stream.state_dict()
    with pytest.raises(SpliceStoreError) as raised:
        stream.load_state_dict(state)
    assert stream.state_dict() == before
    return str(raised.value)


@pytest.fixture(scope="module")
def state(original) -> dict:
    stream = original.stream()
    take(stream, 7)
    return json.loads(json.dumps(stream.state_dict()))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"seed": 8}, "seed"),
        ({"batch_size": 64}, "batch_size"),
        ({"lanes": 4}, "lanes"),
        ({"subset": "val"}, "subset"),
        ({"genomes": ["long"]}, "filters.genomes"),
        ({"conditions": ["liver"]}, "filters.conditions"),
        ({"siteless": 0.0}, "filters.siteless"),
        ({"max_n": 0.9}, "filters.max_n"),
        ({"min_coverage": 1}, "filters.min_coverage"),
        ({"window_weights": {"site": 2}}, "filters.window_weights.site"),
        ({"chromosomes": ["chr1"]}, "filters.chromosomes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_state_of_a_stream_with_other_options_is_refused_line_by_line(local, state, options, field):
    if "subset" in options:
        windows = tile_contigs(list(local.genomes.values()), WINDOW_SIZE, CONTEXT)
        publish_split(
            local.root, "run1", {publish_genome(local.root, g): g for g in local.genomes.values()}, windows, "val"
        )
    stream = local.stream(**options)
    said = refused(stream, state)
    ours = spelled(stream.state_dict(), field)
    assert f"  {field}\n    state:  {spelled(state, field)}\n    stream: {ours}\n" in said
    assert list(stream)[0].step == 0


def spelled(state: dict, field: str) -> str:
    """The value of a dotted field."""
    first, *rest = field.split(".")
    value = state.get(first, "(absent)")
    if rest and isinstance(value, dict):
        return spelled(value, ".".join(rest))
    return str(list(value) if isinstance(value, tuple) else value)


def test_the_state_of_another_split_is_refused_line_by_line(local, state):
    publish_study(local.root, local.genomes, split="run2", keep=10)
    stream = local.stream(split="run2")
    theirs, ours = state["split_digest"], stream.state_dict()["split_digest"]
    assert theirs != ours
    assert f"  split_digest\n    state:  {theirs}\n    stream: {ours}\n" in refused(stream, state)


def test_a_world_size_that_does_not_divide_the_lanes_is_refused_with_both_sides(original, state):
    with pytest.raises(PlanError, match=r"world_size 3 .* lanes 8"):
        original.stream(lanes=8, world_size=3, batch_size=120)
    stream = original.stream(world_size=16)
    said = refused(stream, state)
    lines = [line.strip() for line in said.splitlines()]
    assert any(re.fullmatch(r"state: .*\b8\b.*", line) for line in lines), said
    assert any(re.fullmatch(r"stream: .*\b16\b.*", line) for line in lines), said


@pytest.mark.parametrize("world", [2, 4, 8])
def test_a_state_goes_on_in_a_world_that_divides_the_lanes(original, state, expected, world):
    ranks = []
    for rank in range(world):
        stream = original.stream(rank=rank, world_size=world)
        stream.load_state_dict(state)
        ranks.append(list(stream))
    for step, whole in enumerate(expected[7:]):
        together = sorted(int(row) for batches in ranks for row in batches[step].window_id)
        assert together == sorted(whole.window_id.tolist())


# -- data that leave nothing, or nothing measured ------------------------------------------------------------------


@pytest.fixture(scope="module")
def barren(tmp_path_factory) -> Study:
    """A genome of N without a site, and one with sites of which one condition never measured any."""
    root = StoreRoot(str(tmp_path_factory.mktemp("barren") / "store"))
    usual = make_genome("usual", [400_000], 3)
    alpha, beta = usual.alpha.copy(), usual.beta.copy()
    alpha[:, 1] = beta[:, 1] = np.nan
    usual = replace(usual, alpha=alpha, beta=beta)
    nothing = np.zeros(0, dtype=np.int64)
    counts = np.zeros((2, 0, 2), dtype=np.float32)
    empty = GenomeArrays(
        "empty",
        np.array([200_000]),
        {},
        nothing,
        nothing.astype(np.int8),
        nothing.astype(np.uint8),
        ("brain", "liver"),
        *counts,
    )
    genomes = {"usual": usual, "empty": empty}
    publish_split(
        root,
        "run1",
        {publish_genome(root, g): g for g in genomes.values()},
        tile_contigs([usual, empty], WINDOW_SIZE, CONTEXT),
    )
    return Study(root, genomes)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("subset test", {"subset": "test"}),
        ("siteless", {"genomes": ["empty"], "siteless": 0}),
        ("max_n", {"genomes": ["empty"], "max_n": 0.99}),
        ("min_coverage", {"min_coverage": 1e6}),
        ("min_coverage", {"min_coverage": 1, "conditions": ["liver"]}),
        ("min_coverage", {"min_coverage": 1, "conditions": []}),
        ("min_coverage", {"min_coverage": 1, "genomes": ["empty"]}),
        ("window_weights", {"window_weights": {"site": 0, "gene": 0, "geneless": 0}}),
        ("siteless", {"siteless": 0, "max_n": 0, "min_coverage": 10, "genomes": ["empty"]}),
    ],
)
def test_no_window_left_is_refused_by_the_filter_that_took_the_last(barren, name, options):
    with pytest.raises(SplitError, match=rf"\b{name}\b.*\b0\b") as raised:
        barren.stream(**options)
    assert "run1" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_condition_that_measured_nothing_is_a_column_of_nan(barren):
    assert barren.stream().condition_names == ("brain", "liver")
    batches = list(barren.stream())
    check_batches(batches, barren.genomes)
    assert sum(len(batch.alpha) for batch in batches) > 10
    for batch in batches:
        assert batch.condition_mask.all()
        assert np.isnan(batch.alpha[:, 1]).all()
        assert not np.isnan(batch.alpha[:, 0]).any()


def test_a_stream_of_nothing_but_an_unmeasured_condition_has_windows_and_no_counts(barren):
    batches = list(barren.stream(conditions=["liver"]))
    assert sum(len(batch) for batch in batches) == 1_200
    assert sum(len(batch.alpha) for batch in batches) == 0
    assert any((batch.label == 1).any() for batch in batches)
    assert batches[0].alpha.shape == (0, 1)


def test_a_genome_of_holes_is_all_n(barren):
    batches = list(barren.stream(genomes=["empty"]))
    assert sum(len(batch) for batch in batches) == 400
    for batch in batches:
        assert (batch.sequence == 4).all()
        assert (batch.label == 0).all()
        assert len(batch.alpha) == 0
