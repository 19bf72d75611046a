"""``normalize``: edges of every gene's bins, or what a scaling needs, fitted once and stored; and the values of any samples by them."""

from splicestore.normalize.apply import ApplyOptions, ApplyReport, apply_edges, bin_file
from splicestore.normalize.edges import FitOptions, FitReport
from splicestore.normalize.fit import fit_edges

__all__ = ["ApplyOptions", "ApplyReport", "FitOptions", "FitReport", "apply_edges", "bin_file", "fit_edges"]
