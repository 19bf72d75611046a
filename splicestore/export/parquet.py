"""``export parquet``: a matrix as Parquet files, a row a sample, written a block of samples at a time.

``OUT/data/<subset>-00000-of-00003.parquet`` (``samples-...`` without a split): the columns of the sample table under the names they
have in the store (``sample_id`` first), and ``counts`` or ``bins``, a list with a value for every gene · ``OUT/genes.parquet``: the
table of the genes in the order of the lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import ConfigError, SpliceStoreError, TransferError
from splicestore.export.matrix import MatrixOptions, MatrixPart, MatrixReport, choose_part
from splicestore.schema import SUBSET_NAMES
from splicestore.storage.outputs import OutputFolder, output_folder
from splicestore.store import Store
from splicestore.tasks import Progress

FILE_BYTES = 512 * 1024 * 1024
"""Values of one file, decoded: readers share a data set among workers by files."""
_COMPRESSION = "zstd(3)"
_TYPES = {"i": "int64", "u": "uint64", "f": "float64", "b": "bool"}


def export_parquet(
    store: Store,
    name: str,
    out: str,
    options: MatrixOptions | None = None,
    *,
    file_bytes: int = FILE_BYTES,
    progress: Progress | None = None,
) -> MatrixReport:
    """Write counts or bins as a folder of Parquet files; with a split a file holds samples of one subset.

    Parameters
    ----------
    name
        Of the counts or bins.
    out
        Folder to write.
    file_bytes
        Values of one file, decoded.

    Raises
    ------
    ConfigError
        If arro3 is not installed, the folder is there already, or the selection is none.
    StoreNotFoundError
        If no matrix has the name.
    """
    options = options or MatrixOptions()
    _import_arro3(out)
    part = choose_part(store, name, options)
    written = _Written(len(part.rows), progress)
    with output_folder(out, overwrite=options.overwrite) as output:
        samples = part.samples_to_pandas().add_prefix("sample_")
        for subset, mine in _by_subset(part):
            files = _cut_in_files(part, mine, file_bytes)
            for number, some in enumerate(files):
                file = f"data/{subset}-{number:05d}-of-{len(files):05d}.parquet"
                _write_samples(output, file, part, samples.iloc[some], part.rows[some], written)
        _write_table(output, "genes.parquet", part.genes_to_pandas().add_prefix("gene_"), written)
    sizes = part.view.kind, len(part.rows), len(part.genes)
    return MatrixReport(out, *sizes, written.n_nonzero, written.n_bytes, tuple(written.files))


def _import_arro3(out: str) -> None:
    try:
        import arro3.core
        import arro3.io  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{out}: Parquet needs arro3: pip install 'splicestore[parquet]'") from error


class _Written:
    """What was written so far."""

    def __init__(self, n_samples: int, progress: Progress | None) -> None:
        self.files: list[str] = []
        self.failure: SpliceStoreError | None = None
        self.n_nonzero = self.n_bytes = self._n_done = 0
        self._n_samples, self._progress = n_samples, progress

    def add_block(self, block: NDArray[Any]) -> None:
        """Count the values of some samples."""
        self.n_nonzero += int(np.count_nonzero(block))
        self._n_done += len(block)
        if self._progress is not None:
            self._progress("samples", self._n_done, self._n_samples)


def _by_subset(part: MatrixPart) -> list[tuple[str, NDArray[np.int64]]]:
    """Which of the part's samples go to the files of each subset."""
    if part.subset is None:
        return [("samples", np.arange(len(part.rows)))]
    code = part.subset[part.rows]
    found = [(name, np.flatnonzero(code == number)) for number, name in enumerate(SUBSET_NAMES)]
    return [(name, mine) for name, mine in found if len(mine)]


def _cut_in_files(part: MatrixPart, mine: NDArray[np.int64], file_bytes: int) -> list[NDArray[np.int64]]:
    height = part.block_rows
    fitting = max(1, file_bytes // (part.view.dtype.itemsize * len(part.genes)) // height) * height
    return [mine[first : first + fitting] for first in range(0, len(mine), fitting)]


def _write_samples(
    output: OutputFolder,
    file: str,
    part: MatrixPart,
    samples: pd.DataFrame,
    rows: NDArray[np.int64],
    written: _Written,
) -> None:
    """Write one file: a row group for every block of samples."""
    from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema, fixed_size_list_array

    values = part.view.array_name
    item = Field("item", getattr(DataType, part.view.dtype.name)(), nullable=False)
    lists = Field(values, DataType.list(item, len(part.genes)), nullable=False)
    schema = Schema([*_fields(samples), lists])

    def batches() -> Iterator[Any]:
        try:
            for mine, block in part.blocks(rows):
                written.add_block(block)
                flat = Array.from_numpy(np.ascontiguousarray(block).reshape(-1))
                of_genes = fixed_size_list_array(flat, len(part.genes), type=lists)
                yield RecordBatch.from_arrays([*_arrays(samples.iloc[mine]), of_genes], schema=schema)
        except SpliceStoreError as error:
            # It comes out of Arrow's stream as text.
            written.failure = error
            raise

    _write(output, file, RecordBatchReader.from_batches(schema, batches()), part.block_rows, written)


def _write_table(output: OutputFolder, file: str, table: pd.DataFrame, written: _Written) -> None:
    from arro3.core import RecordBatch, Schema

    schema = Schema(_fields(table))
    _write(output, file, RecordBatch.from_arrays(_arrays(table), schema=schema), len(table), written)


def _write(output: OutputFolder, file: str, data: Any, group_rows: int, written: _Written) -> None:
    from arro3.io import write_parquet

    with output.path(file) as path:
        try:
            # Counts and bins have too many values for a dictionary: it would be built and thrown away.
            write_parquet(data, path, compression=_COMPRESSION, max_row_group_size=group_rows, dictionary_enabled=False)
        except Exception as error:
            if written.failure is not None:
                raise written.failure from error
            raise TransferError(f"{path}: writing failed: {error}") from error
        written.n_bytes += path.stat().st_size
    written.files.append(file)


def _fields(table: pd.DataFrame) -> list[Any]:
    from arro3.core import DataType, Field

    return [
        Field(str(name), getattr(DataType, _TYPES.get(column.dtype.kind, "string"))(), nullable=False)
        for name, column in table.items()
    ]


def _arrays(table: pd.DataFrame) -> list[Any]:
    from arro3.core import Array

    arrays = []
    for field, (_, column) in zip(_fields(table), table.items(), strict=True):
        values: Any = column.to_list() if column.dtype.kind in "iufb" else [str(value) for value in column]
        arrays.append(Array(values, type=field))
    return arrays
