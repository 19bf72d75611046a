"""Small random batches, and a stream of learnable windows in memory."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from splicestore.kernels.sequence import encode_bases
from splicestore.stream.batch import Batch

WINDOW, CONTEXT = 60, 24


def random_batch(
    seed: int = 0,
    *,
    n: int = 4,
    window: int = WINDOW,
    context: int = CONTEXT,
    conditions: tuple[str, ...] = ("brain", "liver"),
    genomes: tuple[str, ...] = ("hen", "cow"),
    padded: int = 0,
    site_rate: float = 0.1,
) -> Batch[torch.Tensor]:
    """Random bases, labels and usage; the last ``padded`` rows repeat the first and have window_id -1."""
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 2, 255], p=[1 - 2.5 * site_rate, site_rate, site_rate, site_rate / 2], size=(n, window))
    row_window, row_position = np.nonzero((label == 1) | (label == 2))
    shape = (len(row_window), len(conditions))
    alpha, beta = rng.poisson(8, size=shape).astype(np.float32), rng.poisson(8, size=shape).astype(np.float32)
    missing = rng.random(shape) < 0.2
    alpha[missing] = beta[missing] = np.nan
    mask = np.ones((len(genomes), len(conditions)), dtype=bool)
    mask[-1, -1:] = len(genomes) == 1
    window_id = np.arange(n) + 100 * seed
    if padded:
        label[-padded:] = label[:padded]
        window_id[-padded:] = -1
    values: dict[str, Any] = {
        "sequence": rng.integers(0, 5, size=(n, window + 2 * context)).astype(np.uint8),
        "label": label.astype(np.uint8),
        "genome": rng.integers(0, len(genomes), size=n).astype(np.int16),
        "contig": np.zeros(n, dtype=np.int32),
        "start": np.arange(n, dtype=np.int64) * window,
        "strand": rng.choice([1, -1], size=n).astype(np.int8),
        "window_id": window_id.astype(np.int64),
        "usage_row_window": row_window.astype(np.int32),
        "usage_row_position": row_position.astype(np.int32),
        "alpha": alpha, "beta": beta, "condition_mask": mask,
    }  # fmt: skip
    tensors = {name: torch.from_numpy(array) for name, array in values.items()}
    return Batch(
        **tensors, genome_names=genomes, condition_names=conditions, step=0, global_rows=n - padded, min_reads=10
    )


def planted_batch(seed: int, n: int = 16) -> Batch[torch.Tensor]:
    """Random windows with an acceptor and a donor planted in each, and usage that a base of the donor decides."""
    rng = np.random.default_rng([7, seed])
    batch = random_batch(seed, n=n, conditions=("brain",), genomes=("hen",))
    codes = rng.integers(0, 4, size=batch.sequence.shape).astype(np.uint8)
    label = np.zeros((n, WINDOW), dtype=np.uint8)
    acceptor, donor = encode_bases(b"TTCTTTTTCTTTTTTTACAGG"), encode_bases(b"CAGGTAAGT")
    positions, alpha = [], []
    for row in range(n):
        a, d = int(rng.integers(2, 20)), int(rng.integers(35, 50))
        label[row, a], label[row, d] = 1, 2
        codes[row, CONTEXT + a - 20 : CONTEXT + a + 1] = acceptor
        codes[row, CONTEXT + d - 2 : CONTEXT + d + 7] = donor
        weak = bool(rng.integers(2))
        codes[row, CONTEXT + d + 5] = 1 if weak else 2
        positions += [d]
        alpha += [10.0 if weak else 38.0]
    values = np.array(alpha, dtype=np.float32)[:, None]
    return Batch(
        **{
            **batch.as_dict(),
            "sequence": torch.from_numpy(codes),
            "label": torch.from_numpy(label),
            "usage_row_window": torch.arange(n, dtype=torch.int32),
            "usage_row_position": torch.tensor(positions, dtype=torch.int32),
            "alpha": torch.from_numpy(values),
            "beta": torch.from_numpy(40 - values),
        },
        step=0, global_rows=n, min_reads=10,
    )  # fmt: skip


@dataclass
class PlantedStream:
    """Batches made from (seed, epoch, step), with the state of a ``WindowStream``."""

    n_batches: int = 8
    seed: int = 0
    rows: tuple[int, int] = (0, 1 << 30)
    """Rows of every batch that this rank gets: first, last."""

    def __post_init__(self) -> None:
        self.condition_names = ("brain",)
        self.plan = SimpleNamespace(options=SimpleNamespace(window_size=WINDOW, context_size=CONTEXT))
        self.epoch = self.step = self.resume_at = self.n_given = 0

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self):
        first, self.resume_at = self.resume_at, 0
        self.step = first
        for step in range(first, self.n_batches):
            batch = planted_batch(self.seed * 10_000 + self.epoch * 100 + step)
            self.step, self.n_given = step + 1, self.n_given + 1
            yield take_rows(batch, slice(*self.rows))

    def to_device(self, device: torch.device):
        return self

    def statistics(self) -> dict[str, float]:
        """A tenth of a second was waited for each batch."""
        return {"waiting_seconds": self.n_given / 10}

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.step, self.resume_at = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: Any) -> None:
        assert state["seed"] == self.seed
        self.epoch, self.step, self.resume_at = state["epoch"], state["step"], state["step"]


def take_rows(batch: Batch[torch.Tensor], rows: slice) -> Batch[torch.Tensor]:
    """Keep some windows of a batch; ``global_rows`` stays."""
    kept = torch.arange(len(batch))[rows]
    place = torch.full((len(batch),), -1)
    place[kept] = torch.arange(len(kept))
    usage = place[batch.usage_row_window.long()] >= 0

    def cut(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "condition_mask":
            return tensor
        if name == "usage_row_window":
            return place[tensor.long()][usage].to(tensor.dtype)
        return tensor[usage] if name in ("usage_row_position", "alpha", "beta") else tensor[rows]

    return batch.map_arrays(cut)
