"""AnnData files (h5ad): a dense or sparse matrix of samples by genes, with a table on each side.

Read by HDF5 alone, as the format's specification spells it (anndata 0.7 on), so that a box can be read without the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError, close_names
from splicestore.readers.counts import Counts, CountsHead, as_counts, check_head
from splicestore.readers.hdf5 import Hdf5File

_SYMBOLS = ("symbol", "gene_symbol", "gene_symbols", "gene_name", "feature_name")
_BIOTYPES = ("biotype", "gene_type", "gene_biotype", "feature_biotype", "feature_type")
_COLUMN_GENES = 256


class H5adFile:
    """An open h5ad file.

    Parameters
    ----------
    file
        Closed with this one.
    layer
        ``X``, ``raw/X`` or the name of a layer.
    """

    def __init__(self, file: Hdf5File, *, layer: str = "X") -> None:
        self.url = url = file.url
        self._file = file
        self._matrix = self._file.get(layer if layer in ("X", "raw/X") else f"layers/{layer}")
        if self._matrix is None:
            layers = self._file.group("layers")
            known = ["X", *(["raw/X"] if self._file.get("raw/X") is not None else []), *(layers or ())]
            raise InputError(f"{url}: has no matrix {layer!r}; {close_names(layer, known)}")
        self._encoding = str(self._matrix.attrs.get("encoding-type", "array"))
        self.gene_step = 1
        if self._encoding == "csc_matrix":
            self.gene_step = _COLUMN_GENES
        genes = self._table("raw/var" if layer == "raw/X" else "var")
        samples = self._table("obs")
        self.head = check_head(
            url,
            CountsHead(
                sample_id=tuple(samples.pop("")),
                gene_id=tuple(genes[""]),
                gene_symbol=_first_of(genes, _SYMBOLS),
                gene_biotype=_first_of(genes, _BIOTYPES),
                sample_columns=samples,
            ),
        )
        shape = tuple(int(n) for n in (self._matrix.attrs["shape"] if self._is_sparse else self._matrix.shape))
        if shape != (len(self.head.sample_id), len(self.head.gene_id)):
            raise InputError(
                f"{url}: {layer} is {shape}, its tables have {len(self.head.sample_id)} x {len(self.head.gene_id)}"
            )

    @property
    def _is_sparse(self) -> bool:
        return self._encoding in ("csr_matrix", "csc_matrix")

    def read(self, samples: NDArray[np.int64], first_gene: int, last_gene: int) -> Counts:
        """Read a box."""
        names = [self.head.sample_id[i] for i in samples.tolist()], self.head.gene_id[first_gene:last_gene]
        if not len(samples):
            return np.zeros((0, last_gene - first_gene), dtype=np.uint32)
        if not self._is_sparse:
            rows = slice(int(samples[0]), int(samples[-1]) + 1)
            values = self._file.read(self._matrix, (rows, slice(first_gene, last_gene)))[samples - samples[0]]
        elif self._encoding == "csr_matrix":
            values = self._read_rows(samples)[:, first_gene:last_gene]
        else:
            values = self._read_columns(first_gene, last_gene)[samples]
        return as_counts(np.ascontiguousarray(values), self.url, *names)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_rows(self, samples: NDArray[np.int64]) -> NDArray[Any]:
        values = self._read_compressed(int(samples[0]), int(samples[-1]) + 1, len(self.head.gene_id))
        return np.asarray(values[samples - samples[0]])

    def _read_columns(self, first: int, last: int) -> NDArray[Any]:
        return self._read_compressed(first, last, len(self.head.sample_id)).T

    def _read_compressed(self, first: int, last: int, n_other: int) -> NDArray[Any]:
        """Read lines ``[first, last)`` of a compressed sparse matrix as a dense one."""
        ptr = self._file.read(self._matrix["indptr"], slice(first, last + 1)).astype(np.int64)
        span = slice(int(ptr[0]), int(ptr[-1]))
        index, data = (self._file.read(self._matrix[name], span) for name in ("indices", "data"))
        values = np.zeros((last - first, n_other), dtype=data.dtype)
        values[np.repeat(np.arange(last - first), np.diff(ptr)), index] = data
        return values

    def _table(self, name: str) -> dict[str, NDArray[Any]]:
        """Read a data frame: its index under the empty name, its columns by theirs."""
        group = self._file.group(name)
        if group is None:
            raise InputError(f"{self.url}: has no table {name}; is it a h5ad file of anndata 0.7 or newer?")
        index = str(group.attrs.get("_index", "_index"))
        if index not in group:
            raise InputError(f"{self.url}: table {name} has no index {index!r}; the file is damaged")
        columns = {"": np.array(self._file.words(group[index]), dtype=object)}
        for column, item in group.items():
            values = None if column in (index, "__categories") else self._column(item)
            if values is not None:
                columns[column] = values
        return columns

    def _column(self, item: Any) -> NDArray[Any] | None:
        encoding = str(item.attrs.get("encoding-type", ""))
        if encoding == "categorical":
            words = np.array([*self._file.words(item["categories"]), ""], dtype=object)
            return np.asarray(words[self._file.read(item["codes"]).astype(np.int64)])
        if getattr(item, "ndim", 0) == 1:
            return self._file.column(item)
        return None


def _first_of(table: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> tuple[str, ...]:
    found = next((table[name] for name in names if name in table), None)
    return ("",) * len(table[""]) if found is None else tuple(str(value) for value in found)
