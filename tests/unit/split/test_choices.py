"""Named corners of options, chromosome names, policies and hashes."""

from __future__ import annotations

import numpy as np
import pytest

from splicestore.errors import SplitError
from splicestore.kernels.components import number_by_first
from splicestore.kernels.seeded_hash import as_fraction, seeded_hash
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_TEST, SUBSET_TRAIN, SUBSET_VAL
from splicestore.split.assign import assign_genes
from splicestore.split.chromosomes import chromosome_subsets, resolve_chromosomes
from splicestore.split.homology import gene_components, homology_edges
from splicestore.split.values import (
    REASON_CONFLICT,
    REASON_UNASSIGNED,
    GenomeLayout,
    SplitOptions,
    gene_table,
    subset_of_draw,
)


class Rows:
    """Homology rows by names: groups of (genome, gene_id)."""

    def __init__(self, layouts, groups):
        index = {(x.genome_id, name): (g, i) for g, x in enumerate(layouts) for i, name in enumerate(x.gene_id)}
        rows = [(k, *index[gene]) for k, group in enumerate(groups) for gene in group]
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        self.group, self.genome, self.gene = table.T
        self.genome_ids = tuple(x.genome_id for x in layouts)


def layout(genome_id, genes, contigs=("1", "2", "3"), aliases=None):
    """genes: {gene_id: contig name}; every contig has 1,000 bases, gene i lies at 10 * i."""
    n = len(genes)
    contig = np.array([contigs.index(name) for name in genes.values()], dtype=np.int32)
    start = contig * 1_000 + 10 * np.arange(n, dtype=np.int64)
    return GenomeLayout(
        genome_id, "g1", tuple(contigs), np.full(len(contigs), 1_000), np.arange(len(contigs)) * 1_000,
        tuple(genes), contig, start, start + 10, np.ones(n, dtype=np.int8), aliases or {},
    )  # fmt: skip


def chromosomes(**changes):
    return SplitOptions(**{"reference_genome": "a", "test_chromosomes": ("1",), "val_chromosomes": ("2",), **changes})


def assign(layouts, groups, options):
    genes = gene_table(layouts)
    contig_subset = chromosome_subsets(options, layouts[0]) if options.mode == "chromosomes" else None
    component = gene_components(genes, homology_edges(genes, [Rows(layouts, groups)]))
    return genes, assign_genes(genes, component, options, contig_subset)


# Each literal is `printf 'splicestore-split-1\t<salt>\t<seed>\t<genome>\t<name>' | sha256sum | cut -c1-16`.
@pytest.mark.parametrize(
    ("salt", "seed", "genome", "name", "expected"),
    [
        ("anchor", 7, "human_GRCh37", "BRCA1", 0xDEC684F976AFBBC6),
        ("anchor", 7, "human_GRCh37", "HBA1", 0xC2B4DC3F439F2881),
        ("subset", 7, "human_GRCh37", "BRCA1", 0x7D7BAD1C70899B45),
        ("subset", 7, "human_GRCh37", "HBA1", 0x3389C9E273B4589A),
        ("geneless", 0, "yeast", "chrIV:1", 0x38E5F03964650038),
    ],
)
def test_hash_is_the_head_of_sha256sum(salt, seed, genome, name, expected):
    h = seeded_hash(salt, seed, genome, [name])
    assert h.tolist() == [expected]
    assert as_fraction(h)[0] == pytest.approx(expected / 2**64, abs=1e-15)


def test_no_names_have_no_hashes():
    assert seeded_hash("anchor", 0, "a", []).shape == (0,)


def test_draws_fall_into_test_then_val_then_train():
    draw = np.array([0.0, 0.1249, 0.125, 0.3749, 0.375, 1.0])
    assert subset_of_draw(draw, 0.125, 0.25).tolist() == [2, 2, 1, 1, 0, 0]


def test_fractions_are_met_by_many_genes_and_by_families():
    """Families of eight would land in a tenth's share far too often if the smallest hash itself decided."""
    n = 4_000
    families = layout("a", {f"g{i}": "1" for i in range(8 * n)})
    groups = [[("a", f"g{8 * k + i}") for i in range(8)] for k in range(n)]
    _, assigned = assign((families,), groups, SplitOptions(test_fraction=0.1, val_fraction=0.2))
    share = np.bincount(assigned.subset, minlength=3) / (8 * n)
    assert share == pytest.approx([0.7, 0.2, 0.1], abs=0.025)


def test_numbers_follow_first_appearance():
    assert number_by_first(np.zeros(0, dtype=np.int64)).tolist() == []
    assert number_by_first(np.array([5, 5, 1, 7, 1])).tolist() == [0, 0, 1, 2, 1]


