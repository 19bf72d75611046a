"""Homology tables of nine layouts, as mentions: a gene id, of a genome as the table calls it, in a group."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import InputError, close_names
from splicestore.storage.inputs import input_text_lines, open_input

NO_LABEL = -1
"""Code of a mention whose genome the table does not name."""

GROUP_COLUMNS = ("ortholog_group", "orthogroup", "group_id")
GENOME_COLUMNS = ("genome_id", "genome", "species")
GENE_COLUMN = "gene_id"
COMPARA_COLUMNS = (("gene_stable_id", "species"), ("homology_gene_stable_id", "homology_species"))
ORTHOFINDER_NAMES = ("hog", "orthogroup", "og", "")
"""Columns that may name a group, best first; v1 left the header of the first column empty."""
EGGNOG_COLUMNS = ("eggnog_ogs", "eggnog ogs")

_SNIFF_BYTES = 262_144
_CHUNK_ROWS = 500_000
_ABSENT = {"", "NULL", "\\N"}
_BASE_COLUMN = re.compile(r"(ensembl )?gene (stable )?id( version)?|ensembl_gene_id(_version)?", re.IGNORECASE)
_SPECIES_COLUMN = re.compile(
    r"(?P<long>.+?)(?: paralogue)? (?:ensembl )?gene (?:stable )?id|(?P<short>.+?)_(?:homolog|paralog)_ensembl_gene",
    re.IGNORECASE,
)
_CLADE_COLUMN = "gene tree parent clade"
_AUGUSTUS_GENOME = re.compile(r"#\s*(\d+)\s+(\S+)")
_AUGUSTUS_MEMBER = re.compile(r"\((\d+),([^()\s]+)\)")
_ORTHODB_GENE = re.compile(r"\d+(?:_\d+)?:[0-9a-z]+", re.IGNORECASE)
_OG_LIST = re.compile(r"[^\s@,]+@[^,]+(?:,[^\s@,]+@[^,]+)*,?")


@dataclass(frozen=True, slots=True)
class Mentions:
    """Rows of a table, coded; the arrays have one element for each gene of each group, (n,)."""

    group: NDArray[np.int64]
    """Codes of groups, in order of appearance."""
    label: NDArray[np.int32]
    """Index into ``labels``, or ``NO_LABEL``."""
    gene: NDArray[np.int64]
    """Index into ``gene_ids``."""
    line: NDArray[np.int64]
    """1-based line of the file."""
    labels: list[str]
    """Genomes as the table calls them."""
    gene_ids: list[str]
    group_names: list[str] | None = None
    """None: groups are called by their line."""
    are_edges: bool = False
    """Groups are pairs or stars, so a gene is expected in several."""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other names of gene ids that no annotation knows."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first lines of a table, without blank lines and comments that are no header."""

    lines: list[tuple[int, str]]
    """(1-based line number, text) of data lines; the first may be a header."""
    comments: list[str]
    separator: str

    @property
    def fields(self) -> list[str]:
        """Fields of the first line, without blanks around them."""
        return self.split(self.lines[0][1].lstrip("\ufeff#")) if self.lines else []

    @property
    def names(self) -> list[str]:
        """Fields of the first line in lower case."""
        return [name.lower() for name in self.fields]

    def split(self, line: str) -> list[str]:
        """Split a line into its fields."""
        if self.separator == "\t":
            return [text.strip() for text in line.split("\t")]
        return [text.strip() for text in next(csv.reader([line]), [])]


@dataclass(frozen=True, slots=True)
class Source:
    """A table and how the caller wants it read."""

    url: str
    head: Head
    column_genomes: Mapping[str, str]
    level: str | None = None
    genes_table: str | None = None
    storage_options: Mapping[str, Any] | None = None

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield all lines with their numbers."""
        return input_text_lines(self.url, storage_options=self.storage_options)

    def data_lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the fields of the lines that are neither blank nor comments, the first line of the head included."""
        first = self.head.lines[0][0] if self.head.lines else 0
        for number, line in self.lines():
            if number == first or (line.strip() and not line.startswith("#")):
                yield number, self.head.split(line.removeprefix("\ufeff"))


