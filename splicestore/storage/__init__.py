"""The only room that turns URLs into files and stores, and the only one that writes."""

from splicestore.storage.catalog import read_catalog, rebuild_catalog
from splicestore.storage.finalise import finalise_generation
from splicestore.storage.inputs import (
    absolute_url,
    digest_input,
    input_exists,
    input_size,
    input_text_lines,
    open_input,
)
from splicestore.storage.keys import StoreRoot
from splicestore.storage.lease import write_lease
from splicestore.storage.partitions import Part, PartitionPlace, PartitionWriter
from splicestore.storage.pointers import Pointer, read_pointer
from splicestore.storage.publish import Publication, generation_status, read_group
from splicestore.storage.sealed import read_sealed
from splicestore.storage.zarr_codecs import open_group, quiet_zarr

__all__ = [
    "Part",
    "PartitionPlace",
    "PartitionWriter",
    "Pointer",
    "Publication",
    "StoreRoot",
    "absolute_url",
    "digest_input",
    "finalise_generation",
    "generation_status",
    "input_exists",
    "input_size",
    "input_text_lines",
    "open_group",
    "open_input",
    "quiet_zarr",
    "read_catalog",
    "read_group",
    "read_pointer",
    "read_sealed",
    "rebuild_catalog",
    "write_lease",
]
