"""Tiny genomes through real files and the real ingest, held against the oracles: genes, sites, windows, arrays."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import InputError
from tests.oracles import genome_oracle
from tests.oracles.comparison import (
    assert_same_arrays,
    check_windows,
    gene_table,
    ingest_tiny,
    site_genes,
    site_table,
    store_listing,
    stored_arrays,
    temporary_folder,
    transcript_table,
    window_list,
)
from tests.strategies import Spelling, TinyGene, TinyGenome, TinyTranscript, spellings, tiny_genomes, window_requests

DROPS_A_GENE = {"contig_not_in_fasta", "chromosome_not_selected", "past_contig_end"}
DROPS_A_TRANSCRIPT = {"gene_dropped", "not_selected", "no_exons"}


def gaps_of(exons):
    """Gaps between neighbouring exons that neither touch nor overlap."""
    return genome_oracle.transcript_introns({"exons": genome_oracle.merge_pieces(list(exons))}, min_intron=1)


def stored_introns(genome, min_intron):
    """(contig, start, end, strand) of every gap of a stored transcript that is long enough, with repeats."""
    genes = gene_table(genome)
    return [
        (genes[gene_id]["contig"], *intron, genes[gene_id]["strand"])
        for gene_id, exons in transcript_table(genome).values()
        for intron in genome_oracle.transcript_introns({"exons": exons}, min_intron)
    ]


def check_tables(genome, tiny, truth):
    """Bases, genes, transcripts, introns, sites and links."""
    assert genome.contig_names == list(truth["contigs"])
    for contig, text in truth["contigs"].items():
        assert "".join("ACGTN"[code] for code in genome.fetch(contig, 0, len(text))) == text
    assert gene_table(genome) == truth["genes"]
    assert site_table(genome) == truth["sites"]
    assert site_genes(genome) == truth["site_genes"]
    stored = transcript_table(genome)
    assert stored == {t["id"]: (t["gene_id"], t["exons"]) for t in truth["transcripts"]}
    assert set(stored_introns(genome, tiny.min_intron)) == truth["introns"]


def check_conservation(genome, tiny):
    """What went in is stored or in the ledger with a reason: genes, transcripts, introns."""
    ledger = genome.ledger.to_pandas()
    lost = Counter()
    for row in ledger.itertuples():
        lost[row.item, row.reason] += row.count
    transcripts = [t for gene in tiny.genes for t in gene.transcripts]
    assert len(genome.gene_ids) + sum(lost["gene", reason] for reason in DROPS_A_GENE) == len(tiny.genes)
    dropped = set(
        ledger.loc[(ledger["item"] == "transcript") & ledger["reason"].isin(DROPS_A_TRANSCRIPT), "identifier"]
    )
    stored = set(transcript_table(genome))
    assert stored | dropped == {t.transcript_id for t in transcripts}
    assert not stored & dropped
    n_introns = len(stored_introns(genome, tiny.min_intron))
    n_in = sum(len(gaps_of(t.exons)) for t in transcripts if t.transcript_id in stored)
    assert n_introns + lost["intron", "short_intron"] == n_in
    assert genome.attributes["summary"]["n_introns"] == n_introns


def check_lazy(windows, chunk):
    """Lazy arrays equal eager ones for any chunk size, and slices of rows equal slices of the whole."""
    eager = stored_arrays(windows)
    dataset = windows.to_xarray(chunk=chunk)
    assert_same_arrays({name: dataset[name].values for name in eager}, eager, f"chunk {chunk}")
    for first in range(0, len(windows), chunk):
        last = min(first + chunk, len(windows))
        part = {name: array[first:last] for name, array in eager.items()}
        assert_same_arrays(stored_arrays(windows, first, last), part, f"rows {first} to {last}")


def check_tiny_genome(tiny, requests, chunk):
    """One ingest, and everything the oracles say about it."""
    truth = tiny.truth()
    with temporary_folder() as folder:
        document = tiny.write(folder)
        read = genome_oracle.load_genome(document["fasta"], document.get("annotation"), tiny.min_intron)
        for name in ("contigs", "genes", "introns", "sites", "site_genes"):
            assert read[name] == truth[name], name
        genome = ingest_tiny(tiny, folder)
        check_tables(genome, tiny, truth)
        check_conservation(genome, tiny)
        for request in requests:
            windows = check_windows(genome, truth, request)
        check_lazy(windows, chunk)


REQUESTS = st.lists(window_requests(), min_size=4, max_size=4)


@settings(max_examples=12)
@given(tiny_genomes(), REQUESTS, st.integers(1, 40))
def test_a_tiny_genome_is_what_the_oracles_say(tiny, requests, chunk):
    check_tiny_genome(tiny, requests, chunk)


@pytest.mark.slow
@settings(max_examples=80)
@given(tiny_genomes(), REQUESTS, st.integers(1, 40))
def test_many_tiny_genomes_are_what_the_oracles_say(tiny, requests, chunk):
    check_tiny_genome(tiny, requests, chunk)


@settings(max_examples=3)
@given(tiny_genomes(min_genes=1), window_requests())
def test_a_store_in_memory_is_the_same(tiny, request):
    with temporary_folder() as folder:
        genome = ingest_tiny(tiny, folder, store=f"memory://{folder.name}")
        check_tables(genome, tiny, tiny.truth())
        check_windows(genome, tiny.truth(), request)


# -- spelling and order mean nothing ---------------------------------------------------------------------------------


@settings(max_examples=5)
@given(tiny_genomes(min_genes=1), spellings())
def test_spelling_changes_nothing(tiny, other):
    other = replace(other, gene_rows=tiny.spelling.gene_rows)
    if not other.gene_rows:
        other = replace(other, annotation="gtf")
    with temporary_folder() as folder:
        here = ingest_tiny(tiny, folder / "here")
        there = ingest_tiny(replace(tiny, spelling=other), folder / "there")
        assert gene_table(here) == gene_table(there)
        assert site_table(here) == site_table(there)
        assert here.attributes["site_digest"] == there.attributes["site_digest"]
        assert here.attributes["sequence_digest"] == there.attributes["sequence_digest"]


@settings(max_examples=3)
@given(tiny_genomes())
def test_running_again_changes_nothing(tiny):
    with temporary_folder() as folder:
        generation = ingest_tiny(tiny, folder).generation
        before = store_listing(folder / "store")
        assert ingest_tiny(tiny, folder).generation == generation
        assert store_listing(folder / "store") == before


@settings(max_examples=3)
@given(tiny_genomes())
def test_two_stores_of_the_same_input_hold_the_same_bytes(tiny):
    with temporary_folder() as folder:
        for name in ("one", "two"):
            ingest_tiny(tiny, folder / name)
        one, two = (store_listing(folder / name / "store" / "genomes") for name in ("one", "two"))
        manifests = {path for path in one if path.endswith("manifest.json")}
        assert one.keys() == two.keys()
        assert {p: b for p, b in one.items() if p not in manifests} == {
            p: b for p, b in two.items() if p not in manifests
        }


# -- strand symmetry -------------------------------------------------------------------------------------------------


@settings(max_examples=6)
@given(st.data(), st.sampled_from([5, 10, 15]), st.integers(0, 40), st.sampled_from(["gene", "genome"]))
def test_the_other_strand_is_the_same_world(data, window_size, context_size, region):
    tiny = data.draw(tiny_genomes(min_genes=1, multiple_of=window_size))
    with temporary_folder() as folder:
        here = ingest_tiny(tiny, folder / "here").windows(window_size, context_size, region=region)
        there = ingest_tiny(tiny.mirrored(), folder / "there").windows(window_size, context_size, region=region)
        length = {name: len(text) for name, text in tiny.contigs}
        mirrored = [
            (c, length[c] - start - window_size, -strand, genes) for c, start, strand, genes in window_list(here)
        ]
        rows = {window: row for row, window in enumerate(window_list(there))}
        assert rows.keys() == set(mirrored)
        order = np.array([rows[window] for window in mirrored], dtype=np.int64)
        theirs = {name: array[order] for name, array in stored_arrays(there).items()}
        assert_same_arrays(theirs, stored_arrays(here), "mirrored")


# -- what is not on the genome ---------------------------------------------------------------------------------------

AWAY = TinyGene("away", "chrUn", 1, 0, 30, (TinyTranscript("away.t0", ((0, 10), (20, 30))),))


def past_the_end(tiny):
    contig, text = tiny.contigs[0]
    n = len(text)
    chains = (((n - 20, n - 15), (n - 8, n - 2)), ((n - 20, n - 12), (n - 5, n + 1)))
    transcripts = tuple(TinyTranscript(f"past.t{i}", chain) for i, chain in enumerate(chains))
    return TinyGene("past", contig, -1, n - 20, n + 1, transcripts)


@settings(max_examples=5)
@given(tiny_genomes(), st.booleans(), window_requests())
def test_what_lies_off_the_genome_is_in_the_ledger(tiny, selects, request):
    tiny = replace(tiny, genes=(*tiny.genes, AWAY, past_the_end(tiny)))
    selected = tiny.contigs[:1] if selects else tiny.contigs
    config = {"missing_contigs": "drop"} | ({"chromosomes": ("chr1",)} if selects else {})
    with temporary_folder() as folder:
        genome = ingest_tiny(tiny, folder, **config)
        truth = replace(tiny, contigs=selected).truth()
        check_tables(genome, tiny, truth)
        check_conservation(genome, tiny)
        check_windows(genome, truth, request)
        ledger = genome.ledger.to_pandas()
        genes = ledger[(ledger["item"] == "gene") & ledger["reason"].isin(DROPS_A_GENE)]
        assert sorted(genes["identifier"]) == truth["dropped_genes"]
        reasons = dict(zip(genes["identifier"], genes["reason"], strict=True))
        assert reasons["away"] == "contig_not_in_fasta"
        assert reasons["past"] == "past_contig_end"


@pytest.mark.parametrize(("gene", "message"), [("away", "chrUn"), ("past", "end past their contig")])
def test_what_lies_off_the_genome_is_refused_by_default(gene, message, tmp_path):
    tiny = TinyGenome((("chr1", "ACGTN" * 10),), ())
    genes = {"away": AWAY, "past": past_the_end(tiny)}
    with pytest.raises(InputError, match=message):
        ingest_tiny(replace(tiny, genes=(genes[gene],)), tmp_path)


def test_gff3_transcripts_of_a_gene_without_a_row_are_one_gene(tmp_path):
    chains = (((0, 10), (20, 30)), ((0, 14), (20, 40)))
    transcripts = tuple(TinyTranscript(f"g.t{n}", chain) for n, chain in enumerate(chains))
    spelling = Spelling(annotation="gff3", gene_rows=False)
    tiny = TinyGenome((("chr1", "ACGTN" * 10),), (TinyGene("g", "chr1", 1, 0, 40, transcripts),), spelling)
    check_tables(ingest_tiny(tiny, tmp_path), tiny, tiny.truth())
