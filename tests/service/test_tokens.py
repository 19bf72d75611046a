"""Tokens of several species: shared by pairs, found by walking from gene to gene; what is published, pinned and exported."""

from __future__ import annotations

import json
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splicestore as ss
from splicestore.errors import ConfigError, InputError
from splicestore.export import export_generain
from splicestore.ingest.expression import ExpressionOptions, ingest_expression
from splicestore.kernels.ortholog_tokens import RELATIONS, number_tokens, relate_genes
from splicestore.maintenance.inventory import list_generations
from splicestore.normalize import ApplyOptions, FitOptions, TokenOptions, apply_edges, fit_edges, publish_tokens
from splicestore.normalize.quality import SampleQuality
from splicestore.storage import StoreRoot
from splicestore.stream import SampleBatches, TokenView
from tests.service.study import splicestore
from tests.unit.expression.files import random_counts, write_archs4, write_table

N_GENES = {"human": 12, "mouse": 10, "fish": 8}


def slow_tokens(genes, links):
    """(relation, token) of every gene: its family is what is reached over links, one step at a time."""
    numbers, shared, found = count(3), {}, {}
    for gene in genes:
        family, todo = {gene}, [gene]
        while todo:
            here = todo.pop()
            for pair in links:
                if here in pair:
                    todo += [other for other in pair if other not in family]
                    family |= set(pair)
        sizes = {species: sum(member[0] == species for member in family) for species in N_GENES}
        own, others = sizes[gene[0]], [n for species, n in sizes.items() if n and species != gene[0]]
        if not others:
            relation = "no_pair"
        else:
            relation = f"{'one' if own == 1 else 'many'}_to_{'one' if min(others) == 1 else 'many'}"
        key = frozenset(family) if relation == "one_to_one" else gene
        if key not in shared:
            shared[key] = next(numbers)
        found[gene] = (relation, shared[key])
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    root = StoreRoot(str(folder / "store"))
    for seed, (species, n) in enumerate(N_GENES.items()):
        counts = random_counts(seed, 30, n) + 1
        # Mouse has versions, as Ensembl appends them.
        genes = (
            [f"{species[0].upper()}{i}" for i in range(n)]
            if species != "mouse"
            else [f"ENSMUSG{i}.4" for i in range(n)]
        )
        table = write_table(folder / f"{species}.tsv", counts, genes, [f"s{i}" for i in range(30)])
        ingest_expression(root, species, [str(table)], ExpressionOptions())
        fit_edges(ss.open_store(root.url), species, species, FitOptions(n_bins=5, quality=SampleQuality.none()))
        apply_edges(ss.open_store(root.url), species, species)
    return ss.open_store(root.url)


