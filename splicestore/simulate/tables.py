"""Rows of usage and truth tables. Nothing is kept between genes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from splicestore.simulate.splicing import Counts, SpliceGraph

Int64 = NDArray[np.int64]
Codes = NDArray[np.uint8]

SPLISER_HEADER: Final = (
    "Sample\tRegion\tSite\tStrand\tGene\tSSE\talpha_count\tbeta1_count\tbeta2Simple_count\t"
    "beta2Cryptic_count\tbeta2_weighted\tPartners\tCompetitors\n"
)
SAMPLES_HEADER: Final = "genome_id\tsample\tfile\tcondition\tformat\n"
ORTHOLOGS_HEADER: Final = "ortholog_group\tgenome_id\tgene_id\n"
SITES_HEADER: Final = "contig\tposition\tstrand\tkind\tgene_id\tmotif"
"""Without its end: the conditions follow."""
GENES_HEADER: Final = "gene_id\tancestral_id\tcontig\tstart\tend\tstrand\torigin\tarrangement\tsilent_conditions\n"
EVENTS_HEADER: Final = "branch\tkind\tcontig\tancestral_ids\tdetail\n"

_STAR_MOTIFS: Final = {"GTAG": (1, 2), "GCAG": (3, 4), "ATAC": (5, 6)}
"""STAR's motif code of an intron on + and on -."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gene lies."""

    contig: str
    offset: int
    """Contig coordinate of the first base of the gene's locus."""
    strand: int
    gene_id: str

    @property
    def sign(self) -> str:
        """Strand as tables write it."""
        return "+" if self.strand > 0 else "-"


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A text row with the key that orders it within a locus."""

    key: tuple[int, int]
    text: str


def ancestral_id(family: int) -> str:
    """Name a gene family in the truth tables."""
    return f"ANC{family:06d}"


def group_name(family: int) -> str:
    """Name a gene family in the orthology table."""
    return f"OG{family:06d}"


def site_rows(graph: SpliceGraph, motif: Sequence[str], sse: NDArray[np.float64], place: Place) -> Iterator[ReadRow]:
    """Yield the truth of a gene's sites; positions are exon-boundary bases."""
    is_left = graph.is_donor == (place.strand > 0)
    base = (graph.boundary - is_left).tolist()
    for site, usage in enumerate(sse.tolist()):
        kind = "donor" if graph.is_donor[site] else "acceptor"
        values = "\t".join(f"{value:.4f}" for value in usage)
        text = f"{place.contig}\t{base[site]}\t{place.sign}\t{kind}\t{place.gene_id}\t{motif[site]}\t{values}\n"
        yield ReadRow((base[site], place.strand), text)


def spliser_rows(
    graph: SpliceGraph, counts: Counts, samples: Sequence[int], names: Sequence[str], place: Place
) -> Iterator[ReadRow]:
    """Yield a gene's rows of combined tables, one per detected site and sample; the key ends with the sample.

    Parameters
    ----------
    graph
        Boundaries in contig coordinates: SpliSER's Site is the half-open boundary itself.
    samples
        Columns of ``counts`` to write.
    names
        Of all samples.
    """
    boundary, reads = graph.boundary.tolist(), counts.junction.tolist()
    alphas, beta1s, beta2s = counts.alpha.tolist(), counts.beta1.tolist(), counts.beta2.tolist()
    for site in np.flatnonzero(counts.is_detected).tolist():
        partners, rivals = _partners_and_competitors(graph, counts, site)
        where = f"{place.contig}\t{boundary[site]}\t{place.sign}\t{place.gene_id}"
        for sample in samples:
            alpha, beta1, beta2 = alphas[site][sample], beta1s[site][sample], beta2s[site][sample]
            total = alpha + beta1 + beta2
            shared = {boundary[partner]: reads[junction][sample] for partner, junction in partners}
            yield ReadRow(
                (boundary[site], sample),
                f"{names[sample]}\t{where}\t{alpha / total if total else 0.0:.3f}\t"
                f"{alpha}\t{beta1}\t{beta2}\tNA\tNA\t{shared}\t{rivals}\n",
            )


def _partners_and_competitors(graph: SpliceGraph, counts: Counts, site: int) -> tuple[list[tuple[int, int]], list[int]]:
    """List (partner, junction) of a site, and the boundaries of sites that share a partner with it."""
    own, other = (graph.donor, graph.acceptor) if graph.is_donor[site] else (graph.acceptor, graph.donor)
    seen = counts.is_seen
    uses = np.flatnonzero((own == site) & seen)
    is_partner = np.zeros(graph.n_sites, dtype=bool)
    is_partner[other[uses]] = True
    rivals = graph.boundary[own[is_partner[other] & (own != site) & seen]]
    return list(zip(other[uses].tolist(), uses.tolist(), strict=True)), sorted(set(rivals.tolist()))


def star_rows(
    graph: SpliceGraph, counts: Counts, sample: int, introns: Sequence[str], place: Place
) -> Iterator[ReadRow]:
    """Yield a gene's rows of SJ.out.tab for one sample; introns are 1-based and closed there.

    Parameters
    ----------
    introns
        First two and last two bases of each junction's intron, in transcript orientation.
    """
    low, high = (bounds.tolist() for bounds in graph.intron_bounds())
    for junction in np.flatnonzero(counts.junction[:, sample]).tolist():
        reads = int(counts.junction[junction, sample])
        code = _STAR_MOTIFS.get(introns[junction], (0, 0))[place.strand < 0]
        yield ReadRow(
            (low[junction], high[junction]),
            f"{place.contig}\t{low[junction] + 1}\t{high[junction]}\t{1 if place.strand > 0 else 2}\t{code}\t"
            f"{int(graph.is_annotated[junction])}\t{reads}\t{reads // 40}\t{min(12 + 3 * reads, 60)}\n",
        )
