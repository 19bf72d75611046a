"""From a matrix and a split of its samples to blocks of rows: values made before a value of the matrix is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, SplitError, close_names
from splicestore.kernels.intervals import pointers
from splicestore.stream.options import LANES_DEFAULT, OrderOptions
from splicestore.stream.plan import BLOCKS_A_LANE_TO_SHARE, BlockPlan, Int64, assign_lanes


class MatrixSource(Protocol):
    """A stored matrix of samples by genes, pinned to one generation; reads may come from several threads."""

    @property
    def path(self) -> str:
        """Key of its generation."""
        ...

    @property
    def n_samples(self) -> int:
        """Rows."""
        ...

    @property
    def n_genes(self) -> int:
        """Columns."""
        ...

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of its values."""
        ...

    @property
    def rows_at_once(self) -> int:
        """Rows that are compressed together."""
        ...

    @property
    def gene_ids(self) -> Sequence[str]:
        """Columns."""
        ...

    @property
    def gene_symbols(self) -> Sequence[str]:
        """Symbols of the columns, empty where there is none."""
        ...

    @property
    def sample_ids(self) -> Sequence[str]:
        """Rows."""
        ...

    def read_rows(self, first: int, last: int, out: NDArray[np.generic]) -> None:
        """Read samples ``[first, last)``, all genes, into ``out``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan(BlockPlan):
    """The samples of a stream by block: a block is what the matrix compresses together."""

    sample_row: Int64
    """(n,) int64, row in the matrix, sorted."""
    block_first: Int64
    """(n_blocks,) int64, first row of the matrix that a block has."""
    block_last: Int64
    """(n_blocks,) int64, one past its last."""
    column: NDArray[np.int32] | None
    """(gene,) columns of the matrix, in the order asked for; None: all."""
    gene_ids: tuple[str, ...]
    """Of those columns."""

    rows_name: ClassVar[str] = "samples"

    @property
    def n_samples(self) -> int:
        """Samples of the stream."""
        return self.n_rows


def make_sample_plan(
    options: OrderOptions, matrix: MatrixSource, chosen: Int64, column: NDArray[np.int32] | None, what: str
) -> SamplePlan:
    """Sort samples into blocks and fix P.

    Parameters
    ----------
    chosen
        Rows of the matrix, sorted.
    column
        Columns of the matrix; None for all.
    what
        How messages name what was asked for.

    Raises
    ------
    SplitError
        If no sample is left.
    """
    if not len(chosen):
        raise SplitError(f"{what}: no sample is left of {matrix.n_samples:,}")
    height = matrix.rows_at_once
    number, first = np.unique(chosen // height, return_index=True)
    ids = matrix.gene_ids
    plan = SamplePlan(
        options=options,
        block_ptr=pointers(np.diff(np.append(first, len(chosen)))),
        block_bytes=np.full(len(number), height * matrix.n_genes * matrix.dtype.itemsize, dtype=np.int64),
        sample_row=chosen,
        block_first=number * height,
        block_last=np.minimum((number + 1) * height, matrix.n_samples),
        column=column,
        gene_ids=tuple(ids if column is None else (ids[c] for c in column.tolist())),
    )
    return assign_lanes(plan, options)


def is_shared_by_all(chosen: Int64, matrix: MatrixSource) -> bool:
    """Whether samples lie in so few blocks that every rank reads all of them."""
    return len(np.unique(chosen // matrix.rows_at_once)) < LANES_DEFAULT * BLOCKS_A_LANE_TO_SHARE


def choose_columns(matrix: MatrixSource, genes: Sequence[str] | None) -> NDArray[np.int32] | None:
    """Columns of genes by id or symbol, in the order given; None for all.

    Raises
    ------
    ConfigError
        If a gene is not there, stands there more than once, or is asked for twice.
    """
    if genes is None:
        return None
    places: dict[str, list[int]] = {}
    for column, names in enumerate(zip(matrix.gene_ids, matrix.gene_symbols, strict=True)):
        for name in {*names} - {""}:
            places.setdefault(name, []).append(column)
    found = []
    for gene in genes:
        if gene not in places:
            raise ConfigError(f"{matrix.path} has no gene {gene!r}; {close_names(gene, places)}")
        if len(places[gene]) > 1:
            raise ConfigError(f"{matrix.path}: gene {gene!r} stands there {len(places[gene])} times; give ids")
        found += places[gene]
    if len(set(found)) < len(found):
        twice = next(gene for place, gene in zip(found, genes, strict=True) if found.count(place) > 1)
        raise ConfigError(f"gene {twice!r} is asked for twice")
    if not found:
        raise ConfigError(f"{matrix.path}: no gene is asked for; leave genes out for all {matrix.n_genes:,}")
    return np.array(found, dtype=np.int32)


def choose_samples(matrix: MatrixSource, samples: Sequence[str] | None) -> NDArray[np.bool_]:
    """Which rows of a matrix have one of some ids; None for all.

    Raises
    ------
    ConfigError
        If an id is not there.
    """
    if samples is None:
        return np.ones(matrix.n_samples, dtype=bool)
    known = {name: row for row, name in enumerate(matrix.sample_ids)}
    is_chosen = np.zeros(matrix.n_samples, dtype=bool)
    for name in samples:
        if name not in known:
            raise ConfigError(f"{matrix.path} has no sample {name!r}; {close_names(name, known)}")
        is_chosen[known[name]] = True
    return is_chosen
