"""Published predictions: per genome, position by strand and task, only where they were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from splicestore.errors import InputError, close_names
from splicestore.genome import Genome
from splicestore.opened import open_generation
from splicestore.storage import StoreRoot, quiet_zarr
from splicestore.storage.arrays import read_array

if TYPE_CHECKING:
    import xarray

STRANDS = (1, -1)
"""Rows of the strand axis."""


class Predictions:
    """One generation of predictions, pinned to a model, genomes and a split."""

    def __init__(self, root: StoreRoot, name: str, generation: str) -> None:
        self._root, self.name, self.generation = root, name, generation

    def __repr__(self) -> str:
        return f"Predictions({self.name!r}, generation {self.generation}, {', '.join(self.genome_ids)})"

    @property
    def path(self) -> str:
        """Key of the generation in its store."""
        return f"predictions/{self.name}/{self.generation}"

    @cached_property
    def _group(self) -> zarr.Group:
        return open_generation(self._root, self.path)

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Tasks and pins."""
        return dict(self._group.attrs["splicestore"])  # type: ignore[arg-type]

    @property
    def tasks(self) -> list[str]:
        """Names along the task axis."""
        return list(self.attributes["tasks"])

    @property
    def genome_ids(self) -> list[str]:
        """Genomes that were predicted."""
        return list(self.attributes["pins"]["genomes"])

    def genome(self, genome_id: str) -> Genome:
        """Open a genome at the pinned generation."""
        pins = self.attributes["pins"]["genomes"]
        if genome_id not in pins:
            raise InputError(f"predictions {self.name} have no genome {genome_id!r}; {close_names(genome_id, pins)}")
        return Genome(self._root, genome_id, pins[genome_id])

    def fetch(self, genome_id: str, contig: str, start: int, end: int, strand: str = "+") -> NDArray[np.float16]:
        """Read ``[start, end)`` of a contig, forward order: (base, task) float16; NaN where nothing was predicted."""
        if strand not in ("+", "-"):
            raise InputError(f"strand {strand!r}: use + or -")
        genome = self.genome(genome_id)
        contig_row = genome.contig_row(contig)
        offset, length = int(genome.contig_offset[contig_row]), int(genome.contig_length[contig_row])
        scores = np.full((max(0, end - start), len(self.tasks)), np.nan, dtype=np.float16)
        low, high = max(start, 0), min(end, length)
        if high > low:
            row = STRANDS.index(1 if strand == "+" else -1)
            box = (row, slice(offset + low, offset + high))
            scores[low - start : high - start] = read_array(self._group, array_name(genome_id), box)
        return scores

    def regions_to_pandas(self) -> pd.DataFrame:
        """Table of the regions that were predicted: genome, contig, start, end (within the contig)."""
        frames = []
        for genome_id in self.genome_ids:
            genome = self.genome(genome_id)
            first = read_array(self._group, f"region_start_{genome_id}")
            last = read_array(self._group, f"region_end_{genome_id}")
            contig = genome.contig_of(first)
            offset = genome.contig_offset[contig]
            names = np.array(genome.contig_names, dtype=object)[contig]
            frames.append(
                pd.DataFrame({"genome": genome_id, "contig": names, "start": first - offset, "end": last - offset})
            )
        return pd.concat(frames, ignore_index=True)

    def to_xarray(self) -> xarray.Dataset:
        """Open the generation lazily as plain xarray."""
        import xarray

        with quiet_zarr():
            dataset: xarray.Dataset = xarray.open_zarr(self._root.zarr_store(self.path, read_only=True), zarr_format=3)
        return dataset


def array_name(genome_id: str) -> str:
    """Name of a genome's array in the group."""
    return f"prediction_{genome_id}"
