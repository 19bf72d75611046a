"""Genes, transcripts and exons put together from what a GTF or GFF3 collector found.

Each step may drop or alter something; each returns what it did as ledger rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.kernels.intervals import merge_intervals, pointers
from splicestore.readers.features import line_of_row
from splicestore.readers.gene_models import NOT_SPLICEOSOMAL, GeneModels, Parts
from splicestore.schema import LedgerRow

Int64 = NDArray[np.int64]

_STRAND_NAMES = {1: "+", -1: "-", 0: "."}


class AssembledGenes(NamedTuple):
    """The fields of an ``Annotation``, described there."""

    genes: pd.DataFrame
    transcripts: pd.DataFrame
    exon_ptr: Int64
    exon_start: Int64
    exon_end: Int64
    ledger: list[LedgerRow]


def assemble_genes(url: str, models: GeneModels, storage_options: Mapping[str, Any] | None = None) -> AssembledGenes:
    """Make one gene per (id, contig, strand), one transcript per (id, contig), and merge exons.

    Raises
    ------
    InputError
        If a transcript lies on two contigs or strands, or has several exons and no strand; with the line.
    """
    return _Assembly(url, storage_options, models).assembled()


@dataclass(frozen=True, slots=True)
class _Assembly:
    """Puts genes, transcripts and exons together; holds what error messages need."""

    url: str
    storage_options: Mapping[str, Any] | None
    models: GeneModels

    def assembled(self) -> AssembledGenes:
        """Return the finished tables."""
        ledger = list(self.models.ledger)
        ledger += self._without_parts()
        copies, parts, rows = self._copies(self.models.parts)
        ledger += rows
        exon_copy, exon_start, exon_end, rows = _merge(parts, copies)
        ledger += rows
        copies = _with_spans(copies, exon_copy, exon_start, exon_end)
        copies, rows = self._stranded(copies, parts)
        ledger += rows
        genes, copies["gene"], rows = _genes(self.models, copies)
        ledger += rows
        keep, rows = _spliceosomal(copies, genes)
        ledger += rows
        exon_keep = keep[exon_copy]
        return AssembledGenes(
            genes=genes,
            transcripts=_transcript_frame(copies[keep]),
            exon_ptr=pointers(copies["n_exons"].to_numpy()[keep]),
            exon_start=exon_start[exon_keep],
            exon_end=exon_end[exon_keep],
            ledger=ledger,
        )

    def _without_parts(self) -> list[LedgerRow]:
        table = self.models.transcripts
        absent = np.setdiff1d(np.arange(len(table)), self.models.parts.transcript)
        return [LedgerRow("transcript", table["transcript_id"][i], "no_exons") for i in absent.tolist()]

    def _copies(self, parts: Parts) -> tuple[pd.DataFrame, Parts, list[LedgerRow]]:
        """Make one row per transcript and contig, in file order; ``parts.transcript`` then names these rows."""
        contigs = np.array(self.models.contigs, dtype=object)
        key = parts.transcript.astype(np.int64) * max(1, len(contigs)) + parts.contig
        distinct, first, local = np.unique(key, return_index=True, return_inverse=True)
        code, contig = np.divmod(distinct, max(1, len(contigs)))
        copies = self.models.transcripts.take(code).reset_index(drop=True)
        copies["contig"], copies["code"] = contigs[contig], code
        copies["low"] = _reduce(np.minimum, parts.strand, local, len(copies))
        copies["high"] = _reduce(np.maximum, parts.strand, local, len(copies))
        is_wrong = copies["low"].to_numpy() * copies["high"].to_numpy() < 0
        several = np.bincount(code, minlength=len(self.models.transcripts))[code] > 1
        on_par = _on_sex_chromosomes(copies, several)
        is_wrong = np.isin(code, code[is_wrong]) | (several & ~on_par)
        spliced = np.isin(code, list(self.models.trans_spliced))
        if (is_wrong & ~spliced).any():
            raise self._two_places(parts, local, int(code[np.argmax(is_wrong & ~spliced)]), code)
        ledger = [
            LedgerRow("transcript", name, "trans_spliced", "exons on two contigs or strands")
            for name in copies["transcript_id"][is_wrong].unique()
        ]
        copies, rows = _suffix_par_copies(copies, several & on_par & ~is_wrong)
        order = np.lexsort((first, copies["row"].to_numpy()))
        order = order[~is_wrong[order]]
        rank = np.full(len(copies), -1, dtype=np.int64)
        rank[order] = np.arange(len(order))
        kept = parts.take(rank[local] >= 0)
        kept.transcript = rank[local][rank[local] >= 0].astype(np.int32)
        return copies.iloc[order].reset_index(drop=True), kept, ledger + rows

    def _two_places(self, parts: Parts, copy: NDArray[np.intp], code: int, codes: Int64) -> InputError:
        """Describe a transcript that lies in two places, with the line of the first part that shows it."""
        mine = np.flatnonzero(codes[copy] == code)
        mine = mine[np.argsort(parts.row[mine], kind="stable")]
        place = parts.contig[mine].astype(np.int64) * 4 + parts.strand[mine]
        second = mine[np.argmax(place != place[0])]
        number, _ = line_of_row(self.url, int(parts.row[second]), storage_options=self.storage_options)
        where = [
            f"{self.models.contigs[parts.contig[i]]} ({_STRAND_NAMES[int(parts.strand[i])]})" for i in (mine[0], second)
        ]
        name = self.models.transcripts["transcript_id"][code]
        return InputError(
            f"{self.url}: line {number}: transcript {name!r} lies on {where[0]} and on {where[1]}; transcript ids must "
            "be unique and a transcript lies on one strand of one contig, rename or remove one of the two"
        )

    def _stranded(self, copies: pd.DataFrame, parts: Parts) -> tuple[pd.DataFrame, list[LedgerRow]]:
        """Settle the strand of every transcript; only one with a single exon may come without."""
        unstranded = ((copies["low"] == 0) | (copies["high"] == 0)).to_numpy()
        wrong = unstranded & (copies["n_exons"] > 1).to_numpy()
        if wrong.any():
            mine = np.isin(parts.transcript, np.flatnonzero(wrong)) & (parts.strand == 0)
            row = int(parts.row[mine].min())
            number, line = line_of_row(self.url, row, storage_options=self.storage_options)
            copy = int(parts.transcript[mine][np.argmin(parts.row[mine])])
            raise InputError(
                f"{self.url}: line {number}: strand is {line.split(chr(9))[6]!r} for transcript "
                f"{copies['transcript_id'][copy]!r} with {copies['n_exons'][copy]} exons; expected + or -, "
                "correct or remove it"
            )
        strand = np.sign(copies["low"].to_numpy() + copies["high"].to_numpy())
        copies["strand"] = np.where(strand == 0, 1, strand).astype(np.int8)
        names = copies["transcript_id"][unstranded]
        detail = "one exon, takes the strand of its other rows, else +"
        return copies, [LedgerRow("transcript", name, "unstranded", detail) for name in names]


def _reduce(ufunc: np.ufunc, values: NDArray[np.int8], group: NDArray[np.intp], n: int) -> NDArray[np.int64]:
    start = 1 if ufunc is np.minimum else -1
    result = np.full(n, start, dtype=np.int64)
    ufunc.at(result, group, values)
    return result


def _sex_chromosome(contig: str) -> str:
    bare = contig.removeprefix("chr").upper()
    return bare if bare in ("X", "Y") else ""


def _on_sex_chromosomes(table: pd.DataFrame, several: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark rows of ids whose places are exactly one on X and one on Y."""
    result = np.zeros(len(table), dtype=bool)
    some = np.flatnonzero(several)
    if len(some):
        chromosomes = table["contig"].iloc[some].map(_sex_chromosome)
        together = chromosomes.groupby(table["transcript_id"].iloc[some].to_numpy()).transform("sum")
        result[some] = together.isin(["XY", "YX"]).to_numpy()
    return result


