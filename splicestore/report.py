"""Facts about a store for people: what it holds, which generations there are, what became of a gene."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from splicestore.errors import InputError, close_names
from splicestore.genome import Genome
from splicestore.normalized import Bins, Scaled
from splicestore.schema import KIND_ACCEPTOR, KIND_DONOR, SUBSET_NAMES
from splicestore.splits import Split
from splicestore.store import Store


def store_summary(store: Store) -> dict[str, Any]:
    """Count what a store holds, by name."""
    return {
        "url": store.url,
        "genomes": {name: _genome_summary(store.genomes[name]) for name in store.genomes},
        "splits": {name: _split_summary(store.splits[name]) for name in store.splits},
        "predictions": {
            name: {
                "generation": p.generation,
                "genomes": p.genome_ids,
                "tasks": p.tasks,
                "model": p.attributes["pins"]["model"],
            }
            for name, p in ((n, store.predictions[n]) for n in store.predictions)
        },
        "expression": {
            name: {"generation": x.generation, "samples": x.n_samples, "genes": x.n_genes}
            for name, x in ((n, store.expression[n]) for n in store.expression)
        },
        "normalized": {
            name: {
                "generation": e.generation,
                "expression": e.expression[0],
                "samples": e.n_samples_fitted,
                "genes": e.n_genes,
                "method": e.method,
                "bins": e.n_bins if e.method == "bins" else None,
                "tie_policy": e.tie_policy if e.method == "bins" else None,
            }
            for name, e in ((n, store.normalized[n]) for n in store.normalized)
        },
        "bins": {name: _matrix_summary(store.bins[name]) for name in store.bins},
        "scaled": {
            name: {**_matrix_summary(store.scaled[name]), "method": store.scaled[name].method} for name in store.scaled
        },
        "tokens": {
            name: {"generation": t.generation, "tokens": t.n_tokens, "bins": ", ".join(t.bins)}
            for name, t in ((n, store.tokens[n]) for n in store.tokens)
        },
    }


def _matrix_summary(matrix: Bins | Scaled) -> dict[str, Any]:
    return {
        "generation": matrix.generation,
        "expression": matrix.expression[0],
        "normalized": matrix.normalized[0],
        "samples": matrix.n_samples,
        "genes": matrix.n_genes,
    }


def _genome_summary(genome: Genome) -> dict[str, Any]:
    attributes = genome.attributes
    return {
        "generation": genome.generation,
        "species": attributes.get("species", ""),
        **attributes["summary"],
        "motifs": attributes["motifs"]["motifs"],
        "conditions": genome.condition_names,
    }


def _split_summary(split: Split) -> dict[str, Any]:
    counts = np.bincount(split.window_subset, minlength=len(SUBSET_NAMES))
    return {
        "generation": split.generation,
        "genomes": list(split.genome_ids),
        "window_size": split.window_size,
        "context_size": split.context_size,
        "windows": {name: int(n) for name, n in zip(SUBSET_NAMES, counts, strict=True)},
    }


def explain_gene(
    store: Store, name: str, *, genome_id: str | None = None, split_name: str | None = None
) -> dict[str, Any]:
    """Follow a gene, symbol or transcript through ingest and every split.

    Raises
    ------
    InputError
        If no genome has it, stored or in its ledger; close names are listed.
    """
    genomes = [genome_id] if genome_id else list(store.genomes)
    found = []
    known: list[str] = []
    for one in genomes:
        genome = store.genomes[one]
        story = _explain_in(store, genome, name, split_name)
        if story is not None:
            found.append(story)
        known += genome.gene_ids
    if not found:
        raise InputError(
            f"{store.url}: no gene, symbol, transcript or ledger entry {name!r} in {', '.join(genomes)}; {close_names(name, known)}"
        )
    return {"query": name, "genomes": found}


def _explain_in(store: Store, genome: Genome, name: str, split_name: str | None) -> dict[str, Any] | None:
    ledger = genome.ledger.to_pandas()
    transcripts = genome.transcript_genes()
    symbols = [str(s) for s in genome.array("gene_symbol")]
    gene_id = transcripts.get(name, name)
    row = (
        genome.gene_ids.index(gene_id)
        if gene_id in genome.gene_ids
        else symbols.index(name)
        if name in symbols
        else None
    )
    identifiers = (
        {name}
        if row is None
        else {name, genome.gene_ids[row], *(t for t, g in transcripts.items() if g == genome.gene_ids[row])}
    )
    rows = ledger[
        ledger["identifier"].isin(identifiers)
        | ledger["detail"].map(lambda text: name in re.split(r"[\s,;:()]+", text))
    ]
    if row is None and rows.empty:
        return None
    story: dict[str, Any] = {
        "genome": genome.genome_id,
        "generation": genome.generation,
        "ledger": rows.to_dict("records"),
        "splits": [],
    }
    if row is None:
        story["verdict"] = f"not stored: {rows['reason'].iloc[0]}"
        return story
    story["gene"] = _gene_facts(genome, row, transcripts)
    names = [split_name] if split_name else list(store.splits)
    story["splits"] = [s for n in names if (s := _gene_in_split(store.splits[n], genome, row)) is not None]
    story["verdict"] = "; ".join(f"{s['split']}: {s['subset']}" for s in story["splits"]) or "stored, in no split yet"
    return story


def _gene_facts(genome: Genome, row: int, transcripts: dict[str, str]) -> dict[str, Any]:
    gene = genome.gene(genome.gene_ids[row])
    facts = genome.genes.to_pandas().iloc[row].to_dict()
    sites = gene.site_rows
    kinds = genome.site_kind[sites]
    measured = gene.usage.to_pandas()[["contig", "position", "strand"]].drop_duplicates()
    return {
        **{str(k): (v.item() if hasattr(v, "item") else v) for k, v in facts.items()},
        "n_sites": len(sites),
        "n_donors": int(np.count_nonzero(kinds & KIND_DONOR)),
        "n_acceptors": int(np.count_nonzero(kinds & KIND_ACCEPTOR)),
        "n_transcripts": sum(g == genome.gene_ids[row] for g in transcripts.values()),
        "n_measured_sites": len(measured),
        "n_conditions": len(genome.condition_names),
    }


def _gene_in_split(split: Split, genome: Genome, row: int) -> dict[str, Any] | None:
    if split.genome_generations.get(genome.genome_id) != genome.generation:
        return None
    genes = split.genes_to_pandas()
    mine = np.flatnonzero((genes["genome"] == genome.genome_id) & (genes["gene_id"] == genome.gene_ids[row]))
    if not len(mine):
        return None
    gene = int(mine[0])
    facts = genes.iloc[gene]
    ptr, index = split.array("window_gene_ptr"), split.array("window_gene_index")
    windows = np.searchsorted(ptr, np.flatnonzero(index == gene), side="right") - 1
    counts = np.bincount(split.window_subset[windows], minlength=len(SUBSET_NAMES))
    return {
        "split": split.name,
        "subset": str(facts["subset"]),
        "reason": str(facts["reason"]),
        "component": int(facts["component"]),
        "component_size": int((genes["component"] == facts["component"]).sum()),
        "windows": {s: int(n) for s, n in zip(SUBSET_NAMES, counts, strict=True) if n},
    }
