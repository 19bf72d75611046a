"""Which genome a species name means, and which gene an id of a homology table means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import InputError, close_names
from splicestore.readers.gene_models import strip_prefix

WAYS = ("exact", "transcript", "deprefixed", "deversioned", "unmatched")
"""How an id was found, best first."""
UNMATCHED = WAYS.index("unmatched")

UNKNOWN_GENOME = -2
"""Code of a genome that the table names and that is not among the given ones."""

_ABSENT, _AMBIGUOUS = -1, -2

Matches = tuple[NDArray[np.int32], NDArray[np.int8]]
"""(n,) rows of genes, -1 where unmatched; (n,) indices into ``WAYS``."""


class GenomeIds:
    """Look-up tables of one genome's gene and transcript ids."""

    def __init__(self, gene_ids: Sequence[str], transcripts: Mapping[str, str]) -> None:
        self.gene_ids = gene_ids
        self._genes: dict[str, int] = {}
        # Both copies of a pseudoautosomal gene may share an id; the closure joins them, so the first will do.
        for row, gene_id in enumerate(gene_ids):
            self._genes.setdefault(gene_id, row)
        self._transcripts = {t: self._genes[g] for t, g in transcripts.items() if g in self._genes}

    @property
    def examples(self) -> list[str]:
        """The first gene ids."""
        return [gene_id for gene_id, _ in zip(self._genes, range(3), strict=False)]

    @cached_property
    def _bare(self) -> dict[str, int]:
        return self._shortened(strip_prefix)

    @cached_property
    def _stems(self) -> dict[str, int]:
        return self._shortened(_stem)

    def _shortened(self, shorten: Callable[[str], str]) -> dict[str, int]:
        """Key genes and transcripts by a shorter id; genes come first."""
        return _unique_keys(self._transcripts.items(), shorten) | _unique_keys(self._genes.items(), shorten)

    def find(self, ids: Sequence[str]) -> Matches:
        """Find distinct ids: exactly, as a transcript, without prefix, without version where that is unique.

        Two of the ids that differ in nothing but their version are no versions of one gene to this look-up:
        neither is matched without it.
        """
        gene = _look_up(self._genes, ids)
        way = np.where(gene >= 0, 0, UNMATCHED).astype(np.int8)
        for step, search in enumerate((self._find_transcripts, self._find_bare, self._find_stems), start=1):
            missing = np.flatnonzero(gene < 0)
            if len(missing) == 0:
                break
            gene[missing] = search([ids[i] for i in missing.tolist()], ids)
            way[missing[gene[missing] >= 0]] = step
        gene[gene < 0] = _ABSENT
        return gene, way

    def _find_transcripts(self, missing: Sequence[str], ids: Sequence[str]) -> NDArray[np.int32]:
        return _look_up(self._transcripts, missing)

    def _find_bare(self, missing: Sequence[str], ids: Sequence[str]) -> NDArray[np.int32]:
        return _look_up(self._bare, [strip_prefix(i) for i in missing])

    def _find_stems(self, missing: Sequence[str], ids: Sequence[str]) -> NDArray[np.int32]:
        # F54D11.1 and F54D11.2 are two genes: a stem that the table itself spells in two ways decides nothing.
        spellings = Counter(map(_without_version, set(map(strip_prefix, ids))))
        stems = [_stem(i) for i in missing]
        gene = _look_up(self._stems, stems)
        gene[np.array([spellings[stem] > 1 for stem in stems])] = _AMBIGUOUS
        return gene


def _stem(identifier: str) -> str:
    return _without_version(strip_prefix(identifier))


def _without_version(identifier: str) -> str:
    stem, _, version = identifier.rpartition(".")
    return stem if stem and version.isdecimal() else identifier


def _unique_keys(items: Iterable[tuple[str, int]], shorten: Callable[[str], str]) -> dict[str, int]:
    keys: dict[str, int] = {}
    for identifier, row in items:
        key = shorten(identifier)
        if keys.setdefault(key, row) != row:
            keys[key] = _AMBIGUOUS
    return keys


def _look_up(table: Mapping[str, int], ids: Sequence[str]) -> NDArray[np.int32]:
    return np.fromiter((table.get(i, _ABSENT) for i in ids), np.int32, len(ids))


def find_anywhere(
    url: str, genomes: Mapping[str, GenomeIds], ids: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]]:
    """Find distinct ids of a table that names no genomes: the best way in any genome wins.

    Returns
    -------
    genome : (n,) int32
        Index into ``genomes``; 0 where unmatched.
    gene : (n,) int32
    way : (n,) int8

    Raises
    ------
    InputError
        If an id is equally well a gene of two genomes.
    """
    if not genomes or len(ids) == 0:
        return np.zeros(len(ids), np.int32), np.full(len(ids), _ABSENT, np.int32), np.full(len(ids), UNMATCHED, np.int8)
    found = [genome.find(ids) for genome in genomes.values()]
    genes, ways = np.stack([gene for gene, _ in found]), np.stack([way for _, way in found])
    best = ways.min(axis=0)
    several = np.flatnonzero(((ways == best).sum(axis=0) > 1) & (best < UNMATCHED))
    if len(several):
        first = int(several[0])
        names = [name for name, way in zip(genomes, ways[:, first], strict=True) if way == best[first]]
        raise InputError(
            f"{url}: gene id {ids[first]!r} is found in the genomes {', '.join(names)} ({len(several)} such ids), and "
            "the table does not say which is meant; give a table with the columns ortholog_group, genome_id, gene_id, "
            "or name the genome of the column in column_genomes"
        )
    genome = ways.argmin(axis=0).astype(np.int32)
    return genome, genes[genome, np.arange(len(ids))], best


def resolve_genomes(
    url: str, labels: Sequence[str], genome_ids: Sequence[str], column_genomes: Mapping[str, str] | None
) -> NDArray[np.int32]:
    """Find the genome that each species name of a table means.

    A name counts through ``column_genomes`` (exact names), then as it is, then regardless of case where that
    is unique.

    Returns
    -------
    genome : (n_labels,) int32
        Index into ``genome_ids``, or ``UNKNOWN_GENOME``.

    Raises
    ------
    InputError
        If ``column_genomes`` leads to a genome that is not there, or names a species that the table has not
        while a species of the table stays unknown.
    """
    given = dict(column_genomes or {})
    row = {genome_id: i for i, genome_id in enumerate(genome_ids)}
    for label, genome_id in given.items():
        if genome_id not in row:
            raise InputError(
                f"{url}: column_genomes maps {label!r} to genome {genome_id!r}, which is not among the genomes; "
                f"{close_names(genome_id, genome_ids)}"
            )
    lowered = Counter(genome_id.lower() for genome_id in genome_ids)
    folded = {genome_id.lower(): i for genome_id, i in row.items() if lowered[genome_id.lower()] == 1}
    found = [
        row[given[label]] if label in given else row.get(label, folded.get(label.lower(), UNKNOWN_GENOME))
        for label in labels
    ]
    unknown = [label for label, genome in zip(labels, found, strict=True) if genome == UNKNOWN_GENOME]
    unused = [label for label in given if label not in labels]
    if unused and unknown:
        raise InputError(
            f"{url}: column_genomes names {unused[0]!r}, which the table does not have, while {unknown[0]!r} of the "
            f"table means no genome; {close_names(unused[0], labels)}"
        )
    return np.array(found, dtype=np.int32)
