"""From usage files to the counts of a panel: alpha and beta per site and condition, and how well they joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.cluster import Executor
from splicestore.config import MATRIX_FORMATS, GenomeConfig, UsageFile
from splicestore.errors import ConfigError, GateError, InputError, close_names
from splicestore.ingest.tables import Contigs, GenomeTables
from splicestore.kernels.components import group_components
from splicestore.kernels.joining import AMBIGUOUS, BoundaryMatch, SiteIndex, join_rates, match_boundaries
from splicestore.kernels.naming import natural_key
from splicestore.kernels.sites import Sites, merge_sites
from splicestore.kernels.usage import LEFT, RIGHT, boundary_to_base, junction_boundary_counts, sum_by_key
from splicestore.memory import INTERPRETER_BYTES
from splicestore.readers.aliases import resolve_contigs
from splicestore.readers.usage import JunctionCounts, SiteCounts, read_usage
from splicestore.schema import KIND_ACCEPTOR, KIND_BOTH, KIND_DONOR, LedgerRow
from splicestore.storage.columns import Column, ledger_columns

Int64 = NDArray[np.int64]

JOIN_GATE = 0.5
"""A stratum in which fewer rows join than this says the coordinates are wrong."""
JOIN_GATE_ROWS = 10
"""Strata with less weight than this are only judged together."""
CONDITIONS_PER_TASK = 8
"""Conditions joined by one task: their counts travel together, and they share one index of the sites."""
_LEFT_SHIFT = {"spliser": -1, "splicevo": -2}
"""Exon-boundary base of a left boundary: SpliSER writes the half-open boundary x -> base x - 1; SplicEvo's
converted files write the first intron base counted from 1 -> x - 2. Right boundaries agree: base x."""


@dataclass(frozen=True, slots=True)
class JoinReport:
    """How one file joined the sites."""

    file: str
    format: str
    condition: str
    convention: str
    """spliser | splicevo | junction."""
    declared: bool
    rates: Mapping[tuple[str, str], tuple[float, float]]
    n_rows: int
    judged: Mapping[tuple[str, str], tuple[float, float]] | None = None
    """Strata that the gate looks at, where they are not ``rates``. Of junctions: those with at least one end on a
    site. A junction of a gene that is not annotated misses with both ends and says nothing about coordinates; a
    shifted end misses alone."""
    elsewhere: str = ""
    """For the gate's message: what share of the rows is on contigs that the genome does not have."""

    @property
    def rate(self) -> float:
        """Matched share over all strata."""
        total = sum(t for _, t in self.rates.values())
        return sum(m for m, _ in self.rates.values()) / total if total else 0.0

    @property
    def worst(self) -> float:
        """Lowest matched share among the strata that are large enough, or over all where none is."""
        shares = [m / t for m, t in (self.judged or self.rates).values() if t >= JOIN_GATE_ROWS]
        return min([*shares, self.rate]) if shares else self.rate

    def document(self) -> dict[str, object]:
        """Spell the report for attributes and ``--json``; no paths, they are provenance."""
        return {
            "condition": self.condition,
            "format": self.format,
            "convention": self.convention,
            "convention_declared": self.declared,
            "n_rows": self.n_rows,
            "join_rate": round(self.rate, 6),
            "strata": {f"{k}{s}": [round(m, 3), round(t, 3)] for (k, s), (m, t) in self.rates.items()},
        }


@dataclass(frozen=True, slots=True)
class Panel:
    """Counts of one genome's panel, and what did not join."""

    conditions: tuple[str, ...]
    """Natural order."""
    tissue: tuple[str, ...]
    timepoint: tuple[str, ...]
    estimator: tuple[str, ...]
    alpha: NDArray[np.float32]
    """(site, condition), NaN = not measured."""
    beta: NDArray[np.float32]
    joins: tuple[JoinReport, ...]
    ledger: tuple[LedgerRow, ...]

    def columns(self) -> list[Column]:
        """Spell the condition table and ledger as small arrays (alpha and beta are written by shard)."""
        return [
            Column("condition_name", self.conditions, "condition", "string"),
            Column("condition_tissue", self.tissue, "condition", "string"),
            Column("condition_timepoint", self.timepoint, "condition", "string"),
            Column("condition_estimator", self.estimator, "condition", "string"),
            *ledger_columns(self.ledger),
        ]


