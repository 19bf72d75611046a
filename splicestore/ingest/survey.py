"""Sizes of all input files and heads of some of each kind: what every genome of a configuration holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from splicestore.config import GenomeConfig, UsageFile
from splicestore.errors import InputError
from splicestore.ingest.costs import GenomeCounts, UsageCounts
from splicestore.ingest.heads import (
    FileRates,
    Head,
    InputPlace,
    count_annotation,
    count_fasta,
    count_usage,
    indexed_lengths,
    place_of,
    read_head,
    text_bytes,
)
from splicestore.ingest.panel import CONDITIONS_PER_TASK
from splicestore.readers.samples import read_sample_sheet

_SAMPLED_FILES = 6
"""Heads read of one kind of file (role and ending); the others of the kind are taken to be alike."""
_SIZES = 2_000
"""Usage files whose sizes are asked for; of more, a sample evenly over all, and whether the others are in their folder."""
_REQUESTS_IN_FLIGHT = 32


@dataclass(frozen=True, slots=True)
class PresentInputs:
    """Files of a genome that exist."""

    genome: GenomeConfig
    usage: tuple[UsageFile, ...]


@dataclass(frozen=True, slots=True)
class FileKind:
    """Files that are taken to be alike."""

    role: str
    suffix: str
    detail: tuple[Any, ...] = ()


@dataclass
class Survey:
    """Sizes of all files, and rates of each kind of file, of all genomes together."""

    storage_options: Mapping[str, Any] | None
    sizes: dict[str, int | None] = field(default_factory=dict)
    rates: dict[FileKind, FileRates] = field(default_factory=dict)
    own: dict[tuple[FileKind, str], dict[str, float]] = field(default_factory=dict)
    """Counts of the files whose head was read."""
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of FASTA files with an index."""
    seekable: dict[FileKind, bool] = field(default_factory=dict)
    """Whether files of a kind can be entered midway."""

    def ask_sizes(self, urls: Iterable[str]) -> None:
        """Look up what is not known yet."""
        todo = [url for url in dict.fromkeys(urls) if url not in self.sizes]
        remote = [url for url in todo if "://" in url]
        self.sizes.update({url: self._place(url).size() for url in todo if "://" not in url})
        if remote:
            with ThreadPoolExecutor(min(_REQUESTS_IN_FLIGHT, len(remote))) as pool:
                self.sizes.update(zip(remote, pool.map(lambda url: self._place(url).size(), remote), strict=True))

    def ask_usage_sizes(self, urls: Sequence[str]) -> None:
        """Look up a sample of very many; which of those on this machine are missing is known all the same."""
        if len(urls) > _SIZES:
            self._note_absent([url for url in urls if "://" not in url])
        left = [url for url in urls if url not in self.sizes]
        self.ask_sizes(left[:: max(1, len(left) // _SIZES)])

    def _note_absent(self, paths: Sequence[str]) -> None:
        """List each folder once, which is cheaper than to ask for each of its files."""
        names: dict[str, set[str]] = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            if folder not in names:
                names[folder] = set(self._place(path).root.children(""))
            if name not in names[folder]:
                self.sizes[path] = None

    def is_seekable(self, fasta: str) -> bool:
        """Whether a FASTA can be entered midway."""
        return self.seekable[_kind("fasta", fasta)]

    def _place(self, url: str) -> InputPlace:
        return place_of(url, self.storage_options)

    def learn(self, kind: FileKind, urls: Iterable[str], count: Callable[[Head], dict[str, float]]) -> None:
        """Read heads of some files of a kind, from the smallest to the largest."""
        ordered = sorted(dict.fromkeys(urls), key=lambda url: (self.sizes[url] or 0, url))
        chosen = np.unique(np.linspace(0, len(ordered) - 1, min(_SAMPLED_FILES, len(ordered))).round().astype(int))
        rates = []
        for url in (ordered[i] for i in chosen):
            place, size = self._place(url), self.sizes[url] or 0
            head = read_head(place, size)
            rates.append(FileRates.of(head, count(head)))
            self.own[kind, url] = rates[-1].counts(size, text_bytes(place, size, head))
            self.seekable[kind] = head.is_seekable
            if kind.role == "fasta" and (found := indexed_lengths(place, size, is_gzip=head.is_gzip)):
                self.lengths[url] = found
        self.rates[kind] = FileRates.typical(rates)

    def counts(self, kind: FileKind, url: str) -> dict[str, float]:
        """What a file holds: by its own head where that was read, else as its kind does."""
        return self.own.get((kind, url)) or self.rates[kind].counts(self.sizes.get(url) or 0)


def _kind(role: str, url: str, *detail: Any) -> FileKind:
    name = url.rsplit("/", 1)[-1].lower().split(".")
    return FileKind(role, ".".join(name[-2:] if name[-1] in ("gz", "bgz", "bgzf") else name[-1:]), detail)


def _usage_kind(usage: UsageFile) -> FileKind:
    return _kind("usage", usage.file, usage.format)


def _annotation_kind(genome: GenomeConfig) -> FileKind:
    return _kind("annotation", genome.annotation or "", genome.transcripts, genome.min_intron)


def survey_inputs(
    genomes: Sequence[GenomeConfig], storage_options: Mapping[str, Any] | None
) -> tuple[Survey, list[PresentInputs]]:
    """Sizes of all files, and heads of some of each kind.

    Raises
    ------
    InputError
        Naming every file that is missing and not optional.
    """
    survey = Survey(storage_options)
    named = [url for g in genomes for url in (g.fasta, g.annotation, g.aliases, g.samples) if url is not None]
    survey.ask_sizes(named)
    missing = [url for url in dict.fromkeys(named) if survey.sizes[url] is None]
    usage = {g.genome_id: [*g.usage, *_sheet_rows(g, storage_options, skip=g.samples in missing)] for g in genomes}
    survey.ask_usage_sizes(list(dict.fromkeys(u.file for files in usage.values() for u in files)))
    inputs = []
    for genome in genomes:
        files = usage[genome.genome_id]
        absent = [u for u in files if u.file in survey.sizes and survey.sizes[u.file] is None]
        present = tuple(u for u in files if survey.sizes.get(u.file, 0) is not None)
        missing += [u.file for u in absent if not u.optional or not present]
        inputs.append(PresentInputs(genome, present))
    if missing:
        names = list(dict.fromkeys(missing))
        raise InputError(
            f"{len(names)} input files do not exist: {', '.join(names)}; check the paths in the configuration and the "
            "folder they are relative to"
        )
    _fill_sizes(survey, inputs)
    _learn_kinds(survey, inputs)
    return survey, inputs


def _sheet_rows(genome: GenomeConfig, storage_options: Mapping[str, Any] | None, *, skip: bool) -> list[UsageFile]:
    if genome.samples is None or skip:
        return []
    return read_sample_sheet(genome.samples, genome_id=genome.genome_id, storage_options=storage_options)


def _fill_sizes(survey: Survey, inputs: Sequence[PresentInputs]) -> None:
    """Give files that were not asked for the mean size of those that were: of the same genome, or of all."""
    sizes = survey.sizes
    of_all = [size for i in inputs for u in i.usage if (size := sizes.get(u.file)) is not None]
    for genome in inputs:
        known = [size for u in genome.usage if (size := sizes.get(u.file)) is not None] or of_all
        mean = sum(known) // len(known) if known else 0
        for usage in genome.usage:
            sizes.setdefault(usage.file, mean)


def _learn_kinds(survey: Survey, inputs: Sequence[PresentInputs]) -> None:
    fastas, annotations, usages = defaultdict(list), defaultdict(list), defaultdict(list)
    for one in inputs:
        fastas[_kind("fasta", one.genome.fasta)].append(one.genome.fasta)
        if one.genome.annotation is not None:
            annotations[_annotation_kind(one.genome)].append(one.genome.annotation)
        for usage in one.usage:
            usages[_usage_kind(usage)].append(usage.file)
    for kind, urls in fastas.items():
        survey.learn(kind, urls, count_fasta)
    for kind, urls in annotations.items():
        policy, min_intron = kind.detail
        survey.learn(kind, urls, lambda head, p=policy, m=min_intron: count_annotation(head, p, m))  # type: ignore[misc]
    for kind, urls in usages.items():
        survey.learn(kind, urls, lambda head, f=kind.detail[0]: count_usage(head, f))  # type: ignore[misc]


def count_genome(survey: Survey, inputs: PresentInputs) -> tuple[GenomeCounts, tuple[str, ...]]:
    """Count what a genome's files hold, and say what their heads do not tell."""
    genome, notes = inputs.genome, []
    found = survey.counts(_kind("fasta", genome.fasta), genome.fasta)
    lengths, share = survey.lengths.get(genome.fasta), 1.0
    n_bases, n_contigs = found["bases"], max(1.0, found["contigs"])
    if lengths is not None:
        kept = [n for name, n in lengths.items() if genome.chromosomes is None or name in genome.chromosomes]
        # Names under an alias are in no index.
        kept = kept or list(lengths.values())
        share = sum(kept) / max(1, sum(lengths.values()))
        n_bases, n_contigs = float(sum(kept)), float(len(kept))
    elif genome.chromosomes is not None:
        notes.append(f"{genome.fasta}: without a .fai, all its bases are counted, not those of `chromosomes` alone")
    usage = _count_usage(survey, inputs.usage)
    genes: dict[str, float] = defaultdict(float)
    if genome.annotation is not None:
        genes.update(survey.counts(_annotation_kind(genome), genome.annotation))
    sites = genes["sites"] * share
    if genome.observed_sites is not None:
        sites += max((survey.counts(_usage_kind(u), u.file)["junctions"] for u in inputs.usage), default=0.0)
    n = {name: round(value * share) for name, value in genes.items()}
    return GenomeCounts(
        bases=round(n_bases),
        contigs=round(n_contigs),
        genes=n.get("genes", 0),
        transcripts=max(n.get("transcripts", 0), n.get("selected", 0)),
        selected=n.get("selected", 0),
        exons=n.get("exons", 0),
        introns=n.get("introns", 0),
        sites=round(sites),
        annotation_text=genes["text"],
        aliases=round(n_contigs) if genome.aliases else 0,
        usage=usage,
    ), tuple(notes)


def _count_usage(survey: Survey, files: Sequence[UsageFile]) -> UsageCounts:
    if not files:
        return UsageCounts()
    readers = Counter(u.file for u in files)
    counts = {u.file: survey.counts(_usage_kind(u), u.file) for u in files}
    text_of: Counter[str] = Counter()
    rows = junctions = 0.0
    for usage in files:
        found = counts[usage.file]
        # Of a file that many conditions name, each takes its own sample; without one, all rows.
        share = 1 / readers[usage.file] if usage.sample is not None else 1.0
        rows += found["rows"] * share
        junctions += found["junctions"] * share
        text_of[usage.condition_id] += round(found["text"])
    n_conditions = len(text_of)
    sharing = max(Counter(url for url, _ in {(u.file, u.condition_id) for u in files}).values())
    return UsageCounts(
        n_conditions=n_conditions,
        n_files=len(counts),
        bytes_in=sum(survey.sizes[url] or 0 for url in counts),
        rows=rows,
        junctions=junctions,
        largest_text=max(found["text"] for found in counts.values()),
        condition_text=max(text_of.values()),
        widest_group=min(n_conditions, max(CONDITIONS_PER_TASK, sharing)),
    )
