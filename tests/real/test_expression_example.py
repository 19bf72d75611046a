"""The worked example of two real matrices: its document says what its script does, and that is what slow counting gives."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.service.test_expression import slow_bins

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "expression-example.md"
DEPTH = 600_000


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    output = tmp_path_factory.mktemp("example")
    data = data_dir / "expression"
    figures = ("--figures", output / "figures") if importlib.util.find_spec("matplotlib") else ()
    shutil.copy(PAGE, output / "page.md")
    subprocess.run(
        [sys.executable, "-W", "error", ROOT / "pipelines" / "expression_example.py", "--ov", data / "tcga_ov_counts.1125x374.tsv.gz",
         "--yeast", *(data / f"yeast48.{name}_countdata.tar.gz" for name in ("WT", "Snf2")), "--output", output, "--page", output / "page.md", *figures],
        check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    return output


@pytest.fixture(scope="module")
def tumours(data_dir: Path) -> np.ndarray:
    """(sample, gene) counts."""
    table = pd.read_csv(data_dir / "expression" / "tcga_ov_counts.1125x374.tsv.gz", sep="\t", index_col=0)
    return table.to_numpy().T


@pytest.fixture(scope="module")
def thinned(example: Path) -> np.ndarray:
    return pd.read_csv(example / "thinned.tsv.gz", sep="\t", index_col=0).to_numpy().T


def read_yeast(data_dir: Path) -> np.ndarray:
    rows = []
    for group in ("WT", "Snf2"):
        with tarfile.open(data_dir / "expression" / f"yeast48.{group}_countdata.tar.gz") as archive:
            for member in archive:
                if member.isfile():
                    lines = archive.extractfile(member).read().decode().split("\n")
                    rows.append([int(line.split("\t")[1]) for line in lines[:-1]][:-5])
    return np.array(rows)


def masked(text: str) -> str:
    """Generations aside: encoders have versions."""
    return re.sub(r"\b[0-9a-f]{16}\b", "G", text)


def blocks(text: str) -> dict[str, list[str]]:
    """Command to the lines it printed, but for those about memory."""
    found: dict[str, list[str]] = {}
    for line in (line.strip() for line in masked(text).splitlines()):
        if line.startswith("$ "):
            lines = found.setdefault(line, [])
        elif not line:
            lines = []
        elif found and not line.startswith("peak memory"):
            lines.append(" ".join(line.split()))
    return found


def test_every_table_and_output_of_the_page_is_what_the_script_gives(example: Path) -> None:
    page = PAGE.read_text()
    # A line of facts at the end stands in a list.
    stated = {line.removeprefix("- ").strip() for line in page.splitlines()}
    given = [line for line in (example / "tables.md").read_text().splitlines() if line]
    assert [line for line in given if line not in stated] == []
    assert len(given) == 5 + 5 + 8 + 3
    rows = [line for line in stated if line.startswith("|")]
    assert [line for line in rows if line not in given] == []
    said, shown = blocks((example / "transcript.txt").read_text()), blocks(page)
    assert len(said) == 3 + 2 * 6
    assert len(shown) == 8
    assert {name: said.get(name) for name in shown} == shown
    assert masked((example / "page.md").read_text()) == masked(page)


def matrix_of(counts: np.ndarray) -> dict:
    zeros = [int((gene == 0).sum()) for gene in counts.T]
    return {
        "samples": len(counts),
        "genes": len(zeros),
        "zero_share": pytest.approx(sum(zeros) / counts.size, abs=1e-12),
        "genes_without_zeros": zeros.count(0),
        "genes_half_zeros": sum(2 * n > len(counts) for n in zeros),
        "genes_of_zeros": zeros.count(len(counts)),
        "positives": counts.size - sum(zeros),
    }


def ties_of(counts: np.ndarray) -> list[int]:
    """Positive scores of each gene that stand twice."""
    scores = np.log10(counts * (1e7 / counts.sum(axis=1))[:, None] + 1).astype(np.float32)
    times = (Counter(gene[gene > 0].tolist()).values() for gene in scores.T)
    return [sum(n for n in of if n > 1) for of in times]


def test_zeros_and_ties_are_those_of_slow_counting(
    example: Path, tumours: np.ndarray, thinned: np.ndarray, data_dir: Path
) -> None:
    facts = json.loads((example / "facts.json").read_text())["matrices"]
    for name, counts in (("ov", tumours), ("thinned", thinned), ("yeast", read_yeast(data_dir))):
        ties = ties_of(counts)
        expected = {**matrix_of(counts), "tied": sum(ties), "genes_with_ties": sum(n > 0 for n in ties)}
        assert facts[name] == expected


def held_in(gene: np.ndarray, n_bins: int) -> list[int]:
    found = dict(zip(*(values.tolist() for values in np.unique(gene, return_counts=True)), strict=True))
    return [found.get(number, 0) for number in range(2, n_bins + 1)]


def test_bins_hold_what_slow_ranks_put_into_them(example: Path, tumours: np.ndarray, thinned: np.ndarray) -> None:
    facts = json.loads((example / "facts.json").read_text())
    bins = {}
    for name, of in facts["bins"].items():
        if of["counts"] == "yeast":
            continue
        counts = tumours if of["counts"] == "ov" else thinned
        chosen = (counts > 0).all(axis=0)
        if of["chosen"] == "no zero, no tie":
            chosen &= np.array(ties_of(counts)) == 0
        bins[name] = slow_bins(counts, of["n_bins"], of["tie_policy"])
        held = [held_in(gene, of["n_bins"]) for gene in bins[name].T[chosen]]
        others = [n for gene in held for n in gene[:-1]]
        assert of["genes"] == len(held)
        assert of["held"] == [min(others), max(others)]
        assert of["last"] == [min(gene[-1] for gene in held), max(gene[-1] for gene in held)]
        assert of["empty"] == [min(gene.count(0) for gene in held), max(gene.count(0) for gene in held)]
    assert len(bins) == 5
    differ = {"ov": (bins["ov20"] != bins["ov20_min"]).sum(), "thinned": (bins["thinned"] != bins["thinned_min"]).sum()}
    assert facts["policies_differ"] == differ
    one = facts["one_read"]
    table = pd.read_csv(example / "thinned.tsv.gz", sep="\t", index_col=0)
    gene = list(table.index).index(one["gene"])
    samples = np.flatnonzero(thinned[:, gene] == 1)
    assert one["samples"] == len(samples)
    for policy, name in (("max", "thinned"), ("min", "thinned_min")):
        assert one["bins"][policy] == sorted(set(bins[name][samples, gene].tolist()))


def test_thinned_samples_hold_evenly_spaced_reads(tumours: np.ndarray, thinned: np.ndarray) -> None:
    assert (thinned.sum(axis=1) == DEPTH).all()
    for row in (0, 100, 373):
        ends, total = np.cumsum(tumours[row]), int(tumours[row].sum())
        # The k-th read kept is the first whose place, scaled to the depth, is at least k.
        reads = -(-np.arange(1, DEPTH + 1) * total // DEPTH)
        kept = np.bincount(np.searchsorted(ends, reads), minlength=len(ends))
        np.testing.assert_array_equal(thinned[row], kept)


def test_figures_of_the_page_are_drawn(example: Path) -> None:
    names = re.findall(r"!\[[^]]+\]\(\.\./images/([a-z-]+\.png)\)", PAGE.read_text())
    assert len(names) == len(list((ROOT / "docs" / "images").glob("expression-*.png"))) == 3
    if not (example / "figures").exists():
        pytest.skip("matplotlib is not installed: pip install --group docs")
    drawn = {path.name: path.read_bytes() for path in (example / "figures").iterdir()}
    assert sorted(drawn) == sorted(names)
    assert all(image.startswith(b"\x89PNG") and len(image) > 10_000 for image in drawn.values())