_BOUNDARY = ["contig", "position", "strand", "reason"]


@dataclass
class _Unmatched:
    """Distinct boundaries that joined no site, over all files of the panel."""

    frames: list[pd.DataFrame] = field(default_factory=list)
    """Counts by boundary; the first holds those of all files before the last few."""
    notes: list[LedgerRow] = field(default_factory=list)
    """Rows that stand for many rows of one file."""

    def add(
        self, contig: NDArray[np.object_], position: Int64, strand: NDArray[np.int8], reason: NDArray[np.object_]
    ) -> None:
        if len(position):
            frame = pd.DataFrame({"contig": contig, "position": position, "strand": strand, "reason": reason})
            self.frames.append(frame.groupby(_BOUNDARY, sort=True).size().rename("count").reset_index())
            self._fold()

    def take_in(self, other: _Unmatched) -> None:
        """Add the boundaries of other files."""
        self.frames += other.frames
        self._fold()

    def _fold(self, *, whole: bool = False) -> None:
        """Sum the frames once the later ones are as long as the first: most novel junctions recur in every file."""
        if len(self.frames) > 1 and (whole or sum(map(len, self.frames[1:])) >= len(self.frames[0])):
            self.frames = [pd.concat(self.frames).groupby(_BOUNDARY, sort=True)["count"].sum().reset_index()]

    def rows(self) -> list[LedgerRow]:
        if not self.frames:
            return self.notes
        self._fold(whole=True)
        table = self.frames[0]
        signs = {1: "+", -1: "-", 0: "."}
        return self.notes + [
            LedgerRow("usage_site", f"{c}:{p}:{signs[int(s)]}", str(r), "", int(n))
            for c, p, s, r, n in zip(
                table["contig"], table["position"], table["strand"], table["reason"], table["count"], strict=True
            )
        ]


def observed_sites(
    config: GenomeConfig,
    files: Sequence[UsageFile],
    contigs: Contigs,
    storage_options: Mapping[str, Any] | None = None,
) -> Sites | None:
    """Sites that junction reads support, summed over all files, from ``observed_sites`` reads on."""
    if config.observed_sites is None:
        return None
    ends: list[tuple[Int64, NDArray[np.int8], NDArray[np.uint8], NDArray[np.float64]]] = []
    counts_of = _LastFile(files, dict(storage_options or {}))
    in_order = sorted(_rows_to_read_once(files), key=lambda usage: usage.file)
    for usage in in_order:
        counts = counts_of.read(usage)
        if isinstance(counts, JunctionCounts):
            offset, length, _ = _place(counts.contig, contigs)
            inside = (offset >= 0) & (counts.strand != 0) & (counts.start > 0) & (counts.end < length)
            strand, reads = counts.strand[inside], counts.reads[inside]
            start, end = (offset + counts.start)[inside], (offset + counts.end)[inside]
            left_kind = np.where(strand > 0, KIND_DONOR, KIND_ACCEPTOR).astype(np.uint8)
            ends.append((start - 1, strand, left_kind, reads))
            ends.append((end, strand, (KIND_BOTH - left_kind).astype(np.uint8), reads))
    if not ends:
        return None
    position, strand, kind, reads = (np.concatenate(parts) for parts in zip(*ends, strict=True))
    (position, strand, kind), total = sum_by_key((position, strand, kind), reads)
    seen = total >= config.observed_sites
    return merge_sites(position[seen], strand[seen], kind[seen], np.full(int(seen.sum()), -1, dtype=np.int32))


@dataclass(frozen=True, slots=True)
class PanelSites:
    """What usage is joined to: contigs and splice sites of a genome. Picklable."""

    contigs: Contigs
    sites: Sites

    @classmethod
    def of(cls, tables: GenomeTables) -> PanelSites:
        """Take them from a genome's tables."""
        return cls(tables.contigs, tables.sites)


@dataclass(frozen=True, slots=True)
class PanelRules:
    """How files are joined."""

    genome_id: str
    mix_estimators: bool
    check_gate: bool
    """Refuse files whose join rate says that their coordinates are wrong."""


