"""The whole rule of a split, without any store: genomes and homology in, one table out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.schema import SUBSET_TRAIN
from splicestore.split.assign import GeneSubsets, assign_genes, check_reference
from splicestore.split.chromosomes import chromosome_subsets
from splicestore.split.extend import NOT_ASSIGNED, check_extendable, extend_genes, old_gene_codes, settled_windows
from splicestore.split.homology import HomologyEdges, HomologyRows, gene_components, homology_edges
from splicestore.split.values import (
    Codes,
    GeneTable,
    GenomeLayout,
    SplitOptions,
    SplitTable,
    WindowTiles,
    gene_table,
)
from splicestore.split.windows import GenelessRule, SettledWindows, WindowSubsets, WindowTask


@dataclass(frozen=True, slots=True)
class SplitResult:
    """A finished split before it is published."""

    table: SplitTable
    genes: GeneTable
    assigned: GeneSubsets
    edges: HomologyEdges
    inherited: NDArray[np.bool_]
    """(n_genes,) bool, genes placed by the split that is extended."""
    n_vanished: int


def make_split(
    layouts: tuple[GenomeLayout, ...],
    options: SplitOptions,
    homology: Iterable[HomologyRows],
    run: Callable[[Sequence[WindowTask]], Sequence[tuple[WindowTiles, WindowSubsets]]],
    old: SplitTable | None = None,
) -> SplitResult:
    """Split genomes: the whole rule, without any store.

    Parameters
    ----------
    layouts
        Contigs and genes, sorted by genome id.
    options
        How to split.
    homology
        Rows of any number of tables.
    run
        Runs one task per genome and returns each genome's windows with their subsets, in the order of tasks.
        Tasks come with empty ``tiles``: whoever runs them reads the windows where they run.
    old
        The split to extend.
    """
    genes = gene_table(layouts)
    edges = homology_edges(genes, list(homology))
    if old is not None:
        check_extendable(old, options, genes.genome_ids)
    contig_subset = _reference_contigs(genes, layouts, options)
    assigned = assign_genes(genes, gene_components(genes, edges), options, contig_subset)
    inherited = np.zeros(len(genes), dtype=np.bool_)
    if old is not None:
        assigned = extend_genes(genes, assigned, old)
        inherited = old_gene_codes(genes, old)[0] != NOT_ASSIGNED
    tasks, n_gone = _window_tasks(layouts, genes, assigned, options, contig_subset, old)
    done = list(run(tasks))
    n_vanished = n_gone + sum(subsets.n_vanished for _, subsets in done)
    table = _stack_table(layouts, genes, assigned, options, done)
    return SplitResult(table, genes, assigned, edges, inherited, n_vanished)


def _reference_contigs(genes: GeneTable, layouts: Sequence[GenomeLayout], options: SplitOptions) -> Codes | None:
    reference = check_reference(options, genes)
    if options.mode == "fractions" or reference is None:
        return None
    return chromosome_subsets(options, layouts[reference])


_NO_TILES = WindowTiles(
    contig=np.zeros(0, dtype=np.int32),
    start=np.zeros(0, dtype=np.int64),
    strand=np.zeros(0, dtype=np.int8),
    gene_ptr=np.zeros(1, dtype=np.int64),
    gene_index=np.zeros(0, dtype=np.int32),
)


def _window_tasks(
    layouts: Sequence[GenomeLayout],
    genes: GeneTable,
    assigned: GeneSubsets,
    options: SplitOptions,
    contig_subset: Codes | None,
    old: SplitTable | None,
) -> tuple[list[WindowTask], int]:
    tasks, n_gone = [], 0
    for genome, layout in enumerate(layouts):
        settled: SettledWindows | None = None
        if old is not None:
            settled, n_lost = settled_windows(old, layout)
            n_gone += n_lost
        tasks.append(
            WindowTask(
                layout=layout,
                tiles=_NO_TILES,
                gene_subset=assigned.subset[genes.rows(genome)],
                gene_reason=assigned.reason[genes.rows(genome)],
                geneless=_geneless_rule(layout, options, contig_subset),
                window_size=options.window_size,
                context_size=options.context_size,
                guard=options.guard,
                settled=settled,
            )
        )
    return tasks, n_gone


def _geneless_rule(layout: GenomeLayout, options: SplitOptions, contig_subset: Codes | None) -> GenelessRule:
    if contig_subset is None:
        return GenelessRule(seed=options.seed, test_share=options.test_share, val_share=options.val_share)
    if layout.genome_id == options.reference_genome:
        return GenelessRule(contig_subset=contig_subset)
    return GenelessRule(contig_subset=np.full(len(layout.contig_name), SUBSET_TRAIN, dtype=np.uint8))


def _stack_table(
    layouts: Sequence[GenomeLayout],
    genes: GeneTable,
    assigned: GeneSubsets,
    options: SplitOptions,
    done: list[tuple[WindowTiles, WindowSubsets]],
) -> SplitTable:
    n_windows = np.array([len(tiles) for tiles, _ in done], dtype=np.int64)
    n_contigs = [len(layout.contig_name) for layout in layouts]
    n_links = np.array([len(tiles.gene_index) for tiles, _ in done], dtype=np.int64)
    first_link = np.concatenate(([0], np.cumsum(n_links))).astype(np.int64)
    ptr = [tiles.gene_ptr[1:] + first_link[g] for g, (tiles, _) in enumerate(done)]
    links = [(tiles.gene_index + genes.first_gene[g]).astype(np.int32) for g, (tiles, _) in enumerate(done)]
    names = np.empty(sum(n_contigs), dtype=object)
    names[:] = [name for layout in layouts for name in layout.contig_name]
    ids = np.arange(len(layouts), dtype=np.int16)
    return SplitTable(
        window_size=options.window_size,
        context_size=options.context_size,
        guard=options.guard,
        seed=options.seed,
        mode=options.mode,
        genome_ids=genes.genome_ids,
        genome_generations=tuple(layout.generation for layout in layouts),
        contig_genome=np.repeat(ids, n_contigs),
        contig_name=names,
        contig_offset=np.concatenate([layout.contig_offset for layout in layouts]),
        contig_length=np.concatenate([layout.contig_length for layout in layouts]),
        window_genome=np.repeat(ids, n_windows),
        window_contig=np.concatenate([tiles.contig for tiles, _ in done]),
        window_start=np.concatenate([tiles.start for tiles, _ in done]),
        window_strand=np.concatenate([tiles.strand for tiles, _ in done]),
        window_subset=np.concatenate([subsets.subset for _, subsets in done]),
        window_reason=np.concatenate([subsets.reason for _, subsets in done]),
        window_has_gene=np.concatenate([subsets.has_gene for _, subsets in done]),
        window_gene_ptr=np.concatenate([np.zeros(1, dtype=np.int64), *ptr]),
        window_gene_index=np.concatenate(links),
        gene_genome=genes.genome,
        gene_id=genes.gene_id,
        gene_subset=assigned.subset,
        gene_reason=assigned.reason,
        gene_component=assigned.component,
    )
