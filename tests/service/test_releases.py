"""A newer release of a matrix beside the older one: what came, went and changed, and old edges on new counts."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splicestore as ss
from splicestore.errors import ConfigError, InputError, StoreNotFoundError
from splicestore.expression import count_digests
from splicestore.ingest.count_files import ExpressionOptions
from splicestore.ingest.expression import ingest_expression
from splicestore.ingest.sample_selection import SampleSelection
from splicestore.normalize import ApplyOptions, FitOptions, apply_edges, fit_edges
from splicestore.normalize.quality import SampleQuality
from splicestore.storage import StoreRoot
from tests.service.study import splicestore
from tests.unit.expression.files import random_counts, write_archs4, write_table


def name_genes(names):
    return [f"ENSG{n:011d}" for n in names]


def slow_changes(old, new):
    """Compare two tables {sample: {gene: count}} cell by cell over the genes that both have."""
    genes = set(next(iter(old.values()))) & set(next(iter(new.values())))
    found = {sample: "removed" for sample in old if sample not in new}
    for sample, row in new.items():
        if sample not in old:
            found[sample] = "added"
        elif any(old[sample][gene] != row[gene] for gene in genes):
            found[sample] = "changed"
    return found


def as_table(counts, genes, samples):
    return {s: dict(zip(genes, row, strict=True)) for s, row in zip(samples, counts.tolist(), strict=True)}


@given(data=st.data())
@settings(max_examples=8)
def test_changes_are_those_found_cell_by_cell(tmp_path_factory, data):
    folder, tables, urls = tmp_path_factory.mktemp("release"), [], []
    for release in range(2):
        genes = data.draw(st.lists(st.integers(0, 9), min_size=3, max_size=9, unique=True).map(sorted), label="genes")
        genes = name_genes([*genes, 99])
        samples = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True), label="samples")
        counts = np.array([[(ord(s) * 7 + int(g[-2:])) % 5 for g in genes] for s in samples], dtype=np.uint32)
        if release and data.draw(st.booleans(), label="is recounted"):
            counts[data.draw(st.integers(0, len(samples) - 1)), data.draw(st.integers(0, len(genes) - 1))] += 3
        tables.append(as_table(counts, genes, samples))
        urls.append(str(write_table(folder / f"{release}.tsv", counts, [f"{g}.{release + 4}" for g in genes], samples)))
    root = StoreRoot(f"memory://{folder.name}")
    ingest_expression(root, "old", urls[:1])
    report = ingest_expression(root, "new", urls[1:], ExpressionOptions(release_of="old"))
    view = ss.open_store(root.url).expression["new"]
    changes = view.changes_to_pandas()
    expected = slow_changes(*tables)
    of_samples = changes[changes["item"] == "sample"]
    assert dict(zip(of_samples["id"], of_samples["change"], strict=True)) == expected
    told = {what: n for what, n in report.release["samples"].items() if n and what != "same"}
    assert told == Counter(expected.values())
    old_genes, new_genes = (set(next(iter(table.values()))) for table in tables)
    of_genes = changes[changes["item"] == "gene"]
    assert set(of_genes["id"][of_genes["change"] == "added"]) == new_genes - old_genes
    assert set(of_genes["id"][of_genes["change"] == "removed"]) == old_genes - new_genes
    assert report.release["genes"]["other_versions"] == len(old_genes & new_genes)
    assert view.release == report.release


@pytest.fixture(scope="module")
def two_releases(tmp_path_factory):
    """Of 60 genes the new release lacks 5, names 2 otherwise and has 8 more; of 40 samples 3 go, 2 are recounted, 10 come."""
    folder = tmp_path_factory.mktemp("releases")
    counts = random_counts(5, 50, 68)
    counts[:, :5] = counts[:, 60:] = 0
    counts[:, 5] += 1
    samples = [f"GSM{i}" for i in range(50)]
    series = {"series_id": [f"GSE{i // 4}" for i in range(50)]}
    symbols = [f"S{i}" for i in range(68)]
    options = {"samples": samples[:40], "symbols": symbols[:60], "columns": {"series_id": series["series_id"][:40]}}
    write_archs4(folder / "v2.h5", counts[:40, :60], **options)
    newer = counts.copy()
    newer[[7, 8], 20] += 11
    renamed = [*symbols[:30], "NEW30", "NEW31", *symbols[32:]]
    write_archs4(
        folder / "v3.h5",
        newer[3:, 5:],
        samples=samples[3:],
        symbols=renamed[5:],
        columns={"series_id": series["series_id"][3:]},
        gene_ids=name_genes(range(5, 68)),
    )
    return folder, newer


def test_a_release_from_the_command_line_and_old_edges_on_it(two_releases, tmp_path):
    folder, newer = two_releases
    root = StoreRoot(str(tmp_path / "store"))
    store, url = root.url, str(folder / "v3.h5")
    ingest_expression(root, "v2", [str(folder / "v2.h5")])
    told = splicestore("ingest", "expression", store, "v3", url, "--release-of", "v2").stdout
    assert "samples since v2: 35 same, 10 added, 2 changed, 3 removed" in told
    assert "genes since v2: 53 same, 8 added, 2 renamed, 5 removed, 0 other versions" in told
    report = ingest_expression(root, "v3", [url], ExpressionOptions(release_of="v2"))
    assert (report.status, report.warnings) == ("unchanged", ())
    opened = ss.open_store(store)
    old, new = opened.expression["v2"], opened.expression["v3"]
    assert new.release["generation"] == old.generation
    assert json.loads(root.get(f"{new.path}/plan.json"))["parents"] == {"expression/v2": old.generation}
    changes = new.changes_to_pandas().set_index("id")
    assert changes.loc[["GSM7", "GSM8"], "change"].tolist() == ["changed"] * 2
    assert changes.loc["GSM1", ["change", "before"]].tolist() == ["removed", "not_in_files"]
    assert changes.loc[name_genes([30])[0], ["change", "before", "after"]].tolist() == ["renamed", "S30", "NEW30"]
    assert changes.loc[name_genes([2])[0], ["change", "before"]].tolist() == ["removed", "S2"]
    assert len(changes) == 10 + 2 + 3 + 8 + 2 + 5

    fit_edges(opened, "edges2", "v2", FitOptions(n_bins=7, quality=SampleQuality.none()))
    apply_edges(ss.open_store(store), "bins2", "edges2")
    applied = splicestore(
        "normalize", "apply", store, "bins3", "--edges", "edges2", "--expression", "v3", "--json"
    ).stdout
    assert (json.loads(applied)["n_genes"], json.loads(applied)["n_genes_missing"]) == (60, 5)
    opened = ss.open_store(store)
    ours, before = opened.bins["bins3"].read(slice(None)), opened.bins["bins2"].read(slice(None))
    assert (ours[:, :5] == 0).all()
    # The genes that went and came have no counts here, so totals and with them bins stay where they were.
    same = [i for i in range(3, 40) if i not in (7, 8)]
    np.testing.assert_array_equal(ours[[i - 3 for i in same], 5:], before[same, 5:])
    assert (ours[[4, 5], 15] != 0).all()


def test_samples_that_were_not_selected_and_other_selections_are_told_apart(two_releases, tmp_path):
    folder, _ = two_releases
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "v2", [str(folder / "v2.h5")])
    selection = SampleSelection(where=("sample!=GSM9",))
    report = ingest_expression(
        root, "v3", [str(folder / "v3.h5")], ExpressionOptions(selection=selection, release_of="v2")
    )
    gone = (
        ss.open_store(root.url).expression["v3"].changes_to_pandas().query("change == 'removed' and item == 'sample'")
    )
    assert dict(zip(gone["id"], gone["before"], strict=True)) == {
        "GSM0": "not_in_files",
        "GSM1": "not_in_files",
        "GSM2": "not_in_files",
        "GSM9": "not_selected",
    }
    assert "v2 was made of other samples (all samples; here sample!=GSM9)" in report.warnings[0]


def test_digests_that_are_stored_are_those_of_the_tiles(two_releases, tmp_path):
    folder, newer = two_releases
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "v3", [str(folder / "v3.h5")], ExpressionOptions(scheduler="threads:2"))
    view = ss.open_store(root.url).expression["v3"]
    is_wanted = np.random.default_rng(0).random(view.n_genes) < 0.5
    np.testing.assert_array_equal(count_digests(view, np.ones(view.n_genes, dtype=bool)), view.sample_digests())
    left = view.sample_digests() - count_digests(view, is_wanted)
    np.testing.assert_array_equal(count_digests(view, ~is_wanted), left)
    assert len(set(left.tolist())) == len(np.unique(newer[3:, 5:][:, ~is_wanted], axis=0)) > 1


def test_what_is_no_release(two_releases, tmp_path):
    folder, _ = two_releases
    root = StoreRoot(str(tmp_path / "store"))
    url = str(folder / "v2.h5")
    ingest_expression(root, "v2", [url])
    with pytest.raises(ConfigError, match="a release is a matrix of its own; give it another name than v2"):
        ingest_expression(root, "v2", [url], ExpressionOptions(release_of="v2"))
    with pytest.raises(StoreNotFoundError, match="--release-of v1: no such expression; known: v2"):
        ingest_expression(root, "v3", [url], ExpressionOptions(release_of="v1"))
    other = write_table(tmp_path / "o.tsv", random_counts(1, 3, 4), ["X1", "X2", "X3", "X4"], ["a", "b", "c"])
    with pytest.raises(InputError, match=r"none of its 60 genes \(first: ENSG00000000000, .*\(first: X1, X2, X3\)"):
        ingest_expression(root, "v3", [str(other)], ExpressionOptions(release_of="v2"))
    with pytest.raises(InputError, match="is no release of another; `ingest expression --release-of OLD` makes one"):
        ss.open_store(root.url).expression["v2"].changes_to_pandas()


def test_versions_of_ids_are_kept_beside_them(tmp_path):
    counts = random_counts(2, 4, 6)
    genes = ["ENSG1.2", "ENSG2.3", "ENSG2.3_PAR_Y", "ENSG3.1", "ENSG3.4", "AT1G01010.1"]
    root = StoreRoot(str(tmp_path / "store"))
    report = ingest_expression(root, "x", [str(write_table(tmp_path / "a.tsv", counts, genes, list("abcd")))])
    view = ss.open_store(root.url).expression["x"]
    assert view.gene_ids == ["ENSG1", "ENSG2", "ENSG2_PAR_Y", "ENSG3.1", "ENSG3.4", "AT1G01010.1"]
    table = view.genes_to_pandas()
    assert table["version"].tolist() == [2, 3, 3, 0, 0, 0]
    assert table["is_repeated"].tolist() == [False, True, True, True, True, False]
    assert report.n_ids_repeated == 4
    np.testing.assert_array_equal(view.read(slice(None)), counts)
    kept = view.ledger[view.ledger["reason"] == "version_kept"]
    assert kept["identifier"].tolist() == ["ENSG3.1", "ENSG3.4"]


def test_files_of_two_annotations_have_the_same_genes(tmp_path):
    counts = random_counts(2, 5, 6)
    first = write_table(tmp_path / "a.tsv", counts[:3], [f"ENSG{i}.4" for i in range(6)], list("abc"))
    second = write_table(tmp_path / "b.tsv", counts[3:], [f"ENSG{i}.{4 + i % 2}" for i in range(6)], list("de"))
    root = StoreRoot(str(tmp_path / "store"))
    ingest_expression(root, "x", [str(first), str(second)])
    view = ss.open_store(root.url).expression["x"]
    np.testing.assert_array_equal(view.read(slice(None)), counts)
    assert view.genes_to_pandas()["version"].tolist() == [4] * 6
    row = view.ledger.set_index("reason").loc["other_versions"]
    assert (row["identifier"], row["count"]) == (str(second), 3)


def test_a_matrix_without_versions_takes_edges_of_one_with_them(tmp_path):
    counts = random_counts(3, 20, 6) + np.uint32(1)
    root = StoreRoot(str(tmp_path / "store"))
    genes = [f"ENSG{i}" for i in range(6)]
    for name, spelled in (("a", [f"{g}.9" for g in genes]), ("b", genes)):
        url = str(write_table(tmp_path / f"{name}.tsv", counts, spelled, [f"s{i}" for i in range(20)]))
        ingest_expression(root, name, [url])
    fit_edges(ss.open_store(root.url), "e", "a", FitOptions(n_bins=4, quality=SampleQuality.none()))
    report = apply_edges(ss.open_store(root.url), "b", "e", ApplyOptions(expression="b"))
    assert report.n_genes_missing == 0
