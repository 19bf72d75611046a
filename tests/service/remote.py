"""What tests of stores elsewhere share: one study made on disk, commands run in this process, contents compared."""

from __future__ import annotations

import contextlib
import io
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from splicestore import WindowStream, open_store
from splicestore.cli.app import run
from splicestore.predict import PredictOptions, predict_windows
from splicestore.storage import StoreRoot
from splicestore.storage.catalog import KINDS, NESTED_KINDS
from splicestore.storage.pointers import read_pointer
from tests.service.study import write_study

SECRET = "hush-5c0ffee1"
NOTICES = ("WARNING splicestore.storage.lease: ", "INFO splicestore.cluster.dashboard: ")
"""Lines that may stand before the one that says how a command ended."""
SPLIT = ("--reference-genome", "toy1", "--test-chromosomes", "chrB", "--window-size", "400", "--context-size", "100")
TASKS = ("acceptor", "donor")
PASSING = ("manifest.json", "catalog.json", "lease.json")
"""Documents with times and settings of the run in them, and what a writer that lost its connection left."""


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    stdout: str
    stderr: str


def cli(*words) -> Done:
    """Run a command line in this process: the same code as ``splicestore``, without the second it takes to start."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = run([str(word) for word in words])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Done(status, out.getvalue(), err.getvalue())


def check(done: Done, status: int = 0) -> Done:
    assert done.status == status, done.stderr + done.stdout
    return done


def one_line(done: Done, status: int) -> str:
    """Check that a command ended as it should, said why in one line, and gave no secret away; return the line."""
    assert done.status == status, done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith(NOTICES)]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("splicestore: "), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert SECRET not in done.stderr + done.stdout
    return lines[0]


def option_words(options) -> list[str]:
    """Spell storage options for the command line."""
    return [word for name, value in options.items() for word in ("--storage-option", f"{name}={value}")]


def scores(codes):
    """A model of arithmetic: (window, input) codes to (window, position, task)."""
    centre = codes[:, 100:500].astype(np.float32)
    return np.stack([centre / 8, (7 - centre) / 8], axis=2)


def predict(store, name="p1", **options):
    """Predict with the model of arithmetic."""
    chosen = PredictOptions(400, 100, TASKS, "arithmetic", "0" * 64, split="run1", subset="test", **options)
    return predict_windows(store, name, scores, chosen)


def whole_job(root: StoreRoot, inputs: Path) -> None:
    """Ingest, split and predict by command and API; the same wherever the store is."""
    words = option_words(root.storage_options)
    check(cli("ingest", "genomes", root.url, inputs / "genomes.json", *words))
    check(cli("split", "windows", root.url, "run1", "--orthology", inputs / "orthologs.tsv", *SPLIT, *words))
    predict(open_store(root.url, storage_options=root.storage_options))


@dataclass(frozen=True)
class Reference:
    """The study's inputs, and its store made on disk."""

    inputs: Path
    root: StoreRoot
    objects: dict[str, bytes]

    @property
    def store(self):
        return open_store(self.root.url)


def make_reference(folder: Path) -> Reference:
    """Make it."""
    inputs = folder / "in"
    write_study(inputs, n_genomes=2)
    root = StoreRoot(str(folder / "store"))
    whole_job(root, inputs)
    return Reference(inputs, root, objects_of(root))


def objects_of(root: StoreRoot, prefix: str = "") -> dict[str, bytes]:
    """Every object of a store but those that tell when and how it was made."""
    keys = [key for key in root.sizes(prefix) if key.rsplit("/", 1)[-1] not in PASSING]
    base = f"{prefix}/" if prefix else ""
    return dict(zip(keys, root.gather(lambda key: root.get(base + key), keys), strict=True))


def arrays_of(root: StoreRoot) -> dict[str, np.ndarray]:
    """Every array of every current generation, as plain zarr reads it."""
    found = {}
    for path, pointer in pointers_of(root).items():
        for generation in pointer.generations():
            group = zarr.open_group(root.zarr_store(f"{path}/{generation}", read_only=True), mode="r")
            found |= {f"{path}/{generation}/{name}": array[...] for name, array in group.arrays()}
    return found


def pointers_of(root: StoreRoot) -> dict:
    """Name -> pointer, from a listing."""
    paths = [f"{kind}/{name}" for kind in KINDS for name in root.children(kind)]
    paths += [
        f"{kind}/{x}/{name}"
        for kind in NESTED_KINDS
        for x in root.children(kind)
        for name in root.children(f"{kind}/{x}")
    ]
    found = {path: read_pointer(root, path) for path in paths if not path.endswith(".json")}
    return {path: pointer for path, pointer in found.items() if pointer is not None}


def same_arrays(one, two) -> None:
    """Compare values, NaN being equal to NaN."""
    assert one.keys() == two.keys()
    for name, values in one.items():
        assert np.array_equal(values, two[name], equal_nan=values.dtype.kind == "f"), name


def check_published(root: StoreRoot, reference: Reference) -> int:
    """Check that every name of a store is the reference's, whole and byte for byte; return how many there are."""
    names = pointers_of(root)
    for path, pointer in names.items():
        for generation in pointer.generations():
            prefix = f"{path}/{generation}/"
            expected = {
                key.removeprefix(prefix): data for key, data in reference.objects.items() if key.startswith(prefix)
            }
            assert expected, f"{path}: generation {generation} is not the reference's"
            assert objects_of(root, prefix.rstrip("/")) == expected
    return len(names)


def check_same(root: StoreRoot, reference: Reference) -> None:
    """Check that a store is the reference: names, documents, bytes."""
    found = objects_of(root)
    assert found.keys() == reference.objects.keys()
    assert [key for key in found if found[key] != reference.objects[key]] == []
    assert root.get_json("catalog.json") == reference.root.get_json("catalog.json")


def windows_of(store, **options):
    """All windows of an epoch as arrays."""
    stream = WindowStream(store, split="run1", batch_size=8, seed=3, tail="short", **options)
    return [batch.as_dict() for batch in stream.numpy_batches()]


def same_windows(one, two) -> None:
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        same_arrays(*({k: v for k, v in batch.items() if isinstance(v, np.ndarray)} for batch in (a, b)))
