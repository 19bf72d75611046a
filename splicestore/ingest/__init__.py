"""Genomes and their usage into a store: read, check, encode, publish."""

from splicestore.ingest.genomes import GenomeReport, ingest_genome, ingest_genomes, load_genomes_config
from splicestore.ingest.inputs import IngestOptions

__all__ = ["GenomeReport", "IngestOptions", "ingest_genome", "ingest_genomes", "load_genomes_config"]
