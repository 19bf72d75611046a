"""Synthetic studies with known truth."""

from splicestore.simulate.options import CohortOptions, SimulatedCohort, SimulatedStudy, SimulateOptions
from splicestore.simulate.samples import simulate_samples
from splicestore.simulate.study import simulate_study

__all__ = [
    "CohortOptions",
    "SimulateOptions",
    "SimulatedCohort",
    "SimulatedStudy",
    "simulate_samples",
    "simulate_study",
]
