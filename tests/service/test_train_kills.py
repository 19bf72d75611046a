"""``splicestore train`` killed at random steps: the same command goes on, and ends with the same bits."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess

import numpy as np
import pytest
import torch

from tests.servers.kills import run_and_kill, splicestore_command
from tests.service.killing import SPLIT_OPTIONS
from tests.service.study import splicestore, write_study

STEPS, EVERY = 100, 4
TRAINING = f"""
steps: {STEPS}
checkpoint_every: {EVERY}
log_every: 1
batch_size: 8
warmup_steps: 5
deterministic: true
model: {{options: {{channels: 4, dilations: [1]}}}}
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""The bits of a sum depend on the number of threads; and two would wait for each other longer than they compute."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    splicestore("ingest", "genomes", folder / "store", write_study(folder / "in"), check=0)
    splicestore("split", "windows", folder / "store", "run1", *SPLIT_OPTIONS, check=0)
    (folder / "train.yaml").write_text(TRAINING)
    return folder


def train_command(study, output):
    return splicestore_command("train", study / "store", "run1", study / "train.yaml", "--output", output)


def kill_at_step(command, step):
    """Run until a row of the history says the step, then kill; returns the first step that the run took."""
    environment = {**os.environ, **ONE_THREAD}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        # A page holds some 25 rows: the run cannot get further ahead of this reader, however busy the machine is.
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        rows = (re.match(rb"step (\d+) ", line) for line in process.stderr)
        steps = (int(row[1]) for row in rows if row)
        first = last = next(steps)
        while last < step:
            last = next(steps)
        process.kill()
    assert process.returncode == -9
    return first


def first_step(stderr):
    return int(re.search(r"^step (\d+) ", stderr, re.MULTILINE)[1])


def saved_step(output):
    return torch.load(output / "checkpoint.pt", weights_only=True)["step"]


def test_killed_at_random_steps_training_ends_with_the_same_bits(study, tmp_path):
    whole = run_and_kill(train_command(study, tmp_path / "whole"), env=ONE_THREAD)
    assert whole.status == 0, whole.stderr
    command = train_command(study, tmp_path / "killed")
    saved = 0
    for step in np.sort(np.random.default_rng(11).choice(np.arange(10, 65), 3, replace=False)):
        assert kill_at_step(command, step) == saved + 1
        saved = saved_step(tmp_path / "killed")
        assert step - EVERY <= saved < STEPS
        assert saved % EVERY == 0
    # In the middle of writing: its second checkpoint is not whole, so the first one stays.
    in_write = run_and_kill(command, on_write=2, env=ONE_THREAD)
    assert (in_write.status, first_step(in_write.stderr)) == (-9, saved + 1)
    assert saved_step(tmp_path / "killed") == saved + EVERY
    assert not (tmp_path / "killed" / "card.json").exists()

    finished = run_and_kill(command, env=ONE_THREAD)
    assert (finished.status, first_step(finished.stderr)) == (0, saved + EVERY + 1), finished.stderr
    assert re.search(r"stream: \d+\.\d batches/s, \d+\.\d% of the time waited for, \d+ blocks", finished.stdout)
    for name in ("model.pt", "card.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    card = json.loads((tmp_path / "whole" / "card.json").read_text())
    assert card["provenance"]["step"] == STEPS
