"""``export splicevo``: the dense folders that SplicEvo's training code reads.

``sequences.mmap`` (window, input, 4) float32 one-hot A C G T with N all zero · ``labels.mmap`` (window,
position) int8 · ``usage_{alpha,beta,sse}.mmap`` (window, position, condition) float32, NaN = no data ·
``metadata.csv`` one row per window · ``sequence_mapping.csv`` one row per (window, gene) · ``summary.json``
with shapes and dtypes. For a split: ``train/``, ``val/``, ``test/``, each over all genomes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import ConfigError
from splicestore.genome import Genome
from splicestore.kernels.guard import clipped_spans, meets_any
from splicestore.kernels.intervals import expand_counts
from splicestore.kernels.naming import natural_key
from splicestore.kernels.sequence import one_hot_float
from splicestore.schema import LABEL_IGNORE, SUBSET_EXCLUDED, SUBSET_NAMES, SUBSET_TEST, SUBSET_TRAIN, SUBSET_VAL
from splicestore.splits import Split
from splicestore.storage.outputs import OutputFolder, output_folder
from splicestore.store import Store
from splicestore.windows import WindowSet, tile_genome

WINDOWS_PER_STEP = 256
"""Windows held at once; at 1,900 bp and 100 conditions 110 MB of usage."""
MAX_STEP_BYTES = 128 * 1024 * 1024
_USAGE = ("alpha", "beta", "sse")


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: windows per folder, bytes."""

    folder: str
    n_windows: dict[str, int]
    n_bytes: int

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return {"folder": self.folder, "windows": self.n_windows, "n_bytes": self.n_bytes}


