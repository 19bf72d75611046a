"""Out of a store into the files that other programs read; streamed, never gathered."""

from splicestore.export.generain import GeneRainReport, export_generain
from splicestore.export.h5ad import export_h5ad
from splicestore.export.matrix import MatrixOptions, MatrixReport
from splicestore.export.parquet import export_parquet
from splicestore.export.splicevo import ExportReport, export_splicevo

__all__ = [
    "ExportReport",
    "GeneRainReport",
    "MatrixOptions",
    "MatrixReport",
    "export_generain",
    "export_h5ad",
    "export_parquet",
    "export_splicevo",
]
