"""What GTF and GFF3 have in common before genes and transcripts are put together.

The two dialects differ in how a row names its transcript and gene; their collectors (``gtf``, ``gff3``) hide
that and fill the same builder. Parts are exon, CDS, UTR and codon rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.readers.features import strand_codes
from splicestore.schema import LedgerRow

PART_FEATURES = frozenset(
    {
        "exon",
        "cds",
        "utr",
        "5utr",
        "3utr",
        "five_prime_utr",
        "three_prime_utr",
        "start_codon",
        "stop_codon",
    }
)
"""Features (lower case) that say where a transcript's exons are."""

NOT_SPLICEOSOMAL = frozenset(
    {"trna", "rrna", "mt_trna", "mt_rrna", "pseudogenic_trna", "pseudogenic_rrna", "trna_gene", "rrna_gene"}
)
"""Types and biotypes (lower case) whose introns are cut out by endonucleases or by themselves: not splice sites."""

_PREFIX = re.compile(r"^(?:gene:|transcript:|gene-|rna-)")

_PIECES = 32

GENE_COLUMNS = ("gene_id", "contig", "start", "end", "strand", "symbol", "biotype", "row")


def strip_prefix(identifier: str) -> str:
    """Strip the prefixes that Ensembl and NCBI GFF3 put before ids.

    Examples
    --------
    >>> strip_prefix("gene:ENSMUSG00000024186"), strip_prefix("rna-NM_000014.6")
    ('ENSMUSG00000024186', 'NM_000014.6')
    """
    return _PREFIX.sub("", identifier)


@dataclass(slots=True)
class NameCodes:
    """Names and their codes, in the order of first appearance."""

    code_of: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.code_of)

    @property
    def names(self) -> list[str]:
        """Name of each code."""
        return list(self.code_of)

    def encode(self, values: Iterable[Any]) -> NDArray[np.int32]:
        """Return the code of each value, new names get the next codes; few distinct values cost little."""
        local, distinct = pd.factorize(np.asarray(values, dtype=object))
        codes = [self.code_of.setdefault(str(name), len(self.code_of)) for name in distinct]
        return np.array(codes, dtype=np.int32)[local] if len(local) else np.zeros(0, dtype=np.int32)

    def encode_category(self, values: pd.Series[Any]) -> NDArray[np.int32]:
        """Encode a categorical column."""
        used = values.cat.remove_unused_categories()
        codes = [self.code_of.setdefault(str(name), len(self.code_of)) for name in used.cat.categories]
        return np.array(codes or [0], dtype=np.int32)[used.cat.codes.to_numpy()]


@dataclass(slots=True)
class Parts:
    """Exon, CDS, UTR and codon rows; all arrays ``(n_parts,)``."""

    transcript: NDArray[np.int32]
    """Code of the transcript."""
    contig: NDArray[np.int32]
    """Code of the contig."""
    start: NDArray[np.int64]
    """0-based, on the contig."""
    end: NDArray[np.int64]
    """Excluded."""
    strand: NDArray[np.int8]
    """+1, -1, or 0 where the file gives neither."""
    is_exon: NDArray[np.bool_]
    row: NDArray[np.int32]
    """Data row of the file, for error messages."""

    @classmethod
    def from_rows(cls, rows: pd.DataFrame, transcript: NDArray[np.int32], contigs: NameCodes) -> Parts:
        """Take the parts of one slab."""
        return cls(
            transcript=transcript,
            contig=contigs.encode_category(rows["contig"]),
            start=rows["start"].to_numpy(),
            end=rows["end"].to_numpy(),
            strand=strand_codes(rows["strand"]),
            is_exon=lower_features(rows["feature"], frozenset({"exon"})),
            row=rows.index.to_numpy(dtype=np.int32),
        )

    def take(self, which: NDArray[Any]) -> Parts:
        """Keep some of the parts, by mask or index."""
        return Parts(*(getattr(self, name)[which] for name in self.__slots__))


@dataclass(slots=True)
class PartsBuilder:
    """Collects parts slab by slab; forgets CDS, UTR and codons as soon as their transcript has an exon row.

    In a GENCODE file that is half of all parts, and they decide the peak memory of the reader.
    """

    pieces: list[Parts] = field(default_factory=list)
    has_exon: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1024, dtype=bool))

    def add(self, parts: Parts) -> None:
        """Add the parts of one slab."""
        n = int(parts.transcript.max(initial=-1)) + 1
        if n > len(self.has_exon):
            self.has_exon = np.concatenate((self.has_exon, np.zeros(max(n, len(self.has_exon)), dtype=bool)))
        self.has_exon[parts.transcript[parts.is_exon]] = True
        self.pieces.append(parts.take(parts.is_exon | ~self.has_exon[parts.transcript]))
        # Small arrays that outlive their slab would pin the heap pages between the slab's strings.
        if len(self.pieces) == _PIECES:
            self.pieces = [self._joined()]

    def finish(self) -> Parts:
        """Join the slabs."""
        parts = self._joined()
        # Exon rows of a later slab may have come after CDS rows of an earlier one.
        keep = parts.is_exon | ~self.has_exon[parts.transcript]
        return parts if keep.all() else parts.take(keep)

    def _joined(self) -> Parts:
        """Join what there is, one array at a time so that little is held twice."""
        dtypes: Any = (np.int32, np.int32, np.int64, np.int64, np.int8, np.bool_, np.int32)
        joined: list[Any] = []
        for name, dtype in zip(Parts.__slots__, dtypes, strict=True):
            joined.append(np.concatenate([np.zeros(0, dtype=dtype)] + [getattr(piece, name) for piece in self.pieces]))
            for piece in self.pieces:
                setattr(piece, name, None)
        self.pieces = []
        return Parts(*joined)


@dataclass(slots=True)
class GeneModels:
    """All that a file says about genes and transcripts, before it is put together."""

    parts: Parts
    transcripts: pd.DataFrame
    """One row per transcript code: transcript_id, gene_id, biotype, tags, support_level, start, end (of its own
    row; 0 where it has none), row."""
    genes: pd.DataFrame
    """One row per gene row of the file: ``GENE_COLUMNS``, contig as code, strand 0 where not given."""
    gene_notes: pd.DataFrame
    """symbol and biotype by gene_id, for genes that have no gene row."""
    contigs: list[str]
    trans_spliced: frozenset[int]
    """Codes of the transcripts that the file declares trans-spliced."""
    ledger: list[LedgerRow]


def lower_features(feature: pd.Series[Any], wanted: frozenset[str] | Callable[[str], bool]) -> NDArray[np.bool_]:
    """Mark the rows whose feature, in lower case, is wanted."""
    test = wanted if callable(wanted) else wanted.__contains__
    table = np.array([test(str(name).lower()) for name in feature.cat.categories] or [False], dtype=bool)
    return table[feature.cat.codes.to_numpy()]


def empty_genes() -> pd.DataFrame:
    """Return a table of gene rows without rows."""
    return pd.DataFrame({name: np.zeros(0, dtype=object) for name in GENE_COLUMNS})
