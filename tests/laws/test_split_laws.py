"""Laws of splits on small random worlds, judged by sets of bases, loops over pairs and an oracle written apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.kernels.components import group_components
from splicestore.kernels.guard import meets_any
from splicestore.schema import SUBSET_EXCLUDED, SUBSET_NAMES, SUBSET_TEST, SUBSET_TRAIN, SUBSET_VAL
from splicestore.split.extend import list_moves
from splicestore.split.leakage import count_leakage
from splicestore.split.make import make_split
from splicestore.split.report import count_reasons, count_subsets
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
from tests.oracles import split_oracle

ORACLE_REASONS = {"": "", "conflict": "conflict", "unassigned": "unassigned", "bridge": "bridges_subsets"}


@dataclass(frozen=True)
class Homology:
    group: np.ndarray
    genome: np.ndarray
    gene: np.ndarray
    genome_ids: tuple[str, ...]


@dataclass(frozen=True)
class World:
    layouts: tuple[GenomeLayout, ...]
    groups: tuple[tuple[tuple[str, str], ...], ...]

    def homology(self) -> Homology:
        rows = {
            (layout.genome_id, gene_id): (g, row)
            for g, layout in enumerate(self.layouts)
            for row, gene_id in enumerate(layout.gene_id)
        }
        members = [(group, *rows[gene]) for group, genes in enumerate(self.groups) for gene in genes if gene in rows]
        table = np.array(members, dtype=np.int64).reshape(-1, 3)
        ids = tuple(layout.genome_id for layout in self.layouts)
        return Homology(table[:, 0], table[:, 1].astype(np.int32), table[:, 2].astype(np.int32), ids)


def make_layout(genome_id, contigs, genes, generation="g1"):
    """contigs: [(name, length)]; genes: [(gene_id, contig index, start, end, strand)] within their contig."""
    length = np.array([n for _, n in contigs], dtype=np.int64)
    offset = np.cumsum(length) - length
    contig = np.array([g[1] for g in genes], dtype=np.int32)
    return GenomeLayout(
        genome_id=genome_id,
        generation=generation,
        contig_name=tuple(name for name, _ in contigs),
        contig_length=length,
        contig_offset=offset,
        gene_id=tuple(g[0] for g in genes),
        gene_contig=contig,
        gene_start=np.array([g[2] for g in genes], dtype=np.int64) + offset[contig],
        gene_end=np.array([g[3] for g in genes], dtype=np.int64) + offset[contig],
        gene_strand=np.array([g[4] for g in genes], dtype=np.int8),
    )


def slow_tiles(layout, window_size):
    """Every cell of every contig: a window per strand with a gene, and + where there is none at all."""
    rows = []
    for contig, (length, offset) in enumerate(zip(layout.contig_length, layout.contig_offset, strict=True)):
        for start in range(int(offset), int(offset + length), window_size):
            end = min(start + window_size, int(offset + length))
            met = [g for g in range(len(layout.gene_id)) if layout.gene_start[g] < end and start < layout.gene_end[g]]
            for strand in (-1, 1):
                own = [g for g in met if layout.gene_strand[g] == strand]
                if own or (strand == 1 and not met):
                    rows.append((contig, start, strand, own))
    counts = [len(own) for *_, own in rows]
    return WindowTiles(
        contig=np.array([r[0] for r in rows], dtype=np.int32),
        start=np.array([r[1] for r in rows], dtype=np.int64),
        strand=np.array([r[2] for r in rows], dtype=np.int8),
        gene_ptr=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        gene_index=np.array([g for *_, own in rows for g in own], dtype=np.int32),
    )


def run(tasks):
    done = []
    for task in tasks:
        tiles = slow_tiles(task.layout, task.window_size)
        done.append((tiles, assign_windows(replace(task, tiles=tiles))))
    return done


def split(world, options, old=None):
    return make_split(world.layouts, options, [world.homology()], run, old)


@st.composite
def layouts(draw, genome_id, max_genes=5, generation="g1"):
    contigs = [(str(c + 1), draw(st.integers(1, 40))) for c in range(draw(st.integers(1, 3)))]
    genes = []
    for g in range(draw(st.integers(0, max_genes))):
        contig = draw(st.integers(0, len(contigs) - 1))
        start = draw(st.integers(0, contigs[contig][1] - 1))
        end = draw(st.integers(start + 1, contigs[contig][1]))
        genes.append((f"{genome_id}{g}", contig, start, end, draw(st.sampled_from([-1, 1]))))
    return make_layout(genome_id, contigs, genes, generation)


@st.composite
def worlds(draw, max_genomes=3):
    found = tuple(draw(layouts(genome_id)) for genome_id in "abc"[: draw(st.integers(1, max_genomes))])
    genes = [(layout.genome_id, gene_id) for layout in found for gene_id in layout.gene_id]
    groups = draw(st.lists(st.lists(st.sampled_from(genes), min_size=1, max_size=3), max_size=4)) if genes else []
    return World(found, tuple(tuple(group) for group in groups))


@st.composite
def options(draw, world=None, guard=None):
    common = {
        "window_size": draw(st.integers(1, 8)),
        "context_size": draw(st.integers(0, 6)),
        "guard": guard or draw(st.sampled_from(["centre", "input", "none"])),
        "seed": draw(st.integers(0, 3)),
        "override_gates": True,
    }
    if draw(st.booleans()):
        test = draw(st.sampled_from([0.1, 0.3, 0.5]))
        reference = draw(st.sampled_from([None, "a"]))
        return SplitOptions(test_fraction=test, val_fraction=0.3, reference_genome=reference, **common)
    n_contigs = len(world.layouts[0].contig_name)
    unassigned = draw(st.sampled_from(["train", "drop", "hash"]))
    fractions = {"test_fraction": 0.3, "val_fraction": 0.2} if unassigned == "hash" else {}
    return SplitOptions(
        reference_genome="a",
        test_chromosomes=("1",),
        val_chromosomes=("2",) if n_contigs > 1 else (),
        conflict=draw(st.sampled_from(["test", "train", "majority", "drop"])),
        unassigned=unassigned,
        **fractions,
        **common,
    )


@st.composite
def asked(draw, guard=None):
    world = draw(worlds())
    return world, draw(options(world, guard))


def gene_decisions(result):
    ids = result.genes.genome_ids
    keys = [(ids[g], name) for g, name in zip(result.genes.genome, result.genes.gene_id, strict=True)]
    return {
        key: (SUBSET_NAMES[s], REASONS[r])
        for key, s, r in zip(keys, result.table.gene_subset, result.table.gene_reason, strict=True)
    }


def window_decisions(table):
    """{(genome, contig name, position, strand): (subset, reason)}."""
    found = {}
    for row in range(table.n_windows):
        genome = int(table.window_genome[row])
        contig = table.contig_rows(genome).start + int(table.window_contig[row])
        position = int(table.window_start[row] - table.contig_offset[contig])
        key = (table.genome_ids[genome], table.contig_name[contig], position, int(table.window_strand[row]))
        found[key] = (SUBSET_NAMES[table.window_subset[row]], REASONS[table.window_reason[row]])
    return found


def oracle_genes(world, opts):
    genes = [(layout.genome_id, gene_id) for layout in world.layouts for gene_id in layout.gene_id]
    found = split_oracle.components(genes, [list(group) for group in world.groups])
    test, val = opts.test_share, opts.val_share
    if opts.mode == "fractions":
        return found, split_oracle.assign_fractions(
            found, test_fraction=test, val_fraction=val, seed=opts.seed, reference_genome=opts.reference_genome
        )
    contig_of = {
        (layout.genome_id, gene_id): layout.contig_name[contig]
        for layout in world.layouts
        for gene_id, contig in zip(layout.gene_id, layout.gene_contig, strict=True)
    }
    return found, split_oracle.assign_chromosomes(
        found, contig_of, "a", list(opts.test_chromosomes), list(opts.val_chromosomes),
        conflict=opts.conflict, unassigned=opts.unassigned, seed=opts.seed, test_fraction=test, val_fraction=val,
    )  # fmt: skip


def centre_and_input(table, row):
    """Sets of absolute bases of a window's centre and input, cut at the contig's ends."""
    genome = int(table.window_genome[row])
    contig = table.contig_rows(genome).start + int(table.window_contig[row])
    low = int(table.contig_offset[contig])
    inside = set(range(low, low + int(table.contig_length[contig])))
    start = int(table.window_start[row])
    centre = set(range(start, start + table.window_size))
    wide = set(range(start - table.context_size, start + table.window_size + table.context_size))
    return centre & inside, wide & inside


# -- genes ---------------------------------------------------------------------------------------------------------


@given(asked())
def test_genes_equal_the_oracle(case):
    world, opts = case
    found, decided = oracle_genes(world, opts)
    result = split(world, opts)
    expected = {gene: (subset, ORACLE_REASONS[reason]) for gene, (subset, reason) in decided.items()}
    assert gene_decisions(result) == expected
    assert len(set(result.assigned.component.tolist())) == len(found)


@given(asked())
def test_no_homology_group_is_on_two_sides(case):
    world, opts = case
    result = split(world, opts)
    decided = gene_decisions(result)
    for group in world.groups:
        assert len({decided[gene][0] for gene in group} - {"excluded"}) <= 1
    assert count_leakage(result.table, result.edges).groups_crossing == 0


@given(asked(), st.randoms(use_true_random=False))
def test_order_of_rows_is_irrelevant(case, random):
    world, opts = case
    result = split(world, opts)
    shuffled = []
    for layout in world.layouts:
        order = list(range(len(layout.gene_id)))
        random.shuffle(order)
        names = ("gene_contig", "gene_start", "gene_end", "gene_strand")
        columns = {name: getattr(layout, name)[np.array(order, dtype=int)] for name in names}
        shuffled.append(replace(layout, gene_id=tuple(layout.gene_id[i] for i in order), **columns))
    groups = [tuple(random.sample(group, len(group))) for group in world.groups]
    random.shuffle(groups)
    other = split(World(tuple(shuffled), tuple(groups)), opts)
    assert gene_decisions(other) == gene_decisions(result)
    assert window_decisions(other.table) == window_decisions(result.table)


@given(asked(), layouts("z"))
def test_an_unrelated_genome_changes_nothing_for_the_others(case, stranger):
    world, opts = case
    before = split(world, opts)
    after = split(World((*world.layouts, stranger), world.groups), opts)
    assert gene_decisions(before).items() <= gene_decisions(after).items()
    assert window_decisions(before.table).items() <= window_decisions(after.table).items()


@given(st.integers(0, 12), st.data())
def test_components_are_the_closure_of_groups(n, data):
    pair = st.tuples(st.integers(0, n - 1), st.integers(0, 5)) if n else st.nothing()
    rows = data.draw(st.lists(pair, max_size=15)) if n else []
    component = group_components(
        n, np.array([m for m, _ in rows], dtype=int), np.array([g for _, g in rows], dtype=int)
    )
    groups = [[("x", f"{m:02d}") for m, g in rows if g == group] for group in range(6)]
    sets = split_oracle.components([("x", f"{m:02d}") for m in range(n)], groups)
    found = [{("x", f"{m:02d}") for m in range(n) if component[m] == c} for c in range(len(sets))]
    assert found == sets


# -- windows -------------------------------------------------------------------------------------------------------


def slow_windows(world, opts, result):
    """Subsets before the guard from the definition, then the oracle's guard over all pairs."""
    decided = gene_decisions(result)
    strength = ("test", "val", "excluded", "train")
    mode = {"name": opts.mode, "reference_genome": "a", "seed": opts.seed, "test_fraction": opts.test_share,
            "val_fraction": opts.val_share, "test_chromosomes": opts.test_chromosomes,
            "val_chromosomes": opts.val_chromosomes}  # fmt: skip
    keys, before = [], []
    for layout in world.layouts:
        tiles = slow_tiles(layout, opts.window_size)
        for contig, start, strand in zip(tiles.contig, tiles.start, tiles.strand, strict=True):
            offset, length = int(layout.contig_offset[contig]), int(layout.contig_length[contig])
            position = int(start) - offset
            key = (
                layout.genome_id,
                layout.contig_name[contig],
                position,
                min(position + opts.window_size, length),
                int(strand),
            )
            met = [
                decided[layout.genome_id, gene_id]
                for gene_id, a, b in zip(
                    layout.gene_id, layout.gene_start - offset, layout.gene_end - offset, strict=True
                )
                if a < key[3] and position < b
            ]
            if met:
                subset = next(name for name in strength if name in {d[0] for d in met})
                reasons = [d[1] for d in met if d[0] == "excluded"]
                before.append((subset, min(reasons, key=REASONS.index) if subset == "excluded" else ""))
            else:
                before.append((split_oracle.geneless_subset(key, mode), ""))
            keys.append(key)
    after = split_oracle.apply_guard(keys, before, opts.context_size, opts.guard)
    spelled = {"guard-test": "overlaps_test", "guard-val": "overlaps_val"}
    return {(*k[:3], k[4]): (s, spelled.get(r, r)) for k, (s, r) in zip(keys, after, strict=True)}


