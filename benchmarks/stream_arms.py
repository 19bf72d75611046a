"""Arms of ``bench_stream*.py`` that run in our own environment: this package, the dense files, and the floor."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from stream_inputs import BATCH, open_arrays, stream_options
from torch.utils.data import DataLoader, Dataset
from worker import Arm, Spelled, codes_of_one_hot, files_below, resident_bytes, serve

import splicestore

READERS = 16
MIB = 1024 * 1024
EXTENT = 4 * MIB
"""Of a file, put out of the page cache at once."""


# -- this package --------------------------------------------------------------------------------------------------


class OurArm(Arm):
    """A stream over a store; every pass is another epoch."""

    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self.store, self.epochs = Path(options["store"]), options["epochs"]
        self.read_anew: bool = options.get("read_anew", False)
        self.options = stream_options() | options.get("stream", {})

    def open(self) -> None:
        """Open the store and plan the stream."""
        store = splicestore.open_store(str(self.store))
        self.stream: Any = splicestore.WindowStream(store, reuse_buffers=1, **self.options)
        self.epoch = 0
        self.host = torch.empty((BATCH, self.stream.input_length, 4))

    def close(self) -> None:
        """Release blocks and threads."""
        self.stream.close()

    def begin(self) -> None:
        """Begin another epoch; unless they are to be read anew, with the blocks that are in memory."""
        if self.read_anew:
            self.stream.close()
        self.stream.set_epoch(self.epoch)
        self.epoch += 1

    def files(self) -> list[Path]:
        """The whole store."""
        return files_below(self.store)


class Tokens(OurArm):
    """Codes, labels and ragged usage as numpy arrays."""

    def batches(self) -> Iterator[Any]:
        """Cut an epoch."""
        self.begin()
        yield from self.stream.numpy_batches()

    def spell(self, batch: Any) -> Spelled:
        """Spread the usage."""
        return Spelled(batch.sequence, batch.label, splicestore.densify_usage(batch).sse.numpy())


class OneHot(OurArm):
    """Tensors, the bases expanded to float32 one-hot on the host into one buffer."""

    layout = "NLC"

    def batches(self) -> Iterator[Any]:
        """Cut and expand an epoch; a batch is (one-hot, batch, its dense usage if that is asked for)."""
        self.begin()
        length = self.stream.input_length
        host = self.host.view(-1, *((length, 4) if self.layout == "NLC" else (4, length)))
        for batch in self.stream:
            yield splicestore.one_hot(batch, layout=self.layout, out=host[: len(batch)]), batch, self.usage(batch)

    def usage(self, batch: Any) -> Any:
        """Leave the usage ragged, as it came."""
        return None

    def count(self, batch: Any) -> int:
        """Windows."""
        return len(batch[1])

    def spell(self, batch: Any) -> Spelled:
        """Spread the usage if that was not done."""
        usage = batch[2] or splicestore.densify_usage(batch[1])
        return Spelled(codes_of_one_hot(batch[0].numpy()), batch[1].label.numpy(), usage.sse.numpy())


class OneHotChannelsFirst(OneHot):
    """In the layout that convolutions take."""

    layout = "NCL"

    def spell(self, batch: Any) -> Spelled:
        """Channels last."""
        return super().spell((batch[0].transpose(1, 2), *batch[1:]))


class OneHotDense(OneHot):
    """The same, and usage at every position, on the host: alpha, beta and SSE."""

    def usage(self, batch: Any) -> Any:
        """Spread the usage."""
        return splicestore.densify_usage(batch)


# -- dense files ---------------------------------------------------------------------------------------------------


class DenseArm(Arm):
    """Rows of the export, in the order of our first epoch and in its batches."""

    arrays = ("sequences", "labels")

    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self.dense, self.beside, self.epochs = Path(options["dense"]), Path(options["beside"]), options["epochs"]
        order, steps = np.load(self.beside / "order.npy"), np.load(self.beside / "steps.npy")
        self.rows, self.steps = np.split(order, np.cumsum(steps)[:-1]), options.get("steps")

    def open(self) -> None:
        """Map the files."""
        mapped = open_arrays(self.dense)
        self.sequences, self.labels = (mapped[name] for name in ("sequences", "labels"))

    def close(self) -> None:
        """Unmap them."""
        del self.sequences, self.labels

    def files(self) -> list[Path]:
        """The two that are read."""
        return [self.dense / f"{name}.mmap" for name in self.arrays]

    def spell(self, batch: Any) -> Spelled:
        """Codes from one-hot."""
        return Spelled(codes_of_one_hot(np.asarray(batch[0])), np.asarray(batch[1]))

    def count(self, batch: Any) -> int:
        """Windows."""
        return len(batch[0])


class Gather(DenseArm):
    """A batch a call, into new arrays."""

    def batches(self) -> Iterator[Any]:
        """Index by a batch's rows."""
        for rows in self.rows:
            yield self.sequences[rows], self.labels[rows]


