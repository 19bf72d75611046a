"""Reference training and evaluation: to prove the data, and to start from."""

from splicestore.train.baseline import MotifBaseline
from splicestore.train.evaluate import Evaluation, evaluate, evaluate_lanes
from splicestore.train.loop import TrainResult, train
from splicestore.train.service import evaluate_on_split, load_train_settings, train_on_split
from splicestore.train.settings import ModelSettings, TrainSettings, parse_train_settings

__all__ = [
    "Evaluation",
    "ModelSettings",
    "MotifBaseline",
    "TrainResult",
    "TrainSettings",
    "evaluate",
    "evaluate_lanes",
    "evaluate_on_split",
    "load_train_settings",
    "parse_train_settings",
    "train",
    "train_on_split",
]
