"""The write lease of a name: who is writing it now, so that a second writer is told instead of working twice.

A lease saves work and keeps two people from surprising each other; correctness never rests on it, because generations are
named by content and the pointer is switched by compare-and-swap.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from splicestore.errors import LeaseHeldError, SpliceStoreError
from splicestore.storage.backends import Tagged
from splicestore.storage.keys import StoreRoot
from splicestore.storage.sealed import is_intact, parse_sealed, seal_document

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""A lease that was not renewed for this long has expired; it is renewed three times in that span."""


def lease_key(path: str, job: str = "") -> str:
    """Key of the lease of ``<kind>/<name>``, or of one job of an array that writes it (``3-of-7``)."""
    return f"{path}/lease{f'-{job}' if job else ''}.json"


@dataclass
class WriteLease:
    """A lease that this process holds."""

    root: StoreRoot
    path: str
    job: str = ""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    seconds: float = LEASE_SECONDS

    def __post_init__(self) -> None:
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._data = b""
        self._thread: threading.Thread | None = None

    @property
    def key(self) -> str:
        """Where the lease lies."""
        return lease_key(self.path, self.job)

    def check(self) -> None:
        """Refuse to go on where another writer took the lease over.

        Raises
        ------
        LeaseHeldError
            If it did.
        """
        if self._lost.is_set():
            raise LeaseHeldError(
                f"{self.root.url_of(self.path)}: another writer took the lease over while this run was silent for more than "
                f"{self.seconds:.0f} s; what is encoded stays, run the same command again when the other is done"
            )

    def acquire(self, *, steal: bool) -> None:
        """Take the lease, or say who holds it."""
        while True:
            self._data = self._spell()
            present = self.root.create(self.key, self._data)
            if present == self._data:
                break
            found = self.root.read(self.key)
            if found is None:
                continue
            self._refuse_living(found, steal=steal)
            if self.root.put_if(self.key, self._data, found.tag):
                break
        self._thread = threading.Thread(target=self._renew, name=f"lease {self.path}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lease back, if it still is ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if self.root.get(self.key) == self._data:
                self.root.remove([self.key])
        except SpliceStoreError as error:
            logger.warning("%s: the lease could not be given back (%s); it expires by itself", self.path, error)

    def _spell(self) -> bytes:
        return seal_document(
            {
                "host": socket.gethostname(),
                "boot": _boot_id(),
                "pid": os.getpid(),
                "pid_started": process_started(os.getpid()),
                "since": self._since,
                "until": time.time() + self.seconds,
                "token": self.token,
            }
        )

    def _refuse_living(self, found: Tagged, *, steal: bool) -> None:
        """Return where the lease may be taken over; raise where its holder lives."""
        if not is_intact(found.data):
            logger.warning("%s: the lease is damaged and taken over", self.root.url_of(self.key))
            return
        holder = parse_sealed(found.data, self.root.url_of(self.key))
        if holder_is_dead(holder):
            logger.info("%s: process %s held the lease and is gone", self.path, holder["pid"])
            return
        left = float(holder["until"]) - time.time()
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        where = self.root.url_of(self.path)
        if left > 0:
            raise LeaseHeldError(
                f"{where}: is being written by {who}; wait for it (if it was killed on another machine, the lease expires in "
                f"{left:.0f} s: then run the same command with --steal)"
            )
        if not steal:
            raise LeaseHeldError(
                f"{where}: was being written by {who}, which stopped renewing its lease {-left:.0f} s ago; if that run is dead, "
                "run the same command with --steal"
            )

    def _renew(self) -> None:
        while not self._stop.wait(self.seconds / 3):
            try:
                found = self.root.read(self.key)
                renewed = self._spell()
                if found is None or found.data != self._data or not self.root.put_if(self.key, renewed, found.tag):
                    self._lost.set()
                    return
                self._data = renewed
            except SpliceStoreError as error:
                # The network may come back before the lease runs out; if not, another writer may take it.
                logger.warning("%s: the lease could not be renewed: %s", self.path, error)


@contextmanager
def write_lease(
    root: StoreRoot, path: str, *, job: str = "", steal: bool = False, seconds: float = LEASE_SECONDS
) -> Iterator[WriteLease]:
    """Hold the write lease of ``<kind>/<name>`` while the block runs.

    Parameters
    ----------
    job
        One of several that share the work; it is told where the name itself is leased, and where the same job runs twice.
    steal
        Take over a lease that has expired. A lease of a process of this machine that is gone is taken over anyway.
    seconds
        How long it lasts without being renewed; a thread renews it.

    Raises
    ------
    LeaseHeldError
        If another writer holds it; the message names host, process and time.
    """
    if job and (holder := read_holder(root, path)) is not None:
        raise LeaseHeldError(
            f"{root.url_of(path)}: is being written whole by process {holder['pid']} on {holder['host']} since {holder['since']}; "
            "wait for it"
        )
    lease = WriteLease(root, path, job, seconds=seconds)
    lease.acquire(steal=steal)
    try:
        yield lease
    finally:
        lease.release()


def holder_is_dead(holder: Mapping[str, Any]) -> bool:
    """Whether a lease's process ran on this machine and does not run any more."""
    if holder["host"] != socket.gethostname():
        return False
    if holder["boot"] != _boot_id():
        return True
    return process_started(int(holder["pid"])) != holder["pid_started"]


def process_started(pid: int) -> int | None:
    """Clock ticks after boot at which a process started; None if there is none (or it is a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        # No /proc: tell only whether it runs.
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return 0
        return 0
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def read_holder(root: StoreRoot, path: str) -> dict[str, Any] | None:
    """Who holds the lease of a name now; None if nobody does."""
    data = root.get(lease_key(path))
    if data is None or not is_intact(data):
        return None
    holder = parse_sealed(data, root.url_of(lease_key(path)))
    if holder_is_dead(holder) or float(holder["until"]) < time.time():
        return None
    return holder


__all__ = ["LEASE_SECONDS", "WriteLease", "lease_key", "read_holder", "write_lease"]
