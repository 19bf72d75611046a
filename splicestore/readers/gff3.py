"""GFF3 of Ensembl, GENCODE, NCBI, SGD and others: rows linked by ID and Parent."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.readers.features import decode_percent, gff3_values, iter_feature_rows, strand_codes
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
from splicestore.schema import LedgerRow

_MAX_DEPTH = 8
_GENERIC_TYPES = frozenset({"transcript", "primary_transcript", "gene"})
_TRANSCRIPT_TYPE = re.compile(r"(?:rna|transcript|_gene_segment)$", re.IGNORECASE)
_EVIDENCE = re.compile(r"match|region|repeat|remark|contig|chromosome|intron|noncoding_exon|motif", re.IGNORECASE)
"""Features that are neither genes nor transcripts; skipped early to save their memory."""


def is_gene_type(feature: str) -> bool:
    """Whether a feature stands at the top of a gene: gene, pseudogene, or any ``..._gene``."""
    lowered = feature.lower()
    return lowered in ("gene", "pseudogene") or lowered.endswith("_gene")


@dataclass(slots=True)
class _Collector:
    contigs: NameCodes = field(default_factory=NameCodes)
    parents: NameCodes = field(default_factory=NameCodes)
    """Raw ids that parts name as their parent: the transcripts to be."""
    parent_row: dict[int, int] = field(default_factory=dict)
    """First data row that names the parent."""
    parts: PartsBuilder = field(default_factory=PartsBuilder)
    nodes: list[pd.DataFrame] = field(default_factory=list)
    trans_spliced: set[int] = field(default_factory=set)
    orphans: dict[str, int] = field(default_factory=dict)
    """Rows without Parent (parts) or ID (genes), by feature and reason."""

    def add_parts(self, rows: pd.DataFrame) -> None:
        """Add exon, CDS, UTR and codon rows, once per parent."""
        parents = gff3_values(rows["attributes"], "Parent", decode=False)
        has_parent = parents != ""
        self._count_orphans("no_parent", rows[~has_parent])
        rows, parents = rows[has_parent], parents[has_parent]
        if rows.empty:
            return
        if parents.str.contains(",", regex=False).any():
            parents = parents.str.split(",").explode()
            rows = rows.loc[parents.index]
        codes = self.parents.encode(decode_percent(parents))
        for code, first in zip(*np.unique(codes, return_index=True), strict=True):
            self.parent_row.setdefault(int(code), int(rows.index[first]))
        spliced = rows["attributes"].str.contains("trans-splicing", regex=False).to_numpy(dtype=bool)
        self.trans_spliced.update(np.unique(codes[spliced]).tolist())
        self.parts.add(Parts.from_rows(rows, codes, self.contigs))

    def add_nodes(self, rows: pd.DataFrame) -> None:
        """Add rows that may be genes or transcripts."""
        identifier = gff3_values(rows["attributes"], "ID")
        named = identifier != ""
        unnamed = rows[~named]
        self._count_orphans("no_id", unnamed[lower_features(unnamed["feature"], is_gene_type)])
        rows, attributes = rows[named], rows["attributes"][named]
        if rows.empty:
            return
        parents = gff3_values(attributes, "Parent", decode=False)
        texts = {
            "parent": decode_percent(parents.str.split(",").str[0].astype(object)),
            "type": rows["feature"].astype(object),
            "symbol": _first_of(attributes, "gene", "Name", "gene_name"),
            "biotype": _first_of(attributes, "gene_biotype", "gene_type", "biotype"),
            "transcript_biotype": _first_of(attributes, "transcript_biotype", "transcript_type", "biotype"),
            "tags": gff3_values(attributes, "tag"),
            "support_level": gff3_values(attributes, "transcript_support_level"),
        }
        # Texts that many rows share: interned they cost a pointer each.
        interned = {name: pd.Series(list(map(sys.intern, v)), v.index, dtype=object) for name, v in texts.items()}
        self.nodes.append(
            pd.DataFrame(
                {
                    "id": identifier[named],
                    "n_parents": (parents.str.count(",") + 1).astype(np.int32),
                    "contig": self.contigs.encode_category(rows["contig"]),
                    "start": rows["start"],
                    "end": rows["end"],
                    "strand": strand_codes(rows["strand"]),
                    "row": rows.index,
                }
                | interned
            )
        )

    def count_skipped_exons(self, rows: pd.DataFrame) -> None:
        """Count SGD's noncoding_exon rows, which stand below tRNA, rRNA and snoRNA genes without a transcript."""
        self._count_orphans("not_spliceosomal", rows)

    def _count_orphans(self, reason: str, rows: pd.DataFrame) -> None:
        for feature, n in rows["feature"].value_counts().items():
            if n:
                key = f"{feature}\t{reason}"
                self.orphans[key] = self.orphans.get(key, 0) + int(n)


