"""``normalize``: edges of every gene's bins, or what a scaling needs, fitted once and stored; and the values of any samples by them."""

from splicestore.normalize.apply import ApplyOptions, ApplyReport, apply_edges
from splicestore.normalize.edges import FitOptions, FitReport
from splicestore.normalize.files import normalize_file
from splicestore.normalize.fit import fit_edges
from splicestore.normalize.scaled import apply_scaling
from splicestore.normalize.scaling import ScalingOptions, ScalingReport, fit_scaling
from splicestore.normalize.tokens import TokenOptions, TokenReport, publish_tokens

__all__ = [
    "ApplyOptions",
    "ApplyReport",
    "FitOptions",
    "FitReport",
    "ScalingOptions",
    "ScalingReport",
    "TokenOptions",
    "TokenReport",
    "apply_edges",
    "apply_scaling",
    "fit_edges",
    "fit_scaling",
    "normalize_file",
    "publish_tokens",
]
