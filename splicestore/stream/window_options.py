"""What a stream of windows is asked for, and whether that can be had; nothing of who reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from splicestore.errors import ConfigError, WindowError, close_names
from splicestore.stream.options import OrderOptions, check_order, check_subset
from splicestore.stream.protocols import SplitSource

WINDOW_CLASSES = ("site", "gene", "geneless")
"""A window has a splice site on its strand, or else meets a gene, or neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOptions(OrderOptions):
    """All that decides which windows come, in what order and cut how; nothing of who reads them."""

    window_size: int
    context_size: int
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
    min_reads: float

    @property
    def flank(self) -> int:
        """Bases before the centre that a window may need, in bp: context and jitter."""
        return self.context_size + self.jitter

    @property
    def input_length(self) -> int:
        """L, in bp."""
        return self.window_size + 2 * self.context_size


def check_options(options: WindowOptions, split: SplitSource) -> None:
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
    check_subset(options.subset)
    check_order(options, "windows")
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


def _check_weights(options: WindowOptions) -> None:
    for what in ("genome_weights", "window_weights"):
        for name, weight in getattr(options, what).items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"{what}[{name!r}] must be 0 or more, got {weight}")
    for name in options.window_weights:
        if name not in WINDOW_CLASSES:
            raise ConfigError(f"window_weights has no class {name!r}; {close_names(name, WINDOW_CLASSES)}")
