"""Many genomes in one chunked store, split by homology, streamed to GPUs.

Names are resolved when first used, so that ``import splicestore`` stays light: torch, distributed and
numba are imported by the parts that need them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splicestore.genome import Genome
    from splicestore.ingest import ingest_genomes
    from splicestore.schema import Plan
    from splicestore.simulate import simulate_study
    from splicestore.split import split_windows
    from splicestore.store import Store, open_store
    from splicestore.stream import Batch, SampleStream, TokenView, WindowStream, densify_usage, one_hot
    from splicestore.windows import WindowSet

_HOMES = {
    "Batch": "splicestore.stream",
    "Genome": "splicestore.genome",
    "Plan": "splicestore.schema",
    "SampleStream": "splicestore.stream",
    "Store": "splicestore.store",
    "TokenView": "splicestore.stream",
    "WindowSet": "splicestore.windows",
    "WindowStream": "splicestore.stream",
    "densify_usage": "splicestore.stream",
    "ingest_genomes": "splicestore.ingest",
    "one_hot": "splicestore.stream",
    "open_store": "splicestore.store",
    "simulate_study": "splicestore.simulate",
    "split_windows": "splicestore.split",
}

__all__ = [
    "Batch",
    "Genome",
    "Plan",
    "SampleStream",
    "Store",
    "TokenView",
    "WindowSet",
    "WindowStream",
    "densify_usage",
    "ingest_genomes",
    "one_hot",
    "open_store",
    "simulate_study",
    "split_windows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'splicestore' has no attribute {name!r}")
    # Kept, so that it is looked up once and not at every use.
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
