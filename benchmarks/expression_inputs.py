"""Counts for ``bench_expression.py``: real tumours resampled to any size, as an ARCHS4-shaped file, a store and an array."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

REAL = "tcga_ov_counts.1125x374.tsv.gz"
SAMPLES_AT_ONCE = 1000
CHUNK_GENES = 2000
SEED = 1


def real_counts() -> np.ndarray:
    """(sample, gene) counts of 374 ovarian tumours."""
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SPLICESTORE_DATA", shared))
    table = pd.read_csv(folder / "expression" / REAL, sep="\t", index_col=0)
    return table.to_numpy().T.astype(np.float64)


def resampled(n_samples: int, n_genes: int, seed: int = SEED):
    """Yield blocks of samples: a tumour, its genes drawn with replacement, scaled, and counted anew.

    Genes are scaled down by up to five orders of magnitude, so that about half of the counts are zeros, as in ARCHS4.
    """
    real, rng = real_counts(), np.random.default_rng(seed)
    gene = rng.integers(0, real.shape[1], n_genes)
    scale = 10 ** rng.uniform(-4.5, 0.5, n_genes)
    for first in range(0, n_samples, SAMPLES_AT_ONCE):
        n = min(SAMPLES_AT_ONCE, n_samples - first)
        tumour = rng.integers(0, len(real), n)
        depth = rng.lognormal(0, 0.4, (n, 1))
        yield first, rng.poisson(real[tumour][:, gene] * scale * depth).astype(np.uint32)


def write_h5(path: Path, n_samples: int, n_genes: int) -> None:
    """Write an ARCHS4-shaped file: genes in rows, chunks of 2,000 genes of one sample, gzip."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data/expression",
            (n_genes, n_samples),
            np.uint32,
            chunks=(min(n_genes, CHUNK_GENES), 1),
            compression="gzip",
        )
        for first, block in resampled(n_samples, n_genes):
            data[:, first : first + len(block)] = block.T
        file["meta/genes/symbol"] = np.array([f"S{i}" for i in range(n_genes)], dtype=text)
        file["meta/genes/ensembl_gene"] = np.array([f"ENSG{i:011d}" for i in range(n_genes)], dtype=text)
        file["meta/genes/biotype"] = np.array(["protein_coding"] * n_genes, dtype=text)
        file["meta/samples/geo_accession"] = np.array([f"GSM{i}" for i in range(n_samples)], dtype=text)
        file["meta/samples/series_id"] = np.array([f"GSE{i // 12}" for i in range(n_samples)], dtype=text)
        file["meta/samples/singlecellprobability"] = np.zeros(n_samples)


def write_npy(path: Path, n_samples: int, n_genes: int) -> None:
    """Write the same counts as a plain array (sample, gene)."""
    array = np.lib.format.open_memmap(path, "w+", np.uint32, (n_samples, n_genes))
    for first, block in resampled(n_samples, n_genes):
        array[first : first + len(block)] = block
    array.flush()


if __name__ == "__main__":
    kind, path, n_samples, n_genes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    {"h5": write_h5, "npy": write_npy}[kind](path, n_samples, n_genes)
    print(json.dumps({"bytes": path.stat().st_size}))
