"""Named columns that become the small arrays of a published group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.schema import ArraySpec, LedgerRow, table_column
from splicestore.storage.partitions import PartitionWriter


@dataclass(frozen=True, slots=True)
class Column:
    """One column: values, the dimension they lie on, and how they are stored."""

    name: str
    values: NDArray[Any] | Sequence[str]
    dimension: str
    dtype: str
    chunk: int = 65_536
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def spec(self) -> ArraySpec:
        """Specify the array that holds this column."""
        return table_column(
            self.name, len(self.values), self.dimension, self.dtype, chunk=self.chunk, **dict(self.attributes)
        )


def write_columns(writer: PartitionWriter, columns: Iterable[Column]) -> None:
    """Write columns whole, in one partition."""
    for column in columns:
        writer.write(column.name, column.values)


def vocabulary_column(name: str, values: Sequence[str], dimension: str) -> Column:
    """Store repeated words as codes plus their vocabulary, sorted."""
    words, codes = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    return Column(
        name, codes.astype(np.uint16), dimension, "uint16", attributes={"vocabulary": [str(w) for w in words]}
    )


def ledger_columns(rows: Sequence[LedgerRow]) -> list[Column]:
    """Store the ledger: one row for each thing that was dropped or altered."""
    dimension = "ledger"
    return [
        vocabulary_column("ledger_item", [r.item for r in rows], dimension),
        Column("ledger_identifier", [r.identifier for r in rows], dimension, "string"),
        vocabulary_column("ledger_reason", [r.reason for r in rows], dimension),
        Column("ledger_detail", [r.detail for r in rows], dimension, "string"),
        Column("ledger_count", np.array([r.count for r in rows], dtype=np.int64), dimension, "int64"),
    ]
