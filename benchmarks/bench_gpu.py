"""A training step on a GPU: how long it waits for the stream, and what expanding on the host would cost.

The reference network trains in bfloat16 on windows of a simulated study. Arms, interleaved, the same network and the
same number of steps in each:

- ``resident``: one batch that is on the GPU already, expanded there: the step alone, the floor of all others
- ``to_device``: ``stream.to_device``: a thread cuts into page-locked buffers and copies on a CUDA stream of its own, codes one
  byte a base, expanded on the GPU
- ``tokens``: ``WindowStream`` in this process and pageable memory, moved when a step needs them
- ``tokens_workers``: the same over ``stream.loader`` with worker processes and page-locked memory
- ``host_one_hot``: expanded to float32 on the host, then moved: 16 bytes a base
- ``host_dense_usage``: alpha and beta spread over all positions on the host, then moved, beside the codes

Before them the batch size is chosen: the one whose resident steps take most windows a second. Workers are started anew for
every epoch (some 400 steps here), and that is in their arm. The waiting share of an arm is what its steps take longer than
resident ones; ``blocked`` is the part of the wall time that the loop spends inside ``next``. Without a GPU it says so and
records nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness import (
    Case,
    Run,
    Target,
    command_line,
    interleave,
    median,
    paired_ratio,
    parse_arguments,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)

WORKERS = 2
MAX_READS, MIN_READS = 100.0, 10.0
BATCH_SIZES = (64, 128, 256, 512, 1024)
WAITING_LIMIT = 0.02


def prepare(cache: Path, scratch: Path, quick: bool) -> Path:
    """Publish a split study."""
    study = simulated_study(
        cache, genomes=1, megabases=2 if quick else 100, genes=80 if quick else 2_000, conditions=8 if quick else 20
    )
    store = scratch / "store"
    run_process(command_line("ingest", "genomes", store, study / "genomes.json"))
    run_process(
        command_line("split", "windows", store, "bench", "--orthology", study / "orthologs.tsv", "--reference-genome", "sim1",
                     "--test-chromosomes", "chr2")
    )  # fmt: skip
    return store


class Trainer:
    """The reference network, its optimiser, and one step of it."""

    def __init__(self, stream: Any, device: str, channels: int) -> None:
        import torch

        from splicestore.models import SpliceNet

        torch.manual_seed(0)
        options = stream.plan.options
        self.device = torch.device(device)
        self.model = SpliceNet(len(stream.condition_names), options.context_size, channels=channels).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.condition_weights = torch.ones(len(stream.condition_names), device=self.device)

    def step(self, batch: Any, sequence: Any) -> None:
        """Take one step.

        Parameters
        ----------
        batch
            Of tensors, anywhere.
        sequence : (B, 4, L) float32
            On the device.
        """
        import torch

        from splicestore.models.splice import forward_rows
        from splicestore.train.losses import real_rows, site_loss, usage_loss, usage_rows

        rows = usage_rows(batch, MIN_READS, self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            site_logits, row_logits = forward_rows(self.model, sequence, rows.window, rows.position)
        label, real = batch.label.to(self.device, non_blocking=True), real_rows(batch).to(self.device)
        loss = site_loss(site_logits.float(), label, real, batch.global_rows)
        loss = loss + usage_loss(row_logits.float(), rows, batch.global_rows, self.condition_weights, MAX_READS)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()

    def wait(self) -> None:
        """Wait for what the device has queued."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def endless(stream: Any, batches: Callable[[], Any]) -> Iterator[Any]:
    """Yield batches of one epoch after another."""
    epoch = 0
    while True:
        stream.set_epoch(epoch)
        yield from batches()
        epoch += 1


class Arm:
    """Steps over batches from one source."""

    def __init__(self, trainer: Trainer, batches: Iterator[Any], expand: Callable[[Any], Any], steps: int) -> None:
        self.trainer, self.batches, self.expand, self.steps = trainer, batches, expand, steps
        self.blocked: list[float] = []

    def __call__(self) -> Run:
        self.trainer.wait()
        waited = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(self.steps):
            asked = time.perf_counter()
            batch = next(self.batches)
            waited += time.perf_counter() - asked
            self.trainer.step(batch, self.expand(batch))
        self.trainer.wait()
        run = Run(time.perf_counter() - wall, time.process_time() - cpu)
        self.blocked.append(waited / run.wall_s)
        return run


