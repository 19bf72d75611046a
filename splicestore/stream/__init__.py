"""Streaming windows of a split and samples of a matrix: numpy batches without torch, tensors with it.

``WindowStream``, ``SampleStream``, ``one_hot`` and ``densify_usage`` import torch when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splicestore.stream.batch import Batch
from splicestore.stream.lanes import WindowLanes
from splicestore.stream.sample_batch import SampleBatch, TokenBatch
from splicestore.stream.samples import SampleBatches
from splicestore.stream.token_view import TokenView
from splicestore.stream.windows import WindowBatches

if TYPE_CHECKING:
    from splicestore.stream.dataset import SampleStream, WindowStream
    from splicestore.stream.expand import DenseUsage, densify_usage, one_hot

__all__ = [
    "Batch", "DenseUsage", "SampleBatch", "SampleBatches", "SampleStream", "TokenBatch", "TokenView", "WindowBatches",
    "WindowLanes", "WindowStream", "densify_usage", "one_hot",
]  # fmt: skip

_WITH_TORCH = {
    "WindowStream": "dataset",
    "SampleStream": "dataset",
    "DenseUsage": "expand",
    "densify_usage": "expand",
    "one_hot": "expand",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    return value
