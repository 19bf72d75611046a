"""``ingest expression``: files of counts into one matrix of (sample, gene) tiles, published under a name.

Tiles serve both passes of a normalisation, by genes and by samples, without a transposed copy. One partition is one row of
shards: some thousand samples, all genes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.expression import SAMPLE_CHANGES
from splicestore.ingest.count_files import (
    CountFile,
    ExpressionOptions,
    GeneRows,
    close_count_files,
    open_count_file,
    read_heads,
    reads_all_genes,
)
from splicestore.ingest.expression_columns import table_columns
from splicestore.ingest.release import Release, compare_release
from splicestore.ingest.sample_selection import describe_selection
from splicestore.kernels.profiles import add_digests, name_keys
from splicestore.memory import INTERPRETER_BYTES, observed_peak_bytes
from splicestore.readers.counts import Counts
from splicestore.schema import COUNTS_CHUNK, COUNTS_SHARD, ArraySpec, InputDigest, Plan, check_name, counts_shard
from splicestore.storage import PartitionPlace, Publication, StoreRoot, absolute_url
from splicestore.storage.arrays import read_arrays
from splicestore.storage.columns import Column
from splicestore.tasks import Job, Outcome, Progress, publish_in_tasks, refuse_oversized

EXPRESSION_ENCODER = 2


@dataclass(frozen=True, slots=True)
class ExpressionReport:
    """What was published."""

    name: str
    generation: str
    status: str
    n_samples: int
    n_genes: int
    n_not_selected: int
    n_symbols_repeated: int
    n_ids_repeated: int
    n_samples_empty: int
    release: dict[str, Any] | None
    """Of which matrix, and how many samples and genes came, went and changed."""
    projected_peak_bytes: int
    observed_peak_bytes: int
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Job:
    """All that is known before a count is read."""

    root: StoreRoot
    name: str
    files: Sequence[CountFile]
    genes: GeneRows
    release: Release | None
    options: ExpressionOptions

    @property
    def n_samples(self) -> int:
        return sum(len(file.rows) for file in self.files)

    @property
    def n_genes(self) -> int:
        return len(self.genes)

    @property
    def selected(self) -> str:
        return describe_selection(self.options.selection)

    def part_names(self) -> list[str]:
        return [f"rows-{part:05d}" for part in range(-(-self.n_samples // counts_shard(self.n_samples, 1)[0]))]

    def projected_peak_bytes(self) -> int:
        """Bytes of one process: a slab of genes as it was read and as it is written, or all genes where files differ."""
        rows = min(COUNTS_SHARD[0], self.n_samples)
        step = max(file.gene_step for file in self.files)
        width = self.n_genes if reads_all_genes(self.files) else min(self.n_genes, COUNTS_SHARD[1] + step)
        # As read, transposed, collected, and one shard encoded.
        slabs = 4 * rows * (2 * step + width + 3 * COUNTS_SHARD[1])
        return INTERPRETER_BYTES + slabs + 3 * sum(file.n_bytes for file in self.files)

    def matrix_specs(self) -> list[ArraySpec]:
        """Specify what is made of the counts."""
        shard = counts_shard(self.n_samples, self.n_genes)
        counts = ArraySpec(
            "counts", (self.n_samples, self.n_genes), ("sample", "gene"), "uint32", COUNTS_CHUNK, shard, shuffled=True
        )
        per_sample = dict(_PER_SAMPLE)
        attributes: dict[str, dict[str, Any]] = {}
        if self.release is not None:
            per_sample["sample_change"] = "uint8"
            attributes["sample_change"] = {"vocabulary": list(SAMPLE_CHANGES)}
        return [
            counts,
            *(
                ArraySpec(name, (self.n_samples,), ("sample",), dtype, (shard[0],), attributes=attributes.get(name, {}))
                for name, dtype in per_sample.items()
            ),
        ]


_PER_SAMPLE = {
    "sample_total": "int64",
    "sample_n_nonzero": "int32",
    "sample_max": "uint32",
    "sample_digest": "uint64",
}


def ingest_expression(
    root: StoreRoot,
    name: str,
    urls: Sequence[str],
    options: ExpressionOptions | None = None,
    *,
    progress: Progress | None = None,
) -> ExpressionReport:
    """Read files of counts, in order, and publish them as one matrix.

    Parameters
    ----------
    root
        The store.
    name
        Of the matrix.
    urls
        ARCHS4 h5, h5ad, or tables (TSV, CSV, GCT, featureCounts, htseq-count), gzipped or not; their samples follow one another.

    Raises
    ------
    InputError
        For anything that is no count, a sample that stands twice, genes that differ between files (unless ``union``), no sample.
    PlanError
        If it would need more than ``max_memory``.
    LeaseHeldError
        If another process is writing this name.
    """
    check_name(name, "expression")
    if not urls:
        raise InputError("no file of counts was given")
    try:
        return _ingest(root, name, urls, options or ExpressionOptions(), progress)
    finally:
        close_count_files()


def _ingest(
    root: StoreRoot,
    name: str,
    urls: Sequence[str],
    options: ExpressionOptions,
    progress: Progress | None,
) -> ExpressionReport:
    files, genes = read_heads(urls, options)
    release = None if options.release_of is None else compare_release(root, name, options.release_of, files, genes)
    job = _Job(root, name, files, genes, release, options)
    projected = job.projected_peak_bytes()
    advice = "; tables of text are read whole: as h5 or h5ad they need less"
    refuse_oversized(f"expression {name}", projected, options, advice)
    tables = _tables(job)
    publishing = Job(
        path=f"expression/{name}",
        publication=lambda: _publication(job, tables),
        tasks=lambda publication: _rows_tasks(publication, job),
        run=_write_rows,
        tables=lambda _: tables,
        memory=projected,
        unit="samples",
        attributes=lambda publication: _sizes(publication, job),
    )
    return _report(job, publish_in_tasks(root, publishing, options, progress))


# -- the store's side ----------------------------------------------------------------------------------------------


def _tables(job: _Job) -> list[Column]:
    ours = [spec.name for spec in job.matrix_specs()]
    return table_columns(job.files, job.genes, ours, [] if job.release is None else job.release.columns())


def _publication(job: _Job, tables: Sequence[Column]) -> Publication:
    options, release = job.options, job.release
    plan = Plan(
        kind="expression",
        encoder=EXPRESSION_ENCODER,
        inputs=tuple(file.digest for file in job.files),
        parents={} if release is None else {release.parent: release.old.generation},
        options={
            "where": list(options.selection.where),
            "series": sorted(options.selection.series),
            "search": options.selection.search,
            "genes_differ": options.genes_differ,
            "layer": options.layer,
        },
        chunking={"counts": [list(COUNTS_CHUNK), list(counts_shard(job.n_samples, job.n_genes))]},
    )
    return Publication(
        root=job.root,
        path=f"expression/{job.name}",
        plan=plan,
        specs=[*job.matrix_specs(), *(column.spec() for column in tables)],
        attributes={"options": plan.document()["options"], "selected": job.selected},
        provenance={
            "versions": {"splicestore": version("splicestore")},
            "inputs": [absolute_url(file.url) for file in job.files],
        },
    )


def _sizes(publication: Publication, job: _Job) -> dict[str, Any]:
    """Attributes that are known when all counts are written."""
    sizes: dict[str, Any] = {"n_samples": job.n_samples, "n_genes": job.n_genes}
    if job.release is not None:
        change = read_arrays(publication.root, publication.base, ["sample_change"])["sample_change"]
        sizes["release"] = job.release.summary(change)
    return sizes


# -- partitions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    """Samples of one file in one partition."""

    url: str
    digest: InputDigest
    rows: NDArray[np.int64]
    gene_of: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class _Before:
    """What the samples of a partition were in the matrix that this is a newer release of."""

    is_known: NDArray[np.bool_]
    """(sample,)"""
    digest: NDArray[np.uint64]
    """(sample,) over the genes that both have."""
    is_shared: NDArray[np.bool_]
    """(gene,)"""


@dataclass(frozen=True, slots=True)
class _RowsTask:
    """One row of shards; files by address."""

    place: PartitionPlace
    first_sample: int
    pieces: tuple[_Piece, ...]
    gene_key: NDArray[np.uint64]
    gene_step: int
    shard_genes: int
    reads_all_genes: bool
    before: _Before | None
    options: ExpressionOptions

    @property
    def n_rows(self) -> int:
        return sum(len(piece.rows) for piece in self.pieces)

    @property
    def n_genes(self) -> int:
        return len(self.gene_key)


def _rows_tasks(publication: Publication, job: _Job) -> Iterator[_RowsTask]:
    height, width = counts_shard(job.n_samples, job.n_genes)
    ends = np.cumsum([len(file.rows) for file in job.files])
    arrays, key = [spec.name for spec in job.matrix_specs()], name_keys(job.genes.gene_id)
    expected = None if job.release is None else job.release.expected_digests()
    for number, name in enumerate(job.part_names()):
        first, last = number * height, min((number + 1) * height, int(ends[-1]))
        pieces, before = [], None
        for file, end in zip(job.files, ends.tolist(), strict=True):
            begin = end - len(file.rows)
            rows = file.rows[max(0, first - begin) : max(0, min(last, end) - begin)]
            if len(rows):
                pieces.append(_Piece(file.url, file.digest, rows, file.gene_of))
        if job.release is not None and expected is not None:
            known = job.release.sample_row[first:last] >= 0
            before = _Before(known, expected[first:last], job.release.gene_row >= 0)
        step, is_whole = max(file.gene_step for file in job.files), reads_all_genes(job.files)
        place = publication.place(name, arrays)
        yield _RowsTask(place, first, tuple(pieces), key, step, width, is_whole, before, job.options)


def _write_rows(task: _RowsTask) -> int:
    """Read the samples of a partition slab by slab of genes and write whole shards; return this process's peak, in bytes."""
    writer, profile = task.place.open(), _Profile(task)
    for first_gene, counts in _whole_shards(task):
        writer.write("counts", counts, (task.first_sample, first_gene))
        profile.add(first_gene, counts)
    for name, values in profile.arrays().items():
        writer.write(name, values, task.first_sample)
    total = profile.total
    writer.counts.update(samples=task.n_rows, counts=int(total.sum()), empty=int((total == 0).sum()))
    writer.close()
    return observed_peak_bytes()