@dataclass(frozen=True, slots=True)
class _PanelTask:
    """Some conditions, with all their files."""

    conditions: tuple[str, ...]
    files: tuple[UsageFile, ...]
    sites: PanelSites
    rules: PanelRules
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _PanelColumns:
    """Counts of some conditions: (site, condition) float32."""

    alpha: NDArray[np.float32]
    beta: NDArray[np.float32]
    joins: tuple[JoinReport, ...]
    estimators: tuple[str, ...]
    unmatched: _Unmatched


def build_panel(
    sites: PanelSites,
    rules: PanelRules,
    files: Sequence[UsageFile],
    missing: Sequence[UsageFile],
    executor: Executor,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Panel:
    """Join every file to the sites and sum the counts of each condition; conditions are tasks of the executor.

    Parameters
    ----------
    sites
        Of the genome.
    files
        Files that exist; ``missing`` are optional ones that do not (ledger).

    Raises
    ------
    GateError
        If fewer than half of a class's rows on a strand join, with what would join.
    ConfigError
        If a condition mixes estimators without ``mix_estimators``.
    """
    conditions = sorted({f.condition_id for f in files}, key=natural_key)
    tasks = [
        _PanelTask(names, rows, sites, rules, dict(storage_options or {}))
        for names, rows in _condition_groups(conditions, files)
    ]
    column = {name: i for i, name in enumerate(conditions)}
    alpha = np.full((len(sites.sites), len(conditions)), np.nan, dtype=np.float32)
    beta = np.full((len(sites.sites), len(conditions)), np.nan, dtype=np.float32)
    found: dict[int, _PanelColumns] = {}
    unmatched, notes = _Unmatched(), dict[int, list[LedgerRow]]()
    names = [f"usage of {rules.genome_id}: {', '.join(task.conditions[:3])}" for task in tasks]
    for index, result in executor.map(_join_conditions, tasks, names=names, memory=_task_memory(sites, tasks)):
        where = [column[name] for name in tasks[index].conditions]
        alpha[:, where], beta[:, where] = result.alpha, result.beta
        # What is kept of a group is small; its counts are in the panel's arrays now.
        nothing = np.zeros((0, 0), dtype=np.float32)
        unmatched.take_in(result.unmatched)
        notes[index] = result.unmatched.notes
        found[index] = replace(result, alpha=nothing, beta=nothing, unmatched=_Unmatched())
    ordered = sorted(
        (column[name], name, i, at) for i, task in enumerate(tasks) for at, name in enumerate(task.conditions)
    )
    # In the order of the tasks, whichever ended first.
    unmatched.notes = [note for i in range(len(tasks)) for note in notes[i]]
    ledger = [LedgerRow("usage_file", u.condition_id, "missing_usage_file", u.file.rsplit("/", 1)[-1]) for u in missing]
    ledger += _mask_two_sided(sites, alpha, beta) + unmatched.rows()
    first = {name: next(f for f in files if f.condition_id == name) for name in conditions}
    joins = {name: [j for r in found.values() for j in r.joins if j.condition == name] for name in conditions}
    return Panel(
        conditions=tuple(conditions),
        tissue=tuple(first[c].tissue or "" for c in conditions),
        timepoint=tuple(first[c].timepoint or "" for c in conditions),
        estimator=tuple(found[i].estimators[at] for _, _, i, at in ordered),
        alpha=alpha,
        beta=beta,
        joins=tuple(j for name in conditions for j in joins[name]),
        ledger=tuple(ledger),
    )


def _condition_groups(
    conditions: Sequence[str], files: Sequence[UsageFile]
) -> list[tuple[tuple[str, ...], tuple[UsageFile, ...]]]:
    """Groups of conditions with all their files; conditions that share a file stay together, so that it is read once."""
    rows = {name: i for i, name in enumerate(conditions)}
    condition = np.array([rows[f.condition_id] for f in files], dtype=np.int64)
    _, shared = np.unique(np.array([f.file for f in files], dtype=object).astype(str), return_inverse=True)
    component = group_components(len(conditions), condition, shared)
    of_component: dict[int, list[str]] = defaultdict(list)
    for name, label in zip(conditions, component.tolist(), strict=True):
        of_component[label].append(name)
    groups: list[list[str]] = [[]]
    for names in of_component.values():
        if groups[-1] and len(groups[-1]) + len(names) > CONDITIONS_PER_TASK:
            groups.append([])
        groups[-1] += names
    return [(tuple(names), tuple(f for f in files if f.condition_id in set(names))) for names in groups if names]


def _task_memory(sites: PanelSites, tasks: Sequence[_PanelTask]) -> int:
    """Bound of what one group of conditions needs: interpreter, sums in float64, counts of all its conditions."""
    widest = max((len(task.conditions) for task in tasks), default=0)
    return INTERPRETER_BYTES + len(sites.sites) * (8 * widest + 64)


def _join_conditions(task: _PanelTask) -> _PanelColumns:
    index = SiteIndex.build(task.sites.sites.position, task.sites.sites.strand, task.sites.sites.kind)
    unmatched, joins, estimators = _Unmatched(), [], []
    shape = (len(task.sites.sites), len(task.conditions))
    alpha, beta = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    counts_of = _LastFile(task.files, task.storage_options)
    for column, name in enumerate(task.conditions):
        files = [f for f in task.files if f.condition_id == name]
        counted = [(f, counts_of.read(f)) for f in _rows_to_read(files)]
        alpha[:, column], beta[:, column], reports, estimator = _condition(
            counted, task.sites, index, task.rules, unmatched
        )
        joins += reports
        estimators.append(estimator)
    return _PanelColumns(alpha, beta, tuple(joins), tuple(estimators), unmatched)


def _rows_to_read_once(files: Sequence[UsageFile]) -> list[UsageFile]:
    """Rows such that every count is read once: of a matrix one per condition."""
    conditions = {usage.condition_id: [f for f in files if f.condition_id == usage.condition_id] for usage in files}
    return [row for rows in conditions.values() for row in _rows_to_read(rows)]


def _rows_to_read(files: Sequence[UsageFile]) -> list[UsageFile]:
    """Rows of one condition; a matrix is named by a row per sample, and its samples come summed."""
    matrices: set[str] = set()
    kept = []
    for usage in files:
        if usage.format in MATRIX_FORMATS:
            if usage.file in matrices:
                continue
            matrices.add(usage.file)
        kept.append(usage)
    return kept


class _LastFile:
    """Reads usage files, and keeps the last one: rows of a combined file or a matrix follow each other."""

    def __init__(self, files: Sequence[UsageFile], storage_options: Mapping[str, Any]) -> None:
        self._files, self._options = files, storage_options
        self._url: str | None = None
        self._counts: dict[str | None, SiteCounts | JunctionCounts] = {}

    def read(self, usage: UsageFile) -> SiteCounts | JunctionCounts:
        """Counts of a file; of a matrix, those of the row's condition."""
        is_matrix = usage.format in MATRIX_FORMATS
        if self._url != usage.file:
            self._counts = self._read_matrix(usage) if is_matrix else self._read_file(usage)
            self._url = usage.file
        return self._counts[usage.condition_id if is_matrix else None]

    def _read_file(self, usage: UsageFile) -> dict[str | None, SiteCounts | JunctionCounts]:
        return {None: read_usage(usage.file, usage.format, storage_options=self._options)}

    def _read_matrix(self, usage: UsageFile) -> dict[str | None, SiteCounts | JunctionCounts]:
        condition_of = {str(f.sample): f.condition_id for f in self._files if f.file == usage.file}
        from splicestore.readers.junction_matrix import read_junction_matrix

        matrix = read_junction_matrix(usage.file, usage.format, condition_of, storage_options=self._options)
        return dict(matrix.conditions())


def _mask_two_sided(tables: PanelSites, alpha: NDArray[np.float32], beta: NDArray[np.float32]) -> list[LedgerRow]:
    """A base that is donor and acceptor at once has two boundaries; their counts cannot share one row."""
    rows = []
    for site in np.flatnonzero(tables.sites.kind == KIND_BOTH):
        if not np.isnan(alpha[site]).all():
            contig = int(np.searchsorted(tables.contigs.offset, tables.sites.position[site], side="right")) - 1
            place = int(tables.sites.position[site] - tables.contigs.offset[contig])
            sign = "+" if tables.sites.strand[site] > 0 else "-"
            rows.append(LedgerRow("usage_site", f"{tables.contigs.names[contig]}:{place}:{sign}", "donor_and_acceptor"))
        alpha[site] = beta[site] = np.nan
    return rows


def _condition(
    files: Sequence[tuple[UsageFile, SiteCounts | JunctionCounts]],
    tables: PanelSites,
    index: SiteIndex,
    rules: PanelRules,
    unmatched: _Unmatched,
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[JoinReport], str]:
    """Sum the counts of one condition's files."""
    n_sites = len(index.key)
    alpha, beta, measured = np.zeros(n_sites), np.zeros(n_sites), np.zeros(n_sites, dtype=bool)
    reports, junctions, estimators = [], [], set()
    for usage, counts in files:
        if isinstance(counts, SiteCounts):
            estimators.add("spliser")
            report = _add_site_counts(
                usage, counts, tables, index, (alpha, beta, measured), unmatched, rules.check_gate
            )
        else:
            estimators.add("junction")
            placed, report = _place_junctions(usage, counts, tables, index, unmatched)
            junctions.append(placed)
        if rules.check_gate:
            check_join_gate(report, usage, index)
        reports.append(report)
    if len(estimators) > 1 and not rules.mix_estimators:
        raise ConfigError(
            f"genome {rules.genome_id}, condition {files[0][0].condition_id}: mixes SpliSER tables (alpha, beta1, beta2) with "
            "junction counts (no beta1); give them different conditions, or set `mix_estimators: true`"
        )
    if junctions:
        _add_junctions(junctions, tables.contigs, index, (alpha, beta, measured))
    for counts_of in (alpha, beta):
        counts_of[~measured] = np.nan
    return alpha.astype(np.float32), beta.astype(np.float32), reports, "+".join(sorted(estimators))


def _place(names: NDArray[np.object_], contigs: Contigs) -> tuple[Int64, Int64, NDArray[np.bool_]]:
    """Offset and length of each row's contig; offset -1 where the genome has no such contig."""
    codes, spelled = pd.factorize(names)
    resolved, _ = resolve_contigs([str(s) for s in spelled], list(contigs.names), contigs.aliases)
    row = {name: i for i, name in enumerate(contigs.names)}
    contig = np.array([row[resolved[str(s)]] if str(s) in resolved else -1 for s in spelled], dtype=np.int64)[codes]
    known = contig >= 0
    if not len(contigs.length):
        return np.full(len(names), -1, dtype=np.int64), np.zeros(len(names), dtype=np.int64), known
    return np.where(known, contigs.offset[contig], -1), np.where(known, contigs.length[contig], 0), known


def _judged_rows(known: NDArray[np.bool_], contigs: Contigs) -> NDArray[np.float64]:
    """Weight of each row in the join gate: rows on chromosomes that were left out do not count."""
    return known.astype(np.float64) if contigs.is_selection else np.ones(len(known))


def _elsewhere(names: NDArray[np.object_], known: NDArray[np.bool_]) -> str:
    if known.all():
        return ""
    first = names[int(np.argmin(known))]
    return f"; {int((~known).sum()):,} of its {len(known):,} rows name contigs that the genome does not have, first {first!r}"


def _no_contig(contigs: Contigs) -> str:
    """Reason in the ledger of a row whose contig the genome does not have."""
    return "chromosome_not_selected" if contigs.is_selection else "unknown_contig"


def _bases(position: Int64, shift: int, offset: Int64, length: Int64) -> Int64:
    """Absolute base of a contig position plus a shift; -1 where it falls off the contig."""
    base = position + shift
    return np.where((offset >= 0) & (base >= 0) & (base < length), offset + base, -1)


def _match_sites(
    counts: SiteCounts, offset: Int64, length: Int64, index: SiteIndex, convention: str, shift: int = 0
) -> BoundaryMatch:
    left = _bases(counts.position, _LEFT_SHIFT[convention] + shift, offset, length)
    right = _bases(counts.position, shift, offset, length)
    return match_boundaries(index, left, right, counts.side, counts.strand)


def _add_site_counts(
    usage: UsageFile,
    counts: SiteCounts,
    tables: PanelSites,
    index: SiteIndex,
    sums: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]],
    unmatched: _Unmatched,
    check_gate: bool,
) -> JoinReport:
    counts = _one_sample(usage, counts)
    offset, length, known = _place(counts.contig, tables.contigs)
    declared = usage.convention != "auto"
    weight = _judged_rows(known, tables.contigs)
    tried = {}
    for convention in [usage.convention] if declared else ["spliser", "splicevo"]:
        match = _match_sites(counts, offset, length, index, convention)
        rates = join_rates(match, weight)
        report = JoinReport(
            usage.file,
            "spliser",
            usage.condition_id,
            convention,
            declared,
            rates,
            len(weight),
            elsewhere=_elsewhere(counts.contig, known),
        )
        tried[convention] = (report, match)
    report, match = max(tried.values(), key=lambda pair: pair[0].worst)
    if check_gate and not _passes(report):
        hint = _shift_hint(counts, offset, length, index, weight)
        raise GateError(_gate_message(report, usage, index) + hint)
    hit = match.row >= 0
    alpha, beta, measured = sums
    np.add.at(alpha, match.row[hit], counts.alpha[hit])
    np.add.at(beta, match.row[hit], counts.beta[hit])
    measured[match.row[hit]] = True
    reason = np.where(
        ~known,
        _no_contig(tables.contigs),
        np.where(match.row == AMBIGUOUS, "ambiguous_boundary", "unknown_site"),
    ).astype(object)
    unmatched.add(counts.contig[~hit], counts.position[~hit], counts.strand[~hit], reason[~hit])
    return report