def write_orthologs(path, links, store):
    """A long table, without the versions of genes; a link is a group of its own."""
    lines = ["group_id\tspecies\tgene_id"]
    for number, pair in enumerate(links):
        for species, row in pair:
            name = store.bins[species].gene_ids[row].split(".")[0]
            lines.append(f"g{number}\t{'danio' if species == 'fish' else species}\t{name}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


GENE = st.sampled_from([(species, row) for species, n in N_GENES.items() for row in range(n)])
OPTIONS = {"column_genomes": {"danio": "fish"}}


def test_a_stream_takes_stored_tokens(tmp_path, store):
    table = write_orthologs(tmp_path / "o.tsv", [(("human", 2), ("mouse", 7))], store)
    publish_tokens(store, "streamed", list(N_GENES), TokenOptions((table,), **OPTIONS))
    opened = ss.open_store(store.url)
    tokens = opened.tokens["streamed"]
    stream = SampleBatches(opened, "mouse", batch_size=8, tokens=TokenView(top_genes=20), gene_tokens="streamed")
    assert stream.vocabulary.token.tolist() == tokens.token_of("mouse").tolist()
    assert stream.vocabulary.token[7] == tokens.token_of("human")[2]
    batch = next(iter(stream))
    assert set(batch.gene.ravel().tolist()) <= {*tokens.token_of("mouse").tolist()}


@settings(max_examples=12)
@given(links=st.lists(st.tuples(GENE, GENE), min_size=1, max_size=14), order=st.permutations(list(N_GENES)))
def test_tokens_are_those_of_families_walked_gene_by_gene(tmp_path_factory, store, links, order):
    links = [(("human", 0), ("mouse", 0)), *links]
    genes = [(species, row) for species in sorted(N_GENES) for row in range(N_GENES[species])]
    expected = slow_tokens(genes, links)
    table = write_orthologs(tmp_path_factory.mktemp("links") / "o.tsv", links, store)
    options = TokenOptions((table,), **OPTIONS)
    if not any(relation == "one_to_one" for relation, _ in expected.values()):
        with pytest.raises(InputError, match="no two genes of fish, human, mouse are a pair"):
            publish_tokens(store, "law", order, options)
        return
    report = publish_tokens(store, "law", order, options)
    tokens = ss.open_store(store.url).tokens["law"]
    frame = tokens.gene_table()
    assert list(zip(frame["relation"], frame["token"], strict=True)) == [expected[gene] for gene in genes]
    assert frame["bins"].tolist() == [species for species, _ in genes]
    assert tokens.n_tokens == report.n_tokens == max(token for _, token in expected.values()) + 1
    for species, n in N_GENES.items():
        mine = tokens.token_of(species)
        assert mine.dtype == np.int32
        assert mine.tolist() == [expected[species, row][1] for row in range(n)]
        relations = [expected[species, row][0] for row in range(n)]
        assert report.genes[species] == {relation: relations.count(relation) for relation in RELATIONS}
    shared = [token for _, token in expected.values()]
    assert report.n_shared == sum(shared.count(token) > 1 for token in set(shared))


@given(genes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40))
def test_tokens_count_up_without_gaps_and_no_species_has_one_twice(genes):
    species, labels = (np.array([gene[i] for gene in genes], dtype=np.int64) for i in (0, 1))
    # As the kernel that makes components numbers them: from 0 on, no more than there are genes.
    component = np.unique(labels, return_inverse=True)[1]
    relation = relate_genes(species, component)
    token = number_tokens(component, relation)
    assert sorted(set(token.tolist())) == list(range(3, 3 + len(set(token.tolist()))))
    assert len(set(zip(species.tolist(), token.tolist(), strict=True))) == len(genes)
    for value in set(token.tolist()):
        if (token == value).sum() > 1:
            assert len(set(component[token == value].tolist())) == 1


def test_the_command_pins_its_bins_and_genes_of_one_bins_need_no_table(store, tmp_path):
    table = write_orthologs(
        tmp_path / "o.tsv",
        [(("human", 3), ("fish", 5)), (("human", 4), ("fish", 1)), (("human", 4), ("fish", 2))],
        store,
    )
    arguments = (
        "normalize",
        "tokens",
        store.url,
        "both",
        "--orthology",
        table,
        "--column-genome",
        "danio=fish",
        "--json",
    )
    report = json.loads(splicestore(*arguments, "--bins", "human", "--bins", "fish", check=0).stdout)
    assert report["genes"]["human"] == {
        "one_to_one": 1,
        "one_to_many": 1,
        "many_to_one": 0,
        "many_to_many": 0,
        "no_pair": 10,
    }
    assert report["genes"]["fish"] == {
        "one_to_one": 1,
        "one_to_many": 0,
        "many_to_one": 2,
        "many_to_many": 0,
        "no_pair": 5,
    }
    assert (report["n_tokens"], report["n_shared"], report["status"]) == (3 + 12 + 8 - 1, 1, "published")
    again = publish_tokens(store, "both", ["fish", "human"], TokenOptions((table,), **OPTIONS))
    assert (again.status, again.generation) == ("unchanged", report["generation"])
    opened = ss.open_store(store.url)
    assert opened.tokens["both"].bins == {name: opened.bins[name].generation for name in ("fish", "human")}
    with pytest.raises(ConfigError, match="tokens both are not of bins mouse; known: fish, human"):
        opened.tokens["both"].token_of("mouse")
    publish_tokens(store, "alone", ["human"])
    assert ss.open_store(store.url).tokens["alone"].token_of("human").tolist() == list(range(3, 15))
    pinned = {row.generation: row.pinned_by for row in list_generations(store.root)}
    assert f"tokens/both/{report['generation']}" in pinned[opened.bins["fish"].generation]
    text = splicestore("info", store.url, check=0).stdout
    assert "fish, human" in text


