"""Batches of samples: their values gene by gene, or as sequences of genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from splicestore.stream.batch import Array, RowBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBatch(RowBatch[Array]):
    """Samples stacked for one step. B samples, G genes."""

    values: Array
    """(B, G) uint16 bins (0 missing, 1 zero), float32 scaled values (NaN missing) or uint32 counts, as the stream's layer has them."""
    sample_row: Array
    """(B,) int64, row in the matrix; -1 for rows repeated to fill the last batches."""

    arrays: ClassVar[tuple[str, ...]] = ("values", "sample_row")
    row_arrays: ClassVar[tuple[str, ...]] = arrays
    row_id: ClassVar[str] = "sample_row"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch(RowBatch[Array]):
    """Samples as their k most expressed genes, highest bin first; equal bins by column. B samples, k places."""

    gene: Array
    """(B, k) int32 tokens: 0 mask, 1 padding, 2 start, genes from 3 on."""
    bin: Array
    """(B, k) uint16 bins of those genes; 0 at padding."""
    level: Array
    """(B, k) int32, 1..n: the second stage, by the quantiles of the sample's own bins above 1; 0 at padding."""
    is_zero: Array
    """(B, k) bool: the gene has no count (level 1, like the lowest that have some)."""
    input_gene: Array
    """(B, k) int32 tokens that a network reads."""
    input_level: Array
    """(B, k) int32 levels that it reads; 0 masked, or absent."""
    target: Array
    """(B, k) int32 what it predicts, a gene's token or a level; -100 where there is no loss."""
    sample_row: Array
    """(B,) int64, row in the matrix; -1 for rows repeated to fill the last batches."""

    arrays: ClassVar[tuple[str, ...]] = (
        "gene", "bin", "level", "is_zero", "input_gene", "input_level", "target", "sample_row",
    )  # fmt: skip
    row_arrays: ClassVar[tuple[str, ...]] = arrays
    row_id: ClassVar[str] = "sample_row"
