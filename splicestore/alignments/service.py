"""Counting a run: plan regions over contigs, count them wherever the scheduler says, decide the sites, write the table."""

from __future__ import annotations

import gzip
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from splicestore.alignments.annotated import ContigAnnotation, empty_annotation, read_annotated
from splicestore.alignments.settings import CountOptions, SampleFile, check_samples
from splicestore.alignments.table import table_header, table_lines
from splicestore.cluster import open_executor
from splicestore.errors import ConfigError, InputError
from splicestore.kernels.alignments import Int8, Int64, ReadGroups, RegionCounts, count_region, join_regions
from splicestore.kernels.site_counts import SiteUsage, count_sites, select_junctions
from splicestore.memory import observed_peak_bytes
from splicestore.readers.alignments import (
    AlignmentHeader,
    ReadFilter,
    ReadTally,
    ShapeTable,
    open_alignments,
    read_alignment_header,
    read_groups,
)
from splicestore.storage import input_exists
from splicestore.storage.outputs import write_file

logger = logging.getLogger(__name__)

REGION_SIZE = 16 * 1024 * 1024
"""bp one task reads: its memory is about 300 bytes for each distinct alignment there (start, CIGAR and strand), all samples
together."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class UsageTableReport:
    """What was counted."""

    path: str
    samples: Mapping[str, ReadTally]
    n_junctions_seen: int
    n_junctions_kept: int
    """Annotated introns included."""
    n_sites: int
    n_sites_without_reads: int
    """Annotated sites that no split read uses, in any sample."""
    n_sites_without_strand: int
    seconds: float
    observed_peak_bytes: int

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return {
            "path": self.path,
            "samples": {
                name: {"reads": t.counted, "spliced": t.spliced, "skipped": dict(sorted(t.skipped.items()))}
                for name, t in self.samples.items()
            },
            "n_junctions": {"seen": self.n_junctions_seen, "kept": self.n_junctions_kept},
            "n_sites": self.n_sites,
            "n_sites_without_reads": self.n_sites_without_reads,
            "n_sites_without_strand": self.n_sites_without_strand,
            "seconds": round(self.seconds, 3),
            "observed_peak_bytes": self.observed_peak_bytes,
        }


@dataclass(frozen=True, slots=True)
class Region:
    """Part of a contig, and the annotated introns with a boundary there."""

    contig: str
    start: int
    end: int
    annotated: tuple[Int8, Int64, Int64]
    """Key strand, start, end."""


@dataclass(frozen=True, slots=True)
class RegionTask:
    """What one task counts: whole small contigs, or a part of a large one."""

    paths: tuple[str, ...]
    reference: str | None
    reads: ReadFilter
    regions: tuple[Region, ...]


def count_usage(
    samples: Sequence[SampleFile],
    output: str,
    options: CountOptions = CountOptions(),  # noqa: B008
    *,
    annotation: str | None = None,
    make_index: bool = False,
    reference: str | None = None,
    scheduler: str = "auto",
    region_size: int = REGION_SIZE,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> UsageTableReport:
    """Count alpha, beta1 and beta2Simple of every splice site, and write them as a SpliSER-style table.

    A junction that passes ``options`` in one sample makes its two sites splice sites of all samples. An intron that does not
    pass is no evidence, for or against any site.

    Parameters
    ----------
    samples
        Sorted, indexed BAM (or CRAM) files on one assembly.
    output
        TSV to write; compressed if it ends in ``.gz``.
    annotation
        GTF or GFF3: its sites are counted also where no read is split, its introns whatever their reads, and its genes named.
    make_index
        Write an index next to a local BAM that has none.
    reference
        FASTA of CRAM files.
    region_size
        bp; tasks and memory, never the table.

    Raises
    ------
    InputError
        For files that are damaged, not sorted, without index or of different assemblies, and where no junction was found.
    ConfigError
        For options that cannot be meant, or a table that is there already.
    """
    started = time.perf_counter()
    options.check()
    check_samples(samples)
    if region_size < 1:
        raise ConfigError(f"region_size {region_size}: at least 1 bp")
    if not overwrite and input_exists(output):
        raise ConfigError(f"{output}: exists already; name another file, or add --overwrite")
    headers = [read_alignment_header(s.path, make_index=make_index, reference=reference) for s in samples]
    contigs = _common_contigs(headers)
    annotated = read_annotated(annotation, contigs, storage_options=storage_options) if annotation else {}
    tasks = plan_tasks(headers, contigs, annotated, options, region_size=region_size, reference=reference)
    parts, tallies = _run(tasks, len(samples), scheduler, progress)
    _check_complete(headers, tallies, parts)
    counted = {
        contig: _decide(parts[contig], annotated.get(contig, empty_annotation()), options, len(samples))
        for contig in contigs
        if contig in parts
    }
    named = {sample.name: tally for sample, tally in zip(samples, tallies, strict=True)}
    seen = sum(_n_distinct(regions) for regions in parts.values())
    if not annotation:
        _check_found(named, seen, sum(kept for _, kept in counted.values()), parts, options)
    elif not seen:
        logger.warning("no read has an intron: all sites are the annotation's, with alpha 0")
    _write(output, counted, annotated, [s.name for s in samples])
    usages = [usage for usage, _ in counted.values()]
    return UsageTableReport(
        path=output,
        samples=named,
        n_junctions_seen=seen,
        n_junctions_kept=sum(kept for _, kept in counted.values()),
        n_sites=sum(len(u) for u in usages),
        n_sites_without_reads=sum(int((u.alpha.sum(axis=1) == 0).sum()) for u in usages),
        n_sites_without_strand=sum(int((u.strand == 0).sum()) for u in usages),
        seconds=time.perf_counter() - started,
        observed_peak_bytes=observed_peak_bytes(),
    )


def _common_contigs(headers: Sequence[AlignmentHeader]) -> dict[str, int]:
    """Contigs of all files, in the order of the first that has them."""
    contigs: dict[str, tuple[int, str]] = {}
    for header in headers:
        for name, length in header.contigs.items():
            known, path = contigs.setdefault(name, (length, header.path))
            if known != length:
                raise InputError(
                    f"{header.path}: {name} has {length:,} bases, but {known:,} in {path}: the files are of different assemblies; "
                    "count them apart"
                )
    first = headers[0]
    for header in headers[1:]:
        if not header.contigs.keys() & first.contigs.keys():
            raise InputError(f"{header.path}: shares no contig with {first.path}; count genomes apart")
    return {name: length for name, (length, _) in contigs.items()}


def plan_tasks(
    headers: Sequence[AlignmentHeader],
    contigs: Mapping[str, int],
    annotated: Mapping[str, ContigAnnotation],
    options: CountOptions,
    *,
    region_size: int,
    reference: str | None = None,
) -> list[RegionTask]:
    """Cut contigs into regions and put small contigs together, up to ``region_size`` bases a task.

    Contigs without alignments and annotation are left out.
    """
    tasks: list[RegionTask] = []
    open_regions: list[Region] = []
    n_bases = 0
    make = partial(RegionTask, tuple(h.path for h in headers), reference, options.read_filter())
    for contig, length in contigs.items():
        has_reads = any(h.n_mapped is None or h.n_mapped.get(contig, 0) for h in headers)
        if not has_reads and contig not in annotated:
            continue
        for start in range(0, length, region_size):
            # An intron may end where the contig does: that boundary belongs to the last region.
            end = start + region_size if start + region_size < length else length + 1
            if open_regions and n_bases + end - start > region_size:
                tasks.append(make(tuple(open_regions)))
                open_regions, n_bases = [], 0
            open_regions.append(_region(contig, start, end, annotated.get(contig), options))
            n_bases += end - start
    if open_regions:
        tasks.append(make(tuple(open_regions)))
    return tasks


def _region(contig: str, start: int, end: int, annotated: ContigAnnotation | None, options: CountOptions) -> Region:
    strand, left, right = (annotated or empty_annotation()).introns_in(start, end)
    return Region(contig, start, end, (strand if options.is_stranded else np.zeros_like(strand), left, right))


def count_task(task: RegionTask) -> tuple[list[RegionCounts], list[ReadTally]]:
    """Count the regions of a task; every file is opened once."""
    table = ShapeTable()
    groups: list[list[ReadGroups]] = [[] for _ in task.regions]
    tallies = [ReadTally() for _ in task.paths]
    for path, tally in zip(task.paths, tallies, strict=True):
        with open_alignments(path, reference=task.reference) as file:
            lengths = dict(zip(file.references, file.lengths, strict=True))
            for found, region in zip(groups, task.regions, strict=True):
                end = min(region.end, lengths.get(region.contig, 0))
                if end <= region.start:
                    found.append(ReadGroups.collect(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)))
                    continue
                reads, part = read_groups(file, region.contig, region.start, end, task.reads, table)
                found.append(reads)
                tally.add(part)
    shapes = table.shapes()
    stranded = task.reads.strandedness != "unstranded"
    counts = [
        count_region(found, shapes, (region.start, region.end), region.annotated, stranded=stranded)
        for found, region in zip(groups, task.regions, strict=True)
    ]
    return counts, tallies


def _run(
    tasks: Sequence[RegionTask], n_samples: int, scheduler: str, progress: Progress | None
) -> tuple[dict[str, list[RegionCounts]], list[ReadTally]]:
    parts: dict[str, list[RegionCounts]] = {}
    tallies = [ReadTally() for _ in range(n_samples)]
    names = [f"{t.regions[0].contig}:{t.regions[0].start:,}" for t in tasks]
    with open_executor(scheduler) as executor:
        for done, (index, (counts, found)) in enumerate(executor.map(count_task, tasks, names=names), start=1):
            for region, part in zip(tasks[index].regions, counts, strict=True):
                parts.setdefault(region.contig, []).append(part)
            for tally, more in zip(tallies, found, strict=True):
                tally.add(more)
            if progress is not None:
                progress("regions", done, len(tasks))
    return parts, tallies


def _check_complete(headers: Sequence[AlignmentHeader], tallies: Sequence[ReadTally], contigs: Collection[str]) -> None:
    """Hold what was read against the index: it may be of another version of the file, or the file cut off at a block."""
    for header, tally in zip(headers, tallies, strict=True):
        if header.n_mapped is None:
            continue
        wanted = sum(header.n_mapped.get(contig, 0) for contig in contigs)
        if tally.n_mapped != wanted:
            raise InputError(
                f"{header.path}: has {tally.n_mapped:,} alignments, its index says {wanted:,}: the index is of another version "
                f"of the file, or the file is cut off; copy it again, or `samtools index {header.path}`"
            )


def _decide(
    parts: Sequence[RegionCounts], annotated: ContigAnnotation, options: CountOptions, n_samples: int
) -> tuple[SiteUsage, int]:
    """Sites of one contig with their counts, and how many junctions they come from."""
    counts = join_regions(parts)
    introns = (annotated.strand, annotated.start, annotated.end)
    junctions = select_junctions(
        counts.junctions, introns, options.junction_filter(), n_samples, stranded=options.is_stranded
    )
    return count_sites(counts, junctions), len(junctions)


def _n_distinct(regions: Sequence[RegionCounts]) -> int:
    rows = [np.stack((p.junctions.strand, p.junctions.start, p.junctions.end), axis=1) for p in regions]
    return len(np.unique(np.concatenate(rows), axis=0))


def _check_found(
    tallies: Mapping[str, ReadTally],
    n_seen: int,
    n_kept: int,
    parts: Mapping[str, Sequence[RegionCounts]],
    options: CountOptions,
) -> None:
    if n_kept:
        return
    n_reads = sum(t.counted for t in tallies.values())
    if not n_seen:
        skipped = ReadTally()
        for tally in tallies.values():
            skipped.add(tally)
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in skipped.skipped.most_common()) or "none"
        raise InputError(
            f"no splice site: none of the {n_reads:,} reads counted in {', '.join(tallies)} has an intron (skipped: {reasons}). "
            "Were they aligned by a spliced aligner? --annotation counts the annotated sites all the same"
        )
    rows = [p.junctions for regions in parts.values() for p in regions if len(p.junctions.start)]
    raise InputError(
        f"no splice site: {n_seen:,} junctions were seen, none passes --min-junction-reads {options.min_junction_reads} "
        f"(most: {max(int(r.reads.max()) for r in rows):,}), --min-overhang {options.min_overhang} "
        f"(largest: {max(int(r.overhang.max()) for r in rows):,}), --min-intron {options.min_intron} and --max-intron "
        f"{options.max_intron:,}; lower them"
    )


def _write(
    output: str,
    counted: Mapping[str, tuple[SiteUsage, int]],
    annotated: Mapping[str, ContigAnnotation],
    samples: Sequence[str],
) -> None:
    data = ("\n".join((table_header(len(samples)), *_lines(counted, annotated, samples))) + "\n").encode()
    write_file(output, gzip.compress(data, compresslevel=6, mtime=0) if output.endswith(".gz") else data)


def _lines(
    counted: Mapping[str, tuple[SiteUsage, int]], annotated: Mapping[str, ContigAnnotation], samples: Sequence[str]
) -> Iterator[str]:
    for contig, (usage, _) in counted.items():
        genes = annotated.get(contig, empty_annotation()).genes_of(usage)
        yield from table_lines(contig, usage, genes, samples)
