"""Fixtures with real servers; a ``conftest`` takes them in by ``pytest_plugins = ["tests.servers.fixtures"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.proxy import FaultProxy, fault_proxy
from tests.servers.s3 import S3Server, moto_server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One S3 server for all tests of this process (one per worker of a parallel run)."""
    with moto_server() as server:
        yield server


@pytest.fixture
def s3_bucket(s3: S3Server) -> str:
    """Name of a bucket that no other test uses."""
    return s3.bucket()


@pytest.fixture(scope="session")
def _session_proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(s3.url) as proxy:
        yield proxy


@pytest.fixture
def s3_proxy(_session_proxy: FaultProxy) -> Iterator[FaultProxy]:
    """Fault proxy in front of the S3 server: no rules, an empty log, the network up, as at the start of each test."""
    _session_proxy.restore()
    _session_proxy.set(seed=0)
    _session_proxy.reset_log()
    yield _session_proxy
    _session_proxy.restore()
    _session_proxy.set()