def collect_gff3(url: str, *, storage_options: Mapping[str, Any] | None = None) -> GeneModels:
    """Read the genes, transcripts and parts of a GFF3 file.

    A transcript is whatever exons, CDS, UTRs or codons name as their Parent. Its gene is the first ancestor
    of type gene, pseudogene or ``..._gene``, else its topmost ancestor, else itself. Parts that hang on a
    gene directly form one transcript with the gene's id, unless the gene has transcripts of its own.
    """
    collector = _Collector()
    for rows in iter_feature_rows(url, storage_options=storage_options):
        is_part = lower_features(rows["feature"], PART_FEATURES)
        is_node = ~is_part & ~lower_features(rows["feature"], lambda name: bool(_EVIDENCE.search(name)))
        collector.add_parts(rows[is_part])
        collector.add_nodes(rows[is_node])
        collector.count_skipped_exons(rows[lower_features(rows["feature"], frozenset({"noncoding_exon"}))])
    return _link(collector)


def _link(collected: _Collector) -> GeneModels:
    """Follow Parent links from the parts up to the genes."""
    nodes = pd.concat(collected.nodes, ignore_index=True) if collected.nodes else _no_nodes()
    collected.nodes.clear()
    names = collected.parents.names
    again = nodes["id"].duplicated().to_numpy(dtype=bool)
    firsts = nodes[~again].reset_index(drop=True) if again.any() else nodes
    own = pd.Index(firsts["id"]).get_indexer(pd.Index(names, dtype=object))
    top = _tops(firsts, own)
    is_gene = np.array([is_gene_type(name) for name in firsts["type"]], dtype=bool)
    ledger = [
        LedgerRow("exon" if reason != "no_id" else "gene", feature, reason, count=n)
        for (feature, reason), n in ((key.split("\t"), n) for key, n in collected.orphans.items())
    ]
    ledger += [
        LedgerRow("transcript", strip_prefix(names[code]), "parent_not_found", "no row has this ID; it is its own gene")
        for code in np.flatnonzero(own < 0).tolist()
    ]
    ledger += _several_parents(firsts, own)
    transcripts = _transcript_table(firsts, names, own, top, collected.parent_row)
    direct = (own >= 0) & is_gene[own] if len(firsts) else np.zeros(len(names), dtype=bool)
    parts, hidden = _hide_direct_parts(collected.parts.finish(), direct, top)
    ledger += [
        LedgerRow("exon", transcripts["gene_id"][code], "gene_has_transcripts", "hangs on the gene", count=n)
        for code, n in hidden.items()
    ]
    ledger += _without_parts(firsts, own)
    keep = ~np.isin(np.arange(len(names)), list(hidden))
    recode = np.cumsum(keep).astype(np.int32) - 1
    parts.transcript = recode[parts.transcript]
    return GeneModels(
        parts=parts,
        transcripts=transcripts[keep].reset_index(drop=True),
        genes=_gene_rows(nodes),
        gene_notes=_gene_notes(firsts, own, top),
        contigs=collected.contigs.names,
        trans_spliced=frozenset(int(recode[code]) for code in collected.trans_spliced if keep[code]),
        ledger=ledger,
    )


def _tops(nodes: pd.DataFrame, own: NDArray[np.intp]) -> NDArray[np.intp]:
    """Row of the gene (or topmost ancestor) of each transcript; -1 where the transcript has no row."""
    if not len(nodes):
        return own
    parent = pd.Index(nodes["id"]).get_indexer(pd.Index(nodes["parent"]))
    is_gene = np.array([is_gene_type(name) for name in nodes["type"]], dtype=bool)
    top = own.copy()
    for _ in range(_MAX_DEPTH):
        climbs = (top >= 0) & ~is_gene[top] & (parent[top] >= 0)
        if not climbs.any():
            break
        top = np.where(climbs, parent[top], top)
    return top


def _transcript_table(
    nodes: pd.DataFrame, names: list[str], own: NDArray[np.intp], top: NDArray[np.intp], rows: Mapping[int, int]
) -> pd.DataFrame:
    """One row per transcript code."""
    known = own >= 0
    own_rows = nodes.iloc[own[known]]
    biotype = own_rows["transcript_biotype"].to_numpy(dtype=object)
    types = own_rows["type"].to_numpy(dtype=object)
    is_generic = np.array([t.lower() in _GENERIC_TYPES or is_gene_type(t) for t in types], dtype=bool)
    filled = np.where(biotype != "", biotype, np.where(is_generic, own_rows["biotype"].to_numpy(dtype=object), types))
    table = pd.DataFrame(
        {
            "transcript_id": _unprefixed(names),
            "gene_id": pd.Series(names, dtype=object),
            "biotype": pd.Series("", index=range(len(names)), dtype=object),
            "tags": pd.Series("", index=range(len(names)), dtype=object),
            "support_level": pd.Series("", index=range(len(names)), dtype=object),
            "start": np.zeros(len(names), dtype=np.int64),
            "end": np.zeros(len(names), dtype=np.int64),
            "row": np.array([rows[code] for code in range(len(names))], dtype=np.int64),
        }
    )
    # A gene that is named as a parent but has no row of its own is still one gene of all its transcripts.
    above = nodes["parent"].to_numpy(dtype=object)[top[known]]
    is_gene = np.array([is_gene_type(name) for name in nodes["type"].to_numpy(dtype=object)[top[known]]], dtype=bool)
    named = np.where(is_gene | (above == ""), nodes["id"].to_numpy(dtype=object)[top[known]], above)
    table.loc[known, "gene_id"] = named
    table.loc[known, "biotype"] = filled
    for name in ("tags", "support_level", "start", "end"):
        table.loc[known, name] = own_rows[name].to_numpy()
    table.loc[known, "row"] = np.minimum(table["row"].to_numpy()[known], own_rows["row"].to_numpy(dtype=np.int64))
    table["gene_id"] = table["gene_id"].map(strip_prefix)
    return table


