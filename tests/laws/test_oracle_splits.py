"""Splits of tiny genomes, from files to the published table, held against the oracle."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import SplitError
from splicestore.split.service import split_windows
from splicestore.split.values import SplitOptions
from splicestore.store import open_store
from tests.oracles import split_oracle
from tests.oracles.comparison import (
    check_split_table,
    expected_split,
    ingest_tiny,
    split_is_empty,
    temporary_folder,
)
from tests.strategies import tiny_genomes

GENOMES = ("amoeba", "bee", "cow")


@st.composite
def worlds(draw):
    """One to three tiny genomes whose gene ids are the same words, and groups of their genes."""
    names = GENOMES[: draw(st.sampled_from([1, 2, 2, 3]))]
    tiny = {name: draw(tiny_genomes(min_genes=draw(st.sampled_from([0, 3, 5])))) for name in names}
    genes = [(name, gene_id) for name in names for gene_id in tiny[name].truth()["genes"]]
    members = st.sampled_from([*genes, ("bee", "absent7")]) if genes and len(names) > 1 else st.nothing()
    groups = (
        draw(st.lists(st.lists(members, min_size=2, max_size=4), min_size=1, max_size=4))
        if genes and len(names) > 1
        else []
    )
    if not any(gene in genes for group in groups for gene in group):
        groups = []
    return tiny, groups


@st.composite
def split_options(draw):
    common = {
        "window_size": draw(st.one_of(st.integers(5, 20), st.integers(5, 60))),
        "context_size": draw(st.one_of(st.integers(0, 40), st.integers(15, 40))),
        "guard": draw(st.sampled_from(["centre", "centre", "input", "none"])),
        "seed": draw(st.integers(0, 5)),
        "override_gates": True,
    }
    if draw(st.integers(0, 2)):
        fractions = {
            "test_fraction": draw(st.sampled_from([0.3, 0.4, 0.5])),
            "val_fraction": draw(st.sampled_from([0.0, 0.2, 0.4])),
        }
        return SplitOptions(reference_genome=draw(st.sampled_from([None, "amoeba"])), **fractions, **common)
    unassigned = draw(st.sampled_from(["train", "drop", "hash"]))
    return SplitOptions(
        reference_genome="amoeba",
        test_chromosomes=("chr1",),
        val_chromosomes=draw(st.sampled_from([(), ("chr2",)])),
        conflict=draw(st.sampled_from(["test", "train", "majority", "drop"])),
        unassigned=unassigned,
        **({"test_fraction": 0.3, "val_fraction": 0.2} if unassigned == "hash" else {}),
        **common,
    )


def write_groups(path, groups):
    rows = [f"G{n}\t{genome}\t{gene_id}\n" for n, group in enumerate(groups) for genome, gene_id in group]
    path.write_text("ortholog_group\tgenome_id\tgene_id\n" + "".join(rows))
    return str(path)


def check_split(case, options):
    tiny, groups = case
    truths = {name: genome.truth() for name, genome in tiny.items()}
    decided, windows, table = expected_split(truths, groups, options)
    with temporary_folder() as folder:
        for name, genome in tiny.items():
            ingest_tiny(genome, folder, name)
        store = open_store(str(folder / "store"))
        url = write_groups(folder / "groups.tsv", groups) if groups else None
        if split_is_empty(table, options):
            with pytest.raises(SplitError, match="came out empty"):
                split_windows(store, "run", options, homology_url=url)
            return
        report = split_windows(store, "run", options, homology_url=url)
        split = open_store(store.url).splits["run"]
        check_split_table(split, decided, windows, table)
        check_report(report, decided, table)


def check_report(report, decided, table):
    document = report.as_dict()
    for what, decisions in (("windows", table), ("genes", list(decided.values()))):
        counts = split_oracle.conservation(decisions)
        assert document[what] == {name: counts[name] for name in ("train", "val", "test", "excluded")}
    assert document["reasons"] == dict(Counter(reason for subset, reason in table if subset == "excluded"))


@settings(max_examples=10)
@given(worlds(), split_options())
def test_a_split_is_what_the_oracle_says(case, options):
    check_split(case, options)


@pytest.mark.slow
@settings(max_examples=40)
@given(worlds(), split_options())
def test_many_splits_are_what_the_oracle_says(case, options):
    check_split(case, options)
