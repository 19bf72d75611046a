"""Samples of expression with known truth: which there are, of what, and their counts.

The logarithm of a gene's share of a sample is ``base(gene) + level(tissue, module of the gene) + loading(gene) * activity(sample,
module) + batch(series, gene)``; counts are negative binomial around the share times the depth. A sample is drawn from its
number alone: neither how many there are nor how many are drawn at once changes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from splicestore.simulate.options import MORE_TISSUES, TISSUES
from splicestore.simulate.seeds import Stream, random_stream

Floats = NDArray[np.float64]
Int64 = NDArray[np.int64]
Counts = NDArray[np.uint32]

NO_MODULE = -1
N_PROGRAMMES = 4
"""Modules that every tissue uses and that vary from sample to sample, as cell division does."""
P_NO_MODULE = 0.25
P_SIGNATURE_ELSEWHERE, P_SHARED = 0.1, 0.4
"""How often a tissue uses the signature of another one, and a module that is no tissue's own."""
UNUSED_LEVEL = -8.0
BASE_SD, LEVEL_SD, ACTIVITY_SD, PROGRAMME_SD, BATCH_SD = 2.8, 0.5, 0.4, 1.0, 0.15
SHAPE_MEDIAN, SHAPE_SD = 5.0, 0.4
BULK_DEPTH, DEPTH_SD = 500.0, 0.6
"""Median counts of a sample per gene, three million of 6,000 genes, and the spread of their logarithm."""
CELL_SHAPE, CELL_MOLECULES, CELL_READS, CELL_READS_SD = 0.2, 5.0, 30.0, 0.4
"""Of single cells: factor on the shape, median molecules per gene, and reads of a molecule: as many counts, of few genes."""

UNIT = 48
"""Samples whose series are drawn together. A series lies in one unit, but for one sample of the next that it may share."""
SERIES_MEAN = 8
P_MIXED_SERIES, P_LINK = 0.3, 0.3
SUPER_SERIES = UNIT - 1
"""Number, within its unit, of the series that holds all samples of two others."""


def tissue_names(n: int) -> tuple[str, ...]:
    """Name tissues.

    Examples
    --------
    >>> tissue_names(2), tissue_names(18)[-2:]
    (('Brain', 'Heart'), ('Tissue17', 'Tissue18'))
    """
    known = (*TISSUES, *MORE_TISSUES)[:n]
    return (*known, *(f"Tissue{i + 1}" for i in range(len(known), n)))


