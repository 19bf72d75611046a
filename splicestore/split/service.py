"""``split windows``: genomes of a store and homology tables in, one published window table out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from splicestore.cluster import open_executor
from splicestore.errors import GateError, PlanError, SplitError, close_names
from splicestore.genome import Genome
from splicestore.kernels.intervals import pointers
from splicestore.memory import INTERPRETER_BYTES, format_bytes, observed_peak_bytes
from splicestore.readers.orthology import Homology, read_orthology
from splicestore.schema import SUBSET_NAMES, Plan, check_name
from splicestore.split.extend import list_moves
from splicestore.split.leakage import count_leakage
from splicestore.split.make import SplitResult, make_split
from splicestore.split.report import SplitReport, make_report
from splicestore.split.values import (
    REASONS,
    GenomeLayout,
    SplitOptions,
    SplitTable,
    WindowTiles,
    split_arrays,
    split_attributes,
    table_from_arrays,
)
from splicestore.split.windows import WindowSubsets, WindowTask, assign_windows
from splicestore.splits import Split
from splicestore.storage import Publication, absolute_url, digest_input, read_pointer, write_lease
from splicestore.storage.catalog import list_name
from splicestore.storage.columns import Column, ledger_columns, write_columns
from splicestore.storage.lease import WriteLease
from splicestore.store import Store

SPLIT_ENCODER = 2
SPLIT_CHUNK = 1 << 20
"""Rows of a chunk: a split is read whole, so few large objects are best."""


@dataclass(frozen=True, slots=True)
class HomologyInput:
    """One homology table and how to read it."""

    url: str
    format: str = "auto"
    level: str | None = None
    """Level of nested groups, for formats that have several."""
    column_genomes: Mapping[str, str] | None = None
    """Species column -> genome id, for wide tables whose columns are named otherwise."""


HomologyUrl = str | HomologyInput


def split_windows(
    store: Store,
    name: str,
    options: SplitOptions,
    *,
    homology_url: HomologyUrl | Sequence[HomologyUrl] | None = None,
    genome_ids: Sequence[str] | None = None,
    extend: str | None = None,
    rebuild: bool = False,
    scheduler: str = "auto",
    storage_options: Mapping[str, Any] | None = None,
    force: bool = False,
    steal: bool = False,
    max_memory: int | None = None,
    profile: str | None = None,
) -> SplitReport:
    """Split the windows of a store's genomes and publish the table.

    Parameters
    ----------
    store
        Where the genomes are and the split goes.
    name
        Of the split.
    options
        Windows, mode, policies, guard, seed.
    homology_url
        Tables of orthologs, paralogs, exact sequence links or extra edges; their groups are closed together.
        None: every gene is a component of its own.
    genome_ids
        Genomes to split; all of the store by default.
    extend
        Split to extend so that nothing in it moves.
    rebuild
        Make the split afresh instead, and list what moves against ``extend``.
    scheduler
        Runs one task per genome.
    storage_options
        For the homology tables.
    force
        Switch although another writer published under this name meanwhile.
    steal
        Take over a write lease that has expired.
    max_memory
        Refuse what would need more bytes.
    profile
        File for Dask's performance report.

    Raises
    ------
    LeaseHeldError
        If another process is writing this split.
    PlanError
        If it would need more than ``max_memory``.
    SplitError
        If a genome, chromosome or the reference is unknown, a subset comes out empty, or the split to
        extend has other rules.
    GateError
        If a gate refuses.
    """
    check_name(name, "split")
    if rebuild and extend is None:
        raise SplitError("rebuild lists moves against an older split: name it with extend")
    how = _Run(
        homology_url=homology_url,
        genome_ids=genome_ids,
        extend=extend,
        rebuild=rebuild,
        scheduler=scheduler,
        storage_options=storage_options,
        force=force,
        max_memory=max_memory,
        profile=profile,
    )
    with write_lease(store.root, f"splits/{name}", steal=steal) as lease:
        return _split_leased(store, name, options, how, lease)


@dataclass(frozen=True, slots=True)
class _Run:
    """How one split is made; see ``split_windows``."""

    homology_url: HomologyUrl | Sequence[HomologyUrl] | None
    genome_ids: Sequence[str] | None
    extend: str | None
    rebuild: bool
    scheduler: str
    storage_options: Mapping[str, Any] | None
    force: bool
    max_memory: int | None
    profile: str | None


def _split_leased(store: Store, name: str, options: SplitOptions, how: _Run, lease: WriteLease) -> SplitReport:
    genomes = [store.genomes[genome_id] for genome_id in _chosen(store, how.genome_ids)]
    layouts = tuple(genome_layout(genome) for genome in genomes)
    pointer_at_start = read_pointer(store.root, f"splits/{name}")
    projected = projected_peak_bytes(layouts, options)
    if how.max_memory is not None and projected > how.max_memory:
        raise PlanError(
            f"split {name}: needs up to {format_bytes(projected)}, --max-memory allows {format_bytes(how.max_memory)}; larger windows, "
            "or fewer genomes (--genome) and --extend for the rest, need less"
        )
    inputs = _homology_inputs(how.homology_url)
    sources = read_homology(genomes, inputs, how.storage_options, override_gates=options.override_gates)
    old_split = store.splits[how.extend] if how.extend is not None else None
    old = _open_old(old_split) if old_split is not None else None

    def run(tasks: Sequence[WindowTask]) -> list[tuple[WindowTiles, WindowSubsets]]:
        return _run_tasks(genomes, tasks, how, store.url)

    result = make_split(layouts, options, sources, run, None if how.rebuild else old)
    parent = None if how.rebuild else old_split
    columns = [*split_columns(result.table, sources), *block_columns(genomes)]
    plan = _split_plan(result, options, inputs, parent, how.storage_options)
    site_digests = {genome.genome_id: genome.attributes["site_digest"] for genome in genomes}
    publication = _publication(store, name, options, result, inputs, plan, columns, site_digests)
    publication.force = how.force
    publication.pointer_at_start = pointer_at_start
    is_same = parent is not None and parent.name == name and _is_same(parent, result.table)
    report = make_report(
        result.table,
        result.assigned,
        count_leakage(result.table, result.edges, result.inherited),
        options,
        name=name,
        generation=parent.generation if is_same and parent is not None else publication.generation,
        homology=_matched(sources),
        vanished_windows=result.n_vanished,
        moves=list_moves(old, result.table, result.genes, layouts) if how.rebuild and old is not None else None,
    )
    # Extending a split by nothing, under its own name, would only stack generations of equal content.
    if not is_same:
        publication.provenance.update(projected_peak_bytes=projected, observed_peak_bytes=observed_peak_bytes())
        lease.check()
        publish_split(publication, result.table, report, columns)
    else:
        # An earlier run may have been killed between the switch and the catalogue.
        list_name(store.root, publication.path)
    return report


# -- the store's side ------------------------------------------------------------------------------------------


def _chosen(store: Store, genome_ids: Sequence[str] | None) -> list[str]:
    known = sorted(store.genomes)
    if not known:
        raise SplitError(f"{store.url}: no genome is published here; run `splicestore ingest genomes` first")
    for genome_id in genome_ids or ():
        if genome_id not in known:
            raise SplitError(f"{store.url}: no genome {genome_id!r}; {close_names(genome_id, known)}")
    return sorted(set(genome_ids)) if genome_ids else known


def _homology_inputs(given: HomologyUrl | Sequence[HomologyUrl] | None) -> list[HomologyInput]:
    items = [] if given is None else [given] if isinstance(given, str | HomologyInput) else given
    return [HomologyInput(item) if isinstance(item, str) else item for item in items]


def _is_same(split: Split, table: SplitTable) -> bool:
    pins = dict(zip(table.genome_ids, table.genome_generations, strict=True))
    return split.digest == table.content_digest() and split.genome_generations == pins


def genome_layout(genome: Genome) -> GenomeLayout:
    """Read contigs and genes of a genome into plain arrays."""
    return GenomeLayout(
        genome_id=genome.genome_id,
        generation=genome.generation,
        contig_name=tuple(genome.contig_names),
        contig_length=genome.contig_length,
        contig_offset=genome.contig_offset,
        gene_id=tuple(genome.gene_ids),
        gene_contig=genome.gene_contig,
        gene_start=genome.gene_start,
        gene_end=genome.gene_end,
        gene_strand=genome.gene_strand,
        contig_alias=genome.aliases,
    )


def read_homology(
    genomes: Sequence[Genome],
    inputs: Sequence[HomologyInput],
    storage_options: Mapping[str, Any] | None,
    *,
    override_gates: bool = False,
) -> list[Homology]:
    """Read homology tables against the genes of the genomes."""
    if not inputs:
        return []
    genes = {genome.genome_id: genome.gene_ids for genome in genomes}
    transcripts = {genome.genome_id: genome.transcript_genes() for genome in genomes}
    sources = []
    for item in inputs:
        source = read_orthology(
            item.url,
            genes,
            transcripts=transcripts,
            format=item.format,
            column_genomes=item.column_genomes,
            level=item.level,
            storage_options=storage_options,
        )
        if not override_gates:
            _refuse_joining_nothing(source, item)
        sources.append(source)
    return sources


def _refuse_joining_nothing(source: Homology, item: HomologyInput) -> None:
    """A table of which no two genes belong together was read in a wrong format: the split would not be closed."""
    if len(np.unique(source.group)) == len(source.group):
        found = ", ".join(f"{n} {how}" for how, n in source.matched.items() if n)
        raise GateError(
            f"{item.url}: no two genes of this table belong to one group (ids: {found}; format {item.format}); "
            "declare its format, one of those in docs/how-to/split.md, or add --override-gates"
        )


def _matched(sources: Sequence[Homology]) -> dict[str, int]:
    total: dict[str, int] = {}
    for source in sources:
        for how, n in source.matched.items():
            total[how] = total.get(how, 0) + n
    return total


def _open_old(split: Split) -> SplitTable:
    names = SplitTable.__dataclass_fields__
    columns = {name: split.array(name) for name in names if name.startswith(("contig_", "window_", "gene_"))
               and name != "window_size"}  # fmt: skip
    return table_from_arrays(columns, split.attributes)


@dataclass(frozen=True, slots=True)
class _GenomeTask:
    """A window task with the genome it reads its windows from; travels by address."""

    genome: Genome
    task: WindowTask


def _run_tasks(
    genomes: Sequence[Genome], tasks: Sequence[WindowTask], how: _Run, url: str
) -> list[tuple[WindowTiles, WindowSubsets]]:
    jobs = [_GenomeTask(genome, task) for genome, task in zip(genomes, tasks, strict=True)]
    names = [f"windows of {genome.genome_id}" for genome in genomes]
    with open_executor(how.scheduler, urls=[url], profile=how.profile) as executor:
        found = dict(executor.map(_run_task, jobs, names=names))
    return [found[index] for index in range(len(jobs))]


def _run_task(job: _GenomeTask) -> tuple[WindowTiles, WindowSubsets]:
    windows = job.genome.windows(job.task.window_size, job.task.context_size, geneless=True)
    tiles = WindowTiles(windows.contig, windows.start, windows.strand, windows.gene_ptr, windows.gene_index)
    return tiles, assign_windows(replace(job.task, tiles=tiles))


def projected_peak_bytes(layouts: Sequence[GenomeLayout], options: SplitOptions, *, n_old_windows: int = 0) -> int:
    """Bound the memory of a split from contig lengths and genes alone, in bytes.

    A window costs 75 bytes in the table and its parts, and 60 more while its genome is being tiled; a window
    of a split that is extended costs 40.
    """
    size = options.window_size
    bounds = []
    for layout in layouts:
        cells = int((-(-layout.contig_length // size)).sum())
        in_genes = int(((layout.gene_end - layout.gene_start) // size + 2).sum())
        # Every cell is a window once, and once more where genes lie on both strands.
        bounds.append(cells + min(cells, in_genes))
    return INTERPRETER_BYTES + 75 * sum(bounds) + 60 * max(bounds, default=0) + 40 * n_old_windows


def _split_plan(
    result: SplitResult,
    options: SplitOptions,
    inputs: Sequence[HomologyInput],
    parent: Split | None,
    storage_options: Mapping[str, Any] | None,
) -> Plan:
    """All that decides the table. Overriding a gate changes what is refused, not what is stored."""
    pins = zip(result.table.genome_ids, result.table.genome_generations, strict=True)
    parents = {f"genomes/{genome_id}": generation for genome_id, generation in pins}
    if parent is not None:
        parents[f"splits/{parent.name}"] = parent.generation
    wanted = {key: value for key, value in asdict(options).items() if key != "override_gates"}
    reading = [{"format": i.format, "level": i.level, "column_genomes": i.column_genomes} for i in inputs]
    return Plan(
        kind="split",
        encoder=SPLIT_ENCODER,
        inputs=tuple(digest_input(i.url, "homology", storage_options=storage_options) for i in inputs),
        parents=parents,
        options={**wanted, "homology": reading},
        chunking={"split": [SPLIT_CHUNK]},
    )


def _publication(
    store: Store,
    name: str,
    options: SplitOptions,
    result: SplitResult,
    inputs: Sequence[HomologyInput],
    plan: Plan,
    columns: Sequence[Column],
    site_digests: Mapping[str, str],
) -> Publication:
    return Publication(
        root=store.root,
        path=f"splits/{name}",
        plan=plan,
        specs=[column.spec() for column in columns],
        attributes={
            **split_attributes(result.table),
            "options": plan.document()["options"],
            "site_digests": dict(site_digests),
        },
        provenance={
            "versions": {"splicestore": version("splicestore")},
            "homology": [absolute_url(i.url) for i in inputs],
            "override_gates": options.override_gates,
        },
    )


def split_columns(table: SplitTable, sources: Sequence[Homology] = ()) -> list[Column]:
    """Spell the columns of a table as they are stored, and the ledger of its homology tables."""
    vocabulary = {"subset": list(SUBSET_NAMES), "reason": list(REASONS)}
    columns = []
    for name, (values, dimension) in split_arrays(table).items():
        words = vocabulary.get(name.rsplit("_", 1)[-1])
        columns.append(
            Column(
                name,
                values,
                dimension,
                "string" if values.dtype == object else values.dtype.name,
                chunk=SPLIT_CHUNK,
                attributes={"vocabulary": words} if words else {},
            )
        )
    return columns + ledger_columns([row for source in sources for row in source.ledger])


def block_columns(genomes: Sequence[Genome]) -> list[Column]:
    """Sites before every block of every genome: what a stream's plan would otherwise ask each genome for."""
    counts = [len(genome.block_site_ptr) for genome in genomes]
    return [
        Column(
            "genome_block_ptr", pointers(np.array(counts, dtype=np.int64)), "genome_edge", "int64", chunk=SPLIT_CHUNK
        ),
        Column(
            "block_site_ptr",
            np.concatenate([genome.block_site_ptr for genome in genomes]),
            "genome_block_edge",
            "int64",
            chunk=SPLIT_CHUNK,
        ),
    ]


def publish_split(publication: Publication, table: SplitTable, report: SplitReport, columns: Sequence[Column]) -> None:
    """Walk the write sequence; a split that is already complete is only switched to."""
    if not publication.is_complete():
        publication.begin()
        if not publication.has_part("table"):
            writer = publication.partition("table")
            write_columns(writer, columns)
            writer.counts.update({**report.windows, "genes": table.n_genes})
            writer.close()
        publication.finalise(["table"], {"report": report.as_dict()})
    publication.switch()