def _one_sample(usage: UsageFile, counts: SiteCounts) -> SiteCounts:
    """Keep one sample of a combined file where the configuration names it."""
    if usage.sample is None or len(counts.sample_names) <= 1:
        return counts
    if usage.sample not in counts.sample_names:
        raise InputError(
            f"{usage.file}: has no sample {usage.sample!r}; {close_names(usage.sample, counts.sample_names)}"
        )
    rows = counts.sample == counts.sample_names.index(usage.sample)
    return SiteCounts(
        contig=counts.contig[rows],
        position=counts.position[rows],
        strand=counts.strand[rows],
        side=counts.side[rows],
        alpha=counts.alpha[rows],
        beta=counts.beta[rows],
        sample=counts.sample[rows],
        sample_names=counts.sample_names,
        gene=None,
    )


@dataclass(frozen=True, slots=True)
class _Junctions:
    offset: Int64
    start: Int64
    end: Int64
    strand: NDArray[np.int8]
    reads: NDArray[np.float64]


def _place_junctions(
    usage: UsageFile, counts: JunctionCounts, tables: PanelSites, index: SiteIndex, unmatched: _Unmatched
) -> tuple[_Junctions, JoinReport]:
    """Resolve contigs and missing strands, and measure the join (by reads) of both ends."""
    counts = _with_reads(usage, counts, unmatched)
    offset, length, known = _place(counts.contig, tables.contigs)
    left, right = _bases(counts.start, -1, offset, length), _bases(counts.end, 0, offset, length)
    strand = _resolve_strand(index, left, right, counts.strand)
    n = len(strand)
    side = np.repeat(np.array([LEFT, RIGHT], dtype=np.int8), n)
    off = np.full(n, -1, dtype=np.int64)
    match = match_boundaries(
        index, np.concatenate((left, off)), np.concatenate((off, right)), side, np.concatenate((strand, strand))
    )
    reads = np.tile(counts.reads * _judged_rows(known, tables.contigs), 2)
    hit = match.row >= 0
    anchored = np.tile(hit[:n] | hit[n:], 2)
    report = JoinReport(
        usage.file,
        "junction",
        usage.condition_id,
        "junction",
        True,
        join_rates(match, reads),
        n,
        judged=join_rates(match, reads * anchored),
        elsewhere=_elsewhere(counts.contig, known),
    )
    missed = match.row < 0
    unplaced = np.concatenate((left, right)) < 0
    reason = np.select(
        [np.tile(~known, 2), unplaced, np.tile(strand == 0, 2)],
        [_no_contig(tables.contigs), "past_contig_end", "no_strand"],
        "unknown_site",
    ).astype(object)
    names = np.concatenate((counts.contig, counts.contig))
    positions = np.concatenate((counts.start, counts.end))
    unmatched.add(names[missed], positions[missed], np.concatenate((strand,) * 2)[missed], reason[missed])
    usable = (strand != 0) & known
    return _Junctions(
        offset[usable], counts.start[usable], counts.end[usable], strand[usable], counts.reads[usable]
    ), report


