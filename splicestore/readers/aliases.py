"""Contig aliases: what a table says is the same contig, and which contig of the FASTA a name means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from splicestore.errors import InputError
from splicestore.storage.inputs import input_text_lines

_ABSENT = {"", ".", "-", "na", "n/a"}
_CONTIG_COLUMNS = ("contig", "chrom", "chr", "sequencename")
_ALIAS_COLUMNS = ("alias", "synonym", "name")
_MITOCHONDRIA = ("MT", "M", "chrM", "chrMT")


def read_aliases(url: str, *, storage_options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Read a table of contig names that mean the same contig.

    Accepted are: two columns ``alias<TAB>contig`` (the header is optional and may name the columns in either
    order); the three-column chromAlias dump of UCSC (``alias, chrom, source``); and tables with one naming
    scheme per column under a header that starts with ``#`` (``# ucsc assembly genbank ncbi refseq``, also
    Ensembl's), of which every row lists the names of one contig.

    Parameters
    ----------
    url
        Tab-separated, plain or gzip.
    storage_options
        Passed to fsspec.

    Returns
    -------
    aliases
        Name to the row's own name of the contig (its contig column, else its first name). Names of one row
        share their value, so ``resolve_contigs`` can follow them in any direction.

    Raises
    ------
    InputError
        If a line has one column only, or a name is given to two contigs.
    """
    aliases: dict[str, str] = {}
    columns: tuple[int, ...] | None = None
    n_rows = 0
    for number, line in input_text_lines(url, storage_options=storage_options):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.lstrip("#").split("\t")]
        if n_rows == 0 and columns is None:
            columns = _header_columns(line, fields)
            if columns is not None:
                continue
        if line.startswith("#"):
            continue
        n_rows += 1
        if len(fields) < 2:
            raise InputError(f"{url}: line {number}: one column ({line!r}), expected alias<TAB>contig with a tab")
        _add_names(aliases, _row_names(fields, columns), f"{url}: line {number}")
    if not aliases:
        raise InputError(f"{url}: no alias in the file; expected lines of alias<TAB>contig")
    return aliases


def resolve_contigs(
    names: Iterable[str], contigs: Sequence[str], aliases: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Find the contig that each name means.

    A name is looked up as it is, then through the alias table, then with the prefix ``chr`` added or removed
    and the mitochondrial names MT, M, chrM, chrMT for one another. The last step only counts where it is
    unambiguous: it must lead to one contig, and to one that no other of the names leads to.

    Parameters
    ----------
    names
        As an annotation or usage file spells them.
    contigs
        Names in the FASTA.
    aliases
        From ``read_aliases``.

    Returns
    -------
    mapping
        Name to contig.
    unknown
        Names that mean no contig, or more than one; in the order given, each once.

    Examples
    --------
    >>> resolve_contigs(["1", "MT", "7"], ["chr1", "chrM"])
    ({'1': 'chr1', 'MT': 'chrM'}, ['7'])
    """
    asked = list(dict.fromkeys(names))
    present = set(contigs)
    mapping = {name: name for name in asked if name in present}
    mapping |= _through_aliases([name for name in asked if name not in mapping], contigs, aliases or {})
    taken = set(mapping.values())
    respelled: dict[str, str] = {}
    for name in asked:
        if name not in mapping:
            found = [other for other in _respellings(name) if other in present]
            if len(found) == 1 and found[0] not in taken:
                respelled[name] = found[0]
    claims = Counter(respelled.values())
    mapping |= {name: contig for name, contig in respelled.items() if claims[contig] == 1}
    unknown = [name for name in asked if name not in mapping]
    return {name: mapping[name] for name in asked if name in mapping}, unknown


def _through_aliases(names: Sequence[str], contigs: Sequence[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """Follow names and contigs to their common alias."""
    contig_of_alias: dict[str, list[str]] = {}
    for contig in contigs:
        contig_of_alias.setdefault(aliases.get(contig, contig), []).append(contig)
    found = {name: contig_of_alias.get(aliases[name], []) for name in names if name in aliases}
    return {name: matches[0] for name, matches in found.items() if len(matches) == 1}


def _respellings(name: str) -> list[str]:
    """Other usual spellings of a contig name."""
    if name in _MITOCHONDRIA:
        return [other for other in _MITOCHONDRIA if other != name]
    if name.lower().startswith("chr"):
        bare = name[3:]
        return [other for other in (bare, f"chr{bare}", f"Chr{bare}", f"CHR{bare}") if other and other != name]
    return [f"chr{name}", f"Chr{name}", f"CHR{name}"]


def _header_columns(line: str, fields: Sequence[str]) -> tuple[int, ...] | None:
    """Columns of names, the contig's own first, or None where the line is no header."""
    lowered = [field.lower() for field in fields]
    contig = next((lowered.index(c) for c in _CONTIG_COLUMNS if c in lowered), None)
    alias = next((lowered.index(c) for c in _ALIAS_COLUMNS if c in lowered), None)
    if contig is not None and alias is not None:
        return (contig, alias)
    if line.startswith("#") and len(fields) > 1:
        return tuple(range(len(fields)))
    return None


def _row_names(fields: Sequence[str], columns: tuple[int, ...] | None) -> list[str]:
    """Names of one row, the contig's own first."""
    if columns is None:
        columns = (1, 0)
    elif len(columns) > 2:
        # Rows of old chromAlias tables have more names than their header has columns.
        columns = tuple(range(len(fields)))
    names = [fields[column] for column in columns if column < len(fields)]
    return [name for name in dict.fromkeys(names) if name.lower() not in _ABSENT]


def _add_names(aliases: dict[str, str], names: Sequence[str], where: str) -> None:
    for name in names:
        if aliases.setdefault(name, names[0]) != names[0]:
            raise InputError(
                f"{where}: {name!r} is given to the contigs {aliases[name]!r} and {names[0]!r}; "
                "keep one of the two lines"
            )