# -- chromosomes -----------------------------------------------------------------------------------------------


def test_chromosomes_are_found_by_name_prefix_and_alias():
    names = ["chr1", "chr2", "MT", "NC_9.1"]
    found = resolve_chromosomes(["1", "chr2", "chrMT", "chr9"], names, "a", {"chr9": "NC_9.1"})
    assert found.tolist() == [0, 1, 2, 3]


def test_exact_names_win_over_prefixes():
    assert resolve_chromosomes(["1", "chr1"], ["1", "chr1"], "a").tolist() == [0, 1]


def test_ambiguous_prefix_is_refused():
    with pytest.raises(SplitError, match=r"'CHR1' of a could be any of 1, chr1; write the name"):
        resolve_chromosomes(["CHR1"], ["1", "chr1"], "a")


def test_unknown_chromosome_lists_close_names():
    with pytest.raises(SplitError, match=r"'chr31' is no contig of human; did you mean chr3, chr1, chr21\?"):
        resolve_chromosomes(["chr31"], ["chr1", "chr21", "chr3"], "human")


def test_missing_comma_is_an_unknown_chromosome():
    with pytest.raises(SplitError, match=r"'1 3' is no contig of a; known: 1, 2, 3"):
        chromosome_subsets(chromosomes(test_chromosomes=("1 3",)), layout("a", {"g": "1"}))


def test_chromosome_named_twice_is_refused():
    with pytest.raises(SplitError, match="chromosome '2' of a is named twice"):
        chromosome_subsets(chromosomes(test_chromosomes=("chr2",)), layout("a", {"g": "1"}))


# -- policies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conflict", "subset"),
    [("test", SUBSET_TEST), ("train", SUBSET_TRAIN), ("majority", SUBSET_VAL), ("drop", SUBSET_EXCLUDED)],
)
def test_conflict_policies(conflict, subset):
    reference = layout("a", {"t": "1", "v1": "2", "v2": "2", "r": "3", "alone": "1"})
    group = [("a", name) for name in ("t", "v1", "v2", "r")]
    _, assigned = assign((reference,), [group], chromosomes(conflict=conflict))
    assert assigned.subset.tolist() == [subset] * 4 + [SUBSET_TEST]
    assert assigned.reason.tolist() == [REASON_CONFLICT if conflict == "drop" else 0] * 4 + [0]
    assert assigned.n_conflicts == 1


def test_majority_tie_goes_to_the_strongest():
    reference = layout("a", {"t": "1", "v": "2", "r": "3"})
    _, assigned = assign((reference,), [[("a", "v"), ("a", "r")]], chromosomes(conflict="majority"))
    assert assigned.subset.tolist() == [SUBSET_TEST, SUBSET_VAL, SUBSET_VAL]


def test_unassigned_policies():
    layouts = (layout("a", {"t": "1"}), layout("b", {"x": "1", "y": "2"}))
    groups = [[("a", "t"), ("b", "y")]]
    _, train = assign(layouts, groups, chromosomes())
    assert train.subset.tolist() == [SUBSET_TEST, SUBSET_TRAIN, SUBSET_TEST]
    assert train.n_unassigned == 1
    _, dropped = assign(layouts, groups, chromosomes(unassigned="drop"))
    assert dropped.subset.tolist() == [SUBSET_TEST, SUBSET_EXCLUDED, SUBSET_TEST]
    assert dropped.reason.tolist() == [0, REASON_UNASSIGNED, 0]
    _, hashed = assign(layouts, groups, chromosomes(unassigned="hash", test_fraction=0.0, val_fraction=1.0))
    assert hashed.subset.tolist() == [SUBSET_TEST, SUBSET_VAL, SUBSET_TEST]


def test_hash_without_fractions_follows_the_reference_shares():
    reference = layout("a", {**{f"t{i}": "1" for i in range(2)}, "v": "2", "r": "3"})
    other = layout("b", {f"g{i}": "1" for i in range(4_000)})
    _, assigned = assign((reference, other), [], chromosomes(unassigned="hash"))
    share = np.bincount(assigned.subset[4:], minlength=3) / 4_000
    assert share == pytest.approx([0.25, 0.25, 0.5], abs=0.03)


def test_the_reference_anchors_fractions():
    """b's gene alone would be val; joined to a's, which is test, it follows a if a is the reference."""
    layouts = (layout("a", {"g0": "1"}), layout("b", {"g0": "1"}))
    group = [[("a", "g0"), ("b", "g0")]]
    alone = [assign(layouts, [], SplitOptions(test_fraction=0.5, seed=seed))[1].subset.tolist() for seed in range(40)]
    for genome, name in enumerate("ab"):
        joined = [
            assign(layouts, group, SplitOptions(test_fraction=0.5, seed=seed, reference_genome=name))[1].subset.tolist()
            for seed in range(40)
        ]
        assert joined == [[one[genome]] * 2 for one in alone]
    assert len({tuple(one) for one in alone}) == 4


