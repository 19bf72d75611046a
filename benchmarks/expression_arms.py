"""What ``normalize`` is compared with, each a process: numpy on counts in memory, and GeneRAIN's steps by their formulas.

Each prints the bytes that it read and wrote; ``counted`` is ours, and says of what they are.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np

SAMPLE_CHUNKS = 5
GENES_AT_ONCE = 1000
"""GeneRAIN: genes of a chunk; every one reads all files of samples. Numpy: genes whose scores are held as doubles at once."""


def straightforward(counts_path: Path, output: Path, n_bins: int) -> None:
    """Score, sort, cut and look up every gene: the formulas as one would write them, with counts and bins in memory.

    Scores are made a thousand genes at a time: for all at once doubles of 50,000 samples would take 8 GB several times over.
    """
    counts = np.load(counts_path)
    scale = (1e7 / counts.sum(axis=1, dtype=np.int64))[:, None]
    bins = np.ones(counts.shape, dtype=np.uint16)
    for first in range(0, counts.shape[1], GENES_AT_ONCE):
        scores = np.log10(counts[:, first : first + GENES_AT_ONCE] * scale + 1).astype(np.float32)
        for gene, score in enumerate(scores.T, start=first):
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


def moved(counts_path: Path) -> dict[str, int]:
    """Bytes of this process's calls to read and write; the counts, which GeneRAIN's arm maps, are added."""
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    mapped = counts_path.stat().st_size if sys.argv[1] == "generain" else 0
    return {"read": int(io["rchar"]) + mapped, "written": int(io["wchar"])}


def counted(store: Path, n_bins: int) -> dict[str, int]:
    """Fit and apply in this process; bytes that went through the store, by what they are of."""
    from splicestore.normalize import FitOptions, apply_edges, fit_edges
    from splicestore.normalize.quality import SampleQuality
    from splicestore.storage import StoreRoot
    from splicestore.store import Store

    bytes_of: Counter[str] = Counter()
    lock = threading.Lock()

    class Counting(StoreRoot):
        def _count(self, what: str, key: str, data: bytes | None) -> bytes | None:
            array = key.split("/c/")[0].split("/")[-1] if "/c/" in key else "documents"
            with lock:
                bytes_of[f"{what}_{array}"] += len(data or b"")
            return data

        def get(self, key):
            return self._count("read", key, super().get(key))

        def get_range(self, key, start, length):
            return self._count("read", key, super().get_range(key, start, length))

        def get_suffix(self, key, length):
            return self._count("read", key, super().get_suffix(key, length))

        def put(self, key, data):
            self._count("written", key, data)
            super().put(key, data)

    root = Counting(str(store))
    options = FitOptions(n_bins=n_bins, quality=SampleQuality.none())
    fit_edges(Store(root), "counted", "x", options)
    bytes_of["fit_read_counts"] = bytes_of.pop("read_counts")
    apply_edges(Store(root), "counted", "counted")
    bytes_of["apply_read_counts"] = bytes_of.pop("read_counts")
    return dict(bytes_of)


if __name__ == "__main__":
    arm, path, n_bins = sys.argv[1], Path(sys.argv[2]), int(sys.argv[4])
    if arm == "counted":
        print(json.dumps(counted(path, n_bins)))
    else:
        {"straightforward": straightforward, "generain": generain}[arm](path, Path(sys.argv[3]), n_bins)
        print(json.dumps(moved(path)))
