"""One batch: the same fields as numpy arrays or as torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

Array = TypeVar("Array")
"""``numpy.ndarray`` or ``torch.Tensor``."""
ARRAY_FIELDS = (
    "sequence", "label", "genome", "contig", "start", "strand", "window_id",
    "usage_row_window", "usage_row_position", "alpha", "beta", "condition_mask",
)  # fmt: skip
"""Arrays of a batch of windows."""


@dataclass(frozen=True, slots=True)
class RowBatch(Generic[Array]):
    """Rows of a stream stacked for one step: what batches of windows and of samples have in common."""

    step: int
    """Which global batch of the epoch this is (a part of)."""
    global_rows: int
    """Rows of the global batch over all ranks, repeated ones not counted: what a loss is normalised by."""

    arrays: ClassVar[tuple[str, ...]]
    """Names of the fields that are arrays."""
    row_arrays: ClassVar[tuple[str, ...]]
    """Those that joined batches concatenate as they are."""
    row_id: ClassVar[str]
    """The one that says which row it is, -1 for repeated rows."""

    def __len__(self) -> int:
        return len(getattr(self, self.row_id))

    @property
    def n_present(self) -> int:
        """Rows, repeated ones not counted."""
        return int((getattr(self, self.row_id) >= 0).sum())

    def map_arrays(self, function: Callable[[str, Array], Any]) -> Any:
        """Replace every array by ``function(name, array)``."""
        changed = {name: function(name, getattr(self, name)) for name in self.arrays}
        return replace(self, **changed)

    def to(self, device: Any, *, non_blocking: bool = False) -> Any:
        """Move the tensors to a device (torch batches only)."""
        return self.map_arrays(lambda _, tensor: tensor.to(device, non_blocking=non_blocking))  # type: ignore[attr-defined]

    def pin_memory(self) -> Any:
        """Copy the tensors to page-locked memory (torch batches only; ``DataLoader(pin_memory=True)`` calls it)."""
        return self.map_arrays(lambda _, tensor: tensor.pin_memory())  # type: ignore[attr-defined]

    def joined(self, others: Sequence[Self], concatenate: Callable[[list[Any]], Any]) -> Self:
        """Put the rows of other parts of the same global batch behind one's own."""
        parts = [self, *others]
        return replace(self, **{name: concatenate([getattr(p, name) for p in parts]) for name in self.row_arrays})


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(RowBatch[Array]):
    """Windows stacked for one step. B windows, input length L, centre W, C conditions, n usage rows.

    Everything is in transcript orientation: a window on the minus strand is reverse-complemented, and its labels
    and usage positions are counted from the end of its centre.
    """

    sequence: Array
    """(B, L) uint8: A C G T N = 0..4; N beyond the contig."""
    label: Array
    """(B, W) uint8: 0 none, 1 acceptor, 2 donor, 255 ignore (both kinds, beyond the contig, repeated row)."""
    genome: Array
    """(B,) int16, index into ``genome_names``."""
    contig: Array
    """(B,) int32, index into the genome's contigs."""
    start: Array
    """(B,) int64, absolute base where the centre starts, jitter included; contig offset + position."""
    strand: Array
    """(B,) int8, +1 or -1: the strand that was read, a random flip included."""
    window_id: Array
    """(B,) int64, row in the split's window table; -1 for rows repeated to fill the last batches."""
    usage_row_window: Array
    """(n,) int32, row in this batch; usage rows are sorted by (window, position)."""
    usage_row_position: Array
    """(n,) int32, position in the centre."""
    alpha: Array
    """(n, C) float32, reads that use the site; NaN = not measured."""
    beta: Array
    """(n, C) float32, reads that show it unused; NaN = not measured."""
    condition_mask: Array
    """(genomes, C) bool: the genome has the condition."""
    genome_names: tuple[str, ...]
    condition_names: tuple[str, ...]
    min_reads: float
    """Below this many reads (alpha + beta) an SSE is not measured."""

    arrays: ClassVar[tuple[str, ...]] = ARRAY_FIELDS
    row_arrays: ClassVar[tuple[str, ...]] = (
        "sequence", "label", "genome", "contig", "start", "strand", "window_id",
        "usage_row_position", "alpha", "beta",
    )  # fmt: skip
    row_id: ClassVar[str] = "window_id"

    def as_dict(self) -> dict[str, Any]:
        """Return the arrays, ``genome_names`` and ``condition_names`` by name, without copies."""
        return {name: getattr(self, name) for name in (*self.arrays, "genome_names", "condition_names")}

    def joined(self, others: Sequence[Self], concatenate: Callable[[list[Any]], Any]) -> Self:
        """Put the windows of other parts of the same global batch, and their usage, behind one's own."""
        parts = [self, *others]
        # Rows behind the first part count from where their part begins.
        begins = np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist()
        windows = [part.usage_row_window + begin for part, begin in zip(parts, begins, strict=True)]
        # The base class is named: a dataclass with slots is made twice, and ``super()`` knows the first.
        return replace(RowBatch.joined(self, others, concatenate), usage_row_window=concatenate(windows))


Part = TypeVar("Part", bound=RowBatch[Any])


def join_batches(parts: Sequence[Part], concatenate: Callable[[list[Any]], Any]) -> Part:
    """Join parts of one global batch, in order.

    Parameters
    ----------
    parts
        Parts of the same step, at least one.
    concatenate
        ``numpy.concatenate`` or ``torch.cat``.
    """
    first, *others = parts
    return first.joined(others, concatenate) if others else first
