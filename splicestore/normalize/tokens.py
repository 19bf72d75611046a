"""``normalize tokens``: numbers for the genes of one or more species, that a model of all of them can use as its vocabulary.

Genes of different species with one ortholog each share a token; every other gene has its own, and is counted by what it has instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError
from splicestore.kernels.components import group_components
from splicestore.kernels.ortholog_tokens import ONE_TO_ONE, RELATIONS, number_tokens, relate_genes
from splicestore.normalized import Bins
from splicestore.readers.orthology import Homology, read_orthology
from splicestore.schema import LedgerRow, Plan, check_name
from splicestore.storage import Publication, digest_input, write_lease
from splicestore.storage.columns import Column, ledger_columns, write_columns
from splicestore.store import Store

TOKENS_ENCODER = 1
_PART = "table"


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """Where orthologs are from."""

    orthology: tuple[str, ...] = ()
    """Tables of orthologs; paralogs in them make pairs groups."""
    format: str = "auto"
    level: str | None = None
    """Of nested groups (OrthoDB, eggNOG)."""
    column_genomes: Mapping[str, str] | None = None
    """What a table calls a species -> the bins of that species."""
    force: bool = False
    steal: bool = False


@dataclass(frozen=True, slots=True)
class TokenReport:
    """What was published."""

    name: str
    generation: str
    status: str
    n_tokens: int
    """The first three, which no gene has, included."""
    n_shared: int
    """Tokens that genes of several species have."""
    genes: dict[str, dict[str, int]]
    """Genes of each bins by relation."""
    matched: dict[str, int]
    """How ids of the tables were found: exact, symbol, deprefixed, deversioned, unmatched."""

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Genes:
    """Genes of all bins, one after the other by the name of the bins."""

    views: Sequence[Bins]
    species: NDArray[np.uint16]
    relation: NDArray[np.uint8]
    token: NDArray[np.int32]

    def columns(self, ledger: Sequence[LedgerRow]) -> list[Column]:
        """Columns of the published table."""
        names = {"vocabulary": [view.name for view in self.views]}
        return [
            Column("gene_id", [gene for view in self.views for gene in view.gene_ids], "gene", "string"),
            Column("gene_symbol", [symbol for view in self.views for symbol in view.gene_symbols], "gene", "string"),
            Column("gene_bins", self.species, "gene", "uint16", attributes=names),
            Column("gene_relation", self.relation, "gene", "uint8", attributes={"vocabulary": list(RELATIONS)}),
            Column("gene_token", self.token, "gene", "int32"),
            *ledger_columns(ledger),
        ]


def publish_tokens(
    store: Store,
    name: str,
    bins: Sequence[str],
    options: TokenOptions | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> TokenReport:
    """Number the genes of some bins and publish the table.

    Parameters
    ----------
    name
        Of the tokens.
    bins
        Names of bins, each of another species; their order does not matter.
    storage_options
        For the tables of orthologs.

    Raises
    ------
    ConfigError
        For bins named twice or by the same edges, or several without a table of orthologs.
    InputError
        If a table cannot be read, or pairs no gene of these bins.
    """
    options = options or TokenOptions()
    check_name(name, "tokens")
    views = _open_bins(store, bins, options)
    homologies = _read_orthologs(views, options, storage_options)
    genes = _number_genes(views, homologies)
    if len(views) > 1 and not (genes.relation == ONE_TO_ONE).any():
        raise InputError(
            f"{', '.join(options.orthology)}: no two genes of {', '.join(view.name for view in views)} are a pair; does the table have "
            "other ids, or call the species something else (--column-genome)?"
        )
    ledger = [row for homology in homologies for row in homology.ledger]
    digests = tuple(digest_input(url, "orthology", storage_options=storage_options) for url in options.orthology)
    publication = _publication(store, name, views, genes.columns(ledger), genes, digests, options)
    with write_lease(store.root, f"tokens/{name}", steal=options.steal) as lease:
        if not publication.is_complete():
            publication.begin()
            if not publication.has_part(_PART):
                writer = publication.partition(_PART)
                write_columns(writer, genes.columns(ledger))
                writer.close()
            publication.finalise([_PART])
        lease.check()
        status = "published" if publication.switch() else "unchanged"
    return _report(publication, name, status, genes, homologies)


def _open_bins(store: Store, names: Sequence[str], options: TokenOptions) -> list[Bins]:
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"tokens are of one or more bins, each named once, got {', '.join(names) or 'none'}")
    if len(names) > 1 and not options.orthology:
        raise ConfigError("genes of several bins share tokens by a table of orthologs; give --orthology FILE")
    views = [store.bins[name] for name in sorted(names)]
    edges: dict[tuple[str, str], str] = {}
    for view in views:
        other = edges.setdefault(view.normalized, view.name)
        if other != view.name:
            raise ConfigError(
                f"bins {other} and {view.name} are by the same edges {view.normalized[0]}, so of one species; name one of them"
            )
    return views


def _read_orthologs(
    views: Sequence[Bins], options: TokenOptions, storage_options: Mapping[str, Any] | None
) -> list[Homology]:
    if len(views) == 1:
        return []
    genes = {view.name: view.gene_ids for view in views}
    symbols = {view.name: _ids_of_symbols(view) for view in views}
    return [
        read_orthology(
            url,
            genes,
            transcripts=symbols,
            format=options.format,
            column_genomes=options.column_genomes,
            level=options.level,
            storage_options=storage_options,
        )
        for url in options.orthology
    ]


def _ids_of_symbols(view: Bins) -> dict[str, str]:
    times = Counter(view.gene_symbols)
    return {
        symbol: gene
        for symbol, gene in zip(view.gene_symbols, view.gene_ids, strict=True)
        if symbol and times[symbol] == 1
    }


def _number_genes(views: Sequence[Bins], homologies: Sequence[Homology]) -> _Genes:
    sizes = [view.n_genes for view in views]
    first = np.cumsum([0, *sizes], dtype=np.int64)
    names = [view.name for view in views]
    member, group, n_groups = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], 0
    for homology in homologies:
        place = first[[names.index(genome) for genome in homology.genome_ids]]
        member.append(place[homology.genome] + homology.gene)
        group.append(homology.group + n_groups)
        n_groups += len(homology.group_names)
    component = group_components(int(first[-1]), np.concatenate(member), np.concatenate(group))
    species = np.repeat(np.arange(len(views), dtype=np.uint16), sizes)
    relation = relate_genes(species, component)
    return _Genes(views, species, relation, number_tokens(component, relation))


def _publication(
    store: Store,
    name: str,
    views: Sequence[Bins],
    columns: Sequence[Column],
    genes: _Genes,
    digests: tuple[Any, ...],
    options: TokenOptions,
) -> Publication:
    plan = Plan(
        kind="tokens",
        encoder=TOKENS_ENCODER,
        inputs=digests,
        parents={f"bins/{view.name}": view.generation for view in views},
        options={
            "format": options.format,
            "level": options.level,
            "column_genomes": dict(options.column_genomes or {}),
        },
        chunking={},
    )
    return Publication(
        root=store.root,
        path=f"tokens/{name}",
        plan=plan,
        specs=[column.spec() for column in columns],
        attributes={
            "options": plan.document()["options"],
            "pins": {"bins": {view.name: view.generation for view in views}},
            "n_genes": len(genes.token),
            "n_tokens": int(genes.token.max()) + 1,
        },
        provenance={"versions": {"splicestore": version("splicestore")}, "inputs": list(options.orthology)},
        force=options.force,
    )


def _report(
    publication: Publication, name: str, status: str, genes: _Genes, homologies: Sequence[Homology]
) -> TokenReport:
    matched: Counter[str] = Counter()
    for homology in homologies:
        matched.update({"symbol" if way == "transcript" else way: n for way, n in homology.matched.items()})
    times = np.bincount(genes.token)
    by_relation = {
        view.name: dict(zip(RELATIONS, np.bincount(genes.relation[genes.species == i], minlength=len(RELATIONS)).tolist(), strict=True))
        for i, view in enumerate(genes.views)
    }  # fmt: skip
    return TokenReport(
        name, publication.generation, status, len(times), int((times > 1).sum()), by_relation, dict(matched)
    )
