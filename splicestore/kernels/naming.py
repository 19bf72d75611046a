"""Names as people expect them: their order, and which contig one means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_PREFIX = re.compile(r"(?i)^chr")
_ENSEMBL_VERSION = re.compile(r"(?P<id>ENS\w*?\d+)\.(?P<version>\d+)(?P<copy>_PAR_Y)?")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``Brain_2`` comes before ``Brain_10``.

    Examples
    --------
    >>> sorted(["Brain_10", "Brain_2", "Ape_1"], key=natural_key)
    ['Ape_1', 'Brain_2', 'Brain_10']
    """
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name) if p)


def split_version(gene_id: str) -> tuple[str, int]:
    """Part an Ensembl id from its version, 0 where it has none; other ids may end in a number that is part of them.

    GENCODE's ``_PAR_Y`` stays: the copy of a gene on Y is another gene than the one on X.

    Examples
    --------
    >>> split_version("ENSG00000141510.17"), split_version("ENSG00000182378.15_PAR_Y"), split_version("AT1G01010.1")
    (('ENSG00000141510', 17), ('ENSG00000182378_PAR_Y', 15), ('AT1G01010.1', 0))
    """
    found = _ENSEMBL_VERSION.fullmatch(gene_id)
    return (found["id"] + (found["copy"] or ""), int(found["version"])) if found else (gene_id, 0)


class ContigMatcher:
    """Finds the contigs that a name may mean: exactly or by alias, or else with a ``chr`` prefix more or less.

    Parameters
    ----------
    contig_names
        Contigs of a genome; built once, a name is looked up in constant time (assemblies have 10^5 contigs).
    aliases
        Other spellings: alias to contig. A contig's own name goes before an alias of another.

    Examples
    --------
    >>> ContigMatcher(["1", "2", "X"]).rows_of("chr2"), ContigMatcher(["1", "chr1"]).rows_of("CHR1")
    ([1], [0, 1])
    >>> ContigMatcher(["chrM", "chr1"], {"MT": "chrM"}).rows_of("MT"), ContigMatcher(["X"]).rows_of("7")
    ([0], [])
    """

    def __init__(self, contig_names: Sequence[str], aliases: Mapping[str, str] | None = None) -> None:
        self._exact = {name: row for row, name in enumerate(contig_names)}
        for alias, name in (aliases or {}).items():
            self._exact.setdefault(alias, self._exact[name])
        self._bare: dict[str, list[int]] = {}
        for row, name in enumerate(contig_names):
            self._bare.setdefault(_PREFIX.sub("", name), []).append(row)

    def rows_of(self, name: str) -> list[int]:
        """Rows of the contigs: none, the one, or several that only the prefix tells apart."""
        if name in self._exact:
            return [self._exact[name]]
        return list(self._bare.get(_PREFIX.sub("", name), ()))