class _Profile:
    """What is said of every sample of a partition, summed up as its counts go by."""

    def __init__(self, task: _RowsTask) -> None:
        self._key, self._before = task.gene_key, task.before
        self.total = np.zeros(task.n_rows, dtype=np.int64)
        self._nonzero = np.zeros(task.n_rows, dtype=np.int32)
        self._largest = np.zeros(task.n_rows, dtype=np.uint32)
        self._digest, self._unshared = (np.zeros(task.n_rows, dtype=np.uint64) for _ in range(2))

    def add(self, first_gene: int, counts: Counts) -> None:
        """Take in the counts of some genes, of all rows."""
        genes = slice(first_gene, first_gene + counts.shape[1])
        self.total += counts.sum(axis=1, dtype=np.int64)
        self._nonzero += np.count_nonzero(counts, axis=1).astype(np.int32)
        np.maximum(self._largest, counts.max(axis=1), out=self._largest)
        add_digests(counts, self._key[genes], self._digest)
        if self._before is not None:
            unshared = np.flatnonzero(~self._before.is_shared[genes])
            add_digests(counts[:, unshared], self._key[genes][unshared], self._unshared)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Values of the arrays of samples, by name."""
        found: dict[str, NDArray[Any]] = {
            "sample_total": self.total,
            "sample_n_nonzero": self._nonzero,
            "sample_max": self._largest,
            "sample_digest": self._digest,
        }
        if self._before is not None:
            is_same = self._digest - self._unshared == self._before.digest
            known = np.where(is_same, SAMPLE_CHANGES.index("same"), SAMPLE_CHANGES.index("changed"))
            change = np.where(self._before.is_known, known, SAMPLE_CHANGES.index("added"))
            found["sample_change"] = change.astype(np.uint8)
        return found


def _whole_shards(task: _RowsTask) -> Iterator[tuple[int, Counts]]:
    """Yield (first gene, counts of all rows), as wide as a shard; the last one may be narrower."""
    if task.reads_all_genes:
        everything = np.zeros((task.n_rows, task.n_genes), dtype=np.uint32)
        _fill(task, 0, task.n_genes, everything)
        for first in range(0, task.n_genes, task.shard_genes):
            yield first, everything[:, first : first + task.shard_genes]
        return
    width = task.shard_genes
    waiting, first = np.zeros((task.n_rows, 0), dtype=np.uint32), 0
    slab_genes = -(-width // task.gene_step) * task.gene_step
    for begin in range(0, task.n_genes, slab_genes):
        end = min(task.n_genes, begin + slab_genes)
        slab = np.empty((task.n_rows, end - begin), dtype=np.uint32)
        _fill(task, begin, end, slab)
        waiting = np.concatenate((waiting, slab), axis=1) if waiting.size else slab
        while waiting.shape[1] >= width or (end == task.n_genes and waiting.shape[1]):
            yield first, np.ascontiguousarray(waiting[:, :width])
            first += width
            waiting = waiting[:, width:]


def _fill(task: _RowsTask, first_gene: int, last_gene: int, out: Counts) -> None:
    row = 0
    for piece in task.pieces:
        rows = slice(row, row + len(piece.rows))
        row += len(piece.rows)
        source = open_count_file(piece.url, piece.digest, task.options)
        if piece.gene_of is None:
            out[rows] = source.read(piece.rows, first_gene, last_gene)
            continue
        known = np.flatnonzero(piece.gene_of[first_gene:last_gene] >= 0)
        own = source.read(piece.rows, 0, len(source.head.gene_id))
        out[rows, known] = own[:, piece.gene_of[first_gene:last_gene][known]]


# -- report --------------------------------------------------------------------------------------------------------


def _report(job: _Job, outcome: Outcome) -> ExpressionReport:
    publication = outcome.publication
    names = ["sample_total"] if job.release is None else ["sample_total", "sample_change"]
    found = read_arrays(publication.root, publication.base, names)
    return ExpressionReport(
        name=job.name,
        generation=publication.generation,
        status=outcome.status,
        n_samples=job.n_samples,
        n_genes=job.n_genes,
        n_not_selected=sum(len(file.head.sample_id) - len(file.rows) for file in job.files),
        n_symbols_repeated=int(job.genes.symbol_is_repeated().sum()),
        n_ids_repeated=int(job.genes.id_is_repeated().sum()),
        n_samples_empty=int((found["sample_total"] == 0).sum()),
        release=None if job.release is None else job.release.summary(found["sample_change"]),
        projected_peak_bytes=job.projected_peak_bytes(),
        observed_peak_bytes=outcome.observed_peak_bytes,
        warnings=() if job.release is None else tuple(job.release.warnings(job.selected)),
    )
