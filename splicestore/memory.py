"""What a job may need and what it took: projected and observed peak memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

INTERPRETER_BYTES = 330 * 1024 * 1024
"""Python with numpy, pandas, zarr and dask imported, measured, plus a margin."""
TORCH_BYTES = 300 * 1024 * 1024
"""Torch imported on top, and a small network run on a CPU, measured, plus a margin."""


def observed_peak_bytes() -> int:
    """Peak resident set of this process so far, in bytes."""
    # Linux hands the peak of the parent on to a started program in ru_maxrss; VmHWM is the program's own.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def format_bytes(n: float) -> str:
    """Spell a size for people.

    Examples
    --------
    >>> format_bytes(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"
