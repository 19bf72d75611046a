"""Upkeep of a store: verify and repair it, copy it, prune it, say what takes how much room."""

from splicestore.maintenance.copying import CopyReport, Selection, copy_store
from splicestore.maintenance.findings import Finding, VerifyReport
from splicestore.maintenance.inventory import GenerationRow, list_generations
from splicestore.maintenance.pruning import PruneReport, parse_age, prune
from splicestore.maintenance.repair import DamagedGeneration, Reencode, RepairReport, repair
from splicestore.maintenance.verify import verify

__all__ = [
    "CopyReport",
    "DamagedGeneration",
    "Finding",
    "GenerationRow",
    "PruneReport",
    "Reencode",
    "RepairReport",
    "Selection",
    "VerifyReport",
    "copy_store",
    "list_generations",
    "parse_age",
    "prune",
    "repair",
    "verify",
]
