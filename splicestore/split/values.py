"""What a split is made of: options, genes, windows and the finished table, as values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import SplitError, close_names
from splicestore.schema import SUBSET_NAMES, SUBSET_TEST, SUBSET_TRAIN, SUBSET_VAL

Int64 = NDArray[np.int64]
Codes = NDArray[np.uint8]

REASONS = (
    "",
    "overlaps_test",
    "overlaps_val",
    "overlaps_train",
    "conflict",
    "unassigned",
    "bridges_subsets",
)
"""Vocabulary of why something is excluded; code 0 for what is not."""
REASON_NONE, REASON_TEST, REASON_VAL, REASON_TRAIN, REASON_CONFLICT, REASON_UNASSIGNED, REASON_BRIDGE = range(7)

REASONS_ASKED_FOR = (REASON_CONFLICT, REASON_UNASSIGNED)
"""Only the policies ``conflict="drop"`` and ``unassigned="drop"`` give these."""

Conflict = Literal["test", "train", "majority", "drop"]
Unassigned = Literal["train", "drop", "hash"]
Guard = Literal["centre", "input", "none"]
Mode = Literal["chromosomes", "fractions"]
_CHOICES = {
    "conflict": ("test", "train", "majority", "drop"),
    "unassigned": ("train", "drop", "hash"),
    "guard": ("centre", "input", "none"),
}


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How to split windows; everything here decides content.

    Raises
    ------
    SplitError
        If the options contradict each other.
    """

    window_size: int = 1000
    """W, bases of the centre."""
    context_size: int = 450
    """K, bases of input on each side of the centre."""
    reference_genome: str | None = None
    """Whose chromosomes decide; with fractions: whose genes anchor their components."""
    test_chromosomes: tuple[str, ...] = ()
    val_chromosomes: tuple[str, ...] = ()
    test_fraction: float | None = None
    val_fraction: float | None = None
    conflict: Conflict = "test"
    """A component with reference genes on chromosomes of several subsets: ``test`` gives it the strongest of
    them (test > val > train), ``train`` the weakest, ``majority`` the one with most reference genes
    (ties: the strongest), ``drop`` excludes it."""
    unassigned: Unassigned = "train"
    """A component without a reference gene. ``hash`` draws by the rule of the fractions; where none are
    given, by the shares of reference genes that lie on the test and val chromosomes."""
    guard: Guard = "centre"
    seed: int = 0
    override_gates: bool = False
    """Publish although a gate refused; the report says so."""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise SplitError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.window_size < 1 or self.context_size < 0:
            raise SplitError(
                f"window_size must be at least 1 and context_size at least 0, "
                f"got {self.window_size} and {self.context_size}"
            )
        self._check_fractions()
        if self.mode == "chromosomes":
            self._check_chromosomes()
        elif not (self.test_share or self.val_share):
            raise SplitError(
                "nothing to hold out: name test or val chromosomes of a reference genome, "
                "or give a test or val fraction above 0"
            )

    def _check_fractions(self) -> None:
        for name, value in (("test_fraction", self.test_fraction), ("val_fraction", self.val_fraction)):
            if value is not None and not 0.0 <= value <= 1.0:
                raise SplitError(f"{name} must lie in [0, 1], got {value}")
        if self.test_share + self.val_share > 1.0:
            raise SplitError(
                f"test_fraction + val_fraction must not exceed 1, got {self.test_share} + {self.val_share}"
            )

    def _check_chromosomes(self) -> None:
        has_fractions = self.test_fraction is not None or self.val_fraction is not None
        if has_fractions and self.unassigned != "hash":
            raise SplitError(
                "chromosomes and fractions are both given: drop one, or say unassigned='hash' "
                "to draw the components without a reference gene by those fractions"
            )
        if self.reference_genome is None:
            raise SplitError("test or val chromosomes need a reference genome: say which one they belong to")

    @property
    def mode(self) -> Mode:
        """``chromosomes`` if any are named, else ``fractions``."""
        return "chromosomes" if self.test_chromosomes or self.val_chromosomes else "fractions"

    @property
    def test_share(self) -> float:
        """``test_fraction``, 0 where none was given."""
        return self.test_fraction or 0.0

    @property
    def val_share(self) -> float:
        """``val_fraction``, 0 where none was given."""
        return self.val_fraction or 0.0

    @property
    def held_out(self) -> tuple[int, ...]:
        """Codes of the held-out subsets that were asked for; they must not come out empty."""
        if self.mode == "chromosomes":
            wanted = {SUBSET_VAL: bool(self.val_chromosomes), SUBSET_TEST: bool(self.test_chromosomes)}
        else:
            wanted = {SUBSET_VAL: self.val_share > 0, SUBSET_TEST: self.test_share > 0}
        return tuple(code for code, asked in wanted.items() if asked)


