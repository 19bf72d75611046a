"""One batch of windows: the same fields as numpy arrays or as torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

Array = TypeVar("Array")
"""``numpy.ndarray`` or ``torch.Tensor``."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[Array]):
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
    step: int
    """Which global batch of the epoch this is (a part of)."""
    global_rows: int
    """Windows in the global batch over all ranks, repeated rows not counted: what a loss is normalised by."""
    min_reads: float
    """Below this many reads (alpha + beta) an SSE is not measured."""

    def __len__(self) -> int:
        return len(self.window_id)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """Return the arrays, ``genome_names`` and ``condition_names`` by name, without copies."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _BOOKKEEPING}

    def map_arrays(self, function: Callable[[str, Array], Any]) -> Batch[Any]:
        """Replace every array by ``function(name, array)``."""
        arrays = {name: function(name, getattr(self, name)) for name in ARRAY_FIELDS}
        return Batch(**arrays, **{name: getattr(self, name) for name in (*_NAMES, *_BOOKKEEPING)})

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch[Any]:
        """Move the tensors to a device (torch batches only)."""
        return self.map_arrays(lambda _, tensor: tensor.to(device, non_blocking=non_blocking))  # type: ignore[attr-defined]

    def pin_memory(self) -> Batch[Any]:
        """Copy the tensors to page-locked memory (torch batches only; ``DataLoader(pin_memory=True)`` calls it)."""
        return self.map_arrays(lambda _, tensor: tensor.pin_memory())  # type: ignore[attr-defined]


_BOOKKEEPING = ("step", "global_rows", "min_reads")
_NAMES = ("genome_names", "condition_names")
ARRAY_FIELDS = tuple(f.name for f in fields(Batch) if f.name not in (*_BOOKKEEPING, *_NAMES))
ROW_FIELDS = ("sequence", "label", "genome", "contig", "start", "strand", "window_id")
"""Fields with one row a window; joined batches concatenate them."""
USAGE_FIELDS = ("usage_row_position", "alpha", "beta")
"""Fields with one row a measured site; joined batches concatenate them."""


def join_batches(parts: list[Batch[Any]], concatenate: Callable[[list[Any]], Any]) -> Batch[Any]:
    """Join parts of one global batch, in order.

    Parameters
    ----------
    parts
        Parts of the same step, at least one.
    concatenate
        ``numpy.concatenate`` or ``torch.cat``.
    """
    if len(parts) == 1:
        return parts[0]
    # Rows behind the first part count from where their part begins.
    begins = [0]
    for part in parts[:-1]:
        begins.append(begins[-1] + len(part))
    joined: dict[str, Any] = {
        name: concatenate([getattr(p, name) for p in parts]) for name in (*ROW_FIELDS, *USAGE_FIELDS)
    }
    joined["usage_row_window"] = concatenate(
        [p.usage_row_window + begin for p, begin in zip(parts, begins, strict=True)]
    )
    first = parts[0]
    kept = {f.name: getattr(first, f.name) for f in fields(first) if f.name not in joined}
    return Batch(**joined, **kept)
