"""Rows of a stream by block, and how many blocks are live: values made before anything is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from splicestore.stream.options import OrderOptions, Share

Int64 = NDArray[np.int64]

BLOCKS_A_LANE_TO_SHARE = 64
"""Below this many blocks a lane, ranks that own lanes would get unequal work: every rank reads all instead."""
BLOCKS_IN_FLIGHT = 16
"""Blocks read at once, and read ahead; enough to hide 30 ms of latency on one core."""
BYTES_IN_FLIGHT = 128 * 1024 * 1024
"""No more is read ahead while blocks of so many bytes in memory are: with hundreds of conditions a block is large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """Rows of a stream, numbered block by block: what its order is made of."""

    options: OrderOptions
    block_ptr: Int64
    """(n_blocks + 1,) int64, first row of each block; every block has at least one."""
    block_bytes: Int64
    """(n_blocks,) int64, at most what a block takes in memory."""
    live_total: int = 0
    """P, over all lanes."""
    share: Share = "lanes"

    rows_name: ClassVar[str] = "rows"
    """What rows are called where people read of them, as ``windows``."""

    @property
    def n_rows(self) -> int:
        """Rows of the stream."""
        return int(self.block_ptr[-1])

    @property
    def n_blocks(self) -> int:
        """Blocks with at least one row."""
        return len(self.block_bytes)

    def entries(self, epoch: int) -> Int64:
        """Blocks that enter the deal of an epoch, in order of the block table."""
        del epoch
        return np.arange(self.n_blocks, dtype=np.int64)


Plan = TypeVar("Plan", bound=BlockPlan)


def choose_live_blocks(block_bytes: Int64, lanes: int, memory: int) -> int:
    """Choose P, the live blocks over all lanes, from a budget in bytes.

    A lane holds up to P/lanes + 1 blocks, and ``BLOCKS_IN_FLIGHT`` are read ahead. The largest P is taken for which
    even the heaviest blocks fit, at least one a lane. Where all blocks fit there is no limit: P is then so large that
    every lane, whatever the deal, has all its blocks live.
    """
    heaviest = np.sort(block_bytes)[::-1]
    fitting = int(np.searchsorted(np.cumsum(heaviest), memory, side="right"))
    if fitting == len(block_bytes):
        return lanes * len(block_bytes)
    return lanes * max(1, (fitting - BLOCKS_IN_FLIGHT) // lanes - 1)


def assign_lanes(plan: Plan, options: OrderOptions) -> Plan:
    """Fix P and who reads what, for options that differ from the plan's in lanes, tail, share or memory only."""
    live_total = choose_live_blocks(plan.block_bytes, options.lanes, options.shuffle_memory)
    share: Share = "replicate" if plan.n_blocks < BLOCKS_A_LANE_TO_SHARE * options.lanes else "lanes"
    if options.share != "auto":
        share = options.share
    return replace(plan, options=options, live_total=live_total if options.shuffle else options.lanes, share=share)


def describe_plan(plan: BlockPlan) -> dict[str, Any]:
    """Sizes of a plan, for people and logs."""
    return {
        plan.rows_name: plan.n_rows,
        "blocks": plan.n_blocks,
        "live_blocks": min(plan.live_total, plan.n_blocks),
        "live_bytes": int(np.sort(plan.block_bytes)[::-1][: plan.live_total + plan.options.lanes].sum()),
        "share": plan.share,
    }
