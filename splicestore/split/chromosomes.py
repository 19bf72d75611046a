"""From chromosome names as people write them to contigs of the reference genome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import SplitError, close_names
from splicestore.kernels.naming import ContigMatcher
from splicestore.schema import SUBSET_TEST, SUBSET_TRAIN, SUBSET_VAL
from splicestore.split.values import Codes, GenomeLayout, SplitOptions


def resolve_chromosomes(
    wanted: Sequence[str],
    contig_name: Sequence[str],
    genome_id: str,
    aliases: Mapping[str, str] | None = None,
) -> NDArray[np.int64]:
    """Find contigs by name or alias: exactly, or else with a ``chr`` prefix more or less.

    Parameters
    ----------
    wanted
        Names as given, strings also where they look like numbers.
    contig_name
        Contigs of the genome.
    genome_id
        For the message.
    aliases
        Other spellings of contig names.

    Returns
    -------
    contig : (len(wanted),) int64

    Raises
    ------
    SplitError
        If a name fits no contig, or none exactly and several by prefix.

    Examples
    --------
    >>> resolve_chromosomes(["chr2", "X"], ["1", "2", "X"], "human")
    array([1, 2])
    """
    matcher = ContigMatcher(contig_name, aliases)
    return np.array([_the_contig(name, matcher, contig_name, genome_id) for name in wanted], dtype=np.int64)


def _the_contig(name: str, matcher: ContigMatcher, contig_name: Sequence[str], genome_id: str) -> int:
    matches = matcher.rows_of(name)
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(contig_name[index] for index in matches)
        raise SplitError(f"chromosome {name!r} of {genome_id} could be any of {names}; write the name you mean in full")
    raise SplitError(f"chromosome {name!r} is no contig of {genome_id}; {close_names(name, contig_name)}")


def chromosome_subsets(options: SplitOptions, reference: GenomeLayout) -> Codes:
    """Give each contig of the reference genome its subset.

    Returns
    -------
    subset : (n_contigs,) uint8
        Train where nothing was declared.

    Raises
    ------
    SplitError
        If a name is unknown or ambiguous, or a chromosome is named twice.
    """
    names, genome_id = reference.contig_name, reference.genome_id
    test = resolve_chromosomes(options.test_chromosomes, names, genome_id, reference.contig_alias)
    val = resolve_chromosomes(options.val_chromosomes, names, genome_id, reference.contig_alias)
    contigs, times = np.unique(np.concatenate((test, val)), return_counts=True)
    if (times > 1).any():
        twice = names[int(contigs[times > 1][0])]
        raise SplitError(f"chromosome {twice!r} of {genome_id} is named twice among test and val chromosomes; keep one")
    subset = np.full(len(names), SUBSET_TRAIN, dtype=np.uint8)
    subset[val] = SUBSET_VAL
    subset[test] = SUBSET_TEST
    return subset
