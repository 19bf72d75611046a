"""The SplicEvo preset and the folders of ``export splicevo``, byte by byte against the oracle."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from splicestore.export.splicevo import export_splicevo
from splicestore.split.service import split_windows
from splicestore.split.values import SplitOptions
from tests.oracles import splicevo_export_oracle, split_oracle, usage_oracle, window_oracle
from tests.oracles.comparison import (
    USAGE,
    expected_split,
    ingest_tiny,
    open_tiny,
    split_is_empty,
    temporary_folder,
    window_list,
)
from tests.strategies import TinyGene, TinyGenome, TinyTranscript, junctions, tiny_genomes, write_junctions

ARRAYS = {"sequences": "float32", "labels": "int8", **{f"usage_{name}": "float32" for name in USAGE}}


def read_export(folder):
    """Arrays by the shapes and dtypes of summary.json, reading each file whole: no byte may be left."""
    summary = json.loads((folder / "summary.json").read_text())
    arrays = {}
    for name, about in summary["arrays"].items():
        assert about["dtype"] == ARRAYS[name]
        data = (folder / f"{name}.mmap").read_bytes()
        arrays[name] = np.frombuffer(data, dtype=about["dtype"]).reshape(about["shape"])
    assert arrays.keys() == ARRAYS.keys()
    return summary, arrays


def read_rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def check_folder(folder, truth, window_size, context_size, counts, conditions, threshold=5.0):
    """One genome's export equals the oracle's arrays and its windows."""
    expected = splicevo_export_oracle.dense_arrays(
        truth, window_size, context_size, counts, conditions, alpha_threshold=threshold, ignore_label=0
    )
    summary, arrays = read_export(folder)
    for name, dtype in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], expected[name].astype(dtype), err_msg=name, strict=True)
    assert summary["conditions"] == conditions
    assert summary["arrays"]["labels"]["codes"] == {"none": 0, "donor": 1, "acceptor": 2}
    metadata = read_rows(folder / "metadata.csv")
    found = [(r["chromosome"], int(r["window_start"]), {"+": 1, "-": -1}[r["strand"]]) for r in metadata]
    assert found == [window[:3] for window in expected["windows"]]
    assert [int(r["sequence_id"]) for r in metadata] == list(range(len(found)))
    links = {}
    for row in read_rows(folder / "sequence_mapping.csv"):
        links.setdefault(int(row["sequence_id"]), []).append(row["gene_id"])
    genes = [window[3] for window in expected["windows"]]
    assert {row: tuple(sorted(ids)) for row, ids in links.items()} == {row: ids for row, ids in enumerate(genes) if ids}


def check_export(data, tiny, window_size, context_size):
    truth = tiny.truth()
    rows = data.draw(junctions(truth))
    with temporary_folder() as folder:
        path = write_junctions(folder / "a.tsv", rows, "junctions")
        genome = ingest_tiny(tiny, folder, usage=[{"file": str(path), "condition": "x", "format": "junctions"}])
        measured = usage_oracle.junction_counts(rows, truth["sites"])
        counts = {site: {"x": pair} for site, pair in measured.items()}
        windows = genome.windows(window_size, context_size, preset="splicevo")
        if truth["genes"]:
            assert window_list(windows) == window_oracle.splicevo_windows(truth, window_size)
        report = export_splicevo(
            open_tiny(folder), str(folder / "out"), window_size=window_size, context_size=context_size
        )
        assert report.n_windows == {"genome": len(windows)}
        check_folder(folder / "out" / "genome", truth, window_size, context_size, counts, ["x"])


@settings(max_examples=8)
@given(st.data(), tiny_genomes(min_genes=1), st.integers(1, 60), st.integers(0, 40))
def test_the_export_is_what_the_oracle_says(data, tiny, window_size, context_size):
    check_export(data, tiny, window_size, context_size)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.data(), tiny_genomes(min_genes=1), st.integers(1, 60), st.integers(0, 40))
def test_many_exports_are_what_the_oracle_says(data, tiny, window_size, context_size):
    check_export(data, tiny, window_size, context_size)


def test_a_genome_without_sites_exports_an_empty_folder(tmp_path):
    gene = TinyGene("g", "chr1", 1, 0, 10, (TinyTranscript("g.t0", ((0, 10),)),))
    tiny = TinyGenome((("chr1", "ACGTN" * 10),), (gene,))
    ingest_tiny(tiny, tmp_path)
    report = export_splicevo(open_tiny(tmp_path), str(tmp_path / "out"), window_size=10, context_size=3)
    assert report.n_windows == {"genome": 0}
    check_folder(tmp_path / "out" / "genome", tiny.truth(), 10, 3, {}, [])


# -- by a split --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", ["centre", "input"])
@settings(max_examples=5)
@given(st.data(), st.integers(5, 30), st.integers(0, 30), st.integers(0, 9))
def test_an_export_of_a_split_keeps_its_guard(guard, data, window_size, context_size, seed):
    tiny = data.draw(tiny_genomes(min_genes=4))
    truth = tiny.truth()
    options = SplitOptions(
        window_size=window_size,
        context_size=context_size,
        test_fraction=0.4,
        guard=guard,
        seed=seed,
        override_gates=True,
    )
    decided, windows, table = expected_split({"genome": truth}, [], options)
    assume(not split_is_empty(table, options) and window_oracle.splicevo_windows(truth, window_size))
    with temporary_folder() as folder:
        ingest_tiny(tiny, folder)
        split_windows(open_tiny(folder), "run", options)
        export_splicevo(open_tiny(folder), str(folder / "out"), split="run")
        exported = {}
        for subset in ("train", "val", "test"):
            if (folder / "out" / subset).is_dir():
                rows = read_rows(folder / "out" / subset / "metadata.csv")
                exported |= {
                    (r["chromosome"], int(r["window_start"]), {"+": 1, "-": -1}[r["strand"]]): subset for r in rows
                }
    spans = {("genome", name): (g["contig"], g["start"], g["end"]) for name, g in truth["genes"].items()}
    held = [window for window, (subset, _) in zip(windows, table, strict=True) if subset == "test"]
    reach = context_size if guard == "input" else 0
    for contig, start, strand, _ in window_oracle.splicevo_windows(truth, window_size):
        key = ("genome", contig, start, start + window_size, strand)
        subset, _ = split_oracle.window_decision(key, spans, decided, {})
        mine = (start - context_size, start + window_size + context_size)
        others = [w for w in held if w[1] == contig]
        others += [
            ("", c, s, s + window_size, 1) for (c, s, _), found in exported.items() if found == "test" and c == contig
        ]
        meets = any(split_oracle.overlap(mine, (w[2] - reach, w[3] + reach)) for w in others)
        expected = None if subset == "train" and meets else subset
        assert exported.get((contig, start, strand)) == expected


@pytest.mark.parametrize(("guard", "train_windows"), [("none", 1), ("centre", 1), ("input", 0)])
def test_the_input_guard_holds_for_an_export(guard, train_windows, tmp_path):
    """Gene a is test, gene b train (seed 2); their inputs overlap, no input meets a centre."""
    chains = {"a": ((0, 10), (20, 30)), "b": ((45, 50), (60, 75))}
    genes = tuple(TinyGene(n, "chr1", 1, c[0][0], c[1][1], (TinyTranscript(f"{n}.t0", c),)) for n, c in chains.items())
    ingest_tiny(TinyGenome((("chr1", "ACGTN" * 40),), genes), tmp_path)
    options = SplitOptions(window_size=15, context_size=10, test_fraction=0.4, guard=guard, seed=2, override_gates=True)
    split_windows(open_tiny(tmp_path), "run", options)
    report = export_splicevo(open_tiny(tmp_path), str(tmp_path / "out"), split="run")
    assert report.n_windows.get("test") == 1
    assert report.n_windows.get("train", 0) == train_windows
