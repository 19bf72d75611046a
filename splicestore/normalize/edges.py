"""What exact and histogram fits of edges share: options, the generation they write, the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError
from splicestore.expression import Expression
from splicestore.kernels.binning import MAX_BINS, MIN_BINS, TIE_POLICIES, TiePolicy, n_edges
from splicestore.normalize.genes import (
    NORMALIZED_ENCODER,
    STATISTICS,
    TASK_GENES,
    fitted_mask,
    gene_specs,
    nested,
    pins_of_fit,
    table_columns,
)
from splicestore.normalize.quality import QualityResult, SampleQuality
from splicestore.normalize.samples import document_choice, refuse_two_choices
from splicestore.normalized import Normalized
from splicestore.schema import ArraySpec, LedgerRow, Plan
from splicestore.storage import Publication
from splicestore.storage.arrays import read_arrays
from splicestore.storage.columns import Column
from splicestore.store import Store
from splicestore.tasks import Outcome

BAND_BUDGET = 256 * 1024 * 1024
"""Bytes that the scores of a band may take, sorted copies included."""
FitMode = Literal["exact", "histogram"]
FIT_MODES: tuple[FitMode, ...] = get_args(FitMode)


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How edges are fitted."""

    n_bins: int = 2000
    tie_policy: TiePolicy = "max"
    mode: FitMode = "exact"
    """``exact`` sorts the scores; ``histogram`` counts them in 65,536 cells, to which samples can be added later."""
    extend: str | None = None
    """Name of a histogram fit whose samples these are added to."""
    quality: SampleQuality = field(default_factory=SampleQuality)
    samples: tuple[str, ...] | None = None
    """Fit to these alone; None: to all of the matrix."""
    split: str | None = None
    """Fit to the training samples of this split of samples alone."""
    scheduler: str = "sync"
    max_memory: int | None = None
    band_budget: int = BAND_BUDGET
    profile: str | None = None
    force: bool = False
    steal: bool = False

    def __post_init__(self) -> None:
        if not MIN_BINS <= self.n_bins <= MAX_BINS:
            raise ConfigError(f"n_bins lies in [{MIN_BINS}, {MAX_BINS}], got {self.n_bins}")
        if self.tie_policy not in TIE_POLICIES:
            raise ConfigError(f"tie policy {self.tie_policy!r}: use {' or '.join(TIE_POLICIES)}")
        if self.mode not in FIT_MODES:
            raise ConfigError(f"mode {self.mode!r}: use {' or '.join(FIT_MODES)}")
        if self.extend is not None and self.mode != "histogram":
            raise ConfigError(
                "only a histogram can be extended: --mode histogram, or fit all samples anew for exact edges"
            )
        refuse_two_choices(self)


