"""The reference network of genes on simulated samples, by the commands of ``docs/how-to/train.md``: minutes, and nats below unigrams."""

from __future__ import annotations

import json
from pathlib import Path

from harness import Case, Run, Target, command_line, parse_arguments, report, run_process, scratch_folder

SETTINGS = "bins: training\nsteps: {steps}\nbatch_size: 16\ntop_genes: 128\nn_levels: 50\nlearning_rate: 0.003\nwarmup_steps: 20\n"


def bench(scratch: Path, n_samples: int, n_genes: int, n_steps: int) -> Case:
    """Simulate, ingest, split, bin, train, evaluate."""
    study, store, model = scratch / "study", scratch / "store", scratch / "model"
    settings = scratch / "genes.yaml"
    settings.write_text(SETTINGS.format(steps=n_steps))

    def run(*words: str | Path) -> Run:
        return run_process(command_line(*words))

    run("simulate", study, "--samples", str(n_samples), "--expression-genes", str(n_genes))
    run("ingest", "expression", store, "archs4", study / "expression" / "sim1.h5")
    run("split", "samples", store, "studies", "--expression", "archs4")
    run(
        "normalize",
        "fit",
        store,
        "gene_bins",
        "--expression",
        "archs4",
        "--split",
        "studies",
        "--no-qc",
        "--n-bins",
        "1000",
    )
    run("normalize", "apply", store, "training", "--edges", "gene_bins")
    trained = run("train", store, "studies", settings, "--output", model, "--json")
    scored = run("evaluate", store, "studies", model / "card.json", "--json")
    found = json.loads(scored.output)
    figures = {name: found[name] for name in ("n_samples", "n_targets", "loss", "accuracy", "unigram", "conditional")}
    figures["seconds_in_steps"] = json.loads(trained.output)["seconds"]
    targets = [
        Target("training", trained.wall_s, 120, "s"),
        Target("loss_below_unigram", found["unigram"] - found["loss"], 0, "nats", at_least=True),
    ]
    parameters = {"samples": n_samples, "genes": n_genes, "steps": n_steps}
    return Case("network of genes", parameters, {"train": [trained], "evaluate": [scored]}, targets, figures)


def main() -> None:
    quick = parse_arguments(__doc__).quick
    with scratch_folder() as scratch:
        case = bench(scratch, *((200, 300, 5) if quick else (2_000, 3_000, 500)))
    report("genes", [case], record=not quick)


if __name__ == "__main__":
    main()
