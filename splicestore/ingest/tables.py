"""From a parsed annotation to the tables of a genome: contigs, genes, transcripts, introns, sites."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.config import GenomeConfig
from splicestore.errors import InputError, close_names
from splicestore.kernels.intervals import expand_counts, pointers
from splicestore.kernels.sites import Introns, Sites, block_pointers, introns_of, merge_sites, sites_of
from splicestore.readers.aliases import resolve_contigs
from splicestore.readers.annotation import Annotation, select_transcripts
from splicestore.readers.fasta import FastaContig
from splicestore.schema import (
    BLOCK_BASES,
    KIND_ACCEPTOR,
    KIND_DONOR,
    SITE_CHUNK,
    SOURCE_ANNOTATION,
    SOURCE_JUNCTION,
    LedgerRow,
)
from splicestore.storage.columns import Column, ledger_columns, vocabulary_column

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Contigs:
    """Contigs in file order; a contig's bases are ``[offset, offset + length)`` of the genome."""

    names: tuple[str, ...]
    length: Int64
    aliases: Mapping[str, str]
    is_selection: bool = False
    """Whether ``chromosomes`` chose them: rows on other contigs say nothing about coordinates."""

    @property
    def offset(self) -> Int64:
        """First absolute base of each contig."""
        return pointers(self.length)[:-1]

    @property
    def n_bases(self) -> int:
        """Bases of all contigs."""
        return int(self.length.sum())

    @property
    def digest(self) -> str:
        """sha256 over names and lengths: usage rows are matched by contig name."""
        lines = (f"{name}\t{length}\n" for name, length in zip(self.names, self.length, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def index(self, name: str) -> int:
        """Row of a contig."""
        return self.names.index(name)


@dataclass(frozen=True, slots=True)
class GenomeTables:
    """All that is stored of a genome besides its bases; every position is absolute."""

    contigs: Contigs
    genes: pd.DataFrame
    """gene_id, symbol, biotype, contig (int32 row), start, end (absolute), strand; sorted by start."""
    transcripts: pd.DataFrame
    """Selected ones: transcript_id, gene (int32 row), strand."""
    exon_ptr: Int64
    exon_start: Int64
    exon_end: Int64
    introns: Introns
    """Kept introns, absolute; ``transcript`` is a row of ``transcripts``."""
    sites: Sites
    site_source: NDArray[np.uint8]
    ledger: tuple[LedgerRow, ...]
    counts: Mapping[str, int]
    """What came in: genes, transcripts, introns."""

    @property
    def site_digest(self) -> str:
        """sha256 over position, strand and kind: usage belongs to exactly one."""
        digest = hashlib.sha256()
        for values in (self.sites.position, self.sites.strand, self.sites.kind):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def columns(self) -> list[Column]:
        """Spell the tables as the small arrays of the genome group."""
        return [*self._contig_columns(), *self._gene_columns(), *self._site_columns(), *ledger_columns(self.ledger)]

    def _contig_columns(self) -> list[Column]:
        aliases = sorted(self.contigs.aliases.items())
        row = {name: i for i, name in enumerate(self.contigs.names)}
        return [
            Column("contig_name", self.contigs.names, "contig", "string"),
            Column("contig_length", self.contigs.length, "contig", "int64"),
            Column("contig_offset", self.contigs.offset, "contig", "int64"),
            Column("alias_name", [alias for alias, _ in aliases], "alias", "string"),
            Column(
                "alias_contig",
                np.array([row[name] for _, name in aliases], dtype=np.int32),
                "alias",
                "int32",
            ),
        ]

    def _gene_columns(self) -> list[Column]:
        genes, transcripts = self.genes, self.transcripts
        return [
            Column("gene_id", genes["gene_id"].tolist(), "gene", "string"),
            Column("gene_symbol", genes["symbol"].tolist(), "gene", "string"),
            vocabulary_column("gene_biotype", genes["biotype"].tolist(), "gene"),
            Column("gene_contig", genes["contig"].to_numpy(np.int32), "gene", "int32"),
            Column("gene_start", genes["start"].to_numpy(np.int64), "gene", "int64"),
            Column("gene_end", genes["end"].to_numpy(np.int64), "gene", "int64"),
            Column("gene_strand", genes["strand"].to_numpy(np.int8), "gene", "int8"),
            Column("transcript_id", transcripts["transcript_id"].tolist(), "transcript", "string"),
            Column("transcript_gene", transcripts["gene"].to_numpy(np.int32), "transcript", "int32"),
            Column("transcript_exon_ptr", self.exon_ptr, "transcript_edge", "int64"),
            Column("exon_start", self.exon_start, "exon", "int64"),
            Column("exon_end", self.exon_end, "exon", "int64"),
        ]

    def _site_columns(self) -> list[Column]:
        sites = self.sites
        return [
            Column("site_position", sites.position, "site", "int64", SITE_CHUNK),
            Column("site_strand", sites.strand, "site", "int8", SITE_CHUNK),
            Column("site_kind", sites.kind, "site", "uint8", SITE_CHUNK),
            Column("site_source", self.site_source, "site", "uint8", SITE_CHUNK),
            Column("site_gene_ptr", sites.gene_ptr, "site_edge", "int64", SITE_CHUNK),
            Column("site_gene_index", sites.gene_index, "site_gene_link", "int32", SITE_CHUNK),
            Column(
                "block_site_ptr",
                block_pointers(sites.position, self.contigs.n_bases, BLOCK_BASES),
                "block_edge",
                "int64",
            ),
        ]


def select_contigs(found: Sequence[FastaContig], config: GenomeConfig, aliases: Mapping[str, str]) -> Contigs:
    """Keep the contigs the configuration asks for, all of them by default.

    Raises
    ------
    InputError
        If a chromosome is asked for that the FASTA does not have.
    """
    names = [c.name for c in found]
    kept = set(names)
    if config.chromosomes is not None:
        resolved, unknown = resolve_contigs(config.chromosomes, names, aliases)
        if unknown:
            raise InputError(
                f"{config.fasta}: genome {config.genome_id} asks for chromosome {unknown[0]!r}, which is not in the "
                f"FASTA; {close_names(unknown[0], names)}"
            )
        kept = set(resolved.values())
    chosen = [c for c in found if c.name in kept]
    return Contigs(
        names=tuple(c.name for c in chosen),
        length=np.array([c.length for c in chosen], dtype=np.int64),
        aliases=_onto_contigs(aliases, [c.name for c in chosen]),
        is_selection=config.chromosomes is not None,
    )


def _onto_contigs(aliases: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Point every spelling of an alias table at the FASTA's, whichever column of the table that is."""
    spelled = sorted({*aliases, *aliases.values()} - set(names))
    return resolve_contigs(spelled, names, aliases)[0] if aliases else {}


def unannotated_tables(contigs: Contigs, observed: Sites | None = None) -> GenomeTables:
    """Tables of a genome without annotation."""
    empty = np.zeros(0, dtype=np.int64)
    genes = pd.DataFrame(
        {
            "gene_id": pd.Series([], dtype=object),
            "symbol": pd.Series([], dtype=object),
            "biotype": pd.Series([], dtype=object),
            "contig": np.zeros(0, np.int32),
            "start": empty,
            "end": empty,
            "strand": np.zeros(0, np.int8),
        }
    )
    transcripts = pd.DataFrame(
        {"transcript_id": pd.Series([], dtype=object), "gene": np.zeros(0, np.int32), "strand": np.zeros(0, np.int8)}
    )
    introns = Introns(empty, empty, empty)
    sites = sites_of(introns, np.zeros(0, np.int8), np.zeros(0, np.int32))
    sites, source = add_observed_sites(sites, observed)
    counts = {"genes": 0, "transcripts": 0, "introns": 0}
    return GenomeTables(
        contigs, genes, transcripts, np.zeros(1, np.int64), empty, empty, introns, sites, source, (), counts
    )


def annotated_tables(
    annotation: Annotation,
    contigs: Contigs,
    all_contigs: Sequence[FastaContig],
    config: GenomeConfig,
    observed: Sites | None,
) -> GenomeTables:
    """Place an annotation on the contigs and derive introns and sites.

    Raises
    ------
    InputError
        If features lie on contigs that the FASTA lacks or beyond a contig's end, unless
        ``missing_contigs`` is ``drop``.
    """
    ledger = list(annotation.ledger)
    widened = _widened_genes(annotation, ledger)
    gene_contig = _gene_contigs(widened, contigs, all_contigs, config, ledger)
    gene_kept = gene_contig >= 0
    gene_kept &= ~_past_the_end(widened, gene_contig, contigs, config, ledger)
    genes, new_row = _place_genes(widened, gene_contig, gene_kept, contigs)

    selected = select_transcripts(annotation, config.transcripts)
    transcript_gene = annotation.transcripts["gene"].to_numpy(np.int64)
    on_genome = gene_kept[transcript_gene] if len(transcript_gene) else np.zeros(0, dtype=bool)
    ledger += _transcript_rows(annotation, selected, on_genome, config.transcripts)
    keep = selected & on_genome
    gene_rows = new_row[transcript_gene[keep]]
    transcripts = pd.DataFrame(
        {
            "transcript_id": annotation.transcripts["transcript_id"].to_numpy(object)[keep],
            "gene": gene_rows.astype(np.int32),
            "strand": genes["strand"].to_numpy(np.int8)[gene_rows],
        }
    )
    exon_ptr, exon_start, exon_end = _take_exons(annotation, keep)
    exon_offset = np.repeat(contigs.offset[genes["contig"].to_numpy(np.int64)[gene_rows]], np.diff(exon_ptr))
    gaps = introns_of(exon_ptr, exon_start, exon_end)
    ledger += _short_intron_rows(gaps, transcripts, genes, contigs, config.min_intron)
    exon_start, exon_end = exon_start + exon_offset, exon_end + exon_offset
    introns = introns_of(exon_ptr, exon_start, exon_end)
    introns = introns.take(introns.end - introns.start >= config.min_intron)
    sites = sites_of(introns, transcripts["strand"].to_numpy(np.int8), transcripts["gene"].to_numpy(np.int32))
    sites, source = add_observed_sites(sites, observed)
    return GenomeTables(
        contigs=contigs,
        genes=genes,
        transcripts=transcripts,
        exon_ptr=exon_ptr,
        exon_start=exon_start,
        exon_end=exon_end,
        introns=introns,
        sites=sites,
        site_source=source,
        ledger=tuple(ledger),
        counts={"genes": len(annotation.genes), "transcripts": len(annotation.transcripts), "introns": len(gaps)},
    )


def add_observed_sites(sites: Sites, observed: Sites | None) -> tuple[Sites, NDArray[np.uint8]]:
    """Unite annotated sites with those that junction reads support; mark each with its sources."""
    if observed is None or len(observed) == 0:
        return sites, np.full(len(sites), SOURCE_ANNOTATION, dtype=np.uint8)
    site_of_link, _ = expand_counts(np.diff(sites.gene_ptr))
    merged = merge_sites(
        np.concatenate((sites.position, sites.position[site_of_link], observed.position)),
        np.concatenate((sites.strand, sites.strand[site_of_link], observed.strand)),
        np.concatenate((sites.kind, sites.kind[site_of_link], observed.kind)),
        np.concatenate((np.full(len(sites), -1), sites.gene_index, np.full(len(observed), -1))).astype(np.int32),
    )
    source = np.where(_contains(sites, merged), SOURCE_ANNOTATION, 0) | np.where(
        _contains(observed, merged), SOURCE_JUNCTION, 0
    )
    return merged, source.astype(np.uint8)


def _contains(some: Sites, among: Sites) -> NDArray[np.bool_]:
    def keys(s: Sites) -> Int64:
        return s.position * 2 + (s.strand > 0)

    return np.isin(keys(among), keys(some))


def n_sites_by_kind(sites: Sites) -> dict[str, int]:
    """Count donors and acceptors; a base that is both counts in both."""
    return {
        "donor": int(np.count_nonzero(sites.kind & KIND_DONOR)),
        "acceptor": int(np.count_nonzero(sites.kind & KIND_ACCEPTOR)),
    }


def _widened_genes(annotation: Annotation, ledger: list[LedgerRow]) -> pd.DataFrame:
    """Let every gene span its transcripts; rows that had to grow are in the ledger."""
    genes = annotation.genes.reset_index(drop=True).copy()
    gene = annotation.transcripts["gene"].to_numpy(np.int64)
    has_exons = np.diff(annotation.exon_ptr) > 0
    start, end = genes["start"].to_numpy(np.int64).copy(), genes["end"].to_numpy(np.int64).copy()
    if has_exons.any():
        firsts = annotation.exon_start[annotation.exon_ptr[:-1][has_exons]]
        lasts = annotation.exon_end[annotation.exon_ptr[1:][has_exons] - 1]
        np.minimum.at(start, gene[has_exons], firsts)
        np.maximum.at(end, gene[has_exons], lasts)
    grown = np.flatnonzero((start < genes["start"]) | (end > genes["end"]))
    ledger += [
        LedgerRow("gene", str(genes["gene_id"][i]), "gene_widened_to_transcripts",
                  f"{genes['start'][i]}-{genes['end'][i]} became {start[i]}-{end[i]}")
        for i in grown
    ]  # fmt: skip
    genes["start"], genes["end"] = start, end
    return genes


def _gene_contigs(
    genes: pd.DataFrame, contigs: Contigs, found: Sequence[FastaContig], config: GenomeConfig, ledger: list[LedgerRow]
) -> Int64:
    """Row of the contig each gene lies on; -1 where it is not part of the genome."""
    names = [c.name for c in found]
    spelled = sorted(set(genes["contig"]))
    resolved, unknown = resolve_contigs(spelled, names, contigs.aliases)
    if unknown and config.missing_contigs == "error":
        n_genes = int(genes["contig"].isin(unknown).sum())
        raise InputError(
            f"{config.annotation}: {len(unknown)} contigs ({n_genes} genes) are not in {config.fasta}, first "
            f"{unknown[0]!r}; {close_names(unknown[0], names)}. Name a table in `aliases`, or set "
            f"`missing_contigs: drop` for genome {config.genome_id} to record them in the ledger"
        )
    row = {name: i for i, name in enumerate(contigs.names)}
    contig = np.array([row.get(resolved.get(c, ""), -1) for c in genes["contig"]], dtype=np.int64)
    missing = set(unknown)
    for i in np.flatnonzero(contig < 0):
        name = str(genes["contig"][i])
        reason = "contig_not_in_fasta" if name in missing else "chromosome_not_selected"
        ledger.append(LedgerRow("gene", str(genes["gene_id"][i]), reason, name))
    return contig


def _past_the_end(
    genes: pd.DataFrame, gene_contig: Int64, contigs: Contigs, config: GenomeConfig, ledger: list[LedgerRow]
) -> NDArray[np.bool_]:
    length = np.where(gene_contig >= 0, contigs.length[np.maximum(gene_contig, 0)], np.iinfo(np.int64).max)
    past = (genes["end"].to_numpy(np.int64) > length) | ((genes["start"].to_numpy(np.int64) < 0) & (gene_contig >= 0))
    rows = np.flatnonzero(past)
    if len(rows) and config.missing_contigs == "error":
        i = rows[0]
        raise InputError(
            f"{config.annotation}: {len(rows)} of {len(genes)} genes end past their contig, first "
            f"{genes['gene_id'][i]} at {genes['contig'][i]}:{genes['start'][i]}-{genes['end'][i]} (contig length "
            f"{length[i]} in {config.fasta}); is this the annotation of another assembly? Set `missing_contigs: drop` "
            f"for genome {config.genome_id} to record them in the ledger"
        )
    ledger += [
        LedgerRow(
            "gene",
            str(genes["gene_id"][i]),
            "past_contig_end",
            f"{genes['contig'][i]}:{genes['start'][i]}-{genes['end'][i]}",
        )
        for i in rows
    ]
    return past


def _place_genes(
    genes: pd.DataFrame, gene_contig: Int64, kept: NDArray[np.bool_], contigs: Contigs
) -> tuple[pd.DataFrame, Int64]:
    """Absolute coordinates, sorted by (start, end, id); also the new row of each old one (-1: dropped)."""
    offset = contigs.offset[np.maximum(gene_contig, 0)] if len(contigs.length) else np.zeros(len(genes), np.int64)
    placed = pd.DataFrame(
        {
            "gene_id": genes["gene_id"].astype(object),
            "symbol": genes["symbol"].fillna("").astype(object),
            "biotype": genes["biotype"].fillna("").astype(object),
            "contig": gene_contig.astype(np.int32),
            "start": genes["start"].to_numpy(np.int64) + offset,
            "end": genes["end"].to_numpy(np.int64) + offset,
            "strand": genes["strand"].to_numpy(np.int8),
            "old": np.arange(len(genes)),
        }
    )[kept]
    placed = placed.sort_values(["start", "end", "gene_id"], kind="stable", ignore_index=True)
    new_row = np.full(len(genes), -1, dtype=np.int64)
    new_row[placed.pop("old").to_numpy()] = np.arange(len(placed))
    return placed, new_row


def _transcript_rows(
    annotation: Annotation, selected: NDArray[np.bool_], on_genome: NDArray[np.bool_], policy: str
) -> list[LedgerRow]:
    ids = annotation.transcripts["transcript_id"].to_numpy(object)
    rows = [LedgerRow("transcript", str(i), "gene_dropped") for i in ids[~on_genome]]
    return rows + [
        LedgerRow("transcript", str(i), "not_selected", f"transcripts: {policy}") for i in ids[on_genome & ~selected]
    ]


def _take_exons(annotation: Annotation, keep: NDArray[np.bool_]) -> tuple[Int64, Int64, Int64]:
    counts = np.diff(annotation.exon_ptr)[keep]
    transcript, member = expand_counts(counts)
    rows = annotation.exon_ptr[:-1][keep][transcript] + member
    return pointers(counts), annotation.exon_start[rows], annotation.exon_end[rows]


def _short_intron_rows(
    gaps: Introns, transcripts: pd.DataFrame, genes: pd.DataFrame, contigs: Contigs, min_intron: int
) -> list[LedgerRow]:
    short = gaps.take(gaps.end - gaps.start < min_intron)
    rows = []
    for transcript, start, end in zip(short.transcript, short.start, short.end, strict=True):
        gene = genes.iloc[int(transcripts["gene"].iloc[transcript])]
        place = f"{contigs.names[gene['contig']]}:{start}-{end}:{'+' if gene['strand'] > 0 else '-'}"
        rows.append(
            LedgerRow(
                "intron", place, "short_intron", f"{end - start} bp in {transcripts['transcript_id'].iloc[transcript]}"
            )
        )
    return rows