@dataclass(frozen=True, slots=True)
class FitReport:
    """What was published."""

    name: str
    generation: str
    status: str
    mode: str
    n_genes: int
    n_genes_kept: int
    n_genes_expressed: int
    n_genes_without_edges: int
    """Fewer than two positive samples."""
    n_samples_fitted: int
    """Those of the extended fit included."""
    n_samples_before: int
    """Of them those of the extended fit."""
    dropped: dict[str, int]
    """Samples by reason."""
    max_bin_error: int | None
    """Of a histogram: by so many bins at most does any value of any gene differ from an exact fit."""
    n_genes_within_one_bin: int | None
    """Of a histogram: genes of which no value differs by more than one bin."""
    projected_peak_bytes: int
    observed_peak_bytes: int
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EdgesFit:
    """One fit of edges as it was planned: to which samples, of which genes."""

    store: Store
    name: str
    counts: Expression
    rows: NDArray[np.int64]
    """Samples of ``counts`` that are fitted to, ascending."""
    judged: QualityResult
    options: FitOptions
    before: Normalized | None = None
    """The fit that this one extends: its genes are the genes here."""
    ledger_before: tuple[LedgerRow, ...] = ()
    """What of ``counts`` did not fit to ``before``."""

    @property
    def gene_ids(self) -> Sequence[str]:
        """Genes with edges."""
        return self.counts.gene_ids if self.before is None else self.before.gene_ids

    @property
    def gene_symbols(self) -> Sequence[str]:
        """Their symbols."""
        return self.counts.gene_symbols if self.before is None else self.before.gene_symbols

    @property
    def n_before(self) -> int:
        """Samples of the extended fit."""
        return 0 if self.before is None else self.before.n_samples_fitted

    def columns(self, mean: NDArray[np.float64]) -> list[Column]:
        """Build the columns of the tables, given the mean scores of the genes."""
        ledger = [*self.judged.ledger(), *self.ledger_before]
        is_fitted = fitted_mask(self.counts.n_samples, self.rows)
        return table_columns(self.gene_ids, self.gene_symbols, mean, is_fitted, ledger)

    def publication(self, more_specs: Sequence[ArraySpec], **attributes: Any) -> Publication:
        """Plan the generation: edges, statistics, tables and what else the mode writes."""
        options, n_genes, width = self.options, len(self.gene_ids), n_edges(self.options.n_bins)
        pins = pins_of_fit(self.store, self.counts, options)
        extended = {} if self.before is None else {f"normalized/{self.before.name}": self.before.generation}
        plan = Plan(
            kind="normalized",
            encoder=NORMALIZED_ENCODER,
            inputs=(),
            parents={**pins, **extended},
            options={
                "method": "bins",
                "mode": options.mode,
                "n_bins": options.n_bins,
                "tie_policy": options.tie_policy,
                **document_choice(options),
            },
            chunking={"edges": [TASK_GENES, width]},
        )
        edges = ArraySpec(
            "edges",
            (n_genes, width),
            ("gene", "edge"),
            "float32",
            (TASK_GENES, width),
            fill_value=float("nan"),
            shuffled=True,
        )
        tables = self.columns(np.zeros(n_genes))
        return Publication(
            root=self.store.root,
            path=f"normalized/{self.name}",
            plan=plan,
            specs=[edges, *gene_specs(STATISTICS, n_genes), *more_specs, *(column.spec() for column in tables)],
            attributes={
                "options": plan.document()["options"],
                "pins": nested(pins),
                "n_genes": n_genes,
                "n_samples_fitted": self.n_before + len(self.rows),
                **attributes,
            },
            provenance={"versions": {"splicestore": version("splicestore"), "numpy": np.__version__}},
        )

    def report(self, outcome: Outcome, projected: int) -> FitReport:
        """Say what was published."""
        publication, is_exact = outcome.publication, self.options.mode == "exact"
        names = ["gene_n_positive", "gene_is_kept", "gene_is_expressed", *([] if is_exact else ["gene_max_bin_error"])]
        found = read_arrays(publication.root, publication.base, names)
        n_fitted, n_bins, warnings = self.n_before + len(self.rows), self.options.n_bins, []
        if n_fitted < n_bins - 1:
            warnings.append(
                f"{n_fitted:,} samples for {n_bins:,} bins: bins are spread over the whole range with gaps; --n-bins {n_fitted:,} or "
                "fewer leaves none"
            )
        error = None if is_exact else found["gene_max_bin_error"]
        return FitReport(
            name=self.name,
            generation=publication.generation,
            status=outcome.status,
            mode=self.options.mode,
            n_genes=len(self.gene_ids),
            n_genes_kept=int(found["gene_is_kept"].sum()),
            n_genes_expressed=int(found["gene_is_expressed"].sum()),
            n_genes_without_edges=int((found["gene_n_positive"] < 2).sum()),
            n_samples_fitted=n_fitted,
            n_samples_before=self.n_before,
            dropped={reason: n for reason, n in self.judged.dropped.items() if n},
            max_bin_error=None if error is None else int(error.max(initial=0)),
            n_genes_within_one_bin=None if error is None else int((error <= 1).sum()),
            projected_peak_bytes=projected,
            observed_peak_bytes=outcome.observed_peak_bytes,
            warnings=tuple(warnings),
        )
