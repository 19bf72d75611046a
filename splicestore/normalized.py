"""Published normalisations: edges of bins or what a scaling needs, the bins and values of whole matrices, tokens of their genes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import ConfigError, close_names
from splicestore.expression import SampleGeneMatrix, Table


class Normalized(Table):
    """Edges of the bins of every gene, or a scaling, fitted to some samples; fixed, so that values depend on nothing else."""

    kind = "normalized"

    def __repr__(self) -> str:
        what = f"{self.n_bins} bins" if self.method == "bins" else self.method
        return (
            f"Normalized({self.name!r}, generation {self.generation}, {self.n_genes:,} genes, {what}, fitted to "
            f"{self.n_samples_fitted:,} samples)"
        )

    @property
    def method(self) -> str:
        """``bins``, or a scaling: ``cpm``, ``log1p``, ``quantile``, ``tmm``."""
        return str(self.attributes["options"]["method"])

    @property
    def n_bins(self) -> int:
        """B: 1 zero, 2..B positives.

        Raises
        ------
        ConfigError
            If it is a scaling.
        """
        return int(self._option_of_bins("n_bins"))

    @property
    def tie_policy(self) -> Any:
        """``max`` or ``min``."""
        return self._option_of_bins("tie_policy")

    def _option_of_bins(self, name: str) -> Any:
        if self.method != "bins":
            raise ConfigError(
                f"normalisation {self.name} has no bins, its method is {self.method}: fit one with --method bins"
            )
        return self.attributes["options"][name]

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

    def histogram(self, first_gene: int, last_gene: int) -> NDArray[np.uint32]:
        """Read how many positive scores have each code: (gene, 65536) uint32; of fits in histogram mode."""
        return self._opened.read("histogram", first_gene, last_gene)

    @cached_property
    def fitted_ids(self) -> list[str]:
        """Samples that a histogram counts, those of the fits it extends first."""
        return [str(name) for name in self.array("fitted_id")]

    def genes_to_pandas(self) -> pd.DataFrame:
        """Table of the genes: positives, mean and standard deviation of the scores, whether kept and expressed."""
        return self.table("gene")


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


class Scaled(SampleGeneMatrix):
    """Scaled counts of samples by genes: (sample, gene) float32, NaN where a sample lacks the gene or has no count."""

    kind = "scaled"
    array_name = "values"

    @property
    def method(self) -> str:
        """``cpm``, ``log1p``, ``quantile``, ``tmm``."""
        return str(self.attributes["method"])

    @property
    def normalized(self) -> tuple[str, str]:
        """Name and generation of the fitted scaling."""
        return self.pinned("normalized")

    @property
    def expression(self) -> tuple[str, str]:
        """Name and generation of the counts."""
        return self.pinned("expression")


class Tokens(Table):
    """Numbers of the genes of some bins: one for a pair of orthologs, its own for any other gene; from 3 on."""

    kind = "tokens"

    def __repr__(self) -> str:
        return f"Tokens({self.name!r}, generation {self.generation}, {self.n_tokens:,} tokens, bins {', '.join(self.bins)})"

    @property
    def bins(self) -> dict[str, str]:
        """Generation of each of the bins whose genes have a token, by name."""
        return {str(name): str(generation) for name, generation in self.attributes["pins"]["bins"].items()}

    @property
    def n_tokens(self) -> int:
        """Rows of an embedding: the highest token plus one, so the first three, which no gene has, are among them."""
        return int(self.attributes["n_tokens"])

    def token_of(self, bins: str | Bins) -> NDArray[np.int32]:
        """Tokens of the genes of some bins, in the order of their columns: (gene,) int32.

        Raises
        ------
        ConfigError
            If they have no tokens here, or (for opened bins) are of another generation than those that have.
        """
        name = bins if isinstance(bins, str) else bins.name
        if name not in self.bins:
            raise ConfigError(f"tokens {self.name} are not of bins {name}; {close_names(name, self.bins)}")
        if not isinstance(bins, str) and bins.generation != self.bins[name]:
            raise ConfigError(
                f"tokens {self.name} are of bins {name} generation {self.bins[name]}, not {bins.generation}: run `normalize tokens` again"
            )
        return np.asarray(self.array("gene_token")[self._gene_bins == list(self.bins).index(name)])

    @cached_property
    def _gene_bins(self) -> NDArray[np.uint16]:
        return self.array("gene_bins")

    def gene_table(self) -> pd.DataFrame:
        """Table of the genes: id, bins, relation to the other species, symbol, token."""
        return self.table("gene")
