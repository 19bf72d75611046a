"""Out of a store into the files that other programs read; streamed, never gathered."""

from splicestore.export.splicevo import ExportReport, export_splicevo

__all__ = ["ExportReport", "export_splicevo"]
