"""Reading blocks of a sharded array: zarr-python, ours, and tensorstore where it is installed.

A block is 1 MiB of bases and a right halo, from an array as we publish it (chunks of 131,072 bases in shards of 32 MiB,
zstd level 3 with checksum, index at the end); with usage it is also alpha and beta of 130 sites under 105 conditions.
Every arm reads the same blocks, each once, in the same random order, with its shard indexes known beforehand. As
in an epoch over a whole genome no two of them share a chunk, and arms open their arrays anew in every round: nothing
decoded before is found again. What an arm delivers is compared with what was written, in a first round without a clock.

Local files, and an S3 server in a process of its own behind a proxy that adds latency and counts requests; CPU is
this process's with all its threads, so server and proxy are not in it. They do share the cores: wall times in flight
say what this machine can serve as much as what a reader can take.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness import (
    BENCHMARKS,
    Case,
    Run,
    Target,
    interleave,
    measure,
    paired_ratio,
    parse_arguments,
    report,
    scratch_folder,
)

BLOCK, HALO = 1024 * 1024, 2_000
CHUNK, SHARD = 131_072, 32 * 1024 * 1024
SITES_PER_BLOCK, CONDITIONS = 130, 105
APART = 5
IN_FLIGHT = 16
LATENCY_MS = 30
BUCKET = "blocks"

Read = Callable[[int], list[Any]]
"""Block number to its arrays: bases, or bases, alpha, beta."""


@dataclass(frozen=True)
class Place:
    """Where the store is."""

    name: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    latency_ms: int = 0
    proxy: Any = None
    """Stands before the object store, adds the latency and counts; None for local files."""

    def set_latency(self) -> None:
        """Let every request wait from now on; places share one proxy, so before each case."""
        if self.proxy is not None:
            from tests.servers.rules import latency

            self.proxy.set(latency(self.latency_ms))

    def begin_count(self) -> None:
        """Forget the requests so far."""
        if self.proxy is not None:
            self.proxy.reset_log()

    def end_count(self) -> tuple[int, int]:
        """Requests and bytes of their answers since ``begin_count``; each must have waited as long as it should."""
        if self.proxy is None:
            return 0, 0
        log = self.proxy.log()
        if any(entry.seconds * 1e3 < self.latency_ms or entry.status not in (200, 206) for entry in log):
            raise SystemExit(f"{self.name}: a request failed, or was answered before its {self.latency_ms} ms")
        return len(log), sum(entry.bytes_down for entry in log)


@dataclass(frozen=True)
class Written:
    """What the store holds, and how it is cut into blocks."""

    arrays: Mapping[str, Any]
    n_blocks: int
    with_usage: bool = False

    @property
    def learning(self) -> list[int]:
        """One block of each shard: read before the clock starts, so that every index is known."""
        return list(range(4, self.n_blocks, SHARD // BLOCK))

    @property
    def measured(self) -> list[int]:
        """Blocks that share no chunk with each other, nor with those read before; 512 sites lie on four blocks."""
        apart = range(2, self.n_blocks, APART)
        return [block for block in apart if min(abs(block - other) for other in self.learning) >= APART]

    def ranges(self, block: int) -> list[tuple[str, int, int]]:
        """(array, start, end) of a block's parts."""
        n_bases = len(self.arrays["sequence"])
        parts = [("sequence", block * BLOCK, min(n_bases, (block + 1) * BLOCK + HALO))]
        if self.with_usage:
            sites = (block * SITES_PER_BLOCK, (block + 1) * SITES_PER_BLOCK)
            parts += [("alpha", *sites), ("beta", *sites)]
        return parts

    def check(self, block: int, delivered: Sequence[Any]) -> None:
        """Compare a block with what was written, NaN being equal to NaN."""
        import numpy as np

        for (name, start, end), rows in zip(self.ranges(block), delivered, strict=True):
            if not np.array_equal(rows, self.arrays[name][start:end], equal_nan=name != "sequence"):
                raise SystemExit(f"block {block}: {name} [{start}, {end}) is not what was written")


# -- the store ---------------------------------------------------------------------------------------------------


