"""Splice usage counted from alignments: BAM in, one SpliSER-style table out."""

from splicestore.alignments.service import UsageTableReport, count_usage
from splicestore.alignments.settings import CountOptions, SampleFile

__all__ = ["CountOptions", "SampleFile", "UsageTableReport", "count_usage"]