class GatherReused(DenseArm):
    """A batch a call, into the same arrays."""

    def batches(self) -> Iterator[Any]:
        """Take a batch's rows; ``clip`` because with the default numpy would take into an array of its own first."""
        buffers = [np.empty((BATCH, *array.shape[1:]), array.dtype) for array in (self.sequences, self.labels)]
        for rows in self.rows:
            yield tuple(
                np.take(array, rows, axis=0, out=buffer[: len(rows)], mode="clip")
                for array, buffer in zip((self.sequences, self.labels), buffers, strict=True)
            )


class GatherChannelsFirst(GatherReused):
    """The same, then turned to the layout that convolutions take."""

    def batches(self) -> Iterator[Any]:
        """Take, then copy with the axes exchanged."""
        length = self.sequences.shape[1]
        turned = np.empty((BATCH, 4, length), dtype=np.float32)
        for sequences, labels in super().batches():
            np.copyto(turned[: len(sequences)], sequences.transpose(0, 2, 1))
            yield turned[: len(sequences)], labels

    def spell(self, batch: Any) -> Spelled:
        """Channels last."""
        return super().spell((batch[0].transpose(0, 2, 1), batch[1]))


class GatherCodes(GatherReused):
    """The same from a file with one byte a base: dense, but as small as a dense file can be."""

    def open(self) -> None:
        """Map codes for one-hot."""
        super().open()
        self.sequences = np.load(self.beside / "codes.npy", mmap_mode="r")

    def files(self) -> list[Path]:
        """Codes and labels."""
        return [self.beside / "codes.npy", self.dense / "labels.mmap"]

    def spell(self, batch: Any) -> Spelled:
        """As they are."""
        return Spelled(batch[0], batch[1])


class Floor(DenseArm):
    """As many bytes of one-hot copied from one buffer to another: both stay in the caches of the processor."""

    def batches(self) -> Iterator[Any]:
        """Copy; the windows delivered are always the first batch's, so there is nothing to compare."""
        source = np.array(self.sequences[:BATCH])
        target = np.zeros_like(source)
        for rows in self.rows:
            target[: len(rows)] = source[: len(rows)]
            yield target[: len(rows)], rows


class RowDataset(Dataset):
    """One row an item."""

    def __init__(self, sequences: Any, labels: Any) -> None:
        self.sequences, self.labels = sequences, labels

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(np.array(self.sequences[row])), torch.from_numpy(np.array(self.labels[row]))


class PerSample(DenseArm):
    """A map-style dataset with one row an item, collated by a loader without workers."""

    dataset: type[RowDataset] = RowDataset

    def batches(self) -> Iterator[Any]:
        """Load."""
        rows = [batch.tolist() for batch in self.rows]
        yield from DataLoader(self.dataset(self.sequences, self.labels), batch_sampler=rows)


class RowDatasetChannelsFirst(RowDataset):
    """Each row turned to the layout that convolutions take."""

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        sequence, labels = super().__getitem__(row)
        return sequence.T.contiguous(), labels


class PerSampleChannelsFirst(PerSample):
    """The same with turned rows."""

    dataset = RowDatasetChannelsFirst

    def spell(self, batch: Any) -> Spelled:
        """Channels last."""
        return super().spell((batch[0].transpose(1, 2), batch[1]))


