"""``normalize``: edges of every gene's bins, fitted once and stored, and the bins of any samples by them."""

from splicestore.normalize.apply import ApplyOptions, ApplyReport, apply_edges, bin_file
from splicestore.normalize.fit import FitOptions, FitReport, fit_edges
from splicestore.normalize.tokens import TokenOptions, TokenReport, publish_tokens

__all__ = [
    "ApplyOptions",
    "ApplyReport",
    "FitOptions",
    "FitReport",
    "TokenOptions",
    "TokenReport",
    "apply_edges",
    "bin_file",
    "fit_edges",
    "publish_tokens",
]
