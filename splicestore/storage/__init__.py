"""The only room that turns URLs into files and stores, and the only one that writes."""

from splicestore.storage.catalog import read_catalog, rebuild_catalog
from splicestore.storage.inputs import digest_input, input_exists, input_text_lines, open_input
from splicestore.storage.keys import StoreRoot
from splicestore.storage.publish import PartitionWriter, Pointer, Publication, read_pointer
from splicestore.storage.zarr_codecs import open_group, quiet_zarr

__all__ = [
    "PartitionWriter",
    "Pointer",
    "Publication",
    "StoreRoot",
    "digest_input",
    "input_exists",
    "input_text_lines",
    "open_group",
    "open_input",
    "quiet_zarr",
    "read_catalog",
    "read_pointer",
    "rebuild_catalog",
]
