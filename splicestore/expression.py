"""A published matrix of counts as lazy arrays and tables, pinned to one generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import InputError, close_names
from splicestore.kernels.naming import split_version
from splicestore.kernels.profiles import add_digests, name_keys
from splicestore.opened import OpenedGeneration, ledger_frame
from splicestore.schema import COUNTS_SHARD
from splicestore.storage import StoreRoot, quiet_zarr
from splicestore.storage.arrays import read_array

if TYPE_CHECKING:
    import xarray

SAMPLE_CHANGES = ("same", "added", "changed")
GENE_CHANGES = ("same", "added", "renamed")
REMOVED_SAMPLE_REASONS = ("not_in_files", "not_selected")
"""Words of a newer release about the matrix that it follows."""


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
        return read_array(self._opened.group, self.array_name, (samples, genes))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its values."""
        blocks = self._opened.blocks(self.array_name)
        return self._opened.group[self.array_name].dtype if blocks is None else blocks.dtype  # type: ignore[union-attr]

    @property
    def rows_at_once(self) -> int:
        """Samples that are compressed together."""
        blocks = self._opened.blocks(self.array_name)
        return int(self._opened.group[self.array_name].chunks[0] if blocks is None else blocks.rows_at_once)  # type: ignore[union-attr]

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
        gone, lost = (self._opened.group[f"removed_{item}_id"].shape[0] for item in ("sample", "gene"))  # type: ignore[union-attr]
        removed_samples, removed_genes = self.table("removed_sample", gone), self.table("removed_gene", lost)
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


def sample_tiles(
    counts: Expression, rows: NDArray[np.int64], genes: slice
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
    """Read some samples of some genes, a row of shards at a time: (counts, their rows)."""
    height = COUNTS_SHARD[0]
    for first in range(0, counts.n_samples, height):
        mine = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + height)]
        if len(mine):
            box = counts.read(slice(int(mine[0]), int(mine[-1]) + 1), genes)
            yield (box if len(box) == len(mine) else box[mine - mine[0]]), mine


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
