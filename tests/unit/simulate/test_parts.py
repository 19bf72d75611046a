"""The parts a study is made of: options, tree, gene order, bases, files."""

import gzip
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import ConfigError
from splicestore.kernels.sequence import decode_bases
from splicestore.simulate import SimulateOptions, motifs
from splicestore.simulate.evolution import ROOT, History, ancestral_layout, draw_tree, evolve_branch, newick
from splicestore.simulate.files import ByteSink, FastaSink
from splicestore.simulate.genes import MIN_INTRON, build_sequence, draw_shape
from splicestore.simulate.loci import Arrangement, Locus, LocusFactory, Piece, Spacer, SpacerFactory
from splicestore.simulate.motifs import draw_usage_model, information_bits, site_log_odds
from splicestore.simulate.mutation import mutate
from splicestore.simulate.options import condition_grid
from splicestore.simulate.packed import LETTERS, Class, class_of, pack, random_bases, reverse_complement
from splicestore.simulate.seeds import Stream, random_stream
from splicestore.simulate.splicing import (
    draw_counts,
    expected_usage,
    intron_dinucleotides,
    site_windows,
    splice_graph,
)

INTRON_ENDS = {"GTAG", "GCAG", "ATAC"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"genomes": 0}, "genomes must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"genes": 501}, r"501 genes do not fit 2.0 Mb, each needs 4,000 bp; ask for at least 2.004 megabases"),
        ({"contigs": 201}, "201 contigs do not fit"),
        ({"annotation_format": "bed"}, "annotation_format must be one of gtf, gff3, got 'bed'"),
        ({"usage_format": "bam"}, "usage_format must be one of spliser, star, both"),
        ({"divergence": 0.8}, "divergence must lie in"),
        ({"coverage": 0}, "coverage in"),
    ],
)
def test_options_that_cannot_be_simulated_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimulateOptions(**options)  # type: ignore[arg-type]


@given(st.integers(1, 400))
def test_conditions_are_a_full_grid_of_distinct_names(conditions: int) -> None:
    tissues, timepoints = condition_grid(conditions)
    assert len({(t, p) for t in tissues for p in timepoints}) == conditions
    assert len(tissues) <= 7


@given(seed=st.integers(0, 2**31), n=st.integers(1, 12))
def test_all_leaves_are_equally_far_from_the_root(seed: int, n: int) -> None:
    names = [f"g{i}" for i in range(n)]
    nodes = draw_tree(seed, names)
    assert [node.name for node in nodes[:n]] == names
    assert [node.parent for node in nodes].count(ROOT) == 1
    for i in range(n):
        distance, at = 0.0, i
        while nodes[at].parent != ROOT:
            assert at in nodes[nodes[at].parent].children
            assert nodes[at].length > 0
            distance += nodes[at].length
            at = nodes[at].parent
        assert distance == pytest.approx(1.0)
    text = newick(nodes, 0.2)
    assert text.count("(") == text.count(")") == len(nodes) - n
    assert all(name in text for name in names)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), genes=st.integers(1, 40), contigs=st.integers(1, 5))
def test_a_branch_loses_nothing_but_what_it_says(seed: int, genes: int, contigs: int) -> None:
    options = SimulateOptions(seed=seed, genes=genes, contigs=contigs, megabases=0.3)
    history, layout = ancestral_layout(options, LocusFactory(seed, 300.0))
    before = [contig.copy() for contig in layout]
    start = Counter(history.families(np.concatenate(layout)))
    assert start == Counter(range(genes))
    child = evolve_branch(seed, draw_tree(seed, ["a", "b"]), 0, history, layout)
    assert all((a == b).all() for a, b in zip(before, layout, strict=True)), "the parent's layout changed"
    uids = np.abs(np.concatenate(child))
    assert len(np.unique(uids)) == len(uids)
    assert all(len(contig) for contig in child)
    for event in history.events:
        if event.kind in ("duplication", "gain"):
            start += Counter(event.families)
        elif event.kind == "loss":
            start -= Counter(event.families)
    assert Counter(history.families(np.concatenate(child))) == start
    again = evolve_branch(seed, draw_tree(seed, ["a", "b"]), 0, history, layout)
    assert [np.sign(c).tolist() for c in again] == [np.sign(c).tolist() for c in child]


def test_a_copy_shares_the_past_of_its_original_and_then_goes_its_own_way() -> None:
    history = History()
    original = history.add(Spacer(10), ROOT)
    copy = history.copy(original, birth=5)
    copy_of_copy = history.copy(copy, birth=5)
    late = history.copy(copy, birth=3)
    gained = history.add(Spacer(10), 5)
    path = (8, 5, 3)
    assert history.mutation_keys(original, path) == [(8, original), (5, original), (3, original)]
    assert history.mutation_keys(copy, path) == [(8, original), (5, copy), (3, copy)]
    assert history.mutation_keys(copy_of_copy, path) == [(8, original), (5, copy_of_copy), (3, copy_of_copy)]
    assert history.mutation_keys(late, path) == [(8, original), (5, copy), (3, late)]
    assert history.mutation_keys(gained, path) == [(5, gained), (3, gained)]
    assert [history.origin(uid) for uid in (original, copy, gained)] == ["ancestral", "duplicated", "gained"]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), intron_mean=st.floats(100, 8_000))
