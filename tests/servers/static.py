"""A plain web server of one folder: GET and HEAD of files, with ranges and ETags; no listings, nothing to write."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from tests.servers.process import announce, server_process


@contextmanager
def static_server(folder: Path | str) -> Iterator[str]:
    """Serve a folder on a free port of 127.0.0.1 until the block ends; yields the URL, without a trailing slash."""
    with server_process("tests.servers.static", str(Path(folder).resolve())) as server:
        yield server.url


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Parse a ``Range`` header for an object of ``size`` bytes.

    Returns
    -------
    span : (start, stop) or None
        0-based, half-open. None where the whole object is to be sent: no header, or one that this server does not
        understand (several ranges, other units). ``start >= stop`` where no byte of the object is asked for: 416.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not found or found.group(0) == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    folder: Path

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line per request would cost more than the request."""

    def _answer(self, *, with_body: bool) -> None:
        path = (self.folder / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not path.is_relative_to(self.folder):
            self._refuse(404)
        elif path.is_dir():
            self._refuse(403)
        elif not path.is_file():
            self._refuse(404)
        else:
            with path.open("rb") as file:
                self._send_file(file, with_body=with_body)

    def _send_file(self, file: BinaryIO, *, with_body: bool) -> None:
        found = os.fstat(file.fileno())
        size, tag = found.st_size, f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        span = byte_range(self.headers.get("Range"), size)
        start, stop = span or (0, size)
        if self.headers.get("If-Match", tag) not in (tag, "*"):
            self._refuse(412)
        elif self.headers.get("If-None-Match") in (tag, "*"):
            self._refuse(304)
        elif span and start >= stop:
            self._refuse(416, {"Content-Range": f"bytes */{size}"})
        else:
            self.send_response(206 if span else 200)
            if span:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", tag)
            self.send_header("Last-Modified", self.date_time_string(int(found.st_mtime)))
            self.end_headers()
            if with_body and stop > start:
                self.wfile.flush()
                self.connection.sendfile(file, start, stop - start)

    def _refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over clients that went away."""


def _serve(folder: str) -> None:
    _Handler.folder = Path(folder)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        announce(server.server_address[1])
        server.serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1])
