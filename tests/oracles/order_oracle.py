"""Epoch order, contract section 4, with Python integers and `sorted`.

A block is a row of the block table: (genome, block number), sorted, only those with a window of the subset. Its
windows are ids in the order of the window table.
"""

from __future__ import annotations

import numpy as np

PURPOSE_DEAL, PURPOSE_PHASE, PURPOSE_RANK, PURPOSE_JITTER = 0, 1, 2, 3
T = 2**20
BLOCK_SIZE = 2**20
KEY_LIMIT = 2**27


def raw_draws(seed: int, epoch: int, block: int, purpose: int, m: int) -> list[int]:
    """m raw 64-bit numbers of Philox(key=[seed, epoch], counter=[0, 0, block, purpose])."""
    generator = np.random.Philox(
        key=np.array([seed, epoch], dtype=np.uint64), counter=np.array([0, 0, block, purpose], dtype=np.uint64)
    )
    return [int(value) for value in generator.random_raw(m)]


def stable_argsort(values: list[int]) -> list[int]:
    """Places of the values from the smallest up; equal values in their order."""
    return sorted(range(len(values)), key=lambda place: (values[place], place))


def window_block(contig_offset: int, start: int, context_size: int, jitter: int = 0) -> int:
    """Number of the 1 MiB block where the input (context and jitter included) starts, clamped to the contig.

    `start` is the contig position of the centre.
    """
    return (contig_offset + max(0, start - context_size - jitter)) // BLOCK_SIZE


def block_table(placed: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """From (genome, block number) of each window of the subset, in table order: the sorted blocks and their windows.

    The windows are given by their place in `placed`.
    """
    blocks = sorted(set(placed))
    return blocks, [[row for row, place in enumerate(placed) if place == block] for block in blocks]


def deal(sizes: list[int], lanes: int, seed: int, epoch: int, entries: list[int] | None = None) -> list[list[int]]:
    """Blocks (rows of the table) of each lane: in permuted order each goes to the lane with the fewest windows.

    `sizes` are windows a block; ties go to the lowest lane. `entries` are the rows that enter the deal when weights
    repeat or omit some; by default every row once.
    """
    entries = list(range(len(sizes))) if entries is None else entries
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    load = [0] * lanes
    for place in stable_argsort(raw_draws(seed, epoch, 0, PURPOSE_DEAL, len(entries))):
        block = entries[place]
        lane = min(range(lanes), key=lambda number: (load[number], number))
        dealt[lane].append(block)
        load[lane] += sizes[block]
    return dealt


def phase(seed: int, epoch: int, block: int) -> int:
    """f_i: the top 16 bits of the block's draw."""
    return raw_draws(seed, epoch, block, PURPOSE_PHASE, 1)[0] >> 48


def windows_by_rank(seed: int, epoch: int, block: int, n_windows: int) -> list[int]:
    """Entry r is the window (place in the block, in table order) of rank r."""
    return stable_argsort(raw_draws(seed, epoch, block, PURPOSE_RANK, n_windows))


def lane_live_blocks(total: int, lanes: int, sizes: list[int]) -> int:
    """P of one lane: its share of the total, at least 1, at most its n blocks, and so that n_i * P < 2^27."""
    live = min(max(1, total // lanes), len(sizes))
    while live > 1 and max(sizes) * live >= KEY_LIMIT:
        live -= 1
    return live


def window_key(i: int, r: int, f: int, n_i: int, live: int, n: int) -> int:
    """Key of the window of rank r of n_i in block i of a lane of n blocks with `live` of them live."""
    return (i * T + ((r << 16) + f) * live * T // (n_i << 16)) % (n * T)


def lane_order(
    blocks: list[int], sizes: list[int], live_total: int, lanes: int, seed: int, epoch: int
) -> list[tuple[int, int]]:
    """(block row, place of the window in the block) of a lane in the order of the keys; ties by (i, r)."""
    if not blocks:
        return []
    live = lane_live_blocks(live_total, lanes, [sizes[block] for block in blocks])
    keyed = []
    for i, block in enumerate(blocks):
        f = phase(seed, epoch, block)
        for r, place in enumerate(windows_by_rank(seed, epoch, block, sizes[block])):
            keyed.append((window_key(i, r, f, sizes[block], live, len(blocks)), i, r, block, place))
    return [(block, place) for _, _, _, block, place in sorted(keyed)]


def epoch_lanes(
    windows: list[list[int]], lanes: int, live_total: int, seed: int, epoch: int, entries: list[int] | None = None
) -> list[list[int]]:
    """Window ids of every lane in order; `windows[b]` are the ids of block b in table order."""
    sizes = [len(ids) for ids in windows]
    return [
        [windows[block][place] for block, place in lane_order(blocks, sizes, live_total, lanes, seed, epoch)]
        for blocks in deal(sizes, lanes, seed, epoch, entries)
    ]


def n_steps(lane_lengths: list[int], batch_size: int, tail: str = "short") -> int:
    """Global batches of an epoch: until the last lane is exhausted, or with "drop" until the first cannot fill its share."""
    share = batch_size // len(lane_lengths)
    if tail == "drop":
        return min(length // share for length in lane_lengths)
    return max(-(-length // share) for length in lane_lengths)


def batch(
    ordered: list[list[int]], batch_size: int, step: int, *, rank: int = 0, world: int = 1, tail: str = "short"
) -> list[int]:
    """Window ids that a rank yields at global batch `step`: lanes rank, rank + world, ..., each batch/lanes windows.

    "short": exhausted lanes give no rows. "pad": -1 for the missing rows of a lane, behind its real ones.
    """
    lanes = len(ordered)
    if batch_size % lanes or lanes % world:
        raise ValueError("batch_size is a multiple of lanes, world divides lanes")
    share = batch_size // lanes
    ids = []
    for lane in range(rank, lanes, world):
        piece = ordered[lane][step * share : (step + 1) * share]
        ids += piece + [-1] * (share - len(piece) if tail == "pad" else 0)
    return ids


def epoch_batches(
    ordered: list[list[int]], batch_size: int, *, rank: int = 0, world: int = 1, tail: str = "short"
) -> list[list[int]]:
    """All batches of a rank; every rank has the same number of steps."""
    steps = n_steps([len(lane) for lane in ordered], batch_size, tail)
    return [batch(ordered, batch_size, step, rank=rank, world=world, tail=tail) for step in range(steps)]
