"""A published matrix of counts as lazy arrays and tables, pinned to one generation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError, close_names
from splicestore.kernels.naming import split_version
from splicestore.kernels.profiles import add_digests, name_keys
from splicestore.opened import OpenedGeneration, ledger_frame
from splicestore.schema import COUNTS_SHARD, SUBSET_NAMES
from splicestore.storage import StoreRoot, quiet_zarr
from splicestore.storage.arrays import read_array

if TYPE_CHECKING:
    import anndata
    import xarray

SAMPLE_CHANGES = ("same", "added", "changed")
GENE_CHANGES = ("same", "added", "renamed")
REMOVED_SAMPLE_REASONS = ("not_in_files", "not_selected")
"""Words of a newer release about the matrix that it follows."""

Selection: TypeAlias = "Sequence[str] | Sequence[int] | NDArray[Any] | slice | None"
"""Which samples or genes, in this order: ids, rows, a boolean for each, a slice; None is all."""


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

    def table(self, side: str) -> pd.DataFrame:
        """Columns of the genes or samples."""
        group = self._opened.group
        columns = {}
        for name in sorted(group.array_keys()):
            array: Any = group[name]
            # Not by length: the index of a CSR pair may happen to have a row's worth of values.
            if not name.startswith(f"{side}_") or array.metadata.dimension_names != (side,):
                continue
            values = read_array(group, name)
            vocabulary = array.attrs.get("vocabulary")
            if vocabulary is not None:
                values = np.array([str(word) for word in vocabulary], dtype=object)[values]
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

    def read_rows(self, first: int, last: int, out: NDArray[Any]) -> None:
        """Read samples ``[first, last)``, all genes, into ``out``; from several threads at once."""
        blocks = self._opened.blocks(self.array_name)
        if blocks is None:
            out[...] = self.read(slice(first, last))
        else:
            blocks.read_into(first, last, out)

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

    @cached_property
    def _gene_rows(self) -> dict[str, int]:
        """Rows of genes by id, else by symbol; names that stand twice are left out."""
        by_symbol, by_id = _unique_rows(self.gene_symbols), _unique_rows(self.gene_ids)
        return by_symbol | by_id

    def sample_rows(self, samples: Selection = None) -> NDArray[np.int64]:
        """Rows of some samples, in the order in which they are named: (selected,) int64.

        Raises
        ------
        ConfigError
            For a sample or row that there is not.
        """
        return _select(samples, self.n_samples, lambda: self._sample_rows, f"{self.kind} {self.name}", "sample")

    def gene_rows(self, genes: Selection = None) -> NDArray[np.int64]:
        """Columns of some genes, in the order in which they are named: (selected,) int64. Names are ids, else symbols.

        Raises
        ------
        ConfigError
            For a gene or column that there is not, or a name that several have.
        """
        return _select(genes, self.n_genes, lambda: self._gene_rows, f"{self.kind} {self.name}", "gene")

    @property
    def _array(self) -> Any:
        return self._opened.group[self.array_name]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a value."""
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Samples and genes that are read together."""
        height, width = self._array.chunks
        return int(height), int(width)

    @property
    def rows_at_once(self) -> int:
        """Samples that are compressed together."""
        return self.chunk_shape[0]

    def pick(self, rows: NDArray[np.int64], genes: NDArray[np.int64]) -> NDArray[Any]:
        """Read some samples and genes, chunk by chunk, in their order: (sample, gene).

        Each chunk is read once; the result and one row of chunks are held.
        """
        height, width = self.chunk_shape
        bands = [np.flatnonzero(np.isin(genes // width, band)) for band in _runs(np.unique(genes // width))]
        order = np.argsort(rows, kind="stable")
        out = np.empty((len(rows), len(genes)), dtype=self.dtype)
        for piece in np.split(order, np.flatnonzero(np.diff(rows[order] // height)) + 1):
            for band in bands:
                if len(piece) and len(band):
                    out[_cross(piece, band)] = self._read_box(rows[piece], genes[band])
        return out

    def _read_box(self, rows: NDArray[np.int64], genes: NDArray[np.int64]) -> NDArray[Any]:
        first, left = int(rows.min()), int(genes.min())
        box = self.read(slice(first, int(rows.max()) + 1), slice(left, int(genes.max()) + 1))
        return np.asarray(box[_cross(rows - first, genes - left)])

    def to_xarray(self) -> xarray.Dataset:
        """Open the matrix lazily as xarray, chunked as it is stored.

        ``sample`` and ``gene`` are labelled by ids, and the columns of both tables are coordinates.

        Examples
        --------
        ::

            dataset = store.expression["archs4"].to_xarray()
            dataset.counts.sel(sample=["GSM1", "GSM2"])
            dataset.counts.isel(gene=dataset.gene_symbol.isin(["TP53", "MYC"]).values)
        """
        dataset = super().to_xarray()
        sides = [name for name, array in dataset.items() if array.dims in (("sample",), ("gene",))]
        return dataset.set_coords(sides).assign_coords(sample=self.sample_ids, gene=self.gene_ids)

    def to_anndata(self, samples: Selection = None, genes: Selection = None, *, lazy: bool = True) -> anndata.AnnData:
        """Open a selection as AnnData: ``X`` (sample, gene), ``obs`` and ``var`` the tables of both sides.

        Parameters
        ----------
        samples, genes
            Ids, rows, a boolean for each, a slice, or None for all; their order is kept. Genes may be named by symbol.
        lazy
            ``X`` is a dask array over the stored chunks; False reads it.

        Raises
        ------
        ConfigError
            If anndata is not installed, or a sample or gene is not in the matrix.
        """
        anndata_type = _anndata_type()
        rows, columns = self.sample_rows(samples), self.gene_rows(genes)
        matrix = self._lazy_matrix(rows, columns) if lazy else self.pick(rows, columns)
        origin = {"store": self._root.url, "kind": self.kind, "name": self.name, "generation": self.generation}
        return anndata_type(
            X=matrix,
            obs=self.samples_to_pandas().set_index("id").iloc[rows],
            var=self.genes_to_pandas().set_index("id").iloc[columns],
            uns={"splicestore": origin},
        )

    def _lazy_matrix(self, rows: NDArray[np.int64], genes: NDArray[np.int64]) -> Any:
        return Table.to_xarray(self)[self.array_name].data[as_slice(rows)][:, as_slice(genes)]

    def samples_to_pandas(self) -> pd.DataFrame:
        """Table of the samples: whatever their files say of them, and totals."""
        return self.table("sample").drop(columns="digest", errors="ignore")

    def genes_to_pandas(self) -> pd.DataFrame:
        """Table of the genes."""
        return self.table("gene")


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

    def samples_in(self, subset: str) -> list[str]:
        """Ids of the samples of a subset.

        Raises
        ------
        ConfigError
            For a subset that there is not.
        """
        if subset not in SUBSET_NAMES:
            raise ConfigError(f"split {self.name} has no subset {subset!r}; {close_names(subset, SUBSET_NAMES[:3])}")
        code = SUBSET_NAMES.index(subset)
        return [str(name) for name in self.array("sample_id")[self.sample_subset == code]]

    def to_pandas(self) -> pd.DataFrame:
        """Table of the samples: id, component, subset."""
        return self.table("sample")


class Expression(SampleGeneMatrix):
    """Raw counts of samples by genes."""

    kind = "expression"
    array_name = "counts"

    @property
    def expression(self) -> tuple[str, str]:
        """Its own name and generation, as views that are made of it have it."""
        return self.name, self.generation

    @cached_property
    def sample_total(self) -> NDArray[np.int64]:
        """(sample,) counts over all genes."""
        return self.array("sample_total")

    @cached_property
    def stable_gene_ids(self) -> list[str]:
        """Ids without the versions that matrices of encoder 1 have in them."""
        return self.gene_ids if self.has("gene_version") else [split_version(gene)[0] for gene in self.gene_ids]

    @cached_property
    def gene_versions(self) -> NDArray[np.int64]:
        """(gene,) versions of the ids, 0 where there is none."""
        if self.has("gene_version"):
            return self.array("gene_version").astype(np.int64)
        return np.array([split_version(gene)[1] for gene in self.gene_ids], dtype=np.int64)

    def sample_digests(self) -> NDArray[np.uint64]:
        """Digests of the counts of every sample over all genes, 0 without counts: (sample,) uint64."""
        if self.has("sample_digest"):
            return self.array("sample_digest")
        return count_digests(self, np.ones(self.n_genes, dtype=bool))

    @property
    def release(self) -> Mapping[str, Any] | None:
        """What came, went and changed since the matrix that this is a newer release of, as numbers; None if it is of none."""
        found: Mapping[str, Any] | None = self.attributes.get("release")
        return found

    def changes_to_pandas(self) -> pd.DataFrame:
        """Table of the samples and genes that came, went or changed since that matrix: item, id, change, before, after.

        Raises
        ------
        InputError
            If this is no release of another matrix.
        """
        if self.release is None:
            raise InputError(f"{self!r} is no release of another; `ingest expression --release-of OLD` makes one")
        samples, genes = self.samples_to_pandas(), self.genes_to_pandas()
        removed_samples, removed_genes = self.table("removed_sample"), self.table("removed_gene")
        parts = [
            samples[samples["change"] != "same"].assign(item="sample", before="", after=""),
            removed_samples.assign(item="sample", change="removed", before=removed_samples["reason"], after=""),
            genes[genes["change"] != "same"]
            .rename(columns={"symbol_before": "before", "symbol": "after"})
            .assign(item="gene"),
            removed_genes.rename(columns={"symbol": "before"}).assign(item="gene", change="removed", after=""),
        ]
        columns = ["item", "id", "change", "before", "after"]
        return pd.concat([part[columns].astype(object) for part in parts], ignore_index=True)

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


def as_slice(index: NDArray[np.integer]) -> Any:
    """Return a slice where indices follow one another: numpy copies it much faster."""
    follows = len(index) > 0 and np.array_equal(index, np.arange(index[0], index[0] + len(index)))
    return slice(int(index[0]), int(index[0]) + len(index)) if follows else index


def _cross(rows: NDArray[np.integer], columns: NDArray[np.integer]) -> Any:
    """Index every one of some rows with every one of some columns."""
    sides = as_slice(rows), as_slice(columns)
    return sides if any(isinstance(side, slice) for side in sides) else np.ix_(rows, columns)


def _runs(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut ascending numbers where one is left out."""
    return np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)


