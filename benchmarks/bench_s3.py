"""A store on S3 at 0, 30 and 100 ms, beside a local disk: ingest, blocks of one epoch, and opening a store of 1,000 genomes.

The S3 server is a process of its own behind a proxy that adds the latency and counts requests; both share the cores with
what is measured, and the server takes some 3 ms of them for a request: seconds say what this machine can do, requests what a
store costs anywhere. Retries are the library's own and none is needed here: a run with a failed request is refused.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness import (
    BENCHMARKS,
    Case,
    Run,
    command_line,
    fresh,
    parse_arguments,
    report,
    run_process,
    scratch_folder,
    simulated_study,
)

LATENCIES_MS = (0, 30, 100)
GENOME = "sim1"
SPLIT = "run1"
REQUESTS_TO_COPY = 8


@dataclass(frozen=True)
class Place:
    """Where a store is."""

    name: str
    url: str
    options: Mapping[str, str] = field(default_factory=dict)
    latency_ms: int = 0
    proxy: Any = None
    """Counts and delays; None for a local folder."""

    def at(self, key: str) -> Place:
        """A place below this one."""
        return replace(self, url=f"{self.url}/{key}")

    def words(self) -> list[str]:
        """Options for the command line."""
        return [word for name, value in self.options.items() for word in ("--storage-option", f"{name}={value}")]

    def root(self) -> Any:
        """The place as the package addresses it."""
        from splicestore.storage import StoreRoot

        return StoreRoot(self.url, self.options)

    def count(self, work: Callable[[], Run]) -> tuple[Run, Any]:
        """Work with the latency, and return what the proxy saw of it; None for a local folder.

        Raises
        ------
        SystemExit
            If a request failed: it would have been repeated, and measured twice.
        """
        if self.proxy is None:
            return work(), None
        from tests.servers.rules import latency

        self.proxy.set(latency(self.latency_ms))
        self.proxy.reset_log()
        run = work()
        counts = self.proxy.counts()
        # 404 is the answer for a document that may be absent, 412 that for one that is there already.
        if wrong := set(counts.statuses) - {200, 204, 206, 404, 412}:
            raise SystemExit(f"{self.name}: requests failed with {wrong}")
        return run, counts


@contextmanager
def places(scratch: Path, latencies: Sequence[int]) -> Iterator[list[Place]]:
    """A folder, and an S3 bucket behind each latency."""
    sys.path.insert(0, str(BENCHMARKS.parent))
    try:
        import moto  # noqa: F401

        from tests.servers.proxy import fault_proxy
        from tests.servers.s3 import moto_server
    except ImportError as error:
        print(f"S3 skipped: {error} (pip install 'moto[s3,server]', run from a checkout)", file=sys.stderr)
        yield [Place("local", str(scratch / "local"))]
        return
    with moto_server() as server, fault_proxy(server.url) as proxy:
        bucket, options = server.bucket(), server.storage_options(proxy.url)
        remote = [Place(f"s3 at {ms} ms", f"s3://{bucket}/at-{ms}", options, ms, proxy) for ms in latencies]
        yield [Place("local", str(scratch / "local")), *remote]


def copy_objects(source: Any, target: Any, keys: Sequence[str]) -> None:
    """Copy objects between stores, without latency."""
    with ThreadPoolExecutor(REQUESTS_TO_COPY) as pool:
        list(pool.map(lambda key: target.put(key, source.get(key)), keys))


def copy_as_asked(source: Any, store: Place, work: Callable[[], Any]) -> None:
    """Copy what a reader asks for until it asks for nothing that is missing: of many small objects it needs a few."""
    sizes = source.sizes("")
    bucket_prefix = store.url.split("://", 1)[1] + "/"
    copied: set[str] = set()
    while True:
        store.count(work_or_fail(work))
        asked = {entry.path.removeprefix(bucket_prefix) for entry in store.proxy.log() if entry.status == 404}
        missing = sorted((asked & sizes.keys()) - copied)
        if not missing:
            return
        # One object of each genome shows what is wanted of the others.
        names = {"/".join(key.split("/")[3:]) for key in missing}
        wanted = [key for key in sizes if "/".join(key.split("/")[3:]) in names and key not in copied]
        copied.update(wanted)
        copy_objects(source, store.root(), wanted)


def work_or_fail(work: Callable[[], Any]) -> Callable[[], Run]:
    """Do work that may fail for what is not copied yet."""

    def attempt() -> Run:
        try:
            work()
        except Exception as error:
            print(f"not all there yet: {type(error).__name__}", file=sys.stderr)
        return Run(0.0, 0.0)

    return attempt


def requests_of(counts: Any) -> dict[str, int]:
    """Requests by what they did."""
    return {} if counts is None else dict(sorted(counts.operations.items()))


# -- ingest ------------------------------------------------------------------------------------------------------


def measure_ingest(where: Sequence[Place], study: Path, rounds: int) -> Case:
    """Ingest one genome into an empty store, a process each time; inputs are local."""
    n_bytes = (study / "genomes" / f"{GENOME}.fa.gz").stat().st_size
    runs: dict[str, list[Run]] = {place.name: [] for place in where}
    figures: dict[str, Any] = {}
    n_bases = 0
    for number in range(rounds):
        for place in where:
            store = place.at(f"ingest-{number}")
            words = (
                "ingest",
                "genomes",
                store.url,
                study / "genomes.json",
                "--genome",
                GENOME,
                "--json",
                *store.words(),
            )
            run, counts = store.count(partial(run_process, command_line(*words)))
            n_bases = _n_bases(run.output)
            runs[place.name].append(run)
            if counts is not None:
                key = place.name.replace(" ", "_")
                figures |= {
                    f"{key}_requests": counts.requests,
                    f"{key}_requests_per_mb": counts.requests / (n_bases / 1e6),
                    f"{key}_operations": requests_of(counts),
                    f"{key}_most_in_flight": counts.max_in_flight,
                }
            else:
                fresh(Path(store.url))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for name, of in runs.items():
        figures[f"{name.replace(' ', '_')}_mbase_per_s"] = n_bases / 1e6 / statistics.median(run.wall_s for run in of)
    return Case("ingest", {"unit": "one genome", "n_bases": n_bases, "fasta_gz_bytes": n_bytes}, runs, figures=figures)


def _n_bases(output: str) -> int:
    import json

    return int(json.loads(output)["genomes"][GENOME]["n_bases"])


# -- one epoch ---------------------------------------------------------------------------------------------------


def measure_epoch(where: Sequence[Place], study: Path, scratch: Path, rounds: int) -> Case:
    """Stream one epoch of the same store from each place, in this process; compare the windows."""
    made = scratch / "made"
    run_process(command_line("ingest", "genomes", made, study / "genomes.json", "--genome", GENOME))
    run_process(command_line("split", "windows", made, SPLIT, "--test-fraction", "0.1", "--override-gates"))
    made_place = Place("local", str(made))
    source = made_place.root()
    keys = list(source.sizes(""))
    stores = [made_place, *shared(where, "epoch")]
    if stores[1:]:
        copy_objects(source, stores[1].root(), keys)
    runs: dict[str, list[Run]] = {store.name: [] for store in stores}
    figures: dict[str, Any] = {}
    digests: set[str] = set()
    for number in range(-1, rounds):
        for store in stores:
            run, counts = store.count(partial(stream_epoch, store))
            blocks, n_windows, digest = run.output.split()
            digests.add(digest)
            if number < 0:
                continue
            runs[store.name].append(run)
            key = store.name.replace(" ", "_")
            figures["windows"], figures["blocks"] = int(n_windows), int(blocks)
            if counts is not None:
                figures[f"{key}_requests_per_block"] = counts.requests / int(blocks)
                figures[f"{key}_requests_per_mb"] = counts.requests / (counts.bytes_down / 1e6)
                figures[f"{key}_most_in_flight"] = counts.max_in_flight
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if len(digests) != 1:
        raise SystemExit("the places did not deliver the same windows")
    for name, of in runs.items():
        figures[f"{name.replace(' ', '_')}_blocks_per_s"] = figures["blocks"] / statistics.median(r.wall_s for r in of)
    return Case("one epoch", {"unit": "open, plan and stream train", "genome": GENOME}, runs, figures=figures)


def stream_epoch(store: Place) -> Run:
    """Open a store and stream its split once; the output is blocks, windows and a digest of what was delivered."""
    import hashlib

    from splicestore import WindowStream, open_store

    digest, n = hashlib.sha256(), 0
    wall, cpu = time.perf_counter(), time.process_time()
    stream = WindowStream(open_store(store.url, storage_options=store.options), split=SPLIT, batch_size=64, seed=0)
    for batch in stream.numpy_batches():
        digest.update(batch.sequence.tobytes())
        n += len(batch.sequence)
    took = Run(time.perf_counter() - wall, time.process_time() - cpu)
    blocks = int(stream.statistics()["blocks_read"])
    return replace(took, output=f"{blocks} {n} {digest.hexdigest()}")


# -- many genomes ------------------------------------------------------------------------------------------------


def shared(where: Sequence[Place], key: str) -> list[Place]:
    """The remote places with one and the same prefix: they differ in their latency only."""
    remote = [place for place in where if place.proxy is not None]
    return [replace(place, url=f"{remote[0].url}/{key}") for place in remote]


def make_many(scratch: Path, study: Path, n_genomes: int) -> Any:
    """Publish one tiny genome under many names, by pointers and a resealed group each, and split them all."""
    from splicestore.split import SplitOptions, split_windows
    from splicestore.storage.catalog import rebuild_catalog
    from splicestore.storage.pointers import Pointer, read_pointer
    from splicestore.storage.sealed import BLANK, seal_bytes
    from splicestore.store import open_store

    root = Place("many", str(scratch / "many")).root()
    run_process(command_line("ingest", "genomes", root.url, study / "genomes.json", "--genome", GENOME))
    pointer = read_pointer(root, f"genomes/{GENOME}")
    assert pointer is not None
    base = f"genomes/{GENOME}/{pointer.current}"
    group = root.get(f"{base}/zarr.json")
    seal = group.split(b'"seal": "', 1)[1][:64]
    for number in range(n_genomes - 1):
        name = f"g{number:05d}"
        for key in root.sizes(base):
            path = Path(root.url, "genomes", name, str(pointer.current), key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(Path(root.url, base, key))
        changed = group.replace(seal, BLANK.encode()).replace(
            f'"genome_id": "{GENOME}"'.encode(), f'"genome_id": "{name}"'.encode()
        )
        # Written whole beside and renamed: the link that was there keeps its bytes.
        root.put(f"genomes/{name}/{pointer.current}/zarr.json", seal_bytes(changed))
        root.put(f"genomes/{name}/zarr.json", Pointer(pointer.current, {}).spell())
    rebuild_catalog(root)
    options = SplitOptions(test_fraction=0.1, override_gates=True)
    split_windows(open_store(root.url), SPLIT, options)
    return root


def measure_many(where: Sequence[Place], study: Path, scratch: Path, n_genomes: int, rounds: int) -> Case:
    """Open a store of many genomes: names and one genome; then a stream's plan over a split of all."""
    source = make_many(scratch, study, n_genomes)
    sizes = source.sizes("")
    stores = [Place("local", source.url), *shared(where, "many")]
    if stores[1:]:
        store = replace(stores[1], latency_ms=0)
        documents = [key for key in sizes if key.count("/") <= 3 and key.endswith("zarr.json")]
        copy_objects(source, store.root(), [*documents, *(key for key in sizes if not key.startswith("genomes/g"))])
        copy_as_asked(source, store, partial(plan_stream, store, n_genomes))
    runs: dict[str, list[Run]] = {}
    figures: dict[str, Any] = {"objects": len(sizes)}
    # A plan asks each genome in turn: at the largest latency it would take ten minutes to say so again.
    near = [store for store in stores if store.latency_ms <= LATENCIES_MS[1]]
    for what, work, of, first in (("open", open_one, stores, -1), ("plan", plan_stream, near, rounds - 1)):
        for number in range(first, rounds):
            for store in of:
                run, counts = store.count(partial(work, store, n_genomes))
                if number < 0:
                    continue
                runs.setdefault(f"{what}, {store.name}", []).append(run)
                if counts is not None:
                    key = f"{what}_{store.name.replace(' ', '_')}"
                    figures[f"{key}_requests"] = counts.requests
                    figures[f"{key}_mb"] = counts.bytes_down / 1e6
                    figures[f"{key}_lists"] = counts.operations.get("list", 0)
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Case(f"{n_genomes:,} genomes", {"genomes": n_genomes, "n_objects": len(sizes)}, runs, figures=figures)


