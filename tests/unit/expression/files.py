"""Small files of counts in every format that is read, spelled by their formats' descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def random_counts(seed: int, n_samples: int, n_genes: int) -> np.ndarray:
    """(sample, gene) counts with many zeros, ties and some large values."""
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(2, 2, n_genes) * rng.lognormal(0, 0.3, (n_samples, 1))
    counts = rng.negative_binomial(0.7, 0.7 / (0.7 + mean))
    return counts.astype(np.uint32)


def write_archs4(
    path: Path,
    counts: np.ndarray,
    *,
    symbols: Sequence[str],
    samples: Sequence[str],
    columns: Mapping[str, Any] | None = None,
    layout: str = "new",
    chunk_genes: int = 2000,
    gene_ids: Sequence[str] | None = None,
) -> Path:
    """An ARCHS4 file; ``old`` has flat tables and no Ensembl ids."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        matrix = counts.T.astype(np.uint32)
        file.create_dataset(
            "data/expression", data=matrix, chunks=(min(chunk_genes, matrix.shape[0]), 1), compression="gzip"
        )
        if layout == "new":
            file["meta/genes/symbol"] = np.array(symbols, dtype=text)
            ids = gene_ids or [f"ENSG{i:011d}" for i in range(len(symbols))]
            file["meta/genes/ensembl_gene"] = np.array(ids, dtype=text)
            file["meta/genes/biotype"] = np.array(["protein_coding"] * len(symbols), dtype=text)
        elif layout == "gene_symbol":
            file["meta/genes/gene_symbol"] = np.array(symbols, dtype=text)
        else:
            file["meta/genes"] = np.array(symbols, dtype=text)
        prefix = "meta/Sample_" if layout == "old" else "meta/samples/"
        for name, values in {"geo_accession": samples, **(columns or {})}.items():
            values = np.asarray(values)
            file[prefix + name] = values if values.dtype.kind == "f" else np.array(list(values), dtype=text)
    return path


def write_h5ad(path: Path, counts: np.ndarray, genes: Sequence[str], samples: Sequence[str], encoding: str) -> Path:
    """A h5ad file with one text, one number and one categorical column."""
    import scipy.sparse

    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        if encoding == "array":
            file["X"] = counts.astype(np.float32)
            file["X"].attrs["encoding-type"] = "array"
        else:
            sparse = scipy.sparse.csr_array(counts) if encoding == "csr_matrix" else scipy.sparse.csc_array(counts)
            group = file.create_group("X")
            group.attrs["encoding-type"], group.attrs["shape"] = encoding, counts.shape
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(sparse, name)
        for name, ids in (("obs", samples), ("var", genes)):
            table = file.create_group(name)
            table.attrs["_index"] = "names"
            table["names"] = np.array(ids, dtype=text)
        file["obs/depth"] = counts.sum(axis=1).astype(np.float64)
        tissue = file["obs"].create_group("tissue")
        tissue.attrs["encoding-type"] = "categorical"
        tissue["categories"] = np.array(["brain", "liver"], dtype=text)
        tissue["codes"] = np.array([-1 if i == 0 else i % 2 for i in range(len(samples))], dtype=np.int8)
        file["var/gene_symbol"] = np.array([g.lower() for g in genes], dtype=text)
    return path


def write_table(path: Path, counts: np.ndarray, genes: Sequence[str], samples: Sequence[str], sep: str = "\t") -> Path:
    """Genes in rows, a header of samples."""
    lines = [sep.join(["gene_id", *samples])]
    lines += [sep.join([gene, *map(str, row)]) for gene, row in zip(genes, counts.T.tolist(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path
