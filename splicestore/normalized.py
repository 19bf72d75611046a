"""Published normalisations: the edges of every gene's bins, and the bins of whole matrices."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.expression import SampleGeneMatrix, Table


class Normalized(Table):
    """Edges of the bins of every gene, fitted to some samples; fixed, so that a value's bin depends on nothing else."""

    kind = "normalized"

    def __repr__(self) -> str:
        return (
            f"Normalized({self.name!r}, generation {self.generation}, {self.n_genes:,} genes, {self.n_bins} bins, fitted to "
            f"{self.n_samples_fitted:,} samples)"
        )

    @property
    def n_bins(self) -> int:
        """B: 1 zero, 2..B positives."""
        return int(self.attributes["options"]["n_bins"])

    @property
    def tie_policy(self) -> Any:
        """``max`` or ``min``."""
        return self.attributes["options"]["tie_policy"]

    @property
    def expression(self) -> tuple[str, str]:
        """Name and generation of the matrix it was fitted to."""
        return self.pinned("expression")

    @property
    def n_samples_fitted(self) -> int:
        """Samples it was fitted to."""
        return int(self.attributes["n_samples_fitted"])

    @property
    def n_genes(self) -> int:
        """Genes with edges."""
        return int(self.attributes["n_genes"])

    @cached_property
    def gene_is_kept(self) -> NDArray[np.bool_]:
        """(gene,) False for the weaker of two genes with one symbol."""
        return self.array("gene_is_kept").astype(bool)

    def edges(self, first_gene: int, last_gene: int) -> NDArray[np.float32]:
        """Read edges: (gene, n_bins - 2) float32, ``inf`` for genes with fewer than two positive samples."""
        return self._opened.read("edges", first_gene, last_gene)

    def genes_to_pandas(self) -> pd.DataFrame:
        """Table of the genes: positives, mean and standard deviation of the scores, whether kept and expressed."""
        return self.table("gene", self.n_genes)


class Bins(SampleGeneMatrix):
    """Bins of samples by genes: 0 missing, 1 zero, 2..B positives."""

    kind = "bins"
    array_name = "bins"

    @property
    def normalized(self) -> tuple[str, str]:
        """Name and generation of the edges."""
        return self.pinned("normalized")

    @property
    def expression(self) -> tuple[str, str]:
        """Name and generation of the counts."""
        return self.pinned("expression")