@dataclass(frozen=True, slots=True)
class GenomeLayout:
    """Contigs and genes of one genome, in its own order."""

    genome_id: str
    generation: str
    contig_name: tuple[str, ...]
    contig_length: Int64
    """(n_contigs,) int64, bases."""
    contig_offset: Int64
    """(n_contigs,) int64, absolute first base."""
    gene_id: tuple[str, ...]
    gene_contig: NDArray[np.int32]
    gene_start: Int64
    """(n_genes,) int64, absolute."""
    gene_end: Int64
    gene_strand: NDArray[np.int8]
    contig_alias: Mapping[str, str] = field(default_factory=dict)
    """Other spellings of contig names."""


@dataclass(frozen=True, slots=True)
class GeneTable:
    """Genes of all genomes: genomes in the order of their sorted ids, genes in the order of their genome."""

    genome_ids: tuple[str, ...]
    genome: NDArray[np.int16]
    """(n_genes,) int16, index into ``genome_ids``."""
    gene_id: NDArray[np.object_]
    contig: NDArray[np.int32]
    """(n_genes,) int32, index within the genome's contigs."""
    start: Int64
    """(n_genes,) int64, absolute in the genome."""
    end: Int64
    strand: NDArray[np.int8]
    first_gene: Int64
    """(n_genomes + 1,) int64: rows ``first_gene[g]:first_gene[g + 1]`` belong to genome g."""

    def __len__(self) -> int:
        return len(self.genome)

    def rows(self, genome: int) -> slice:
        """Rows of one genome."""
        return slice(int(self.first_gene[genome]), int(self.first_gene[genome + 1]))


def gene_table(layouts: Sequence[GenomeLayout]) -> GeneTable:
    """Stack the genes of all genomes.

    Parameters
    ----------
    layouts
        Sorted by genome id, each id once.
    """
    ids = tuple(layout.genome_id for layout in layouts)
    if list(ids) != sorted(set(ids)):
        raise SplitError(f"genomes must be sorted by id, each once, got {', '.join(ids)}")
    counts = np.array([len(layout.gene_id) for layout in layouts], dtype=np.int64)
    names = np.empty(int(counts.sum()), dtype=object)
    names[:] = [gene_id for layout in layouts for gene_id in layout.gene_id]
    return GeneTable(
        genome_ids=ids,
        genome=np.repeat(np.arange(len(ids), dtype=np.int16), counts),
        gene_id=names,
        contig=_stack([layout.gene_contig for layout in layouts], np.int32),
        start=_stack([layout.gene_start for layout in layouts], np.int64),
        end=_stack([layout.gene_end for layout in layouts], np.int64),
        strand=_stack([layout.gene_strand for layout in layouts], np.int8),
        first_gene=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
    )


def _stack(columns: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    if not columns:
        return np.zeros(0, dtype=dtype)
    return np.concatenate(columns).astype(dtype, copy=False)


@dataclass(frozen=True, slots=True)
class WindowTiles:
    """Windows of one genome: contig, start, strand, and the genes of the window's strand."""

    contig: NDArray[np.int32]
    """(n,) int32."""
    start: Int64
    """(n,) int64, absolute start of the centre; lies inside its contig."""
    strand: NDArray[np.int8]
    gene_ptr: Int64
    """(n + 1,) int64."""
    gene_index: NDArray[np.int32]
    """Rows of the genome's genes."""

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, slots=True)
class SplitTable:
    """One window table over all genomes, with the genes behind it. Rows of genomes follow sorted ids."""

    window_size: int
    context_size: int
    guard: str
    seed: int
    mode: str
    genome_ids: tuple[str, ...]
    genome_generations: tuple[str, ...]
    contig_genome: NDArray[np.int16]
    contig_name: NDArray[np.object_]
    contig_offset: Int64
    contig_length: Int64
    window_genome: NDArray[np.int16]
    window_contig: NDArray[np.int32]
    """(n_windows,) int32, index within the genome's contigs."""
    window_start: Int64
    """(n_windows,) int64, absolute in the genome; with genome, contig and strand the sort key of the table."""
    window_strand: NDArray[np.int8]
    window_subset: Codes
    window_reason: Codes
    """(n_windows,) uint8, codes of ``REASONS``."""
    window_has_gene: NDArray[np.bool_]
    """False where the centre meets no gene body on either strand."""
    window_gene_ptr: Int64
    window_gene_index: NDArray[np.int32]
    """Rows of the gene columns below: genes on the window's strand that its centre meets."""
    gene_genome: NDArray[np.int16]
    gene_id: NDArray[np.object_]
    gene_subset: Codes
    gene_reason: Codes
    gene_component: NDArray[np.int32]

    @property
    def n_windows(self) -> int:
        """Rows of the window table."""
        return len(self.window_start)

    @property
    def n_genes(self) -> int:
        """Rows of the gene table."""
        return len(self.gene_genome)

    def window_rows(self, genome: int) -> slice:
        """Rows of the windows of one genome."""
        return _rows(self.window_genome, genome)

    def gene_rows(self, genome: int) -> slice:
        """Rows of the genes of one genome."""
        return _rows(self.gene_genome, genome)

    def contig_rows(self, genome: int) -> slice:
        """Rows of the contigs of one genome."""
        return _rows(self.contig_genome, genome)

    def content_digest(self) -> str:
        """Sha256 over sizes, genomes and every column in a fixed order: equal tables, equal digests."""
        header = (self.window_size, self.context_size, self.guard, self.seed, self.mode, *self.genome_ids)
        digest = hashlib.sha256("\0".join(map(str, header)).encode())
        for name, (values, _) in split_arrays(self).items():
            digest.update(f"{name}\0{len(values)}\0".encode())
            if values.dtype == object:
                digest.update("\0".join(values).encode())
            else:
                digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