def _unique_rows(names: Sequence[str]) -> dict[str, int]:
    """Row of each name; -1 where it stands twice."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        rows[name] = -1 if name in rows else row
    return rows


def _select(
    selection: Selection, n: int, rows_of: Callable[[], Mapping[str, int]], where: str, what: str
) -> NDArray[np.int64]:
    everything = np.arange(n, dtype=np.int64)
    if selection is None:
        return everything
    if isinstance(selection, slice):
        return everything[selection]
    chosen = np.asarray(selection)
    if chosen.dtype.kind == "b":
        if chosen.shape != (n,):
            raise ConfigError(f"{where}: {len(chosen):,} booleans for {n:,} {what}s; give one for each")
        return np.flatnonzero(chosen)
    if chosen.dtype.kind in "iu" or not len(chosen):
        if ((chosen < 0) | (chosen >= n)).any():
            raise ConfigError(f"{where}: {what} rows lie in [0, {n:,}), got {chosen.min()} to {chosen.max()}")
        return chosen.astype(np.int64)
    return _named_rows([str(name) for name in selection], rows_of(), where, what)


def _named_rows(names: Sequence[str], rows: Mapping[str, int], where: str, what: str) -> NDArray[np.int64]:
    found = np.array([rows.get(name, -2) for name in names], dtype=np.int64)
    wrong = [name for name, row in zip(names, found.tolist(), strict=True) if row < 0]
    if wrong and rows.get(wrong[0]) == -1:
        raise ConfigError(f"{where}: several {what}s are called {wrong[0]!r}; select them by their rows")
    if wrong:
        raise ConfigError(
            f"{where} has no {what} {wrong[0]!r} ({len(wrong):,} of {len(names):,} are not there); {close_names(wrong[0], rows)}"
        )
    return found


def _anndata_type() -> Any:
    try:
        from anndata import AnnData
    except ImportError as error:
        raise ConfigError(
            "AnnData views need anndata: pip install 'splicestore[anndata]', or, on Python 3.11, pip install anndata 'pandas<3'"
        ) from error
    return AnnData


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


def count_digests(counts: Expression, is_wanted: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Digest the counts of every sample over some genes, a tile at a time: (sample,) uint64."""
    height, width = COUNTS_SHARD
    found, key = np.zeros(counts.n_samples, dtype=np.uint64), name_keys(counts.stable_gene_ids)
    for band in range(0, counts.n_genes, width):
        wanted = np.flatnonzero(is_wanted[band : band + width])
        for first in range(0, counts.n_samples if len(wanted) else 0, height):
            rows = slice(first, min(counts.n_samples, first + height))
            box = counts.read(rows, slice(band, min(counts.n_genes, band + width)))[:, wanted]
            add_digests(box, key[band + wanted], found[rows])
    return found