class TableScanDataset(Dataset):
    """SplicEvo's training dataset, from its description: one-hot by memmap, labels and usage found by scanning tables.

    An item asks the whole table which of its rows are the window's (``isin``), and fills dense arrays row by row: three of
    them, of which SSE is delivered.
    """

    def __init__(self, sequences: Any, labels: pd.DataFrame, usage: pd.DataFrame, window: int, conditions: int) -> None:
        self.sequences, self.label_table, self.usage_table = sequences, labels, usage
        self.window, self.conditions = window, conditions

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sequence = np.array(self.sequences[row], dtype=np.float32)
        return torch.from_numpy(sequence), torch.from_numpy(self._labels(row)), torch.from_numpy(self._usage(row))

    def _labels(self, row: int) -> np.ndarray:
        found = self.label_table[self.label_table["sample_idx"].isin({row})]
        labels = np.zeros(self.window, dtype=np.int8)
        for site in found.itertuples(index=False):
            labels[site.position] = site.label
        return labels

    def _usage(self, row: int) -> np.ndarray:
        found = self.usage_table[self.usage_table["sample_idx"].isin({row})]
        alpha, beta, sse = (np.full((self.window, self.conditions), np.nan, dtype=np.float32) for _ in range(3))
        for site in found.itertuples(index=False):
            alpha[site.position, site.condition_idx] = site.alpha
            beta[site.position, site.condition_idx] = site.beta
            sse[site.position, site.condition_idx] = site.sse
        return sse


class TableScan(DenseArm):
    """SplicEvo's dataset, collated by a loader without workers."""

    def open(self) -> None:
        """Map the bases, read the tables into memory."""
        super().open()
        tables = [pd.DataFrame(dict(np.load(self.beside / f"{name}.npz"))) for name in ("labels", "usage")]
        conditions = int(tables[1]["condition_idx"].max()) + 1
        self.dataset = TableScanDataset(self.sequences, *tables, self.labels.shape[1], conditions)

    def close(self) -> None:
        """Let go of the tables too."""
        del self.dataset
        super().close()

    def batches(self) -> Iterator[Any]:
        """Load."""
        yield from DataLoader(self.dataset, batch_sampler=[batch.tolist() for batch in self.rows])

    def files(self) -> list[Path]:
        """Bases and the two tables."""
        return [self.dense / "sequences.mmap", self.beside / "labels.npz", self.beside / "usage.npz"]

    def spell(self, batch: Any) -> Spelled:
        """Codes from one-hot."""
        return Spelled(codes_of_one_hot(batch[0].numpy()), batch[1].numpy(), batch[2].numpy())


# -- dense files that do not fit -----------------------------------------------------------------------------------


