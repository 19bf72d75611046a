"""An epoch from an object store with 30 ms of latency beside one from a local disk, reading ahead, 64 MiB of live blocks.

The stream holds a part of the genome's blocks at a time, so that it reads through the epoch, and reads ahead by itself. Two
consumers: one that takes batches as fast as they come, and one that spends as long on each as a device would that takes 50,000
windows a second, and leaves the processor alone meanwhile. The server is a process on the same cores (``object_server``): beside
the seconds stand this process's own, and its waiting share.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from functools import partial
from typing import Any

from bench_s3 import Place
from bench_stream import BATCH, add_rounds, over, prepare_store
from harness import MIB, Case, Run, Target, interleave, parse_arguments, report, scratch_folder
from object_server import object_server

LATENCY_MS = 30
SHUFFLE_MEMORY_MIB = 64
LIVE_LIMIT_MIB = 512
CONSUMER_WINDOWS_PER_S = 50_000
CONSUMERS = {"free": 0.0, "at 50,000 windows/s": BATCH / CONSUMER_WINDOWS_PER_S}


def open_stream(place: Place) -> Any:
    """Open a store and plan."""
    from splicestore import open_store
    from splicestore.stream import WindowBatches

    store = open_store(place.url, storage_options=place.options)
    memory = SHUFFLE_MEMORY_MIB * MIB
    return WindowBatches(store, split="bench", batch_size=BATCH, seed=1, shuffle_memory=memory, reuse_buffers=1)


def digest_epoch(place: Place) -> str:
    """Digest what an epoch delivers, in order."""
    digest = hashlib.sha256()
    for batch in open_stream(place):
        for array in (batch.sequence, batch.label, batch.alpha, batch.beta):
            digest.update(array.tobytes())
    return digest.hexdigest()


def stream_epoch(place: Place, step_seconds: float) -> Run:
    """Stream an epoch; opening and planning are not in its time."""
    stream = open_stream(place)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in stream:
        if step_seconds:
            time.sleep(step_seconds)
    took = Run(time.perf_counter() - wall, time.process_time() - cpu)
    found = stream.statistics()
    stream.close()
    return Run(took.wall_s, took.cpu_s, output=json.dumps(found))


def measure(consumer: str, stores: list[Place], rounds: int) -> Case:
    """Time one consumer at all places."""
    runs = interleave({store.name: partial(stream_epoch, store, CONSUMERS[consumer]) for store in stores}, rounds)
    found = {name: [json.loads(run.output) for run in of] for name, of in runs.items()}
    first = found["local"][0]
    figures: dict[str, Any] = {"windows": first["windows"], "blocks_read": first["blocks_read"]}
    for name, of in found.items():
        key = name.replace(" ", "_")
        figures[f"{key}_windows_per_s"] = first["windows"] / statistics.median(run.wall_s for run in runs[name])
        figures[f"{key}_waiting_share"] = statistics.median(f["waiting_share"] for f in of)
        figures[f"{key}_requests_per_block"] = statistics.median(f["requests"] / f["blocks_read"] for f in of)
    live = first["planned_live_bytes"] / MIB
    targets = [Target("live", live, LIVE_LIMIT_MIB, "MiB")]
    for name in runs:
        if name != "local":
            figures[f"{name.replace(' ', '_')}_over_local_cpu"] = over(runs, name, "local")
            targets.append(Target("s3_over_local", over(runs, name, "local", "wall_s"), 0.9, "x", at_least=True))
    parameters = {
        "unit": "one epoch",
        "consumer": consumer,
        "shuffle_memory_mib": SHUFFLE_MEMORY_MIB,
        "batch_size": BATCH,
    }
    return Case(f"S3 at 30 ms, consumer {consumer}", parameters, runs, targets, figures)


def main() -> None:
    arguments = parse_arguments(__doc__, add_rounds)
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    sizes = {"megabases": 2, "genes": 80} if quick else {"megabases": 100, "genes": 2_000}
    with scratch_folder() as scratch:
        made, _ = prepare_store(arguments.cache, scratch, conditions=4 if quick else 20, **sizes)
        with object_server(made, LATENCY_MS) as options:
            stores = [Place("local", str(made)), Place(f"s3 at {LATENCY_MS} ms", "s3://bench", options)]
            if len({digest_epoch(place) for place in stores}) > 1:
                raise SystemExit("the places did not deliver the same windows")
            cases = [measure(consumer, stores, rounds) for consumer in CONSUMERS]
    report("stream_s3", cases, record=not quick)


if __name__ == "__main__":
    main()
