"""Two ranks over the real stream train what one process trains with the same global batches, to rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing

from splicestore.models.splice import SpliceNet
from splicestore.stream import WindowStream
from splicestore.train import TrainSettings, train
from tests.unit.stream.memory_store import table_store

STEPS, STOP = 34, 13
SHARES = ("lanes", "replicate")

# Both sides sum the same products, in another order. A sum of n terms is off by n * 2^-53 of the sum of their sizes: with
# n = 400 (positions of a batch times taps), and sizes that add up to a hundred times the sum, 5e-12 of a gradient. AdamW
# moves a parameter by the learning rate times a ratio of gradients, whatever their size, so 34 steps of 0.01 drift apart
# by 2e-12, and later steps start from there (4e-16 was seen). A row counted twice or a wrong divisor moves 1e-3.
TOLERANCE = 1e-11


class ExactNet(SpliceNet):
    """In float64: what is left between two runs is the order of sums, far below any mistake."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.double()

    def features(self, one_hot):
        return super().features(one_hot.double())


SETTINGS = TrainSettings(
    steps=STEPS,
    warmup_steps=2,
    learning_rate=0.01,
    log_every=1,
    batch_size=16,
    model={"factory": f"{__name__}:ExactNet", "options": {"channels": 4, "dilations": [1], "kernel_size": 3}},
)


def make_stream(share, **options):
    store = table_store([[30, 20, 7], [9] * 8])
    rng = np.random.default_rng(5)
    for genome in store.genomes.by_name.values():
        genome.bases = rng.integers(0, 5, genome.n_bases).astype(np.uint8)
    return WindowStream(
        store, split="run1", batch_size=16, seed=3, lanes=4, jitter=2, context_size=2, share=share, **options
    )


def batches_of(stream):
    """Per epoch and step: the windows of this rank and of all ranks, and how many rows only pad."""
    found = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        for batch in stream:
            real = batch.window_id[batch.window_id >= 0].tolist()
            found.append((epoch, batch.step, real, batch.global_rows, len(batch) - len(real)))
    return found


def rows_of(result):
    """What a row says of the data; the gradient's size, too, to which AdamW is nearly blind."""
    names = ("step", "epoch", "site_loss", "usage_loss", "gradient_norm", "learning_rate")
    return [[row[name] for name in names] for row in result.history]


def parameters(result):
    return dict(result.module.state_dict())


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for share in SHARES:
        whole = train(make_stream(share), SETTINGS, f"{folder}/{share}", device="cpu")
        train(make_stream(share), SETTINGS, f"{folder}/{share}-stopped", device="cpu", stop_at_step=STOP)
        found[share] = {
            "batches": batches_of(make_stream(share)),
            "rows": rows_of(whole),
            "parameters": parameters(whole),
        }
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(_rank, args=(str(folder),), nprocs=2, start_method="spawn")
    return Path(folder), [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(make_stream("lanes", tail="pad"), SETTINGS, str(tmp_path_factory.mktemp("alone")), device="cpu")


@pytest.mark.parametrize("share", SHARES)
def test_the_ranks_have_the_global_batches_of_one_process_between_them(ranks, share):
    first, second = (found[share]["batches"] for found in ranks[1])
    whole = batches_of(make_stream(share, tail="pad"))
    assert len(first) == len(second) == len(whole)
    for one, other, both in zip(first, second, whole, strict=True):
        assert one[:2] == other[:2] == both[:2]
        assert sorted(one[2] + other[2]) == sorted(both[2])
        assert one[3] == other[3] == both[3] == len(both[2])
    # The case that needs care: lanes run out at different steps, so a rank has less of the last batches, or nothing.
    assert {len(one[2]) - len(other[2]) for one, other in zip(first, second, strict=True)} != {0}


@pytest.mark.parametrize("share", SHARES)
def test_the_ranks_reach_the_parameters_of_one_process(ranks, alone, share):
    first, second = (found[share] for found in ranks[1])
    assert first["rows"] == second["rows"]
    np.testing.assert_allclose(first["rows"], rows_of(alone), rtol=TOLERANCE)
    for name, value in parameters(alone).items():
        assert torch.equal(first["parameters"][name], second["parameters"][name]), name
        torch.testing.assert_close(first["parameters"][name], value, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("share", SHARES)
def test_one_process_goes_on_where_two_ranks_stopped(ranks, alone, share):
    resumed = train(make_stream(share), SETTINGS, str(ranks[0] / f"{share}-stopped"), device="cpu")
    assert len(resumed.history) == STEPS
    for name, value in parameters(alone).items():
        torch.testing.assert_close(parameters(resumed)[name], value, rtol=0, atol=TOLERANCE)
