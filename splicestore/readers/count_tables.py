"""Counts in text tables: TSV and CSV with genes in rows, GCT, featureCounts, and htseq-count's two columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.readers.counts import Counts, CountsHead, as_counts, check_head, is_summary_row
from splicestore.schema import LedgerRow
from splicestore.storage import open_input

_ROWS_AT_ONCE = 2048
_ID_NAMES = {"gene_id", "geneid", "gene", "id", "name", "ensembl", "ensembl_id", "ensembl_gene", "feature", ""}
_SYMBOL_NAMES = {"symbol", "gene_symbol", "gene_name", "description", "hgnc_symbol"}
_BIOTYPE_NAMES = {"biotype", "gene_type", "gene_biotype"}
_OTHER_NAMES = {"chr", "chrom", "chromosome", "start", "end", "strand", "length"}
_SUFFIXES = (".gz", ".bgz", ".tsv", ".csv", ".txt", ".tab", ".counts", ".gct")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in a table."""

    delimiter: str
    skip: int
    """Lines before the names, or before the first row where there are no names."""
    has_names: bool
    names: tuple[str, ...]
    """Of all columns."""
    id_column: int
    symbol_column: int | None
    biotype_column: int | None
    count_columns: tuple[int, ...]


class CountTable:
    """A table of counts; read whole, in memory as uint32."""

    gene_step = 1

    def __init__(self, url: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
        self.url = url
        layout = _look(url, storage_options)
        ids, symbols, biotypes = list[str](), list[str](), list[str]()
        parts, ledger = list[Counts](), list[LedgerRow]()
        samples = [layout.names[c] for c in layout.count_columns]
        for frame in _frames(url, layout, storage_options):
            frame_ids = frame.iloc[:, layout.id_column].astype(str).to_numpy()
            is_gene = np.array([not is_summary_row(name) for name in frame_ids], dtype=bool)
            values = frame.iloc[:, list(layout.count_columns)].to_numpy()[is_gene]
            ledger += [
                LedgerRow("gene", name, "summary_row", "a line of htseq-count about reads, not a gene")
                for name in frame_ids[~is_gene]
            ]
            ids += frame_ids[is_gene].tolist()
            for found, column in ((symbols, layout.symbol_column), (biotypes, layout.biotype_column)):
                words = [""] * int(is_gene.sum())
                if column is not None:
                    words = frame.iloc[:, column].fillna("").astype(str).to_numpy()[is_gene].tolist()
                found += words
            parts.append(as_counts(values.T, url, samples, frame_ids[is_gene].tolist()))
        self._counts: Counts = np.concatenate(parts, axis=1) if parts else np.zeros((len(samples), 0), dtype=np.uint32)
        self.head = check_head(
            url, CountsHead(tuple(samples), tuple(ids), tuple(symbols), tuple(biotypes), ledger=tuple(ledger))
        )

    def read(self, samples: NDArray[np.int64], first_gene: int, last_gene: int) -> Counts:
        """Cut a box."""
        return self._counts[samples, first_gene:last_gene]

    def close(self) -> None:
        """Nothing is open."""


def _look(url: str, storage_options: Mapping[str, Any] | None) -> _Layout:
    """Find delimiter, names and columns from the first lines."""
    lines, skip = list[str](), 0
    with open_input(url, storage_options=storage_options) as stream:
        for raw in stream:
            try:
                text = raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(f"{url}: line {skip + len(lines) + 1} is not UTF-8 text ({error.reason})") from error
            # GCT: a version, then rows and columns; featureCounts: its command behind a #.
            is_size = len(lines) == 0 and skip == 1 and all(field.isdigit() for field in text.split("\t"))
            if not lines and (text.startswith("#") or not text.strip() or is_size):
                skip += 1
                continue
            lines.append(text)
            if len(lines) == 2:
                break
    if not lines:
        raise InputError(f"{url}: is empty")
    delimiter = "\t" if "\t" in lines[0] else "," if "," in lines[0] else " "
    first, *more = ([cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))] for line in lines)
    if len(first) < 2 and not (more and len(more[0]) == 2):
        raise InputError(
            f"{url}: line {skip + 1} has one column; a gene and counts, separated by tabs or commas, are needed"
        )
    if len(first) == 2 and _is_number(first[1]):
        return _Layout(delimiter, skip, False, ("gene_id", _stem(url)), 0, None, None, (1,))
    if more and len(more[0]) == len(first) + 1:
        # R writes no name above its row names.
        first = ["", *first]
    if more and len(more[0]) != len(first):
        raise InputError(f"{url}: line {skip + 2} has {len(more[0])} columns, line {skip + 1} names {len(first)}")
    return _columns(url, delimiter, skip, first)


