"""Streaming needs no torch: numpy batches, their statistics and state, and lanes on workers where it cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from splicestore import open_store
from splicestore.stream import WindowBatches
from tests.servers.process import REPOSITORY
from tests.service.remote import SPLIT, check, cli
from tests.service.study import write_study

SCRIPT = """
import json, os, sys
from splicestore import open_store
from splicestore.cluster import open_executor
from splicestore.stream import WindowBatches, WindowLanes

def ids(batches):
    return os.getpid(), [batch.window_id.tolist() for batch in batches]

if __name__ == "__main__":
    store = open_store(sys.argv[1])
    stream = WindowBatches(store, split="run1", batch_size=8, seed=3, siteless=0.5, max_n=0.9, reuse_buffers=2)
    batches = [batch.window_id.tolist() for batch in stream]
    state = stream.state_dict()
    state["step"] = 2
    stream.load_state_dict(json.loads(json.dumps(state)))
    tail = [batch.as_dict()["window_id"].tolist() for batch in stream]
    stream.set_epoch(1)
    n_windows = sum(len(batch) for batch in stream)
    statistics = stream.statistics()
    stream.close()
    lanes = WindowLanes(store, split="run1", subset="test", batch_size=4)
    with open_executor("processes:2") as executor:
        values = list(lanes.map(ids, executor, memory=lanes.task_bytes))
    print(json.dumps({"batches": batches, "tail": tail, "n_windows": n_windows, "statistics": statistics,
                      "lanes": [value for _, value in values], "pids": [pid for pid, _ in values], "pid": os.getpid(),
                      "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder / "in", n_genomes=3)
    check(cli("ingest", "genomes", folder / "store", folder / "in" / "genomes.json"))
    words = ("--orthology", folder / "in" / "orthologs.tsv", *SPLIT)
    check(cli("split", "windows", folder / "store", "run1", *words))
    return folder


@pytest.fixture(scope="module")
def found(study, tmp_path_factory):
    """What the script prints where ``import torch`` fails, in it and in its workers."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "torch.py").write_text("raise ImportError('torch is blocked')\n")
    (folder / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}
    blocked = [sys.executable, "-c", "import torch"]
    assert "torch is blocked" in subprocess.run(blocked, env=environment, capture_output=True, text=True).stderr
    done = subprocess.run(
        [sys.executable, "-W", "error", str(folder / "script.py"), str(study / "store")],
        env=environment, cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_batches_state_and_statistics_need_no_torch(study, found):
    stream = WindowBatches(
        open_store(str(study / "store")), split="run1", batch_size=8, seed=3, siteless=0.5, max_n=0.9
    )
    assert found["batches"] == [batch.window_id.tolist() for batch in stream]
    assert len(found["batches"]) > 3
    assert found["tail"] == found["batches"][2:]
    assert found["n_windows"] == stream.plan.n_windows
    assert found["statistics"]["batches"] == len(found["batches"]) + len(found["tail"]) + len(stream)
    assert found["torch"] is False


def test_lanes_on_workers_need_no_torch(study, found):
    table = open_store(str(study / "store")).splits["run1"].to_pandas()
    held_out = table.index[table["subset"] == "test"].tolist()
    assert len(found["lanes"]) == 3
    assert sorted(w for lane in found["lanes"] for batch in lane for w in batch) == held_out
    assert found["pid"] not in found["pids"]
