"""What decides the order of any stream, and whether that can be had; nothing of what its rows are or who reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from splicestore.errors import ConfigError, PlanError
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_NAMES

LANES_DEFAULT = 8
SHUFFLE_MEMORY_DEFAULT = 512 * 1024 * 1024
Tail = Literal["short", "pad", "drop"]
Share = Literal["lanes", "replicate"]
TAILS = ("short", "pad", "drop")
SHARES = ("auto", "lanes", "replicate")
SUBSETS_STREAMED = tuple(name for code, name in enumerate(SUBSET_NAMES) if code != SUBSET_EXCLUDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderOptions:
    """All that decides in what order rows come; nothing of who reads them."""

    subset: str
    batch_size: int
    """Rows of a global batch, over all ranks."""
    seed: int
    lanes: int
    tail: Tail
    shuffle: bool
    shuffle_memory: int
    """Bytes that the live blocks of all lanes may take together."""
    share: Literal["auto", "lanes", "replicate"]


def default_lanes(world_size: int, shuffle: bool) -> int:
    """Lanes where none are asked for: 8, or the world size rounded up to a multiple of 8; without shuffling one a rank."""
    if not shuffle:
        return world_size
    return max(LANES_DEFAULT, -(-world_size // LANES_DEFAULT) * LANES_DEFAULT)


def check_subset(subset: str) -> None:
    """Refuse a subset that no split has, or that nobody streams.

    Raises
    ------
    ConfigError
        For such a one.
    """
    if subset not in SUBSETS_STREAMED:
        raise ConfigError(f"subset must be one of {', '.join(SUBSETS_STREAMED)}, got {subset!r}")


def check_order(options: OrderOptions, rows: str) -> None:
    """Refuse options of an order that contradict each other; ``rows`` is what they are called, as ``windows``.

    Raises
    ------
    ConfigError
        For a value outside its range.
    PlanError
        Where batches cannot be divided into lanes.
    """
    for value, allowed, name in (
        (options.tail, TAILS, "tail"),
        (options.share, SHARES, "share"),
    ):
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if not 0 <= options.seed < 2**64:
        raise ConfigError(f"seed must lie in [0, 2**64), got {options.seed}")
    if options.lanes < 1 or options.batch_size < 1 or options.batch_size % options.lanes:
        raise PlanError(
            f"batch_size {options.batch_size} is not a multiple of lanes {options.lanes}; a batch takes equally many {rows} of "
            f"each lane, so take {max(1, round(options.batch_size / max(1, options.lanes))) * max(1, options.lanes)} or other lanes"
        )
    if options.shuffle_memory < 1:
        raise ConfigError(f"shuffle_memory is in bytes and positive, got {options.shuffle_memory}")