def write_store(folder: Path, n_blocks: int) -> Written:
    """Write bases, alpha and beta as ingest lays them out."""
    import numpy as np
    import zarr
    from zarr.codecs import ZstdCodec

    rng = np.random.default_rng(1)
    # 41% GC: random bases in these shares compress as most of a genome does, to a third.
    codes = np.repeat(np.arange(4, dtype=np.uint8), [75, 53, 53, 75])
    sites = n_blocks * SITES_PER_BLOCK
    arrays = {"sequence": codes[np.frombuffer(rng.bytes(n_blocks * BLOCK + 12_345), np.uint8)]}
    for name in ("alpha", "beta"):
        counts = rng.poisson(3, (sites, CONDITIONS)).astype(np.float32)
        counts[rng.random(counts.shape) < 0.3] = np.nan
        arrays[name] = counts
    layouts: dict[str, tuple[tuple[int, ...], tuple[int, ...], float]] = {
        "sequence": ((CHUNK,), (SHARD,), 4),
        "alpha": ((512, CONDITIONS), (65_536, CONDITIONS), float("nan")),
        "beta": ((512, CONDITIONS), (65_536, CONDITIONS), float("nan")),
    }
    for name, values in arrays.items():
        chunks, shards, fill = layouts[name]
        array = zarr.create_array(
            f"{folder}/{name}", shape=values.shape, dtype=values.dtype, chunks=chunks, shards=shards, fill_value=fill,
            compressors=[ZstdCodec(level=3, checksum=True)], zarr_format=3,
        )  # fmt: skip
        for start in range(0, len(values), shards[0]):
            array[start : start + shards[0]] = values[start : start + shards[0]]
    return Written(arrays, n_blocks)


# -- arms --------------------------------------------------------------------------------------------------------


def open_zarr(place: Place, written: Written, threads: ThreadPoolExecutor) -> Read:
    """Open with zarr-python; the parts of a block are asked for at once."""
    import zarr

    from splicestore.storage import StoreRoot

    root = StoreRoot(place.url, place.options)
    arrays = {
        name: zarr.open_array(root.zarr_store(name, read_only=True), mode="r", zarr_format=3)
        for name in written.arrays
    }  # fmt: skip

    def read(block: int) -> list[Any]:
        first, *others = written.ranges(block)
        futures = [threads.submit(arrays[name].__getitem__, slice(start, end)) for name, start, end in others]
        return [arrays[first[0]][first[1] : first[2]], *(future.result() for future in futures)]

    return read


def open_ours(place: Place, written: Written, threads: ThreadPoolExecutor) -> Read:
    """Open with our block reader."""
    from splicestore.storage import StoreRoot
    from splicestore.storage.blocks import IndexCache, ShardedArray, read_together

    root, indexes = StoreRoot(place.url, place.options), IndexCache()
    arrays: dict[str, ShardedArray] = {}
    for name in written.arrays:
        array = ShardedArray.open(root, name, root.get_json(f"{name}/zarr.json") or {}, indexes=indexes)
        if array is None:
            raise SystemExit(f"{name}: not an array that our reader knows")
        arrays[name] = array
    return lambda block: read_together([(arrays[n], s, e) for n, s, e in written.ranges(block)], threads)


def open_tensorstore(place: Place, written: Written, threads: ThreadPoolExecutor) -> Read:
    """Open with tensorstore, a fresh 64 MiB cache, nothing checked again once it is cached."""
    import tensorstore as ts

    context = ts.Context({"cache_pool": {"total_bytes_limit": 64 * 1024 * 1024}})
    arrays = {
        name: ts.open(
            {"driver": "zarr3", "kvstore": _tensorstore_keys(place, name)},
            context=context, read=True, recheck_cached_data=False, recheck_cached_metadata=False,
        ).result()
        for name in written.arrays
    }  # fmt: skip

    def read(block: int) -> list[Any]:
        futures = [arrays[name][start:end].read() for name, start, end in written.ranges(block)]
        return [future.result() for future in futures]

    return read


def _tensorstore_keys(place: Place, name: str) -> dict[str, Any]:
    if not place.options:
        return {"driver": "file", "path": f"{place.url}/{name}/"}
    return {
        "driver": "s3", "bucket": BUCKET, "path": f"{name}/", "endpoint": place.options["endpoint_url"],
        "aws_region": place.options["region"], "aws_credentials": {"type": "environment"},
    }  # fmt: skip


Opener = Callable[[Place, Written, ThreadPoolExecutor], Read]


def known_arms() -> dict[str, Opener]:
    """Name the arms that can run here."""
    arms: dict[str, Opener] = {"zarr": open_zarr, "ours": open_ours}
    try:
        import tensorstore  # noqa: F401
    except ImportError:
        print("arm tensorstore skipped: it is not installed (pip install tensorstore)", file=sys.stderr)
    else:
        arms["tensorstore"] = open_tensorstore
    return arms


# -- measuring ---------------------------------------------------------------------------------------------------


Traffic = dict[str, list[tuple[float, float]]]
"""Arm to one entry per round: requests and bytes of answers per block."""


def run_round(
    opener: Opener, place: Place, written: Written, blocks: Sequence[int], in_flight: int, traffic: Traffic, arm: str
) -> Run:  # fmt: skip
    """Open anew, let the arm learn its indexes, read the blocks; times per block."""
    with ThreadPoolExecutor(in_flight) as callers, ThreadPoolExecutor(2 * IN_FLIGHT) as threads:
        read = opener(place, written, threads)
        for block in written.learning:
            read(block)

        def drop(block: int) -> None:
            read(block)

        if arm not in traffic:
            for block in blocks:
                written.check(block, read(block))
        place.begin_count()
        # The caller's own loop where blocks are read one at a time: a pool would hand over between threads.
        run = measure(lambda: [None for _ in (map if in_flight == 1 else callers.map)(drop, blocks)])
        requests, n_bytes = place.end_count()
    traffic.setdefault(arm, []).append((requests / len(blocks), n_bytes / len(blocks)))
    return Run(run.wall_s / len(blocks), run.cpu_s / len(blocks))