@given(asked())
def test_windows_equal_a_slow_search_over_pairs(case):
    world, opts = case
    result = split(world, opts)
    assert window_decisions(result.table) == slow_windows(world, opts, result)


@given(asked())
def test_the_table_is_sorted_and_links_each_window_to_its_genes(case):
    world, opts = case
    table = split(world, opts).table
    keys = np.lexsort((table.window_strand, table.window_start, table.window_contig, table.window_genome))
    assert keys.tolist() == list(range(table.n_windows))
    for genome, layout in enumerate(world.layouts):
        first_gene = table.gene_rows(genome).start
        for row in range(table.n_windows)[table.window_rows(genome)]:
            centre, _ = centre_and_input(table, row)
            met = [
                g for g in range(len(layout.gene_id)) if centre & set(range(layout.gene_start[g], layout.gene_end[g]))
            ]
            own = [first_gene + g for g in met if layout.gene_strand[g] == table.window_strand[row]]
            assert table.window_gene_index[table.window_gene_ptr[row] : table.window_gene_ptr[row + 1]].tolist() == own
            assert bool(table.window_has_gene[row]) == bool(met)


@pytest.mark.parametrize("guard", ["centre", "input"])
@given(st.data())
def test_no_held_out_base_is_an_input_base(guard, data):
    world, opts = data.draw(asked(guard))
    table = split(world, opts).table
    for genome in range(len(table.genome_ids)):
        held: dict[int, set[int]] = {SUBSET_TRAIN: set(), SUBSET_VAL: set(), SUBSET_TEST: set()}
        seen: dict[int, set[int]] = {SUBSET_TRAIN: set(), SUBSET_VAL: set(), SUBSET_TEST: set()}
        for row in range(table.n_windows)[table.window_rows(genome)]:
            if (subset := int(table.window_subset[row])) != SUBSET_EXCLUDED:
                centre, wide = centre_and_input(table, row)
                held[subset] |= centre if guard == "centre" else wide
                seen[subset] |= wide
        assert not seen[SUBSET_TRAIN] & (held[SUBSET_VAL] | held[SUBSET_TEST])
        assert not seen[SUBSET_VAL] & held[SUBSET_TEST]