def _suffix_par_copies(copies: pd.DataFrame, on_par: NDArray[np.bool_]) -> tuple[pd.DataFrame, list[LedgerRow]]:
    on_y = on_par & (copies["contig"].map(_sex_chromosome) == "Y").to_numpy()
    names = copies["transcript_id"][on_y]
    ledger = [
        LedgerRow("transcript", name, "par_copy", f"the copy on {contig} is kept as {name}_PAR_Y")
        for name, contig in zip(names, copies["contig"][on_y], strict=True)
    ]
    copies.loc[on_y, "transcript_id"] = names + "_PAR_Y"
    return copies, ledger


def _merge(parts: Parts, copies: pd.DataFrame) -> tuple[NDArray[np.int64], Int64, Int64, list[LedgerRow]]:
    """Merge overlapping and touching exons of each transcript; only merged ``exon`` rows are worth a ledger row."""
    # Transcripts laid out one after another, so that one sweep merges them all and none touches the next.
    stride = int(parts.end.max(initial=0)) + 2
    offset = parts.transcript.astype(np.int64) * stride
    start, end = merge_intervals(parts.start + offset, parts.end + offset)
    copy = start // stride
    ledger: list[LedgerRow] = []
    if len(start) < len(parts.start):
        ledger = _merged_exons(parts, offset, copies)
    return copy, start - copy * stride, end - copy * stride, ledger


