"""New samples binned as GeneRAIN does: against its formula written out, from the files that ``export generain`` writes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import splicestore as ss
from splicestore.cli.app import app
from splicestore.errors import ConfigError, InputError
from splicestore.export import export_generain
from splicestore.ingest.expression import ingest_expression
from splicestore.kernels.binning import bin_among_reference, score_counts
from splicestore.normalize import FitOptions, apply_edges, fit_edges
from splicestore.normalize.generain_reference import bin_file_among_reference, read_generain_reference
from splicestore.normalize.quality import SampleQuality
from splicestore.storage import StoreRoot
from tests.service.study import splicestore
from tests.unit.expression.files import random_counts, write_table
from tests.unit.expression.test_binning import BINS, COUNTS, TOTALS

ORDINAL = [[1, 2, 2, 1, 3, 4, 3, 4, 4, 1], *BINS["max"][1:]]
"""The worked example with equal scores ranked in their order."""


def slow_bins(new, reference, n_bins, batch):
    """Put each few samples in front of a gene's reference, sort stably, rank: (sample, gene)."""
    found = []
    for first in range(0, len(new), batch):
        some = new[first : first + batch]
        rows = [[1] * len(reference) for _ in some]
        for gene, known in enumerate(reference):
            column = [float(row[gene]) for row in some] + [float(value) for value in known]
            order = sorted((value, place) for place, value in enumerate(column) if value > 0)
            for rank, (_, place) in enumerate(order):
                if place < len(some):
                    width = Fraction(len(order) - 1, n_bins - 1)
                    rows[place][gene] = 2 if len(order) == 1 else min(int(rank / width) + 2, n_bins)
        found += rows
    return found


SCORES = st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.25, 2.0, 3.5])


@settings(max_examples=60)
@given(data=st.data(), n_genes=st.integers(1, 4), n_bins=st.integers(3, 70), batch=st.integers(1, 6))
def test_bins_are_those_of_the_formula(data, n_genes, n_bins, batch):
    """Few distinct scores, so that most are equal to others."""
    row = st.lists(SCORES, min_size=n_genes, max_size=n_genes)
    new = np.array(data.draw(st.lists(row, min_size=1, max_size=12)), dtype=np.float32)
    known = np.array(data.draw(st.lists(row, max_size=20)), dtype=np.float32).reshape(-1, n_genes)
    reference = np.sort(known.T, axis=1)
    assert bin_among_reference(new, reference, n_bins, batch).tolist() == slow_bins(new, reference, n_bins, batch)


def test_the_worked_example_ranked_in_one_batch():
    scores = score_counts(COUNTS, TOTALS)
    found = bin_among_reference(scores, np.zeros((6, 0), dtype=np.float32), 4, batch=10)
    assert found.T.tolist() == ORDINAL


def test_exact_ranks_are_those_of_generains_floats():
    """At 2,000 bins its truncated division of doubles gives the same bins as integers do."""
    rng = np.random.default_rng(4)
    for m in (2, 3, 57, 1999, 2000, 2059, 4001):
        values = rng.permutation(m).astype(np.float32) + 1
        width = (m - 1) / 1999
        expected = np.minimum(np.trunc((values - 1).astype(int) / width).astype(int) + 2, 2000)
        found = bin_among_reference(values[:5, None], np.sort(values[5:])[None], 2000)
        assert found[:, 0].tolist() == expected[:5].tolist()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A cohort, GeneRAIN's files of it, and new samples with one gene less, in another order, one of them empty."""
    folder = tmp_path_factory.mktemp("generain")
    counts, genes = random_counts(5, 1400, 40), [f"g{i}" for i in range(40)]
    root = StoreRoot(str(folder / "store"))
    ingest_expression(root, "x", [str(write_table(folder / "x.tsv", counts, genes, [f"s{i}" for i in range(1400)]))])
    fit_edges(ss.open_store(root.url), "x", "x", FitOptions(n_bins=30, quality=SampleQuality.none()))
    apply_edges(ss.open_store(root.url), "x", "x")
    export_generain(ss.open_store(root.url), "x", str(folder / "out"))
    stem = str(folder / "out" / "x_bin_tot30_splicestore_0.005_subsampled")
    new = random_counts(9, 13, 40)
    new[6] = 0
    order = [*range(39, 20, -1), *range(20)]
    path = write_table(folder / "new.tsv", new[:, order], [genes[g] for g in order], [f"n{i}" for i in range(13)])
    return f"{stem}.npy", f"{stem}.gene_symbols.txt", str(path), new


