"""Windows per second of one process, beside a batched gather from dense float32 arrays and a bare copy.

All arms deliver the same windows in the same order, from a warm page cache, in one process with one torch thread:

- ``tokens_usage``: ``WindowStream`` as numpy batches: codes, labels, ragged usage; blocks are read and decompressed anew
- ``one_hot_f32``: the same stream as tensors, expanded to float32 one-hot on the host
- ``cut_live``: the same batches cut from blocks that are in memory: the stream without reading
- ``gather_f32``: rows of the float32 one-hot and label files that ``export splicevo --preset splicestore`` wrote, a whole
  batch per call; no usage, whose dense rows would outweigh all else
- ``memcpy_f32``: one batch of float32 one-hot copied to a buffer over and over, so it stays in the caches: a floor

Contents are compared before anything is timed. Ratios are of windows per CPU second, reading threads included. The
dense files are read from the page cache, so nothing here shows what their 16 times as many bytes cost on a disk.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from harness import (
    Case,
    Run,
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
    simulated_study,
)

WINDOW, CONTEXT, BATCH = 1_000, 450, 256
INPUT = WINDOW + 2 * CONTEXT


def prepare(cache: Path, scratch: Path, quick: bool) -> tuple[Path, Path]:
    """Publish a split genome and export it densely."""
    study = simulated_study(cache, genomes=1, megabases=2 if quick else 10, genes=80 if quick else 400, conditions=4)
    store, dense = scratch / "store", scratch / "dense"
    run_process(command_line("ingest", "genomes", store, study / "genomes.json"))
    sizes = ("--window-size", str(WINDOW), "--context-size", str(CONTEXT))
    run_process(
        command_line("split", "windows", store, "bench", "--orthology", study / "orthologs.tsv", "--reference-genome", "sim1",
                     "--test-chromosomes", "chr2", *sizes)
    )  # fmt: skip
    run_process(command_line("export", "splicevo", store, dense, "--genome", "sim1", "--preset", "splicestore", *sizes))
    return store, dense / "sim1"


def dense_rows(table: Any, dense: Path) -> Any:
    """Row of the export that holds each window of the split, -1 where it has none: (window,) int64."""
    import pandas as pd

    exported = pd.read_csv(dense / "metadata.csv", dtype={"chromosome": str})
    exported = exported.rename(columns={"chromosome": "contig", "window_start": "start"})[["contig", "start", "strand"]]
    exported["row"] = range(len(exported))
    found = table[["contig", "start", "strand"]].merge(exported, how="left", on=["contig", "start", "strand"])
    return found["row"].fillna(-1).to_numpy("int64")


def open_arrays(dense: Path) -> tuple[Any, Any]:
    """Map the one-hot (window, input, 4) float32 and the labels (window, position) int8."""
    import numpy as np

    arrays = json.loads((dense / "summary.json").read_text())["arrays"]
    sequences, labels = (
        np.memmap(dense / f"{name}.mmap", arrays[name]["dtype"], "r", shape=tuple(arrays[name]["shape"]))
        for name in ("sequences", "labels")
    )
    return sequences, labels


def live_blocks(store: Any, stream: Any) -> tuple[Any, list[Any]]:
    """Read all blocks of an epoch into memory; return what cuts from them, and the steps to cut."""
    from splicestore.stream.epoch import Reader
    from splicestore.stream.reader import BlockReader, StreamStatistics

    plan = stream.plan
    reader = BlockReader(plan, [store.genomes[name] for name in plan.genome_names], plan.n_blocks, StreamStatistics())
    steps = list(stream.epoch_order().steps(Reader(0, 1, 0, 1), 0))
    for step in steps:
        reader.cut(step, 0)
    return reader, steps


class Arms:
    """The arms, each over ``epochs`` epochs of one stream."""

    def __init__(self, store: Path, dense: Path, epochs: int) -> None:
        import numpy as np
        import torch

        import splicestore

        torch.set_num_threads(1)
        opened = splicestore.open_store(str(store))
        self.epochs = epochs
        # The export has windows with genes only.
        self.stream: Any = splicestore.WindowStream(opened, split="bench", batch_size=BATCH, geneless=0.0, seed=1)
        self.sequences, self.labels = open_arrays(dense)
        row_of = dense_rows(opened.splits["bench"].to_pandas(), dense)
        self.rows = [row_of[batch.window_id] for batch in self.stream.numpy_batches()]
        if min(rows.min() for rows in self.rows) < 0:
            raise SystemExit("the stream has windows that the dense export lacks")
        self.live, self.steps = live_blocks(opened, self.stream)
        self.source = np.array(self.sequences[:BATCH])
        self.target = np.zeros_like(self.source)
        self.n_windows = epochs * sum(map(len, self.rows))

    def check_equal(self) -> None:
        """Compare every window of an epoch.

        Raises
        ------
        SystemExit
            If a batch differs.
        """
        import numpy as np

        import splicestore

        for step, (batch, rows) in enumerate(zip(self.stream, self.rows, strict=True)):
            bases = splicestore.one_hot(batch, layout="NLC").numpy()
            label = np.where(batch.label.numpy() == 255, 0, batch.label.numpy())
            if not (np.array_equal(bases, self.sequences[rows]) and np.array_equal(label, self.labels[rows])):
                raise SystemExit(f"step {step}: the stream and the dense export differ")
            if not np.array_equal(self.live.cut(self.steps[step], 0).sequence, batch.sequence.numpy()):
                raise SystemExit(f"step {step}: live blocks give other windows than the stream")

    def tokens_usage(self) -> None:
        """Read, cut, deliver numpy."""
        for _ in range(self.epochs):
            for batch in self.stream.numpy_batches():
                assert batch.sequence.shape[1] == INPUT

    def one_hot_f32(self) -> None:
        """Read, cut, expand on the host."""
        import splicestore

        for _ in range(self.epochs):
            for batch in self.stream:
                assert splicestore.one_hot(batch).shape[2] == INPUT

    def cut_live(self) -> None:
        """Cut what is in memory."""
        for _ in range(self.epochs):
            for step in self.steps:
                assert self.live.cut(step, 0).sequence.shape[1] == INPUT

    def gather_f32(self) -> None:
        """Gather rows of the dense files."""
        for _ in range(self.epochs):
            for rows in self.rows:
                assert len(self.sequences[rows]) == len(self.labels[rows])

    def memcpy_f32(self) -> None:
        """Copy as many bytes of one-hot as the windows have."""
        for _ in range(self.epochs):
            for rows in self.rows:
                self.target[: len(rows)] = self.source[: len(rows)]


def main() -> None:
    arguments = parse_arguments(__doc__)
    quick = arguments.quick
    with scratch_folder() as scratch:
        store, dense = prepare(arguments.cache, scratch, quick)
        arms = Arms(store, dense, epochs=1 if quick else 5)
        arms.check_equal()
        names = ("tokens_usage", "one_hot_f32", "cut_live", "gather_f32", "memcpy_f32")
        runs: dict[str, list[Run]] = interleave(
            {name: partial(measure, getattr(arms, name)) for name in names}, rounds=1 if quick else 7
        )
    rate = {
        value: {name: arms.n_windows / median(runs[name], value) for name in names} for value in ("wall_s", "cpu_s")
    }
    case = Case(
        "one_process" if not quick else "one_process_quick",
        {
            "window_size": WINDOW,
            "context_size": CONTEXT,
            "batch_size": BATCH,
            "n_conditions": len(arms.stream.condition_names),
            "windows_per_arm": arms.n_windows,
            "epochs_per_arm": arms.epochs,
            "blocks": arms.stream.plan.n_blocks,
        },
        runs,
        targets=(
            Target("cut_live_over_gather_f32", paired_ratio(runs, "gather_f32", "cut_live"), 1.2, "x", at_least=True),
            Target("cut_live_over_memcpy_f32", paired_ratio(runs, "memcpy_f32", "cut_live"), 0.6, "x", at_least=True),
        ),
        figures={
            "tokens_usage_over_gather_f32": paired_ratio(runs, "gather_f32", "tokens_usage"),
            "one_hot_f32_over_gather_f32": paired_ratio(runs, "gather_f32", "one_hot_f32"),
            "one_hot_f32_over_memcpy_f32": paired_ratio(runs, "memcpy_f32", "one_hot_f32"),
            **{f"{name}_windows_per_s": rate["wall_s"][name] for name in names},
            **{f"{name}_windows_per_cpu_s": rate["cpu_s"][name] for name in names},
        },
    )
    report("stream", [case], record=not quick)


if __name__ == "__main__":
    main()