def measure_case(openers: Mapping[str, Opener], place: Place, written: Written, in_flight: int, rounds: int) -> Case:
    """Measure all arms in one place; the figures of an arm are per block."""
    place.set_latency()
    traffic: Traffic = {}
    rng = random.Random(1)
    blocks = written.measured

    def arm(name: str) -> Run:
        if name == next(iter(openers)):
            rng.shuffle(blocks)
        return run_round(openers[name], place, written, blocks, in_flight, traffic, name)

    runs = interleave({name: partial(arm, name) for name in openers}, rounds)
    figures: dict[str, Any] = {}
    for name in openers:
        requests, n_bytes = (statistics.median(values) for values in zip(*traffic[name][1:], strict=True))
        if place.options:
            figures |= {f"{name}_gets_per_block": requests, f"{name}_bytes_per_base": n_bytes / BLOCK}
        figures[f"{name}_ms_per_block"] = statistics.median(run.wall_s for run in runs[name]) * 1e3
        figures[f"{name}_cpu_ms_per_block"] = statistics.median(run.cpu_s for run in runs[name]) * 1e3
        figures[f"{name}_mbase_per_s"] = BLOCK / 1e6 / statistics.median(run.wall_s for run in runs[name])
    for name in openers:
        if name != "ours":
            figures[f"{name}_over_ours_wall"] = paired_ratio(runs, name, "ours", "wall_s")
            figures[f"{name}_over_ours_cpu"] = paired_ratio(runs, name, "ours", "cpu_s")
    what = "blocks with usage" if written.with_usage else "blocks"
    parameters = {
        "unit": "one block",
        "block_bases": BLOCK,
        "halo": HALO,
        "blocks": len(blocks),
        "of": written.n_blocks,
        "latency_ms": place.latency_ms,
        "tensorstore": version("tensorstore") if "tensorstore" in openers else "not installed",
    }
    name = f"{what}, {place.name}, {'one at a time' if in_flight == 1 else f'{in_flight} in flight'}"
    return Case(name, parameters, runs, targets=_targets(place, written, in_flight, runs, figures), figures=figures)


def _targets(
    place: Place, written: Written, in_flight: int, runs: Mapping[str, Sequence[Run]], figures: Mapping[str, Any]
) -> list[Target]:
    if place.latency_ms == 0 or in_flight > 1 or written.with_usage:
        return []
    wall = statistics.median(run.wall_s for run in runs["ours"])
    return [
        Target("gets_per_block", figures["ours_gets_per_block"], 1.1, "requests"),
        Target("wall_over_latency", wall * 1e3 / place.latency_ms, 1.6, "times"),
    ]


@contextmanager
def object_storage(folder: Path) -> Iterator[list[Place]]:
    """Serve a copy of the store by S3, without and with latency; nowhere, and says so, without the server."""
    sys.path.insert(0, str(BENCHMARKS.parent))
    try:
        import moto  # noqa: F401

        from tests.servers.proxy import fault_proxy
        from tests.servers.s3 import moto_server
    except ImportError as error:
        print(f"S3 skipped: {error} (pip install 'moto[s3,server]', run from a checkout)", file=sys.stderr)
        yield []
        return
    from splicestore.storage import StoreRoot

    with moto_server() as server, fault_proxy(server.url) as proxy:
        url = f"s3://{server.bucket(BUCKET)}"
        direct = StoreRoot(url, server.storage_options())
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                direct.put(path.relative_to(folder).as_posix(), path.read_bytes())
        options = server.storage_options(proxy.url)
        # tensorstore takes its keys from here; the server checks none.
        os.environ |= {"AWS_ACCESS_KEY_ID": options["key"], "AWS_SECRET_ACCESS_KEY": options["secret"]}
        yield [Place(f"s3 at {ms} ms", url, options, ms, proxy) for ms in (0, LATENCY_MS)]


def main() -> None:
    arguments = parse_arguments(__doc__)
    n_blocks, rounds = (40, 1) if arguments.quick else (192, 5)
    openers = known_arms()
    with scratch_folder() as scratch:
        store = scratch / "store"
        written = write_store(store, n_blocks)
        contents = (
            Written({"sequence": written.arrays["sequence"]}, n_blocks),
            Written(written.arrays, n_blocks, with_usage=True),
        )
        with object_storage(store) as places:
            cases = [
                measure_case(openers, place, content, in_flight, rounds)
                for place in (Place("local", str(store)), *places)
                for content in contents
                for in_flight in (1, IN_FLIGHT)
            ]
    report("blocks", cases, record=not arguments.quick)


if __name__ == "__main__":
    main()
