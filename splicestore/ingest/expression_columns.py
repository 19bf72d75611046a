"""Tables beside a matrix of counts: of its genes, samples, GEO series, and of what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.ingest.count_files import CountFile, GeneRows
from splicestore.ingest.sample_selection import SERIES_COLUMN, split_series
from splicestore.schema import LedgerRow
from splicestore.storage.columns import Column, ledger_columns, vocabulary_column


def table_columns(
    files: Sequence[CountFile], genes: GeneRows, ours: Sequence[str], more: Sequence[Column] = ()
) -> list[Column]:
    """Spell all tables of a matrix as columns.

    Parameters
    ----------
    ours
        Arrays of samples that are made of the counts: a column of a file that has such a name is left out, by the ledger.
    more
        Columns about something else.
    """
    samples = [name for file in files for name in file.sample_ids]
    numbers = np.repeat(np.arange(len(files)), [len(file.rows) for file in files]).astype(np.uint16)
    columns = [
        Column("gene_id", genes.gene_id, "gene", "string"),
        Column("gene_version", genes.version, "gene", "uint16"),
        Column("gene_symbol", genes.symbol, "gene", "string"),
        vocabulary_column("gene_biotype", genes.biotype, "gene"),
        Column("gene_is_repeated", genes.symbol_is_repeated() | genes.id_is_repeated(), "gene", "bool"),
        Column("sample_id", samples, "sample", "string"),
        Column("sample_file", numbers, "sample", "uint16"),
        Column("file_has_gene", _file_has_gene(files, len(genes)).reshape(-1), "file_gene", "bool"),
        *more,
    ]
    joined = _joined_columns(files)
    columns += _series_columns(joined.get(SERIES_COLUMN))
    taken, refused = {*ours, *(column.name for column in columns)}, []
    for name, values in joined.items():
        if f"sample_{name}" in taken:
            refused.append(LedgerRow("sample_column", name, "name_taken", f"sample_{name} means something else here"))
        else:
            columns.append(_sample_column(f"sample_{name}", values))
    return columns + ledger_columns([*_ledger(files), *genes.ledger, *refused])


def _ledger(files: Sequence[CountFile]) -> list[LedgerRow]:
    return [row for file in files for row in file.head.ledger] + [
        LedgerRow("sample", file.url, "not_selected", "", len(file.head.sample_id) - len(file.rows))
        for file in files
        if len(file.rows) < len(file.head.sample_id)
    ]


def _file_has_gene(files: Sequence[CountFile], n_genes: int) -> NDArray[np.bool_]:
    return np.stack([np.ones(n_genes, dtype=bool) if f.gene_of is None else f.gene_of >= 0 for f in files])


def _joined_columns(files: Sequence[CountFile]) -> dict[str, NDArray[Any]]:
    """Columns of the sample tables, of all files; empty or NaN where a file lacks one."""
    names = dict.fromkeys(name for file in files for name in file.head.sample_columns)
    joined = {}
    for name in names:
        found = [file.head.sample_columns.get(name) for file in files]
        is_number = all(column is None or column.dtype.kind == "f" for column in found)
        filler: Any = np.nan if is_number else ""
        parts = [
            np.full(len(file.rows), filler, dtype=np.float64 if is_number else object)
            if column is None
            else column[file.rows]
            for file, column in zip(files, found, strict=True)
        ]
        joined[name] = np.concatenate([part.astype(np.float64 if is_number else object) for part in parts])
    return joined


def _sample_column(name: str, values: NDArray[Any]) -> Column:
    if values.dtype.kind == "f":
        return Column(name, values, "sample", "float64")
    return Column(name, [str(value) for value in values], "sample", "string")


def _series_columns(values: NDArray[Any] | None) -> list[Column]:
    """GEO series of every sample, as lists."""
    lists = [] if values is None else [split_series(str(value)) for value in values]
    names = sorted({name for of in lists for name in of})
    row = {name: i for i, name in enumerate(names)}
    ptr = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    index = np.array([row[name] for of in lists for name in of], dtype=np.int32)
    return [
        Column("series_id", names, "series", "string"),
        Column("sample_series_ptr", ptr, "sample_edge", "int64"),
        Column("sample_series_index", index, "sample_series", "int32"),
    ]
