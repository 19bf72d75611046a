"""Samples per second of a shuffled epoch of bins, beside rows of zarr chunks as annbatch reads them and beside an ARCHS4 file.

All arms deliver every sample of one matrix once, in batches of 256. Ours reads its blocks anew (``ours_anew``) or has them from the
epoch before (``ours_kept``); ``zarr_chunks`` is annbatch's published design with plain zarr-python: runs of 64 rows in random
order, 32 of them in memory, their rows shuffled; ``h5py`` reads the samples of a batch, sorted, from the file that the counts came
from; ``memcpy`` copies batches of a matrix in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import zarr
from bench_expression import counts_file
from harness import (
    MIB,
    Case,
    Target,
    command_line,
    interleave,
    measure,
    median,
    paired_ratio,
    parse_arguments,
    report,
    run_process,
    scratch_folder,
)

import splicestore as ss
from splicestore.stream import SampleBatches, TokenView

BATCH = 256
RUN_ROWS, RUNS_LOADED = 64, 32
"""annbatch's chunk_size and preload_nchunks."""
Batches = Iterator[tuple[np.ndarray, np.ndarray]]
"""Rows of the matrix and their values."""


def make_store(folder: Path, counts: Path) -> ss.Store:
    """Ingest, fit and apply by the commands."""
    run_process(command_line("ingest", "expression", folder, "x", counts))
    run_process(command_line("normalize", "fit", folder, "x", "--expression", "x", "--no-qc"))
    run_process(command_line("normalize", "apply", folder, "x", "--edges", "x"))
    return ss.open_store(str(folder))


def write_zarr(path: Path, bins: np.ndarray) -> zarr.Array:
    """The same matrix as annbatch keeps one: runs of 64 rows, in shards."""
    height = -(-min(4096, len(bins)) // RUN_ROWS) * RUN_ROWS
    array = zarr.create_array(
        store=str(path),
        shape=bins.shape,
        dtype=bins.dtype,
        chunks=(RUN_ROWS, bins.shape[1]),
        shards=(height, bins.shape[1]),
    )
    array[...] = bins
    return array


def by_chunks(array: zarr.Array, seed: int) -> Batches:
    """Random runs of rows, some in memory at a time, their rows shuffled."""
    rng = np.random.default_rng(seed)
    runs = rng.permutation(-(-array.shape[0] // RUN_ROWS))
    for first in range(0, len(runs), RUNS_LOADED):
        rows, values = [], []
        for run in runs[first : first + RUNS_LOADED].tolist():
            part = array[run * RUN_ROWS : (run + 1) * RUN_ROWS]
            rows.append(np.arange(run * RUN_ROWS, run * RUN_ROWS + len(part)))
            values.append(part)
        row, value = np.concatenate(rows), np.concatenate(values)
        order = rng.permutation(len(row))
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            yield row[chosen], value[chosen]


def by_file(path: Path, seed: int) -> Batches:
    """Counts of random samples, a batch at a time, as archs4py reads them but in one process and without a task a sample."""
    with h5py.File(path) as file:
        data = file["data/expression"]
        order = np.random.default_rng(seed).permutation(data.shape[1])
        for first in range(0, len(order), BATCH):
            rows = np.sort(order[first : first + BATCH])
            yield rows, np.stack([data[:, row] for row in rows.tolist()])


def by_copy(matrix: np.ndarray) -> Batches:
    """Rows as they lie in memory."""
    out = np.empty((BATCH, matrix.shape[1]), matrix.dtype)
    for first in range(0, len(matrix), BATCH):
        part = matrix[first : first + BATCH]
        out[: len(part)] = part
        yield np.arange(first, first + len(part)), out[: len(part)]


def check(name: str, batches: Batches, expected: np.ndarray) -> None:
    """Refuse to time an arm that does not deliver every sample once, or other values than the matrix has."""
    seen = np.zeros(len(expected), dtype=np.int64)
    for rows, values in batches:
        np.add.at(seen, rows, 1)
        if not np.array_equal(values, expected[rows]):
            sys.exit(f"{name}: values are not those of the matrix")
    if not (seen == 1).all():
        sys.exit(f"{name}: {int((seen == 0).sum())} samples missing, {int((seen > 1).sum())} more than once")


def spelled(stream: SampleBatches) -> Batches:
    """Rows and values of our batches."""
    return ((batch.sample_row, batch.values) for batch in stream)


def bench(cache: Path, scratch: Path, n_samples: int, n_genes: int, rounds: int) -> Case:
    """Compare epochs at one size."""
    source = counts_file(cache, "h5", n_samples, n_genes)
    store = make_store(scratch / "store", source)
    bins = store.bins["x"].read(slice(None))
    array = write_zarr(scratch / "rows.zarr", bins)
    options = {"batch_size": BATCH, "shuffle_memory": 2 * bins.nbytes + 64 * MIB}
    kept = SampleBatches(store, "x", **options, reuse_buffers=2)
    tokens = SampleBatches(store, "x", **options, tokens=TokenView("next_gene", top_genes=2048))

    def anew() -> Batches:
        stream = SampleBatches(store, "x", **options, reuse_buffers=2)
        yield from spelled(stream)
        stream.close()

    arms: dict[str, Callable[[], Batches]] = {
        "memcpy": lambda: by_copy(bins),
        "ours_kept": lambda: spelled(kept),
        "ours_anew": anew,
        "zarr_chunks": lambda: by_chunks(array, 1),
        "h5py": lambda: by_file(source, 1),
    }
    counts = store.expression["x"].read(slice(None))
    for name, arm in arms.items():
        check(name, arm(), counts if name == "h5py" else bins)

    def timed(arm: Callable[[], Iterator]) -> Callable[[], object]:
        return lambda: measure(lambda: [None for _ in arm()])

    runs = interleave({**{n: timed(a) for n, a in arms.items()}, "ours_tokens": timed(lambda: iter(tokens))}, rounds)
    figures = {f"{name}_samples_per_s": n_samples / median(runs[name], "wall_s") for name in runs}
    figures |= {
        "bins_mib": bins.nbytes / MIB,
        "kept_over_memcpy": paired_ratio(runs, "memcpy", "ours_kept", "wall_s"),
        "anew_over_h5py": paired_ratio(runs, "h5py", "ours_anew", "wall_s"),
        "anew_over_h5py_cpu": paired_ratio(runs, "h5py", "ours_anew"),
        "anew_over_zarr_chunks_cpu": paired_ratio(runs, "zarr_chunks", "ours_anew"),
        "kept_over_zarr_chunks": paired_ratio(runs, "zarr_chunks", "ours_kept", "wall_s"),
        "anew_over_zarr_chunks": paired_ratio(runs, "zarr_chunks", "ours_anew", "wall_s"),
    }
    targets = [Target("kept_over_h5py", paired_ratio(runs, "h5py", "ours_kept", "wall_s"), 100, "x", at_least=True)]
    return Case("epoch of samples", {"samples": n_samples, "genes": n_genes, "batch": BATCH}, runs, targets, figures)


def main() -> None:
    arguments = parse_arguments(__doc__)
    quick = arguments.quick
    with scratch_folder() as scratch:
        n_samples, n_genes = (600, 500) if quick else (10_000, 20_000)
        case = bench(arguments.cache, scratch, n_samples, n_genes, rounds=1 if quick else 7)
    report("samples", [case], record=not quick)


if __name__ == "__main__":
    main()
