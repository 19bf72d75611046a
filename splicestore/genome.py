"""A published genome as lazy arrays, pinned to one generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from splicestore.errors import InputError, StoreError, close_names
from splicestore.kernels.intervals import expand_counts
from splicestore.kernels.sequence import N_CODE
from splicestore.kernels.usage import splice_site_usage
from splicestore.opened import OpenedGeneration, lazy, ledger_frame
from splicestore.schema import KIND_NAMES, SOURCE_ANNOTATION, SOURCE_JUNCTION
from splicestore.storage import StoreRoot, quiet_zarr, read_catalog, read_pointer
from splicestore.storage.blocks import read_together

if TYPE_CHECKING:
    import xarray

    from splicestore.windows import WindowSet

STRAND_SIGNS = {1: "+", -1: "-", 0: "."}


def strand_signs(strand: NDArray[np.int8]) -> NDArray[np.object_]:
    """Spell strands as ``+``, ``-`` or ``.``."""
    return np.array([".", "+", "-"], dtype=object)[strand]


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of a genome; ``to_pandas`` reads it."""

    read: Any

    def to_pandas(self, **options: Any) -> pd.DataFrame:
        """Read the table: contig names, 0-based half-open positions within the contig, strand ``+`` or ``-``."""
        frame: pd.DataFrame = self.read(**options)
        return frame


