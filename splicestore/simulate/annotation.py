"""Gene models as GTF or GFF3 rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.simulate.loci import PlacedGene

Int64 = NDArray[np.int64]

SOURCE = "simulated"
NONCODING_EVERY = 12
"""One gene family in so many is a lncRNA."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """Exons of a transcript in contig coordinates, 0-based half-open, in order of transcription."""

    start: Int64
    end: Int64

    def exons(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of every exon."""
        yield from zip(self.start.tolist(), self.end.tolist(), strict=True)


@dataclass(frozen=True, slots=True)
class GeneModel:
    """A gene as the annotation tells it."""

    gene_id: str
    biotype: str
    contig: str
    start: int
    """0-based."""
    end: int
    strand: str
    transcripts: tuple[Transcript, ...]
    """The main one first."""


def biotype_of(family: int) -> str:
    """Biotype of a gene family."""
    return "lncRNA" if family % NONCODING_EVERY == NONCODING_EVERY - 1 else "protein_coding"


def gene_model(gene: PlacedGene, gene_id: str, contig: str) -> GeneModel:
    """Spell a placed gene's transcripts: the main one, and one for every alternative."""
    n = len(gene.start)
    every = np.arange(n)
    forms = [(every, gene.start, gene.end)]
    forms += [(every[every != exon], gene.start, gene.end) for exon in np.flatnonzero(gene.is_cassette)]
    for exon in np.flatnonzero(gene.alternative_end >= 0):
        forms.append((every, gene.start, np.where(every == exon, gene.alternative_end, gene.end)))
    for exon in np.flatnonzero(gene.alternative_start >= 0):
        forms.append((every, np.where(every == exon, gene.alternative_start, gene.start), gene.end))
    transcripts = []
    for exons, first, last in forms:
        low, high = (first, last) if gene.strand > 0 else (last, first)
        transcripts.append(Transcript(low[exons], high[exons]))
    start, end = gene.span
    return GeneModel(
        gene_id=gene_id,
        biotype=biotype_of(gene.family),
        contig=contig,
        start=start,
        end=end,
        strand="+" if gene.strand > 0 else "-",
        transcripts=tuple(transcripts),
    )


def transcript_id(gene_id: str, number: int) -> str:
    """Name a transcript of a gene, numbers from 1."""
    return f"{gene_id.replace('G', 'T', 1)}.{number}"


def gtf_rows(model: GeneModel) -> Iterator[str]:
    """Yield the rows of a gene as Ensembl's GTF has them."""
    gene = f'gene_id "{model.gene_id}"; gene_name "{model.gene_id}"; gene_biotype "{model.biotype}";'
    yield _row(model, "gene", model.start, model.end, gene)
    for number, transcript in enumerate(model.transcripts, start=1):
        name = transcript_id(model.gene_id, number)
        tag = ' tag "Ensembl_canonical";' if number == 1 else ""
        own = (
            f'{gene} transcript_id "{name}"; transcript_biotype "{model.biotype}";'
            f'{tag} transcript_support_level "{_support_level(model, number)}";'
        )
        start, end = int(transcript.start.min()), int(transcript.end.max())
        yield _row(model, "transcript", start, end, own)
        for exon, (low, high) in enumerate(transcript.exons(), start=1):
            yield _row(model, "exon", low, high, f'{own} exon_number "{exon}";')


def gff3_rows(model: GeneModel) -> Iterator[str]:
    """Yield the rows of a gene as Ensembl's GFF3 has them."""
    coding = model.biotype == "protein_coding"
    kind = "gene" if coding else "ncRNA_gene"
    gene = f"ID=gene:{model.gene_id};Name={model.gene_id};biotype={model.biotype};gene_id={model.gene_id}"
    yield _row(model, kind, model.start, model.end, gene)
    for number, transcript in enumerate(model.transcripts, start=1):
        name = transcript_id(model.gene_id, number)
        tag = "tag=Ensembl_canonical;" if number == 1 else ""
        own = (
            f"ID=transcript:{name};Parent=gene:{model.gene_id};biotype={model.biotype};{tag}"
            f"transcript_id={name};transcript_support_level={_support_level(model, number)}"
        )
        start, end = int(transcript.start.min()), int(transcript.end.max())
        yield _row(model, "mRNA" if coding else "lnc_RNA", start, end, own)
        for exon, (low, high) in enumerate(transcript.exons(), start=1):
            yield _row(model, "exon", low, high, f"Parent=transcript:{name};rank={exon}")
    yield "###\n"


def _row(model: GeneModel, kind: str, start: int, end: int, attributes: str) -> str:
    return f"{model.contig}\t{SOURCE}\t{kind}\t{start + 1}\t{end}\t.\t{model.strand}\t.\t{attributes}\n"


def _support_level(model: GeneModel, number: int) -> str:
    if len(model.transcripts[0].start) == 1:
        return "NA"
    return "1" if number == 1 else "2"
