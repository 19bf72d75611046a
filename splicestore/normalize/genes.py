"""Genes of a normalisation: what tasks own of them, what is stored of each, whatever the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from splicestore.expression import Expression
from splicestore.normalize.samples import SampleChoice
from splicestore.schema import ArraySpec, LedgerRow
from splicestore.storage import Publication
from splicestore.storage.arrays import read_arrays
from splicestore.storage.columns import Column, ledger_columns
from splicestore.store import Store

NORMALIZED_ENCODER = 2
TASK_GENES = 256
"""Genes of a task, and of a chunk of edges."""
MIN_MEAN_SCORE = 0.1
"""A gene with a higher mean score counts as expressed, as in GeneRAIN."""
STATISTICS = (
    ("gene_n_positive", "int64"),
    ("gene_mean", "float64"),
    ("gene_std", "float64"),
)
"""Of the scores, whatever the method: so the same genes are kept by all."""


def gene_parts(n_genes: int) -> list[tuple[str, int, int]]:
    """Tasks of a fit: (name, first gene, one past the last)."""
    return [
        (f"genes-{first // TASK_GENES:05d}", first, min(n_genes, first + TASK_GENES))
        for first in range(0, n_genes, TASK_GENES)
    ]


def gene_specs(columns: Sequence[tuple[str, str]], n_genes: int) -> list[ArraySpec]:
    """Specify columns that tasks of genes write."""
    return [ArraySpec(name, (n_genes,), ("gene",), dtype, (TASK_GENES,)) for name, dtype in columns]


def keep_strongest(symbols: Sequence[str], mean: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of genes with one symbol keep the one with the highest mean score, the first of equal ones; those without a symbol all."""
    best: dict[str, int] = {}
    for gene, symbol in enumerate(symbols):
        if symbol and (symbol not in best or mean[gene] > mean[best[symbol]]):
            best[symbol] = gene
    return np.array([not symbol or best[symbol] == gene for gene, symbol in enumerate(symbols)], dtype=bool)


def table_columns(
    gene_ids: Sequence[str],
    gene_symbols: Sequence[str],
    mean: NDArray[np.float64],
    is_fitted: NDArray[np.bool_],
    ledger: Sequence[LedgerRow],
) -> list[Column]:
    """Build the columns that every normalisation has."""
    return [
        Column("gene_id", gene_ids, "gene", "string"),
        Column("gene_symbol", gene_symbols, "gene", "string"),
        Column("gene_is_kept", keep_strongest(gene_symbols, mean), "gene", "bool"),
        Column("gene_is_expressed", mean > MIN_MEAN_SCORE, "gene", "bool"),
        Column("sample_is_fitted", is_fitted, "sample", "bool"),
        *ledger_columns(ledger),
    ]


def written_means(publication: Publication) -> NDArray[np.float64]:
    """Read the mean scores that the tasks of a publication wrote: (gene,)."""
    return np.asarray(read_arrays(publication.root, publication.base, ["gene_mean"])["gene_mean"])


def fitted_mask(n_samples: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark some samples: (sample,)."""
    is_fitted = np.zeros(n_samples, dtype=bool)
    is_fitted[rows] = True
    return is_fitted


def pins_of_fit(store: Store, counts: Expression, options: SampleChoice) -> dict[str, str]:
    """Name what decides a fit: the counts, and the split whose training samples it is fitted to."""
    pins = {f"expression/{counts.name}": counts.generation}
    if options.split is not None:
        pins[f"sample_splits/{options.split}"] = store.sample_splits[options.split].generation
    return pins


def nested(pins: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Spell pins as attributes have them: kind, name, generation."""
    return {path.split("/")[0]: {path.split("/")[1]: generation} for path, generation in pins.items()}
