"""A loader one of whose workers is killed, for a test that looks on from outside: prints what the consumer met as JSON.

python -m tests.service.killed_worker URL
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from splicestore.store import open_store
from splicestore.stream import WindowStream

STREAM: dict[str, Any] = {"split": "run1", "batch_size": 128, "shuffle_memory": 1 << 24}
KILL_AFTER = 4


def workers() -> list[int]:
    """Children of this process that run a loader's worker, not multiprocessing's own helpers."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def main(url: str) -> None:
    stream = WindowStream(open_store(url), **STREAM)
    batches, error = [], ""
    try:
        for batch in stream.loader(num_workers=2, prefetch_factor=1):
            batches.append(batch.window_id.tolist())
            if len(batches) == KILL_AFTER:
                os.kill(workers()[0], signal.SIGKILL)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    print(json.dumps({"batches": batches, "error": error, "state": stream.state_dict(), "left": workers()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
