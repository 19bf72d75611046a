"""Running a model over stored genomes and publishing what it says, by position."""

from splicestore.predict.service import PredictOptions, PredictReport, predict_windows

__all__ = ["PredictOptions", "PredictReport", "predict_windows"]
