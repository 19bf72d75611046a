"""A whole synthetic study on disk: related genomes, annotation, usage, orthologs, and the truth behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from splicestore.simulate import tables
from splicestore.simulate.archs4 import counts_file
from splicestore.simulate.evolution import ROOT, Event, Layout, ancestral_layout, draw_tree, evolve_branch, newick
from splicestore.simulate.folder import find_study, json_text, no_progress, write_study_document
from splicestore.simulate.genes import MIN_INTRON
from splicestore.simulate.genome import GenomeCounts, GenomePlan, GenomeWriter, PieceSource
from splicestore.simulate.loci import LocusFactory, SpacerFactory
from splicestore.simulate.motifs import draw_usage_model
from splicestore.simulate.options import CohortOptions, SimulatedStudy, SimulateOptions, condition_grid
from splicestore.simulate.samples import write_cohorts
from splicestore.simulate.seeds import Stream, random_stream
from splicestore.storage.outputs import OutputFolder, output_folder

P_GROUP_MISSED = 0.03
"""Share of gene families that the orthology table does not know."""
GENIC_SHARE = 0.6
MEAN_EXONIC, MEAN_INTRONS = 1_500.0, 6.0
"""Exon bases and introns of an average gene."""
INTRON_MEAN_RANGE = (MIN_INTRON + 40.0, 6_000.0)

Members = list[tuple[int, int, str]]
"""Family, genome number, gene id."""
Totals = dict[str, dict[str, int]]
"""n_bases, n_genes, n_sites by genome; events by kind."""


def simulate_study(
    out: str | Path,
    options: SimulateOptions,
    progress: Callable[[str], None] | None = None,
    *,
    cohort: CohortOptions | None = None,
) -> SimulatedStudy:
    """Write a synthetic study with known truth.

    Genomes descend from one ancestor along a random tree. They are written element by element, so memory
    does not grow with their size. The same options give the same bytes.

    Parameters
    ----------
    out
        Folder, new or empty; it appears whole or not at all. One that holds this very study is left as it is.
    options
        What to simulate.
    progress
        Called with one line per contig, and per block of samples.
    cohort
        Also write samples of expression of every genome; orthologs are expressed alike.

    Returns
    -------
    SimulatedStudy
        Paths and totals.

    Raises
    ------
    ConfigError
        If the folder holds anything else, or fewer genes of expression are asked for than a genome has.
    TransferError
        If the disk is full or the folder cannot be written.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> study = simulate_study(mkdtemp(), SimulateOptions(genomes=2, megabases=0.1, genes=5, contigs=2))
    >>> study.genome_ids, study.condition_names
    (('sim1', 'sim2'), ('Brain_1', 'Brain_2', 'Heart_1', 'Heart_2'))
    """
    root = Path(out)
    plans = _genome_plans(options)
    wanted = {"options": asdict(options)} | ({"cohort": asdict(cohort)} if cohort else {})
    known = find_study(root, wanted)
    if known is None:
        with output_folder(root) as output:
            known = _write_study(output, options, cohort, plans, progress or no_progress)
            write_study_document(output, wanted | _study_truth(plans[0]), known)
    return _described(root, plans, cast("Totals", known), cohort)


def _write_study(
    output: OutputFolder,
    options: SimulateOptions,
    cohort: CohortOptions | None,
    plans: Sequence[GenomePlan],
    progress: Callable[[str], None],
) -> Totals:
    """Walk the tree from the ancestor and write every genome, then what joins them."""
    intron_mean = (GENIC_SHARE * options.n_bases / options.genes - MEAN_EXONIC) / MEAN_INTRONS
    loci = LocusFactory(options.seed, float(np.clip(intron_mean, *INTRON_MEAN_RANGE)))
    nodes = draw_tree(options.seed, [plan.genome_id for plan in plans])
    history, ancestor = ancestral_layout(options, loci)
    rates = tuple(node.length * options.divergence for node in nodes)
    source = PieceSource(options.seed, history, loci, SpacerFactory.draw(options.seed), rates)
    counts: dict[str, GenomeCounts] = {}
    members: Members = []
    # Depth first: only the layouts of the ancestors still to be descended from are held.
    stack: list[tuple[int, Layout, tuple[int, ...]]] = [(len(nodes) - 1, ancestor, ())]
    while stack:
        i, layout, path = stack.pop()
        if nodes[i].parent != ROOT:
            layout, path = evolve_branch(options.seed, nodes, i, history, layout), (*path, i)
        stack += [(child, layout, path) for child in reversed(nodes[i].children)]
        if not nodes[i].children:
            writer = GenomeWriter(output, plans[i], source, path, progress)
            counts[nodes[i].name] = writer.write(layout)
            members += [(family, i, gene_id) for family, gene_id in writer.members]
    output.write_text("orthologs.tsv", _ortholog_table(options.seed, history.n_families, members, plans))
    output.write_text("truth/events.tsv", tables.EVENTS_HEADER + "".join(map(_event_row, history.events)))
    output.write_text("truth/tree.nwk", newick(nodes, options.divergence))
    _write_configs(output, plans)
    if cohort is not None:
        write_cohorts(output, cohort, [plan.genome_id for plan in plans], history.n_families, members, progress)
    return _totals(plans, counts, history.events)


def _study_truth(plan: GenomePlan) -> dict[str, Any]:
    return {
        "conditions": list(plan.condition_names),
        "usage_model": plan.model.document(plan.condition_names),
    }


def _totals(plans: Sequence[GenomePlan], counts: Mapping[str, GenomeCounts], events: Sequence[Event]) -> Totals:
    ids = [plan.genome_id for plan in plans]
    return {
        "n_bases": {i: counts[i].n_bases for i in ids},
        "n_genes": {i: counts[i].n_genes for i in ids},
        "n_sites": {i: counts[i].n_sites for i in ids},
        "events": dict(sorted(Counter(event.kind for event in events).items())),
    }


def _genome_plans(options: SimulateOptions) -> list[GenomePlan]:
    tissues, timepoints = condition_grid(options.conditions)
    return [
        GenomePlan(
            genome_id=f"sim{number + 1}",
            number=number,
            options=options,
            conditions=tuple((tissue, time) for tissue in tissues for time in timepoints),
            model=draw_usage_model(options.seed, len(tissues), len(timepoints)),
        )
        for number in range(options.genomes)
    ]


def _ortholog_table(seed: int, n_families: int, members: Members, plans: Sequence[GenomePlan]) -> str:
    """List the groups of two or more genes, but for a few that an orthology tool would have missed."""
    is_missed = random_stream(seed, Stream.ORTHOLOGY).random(n_families) < P_GROUP_MISSED
    size = Counter(family for family, _, _ in members)
    rows = [
        f"{tables.group_name(family)}\t{plans[number].genome_id}\t{gene_id}\n"
        for family, number, gene_id in sorted(members)
        if size[family] > 1 and not is_missed[family]
    ]
    return tables.ORTHOLOGS_HEADER + "".join(rows)


def _event_row(event: Event) -> str:
    families = ",".join(map(tables.ancestral_id, event.families)) or "."
    return f"{event.branch}\t{event.kind}\t{event.contig}\t{families}\t{event.detail or '.'}\n"


def _write_configs(output: OutputFolder, plans: Sequence[GenomePlan]) -> None:
    """Write the sample sheet and both configuration documents, paths relative to the study."""
    if plans[0].star_files:
        rows = [
            f"{plan.genome_id}\t{name}\t{file}\t{plan.condition_names[condition]}\tstar\n"
            for plan in plans
            for name, file, (condition, _) in zip(plan.sample_names, plan.star_files, plan.samples, strict=True)
        ]
        output.write_text("samples.tsv", tables.SAMPLES_HEADER + "".join(rows))
    document = {"genomes": [_yaml_genome(plan) for plan in plans]}
    output.write_text("genomes.yaml", yaml.safe_dump(document, sort_keys=False))
    output.write_text("genomes.json", json_text(_splicevo_document(plans)))


def _yaml_genome(plan: GenomePlan) -> dict[str, Any]:
    """Describe a genome in our form; SpliSER tables where there are any, since one column holds one estimator."""
    if plan.spliser_files:
        files, kind = list(zip(plan.spliser_files, plan.conditions, strict=True)), "spliser"
    else:
        conditions = [plan.conditions[condition] for condition, _ in plan.samples]
        files, kind = list(zip(plan.star_files, conditions, strict=True)), "star"
    return {
        "genome_id": plan.genome_id,
        "fasta": plan.fasta,
        "annotation": plan.annotation,
        "chromosomes": None,
        "usage": [
            {"file": file, "tissue": tissue, "timepoint": str(time), "format": kind} for file, (tissue, time) in files
        ],
    }


def _splicevo_document(plans: Sequence[GenomePlan]) -> dict[str, Any]:
    genomes = [
        {
            "genome_id": plan.genome_id,
            "genome_path": plan.fasta,
            "gtf_path": plan.annotation,
            "chromosomes": None,
            "metadata": {"species": f"simulata_{plan.genome_id}", "assembly": f"SIM{plan.number + 1}"},
            "common_name": plan.genome_id,
        }
        for plan in plans
    ]
    usage = {
        plan.genome_id: {
            "pattern": f"usage/{plan.genome_id}.{{tissue}}.{{timepoint}}.combined.tsv",
            "tissues": list(dict.fromkeys(tissue for tissue, _ in plan.conditions)),
            "timepoints": list(dict.fromkeys(time for _, time in plan.conditions)),
        }
        for plan in plans
        if plan.spliser_files
    }
    return {"genomes": genomes, "usage_files": usage}


def _described(root: Path, plans: Sequence[GenomePlan], totals: Totals, cohort: CohortOptions | None) -> SimulatedStudy:
    return SimulatedStudy(
        root=root,
        genome_ids=tuple(plan.genome_id for plan in plans),
        condition_names=plans[0].condition_names,
        genomes_json=root / "genomes.json",
        genomes_yaml=root / "genomes.yaml",
        samples=root / "samples.tsv" if plans[0].star_files else None,
        orthologs=root / "orthologs.tsv",
        truth=root / "truth",
        n_bases=totals["n_bases"],
        n_genes=totals["n_genes"],
        n_sites=totals["n_sites"],
        events=totals["events"],
        counts={plan.genome_id: root / counts_file(plan.genome_id) for plan in plans if cohort},
    )
