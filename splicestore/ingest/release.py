"""A newer release of a stored matrix: which samples and genes came, went and changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError, StoreNotFoundError, close_names
from splicestore.expression import GENE_CHANGES, REMOVED_SAMPLE_REASONS, SAMPLE_CHANGES, Expression, count_digests
from splicestore.ingest.count_files import CountFile, GeneRows
from splicestore.kernels.profiles import name_keys
from splicestore.storage import StoreRoot, read_pointer
from splicestore.storage.catalog import pointer_names
from splicestore.storage.columns import Column


@dataclass(frozen=True, slots=True)
class Release:
    """How files compare with the matrix that they follow, as far as names say; ``-1`` where something is new."""

    old: Expression
    sample_row: NDArray[np.int64]
    """(sample,) its row in the old matrix."""
    gene_row: NDArray[np.int64]
    """(gene,) its column in the old matrix."""
    symbol_before: tuple[str, ...]
    """(gene,) its symbol in the old matrix where that was another one, else empty."""
    n_other_versions: int
    removed_samples: NDArray[np.int64]
    """Rows of the old matrix."""
    removed_is_in_files: NDArray[np.bool_]
    """(removed sample,) the files have it, it was not selected."""
    removed_genes: NDArray[np.int64]
    """Columns of the old matrix."""

    @property
    def parent(self) -> str:
        """Path of the old matrix."""
        return f"expression/{self.old.name}"

    def columns(self) -> list[Column]:
        """Spell what is known before a count is read."""
        code = np.zeros(len(self.gene_row), dtype=np.uint8)
        code[[bool(before) for before in self.symbol_before]] = GENE_CHANGES.index("renamed")
        code[self.gene_row < 0] = GENE_CHANGES.index("added")
        old, reason = self.old, self.removed_is_in_files.astype(np.uint8)
        return [
            Column("gene_change", code, "gene", "uint8", attributes={"vocabulary": list(GENE_CHANGES)}),
            Column("gene_symbol_before", self.symbol_before, "gene", "string"),
            Column("removed_gene_id", [old.gene_ids[g] for g in self.removed_genes.tolist()], "removed_gene", "string"),
            Column(
                "removed_gene_symbol",
                [old.gene_symbols[g] for g in self.removed_genes.tolist()],
                "removed_gene",
                "string",
            ),
            Column(
                "removed_sample_id",
                [old.sample_ids[s] for s in self.removed_samples.tolist()],
                "removed_sample",
                "string",
            ),
            Column(
                "removed_sample_reason",
                reason,
                "removed_sample",
                "uint8",
                attributes={"vocabulary": list(REMOVED_SAMPLE_REASONS)},
            ),
        ]

    def expected_digests(self) -> NDArray[np.uint64]:
        """Digest of every sample in the old matrix over the genes that both have; 0 for samples that are new: (sample,) uint64."""
        is_removed = np.zeros(self.old.n_genes, dtype=bool)
        is_removed[self.removed_genes] = True
        digest = self.old.sample_digests() - count_digests(self.old, is_removed)
        return np.where(self.sample_row >= 0, digest[self.sample_row], np.uint64(0))

    def summary(self, sample_change: NDArray[np.uint8]) -> dict[str, Any]:
        """Count what came, went and changed."""
        samples = np.bincount(sample_change, minlength=len(SAMPLE_CHANGES)).tolist()
        genes = np.bincount(self.columns()[0].values, minlength=len(GENE_CHANGES)).tolist()
        return {
            "of": self.old.name,
            "generation": self.old.generation,
            "samples": {**dict(zip(SAMPLE_CHANGES, samples, strict=True)), "removed": len(self.removed_samples)},
            "genes": {
                **dict(zip(GENE_CHANGES, genes, strict=True)),
                "removed": len(self.removed_genes),
                "other_versions": self.n_other_versions,
            },
        }

    def warnings(self, selected: str) -> list[str]:
        """Say what makes a comparison mean less than it seems to."""
        found, before = [], str(self.old.attributes.get("selected"))
        if before != selected:
            found.append(
                f"{self.old.name} was made of other samples ({before}; here {selected}): some are new or gone for that alone"
            )
        if not (self.sample_row >= 0).any():
            found.append(f"no sample of {self.old.name} is in the files")
        return found


def compare_release(root: StoreRoot, name: str, old_name: str, files: Sequence[CountFile], genes: GeneRows) -> Release:
    """Compare files with the matrix that they are a newer release of.

    Raises
    ------
    ConfigError
        If both have one name: edges and bins pin the old one by it.
    StoreNotFoundError
        If there is no such matrix.
    InputError
        If they share no gene.
    """
    if old_name == name:
        raise ConfigError(
            f"--release-of {old_name}: a release is a matrix of its own; give it another name than {name}"
        )
    pointer = read_pointer(root, f"expression/{old_name}")
    if pointer is None:
        raise StoreNotFoundError(
            f"{root.url}: --release-of {old_name}: no such expression; {close_names(old_name, pointer_names(root, 'expression'))}"
        )
    old = Expression(root, old_name, str(pointer.current))
    old_ids = old.stable_gene_ids
    gene_row, removed_genes = _match(name_keys(old_ids).tolist(), name_keys(genes.gene_id).tolist())
    if not (gene_row >= 0).any():
        raise InputError(
            f"--release-of {old_name}: none of its {old.n_genes:,} genes (first: {', '.join(old_ids[:3])}) is in the files (first: "
            f"{', '.join(genes.gene_id[:3])}): another species, or other ids?"
        )
    sample_row, removed_samples = _match(old.sample_ids, [sample for file in files for sample in file.sample_ids])
    in_files = {sample for file in files for sample in file.head.sample_id}
    return Release(
        old,
        sample_row,
        gene_row,
        _symbols_before(old, gene_row, genes.symbol),
        _n_other_versions(old, gene_row, genes.version),
        removed_samples,
        np.array([old.sample_ids[row] in in_files for row in removed_samples.tolist()], dtype=bool),
        removed_genes,
    )


def _match(old: Sequence[Any], new: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find new names among old ones: (row of each in the old, rows of the old that are not found)."""
    place = {name: row for row, name in enumerate(old)}
    rows = np.array([place.get(name, -1) for name in new], dtype=np.int64)
    return rows, np.setdiff1d(np.arange(len(old)), rows)


def _symbols_before(old: Expression, gene_row: NDArray[np.int64], symbols: Sequence[str]) -> tuple[str, ...]:
    known = old.gene_symbols
    before = [known[row] if row >= 0 else "" for row in gene_row.tolist()]
    return tuple(b if b and s and b != s else "" for b, s in zip(before, symbols, strict=True))


def _n_other_versions(old: Expression, gene_row: NDArray[np.int64], version: NDArray[np.uint16]) -> int:
    return int((old.gene_versions[gene_row] != version)[gene_row >= 0].sum())
