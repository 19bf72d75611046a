"""Reference training and evaluation: to prove the data, and to start from.

``SplitDataModule`` imports lightning when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splicestore.train.baseline import MotifBaseline
from splicestore.train.evaluate import Evaluation, evaluate, evaluate_lanes
from splicestore.train.loaders import SplitLoaders
from splicestore.train.loop import TrainResult
from splicestore.train.service import (
    evaluate_genes_on_split,
    evaluate_on_split,
    load_train_settings,
    train_genes_on_split,
    train_on_split,
)
from splicestore.train.settings import GeneTrainSettings, ModelSettings, TrainSettings, parse_train_settings
from splicestore.train.sites import train

if TYPE_CHECKING:
    from splicestore.train.lightning import SplitDataModule

__all__ = [
    "Evaluation",
    "GeneTrainSettings",
    "ModelSettings",
    "MotifBaseline",
    "SplitDataModule",
    "SplitLoaders",
    "TrainResult",
    "TrainSettings",
    "evaluate",
    "evaluate_lanes",
    "evaluate_genes_on_split",
    "evaluate_on_split",
    "load_train_settings",
    "parse_train_settings",
    "train",
    "train_genes_on_split",
    "train_on_split",
]


def __getattr__(name: str) -> Any:
    if name != "SplitDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from splicestore.train.lightning import SplitDataModule

    globals()[name] = SplitDataModule
    return SplitDataModule