def _with_reads(usage: UsageFile, counts: JunctionCounts, unmatched: _Unmatched) -> JunctionCounts:
    """Leave out junctions without a read (STAR lists those that only multi-mapping reads support): no evidence."""
    seen = counts.reads > 0
    if not seen.all():
        name = usage.file.rsplit("/", 1)[-1]
        unmatched.notes.append(
            LedgerRow("usage_file", usage.condition_id, "junctions_without_reads", name, int((~seen).sum()))
        )
    return JunctionCounts(
        counts.contig[seen], counts.start[seen], counts.end[seen], counts.strand[seen], counts.reads[seen]
    )


def _resolve_strand(index: SiteIndex, left: Int64, right: Int64, strand: NDArray[np.int8]) -> NDArray[np.int8]:
    """Give an unstranded junction the strand on which more of its ends are sites; 0 where neither wins."""
    score = np.zeros(len(strand), dtype=np.int64)
    for sign in (1, -1):
        for base, side in ((left, LEFT), (right, RIGHT)):
            score += sign * ((index.find(base, sign, side) >= 0) & (base >= 0))
    return np.where(strand == 0, np.sign(score), strand).astype(np.int8)


def _add_junctions(
    parts: Sequence[_Junctions],
    contigs: Contigs,
    index: SiteIndex,
    sums: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    """Count a condition's junctions together: a site skipped in one sample has its partners in another."""
    offset, start, end, strand, reads = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("offset", "start", "end", "strand", "reads")
    )
    counts = junction_boundary_counts(offset, start, end, strand, reads)
    # A junction may end beyond its contig (reads of a piece that was cut): that end is no site, least of all of
    # the contig whose bases come next.
    length = contigs.length[np.searchsorted(contigs.offset, counts.contig)]
    base = _bases(boundary_to_base(counts.position, counts.side), 0, counts.contig, length)
    row = np.where(counts.side == LEFT, index.find(base, counts.strand, LEFT), index.find(base, counts.strand, RIGHT))
    hit = (row >= 0) & (base >= 0)
    alpha, beta, measured = sums
    np.add.at(alpha, row[hit], counts.alpha[hit])
    np.add.at(beta, row[hit], counts.beta[hit])
    measured[row[hit]] = True


