"""Counting a split, refusing one that is not worth training on, and saying so as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import GateError, SplitError
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_NAMES, SUBSET_TRAIN
from splicestore.split.assign import GeneSubsets, n_components
from splicestore.split.extend import Moves
from splicestore.split.leakage import Leakage
from splicestore.split.values import REASONS, REASONS_ASKED_FOR, Codes, SplitOptions, SplitTable

MAX_EXCLUDED_SHARE = 0.1
MAX_COMPONENT_SHARE = 0.2
GATE_MIN_WINDOWS = 200
"""Below this many windows in a genome its excluded share says little: a warning, no gate."""
GATE_MIN_GENES = 200
"""Likewise for the largest component, where there are fewer genes than this in all."""


@dataclass(frozen=True, slots=True)
class GenomeCounts:
    """One genome's part of a report."""

    windows: dict[str, int]
    genes: dict[str, int]
    reasons: dict[str, int]
    excluded_share: float
    """Windows excluded by the guard or by a bridge, of all; policies that drop on request do not count."""

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "windows": self.windows,
            "genes": self.genes,
            "reasons": self.reasons,
            "excluded_share": round(self.excluded_share, 6),
        }


@dataclass(frozen=True, slots=True)
class SplitReport:
    """All numbers of a split."""

    name: str
    generation: str
    digest: str
    """Of the table's content."""
    windows: dict[str, int]
    """By subset; they sum to all windows."""
    genes: dict[str, int]
    reasons: dict[str, int]
    """Excluded windows by reason; they sum to ``windows["excluded"]``."""
    gene_reasons: dict[str, int]
    n_components: int
    largest_component: int
    """Genes in it."""
    largest_component_fraction: float
    n_conflicts: int
    n_unassigned: int
    leakage: Leakage
    genomes: dict[str, GenomeCounts]
    homology: dict[str, int] = field(default_factory=dict)
    """Rows of the homology tables by how their ids were matched."""
    bridges: tuple[tuple[str, str, str], ...] = ()
    vanished_windows: int = 0
    """Windows of the extended split that their genome no longer has."""
    moves: Moves | None = None
    warnings: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()
    """Gates that refused and were overridden."""

    def as_dict(self) -> dict[str, Any]:
        """JSON document of ``split windows --json``."""
        document: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("name", "generation", "digest", "windows", "genes", "reasons", "gene_reasons")
        }
        document |= {
            "n_components": self.n_components,
            "largest_component": self.largest_component,
            "largest_component_fraction": round(self.largest_component_fraction, 6),
            "conflicts": self.n_conflicts,
            "components_without_reference": self.n_unassigned,
            "leakage": self.leakage.as_dict(),
            "genomes": {genome_id: counts.as_dict() for genome_id, counts in self.genomes.items()},
            "homology": dict(self.homology),
            "bridges": [dict(zip(("genome", "gene_id", "subsets"), row, strict=True)) for row in self.bridges],
            "vanished_windows": self.vanished_windows,
            "warnings": list(self.warnings),
            "overridden": list(self.overridden),
        }
        if self.moves is not None:
            document["moves"] = self.moves.summary()
        return document


def count_subsets(subset: Codes) -> dict[str, int]:
    """Count by subset name, all four always present."""
    counts = np.bincount(subset, minlength=len(SUBSET_NAMES)).tolist()
    return dict(zip(SUBSET_NAMES, counts, strict=True))


def count_reasons(reason: Codes) -> dict[str, int]:
    """Count by reason, only those that occur."""
    counts = np.bincount(reason, minlength=len(REASONS)).tolist()
    return {name: n for name, n in zip(REASONS[1:], counts[1:], strict=True) if n}


def genome_counts(table: SplitTable, genome: int) -> GenomeCounts:
    """Count one genome."""
    windows, genes = table.window_rows(genome), table.gene_rows(genome)
    reason = table.window_reason[windows]
    excluded = int((table.window_subset[windows] == SUBSET_EXCLUDED).sum())
    asked_for = int(np.isin(reason, REASONS_ASKED_FOR).sum())
    return GenomeCounts(
        windows=count_subsets(table.window_subset[windows]),
        genes=count_subsets(table.gene_subset[genes]),
        reasons=count_reasons(reason),
        excluded_share=(excluded - asked_for) / max(1, len(reason)),
    )


