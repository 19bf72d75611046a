"""What a stream is asked for, and whether that can be had; nothing of who reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from splicestore.errors import ConfigError, PlanError, WindowError, close_names
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_NAMES
from splicestore.stream.protocols import SplitSource

LANES_DEFAULT = 8
Tail = Literal["short", "pad", "drop"]
Share = Literal["lanes", "replicate"]
TAILS = ("short", "pad", "drop")
SHARES = ("auto", "lanes", "replicate")
WINDOW_CLASSES = ("site", "gene", "geneless")
"""A window has a splice site on its strand, or else meets a gene, or neither."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """All that decides which windows come, in what order and cut how; nothing of who reads them."""

    subset: str
    batch_size: int
    """Windows of a global batch, over all ranks."""
    seed: int
    window_size: int
    context_size: int
    lanes: int
    tail: Tail
    shuffle: bool
    shuffle_memory: int
    """Bytes that the live blocks of all lanes may take together."""
    genomes: tuple[str, ...]
    """Genomes streamed, in the order of the split."""
    conditions: tuple[str, ...] | None
    """Chosen conditions in their order, None for all."""
    chromosomes: Mapping[str, tuple[str, ...]] | tuple[str, ...] | None
    """Names of chromosomes, of all genomes or by genome; None for all."""
    geneless: float
    """Share of the windows without a gene that are kept, in [0, 1]."""
    siteless: float
    """Share of the windows without a splice site on their strand that are kept, in [0, 1]."""
    max_n: float
    """Largest share of N in a window's input, bases beyond the contig included, in [0, 1]; 1: no limit."""
    min_coverage: float
    """Reads (alpha + beta) that some site of a window must have in some chosen condition; 0: no limit."""
    window_weights: Mapping[str, float]
    """How often windows of a class enter an epoch: site, gene, geneless."""
    genome_weights: Mapping[str, float]
    jitter: int
    """Largest shift of a window, in bp."""
    reverse_complement: bool
    """Read a random half of the windows from the other strand."""
    share: Literal["auto", "lanes", "replicate"]
    min_reads: float

    @property
    def flank(self) -> int:
        """Bases before the centre that a window may need, in bp: context and jitter."""
        return self.context_size + self.jitter

    @property
    def input_length(self) -> int:
        """L, in bp."""
        return self.window_size + 2 * self.context_size


def check_options(options: StreamOptions, split: SplitSource) -> None:
    """Refuse options that contradict each other or the split.

    Raises
    ------
    ConfigError
        For a value outside its range.
    WindowError
        Where context and jitter reach further than the split was guarded for.
    PlanError
        Where batches cannot be divided into lanes.
    """
    streamed = [name for code, name in enumerate(SUBSET_NAMES) if code != SUBSET_EXCLUDED]
    if options.subset not in streamed:
        raise ConfigError(f"subset must be one of {', '.join(streamed)}, got {options.subset!r}")
    for value, allowed, name in ((options.tail, TAILS, "tail"), (options.share, SHARES, "share")):
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if not 0 <= options.seed < 2**64:
        raise ConfigError(f"seed must lie in [0, 2**64), got {options.seed}")
    for name in ("geneless", "siteless", "max_n"):
        if not 0.0 <= getattr(options, name) <= 1.0:
            raise ConfigError(f"{name} is a share and lies in [0, 1], got {getattr(options, name)}")
    if not 0 <= options.min_coverage < math.inf:
        raise ConfigError(f"min_coverage is in reads, from 0 on; got {options.min_coverage}")
    _check_weights(options)
    if options.context_size < 0 or options.jitter < 0:
        raise ConfigError(f"context_size and jitter are in bp, from 0 on; got {options.context_size}, {options.jitter}")
    if options.flank > split.context_size:
        raise WindowError(
            f"split {split.name}: context_size {options.context_size} + jitter {options.jitter} reach {options.flank} bp "
            f"beyond a window, but its guard kept {split.context_size} bp apart from other subsets; give a context_size of at "
            f"most {max(0, split.context_size - options.jitter)}, or split again with a larger context"
        )
    if options.lanes < 1 or options.batch_size < 1 or options.batch_size % options.lanes:
        raise PlanError(
            f"batch_size {options.batch_size} is not a multiple of lanes {options.lanes}; a batch takes equally many windows of "
            f"each lane, so take {max(1, round(options.batch_size / max(1, options.lanes))) * max(1, options.lanes)} or other lanes"
        )
    if options.shuffle_memory < 1:
        raise ConfigError(f"shuffle_memory is in bytes and positive, got {options.shuffle_memory}")


def _check_weights(options: StreamOptions) -> None:
    for what in ("genome_weights", "window_weights"):
        for name, weight in getattr(options, what).items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"{what}[{name!r}] must be 0 or more, got {weight}")
    for name in options.window_weights:
        if name not in WINDOW_CLASSES:
            raise ConfigError(f"window_weights has no class {name!r}; {close_names(name, WINDOW_CLASSES)}")