def read_head(url: str, storage_options: Mapping[str, Any] | None) -> Head:
    """Read the first lines of a table."""
    with open_input(url, storage_options=storage_options) as stream:
        data = stream.read(_SNIFF_BYTES)
    texts = data.decode("utf-8", errors="replace").splitlines()
    if len(data) == _SNIFF_BYTES and len(texts) > 1:
        texts.pop()
    lines: list[tuple[int, str]] = []
    comments: list[str] = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        if text.startswith("#") and not (not lines and _is_header(text)):
            comments.append(text)
        else:
            lines.append((number, text))
    separator = "," if lines and "\t" not in lines[0][1] and "," in lines[0][1] else "\t"
    return Head(lines, comments, separator)


def _is_header(comment: str) -> bool:
    names = {name.strip().lower() for name in re.split(r"[\t,]", comment.lstrip("#"))}
    return (
        bool(names & {*EGGNOG_COLUMNS, GENE_COLUMN, "gene_stable_id"})
        and not comment.startswith("##")
        and len(names) > 1
    )


def detect_layout(
    url: str, head: Head, names_genome: Callable[[str], bool], share_known: Callable[[list[str]], float]
) -> str:
    """Tell the layout from header or shape: one of ``LAYOUTS``.

    Parameters
    ----------
    names_genome
        Whether a column name means a genome.
    share_known
        Share of ids that are genes, in [0, 1]; a table without header is believed to be one of groups only
        where that is above a half.
    """
    if any(_AUGUSTUS_GENOME.match(line) for line in head.comments) and _all_match(head, _AUGUSTUS_MEMBER):
        return "augustus"
    if not head.lines:
        raise InputError(f"{url}: no data lines; a homology table was expected")
    layout = _layout_of_header(head, names_genome) or _layout_of_shape(head)
    if layout is not None:
        return layout
    if share_known([text for _, line in head.lines[:50] for text in head.split(line) if text]) > 0.5:
        return "groups"
    number, line = head.lines[0]
    raise InputError(
        f"{url}: line {number} ({line[:80]!r}) is no known header of a homology table, and most fields of the first "
        f"lines are no known genes; declare format, one of {', '.join(LAYOUTS)}"
    )


def _layout_of_header(head: Head, names_genome: Callable[[str], bool]) -> str | None:
    names = set(head.names)
    if {"gene_stable_id", "homology_gene_stable_id"} <= names:
        return "compara"
    if sum((bool(names & set(GROUP_COLUMNS)), bool(names & set(GENOME_COLUMNS)), GENE_COLUMN in names)) >= 2:
        return "long"
    if names & set(EGGNOG_COLUMNS):
        return "eggnog"
    if any(_BASE_COLUMN.fullmatch(n) for n in names) and any(_SPECIES_COLUMN.fullmatch(n) for n in names):
        return "biomart"
    if len(head.fields) == 2 and any(names_genome(name) for name in head.fields):
        return "pairs"
    if len(head.fields) > 1 and head.names[0] in ORTHOFINDER_NAMES:
        return "orthofinder"
    return None


def _layout_of_shape(head: Head) -> str | None:
    rows = [head.split(line) for _, line in head.lines[:50]]
    if all(len(row) == 2 and _ORTHODB_GENE.fullmatch(row[1]) for row in rows):
        return "orthodb"
    if all(len(row) == 2 and (row[1] in {"", "-"} or _OG_LIST.fullmatch(row[1])) for row in rows):
        return "eggnog"
    return None


def _all_match(head: Head, pattern: re.Pattern[str]) -> bool:
    return all(pattern.match(line.strip()) for _, line in head.lines[:50])


# -- columns of large tables -----------------------------------------------------------------------------------