@dataclass(frozen=True, slots=True, eq=False)
class ExpressionModel:
    """What gene families do in tissues; genes of one family do the same in all genomes."""

    base: Floats
    """(family,) natural logarithm of a relative mean."""
    module: Int64
    """(family,) ``NO_MODULE`` for genes that are the same in all tissues."""
    loading: Floats
    """(family,) how strongly a gene follows the activity of its module."""
    shape: Floats
    """(family,) the variance of a count is mean + mean^2 / shape."""
    level: Floats
    """(tissue, module) natural logarithm; ``UNUSED_LEVEL`` where a tissue does not use a module."""

    @property
    def n_tissues(self) -> int:
        """Number of tissues."""
        return len(self.level)

    @classmethod
    def draw(cls, seed: int, n_families: int, n_tissues: int) -> ExpressionModel:
        """Draw the model of a study: a signature of each tissue, as many shared modules, and programmes."""
        rng = random_stream(seed, Stream.GENE_PROFILE)
        p_used = np.repeat([P_SIGNATURE_ELSEWHERE, P_SHARED, 1.0], [n_tissues, n_tissues, N_PROGRAMMES])
        is_used = rng.random((n_tissues, len(p_used))) < p_used
        is_used[np.arange(n_tissues), np.arange(n_tissues)] = True
        level = np.where(is_used, rng.normal(0.0, LEVEL_SD, is_used.shape), UNUSED_LEVEL)
        module = rng.integers(0, len(p_used), n_families)
        return cls(
            base=rng.normal(0.0, BASE_SD, n_families),
            module=np.where(rng.random(n_families) < P_NO_MODULE, NO_MODULE, module),
            loading=rng.uniform(0.5, 1.5, n_families),
            shape=SHAPE_MEDIAN * rng.lognormal(0.0, SHAPE_SD, n_families),
            level=level,
        )

    @property
    def is_used(self) -> NDArray[np.bool_]:
        """Which tissue uses which module: (tissue, module)."""
        return self.level > UNUSED_LEVEL

    def of_genes(self, family: Int64) -> ExpressionModel:
        """Take the rows of genes: ``(gene,)`` in place of ``(family,)``."""
        return replace(
            self,
            base=self.base[family],
            module=self.module[family],
            loading=self.loading[family],
            shape=self.shape[family],
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample."""

    number: int
    tissue: int
    is_single_cell: bool
    series: tuple[int, ...]
    """Numbers of the series it is in; the first one has its batch effect."""
    copy_of: Sample | None = None
    """The sample whose counts these are, submitted again in another series."""


@dataclass(frozen=True, slots=True)
class SampleDesign:
    """Which samples a cohort has."""

    seed: int
    cohort: int
    """Number of the genome: samples of two genomes are different ones."""
    n_tissues: int

    def samples(self, first: int, last: int) -> Iterator[Sample]:
        """Yield samples ``[first, last)``."""
        for unit in range(first // UNIT, -(-last // UNIT)):
            for sample in self._unit(unit):
                if first <= sample.number < last:
                    yield sample

    def _unit(self, unit: int) -> list[Sample]:
        """Draw the samples of a unit, one of which copies a sample of an earlier unit."""
        samples = self._originals(unit)
        place = self._copy_place(unit)
        if place is None:
            return samples
        rng = random_stream(self.seed, Stream.COPY, self.cohort, unit)
        origin = self._origin(int(rng.integers(0, unit)), int(rng.integers(0, UNIT)))
        samples[place] = replace(
            samples[place], tissue=origin.tissue, is_single_cell=origin.is_single_cell, copy_of=origin
        )
        if rng.random() < P_LINK:
            other = (place + 1) % UNIT
            samples[other] = replace(samples[other], series=(*samples[other].series, (unit - 1) * UNIT))
        return samples

    def _copy_place(self, unit: int) -> int | None:
        """Place of the copy in its unit; the first unit has nothing to copy."""
        return int(random_stream(self.seed, Stream.COPY_PLACE, self.cohort, unit).integers(0, UNIT)) if unit else None

    def _origin(self, unit: int, place: int) -> Sample:
        """Take a sample that is no copy itself."""
        return self._originals(unit)[(place + 1) % UNIT if place == self._copy_place(unit) else place]

    def _originals(self, unit: int) -> list[Sample]:
        """Draw the samples of a unit as if none were a copy: series, one of them of single cells, two of them joined."""
        rng = random_stream(self.seed, Stream.SERIES, self.cohort, unit)
        sizes = 1 + rng.geometric(1 / (SERIES_MEAN - 1), UNIT)
        series = np.repeat(np.arange(UNIT), sizes)[:UNIT]
        n_series = int(series[-1]) + 1
        single_cell = int(rng.integers(0, n_series))
        joined = int(rng.integers(0, max(1, n_series - 1)))
        choice = rng.integers(0, self.n_tissues, (n_series, 3))
        is_mixed = rng.random(n_series) < P_MIXED_SERIES
        column = np.where(is_mixed[series], rng.integers(0, 3, UNIT), 0)
        start = unit * UNIT
        return [
            Sample(
                number=start + i,
                tissue=int(choice[s, c]),
                is_single_cell=s == single_cell,
                series=(start + s, start + SUPER_SERIES) if s in (joined, joined + 1) else (start + s,),
            )
            for i, (s, c) in enumerate(zip(series.tolist(), column.tolist(), strict=True))
        ]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnSample:
    """The counts of a sample, and what an archive says of them."""

    counts: Counts
    """(gene,)."""
    single_cell_probability: float
    """Above 0.5 for single cells, below for others."""
    aligned_reads: float
    """Somewhat more than counts: reads outside genes."""


def draw_sample(design: SampleDesign, model: ExpressionModel, sample: Sample) -> DrawnSample:
    """Draw the counts of a sample; those of a copy are those of the sample it copies.

    Parameters
    ----------
    model
        Of the genes of the file.
    """
    source = sample.copy_of or sample
    rng = random_stream(design.seed, Stream.SAMPLE, design.cohort, source.number)
    batch = random_stream(design.seed, Stream.BATCH, design.cohort, source.series[0])
    share = np.exp(_log_share(model, source.tissue, rng) + batch.normal(0.0, BATCH_SD, len(model.base)))
    counts = _draw_cell(rng, model, share) if source.is_single_cell else _draw_bulk(rng, model, share)
    doubt = 0.5 * rng.beta(1.0, 6.0)
    return DrawnSample(
        counts=counts.astype(np.uint32),
        single_cell_probability=1.0 - doubt if source.is_single_cell else doubt,
        aligned_reads=float(np.ceil(counts.sum() * rng.uniform(1.1, 1.5))),
    )


def _draw_bulk(rng: np.random.Generator, model: ExpressionModel, share: Floats) -> Int64:
    depth = BULK_DEPTH * len(share) * rng.lognormal(0.0, DEPTH_SD)
    counts: Int64 = rng.poisson(depth / share.sum() * share * rng.gamma(model.shape, 1.0 / model.shape))
    return counts


def _draw_cell(rng: np.random.Generator, model: ExpressionModel, share: Floats) -> Int64:
    """Draw molecules, then the reads that each of them is copied into."""
    molecules = CELL_MOLECULES * len(share) * rng.lognormal(0.0, DEPTH_SD)
    shape = CELL_SHAPE * model.shape
    caught = rng.poisson(molecules / share.sum() * share * rng.gamma(shape, 1.0 / shape))
    counts: Int64 = rng.poisson(CELL_READS * rng.lognormal(0.0, CELL_READS_SD) * caught)
    return counts


def _log_share(model: ExpressionModel, tissue: int, rng: np.random.Generator) -> Floats:
    """Add up what the base, the tissue and the activity of modules give each gene: (gene,)."""
    n_modules = model.level.shape[1]
    spread = np.full(n_modules, ACTIVITY_SD)
    spread[-N_PROGRAMMES:] = PROGRAMME_SD
    activity = rng.normal(0.0, spread)
    follows = model.module != NO_MODULE
    module = model.module[follows]
    log_share = model.base.copy()
    log_share[follows] += model.level[tissue, module] + model.loading[follows] * activity[module]
    return log_share
