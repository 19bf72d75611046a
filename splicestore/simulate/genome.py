"""Write one genome of a study: bases, annotation, usage and truth, element by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.sequence import decode_bases
from splicestore.simulate import tables
from splicestore.simulate.annotation import gene_model, gff3_rows, gtf_rows
from splicestore.simulate.evolution import History, Layout
from splicestore.simulate.files import ByteSink, FastaSink
from splicestore.simulate.loci import Locus, LocusFactory, Piece, PlacedGene, SpacerFactory
from splicestore.simulate.motifs import UsageModel, site_log_odds
from splicestore.simulate.mutation import mutate
from splicestore.simulate.options import SimulateOptions
from splicestore.simulate.packed import GAP
from splicestore.simulate.seeds import Stream, random_stream
from splicestore.simulate.splicing import (
    SpliceGraph,
    draw_counts,
    expected_usage,
    intron_dinucleotides,
    site_windows,
    splice_graph,
    with_stray_junctions,
)
from splicestore.storage.outputs import OutputFolder

Floats = NDArray[np.float64]

GAP_LENGTH = 100
GAP_EVERY = 1_000_000
"""Mean distance of assembly gaps (runs of N between genes), in bp."""
P_HOUSEKEEPING = 0.45
P_SILENT_TISSUE, P_SILENT_CONDITION = 0.15, 0.04
GAMMA_SHAPE = 8.0
"""Of the biological scatter of coverage: reads are negative binomial with variance mean + mean^2 / 8."""


@dataclass(frozen=True, slots=True)
class PieceSource:
    """Draws any element as it is at the end of any path through the tree."""

    seed: int
    history: History
    loci: LocusFactory
    spacers: SpacerFactory
    branch_rates: tuple[float, ...]
    """Neutral substitutions per base on the branch above each node."""

    def piece(self, uid: int, path: Sequence[int]) -> Piece:
        """Draw the ancestral element and apply the mutations of each branch of the path."""
        element = self.history.element[uid]
        ancestor = self.history.elements[element]
        if isinstance(ancestor, Locus):
            piece = self.loci.build(element, ancestor)
        else:
            piece = self.spacers.build(element, ancestor)
        for branch, owner in self.history.mutation_keys(uid, path):
            rng = random_stream(self.seed, Stream.MUTATION, branch, owner)
            piece = mutate(rng, piece, self.branch_rates[branch])
        return piece


@dataclass(frozen=True, slots=True)
class GenomePlan:
    """What one genome is called and where its files go."""

    genome_id: str
    number: int
    """Index of the genome in the study."""
    options: SimulateOptions
    conditions: tuple[tuple[str, int], ...]
    """Tissue and timepoint."""
    model: UsageModel

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names as ``Tissue_timepoint``."""
        return tuple(f"{tissue}_{time}" for tissue, time in self.conditions)

    @property
    def fasta(self) -> str:
        """FASTA, relative to the study."""
        return f"genomes/{self.genome_id}.fa{self._suffix}"

    @property
    def annotation(self) -> str:
        """GTF or GFF3, relative to the study."""
        return f"annotation/{self.genome_id}.{self.options.annotation_format}{self._suffix}"

    @property
    def spliser_files(self) -> tuple[str, ...]:
        """Combined table of each condition; empty where none are asked for."""
        if self.options.usage_format == "star":
            return ()
        return tuple(f"usage/{self.genome_id}.{tissue}.{time}.combined.tsv" for tissue, time in self.conditions)

    @property
    def star_files(self) -> tuple[str, ...]:
        """SJ.out.tab of each sample; empty where none are asked for."""
        if self.options.usage_format == "spliser":
            return ()
        names = self.condition_names
        return tuple(f"usage/{self.genome_id}.{names[c]}.{rep}.SJ.out.tab" for c, rep in self.samples)

    @property
    def samples(self) -> tuple[tuple[int, int], ...]:
        """Condition and replicate (from 1) of each sample."""
        replicates = range(1, self.options.replicates + 1)
        return tuple((c, rep) for c in range(len(self.conditions)) for rep in replicates)

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Names of the samples."""
        names = self.condition_names
        return tuple(f"{self.genome_id}.{names[c]}.{rep}" for c, rep in self.samples)

    @property
    def _suffix(self) -> str:
        return ".gz" if self.options.compress else ""


@dataclass(slots=True)
class GenomeCounts:
    """Totals of a written genome."""

    n_bases: int = 0
    n_genes: int = 0
    n_sites: int = 0


@dataclass(slots=True)
class _LocusRows:
    """Rows of one locus, sorted before they are written: its genes may lie over each other."""

    sites: list[tables.ReadRow] = field(default_factory=list)
    spliser: dict[int, list[tables.ReadRow]] = field(default_factory=dict)
    """By condition."""
    star: dict[int, list[tables.ReadRow]] = field(default_factory=dict)
    """By sample."""


class GenomeWriter:
    """Streams one genome to its files."""

    def __init__(
        self,
        output: OutputFolder,
        plan: GenomePlan,
        source: PieceSource,
        path: tuple[int, ...],
        progress: Callable[[str], None],
    ) -> None:
        self.members: list[tuple[int, str]] = []
        """Family and gene id of every gene written."""
        self._output, self._plan, self._source, self._path, self._progress = output, plan, source, path, progress
        self._counts = GenomeCounts()
        self._files = ExitStack()
        self._sample_condition = np.array([condition for condition, _ in plan.samples], dtype=np.int64)
        library = random_stream(plan.options.seed, Stream.READS, plan.number)
        self._library_size = np.exp(library.normal(0.0, 0.15, len(plan.samples)))

    def write(self, layout: Layout) -> GenomeCounts:
        """Write all files of the genome."""
        with self._files:
            self._open_files()
            for number, contig in enumerate(layout, start=1):
                self._write_contig(f"chr{number}", contig.tolist())
        return self._counts

    def _open_files(self) -> None:
        plan, keep = self._plan, self._files.enter_context
        compress, is_gff3 = plan.options.compress, plan.options.annotation_format == "gff3"
        self._fasta = keep(FastaSink(keep(self._output.open_binary(plan.fasta)), compress=compress))
        self._annotation_rows = gff3_rows if is_gff3 else gtf_rows
        self._annotation = self._table(plan.annotation, "##gff-version 3\n" if is_gff3 else "#!simulated\n", compress)
        self._spliser = [self._table(name, tables.SPLISER_HEADER) for name in plan.spliser_files]
        self._star = [self._table(name, "") for name in plan.star_files]
        conditions = "\t".join(plan.condition_names)
        self._sites = self._table(f"truth/{plan.genome_id}.sites.tsv", f"{tables.SITES_HEADER}\t{conditions}\n")
        self._genes = self._table(f"truth/{plan.genome_id}.genes.tsv", tables.GENES_HEADER)

    def _table(self, name: str, header: str, compress: bool = False) -> ByteSink:
        sink = self._files.enter_context(
            ByteSink(self._files.enter_context(self._output.open_binary(name)), compress=compress)
        )
        sink.write(header)
        return sink

    def _write_contig(self, contig: str, order: list[int]) -> None:
        self._fasta.open_record(contig)
        length, n_genes = 0, self._counts.n_genes
        for signed in order:
            uid = abs(signed) - 1
            piece = self._source.piece(uid, self._path)
            if signed < 0:
                piece = piece.flipped()
            if piece.genes:
                self._write_genes(contig, length, uid, piece)
            else:
                self._add_gap(uid, piece)
            self._fasta.write(piece.code)
            length += len(piece.code)
        self._counts.n_bases += length
        n_genes = self._counts.n_genes - n_genes
        self._progress(f"{self._plan.genome_id}: {contig} {length:,} bases, {n_genes:,} genes")

    def _add_gap(self, uid: int, piece: Piece) -> None:
        """Turn some bases of a spacer into N, as where an assembler gave up."""
        rng = random_stream(self._plan.options.seed, Stream.GAP, self._plan.number, uid)
        if rng.random() < len(piece.code) / GAP_EVERY and len(piece.code) > 3 * GAP_LENGTH:
            start = int(rng.integers(GAP_LENGTH, len(piece.code) - 2 * GAP_LENGTH))
            piece.code[start : start + GAP_LENGTH] = GAP

    def _write_genes(self, contig: str, offset: int, uid: int, piece: Piece) -> None:
        rows = _LocusRows()
        origin = self._source.history.origin(uid)
        for rank, gene in enumerate(sorted(piece.genes, key=lambda g: g.span)):
            self._counts.n_genes += 1
            gene_id = f"{self._plan.genome_id}G{self._counts.n_genes:06d}"
            self.members.append((gene.family, gene_id))
            model = gene_model(gene.shifted(offset), gene_id, contig)
            self._annotation.write("".join(self._annotation_rows(model)))
            expression = self._expression(gene.family)
            silent = ",".join(n for n, e in zip(self._plan.condition_names, expression, strict=True) if e == 0)
            self._genes.write(
                f"{gene_id}\t{tables.ancestral_id(gene.family)}\t{contig}\t{model.start}\t{model.end}\t{model.strand}\t"
                f"{origin}\t{gene.role}\t{silent or '.'}\n"
            )
            if len(gene.start) > 1:
                place = tables.Place(contig, offset, gene.strand, gene_id)
                reads = random_stream(self._plan.options.seed, Stream.READS, self._plan.number, uid, rank)
                self._add_usage(rows, reads, gene, piece, place, expression)
        self._write_rows(rows)

    def _add_usage(
        self,
        rows: _LocusRows,
        rng: np.random.Generator,
        gene: PlacedGene,
        piece: Piece,
        place: tables.Place,
        expression: Floats,
    ) -> None:
        """Draw a gene's usage and reads and collect their rows."""
        plan = self._plan
        true_graph = splice_graph(gene)
        windows = site_windows(piece.code, true_graph.boundary, gene.strand)
        expected = expected_usage(true_graph, gene, site_log_odds(plan.model, windows, true_graph.is_donor))
        graph = with_stray_junctions(rng, true_graph, piece.code, gene.strand)
        windows = site_windows(piece.code, graph.boundary, gene.strand)
        motif = [decode_bases(bases) for bases in intron_dinucleotides(windows, graph.is_donor)]
        scatter = rng.gamma(GAMMA_SHAPE, 1.0 / GAMMA_SHAPE, len(self._sample_condition))
        own_level = np.exp(rng.normal(0.0, 0.3))
        coverage = plan.options.coverage * expression[self._sample_condition] * self._library_size * scatter * own_level
        counts = draw_counts(rng, graph, expected, coverage, self._sample_condition)
        self._counts.n_sites += true_graph.n_sites
        rows.sites += tables.site_rows(_on_contig(true_graph, place), motif, expected.sse, place)
        graph = _on_contig(graph, place)
        if self._spliser:
            expressed = np.flatnonzero(expression[self._sample_condition] > 0).tolist()
            for row in tables.spliser_rows(graph, counts, expressed, plan.sample_names, place):
                rows.spliser.setdefault(row.key[1] // plan.options.replicates, []).append(row)
        introns = [motif[d] + motif[a] for d, a in zip(graph.donor.tolist(), graph.acceptor.tolist(), strict=True)]
        for sample in range(len(self._star)):
            rows.star.setdefault(sample, []).extend(tables.star_rows(graph, counts, sample, introns, place))

    def _expression(self, family: int) -> Floats:
        """Draw a family's expression per condition, 1 is typical, 0 silent; all genomes share it."""
        conditions = self._plan.conditions
        tissues = list(dict.fromkeys(tissue for tissue, _ in conditions))
        tissue = np.array([tissues.index(name) for name, _ in conditions])
        rng = random_stream(self._plan.options.seed, Stream.EXPRESSION, family)
        level = rng.normal(-0.3, 1.1) + rng.normal(0.0, 0.7, len(tissues))[tissue]
        level += rng.normal(0.0, 0.25) * np.array([time - 1 for _, time in conditions])
        is_silent = (rng.random(len(tissues)) < P_SILENT_TISSUE)[tissue]
        is_silent |= rng.random(len(conditions)) < P_SILENT_CONDITION
        if rng.random() < P_HOUSEKEEPING:
            is_silent[:] = False
        return np.where(is_silent, 0.0, np.exp(np.clip(level, -5.0, 4.0)))

    def _write_rows(self, rows: _LocusRows) -> None:
        self._sites.write(_sorted_text(rows.sites))
        for condition, read_rows in rows.spliser.items():
            self._spliser[condition].write(_sorted_text(read_rows))
        for sample, read_rows in rows.star.items():
            self._star[sample].write(_sorted_text(read_rows))


def _on_contig(graph: SpliceGraph, place: tables.Place) -> SpliceGraph:
    return replace(graph, boundary=graph.boundary + place.offset)


def _sorted_text(rows: list[tables.ReadRow]) -> str:
    return "".join(row.text for row in sorted(rows, key=lambda row: row.key))
