"""Window tables and their lazy arrays: sequence, label, alpha, beta, sse of any window of a genome.

A window is the stretch of ``window_size`` bp for which labels exist, on one strand; ``context_size`` bp on
each side are input only. A window on the minus strand is returned reverse-complemented, labels and usage
reversed with it. Bases outside the contig are N, positions outside it carry label 255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from splicestore.errors import WindowError
from splicestore.genome import Genome, strand_signs
from splicestore.kernels.intervals import covered_cells, expand_counts, grid_cells, merge_intervals, pointers
from splicestore.kernels.mixing import mix_fraction
from splicestore.kernels.sequence import N_CODE, complement, reverse_complement
from splicestore.kernels.usage import splice_site_usage, zero_below_alpha
from splicestore.schema import (
    KIND_ACCEPTOR,
    KIND_BOTH,
    KIND_DONOR,
    LABEL_ACCEPTOR,
    LABEL_DONOR,
    LABEL_IGNORE,
    LABEL_NONE,
)

if TYPE_CHECKING:
    import xarray

Int64 = NDArray[np.int64]

ROWS_PER_CHUNK = 4_096
"""Windows per lazy chunk: 8 MB of bases at 1,900 bp."""
_READ_GAP = 8_192
"""Inputs closer than this are read in one slice."""


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """How windows are tiled and read; the defaults are the project's, ``splicevo()`` are SplicEvo's."""

    region: Literal["gene", "sites", "genome"] = "gene"
    """gene: gene bodies; sites: from a gene's first to its last site; genome: whole contigs from their first base, on
    both strands (on + where the genome has no genes)."""
    anchor: Literal["grid", "region_start"] = "grid"
    """grid: cells [jW, (j+1)W) of the contig; region_start: from each region's start, short ones padded."""
    geneless: bool = False
    """Also tile, on the + strand, the grid cells that no gene body meets on either strand."""
    keep_empty: bool | float = True
    """Keep windows without a site: all, none, or this fraction of them (a seeded hash of their place)."""
    minus: Literal["reverse_complement", "complement"] = "reverse_complement"
    """How windows of the - strand read; ``complement`` leaves them unreversed, as SplicEvo does."""
    label_order: Literal["spliceai", "splicevo"] = "spliceai"
    """spliceai: 1 acceptor, 2 donor; splicevo: 1 donor, 2 acceptor."""
    both: Literal["mask", "donor", "acceptor"] = "mask"
    """Label of a base that is donor and acceptor."""
    flank: Literal["genome", "N"] = "genome"
    """N: bases outside the window's genes read as N (SpliceAI's convention)."""
    min_reads: float = 10
    """SSE of sites with fewer reads (alpha + beta) is NaN; counts stay."""
    alpha_threshold: float | None = None
    """SplicEvo's threshold: where alpha is below it, alpha, beta and sse read 0."""

    @classmethod
    def splicevo(cls, alpha_threshold: float | None = 5) -> WindowOptions:
        """Return the options under which windows equal SplicEvo's (with its 2-bp label shift corrected)."""
        return cls(
            region="sites", anchor="region_start", keep_empty=False, minus="complement", label_order="splicevo",
            min_reads=0, alpha_threshold=alpha_threshold,
        )  # fmt: skip


PRESETS: dict[str, Callable[[], WindowOptions]] = {"splicestore": WindowOptions, "splicevo": WindowOptions.splicevo}


def window_options(preset: str = "splicestore", **changes: Any) -> WindowOptions:
    """Build options from a preset and changes to it.

    Raises
    ------
    WindowError
        For an unknown preset, option or value.
    """
    if preset not in PRESETS:
        raise WindowError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    options = PRESETS[preset]()
    try:
        options = replace(options, **changes)
    except TypeError as error:
        raise WindowError(f"{error}; options are {', '.join(WindowOptions.__dataclass_fields__)}") from error
    allowed = {
        "region": ("gene", "sites", "genome"), "anchor": ("grid", "region_start"), "flank": ("genome", "N"),
        "minus": ("reverse_complement", "complement"), "label_order": ("spliceai", "splicevo"),
        "both": ("mask", "donor", "acceptor"),
    }  # fmt: skip
    for name, values in allowed.items():
        if getattr(options, name) not in values:
            raise WindowError(f"{name}={getattr(options, name)!r} is not one of {', '.join(values)}")
    return options


