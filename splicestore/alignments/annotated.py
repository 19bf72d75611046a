"""What an annotation adds: introns whose sites are counted whatever the reads say, and the genes that sites lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError, close_names
from splicestore.kernels.alignments import Int8, Int64
from splicestore.kernels.site_counts import SiteUsage
from splicestore.kernels.sites import introns_of
from splicestore.readers.aliases import resolve_contigs

NO_GENE = "NA"


@dataclass(frozen=True, slots=True)
class ContigAnnotation:
    """Introns and genes of one contig."""

    strand: Int8
    start: Int64
    end: Int64
    gene_id: NDArray[np.object_]
    """Of the genes, sorted by start."""
    gene_start: Int64
    gene_end: Int64
    gene_strand: Int8

    def introns_in(self, start: int, end: int) -> tuple[Int8, Int64, Int64]:
        """Introns with a boundary in ``[start, end)``: strand, start, end."""
        touches = ((self.start >= start) & (self.start < end)) | ((self.end >= start) & (self.end < end))
        return self.strand[touches], self.start[touches], self.end[touches]

    def genes_of(self, usage: SiteUsage) -> list[str]:
        """Gene that each site lies in, the one that starts last where several do; ``NA`` where none does."""
        reach = np.maximum.accumulate(self.gene_end) if len(self.gene_end) else self.gene_end
        candidate = np.searchsorted(self.gene_start, usage.position, side="right") - 1
        found = np.full(len(usage), -1, dtype=np.int64)
        open_rows = np.flatnonzero(candidate >= 0)
        while len(open_rows):
            gene, position, strand = candidate[open_rows], usage.position[open_rows], usage.strand[open_rows]
            fits = (self.gene_end[gene] >= position) & ((strand == 0) | (strand == self.gene_strand[gene]))
            found[open_rows[fits]] = gene[fits]
            candidate[open_rows] -= 1
            # No earlier gene reaches the site: it lies in none.
            goes_on = ~fits & (gene > 0) & (reach[np.maximum(gene - 1, 0)] >= position)
            open_rows = open_rows[goes_on]
        return [str(self.gene_id[g]) if g >= 0 else NO_GENE for g in found.tolist()]


def empty_annotation() -> ContigAnnotation:
    """Nothing annotated."""
    none, no_strand = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int8)
    return ContigAnnotation(no_strand, none, none, np.zeros(0, dtype=object), none, none, no_strand)


def read_annotated(
    url: str, contigs: Mapping[str, int], *, storage_options: Mapping[str, Any] | None = None
) -> dict[str, ContigAnnotation]:
    """Read introns and genes, on the contigs of the alignments.

    Names are matched as everywhere (``1`` for ``chr1``); genes on contigs that the alignments do not have are left out.

    Raises
    ------
    InputError
        If no contig of the annotation is known to the alignments, or it reaches past the end of one.
    """
    # Imports pandas, which takes longer than counting a small file; most runs have no annotation.
    from splicestore.readers.annotation import read_annotation

    annotation = read_annotation(url, storage_options=storage_options)
    genes = annotation.genes
    names = genes["contig"].to_numpy(dtype=object)
    mapping, _ = resolve_contigs(names, list(contigs))
    if not mapping:
        some = str(names[0])
        raise InputError(
            f"{url}: none of its contigs ({some}, ...) is in the alignments; {close_names(some, contigs)}: "
            "use the annotation of the genome the reads were aligned to"
        )
    contig = np.array([mapping.get(name, "") for name in names], dtype=object)
    introns = introns_of(annotation.exon_ptr, annotation.exon_start, annotation.exon_end)
    intron_gene = annotation.transcripts["gene"].to_numpy()[introns.transcript]
    start, end = genes["start"].to_numpy(), genes["end"].to_numpy()
    strand = genes["strand"].to_numpy().astype(np.int8)
    ids = genes["gene_id"].to_numpy(dtype=object)
    result = {}
    for name in dict.fromkeys(mapping.values()):
        ours = np.flatnonzero(contig == name)
        last = int(end[ours].max())
        if last > contigs[name]:
            raise InputError(
                f"{url}: reaches base {last:,} of {name}, which has {contigs[name]:,} in the alignments: another assembly? "
                "use the annotation of the genome the reads were aligned to"
            )
        ours = ours[np.argsort(start[ours], kind="stable")]
        rows = contig[intron_gene] == name
        result[name] = ContigAnnotation(
            strand[intron_gene[rows]], introns.start[rows], introns.end[rows],
            ids[ours], start[ours], end[ours], strand[ours],
        )  # fmt: skip
    return result
