"""What a stream asks of a store: any object with these attributes can be streamed. Positions are absolute bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


class GenomeSource(Protocol):
    """A genome, pinned to one generation; reads may come from several threads."""

    @property
    def genome_id(self) -> str:
        """Name."""
        ...

    @property
    def generation(self) -> str:
        """Which version of it."""
        ...

    @property
    def n_bases(self) -> int:
        """Bases of all contigs."""
        ...

    @property
    def contig_names(self) -> Sequence[str]:
        """Names of the contigs."""
        ...

    @property
    def contig_length(self) -> Int64:
        """(contig,) bp."""
        ...

    @property
    def contig_offset(self) -> Int64:
        """(contig,) absolute base of each contig's first base."""
        ...

    @property
    def site_position(self) -> Int64:
        """(site,) absolute, sorted, then by strand."""
        ...

    @property
    def site_strand(self) -> NDArray[np.int8]:
        """(site,) +1 or -1."""
        ...

    @property
    def site_kind(self) -> NDArray[np.uint8]:
        """(site,) bit 0 acceptor, bit 1 donor."""
        ...

    @property
    def block_site_ptr(self) -> Int64:
        """(block + 1,) first site of every block."""
        ...

    @property
    def condition_names(self) -> Sequence[str]:
        """Columns of ``read_usage``."""
        ...

    @property
    def usage_generations(self) -> Sequence[str]:
        """Keys of the usage generations that ``read_usage`` reads."""
        ...

    def read_bases(self, start: int, end: int) -> NDArray[np.uint8]:
        """Bases ``[start, end)`` as codes 0..4; ``0 <= start <= end <= n_bases``."""
        ...

    def read_block(
        self, start: int, end: int, first_site: int, last_site: int, threads: Executor, out: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """Read bases (into ``out``), alpha and beta together, by a pool of threads."""
        ...

    def read_usage(self, first_site: int, last_site: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Alpha and beta of sites ``[first_site, last_site)``: (n, condition), NaN = not measured."""
        ...


class SplitSource(Protocol):
    """A split: one window table over all genomes, sorted by genome, contig, start, strand."""

    @property
    def name(self) -> str:
        """Name."""
        ...

    @property
    def digest(self) -> str:
        """Digest of the whole table."""
        ...

    @property
    def genome_ids(self) -> Sequence[str]:
        """What ``window_genome`` indexes."""
        ...

    @property
    def genome_generations(self) -> Mapping[str, str]:
        """The generation of each genome that the split pins."""
        ...

    @property
    def window_size(self) -> int:
        """W, in bp."""
        ...

    @property
    def context_size(self) -> int:
        """K, in bp: how far other subsets were kept apart."""
        ...

    @property
    def window_genome(self) -> NDArray[np.int16]:
        """(window,) index into ``genome_ids``."""
        ...

    @property
    def window_contig(self) -> NDArray[np.int32]:
        """(window,) index into the genome's contigs."""
        ...

    @property
    def window_start(self) -> Int64:
        """(window,) absolute start of the centre; may lie before the contig."""
        ...

    @property
    def window_strand(self) -> NDArray[np.int8]:
        """(window,) +1 or -1."""
        ...

    @property
    def window_subset(self) -> NDArray[np.uint8]:
        """(window,) index into ``SUBSET_NAMES``."""
        ...

    @property
    def window_has_gene(self) -> NDArray[np.bool_]:
        """(window,) the centre meets a gene body."""
        ...


class StoreSource(Protocol):
    """A store."""

    def open_pinned(self, split: Any, genome_ids: Sequence[str]) -> Sequence[GenomeSource]:
        """Open genomes at the generations that one of the splits pins; nothing large is read."""
        ...

    @property
    def n_requests(self) -> int:
        """Reads that the storage was asked for so far, in this process."""
        ...

    @property
    def splits(self) -> Mapping[str, SplitSource]:
        """Splits by name."""
        ...