def _merged_exons(parts: Parts, offset: Int64, copies: pd.DataFrame) -> list[LedgerRow]:
    ledger = []
    order = np.lexsort((parts.end, parts.start, parts.transcript))
    order = order[parts.is_exon[order]]
    reach = np.maximum.accumulate((parts.end + offset)[order])
    gap = (parts.start + offset)[order][1:] - reach[:-1]
    same = parts.transcript[order][1:] == parts.transcript[order][:-1]
    for reason, found in (("overlapping_exons", same & (gap < 0)), ("touching_exons", same & (gap == 0))):
        codes, counts = np.unique(parts.transcript[order][1:][found], return_counts=True)
        names = copies["transcript_id"].iloc[codes]
        ledger += [
            LedgerRow("exon", name, reason, "merged with the exon before", count=n)
            for name, n in zip(names, counts.tolist(), strict=True)
        ]
    return ledger


def _with_spans(copies: pd.DataFrame, exon_copy: Int64, exon_start: Int64, exon_end: Int64) -> pd.DataFrame:
    """Add the number of exons and the span: that of the exons and of the transcript's own row."""
    n_exons = np.bincount(exon_copy, minlength=len(copies))
    ptr = pointers(n_exons)
    start, end = exon_start[ptr[:-1]], exon_end[ptr[1:] - 1]
    # The row of a transcript that lies in two places says nothing about either.
    has_row = ((copies["end"] > 0) & ~copies["code"].duplicated(keep=False)).to_numpy()
    return copies.assign(
        n_exons=n_exons,
        start=np.where(has_row, np.minimum(start, copies["start"]), start),
        end=np.where(has_row, np.maximum(end, copies["end"]), end),
    )


def _genes(models: GeneModels, copies: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.int32], list[LedgerRow]]:
    """Make the gene table from gene rows and transcripts: one gene per (id, contig, strand)."""
    span = _transcript_spans(models, copies)
    rows, ledger = _stranded_gene_rows(models, span)
    key = ["gene_id", "contig", "strand"]
    both = pd.concat((rows.assign(written=0), span.assign(written=1)), ignore_index=True)
    both = both.astype({"start": np.int64, "end": np.int64, "strand": np.int8, "row": np.int64})
    # Gene rows say where a gene is; transcripts only where there is no gene row.
    both["written"] = both["written"].astype(np.int8)
    level = both.groupby(key, sort=False)["written"].transform("min")
    spans = (
        both[both["written"] == level]
        .groupby(key, sort=False)
        .agg(
            start=("start", "min"),
            end=("end", "max"),
            symbol=("symbol", "first"),
            biotype=("biotype", "first"),
            row=("row", "min"),
            written=("written", "min"),
        )
    )
    table = spans.reset_index().sort_values("row", kind="stable").reset_index(drop=True)
    index = pd.MultiIndex.from_frame(table[key])
    gene = index.get_indexer(pd.MultiIndex.from_frame(span[key])).astype(np.int32)
    table, renamed = _unique_gene_ids(table)
    columns = ["gene_id", "symbol", "contig", "start", "end", "strand", "biotype"]
    return _as_text(table[columns].copy()), gene, ledger + renamed


