"""The reference training loop: a stream in, a checkpoint and a model card out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from splicestore.errors import ConfigError, ModelError
from splicestore.memory import observed_peak_bytes
from splicestore.models.card import NetworkCard, build_module
from splicestore.storage.keys import StoreRoot
from splicestore.train.checkpoint import read_checkpoint, restore, save_checkpoint
from splicestore.train.settings import LoopSettings, learning_rate

logger = logging.getLogger(__name__)


class TrainingStream(Protocol):
    """What the loop needs of a stream: ``WindowStream``, ``SampleStream``. ``len`` is asked for only where settings give epochs."""

    def to_device(self, device: torch.device) -> Iterable[Any]:
        """Batches on a device, from where the stream stands to the end of the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: after the batch that was handed out last."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where another stream stood."""

    def statistics(self) -> Mapping[str, Any]:
        """Counts so far; ``waiting_seconds`` at least."""


class LearningTask(Protocol):
    """What a network learns: how it is built, its losses, and the card it leaves."""

    @property
    def settings(self) -> LoopSettings:
        """Of the run."""

    @property
    def rows_name(self) -> str:
        """What a row of a batch is, as ``windows``."""

    @property
    def losses(self) -> Mapping[str, float]:
        """Names of the losses as the history has them, with their weights; one alone is ``loss``."""

    def factory_options(self) -> dict[str, Any]:
        """What the network is built with."""

    def identity(self) -> Mapping[str, Any]:
        """What a checkpoint must agree with beside settings and the stream's own state."""

    def begin(self, module: nn.Module, batch: Any) -> None:
        """Start a new network at what the first batch says."""

    def compute(self, module: nn.Module, batch: Any) -> Tensor:
        """Losses of this rank's share of a global batch, (n_losses,): over all ranks they add up to the batch's."""

    def publish(self, root: StoreRoot, module: nn.Module, provenance: Mapping[str, Any]) -> NetworkCard:
        """Write the trained weights and their card."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run left behind."""

    url: str
    """Folder of checkpoint, weights and card."""
    finished: bool
    """False if it was stopped before its last step."""
    step: int
    epoch: int
    history: Sequence[Mapping[str, float]]
    """Rows of step, epoch, loss, the losses it is made of, gradient_norm (before clipping), learning_rate, batches_per_second,
    waiting_share (of the time, spent waiting for the stream; the last two of this rank): means since the row before."""
    seconds: float
    """Time spent in steps, over all resumptions."""
    rows_name: str
    """``windows`` or ``samples``."""
    rows_per_second: float
    """Windows or samples of this process, since it started or resumed."""
    observed_peak_bytes: int
    stream: Mapping[str, Any]
    """The stream's statistics in this process, since it was made."""
    module: nn.Module
    card: NetworkCard | None
    """None if not finished, and on ranks other than 0."""

    def document(self) -> dict[str, Any]:
        """JSON-ready summary."""
        return {
            "url": self.url,
            "finished": self.finished,
            "step": self.step,
            "epoch": self.epoch,
            "loss": self.history[-1]["loss"] if self.history else None,
            "history": [dict(row) for row in self.history],
            "seconds": round(self.seconds, 3),
            f"{self.rows_name}_per_second": round(self.rows_per_second, 1),
            "observed_peak_bytes": self.observed_peak_bytes,
            "stream": dict(self.stream),
            "digest": self.card.digest if self.card else None,
        }


@dataclass(slots=True)
class _Progress:
    """Where the loop stands."""

    step: int = 0
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class _Run:
    """A network on its way: what a checkpoint holds, and what is needed to go on."""

    task: LearningTask
    device: torch.device
    identity: dict[str, Any]
    """All that a checkpoint must agree with, besides the stream's own state."""
    module: nn.Module
    optimizer: torch.optim.Optimizer
    weights: Tensor
    """(n_losses,) of the losses in their sum."""
    progress: _Progress = field(default_factory=_Progress)