@given(asked())
def test_leakage_is_counted_base_by_base(case):
    world, opts = case
    result = split(world, opts)
    table = result.table
    leakage = count_leakage(table, result.edges)
    for genome, (genome_id, matrix) in enumerate(leakage.bases):
        centres, inputs = [set(), set(), set()], [set(), set(), set()]
        for row in range(table.n_windows)[table.window_rows(genome)]:
            if (subset := int(table.window_subset[row])) != SUBSET_EXCLUDED:
                centre, wide = centre_and_input(table, row)
                centres[subset] |= centre
                inputs[subset] |= wide
        assert genome_id == table.genome_ids[genome]
        assert matrix.tolist() == [[len(a & b) for b in centres] for a in inputs]
    assert leakage.windows_shared == 0
    if opts.guard != "none":
        assert leakage.held_out_bases() == 0


@given(asked())
def test_what_goes_in_comes_out_or_has_a_reason(case):
    world, opts = case
    table = split(world, opts).table
    n_tiles = sum(len(slow_tiles(layout, opts.window_size)) for layout in world.layouts)
    n_genes = sum(len(layout.gene_id) for layout in world.layouts)
    for n, subset, reason in (
        (n_tiles, table.window_subset, table.window_reason),
        (n_genes, table.gene_subset, table.gene_reason),
    ):
        counts = count_subsets(subset)
        assert sum(counts.values()) == n
        assert sum(count_reasons(reason).values()) == counts["excluded"]
        assert ((subset == SUBSET_EXCLUDED) == (reason > 0)).all()


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))),
)
def test_meeting_is_sharing_a_base(spans, others):
    def columns(rows):
        return np.array([a for a, _ in rows], dtype=np.int64), np.array([b for _, b in rows], dtype=np.int64)

    covered = {base for a, b in others for base in range(a, b)}
    assert meets_any(*columns(spans), *columns(others)).tolist() == [bool(covered & set(range(a, b))) for a, b in spans]