def _unprefixed(names: list[str]) -> pd.Series[Any]:
    """Strip prefixes, except where that would make two ids equal."""
    raw = pd.Series(names, dtype=object)
    bare = raw.map(strip_prefix).astype(object)
    return bare.where(~bare.duplicated(keep=False), raw)


def _hide_direct_parts(parts: Parts, direct: NDArray[np.bool_], top: NDArray[np.intp]) -> tuple[Parts, dict[int, int]]:
    """Drop the parts that hang on a gene which has transcripts of its own; count them by code."""
    with_transcripts = np.unique(top[~direct & (top >= 0)])
    hidden = direct & np.isin(top, with_transcripts)
    is_hidden = hidden[parts.transcript]
    codes, counts = np.unique(parts.transcript[is_hidden], return_counts=True)
    return parts.take(~is_hidden), dict(zip(codes.tolist(), counts.tolist(), strict=True))


def _several_parents(nodes: pd.DataFrame, own: NDArray[np.intp]) -> list[LedgerRow]:
    rows = nodes.iloc[np.unique(own[own >= 0])]
    rows = rows[rows["n_parents"].to_numpy() > 1]
    return [
        LedgerRow("transcript", strip_prefix(name), "several_genes", f"{strip_prefix(parent)}, first of {n}, is taken")
        for name, n, parent in zip(rows["id"], rows["n_parents"], rows["parent"], strict=True)
    ]


def _without_parts(nodes: pd.DataFrame, own: NDArray[np.intp]) -> list[LedgerRow]:
    """List the transcripts that no exon names and that have no transcript below them."""
    is_transcript = np.array([bool(_TRANSCRIPT_TYPE.search(name)) for name in nodes["type"]], dtype=bool)
    is_transcript[own[own >= 0]] = False
    is_transcript &= ~nodes["id"].isin(nodes["parent"]).to_numpy(dtype=bool)
    rows = nodes[is_transcript]
    return [
        LedgerRow("transcript", strip_prefix(name), "no_exons", f"a {feature} without exon or CDS rows")
        for name, feature in zip(rows["id"], rows["type"], strict=True)
    ]


def _gene_rows(nodes: pd.DataFrame) -> pd.DataFrame:
    rows = nodes[np.array([is_gene_type(name) for name in nodes["type"]], dtype=bool)]
    if rows.empty:
        return empty_genes()
    return pd.DataFrame(
        {
            "gene_id": rows["id"].map(strip_prefix),
            "contig": rows["contig"],
            "start": rows["start"],
            "end": rows["end"],
            "strand": rows["strand"],
            "symbol": rows["symbol"],
            "biotype": rows["biotype"].where((rows["biotype"] != "") | (rows["type"] == "gene"), rows["type"]),
            "row": rows["row"],
        }
    ).reset_index(drop=True)


def _gene_notes(nodes: pd.DataFrame, own: NDArray[np.intp], top: NDArray[np.intp]) -> pd.DataFrame:
    rows = nodes.iloc[np.unique(top[own >= 0])]
    notes = rows[["symbol", "biotype"]].set_axis(rows["id"].map(strip_prefix), axis=0)
    return notes[~notes.index.duplicated()]


def _no_nodes() -> pd.DataFrame:
    columns = ("id", "parent", "type", "symbol", "biotype", "transcript_biotype", "tags", "support_level")
    numbers = ("n_parents", "contig", "start", "end", "strand", "row")
    return pd.DataFrame(
        {c: np.zeros(0, dtype=object) for c in columns} | {c: np.zeros(0, dtype=np.int64) for c in numbers}
    )


def _first_of(attributes: pd.Series[Any], *keys: str) -> pd.Series[Any]:
    """Value of the first key that a row has."""
    values = gff3_values(attributes, keys[0])
    for key in keys[1:]:
        empty = values == ""
        if not empty.any():
            break
        values = values.where(~empty, gff3_values(attributes, key))
    return values
