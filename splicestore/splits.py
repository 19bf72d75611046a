"""A published split: one window table over all its genomes, pinned to a generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from splicestore.genome import Genome, KnownGenome, open_known, strand_signs
from splicestore.opened import OpenedGeneration, ledger_frame
from splicestore.schema import SUBSET_NAMES
from splicestore.storage import StoreRoot

_PLANNED_COLUMNS = tuple(f"window_{name}" for name in ("genome", "contig", "start", "strand", "subset", "has_gene"))
_GENOME_COLUMNS = ("contig_genome", "contig_length", "contig_offset", "block_site_ptr", "genome_block_ptr")


class Split:
    """Subset and reason of every window and gene; genomes are pinned to the generations it was made from."""

    def __init__(self, root: StoreRoot, name: str, generation: str) -> None:
        self._root, self.name, self.generation = root, name, generation

    def __repr__(self) -> str:
        return f"Split({self.name!r}, generation {self.generation}, {len(self.genome_ids)} genomes)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Split, (self._root, self.name, self.generation)

    @property
    def path(self) -> str:
        """Key of the generation in its store."""
        return f"splits/{self.name}/{self.generation}"

    @cached_property
    def _opened(self) -> OpenedGeneration:
        return OpenedGeneration(self._root, self.path)

    @property
    def _group(self) -> zarr.Group:
        return self._opened.group

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Options, pins, report."""
        return dict(self._opened.attributes)

    def array(self, name: str) -> NDArray[Any]:
        """Read one array whole."""
        return self._opened.read_whole(name)

    @property
    def genome_ids(self) -> tuple[str, ...]:
        """Genomes in table order."""
        return tuple(self.attributes["genome_ids"])

    @property
    def genome_generations(self) -> dict[str, str]:
        """Pinned generation of every genome."""
        return dict(self.attributes["pins"])

    @property
    def window_size(self) -> int:
        """W, bp."""
        return int(self.attributes["window_size"])

    @property
    def context_size(self) -> int:
        """K, bp; a stream may use up to this."""
        return int(self.attributes["context_size"])

    @property
    def digest(self) -> str:
        """sha256 of the table's content: a state belongs to it, wherever the store moves."""
        return str(self.attributes["digest"])

    @cached_property
    def window_genome(self) -> NDArray[np.int16]:
        """(window,) index into ``genome_ids``."""
        return self.array("window_genome")

    @cached_property
    def window_contig(self) -> NDArray[np.int32]:
        """(window,) contig row within its genome."""
        return self.array("window_contig")

    @cached_property
    def window_start(self) -> NDArray[np.int64]:
        """(window,) absolute start of the centre."""
        return self.array("window_start")

    @cached_property
    def window_strand(self) -> NDArray[np.int8]:
        """(window,) +1 or -1."""
        return self.array("window_strand")

    @cached_property
    def window_subset(self) -> NDArray[np.uint8]:
        """(window,) 0 train, 1 val, 2 test, 3 excluded."""
        return self.array("window_subset")

    @cached_property
    def window_has_gene(self) -> NDArray[np.bool_]:
        """(window,) whether the centre meets a gene body on either strand."""
        return self.array("window_has_gene").astype(bool)

    def genome(self, genome_id: str) -> Genome:
        """Open a genome at the pinned generation."""
        return Genome(self._root, genome_id, self.genome_generations[genome_id])

    def open_genomes(self, genome_ids: Sequence[str]) -> list[Genome]:
        """Open pinned genomes; of a thousand, nothing is read but where their usage is."""
        digests = self.attributes.get("site_digests")
        if digests is None:
            return [self.genome(genome_id) for genome_id in genome_ids]
        columns = self._opened.read_all([*_PLANNED_COLUMNS, *_GENOME_COLUMNS])
        contig_genome, length, offset, sites, ptr = (columns.pop(name) for name in _GENOME_COLUMNS)
        # The window table came along; its properties are where a plan looks for it.
        columns["window_has_gene"] = columns["window_has_gene"].astype(bool)
        self.__dict__.update(columns)
        known = []
        for genome_id in genome_ids:
            row = self.genome_ids.index(genome_id)
            contigs = slice(*np.searchsorted(contig_genome, (row, row + 1)).tolist())
            known.append(
                KnownGenome(
                    genome_id=genome_id,
                    generation=self.genome_generations[genome_id],
                    site_digest=digests[genome_id],
                    contig_offset=offset[contigs],
                    contig_length=length[contigs],
                    block_site_ptr=sites[ptr[row] : ptr[row + 1]],
                )
            )
        return open_known(self._root, known)

    def _words(self, name: str) -> NDArray[Any]:
        words: Any = list(self._group[name].attrs["vocabulary"])  # type: ignore[arg-type]
        return np.asarray(np.array(words, dtype=object)[self.array(name)])

    def to_pandas(self) -> pd.DataFrame:
        """Table of genome, contig, start, end, strand, subset, reason, genes; one row per window, ``window_id`` is the row.

        Start and end are the centre's, 0-based half-open within the contig.
        """
        contig = np.empty(len(self.window_start), dtype=object)
        start = self.window_start.copy()
        for index, genome_id in enumerate(self.genome_ids):
            rows, genome = self.window_genome == index, self.genome(genome_id)
            contig[rows] = np.array(genome.contig_names, dtype=object)[self.window_contig[rows]]
            start[rows] -= genome.contig_offset[self.window_contig[rows]]
        gene_ids = self.array("gene_id")
        ptr, index_of = self.array("window_gene_ptr"), self.array("window_gene_index")
        genes = [",".join(str(g) for g in gene_ids[index_of[a:b]]) for a, b in zip(ptr[:-1], ptr[1:], strict=True)]
        return pd.DataFrame(
            {
                "genome": np.array(self.genome_ids, dtype=object)[self.window_genome],
                "contig": contig,
                "start": start,
                "end": start + self.window_size,
                "strand": strand_signs(self.window_strand),
                "subset": np.array(SUBSET_NAMES, dtype=object)[self.window_subset],
                "reason": self._words("window_reason"),
                "genes": pd.Series(genes, dtype=object),
            }
        )

    @property
    def ledger(self) -> pd.DataFrame:
        """Table of homology rows that matched nothing, or stand in several groups."""
        return ledger_frame(self._group)

    def genes_to_pandas(self) -> pd.DataFrame:
        """Table of genome, gene_id, subset, reason, component; one row per gene."""
        return pd.DataFrame(
            {
                "genome": np.array(self.genome_ids, dtype=object)[self.array("gene_genome")],
                "gene_id": [str(g) for g in self.array("gene_id")],
                "subset": np.array(SUBSET_NAMES, dtype=object)[self.array("gene_subset")],
                "reason": self._words("gene_reason"),
                "component": self.array("gene_component"),
            }
        )