def test_gene_shapes_have_room_for_their_signals(seed: int, intron_mean: float) -> None:
    shape = draw_shape(np.random.default_rng(seed), intron_mean)
    assert 1 <= shape.n_exons <= 30
    assert shape.start[0] == 0
    assert (shape.outer_start[1:] - shape.outer_end[:-1] >= MIN_INTRON).all()
    assert (shape.end - shape.start >= 54).all()
    assert not shape.is_cassette[[0, -1]].any()
    assert not (shape.is_cassette[1:] & shape.is_cassette[:-1]).any()
    assert len(build_sequence(np.random.default_rng(seed), shape)) == shape.length


arrangements = st.sampled_from(list(Arrangement))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), arrangement=arrangements, rate=st.floats(0, 0.75), backward=st.booleans())
def test_genes_stay_spliceable_through_mutation_and_inversion(
    seed: int, arrangement: Arrangement, rate: float, backward: bool
) -> None:
    loci = LocusFactory(seed, 400.0)
    locus = Locus(arrangement, (3,) if arrangement == Arrangement.SINGLE else (3, 4))
    ancestor = loci.build(7, locus)
    assert len(ancestor.code) == loci.length(7, locus)
    piece = mutate(random_stream(seed, Stream.MUTATION, 1), ancestor, rate)
    if backward:
        piece = piece.flipped()
        assert (piece.flipped().code == reverse_complement(piece.code)).all()
    assert len(piece.genes) == len(locus.families)
    for old, gene in zip(ancestor.genes, piece.genes, strict=True):
        low, high = gene.span
        assert 0 <= low < high <= len(piece.code)
        assert gene.strand == (-old.strand if backward else old.strand)
        if len(gene.start) == 1:
            continue
        graph = splice_graph(gene)
        windows = site_windows(piece.code, graph.boundary, gene.strand)
        ends = intron_dinucleotides(windows, graph.is_donor)
        pairs = zip(graph.donor, graph.acceptor, graph.is_annotated, strict=True)
        names = {decode_bases(np.concatenate((ends[d], ends[a]))) for d, a, _ in pairs}
        mixed = {"GTAC", "ATAG", "GCAC"}  # skipping an exon pairs the ends of two introns
        assert names <= INTRON_ENDS | (mixed if gene.is_cassette.any() else set())
        start, end = graph.intron_bounds()
        assert (end - start > 60).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_substitutions_spare_what_matters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    code = np.concatenate(
        [
            random_bases(rng, 20_000, Class(c)) if c < 3 else pack(rng.integers(0, 4, 20_000, dtype=np.uint8), Class(c))
            for c in range(5)
        ]
    )
    changed = mutate(rng, Piece(code, ()), 0.3).code
    counts = [int((class_of(changed) == c).sum()) for c in Class]
    assert counts[2:] == [20_000] * 3, "an indel touched an exon or a signal"
    constrained = class_of(code) >= Class.EXON
    differs = code[constrained] != changed[class_of(changed) >= Class.EXON]
    exon, signal, invariant = differs.reshape(3, -1).mean(axis=1)
    assert invariant == 0
    assert 0.005 < signal < 0.03 < exon < 0.09


@given(seed=st.integers(0, 2**31), length=st.integers(1, 3_000))
def test_spacers_have_their_length_and_no_gene_bases(seed: int, length: int) -> None:
    piece = SpacerFactory.draw(seed).build(0, Spacer(length))
    assert len(piece.code) == length
    assert (class_of(piece.code) == Class.SPACER).all()
    letters = bytes(LETTERS[piece.code])
    assert set(letters) <= set(b"ACGTacgt")
    mirrored = bytes(LETTERS[reverse_complement(piece.code)])
    assert mirrored == letters.translate(bytes.maketrans(b"ACGTacgt", b"TGCAtgca"))[::-1]


def test_matrices_hold_the_information_of_real_sites() -> None:
    assert 6.0 < information_bits(motifs.DONOR_PWM) < 8.5
    assert 6.0 < information_bits(motifs.ACCEPTOR_PWM) < 9.5
    np.testing.assert_allclose(motifs.DONOR_PWM.sum(axis=1), 1)
    np.testing.assert_allclose(motifs.ACCEPTOR_PWM.sum(axis=1), 1)
    drawn = motifs.sample_pwm(np.random.default_rng(1), motifs.DONOR_PWM, np.zeros(20_000))
    for base in range(4):
        np.testing.assert_allclose((drawn == base).mean(axis=0), motifs.DONOR_PWM[:, base], atol=0.015)


