"""torchdata's StatefulDataLoader over a stream: any item, with workers or without, gives the same rest."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("torchdata", reason="torchdata is not installed: pip install torchdata")

REPOSITORY = Path(__file__).resolve().parents[3]

# Workers are forked before this process reads; spawned ones would import torch once more each, for every place.
SCRIPT = """
    import json

    import torch
    from torchdata.stateful_dataloader import StatefulDataLoader

    from splicestore.stream import WindowStream
    from splicestore.stream.batch import join_batches
    from tests.unit.stream.memory_store import table_store

    def make(workers, state=None):
        stream = WindowStream(table_store([[30, 20, 7], [9] * 8]), split="run1", batch_size=16, seed=3, jitter=2, context_size=2)
        context = "fork" if workers else None
        loader = StatefulDataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=context)
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        return stream, loader

    def ids(batches):
        return [(batch.step, batch.window_id.tolist(), batch.start.tolist()) for batch in batches]

    def check_every_place(workers, epoch):
        stream, loader = make(workers)
        stream.set_epoch(epoch)
        items, states = [], [loader.state_dict()]
        for item in loader:
            items.append(item)
            states.append(loader.state_dict())
        for place, state in enumerate(states):
            resumed, rest = make(workers, state)
            assert ids(rest) == ids(items[place:]), place
        resumed.set_epoch(epoch + 1)
        following, after = make(workers)
        following.set_epoch(epoch + 1)
        assert ids(rest) == ids(after)
        return items

    parts = check_every_place(2, epoch=1)
    whole = check_every_place(0, epoch=1)
    assert len(parts) == 2 * len(whole)
    joined = [join_batches(list(pair), torch.cat) for pair in zip(parts[::2], parts[1::2])]
    assert ids(joined) == ids(whole)
    plain, _ = make(0)
    plain.set_epoch(1)
    assert ids(plain) == ids(whole)
    print(len(whole))
"""


def test_a_restored_loader_goes_on_at_every_item():
    """With two workers an item is a part of a batch: the two of one step make the batch."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