def check_not_empty(table: SplitTable, options: SplitOptions) -> None:
    """Refuse a split with nothing in a subset that was asked for.

    Raises
    ------
    SplitError
        Naming the subset and what the windows became instead.
    """
    counts = count_subsets(table.window_subset)
    train_asked = options.mode == "chromosomes" or options.test_share + options.val_share < 1.0
    for code in (*((SUBSET_TRAIN,) if train_asked else ()), *options.held_out):
        if not counts[SUBSET_NAMES[code]]:
            reasons = ", ".join(f"{name} {n}" for name, n in count_reasons(table.window_reason).items()) or "none"
            raise SplitError(
                f"the subset {SUBSET_NAMES[code]} came out empty: of {table.n_windows} windows "
                f"{', '.join(f'{n} are {name}' for name, n in counts.items() if n) or 'none is left'} "
                f"(reasons of exclusion: {reasons}); choose other chromosomes, larger fractions or another seed"
            )


def gate_findings(table: SplitTable, genomes: dict[str, GenomeCounts], largest: int) -> tuple[list[str], list[str]]:
    """Compare a split with its gates.

    Returns
    -------
    refusals, warnings
        Sentences. Small genomes only warn.
    """
    refusals: list[str] = []
    warnings: list[str] = []
    for genome_id, counts in genomes.items():
        n_windows = sum(counts.windows.values())
        if counts.excluded_share > MAX_EXCLUDED_SHARE:
            sentence = (
                f"{genome_id}: {counts.excluded_share:.1%} of {n_windows} windows are excluded, more than "
                f"{MAX_EXCLUDED_SHARE:.0%} ({', '.join(f'{k} {n}' for k, n in counts.reasons.items())}); "
                "split by chromosomes or larger blocks, or use a smaller context"
            )
            (refusals if n_windows >= GATE_MIN_WINDOWS else warnings).append(sentence)
    if largest > MAX_COMPONENT_SHARE * table.n_genes:
        sentence = (
            f"the largest component holds {largest} of {table.n_genes} genes ({largest / table.n_genes:.1%}), more "
            f"than {MAX_COMPONENT_SHARE:.0%}: homology chains unrelated genes; raise the identity or confidence "
            "of the homology rows"
        )
        (refusals if table.n_genes >= GATE_MIN_GENES else warnings).append(sentence)
    return refusals, warnings


def leakage_findings(leakage: Leakage, guard: str) -> tuple[list[str], list[str]]:
    """Compare recounted leakage with what the split promises; refusals and warnings as sentences."""
    refusals: list[str] = []
    if leakage.groups_crossing:
        refusals.append(f"{leakage.groups_crossing} homology groups have genes on two sides")
    if guard != "none" and leakage.windows_shared:
        refusals.append(f"{leakage.windows_shared} centres belong to windows of two sides")
    if guard != "none" and leakage.held_out_bases():
        refusals.append(f"{leakage.held_out_bases()} held-out bases lie in inputs that should not see them")
    warnings: list[str] = []
    if leakage.groups_crossing_inherited:
        warnings.append(
            f"{leakage.groups_crossing_inherited} homology groups join genes that the extended split had placed on "
            "different sides; they stay where they are, --rebuild would join them"
        )
    return refusals, warnings


def make_report(
    table: SplitTable,
    assigned: GeneSubsets,
    leakage: Leakage,
    options: SplitOptions,
    **details: Any,
) -> SplitReport:
    """Count a split and let the gates judge it.

    Parameters
    ----------
    table, assigned, leakage, options
        The finished split, its genes, its recounted leakage, how it was asked for.
    **details
        Further fields of ``SplitReport``: ``name``, ``generation``, ``homology``, ``vanished_windows``, ``moves``.

    Raises
    ------
    SplitError
        If a subset that was asked for is empty.
    GateError
        If a gate refuses and ``options.override_gates`` is not set.
    """
    check_not_empty(table, options)
    genomes = {genome_id: genome_counts(table, g) for g, genome_id in enumerate(table.genome_ids)}
    largest = _largest(assigned.component)
    refusals, warnings = gate_findings(table, genomes, largest)
    leaks, more = leakage_findings(leakage, table.guard)
    if (refusals or leaks) and not options.override_gates:
        raise GateError(
            "the split is refused: " + "; ".join([*refusals, *leaks]) + " (override_gates publishes it anyway)"
        )
    return SplitReport(
        digest=table.content_digest(),
        windows=count_subsets(table.window_subset),
        genes=count_subsets(table.gene_subset),
        reasons=count_reasons(table.window_reason),
        gene_reasons=count_reasons(table.gene_reason),
        n_components=n_components(assigned.component),
        largest_component=largest,
        largest_component_fraction=largest / max(1, table.n_genes),
        n_conflicts=assigned.n_conflicts,
        n_unassigned=assigned.n_unassigned,
        leakage=leakage,
        genomes=genomes,
        bridges=assigned.bridges,
        warnings=(*warnings, *more),
        overridden=(*refusals, *leaks),
        **details,
    )


def _largest(component: NDArray[np.int32]) -> int:
    return int(np.bincount(component).max()) if len(component) else 0