def window_with(word: str, offset: int) -> np.ndarray:
    """A window of C with one word that starts ``offset`` bases after the boundary."""
    window = np.full((1, len(motifs.WINDOW_OFFSETS)), 1, dtype=np.uint8)
    at = offset + motifs.REGULATOR_REACH
    window[0, at : at + len(word)] = ["ACGT".index(base) for base in word]
    return window


@pytest.mark.parametrize(
    ("is_donor", "word", "offset", "effect"),
    [
        (True, "AGGAAG", -30, "enhancer"),
        (True, "AGGAAG", -60, "enhancer"),
        (True, "AGGAAG", -61, None),
        (True, "AGGAAG", 30, None),
        (False, "AGGAAG", 30, "enhancer"),
        (False, "AGGAAG", 54, "enhancer"),
        (False, "AGGAAG", 55, None),
        (False, "TTAGGG", 20, "silencer"),
        (True, "TTAGGG", 20, None),
    ],
)
def test_words_act_on_their_side_and_in_their_reach_only(
    is_donor: bool, word: str, offset: int, effect: str | None
) -> None:
    model = draw_usage_model(0, 2, 2)
    kind = np.array([is_donor])
    plain = site_log_odds(model, np.full((1, len(motifs.WINDOW_OFFSETS)), 1, dtype=np.uint8), kind)
    change = site_log_odds(model, window_with(word, offset), kind) - plain
    np.testing.assert_allclose(change, getattr(model, effect) if effect else 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("is_donor", "offset", "sign"), [(True, 20, 1), (False, -40, -1), (True, -40, 0), (False, 20, 0)]
)
def test_regulators_act_from_the_intron_and_turn_around_before_acceptors(
    is_donor: bool, offset: int, sign: int
) -> None:
    model = draw_usage_model(3, 2, 3)
    kind = np.array([is_donor])
    plain = site_log_odds(model, np.full((1, len(motifs.WINDOW_OFFSETS)), 1, dtype=np.uint8), kind)
    change = site_log_odds(model, window_with("TGCATG", offset), kind) - plain
    np.testing.assert_allclose(change[0], sign * model.regulator[0], atol=1e-12)
    assert model.regulator.shape == (len(motifs.REGULATORS), 6)
    assert np.ptp(model.regulator[0]) > 0.5


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31))
def test_expected_reads_and_true_usage_agree(seed: int) -> None:
    piece = LocusFactory(seed, 300.0).build(0, Locus(Arrangement.SINGLE, (1,)))
    gene = piece.genes[0]
    if len(gene.start) == 1:
        return
    graph = splice_graph(gene)
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(2, 2, (graph.n_sites, 3))
    expected = expected_usage(graph, gene, log_odds)
    assert ((expected.sse > 0) & (expected.sse <= 1)).all()
    counts = draw_counts(rng, graph, expected, np.full(3, 20_000.0), np.arange(3))
    total = counts.alpha + counts.beta1 + counts.beta2
    assert (np.abs(counts.alpha / total - expected.sse) < 0.03).all()
    first_plain = splice_graph(gene).is_donor & (np.arange(graph.n_sites) == 0)
    if not (gene.alternative_end[0] >= 0):
        np.testing.assert_allclose(expected.sse[first_plain], 1 / (1 + np.exp(-np.clip(log_odds[first_plain], -6, 8))))


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 400), min_size=1, max_size=12), compress=st.booleans(), seed=st.integers(0, 2**31)
)
def test_fasta_does_not_depend_on_how_bases_arrive(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], compress: bool, seed: int
) -> None:
    path = tmp_path_factory.mktemp("fasta") / "x.fa"
    code = random_bases(np.random.default_rng(seed), sum(lengths), Class.SPACER)
    with path.open("wb") as stream, FastaSink(stream, compress=compress) as sink:
        for name in ("a", "b"):
            sink.open_record(name)
            for part in np.split(code, np.cumsum(lengths)[:-1]):
                sink.write(part)
    data = path.read_bytes()
    text = (gzip.decompress(data) if compress else data).decode()
    letters = bytes(LETTERS[code]).decode()
    lines = "".join(letters[i : i + 80] + "\n" for i in range(0, len(letters), 80))
    assert text == f">a\n{lines}>b\n{lines}"


def test_gzip_files_hold_neither_time_nor_name(tmp_path: Path) -> None:
    for name in ("one.gz", "two.gz"):
        with (tmp_path / name).open("wb") as stream, ByteSink(stream, compress=True) as sink:
            for i in range(30_000):
                sink.write(f"line {i}\n")
    data = (tmp_path / "one.gz").read_bytes()
    assert data == (tmp_path / "two.gz").read_bytes()
    assert data[3] == 0, "a flag for an optional gzip field is set"
    assert data[4:8] == bytes(4)
    with gzip.open(io.BytesIO(data), "rt") as lines:
        assert sum(1 for _ in lines) == 30_000


def test_streams_with_equal_keys_are_equal_and_others_are_not() -> None:
    draws = [random_stream(1, Stream.MUTATION, *keys).random(4).tolist() for keys in ((2, 3), (2, 3), (3, 2), (2,))]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert draws[0] != draws[3]
