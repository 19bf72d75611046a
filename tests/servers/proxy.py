"""A proxy in a process of its own that breaks things on purpose, in front of an S3 server or any other HTTP server.

It forwards HTTP/1.1 as it comes (bodies are streamed, ranges, conditions and chunked uploads are left alone), does what the
rules say (``tests.servers.rules``) and logs each request. Clients keep their connections even where the server behind it
closes its own after each answer, as real object stores let them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import json
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.servers.process import announce, server_process
from tests.servers.rules import Request, Rule, RuleBook, Verdict

CONTROL = "/__proxy__/"

PIECE = 1 << 18
"""Bytes that are moved at once."""

# -- the face in the test's process ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request that ended."""

    number: int
    """In the order of arrival, from 1; the log is in the order of ends."""
    connection: int
    """Of the client, from 1."""
    method: str
    operation: str
    path: str
    """``bucket/key``."""
    query: str
    """Without signatures and credentials."""
    headers: dict[str, str]
    """Range and conditions only."""
    status: int
    """Sent to the client; 0: none."""
    bytes_up: int
    """Of the request body, as it came over the wire."""
    bytes_down: int
    """Of the response body, as sent."""
    fault: str
    """Name of what was done to it; empty: nothing but slowed down."""
    started: float
    """POSIX time."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over the requests that ended since the log was reset."""

    requests: int
    bytes_up: int
    bytes_down: int
    operations: dict[str, int]
    statuses: dict[int, int]
    faults: dict[str, int]
    connections: int
    """Opened by clients."""
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class FaultProxy:
    """A running proxy."""

    pid: int
    port: int
    target: str

    @property
    def url(self) -> str:
        """Endpoint for clients, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def set(self, *rules: Rule, seed: int | None = None) -> None:
        """Replace all rules, for requests that arrive from now on; without rules everything passes.

        Parameters
        ----------
        seed
            For the draws; unless given, the one in force. Counts of ``nth``, ``times`` and the draws begin anew.
        """
        self._ask("PUT", "rules", {"rules": [dataclasses.asdict(rule) for rule in rules], "seed": seed})

    def cut(self) -> None:
        """Let nothing move on any connection, new ones included, as when a cable is pulled."""
        self._ask("PUT", "network", {"up": False})

    def restore(self) -> None:
        """Let everything move again; what clients gave up meanwhile never reaches the server."""
        self._ask("PUT", "network", {"up": True})

    def log(self) -> list[LoggedRequest]:
        """Requests that ended since the log was reset."""
        return [LoggedRequest(**entry) for entry in self._ask("GET", "log")]

    def reset_log(self) -> None:
        """Forget what was logged."""
        self._ask("DELETE", "log")

    def counts(self) -> Counts:
        """Sum the log."""
        found = self._ask("GET", "log")
        tallies = self._ask("GET", "tallies")
        return Counts(
            requests=len(found),
            bytes_up=sum(entry["bytes_up"] for entry in found),
            bytes_down=sum(entry["bytes_down"] for entry in found),
            operations=dict(Counter(entry["operation"] for entry in found)),
            statuses=dict(Counter(entry["status"] for entry in found)),
            faults=dict(Counter(entry["fault"] for entry in found if entry["fault"])),
            **tallies,
        )

    def _ask(self, method: str, what: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, CONTROL + what, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            said = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"{self.url}: {said}")
        return said


@contextmanager
def fault_proxy(target_url: str, *rules: Rule, seed: int = 0) -> Iterator[FaultProxy]:
    """Run a proxy in front of ``target_url`` on a free port of 127.0.0.1 until the block ends."""
    target = urlsplit(target_url)
    if target.scheme != "http" or target.port is None or target.path not in ("", "/"):
        raise ValueError(f"{target_url}: the proxy stands in front of http://HOST:PORT")
    with server_process("tests.servers.proxy", str(target.hostname), str(target.port)) as server:
        proxy = FaultProxy(server.pid, server.port, target_url)
        proxy.set(*rules, seed=seed)
        yield proxy


# -- the process: what is read and written ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """First line and headers of a message."""

    first: str
    lines: tuple[bytes, ...]
    headers: dict[str, str]

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Parse the bytes up to and with the empty line."""
        first, *lines = data[:-4].split(b"\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.decode("latin-1").strip().lower()] = value.decode("latin-1").strip()
        return cls(first.decode("latin-1"), tuple(lines), headers)

    def spell(self, *, without: tuple[str, ...]) -> bytes:
        """Spell the message's head, byte for byte as it came, but for some headers."""
        kept = [x for x in self.lines if x.partition(b":")[0].decode("latin-1").strip().lower() not in without]
        return b"\r\n".join([self.first.encode("latin-1"), *kept, b"", b""])


@dataclass(frozen=True, slots=True)
class Framing:
    """Where a body ends."""

    length: int = 0
    is_chunked: bool = False
    until_close: bool = False

    @classmethod
    def of(cls, headers: dict[str, str], *, is_response: bool) -> Framing:
        """Read it off the headers."""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return cls(is_chunked=True)
        if "content-length" in headers:
            return cls(length=int(headers["content-length"]))
        return cls(until_close=is_response)


async def pieces(reader: asyncio.StreamReader, framing: Framing, limit: int = PIECE) -> AsyncIterator[bytes]:
    """Yield a body as it comes, chunk heads and trailers included."""
    if framing.is_chunked:
        async for piece in _chunks(reader, limit):
            yield piece
        return
    left = sys.maxsize if framing.until_close else framing.length
    while left:
        piece = await reader.read(min(left, limit))
        if not piece:
            if framing.until_close:
                return
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader, limit: int) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        async for piece in pieces(reader, Framing(length=size + 2), limit):
            yield piece
    while line != b"\r\n":
        line = await reader.readuntil(b"\r\n")
        yield line


