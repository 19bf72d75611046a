"""What the fault proxy may do to a request, and to which: values, no I/O.

Make rules by the functions below; each takes, by name, what restricts it: ``operation``, ``key``, ``fraction``, ``nth``,
``times`` (see ``Rule``). Rules that slow requests down add up; of the others the first that applies is done.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlencode

Fault = Literal["error", "reset", "truncate", "silent", "cut", "hide_missing", "latency", "bandwidth"]

SLOWING = ("latency", "bandwidth")

SECRET_PARAMETERS = re.compile(r"(?i)^x-amz-(signature|credential|security-token)$|^(signature|awsaccesskeyid)$")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the proxy read it."""

    method: str
    target: str
    """Path and query, as sent."""
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def path(self) -> str:
        """Decoded path without the leading slash: ``bucket/key``."""
        return unquote(self.target.partition("?")[0]).lstrip("/")

    @property
    def query(self) -> str:
        """Query without signatures and credentials."""
        pairs = parse_qsl(self.target.partition("?")[2], keep_blank_values=True)
        return urlencode([(name, "-" if SECRET_PARAMETERS.match(name) else value) for name, value in pairs])

    @property
    def operation(self) -> str:
        """What the request does: list, get, head, put, delete, bucket or other.

        Parts of multipart uploads are ``put``, several deletions in one request are ``delete``; ``bucket`` makes, removes
        or looks at a bucket. A GET without a key is a listing where an S3 client says it: with a query, or signed.
        """
        has_key = bool(self.path.partition("/")[2])
        names = {name for name, _ in parse_qsl(self.target.partition("?")[2], keep_blank_values=True)}
        if self.method == "POST":
            return "delete" if "delete" in names else "put" if names & {"uploads", "uploadId"} else "other"
        if has_key or (self.method == "GET" and not names and not self._is_signed):
            return self.method.lower() if self.method in ("GET", "HEAD", "PUT", "DELETE") else "other"
        return "list" if self.method == "GET" else "bucket"

    @property
    def _is_signed(self) -> bool:
        return "x-amz-date" in self.headers or self.headers.get("authorization", "").startswith("AWS")


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault and the requests that it befalls."""

    fault: Fault
    operation: str = ""
    """Regular expression for the whole operation (``"put|delete"``); empty: any."""
    key: str = ""
    """Regular expression searched in ``bucket/key``; empty: any."""
    fraction: float = 1.0
    """Share of the matching requests that it befalls, drawn from the seed and the request, whatever runs beside it."""
    nth: int | None = None
    """Only the n-th matching request since the rules were set, from 1."""
    times: int | None = None
    """At most so many requests."""
    after: bool = False
    """Do it after the request was carried out: the object is written, the writer does not know."""
    status: int = 503
    code: str = "SlowDown"
    ms: float = 0.0
    jitter_ms: float = 0.0
    """Up to so many milliseconds more, evenly drawn: requests sent together end in another order."""
    bytes_per_second: float = 0.0
    keep: float = 0.5
    """Share of the body that is sent."""

    def __post_init__(self) -> None:
        if self.fault not in get_args(Fault):
            raise ValueError(f"no fault {self.fault!r}; there are: {', '.join(get_args(Fault))}")
        if not 0 <= self.fraction <= 1 or not 0 <= self.keep < 1:
            raise ValueError(f"fraction lies in [0, 1] and keep in [0, 1), got {self.fraction} and {self.keep}")
        if self.fault == "bandwidth" and self.bytes_per_second <= 0:
            raise ValueError(f"bytes_per_second must be positive, got {self.bytes_per_second}")
        for pattern in (self.operation, self.key):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {pattern!r}: {error}") from error


def slow_down(*, after: bool = False, status: int = 503, code: str = "SlowDown", **where: Any) -> Rule:
    """Answer with an error, before the request reaches the server or after it was carried out."""
    return Rule("error", after=after, status=status, code=code, **where)


def deny(operation: str, **where: Any) -> Rule:
    """Answer 403 AccessDenied; ``deny("put|delete")`` is a bucket to read only."""
    return Rule("error", operation=operation, status=403, code="AccessDenied", **where)


def no_list_bucket() -> tuple[Rule, Rule]:
    """Credentials that may get objects but not list them: then AWS answers 403, not 404, for an object that is not there."""
    return deny("list"), Rule("hide_missing", operation="get|head")


def reset(*, after: bool = False, **where: Any) -> Rule:
    """Reset the connection instead of answering."""
    return Rule("reset", after=after, **where)


def truncate(*, keep: float = 0.5, **where: Any) -> Rule:
    """Announce the whole body, send the share ``keep`` of it, and close."""
    return Rule("truncate", keep=keep, **where)


def silent(**where: Any) -> Rule:
    """Never answer; the connection stays open."""
    return Rule("silent", **where)


def cut(**where: Any) -> Rule:
    """Cut the network at this request: nothing moves on any connection until it is restored."""
    return Rule("cut", **where)


def latency(ms: float = 0.0, *, jitter_ms: float = 0.0, **where: Any) -> Rule:
    """Wait before a request is passed on."""
    return Rule("latency", ms=ms, jitter_ms=jitter_ms, **where)


def bandwidth(bytes_per_second: float, **where: Any) -> Rule:
    """Limit each direction of each connection."""
    return Rule("bandwidth", bytes_per_second=bytes_per_second, **where)


@dataclass(slots=True)
class Verdict:
    """What is to be done to one request."""

    seconds: float = 0.0
    bytes_per_second: float = float("inf")
    fault: Rule | None = None

    @property
    def name(self) -> str:
        """Name of the fault, for the log: empty where the request is passed on whole."""
        if self.fault is None:
            return ""
        name = self.fault.code if self.fault.fault == "error" else self.fault.fault
        return f"{name} after" if self.fault.after else name


@dataclass(slots=True)
class RuleBook:
    """The rules in force, with how often each has matched."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0
    _matched: list[int] = field(init=False)
    _done: list[int] = field(init=False)
    _patterns: list[tuple[re.Pattern[str], re.Pattern[str]]] = field(init=False)
    _seen: Counter[tuple[str, str, str]] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self._matched = [0] * len(self.rules)
        self._done = [0] * len(self.rules)
        self._patterns = [(re.compile(rule.operation), re.compile(rule.key)) for rule in self.rules]

    def judge(self, request: Request) -> Verdict:
        """Decide what happens to a request; called once for each, in the order in which they arrive."""
        verdict = Verdict()
        if not self.rules:
            return verdict
        identity = (request.method, request.target, request.headers.get("range", ""))
        self._seen[identity] += 1
        for number, rule in enumerate(self.rules):
            if self._applies(number, rule, request, identity):
                self._add(verdict, number, rule, identity)
        return verdict

    def _applies(self, number: int, rule: Rule, request: Request, identity: tuple[str, str, str]) -> bool:
        operation, key = self._patterns[number]
        if (rule.operation and not operation.fullmatch(request.operation)) or (
            rule.key and not key.search(request.path)
        ):
            return False
        self._matched[number] += 1
        if rule.nth is not None and rule.nth != self._matched[number]:
            return False
        return (rule.times is None or self._done[number] < rule.times) and (
            rule.fraction == 1 or self._draw(number, "fraction", identity) < rule.fraction
        )

    def _add(self, verdict: Verdict, number: int, rule: Rule, identity: tuple[str, str, str]) -> None:
        if rule.fault == "latency":
            jitter = rule.jitter_ms * self._draw(number, "jitter", identity) if rule.jitter_ms else 0.0
            verdict.seconds += (rule.ms + jitter) / 1_000
        elif rule.fault == "bandwidth":
            verdict.bytes_per_second = min(verdict.bytes_per_second, rule.bytes_per_second)
        elif verdict.fault is None:
            verdict.fault = rule
        else:
            return
        self._done[number] += 1

    def _draw(self, number: int, purpose: str, identity: tuple[str, str, str]) -> float:
        # A draw depends on the request and how often it was sent before, not on what came between: threads may race.
        text = "\t".join((str(self.seed), str(number), purpose, *identity, str(self._seen[identity])))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64
