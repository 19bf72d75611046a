"""Hypothesis strategies for tiny genomes, and writers that spell them as the files real genomes come in.

A ``TinyGenome`` is the truth: contigs as strings and genes as lists of exons, 0-based half-open. It is written to
FASTA and to GTF or GFF3 in one of many spellings, and handed to the oracles without any file in between.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.oracles import genome_oracle

Exons = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TinyTranscript:
    transcript_id: str
    exons: Exons
    """In ascending order; neighbours may touch or overlap."""


@dataclass(frozen=True)
class TinyGene:
    gene_id: str
    contig: str
    strand: int
    start: int
    end: int
    """Of the gene row, which may be wider or narrower than the transcripts."""
    transcripts: tuple[TinyTranscript, ...]


@dataclass(frozen=True)
class Spelling:
    """How a genome is written; none of it changes what the genome is, but for ``gene_rows`` (see ``truth``)."""

    annotation: str = "gtf"
    gene_rows: bool = True
    transcript_rows: bool = True
    exon_rows: bool = True
    """Without, exons are spelled as CDS and UTR."""
    line_width: int = 60
    gzipped: bool = False
    seed: int = 0
    """Of the letter case, the letters that stand for N, and the order of rows."""


@dataclass(frozen=True)
class TinyGenome:
    contigs: tuple[tuple[str, str], ...]
    genes: tuple[TinyGene, ...]
    spelling: Spelling = Spelling()
    min_intron: int = 1

    def truth(self) -> genome_oracle.Genome:
        """The genome as the oracles see it; genes without a row are known by their transcripts only."""
        rows = {
            gene.gene_id: {"contig": gene.contig, "strand": gene.strand, "start": gene.start, "end": gene.end}
            for gene in self.genes
        }
        transcripts = [
            {
                "id": transcript.transcript_id,
                "gene_id": gene.gene_id,
                "contig": gene.contig,
                "strand": gene.strand,
                "exons": genome_oracle.merge_pieces(list(transcript.exons)),
            }
            for gene in self.genes
            for transcript in gene.transcripts
        ]
        gene_rows = rows if self.spelling.gene_rows else {}
        return genome_oracle.make_genome(dict(self.contigs), transcripts, gene_rows, self.min_intron)

    def mirrored(self) -> TinyGenome:
        """The reverse complement of every contig, with the annotation on it."""
        length = {name: len(bases) for name, bases in self.contigs}
        genes = []
        for gene in self.genes:
            size = length[gene.contig]
            transcripts = tuple(
                replace(t, exons=tuple((size - end, size - start) for start, end in reversed(t.exons)))
                for t in gene.transcripts
            )
            genes.append(
                replace(
                    gene, strand=-gene.strand, start=size - gene.end, end=size - gene.start, transcripts=transcripts
                )
            )
        contigs = tuple((name, genome_oracle.reverse_complement(bases)) for name, bases in self.contigs)
        return replace(self, contigs=contigs, genes=tuple(genes))

    def write(self, folder: Path, name: str = "genome") -> dict[str, Any]:
        """Write FASTA and annotation; returns the keywords of a ``GenomeConfig``."""
        folder.mkdir(parents=True, exist_ok=True)
        random = Random(self.spelling.seed)
        fasta = _write_text(folder / f"{name}.fa", self._fasta(random), self.spelling.gzipped)
        lines = self._gtf(random) if self.spelling.annotation == "gtf" else self._gff3(random)
        document = {"genome_id": name, "fasta": str(fasta), "min_intron": self.min_intron}
        if lines:
            suffix = "gtf" if self.spelling.annotation == "gtf" else "gff3"
            text = "".join(line + "\n" for line in lines)
            annotation = _write_text(folder / f"{name}.{suffix}", text, self.spelling.gzipped)
            document["annotation"] = str(annotation)
        return document

    def _fasta(self, random: Random) -> str:
        width = self.spelling.line_width
        lines = []
        for name, bases in self.contigs:
            lines.append(f">{name} some words\n")
            spelled = "".join(_spell_base(base, random) for base in bases)
            lines += [spelled[at : at + width] + "\n" for at in range(0, len(spelled), width)]
        return "".join(lines)

    def _gtf(self, random: Random) -> list[str]:
        rows = []
        for gene in self.genes:
            named = f'gene_id "{gene.gene_id}"; gene_name "a; b";'
            if self.spelling.gene_rows:
                rows.append(_row(gene, "gene", gene.start, gene.end, named))
            for transcript in gene.transcripts:
                attributes = f'transcript_id "{transcript.transcript_id}"; {named}'
                if self.spelling.transcript_rows:
                    rows.append(_row(gene, "transcript", *_span(transcript), attributes))
                for feature, start, end in self._pieces(transcript, random):
                    rows.append(_row(gene, feature, start, end, attributes))
        random.shuffle(rows)
        return rows and ["#!a comment with gene_id", *rows]

    def _gff3(self, random: Random) -> list[str]:
        rows = []
        for gene in self.genes:
            if self.spelling.gene_rows:
                rows.append(_row(gene, "gene", gene.start, gene.end, f"ID=gene:{gene.gene_id};Name=a%3Bb"))
            for transcript in gene.transcripts:
                name = f"transcript:{transcript.transcript_id}"
                rows.append(_row(gene, "mRNA", *_span(transcript), f"ID={name};Parent=gene:{gene.gene_id}"))
                for feature, start, end in self._pieces(transcript, random):
                    rows.append(_row(gene, feature, start, end, f"Parent={name}"))
        random.shuffle(rows)
        return rows and ["##gff-version 3", *rows, "##FASTA", ">inside", "ACGT"]

    def _pieces(self, transcript: TinyTranscript, random: Random) -> list[tuple[str, int, int]]:
        """Rows that add up to the exons: exon rows (and CDS rows inside them), or CDS and UTR rows that tile them."""
        pieces = []
        for start, end in transcript.exons:
            if self.spelling.exon_rows:
                pieces.append(("exon", start, end))
                if random.random() < 0.5:
                    pieces.append(("CDS", start, random.randint(start + 1, end)))
            else:
                middle = random.randint(start, end)
                pieces += [(f, a, b) for f, a, b in (("five_prime_UTR", start, middle), ("CDS", middle, end)) if a < b]
        return pieces


def _spell_base(base: str, random: Random) -> str:
    letter = random.choice("NNNRYSWKMBDHV") if base == "N" else base
    return letter.lower() if random.random() < 0.3 else letter


def _span(transcript: TinyTranscript) -> tuple[int, int]:
    return min(start for start, _ in transcript.exons), max(end for _, end in transcript.exons)


def _row(gene: TinyGene, feature: str, start: int, end: int, attributes: str) -> str:
    sign = "+" if gene.strand == 1 else "-"
    return "\t".join((gene.contig, "tiny", feature, str(start + 1), str(end), ".", sign, ".", attributes))


def _write_text(path: Path, text: str, gzipped: bool) -> Path:
    if gzipped:
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text)
    return path


# -- strategies ----------------------------------------------------------------------------------------------------


@st.composite
def bases(draw: st.DrawFn, length: int) -> str:
    """Random bases with up to two runs of N; motifs at introns do not matter to a tiny genome."""
    random = draw(st.randoms(use_true_random=False))
    letters = random.choices("ACGT", k=length)
    for _ in range(draw(st.integers(0, 2))):
        at = random.randrange(length)
        run = random.randint(1, 12)
        letters[at : at + run] = "N" * len(letters[at : at + run])
    return "".join(letters)


@st.composite
def exon_chains(draw: st.DrawFn, low: int, high: int) -> Exons:
    """1 to 4 exons inside [low, high): exons from 1 bp, gaps from 1 bp; some exons touch or overlap."""
    at = draw(st.integers(low, high - 1))
    exons = []
    for _ in range(draw(st.integers(1, 4))):
        end = min(high, at + draw(st.sampled_from([1, 1, 2, 3, 7, 20, 45])))
        exons.append((at, end))
        at = end + draw(st.sampled_from([-1, 0, 1, 1, 2, 4, 5, 6, 11, 30]))
        if at >= high:
            break
    return tuple(exons)


@st.composite
def tiny_genes(draw: st.DrawFn, gene_id: str, contigs: tuple[tuple[str, str], ...], gene_rows: bool) -> TinyGene:
    """A gene on any strand; with gene rows also one without transcripts, or with a row of another width."""
    contig, text = draw(st.sampled_from(contigs))
    low = draw(st.integers(0, len(text) - 1))
    high = draw(st.integers(low + 1, len(text)))
    n_transcripts = draw(st.integers(0 if gene_rows else 1, 4))
    chains = [draw(exon_chains(low, high)) for _ in range(n_transcripts)]
    transcripts = tuple(TinyTranscript(f"{gene_id}.t{n}", chain) for n, chain in enumerate(chains))
    strand = draw(st.sampled_from([1, -1]))
    if transcripts:
        start = min(chain[0][0] for chain in chains)
        end = max(stop for chain in chains for _, stop in chain)
        how = draw(st.sampled_from(["exact", "exact", "wide", "narrow"])) if gene_rows else "exact"
        if how == "wide":
            start, end = low, high
        elif how == "narrow":
            end = start + 1
    else:
        start, end = low, high
    return TinyGene(gene_id, contig, strand, start, end, transcripts)


@st.composite
def spellings(draw: st.DrawFn) -> Spelling:
    annotation = draw(st.sampled_from(["gtf", "gff3"]))
    return Spelling(
        annotation=annotation,
        # A GFF3 transcript names its gene by a row; without, GFF3 has no way to say which gene it is.
        gene_rows=annotation == "gff3" or draw(st.booleans()),
        transcript_rows=draw(st.booleans()),
        exon_rows=draw(st.booleans()),
        line_width=draw(st.integers(1, 80)),
        gzipped=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
    )


@st.composite
def tiny_genomes(
    draw: st.DrawFn, *, max_genes: int = 6, min_genes: int = 0, multiple_of: int = 1, prefix: str = "g"
) -> TinyGenome:
    """2 or 3 contigs of 30 to 400 bp with 0 to 6 genes; contig lengths are multiples of ``multiple_of``."""
    contigs = []
    for number in range(draw(st.integers(2, 3))):
        length = draw(st.one_of(st.integers(30, 60), st.integers(30, 400)))
        length = max(1, length // multiple_of) * multiple_of
        contigs.append((f"chr{number + 1}", draw(bases(length))))
    spelling = draw(spellings())
    n_genes = draw(st.integers(min_genes, max_genes))
    genes = [draw(tiny_genes(f"{prefix}{n}", tuple(contigs), spelling.gene_rows)) for n in range(n_genes)]
    min_intron = draw(st.sampled_from([1, 1, 2, 5]))
    return TinyGenome(tuple(contigs), tuple(genes), spelling, min_intron)


@st.composite
def window_requests(draw: st.DrawFn) -> dict[str, Any]:
    """W, K and how to tile and read; keywords of ``Genome.windows`` but for the sizes."""
    return {
        "window_size": draw(st.integers(1, 60)),
        "context_size": draw(st.integers(0, 40)),
        "region": draw(st.sampled_from(["gene", "sites", "genome"])),
        "anchor": draw(st.sampled_from(["grid", "region_start"])),
        "geneless": draw(st.booleans()),
        "minus": draw(st.sampled_from(["reverse_complement", "complement"])),
        "label_order": draw(st.sampled_from(["spliceai", "splicevo"])),
        "both": draw(st.sampled_from(["mask", "donor", "acceptor"])),
        "flank": draw(st.sampled_from(["genome", "N"])),
        "keep_empty": draw(st.sampled_from([True, True, False])),
        "min_reads": draw(st.sampled_from([0, 1, 10])),
        "alpha_threshold": draw(st.sampled_from([None, None, 5])),
    }


# -- usage ---------------------------------------------------------------------------------------------------------

COUNTS = st.integers(0, 30)


@st.composite
def junctions(
    draw: st.DrawFn, genome: genome_oracle.Genome, max_size: int = 12
) -> list[tuple[str, int, int, int, float]]:
    """Junctions (contig, start, end, strand, reads): introns, introns with one end moved, and any others."""
    names = list(genome["contigs"])
    introns = sorted(genome["introns"])
    found = []
    for _ in range(draw(st.integers(0, max_size))):
        if introns and draw(st.integers(0, 4)):
            contig, start, end, strand = draw(st.sampled_from(introns))
            other = draw(st.sampled_from(introns))
            if draw(st.booleans()) and other[0] == contig and other[2] > start:
                end = other[2]
        else:
            contig = draw(st.sampled_from(names))
            start = draw(st.integers(1, len(genome["contigs"][contig]) - 2))
            end = draw(st.integers(start + 1, len(genome["contigs"][contig]) - 1))
            strand = draw(st.sampled_from([1, -1]))
        strand = draw(st.sampled_from([strand, strand, strand, 0]))
        found.append((contig, start, end, strand, float(draw(st.integers(1, 20)))))
    return found


@st.composite
def boundary_rows(draw: st.DrawFn, genome: genome_oracle.Genome, convention: str) -> list[dict[str, Any]]:
    """Rows of one sample of a SpliSER-like table, each site at most once, and rows that lie on no site."""
    shift = {"spliser": 1, "splicevo": 2}[convention]
    rows = []
    for (contig, position, strand), kinds in sorted(genome["sites"].items()):
        if len(kinds) > 1 or not draw(st.integers(0, 3)):
            continue
        left = ("donor" in kinds) == (strand == 1)
        site = position + shift if left else position
        partners = draw(st.sampled_from([None, [site + 9] if left else [max(0, site - 3)]]))
        rows.append(_boundary(draw, contig, site, draw(st.sampled_from([strand, strand, 0])), partners))
    for contig in genome["contigs"]:
        site = draw(st.integers(0, len(genome["contigs"][contig]) + 3))
        rows.append(_boundary(draw, contig, site, draw(st.sampled_from([1, -1, 0])), None))
    return rows


def _boundary(draw: st.DrawFn, contig: str, site: int, strand: int, partners: list[int] | None) -> dict[str, Any]:
    counts = {name: draw(COUNTS) for name in ("alpha", "beta1", "beta2")}
    return {"contig": contig, "site": site, "strand": strand, "partners": partners, **counts}


SIGNS = {1: "+", -1: "-", 0: "?"}


def write_spliser(path: Path, samples: list[list[dict[str, Any]]]) -> Path:
    """A combined SpliSER table, one sample after another."""
    columns = (
        "Sample", "Region", "Site", "Strand", "Gene", "SSE", "alpha_count", "beta1_count", "beta2Simple_count", "Partners",
    )  # fmt: skip
    lines = ["\t".join(columns)]
    for number, rows in enumerate(samples):
        for row in rows:
            # What stands behind a colon is a read count, and must not be taken for a position.
            partners = "{" + ", ".join(f"{p}: 99999" for p in row["partners"] or []) + "}"
            values = (
                f"s{number}", row["contig"], row["site"], SIGNS[row["strand"]], "NA", "0.5", row["alpha"], row["beta1"],
                row["beta2"], partners,
            )  # fmt: skip
            lines.append("\t".join(str(value) for value in values))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_junctions(path: Path, rows: list[tuple[str, int, int, int, float]], format: str) -> Path:
    """Junctions as a plain table, as STAR's ``SJ.out.tab``, as regtools' BED12 or as hints."""
    lines = []
    if format == "junctions":
        lines.append("chrom\tstart0\tend\tstrand\treads")
    for contig, start, end, strand, reads in rows:
        n = int(reads)
        if format == "junctions":
            lines.append(f"{contig}\t{start}\t{end}\t{SIGNS[strand].replace('?', '.')}\t{n}")
        elif format == "star":
            code = {1: 1, -1: 2, 0: 0}[strand]
            lines.append(f"{contig}\t{start + 1}\t{end}\t{code}\t1\t1\t{n}\t7\t30")
        elif format == "regtools":
            left, right = min(start, 4), 3
            size = end + right - (start - left)
            lines.append(
                f"{contig}\t{start - left}\t{end + right}\tJ\t{n}\t{SIGNS[strand]}\t{start}\t{end}\t255,0,0\t2\t"
                f"{left},{right}\t0,{size - right}"
            )
        else:
            sign = SIGNS[strand].replace("?", ".")
            lines.append(f"{contig}\tb2h\tintron\t{start + 1}\t{end}\t0\t{sign}\t.\tmult={n};pri=4;src=E")
    path.write_text("".join(line + "\n" for line in lines))
    return path
