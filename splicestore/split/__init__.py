"""Splits: homology closes genes into components, components decide genes, genes decide windows."""

from splicestore.split.report import SplitReport
from splicestore.split.service import HomologyInput, split_windows
from splicestore.split.values import SplitOptions

__all__ = ["HomologyInput", "SplitOptions", "SplitReport", "split_windows"]
