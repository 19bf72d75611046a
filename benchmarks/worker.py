"""The working end of ``piped.py``: makes an arm, then checks or times it whenever a line asks for that. Needs numpy only.

What is timed is what is checked: an arm is one generator of batches, and one function that spells a batch in common terms.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IGNORE = 255
PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class Spelled:
    """Windows of a batch in common terms."""

    codes: np.ndarray
    """(B, L) uint8, A C G T N = 0..4."""
    labels: np.ndarray | None = None
    """(B, W); the ignore code counts as 0, the dense formats have none."""
    sse: np.ndarray | None = None
    """(B, W, C) float32, NaN = not measured."""


class Arm:
    """What a script's arms derive from."""

    epochs = 1
    """Passes over the windows in a round."""
    steps: int | None = None
    """Batches of a pass that are timed; None for all. Slow arms need not deliver a whole epoch seven times."""
    off_wall = off_cpu = 0.0
    """Seconds that are not the arm's."""

    notes: dict[str, int]
    """What the arm adds to the answer of a round."""

    @contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """Do what is not part of delivering windows."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.off_wall += time.perf_counter() - wall
        self.off_cpu += time.process_time() - cpu

    def open(self) -> None:
        """Open the files; called before the first batch and after each ``close``."""

    def close(self) -> None:
        """Let go of everything that was read or mapped."""

    def batches(self) -> Iterator[Any]:
        """Deliver the windows once, as this way of reading them does."""
        raise NotImplementedError("an arm delivers batches")

    def count(self, batch: Any) -> int:
        """Windows of a batch."""
        return len(batch)

    def spell(self, batch: Any) -> Spelled:
        """Spell a batch for the comparison."""
        raise NotImplementedError("an arm spells its batches")

    def files(self) -> list[Path]:
        """What it reads."""
        return []


def codes_of_one_hot(one_hot: np.ndarray) -> np.ndarray:
    """Return the codes of (B, L, 4); a row of zeros is N."""
    codes = one_hot.argmax(axis=-1).astype(np.uint8)
    codes[~one_hot.any(axis=-1)] = 4
    return codes


def files_below(path: Path) -> list[Path]:
    """All files of a folder, or the file."""
    return [p for p in sorted(path.rglob("*")) if p.is_file()] if path.is_dir() else [path]


# -- what a worker does ------------------------------------------------------------------------------------------


def check(arm: Arm) -> dict[str, Any]:
    """Digest the windows of one pass, whatever their order: the sum of the windows' digests."""
    sums: dict[str, int] = {}
    n = 0
    for batch in arm.batches():
        spelled = arm.spell(batch)
        n += len(spelled.codes)
        for row in range(len(spelled.codes)):
            digest = hashlib.blake2b(spelled.codes[row].tobytes(), digest_size=8)
            _add(sums, "bases", digest)
            if spelled.labels is not None:
                labels = spelled.labels[row].astype(np.uint8)
                digest.update(np.where(labels == IGNORE, 0, labels).astype(np.uint8).tobytes())
                _add(sums, "labels", digest)
            if spelled.sse is not None:
                # One NaN for all: their bits may differ.
                digest.update(np.nan_to_num(spelled.sse[row].astype(np.float32), nan=-1.0).tobytes())
                _add(sums, "usage", digest)
    sizes = [path.stat().st_size for path in arm.files()]
    return {"windows": n, "disk_bytes": sum(sizes), **{k: f"{v % 2**64:016x}" for k, v in sums.items()}}


def _add(sums: dict[str, int], field: str, digest: Any) -> None:
    sums[field] = sums.get(field, 0) + int.from_bytes(digest.digest(), "big")


def timed_round(arm: Arm, epochs: int) -> dict[str, Any]:
    """Deliver the windows ``epochs`` times."""
    n, read = 0, bytes_from_storage()
    arm.off_wall = arm.off_cpu = 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(epochs):
        for batch in itertools.islice(arm.batches(), arm.steps):
            n += arm.count(batch)
    wall, cpu = time.perf_counter() - wall - arm.off_wall, time.process_time() - cpu - arm.off_cpu
    read_bytes = bytes_from_storage() - read
    return {
        "windows": n,
        "wall_s": wall,
        "cpu_s": cpu,
        "read_bytes": read_bytes,
        "peak_bytes": peak_bytes(),
        **arm.notes,
    }


def cold_round(arm: Arm) -> dict[str, Any]:
    """Put the files of a closed arm out of the page cache, then time one pass; what stayed there is said."""
    kept = evict(arm.files())
    arm.open()
    found = timed_round(arm, 1)
    arm.close()
    return {**found, "kept_bytes": kept}


def close(arm: Arm) -> dict[str, Any]:
    """Close the arm: a file that any process maps stays in the page cache."""
    arm.close()
    return {}


def serve(arms: Mapping[str, Callable[[dict[str, Any]], Arm]]) -> None:
    """Make the arm that the command line names and answer until the pipe closes."""
    name, options = sys.argv[1], json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    arm = arms[name](options)
    arm.notes = {}
    arm.open()
    actions = {
        "check": lambda: check(arm),
        "round": lambda: timed_round(arm, arm.epochs),
        "close": lambda: close(arm),
        "cold": lambda: cold_round(arm),
    }
    for line in sys.stdin:
        answers.write(json.dumps(actions[line.strip()]()) + "\n")
        answers.flush()


# -- what the kernel knows ---------------------------------------------------------------------------------------


def peak_bytes() -> int | None:
    """Largest resident set of this program, mapped pages of files included; None where the kernel does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def bytes_from_storage() -> int:
    """Bytes that this process made the kernel read from a device; 0 where it does not say."""
    counts = Path("/proc/self/io")
    lines = counts.read_text().splitlines() if counts.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes")), 0)


def evict(files: list[Path]) -> int:
    """Put files out of the page cache; return the bytes that stayed (written ones not on disk yet, or mapped)."""
    os.sync()
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return sum(resident_bytes(path) for path in files)


def resident_bytes(path: Path) -> int:
    """Bytes of a file that are in the page cache, by ``mincore``."""
    size = path.stat().st_size
    if not size:
        return 0
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), size, prot=mmap.PROT_READ) as mapped:
        # Mapping a file reads nothing, so looking does not change what is seen.
        seen = np.frombuffer(mapped, np.uint8)
        pages = np.zeros(-(-size // PAGE), dtype=np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        address = ctypes.c_void_p(seen.ctypes.data)
        if libc.mincore(address, ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data)):
            raise OSError(ctypes.get_errno(), f"mincore of {path}")
        del seen
    return int((pages & 1).sum()) * PAGE
