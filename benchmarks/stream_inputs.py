"""Inputs of the arms of ``bench_stream*.py``, all from one published genome; a program of its own, for it needs numpy.

``python stream_inputs.py dense STORE DENSE OUT`` takes the dense folder that ``export splicevo --preset splicestore`` wrote
and adds to ``OUT``: ``order.npy`` (rows of the export in the order of our first epoch) and ``steps.npy`` (windows of each of
its batches), ``codes.npy`` (the export's bases, one byte each), and the sparse tables that SplicEvo's training reads instead
of the dense usage: ``labels.npz`` and ``usage.npz``, a column an array.

``python stream_inputs.py windows STORE OUT`` writes ``one_hot.f32`` and ``labels.i8`` of all windows of a stream, which an
export with its dense usage would make ten times as large, and their order in two epochs.

``python stream_inputs.py peers STORE DENSE OUT`` writes what the peers read: a plain FASTA file, and a BED table whose rows
are those of the export.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import splicestore
from splicestore.stream import WindowBatches

SPLIT, SEED, BATCH = "bench", 1, 256
ROWS_AT_ONCE = 512


def open_arrays(dense: Path) -> dict[str, np.memmap]:
    """Map the arrays of an export by name."""
    arrays = json.loads((dense / "summary.json").read_text())["arrays"]
    return {
        name: np.memmap(dense / f"{name}.mmap", of["dtype"], "r", shape=tuple(of["shape"]))
        for name, of in arrays.items()
    }


def stream_options() -> dict[str, Any]:
    """The stream whose windows every arm delivers; the export has windows with genes only."""
    return {"split": SPLIT, "batch_size": BATCH, "geneless": 0.0, "seed": SEED}


def exported_windows(dense: Path) -> pd.DataFrame:
    """Contig, start, strand of the export's rows."""
    table = pd.read_csv(dense / "metadata.csv", dtype={"chromosome": str})
    return table.rename(columns={"chromosome": "contig", "window_start": "start", "window_end": "end"})


def write_order(store: Path, dense: Path, out: Path) -> None:
    """Find the export's row of each window of our first epoch.

    Raises
    ------
    SystemExit
        If the export lacks one.
    """
    opened = splicestore.open_store(str(store))
    exported = exported_windows(dense)[["contig", "start", "strand"]]
    exported["row"] = range(len(exported))
    table = opened.splits[SPLIT].to_pandas()[["contig", "start", "strand"]]
    row_of = table.merge(exported, how="left", on=["contig", "start", "strand"])["row"].fillna(-1).to_numpy(np.int64)
    steps = [row_of[batch.window_id] for batch in WindowBatches(opened, **stream_options())]
    order = np.concatenate(steps)
    if order.min() < 0:
        raise SystemExit("the stream has windows that the dense export lacks")
    np.save(out / "order.npy", order)
    np.save(out / "steps.npy", np.array([len(rows) for rows in steps]))


def write_codes(arrays: dict[str, np.memmap], out: Path) -> None:
    """Write the bases of all rows as codes."""
    sequences = arrays["sequences"]
    codes = np.lib.format.open_memmap(out / "codes.npy", "w+", np.uint8, sequences.shape[:2])
    for first in range(0, len(sequences), ROWS_AT_ONCE):
        part = sequences[first : first + ROWS_AT_ONCE]
        codes[first : first + ROWS_AT_ONCE] = np.where(part.any(axis=2), part.argmax(axis=2), 4)
    codes.flush()


def write_tables(arrays: dict[str, np.memmap], out: Path) -> None:
    """Write labels and usage as SplicEvo's sparse tables, in the types it stores."""
    row, position = np.nonzero(arrays["labels"])
    labels = {"sample_idx": row, "position": position.astype(np.int32), "label": arrays["labels"][row, position]}
    np.savez(out / "labels.npz", **labels)
    parts = []
    for first in range(0, len(arrays["labels"]), ROWS_AT_ONCE):
        alpha = arrays["usage_alpha"][first : first + ROWS_AT_ONCE]
        places = np.nonzero(~np.isnan(alpha))
        values = [arrays[f"usage_{name}"][first : first + ROWS_AT_ONCE][places] for name in ("alpha", "beta", "sse")]
        parts.append((places[0] + first, *places[1:], *values))
    columns = [np.concatenate(of) for of in zip(*parts, strict=True)]
    names = ("sample_idx", "position", "condition_idx", "alpha", "beta", "sse")
    types = (np.int64, np.int32, np.int16, np.float32, np.float32, np.float32)
    np.savez(out / "usage.npz", **{n: c.astype(t, copy=False) for n, c, t in zip(names, columns, types, strict=True)})


def write_dense(store: Path, dense: Path, out: Path) -> None:
    """Write order, codes and tables beside an export."""
    out.mkdir(exist_ok=True)
    arrays = open_arrays(dense)
    write_order(store, dense, out)
    write_codes(arrays, out)
    write_tables(arrays, out)


def write_windows(store: Path, out: Path) -> None:
    """Write the float32 one-hot and the labels of all windows of a stream, a row for each in the order of its table."""
    out.mkdir(exist_ok=True)
    options = stream_options() | {"geneless": 1.0}
    opened = splicestore.open_store(str(store))
    table = WindowBatches(opened, shuffle=False, **options)
    eye = np.eye(5, 4, dtype=np.float32)
    ids = []
    with (out / "one_hot.f32").open("wb") as bases, (out / "labels.i8").open("wb") as labels:
        for batch in table:
            bases.write(eye[batch.sequence].data)
            labels.write(np.where(batch.label == 255, 0, batch.label).astype(np.int8).data)
            ids.append(batch.window_id)
    row_of = np.full(len(opened.splits[SPLIT].window_start), -1, dtype=np.int64)
    written = np.concatenate(ids)
    row_of[written] = np.arange(len(written))
    stream = WindowBatches(opened, **options)
    for epoch in range(2):
        stream.set_epoch(epoch)
        np.save(out / f"order-{epoch}.npy", np.concatenate([row_of[batch.window_id] for batch in stream]))


def write_peers(fasta_gz: Path, dense: Path, out: Path) -> None:
    """Write a plain FASTA file, and the export's inputs as a BED table."""
    with gzip.open(fasta_gz, "rb") as compressed, (out / "genome.fa").open("wb") as plain:
        shutil.copyfileobj(compressed, plain)
    exported = exported_windows(dense)
    shape = json.loads((dense / "summary.json").read_text())["arrays"]["sequences"]["shape"]
    context = (shape[1] - int(exported["end"].iloc[0] - exported["start"].iloc[0])) // 2
    bed = pd.DataFrame(
        {
            "chrom": exported["contig"],
            "chromStart": exported["start"] - context,
            "chromEnd": exported["end"] + context,
            "strand": exported["strand"],
        }
    )
    bed.to_csv(out / "windows.csv", index=False)


def main() -> None:
    what, *paths = sys.argv[1:]
    {"dense": write_dense, "windows": write_windows, "peers": write_peers}[what](*(Path(path) for path in paths))


if __name__ == "__main__":
    main()