@dataclass(slots=True)
class Pace:
    """Holds one direction of a connection to a bandwidth."""

    bytes_per_second: float = float("inf")
    _due: float = 0.0

    @property
    def piece(self) -> int:
        """Bytes to move at once: about 20 ms' worth."""
        return max(1, int(min(PIECE, self.bytes_per_second / 50)))

    async def spend(self, n_bytes: int) -> None:
        """Wait as long as these bytes take."""
        if self.bytes_per_second == float("inf"):
            return
        now = time.monotonic()
        self._due = max(self._due, now) + n_bytes / self.bytes_per_second
        await asyncio.sleep(self._due - now)


@dataclass(slots=True)
class Side:
    """One end: a client, or the server behind the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pace: Pace = field(default_factory=Pace)
    """Of what is written to it."""

    @property
    def is_gone(self) -> bool:
        """Whether the other end closed the connection, also where what it sent before was not read yet."""
        if self.writer.is_closing():
            return True
        poll = select.poll()
        poll.register(self.writer.get_extra_info("socket").fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))

    async def send(self, data: bytes) -> None:
        """Write, waiting where the other end is slow."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close without a farewell: the other end sees a reset, not an end."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(slots=True)
class Meter:
    """Counts what one body let through, also where it broke off."""

    n_bytes: int = 0