# -- extending and rebuilding --------------------------------------------------------------------------------------


@st.composite
def extensions(draw):
    """A world, the same with more genomes, genes and groups, and options."""
    world = draw(worlds(max_genomes=2))
    opts = draw(options(world))
    grown = []
    for layout in world.layouts:
        extra = draw(layouts(layout.genome_id, max_genes=2, generation="g2"))
        names = dict(zip(layout.contig_name, range(len(layout.contig_name)), strict=True))
        genes = [
            (gene_id, int(c), int(a - layout.contig_offset[c]), int(b - layout.contig_offset[c]), int(s))
            for gene_id, c, a, b, s in zip(
                layout.gene_id, layout.gene_contig, layout.gene_start, layout.gene_end, layout.gene_strand, strict=True
            )
        ]
        for i, c in enumerate(extra.gene_contig):
            contig = names.get(extra.contig_name[c], 0)
            start = int(extra.gene_start[i] - extra.contig_offset[c]) % int(layout.contig_length[contig])
            end = min(start + int(extra.gene_end[i] - extra.gene_start[i]), int(layout.contig_length[contig]))
            genes.append((f"{layout.genome_id}new{i}", contig, start, end, int(extra.gene_strand[i])))
        contigs = list(zip(layout.contig_name, layout.contig_length.tolist(), strict=True))
        grown.append(make_layout(layout.genome_id, contigs, genes, "g2"))
    grown += [draw(layouts(genome_id)) for genome_id in "yz"[: draw(st.integers(0, 2))]]
    genes = [(layout.genome_id, gene_id) for layout in grown for gene_id in layout.gene_id]
    more = draw(st.lists(st.lists(st.sampled_from(genes), min_size=1, max_size=4), max_size=4)) if genes else []
    return world, World(tuple(grown), (*world.groups, *(tuple(group) for group in more))), opts


