"""``ingest expression``: files of counts into one matrix of (sample, gene) tiles, published under a name.

Tiles serve both passes of a normalisation, by genes and by samples, without a transposed copy. One partition is one row of
shards: some thousand samples, all genes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splicestore.cluster import open_executor
from splicestore.errors import InputError, PlanError
from splicestore.ingest.sample_selection import (
    SERIES_COLUMN,
    SampleSelection,
    describe_selection,
    select_samples,
    split_series,
)
from splicestore.memory import INTERPRETER_BYTES, format_bytes, observed_peak_bytes
from splicestore.readers.counts import Counts, CountsHead, CountsSource, open_counts, refuse_repeated
from splicestore.schema import (
    COUNTS_CHUNK,
    COUNTS_SHARD,
    ArraySpec,
    InputDigest,
    LedgerRow,
    Plan,
    check_name,
    counts_shard,
)
from splicestore.storage import (
    PartitionPlace,
    Publication,
    StoreRoot,
    absolute_url,
    digest_input,
    write_lease,
)
from splicestore.storage.arrays import read_arrays
from splicestore.storage.columns import Column, ledger_columns, vocabulary_column, write_columns

EXPRESSION_ENCODER = 2
GenesDiffer = Literal["error", "union"]

_TABLES = "tables"


@dataclass(frozen=True, slots=True)
class ExpressionOptions:
    """How files of counts are put together."""

    selection: SampleSelection = field(default_factory=SampleSelection)
    genes_differ: GenesDiffer = "error"
    """What to do where files have other genes: refuse, or take all genes, missing ones of a file marked as not measured."""
    layer: str = "X"
    """Of h5ad files."""
    scheduler: str = "sync"
    max_memory: int | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None
    force: bool = False
    steal: bool = False


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
    n_samples_empty: int
    projected_peak_bytes: int
    observed_peak_bytes: int

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _InputFile:
    """One file: the samples taken of it, and where its genes lie in the matrix."""

    url: str
    digest: InputDigest
    head: CountsHead
    rows: NDArray[np.int64]
    """(n,) samples of the file, ascending."""
    gene_of: NDArray[np.int64] | None
    """(gene of the matrix,) its gene in the file, -1 where the file lacks it; None: the same genes in the same order."""
    gene_step: int
    is_table: bool
    n_bytes: int
    """In memory, where the file is read whole."""


def ingest_expression(
    root: StoreRoot,
    name: str,
    urls: Sequence[str],
    options: ExpressionOptions | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
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
        _opened.cache_clear()


def _ingest(
    root: StoreRoot,
    name: str,
    urls: Sequence[str],
    options: ExpressionOptions,
    progress: Callable[[str, int, int], None] | None,
) -> ExpressionReport:
    heads = [_read_head(url, options) for url in urls]
    genes = _join_genes(heads, options.genes_differ)
    files = [_input_file(head, genes, options) for head in heads]
    refuse_repeated(
        ", ".join(urls), "sample", [file.head.sample_id[row] for file in files for row in file.rows.tolist()]
    )
    projected = _projected_peak_bytes(files, len(genes.gene_id))
    if options.max_memory is not None and projected > options.max_memory:
        raise PlanError(
            f"expression {name}: needs up to {format_bytes(projected)} a process, --max-memory allows "
            f"{format_bytes(options.max_memory)}; tables of text are read whole: as h5 or h5ad they need less"
        )
    with write_lease(root, f"expression/{name}", steal=options.steal) as lease:
        publication = _publication(root, name, files, genes, options)
        publication.force = options.force
        peak = 0
        if not publication.is_complete():
            publication.begin()
            peak = _write_parts(publication, files, len(genes.gene_id), options, progress)
            publication.provenance.update(
                projected_peak_bytes=projected, observed_peak_bytes=max(peak, observed_peak_bytes())
            )
            if not publication.has_part(_TABLES):
                writer = publication.partition(_TABLES)
                write_columns(writer, _table_columns(files, genes))
                writer.close()
            publication.finalise(
                [_TABLES, *_part_names(files)], {"n_samples": _n_samples(files), "n_genes": len(genes.gene_id)}
            )
        lease.check()
        status = "published" if publication.switch() else "unchanged"
    return _report(name, publication, status, files, genes, projected, max(peak, observed_peak_bytes()))


# -- inputs --------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def _opened(url: str, sha256: str, layer: str, storage_options: tuple[tuple[str, Any], ...]) -> CountsSource:
    # Kept between the partitions that a process writes, so that a table of text is parsed once; by content, so that a
    # worker that lives on does not serve a file that has changed since.
    return open_counts(url, layer=layer, storage_options=dict(storage_options))


def _open(url: str, digest: InputDigest, options: ExpressionOptions) -> CountsSource:
    return _opened(url, digest.sha256, options.layer, tuple(sorted(options.storage_options.items())))


@dataclass(frozen=True, slots=True)
class _Opened:
    url: str
    digest: InputDigest
    head: CountsHead
    gene_step: int
    is_table: bool


def _read_head(url: str, options: ExpressionOptions) -> _Opened:
    digest = digest_input(url, "counts", storage_options=dict(options.storage_options))
    source = _open(url, digest, options)
    return _Opened(url, digest, source.head, source.gene_step, type(source).__name__ == "CountTable")


def _join_genes(opened: Sequence[_Opened], differ: GenesDiffer) -> CountsHead:
    """Line the genes of all files up; symbols and biotypes are those of the first file that has the gene."""
    first = opened[0].head
    if all(each.head.gene_id == first.gene_id for each in opened):
        return first
    for each in opened:
        refuse_repeated(each.url, "gene", each.head.gene_id)
    ids = dict.fromkeys(gene for each in opened for gene in each.head.gene_id)
    if differ == "error":
        other = next(each for each in opened if each.head.gene_id != first.gene_id)
        lacks, more = set(first.gene_id) - set(other.head.gene_id), set(other.head.gene_id) - set(first.gene_id)
        what = (
            f"lacks {len(lacks):,} genes of it and has {len(more):,} others (first: {', '.join(sorted(lacks | more)[:3])})"
            if lacks or more
            else "has them in another order"
        )
        raise InputError(
            f"{other.url}: other genes than {opened[0].url}: {what}; --genes-differ union takes all, and marks what a file lacks as "
            "not measured"
        )
    symbol, biotype = dict[str, str](), dict[str, str]()
    for each in opened:
        for gene, s, b in zip(each.head.gene_id, each.head.gene_symbol, each.head.gene_biotype, strict=True):
            symbol[gene], biotype[gene] = symbol.get(gene) or s, biotype.get(gene) or b
    return CountsHead((), tuple(ids), tuple(symbol[g] for g in ids), tuple(biotype[g] for g in ids))


def _input_file(opened: _Opened, genes: CountsHead, options: ExpressionOptions) -> _InputFile:
    head, gene_of = opened.head, None
    if head.gene_id != genes.gene_id:
        place = {gene: row for row, gene in enumerate(head.gene_id)}
        gene_of = np.array([place.get(gene, -1) for gene in genes.gene_id], dtype=np.int64)
    rows = select_samples(opened.url, head.sample_id, head.sample_columns, options.selection)
    n_bytes = 4 * len(head.sample_id) * len(head.gene_id) if opened.is_table else 0
    return _InputFile(opened.url, opened.digest, head, rows, gene_of, opened.gene_step, opened.is_table, n_bytes)


def _n_samples(files: Sequence[_InputFile]) -> int:
    return sum(len(file.rows) for file in files)


def _projected_peak_bytes(files: Sequence[_InputFile], n_genes: int) -> int:
    """Bytes of one process: a slab of genes as it was read and as it is written, or all genes where files differ."""
    rows = min(COUNTS_SHARD[0], _n_samples(files))
    step = max(file.gene_step for file in files)
    width = n_genes if any(file.gene_of is not None for file in files) else min(n_genes, COUNTS_SHARD[1] + step)
    # As read, transposed, collected, and one shard encoded.
    return INTERPRETER_BYTES + 4 * rows * (2 * step + width + 3 * COUNTS_SHARD[1]) + 3 * sum(f.n_bytes for f in files)


# -- the store's side ----------------------------------------------------------------------------------------------


def _part_names(files: Sequence[_InputFile]) -> list[str]:
    n_samples = _n_samples(files)
    return [f"rows-{part:05d}" for part in range(-(-n_samples // counts_shard(n_samples, 1)[0]))]


def _publication(
    root: StoreRoot, name: str, files: Sequence[_InputFile], genes: CountsHead, options: ExpressionOptions
) -> Publication:
    n_samples, n_genes = _n_samples(files), len(genes.gene_id)
    plan = Plan(
        kind="expression",
        encoder=EXPRESSION_ENCODER,
        inputs=tuple(file.digest for file in files),
        parents={},
        options={
            "where": list(options.selection.where),
            "series": sorted(options.selection.series),
            "search": options.selection.search,
            "genes_differ": options.genes_differ,
            "layer": options.layer,
        },
        chunking={"counts": [list(COUNTS_CHUNK), list(counts_shard(n_samples, n_genes))]},
    )
    return Publication(
        root=root,
        path=f"expression/{name}",
        plan=plan,
        specs=[*_matrix_specs(n_samples, n_genes), *(c.spec() for c in _table_columns(files, genes))],
        attributes={"options": plan.document()["options"], "selected": describe_selection(options.selection)},
        provenance={
            "versions": {"splicestore": version("splicestore")},
            "inputs": [absolute_url(file.url) for file in files],
        },
    )


def _matrix_specs(n_samples: int, n_genes: int) -> list[ArraySpec]:
    shard = counts_shard(n_samples, n_genes)
    counts = ArraySpec("counts", (n_samples, n_genes), ("sample", "gene"), "uint32", COUNTS_CHUNK, shard, shuffled=True)
    per_sample = [("sample_total", "int64"), ("sample_n_nonzero", "int32"), ("sample_max", "uint32")]
    return [counts, *(ArraySpec(name, (n_samples,), ("sample",), dtype, (shard[0],)) for name, dtype in per_sample)]


def _table_columns(files: Sequence[_InputFile], genes: CountsHead) -> list[Column]:
    samples = [file.head.sample_id[row] for file in files for row in file.rows.tolist()]
    numbers = np.repeat(np.arange(len(files)), [len(file.rows) for file in files]).astype(np.uint16)
    columns = [
        Column("gene_id", genes.gene_id, "gene", "string"),
        Column("gene_symbol", genes.gene_symbol, "gene", "string"),
        vocabulary_column("gene_biotype", genes.gene_biotype, "gene"),
        Column("gene_is_repeated", _is_repeated(genes.gene_symbol), "gene", "bool"),
        Column("sample_id", samples, "sample", "string"),
        Column("sample_file", numbers, "sample", "uint16"),
        Column("file_has_gene", _file_has_gene(files, len(genes.gene_id)).reshape(-1), "file_gene", "bool"),
    ]
    taken = {column.name for column in columns} | {"sample_total", "sample_n_nonzero", "sample_max"}
    for name, values in _joined_columns(files).items():
        stored = f"sample_{name}"
        if stored not in taken:
            columns.append(_sample_column(stored, values))
    columns += _series_columns(_joined_columns(files).get(SERIES_COLUMN))
    ledger = [row for file in files for row in file.head.ledger] + [
        LedgerRow("sample", file.url, "not_selected", "", len(file.head.sample_id) - len(file.rows))
        for file in files
        if len(file.rows) < len(file.head.sample_id)
    ]
    return columns + ledger_columns(ledger)


def _is_repeated(symbols: Sequence[str]) -> NDArray[np.bool_]:
    _, inverse, counts = np.unique(np.array(symbols, dtype=object).astype(str), return_inverse=True, return_counts=True)
    return np.asarray((counts[inverse] > 1) & np.array([bool(s) for s in symbols]))


def _file_has_gene(files: Sequence[_InputFile], n_genes: int) -> NDArray[np.bool_]:
    return np.stack([np.ones(n_genes, dtype=bool) if f.gene_of is None else f.gene_of >= 0 for f in files])


def _joined_columns(files: Sequence[_InputFile]) -> dict[str, NDArray[Any]]:
    """Columns of the sample tables, of all files; empty or NaN where a file lacks one."""
    names = dict.fromkeys(name for file in files for name in file.head.sample_columns)
    joined = {}
    for name in names:
        found = [file.head.sample_columns.get(name) for file in files]
        is_number = all(column is None or column.dtype.kind == "f" for column in found)
        filler: Any = np.nan if is_number else ""
        parts = [
            np.full(len(file.rows), filler, dtype=np.float64 if is_number else object)
            if column is None
            else column[file.rows]
            for file, column in zip(files, found, strict=True)
        ]
        joined[name] = np.concatenate([part.astype(np.float64 if is_number else object) for part in parts])
    return joined


def _sample_column(name: str, values: NDArray[Any]) -> Column:
    if values.dtype.kind == "f":
        return Column(name, values, "sample", "float64")
    return Column(name, [str(value) for value in values], "sample", "string")


def _series_columns(values: NDArray[Any] | None) -> list[Column]:
    """GEO series of every sample, as lists."""
    lists = [] if values is None else [split_series(str(value)) for value in values]
    names = sorted({name for of in lists for name in of})
    row = {name: i for i, name in enumerate(names)}
    ptr = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    index = np.array([row[name] for of in lists for name in of], dtype=np.int32)
    return [
        Column("series_id", names, "series", "string"),
        Column("sample_series_ptr", ptr, "sample_edge", "int64"),
        Column("sample_series_index", index, "sample_series", "int32"),
    ]


# -- partitions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    """Samples of one file in one partition."""

    url: str
    digest: InputDigest
    rows: NDArray[np.int64]
    gene_of: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class _RowsTask:
    """One row of shards; files by address."""

    place: PartitionPlace
    first_sample: int
    pieces: tuple[_Piece, ...]
    n_genes: int
    gene_step: int
    shard_genes: int
    options: ExpressionOptions


def _write_parts(
    publication: Publication,
    files: Sequence[_InputFile],
    n_genes: int,
    options: ExpressionOptions,
    progress: Callable[[str, int, int], None] | None,
) -> int:
    """Write the partitions that are not there yet; return the largest peak memory of a worker, in bytes."""
    tasks = [
        task for task in _rows_tasks(publication, files, n_genes, options) if not publication.has_part(task.place.name)
    ]
    if not tasks:
        return 0
    memory, peak, done = _projected_peak_bytes(files, n_genes), 0, 0
    with open_executor(options.scheduler, urls=[publication.root.url], profile=options.profile) as executor:
        for _, observed in executor.map(_write_rows, tasks, names=[t.place.name for t in tasks], memory=memory):
            peak, done = max(peak, observed), done + 1
            if progress is not None:
                progress("samples", done, len(tasks))
    return peak


def _rows_tasks(
    publication: Publication, files: Sequence[_InputFile], n_genes: int, options: ExpressionOptions
) -> Iterator[_RowsTask]:
    height, width = counts_shard(_n_samples(files), n_genes)
    ends = np.cumsum([len(file.rows) for file in files])
    arrays = [spec.name for spec in _matrix_specs(1, 1)]
    for number, name in enumerate(_part_names(files)):
        first, last = number * height, min((number + 1) * height, int(ends[-1]))
        pieces = []
        for file, end in zip(files, ends.tolist(), strict=True):
            begin = end - len(file.rows)
            rows = file.rows[max(0, first - begin) : max(0, min(last, end) - begin)]
            if len(rows):
                pieces.append(_Piece(file.url, file.digest, rows, file.gene_of))
        step = max(file.gene_step for file in files)
        yield _RowsTask(publication.place(name, arrays), first, tuple(pieces), n_genes, step, width, options)


def _write_rows(task: _RowsTask) -> int:
    """Read the samples of a partition slab by slab of genes and write whole shards; return this process's peak, in bytes."""
    writer = task.place.open()
    n_rows = sum(len(piece.rows) for piece in task.pieces)
    total, nonzero = np.zeros(n_rows, dtype=np.int64), np.zeros(n_rows, dtype=np.int32)
    largest = np.zeros(n_rows, dtype=np.uint32)
    for first_gene, counts in _whole_shards(task, n_rows):
        writer.write("counts", counts, (task.first_sample, first_gene))
        total += counts.sum(axis=1, dtype=np.int64)
        nonzero += np.count_nonzero(counts, axis=1).astype(np.int32)
        np.maximum(largest, counts.max(axis=1), out=largest)
    for name, values in (("sample_total", total), ("sample_n_nonzero", nonzero), ("sample_max", largest)):
        writer.write(name, values, task.first_sample)
    writer.counts.update(samples=n_rows, counts=int(total.sum()), empty=int((total == 0).sum()))
    writer.close()
    return observed_peak_bytes()


