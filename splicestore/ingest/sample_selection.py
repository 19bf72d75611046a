"""Which samples of a file of counts are taken: by columns of its sample table, by GEO series, by text."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError, close_names

SERIES_COLUMN = "series_id"
_CONDITION = re.compile(r"\s*(?P<column>[^=!<>~]+?)\s*(?P<how>==|=|!=|<=|>=|<|>|~)\s*(?P<value>.*?)\s*")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SampleSelection:
    """What is asked of a sample; all of it must hold."""

    where: tuple[str, ...] = ()
    """``column=value``, also ``!=``, ``<``, ``<=``, ``>``, ``>=`` and ``~`` (contains, in any case)."""
    series: tuple[str, ...] = ()
    """In one of these GEO series; a sample of several (``GSE1,GSE2``) is in each."""
    search: str | None = None
    """Some column of text contains this, in any case."""

    @property
    def is_everything(self) -> bool:
        """Whether nothing is asked."""
        return not (self.where or self.series or self.search)


def select_samples(
    url: str, sample_ids: Sequence[str], columns: Mapping[str, NDArray[Any]], selection: SampleSelection
) -> NDArray[np.int64]:
    """Choose rows of a sample table.

    Returns
    -------
    rows : (n,) int64
        Ascending.

    Raises
    ------
    ConfigError
        For a condition that cannot be read, a column that is not there, a number compared with text.
    InputError
        If no sample is left.
    """
    keep = np.ones(len(sample_ids), dtype=bool)
    table = {"sample": np.array(sample_ids, dtype=object), **columns}
    for condition in selection.where:
        keep &= _holds(url, table, condition)
    if selection.series:
        if SERIES_COLUMN not in columns:
            raise ConfigError(f"{url}: has no column {SERIES_COLUMN}; it has {', '.join(sorted(table))}")
        wanted = set(selection.series)
        keep &= np.array([bool(wanted & set(split_series(str(v)))) for v in columns[SERIES_COLUMN]], dtype=bool)
    if selection.search:
        keep &= _mentions(table, selection.search)
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise InputError(
            f"{url}: none of its {len(sample_ids):,} samples is selected ({describe_selection(selection)})"
        )
    return rows


def describe_selection(selection: SampleSelection) -> str:
    """Spell a selection for people."""
    words = [*selection.where]
    if selection.series:
        words.append(f"series {', '.join(selection.series)}")
    if selection.search:
        words.append(f"search {selection.search!r}")
    return ", ".join(words) or "all samples"


def split_series(text: str) -> list[str]:
    """Split ``GSE1,GSE2`` as ARCHS4 joins the series of a sample."""
    return [part for part in re.split(r"[,;\s]+", text) if part]


def _holds(url: str, table: Mapping[str, NDArray[Any]], condition: str) -> NDArray[np.bool_]:
    found = _CONDITION.fullmatch(condition)
    if found is None:
        raise ConfigError(f"--where {condition!r}: write COLUMN=VALUE; also !=, <, <=, >, >= and ~ for contains")
    name, how, value = found["column"], found["how"], found["value"]
    if name not in table:
        raise ConfigError(f"--where {condition!r}: {url} has no column {name!r}; {close_names(name, table)}")
    column = table[name]
    if how == "~":
        return np.array([value.lower() in str(v).lower() for v in column], dtype=bool)
    if column.dtype.kind == "f":
        try:
            return np.asarray(_COMPARE[how](column, float(value)), dtype=bool)
        except ValueError as error:
            raise ConfigError(f"--where {condition!r}: column {name!r} has numbers, {value!r} is none") from error
    if how not in ("=", "==", "!="):
        raise ConfigError(f"--where {condition!r}: column {name!r} has text: =, != and ~ can be asked of it")
    return np.array([_COMPARE[how](str(v), value) for v in column], dtype=bool)


def _mentions(table: Mapping[str, NDArray[Any]], text: str) -> NDArray[np.bool_]:
    found = np.zeros(len(table["sample"]), dtype=bool)
    for column in table.values():
        if column.dtype == object:
            found |= np.array([text.lower() in str(value).lower() for value in column], dtype=bool)
    return found
