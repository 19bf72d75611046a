"""A small store made by hand: two generations of a genome, its usage, a split, predictions, and what killed runs leave."""

from __future__ import annotations

import functools
import hashlib
import threading

import numpy as np

from splicestore.schema import ArraySpec, Plan, table_column
from splicestore.storage import Publication, StoreRoot
from splicestore.storage.finalise import STATUS_COMPLETE
from splicestore.storage.runs import RunRecord

N_BASES = 96
SHARD = 32


def specs():
    return [
        ArraySpec("sequence", (N_BASES,), ("base",), "uint8", (16,), (SHARD,), fill_value=4),
        table_column("gene_id", 2, "gene", "string"),
    ]


def values_of(seed):
    """Bases; the last shard is all fill, so that it leaves no object."""
    bases = np.random.default_rng(seed).integers(0, 4, N_BASES).astype(np.uint8)
    bases[2 * SHARD :] = 4
    return bases


PARTS = ["sequence-0", "sequence-1", "sequence-2", "tables"]


def publication(root, path, seed, attributes=None, *, digest=None):
    plan = Plan(path.split("/")[0], 1, (), {}, {"seed": seed, "path": path}, {})
    return Publication(root, path, plan, specs(), attributes or {}, pointer_digest=digest)


def encode(made, seed, parts=PARTS):
    for part in parts:
        if made.has_part(part):
            continue
        writer = made.partition(part)
        if part == "tables":
            writer.write("gene_id", [f"gene {seed}", "ü"])
        else:
            shard = int(part.rsplit("-", 1)[1])
            writer.write("sequence", values_of(seed)[shard * SHARD : (shard + 1) * SHARD], shard * SHARD)
        writer.close()


def publish(root, path, seed, attributes=None, *, digest=None, switch=True):
    """Walk the write sequence; return the key of the generation."""
    made = publication(root, path, seed, attributes, digest=digest)
    if not made.is_complete():
        made.begin()
        encode(made, seed)
        made.finalise(PARTS)
    if switch:
        made.switch()
    return made.base


def begin(root, path, seed, parts, attributes=None):
    """Leave an unfinished generation with some parts, and an object in no part."""
    made = publication(root, path, seed, attributes)
    made.begin()
    encode(made, seed, parts)
    root.put(f"{made.base}/sequence/c/1", b"half a partition")
    return made.base


def genome(root, name, seed):
    site_digest = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
    usage = publish(root, f"usage/{name}/main", seed, {"site_digest": site_digest}, digest=site_digest)
    return publish(root, f"genomes/{name}", seed, {"genome_id": name, "site_digest": site_digest}), usage


def generation(base):
    return base.rsplit("/", 1)[1]


def fill(root):
    """Put the store there, made once; return the keys of its generations by what they are."""
    objects, keys = _made_once()
    for key, data in objects.items():
        root.put(key, data)
    return dict(keys)


@functools.cache
def _made_once():
    root = StoreRoot("memory://maintenance-template")
    keys = _fill(root)
    return dump(root), keys


def _fill(root):
    old, old_usage = genome(root, "a", 0)
    split = publish(root, "splits/run1", 0, {"pins": {"a": generation(old)}})
    scores = publish(
        root,
        "predictions/p",
        0,
        {
            "pins": {
                "genomes": {"a": generation(old)},
                "usage": {"a": [old_usage]},
                "model": "m",
                "split": generation(split),
            }
        },
    )
    middle, middle_usage = genome(root, "a", 1)
    new, new_usage = genome(root, "a", 2)
    other, other_usage = genome(root, "b", 3)
    never = publish(root, "splits/run2", 5, {"pins": {"b": generation(other)}}, switch=False)
    unfinished = begin(root, "genomes/c", 7, ["sequence-0", "tables"])
    RunRecord(2, {"sequence-0": 0, "sequence-1": 1, "sequence-2": 0, "tables": 1}).write(root, unfinished)
    return {
        "old": old, "old_usage": old_usage, "middle": middle, "middle_usage": middle_usage, "new": new, "new_usage": new_usage,
        "other": other, "other_usage": other_usage, "split": split, "scores": scores, "never": never, "unfinished": unfinished,
    }  # fmt: skip


def dump(root, prefix=""):
    """Bytes of every object."""
    return {key: root.get(f"{prefix}/{key}" if prefix else key) for key in root.sizes(prefix)}


def is_complete(root, base):
    from splicestore.storage import generation_status

    return generation_status(root, base) == STATUS_COMPLETE


class Killed(BaseException):
    pass


class Kills:
    """Counts key writes to one store, and stops the program at one of them, for good."""

    def __init__(self, monkeypatch, store_class):
        self.n, self.stop, self.url = 0, None, ""
        self._lock = threading.Lock()
        for name in ("put", "create", "put_if", "remove"):
            monkeypatch.setattr(store_class, name, self._counted(getattr(store_class, name)))

    def _counted(self, real):
        def wrapper(root, *args, **kwargs):
            if root.url == self.url:
                with self._lock:
                    if self.stop is not None and self.n >= self.stop:
                        raise Killed
                    self.n += 1
            return real(root, *args, **kwargs)

        return wrapper

    def watch(self, url, stop=None):
        self.n, self.stop, self.url = 0, stop, url
