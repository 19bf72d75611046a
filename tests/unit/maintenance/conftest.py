from __future__ import annotations

import uuid

import fsspec
import pytest

from splicestore.storage import StoreRoot


@pytest.fixture(scope="session", autouse=True)
def unflushed():
    """Kills are exceptions here, not power cuts: waiting for the disk at every write would only take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    if request.param == "local":
        yield StoreRoot(str(tmp_path / "store"))
        return
    name = f"/maintenance-{uuid.uuid4().hex}"
    yield StoreRoot(f"memory:/{name}")
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(name):
        filesystem.rm(name, recursive=True)