def test_a_file_is_binned_by_the_reference_that_was_exported(files, tmp_path):
    reference_url, symbols, path, new = files
    reference = np.load(reference_url)
    assert reference.shape == (7, 40)
    found = bin_file_among_reference(
        read_generain_reference(reference_url, symbols), path, str(tmp_path / "o.npz"), n_bins=30
    )
    assert found == {"samples": 13, "genes": 40, "genes_missing": 1}
    kept = [i for i in range(13) if i != 6]
    own = [g for g in range(40) if g != 20]
    totals = new[kept][:, own].sum(axis=1)
    score = np.log10(new[kept] * (1e7 / totals)[:, None] + 1).astype(np.float32)
    expected = np.zeros((13, 40), dtype=int)
    expected[np.ix_(kept, own)] = slow_bins(score[:, own], reference[:, own].T, 30, 5)
    saved = np.load(tmp_path / "o.npz")
    np.testing.assert_array_equal(saved["bins"], expected)
    assert saved["gene_id"].tolist() == [f"g{i}" for i in range(40)]
    assert saved["sample_id"].tolist() == [f"n{i}" for i in range(13)]


def test_the_command_writes_the_same_table(files, tmp_path):
    reference, symbols, path, _ = files
    out = tmp_path / "o.tsv"
    arguments = (
        "--generain-reference",
        reference,
        "--gene-symbols",
        symbols,
        "--n-bins",
        "30",
        "-o",
        str(out),
        "--json",
    )
    report = json.loads(splicestore("normalize", "apply", path, *arguments, check=0).stdout)
    assert report == {"samples": 13, "genes": 40, "genes_missing": 1, "output": str(out)}
    bin_file_among_reference(read_generain_reference(reference, symbols), path, str(tmp_path / "o.npz"), n_bins=30)
    rows = [list(map(int, line.split("\t")[1:])) for line in out.read_text().splitlines()[1:]]
    np.testing.assert_array_equal(np.array(rows).T, np.load(tmp_path / "o.npz")["bins"])


@pytest.mark.parametrize("more", [["--edges", "store/x", "-o", "o.tsv"], [], ["name", "-o", "o.tsv"]])
def test_a_reference_goes_with_an_output_and_without_edges(files, more):
    reference, symbols, path, _ = files
    given = ["normalize", "apply", path, *more, "--generain-reference", reference, "--gene-symbols", symbols]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 2
    assert "without --edges" in done.output


def spoil(name, folder, reference, symbols):
    scores, words = np.load(reference), Path(symbols).read_text().split()
    if name == "shape":
        scores = scores[0]
    elif name == "type":
        scores = scores.astype(np.int64)
    elif name == "nan":
        scores[3, 2] = np.nan
    elif name == "negative":
        scores[0, 1] = -1
    elif name == "columns":
        words = words[:-1]
    elif name == "twice":
        words[5] = words[4]
    np.save(folder / "r.npy", scores)
    if name == "truncated":
        (folder / "r.npy").write_bytes((folder / "r.npy").read_bytes()[:-10])
    if name == "no npy":
        (folder / "r.npy").write_text("gene\tvalue\n")
    (folder / "r.txt").write_text("\n".join(words) + "\n")
    return str(folder / "r.npy"), str(folder / "r.txt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shape", r"holds float32 of shape \(40,\); a reference is \(values, genes\) of floats"),
        ("type", r"holds int64 of shape \(7, 40\)"),
        ("nan", r"g2, value 4: nan is no score \(1 are not\)"),
        ("negative", r"g1, value 1: -1\.0 is no score"),
        ("columns", r"has 40 columns, .*r\.txt 39 symbols; they belong to different files"),
        ("twice", r"symbol 'g4' stands at 5 and again at 6"),
        ("truncated", r"not readable as \.npy .*is it the reference matrix, and whole\?"),
        ("no npy", r"not readable as \.npy"),
    ],
)
def test_a_damaged_reference_is_refused(files, tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        read_generain_reference(*spoil(name, tmp_path, *files[:2]))


def test_files_and_options_that_fit_no_reference_are_refused(files, tmp_path):
    reference = read_generain_reference(*files[:2])
    other = write_table(tmp_path / "other.tsv", random_counts(1, 2, 3), ["x", "y", "z"], ["a", "b"])
    with pytest.raises(InputError, match="has none of the 40 symbols of"):
        bin_file_among_reference(reference, str(other), str(tmp_path / "o.npz"))
    with pytest.raises(ConfigError, match=r"bins and values are written as \.npz, \.tsv or \.tsv\.gz"):
        bin_file_among_reference(reference, files[2], str(tmp_path / "o.csv"))
    with pytest.raises(ConfigError, match=r"n_bins lies in \[3, 65535\], got 2"):
        bin_file_among_reference(reference, files[2], str(tmp_path / "o.npz"), n_bins=2)
    assert list(tmp_path.glob("o.*")) == []