def _columns(url: str, delimiter: str, skip: int, names: Sequence[str]) -> _Layout:
    lower = [name.lower() for name in names]
    annotated = [0]
    while len(annotated) < len(names) and lower[len(annotated)] in (
        _ID_NAMES | _SYMBOL_NAMES | _BIOTYPE_NAMES | _OTHER_NAMES
    ):
        annotated.append(len(annotated))
    counts = tuple(range(len(annotated), len(names)))
    if not counts:
        raise InputError(f"{url}: no column of counts behind {', '.join(names)}")
    symbol = next((c for c in annotated if lower[c] in _SYMBOL_NAMES), None)
    biotype = next((c for c in annotated if lower[c] in _BIOTYPE_NAMES), None)
    gene = next((c for c in annotated if c not in (symbol, biotype)), 0)
    return _Layout(delimiter, skip, True, tuple(names), gene, symbol, biotype, counts)


def _frames(url: str, layout: _Layout, storage_options: Mapping[str, Any] | None) -> Iterator[pd.DataFrame]:
    """Yield the table by rows, counts as float64: exact for every whole number that is allowed."""
    options: dict[str, Any] = {
        "sep": layout.delimiter,
        "header": None,
        "names": list(range(len(layout.names))),
        "skiprows": layout.skip + layout.has_names,
        "quotechar": '"',
        # Of counts alone: there is a gene NAN.
        "na_values": dict.fromkeys(layout.count_columns, ["NA", "NaN", "nan", ""]),
        "keep_default_na": False,
        "index_col": False,
    }
    text_columns = [c for c in range(len(layout.names)) if c not in layout.count_columns]
    types = dict.fromkeys(text_columns, object) | dict.fromkeys(layout.count_columns, np.float64)
    try:
        with open_input(url, storage_options=storage_options) as stream:
            yield from pd.read_csv(stream, dtype=types, chunksize=_ROWS_AT_ONCE, **options)
    except pd.errors.ParserError as error:
        raise InputError(f"{url}: {' '.join(str(error).split())}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(_first_word(url, layout, options, storage_options) or f"{url}: {error}") from error


def _first_word(
    url: str, layout: _Layout, options: Mapping[str, Any], storage_options: Mapping[str, Any] | None
) -> str | None:
    """Find the first count that is no number; the table is read again, slowly, as text."""
    with open_input(url, storage_options=storage_options) as stream:
        row = layout.skip + layout.has_names
        for frame in pd.read_csv(stream, dtype=object, chunksize=_ROWS_AT_ONCE, **options):
            for c in layout.count_columns:
                words = frame[c].dropna().astype(str)
                wrong = words[pd.to_numeric(words, errors="coerce").isna()]
                if len(wrong):
                    at = int(np.flatnonzero(frame.index == wrong.index[0])[0])
                    gene, sample = frame[layout.id_column].iloc[at], layout.names[c]
                    return (
                        f"{url}: line {row + at + 1}: gene {gene!r}, sample {sample!r}: {wrong.iloc[0]!r} is no count"
                    )
            row += len(frame)
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _stem(url: str) -> str:
    """Name of a file without folder and the usual suffixes: of the one sample in it."""
    name = PurePosixPath(urlsplit(url).path).name
    while name.lower().endswith(_SUFFIXES):
        name = name.rsplit(".", 1)[0]
    return name
