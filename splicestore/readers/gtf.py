"""GTF (Ensembl, GENCODE, NCBI, UCSC) and the GTF-like output of AUGUSTUS, BRAKER and GeneMark."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.readers.features import gtf_all_values, gtf_values, iter_feature_rows, line_of_row, strand_codes
from splicestore.readers.gene_models import (
    PART_FEATURES,
    GeneModels,
    NameCodes,
    Parts,
    PartsBuilder,
    empty_genes,
    lower_features,
    strip_prefix,
)

_TRANSCRIPT_FEATURES = frozenset({"transcript", "mrna"})
_UNNAMED = ("unknown_transcript", "unassigned_transcript")


@dataclass(slots=True)
class _Collector:
    url: str
    storage_options: Mapping[str, Any] | None
    contigs: NameCodes = field(default_factory=NameCodes)
    transcripts: NameCodes = field(default_factory=NameCodes)
    notes: list[pd.DataFrame] = field(default_factory=list)
    """One row per transcript row, and per transcript that came without a gene until then."""
    has_gene: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1024, dtype=bool))
    """By transcript code."""
    gene_notes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Symbol and biotype by gene id."""
    parts: PartsBuilder = field(default_factory=PartsBuilder)
    genes: list[pd.DataFrame] = field(default_factory=list)
    trans_spliced: set[int] = field(default_factory=set)

    def add_parts(self, rows: pd.DataFrame) -> None:
        """Add exon, CDS, UTR and codon rows."""
        if rows.empty:
            return
        attributes = rows["attributes"]
        gene, genes = pd.factorize(gtf_values(attributes, "gene_id"))
        transcript = gtf_values(attributes, "transcript_id")
        self._refuse_missing(rows, transcript)
        unnamed = transcript.str.startswith(_UNNAMED).to_numpy(dtype=bool)
        if unnamed.any():
            # NCBI numbers unnamed transcripts per gene, so their ids say nothing without the gene's.
            transcript = transcript.where(~unnamed, pd.Series(genes[gene], index=rows.index) + ":" + transcript)
        codes = self._encode(transcript)
        distinct, first, local = np.unique(codes, return_index=True, return_inverse=True)
        self._check_genes(rows, codes, gene, first[local])
        self._note_transcripts(attributes, distinct, first, np.asarray(genes)[gene])
        self._note_genes(attributes, gene, genes)
        spliced = attributes.str.contains("trans-splicing", regex=False).to_numpy(dtype=bool)
        self.trans_spliced.update(np.unique(codes[spliced]).tolist())
        self.parts.add(Parts.from_rows(rows, codes, self.contigs))

    def add_transcripts(self, rows: pd.DataFrame) -> None:
        """Add transcript rows; what they say goes before what a part says."""
        if rows.empty:
            return
        attributes = rows["attributes"]
        codes = self._encode(_or_bare(gtf_values(attributes, "transcript_id"), attributes))
        gene = gtf_values(attributes, "gene_id").map(strip_prefix)
        self.has_gene[codes[gene.to_numpy() != ""]] = True
        notes = _notes(attributes, codes, gene)
        self.notes.append(notes.assign(start=rows["start"], end=rows["end"], is_part=False))

    def add_genes(self, rows: pd.DataFrame) -> None:
        """Add gene rows."""
        if rows.empty:
            return
        attributes = rows["attributes"]
        self.genes.append(
            pd.DataFrame(
                {
                    "gene_id": _or_bare(gtf_values(attributes, "gene_id"), attributes).map(strip_prefix),
                    "contig": self.contigs.encode_category(rows["contig"]),
                    "start": rows["start"],
                    "end": rows["end"],
                    "strand": strand_codes(rows["strand"]),
                    "symbol": _symbol(attributes),
                    "biotype": _first_of(attributes, "gene_biotype", "gene_type"),
                    "row": rows.index,
                }
            )
        )

    def finish(self) -> GeneModels:
        """Hand over what was collected."""
        return GeneModels(
            parts=self.parts.finish(),
            transcripts=self._transcripts(),
            genes=pd.concat(self.genes, ignore_index=True) if self.genes else empty_genes(),
            gene_notes=pd.DataFrame.from_dict(
                self.gene_notes, orient="index", columns=["symbol", "biotype"], dtype=object
            ),
            contigs=self.contigs.names,
            trans_spliced=frozenset(self.trans_spliced),
            ledger=[],
        )

    def _transcripts(self) -> pd.DataFrame:
        """One row per transcript code."""
        notes = pd.concat([_no_notes(), *self.notes], ignore_index=True)
        notes = notes.sort_values(["code", "is_part", "row"], kind="stable", ignore_index=True)
        first = ~notes["code"].duplicated()
        table = notes[first].reset_index(drop=True)
        # A bare transcript row of AUGUSTUS names no gene, its parts do.
        with_gene = notes[notes["gene_id"] != ""].drop_duplicates("code").set_index("code")["gene_id"]
        names = pd.Series(self.transcripts.names, dtype=object)
        table["gene_id"] = with_gene.reindex(table["code"]).fillna(names).to_numpy(dtype=object)
        table["row"] = notes.groupby("code")["row"].min().to_numpy()
        return table.assign(transcript_id=names).drop(columns=["code", "is_part"])

    def _encode(self, values: pd.Series[Any]) -> NDArray[np.int32]:
        local, distinct = pd.factorize(values)
        codes = self.transcripts.encode([strip_prefix(name) for name in distinct])[local]
        if len(self.transcripts) > len(self.has_gene):
            more = np.zeros(len(self.transcripts), dtype=bool)
            self.has_gene = np.concatenate((self.has_gene, more))
        return codes

    def _refuse_missing(self, rows: pd.DataFrame, transcript: pd.Series[Any]) -> None:
        missing = np.flatnonzero(transcript.to_numpy() == "")
        if len(missing):
            number, line = line_of_row(self.url, int(rows.index[missing[0]]), storage_options=self.storage_options)
            raise InputError(
                f"{self.url}: line {number}: no transcript_id in {line.split(chr(9))[8][:80]!r}; "
                "a GTF exon or CDS names its transcript, add it or drop the line"
            )

    def _check_genes(
        self, rows: pd.DataFrame, codes: NDArray[np.int32], gene: NDArray[np.intp], first: NDArray[np.intp]
    ) -> None:
        """Refuse a transcript whose rows of this slab name two genes."""
        differs = np.flatnonzero(gene != gene[first])
        if len(differs):
            number, line = line_of_row(self.url, int(rows.index[differs[0]]), storage_options=self.storage_options)
            raise InputError(
                f"{self.url}: line {number}: transcript {self.transcripts.names[codes[differs[0]]]!r} is given a "
                f"second gene ({line.split(chr(9))[8][:80]!r}); transcript ids must be unique, rename one"
            )

    def _note_transcripts(
        self, attributes: pd.Series[Any], distinct: NDArray[np.int32], first: NDArray[np.intp], gene: NDArray[Any]
    ) -> None:
        new = ~self.has_gene[distinct]
        sample = attributes.iloc[first[new]]
        genes = pd.Series([strip_prefix(g) for g in gene[first[new]]], index=sample.index, dtype=object)
        self.has_gene[distinct[new]] = True
        self.notes.append(_notes(sample, distinct[new], genes).assign(start=0, end=0, is_part=True))

    def _note_genes(self, attributes: pd.Series[Any], gene: NDArray[np.intp], genes: pd.Index[Any]) -> None:
        names = [strip_prefix(str(name)) for name in genes]
        new = np.array([name not in self.gene_notes for name in names], dtype=bool)
        first = np.unique(gene, return_index=True)[1][new]
        sample = attributes.iloc[first]
        texts = zip(_symbol(sample), _first_of(sample, "gene_biotype", "gene_type"), strict=True)
        self.gene_notes |= dict(zip(np.array(names, dtype=object)[new], texts, strict=True))