class _Coder:
    """Distinct texts in order of appearance, and arrays of their codes."""

    def __init__(self) -> None:
        self._code: dict[str, int] = {}

    @property
    def texts(self) -> list[str]:
        return list(self._code)

    def code(self, text: str) -> int:
        return self._code.setdefault(text, len(self._code))

    def codes(self, values: pd.Series[Any]) -> NDArray[np.int64]:
        """Code a column; blanks around texts do not count."""
        local, texts = pd.factorize(values)
        code = self._code
        table = [code.setdefault(text.strip(), len(code)) for text in texts.tolist()]
        return np.array(table or [0], dtype=np.int64)[local]

    def where(self, wanted: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Which texts are wanted: (n_texts,) bool."""
        return np.fromiter(map(wanted, self._code), np.bool_, len(self._code))


def _read_columns(
    source: Source, columns: Sequence[int], *, has_header: bool = True
) -> Iterator[tuple[NDArray[np.int64], list[pd.Series[Any]]]]:
    """Yield line numbers and the text of some columns, in chunks; blank lines are left out."""
    head = source.head
    skipped = head.lines[0][0] - (0 if has_header else 1) if head.lines else 0
    width = max(len(head.fields), max(columns) + 1)
    try:
        with open_input(source.url, storage_options=source.storage_options) as stream:
            reader = pd.read_csv(
                stream,
                sep=head.separator,
                header=None,
                names=list(range(width)),
                index_col=False,
                usecols=list(columns),
                dtype=object,
                na_filter=False,
                quoting=csv.QUOTE_NONE if head.separator == "\t" else csv.QUOTE_MINIMAL,
                skip_blank_lines=False,
                skiprows=skipped,
                chunksize=_CHUNK_ROWS,
                engine="c",
                encoding="utf-8",
            )
            for chunk in reader:
                line = chunk.index.to_numpy(dtype=np.int64) + skipped + 1
                texts = [chunk[column] for column in columns]
                filled = np.logical_or.reduce([(text != "").to_numpy() for text in texts])
                yield line[filled], [text[filled] for text in texts]
    except UnicodeDecodeError as error:
        for _ in source.lines():  # finds the line
            pass
        raise InputError(f"{source.url}: not UTF-8 text ({error})") from error
    except pd.errors.EmptyDataError:
        return
    except pd.errors.ParserError as error:
        raise InputError(f"{source.url}: cannot be read as a table: {error}; check separators and quotes") from error


def _column(source: Source, choices: Sequence[str]) -> int:
    names = source.head.names
    for name in choices:
        if name in names:
            return names.index(name)
    number = source.head.lines[0][0]
    raise InputError(
        f"{source.url}: line {number}: no column {' or '.join(choices)}; the header has "
        f"{', '.join(source.head.fields[:12])}. {_rename_hint(choices, names)}"
    )


def _rename_hint(choices: Sequence[str], names: Sequence[str]) -> str:
    return f"Rename the column, or declare another format ({close_names(choices[0], names)})"


def _refuse_empty(url: str, name: str, line: NDArray[np.int64], empty: NDArray[np.bool_]) -> None:
    wrong = np.flatnonzero(empty)
    if len(wrong):
        raise InputError(
            f"{url}: line {int(line[wrong[0]])}: {name} is empty ({len(wrong)} such lines); "
            "every row needs a group, a genome and a gene"
        )


def read_long(source: Source) -> Mentions:
    """Read group, genome, gene: one row per gene."""
    names = (GROUP_COLUMNS, GENOME_COLUMNS, (GENE_COLUMN,))
    columns = [_column(source, choices) for choices in names]
    coders = (_Coder(), _Coder(), _Coder())
    parts: list[list[NDArray[np.int64]]] = []
    for line, texts in _read_columns(source, columns):
        codes = [coder.codes(text) for coder, text in zip(coders, texts, strict=True)]
        for coder, code, column in zip(coders, codes, columns, strict=True):
            _refuse_empty(source.url, source.head.fields[column], line, coder.where(lambda text: text == "")[code])
        parts.append([*codes, line])
    group, label, gene, line = _concatenated(parts, 4)
    return Mentions(
        group=group,
        label=label.astype(np.int32),
        gene=gene,
        line=line,
        labels=coders[1].texts,
        gene_ids=coders[2].texts,
        group_names=coders[0].texts,
    )


def read_compara(source: Source) -> Mentions:
    """Read Ensembl Compara's dump: a row is an edge of two genes, columns go by name."""
    columns = [_column(source, (name,)) for pair in COMPARA_COLUMNS for name in pair]
    genes, labels = _Coder(), _Coder()
    parts: list[list[NDArray[np.int64]]] = []
    for line, (gene, label, other_gene, other_label) in _read_columns(source, columns):
        for id_texts, label_texts in ((gene, label), (other_gene, other_label)):
            id_codes, label_codes = genes.codes(id_texts), labels.codes(label_texts)
            is_named = ~genes.where(_ABSENT.__contains__)[id_codes]
            nameless = labels.where(_ABSENT.__contains__)[label_codes] & is_named
            _refuse_empty(source.url, "the species of a gene", line, nameless)
            parts.append([line[is_named], label_codes[is_named], id_codes[is_named]])
    line, label_code, gene_code = _concatenated(parts, 3)
    return Mentions(
        group=line,
        label=label_code.astype(np.int32),
        gene=gene_code,
        line=line,
        labels=labels.texts,
        gene_ids=genes.texts,
        are_edges=True,
    )


def read_biomart(source: Source) -> Mentions:
    """Read a BioMart export: a gene and, per species, one homolog of it; a group is named by its first column's gene.

    The gene's own column names no species: name its genome in ``column_genomes`` under the column's header,
    or its ids are searched in all genomes.
    """
    base, species = _biomart_columns(source)
    genes, groups, labels = _Coder(), _Coder(), _Coder()
    own = source.head.fields[base]
    own_label = labels.code(own) if own in source.column_genomes else NO_LABEL
    codes = [own_label, *(labels.code(label) for _, label in species)]
    parts: list[list[NDArray[np.int64]]] = []
    for line, texts in _read_columns(source, [base, *(column for column, _ in species)]):
        group = groups.codes(texts[0])
        in_group = ~groups.where(_ABSENT.__contains__)[group]
        for text, label in zip(texts, codes, strict=True):
            gene = genes.codes(text)
            kept = in_group & ~genes.where(_ABSENT.__contains__)[gene]
            parts.append([group[kept], np.full(int(kept.sum()), label), gene[kept], line[kept]])
    group, label_code, gene, line = _concatenated(parts, 4)
    return Mentions(
        group=group,
        label=label_code.astype(np.int32),
        gene=gene,
        line=line,
        labels=labels.texts,
        gene_ids=genes.texts,
        group_names=groups.texts,
        are_edges=True,
    )


def _biomart_columns(source: Source) -> tuple[int, list[tuple[int, str]]]:
    """The column of the gene itself, and column and label of each species."""
    fields = source.head.fields
    own = [i for i, name in enumerate(fields) if _BASE_COLUMN.fullmatch(name)]
    matches = [(i, _SPECIES_COLUMN.fullmatch(name)) for i, name in enumerate(fields) if i not in own]
    species = [
        (i, fields[i] if fields[i] in source.column_genomes else str(match["long"] or match["short"]))
        for i, match in matches
        if match
    ]
    if not own or not species:
        raise InputError(
            f"{source.url}: line {source.head.lines[0][0]}: a BioMart export needs the column 'Gene stable ID' and a "
            f"column '<Species> gene stable ID'; the header has {', '.join(fields[:12])}. Export these attributes too"
        )
    return own[0], species


def _concatenated(parts: Sequence[Sequence[NDArray[np.int64]]], width: int) -> list[NDArray[np.int64]]:
    empty = np.zeros(0, dtype=np.int64)
    return [np.concatenate([np.asarray(part[i], np.int64) for part in parts] or [empty]) for i in range(width)]


# -- tables with a group per line ------------------------------------------------------------------------------


class _Collector:
    """Mentions gathered line by line."""

    def __init__(self) -> None:
        self.groups, self.labels, self.genes = _Coder(), _Coder(), _Coder()
        self._rows: list[tuple[int, int, int, int]] = []

    def add(self, group: str, label: str | None, gene_ids: Sequence[str], line: int) -> None:
        """Add genes of one genome to a group."""
        group_code = self.groups.code(group)
        label_code = NO_LABEL if label is None else self.labels.code(label)
        self._rows += [(group_code, label_code, self.genes.code(gene_id), line) for gene_id in gene_ids]

    def mentions(self, *, are_edges: bool = False, aliases: Mapping[str, tuple[str, ...]] | None = None) -> Mentions:
        table = np.array(self._rows, dtype=np.int64).reshape(-1, 4)
        return Mentions(
            group=table[:, 0],
            label=table[:, 1].astype(np.int32),
            gene=table[:, 2],
            line=table[:, 3],
            labels=self.labels.texts,
            gene_ids=self.genes.texts,
            group_names=self.groups.texts,
            are_edges=are_edges,
            aliases=aliases or {},
        )


def read_groups(source: Source) -> Mentions:
    """Read a table without header: the tab-separated gene ids of one group per line, of any genome."""
    rows = _Collector()
    is_pairs = True
    for number, fields in source.data_lines():
        gene_ids = [text for text in fields if text]
        is_pairs &= len(gene_ids) == 2
        rows.add(f"line {number}", None, gene_ids, number)
    return rows.mentions(are_edges=is_pairs)


def read_pairs(source: Source) -> Mentions:
    """Read columns named by genomes with one gene each: a row is an edge."""
    rows = _Collector()
    for number, fields in _wide_rows(source):
        for label, gene_id in zip(source.head.fields, fields, strict=False):
            if gene_id not in _ABSENT:
                rows.add(f"line {number}", label, [gene_id], number)
    return rows.mentions(are_edges=True)


def read_orthofinder(source: Source) -> Mentions:
    """Read OrthoFinder's Orthogroups.tsv or N0.tsv: a column per proteome, its genes joined by commas.

    Groups go by HOG where there is one, by Orthogroup else.
    """
    names = source.head.names
    key = next((names.index(name) for name in ORTHOFINDER_NAMES if name in names), 0)
    others = {i for i, name in enumerate(names) if name in (*ORTHOFINDER_NAMES, _CLADE_COLUMN)} | {key}
    species = [(i, label) for i, label in enumerate(source.head.fields) if i not in others]
    rows = _Collector()
    for number, fields in _wide_rows(source):
        if len(fields) <= key or not fields[key]:
            raise InputError(f"{source.url}: line {number}: no group in column {source.head.fields[key]!r}")
        for i, label in species:
            if i < len(fields) and fields[i]:
                members = [gene_id for text in fields[i].split(",") if (gene_id := text.strip())]
                rows.add(fields[key], label, members, number)
    return rows.mentions()


def _wide_rows(source: Source) -> Iterator[tuple[int, list[str]]]:
    """Rows below the header, none wider than it."""
    width = len(source.head.fields)
    rows = source.data_lines()
    next(rows, None)
    for number, fields in rows:
        if len(fields) > width:
            raise InputError(
                f"{source.url}: line {number} has {len(fields)} columns, the header has {width} "
                f"(the last is {fields[-1][:40]!r}); correct the line"
            )
        yield number, fields


def read_augustus(source: Source) -> Mentions:
    """Read homologs.txt of homGeneMapping: ``# index<TAB>genome`` lines, then ``(index,transcript) ...`` per group."""
    genomes: dict[str, str] = {}
    rows = _Collector()
    for number, line in source.lines():
        if genome := _AUGUSTUS_GENOME.fullmatch(line.strip()):
            genomes[genome[1]] = genome[2]
        elif line.strip() and not line.startswith("#"):
            members = _AUGUSTUS_MEMBER.findall(line)
            if _AUGUSTUS_MEMBER.sub("", line).strip() or not members:
                raise InputError(
                    f"{source.url}: line {number}: {line[:80]!r} is no list of (genome index,transcript); correct it"
                )
            for index, transcript in members:
                if index not in genomes:
                    raise InputError(
                        f"{source.url}: line {number}: genome index {index} has no '# {index}<TAB>genome' line above; "
                        f"{close_names(index, genomes)}"
                    )
                rows.add(f"line {number}", genomes[index], [transcript], number)
    return rows.mentions()


# -- nested groups ---------------------------------------------------------------------------------------------


def read_eggnog(source: Source) -> Mentions:
    """Read emapper annotations, or two columns query and OG list, at one taxonomic level.

    A file describes one proteome: concatenate the files of all genomes, their repeated headers are skipped.
    """
    names = source.head.names
    has_header = bool(set(names) & set(EGGNOG_COLUMNS))
    column = _column(source, EGGNOG_COLUMNS) if has_header else 1
    rows = _Collector()
    levels: Counter[str] = Counter()
    lines = source.data_lines()
    if has_header:
        next(lines, None)
    for number, fields in lines:
        if len(fields) <= column:
            raise InputError(f"{source.url}: line {number}: {len(fields)} columns, the OG list is column {column + 1}")
        for item in fields[column].split(","):
            og, _, level = item.strip().partition("@")
            if og in {"", "-"}:
                continue
            levels[level] += 1
            if source.level is None or source.level.lower() in level.lower().split("|"):
                rows.add(f"{og}@{level}", None, [fields[0]], number)
    _check_level(source, list(dict(levels.most_common())), [level.lower().split("|") for level in levels])
    return rows.mentions()


def read_orthodb(source: Source) -> Mentions:
    """Read OG2genes.tab: OG and gene (``organism:number``), no header, at one taxonomic level.

    Organisms are looked up as 9606_0 and, where ``column_genomes`` says so, as 9606.
    """
    groups, genes = _Coder(), _Coder()
    levels: Counter[str] = Counter()
    parts: list[list[NDArray[np.int64]]] = []
    for line, (og, gene_id) in _read_columns(source, [0, 1], has_header=False):
        code, known = groups.codes(og), len(groups.texts)
        level = np.array([_orthodb_level(name) for name in groups.texts], dtype=object)
        n_mentions = np.bincount(code, minlength=known)
        for name, n in zip(level.tolist(), n_mentions.tolist(), strict=True):
            levels[name] += n
        kept = np.ones(known, dtype=bool) if source.level is None else level == source.level
        kept_rows = kept[code]
        gene_codes = genes.codes(gene_id[kept_rows])
        malformed = ~genes.where(lambda text: _ORTHODB_GENE.fullmatch(text) is not None)[gene_codes]
        if malformed.any():
            first = int(np.flatnonzero(malformed)[0])
            raise InputError(
                f"{source.url}: line {int(line[kept_rows][first])}: {genes.texts[gene_codes[first]]!r} is no OrthoDB "
                "gene such as 9606_0:001c7b; correct the line or declare another format"
            )
        parts.append([code[kept_rows], gene_codes, line[kept_rows]])
    _check_level(source, [name for name, _ in levels.most_common()], [[name] for name in levels])
    group, gene, line = _concatenated(parts, 3)
    labels = _Coder()
    label_of_gene = [labels.code(_organism(gene_id, source.column_genomes)) for gene_id in genes.texts]
    return Mentions(
        group=group,
        label=np.array(label_of_gene or [0], dtype=np.int32)[gene],
        gene=gene,
        line=line,
        labels=labels.texts,
        gene_ids=genes.texts,
        group_names=groups.texts,
        aliases=_orthodb_aliases(source, set(genes.texts)),
    )


def _orthodb_level(og: str) -> str:
    return og.rpartition("at")[2] if "at" in og else ""


def _organism(gene_id: str, column_genomes: Mapping[str, str]) -> str:
    organism = gene_id.partition(":")[0]
    taxon = organism.partition("_")[0]
    return taxon if taxon in column_genomes and organism not in column_genomes else organism


def _orthodb_aliases(source: Source, wanted: set[str]) -> dict[str, tuple[str, ...]]:
    """Names of the wanted genes in OrthoDB's genes table, Ensembl's first."""
    if source.genes_table is None:
        return {}
    head = read_head(source.genes_table, source.storage_options)
    table = Source(source.genes_table, head, {}, storage_options=source.storage_options)
    # Ensembl ids, original id, synonyms, NCBI and UniProt ids; older releases have fewer columns.
    columns = [column for column in (5, 2, 3, 6, 4) if column < len(head.fields)]
    aliases: dict[str, tuple[str, ...]] = {}
    for _, (gene_id, *others) in _read_columns(table, [0, *columns], has_header=False):
        kept = gene_id.isin(wanted).to_numpy()
        for key, *texts in zip(gene_id[kept], *(text[kept] for text in others), strict=True):
            names = (name.strip() for text in texts for name in str(text).split(";"))
            aliases[str(key)] = tuple(dict.fromkeys(name for name in names if name not in _ABSENT))
    if wanted and not aliases:
        raise InputError(
            f"{source.genes_table}: none of the genes of {source.url} is in its first column, for example "
            f"{min(wanted)!r}; give the genes table of the same OrthoDB release"
        )
    return aliases


def _check_level(source: Source, levels: Sequence[str], spellings: Sequence[Sequence[str]]) -> None:
    """Groups of several levels are nested: the outermost would join everything."""
    shown = ", ".join(levels[:12]) + (f" and {len(levels) - 12} more" if len(levels) > 12 else "")
    if source.level is None and len(levels) > 1:
        raise InputError(f"{source.url}: groups of {len(levels)} taxonomic levels ({shown}); choose one with level")
    if source.level is not None and not any(source.level.lower() in spelling for spelling in spellings):
        raise InputError(f"{source.url}: no group of level {source.level!r}; the file has {shown or 'no groups'}")


LAYOUTS: Mapping[str, Callable[[Source], Mentions]] = {
    "long": read_long,
    "groups": read_groups,
    "compara": read_compara,
    "biomart": read_biomart,
    "orthofinder": read_orthofinder,
    "orthodb": read_orthodb,
    "eggnog": read_eggnog,
    "augustus": read_augustus,
    "pairs": read_pairs,
}
NESTED = ("orthodb", "eggnog")
"""Layouts whose groups have levels."""
