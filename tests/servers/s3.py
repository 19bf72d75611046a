"""An S3 server (moto) in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import http.client
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.servers.process import announce, serve_forever, server_process

REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server. It keeps objects in memory, checks no signatures and answers one request per connection."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        """Endpoint, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def bucket(self, name: str | None = None) -> str:
        """Make a bucket and return its name, a fresh one unless given.

        Raises
        ------
        RuntimeError
            If the server does not make it.
        """
        name = name or f"bucket-{uuid.uuid4().hex[:12]}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("PUT", f"/{name}")
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{self.url}: bucket {name!r} was not made: {answer.status} {said[:500]!r}")
        return name

    def storage_options(self, endpoint: str | None = None) -> dict[str, str]:
        """Options that open an ``s3://`` URL here, as fsspec spells them.

        Parameters
        ----------
        endpoint
            URL of a proxy in front of this server; the server itself unless given.
        """
        return {"endpoint_url": endpoint or self.url, "key": "test", "secret": "test", "region": REGION}


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """Run an S3 server on a free port of 127.0.0.1 until the block ends."""
    with server_process("tests.servers.s3") as server:
        started = S3Server(server.pid, server.port)
        # The first request loads the S3 part of the server: it is paid here, not by the first test.
        started.bucket()
        yield started


def _serve() -> None:
    from moto.server import ThreadedMotoServer

    # A line per request on standard error would cost more than the request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    announce(server.get_host_and_port()[1])
    serve_forever()


if __name__ == "__main__":
    _serve()
