"""The main job on a simulated study, from FASTA to predictions, as the commands a user would type.

Every step is the command line itself, so a run that was stopped goes on where it was. Ends with a table of metrics on
the held-out chromosome and exits with 1 if the model does not reach twice the motif baseline's average precision.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
HELD_OUT = "chr2"
WANTED_RATIO = 2.0


def run(*arguments: str | Path) -> None:
    """Run one command, shown first and timed."""
    words = [str(a) for a in arguments]
    print(f"\n$ splicestore {' '.join(words)}", flush=True)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "splicestore", *words])
    if done.returncode:
        raise SystemExit(done.returncode)
    print(f"  [{time.perf_counter() - started:.1f} s]", flush=True)


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("demo-output"), help="folder for everything (default: demo-output)"
    )
    output = parser.parse_args().output
    study, store = output / "study", output / "store"
    model, control = output / "model", output / "control"
    training = HERE / "demo_train.yaml"

    if not (study / "genomes.json").exists():
        run("simulate", study, "--genomes", "3", "--megabases", "2", "--genes", "200", "--seed", "0")
    run("ingest", "genomes", store, study / "genomes.json")
    run(
        "split", "windows", store, "demo", "--orthology", study / "orthologs.tsv",
        "--reference-genome", "sim1", "--test-chromosomes", HELD_OUT,
        "--window-size", "1000", "--context-size", "200", "--seed", "0",
    )  # fmt: skip
    run("info", store)
    run("train", store, "demo", training, "--output", model)
    run("train", store, "demo", HERE / "demo_control.yaml", "--output", control)
    metrics = output / "metrics.json"
    print(f"\nmetrics on windows that follow {HELD_OUT} of sim1 by homology, in all genomes:")
    run("evaluate", store, "demo", model / "card.json", "--control", control / "card.json", "--output", metrics)
    run("predict", store, "demo", "--model", model / "card.json", "--split", "demo", "--subset", "test")
    run("export", "splicevo", store, output / "splicevo", "--genome", "sim3", "--overwrite")
    return verdict(json.loads(metrics.read_text()), output)


def verdict(metrics: dict, output: Path) -> int:
    """Compare the model with the baseline on both classes, and say where everything is."""
    scorers = metrics["scorers"]
    ratios = {
        site_class: scorers["model"]["sites"]["all"][site_class]["average_precision"]
        / scorers["baseline"]["sites"]["all"][site_class]["average_precision"]
        for site_class in ("acceptor", "donor")
    }
    print(f"\nstore        {output / 'store'}")
    print(f"checkpoint   {output / 'model' / 'model.pt'}  (card: {output / 'model' / 'card.json'})")
    print(f"predictions  {output / 'store' / 'predictions' / 'demo'}")
    print(f"for SplicEvo {output / 'splicevo'}")
    print("average precision, model against motif baseline: " + ", ".join(f"{c} {r:.1f}x" for c, r in ratios.items()))
    if min(ratios.values()) < WANTED_RATIO:
        print(f"the model should reach {WANTED_RATIO:g}x on both classes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
