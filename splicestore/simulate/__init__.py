"""Synthetic studies with known truth."""

from splicestore.simulate.options import SimulatedStudy, SimulateOptions
from splicestore.simulate.study import simulate_study

__all__ = ["SimulateOptions", "SimulatedStudy", "simulate_study"]