def train_network(
    stream: TrainingStream,
    task: LearningTask,
    output: str | StoreRoot,
    *,
    device: str | torch.device | None = None,
    provenance: Mapping[str, Any] | None = None,
    stop_at_step: int | None = None,
    on_log: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainResult:
    """Train a network; go on where a checkpoint in ``output`` stopped.

    On a CPU a resumed run ends with the same weights, bit for bit, as one that was never stopped (the same
    number of threads provided). Under a process group each rank calls this with its own share of the stream;
    gradients are summed, rank 0 writes.

    Parameters
    ----------
    stream
        Batches of the training subset, as torch tensors.
    task
        What is learned of them.
    output
        Folder or URL: ``checkpoint.pt`` while it runs, ``model.pt`` and ``card.json`` at the end.
    device
        Defaults to the GPU if there is one.
    provenance
        Pinned generations, digest of the split and the like; goes onto the card.
    stop_at_step
        Write a checkpoint after this step and return, as if the machine's time were up.
    on_log
        Called with each row of the history.

    Raises
    ------
    ConfigError
        If the settings do not fit the stream.
    StateError
        If the checkpoint in ``output`` was made with other settings or data.
    ModelError
        If the loss is no longer finite; the checkpoint from before stays.
    """
    settings = task.settings
    root = output if isinstance(output, StoreRoot) else StoreRoot(output)
    device = torch.device(device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu"))
    n_steps = _total_steps(stream, settings)
    last_step = n_steps if stop_at_step is None else min(n_steps, stop_at_step)

    with _deterministic(settings.deterministic, device):
        run = _start(task, device)
        _resume(run, stream, root)
        progress, meter = run.progress, _Meter(device, stream, task.losses)
        with closing(_batches(stream, device, progress, last_step)) as batches:
            for batch in batches:
                if progress.step == 0:
                    task.begin(run.module, batch)
                rate = learning_rate(progress.step, settings, n_steps)
                meter.add(*_optimise(run, batch, rate))
                progress.step += 1

                writes = progress.step % settings.checkpoint_every == 0 or progress.step == last_step
                if writes or progress.step % settings.log_every == 0:
                    row = meter.row(progress, rate)
                    if on_log is not None:
                        on_log(row)
                if writes and _rank() == 0:
                    save_checkpoint(
                        root, model=run.module, optimizer=run.optimizer, stream_state=stream.state_dict(),
                        step=progress.step, epoch=progress.epoch, settings=run.identity, history=progress.history,
                        seconds=progress.seconds,
                    )  # fmt: skip
        finished = progress.step >= n_steps
        card = _publish(run, root, provenance) if finished and _rank() == 0 else None

    return TrainResult(
        url=root.url, finished=finished, step=progress.step, epoch=progress.epoch, history=progress.history,
        seconds=progress.seconds, rows_name=task.rows_name, rows_per_second=meter.rows_per_second,
        observed_peak_bytes=observed_peak_bytes(), stream=stream.statistics(), module=run.module.eval(), card=card,
    )  # fmt: skip


def _start(task: LearningTask, device: torch.device) -> _Run:
    """Build network and optimiser from the seed."""
    settings = task.settings
    torch.manual_seed(settings.seed)
    module = build_module(settings.model.factory, task.factory_options()).to(device).train()
    return _Run(
        task=task,
        device=device,
        identity={**settings.model_dump(mode="json"), **task.identity()},
        module=module,
        optimizer=_optimizer(module, settings),
        weights=torch.tensor(list(task.losses.values()), device=device),
    )


def _resume(run: _Run, stream: TrainingStream, root: StoreRoot) -> None:
    """Put run and stream where the checkpoint says, or at the beginning."""
    saved = read_checkpoint(root, run.identity)
    if saved is None:
        stream.set_epoch(0)
        return
    restore(saved, run.module, run.optimizer)
    stream.load_state_dict(saved["stream"])
    run.progress = _Progress(saved["step"], saved["epoch"], saved["history"], saved["seconds"])
    logger.info("%s: going on after step %d", root.url, run.progress.step)


def _optimise(run: _Run, batch: Any, rate: float) -> tuple[Tensor, Tensor, int]:
    """Take one step; return the losses, the gradient's norm and the rows of the global batch."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    losses = run.task.compute(run.module, batch)
    run.optimizer.zero_grad(set_to_none=True)
    (losses * run.weights).sum().backward()
    _add_gradients_over_ranks(run.module)
    norm = nn.utils.clip_grad_norm_(run.module.parameters(), run.task.settings.gradient_clip)
    run.optimizer.step()
    return losses.detach(), norm, batch.global_rows


def _publish(run: _Run, root: StoreRoot, provenance: Mapping[str, Any] | None) -> NetworkCard:
    """Write the trained weights and their card."""
    settings = run.task.settings.model_dump(mode="json")
    training = {"settings": settings, "step": run.progress.step, "epoch": run.progress.epoch}
    return run.task.publish(root, run.module, {**(provenance or {}), **training})


class _Meter:
    """Means between rows of the history, and the speed; reads the device only when a row is closed."""

    def __init__(self, device: torch.device, stream: TrainingStream, losses: Mapping[str, float]) -> None:
        self._stream, self._weights = stream, losses
        self._waited = stream.statistics()["waiting_seconds"]
        self._losses = torch.zeros(len(losses), device=device, dtype=torch.float64)
        self._norm = torch.zeros((), device=device, dtype=torch.float64)
        self._steps = 0
        self._rows = 0
        self._seconds = 0.0
        self._since = time.perf_counter()

    def add(self, losses: Tensor, norm: Tensor, n_rows: int) -> None:
        self._losses += losses
        self._norm += norm
        self._steps += 1
        self._rows += n_rows

    def row(self, progress: _Progress, rate: float) -> dict[str, float]:
        """Close a row of the history.

        Raises
        ------
        ModelError
            If a loss or a gradient is not finite: nothing after it may be kept.
        """
        means = [float(v) / self._steps for v in sum_over_ranks(self._losses.clone())]
        parts = dict(zip(self._weights, means, strict=True))
        now, waited = time.perf_counter(), self._stream.statistics()["waiting_seconds"]
        seconds, waiting = now - self._since, waited - self._waited
        self._since, self._waited = now, waited
        self._seconds += seconds
        progress.seconds += seconds
        row = {
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": sum(weight * parts[name] for name, weight in self._weights.items()),
            **parts,
            "gradient_norm": float(self._norm) / self._steps,
            "learning_rate": rate,
            "batches_per_second": self._steps / seconds,
            "waiting_share": waiting / seconds,
        }
        if not np.isfinite([row["loss"], row["gradient_norm"]]).all():
            raise ModelError(
                f"loss {row['loss']}, gradient norm {row['gradient_norm']} in the {self._steps} steps up to "
                f"{progress.step}: not finite; train into another folder with a lower learning_rate (now {rate:.3g})"
            )
        progress.history.append(row)
        self._losses.zero_()
        self._norm.zero_()
        self._steps = 0
        return row

    @property
    def rows_per_second(self) -> float:
        return self._rows / self._seconds if self._seconds > 0 else 0.0


def _batches(
    stream: TrainingStream, device: torch.device, progress: _Progress, last_step: int
) -> Generator[Any, None, None]:
    """Yield batches on the device over as many epochs as ``last_step`` needs; the caller counts the steps."""
    was_empty = False
    while progress.step < last_step:
        before = progress.step
        for batch in stream.to_device(device):
            yield batch
            if progress.step >= last_step:
                return
        # A run that stopped on the last batch of an epoch resumes with an empty rest; two in a row are an empty stream.
        if progress.step == before and was_empty:
            raise ConfigError("the stream yields no batch: the subset has no windows, or its filters leave none")
        was_empty = progress.step == before
        progress.epoch += 1
        stream.set_epoch(progress.epoch)


def _total_steps(stream: TrainingStream, settings: LoopSettings) -> int:
    if settings.steps is not None:
        return settings.steps
    try:
        per_epoch = len(stream)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigError(
            "this stream does not know how many batches an epoch has; give `steps`, not `epochs`"
        ) from error
    return per_epoch * (settings.epochs or 1)


def _optimizer(module: nn.Module, settings: LoopSettings) -> torch.optim.AdamW:
    decayed = [p for name, p in module.named_parameters() if name.endswith("weight") and p.ndim > 1]
    others = [p for name, p in module.named_parameters() if not (name.endswith("weight") and p.ndim > 1)]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )


@contextmanager
def _deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Refuse irreproducible operations while the block runs; put the old setting back."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted and device.type == "cuda":
        # cuBLAS reads this when it is first used; without it torch refuses every matrix product.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _in_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _rank() -> int:
    return torch.distributed.get_rank() if _in_group() else 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum a tensor over the process group, in place; without one, return it as it is."""
    if _in_group():
        torch.distributed.all_reduce(values)
    return values


def _add_gradients_over_ranks(module: nn.Module) -> None:
    """Sum gradients: the losses are shares of the global batch's, so the sum is its gradient."""
    if not _in_group():
        return
    for parameter in module.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
