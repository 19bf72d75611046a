"""Arms of ``bench_stream_peers.py``: other libraries on the same windows, each in an environment of its own.

``python peer_arms.py NAME OPTIONS`` with ``"write": true`` in the options writes what a library reads and ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from worker import Arm, Spelled, files_below, serve

BATCH = 256
SHARD_WINDOWS = 4_096
SHUFFLE_BUFFER = 4_096
CHUNK_BYTES = "16MB"
BASES = np.frombuffer(b"ACGT", np.uint8)


def codes_of_text(text: np.ndarray) -> np.ndarray:
    """Codes of (B, L) letters."""
    letters = np.ascontiguousarray(text).view(np.uint8).reshape(text.shape)
    table = np.full(256, 4, dtype=np.uint8)
    table[BASES] = np.arange(4)
    return table[letters]


class Written:
    """The windows that the peers are given: codes, labels and the rows that our stream delivers."""

    def __init__(self, options: dict[str, Any]) -> None:
        beside, dense = Path(options["beside"]), Path(options["dense"])
        self.codes = np.load(beside / "codes.npy", mmap_mode="r")
        self.labels = np.memmap(dense / "labels.mmap", np.int8, "r").reshape(len(self.codes), -1).view(np.uint8)
        self.rows = np.sort(np.load(beside / "order.npy"))

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.codes[row]), np.array(self.labels[row])


# -- GenVarLoader ------------------------------------------------------------------------------------------------


class GenVarLoader(Arm):
    """``RefDataset`` with the reference in memory: a batch of sequences a call, minus windows reverse-complemented."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.fasta, self.beside = Path(options["beside"]) / "genome.fa", Path(options["beside"])
        self.epochs = options["epochs"]

    def open(self) -> None:
        """Load the reference and the regions."""
        import genvarloader as gvl
        import polars as pl

        bed = pl.read_csv(self.beside / "windows.csv", schema_overrides={"chrom": pl.String})
        length = int(bed[0, "chromEnd"] - bed[0, "chromStart"])
        self.dataset = gvl.RefDataset(gvl.Reference.from_path(self.fasta), bed).with_len(length)
        order, steps = np.load(self.beside / "order.npy"), np.load(self.beside / "steps.npy")
        self.rows = np.split(order, np.cumsum(steps)[:-1])

    def batches(self) -> Iterator[Any]:
        """Fetch letters."""
        for rows in self.rows:
            yield self.dataset[rows]

    def spell(self, batch: Any) -> Spelled:
        """Codes of letters."""
        return Spelled(codes_of_text(batch))

    def files(self) -> list[Path]:
        """The cache that it makes of the FASTA file, which is read no more."""
        return files_below(self.fasta.with_name("genome.fa.gvlfa"))


class GenVarLoaderOneHot(GenVarLoader):
    """The same, made one-hot by the library that it comes with; uint8, (B, L, 4)."""

    def batches(self) -> Iterator[Any]:
        """Fetch and expand."""
        import seqpro as sp

        for letters in super().batches():
            yield sp.ohe(letters, alphabet=sp.DNA)

    def spell(self, batch: Any) -> Spelled:
        """Codes of one-hot."""
        codes = batch.argmax(axis=-1).astype(np.uint8)
        codes[~batch.any(axis=-1)] = 4
        return Spelled(codes)


# -- litdata -----------------------------------------------------------------------------------------------------


class LitData(Arm):
    """Chunks that ``optimize`` wrote, shuffled as it does, by its loader without workers."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.folder, self.options = Path(options["out"]) / "litdata", options
        self.epochs = options["epochs"]

    def write(self) -> None:
        """Write codes and labels."""
        from litdata import optimize

        written = Written(self.options)
        inputs = written.rows.tolist()
        optimize(
            fn=lambda row: dict(zip(("codes", "labels"), written[row], strict=True)), inputs=inputs,
            output_dir=str(self.folder), chunk_bytes=CHUNK_BYTES, num_workers=1, start_method="fork", verbose=False,
        )  # fmt: skip

    def open(self) -> None:
        """Open the chunks."""
        from litdata import StreamingDataLoader, StreamingDataset

        dataset = StreamingDataset(str(self.folder), shuffle=True, drop_last=False)
        self.loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)

    def batches(self) -> Iterator[Any]:
        """Load."""
        yield from self.loader

    def count(self, batch: Any) -> int:
        """Windows."""
        return len(batch["codes"])

    def spell(self, batch: Any) -> Spelled:
        """As they are."""
        return Spelled(np.asarray(batch["codes"]), np.asarray(batch["labels"]))

    def files(self) -> list[Path]:
        """The chunks."""
        return files_below(self.folder)


# -- webdataset --------------------------------------------------------------------------------------------------


class WebDataset(Arm):
    """Tar files of npy members, through a buffer that shuffles, batched by the pipeline."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.folder, self.options = Path(options["out"]) / "webdataset", options
        self.epochs = options["epochs"]

    def write(self) -> None:
        """Write codes and labels."""
        import webdataset as wds

        self.folder.mkdir()
        written = Written(self.options)
        with wds.ShardWriter(str(self.folder / "%03d.tar"), maxcount=SHARD_WINDOWS, verbose=0) as sink:
            for row in written.rows.tolist():
                codes, labels = written[row]
                sink.write({"__key__": f"{row:09d}", "codes.npy": codes, "labels.npy": labels})

    def batches(self) -> Iterator[Any]:
        """Read the tar files through."""
        import webdataset as wds

        urls = [str(path) for path in self.files()]
        dataset = wds.WebDataset(urls, shardshuffle=len(urls), seed=1).shuffle(SHUFFLE_BUFFER).decode()
        yield from dataset.to_tuple("codes.npy", "labels.npy").batched(BATCH)

    def count(self, batch: Any) -> int:
        """Windows."""
        return len(batch[0])

    def spell(self, batch: Any) -> Spelled:
        """As they are."""
        return Spelled(np.asarray(batch[0]), np.asarray(batch[1]))

    def files(self) -> list[Path]:
        """The tar files."""
        return files_below(self.folder)


ARMS = {
    "genvarloader": GenVarLoader,
    "genvarloader_one_hot": GenVarLoaderOneHot,
    "litdata": LitData,
    "webdataset": WebDataset,
}

if __name__ == "__main__":
    os.environ.setdefault("WDS_VERBOSE_CACHE", "0")
    options = json.loads(sys.argv[2])
    if options.get("write"):
        ARMS[sys.argv[1]](options).write()
    else:
        serve(ARMS)
