"""What the exports of matrices share: which samples and genes are wanted, and their values block by block of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import ConfigError, StoreNotFoundError, close_names
from splicestore.expression import SampleGeneMatrix, SampleSplit
from splicestore.normalized import Bins
from splicestore.schema import SUBSET_NAMES
from splicestore.store import Store

KINDS = ("expression", "bins")
SUBSET_COLUMN = "subset"
BLOCK_BYTES = 32 * 1024 * 1024
"""Values of a block of samples, at 4 bytes each; reading and packing them takes about four times as much."""


@dataclass(frozen=True, slots=True)
class MatrixOptions:
    """Which part of a matrix is written."""

    kind: str | None = None
    """``expression`` or ``bins``; None: the one that has something of the name."""
    samples: Sequence[str] | None = None
    """Ids; written in the order of the matrix."""
    genes: Sequence[str] | None = None
    """Ids or symbols; written in this order."""
    split: str | None = None
    """A split of the samples: their subset is in the sample table."""
    subset: str | None = None
    """Only the samples of this subset."""
    overwrite: bool = False
    block_bytes: int = BLOCK_BYTES
    """Values that are held at a time, at least those of one sample."""


@dataclass(frozen=True, slots=True)
class MatrixReport:
    """What was written."""

    path: str
    kind: str
    n_samples: int
    n_genes: int
    n_nonzero: int
    n_bytes: int
    """Of the files."""
    files: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MatrixPart:
    """Samples and genes of a matrix that are to be written."""

    view: SampleGeneMatrix
    rows: NDArray[np.int64]
    """(sample,) ascending."""
    genes: NDArray[np.int64]
    """(gene,) in the order asked for."""
    subset: NDArray[np.uint8] | None = None
    """(sample of the matrix,) codes of a split."""
    block_bytes: int = BLOCK_BYTES

    def samples_to_pandas(self) -> pd.DataFrame:
        """Table of the samples: id first, ``subset`` last if a split was named."""
        table = self.view.samples_to_pandas()
        if self.subset is not None:
            table[SUBSET_COLUMN] = np.array(SUBSET_NAMES, dtype=object)[self.subset]
        return table.iloc[self.rows].reset_index(drop=True)

    def genes_to_pandas(self) -> pd.DataFrame:
        """Table of the genes, id first."""
        return self.view.genes_to_pandas().iloc[self.genes].reset_index(drop=True)

    @property
    def block_rows(self) -> int:
        """Samples of a block: whole chunks where they fit, else halves of one, so that few chunks are read twice."""
        height = self.view.chunk_shape[0]
        fitting = max(1, self.block_bytes // (4 * len(self.genes)))
        if fitting >= height:
            return fitting // height * height
        while height > fitting:
            height //= 2
        return height

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read samples block by block, the last with what is left: (place among ``rows``, (sample, gene) as stored)."""
        for first in range(0, len(rows), self.block_rows):
            mine = slice(first, min(len(rows), first + self.block_rows))
            yield mine, self.view.pick(rows[mine], self.genes)


def choose_part(store: Store, name: str, options: MatrixOptions) -> MatrixPart:
    """Find what is to be written.

    Raises
    ------
    StoreNotFoundError
        If no matrix has the name.
    ConfigError
        If two have it and no kind is given, the split is of other samples, a sample or gene is not there, or nothing is left.
    """
    view = _open_matrix(store, name, options.kind)
    rows, subset = np.unique(view.sample_rows(options.samples)), None
    if options.subset is not None and options.split is None:
        raise ConfigError("a subset is one of a split; name the split too")
    if options.split is not None:
        split = store.sample_splits[options.split]
        _check_same_samples(view, split)
        subset = split.sample_subset
        if options.subset is not None:
            rows = np.intersect1d(rows, view.sample_rows(split.samples_in(options.subset)))
    genes = view.gene_rows(options.genes)
    if not len(rows) or not len(genes):
        raise ConfigError(
            f"{view.kind} {name}: nothing to write: {len(rows):,} samples and {len(genes):,} genes are left"
        )
    if len(np.unique(genes)) < len(genes):
        raise ConfigError(f"{view.kind} {name}: a gene is asked for twice; write each once")
    return MatrixPart(view, rows, genes, subset, options.block_bytes)


def _open_matrix(store: Store, name: str, kind: str | None) -> SampleGeneMatrix:
    kinds = {"expression": store.expression, "bins": store.bins}
    if kind is not None and kind not in kinds:
        raise ConfigError(f"kind {kind!r}: use {' or '.join(KINDS)}")
    found = [one for one in KINDS if kind in (None, one) and name in kinds[one]]
    if len(found) > 1:
        raise ConfigError(
            f"{store.url}: counts and bins are both called {name!r}; say which with --kind expression or --kind bins"
        )
    if not found:
        known = [*store.expression, *store.bins]
        raise StoreNotFoundError(
            f"{store.url}: no {' or '.join(KINDS) if kind is None else kind} is called {name!r}; {close_names(name, known)}"
        )
    return kinds[found[0]][name]


def _check_same_samples(view: SampleGeneMatrix, split: SampleSplit) -> None:
    counts = view.expression if isinstance(view, Bins) else (view.name, view.generation)
    if split.expression != counts:
        raise ConfigError(
            f"split {split.name} is of expression {' generation '.join(split.expression)}, {view.kind} {view.name} of "
            f"{' generation '.join(counts)}: split the samples of these counts again"
        )