def _rows(genome_column: NDArray[np.int16], genome: int) -> slice:
    first, last = np.searchsorted(genome_column, np.array([genome, genome + 1], dtype=np.int16))
    return slice(int(first), int(last))


_DIMENSIONS = {
    "contig_genome": "contig",
    "contig_name": "contig",
    "contig_offset": "contig",
    "contig_length": "contig",
    "window_genome": "window",
    "window_contig": "window",
    "window_start": "window",
    "window_strand": "window",
    "window_subset": "window",
    "window_reason": "window",
    "window_has_gene": "window",
    "window_gene_ptr": "window_ptr",
    "window_gene_index": "window_gene",
    "gene_genome": "gene",
    "gene_id": "gene",
    "gene_subset": "gene",
    "gene_reason": "gene",
    "gene_component": "gene",
}


def split_arrays(table: SplitTable) -> dict[str, tuple[NDArray[Any], str]]:
    """List the columns of a table as ``{name: (values, dimension)}``, in the order in which they are digested."""
    return {name: (getattr(table, name), dimension) for name, dimension in _DIMENSIONS.items()}


def split_attributes(table: SplitTable) -> dict[str, Any]:
    """Attributes that a published split carries beside its columns, as JSON."""
    return {
        "window_size": table.window_size,
        "context_size": table.context_size,
        "guard": table.guard,
        "seed": table.seed,
        "mode": table.mode,
        "genome_ids": list(table.genome_ids),
        "pins": dict(zip(table.genome_ids, table.genome_generations, strict=True)),
        "subsets": list(SUBSET_NAMES),
        "reasons": list(REASONS),
        "digest": table.content_digest(),
    }


def table_from_arrays(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> SplitTable:
    """Put a published split together again: the inverse of ``split_arrays`` and ``split_attributes``.

    Raises
    ------
    SplitError
        If a reason is stored that this release does not know.
    """
    columns = {name: np.asarray(arrays[name]) for name in _DIMENSIONS}
    for name in ("contig_name", "gene_id"):
        columns[name] = columns[name].astype(object)
    recode = _reason_recoding(attributes["reasons"])
    for name in ("window_reason", "gene_reason"):
        columns[name] = recode[columns[name]]
    ids = tuple(attributes["genome_ids"])
    return SplitTable(
        window_size=int(attributes["window_size"]),
        context_size=int(attributes["context_size"]),
        guard=str(attributes["guard"]),
        seed=int(attributes["seed"]),
        mode=str(attributes["mode"]),
        genome_ids=ids,
        genome_generations=tuple(attributes["pins"][genome_id] for genome_id in ids),
        **columns,
    )


def _reason_recoding(stored: Sequence[str]) -> Codes:
    unknown = [reason for reason in stored if reason not in REASONS]
    if unknown:
        raise SplitError(f"the split holds the reason {unknown[0]!r}, {close_names(unknown[0], REASONS[1:])}")
    return np.array([REASONS.index(reason) for reason in stored], dtype=np.uint8)


def subset_of_draw(draw: NDArray[np.float64], test_share: float, val_share: float) -> Codes:
    """Turn uniform draws into subsets: below ``test`` test, below ``test + val`` val, else train."""
    subset = np.full(len(draw), SUBSET_TRAIN, dtype=np.uint8)
    subset[draw < test_share + val_share] = SUBSET_VAL
    subset[draw < test_share] = SUBSET_TEST
    return subset
