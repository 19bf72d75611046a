"""``export h5ad``: a matrix as an AnnData file, written by HDF5 alone, a block of samples at a time.

The layout is AnnData's on-disk format (anndata.readthedocs.io, "On-disk format"): every element says ``encoding-type`` and
``encoding-version``; ``X`` is an array 0.2.0 or a csr_matrix 0.1.0, ``obs`` and ``var`` are dataframes 0.2.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import ConfigError
from splicestore.export.matrix import SUBSET_COLUMN, MatrixOptions, MatrixPart, MatrixReport, choose_part
from splicestore.schema import SUBSET_NAMES
from splicestore.storage.outputs import output_file
from splicestore.store import Store
from splicestore.tasks import Progress

_CHUNK_VALUES = 262_144
_CHUNK_ROWS = 64
_COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
"""The filter that every HDF5 library has; higher levels take several times as long for a few per cent."""


def export_h5ad(
    store: Store,
    name: str,
    out: str,
    options: MatrixOptions | None = None,
    *,
    sparse: bool = False,
    progress: Progress | None = None,
) -> MatrixReport:
    """Write counts or bins as an AnnData file.

    Parameters
    ----------
    name
        Of the counts or bins.
    out
        File to write.
    sparse
        ``X`` as CSR instead of dense.

    Raises
    ------
    ConfigError
        If h5py is not installed, the file is there already, or the selection is none.
    StoreNotFoundError
        If no matrix has the name.
    """
    options = options or MatrixOptions()
    h5py = _import_h5py(out)
    part = choose_part(store, name, options)
    with output_file(out, overwrite=options.overwrite) as path:
        with h5py.File(path, "w") as file:
            _mark(file, "anndata", "0.1.0")
            _write_frame(file, "obs", part.samples_to_pandas())
            _write_frame(file, "var", part.genes_to_pandas())
            write = _write_csr if sparse else _write_dense
            n_nonzero = write(file, part, progress)
            _write_rest(file, store, part)
        n_bytes = path.stat().st_size
    return MatrixReport(out, part.view.kind, len(part.rows), len(part.genes), n_nonzero, n_bytes, (Path(out).name,))


def _import_h5py(out: str) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(f"{out}: HDF5 needs h5py: pip install 'splicestore[expression]'") from error
    return h5py


def _mark(element: Any, kind: str, version: str) -> Any:
    element.attrs["encoding-type"], element.attrs["encoding-version"] = kind, version
    return element


# -- X -------------------------------------------------------------------------------------------------------------


def _blocks(part: MatrixPart, progress: Progress | None) -> Iterator[tuple[slice, NDArray[Any]]]:
    for mine, block in part.blocks(part.rows):
        yield mine, block
        if progress is not None:
            progress("samples", mine.stop, len(part.rows))


def _write_dense(file: Any, part: MatrixPart, progress: Progress | None) -> int:
    n_samples, n_genes = len(part.rows), len(part.genes)
    # Blocks are multiples of a chunk's rows but for very wide matrices: no chunk is compressed twice.
    chunk_rows = min(_CHUNK_ROWS, part.block_rows, n_samples)
    chunks = (chunk_rows, min(n_genes, max(1, _CHUNK_VALUES // chunk_rows)))
    matrix = file.create_dataset("X", (n_samples, n_genes), part.view.dtype, chunks=chunks, **_COMPRESSION)
    _mark(matrix, "array", "0.2.0")
    n_nonzero = 0
    for mine, block in _blocks(part, progress):
        matrix[mine] = block
        n_nonzero += int(np.count_nonzero(block))
    return n_nonzero


def _write_csr(file: Any, part: MatrixPart, progress: Progress | None) -> int:
    group = _mark(file.create_group("X"), "csr_matrix", "0.1.0")
    group.attrs["shape"] = np.array([len(part.rows), len(part.genes)], dtype=np.int64)
    ptr = np.zeros(len(part.rows) + 1, dtype=np.int64)
    arrays = {
        name: group.create_dataset(name, (0,), of, maxshape=(None,), chunks=(_CHUNK_VALUES,), **_COMPRESSION)
        for name, of in (("data", part.view.dtype), ("indices", np.int32))
    }
    n_nonzero = 0
    for mine, block in _blocks(part, progress):
        place = np.flatnonzero(block)
        for name, values in (("data", block.ravel()[place]), ("indices", (place % block.shape[1]).astype(np.int32))):
            arrays[name].resize((n_nonzero + len(place),))
            arrays[name][n_nonzero:] = values
        ptr[mine.start + 1 : mine.stop + 1] = n_nonzero + np.cumsum(np.count_nonzero(block, axis=1))
        n_nonzero += len(place)
    group["indptr"] = ptr
    return n_nonzero


# -- tables --------------------------------------------------------------------------------------------------------


def _write_frame(file: Any, name: str, table: pd.DataFrame) -> None:
    columns = [str(column) for column in table.columns if column != "id"]
    group = _mark(file.create_group(name), "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", columns, dtype=_text_type())
    _write_text(group, "_index", table["id"])
    for column in columns:
        values = table[column]
        if column == SUBSET_COLUMN:
            _write_categorical(group, column, values)
        elif values.dtype.kind in "iufb":
            group[column] = values.to_numpy()
            _mark(group[column], "array", "0.2.0")
        else:
            _write_text(group, column, values)


def _text_type() -> Any:
    import h5py

    return h5py.string_dtype()


def _write_text(group: Any, name: str, values: Any) -> None:
    words = [str(value) for value in values]
    group.create_dataset(name, data=np.array(words, dtype=object), dtype=_text_type())
    _mark(group[name], "string-array", "0.2.0")


def _write_categorical(group: Any, name: str, values: pd.Series[Any]) -> None:
    element = _mark(group.create_group(name), "categorical", "0.2.0")
    element.attrs["ordered"] = False
    known = [word for word in SUBSET_NAMES if (values == word).any()]
    _write_text(element, "categories", known)
    element["codes"] = values.map({word: code for code, word in enumerate(known)}).to_numpy(np.int8)
    _mark(element["codes"], "array", "0.2.0")


def _write_rest(file: Any, store: Store, part: MatrixPart) -> None:
    """Write the groups that AnnData expects, and in ``uns`` where the matrix is from."""
    for name in ("layers", "obsm", "obsp", "varm", "varp", "uns"):
        _mark(file.create_group(name), "dict", "0.1.0")
    origin = _mark(file["uns"].create_group("splicestore"), "dict", "0.1.0")
    facts: Mapping[str, str] = {
        "store": store.url, "kind": part.view.kind, "name": part.view.name, "generation": part.view.generation
    }  # fmt: skip
    for name, text in facts.items():
        origin.create_dataset(name, data=text, dtype=_text_type())
        _mark(origin[name], "string", "0.2.0")
