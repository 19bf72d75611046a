"""A published matrix of counts as lazy arrays and tables, pinned to one generation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import InputError, close_names
from splicestore.opened import OpenedGeneration, ledger_frame
from splicestore.schema import COUNTS_SHARD
from splicestore.storage import StoreRoot, quiet_zarr
from splicestore.storage.arrays import read_array

if TYPE_CHECKING:
    import xarray


Item = TypeVar("Item")
Value = TypeVar("Value")
TILES_AHEAD = 2
"""Tiles that are read while one is worked on."""


class Table:
    """One generation of a named group with tables of genes or samples."""

    kind: str

    def __init__(self, root: StoreRoot, name: str, generation: str) -> None:
        self._root, self.name, self.generation = root, name, generation

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._root, self.name, self.generation)

    @property
    def path(self) -> str:
        """Key of the generation in its store."""
        return f"{self.kind}/{self.name}/{self.generation}"

    @cached_property
    def _opened(self) -> OpenedGeneration:
        return OpenedGeneration(self._root, self.path)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Options, parents, sizes."""
        return self._opened.attributes

    def array(self, name: str) -> NDArray[Any]:
        """Read one column whole."""
        return self._opened.read_whole(name)

    def pinned(self, kind: str) -> tuple[str, str]:
        """Name and generation of the one group of a kind that this was made from."""
        ((name, generation),) = self.attributes["pins"][kind].items()
        return str(name), str(generation)

    @cached_property
    def gene_ids(self) -> list[str]:
        """Genes as their files spell them."""
        return [str(name) for name in self.array("gene_id")]

    @cached_property
    def gene_symbols(self) -> list[str]:
        """Symbols of the genes, empty where a file has none."""
        return [str(name) for name in self.array("gene_symbol")]

    def has(self, name: str) -> bool:
        """Whether there is an array of that name."""
        return name in self._opened.group

    def table(self, side: str, n_rows: int) -> pd.DataFrame:
        """Columns of the genes or samples."""
        group = self._opened.group
        columns = {}
        for name in sorted(group.array_keys()):
            if not name.startswith(f"{side}_"):
                continue
            values = read_array(group, name)
            if values.shape != (n_rows,):
                continue
            vocabulary = group[name].attrs.get("vocabulary")
            if vocabulary is not None:
                values = np.array([str(word) for word in vocabulary], dtype=object)[values]  # type: ignore[type-var, union-attr]
            elif values.dtype.kind not in "iufb":
                values = np.array([str(value) for value in values], dtype=object)
            columns[name.removeprefix(f"{side}_")] = values
        first = {"id": columns.pop("id")}
        return pd.DataFrame({**first, **columns})

    @property
    def ledger(self) -> pd.DataFrame:
        """Everything that was left out: item, identifier, reason, detail, count."""
        return ledger_frame(self._opened.group)

    def to_xarray(self) -> xarray.Dataset:
        """Open the generation lazily as plain xarray, chunked as it is stored."""
        import xarray

        with quiet_zarr():
            dataset: xarray.Dataset = xarray.open_zarr(self._root.zarr_store(self.path, read_only=True), zarr_format=3)
        return dataset


class SampleGeneMatrix(Table):
    """A matrix of (sample, gene) with a table on each side: what counts and bins have in common."""

    array_name: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, generation {self.generation}, {self.n_samples:,} samples, {self.n_genes:,} genes)"

    @cached_property
    def sample_ids(self) -> list[str]:
        """Samples in the order of their files."""
        return [str(name) for name in self.array("sample_id")]

    @property
    def n_samples(self) -> int:
        """Rows."""
        return int(self.attributes["n_samples"])

    @property
    def n_genes(self) -> int:
        """Columns."""
        return int(self.attributes["n_genes"])

    def read(self, samples: slice, genes: slice = slice(None)) -> NDArray[Any]:
        """Read a box: (sample, gene)."""
        (first, last, step), (left, right, stride) = samples.indices(self.n_samples), genes.indices(self.n_genes)
        if (step, stride) != (1, 1):
            return read_array(self._opened.group, self.array_name, (samples, genes))
        return self._opened.read(self.array_name, first, max(first, last), (left, max(left, right)))

    def sample_row(self, sample: str) -> int:
        """Row of a sample.

        Raises
        ------
        InputError
            If there is none of that name.
        """
        if sample not in self._sample_rows:
            raise InputError(
                f"{self.kind} {self.name} has no sample {sample!r}; {close_names(sample, self.sample_ids)}"
            )
        return self._sample_rows[sample]

    @cached_property
    def _sample_rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.sample_ids)}

    def samples_to_pandas(self) -> pd.DataFrame:
        """Table of the samples: whatever their files say of them, and totals."""
        return self.table("sample", self.n_samples)

    def genes_to_pandas(self) -> pd.DataFrame:
        """Table of the genes."""
        return self.table("gene", self.n_genes)