def collect_gtf(url: str, *, storage_options: Mapping[str, Any] | None = None) -> GeneModels:
    """Read the genes, transcripts and parts of a GTF file.

    Raises
    ------
    InputError
        If a part has no transcript_id, or a transcript belongs to two genes; with the line.
    """
    collector = _Collector(url, storage_options)
    for rows in iter_feature_rows(url, storage_options=storage_options):
        collector.add_transcripts(rows[lower_features(rows["feature"], _TRANSCRIPT_FEATURES)])
        collector.add_parts(rows[lower_features(rows["feature"], PART_FEATURES)])
        collector.add_genes(rows[lower_features(rows["feature"], frozenset({"gene"}))])
    return collector.finish()


def _notes(attributes: pd.Series[Any], codes: NDArray[np.int32], gene: pd.Series[Any]) -> pd.DataFrame:
    """What rows say about their transcripts."""
    biotype = _first_of(attributes, "transcript_biotype", "transcript_type")
    level = gtf_values(attributes, "transcript_support_level")
    # Few distinct texts are shared by many transcripts; interned they cost a pointer each.
    return pd.DataFrame(
        {
            "code": codes,
            "gene_id": gene.map(sys.intern),
            "biotype": biotype.map(sys.intern),
            "tags": gtf_all_values(attributes, "tag").map(sys.intern),
            "support_level": level.map(sys.intern),
            "row": attributes.index.to_numpy(dtype=np.int64),
        },
        index=attributes.index,
    ).astype(dict.fromkeys(("gene_id", "biotype", "tags", "support_level"), object))


def _no_notes() -> pd.DataFrame:
    rows = pd.Series(np.zeros(0, dtype=object))
    return _notes(rows, np.zeros(0, dtype=np.int32), rows).assign(start=0, end=0, is_part=True)


def _symbol(attributes: pd.Series[Any]) -> pd.Series[Any]:
    return _first_of(attributes, "gene_name", "gene")


def _first_of(attributes: pd.Series[Any], first: str, second: str) -> pd.Series[Any]:
    values = gtf_values(attributes, first)
    empty = values == ""
    if empty.any():
        values = values.where(~empty, gtf_values(attributes, second))
    return values


def _or_bare(values: pd.Series[Any], attributes: pd.Series[Any]) -> pd.Series[Any]:
    """Fill empty values with the whole column 9, which AUGUSTUS uses for a bare id."""
    return values.where(values != "", attributes.str.strip().str.rstrip(";"))
