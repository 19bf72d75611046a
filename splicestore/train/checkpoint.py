"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one file.

``torch.load(weights_only=True)`` reads them: tensors, numbers, strings, lists and mappings, no objects.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from splicestore.errors import ModelError, StateError
from splicestore.storage.keys import StoreRoot

CHECKPOINT_VERSION = 1
RESUME_NAME = "checkpoint.pt"

MAY_CHANGE = ("name", "checkpoint_every", "log_every")
"""Settings that do not decide the weights and may differ when a run goes on."""


def save_checkpoint(
    root: StoreRoot,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream_state: Mapping[str, Any],
    step: int,
    epoch: int,
    settings: Mapping[str, Any],
    history: list[dict[str, float]],
    seconds: float,
) -> None:
    """Write ``checkpoint.pt`` whole: a reader finds the old one or the new one.

    Raises
    ------
    StateError
        If the stream's state holds anything but numbers, strings, lists and mappings.
    TransferError
        If it cannot be written (a full disk included); the previous checkpoint stays.
    """
    document = {
        "version": CHECKPOINT_VERSION,
        "step": step,
        "epoch": epoch,
        "settings": dict(settings),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "stream": _plain(stream_state, "stream state"),
        "random": _random_state(),
        "history": history,
        "seconds": seconds,
    }
    stream = io.BytesIO()
    torch.save(document, stream)
    root.put(RESUME_NAME, stream.getvalue())


def read_checkpoint(root: StoreRoot, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the checkpoint of an unfinished or finished run; None if there is none.

    Raises
    ------
    ModelError
        If the file is damaged or of another version.
    StateError
        If it was made with other settings; both sides are listed.
    """
    data = root.get(RESUME_NAME)
    url = root.url_of(RESUME_NAME)
    if data is None:
        return None
    try:
        document: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{url}: not a readable checkpoint ({error}); remove it to start from the beginning"
        ) from error
    if document.get("version") != CHECKPOINT_VERSION:
        raise ModelError(
            f"{url}: checkpoint version {document.get('version')!r}, this release reads {CHECKPOINT_VERSION}; "
            "finish the run with the release that began it, or train into another folder"
        )
    _compare_settings(url, document["settings"], settings)
    return document


def restore(document: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights, optimiser and random state back.

    Raises
    ------
    ModelError
        If the weights do not fit the network.
    """
    try:
        model.load_state_dict(document["model"])
        optimizer.load_state_dict(document["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the checkpoint does not fit the network: {error}; the data have other conditions now, or the factory "
            "changed: train into another folder"
        ) from error
    torch.set_rng_state(document["random"]["cpu"])
    if torch.cuda.is_available() and len(document["random"]["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(document["random"]["cuda"])


def _random_state() -> dict[str, Any]:
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if on_gpu else []}


def _compare_settings(url: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    keys = [key for key in {**saved, **now} if key not in MAY_CHANGE]
    different = [key for key in keys if _spelled(saved.get(key)) != _spelled(now.get(key))]
    if different:
        lines = "\n".join(f"  {key}: checkpoint {saved.get(key)!r}, now {now.get(key)!r}" for key in different)
        raise StateError(
            f"{url}: made with other settings, so it cannot be resumed:\n{lines}\n"
            "use the old settings, or train into another folder"
        )


def _spelled(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _plain(value: Any, where: str) -> Any:
    """Reduce numpy scalars to Python's; refuse what a safe load would refuse."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return value
    if isinstance(value, Mapping):
        return {_plain(k, where): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(v, where) for v in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise StateError(
        f"{where} holds a {type(value).__name__}; a checkpoint takes numbers, strings, lists and mappings only"
    )
