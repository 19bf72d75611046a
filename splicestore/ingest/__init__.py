"""Genomes and their usage into a store: read, check, encode, publish."""

from splicestore.ingest.genomes import GenomeReport, ingest_genome, ingest_genomes, load_genomes_config
from splicestore.ingest.inputs import IngestOptions
from splicestore.ingest.usage import UsageReport, ingest_usage

__all__ = [
    "GenomeReport",
    "IngestOptions",
    "UsageReport",
    "ingest_genome",
    "ingest_genomes",
    "ingest_usage",
    "load_genomes_config",
]
