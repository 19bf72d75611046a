"""Tiles give every base once per strand, and equal the model run on windows cut out by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import WindowError
from splicestore.models.card import LoadedModel, ModelCard, task_names
from splicestore.models.splice import SpliceNet
from splicestore.predict import windows
from splicestore.predict.windows import predict_tiles, tile_regions

WINDOW, CONTEXT = 20, 7


@dataclass
class Bases:
    """Contigs in memory; counts what is read."""

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        self.contig_length = np.array(self.lengths, dtype=np.int64)
        self.contig_offset = np.cumsum(self.contig_length) - self.contig_length
        self.bases = np.random.default_rng(0).integers(0, 5, sum(self.lengths)).astype(np.uint8)
        self.reads: list[tuple[int, int]] = []

    def read_bases(self, start: int, end: int) -> np.ndarray:
        assert 0 <= start <= end <= len(self.bases)
        self.reads.append((start, end))
        return self.bases[start:end]


def make_model() -> LoadedModel:
    torch.manual_seed(4)
    network = SpliceNet(1, CONTEXT, 6, (1, 2), 5, prevalence=(0.6, 0.2, 0.2)).eval()
    card = ModelCard(
        name="m", factory="a:b", digest="0" * 64, window_size=WINDOW, context_size=CONTEXT, tasks=task_names(["brain"])
    )
    return LoadedModel(card, network, torch.device("cpu"))


MODEL = make_model()


def by_hand(genome: Bases) -> dict[tuple[int, int], np.ndarray]:
    """Scores of every (absolute base, strand), one window at a time."""
    found = {}
    for offset, length in zip(genome.contig_offset.tolist(), genome.lengths, strict=True):
        contig = genome.bases[offset : offset + length]
        padded = np.concatenate([np.full(CONTEXT, 4), contig, np.full(CONTEXT + WINDOW, 4)]).astype(np.uint8)
        for cell in range(0, length, WINDOW):
            codes = padded[cell : cell + WINDOW + 2 * CONTEXT]
            backwards = np.array([{0: 3, 1: 2, 2: 1, 3: 0, 4: 4}[b] for b in codes[::-1].tolist()], dtype=np.uint8)
            forward, reverse = (MODEL.scores(torch.from_numpy(c[None].copy()))[0].numpy() for c in (codes, backwards))
            for i in range(min(WINDOW, length - cell)):
                found[offset + cell + i, 1] = forward[i]
                found[offset + cell + i, -1] = reverse[WINDOW - 1 - i]
    return found


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=3),
    batch_size=st.integers(2, 9),
    slab=st.sampled_from([20, 40, 1 << 20]),
    data=st.data(),
)
def test_tiles_equal_windows_cut_by_hand(lengths, batch_size, slab, data):
    genome = Bases(tuple(lengths))
    n = len(genome.bases)
    cuts = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(1, n)), min_size=1, max_size=3))
    regions = np.array([(a, b) if a < b else (b - 1, a + 1) for a, b in cuts], dtype=np.int64)
    wanted = {base for a, b in regions.tolist() for base in range(a, b)}
    expected, seen, starts = by_hand(genome), {1: [], -1: []}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "SLAB_BASES", slab)
        for start, strand, scores in predict_tiles(MODEL, genome, regions, batch_size=batch_size):
            assert scores.dtype == np.float16
            assert 0 < len(scores) <= WINDOW
            starts.append(start)
            for i, row in enumerate(scores):
                seen[strand].append(start + i)
                np.testing.assert_allclose(row.astype(float), expected[start + i, strand], atol=2e-3)
    assert starts == sorted(starts)
    for strand in (1, -1):
        assert seen[strand] == sorted(wanted)  # in order, each once


def test_tiles_lie_on_the_grid_of_their_contig():
    genome = Bases((50, 30))
    tiles = tile_regions(genome, np.array([[45, 75]]), WINDOW)
    assert tiles.contig.tolist() == [0, 1, 1]
    assert tiles.start.tolist() == [40, 50, 70]
    assert tiles.keep_start.tolist() == [45, 50, 70]
    assert tiles.keep_end.tolist() == [50, 70, 75]


def test_neighbouring_tiles_share_a_read():
    genome = Bases((2000,))
    list(predict_tiles(MODEL, genome, np.array([[100, 1900]]), batch_size=64))
    assert genome.reads == [(100 - CONTEXT, 1900 + CONTEXT)]


def test_no_region_gives_nothing():
    assert list(predict_tiles(MODEL, Bases((50,)), np.zeros((0, 2), dtype=np.int64))) == []


@pytest.mark.parametrize("region", [(5, 5), (9, 3), (-1, 4), (10, 51)])
def test_a_region_outside_the_genome_is_refused(region):
    with pytest.raises(WindowError, match=r"1 of 2 regions are empty or leave the genome, first \["):
        tile_regions(Bases((50,)), np.array([(0, 50), region]), WINDOW)


def test_a_batch_of_one_window_is_refused():
    with pytest.raises(WindowError, match="at least 2, a window on each strand, got 1"):
        list(predict_tiles(MODEL, Bases((50,)), np.array([[0, 50]]), batch_size=1))
