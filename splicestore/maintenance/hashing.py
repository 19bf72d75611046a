"""Stored bytes against their recorded sha256, in ranges, by any executor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from splicestore.cluster import Executor
from splicestore.errors import TransferError
from splicestore.storage import StoreRoot

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) in bytes."""

RANGE_BYTES = 32 * 1024 * 1024
SMALL_BYTES = 2 * 1024 * 1024
"""Objects up to this size are asked for several at once; larger ones one after another, so that memory stays bounded."""
TASK_BYTES = 256 * 1024 * 1024
TASK_OBJECTS = 512


@dataclass(frozen=True, slots=True)
class ExpectedObject:
    """One object as its part records it."""

    key: str
    """In the store."""
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class WrongObject:
    """One object that is not as recorded."""

    key: str
    got: str
    """What was found instead, as words."""
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class HashTask:
    """Some objects of a store. Picklable."""

    root: StoreRoot
    objects: tuple[ExpectedObject, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes to be read."""
        return sum(o.size for o in self.objects)


def stored_sha256(root: StoreRoot, key: str, size: int) -> str:
    """Sha256 of the first ``size`` bytes of an object, read in ranges; FileNotFoundError if it is absent."""
    digest = hashlib.sha256()
    # At least one read, so that an absent object of no bytes is noticed by its absence.
    for start in range(0, max(size, 1), RANGE_BYTES):
        length = min(RANGE_BYTES, size - start)
        data = root.get_range(key, start, length) if length else root.get(key)
        if data is None:
            raise FileNotFoundError(key)
        digest.update(data)
    return digest.hexdigest()


def check_object(root: StoreRoot, wanted: ExpectedObject) -> WrongObject | None:
    """Read one object and compare; None if it is as recorded."""
    try:
        sha256 = stored_sha256(root, wanted.key, wanted.size)
    except FileNotFoundError:
        return WrongObject(wanted.key, "no such object", is_missing=True)
    except TransferError as error:
        # A file that its disk cannot read back is damage; a network that fails says nothing about the store.
        if not root.backend.is_local:
            raise
        return WrongObject(wanted.key, str(error))
    return None if sha256 == wanted.sha256 else WrongObject(wanted.key, f"bytes with sha256 {sha256[:16]}...")


def run_hash_task(task: HashTask) -> tuple[WrongObject, ...]:
    """Check the objects of a task; return those that are wrong."""
    small = [o for o in task.objects if o.size <= SMALL_BYTES]
    large = [o for o in task.objects if o.size > SMALL_BYTES]
    checked = task.root.gather(lambda wanted: check_object(task.root, wanted), small)
    return tuple(wrong for wrong in [*checked, *(check_object(task.root, o) for o in large)] if wrong is not None)


def cut_tasks(root: StoreRoot, objects: Iterable[ExpectedObject]) -> list[HashTask]:
    """Cut objects into tasks of bounded bytes and number."""
    tasks: list[HashTask] = []
    held: list[ExpectedObject] = []
    n_bytes = 0
    for wanted in objects:
        if held and (n_bytes + wanted.size > TASK_BYTES or len(held) == TASK_OBJECTS):
            tasks.append(HashTask(root, tuple(held)))
            held, n_bytes = [], 0
        held.append(wanted)
        n_bytes += wanted.size
    return [*tasks, HashTask(root, tuple(held))] if held else tasks


def wrong_objects(
    root: StoreRoot, objects: Sequence[ExpectedObject], executor: Executor, progress: Progress | None = None
) -> Iterator[WrongObject]:
    """Yield the objects that are not as recorded, as tasks finish."""
    tasks = cut_tasks(root, objects)
    total, done = sum(task.n_bytes for task in tasks), 0
    names = [f"objects from {task.objects[0].key}" for task in tasks]
    for index, wrong in executor.map(run_hash_task, tasks, names=names):
        yield from wrong
        done += tasks[index].n_bytes
        if progress is not None:
            progress("objects", done, total)
