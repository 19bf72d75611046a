"""Matrices of counts, samples by genes, whatever file they come in: what it holds, and boxes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.schema import LedgerRow

Int64 = NDArray[np.int64]
Counts = NDArray[np.uint32]
"""(sample, gene)."""

MAX_COUNT = 2**32 - 1
_SUMMARY_ROWS = {"no_feature", "ambiguous", "too_low_aQual", "not_aligned", "alignment_not_unique"}


def is_summary_row(name: str) -> bool:
    """Whether a row of a table is htseq-count's about reads, not a gene: ``__no_feature``, in old versions ``no_feature``."""
    return name.startswith("__") or name in _SUMMARY_ROWS


@dataclass(frozen=True, slots=True)
class CountsHead:
    """What a file says besides its counts."""

    sample_id: tuple[str, ...]
    gene_id: tuple[str, ...]
    """As the file spells them; symbols where it has nothing else."""
    gene_symbol: tuple[str, ...]
    """Empty strings where the file has none."""
    gene_biotype: tuple[str, ...]
    sample_columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """(sample,) columns of text (object) or float64."""
    ledger: tuple[LedgerRow, ...] = ()
    """Rows of the file that are no genes."""


class CountsSource(Protocol):
    """An open file of counts."""

    @property
    def url(self) -> str:
        """Where it is."""
        ...

    @property
    def head(self) -> CountsHead:
        """Names and tables."""
        ...

    @property
    def gene_step(self) -> int:
        """Genes that cost as much to read as one of them: boxes should begin and end at multiples."""
        ...

    def read(self, samples: Int64, first_gene: int, last_gene: int) -> Counts:
        """Read some samples (rows, ascending) of genes ``[first_gene, last_gene)``."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def check_head(url: str, head: CountsHead) -> CountsHead:
    """Return a head whose tables fit together.

    Raises
    ------
    InputError
        For no samples, no genes, columns of other lengths, a sample twice, an empty name.
    """
    n_genes, n_samples = len(head.gene_id), len(head.sample_id)
    if not n_genes or not n_samples:
        raise InputError(f"{url}: holds {n_samples:,} samples and {n_genes:,} genes; both are needed")
    for name, column in (("symbol", head.gene_symbol), ("biotype", head.gene_biotype)):
        if len(column) != n_genes:
            raise InputError(f"{url}: {len(column):,} gene {name}s for {n_genes:,} genes; the gene table is damaged")
    for name, values in head.sample_columns.items():
        if len(values) != n_samples:
            raise InputError(f"{url}: column {name!r} has {len(values):,} values for {n_samples:,} samples")
    refuse_repeated(url, "sample", head.sample_id)
    if "" in head.gene_id:
        raise InputError(
            f"{url}: gene {head.gene_id.index('') + 1:,} has neither an id nor a symbol; the gene table is damaged"
        )
    return head


def refuse_repeated(url: str, what: str, names: Sequence[str]) -> None:
    """Refuse a name that stands twice, or is empty.

    Raises
    ------
    InputError
        With the name and its places.
    """
    place: dict[str, int] = {}
    for number, name in enumerate(names):
        if not name:
            raise InputError(f"{url}: {what} {number + 1} has no name")
        if name in place:
            raise InputError(
                f"{url}: {what} {name!r} stands at {place[name] + 1} and again at {number + 1}; ids must be unique, "
                "or their expression would count twice"
            )
        place[name] = number


def as_counts(values: NDArray[Any], url: str, samples: Sequence[str], genes: Sequence[str]) -> Counts:
    """Convert a box to counts; nothing is rounded.

    Parameters
    ----------
    values : (sample, gene)
    samples, genes
        Names of the rows and columns, for messages.

    Raises
    ------
    InputError
        For the first value that is negative, fractional, NaN or above 4,294,967,295, with sample and gene.
    """
    if values.dtype.kind not in "iuf":
        stored = "text" if values.dtype.kind in "OSU" else str(values.dtype)
        raise InputError(
            f"{url}: counts are stored as {stored}, whole numbers are needed: write the matrix anew as integers"
        )
    if values.dtype == np.uint32:
        return values
    with np.errstate(invalid="ignore"):
        wrong = ~((values >= 0) & (values <= MAX_COUNT))
        if values.dtype.kind == "f":
            wrong |= values != np.floor(values)
    if wrong.any():
        sample, gene = np.argwhere(wrong)[0]
        raise InputError(
            f"{url}: sample {samples[sample]!r}, gene {genes[gene]!r}: {values[sample, gene]!s} is no count; whole numbers from 0 to "
            f"{MAX_COUNT:,} are ({int(wrong.sum()):,} of {wrong.size:,} values looked at are not): give raw counts, not normalised or "
            "estimated ones"
        )
    return values.astype(np.uint32)


def open_counts(url: str, *, layer: str = "X", storage_options: Mapping[str, Any] | None = None) -> CountsSource:
    """Open a file of counts; what it is, is seen from its content.

    Parameters
    ----------
    layer
        Of a h5ad file.

    Raises
    ------
    InputError, TransferError
        If it cannot be read, or is none of those known.
    """
    from splicestore.readers.archs4 import EXPRESSION, Archs4File
    from splicestore.readers.count_tables import CountTable
    from splicestore.readers.h5ad import H5adFile
    from splicestore.readers.hdf5 import MAGIC, Hdf5File
    from splicestore.storage import open_input

    with open_input(url, storage_options=storage_options) as stream:
        is_hdf5 = stream.read(len(MAGIC)) == MAGIC
    if not is_hdf5:
        return CountTable(url, storage_options=storage_options)
    file = Hdf5File(url, storage_options=storage_options)
    try:
        if file.get(EXPRESSION) is not None:
            return Archs4File(file)
        if file.get("obs") is not None:
            return H5adFile(file, layer=layer)
        raise InputError(f"{url}: an HDF5 file with neither {EXPRESSION} (ARCHS4) nor obs and X (h5ad)")
    except InputError:
        file.close()
        raise
