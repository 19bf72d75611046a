"""A real store with bins of a few hundred samples, in blocks of 64, and a split of them."""

from __future__ import annotations

import numpy as np

import splicestore as ss
from splicestore.ingest.expression import ingest_expression
from splicestore.normalize import ApplyOptions, FitOptions, apply_edges, fit_edges
from splicestore.normalize.quality import SampleQuality
from splicestore.split.samples import SampleSplitOptions, split_samples
from splicestore.storage import StoreRoot
from tests.unit.expression.files import random_counts

N_SAMPLES, N_GENES, N_BINS = 700, 23, 60


def write_tsv(path, counts, samples, genes):
    lines = ["\t".join(["gene_id", *samples])]
    lines += ["\t".join([gene, *map(str, row)]) for gene, row in zip(genes, counts.T.tolist(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def make_sample_store(folder, counts=None):
    """Counts ``x``, edges ``e`` of 60 bins, bins ``b``, split ``s`` by sample."""
    counts = random_counts(3, N_SAMPLES, N_GENES) + (np.arange(N_GENES) == 5) if counts is None else counts
    n_samples, n_genes = counts.shape
    path = write_tsv(folder / "x.tsv", counts, [f"S{i}" for i in range(n_samples)], [f"G{i}" for i in range(n_genes)])
    root = StoreRoot(str(folder / "store"))
    ingest_expression(root, "x", [str(path)])
    store = ss.open_store(root.url)
    fit_edges(store, "e", "x", FitOptions(n_bins=N_BINS, quality=SampleQuality.none()))
    apply_edges(ss.open_store(root.url), "b", "e", ApplyOptions())
    split_samples(ss.open_store(root.url), "s", "x", SampleSplitOptions(by="sample"))
    return ss.open_store(root.url)