def export_splicevo(
    store: Store,
    out: str,
    *,
    split: str | None = None,
    genomes: Sequence[str] = (),
    window_size: int | None = None,
    context_size: int | None = None,
    preset: str = "splicevo",
    alpha_threshold: float | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write SplicEvo's dense arrays, one folder per genome, or per subset of a split.

    Parameters
    ----------
    split
        Export ``train/``, ``val/`` and ``test/`` of this split over all its genomes: windows of the preset
        take their subset from the genes they meet, and the split's guard is applied to them.
    genomes
        Only these genomes (without a split).
    window_size, context_size
        bp; 1000 and 450 by default, a split's own where one is given.
    preset
        ``splicevo``: its windows, orientation, label codes and threshold; ``splicestore``: ours.
    alpha_threshold
        Where alpha is below, alpha, beta and sse read 0; the preset ``splicevo`` takes 5.

    Raises
    ------
    ConfigError
        If the folder exists, or genomes and a split are both named.
    TransferError
        If the disk is full; the folder does not appear.
    """
    if split is not None and genomes:
        raise ConfigError("--genome and --split exclude each other: a split exports all its genomes")
    changes = {} if alpha_threshold is None else {"alpha_threshold": alpha_threshold}
    view = store.splits[split] if split is not None else None
    window_size = window_size or (view.window_size if view else 1000)
    context_size = context_size if context_size is not None else (view.context_size if view else 450)
    if view is None:
        opened = [store.genomes[g] for g in (genomes or list(store.genomes))]
        folders = {g.genome_id: [tile_genome(g, window_size, context_size, preset=preset, **changes)] for g in opened}
    else:
        opened = [view.genome(g) for g in view.genome_ids]
        tiled = [tile_genome(g, window_size, context_size, preset=preset, **changes) for g in opened]
        folders = _by_subset(view, tiled)
    with output_folder(out, overwrite=overwrite) as output:
        sizes = {name: _write_folder(output, name, windows, opened, preset) for name, windows in folders.items()}
        if view is not None:
            output.write_text("summary.json", json.dumps(_split_document(view, folders), indent=2))
    counts = {name: sum(len(w) for w in windows) for name, windows in folders.items()}
    return ExportReport(out, counts, sum(sizes.values()))


def _split_document(view: Split, folders: dict[str, list[WindowSet]]) -> dict[str, Any]:
    return {
        "split": view.name,
        "generation": view.generation,
        "genomes": list(view.genome_ids),
        "windows": {name: sum(len(w) for w in windows) for name, windows in folders.items()},
    }


def _by_subset(view: Split, tiled: Sequence[WindowSet]) -> dict[str, list[WindowSet]]:
    """Deal windows of any geometry to the split's subsets; excluded ones are left out."""
    folders: dict[str, list[WindowSet]] = {SUBSET_NAMES[s]: [] for s in (SUBSET_TRAIN, SUBSET_VAL, SUBSET_TEST)}
    for index, windows in enumerate(tiled):
        subset = subsets_of_windows(view, index, windows)
        for code in (SUBSET_TRAIN, SUBSET_VAL, SUBSET_TEST):
            folders[SUBSET_NAMES[code]].append(windows.take(np.flatnonzero(subset == code)))
    return {name: windows for name, windows in folders.items() if any(len(w) for w in windows)}


def subsets_of_windows(view: Split, genome_index: int, windows: WindowSet) -> NDArray[np.uint8]:
    """Subset of windows that need not be the split's own: by the genes they meet, then the guard.

    A window takes the strongest subset (test > val > excluded > train) of the genes its centre meets on either
    strand; a train window whose input meets a test or val centre, of these windows or of the split's table, is
    excluded, and a val window whose input meets a test centre.
    """
    genome, size = windows.genome, windows.window_size
    mine = view.array("gene_genome") == genome_index
    gene_subset = view.array("gene_subset")[mine]
    start, end = clipped_spans(
        windows.start, windows.contig, genome.contig_offset, genome.contig_length, before=0, after=size
    )
    subset = np.full(len(windows), SUBSET_TRAIN, dtype=np.uint8)
    for code in (SUBSET_EXCLUDED, SUBSET_VAL, SUBSET_TEST):
        genes = gene_subset == code
        subset[meets_any(start, end, genome.gene_start[genes], genome.gene_end[genes])] = code
    guard = str(view.attributes["guard"])
    if guard != "none":
        _apply_guard(view, genome_index, windows, subset, guard)
    return subset


def _apply_guard(view: Split, genome_index: int, windows: WindowSet, subset: NDArray[np.uint8], guard: str) -> None:
    """Exclude windows whose input meets held-out centres (``input``: held-out inputs), of either tiling."""
    genome, size = windows.genome, windows.window_size

    def spans(start: NDArray[np.int64], contig: NDArray[np.int32], window: int, context: int) -> tuple[Any, Any]:
        return clipped_spans(
            start, contig, genome.contig_offset, genome.contig_length, before=context, after=window + context
        )

    low, high = spans(windows.start, windows.contig, size, windows.context_size)
    wide = guard == "input"
    own = spans(windows.start, windows.contig, size, windows.context_size if wide else 0)
    rows = view.window_genome == genome_index
    table_subset = view.window_subset[rows]
    table = spans(view.window_start[rows], view.window_contig[rows], view.window_size, view.context_size if wide else 0)
    before = subset.copy()
    for guarded, against in ((SUBSET_TRAIN, (SUBSET_TEST, SUBSET_VAL)), (SUBSET_VAL, (SUBSET_TEST,))):
        held, held_in_table = np.isin(before, against), np.isin(table_subset, against)
        first, last = (np.concatenate((o[held], t[held_in_table])) for o, t in zip(own, table, strict=True))
        subset[meets_any(low, high, first, last) & (before == guarded)] = SUBSET_EXCLUDED


def _write_folder(
    output: OutputFolder, name: str, windows: Sequence[WindowSet], genomes: Sequence[Genome], preset: str
) -> int:
    """Write one folder in bounded memory; returns its bytes."""
    conditions = sorted({c for g in genomes for c in g.condition_names}, key=natural_key)
    arrays = ["sequences", "labels", *(f"usage_{u}" for u in _USAGE)]
    metadata, mapping = io.StringIO(), io.StringIO()
    written, first_row = 0, 0
    with ExitStack() as stack:
        files = {a: stack.enter_context(output.open_binary(f"{name}/{a}.mmap")) for a in arrays}
        for part in windows:
            columns = np.array([conditions.index(c) for c in part.genome.condition_names], dtype=np.int64)
            written += _write_arrays(files, part, columns, len(conditions))
            _write_rows(metadata, mapping, part, first_row, genomes)
            first_row += len(part)
    output.write_text(f"{name}/metadata.csv", metadata.getvalue())
    output.write_text(f"{name}/sequence_mapping.csv", mapping.getvalue())
    summary = _folder_document(windows, genomes, conditions, preset, first_row)
    output.write_text(f"{name}/summary.json", json.dumps(summary, indent=2))
    return written


def _write_arrays(files: dict[str, BinaryIO], windows: WindowSet, columns: NDArray[np.int64], n_conditions: int) -> int:
    written = 0
    for first, last in _steps(windows, n_conditions):
        arrays = {
            "sequences": one_hot_float(windows.sequence(first, last)),
            "labels": _labels(windows.label(first, last)),
        }
        for name, values in zip(_USAGE, windows.usage(first, last), strict=True):
            wide = np.full((*values.shape[:2], n_conditions), np.nan, dtype=np.float32)
            wide[..., columns] = values
            arrays[f"usage_{name}"] = wide
        for name, array in arrays.items():
            written += files[name].write(np.ascontiguousarray(array).data)
    return written


def _steps(windows: WindowSet, n_conditions: int) -> Iterator[tuple[int, int]]:
    per_window = windows.input_length * 20 + windows.window_size * n_conditions * 32
    step = max(1, min(WINDOWS_PER_STEP, MAX_STEP_BYTES // per_window))
    for first in range(0, len(windows), step):
        yield first, min(first + step, len(windows))


def _labels(labels: NDArray[np.uint8]) -> NDArray[np.int8]:
    """SplicEvo has no ignore code: masked positions read 0, none."""
    return np.where(labels == LABEL_IGNORE, 0, labels).astype(np.int8)


def _write_rows(
    metadata: io.StringIO, mapping: io.StringIO, windows: WindowSet, first_row: int, genomes: Sequence[Genome]
) -> None:
    """Append metadata and mapping rows; the header goes before the first."""
    genome = windows.genome
    table = windows.to_pandas()
    species = sorted(g.genome_id for g in genomes).index(genome.genome_id)
    frame = pd.DataFrame(
        {
            "sequence_id": np.arange(first_row, first_row + len(windows)),
            "genome_id": genome.genome_id,
            "species_id": species,
            "chromosome": table["contig"],
            "window_start": table["start"],
            "window_end": table["end"],
            "strand": table["strand"],
            "gene_id": table["genes"].str.split(",").str[0],
        }
    )
    frame.to_csv(metadata, index=False, header=metadata.tell() == 0, lineterminator="\n")
    window, _ = expand_counts(np.diff(windows.gene_ptr))
    writer = csv.writer(mapping, lineterminator="\n")
    if mapping.tell() == 0:
        writer.writerow(["sequence_id", "genome_id", "gene_id"])
    ids = genome.gene_ids
    writer.writerows(
        (first_row + w, genome.genome_id, ids[g])
        for w, g in zip(window.tolist(), windows.gene_index.tolist(), strict=True)
    )


def _folder_document(
    windows: Sequence[WindowSet], genomes: Sequence[Genome], conditions: Sequence[str], preset: str, n_windows: int
) -> dict[str, Any]:
    one = windows[0]
    usage_shape = [n_windows, one.window_size, len(conditions)]
    return {
        "preset": preset,
        "window_size": one.window_size,
        "context_size": one.context_size,
        "n_sequences": n_windows,
        "arrays": {
            "sequences": {"shape": [n_windows, one.input_length, 4], "dtype": "float32", "bases": "ACGT"},
            "labels": {"shape": usage_shape[:2], "dtype": "int8", "codes": _label_words(one)},
            **{f"usage_{u}": {"shape": usage_shape, "dtype": "float32"} for u in _USAGE},
        },
        "minus_strand": one.options.minus,
        "alpha_threshold": one.options.alpha_threshold,
        "conditions": list(conditions),
        "species_mapping": {g: i for i, g in enumerate(sorted(genome.genome_id for genome in genomes))},
        "species_condition_mapping": {g.genome_id: [c in g.condition_names for c in conditions] for g in genomes},
        "generations": {g.genome_id: g.generation for g in genomes},
    }


def _label_words(windows: WindowSet) -> dict[str, int]:
    donor_first = windows.options.label_order == "splicevo"
    return {"none": 0, "donor": 1 if donor_first else 2, "acceptor": 2 if donor_first else 1}
