"""Windows per second beside GenVarLoader, litdata and webdataset, each in an environment of its own.

The environments (``peers.txt``) are made on first use under ``--peers`` and take 4.5 GB. Arms are those of ``peer_arms.py``,
and of ours ``tokens`` and ``one_hot`` of ``bench_stream.py``; every one is a process, with one thread for computing:

- ``genvarloader``: sequences of a batch of regions a call, the reference in memory, no labels; ``genvarloader_one_hot``: and
  expanded by seqpro, which it comes with. Beside ours with blocks in memory.
- ``litdata``, ``webdataset``: codes and labels, one byte each, written by their own writers, without their usage, shuffled
  as they shuffle, collated to batches. Read from the page cache in every epoch, so beside ours with blocks read anew; what
  ours delivers holds the usage as well.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench_stream import ARMS, BATCH, CONTEXT, WINDOW, add_rounds, our_arms, over, prepare_dense, prepare_store
from harness import (
    BENCHMARKS,
    Case,
    Target,
    interleave,
    parse_arguments,
    report,
    run_process,
    scratch_folder,
)
from piped import PEERS, UNIT_WINDOWS, compare_contents, disk_figures, peer_python, peer_requirements, piped_arms, rates

PEER_ARMS = BENCHMARKS / "peer_arms.py"
EPOCHS = {"genvarloader": 20, "genvarloader_one_hot": 1, "litdata": 1, "webdataset": 1}
WRITTEN = ("litdata", "webdataset")
OURS = ("tokens", "tokens_read_anew", "one_hot", "one_hot_read_anew")


def add_peers(parser: argparse.ArgumentParser) -> None:
    """Say where the environments are."""
    parser.add_argument(
        "--peers", type=Path, help="folder that keeps the peers' environments (default: peers in the cache folder)"
    )


def main() -> None:
    import sys

    arguments = parse_arguments(__doc__, add_rounds, add_peers)
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    folder = arguments.peers or arguments.cache / "peers"
    pythons = {name: peer_python(name, folder) for name in peer_requirements()}
    pythons["genvarloader_one_hot"] = pythons["genvarloader"]
    with scratch_folder() as scratch:
        sizes = {"megabases": 2, "genes": 80} if quick else {"megabases": 20, "genes": 800}
        store, study = prepare_store(arguments.cache, scratch, conditions=8, **sizes)
        dense, beside = prepare_dense(store, scratch)
        fasta = study / "genomes" / "sim1.fa.gz"
        run_process((sys.executable, BENCHMARKS / "stream_inputs.py", "peers", fasta, dense, beside))
        common = {"dense": str(dense), "beside": str(beside), "out": str(scratch)}
        for name in WRITTEN:
            run_process((pythons[name], PEER_ARMS, name, json.dumps(common | {"epochs": 1, "write": True})))
        arms = {name: (ARMS, options, "") for name, options in our_arms(store, OURS, quick).items()}
        for name, epochs in EPOCHS.items():
            arms[name] = (PEER_ARMS, common | {"epochs": 1 if quick else epochs}, pythons[name])
        with piped_arms(arms) as started:
            described = compare_contents(started)
            runs = interleave({name: arm.round for name, arm in started.items()}, rounds)
    pairs = (
        ("tokens", "genvarloader", 1.2),
        ("one_hot", "genvarloader_one_hot", 20),
        ("tokens_read_anew", "litdata", 5),
        ("tokens_read_anew", "webdataset", 5),
    )
    targets = [Target(f"{a}_over_{b}", over(runs, a, b), limit, "x", at_least=True) for a, b, limit in pairs]
    figures = {f"{a}_over_{b}_wall": over(runs, a, b, "wall_s") for a, b, _ in pairs}
    figures |= {f"{a}_over_{b}": over(runs, a, b) for a in ("tokens", "one_hot_read_anew") for b in WRITTEN}
    figures |= {"tokens_read_anew_over_genvarloader": over(runs, "tokens_read_anew", "genvarloader")}
    parameters = {
        "unit": f"{UNIT_WINDOWS:,} windows", "window_size": WINDOW, "context_size": CONTEXT, "batch_size": BATCH,
        "n_conditions": 8, "windows": described["tokens"]["windows"], **sizes, "peers": PEERS.read_text().splitlines()[2:],
    }  # fmt: skip
    case = Case("peers", parameters, runs, targets, figures | disk_figures(described) | rates(runs))
    report("stream_peers", [case], record=not quick)


if __name__ == "__main__":
    main()
