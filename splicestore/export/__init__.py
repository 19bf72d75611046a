"""Out of a store into the files that other programs read; streamed, never gathered."""

from splicestore.export.generain import GeneRainReport, export_generain
from splicestore.export.splicevo import ExportReport, export_splicevo

__all__ = ["ExportReport", "GeneRainReport", "export_generain", "export_splicevo"]