def make_arms(store: Path, device: str, batch_size: int, steps: int, channels: int) -> dict[str, Arm]:
    """Build every arm over its own stream and one common network."""
    import itertools

    import splicestore

    opened = splicestore.open_store(str(store))

    def new_stream() -> Any:
        return splicestore.WindowStream(opened, split="bench", batch_size=batch_size, seed=1, reverse_complement=True)

    resident, ahead, tokens, loaded, expanded, dense = (new_stream() for _ in range(6))
    trainer = Trainer(resident, device, channels)
    loader = loaded.loader(num_workers=WORKERS, pin_memory=device.startswith("cuda"))
    kept = next(iter(resident)).to(device)

    def on_device(batch: Any) -> Any:
        return splicestore.one_hot(batch, device=device)

    def on_host(batch: Any) -> Any:
        return splicestore.one_hot(batch).to(device)

    def with_dense_usage(batch: Any) -> Any:
        usage = splicestore.densify_usage(batch)
        for values in (usage.alpha, usage.beta):
            values.to(device)
        return on_device(batch)

    return {
        "resident": Arm(trainer, itertools.repeat(kept), on_device, steps),
        "to_device": Arm(trainer, endless(ahead, lambda: ahead.to_device(device)), on_device, steps),
        "tokens": Arm(trainer, endless(tokens, lambda: tokens), on_device, steps),
        "tokens_workers": Arm(trainer, endless(loaded, lambda: loader), on_device, steps),
        "host_one_hot": Arm(trainer, endless(expanded, lambda: expanded), on_host, steps),
        "host_dense_usage": Arm(trainer, endless(dense, lambda: dense), with_dense_usage, steps),
    }


def choose_batch_size(store: Path, device: str, sizes: tuple[int, ...], steps: int, channels: int) -> dict[int, float]:
    """Measure windows a second of resident steps by batch size."""
    import itertools

    import splicestore

    found = {}
    for size in sizes:
        stream = splicestore.WindowStream(splicestore.open_store(str(store)), split="bench", batch_size=size, seed=1)
        kept = next(iter(stream)).to(device)
        stream.close()
        trainer = Trainer(stream, device, channels)
        arm = Arm(trainer, itertools.repeat(kept), lambda batch: splicestore.one_hot(batch, device=device), steps)
        arm()
        found[size] = size * steps / median([arm() for _ in range(3)], "wall_s")
    return found


def device_description(device: str) -> str:
    """Name the device as its driver does."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu, to try the script out"


def main() -> None:
    arguments = parse_arguments(
        __doc__, lambda p: p.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu only with --quick")
    )
    import torch

    if arguments.device == "cpu" and not arguments.quick:
        raise SystemExit("--device cpu is for --quick: this benchmark is about a GPU")
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print("no GPU here: nothing measured, nothing recorded")
        return
    quick = arguments.quick
    sizes, steps, channels = ((8, 16), 2, 4) if quick else (BATCH_SIZES, 100, 64)
    with scratch_folder() as scratch:
        store = prepare(arguments.cache, scratch, quick)
        by_size = choose_batch_size(store, arguments.device, sizes, steps, channels)
        batch_size = max(by_size, key=lambda size: by_size[size])
        arms = make_arms(store, arguments.device, batch_size, steps, channels)
        runs = interleave(arms, rounds=1 if quick else 7)
    figures: dict[str, Any] = {f"{name}_ms_per_step": 1e3 * median(runs[name], "wall_s") / steps for name in arms}
    figures |= {f"{name}_windows_per_s": steps * batch_size / median(runs[name], "wall_s") for name in arms}
    figures |= {f"resident_windows_per_s_at_{size}": speed for size, speed in by_size.items()}
    for name in (name for name in arms if name != "resident"):
        figures[f"{name}_waiting_share"] = 1 - 1 / paired_ratio(runs, name, "resident", "wall_s")
        figures[f"{name}_blocked_share"] = sorted(arms[name].blocked)[len(arms[name].blocked) // 2]
    for name in ("host_one_hot", "host_dense_usage"):
        figures[f"{name}_over_tokens"] = paired_ratio(runs, name, "tokens", "wall_s")
    waiting = Target("to_device_waiting_share", figures["to_device_waiting_share"], WAITING_LIMIT, "of its steps' time")
    case = Case(
        "training_step" if not quick else "training_step_quick",
        {
            "device": device_description(arguments.device),
            "batch_size": batch_size,
            "steps_per_arm": steps,
            "workers": WORKERS,
            "network": f"SpliceNet, {channels} channels, bfloat16",
        },
        runs,
        (waiting,),
        figures,
    )
    report("gpu", [case], record=not quick)


if __name__ == "__main__":
    main()
