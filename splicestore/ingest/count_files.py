"""Files of counts as one matrix will hold them: which samples are taken, and how the genes of all files line up."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.ingest.sample_selection import SampleSelection, select_samples
from splicestore.kernels.naming import split_version
from splicestore.readers.counts import CountsHead, CountsSource, open_counts, refuse_repeated
from splicestore.schema import InputDigest, LedgerRow
from splicestore.storage import digest_input

GenesDiffer = Literal["error", "union"]
_PAR_Y = "_PAR_Y"
_MAX_OPEN = 2


@dataclass(frozen=True, slots=True)
class ExpressionOptions:
    """How files of counts are put together."""

    selection: SampleSelection = field(default_factory=SampleSelection)
    genes_differ: GenesDiffer = "error"
    """What to do where files have other genes: refuse, or take all genes, missing ones of a file marked as not measured."""
    layer: str = "X"
    """Of h5ad files."""
    release_of: str | None = None
    """Name of a matrix in the store that this is a newer release of: how they differ is stored."""
    scheduler: str = "sync"
    max_memory: int | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None
    force: bool = False
    steal: bool = False


@dataclass(frozen=True, slots=True)
class GeneRows:
    """The genes of a matrix."""

    gene_id: tuple[str, ...]
    """Without the version that Ensembl appends, unless it alone tells two genes of a file apart."""
    version: NDArray[np.uint16]
    """(gene,) that version in the first file that has the gene, 0 where there is none."""
    symbol: tuple[str, ...]
    biotype: tuple[str, ...]
    ledger: tuple[LedgerRow, ...]

    def __len__(self) -> int:
        return len(self.gene_id)

    def symbol_is_repeated(self) -> NDArray[np.bool_]:
        """(gene,) whether another gene has its symbol."""
        return _stands_again(self.symbol)

    def id_is_repeated(self) -> NDArray[np.bool_]:
        """(gene,) whether another gene has its id, or has it but for a version or the mark of a copy on Y."""
        return _stands_again([split_version(name)[0].removesuffix(_PAR_Y) for name in self.gene_id])


@dataclass(frozen=True, slots=True)
class CountFile:
    """One file: the samples taken of it, and where its genes lie in the matrix."""

    url: str
    digest: InputDigest
    head: CountsHead
    rows: NDArray[np.int64]
    """(n,) samples of the file, ascending."""
    gene_of: NDArray[np.int64] | None
    """(gene of the matrix,) its gene in the file, -1 where the file lacks it; None: the same genes in the same order."""
    gene_step: int
    n_bytes: int
    """In memory, where the file is read whole."""

    @property
    def sample_ids(self) -> list[str]:
        """Of the samples that are taken."""
        return [self.head.sample_id[row] for row in self.rows.tolist()]


def read_heads(urls: Sequence[str], options: ExpressionOptions) -> tuple[list[CountFile], GeneRows]:
    """Read what files say besides their counts, choose samples, and line their genes up.

    Raises
    ------
    InputError
        For a sample that stands twice, no sample, genes that differ between files (unless ``union``).
    """
    named = list[_NamedFile]()
    for url in urls:
        named.append(_read_head(url, options, named[0] if named else None))
    genes = _join_genes(named, options.genes_differ)
    files = [_count_file(each, genes, options) for each in named]
    _refuse_shared_samples(files)
    return files, genes


def reads_all_genes(files: Sequence[CountFile]) -> bool:
    """Whether samples are read with all their genes at once: where genes differ, and where tables would be parsed for every slab."""
    is_parsed_again = len(files) > _MAX_OPEN and any(file.n_bytes for file in files)
    return is_parsed_again or any(file.gene_of is not None for file in files)


def open_count_file(url: str, digest: InputDigest, options: ExpressionOptions) -> CountsSource:
    """Open a file; the last two stay open between the slabs and partitions that a process reads, so that a table is parsed once."""
    return _opened(url, digest.sha256, options.layer, tuple(sorted(options.storage_options.items())))


def close_count_files() -> None:
    """Let go of the files that are open."""
    _opened.cache_clear()


@functools.lru_cache(maxsize=_MAX_OPEN)
def _opened(url: str, sha256: str, layer: str, storage_options: tuple[tuple[str, Any], ...]) -> CountsSource:
    # By content, so that a worker that lives on does not serve a file that has changed since.
    return open_counts(url, layer=layer, storage_options=dict(storage_options))


# -- genes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _NamedFile:
    """A file and the stable ids of its genes."""

    url: str
    digest: InputDigest
    head: CountsHead
    gene_step: int
    is_table: bool
    gene_id: tuple[str, ...]
    version: tuple[int, ...]
    kept_versions: tuple[LedgerRow, ...]


def _read_head(url: str, options: ExpressionOptions, first: _NamedFile | None) -> _NamedFile:
    digest = digest_input(url, "counts", storage_options=dict(options.storage_options))
    source = open_count_file(url, digest, options)
    head, is_table = source.head, type(source).__name__ == "CountTable"
    if first is not None and head.gene_id == first.head.gene_id:
        # A thousand files of one sample would hold 60,000 ids each.
        head = replace(head, gene_id=first.head.gene_id)
        return _NamedFile(
            url, digest, head, source.gene_step, is_table, first.gene_id, first.version, first.kept_versions
        )
    return _NamedFile(url, digest, head, source.gene_step, is_table, *_stable_ids(head.gene_id))


def _stable_ids(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...], tuple[LedgerRow, ...]]:
    """Take versions off, but where that would make one id of two: (ids, versions, what kept its version)."""
    bare = [split_version(name) for name in names]
    n_bare, n_spelled = Counter(name for name, _ in bare), Counter(names)
    ids, versions, kept = list[str](), list[int](), list[LedgerRow]()
    for spelled, (name, version) in zip(names, bare, strict=True):
        if n_bare[name] > n_spelled[spelled]:
            kept.append(
                LedgerRow("gene", spelled, "version_kept", f"{name} stands in several versions; none is merged")
            )
            name, version = spelled, 0
        ids.append(name)
        versions.append(version)
    return tuple(ids), tuple(versions), tuple(kept)


def _join_genes(files: Sequence[_NamedFile], differ: GenesDiffer) -> GeneRows:
    """Line the genes of all files up; versions, symbols and biotypes are those of the first file that has the gene."""
    first, ids = files[0], files[0].gene_id
    if any(each.gene_id != first.gene_id for each in files):
        for each in files:
            refuse_repeated(each.url, "gene", each.gene_id)
        if differ == "error":
            _refuse_other_genes(files)
        _refuse_no_common_gene(files)
        ids = tuple(dict.fromkeys(gene for each in files for gene in each.gene_id))
    elif len(files) == 1 or len(set(ids)) < len(ids):
        return _gene_rows(ids, first.version, first.head.gene_symbol, first.head.gene_biotype, files)
    version, symbol, biotype = dict[str, int](), dict[str, str](), dict[str, str]()
    for each in files:
        for gene, v, s, b in zip(
            each.gene_id, each.version, each.head.gene_symbol, each.head.gene_biotype, strict=True
        ):
            version.setdefault(gene, v)
            symbol[gene], biotype[gene] = symbol.get(gene) or s, biotype.get(gene) or b
    return _gene_rows(ids, [version[g] for g in ids], [symbol[g] for g in ids], [biotype[g] for g in ids], files)


def _gene_rows(
    ids: Sequence[str],
    version: Sequence[int],
    symbol: Sequence[str],
    biotype: Sequence[str],
    files: Sequence[_NamedFile],
) -> GeneRows:
    of = dict(zip(ids, version, strict=True))
    ledger = list(dict.fromkeys(row for each in files for row in each.kept_versions))
    for each in files[1:]:
        other = sum(v != of[gene] for gene, v in zip(each.gene_id, each.version, strict=True))
        if other:
            what = f"genes in other versions than in files before it, as {files[0].url}; taken for the same genes"
            ledger.append(LedgerRow("gene", each.url, "other_versions", what, other))
    return GeneRows(tuple(ids), np.array(version, dtype=np.uint16), tuple(symbol), tuple(biotype), tuple(ledger))


def _refuse_other_genes(files: Sequence[_NamedFile]) -> None:
    first = files[0]
    other = next(each for each in files if each.gene_id != first.gene_id)
    lacks, more = set(first.gene_id) - set(other.gene_id), set(other.gene_id) - set(first.gene_id)
    what = (
        f"lacks {len(lacks):,} genes of it and has {len(more):,} others (first: {', '.join(sorted(lacks | more)[:3])})"
        if lacks or more
        else "has them in another order"
    )
    raise InputError(
        f"{other.url}: other genes than {first.url}: {what}; --genes-differ union takes all, and marks what a file lacks as not measured"
    )


def _refuse_no_common_gene(files: Sequence[_NamedFile]) -> None:
    known = set(files[0].gene_id)
    for each in files[1:]:
        if known.isdisjoint(each.gene_id):
            raise InputError(
                f"{each.url}: has none of the genes of {files[0].url} or others before it ({each.gene_id[0]} here, {files[0].gene_id[0]} "
                "there): other ids, or another species? Spell the ids alike, or make two matrices"
            )
        known |= set(each.gene_id)


def _stands_again(names: Sequence[str]) -> NDArray[np.bool_]:
    times = Counter(names)
    return np.array([bool(name) and times[name] > 1 for name in names], dtype=bool)


# -- samples -------------------------------------------------------------------------------------------------------


def _count_file(named: _NamedFile, genes: GeneRows, options: ExpressionOptions) -> CountFile:
    gene_of = None
    if named.gene_id != genes.gene_id:
        place = {gene: row for row, gene in enumerate(named.gene_id)}
        gene_of = np.array([place.get(gene, -1) for gene in genes.gene_id], dtype=np.int64)
    head = named.head
    rows = select_samples(named.url, head.sample_id, head.sample_columns, options.selection)
    n_bytes = 4 * len(head.sample_id) * len(head.gene_id) if named.is_table else 0
    return CountFile(named.url, named.digest, head, rows, gene_of, named.gene_step, n_bytes)


def _refuse_shared_samples(files: Sequence[CountFile]) -> None:
    found: dict[str, CountFile] = {}
    for file in files:
        for sample in file.sample_ids:
            if sample in found:
                raise InputError(
                    f"{file.url}: sample {sample!r} is in {found[sample].url} too; ids must be unique, or their expression would count "
                    "twice: leave one file out, or choose samples with --where"
                )
        found |= dict.fromkeys(file.sample_ids, file)