class SampleSplit(Table):
    """Subsets of the samples of a matrix of counts."""

    kind = "sample_splits"

    def __repr__(self) -> str:
        return f"SampleSplit({self.name!r}, generation {self.generation}, {self.attributes['n_samples']:,} samples)"

    @property
    def expression(self) -> tuple[str, str]:
        """Name and generation of the counts."""
        return self.pinned("expression")

    @cached_property
    def sample_subset(self) -> NDArray[np.uint8]:
        """(sample,) 0 train, 1 val, 2 test."""
        return self.array("sample_subset")

    def to_pandas(self) -> pd.DataFrame:
        """Table of the samples: id, component, subset."""
        return self.table("sample", int(self.attributes["n_samples"]))


class Expression(SampleGeneMatrix):
    """Raw counts of samples by genes."""

    kind = "expression"
    array_name = "counts"

    @cached_property
    def sample_total(self) -> NDArray[np.int64]:
        """(sample,) counts over all genes."""
        return self.array("sample_total")

    def measured(self, samples: slice, genes: slice = slice(None)) -> NDArray[np.bool_]:
        """(sample, gene) whether the sample's file has the gene at all."""
        return np.asarray(self._file_has_gene[self._sample_file[samples]][:, genes])

    @cached_property
    def is_measured_throughout(self) -> bool:
        """Whether every file has every gene."""
        return bool(self._file_has_gene.all())

    def count_measured(self, rows: NDArray[np.int64], genes: slice) -> NDArray[np.int64]:
        """How many of some samples are of files that have each gene: (gene,)."""
        per_file = np.bincount(self._sample_file[rows], minlength=len(self._file_has_gene))
        return np.asarray(per_file @ self._file_has_gene[:, genes].astype(np.int64))

    @cached_property
    def _sample_file(self) -> NDArray[np.uint16]:
        return self.array("sample_file")

    @cached_property
    def _file_has_gene(self) -> NDArray[np.bool_]:
        return self.array("file_has_gene").reshape(-1, self.n_genes).astype(bool)


def sample_tiles(
    counts: Expression, rows: NDArray[np.int64], genes: slice
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
    """Read some samples of some genes, a row of shards at a time, the next ones meanwhile: (counts, their rows)."""

    def read(mine: NDArray[np.int64]) -> NDArray[np.uint32]:
        box = counts.read(slice(int(mine[0]), int(mine[-1]) + 1), genes)
        return box if len(box) == len(mine) else box[mine - mine[0]]

    bounds = np.searchsorted(rows, np.arange(0, counts.n_samples + COUNTS_SHARD[0], COUNTS_SHARD[0]))
    parts = [rows[first:last] for first, last in pairwise(bounds.tolist()) if first < last]
    return zip(read_ahead(read, parts, TILES_AHEAD), parts, strict=True)


def read_ahead(read: Callable[[Item], Value], items: Iterable[Item], n_ahead: int) -> Iterator[Value]:
    """Read items in order; while one is worked on, up to ``n_ahead`` more are read by threads."""
    with ThreadPoolExecutor(n_ahead) as threads:
        reading: deque[Future[Value]] = deque()
        for item in items:
            reading.append(threads.submit(read, item))
            if len(reading) > n_ahead:
                yield reading.popleft().result()
        while reading:
            yield reading.popleft().result()