def test_generains_json_has_the_tokens(store, tmp_path):
    table = write_orthologs(tmp_path / "o.tsv", [(("human", 3), ("mouse", 5))], store)
    publish_tokens(store, "pair", ["mouse", "human"], TokenOptions((table,)))
    opened = ss.open_store(store.url)
    tokens = {}
    for species in ("human", "mouse"):
        out = tmp_path / species
        export_generain(opened, species, str(out), tokens="pair")
        tokens[species] = json.loads((out / f"{species}_gene_to_idx.json").read_text())
        assert list(tokens[species].values()) == opened.tokens["pair"].token_of(species).tolist()
    command = ("export", "generain", store.url, "fish", str(tmp_path / "out"), "--tokens", "pair")
    assert "tokens pair are not of bins fish; known: human, mouse" in splicestore(*command, check=3).stderr
    assert tokens["human"]["H3"] == tokens["mouse"]["ENSMUSG5"] == 6
    assert len({*tokens["human"].values(), *tokens["mouse"].values()}) == 12 + 10 - 1


def test_tokens_of_other_bins_than_those_that_have_them_are_refused(store):
    publish_tokens(store, "old", ["fish"])
    tokens = ss.open_store(store.url).tokens["old"]
    try:
        fit_edges(store, "fish", "fish", FitOptions(n_bins=4, quality=SampleQuality.none()))
        apply_edges(ss.open_store(store.url), "fish", "fish")
        with pytest.raises(
            ConfigError, match="tokens old are of bins fish generation .*: run `normalize tokens` again"
        ):
            tokens.token_of(ss.open_store(store.url).bins["fish"])
    finally:
        fit_edges(ss.open_store(store.url), "fish", "fish", FitOptions(n_bins=5, quality=SampleQuality.none()))
        apply_edges(ss.open_store(store.url), "fish", "fish")


def test_symbols_of_a_table_are_found_where_one_gene_has_them(tmp_path):
    root = StoreRoot(str(tmp_path / "store"))
    symbols = {"a": ["TP53", "MYC", "TWICE", "TWICE"], "b": ["Trp53", "Myc", "Twice", "Other"]}
    for species, names in symbols.items():
        path = write_archs4(
            tmp_path / f"{species}.h5", random_counts(1, 9, 4) + 1, symbols=names, samples=list("123456789")
        )
        ingest_expression(root, species, [str(path)])
        fit_edges(ss.open_store(root.url), species, species, FitOptions(n_bins=4, quality=SampleQuality.none()))
        apply_edges(ss.open_store(root.url), species, species, ApplyOptions(all_genes=True))
    (tmp_path / "o.tsv").write_text("a\tb\nTP53\tTrp53\nMYC\tMyc\nTWICE\tTwice\n")
    report = publish_tokens(ss.open_store(root.url), "t", ["a", "b"], TokenOptions((str(tmp_path / "o.tsv"),), "pairs"))
    assert (report.n_shared, report.matched["symbol"], report.matched["unmatched"]) == (2, 5, 1)
    ledger = ss.open_store(root.url).tokens["t"].ledger
    assert ledger[["identifier", "reason"]].to_numpy().tolist() == [["TWICE", "unmatched_gene"]]


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ([], "each named once, got none"),
        (["human", "human"], "each named once, got human, human"),
        (["human", "mouse"], "share tokens by a table of orthologs; give --orthology FILE"),
    ],
)
def test_bins_that_cannot_have_tokens_together_are_refused(store, bins, message):
    with pytest.raises(ConfigError, match=message):
        publish_tokens(store, "none", bins)
    assert "none" not in ss.open_store(store.url).tokens


def test_bins_by_the_same_edges_are_refused(store, tmp_path):
    apply_edges(store, "human2", "human", ApplyOptions(all_genes=True))
    table = write_orthologs(tmp_path / "o.tsv", [(("human", 3), ("mouse", 5))], store)
    with pytest.raises(ConfigError, match="bins human and human2 are by the same edges human, so of one species"):
        publish_tokens(ss.open_store(store.url), "none", ["human2", "human"], TokenOptions((table,)))
