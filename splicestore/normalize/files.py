"""``normalize apply FILE -o OUT``: the samples of a file by a stored normalisation, without a store of their own."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError
from splicestore.kernels.binning import BIN_MISSING, bin_counts
from splicestore.normalize.match import match_genes
from splicestore.normalize.scalers import arrange_genes, scale_samples, scaler_of
from splicestore.normalized import Normalized
from splicestore.readers.counts import Counts, CountsHead, open_counts
from splicestore.storage.outputs import write_file


def normalize_file(
    fitted: Normalized,
    url: str,
    output: str,
    *,
    layer: str = "X",
    all_genes: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Bin or scale the samples of a file as a stored normalisation says, and write them to another.

    Parameters
    ----------
    fitted
        The normalisation.
    url
        A file of counts.
    output
        ``.npz`` (``bins`` (sample, gene) uint16 or ``values`` (sample, gene) float32; sample_id, gene_id), ``.tsv`` or
        ``.tsv.gz`` (genes in rows).

    Returns
    -------
    counts
        Samples, genes, and fitted genes that the file lacks: their bins are 0, their values NaN.

    Raises
    ------
    ConfigError
        For another ending.
    InputError
        If the file has none of the genes.
    """
    check_output(output)
    head, counts = read_file(url, layer, storage_options)
    samples, genes = head.sample_id, head.gene_id
    wanted = np.flatnonzero(fitted.gene_is_kept | all_genes)
    gene_of = match_genes(fitted.gene_ids, genes)
    n_missing = int((gene_of[wanted] < 0).sum())
    if n_missing == len(wanted):
        raise InputError(
            f"{url}: has none of the {len(wanted):,} genes of {fitted.name}: other ids, or another species?"
        )
    convert = _bin if fitted.method == "bins" else _scale
    name = "bins" if fitted.method == "bins" else "values"
    found = convert(fitted, counts, gene_of, wanted)
    write_file(output, spell_values(output, name, found, samples, [fitted.gene_ids[g] for g in wanted.tolist()]))
    return {"samples": len(samples), "genes": len(wanted), "genes_missing": n_missing}


def _bin(
    fitted: Normalized, counts: NDArray[np.uint32], gene_of: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.uint16]:
    totals, known = counts.sum(axis=1, dtype=np.int64), np.flatnonzero(gene_of[wanted] >= 0)
    bins = np.full((len(counts), len(wanted)), BIN_MISSING, dtype=np.uint16)
    genes = wanted[known]
    edges = fitted.edges(0, fitted.n_genes)[genes]
    bins[:, known] = bin_counts(np.ascontiguousarray(counts[:, gene_of[genes]]), totals, edges, fitted.tie_policy)
    bins[totals <= 0] = BIN_MISSING
    return bins


def _scale(
    fitted: Normalized, counts: NDArray[np.uint32], gene_of: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float32]:
    arranged, has = arrange_genes(counts, None, gene_of)
    return scale_samples(scaler_of(fitted), arranged, counts.sum(axis=1, dtype=np.int64), has, wanted)


def check_output(output: str) -> None:
    """Refuse a file of bins or values whose ending says no known format.

    Raises
    ------
    ConfigError
        If it does.
    """
    if not output.endswith((".npz", ".tsv", ".tsv.gz")):
        raise ConfigError(f"{output}: bins and values are written as .npz, .tsv or .tsv.gz")


def read_file(url: str, layer: str, storage_options: Mapping[str, Any] | None) -> tuple[CountsHead, Counts]:
    """Read a file of counts whole: (its tables, (sample, gene) uint32)."""
    source = open_counts(url, layer=layer, storage_options=storage_options)
    try:
        head = source.head
        return head, source.read(np.arange(len(head.sample_id)), 0, len(head.gene_id))
    finally:
        source.close()


def spell_values(output: str, name: str, values: NDArray[Any], samples: Sequence[str], genes: Sequence[str]) -> bytes:
    """Spell bins or values (sample, gene) as the ending of their file says; ``name`` is that of the array in ``.npz``."""
    if output.endswith(".npz"):
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: values, "sample_id": np.array(samples), "gene_id": np.array(genes)}
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["gene_id", *samples])
    # A float32 spells itself in as few digits as give it back.
    writer.writerows([gene, *map(str, row)] for gene, row in zip(genes, values.T, strict=True))
    data = text.getvalue().encode()
    return gzip.compress(data, mtime=0) if output.endswith(".gz") else data
