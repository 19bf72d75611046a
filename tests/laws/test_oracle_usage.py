"""Usage of tiny genomes from SpliSER-like tables and from junctions, held against the oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import usage_oracle
from tests.oracles.comparison import (
    assert_same_arrays,
    check_windows,
    ingest_tiny,
    site_table,
    stored_arrays,
    temporary_folder,
    window_list,
)
from tests.strategies import (
    TinyGene,
    TinyGenome,
    TinyTranscript,
    boundary_rows,
    junctions,
    tiny_genomes,
    window_requests,
    write_junctions,
    write_spliser,
)

JUNCTION_FORMATS = ("junctions", "star", "regtools", "hints")


def check_usage(genome, truth, expected, conditions, request):
    """The stored counts of every site, and the windows that show them."""
    assert genome.condition_names == conditions
    alpha, beta = genome.read_usage(0, len(genome.site_position))
    for row, site in enumerate(site_table(genome)):
        for column, condition in enumerate(conditions):
            measured = expected[site][condition]
            found = (float(alpha[row, column]), float(beta[row, column]))
            if measured == (None, None):
                assert np.isnan(found).all(), (site, condition, found)
            else:
                assert found == measured, (site, condition)
    check_windows(genome, truth, request, expected, conditions)
    check_usage_table(genome, expected)


def check_usage_table(genome, expected):
    """`usage.to_pandas()` lists measured rows only, with sse from one read on."""
    found = {
        (row.contig, row.position, {"+": 1, "-": -1}[row.strand], row.condition): (row.alpha, row.beta, row.sse)
        for row in genome.usage.to_pandas().itertuples()
    }
    measured = {
        (*site, condition): counts
        for site, by_condition in expected.items()
        for condition, counts in by_condition.items()
        if counts != (None, None)
    }
    assert found.keys() == measured.keys()
    for key, (alpha, beta) in measured.items():
        ratio = usage_oracle.sse(alpha, beta, 1)
        assert found[key][:2] == (alpha, beta)
        assert found[key][2] != found[key][2] if ratio is None else abs(found[key][2] - ratio) < 1e-6


# -- SpliSER-like tables -----------------------------------------------------------------------------------------------


def check_site_tables(data, tiny, request):
    truth = tiny.truth()
    conventions = {name: data.draw(st.sampled_from(["spliser", "splicevo"])) for name in ("heart_10", "heart_9")}
    expected = {site: {} for site in truth["sites"]}
    with temporary_folder() as folder:
        files = []
        for condition, convention in conventions.items():
            samples = []
            for number in range(data.draw(st.integers(1, 2))):
                tables = [data.draw(boundary_rows(truth, convention)) for _ in range(data.draw(st.integers(1, 2)))]
                samples += tables
                path = write_spliser(folder / f"{condition}.{number}.tsv", tables)
                files.append({"file": str(path), "condition": condition, "convention": convention})
            counts = [join_any(rows, truth["sites"], convention) for rows in samples]
            for site, total in usage_oracle.sum_samples(counts, truth["sites"]).items():
                expected[site][condition] = total
        genome = ingest_tiny(tiny, folder, usage=files)
        check_usage(genome, truth, expected, ["heart_9", "heart_10"], request)


def join_any(rows, sites, convention):
    """Counts of one sample; rows that fall on a site by chance are added to it."""
    total = {}
    for row in rows:
        for site, (alpha, beta) in usage_oracle.join_spliser([row], sites, convention)[0].items():
            before = total.get(site, (0.0, 0.0))
            total[site] = (before[0] + alpha, before[1] + beta)
    return total


@settings(max_examples=8)
@given(st.data(), tiny_genomes(min_genes=1), window_requests())
def test_site_tables_of_both_conventions(data, tiny, request):
    check_site_tables(data, tiny, request)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data(), tiny_genomes(min_genes=1), window_requests())
def test_many_site_tables_of_both_conventions(data, tiny, request):
    check_site_tables(data, tiny, request)


# -- junctions ---------------------------------------------------------------------------------------------------------


def check_junction_files(data, tiny, request):
    truth = tiny.truth()
    expected = {site: {} for site in truth["sites"]}
    with temporary_folder() as folder:
        files = []
        for condition in ("brain", "liver"):
            pooled = []
            for number in range(data.draw(st.integers(1, 2))):
                rows = data.draw(junctions(truth))
                pooled += rows
                format = data.draw(st.sampled_from(JUNCTION_FORMATS))
                path = write_junctions(folder / f"{condition}.{number}", rows, format)
                files.append({"file": str(path), "condition": condition, "format": format})
            for site, counts in usage_oracle.junction_counts(pooled, truth["sites"]).items():
                expected[site][condition] = counts
        genome = ingest_tiny(tiny, folder, usage=files)
        check_usage(genome, truth, expected, ["brain", "liver"], request)


@settings(max_examples=10)
@given(st.data(), tiny_genomes(min_genes=1), window_requests())
def test_junction_files_of_every_format(data, tiny, request):
    check_junction_files(data, tiny, request)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data(), tiny_genomes(min_genes=1), window_requests())
def test_many_junction_files_of_every_format(data, tiny, request):
    check_junction_files(data, tiny, request)


@settings(max_examples=4)
@given(st.data(), st.sampled_from([5, 10, 15]))
def test_usage_of_the_other_strand_is_the_same(data, window_size):
    tiny = data.draw(tiny_genomes(min_genes=2, multiple_of=window_size))
    rows = data.draw(junctions(tiny.truth()))
    length = {name: len(text) for name, text in tiny.contigs}
    turned = [(c, length[c] - end, length[c] - start, -strand, reads) for c, start, end, strand, reads in rows]
    with temporary_folder() as folder:
        windows = []
        for name, world, table in (("here", tiny, rows), ("there", tiny.mirrored(), turned)):
            path = write_junctions(folder / f"{name}.tsv", table, "junctions")
            usage = [{"file": str(path), "condition": "x", "format": "junctions"}]
            windows.append(ingest_tiny(world, folder / name, usage=usage).windows(window_size, 3, min_reads=1))
        here, there = windows
        rows_there = {window: row for row, window in enumerate(window_list(there))}
        order = [
            rows_there[c, length[c] - start - window_size, -strand, genes]
            for c, start, strand, genes in window_list(here)
        ]
        theirs = {name: array[order] for name, array in stored_arrays(there).items()} if order else stored_arrays(there)
        assert_same_arrays(theirs, stored_arrays(here), "mirrored")
        assert len(here) == len(there)


# -- corners -----------------------------------------------------------------------------------------------------------


def gene(gene_id, contig, *chains):
    transcripts = tuple(TinyTranscript(f"{gene_id}.t{n}", chain) for n, chain in enumerate(chains))
    return TinyGene(gene_id, contig, 1, min(c[0][0] for c in chains), max(c[-1][1] for c in chains), transcripts)


@pytest.mark.parametrize("format", JUNCTION_FORMATS)
@pytest.mark.parametrize(
    ("rows", "genes"),
    [
        # Beyond chr1 (50 bp), and in the coordinates of the genome on the acceptor of chr2.
        ([("chr1", 5, 70, 1, 40.0), ("chr1", 10, 20, 1, 50.0)], [gene("a", "chr1", ((0, 10), (20, 30)))]),
        # A row without a read is no junction: the donor at 13 has no partner, and is not measured.
        ([("chr1", 14, 20, 1, 0.0), ("chr1", 10, 20, 1, 50.0)], [gene("a", "chr1", ((0, 10), (20, 30)), ((0, 14), (20, 30)))]),
    ],
    ids=["past the end of the contig", "no read"],
)  # fmt: skip
def test_junctions_that_say_nothing(rows, genes, format, tmp_path):
    tiny = TinyGenome((("chr1", "A" * 50), ("chr2", "C" * 60)), (*genes, gene("b", "chr2", ((0, 10), (20, 30)))))
    path = write_junctions(tmp_path / "junctions", rows, format)
    genome = ingest_tiny(tiny, tmp_path, usage=[{"file": str(path), "condition": "x", "format": format}])
    counts = usage_oracle.junction_counts(rows, tiny.truth()["sites"])
    check_usage_table(genome, {site: {"x": pair} for site, pair in counts.items()})


@pytest.mark.parametrize("format", JUNCTION_FORMATS)
def test_a_file_without_a_junction_measures_nothing(format, tmp_path):
    tiny = TinyGenome((("chr1", "A" * 50),), (gene("a", "chr1", ((0, 10), (20, 30))),))
    path = write_junctions(tmp_path / "junctions", [], format)
    genome = ingest_tiny(tiny, tmp_path, usage=[{"file": str(path), "condition": "x", "format": format}])
    assert genome.condition_names == ["x"]
    check_usage_table(genome, {site: {"x": (None, None)} for site in tiny.truth()["sites"]})