def open_one(store: Place, n_genomes: int) -> Run:
    """Open a store, list its genomes, read a span of one of them."""
    from splicestore import open_store

    wall, cpu = time.perf_counter(), time.process_time()
    opened = open_store(store.url, storage_options=store.options)
    names = list(opened.genomes)
    genome = opened.genomes[GENOME]
    n = len(genome.read_bases(0, 10_000))
    took = Run(time.perf_counter() - wall, time.process_time() - cpu)
    if (len(names), n) != (n_genomes, 10_000):
        raise SystemExit(f"{store.name}: {len(names)} genomes, {n} bases")
    return took


def plan_stream(store: Place, n_genomes: int) -> Run:
    """Open a store and plan a stream over a split of all its genomes; nothing of a genome is read yet."""
    from splicestore import WindowStream, open_store

    wall, cpu = time.perf_counter(), time.process_time()
    stream = WindowStream(open_store(store.url, storage_options=store.options), split=SPLIT, batch_size=64, seed=0)
    n_steps = len(stream)
    took = Run(time.perf_counter() - wall, time.process_time() - cpu)
    if not n_steps or len(stream.genome_names) != n_genomes:
        raise SystemExit(f"{store.name}: a plan of {n_steps} steps over {len(stream.genome_names)} genomes")
    return took


def main() -> None:
    arguments = parse_arguments(__doc__)
    quick = arguments.quick
    latencies = LATENCIES_MS[:2] if quick else LATENCIES_MS
    study = simulated_study(
        arguments.cache,
        genomes=1,
        megabases=2 if quick else 20,
        genes=80 if quick else 800,
        conditions=4 if quick else 8,
    )
    tiny = simulated_study(arguments.cache, genomes=2, megabases=1, genes=60, conditions=4)
    with scratch_folder() as scratch, places(scratch, latencies) as where:
        cases = [
            measure_ingest(where, study, 1 if quick else 3),
            measure_epoch(where, study, scratch, 1 if quick else 3),
            measure_many(where, tiny, scratch, 20 if quick else 1_000, 1 if quick else 3),
        ]
    report("s3", cases, record=not quick)


if __name__ == "__main__":
    main()
