"""Named corners of windows, guard, gates, reports and extension."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from splicestore.errors import GateError, SplitError
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_TEST, SUBSET_TRAIN, SUBSET_VAL
from splicestore.split import leakage as leakage_module
from splicestore.split.extend import list_moves
from splicestore.split.leakage import count_leakage
from splicestore.split.make import make_split
from splicestore.split.report import make_report
from splicestore.split.values import (
    REASONS,
    GenomeLayout,
    SplitOptions,
    WindowTiles,
    split_arrays,
    split_attributes,
    table_from_arrays,
)
from splicestore.split.windows import assign_windows


class Rows:
    """Homology rows by names: groups of (genome, gene_id)."""

    def __init__(self, layouts, groups):
        index = {(x.genome_id, name): (g, i) for g, x in enumerate(layouts) for i, name in enumerate(x.gene_id)}
        rows = [(k, *index[gene]) for k, group in enumerate(groups) for gene in group]
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        self.group, self.genome, self.gene = table.T
        self.genome_ids = tuple(x.genome_id for x in layouts)


def layout(genome_id, contigs, genes):
    """contigs: {name: length}; genes: {gene_id: (contig, start, end)}, all on the + strand."""
    names, length = list(contigs), np.array(list(contigs.values()), dtype=np.int64)
    offset = np.cumsum(length) - length
    contig = np.array([names.index(c) for c, _, _ in genes.values()], dtype=np.int32)
    start = np.array([s for _, s, _ in genes.values()], dtype=np.int64) + offset[contig]
    end = np.array([e for _, _, e in genes.values()], dtype=np.int64) + offset[contig]
    strand = np.ones(len(genes), dtype=np.int8)
    return GenomeLayout(genome_id, "g1", tuple(names), length, offset, tuple(genes), contig, start, end, strand)


def plus_cells(x, size):
    """All cells of all contigs on the + strand, without links to genes."""
    contig = np.repeat(np.arange(len(x.contig_length), dtype=np.int32), -(-x.contig_length // size))
    start = np.concatenate([np.arange(o, o + n, size) for o, n in zip(x.contig_offset, x.contig_length, strict=True)])
    n = len(start)
    return WindowTiles(contig, start, np.ones(n, np.int8), np.zeros(n + 1, np.int64), np.zeros(0, np.int32))


def run(tasks):
    tiles = [plus_cells(task.layout, task.window_size) for task in tasks]
    return [(t, assign_windows(replace(task, tiles=t))) for t, task in zip(tiles, tasks, strict=True)]


def split(layouts, groups, options, old=None):
    return make_split(tuple(layouts), options, [Rows(layouts, groups)], run, old)


def report(result, options, **details):
    leakage = count_leakage(result.table, result.edges, result.inherited)
    named = {"name": "run1", "generation": "0" * 16, "vanished_windows": result.n_vanished, **details}
    return make_report(result.table, result.assigned, leakage, options, **named)


def subsets(result):
    return result.table.window_subset.tolist()


def reasons(result):
    return [REASONS[code] for code in result.table.window_reason]


CHROMOSOMES = SplitOptions(
    window_size=10, context_size=4, reference_genome="a", test_chromosomes=("1",), val_chromosomes=("2",)
)


# -- windows and guard -----------------------------------------------------------------------------------------


def two_genomes(test_gene=(20, 25)):
    """a: t on the test, v on the val, r on the train chromosome; b: one contig with homologs of t and v."""
    a = layout("a", {"1": 100, "2": 100, "3": 100}, {"t": ("1", 0, 50), "v": ("2", 0, 50), "r": ("3", 0, 50)})
    b = layout("b", {"x": 55, "y": 20}, {"bt": ("x", *test_gene), "bv": ("x", 45, 48)})
    return [a, b], [[("a", "t"), ("b", "bt")], [("a", "v"), ("b", "bv")]]


def test_neighbours_of_held_out_genes_are_excluded():
    result = split(*two_genomes(), CHROMOSOMES)
    rows = result.table.window_rows(1)
    train, val, test, out = SUBSET_TRAIN, SUBSET_VAL, SUBSET_TEST, SUBSET_EXCLUDED
    # x: cells 0-10 .. 50-55, then y: its first cell follows x without a gap and is no neighbour.
    assert subsets(result)[rows] == [train, out, test, out, val, out, train, train]
    assert reasons(result)[rows] == ["", "overlaps_test", "", "overlaps_test", "", "overlaps_val", "", ""]
    # Geneless windows of the reference follow their chromosome.
    assert subsets(result)[result.table.window_rows(0)] == [test] * 10 + [val] * 10 + [train] * 10


def test_test_wins_where_both_are_near():
    result = split(*two_genomes(test_gene=(20, 35)), CHROMOSOMES)
    table = split(*two_genomes(test_gene=(20, 35)), replace(CHROMOSOMES, context_size=11)).table
    rows = result.table.window_rows(1)
    # The val cell 40-50 is excluded itself, and still keeps the train cell behind it away.
    assert reasons(result)[rows][3:6] == ["", "overlaps_test", "overlaps_val"]
    assert [REASONS[c] for c in table.window_reason[rows]] == [
        "overlaps_test", "overlaps_test", "", "", "overlaps_test", "overlaps_test", "", "",
    ]  # fmt: skip


def test_guard_input_keeps_inputs_apart():
    far = replace(CHROMOSOMES, context_size=5)
    assert split(*two_genomes(), far).table.window_subset[30] == SUBSET_TRAIN
    assert split(*two_genomes(), replace(far, guard="input")).table.window_subset[30] == SUBSET_TRAIN
    wider = replace(far, context_size=6)
    assert split(*two_genomes(), wider).table.window_subset[30] == SUBSET_TRAIN
    found = split(*two_genomes(), replace(wider, guard="input"))
    assert found.table.window_subset[30] == SUBSET_EXCLUDED
    assert reasons(found)[30] == "overlaps_test"


def test_guard_none_leaves_overlaps_and_the_report_counts_them():
    options = replace(CHROMOSOMES, guard="none")
    result = split(*two_genomes(), options)
    assert SUBSET_EXCLUDED not in subsets(result)
    document = report(result, options).as_dict()["leakage"]
    assert document["train_input_in_test_centre_bases"] == {"a": 0, "b": 8}
    assert document["train_input_in_val_centre_bases"] == {"a": 0, "b": 8}
    assert document["input_in_centre_bases"]["b"]["test"]["test"] == 10


def test_excluded_gene_takes_a_train_window_but_no_test_window():
    a = layout("a", {"1": 30, "3": 30}, {"t": ("1", 0, 10), "s": ("3", 0, 10), "t2": ("1", 15, 18), "r": ("3", 5, 15)})
    groups = [[("a", "t"), ("a", "s")]]
    options = replace(CHROMOSOMES, val_chromosomes=(), conflict="drop", context_size=0)
    result = split([a], groups, options)
    assert reasons(result) == ["conflict", "", "", "conflict", "", ""]
    assert subsets(result) == [3, 2, 2, 3, 0, 0]
    both = replace(a, gene_start=a.gene_start - np.array([0, 0, 10, 0]))
    assert subsets(split([both], groups, options))[0] == SUBSET_TEST


def test_geneless_windows_are_drawn_by_megabase():
    """0x38e5f0.../2**64 = 0.2222 is the draw of yeast chrIV:1 under seed 0, as sha256sum says."""
    x = layout("yeast", {"first": 950_000, "chrIV": 2_000_000}, {})
    below = SplitOptions(window_size=100_000, context_size=0, test_fraction=0.2222, seed=0)
    above = replace(below, test_fraction=0.2223)
    second_megabase = slice(20, 30)
    assert set(split([x], [], below).table.window_subset[second_megabase]) == {SUBSET_TRAIN}
    assert set(split([x], [], above).table.window_subset[second_megabase]) == {SUBSET_TEST}


def test_unsorted_windows_are_refused():
    def backwards(tasks):
        tiles = plus_cells(tasks[0].layout, 10)
        tiles = replace(tiles, start=tiles.start[::-1], contig=tiles.contig[::-1])
        return [(tiles, assign_windows(replace(tasks[0], tiles=tiles)))]

    with pytest.raises(SplitError, match="windows of a must be sorted by contig, start and strand, each once; row 1"):
        make_split((two_genomes()[0][0],), CHROMOSOMES, [], backwards)


def test_windows_that_start_outside_their_contig_are_refused():
    def shifted(tasks):
        tiles = plus_cells(tasks[0].layout, 10)
        tiles = replace(tiles, start=tiles.start - 5)
        return [(tiles, assign_windows(replace(tasks[0], tiles=tiles)))]

    with pytest.raises(SplitError, match=r"window 0 of a starts at base -5, outside its contig 1 \(3 such windows\)"):
        make_split((two_genomes()[0][0],), CHROMOSOMES, [], shifted)


# -- gates and report ------------------------------------------------------------------------------------------


def crowded(n_genes):
    """One genome, a gene in every second cell, each a component: drawing genes one by one excludes neighbours."""
    genes = {f"g{i}": ("1", 20 * i, 20 * i + 5) for i in range(n_genes)}
    return layout("a", {"1": 20 * n_genes}, genes)


DRAWN = SplitOptions(window_size=10, context_size=2, test_fraction=0.3, val_fraction=0.2)


def test_excluded_share_above_a_tenth_is_refused_with_advice():
    with pytest.raises(
        GateError, match=r"a: \d\d\.\d% of 200 windows are excluded.*overlaps_test.*split by chromosomes"
    ):
        report(split([crowded(100)], [], DRAWN), DRAWN)


def test_overridden_gates_are_reported():
    options = replace(DRAWN, override_gates=True)
    found = report(split([crowded(100)], [], options), options)
    assert len(found.overridden) == 1
    assert "windows are excluded" in found.overridden[0]


def test_small_genomes_only_warn():
    found = report(split([crowded(99)], [], DRAWN), DRAWN)
    assert found.overridden == ()
    assert "of 198 windows are excluded" in found.warnings[0]


@pytest.mark.parametrize(("n_genes", "refused"), [(200, True), (199, False)])
def test_largest_component_gate(n_genes, refused):
    a = layout("a", {"1": 10 * n_genes, "2": 10, "3": 10}, {f"g{i}": ("1", 10 * i, 10 * i + 5) for i in range(n_genes)})
    options = replace(CHROMOSOMES, val_chromosomes=())
    result = split([a], [[("a", f"g{i}") for i in range(41)]], options)
    if refused:
        with pytest.raises(GateError, match=r"largest component holds 41 of 200 genes \(20.5%\).*raise the identity"):
            report(result, options)
    else:
        assert "largest component holds 41 of 199 genes" in report(result, options).warnings[0]


def test_a_fifth_in_one_component_passes():
    a = layout("a", {"1": 2_000, "2": 10, "3": 10}, {f"g{i}": ("1", 10 * i, 10 * i + 5) for i in range(200)})
    options = replace(CHROMOSOMES, val_chromosomes=())
    found = report(split([a], [[("a", f"g{i}") for i in range(40)]], options), options)
    assert (found.largest_component, found.warnings) == (40, ())


def test_dropping_on_request_is_no_gate():
    layouts = [two_genomes()[0][0], layout("b", {"x": 2_500}, {"g": ("x", 0, 2_000)})]
    options = replace(CHROMOSOMES, unassigned="drop")
    found = report(split(layouts, [], options), options)
    assert found.reasons == {"unassigned": 200}
    assert found.genomes["b"].excluded_share == 0.0


@pytest.mark.parametrize("genes", [{}, {"v": ("2", 0, 20)}])
def test_empty_subset_that_was_asked_for_is_refused(genes):
    a = layout("a", {"1": 0, "2": 20, "3": 20}, genes)
    with pytest.raises(SplitError, match="the subset test came out empty: of 4 windows 2 are train, 2 are val"):
        report(split([a], [], CHROMOSOMES), CHROMOSOMES)


def test_subset_that_was_not_asked_for_may_be_empty():
    options = SplitOptions(window_size=10, context_size=0, test_fraction=1.0)
    found = report(split([crowded(5)], [], options), options)
    assert found.windows == {"train": 0, "val": 0, "test": 10, "excluded": 0}


def test_report_is_the_contract_json():
    options = CHROMOSOMES
    found = report(split(*two_genomes(), options), options, homology={"exact": 4, "unmatched": 0})
    document = json.loads(json.dumps(found.as_dict()))
    assert document["name"] == "run1"
    assert document["generation"] == "0" * 16
    assert document["windows"] == {"train": 13, "val": 11, "test": 11, "excluded": 3}
    assert document["genes"] == {"train": 1, "val": 2, "test": 2, "excluded": 0}
    assert document["reasons"] == {"overlaps_test": 2, "overlaps_val": 1}
    assert (document["n_components"], document["largest_component_fraction"]) == (3, 0.4)
    assert document["leakage"]["groups_crossing"] == document["leakage"]["windows_shared"] == 0
    assert document["leakage"]["train_input_in_test_centre_bases"] == {"a": 0, "b": 0}
    assert document["genomes"]["b"]["excluded_share"] == pytest.approx(3 / 8)
    assert document["homology"] == {"exact": 4, "unmatched": 0}
    assert "moves" not in document


def test_recount_finds_what_a_wrong_table_leaks():
    result = split(*two_genomes(), CHROMOSOMES)
    subset = result.table.window_subset.copy()
    subset[31] = SUBSET_TRAIN
    gene_subset = result.table.gene_subset.copy()
    gene_subset[3] = SUBSET_TRAIN
    wrong = replace(result, table=replace(result.table, window_subset=subset, gene_subset=gene_subset))
    found = count_leakage(wrong.table, wrong.edges)
    assert found.groups_crossing == 1
    assert found.as_dict()["train_input_in_test_centre_bases"] == {"a": 0, "b": 4}
    with pytest.raises(GateError, match="1 homology groups have genes on two sides; 4 held-out bases"):
        report(wrong, CHROMOSOMES)


def test_recount_in_pieces_equals_the_whole(monkeypatch):
    result = split(*two_genomes(), replace(CHROMOSOMES, guard="none"))
    whole = count_leakage(result.table, result.edges).as_dict()
    monkeypatch.setattr(leakage_module, "SWEEP_WINDOWS", 1)
    assert count_leakage(result.table, result.edges).as_dict() == whole


# -- extension -------------------------------------------------------------------------------------------------


def test_bridging_gene_is_excluded_and_listed():
    layouts, groups = two_genomes()
    old = split(layouts, groups, CHROMOSOMES)
    c = layout("c", {"x": 100}, {"bridge": ("x", 0, 10), "free": ("x", 50, 60)})
    more = [[("a", "t"), ("c", "bridge")], [("c", "bridge"), ("a", "r")]]
    new = split([*layouts, c], [*groups, *more], CHROMOSOMES, old.table)
    assert new.assigned.bridges == (("c", "bridge", "train and test"),)
    rows = new.table.window_rows(2)
    assert reasons(new)[rows] == ["bridges_subsets"] + [""] * 9
    document = report(new, CHROMOSOMES).as_dict()
    assert document["bridges"] == [{"genome": "c", "gene_id": "bridge", "subsets": "train and test"}]
    assert document["gene_reasons"] == {"bridges_subsets": 1}


def test_old_genes_that_new_rows_join_stay_and_are_warned_about():
    layouts, groups = two_genomes()
    old = split(layouts, groups, CHROMOSOMES)
    new = split(layouts, [*groups, [("a", "t"), ("a", "r")]], CHROMOSOMES, old.table)
    assert new.table.content_digest() != old.table.content_digest()
    assert new.table.window_subset.tolist() == old.table.window_subset.tolist()
    found = report(new, CHROMOSOMES)
    assert (found.leakage.groups_crossing, found.leakage.groups_crossing_inherited) == (0, 1)
    assert "1 homology groups join genes that the extended split had placed on different sides" in found.warnings[-1]


def test_new_test_gene_beside_old_train_windows_gives_way():
    layouts, groups = two_genomes()
    old = split(layouts, groups, CHROMOSOMES)
    # b is annotated anew: another homolog of t, in the train cell 0-10 and on to the old test cell.
    b = layout("b", {"x": 55, "y": 20}, {"bt": ("x", 20, 25), "bv": ("x", 45, 48), "new": ("x", 2, 8)})
    minus = replace(b, gene_strand=np.array([1, 1, -1], dtype=np.int8))

    def both_strands(tasks):
        done = []
        for task in tasks:
            tiles = plus_cells(task.layout, 10)
            if task.layout.genome_id == "b":
                n = len(tiles) + 1
                tiles = WindowTiles(
                    np.insert(tiles.contig, 0, 0), np.insert(tiles.start, 0, 0), np.insert(tiles.strand, 0, -1),
                    np.zeros(n + 1, np.int64), np.zeros(0, np.int32),
                )  # fmt: skip
            done.append((tiles, assign_windows(replace(task, tiles=tiles))))
        return done

    rows = Rows([layouts[0], minus], [*groups, [("a", "t"), ("b", "new")]])
    new = make_split((layouts[0], minus), CHROMOSOMES, [rows], both_strands, old.table)
    assert new.table.gene_subset[5] == SUBSET_TEST
    assert reasons(new)[30:33] == ["overlaps_train", "", "overlaps_test"]
    assert new.table.window_subset[31:].tolist() == old.table.window_subset[30:].tolist()
    assert report(new, CHROMOSOMES).leakage.held_out_bases() == 0


def test_contigs_are_followed_by_name_and_lost_windows_are_counted():
    layouts, groups = two_genomes()
    old = split(layouts, groups, CHROMOSOMES)
    # y first and longer, x shorter by a cell.
    b = layout("b", {"y": 30, "x": 45}, {"bt": ("x", 20, 25), "bv": ("x", 41, 44)})
    new = split([layouts[0], b], groups, CHROMOSOMES, old.table)
    assert new.n_vanished == 1
    rows = new.table.window_rows(1)
    train, val, test, out = SUBSET_TRAIN, SUBSET_VAL, SUBSET_TEST, SUBSET_EXCLUDED
    assert subsets(new)[rows] == [train, train, train, train, out, test, out, val]
    moves = list_moves(old.table, new.table, new.genes, (layouts[0], b))
    assert (moves.genes, len(moves.window_row), moves.n_vanished) == ((), 0, 1)


def test_windows_past_the_new_end_of_a_contig_are_lost():
    layouts, groups = two_genomes()
    old = split(layouts, groups, CHROMOSOMES)
    # The old cell x:50 would fall on y:0, which now starts there.
    b = layout("b", {"x": 50, "y": 20}, {"bt": ("x", 20, 25), "bv": ("x", 45, 48)})
    new = split([layouts[0], b], groups, CHROMOSOMES, old.table)
    assert new.n_vanished == 1
    assert reasons(new)[new.table.window_rows(1)][-2:] == ["", ""]


def test_homologs_of_dropped_genes_are_dropped():
    a, b = layout("a", {"1": 20, "3": 20}, {"t": ("1", 0, 5)}), layout("b", {"x": 20}, {"h": ("x", 0, 5)})
    options = replace(CHROMOSOMES, val_chromosomes=(), unassigned="drop")
    old = split([a, b], [], options)
    c = layout("c", {"x": 20}, {"k": ("x", 0, 5)})
    new = split([a, b, c], [[("b", "h"), ("c", "k")]], replace(options, unassigned="train"), old.table)
    assert [REASONS[code] for code in new.table.gene_reason] == ["", "unassigned", "unassigned"]
    assert new.table.gene_subset.tolist() == [SUBSET_TEST, SUBSET_EXCLUDED, SUBSET_EXCLUDED]


def test_moves_of_a_rebuild_are_spelled_out():
    layouts, groups = two_genomes()
    old = split(layouts, groups, CHROMOSOMES)
    new = split(layouts, [], CHROMOSOMES)
    summary = list_moves(old.table, new.table, new.genes, tuple(layouts)).summary()
    assert summary["genes"] == [
        {"genome": "b", "gene_id": "bt", "old": "test", "new": "train"},
        {"genome": "b", "gene_id": "bv", "old": "val", "new": "train"},
    ]
    assert summary["windows"] == {"excluded->train": 3, "test->train": 1, "val->train": 1}


def test_other_rules_are_refused_side_by_side():
    layouts, groups = two_genomes()
    old = split(layouts, groups, CHROMOSOMES)
    with pytest.raises(
        SplitError, match=r"these differ:\n  context_size: old 4, now 5\n  guard: old centre, now input"
    ):
        split(layouts, groups, replace(CHROMOSOMES, context_size=5, guard="input"), old.table)


def test_extending_without_an_old_genome_is_refused():
    layouts, groups = two_genomes()
    old = split(layouts, groups, CHROMOSOMES)
    with pytest.raises(SplitError, match=r"1 genomes that are not part of the new one \(first: b\)"):
        split(layouts[:1], [], CHROMOSOMES, old.table)


def test_unknown_reason_in_a_stored_table_is_refused():
    table = split(*two_genomes(), CHROMOSOMES).table
    arrays = {name: values for name, (values, _) in split_arrays(table).items()}
    attributes = {**split_attributes(table), "reasons": [*REASONS, "moonlight"]}
    with pytest.raises(SplitError, match="holds the reason 'moonlight'"):
        table_from_arrays(arrays, attributes)


def test_stored_reasons_are_read_by_name():
    table = split(*two_genomes(), CHROMOSOMES).table
    arrays = {name: values for name, (values, _) in split_arrays(table).items()}
    arrays["window_reason"] = (len(REASONS) - 1 - table.window_reason).astype(np.uint8)
    arrays["gene_reason"] = (len(REASONS) - 1 - table.gene_reason).astype(np.uint8)
    attributes = {**split_attributes(table), "reasons": list(REASONS[::-1])}
    assert table_from_arrays(arrays, attributes).window_reason.tolist() == table.window_reason.tolist()
