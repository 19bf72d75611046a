"""What ``normalize`` is compared with, each a process: numpy on everything in memory, and GeneRAIN's steps by their formulas."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SAMPLE_CHUNKS = 5
GENES_AT_ONCE = 1000
"""Genes of a chunk; every one reads all files of samples."""


def straightforward(counts_path: Path, output: Path, n_bins: int) -> None:
    """Score everything, sort every gene, cut, look every value up: the formulas as one would write them."""
    counts = np.load(counts_path)
    totals = counts.sum(axis=1, dtype=np.int64)
    scores = np.log10(counts * (1e7 / totals)[:, None] + 1).astype(np.float32)
    bins = np.ones(counts.shape, dtype=np.uint16)
    for gene in range(counts.shape[1]):
        score = scores[:, gene]
        positive = np.sort(score[score > 0])
        m = len(positive)
        if m < 2:
            bins[score > 0, gene] = 2
            continue
        rank = -(-np.arange(1, n_bins - 1) * (m - 1) // (n_bins - 1))
        found = 2 + np.searchsorted(positive[rank], score, side="right")
        bins[:, gene] = np.where(score > 0, found, 1)
    np.save(output, bins)


def generain(counts_path: Path, output: Path, n_bins: int) -> None:
    """GeneRAIN's files: scores by chunks of samples; for every chunk of genes all of them again; bins; samples by genes."""
    folder = output.with_suffix("")
    folder.mkdir(exist_ok=True)
    counts = np.load(counts_path, mmap_mode="r")
    n_samples, n_genes = counts.shape
    step = -(-n_samples // SAMPLE_CHUNKS)
    for chunk in range(SAMPLE_CHUNKS):
        mine = np.asarray(counts[chunk * step : (chunk + 1) * step])
        totals = mine.sum(axis=1, dtype=np.int64)
        np.save(folder / f"samples_{chunk}.npy", np.log10(mine.T * (1e7 / totals) + 1).astype(np.float32))
    for chunk, first in enumerate(range(0, n_genes, GENES_AT_ONCE)):
        parts = [np.load(folder / f"samples_{i}.npy")[first : first + GENES_AT_ONCE] for i in range(SAMPLE_CHUNKS)]
        scores = np.hstack(parts)
        bins = np.ones(scores.shape, dtype=np.int32)
        for gene, score in enumerate(scores):
            positive = score > 0
            m = int(positive.sum())
            if m == 1:
                bins[gene, positive] = 2
            elif m > 1:
                rank = np.argsort(np.argsort(score[positive]))
                bins[gene, positive] = np.minimum((rank / ((m - 1) / (n_bins - 1))).astype(int) + 2, n_bins)
        np.save(folder / f"bins_{chunk}.npy", bins)
    n_chunks = -(-n_genes // GENES_AT_ONCE)
    for chunk in range(SAMPLE_CHUNKS):
        mine = slice(chunk * step, (chunk + 1) * step)
        parts = [np.load(folder / f"bins_{i}.npy")[:, mine] for i in range(n_chunks)]
        np.save(folder / f"final_{chunk}.npy", np.vstack(parts).T.astype(np.float32))


if __name__ == "__main__":
    {"straightforward": straightforward, "generain": generain}[sys.argv[1]](
        Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    )