def _whole_shards(task: _RowsTask, n_rows: int) -> Iterator[tuple[int, Counts]]:
    """Yield (first gene, counts of all rows), as wide as a shard; the last one may be narrower."""
    if any(piece.gene_of is not None for piece in task.pieces):
        everything = np.zeros((n_rows, task.n_genes), dtype=np.uint32)
        _fill(task, 0, task.n_genes, everything)
        for first in range(0, task.n_genes, task.shard_genes):
            yield first, everything[:, first : first + task.shard_genes]
        return
    width = task.shard_genes
    waiting, first = np.zeros((n_rows, 0), dtype=np.uint32), 0
    slab_genes = -(-width // task.gene_step) * task.gene_step
    for begin in range(0, task.n_genes, slab_genes):
        end = min(task.n_genes, begin + slab_genes)
        slab = np.empty((n_rows, end - begin), dtype=np.uint32)
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
        source = _open(piece.url, piece.digest, task.options)
        if piece.gene_of is None:
            out[rows] = source.read(piece.rows, first_gene, last_gene)
            continue
        known = np.flatnonzero(piece.gene_of[first_gene:last_gene] >= 0)
        own = source.read(piece.rows, 0, len(source.head.gene_id))
        out[rows, known] = own[:, piece.gene_of[first_gene:last_gene][known]]


# -- report --------------------------------------------------------------------------------------------------------


def _report(
    name: str,
    publication: Publication,
    status: str,
    files: Sequence[_InputFile],
    genes: CountsHead,
    projected: int,
    observed: int,
) -> ExpressionReport:
    totals = read_arrays(publication.root, publication.base, ["sample_total"])["sample_total"]
    return ExpressionReport(
        name=name,
        generation=publication.generation,
        status=status,
        n_samples=len(totals),
        n_genes=len(genes.gene_id),
        n_not_selected=sum(len(file.head.sample_id) - len(file.rows) for file in files),
        n_symbols_repeated=int(_is_repeated(genes.gene_symbol).sum()),
        n_samples_empty=int((totals == 0).sum()),
        projected_peak_bytes=projected,
        observed_peak_bytes=observed,
    )
