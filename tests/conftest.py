"""Fixtures shared by every test: where the real data are, and hypothesis settings."""

from __future__ import annotations

import os
from pathlib import Path

import dask
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the shared real data; set SPLICESTORE_DATA to point elsewhere."""
    folder = Path(os.environ.get("SPLICESTORE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}: set SPLICESTORE_DATA to the folder that holds vertebrates/")
    return folder


@pytest.fixture(autouse=True)
def no_default_scheduler_left():
    """Fail the test that leaves dask computing on a client it closed: a later one would fail in its place.

    Clients closed in another order than they were opened do that.
    """
    yield
    left = dask.config.config.pop("scheduler", None)
    assert left is None, f"dask's default scheduler is still {left!r}: open clients with set_as_default=False"