class LimitedFile:
    """A file of equal rows of which at most ``limit`` bytes are left in the page cache."""

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
        self.path, self.descriptor = path, os.open(path, os.O_RDONLY)
        self.mapped = mmap.mmap(self.descriptor, 0, prot=mmap.PROT_READ)
        self.rows = np.frombuffer(self.mapped, dtype).reshape(-1, *shape)
        # By default megabytes are read around a row of 30 KB: what nobody asks for would fill the memory.
        self.mapped.madvise(mmap.MADV_RANDOM)
        self.extents = -(-len(self.mapped) // EXTENT)

    def shrink(self, limit: int, rng: np.random.Generator) -> int:
        """Put extents out, drawn at random, until the limit is kept; return the bytes that were there before.

        Of windows that come once an epoch in a new order no replacement keeps more of use than a random one.
        """
        found = resident = resident_bytes(self.path)
        while resident > limit:
            share = min(1.0, 1.1 * (resident - limit) / resident)
            for extent in rng.permutation(self.extents)[: max(1, int(share * self.extents))].tolist():
                first = extent * EXTENT
                length = min(EXTENT, len(self.mapped) - first)
                # A page that is mapped stays, so it is taken out of this process first.
                self.mapped.madvise(mmap.MADV_DONTNEED, first, length)
                os.posix_fadvise(self.descriptor, first, length, os.POSIX_FADV_DONTNEED)
            resident = resident_bytes(self.path)
        return found

    def fill(self, limit: int, rng: np.random.Generator) -> None:
        """Read extents, drawn at random, until as much is there as the limit allows: as in the middle of an epoch."""
        for extent in rng.permutation(self.extents).tolist():
            if resident_bytes(self.path) >= limit:
                return
            os.pread(self.descriptor, EXTENT, extent * EXTENT)

    def close(self) -> None:
        """Unmap."""
        del self.rows
        self.mapped.close()
        os.close(self.descriptor)


class LimitedGather(Arm):
    """Batches from one-hot and labels; the one-hot file is held to a part of the page cache.

    Holding it there stands outside of the arm's clock, though a kernel spends time on that too. The windows of a round go
    on where those of the round before ended, through one epoch after the other. The files are mapped for a round only: what
    any process maps cannot be put out by another.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.folder, self.limit = Path(options["folder"]), options["limit_mib"] * MIB
        self.input_length, self.window, self.steps = options["input_length"], options["window"], options["steps"]
        self.order = np.concatenate([np.load(self.folder / f"order-{epoch}.npy") for epoch in range(2)])
        self.rng = np.random.default_rng(1)
        self.bases = np.empty((BATCH, self.input_length, 4), dtype=np.float32)
        self.at = 0

    def map_files(self) -> None:
        """Map both."""
        self.one_hot = LimitedFile(self.folder / "one_hot.f32", np.float32, (self.input_length, 4))
        self.labels = LimitedFile(self.folder / "labels.i8", np.int8, (self.window,))

    def next_rows(self) -> np.ndarray:
        """Rows of the next batch."""
        rows = self.order[self.at : self.at + BATCH]
        self.at = (self.at + BATCH) % (len(self.order) - BATCH)
        return rows

    def gather(self, rows: np.ndarray) -> Any:
        """Take rows through the mapping, as a batched gather does that knows nothing of its limit."""
        return np.take(self.one_hot.rows, rows, axis=0, out=self.bases[: len(rows)], mode="clip")

    def batches(self) -> Iterator[Any]:
        """Gather for ever, holding to the limit before each batch."""
        with self.off_the_clock():
            self.map_files()
            self.one_hot.fill(self.limit, self.rng)
            self.one_hot.shrink(self.limit, self.rng)
        try:
            while True:
                with self.off_the_clock():
                    found = self.one_hot.shrink(self.limit, self.rng)
                    self.notes["most_resident_bytes"] = max(found, self.notes.get("most_resident_bytes", 0))
                rows = self.next_rows()
                yield self.gather(rows), self.labels.rows[rows]
        finally:
            with self.off_the_clock():
                self.one_hot.close()
                self.labels.close()

    def count(self, batch: Any) -> int:
        """Windows."""
        return len(batch[0])

    def files(self) -> list[Path]:
        """The two."""
        return [self.folder / "one_hot.f32", self.folder / "labels.i8"]


class LimitedReads(LimitedGather):
    """The same by a read for each window, from so many threads: what hides a disk's latency best."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        # Another epoch: rows that the other arm has just read would be found in memory.
        self.at = len(self.order) // 2

    def open(self) -> None:
        """Start the threads."""
        self.threads = ThreadPoolExecutor(READERS)

    def map_files(self) -> None:
        """Nothing is to be read but what is asked for."""
        super().map_files()
        os.posix_fadvise(self.one_hot.descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def gather(self, rows: np.ndarray) -> Any:
        """Read each row to its place in the batch."""
        n_bytes, out = self.bases[0].nbytes, self.bases[: len(rows)]

        def read(place: int) -> int:
            return os.preadv(self.one_hot.descriptor, [out[place]], int(rows[place]) * n_bytes)

        if set(self.threads.map(read, range(len(rows)))) != {n_bytes}:
            raise OSError(f"{self.one_hot.path}: a row is cut off")
        return out


class WholeDense(LimitedGather):
    """The dense files once through, without a limit: only to compare what they hold."""

    def batches(self) -> Iterator[Any]:
        """All rows in their order."""
        self.map_files()
        for first in range(0, len(self.labels.rows), BATCH):
            yield self.one_hot.rows[first : first + BATCH], self.labels.rows[first : first + BATCH]

    def spell(self, batch: Any) -> Spelled:
        """Codes from one-hot."""
        return Spelled(codes_of_one_hot(batch[0]), batch[1])


if __name__ == "__main__":
    serve(
        {
            "tokens": Tokens,
            "tokens_read_anew": Tokens,
            "one_hot": OneHot,
            "one_hot_read_anew": OneHot,
            "one_hot_dense_usage": OneHotDense,
            "one_hot_ncl": OneHotChannelsFirst,
            "memcpy": Floor,
            "gather": Gather,
            "gather_reused": GatherReused,
            "gather_ncl": GatherChannelsFirst,
            "gather_codes": GatherCodes,
            "per_sample": PerSample,
            "per_sample_ncl": PerSampleChannelsFirst,
            "splicevo": TableScan,
            "limited_gather": LimitedGather,
            "limited_reads": LimitedReads,
            "whole_dense": WholeDense,
        }
    )
