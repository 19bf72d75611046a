"""What a stream has done and how long its consumer waited for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class StreamStatistics:
    """Counts of one process since the stream was made there."""

    batches: int = 0
    rows: int = 0
    """Repeated ones not counted."""
    bytes: int = 0
    """Decoded bytes read."""
    blocks_read: int = 0
    cache_hits: int = 0
    """Blocks that a batch needed and found in memory."""
    cache_misses: int = 0
    """Blocks that a batch needed and had to wait for or take over from those read ahead."""
    live_blocks: int = 0
    """Blocks in memory at the last batch."""
    live_blocks_peak: int = 0
    seconds: float = 0.0
    """From asking for the first batch of an iteration to its end, over all iterations."""
    waiting_seconds: float = 0.0
    """Of those, spent inside the stream: the consumer waited."""
    reading_seconds: float = 0.0
    """Of those, blocked on a block that was not read yet."""

    def as_dict(self, rows: str) -> dict[str, Any]:
        """Return the counts by name, with what follows from them; ``rows`` is what rows are called, as ``windows``."""
        return {
            **{rows if name == "rows" else name: value for name, value in asdict(self).items()},
            "batches_per_second": self.batches / self.seconds if self.seconds > 0 else 0.0,
            "waiting_share": self.waiting_seconds / self.seconds if self.seconds > 0 else 0.0,
        }
