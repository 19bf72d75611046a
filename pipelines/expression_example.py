"""Binning-By-Gene on two real matrices: ovarian tumours (TCGA-OV) and yeast replicates.

Runs the commands of docs/how-to/expression-example.md and counts what its tables say; ``--page`` brings the page up to date. A
third matrix is made of the tumours: their reads thinned to one depth, so that scores tie. ``--figures`` draws the figures
(needs matplotlib: pip install --group docs).
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import splicestore as ss
from splicestore.cli.app import run
from splicestore.kernels.binning import score_counts

N_BINS, MANY_BINS = 20, 2000
BLUE, GREY, RED = "#3b6ea5", "#7f7f7f", "#c0504d"
DEPTH = 600_000
"""Counts of a thinned sample: a little less than the smallest tumour has."""
FITS = {
    "ov20": ("ov", N_BINS, "max", ("--no-qc",)),
    "ov20_min": ("ov", N_BINS, "min", ("--no-qc",)),
    "ov2000": ("ov", MANY_BINS, "max", ("--no-qc",)),
    "yeast20": ("yeast", N_BINS, "max", ()),
    "thinned": ("thinned", N_BINS, "max", ("--no-qc",)),
    "thinned_min": ("thinned", N_BINS, "min", ("--no-qc",)),
}
"""Counts, bins, tie policy and further options of each normalisation."""
TITLES = {"ov": "TCGA-OV", "thinned": f"TCGA-OV, {DEPTH:,} reads each", "yeast": "yeast"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ov", type=Path, required=True, help="counts of TCGA-OV: a TSV of genes by samples")
    parser.add_argument("--yeast", type=Path, nargs="+", required=True, help="archives of htseq-count files")
    parser.add_argument("--output", type=Path, default=Path("expression-example"), help="folder for everything")
    parser.add_argument("--figures", type=Path, help="folder to draw the figures into")
    parser.add_argument("--page", type=Path, help="page to bring up to date: its outputs, tables and counts")
    arguments = parser.parse_args()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    store = output / "store"
    thinned = write_thinned(arguments.ov, output / "thinned.tsv.gz")
    transcript = build(store, arguments.ov, unpack(arguments.yeast, output / "yeast"), thinned)
    (output / "transcript.txt").write_text(transcript)
    opened = ss.open_store(str(store))
    scored = {name: Scored.read(opened, name) for name in TITLES}
    facts = {
        "matrices": {name: matrix_facts(of) for name, of in scored.items()},
        "bins": {name: bin_facts(opened, name, scored[FITS[name][0]]) for name in FITS},
        "policies_differ": {
            "ov": n_differ(opened, "ov20", "ov20_min"),
            "thinned": n_differ(opened, "thinned", "thinned_min"),
        },
        "one_read": one_read_facts(opened, scored["thinned"]),
    }
    (output / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    lines = document_lines(facts)
    (output / "tables.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if arguments.page is not None:
        arguments.page.write_text(updated_page(arguments.page.read_text(), transcript, lines))
    if arguments.figures is not None:
        draw(opened, scored, arguments.figures)


def unpack(archives: list[Path], folder: Path) -> list[Path]:
    """Take the count files out of the archives; returns them as ``WT/*.gbgout Snf2/*.gbgout`` would list them."""
    folder.mkdir(exist_ok=True)
    found = []
    for archive in archives:
        with tarfile.open(archive) as members:
            files = {Path(member.name).name: members.extractfile(member) for member in members if member.isfile()}
            for name, stream in sorted(files.items()):
                (folder / name).write_bytes(stream.read())
                found.append(folder / name)
    return found


def write_thinned(source: Path, target: Path) -> Path:
    """Keep ``DEPTH`` reads of every sample, evenly spaced in the order of its genes: whole numbers that no seed decides."""
    opener = gzip.open if source.suffix == ".gz" else open
    with opener(source, "rt") as lines:
        header, *rows = (line.rstrip("\n").split("\t") for line in lines)
    counts = np.array([row[1:] for row in rows], dtype=np.int64)
    reads = np.cumsum(counts, axis=0)
    kept = np.diff(reads * DEPTH // reads[-1], axis=0, prepend=0)
    table = [
        "\t".join(header),
        *("\t".join([row[0], *map(str, k)]) for row, k in zip(rows, kept.tolist(), strict=True)),
    ]
    target.write_bytes(gzip.compress("\n".join(table).encode() + b"\n", mtime=0))
    return target


def build(store: Path, ov: Path, yeast: list[Path], thinned: Path) -> str:
    """Ingest, fit and apply; returns the commands as a user types them, with what they printed."""
    steps = [
        (("ingest", "expression", store, "ov", ov), "ingest expression STORE ov tcga_ov_counts.tsv.gz"),
        (("ingest", "expression", store, "yeast", *yeast), "ingest expression STORE yeast WT/*.gbgout Snf2/*.gbgout"),
        (("ingest", "expression", store, "thinned", thinned), "ingest expression STORE thinned thinned.tsv.gz"),
    ]
    for name, (counts, n_bins, policy, more) in FITS.items():
        fit = (
            "normalize",
            "fit",
            store,
            name,
            "--expression",
            counts,
            "--n-bins",
            n_bins,
            "--tie-policy",
            policy,
            *more,
        )
        apply = ("normalize", "apply", store, name, "--edges", name)
        for words in (fit, apply):
            steps.append((words, " ".join("STORE" if word is store else str(word) for word in words)))
    said = []
    for words, shown in steps:
        said.append(f"$ splicestore {shown}\n{command([str(word) for word in words])}")
        print(said[-1], flush=True)
    return "\n".join(said)


def command(words: list[str]) -> str:
    """Run one command line in this process; returns what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = run(words)
    if status:
        raise SystemExit(printed.getvalue())
    return printed.getvalue()


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of a matrix: (sample, gene)."""

    scores: np.ndarray

    @classmethod
    def read(cls, store: ss.Store, name: str) -> Scored:
        """Score the counts of a store."""
        view = store.expression[name]
        return cls(score_counts(view.read(slice(None)), view.sample_total))

    @cached_property
    def is_tied(self) -> np.ndarray:
        """(sample, gene) positive scores that another sample of the gene has too."""
        order = np.argsort(self.scores, axis=0)
        ranked = np.take_along_axis(self.scores, order, axis=0)
        same = (ranked[1:] == ranked[:-1]) & (ranked[1:] > 0)
        tied = np.zeros(self.scores.shape, dtype=bool)
        tied[1:] |= same
        tied[:-1] |= same
        found = np.empty_like(tied)
        np.put_along_axis(found, order, tied, axis=0)
        return found

    @cached_property
    def has_no_zero(self) -> np.ndarray:
        """(gene,) genes with a count in every sample."""
        return (self.scores > 0).all(axis=0)

    @cached_property
    def has_no_tie(self) -> np.ndarray:
        """(gene,)."""
        return ~self.is_tied.any(axis=0)


def matrix_facts(scored: Scored) -> dict:
    """Count zeros and equal scores."""
    scores, tied = scored.scores, scored.is_tied
    zeros = (scores == 0).sum(axis=0)
    return {
        "samples": scores.shape[0],
        "genes": scores.shape[1],
        "zero_share": float((scores == 0).mean()),
        "genes_without_zeros": int((zeros == 0).sum()),
        "genes_half_zeros": int((zeros > scores.shape[0] / 2).sum()),
        "genes_of_zeros": int((zeros == scores.shape[0]).sum()),
        "positives": int((scores > 0).sum()),
        "tied": int(tied.sum()),
        "genes_with_ties": int(tied.any(axis=0).sum()),
    }


def occupancy(bins: np.ndarray, n_bins: int) -> np.ndarray:
    """(gene, n_bins + 1) samples of each gene in each bin."""
    return np.stack([np.bincount(column, minlength=n_bins + 1) for column in bins.T])


def bin_facts(store: ss.Store, name: str, scored: Scored) -> dict:
    """Count samples in the bins of genes without a zero; where some of them have no ties either, in those of these alone."""
    counts, n_bins, policy, _ = FITS[name]
    without_ties = scored.has_no_zero & scored.has_no_tie
    chosen = without_ties if without_ties.any() else scored.has_no_zero
    held = occupancy(store.bins[name].read(slice(None))[:, chosen], n_bins)
    return {
        "counts": counts,
        "n_bins": n_bins,
        "tie_policy": policy,
        "chosen": "no zero, no tie" if without_ties.any() else "no zero",
        "genes": int(chosen.sum()),
        "held": extent(held[:, 2:n_bins]),
        "last": extent(held[:, n_bins]),
        "empty": extent((held[:, 2:] == 0).sum(axis=1)),
    }


def extent(values: np.ndarray) -> list[int]:
    """Return the least and the most."""
    return [int(values.min()), int(values.max())]


def n_differ(store: ss.Store, one: str, other: str) -> int:
    """Count the bins that differ between two normalisations of the same counts."""
    return int((store.bins[one].read(slice(None)) != store.bins[other].read(slice(None))).sum())


def one_read_facts(store: ss.Store, scored: Scored) -> dict:
    """Say which bins a gene's samples with a single read get by each policy."""
    gene = weakest_gene(scored)
    has_one = store.expression["thinned"].read(slice(None))[:, gene] == 1
    bins = {policy: store.bins[name].read(slice(None))[has_one, gene] for name, (counts, _, policy, _) in FITS.items()
            if counts == "thinned"}  # fmt: skip
    found = {policy: sorted(set(values.tolist())) for policy, values in bins.items()}
    return {"gene": store.expression["thinned"].gene_ids[gene], "samples": int(has_one.sum()), "bins": found}


def document_lines(facts: dict) -> list[str]:
    """Spell the tables of the document."""
    lines = ["| | samples | genes | zeros | genes without a zero | with more zeros than counts | without a count |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, of in facts["matrices"].items():
        lines.append(
            f"| {TITLES[name]} | {of['samples']} | {of['genes']:,} | {of['zero_share']:.1%} | {of['genes_without_zeros']:,} | "
            f"{of['genes_half_zeros']:,} | {of['genes_of_zeros']:,} |"
        )
    lines += [
        "",
        "| | counts that are not zero | with an equal score in another sample | genes with such |",
        "|---|---|---|---|",
    ]
    for name, of in facts["matrices"].items():
        lines.append(f"| {TITLES[name]} | {of['positives']:,} | {of['tied']:,} | {of['genes_with_ties']:,} |")
    lines += ["", "| bins of | B | ties | genes with | genes | samples in a bin | in the last one | empty bins |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for of in facts["bins"].values():
        lines.append(
            f"| {TITLES[of['counts']]} | {of['n_bins']:,} | {of['tie_policy']} | {of['chosen']} | {of['genes']:,} | "
            f"{spelled(of['held'])} | {spelled(of['last'])} | {spelled(of['empty'])} |"
        )
    differ = facts["policies_differ"]
    lines += ["", *(f"{n:,} bins of {TITLES[name]} differ between the policies." for name, n in differ.items())]
    one = facts["one_read"]
    bins = ", ".join(f"bin {spelled([values[0], values[-1]])} by {policy}" for policy, values in one["bins"].items())
    lines.append(f"{one['gene']}: one read in {one['samples']} samples; they get {bins}.")
    return lines


def spelled(extent: list[int]) -> str:
    """Spell a least and a most."""
    least, most = extent
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def updated_page(page: str, transcript: str, lines: list[str]) -> str:
    """Put what commands print now, but for memory, and the lines of facts in place of those that a page has."""
    said = {}
    for block in transcript.split("\n\n"):
        shown, *printed = (line for line in block.splitlines() if not line.startswith("peak memory"))
        said[shown] = "\n".join(f"    {line}".rstrip() for line in (shown, *printed))
    page = re.sub(r"(?m)^    (\$ splicestore .*)(?:\n    .*)*", lambda found: said[found[1]], page)
    *tables, counts = "\n".join(lines).split("\n\n")
    for table in tables:
        header = re.escape(table.splitlines()[0])
        page = re.sub(rf"(?m)^{header}(?:\n\|.*)*", lambda _, table=table: table, page)
    listed = "\n".join(f"- {line}" for line in counts.splitlines())
    return re.sub(r"(?m)^- .* differ between the policies\.(?:\n- .*)*", lambda _: listed, page, count=1)


def draw(store: ss.Store, scored: Mapping[str, Scored], folder: Path) -> None:
    """Draw the figures of the document."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 100})
    folder.mkdir(parents=True, exist_ok=True)
    draw_occupancy(store, scored, folder / "expression-occupancy.png")
    draw_zeros(scored, folder / "expression-zeros.png")
    draw_scores(store, scored, folder / "expression-scores.png")


def draw_occupancy(store: ss.Store, scored: Mapping[str, Scored], path: Path) -> None:
    """Show how many samples each bin of a gene holds: few bins, many bins, and both tie policies on a gene with ties."""
    import matplotlib.pyplot as plt

    flat = int(np.flatnonzero(scored["ov"].has_no_zero & scored["ov"].has_no_tie)[0])
    weak = weakest_gene(scored["thinned"])
    figure, axes = plt.subplots(2, 2, figsize=(8, 4.6))
    panels = (
        ("ov20", flat, "20 bins: as many samples in each, but for one"),
        ("ov2000", flat, "2,000 bins, the first 100 of them: gaps"),
        ("thinned", weak, "equal scores, policy max"),
        ("thinned_min", weak, "equal scores, policy min"),
    )
    for axis, (name, gene, title) in zip(axes.flat, panels, strict=True):
        counts, n_bins, _, _ = FITS[name]
        bins = store.bins[name]
        held = np.bincount(bins.read(slice(None))[:, gene], minlength=n_bins + 1)[2:101]
        axis.bar(np.arange(2, len(held) + 2), held, width=0.8, color=BLUE)
        axis.set(xlabel="bin", xticks=[2, *range(5, 21, 5)] if n_bins == N_BINS else [2, *range(20, 101, 20)])
        axis.set_title(f"{TITLES[counts]}, {bins.gene_ids[gene]}\n{title}", fontsize=8)
        axis.yaxis.get_major_locator().set_params(integer=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("samples")
    axes[1, 1].sharey(axes[1, 0])
    save(figure, path)


def draw_zeros(scored: Mapping[str, Scored], path: Path) -> None:
    """Show how many genes have how many zeros."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(8, 2.4))
    for axis, name in zip(axes, TITLES, strict=True):
        share = (scored[name].scores == 0).mean(axis=0)
        axis.hist(share, bins=np.linspace(0, 1, 26), color=BLUE)
        axis.set_yscale("log")
        axis.set_title(TITLES[name], fontsize=8)
        axis.set_xlabel("share of samples without a count")
    axes[0].set_ylabel("genes")
    save(figure, path)


def draw_scores(store: ss.Store, scored: Mapping[str, Scored], path: Path) -> None:
    """Show the scores of a weak, a middling and a strong gene, and their bins."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(8, 4.6))
    for row, (name, counts) in enumerate((("ov20", "ov"), ("yeast20", "yeast"))):
        scores, bins = scored[counts].scores, store.bins[name]
        kept = bins.read(slice(None))
        order = np.argsort(scores.mean(axis=0), kind="stable")
        for quantile, colour in ((0.1, RED), (0.5, GREY), (0.9, BLUE)):
            gene = int(order[int(quantile * len(order))])
            shown = {"histtype": "step", "color": colour, "label": bins.gene_ids[gene]}
            axes[row, 0].hist(scores[:, gene], bins=np.linspace(0, 6, 61), **shown)
            axes[row, 1].hist(kept[:, gene], bins=np.arange(0.5, N_BINS + 1), **shown)
        axes[row, 0].set(
            ylabel="samples", xlabel="score: log10(counts per ten million + 1)", title=f"{TITLES[counts]}: scores"
        )
        axes[row, 1].set(xlabel=f"bin of {N_BINS}", title=f"{TITLES[counts]}: bins")
        axes[row, 1].legend(frameon=False, loc="upper right")
        axes[row, 1].set_xticks([1, 5, 10, 15, 20])
    save(figure, path)


def weakest_gene(scored: Scored) -> int:
    """Choose the gene with the lowest mean score among those that three quarters of the samples, or more, have a count of."""
    is_seen = (scored.scores > 0).mean(axis=0) >= 0.75
    return int(np.where(is_seen, scored.scores.mean(axis=0), np.inf).argmin())


def save(figure: Any, path: Path) -> None:
    """Write a PNG without the time and version that would change its bytes."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
