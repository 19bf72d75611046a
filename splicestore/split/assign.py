"""From components of genes to the subset of every gene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import SplitError, close_names
from splicestore.kernels.seeded_hash import as_fraction, seeded_hash
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_TEST, SUBSET_TRAIN, SUBSET_VAL
from splicestore.split.values import (
    REASON_CONFLICT,
    REASON_NONE,
    REASON_UNASSIGNED,
    Codes,
    Conflict,
    GeneTable,
    SplitOptions,
    subset_of_draw,
)

N_SIDES = 3
"""Subsets with windows in them: train, val, test, whose codes rise with their strength."""


@dataclass(frozen=True, slots=True)
class GeneSubsets:
    """The subset of every gene, and what the policies had to decide."""

    component: NDArray[np.int32]
    """(n_genes,) int32."""
    subset: Codes
    """(n_genes,) uint8."""
    reason: Codes
    """(n_genes,) uint8, 0 where not excluded."""
    n_conflicts: int = 0
    """Components with reference genes on chromosomes of more than one subset."""
    n_unassigned: int = 0
    """Components without a reference gene (0 with fractions)."""
    bridges: tuple[tuple[str, str, str], ...] = ()
    """(genome, gene_id, subsets) of new genes that bridge subsets of the split that is extended."""


def check_reference(options: SplitOptions, genes: GeneTable) -> int | None:
    """Return the reference genome's index, None where no genome was named.

    Raises
    ------
    SplitError
        If the genome is unknown.
    """
    name = options.reference_genome
    if name is None:
        return None
    if name not in genes.genome_ids:
        raise SplitError(f"reference genome {name!r} is not part of the split; {close_names(name, genes.genome_ids)}")
    return genes.genome_ids.index(name)


def assign_genes(
    genes: GeneTable, component: NDArray[np.int32], options: SplitOptions, reference_contig_subset: Codes | None
) -> GeneSubsets:
    """Assign whole components.

    Parameters
    ----------
    genes
        Genes of all genomes.
    component : (n_genes,) int32
        From ``gene_components``.
    options
        Mode, policies, fractions, seed.
    reference_contig_subset : (n_contigs,) uint8
        Subset of each contig of the reference genome; None with fractions.

    Returns
    -------
    GeneSubsets
        All genes of a component have the same subset and reason.
    """
    if reference_contig_subset is None:
        drawn = draw_components(genes, component, options, options.test_share, options.val_share)
        return GeneSubsets(component=component, subset=drawn[component], reason=_no_reason(len(genes)))
    return _by_chromosomes(genes, component, options, reference_contig_subset)


def _no_reason(n: int) -> Codes:
    return np.full(n, REASON_NONE, dtype=np.uint8)


def _by_chromosomes(
    genes: GeneTable, component: NDArray[np.int32], options: SplitOptions, contig_subset: Codes
) -> GeneSubsets:
    reference = genes.rows(genes.genome_ids.index(str(options.reference_genome)))
    declared = contig_subset[genes.contig[reference]]
    votes = count_sides(component[reference], declared, n_components(component))
    n_sides = (votes > 0).sum(axis=1)
    subset = _settle(votes, options.conflict)
    reason = _no_reason(len(subset))
    if options.conflict == "drop":
        subset[n_sides > 1] = SUBSET_EXCLUDED
        reason[n_sides > 1] = REASON_CONFLICT
    orphans = n_sides == 0
    subset[orphans] = SUBSET_TRAIN
    if options.unassigned == "drop":
        subset[orphans] = SUBSET_EXCLUDED
        reason[orphans] = REASON_UNASSIGNED
    elif options.unassigned == "hash":
        shares = _hash_shares(options, declared)
        subset[orphans] = draw_components(genes, component, options, *shares)[orphans]
    return GeneSubsets(
        component=component,
        subset=subset[component],
        reason=reason[component],
        n_conflicts=int((n_sides > 1).sum()),
        n_unassigned=int(orphans.sum()),
    )


def n_components(component: NDArray[np.int32]) -> int:
    """Count components that are numbered without gaps."""
    return int(component.max()) + 1 if len(component) else 0


def count_sides(component: NDArray[np.int32], subset: Codes, n: int) -> NDArray[np.int64]:
    """Count a component's genes per side: ``(n, 3)`` int64 of train, val, test; other codes are not counted."""
    counted = subset < N_SIDES
    cell = component[counted].astype(np.int64) * N_SIDES + subset[counted]
    return np.bincount(cell, minlength=n * N_SIDES).reshape(n, N_SIDES)


def _settle(votes: NDArray[np.int64], conflict: Conflict) -> Codes:
    """Choose a side per component; ties go to the strongest, and no votes at all to test (callers overwrite it)."""
    ranked: NDArray[np.int64] = votes if conflict == "majority" else (votes > 0).astype(np.int64)
    # Sides are numbered by strength, and argmax returns the first of equals: look from the strong end.
    side: NDArray[np.int64] = (
        np.argmax(ranked, axis=1) if conflict == "train" else N_SIDES - 1 - np.argmax(ranked[:, ::-1], axis=1)
    )
    return side.astype(np.uint8)


def _hash_shares(options: SplitOptions, declared: Codes) -> tuple[float, float]:
    """Shares for ``unassigned="hash"``: as asked for, else those of reference genes by chromosome.

    Genes are counted where they lie, not where homology puts them, so that one more genome moves nothing.
    """
    if options.test_fraction is not None or options.val_fraction is not None:
        return options.test_share, options.val_share
    n = max(1, len(declared))
    return float((declared == SUBSET_TEST).sum() / n), float((declared == SUBSET_VAL).sum() / n)


def draw_components(
    genes: GeneTable, component: NDArray[np.int32], options: SplitOptions, test_share: float, val_share: float
) -> Codes:
    """Draw a subset per component by the hash of its anchor.

    The anchor is the member with the smallest ``h("anchor")`` among the reference genome's genes, or among
    all genes where the component has none; its ``h("subset")`` decides. The smallest hash itself would not
    be a fair draw: the minimum of eight is below 0.1 more than half of the time.

    Returns
    -------
    subset : (n_components,) uint8
    """
    if len(genes) == 0:
        return np.zeros(0, dtype=np.uint8)
    anchor_hash = _gene_hashes(genes, np.arange(len(genes)), "anchor", options.seed)
    reference = check_reference(options, genes)
    is_other = np.zeros(len(genes), dtype=np.bool_) if reference is None else genes.genome != reference
    # Rows are ordered by genome id; lexsort is stable, so even equal hashes have a fixed winner.
    order = np.lexsort((anchor_hash, is_other, component))
    first = np.flatnonzero(np.diff(component[order], prepend=-1))
    anchors = order[first]
    draw = as_fraction(_gene_hashes(genes, anchors, "subset", options.seed))
    return subset_of_draw(draw, test_share, val_share)


def _gene_hashes(genes: GeneTable, rows: NDArray[np.int64], salt: str, seed: int) -> NDArray[np.uint64]:
    hashes = np.empty(len(rows), dtype=np.uint64)
    for genome, genome_id in enumerate(genes.genome_ids):
        own = np.flatnonzero(genes.genome[rows] == genome)
        hashes[own] = seeded_hash(salt, seed, genome_id, genes.gene_id[rows[own]].tolist())
    return hashes


def side_names(counts: NDArray[np.int64]) -> str:
    """Name the sides of one component, for a listing: ``"train and test"``."""
    names = {SUBSET_TRAIN: "train", SUBSET_VAL: "val", SUBSET_TEST: "test"}
    return " and ".join(names[code] for code in range(N_SIDES) if counts[code])