@settings(max_examples=50)
@given(extensions())
def test_extending_moves_nothing_that_was_there(case):
    world, grown, opts = case
    old = split(world, opts)
    new = split(grown, opts, old.table)
    assert gene_decisions(old).items() <= gene_decisions(new).items()
    before, after = window_decisions(old.table), window_decisions(new.table)
    assert all(after[key] == decision for key, decision in before.items() if key in after)
    assert len(before.keys() - after.keys()) == new.n_vanished


@settings(max_examples=50)
@given(extensions())
def test_new_genes_inherit_or_are_excluded_as_bridges(case):
    world, grown, opts = case
    old = split(world, opts)
    new = split(grown, opts, old.table)
    back = {ours: theirs for theirs, ours in ORACLE_REASONS.items()}
    settled = {gene: (subset, back[reason]) for gene, (subset, reason) in gene_decisions(old).items()}
    found, fresh = oracle_genes(grown, opts)
    decided, bridges = split_oracle.extend(found, settled, fresh)
    ours = gene_decisions(new)
    assert {g: d[0] for g, d in ours.items()} == {g: d[0] for g, d in decided.items()}
    assert sorted((genome, gene_id) for genome, gene_id, _ in new.assigned.bridges) == bridges
    leakage = count_leakage(new.table, new.edges, new.inherited)
    assert leakage.groups_crossing == 0


@settings(max_examples=50)
@given(extensions())
def test_extending_leaks_no_held_out_base(case):
    world, grown, opts = case
    opts = replace(opts, guard="centre")
    old = split(world, opts)
    leakage = count_leakage((new := split(grown, opts, old.table)).table, new.edges, new.inherited)
    assert leakage.held_out_bases() == 0
    assert leakage.windows_shared == 0


@given(asked())
def test_extending_by_nothing_changes_nothing(case):
    world, opts = case
    old = split(world, opts).table
    assert split(world, opts, old).table.content_digest() == old.content_digest()


@settings(max_examples=50)
@given(extensions())
def test_rebuilding_lists_every_move(case):
    world, grown, opts = case
    old, new = split(world, opts), split(grown, opts)
    moves = list_moves(old.table, new.table, new.genes, grown.layouts)
    before, after = gene_decisions(old), gene_decisions(new)
    expected = {(*gene, before[gene][0], after[gene][0]) for gene in before if before[gene][0] != after[gene][0]}
    assert set(moves.genes) == expected
    assert len(moves.genes) == len(expected)
    before, after = window_decisions(old.table), window_decisions(new.table)
    rows = list(after)
    listed = {
        (rows[row], SUBSET_NAMES[a], SUBSET_NAMES[b])
        for row, a, b in zip(moves.window_row, moves.window_old, moves.window_new, strict=True)
    }
    assert listed == {
        (k, before[k][0], after[k][0]) for k in before.keys() & after.keys() if before[k][0] != after[k][0]
    }
    assert moves.n_vanished == len(before.keys() - after.keys())


# -- the table as arrays -------------------------------------------------------------------------------------------


@given(asked())
def test_a_table_survives_its_arrays(case):
    world, opts = case
    table = split(world, opts).table
    arrays = {name: values for name, (values, _) in split_arrays(table).items()}
    attributes = split_attributes(table)
    again = table_from_arrays(arrays, attributes)
    assert again.content_digest() == attributes["digest"]
    assert window_decisions(again) == window_decisions(table)
    if table.n_windows:
        subset = table.window_subset.copy()
        subset[-1] = (subset[-1] + 1) % len(SUBSET_NAMES)
        assert replace(table, window_subset=subset).content_digest() != attributes["digest"]