def check_join_gate(report: JoinReport, usage: UsageFile, index: SiteIndex) -> None:
    """Refuse a file whose rows do not lie on sites."""
    if report.n_rows and not _passes(report):
        raise GateError(_gate_message(report, usage, index))


def _passes(report: JoinReport) -> bool:
    return report.n_rows == 0 or report.worst >= JOIN_GATE


def _gate_message(report: JoinReport, usage: UsageFile, index: SiteIndex) -> str:
    if len(index.key) == 0:
        return (
            f"{usage.file}: the genome has no splice sites that its rows could join; give the genome an annotation, set "
            "`observed_sites` (junction files), or leave usage out"
        )
    is_junction = report.convention == "junction"
    strata = ", ".join(f"{k}{s} {m:.0f} of {t:.0f}" for (k, s), (m, t) in (report.judged or report.rates).items())
    return (
        f"{usage.file}: {report.rate:.0%} of its {'reads' if is_junction else 'rows'} lie on splice sites of the annotation; "
        f"by class and strand{', of junctions with an end on a site' if is_junction else ''}: {strata} (convention "
        f"{report.convention}, allowed from {JOIN_GATE:.0%} in each){report.elsewhere}: the coordinates are probably off or of "
        "another assembly; "
        "--override-gates keeps what joins"
    )


def _shift_hint(counts: SiteCounts, offset: Int64, length: Int64, index: SiteIndex, weight: NDArray[np.float64]) -> str:
    """Say which shift or convention would join, if one would."""
    best = ("", 0.0)
    for convention in ("spliser", "splicevo"):
        for shift in (-2, -1, 0, 1, 2):
            match = _match_sites(counts, offset, length, index, convention, shift)
            report = JoinReport("", "spliser", "", convention, False, join_rates(match, weight), len(weight))
            if report.worst > best[1] and report.worst >= JOIN_GATE:
                moved = f"and all positions moved by {shift:+d}" if shift else "as it stands"
                best = (f"; with convention {convention} {moved}, {report.rate:.0%} would join: the file is off by "
                        f"{'its convention' if not shift else f'{abs(shift)} bp'}", report.worst)  # fmt: skip
    return best[0]