class Genome:
    """One generation of one genome: its bases, genes, splice sites and usage.

    Small tables are read when first asked for and kept; bases and usage are read by slice. Positions of the
    numpy attributes are absolute (contig offset + position); the tables speak contigs.
    """

    def __init__(
        self, root: StoreRoot, genome_id: str, generation: str, panel_paths: tuple[str, ...] | None = None
    ) -> None:
        self._root, self.genome_id, self.generation = root, genome_id, generation
        self._panel_paths = panel_paths
        """Usage generations that were looked up before; None: not yet."""

    def __repr__(self) -> str:
        return f"Genome({self.genome_id!r}, generation {self.generation}, {self.n_bases:,} bases, {len(self.gene_ids):,} genes)"

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by address: a handle must not cross a process border.
        # With the usage that was looked up here: elsewhere, or a moment later, another may be current.
        paths = self.usage_generations if "_panels" in self.__dict__ else self._panel_paths
        return Genome, (self._root, self.genome_id, self.generation, paths)

    @property
    def path(self) -> str:
        """Key of the generation in its store."""
        return f"genomes/{self.genome_id}/{self.generation}"

    @cached_property
    def _opened(self) -> OpenedGeneration:
        return OpenedGeneration(self._root, self.path)

    @property
    def _group(self) -> zarr.Group:
        return self._opened.group

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the group says of itself: digests, summary, motifs."""
        return dict(self._group.attrs["splicestore"])  # type: ignore[arg-type]

    def array(self, name: str) -> NDArray[Any]:
        """Read one small array whole."""
        return self._opened.read_whole(name)

    # -- contigs ---------------------------------------------------------------------------------------------

    @cached_property
    def contig_names(self) -> list[str]:
        """Contigs in file order."""
        return [str(n) for n in self.array("contig_name")]

    @cached_property
    def contig_length(self) -> NDArray[np.int64]:
        """(contig,) bp."""
        return self.array("contig_length")

    @cached_property
    def contig_offset(self) -> NDArray[np.int64]:
        """(contig,) absolute base of each contig's first base."""
        return self.array("contig_offset")

    @property
    def n_bases(self) -> int:
        """Bases of all contigs."""
        return int(self._group["sequence"].shape[0])  # type: ignore[union-attr]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Other spellings of contig names."""
        names, rows = self.array("alias_name"), self.array("alias_contig")
        return {str(n): self.contig_names[int(r)] for n, r in zip(names, rows, strict=True)}

    def contig_row(self, name: str) -> int:
        """Row of a contig, by name or alias.

        Raises
        ------
        InputError
            If the genome has no such contig; close names are listed.
        """
        name = self.aliases.get(name, name)
        if name not in self.contig_names:
            raise InputError(f"genome {self.genome_id} has no contig {name!r}; {close_names(name, self.contig_names)}")
        return self.contig_names.index(name)

    def contig_of(self, position: NDArray[np.int64]) -> NDArray[np.int32]:
        """Contig row of absolute positions."""
        return (np.searchsorted(self.contig_offset, position, side="right") - 1).astype(np.int32)

    # -- bases -----------------------------------------------------------------------------------------------

    def read_bases(self, start: int, end: int) -> NDArray[np.uint8]:
        """Read absolute bases ``[start, end)`` as codes 0..4; ``0 <= start <= end <= n_bases``."""
        return self._opened.read("sequence", start, end)

    def read_block(
        self,
        start: int,
        end: int,
        first_site: int,
        last_site: int,
        threads: Executor,
        out: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """Read bases and the counts of sites together: one round trip once the shard indexes are known.

        Parameters
        ----------
        start, end
            Absolute bases, half-open.
        first_site, last_site
            Rows of the site table, half-open.
        threads
            A thread pool.
        out : (end - start,) uint8, optional
            Where the bases go.

        Returns
        -------
        bases : (end - start,) uint8
        alpha, beta : (last_site - first_site, condition) float32
            NaN = not measured.
        """
        views = self._panels if last_site > first_site else []
        arrays = [self._opened.blocks("sequence"), *(v.opened.blocks(n) for v in views for n in ("alpha", "beta"))]
        if any(array is None for array in arrays):
            bases = np.empty(end - start, dtype=np.uint8) if out is None else out
            bases[:] = self.read_bases(start, end)
            return bases, *self.read_usage(first_site, last_site)
        sequence, *tables = [array for array in arrays if array is not None]
        sites = [(table, first_site, last_site) for table in tables]
        bases, *counts = read_together([(sequence, start, end, out), *sites], threads)
        if not counts:
            nothing = np.zeros((last_site - first_site, len(self.condition_names)), dtype=np.float32)
            return bases, nothing, nothing
        return bases, np.concatenate(counts[::2], axis=1), np.concatenate(counts[1::2], axis=1)

    def fetch(self, contig: str, start: int, end: int) -> NDArray[np.uint8]:
        """Read ``[start, end)`` of a contig as uint8 codes (A C G T N = 0..4); N beyond its ends."""
        row = self.contig_row(contig)
        length, offset = int(self.contig_length[row]), int(self.contig_offset[row])
        inside = slice(min(max(start, 0), length), max(min(end, length), 0))
        codes = np.full(max(0, end - start), N_CODE, dtype=np.uint8)
        if inside.stop > inside.start:
            codes[inside.start - start : inside.stop - start] = self.read_bases(
                offset + inside.start, offset + inside.stop
            )
        return codes

    # -- genes -----------------------------------------------------------------------------------------------

    @cached_property
    def gene_ids(self) -> list[str]:
        """Genes sorted by absolute start."""
        return [str(n) for n in self.array("gene_id")]

    @cached_property
    def gene_contig(self) -> NDArray[np.int32]:
        """(gene,) row of the contig."""
        return self.array("gene_contig")

    @cached_property
    def gene_start(self) -> NDArray[np.int64]:
        """(gene,) absolute."""
        return self.array("gene_start")

    @cached_property
    def gene_end(self) -> NDArray[np.int64]:
        """(gene,) absolute, excluded."""
        return self.array("gene_end")

    @cached_property
    def gene_strand(self) -> NDArray[np.int8]:
        """(gene,) +1 or -1."""
        return self.array("gene_strand")

    def transcript_genes(self) -> dict[str, str]:
        """Gene id of every stored transcript."""
        ids, rows = self.array("transcript_id"), self.array("transcript_gene")
        return {str(i): self.gene_ids[int(r)] for i, r in zip(ids, rows, strict=True)}

    @property
    def genes(self) -> _Table:
        """Table of gene_id, symbol, contig, start, end, strand, biotype."""
        return _Table(self._genes_table)

    def _genes_table(self) -> pd.DataFrame:
        offset = self.contig_offset[self.gene_contig] if len(self.gene_ids) else np.zeros(0, np.int64)
        return pd.DataFrame(
            {
                "gene_id": self.gene_ids,
                "symbol": [str(s) for s in self.array("gene_symbol")],
                "contig": [self.contig_names[c] for c in self.gene_contig],
                "start": self.gene_start - offset,
                "end": self.gene_end - offset,
                "strand": strand_signs(self.gene_strand),
                "biotype": self._words("gene_biotype"),
            }
        )

    def gene(self, name: str) -> Gene:
        """Look a gene up by id or symbol.

        Raises
        ------
        InputError
            If there is none, or several share the symbol.
        """
        if name in self.gene_ids:
            return Gene(self, self.gene_ids.index(name))
        symbols = [str(s) for s in self.array("gene_symbol")]
        rows = [i for i, symbol in enumerate(symbols) if symbol == name]
        if len(rows) == 1:
            return Gene(self, rows[0])
        if rows:
            raise InputError(
                f"genome {self.genome_id}: {len(rows)} genes have the symbol {name!r}: {', '.join(self.gene_ids[i] for i in rows)}"
            )
        raise InputError(
            f"genome {self.genome_id} has no gene {name!r}; {close_names(name, [*self.gene_ids, *symbols])}"
        )

    def _words(self, name: str) -> list[str]:
        vocabulary = list(self._group[name].attrs["vocabulary"])  # type: ignore[arg-type]
        return [str(vocabulary[int(code)]) for code in self.array(name)]

    # -- sites -----------------------------------------------------------------------------------------------

    @lazy
    def _site_columns(self) -> Mapping[str, NDArray[Any]]:
        return self._opened.read_all(("site_position", "site_strand", "site_kind"))

    @property
    def site_position(self) -> NDArray[np.int64]:
        """(site,) absolute exon-boundary base, sorted."""
        return self._site_columns["site_position"]

    @property
    def site_strand(self) -> NDArray[np.int8]:
        """(site,) +1 or -1."""
        return self._site_columns["site_strand"]

    @property
    def site_kind(self) -> NDArray[np.uint8]:
        """(site,) bit 0 acceptor, bit 1 donor."""
        return self._site_columns["site_kind"]

    @cached_property
    def block_site_ptr(self) -> NDArray[np.int64]:
        """(block + 1,) first site of every block of 1 MiB bases."""
        return self.array("block_site_ptr")

    @property
    def sites(self) -> _Table:
        """Table of contig, position, strand, kind, source."""
        return _Table(self._sites_table)

    def _sites_table(self, rows: NDArray[np.int64] | None = None) -> pd.DataFrame:
        rows = np.arange(len(self.site_position)) if rows is None else rows
        position = self.site_position[rows]
        contig = self.contig_of(position)
        sources = {SOURCE_ANNOTATION: "annotation", SOURCE_JUNCTION: "junction", 3: "annotation+junction"}
        return pd.DataFrame(
            {
                "contig": np.array(self.contig_names, dtype=object)[contig] if len(rows) else np.zeros(0, dtype=object),
                "position": position - self.contig_offset[contig] if len(rows) else position,
                "strand": strand_signs(self.site_strand[rows]),
                "kind": [KIND_NAMES[int(k)] for k in self.site_kind[rows]],
                "source": [sources[int(s)] for s in self.array("site_source")[rows]],
            }
        )

    # -- usage -----------------------------------------------------------------------------------------------

    @cached_property
    def _panels(self) -> list[_PanelView]:
        if self._panel_paths is not None:
            return [_PanelView(self._root, path) for path in self._panel_paths]
        return _open_panels(self._root, {self.genome_id: str(self.attributes["site_digest"])})[self.genome_id]

    @property
    def usage_generations(self) -> tuple[str, ...]:
        """Keys of the usage generations this view reads."""
        return tuple(view.path for view in self._panels)

    @cached_property
    def condition_names(self) -> list[str]:
        """Conditions of all panels, in panel order."""
        return [name for view in self._panels for name in view.conditions]

    def read_usage(self, first_site: int, last_site: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read alpha and beta of sites ``[first_site, last_site)``: (n, condition) float32, NaN = not measured."""
        n = last_site - first_site
        if not self._panels:
            return np.zeros((n, 0), dtype=np.float32), np.zeros((n, 0), dtype=np.float32)
        parts = [view.read(first_site, last_site) for view in self._panels]
        return np.concatenate([a for a, _ in parts], axis=1), np.concatenate([b for _, b in parts], axis=1)

    @property
    def usage(self) -> _Table:
        """Table of contig, position, strand, condition, alpha, beta, sse; measured rows only (``min_reads=1``)."""
        return _Table(self._usage_table)

    def _usage_table(self, rows: NDArray[np.int64] | None = None, *, min_reads: float = 1) -> pd.DataFrame:
        rows = np.arange(len(self.site_position)) if rows is None else rows
        if not len(rows):
            alpha = beta = np.zeros((0, len(self.condition_names)), dtype=np.float32)
        else:
            first = int(rows.min())
            alpha, beta = (a[rows - first] for a in self.read_usage(first, int(rows.max()) + 1))
        site, condition = np.nonzero(~np.isnan(alpha))
        sites = self._sites_table(rows[site])
        return pd.DataFrame(
            {
                "contig": sites["contig"],
                "position": sites["position"],
                "strand": sites["strand"],
                "condition": np.array(self.condition_names, dtype=object)[condition]
                if len(condition)
                else np.zeros(0, object),
                "alpha": alpha[site, condition],
                "beta": beta[site, condition],
                "sse": splice_site_usage(alpha[site, condition], beta[site, condition], min_reads),
            }
        )

    # -- ledger, windows, xarray -----------------------------------------------------------------------------

    @property
    def ledger(self) -> _Table:
        """Table of everything dropped or altered at ingest: item, identifier, reason, detail, count."""
        return _Table(self._ledger_table)

    def _ledger_table(self) -> pd.DataFrame:
        frames = [ledger_frame(self._group), *(ledger_frame(view.group) for view in self._panels)]
        return pd.concat(frames, ignore_index=True)

    def windows(self, window_size: int = 1000, context_size: int = 450, **options: Any) -> WindowSet:
        """Tile the genome into windows; see ``splicestore.windows.tile_genome`` for the options."""
        from splicestore.windows import tile_genome

        return tile_genome(self, window_size, context_size, **options)

    def to_xarray(self) -> xarray.Dataset:
        """Open the generation lazily as plain xarray."""
        import xarray

        with quiet_zarr():
            dataset: xarray.Dataset = xarray.open_zarr(self._root.zarr_store(self.path, read_only=True), zarr_format=3)
        return dataset


class _PanelView:
    """Usage counts of one panel generation."""

    def __init__(self, root: StoreRoot, path: str) -> None:
        self.path = path
        self.opened = OpenedGeneration(root, path)

    @property
    def group(self) -> zarr.Group:
        return self.opened.group

    @cached_property
    def conditions(self) -> list[str]:
        return [str(name) for name in self.opened.attributes["conditions"]]

    def read(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.opened.read("alpha", first, last), self.opened.read("beta", first, last)


@dataclass(frozen=True, slots=True)
class Gene:
    """One gene of a genome."""

    genome: Genome
    row: int

    @property
    def gene_id(self) -> str:
        """Stable identifier."""
        return self.genome.gene_ids[self.row]

    @property
    def contig(self) -> str:
        """Contig name."""
        return self.genome.contig_names[int(self.genome.gene_contig[self.row])]

    @property
    def start(self) -> int:
        """First base within the contig, 0-based."""
        return int(self.genome.gene_start[self.row] - self.genome.contig_offset[self.genome.gene_contig[self.row]])

    @property
    def end(self) -> int:
        """One past the last base within the contig."""
        return self.start + int(self.genome.gene_end[self.row] - self.genome.gene_start[self.row])

    @property
    def strand(self) -> str:
        """``+`` or ``-``."""
        return STRAND_SIGNS[int(self.genome.gene_strand[self.row])]

    @property
    def site_rows(self) -> NDArray[np.int64]:
        """Rows of the gene's splice sites."""
        ptr, index = self.genome.array("site_gene_ptr"), self.genome.array("site_gene_index")
        site, _ = expand_counts(np.diff(ptr))
        return np.asarray(site[index == self.row])

    @property
    def sites(self) -> _Table:
        """The gene's splice sites."""
        return _Table(lambda: self.genome._sites_table(self.site_rows))

    @property
    def usage(self) -> _Table:
        """Usage of the gene's splice sites."""
        return _Table(lambda **options: self.genome._usage_table(self.site_rows, **options))


@dataclass(frozen=True, slots=True)
class KnownGenome:
    """What a split knows of a genome that it pins, so that a plan over many genomes need not open each."""

    genome_id: str
    generation: str
    site_digest: str
    contig_offset: NDArray[np.int64]
    contig_length: NDArray[np.int64]
    block_site_ptr: NDArray[np.int64]


def open_known(root: StoreRoot, known: Sequence[KnownGenome]) -> list[Genome]:
    """Open genomes of which nothing is read but their usage panels' names and conditions: two requests a panel, several at once."""
    panels = _open_panels(root, {each.genome_id: each.site_digest for each in known})
    genomes = []
    for each in known:
        genome = Genome(root, each.genome_id, each.generation)
        names = ("contig_offset", "contig_length", "block_site_ptr")
        # Where the cached properties keep what they would read.
        genome.__dict__.update({name: getattr(each, name) for name in names}, _panels=panels[each.genome_id])
        genomes.append(genome)
    return genomes


def _open_panels(root: StoreRoot, sites: Mapping[str, str]) -> dict[str, list[_PanelView]]:
    """Usage panels that are joined to the sites of each genome: {genome: its panels by name}.

    Raises
    ------
    StoreError
        If a condition is in two panels of a genome.
    """
    listed = read_catalog(root).get("usage", {})
    paths = [
        (genome_id, f"usage/{genome_id}/{panel}") for genome_id in sites for panel in sorted(listed.get(genome_id, {}))
    ]
    pointers = root.gather(lambda place: read_pointer(root, place[1]), paths)
    views: dict[str, list[_PanelView]] = {genome_id: [] for genome_id in sites}
    for (genome_id, path), pointer in zip(paths, pointers, strict=True):
        generation = pointer.generation(sites[genome_id]) if pointer else None
        if generation is not None:
            views[genome_id].append(_PanelView(root, f"{path}/{generation}"))
    root.gather(lambda view: view.conditions, [view for panels in views.values() for view in panels])
    for genome_id, panels in views.items():
        counts = Counter(name for view in panels for name in view.conditions)
        if twice := [name for name, n in counts.items() if n > 1]:
            raise StoreError(
                f"genome {genome_id}: condition {twice[0]!r} is in two usage panels; a condition is its name"
            )
    return views
