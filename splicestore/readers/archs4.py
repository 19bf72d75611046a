"""ARCHS4 files: counts of genes by samples in HDF5, in chunks of 2,000 genes of one sample.

Key layouts: ``meta/genes/*`` and ``meta/samples/*`` as groups of columns (``symbol`` or ``gene_symbol``, ``ensembl_gene``,
``biotype``), and the older flat one with ``meta/genes`` and ``meta/Sample_*``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.readers.counts import Counts, CountsHead, as_counts, check_head
from splicestore.readers.hdf5 import Hdf5File

EXPRESSION = "data/expression"
_SYMBOLS = ("meta/genes/symbol", "meta/genes/gene_symbol", "meta/genes/genes", "meta/gene_symbol", "meta/genes")
_IDS = ("meta/genes/ensembl_gene", "meta/genes/ensembl_gene_id", "meta/genes/ensembl_id", "meta/gene_ensembl")
_BIOTYPES = ("meta/genes/biotype", "meta/genes/gene_biotype")
_SAMPLES = ("geo_accession", "sample", "Sample_geo_accession")
_OLD_PREFIX = "Sample_"


class Archs4File:
    """An open ARCHS4 file.

    Parameters
    ----------
    file
        Closed with this one.
    """

    def __init__(self, file: Hdf5File) -> None:
        self.url = url = file.url
        self._file = file
        self._counts = self._file.dataset(EXPRESSION)
        if self._counts is None or self._counts.ndim != 2:
            raise InputError(f"{url}: has no matrix {EXPRESSION}; is it an ARCHS4 gene file?")
        self.gene_step = int((self._counts.chunks or (1, 1))[0])
        self.head = check_head(url, self._read_head())
        shape = (len(self.head.gene_id), len(self.head.sample_id))
        if self._counts.shape != shape:
            raise InputError(
                f"{url}: {EXPRESSION} has {self._counts.shape[0]:,} genes x {self._counts.shape[1]:,} samples, the tables have "
                f"{shape[0]:,} x {shape[1]:,}; the file is damaged"
            )

    def read(self, samples: NDArray[np.int64], first_gene: int, last_gene: int) -> Counts:
        """Read a box; samples that follow one another in one piece."""
        names = (self.head.sample_id, self.head.gene_id[first_gene:last_gene])
        if not len(samples):
            return np.zeros((0, last_gene - first_gene), dtype=np.uint32)
        first, last = int(samples[0]), int(samples[-1]) + 1
        columns: Any = slice(first, last) if last - first == len(samples) else samples
        values = self._file.read(self._counts, (slice(first_gene, last_gene), columns))
        return as_counts(np.ascontiguousarray(values.T), self.url, [names[0][i] for i in samples.tolist()], names[1])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_head(self) -> CountsHead:
        samples = self._sample_columns()
        named = next((name for name in _SAMPLES if name in samples), None)
        if named is None:
            raise InputError(f"{self.url}: no sample ids; one of {', '.join(_SAMPLES)} is needed in its sample table")
        symbols = self._words(_SYMBOLS)
        ids = self._words(_IDS) or symbols
        if ids is None:
            raise InputError(f"{self.url}: no gene ids; one of {', '.join((*_IDS, *_SYMBOLS))} is needed")
        if symbols is not None and len(symbols) == len(ids):
            ids = [gene or symbol for gene, symbol in zip(ids, symbols, strict=True)]
        return CountsHead(
            sample_id=tuple(str(value) for value in samples[named]),
            gene_id=tuple(ids),
            gene_symbol=tuple(symbols or [""] * len(ids)),
            gene_biotype=tuple(self._words(_BIOTYPES) or [""] * len(ids)),
            sample_columns={name.removeprefix(_OLD_PREFIX): column for name, column in samples.items()},
        )

    def _sample_columns(self) -> dict[str, NDArray[Any]]:
        group = self._file.group("meta/samples")
        if group is not None:
            return {name: self._file.column(item) for name, item in group.items() if getattr(item, "ndim", 0) == 1}
        meta = self._file.group("meta")
        items = meta.items() if meta is not None else ()
        return {name: self._file.column(item) for name, item in items if name.startswith(_OLD_PREFIX)}

    def _words(self, places: tuple[str, ...]) -> list[str] | None:
        found = next((dataset for place in places if (dataset := self._file.dataset(place)) is not None), None)
        return None if found is None else self._file.words(found)