# -- the process: one exchange -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Exchange:
    """One request on its way, and what the log will say of it."""

    number: int
    request: Request
    head: Head
    body: Framing
    verdict: Verdict
    is_body_read: bool = False
    status: int = 0
    up: Meter = field(default_factory=Meter)
    down: Meter = field(default_factory=Meter)
    fault: str = ""
    started: float = field(default_factory=time.time)

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client sends the body only when told to."""
        return not self.is_body_read and self.head.headers.get("expect", "").lower() == "100-continue"

    def entry(self, connection: int) -> dict[str, Any]:
        """Spell the line of the log."""
        kept = ("range", "if-match", "if-none-match")
        return {
            "number": self.number,
            "connection": connection,
            "method": self.request.method,
            "operation": self.request.operation,
            "path": self.request.path,
            "query": self.request.query,
            "headers": {name: self.request.headers[name] for name in kept if name in self.request.headers},
            "status": self.status,
            "bytes_up": self.up.n_bytes,
            "bytes_down": self.down.n_bytes,
            "fault": self.fault,
            "started": self.started,
            "seconds": time.time() - self.started,
        }


@dataclass(slots=True)
class Proxy:
    """State of the proxy's process."""

    host: str
    port: int
    book: RuleBook = field(default_factory=RuleBook)
    network: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[dict[str, Any]] = field(default_factory=list)
    n_requests: int = 0
    n_connections: int = 0
    connections_before: int = 0
    in_flight: int = 0
    max_in_flight: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a client until either end has enough of it."""
        connection = Connection(self, Side(reader, writer))
        try:
            while await connection.exchange():
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            connection.client.writer.transport.abort()
        finally:
            await connection.close()

    def begin(self, head: Head) -> Exchange:
        """Take a request up."""
        method, target, _ = head.first.split(" ", 2)
        request = Request(method, target, head.headers)
        self.n_requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        body = Framing.of(head.headers, is_response=False)
        return Exchange(self.n_requests, request, head, body, self.book.judge(request))

    def control(self, method: str, what: str, body: bytes) -> Any:
        """Do what the test's process asks for."""
        if (method, what) == ("PUT", "rules"):
            asked = json.loads(body)
            seed = self.book.seed if asked["seed"] is None else asked["seed"]
            self.book = RuleBook(tuple(Rule(**rule) for rule in asked["rules"]), seed)
        elif (method, what) == ("PUT", "network"):
            (self.network.set if json.loads(body)["up"] else self.network.clear)()
        elif (method, what) == ("DELETE", "log"):
            self.log.clear()
            self.connections_before = self.n_connections
            self.max_in_flight = self.in_flight
        elif (method, what) == ("GET", "log"):
            return self.log
        elif (method, what) == ("GET", "tallies"):
            n_connections = self.n_connections - self.connections_before
            return {"connections": n_connections, "max_in_flight": self.max_in_flight}
        else:
            raise ValueError(f"nothing at {method} {CONTROL}{what}")
        return {}


