"""Homology of genes, of nine kinds of tables, as one long form: group, genome, gene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError, close_names
from splicestore.readers.orthology_ids import (
    UNKNOWN_GENOME,
    UNMATCHED,
    WAYS,
    GenomeIds,
    find_anywhere,
    resolve_genomes,
)
from splicestore.readers.orthology_tables import (
    LAYOUTS,
    NESTED,
    NO_LABEL,
    Head,
    Mentions,
    Source,
    detect_layout,
    read_head,
)
from splicestore.schema import LedgerRow

FORMATS = tuple(LAYOUTS)
"""What ``format`` may say besides ``auto``."""


@dataclass(frozen=True, slots=True)
class Homology:
    """Homology in long form: one row per (group, gene), sorted by group, genome, gene; a pair is a group of two."""

    group: NDArray[np.int64]
    """(n,) index into ``group_names``."""
    genome: NDArray[np.int32]
    """(n,) index into ``genome_ids``."""
    gene: NDArray[np.int32]
    """(n,) row of that genome's gene ids."""
    genome_ids: tuple[str, ...]
    group_names: list[str]
    """As the table names them, else by their line; groups without a known gene are left out."""
    matched: dict[str, int]
    """How the gene mentions of known genomes were found, each counted: exact, transcript, deprefixed, deversioned,
    unmatched."""
    ledger: list[LedgerRow]
    """unmatched_gene, unknown_genome (one row per genome), gene_in_two_groups (kept)."""


