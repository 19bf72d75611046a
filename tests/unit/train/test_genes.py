"""Networks of genes: learned, resumed, scored beside baselines that are counted slowly, and read back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing

import splicestore as ss
from splicestore.errors import ConfigError, ModelError
from splicestore.export.embeddings import export_embeddings
from splicestore.kernels.tokens import TOKEN_PAD
from splicestore.models.card import load_card, load_network
from splicestore.models.genes import GeneCard, GeneTransformer, gene_embeddings
from splicestore.stream import SampleBatches, TokenView
from splicestore.train import GeneTrainSettings, evaluate_genes_on_split, train_genes_on_split
from splicestore.train.genes import GeneBaseline, train_genes
from splicestore.train.settings import parse_train_settings
from tests.unit.stream.sample_store import make_sample_store

OBJECTIVES = ("next_gene", "masked_gene", "masked_level")
N_GENES = 16


def module_counts():
    """Two kinds of samples, in each of which one half of the genes is high: what a gene is says what follows."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, (200, 1))
    high = (np.arange(N_GENES) < N_GENES // 2) == kind
    return rng.poisson(np.where(high, 400, 4) * rng.lognormal(0, 0.2, (200, N_GENES))).astype(np.uint32) + 1


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_sample_store(tmp_path_factory.mktemp("genes"), module_counts())


def settings_of(objective, **changes):
    values = {
        "bins": "b", "objective": objective, "steps": 60, "batch_size": 16, "top_genes": N_GENES, "n_levels": 6, "mask_share": 0.3,
        "learning_rate": 0.01, "warmup_steps": 5, "log_every": 10, "model": {"options": {"width": 16, "layers": 1, "heads": 2}},
    }  # fmt: skip
    return GeneTrainSettings(**{**values, **changes})


@pytest.fixture(scope="module", params=OBJECTIVES)
def trained(request, store, tmp_path_factory):
    output = str(tmp_path_factory.mktemp("model"))
    return train_genes_on_split(store, "s", settings_of(request.param), output, device="cpu"), output


def test_it_learns_more_than_unigrams_say(store, trained):
    result, output = trained
    found = evaluate_genes_on_split(store, "s", f"{output}/card.json")
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert found.loss < found.unigram - 0.02
    assert (found.conditional is None) == (result.card.target == "masked_gene")
    document = result.document()
    assert (document["finished"], document["stream"]["samples"]) == (True, 60 * 16 - short_rows(result))
    assert document["samples_per_second"] > 0


def short_rows(result):
    """The last batch of an epoch is shorter."""
    n_train = result.stream["planned_samples"]
    whole_epochs, rest = divmod(60, -(-n_train // 16))
    return 60 * 16 - (whole_epochs * n_train + rest * 16)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_that_was_stopped_ends_with_the_same_bits(store, tmp_path, objective):
    stopped = settings_of(objective, steps=14)
    view = TokenView(objective, top_genes=N_GENES, n_levels=6, mask_share=0.3)

    def run(output, stop=None):
        stream = ss.SampleStream(store, "b", split="s", tokens=view, batch_size=16, seed=0)
        return train_genes(stream, stopped, str(output), device="cpu", stop_at_step=stop)

    whole = run(tmp_path / "whole")
    for stop in (3, 11):
        assert not run(tmp_path / "parts", stop).finished
    assert run(tmp_path / "parts").card.digest == whole.card.digest


def _train_rank(rank, url, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}-meet", rank=rank, world_size=2)
    settings = settings_of(
        "masked_level", steps=6, model={"factory": f"{__name__}:ExactGenes", "options": {"width": 8}}
    )
    train_genes_on_split(ss.open_store(url), "s", settings, folder, device="cpu")
    torch.distributed.destroy_process_group()


class ExactGenes(GeneTransformer):
    """In float64: what is left between two runs is the order of sums."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.double()


def test_two_ranks_train_what_one_process_trains(store, tmp_path):
    """As for positions (test_ranks): another order of sums drifts by 1e-12; a wrong divisor by 1e-3."""
    settings = settings_of(
        "masked_level", steps=6, model={"factory": f"{__name__}:ExactGenes", "options": {"width": 8}}
    )
    train_genes_on_split(store, "s", settings, str(tmp_path / "one"), device="cpu")
    torch.multiprocessing.start_processes(
        _train_rank, (store.url, str(tmp_path / "two")), nprocs=2, start_method="spawn"
    )
    one, two = (load_network(f"{tmp_path}/{name}/card.json", GeneCard)[1].state_dict() for name in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-11


def _slow_conditional(objective, training, held_out, n_classes):
    """Losses of both baselines, counted target by target with dictionaries."""
    counts, by_gene = {}, {}
    for batch in training:
        for gene, target in zip(batch.gene.ravel().tolist(), batch.target.ravel().tolist(), strict=True):
            if target >= 0:
                counts[target] = counts.get(target, 0) + 1
                by_gene.setdefault(gene, []).append(target)
    total = sum(counts.values()) + n_classes
    share = {target: (counts.get(target, 0) + 1) / total for target in range(n_classes)}
    unigram, conditional = [], []
    for batch in held_out:
        for genes, targets in zip(batch.gene.tolist(), batch.target.tolist(), strict=True):
            left = 1.0
            for gene, target in zip(genes, targets, strict=True):
                if target < 0:
                    continue
                unigram.append(-math.log(share[target]))
                if objective == "next_gene":
                    conditional.append(-math.log(share[target] / left))
                    left -= share[target]
                elif objective == "masked_level":
                    own = by_gene.get(gene, [])
                    conditional.append(-math.log((own.count(target) + share[target]) / (len(own) + 1)))
    return np.mean(unigram), np.mean(conditional) if conditional else None


def test_the_baselines_are_what_counting_gives(store, trained):
    result, output = trained
    view = TokenView(result.card.target, top_genes=N_GENES, n_levels=6, mask_share=0.3)
    options = {"split": "s", "tokens": view, "batch_size": 32}
    training = list(SampleBatches(store, "b", **options))
    held_out = list(SampleBatches(store, "b", subset="test", shuffle=False, **options))
    n_classes = 7 if result.card.target == "masked_level" else N_GENES + 3
    expected = _slow_conditional(result.card.target, training, held_out, n_classes)
    found = evaluate_genes_on_split(store, "s", f"{output}/card.json")
    assert found.unigram == pytest.approx(expected[0], rel=1e-9)
    assert found.conditional == (None if expected[1] is None else pytest.approx(expected[1], rel=1e-9))
    assert found.n_samples == int((store.sample_splits["s"].sample_subset == 2).sum())


def test_the_card_gives_the_network_and_its_embeddings_back(trained):
    result, output = trained
    url = f"{output}/card.json"
    card, module = load_network(url, GeneCard)
    assert (card.bins, card.gene_ids, card.gene_tokens) == (
        "b",
        tuple(f"G{i}" for i in range(N_GENES)),
        tuple(range(3, N_GENES + 3)),
    )
    genes, embeddings = gene_embeddings(url)
    assert genes == card.gene_ids
    torch.testing.assert_close(embeddings, result.module.gene.weight.detach()[3:], rtol=0, atol=0)
    with pytest.raises(ModelError, match="target"):
        load_card(url)
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in result.module.parameters())


def test_embeddings_are_exported_as_they_are(trained, tmp_path):
    result, output = trained
    weights = result.module.gene.weight.detach()[3:].numpy()
    assert export_embeddings(f"{output}/card.json", str(tmp_path / "g.npy")) == weights.shape
    np.testing.assert_array_equal(np.load(tmp_path / "g.npy"), weights)
    assert (tmp_path / "g.genes.txt").read_text().split() == list(result.card.gene_ids)
    export_embeddings(f"{output}/card.json", str(tmp_path / "g.tsv"))
    lines = [line.split("\t") for line in (tmp_path / "g.tsv").read_text().splitlines()]
    assert [line[0] for line in lines] == list(result.card.gene_ids)
    np.testing.assert_array_equal(np.array([line[1:] for line in lines], dtype=np.float32), weights)
    with pytest.raises(ConfigError, match=r"g\.csv: embeddings are written as"):
        export_embeddings(f"{output}/card.json", str(tmp_path / "g.csv"))


def test_a_gpt_sees_only_what_came_before():
    torch.manual_seed(0)
    network = GeneTransformer(12, 4, "next_gene", width=8, heads=2).eval()
    gene, level = torch.randint(3, 12, (2, 7)), torch.randint(1, 5, (2, 7))
    changed = gene.clone()
    changed[:, 4:] = TOKEN_PAD
    with torch.inference_mode():
        one, other = network(gene, level), network(changed, level)
    torch.testing.assert_close(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4:], other[:, 4:])


@pytest.mark.parametrize("objective", ["masked_gene", "masked_level"])
def test_padding_changes_nothing(objective):
    torch.manual_seed(0)
    network = GeneTransformer(12, 4, objective, width=8, heads=2).eval()
    gene, level = torch.randint(3, 12, (2, 5)), torch.randint(1, 5, (2, 5))
    padded = (
        torch.cat([gene, torch.full((2, 3), TOKEN_PAD)], dim=1),
        torch.cat([level, torch.zeros(2, 3, dtype=int)], dim=1),
    )
    with torch.inference_mode():
        torch.testing.assert_close(network(gene, level), network(*padded)[:, :5])


def test_a_network_starts_at_the_shares_it_is_told():
    network = GeneTransformer(6, 2, "next_gene", width=4, heads=1)
    network.set_prevalence([1, 1, 2, 4, 8, 16])
    shares = torch.softmax(network.head.bias.double(), dim=0)
    torch.testing.assert_close(shares, torch.tensor([1, 1, 2, 4, 8, 16], dtype=torch.float64) / 32)


@pytest.mark.parametrize("options", [{"width": 10, "heads": 4}, {"layers": 0}, {"heads": 0}])
def test_sizes_out_of_range_are_refused(options):
    with pytest.raises(ModelError, match="width is a multiple of heads"):
        GeneTransformer(5, 5, "next_gene", **options)


def test_other_bins_tokens_or_settings_are_refused(store, trained, tmp_path):
    result, output = trained
    other = make_sample_store(tmp_path, module_counts()[:, :12])
    with pytest.raises(ConfigError, match="has no gene 'G12'"):
        evaluate_genes_on_split(other, "s", f"{output}/card.json")
    stream = ss.SampleStream(store, "b", split="s", batch_size=16, tokens=TokenView("masked_gene", top_genes=3))
    with pytest.raises(ConfigError, match="top_genes=3"):
        train_genes(stream, settings_of("masked_gene"), str(tmp_path / "m"))


def test_settings_with_bins_are_of_genes():
    found = parse_train_settings("bins: b\nepochs: 2\nobjective: masked_gene\n", "x.yaml")
    assert isinstance(found, GeneTrainSettings)
    assert (found.epochs, found.top_genes, found.model.factory) == (2, 2048, "splicestore.models.genes:GeneTransformer")
    with pytest.raises(ConfigError, match="next_gene"):
        parse_train_settings("bins: b\nepochs: 2\nobjective: gpt\n", "x.yaml")
    with pytest.raises(ConfigError, match="usage_weight"):
        parse_train_settings("bins: b\nepochs: 2\nusage_weight: 2\n", "x.yaml")


def test_a_baseline_of_an_unseen_target_is_finite(store):
    view = TokenView("masked_level", top_genes=N_GENES, n_levels=6, mask_share=1.0)
    batch = next(iter(SampleBatches(store, "b", split="s", tokens=view, batch_size=8)))
    empty = GeneBaseline([], N_GENES + 3, 7, "masked_level")
    n = int((batch.target >= 0).sum())
    assert empty.unigram(batch) == pytest.approx(n * math.log(7))
    assert empty.conditional(batch) == pytest.approx(n * math.log(7))