@dataclass(frozen=True, slots=True, eq=False)
class WindowSet:
    """Windows of one genome, sorted by contig, start and strand; their arrays are lazy."""

    genome: Genome
    window_size: int
    context_size: int
    options: WindowOptions
    contig: NDArray[np.int32]
    """(window,) row of the contig."""
    start: Int64
    """(window,) absolute start of the centre; before its contig's offset where a short region was padded."""
    strand: NDArray[np.int8]
    gene_ptr: Int64
    """(window + 1,) CSR into ``gene_index``."""
    gene_index: NDArray[np.int32]
    """Genes of the window's strand whose body the centre meets."""

    def __len__(self) -> int:
        return len(self.start)

    def __repr__(self) -> str:
        return f"WindowSet({len(self):,} windows of {self.window_size} + 2 x {self.context_size} bp, {self.genome.genome_id})"

    @property
    def input_length(self) -> int:
        """``window_size + 2 * context_size``, bp."""
        return self.window_size + 2 * self.context_size

    def take(self, rows: NDArray[np.integer[Any]]) -> WindowSet:
        """Return some of the windows, in the order of ``rows``."""
        counts = np.diff(self.gene_ptr)[rows]
        window, member = expand_counts(counts)
        links = self.gene_index[self.gene_ptr[:-1][rows][window] + member]
        return replace(
            self, contig=self.contig[rows], start=self.start[rows], strand=self.strand[rows],
            gene_ptr=pointers(counts), gene_index=links,
        )  # fmt: skip

    def to_pandas(self) -> pd.DataFrame:
        """Table of contig, start, end (the centre, within the contig), strand, genes (comma-joined ids)."""
        ids = self.genome.gene_ids
        genes = [
            ",".join(ids[g] for g in self.gene_index[a:b])
            for a, b in zip(self.gene_ptr[:-1], self.gene_ptr[1:], strict=True)
        ]
        start = self.start - self.genome.contig_offset[self.contig]
        return pd.DataFrame(
            {
                "contig": np.array(self.genome.contig_names, dtype=object)[self.contig],
                "start": start,
                "end": start + self.window_size,
                "strand": strand_signs(self.strand),
                "genes": pd.Series(genes, dtype=object),
            }
        )

    # -- arrays ----------------------------------------------------------------------------------------------

    def sequence(self, first: int = 0, last: int | None = None) -> NDArray[np.uint8]:
        """Bases of windows ``[first, last)``: (window, input_length) uint8 codes, in transcript orientation."""
        contig, start, strand, links = self._rows(first, last)
        low = start - self.context_size
        codes = _gather_bases(self.genome, contig, low, self.input_length)
        if self.options.flank == "N":
            codes[~self._in_genes(low, links)] = N_CODE
        minus = strand < 0
        flip = reverse_complement if self.options.minus == "reverse_complement" else complement
        codes[minus] = flip(codes[minus])
        return codes

    def sequence_hash(self, first: int = 0, last: int | None = None) -> NDArray[np.uint8]:
        """128-bit hash of the centre's bases of windows ``[first, last)``, the same for both strands: (window, 16) uint8.

        Equal hashes mean equal bases (or their reverse complement) at different places or in different genomes.
        """
        bases = self.sequence(first, last)[:, self.context_size : self.context_size + self.window_size]
        turned = reverse_complement(bases)
        digests = [
            blake2b(min(one.tobytes(), other.tobytes()), digest_size=16).digest()
            for one, other in zip(bases, turned, strict=True)
        ]
        return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(bases), 16)

    def label(self, first: int = 0, last: int | None = None) -> NDArray[np.uint8]:
        """Labels of windows ``[first, last)``: (window, window_size) uint8, 255 = ignore."""
        contig, start, strand, _ = self._rows(first, last)
        labels = np.full((len(start), self.window_size), LABEL_NONE, dtype=np.uint8)
        window, row, offset = self._sites_in(contig, start, strand)
        labels[window, offset] = self._label_codes()[self.genome.site_kind[row]]
        outside = ~_inside_contig(self.genome, contig, start, self.window_size)
        reverse = (strand < 0) & (self.options.minus == "reverse_complement")
        outside[reverse] = outside[reverse, ::-1]
        labels[outside] = LABEL_IGNORE
        return labels

    def usage(self, first: int = 0, last: int | None = None) -> tuple[NDArray[np.float32], ...]:
        """Dense (alpha, beta, sse) of windows ``[first, last)``: (window, position, condition) float32, NaN = not measured."""
        contig, start, strand, _ = self._rows(first, last)
        window, row, offset = self._sites_in(contig, start, strand)
        shape = (len(start), self.window_size, len(self.genome.condition_names))
        dense = tuple(np.full(shape, np.nan, dtype=np.float32) for _ in range(3))
        if len(row):
            low = int(row.min())
            alpha, beta = (a[row - low] for a in self.genome.read_usage(low, int(row.max()) + 1))
            for values, array in zip(self._thresholded(alpha, beta), dense, strict=True):
                array[window, offset] = values
        return dense

    def to_xarray(self, chunk: int = ROWS_PER_CHUNK) -> xarray.Dataset:
        """Lazy arrays over all windows.

        Parameters
        ----------
        chunk
            Windows per Dask chunk; results do not depend on it.

        Returns
        -------
        dataset
            ``sequence (window, base)`` uint8, ``label (window, position)`` uint8, ``alpha``, ``beta``,
            ``sse (window, position, condition)`` float32; coordinates contig, start, end, strand, condition.
        """
        import xarray

        conditions = self.genome.condition_names
        positional = ("window", "position")
        variables = {
            "sequence": (("window", "base"), self._lazy("sequence", (self.input_length,), np.uint8, chunk)),
            "label": (positional, self._lazy("label", (self.window_size,), np.uint8, chunk)),
        }
        for name in ("alpha", "beta", "sse"):
            array = self._lazy(name, (self.window_size, len(conditions)), np.float32, chunk)
            variables[name] = ((*positional, "condition"), array)  # type: ignore[assignment]
        table = self.to_pandas()
        coordinates = {name: ("window", table[name].to_numpy()) for name in ("contig", "start", "end", "strand")}
        return xarray.Dataset(
            variables,
            coords={**coordinates, "condition": ("condition", np.array(conditions, dtype=object))},
            attrs={"genome": self.genome.genome_id, "generation": self.genome.generation,
                   "window_size": self.window_size, "context_size": self.context_size},
        )  # fmt: skip

    def _lazy(self, name: str, tail: tuple[int, ...], dtype: Any, chunk: int) -> Any:
        import dask.array

        source = _LazyArray(self, name, (len(self), *tail), np.dtype(dtype))
        return dask.array.from_array(
            source,
            chunks=(max(1, chunk), *tail),
            asarray=False,
            name=False,
            meta=np.empty((0,) * (1 + len(tail)), dtype),
        )

    # -- internals -------------------------------------------------------------------------------------------

    def _rows(
        self, first: int, last: int | None
    ) -> tuple[NDArray[np.int32], Int64, NDArray[np.int8], tuple[Int64, NDArray[np.int32]]]:
        rows = slice(first, len(self) if last is None else last)
        ptr = self.gene_ptr[rows.start : rows.stop + 1]
        window, member = expand_counts(np.diff(ptr))
        links = self.gene_index[ptr[:-1][window] + member] if len(window) else np.zeros(0, dtype=np.int32)
        return self.contig[rows], self.start[rows], self.strand[rows], (window, links)

    def _sites_in(
        self, contig: NDArray[np.int32], start: Int64, strand: NDArray[np.int8]
    ) -> tuple[Int64, Int64, Int64]:
        """(window, site row, offset in the window as returned) of every site on the window's strand."""
        genome = self.genome
        low = np.maximum(start, genome.contig_offset[contig])
        high = np.minimum(start + self.window_size, genome.contig_offset[contig] + genome.contig_length[contig])
        first = np.searchsorted(genome.site_position, low)
        counts = np.maximum(np.searchsorted(genome.site_position, high) - first, 0)
        window, member = expand_counts(counts)
        row = first[window] + member
        same = genome.site_strand[row] == strand[window]
        window, row = window[same], row[same]
        offset = genome.site_position[row] - start[window]
        if self.options.minus == "reverse_complement":
            offset = np.where(strand[window] < 0, self.window_size - 1 - offset, offset)
        return window, row, offset

    def _label_codes(self) -> NDArray[np.uint8]:
        acceptor, donor = (LABEL_ACCEPTOR, LABEL_DONOR) if self.options.label_order == "spliceai" else (1 + 1, 1)
        codes = np.zeros(4, dtype=np.uint8)
        codes[KIND_ACCEPTOR], codes[KIND_DONOR] = acceptor, donor
        codes[KIND_BOTH] = {"mask": LABEL_IGNORE, "donor": donor, "acceptor": acceptor}[self.options.both]
        return codes

    def _thresholded(self, alpha: NDArray[np.float32], beta: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        sse = splice_site_usage(alpha, beta, self.options.min_reads)
        if self.options.alpha_threshold is None:
            return alpha, beta, sse
        return zero_below_alpha(alpha, beta, sse, self.options.alpha_threshold)

    def _in_genes(self, low: Int64, links: tuple[Int64, NDArray[np.int32]]) -> NDArray[np.bool_]:
        """Which input bases lie in a gene of their window: (window, input_length) bool."""
        window, gene = links
        steps = np.zeros((len(low), self.input_length + 1), dtype=np.int32)
        first = np.clip(self.genome.gene_start[gene] - low[window], 0, self.input_length)
        last = np.clip(self.genome.gene_end[gene] - low[window], 0, self.input_length)
        np.add.at(steps, (window, first), 1)
        np.add.at(steps, (window, last), -1)
        return np.cumsum(steps, axis=1)[:, :-1] > 0


class _LazyArray:
    """One of a window set's arrays for ``dask.array.from_array``: reads the rows a chunk asks for."""

    def __init__(self, windows: WindowSet, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._windows, self._name, self.shape, self.dtype, self.ndim = windows, name, shape, dtype, len(shape)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        rows = key[0]
        first, last, _ = rows.indices(self.shape[0])
        if self._name in ("sequence", "label"):
            values = getattr(self._windows, self._name)(first, last)
        else:
            values = self._windows.usage(first, last)[("alpha", "beta", "sse").index(self._name)]
        return np.asarray(values[(slice(None), *key[1:])])


def _gather_bases(genome: Genome, contig: NDArray[np.int32], low: Int64, length: int) -> NDArray[np.uint8]:
    """Cut ``[low, low + length)`` out of the genome for every row; N outside the row's contig."""
    codes = np.full((len(low), length), N_CODE, dtype=np.uint8)
    if not len(low):
        return codes
    first = np.maximum(low, genome.contig_offset[contig])
    last = np.minimum(low + length, genome.contig_offset[contig] + genome.contig_length[contig])
    nonempty = np.flatnonzero(last > first)
    for start, end in _read_runs(first[nonempty], last[nonempty]):
        rows = nonempty[(first[nonempty] >= start) & (last[nonempty] <= end)]
        bases = genome.read_bases(start, end)
        whole = last[rows] - first[rows] == length
        if whole.any():
            codes[rows[whole]] = sliding_window_view(bases, length)[low[rows[whole]] - start]
        for row in rows[~whole].tolist():
            inside = slice(first[row] - low[row], last[row] - low[row])
            codes[row, inside] = bases[first[row] - start : last[row] - start]
    return codes


def _read_runs(first: Int64, last: Int64) -> Iterator[tuple[int, int]]:
    """Merge input intervals into few slices to read, not bridging long gaps."""
    starts, ends = merge_intervals(first, last + _READ_GAP)
    yield from zip(starts.tolist(), (ends - _READ_GAP).tolist(), strict=True)


def _inside_contig(genome: Genome, contig: NDArray[np.int32], start: Int64, length: int) -> NDArray[np.bool_]:
    position = (start - genome.contig_offset[contig])[:, None] + np.arange(length)
    return (position >= 0) & (position < genome.contig_length[contig][:, None])


# -- tiling --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Candidate windows before sorting; the same place may occur several times."""

    contig: Int64
    start: Int64
    """Within the contig."""
    strand: Int64


def tile_genome(
    genome: Genome, window_size: int, context_size: int, *, preset: str = "splicestore", **changes: Any
) -> WindowSet:
    """Tile a genome into windows.

    Parameters
    ----------
    window_size
        W, bp with labels.
    context_size
        K, bp of input on each side of a window.
    preset
        ``splicestore`` or ``splicevo`` (its windows, orientation, labels and threshold).
    **changes
        Fields of ``WindowOptions``.

    Returns
    -------
    windows
        Sorted by contig, start, strand (- before +), each (contig, start, strand) once. A genome without
        genes is tiled whole on its + strand, one with genes under ``region="genome"`` on both.

    Raises
    ------
    WindowError
        For sizes below 1 (context below 0), or an unknown option.
    """
    if window_size < 1 or context_size < 0:
        raise WindowError(
            f"window_size must be at least 1 and context_size at least 0, got {window_size} and {context_size}"
        )
    options = window_options(preset, **changes)
    has_genes = len(genome.gene_ids) > 0
    if options.region == "genome" or not has_genes:
        tiles = [_genome_tiles(genome, window_size, strand) for strand in ((1, -1) if has_genes else (1,))]
    else:
        tiles = [_region_tiles(genome, window_size, options)]
        if options.geneless:
            tiles.append(_geneless_tiles(genome, window_size))
    windows = _as_window_set(genome, window_size, context_size, options, tiles)
    return windows if options.keep_empty is True else _without_empty(windows)


def _regions(genome: Genome, options: WindowOptions) -> tuple[Int64, Int64, Int64]:
    """(gene row, start, end) of every region to tile, absolute."""
    if options.region == "gene":
        return np.arange(len(genome.gene_ids)), genome.gene_start, genome.gene_end
    site, _ = expand_counts(np.diff(genome.array("site_gene_ptr")))
    gene = genome.array("site_gene_index").astype(np.int64)
    n_genes = len(genome.gene_ids)
    first = np.full(n_genes, np.iinfo(np.int64).max)
    last = np.full(n_genes, -1, dtype=np.int64)
    np.minimum.at(first, gene, genome.site_position[site])
    np.maximum.at(last, gene, genome.site_position[site])
    rows = np.flatnonzero(last >= 0)
    return rows, first[rows], last[rows] + 1


def _region_tiles(genome: Genome, window_size: int, options: WindowOptions) -> _Tiles:
    gene, start, end = _regions(genome, options)
    contig = genome.gene_contig[gene].astype(np.int64)
    start, end = start - genome.contig_offset[contig], end - genome.contig_offset[contig]
    if options.anchor == "grid":
        region, cell = grid_cells(start, end, window_size)
        tile_start = cell * window_size
    else:
        span = end - start
        # A short region is padded on both sides, the left side taking the smaller half.
        origin = start - np.where(span < window_size, (window_size - span) // 2, 0)
        region, member = expand_counts(-(-span // window_size))
        tile_start = origin[region] + member * window_size
    return _Tiles(contig[region], tile_start, genome.gene_strand[gene[region]].astype(np.int64))


def _contig_cells(genome: Genome, window_size: int) -> Int64:
    return -(-genome.contig_length // window_size)


def _genome_tiles(genome: Genome, window_size: int, strand: int) -> _Tiles:
    contig, cell = expand_counts(_contig_cells(genome, window_size))
    return _Tiles(contig, cell * window_size, np.full(len(contig), strand, dtype=np.int64))


def _geneless_tiles(genome: Genome, window_size: int) -> _Tiles:
    """Cells that no gene body meets, numbered over all contigs at once."""
    n_cells = _contig_cells(genome, window_size)
    first_cell = pointers(n_cells)[:-1]
    contig = genome.gene_contig.astype(np.int64)
    base = first_cell[contig] * window_size - genome.contig_offset[contig]
    covered = covered_cells(base + genome.gene_start, base + genome.gene_end, window_size, int(n_cells.sum()))
    owner, cell = expand_counts(n_cells)
    owner, cell = owner[~covered], cell[~covered]
    return _Tiles(owner, cell * window_size, np.ones(len(cell), dtype=np.int64))


def _as_window_set(
    genome: Genome, window_size: int, context_size: int, options: WindowOptions, tiles: list[_Tiles]
) -> WindowSet:
    contig, start, strand = (
        np.concatenate([getattr(t, name) for t in tiles]) for name in ("contig", "start", "strand")
    )
    order = np.lexsort((strand, start, contig))
    contig, start, strand = contig[order], start[order], strand[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (contig[1:] != contig[:-1]) | (start[1:] != start[:-1]) | (strand[1:] != strand[:-1])
    contig, start, strand = contig[new], start[new], strand[new]
    absolute = start + genome.contig_offset[contig]
    ptr, index = _gene_links(genome, contig, absolute, strand, window_size)
    return WindowSet(
        genome,
        window_size,
        context_size,
        options,
        contig.astype(np.int32),
        absolute,
        strand.astype(np.int8),
        ptr,
        index,
    )


def _gene_links(
    genome: Genome, contig: Int64, start: Int64, strand: Int64, window_size: int
) -> tuple[Int64, NDArray[np.int32]]:
    """CSR links of windows to the genes of their strand whose bodies their centres meet.

    All windows have one size, so those that meet a gene are a run of the windows sorted by start.
    """
    windows, genes = [], []
    for sign in (-1, 1):
        mine = np.flatnonzero(strand == sign)
        mine = mine[np.argsort(start[mine], kind="stable")]
        gene = np.flatnonzero(genome.gene_strand == sign)
        first = np.searchsorted(start[mine], genome.gene_start[gene] - window_size, side="right")
        last = np.searchsorted(start[mine], genome.gene_end[gene], side="left")
        run, member = expand_counts(np.maximum(last - first, 0))
        window = mine[first[run] + member]
        # The last cell of a contig reaches into the next one's coordinates.
        same_contig = contig[window] == genome.gene_contig[gene[run]]
        windows.append(window[same_contig])
        genes.append(gene[run][same_contig])
    window, gene = np.concatenate(windows), np.concatenate(genes)
    order = np.lexsort((gene, window))
    return pointers(np.bincount(window, minlength=len(start))), gene[order].astype(np.int32)


def _without_empty(windows: WindowSet) -> WindowSet:
    """Drop windows without a site on their strand, all of them or all but a fraction."""
    window, _, _ = windows._sites_in(windows.contig, windows.start, windows.strand)
    keep = np.bincount(window, minlength=len(windows)) > 0
    fraction = float(windows.options.keep_empty)
    if fraction > 0:
        place = windows.start * 2 + (windows.strand > 0)
        keep |= mix_fraction(place) < fraction
    return windows.take(np.flatnonzero(keep))