def read_orthology(
    url: str,
    genes: Mapping[str, Sequence[str]],
    *,
    transcripts: Mapping[str, Mapping[str, str]] | None = None,
    format: str = "auto",
    column_genomes: Mapping[str, str] | None = None,
    level: str | None = None,
    genes_table: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Homology:
    """Read a homology table of any layout against the genes of a store.

    Parameters
    ----------
    url
        Plain or gzip.
    genes
        Genome id -> its gene ids; their order numbers the rows.
    transcripts
        Genome id -> transcript (or protein) id -> gene id, for tables that name these.
    format
        ``auto`` (by header, else by shape) or one of ``FORMATS``: ``long`` (group, genome, gene), ``groups``
        (no header, gene ids of one group per line), ``compara``, ``biomart``, ``orthofinder`` (Orthogroups.tsv
        and N0.tsv), ``orthodb``, ``eggnog``, ``augustus``, ``pairs`` (two columns named by genomes).
    column_genomes
        Species name, column or organism of the table -> genome id, where they differ in more than case.
    level
        Taxonomic level of the groups, for ``orthodb`` (taxid) and ``eggnog`` (taxid or name).
    genes_table
        OrthoDB's genes table, which says what its gene ids are called elsewhere.
    storage_options
        Passed to fsspec.

    Returns
    -------
    homology
        Ids are looked up exactly, then as transcripts, then without ``gene:`` and the like, then without their
        version where that leaves one gene.

    Raises
    ------
    InputError
        If the layout is not recognised or not the declared one, a field that must be there is empty, a table
        without genomes names a gene of two, levels are mixed, or not one id is a gene; with file and line.
    """
    genome_ids = tuple(genes)
    transcripts = transcripts or {}
    indexes = {name: GenomeIds(ids, transcripts.get(name, {})) for name, ids in genes.items()}
    head = read_head(url, storage_options)
    layout = _choose_layout(url, format, head, indexes, column_genomes or {})
    _check_options(url, layout, level, genes_table)
    source = Source(url, head, column_genomes or {}, level, genes_table, storage_options)
    mentions = LAYOUTS[layout](source)
    if len(mentions.group) == 0:
        raise InputError(f"{url}: no gene in the file, read as {layout}; check the file or declare its format")
    genome_of_label = resolve_genomes(url, mentions.labels, genome_ids, column_genomes)
    return _resolve(url, layout, mentions, genome_of_label, indexes)


def detect_orthology_format(
    url: str,
    genes: Mapping[str, Sequence[str]],
    *,
    transcripts: Mapping[str, Mapping[str, str]] | None = None,
    column_genomes: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """Tell the layout of a homology table from its first lines: one of ``FORMATS``.

    Raises
    ------
    InputError
        If it looks like none of them.
    """
    transcripts = transcripts or {}
    indexes = {name: GenomeIds(ids, transcripts.get(name, {})) for name, ids in genes.items()}
    return _choose_layout(url, "auto", read_head(url, storage_options), indexes, column_genomes or {})


def _choose_layout(
    url: str, format: str, head: Head, indexes: Mapping[str, GenomeIds], column_genomes: Mapping[str, str]
) -> str:
    if format in LAYOUTS:
        return format
    if format != "auto":
        raise InputError(
            f"{url}: unknown homology format {format!r}, one of auto, {', '.join(FORMATS)}; "
            f"{close_names(format, FORMATS)}"
        )
    folded = {genome_id.lower() for genome_id in indexes}

    def names_genome(name: str) -> bool:
        return name in column_genomes or name.lower() in folded

    def share_known(ids: list[str]) -> float:
        distinct = list(dict.fromkeys(ids))
        ways = [index.find(distinct)[1] for index in indexes.values()]
        return float((np.min(ways, axis=0) < UNMATCHED).mean()) if ways and distinct else 0.0

    return detect_layout(url, head, names_genome, share_known)


def _check_options(url: str, layout: str, level: str | None, genes_table: str | None) -> None:
    if level is not None and layout not in NESTED:
        raise InputError(f"{url}: level {level!r} was given, but a table read as {layout} has no levels; leave it out")
    if genes_table is not None and layout != "orthodb":
        raise InputError(f"{url}: genes_table belongs to OrthoDB, but this table is read as {layout}; leave it out")


# -- mentions to rows ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """Distinct (genome, gene id) of a table and what they mean; arrays (n_distinct,)."""

    of_mention: NDArray[np.int64]
    """(n_mentions,) index of each mention's distinct id."""
    label: NDArray[np.int32]
    """A label's genome, ``NO_LABEL`` or ``UNKNOWN_GENOME``."""
    text: NDArray[np.int64]
    """Index into the gene ids of the table."""
    genome: NDArray[np.int32]
    gene: NDArray[np.int32]
    way: NDArray[np.int8]


def _resolve(
    url: str, layout: str, mentions: Mentions, genome_of_label: NDArray[np.int32], indexes: Mapping[str, GenomeIds]
) -> Homology:
    # A sentinel behind the labels answers for NO_LABEL, which is -1.
    label = np.append(genome_of_label, np.int32(NO_LABEL))[mentions.label]
    found = _find_genes(url, mentions, label, indexes)
    way = found.way[found.of_mention]
    is_known = label != UNKNOWN_GENOME
    n_ways = np.bincount(way[is_known], minlength=len(WAYS))
    kept = np.flatnonzero(is_known & (way < UNMATCHED))
    if len(kept) == 0:
        raise InputError(_nothing_matched(url, layout, mentions, is_known, indexes))
    pick = found.of_mention[kept]
    rows = np.stack((mentions.group[kept], found.genome[pick], found.gene[pick]), axis=1).astype(np.int64)
    rows = _unique_rows(rows)
    groups, group = np.unique(rows[:, 0], return_inverse=True)
    homology = Homology(
        group=group.astype(np.int64),
        genome=rows[:, 1].astype(np.int32),
        gene=rows[:, 2].astype(np.int32),
        genome_ids=tuple(indexes),
        group_names=_group_names(mentions, groups),
        matched={name: int(n) for name, n in zip(WAYS, n_ways, strict=True)},
        ledger=_unknown_genomes(mentions, genome_of_label, tuple(indexes)),
    )
    homology.ledger.extend(_unmatched_genes(mentions, found, tuple(indexes)))
    if not mentions.are_edges:
        homology.ledger.extend(_genes_in_two_groups(homology, indexes))
    return homology


def _find_genes(url: str, mentions: Mentions, label: NDArray[np.int32], indexes: Mapping[str, GenomeIds]) -> _Found:
    n_ids = max(len(mentions.gene_ids), 1)
    # Codes from UNKNOWN_GENOME = -2 upward become a key from 0.
    keys, of_mention = np.unique((label.astype(np.int64) - UNKNOWN_GENOME) * n_ids + mentions.gene, return_inverse=True)
    own, text = (keys // n_ids + UNKNOWN_GENOME).astype(np.int32), keys % n_ids
    genome = own.copy()
    gene = np.full(len(keys), -1, dtype=np.int32)
    way = np.full(len(keys), UNMATCHED, dtype=np.int8)
    nowhere = np.flatnonzero(own == NO_LABEL)
    if len(nowhere):
        ids = [mentions.gene_ids[i] for i in text[nowhere]]
        genome[nowhere], gene[nowhere], way[nowhere] = find_anywhere(url, indexes, ids)
    for number, index in enumerate(indexes.values()):
        here = np.flatnonzero(own == number)
        if len(here):
            gene[here], way[here] = _find_with_aliases(index, mentions, [mentions.gene_ids[i] for i in text[here]])
    return _Found(of_mention, own, text, genome, gene, way)


def _find_with_aliases(
    index: GenomeIds, mentions: Mentions, ids: list[str]
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """Find ids, or the best of their aliases."""
    if not mentions.aliases:
        return index.find(ids)
    choices = [(i, *mentions.aliases.get(i, ())) for i in ids]
    distinct = list(dict.fromkeys(name for names in choices for name in names))
    place = {name: row for row, name in enumerate(distinct)}
    gene, way = index.find(distinct)
    best = np.array([min((place[name] for name in names), key=lambda row: way[row]) for names in choices])
    return gene[best], way[best]


def _unique_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort rows by group, genome, gene and keep each once."""
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    is_new = np.ones(len(rows), dtype=bool)
    is_new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return rows[is_new]


def _group_names(mentions: Mentions, groups: NDArray[np.int64]) -> list[str]:
    if mentions.group_names is None:
        return [f"line {line}" for line in groups.tolist()]
    return [mentions.group_names[code] for code in groups.tolist()]


# -- what was left out -----------------------------------------------------------------------------------------


def _unknown_genomes(
    mentions: Mentions, genome_of_label: NDArray[np.int32], genome_ids: Sequence[str]
) -> list[LedgerRow]:
    named = mentions.label[mentions.label != NO_LABEL]
    counts = np.bincount(named, minlength=len(mentions.labels))
    return [
        LedgerRow(
            "homology_row", mentions.labels[i], "unknown_genome", close_names(mentions.labels[i], genome_ids), int(n)
        )
        for i, n in enumerate(counts)
        if n and genome_of_label[i] == UNKNOWN_GENOME
    ]


def _unmatched_genes(mentions: Mentions, found: _Found, genome_ids: Sequence[str]) -> list[LedgerRow]:
    counts = np.bincount(found.of_mention, minlength=len(found.way))
    first_line = np.full(len(found.way), np.iinfo(np.int64).max)
    np.minimum.at(first_line, found.of_mention, mentions.line)
    rows = np.flatnonzero((found.way == UNMATCHED) & (found.label != UNKNOWN_GENOME))
    return [
        LedgerRow(
            "homology_row",
            mentions.gene_ids[found.text[i]],
            "unmatched_gene",
            f"not a gene of {'any genome' if found.label[i] == NO_LABEL else genome_ids[found.label[i]]}; "
            f"first at line {first_line[i]}",
            int(counts[i]),
        )
        for i in rows
    ]


def _genes_in_two_groups(homology: Homology, indexes: Mapping[str, GenomeIds]) -> list[LedgerRow]:
    """List genes of several groups; the groups stay, the closure joins them."""
    order = np.lexsort((homology.group, homology.gene, homology.genome))
    genome, gene, group = homology.genome[order], homology.gene[order], homology.group[order]
    starts = np.flatnonzero(np.diff(genome, prepend=-1).astype(bool) | np.diff(gene, prepend=-1).astype(bool))
    sizes = np.diff(starts, append=len(order))
    several = sizes > 1
    tables = list(indexes.items())
    ledger = []
    for start, size in zip(starts[several].tolist(), sizes[several].tolist(), strict=True):
        genome_id, index = tables[genome[start]]
        names = [homology.group_names[g] for g in group[start : start + min(size, 5)].tolist()]
        shown = ", ".join(names) + (f" and {size - 5} more" if size > 5 else "")
        detail = f"{genome_id}; in {shown}, which become one component"
        ledger.append(LedgerRow("homology_row", index.gene_ids[gene[start]], "gene_in_two_groups", detail, size))
    return ledger


def _nothing_matched(
    url: str, layout: str, mentions: Mentions, is_known: NDArray[np.bool_], indexes: Mapping[str, GenomeIds]
) -> str:
    if not is_known.any():
        return (
            f"{url}: read as {layout}, it names the genomes {', '.join(mentions.labels[:8])}, none of which is among "
            f"{', '.join(list(indexes)[:8]) or 'no genomes'}; say which is which with column_genomes"
        )
    ids = [mentions.gene_ids[i] for i in dict.fromkeys(mentions.gene[is_known][:1000].tolist())]
    known = "; ".join(f"{name}: {', '.join(index.examples) or 'no genes'}" for name, index in list(indexes.items())[:3])
    remedy = (
        "give OrthoDB's genes table with genes_table"
        if layout == "orthodb" and not mentions.aliases
        else "translate the ids to those of the annotation, or pass protein ids through transcripts"
    )
    return (
        f"{url}: read as {layout}, not one of {int(is_known.sum())} gene ids is known; "
        f"the file has {', '.join(ids[:3])}, the genomes have {known}; {remedy}"
    )