@dataclass(slots=True)
class Connection:
    """A client's connection and, where one is open, the connection to the server that serves it."""

    proxy: Proxy
    client: Side
    number: int = 0
    server: Side | None = None

    async def exchange(self) -> bool:
        """Answer one request; whether another may follow."""
        try:
            head = Head.parse(await self.client.reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError:
            return False
        if head.first.split(" ", 2)[1].startswith(CONTROL):
            await self._control(head)
            return False
        if not self.number:
            self.proxy.n_connections += 1
            self.number = self.proxy.n_connections
        exchange = self.proxy.begin(head)
        try:
            return await self._answer(exchange) and head.headers.get("connection", "").lower() != "close"
        finally:
            self.proxy.in_flight -= 1
            self.proxy.log.append(exchange.entry(self.number))

    async def close(self) -> None:
        """Close both ends, what was written to the client going out first."""
        self._drop_server()
        self.client.writer.close()
        with contextlib.suppress(OSError):
            await self.client.writer.wait_closed()

    async def _control(self, head: Head) -> None:
        method, target, _ = head.first.split(" ", 2)
        body = await self.client.reader.readexactly(int(head.headers.get("content-length", "0")))
        try:
            answer, status = self.proxy.control(method, target.removeprefix(CONTROL), body), b"200 OK"
        except (ValueError, TypeError, KeyError) as error:
            answer, status = str(error), b"400 Bad Request"
        data = json.dumps(answer).encode()
        await self.client.send(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(data), data))

    async def _answer(self, exchange: Exchange) -> bool:
        verdict, fault = exchange.verdict, exchange.verdict.fault
        self.client.pace.bytes_per_second = verdict.bytes_per_second
        if fault is not None and fault.fault == "cut":
            exchange.fault = verdict.name
            self.proxy.network.clear()
        if verdict.seconds:
            await asyncio.sleep(verdict.seconds)
        await self.proxy.network.wait()
        if self.client.is_gone:
            return False
        if fault is not None and not fault.after and fault.fault in ("error", "reset", "silent"):
            return await self._fail(exchange, fault)
        try:
            head = await self._forward(exchange)
        except (OSError, asyncio.IncompleteReadError) as error:
            exchange.fault = f"no answer from the server: {error}"
            return await self._send_error(exchange, 502, "BadGateway")
        return await self._pass_back(exchange, head)

    async def _fail(self, exchange: Exchange, fault: Rule) -> bool:
        exchange.fault = exchange.verdict.name
        if fault.fault == "error":
            return await self._send_error(exchange, fault.status, fault.code)
        if fault.fault == "reset":
            self.client.reset()
            return False
        while await self.client.reader.read(PIECE):
            pass
        return False

    # -- to the server --------------------------------------------------------------------------------------------

    async def _forward(self, exchange: Exchange) -> Head:
        """Send the request on; return the head of the answer."""
        has_body = exchange.body.length or exchange.body.is_chunked
        if exchange.waits_for_continue and has_body:
            await self.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        server = await self._open_server()
        server.pace.bytes_per_second = exchange.verdict.bytes_per_second
        # The proxy itself has said that the body may come.
        server.writer.write(exchange.head.spell(without=("expect",)))
        exchange.is_body_read = True
        await self._move(self.client.reader, exchange.body, server, exchange.up)
        await server.writer.drain()
        while True:
            head = Head.parse(await server.reader.readuntil(b"\r\n\r\n"))
            if not head.first.split(" ", 2)[1].startswith("1"):
                return head

    async def _open_server(self) -> Side:
        if self.server is None or self.server.is_gone:
            self._drop_server()
            self.server = Side(*await asyncio.open_connection(self.proxy.host, self.proxy.port, limit=PIECE))
        return self.server

    def _drop_server(self) -> None:
        # Without waiting: who asks for the log after an answer must find the request in it.
        if self.server is not None:
            self.server.writer.close()
            self.server = None

    async def _move(self, source: asyncio.StreamReader, framing: Framing, sink: Side | None, meter: Meter) -> None:
        """Move a body. Without a sink it is thrown away."""
        limit = PIECE if sink is None else sink.pace.piece
        async for piece in pieces(source, framing, limit):
            await self.proxy.network.wait()
            if sink is not None:
                await sink.pace.spend(len(piece))
                await sink.send(piece)
            meter.n_bytes += len(piece)

    # -- to the client --------------------------------------------------------------------------------------------

    async def _pass_back(self, exchange: Exchange, head: Head) -> bool:
        """Send the server's answer to the client, or what a rule puts in its place."""
        assert self.server is not None
        status, fault = int(head.first.split(" ", 2)[1]), exchange.verdict.fault
        body = Framing.of(head.headers, is_response=True)
        if exchange.request.method == "HEAD" or status in (204, 304):
            body = Framing()
        if fault is not None and fault.after:
            await self._discard(head, body)
            return await self._fail(exchange, fault)
        if fault is not None and fault.fault == "hide_missing" and status == 404:
            await self._discard(head, body)
            exchange.fault = fault.fault
            return await self._send_error(exchange, 403, "AccessDenied")
        await self.proxy.network.wait()
        exchange.status = status
        self.client.writer.write(head.spell(without=("connection", "keep-alive")))
        if fault is not None and fault.fault == "truncate" and (body.length or body.is_chunked):
            exchange.fault = fault.fault
            body = Framing(length=int(body.length * fault.keep))
            await self._move(self.server.reader, body, self.client, exchange.down)
            return False
        await self._move(self.server.reader, body, self.client, exchange.down)
        await self.client.writer.drain()
        self._end_answer(head, body)
        return not body.until_close

    def _end_answer(self, head: Head, body: Framing) -> None:
        if body.until_close or head.headers.get("connection", "").lower() == "close":
            self._drop_server()

    async def _discard(self, head: Head, body: Framing) -> None:
        """Read the rest of the server's answer, for nobody."""
        assert self.server is not None
        await self._move(self.server.reader, body, None, Meter())
        self._end_answer(head, body)

    async def _send_error(self, exchange: Exchange, status: int, code: str) -> bool:
        """Answer with an error as S3 spells it; whether the connection may go on."""
        goes_on = not exchange.waits_for_continue
        if not exchange.is_body_read and goes_on:
            exchange.is_body_read = True
            await self._move(self.client.reader, exchange.body, None, exchange.up)
        reason = http.client.responses.get(status, "Error")
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{reason} (on purpose).</Message>'
            f"<RequestId>{exchange.number}</RequestId></Error>"
        ).encode()
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        await self.proxy.network.wait()
        exchange.status = status
        if exchange.request.method == "HEAD":
            body = b""
        await self.client.send(head + body)
        exchange.down.n_bytes = len(body)
        return goes_on


async def _serve(host: str, port: int) -> None:
    proxy = Proxy(host, port)
    proxy.network.set()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=PIECE, backlog=1024)
    announce(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