def _transcript_spans(models: GeneModels, copies: pd.DataFrame) -> pd.DataFrame:
    """Where each transcript lies, with the notes of its gene."""
    notes = models.gene_notes.reindex(copies["gene_id"].to_numpy()).fillna("")
    return pd.DataFrame(
        {
            "gene_id": copies["gene_id"],
            "contig": copies["contig"],
            "start": copies["start"],
            "end": copies["end"],
            "strand": copies["strand"],
            "symbol": notes["symbol"].to_numpy(dtype=object),
            "biotype": notes["biotype"].to_numpy(dtype=object),
            "row": copies["row"],
        }
    )


def _stranded_gene_rows(models: GeneModels, span: pd.DataFrame) -> tuple[pd.DataFrame, list[LedgerRow]]:
    """Give unstranded gene rows the strand of their first transcript, else +."""
    rows = models.genes.copy()
    rows["contig"] = np.array(models.contigs, dtype=object)[rows["contig"].to_numpy(dtype=np.int64)]
    unstranded = (rows["strand"] == 0).to_numpy(dtype=bool)
    if not unstranded.any():
        return rows, []
    known = span.drop_duplicates(["gene_id", "contig"]).set_index(["gene_id", "contig"])["strand"]
    asked = pd.MultiIndex.from_frame(rows.loc[unstranded, ["gene_id", "contig"]])
    rows.loc[unstranded, "strand"] = known.reindex(asked).fillna(1).to_numpy(dtype=np.int8)
    names = rows["gene_id"][unstranded]
    detail = "takes the strand of its transcripts, else +"
    return rows, [LedgerRow("gene", name, "unstranded", detail) for name in names]


def _unique_gene_ids(table: pd.DataFrame) -> tuple[pd.DataFrame, list[LedgerRow]]:
    """Rename all but one of the genes that share an id: the one with a gene row, or the first, keeps it."""
    shared = table["gene_id"].duplicated(keep=False).to_numpy()
    ledger: list[LedgerRow] = []
    for name, places in table[shared].groupby("gene_id", sort=False):
        on_par = sorted(places["contig"].map(_sex_chromosome)) == ["X", "Y"]
        first = places["contig"].map(_sex_chromosome) == "X" if on_par else places["written"] == places["written"].min()
        others = places.index.drop(places.index[first.to_numpy()][0])
        for i, contig, code in zip(others, places["contig"][others], places["strand"][others], strict=True):
            strand = _STRAND_NAMES[int(code)]
            new = f"{name}_PAR_Y" if on_par else f"{name}@{contig}:{strand}"
            table.at[i, "gene_id"] = new
            reason = "par_copy" if on_par else "gene_in_several_places"
            ledger.append(LedgerRow("gene", str(name), reason, f"the gene on {contig} ({strand}) is kept as {new}"))
    return table, ledger


def _spliceosomal(copies: pd.DataFrame, genes: pd.DataFrame) -> tuple[NDArray[np.bool_], list[LedgerRow]]:
    """Leave out tRNA and rRNA transcripts with introns."""
    gene_type = genes["biotype"].to_numpy(dtype=object)[copies["gene"].to_numpy()]
    kind = np.where(copies["biotype"] != "", copies["biotype"], gene_type)
    is_other = np.array([str(k).lower() in NOT_SPLICEOSOMAL for k in kind], dtype=bool)
    drop = is_other & (copies["n_exons"] > 1).to_numpy()
    ledger = [
        LedgerRow("transcript", name, "not_spliceosomal", f"{k} with {n} exons")
        for name, k, n in zip(copies["transcript_id"][drop], kind[drop], copies["n_exons"][drop], strict=True)
    ]
    return ~drop, ledger


def _transcript_frame(copies: pd.DataFrame) -> pd.DataFrame:
    table = copies[["transcript_id", "gene", "biotype", "tags", "support_level"]].reset_index(drop=True)
    return _as_text(table)


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Give object columns pandas' string type."""
    texts = [name for name, dtype in table.dtypes.items() if dtype.kind == "O"]
    return table.astype(dict.fromkeys(texts, "str"))
