"""Names as people expect them: their order, and which contig one means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_PREFIX = re.compile(r"(?i)^chr")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``Brain_2`` comes before ``Brain_10``.

    Examples
    --------
    >>> sorted(["Brain_10", "Brain_2", "Ape_1"], key=natural_key)
    ['Ape_1', 'Brain_2', 'Brain_10']
    """
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name) if p)


def match_contigs(name: str, contig_names: Sequence[str], aliases: Mapping[str, str] | None = None) -> list[int]:
    """Find the contigs that a name may mean: exactly or by alias, or else with a ``chr`` prefix more or less.

    Returns
    -------
    contigs : list of int
        Rows of ``contig_names``: none, the one, or several that only the prefix tells apart.

    Examples
    --------
    >>> match_contigs("chr2", ["1", "2", "X"]), match_contigs("CHR1", ["1", "chr1"]), match_contigs("7", ["X"])
    ([1], [0, 1], [])
    """
    exact = (aliases or {}).get(name, name)
    # A contig's own name goes before an alias of another.
    for wanted in (name, exact):
        if wanted in contig_names:
            return [list(contig_names).index(wanted)]
    bare = _PREFIX.sub("", name)
    return [row for row, contig in enumerate(contig_names) if _PREFIX.sub("", contig) == bare]
