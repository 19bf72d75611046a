"""Fixtures shared by every test: where the real data are, and hypothesis settings."""

from __future__ import annotations

import os
from pathlib import Path

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
