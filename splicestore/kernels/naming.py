"""Orders of names that people expect."""

from __future__ import annotations

import re


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``Brain_2`` comes before ``Brain_10``.

    Examples
    --------
    >>> sorted(["Brain_10", "Brain_2", "Ape_1"], key=natural_key)
    ['Ape_1', 'Brain_2', 'Brain_10']
    """
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name) if p)
