"""Compatibility with GeneRAIN's reference matrix: new samples binned as its own script does, five at a time.

The matrix holds a subsample of every gene's sorted scores, (reference, gene) float32, with one symbol a column beside it. Each
five new samples are ranked together with them, so a bin depends on the four samples beside it and on their order, and is as
exact as two thousand values allow. Stored edges depend on neither; this is for models that were trained with such bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError
from splicestore.kernels.binning import BIN_MISSING, MAX_BINS, MIN_BINS, bin_among_reference, score_counts
from splicestore.normalize.files import check_output, read_file, spell_values
from splicestore.normalize.match import match_genes
from splicestore.readers.counts import refuse_repeated
from splicestore.storage import input_text_lines, open_input
from splicestore.storage.outputs import write_file

_GENES_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class GeneRainReference:
    """Scores that new samples are ranked among."""

    url: str
    symbols: tuple[str, ...]
    scores: NDArray[np.float32]
    """(reference, gene)."""


def read_generain_reference(
    url: str, symbols_url: str, *, storage_options: Mapping[str, Any] | None = None
) -> GeneRainReference:
    """Read a reference matrix and the symbols of its columns.

    Raises
    ------
    InputError
        If it is no .npy file of float scores in two dimensions, a score is negative or NaN, the symbols are not as many as the
        columns, or one stands twice.
    """
    symbols = tuple(
        text.strip() for _, text in input_text_lines(symbols_url, storage_options=storage_options) if text.strip()
    )
    with open_input(url, storage_options=storage_options) as stream:
        try:
            scores = np.lib.format.read_array(stream, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(
                f"{url}: not readable as .npy ({error}); is it the reference matrix, and whole?"
            ) from error
    if scores.ndim != 2 or scores.dtype.kind != "f":
        raise InputError(
            f"{url}: holds {scores.dtype} of shape {scores.shape}; a reference is (values, genes) of floats"
        )
    if scores.shape[1] != len(symbols):
        raise InputError(
            f"{url}: has {scores.shape[1]:,} columns, {symbols_url} {len(symbols):,} symbols; they belong to different files"
        )
    refuse_repeated(symbols_url, "symbol", symbols)
    wrong = ~(scores >= 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"{url}: {symbols[column]}, value {row + 1}: {scores[row, column]} is no score ({int(wrong.sum()):,} are not); scores are "
            "logarithms of counts plus one, 0 or more"
        )
    return GeneRainReference(url, symbols, scores.astype(np.float32, copy=False))


def bin_file_among_reference(
    reference: GeneRainReference,
    url: str,
    output: str,
    *,
    n_bins: int = 2000,
    layer: str = "X",
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Bin the samples of a file as GeneRAIN does, by the formula, and write them to another.

    Genes are matched by symbol, or by id where a file has none; totals are over all genes of the file. No sample is left out: one without
    counts has bin 0 throughout, and is in no batch. Genes that the file lacks have bin 0.

    Parameters
    ----------
    url
        A file of counts.
    output
        ``.npz`` (bins (sample, gene) uint16, sample_id, gene_id), ``.tsv`` or ``.tsv.gz`` (genes in rows).
    n_bins
        That the model was trained with.

    Returns
    -------
    counts
        Samples, genes, and genes of the reference that the file lacks.

    Raises
    ------
    ConfigError
        For another ending, or a number of bins out of range.
    InputError
        If the file has none of the symbols.
    """
    if not MIN_BINS <= n_bins <= MAX_BINS:
        raise ConfigError(f"n_bins lies in [{MIN_BINS}, {MAX_BINS}], got {n_bins}")
    check_output(output)
    head, counts = read_file(url, layer, storage_options)
    names = [symbol or gene for symbol, gene in zip(head.gene_symbol, head.gene_id, strict=True)]
    gene_of = match_genes(reference.symbols, names)
    known = np.flatnonzero(gene_of >= 0)
    if not len(known):
        raise InputError(
            f"{url}: has none of the {len(gene_of):,} symbols of {reference.url}: ids instead, or another species?"
        )
    totals = counts.sum(axis=1, dtype=np.int64)
    rows = np.flatnonzero(totals > 0)
    bins = np.full((len(counts), len(gene_of)), BIN_MISSING, dtype=np.uint16)
    for first in range(0, len(known), _GENES_AT_ONCE):
        some = known[first : first + _GENES_AT_ONCE]
        scores = score_counts(np.ascontiguousarray(counts[np.ix_(rows, gene_of[some])]), totals[rows])
        ordered = np.sort(reference.scores[:, some].T, axis=1)
        bins[np.ix_(rows, some)] = bin_among_reference(scores, ordered, n_bins)
    write_file(output, spell_values(output, "bins", bins, head.sample_id, reference.symbols))
    return {"samples": len(bins), "genes": len(gene_of), "genes_missing": len(gene_of) - len(known)}
