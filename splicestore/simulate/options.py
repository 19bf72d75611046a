"""What a simulated study is asked to be, and what was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from splicestore.errors import ConfigError

AnnotationFormat = Literal["gtf", "gff3"]
UsageFormat = Literal["spliser", "star", "both"]

TISSUES = ("Brain", "Heart", "Liver", "Kidney", "Testis", "Cerebellum", "Ovary")
MORE_TISSUES = ("Lung", "Muscle", "Spleen", "Skin", "Blood", "Colon", "Pancreas", "Thymus", "Adrenal")
"""Of samples of expression; those of usage come first."""

MIN_BASES_PER_GENE = 4_000  # exons and the shortest introns of an average gene take 2.7 kb
MIN_BASES_PER_CONTIG = 10_000

EXPRESSION_GENES = 6_000
"""Genes of samples without genomes: half of them have a count in a sample, and a fit asks for more than 2,000."""
MAX_SAMPLES = 10_000_000
MAX_TISSUES = 1_000
MAX_EXPRESSION_GENES = 500_000


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """Everything that decides the bytes of a study.

    Raises
    ------
    ConfigError
        If a number is out of range, a format is unknown, or the genes do not fit the bases.
    """

    genomes: int = 3
    megabases: float = 2.0
    """Size of the ancestral genome, in 10^6 bp; its descendants differ by a few per cent."""
    genes: int = 200
    """Genes of the ancestor."""
    conditions: int = 4
    """Pairs of tissue and timepoint: 4 are Brain and Heart at 1 and 2."""
    seed: int = 0
    contigs: int = 8
    """Contigs of each genome."""
    replicates: int = 2
    """Samples of each condition."""
    annotation_format: AnnotationFormat = "gtf"
    usage_format: UsageFormat = "both"
    compress: bool = True
    """gzip FASTA and annotation; usage tables are plain text."""
    divergence: float = 0.25
    """Neutral substitutions per base between the ancestor and each genome."""
    coverage: float = 60.0
    """Mean reads over a constitutive junction of a typical gene in one sample."""

    def __post_init__(self) -> None:
        """Refuse options that cannot be simulated."""
        for name, low in (("genomes", 1), ("genes", 1), ("conditions", 1), ("contigs", 1), ("replicates", 1)):
            _at_least(name, getattr(self, name), low)
        _at_least("seed", self.seed, 0)
        _at_least("divergence", self.divergence, 0.0)
        if self.divergence > 0.75 or not 0 < self.coverage <= 1e6:
            raise ConfigError(
                f"simulate: divergence must lie in [0, 0.75] and coverage in (0, 1e6], "
                f"got {self.divergence} and {self.coverage}"
            )
        for name, value, allowed in (
            ("annotation_format", self.annotation_format, get_args(AnnotationFormat)),
            ("usage_format", self.usage_format, get_args(UsageFormat)),
        ):
            if value not in allowed:
                raise ConfigError(f"simulate: {name} must be one of {', '.join(allowed)}, got {value!r}")
        self._check_room("genes", self.genes, MIN_BASES_PER_GENE)
        self._check_room("contigs", self.contigs, MIN_BASES_PER_CONTIG)

    @property
    def n_bases(self) -> int:
        """Size of the ancestral genome, in bp."""
        return round(self.megabases * 1e6)

    def _check_room(self, what: str, count: int, bases_each: int) -> None:
        if self.n_bases < count * bases_each:
            raise ConfigError(
                f"simulate: {count} {what} do not fit {self.megabases} Mb, each needs {bases_each:,} bp; "
                f"ask for at least {count * bases_each / 1e6:g} megabases or at most "
                f"{self.n_bases // bases_each} {what}"
            )


@dataclass(frozen=True, slots=True)
class CohortOptions:
    """Everything that decides the bytes of a file of samples, beside the genes of its genome.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    samples: int
    """Of each genome. Those of a smaller study are the first ones of a larger one."""
    genes: int | None = None
    """Rows of the file. None: the genes of the genome; ``EXPRESSION_GENES`` where no genomes are simulated."""
    tissues: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse options that cannot be simulated."""
        for name, value, high in (
            ("samples", self.samples, MAX_SAMPLES),
            ("tissues", self.tissues, MAX_TISSUES),
            ("genes of expression", EXPRESSION_GENES if self.genes is None else self.genes, MAX_EXPRESSION_GENES),
        ):
            if not 1 <= value <= high:
                raise ConfigError(f"simulate: {name} must lie in [1, {high:,}], got {value:,}")
        _at_least("seed", self.seed, 0)


@dataclass(frozen=True, slots=True)
class SimulatedCohort:
    """Where a file of samples is and how much is in it."""

    counts: Path
    """HDF5 in the layout of ARCHS4."""
    n_samples: int
    n_genes: int
    truth: Path
    """Folder of the truth tables."""


@dataclass(frozen=True, slots=True)
class SimulatedStudy:
    """Where the files of a study are and how much is in them."""

    root: Path
    genome_ids: tuple[str, ...]
    condition_names: tuple[str, ...]
    genomes_json: Path
    """SplicEvo's form."""
    genomes_yaml: Path
    samples: Path | None
    """Sheet of the STAR files; None where none were asked for."""
    orthologs: Path
    truth: Path
    """Folder of the truth tables."""
    n_bases: Mapping[str, int]
    n_genes: Mapping[str, int]
    n_sites: Mapping[str, int]
    events: Mapping[str, int]
    """How often each kind of rearrangement happened, over all branches."""
    counts: Mapping[str, Path] = field(default_factory=dict)
    """HDF5 of samples in the layout of ARCHS4; empty where none were asked for."""


def condition_grid(conditions: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Lay conditions out as tissues x timepoints.

    Fewer than four conditions are tissues at one timepoint; otherwise as many tissues as divide the number
    and leave at least two timepoints.

    Examples
    --------
    >>> condition_grid(4)
    (('Brain', 'Heart'), (1, 2))
    >>> condition_grid(3)
    (('Brain', 'Heart', 'Liver'), (1,))
    >>> [len(axis) for axis in condition_grid(105)]
    [7, 15]
    """
    if conditions < 4:
        return TISSUES[:conditions], (1,)
    n_tissues = max(n for n in range(1, len(TISSUES) + 1) if conditions % n == 0 and conditions // n >= 2)
    return TISSUES[:n_tissues], tuple(range(1, conditions // n_tissues + 1))


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise ConfigError(f"simulate: {name} must be at least {low}, got {value}")
