"""Samples of expression, alone or of the genomes of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from splicestore.errors import ConfigError
from splicestore.simulate.archs4 import Cohort, CohortGenes, counts_file, write_cohort
from splicestore.simulate.cohort import ExpressionModel, SampleDesign
from splicestore.simulate.folder import find_study, no_progress, write_study_document
from splicestore.simulate.options import EXPRESSION_GENES, CohortOptions, SimulatedCohort
from splicestore.storage.outputs import OutputFolder, output_folder

GENOME_ID = "sim1"
"""Of samples that no genome is simulated for."""


def simulate_samples(
    out: str | Path, options: CohortOptions, progress: Callable[[str], None] | None = None
) -> SimulatedCohort:
    """Write samples of expression with known truth as one HDF5 file in the layout of ARCHS4.

    Tissues use modules of genes; series have batch effects and share samples, some samples are of single cells, some copy
    those of other series, some symbols stand twice. Samples are drawn one by one and written by blocks, so memory
    does not grow with their number. The same options give the same bytes.

    Parameters
    ----------
    out
        Folder, new or empty; it appears whole or not at all. One that holds these very samples is left as it is.
    options
        What to simulate.
    progress
        Called with one line per block of samples.

    Returns
    -------
    SimulatedCohort
        Paths and totals.

    Raises
    ------
    ConfigError
        If the folder holds anything else, or h5py is not installed.
    TransferError
        If the disk is full or the folder cannot be written.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> cohort = simulate_samples(mkdtemp(), CohortOptions(samples=60, genes=300))
    >>> cohort.n_samples, cohort.n_genes, cohort.counts.name
    (60, 300, 'sim1.h5')
    """
    root = Path(out)
    n_genes = options.genes or EXPRESSION_GENES
    wanted = {"cohort": asdict(options)}
    if find_study(root, wanted) is None:
        model = ExpressionModel.draw(options.seed, n_genes, options.tissues)
        cohort = _cohort(options, model, GENOME_ID, 0, [], n_genes, 0)
        with output_folder(root) as output:
            write_cohort(output, cohort, progress or no_progress)
            write_study_document(output, wanted, {"n_samples": options.samples, "n_genes": n_genes})
    return SimulatedCohort(
        counts=root / counts_file(GENOME_ID),
        n_samples=options.samples,
        n_genes=n_genes,
        truth=root / "truth",
    )


def write_cohorts(
    output: OutputFolder,
    options: CohortOptions,
    genome_ids: Sequence[str],
    n_families: int,
    members: Sequence[tuple[int, int, str]],
    progress: Callable[[str], None],
) -> None:
    """Write samples of every genome of a study.

    Parameters
    ----------
    n_families
        Gene families of the study.
    members
        Family, genome number and id of every gene.

    Raises
    ------
    ConfigError
        If a genome has more genes than were asked for.
    """
    model = ExpressionModel.draw(options.seed, n_families + (options.genes or 0), options.tissues)
    for number, genome_id in enumerate(genome_ids):
        genes = [(family, gene_id) for family, genome, gene_id in members if genome == number]
        n_genes = options.genes or len(genes)
        if n_genes < len(genes):
            raise ConfigError(
                f"simulate: {genome_id} has {len(genes):,} genes, got {n_genes:,} genes of expression: all of them are measured; "
                f"ask for {len(genes):,} or more, or for none to have just these"
            )
        write_cohort(output, _cohort(options, model, genome_id, number, genes, n_genes, n_families), progress)


def _cohort(
    options: CohortOptions,
    model: ExpressionModel,
    genome_id: str,
    number: int,
    genes: Sequence[tuple[int, str]],
    n_genes: int,
    n_families: int,
) -> Cohort:
    """Add genes that no annotation has to those of a genome, until there are ``n_genes``."""
    n_more = n_genes - len(genes)
    family = np.array([family for family, _ in genes] + [n_families + i for i in range(n_more)], dtype=np.int64)
    gene_id = [gene_id for _, gene_id in genes] + [f"{genome_id}X{i + 1:06d}" for i in range(n_more)]
    return Cohort(
        genome_id=genome_id,
        n_samples=options.samples,
        design=SampleDesign(options.seed, number, options.tissues),
        genes=CohortGenes.name(options.seed, number, gene_id, family),
        model=model,
    )