# -- homology --------------------------------------------------------------------------------------------------


def test_rows_with_one_gene_id_are_one_gene():
    # Both copies of a pseudoautosomal gene can carry the same id.
    names = ["PAR", "other", "PAR"]
    base = layout("a", {str(i): ("1", "3", "3")[i] for i in range(3)})
    stranger = layout("b", {"h": "1"})
    twice = GenomeLayout(**{**{f: getattr(base, f) for f in base.__slots__}, "gene_id": tuple(names)})
    genes, assigned = assign((twice, stranger), [[("a", "other"), ("b", "h")]], chromosomes())
    assert assigned.component.tolist() == [0, 1, 0, 1]
    assert assigned.subset.tolist() == [SUBSET_TEST, SUBSET_TRAIN, SUBSET_TEST, SUBSET_TRAIN]
    assert len(genes) == 4


def test_equal_labels_of_two_tables_are_two_groups():
    layouts = (layout("a", {"g0": "1", "g1": "1"}), layout("b", {"g0": "1", "g1": "1"}))
    genes = gene_table(layouts)
    sources = [Rows(layouts, [[("a", "g0"), ("b", "g0")]]), Rows(layouts, [[("a", "g1"), ("b", "g1")]])]
    assert gene_components(genes, homology_edges(genes, sources)).tolist() == [0, 1, 0, 1]


def test_genomes_of_a_table_may_come_in_any_order():
    layouts = (layout("a", {"g0": "1"}), layout("b", {"h0": "1", "h1": "1"}))
    genes = gene_table(layouts)
    rows = Rows(layouts[::-1], [[("a", "g0"), ("b", "h1")]])
    assert gene_components(genes, homology_edges(genes, [rows])).tolist() == [0, 1, 0]


def test_homology_of_a_stranger_is_refused():
    layouts = (layout("human", {"g": "1"}),)
    rows = Rows(layouts, [[("human", "g")]])
    rows.genome_ids = ("humans",)
    with pytest.raises(SplitError, match=r"genome 'humans', which is not part of the split; did you mean human\?"):
        homology_edges(gene_table(layouts), [rows])


def test_homology_past_the_last_gene_is_refused():
    layouts = (layout("a", {"g": "1"}), layout("b", {"h": "1"}))
    rows = Rows(layouts, [[("a", "g"), ("b", "h")]])
    rows.gene = np.array([1, 0])
    with pytest.raises(SplitError, match=r"homology row 0 points at gene 1 of a, which has 1 genes \(1 such rows\)"):
        homology_edges(gene_table(layouts), [rows])


def test_genomes_must_be_sorted():
    with pytest.raises(SplitError, match="genomes must be sorted by id, each once, got b, a"):
        gene_table((layout("b", {"g": "1"}), layout("a", {"g": "1"})))


# -- options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({}, "nothing to hold out"),
        ({"test_fraction": 0.0}, "nothing to hold out"),
        ({"test_fraction": 1.5}, r"test_fraction must lie in \[0, 1\], got 1.5"),
        ({"test_fraction": float("nan")}, r"test_fraction must lie in \[0, 1\], got nan"),
        ({"test_fraction": 0.6, "val_fraction": 0.5}, "must not exceed 1, got 0.6 . 0.5"),
        ({"test_fraction": 0.1, "guard": "center"}, "guard must be one of centre, input, none, got 'center'"),
        ({"test_fraction": 0.1, "conflict": "val"}, "conflict must be one of test, train, majority, drop"),
        ({"test_fraction": 0.1, "unassigned": "val"}, "unassigned must be one of train, drop, hash"),
        ({"test_fraction": 0.1, "window_size": 0}, "window_size must be at least 1"),
        ({"test_fraction": 0.1, "context_size": -1}, "context_size at least 0"),
        ({"test_chromosomes": ("1",)}, "need a reference genome"),
        ({"test_chromosomes": ("1",), "reference_genome": "a", "test_fraction": 0.1}, "chromosomes and fractions"),
    ],
)
def test_contradicting_options_are_refused(changes, match):
    with pytest.raises(SplitError, match=match):
        SplitOptions(**changes)


def test_unknown_reference_lists_close_names():
    options = SplitOptions(test_fraction=0.5, reference_genome="humn")
    with pytest.raises(SplitError, match=r"reference genome 'humn' is not part of the split; did you mean human\?"):
        assign((layout("human", {"g": "1"}),), [], options)
