"""Windows by block against a dictionary of lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.kernels.window_blocks import Contigs, WindowColumns, group_by_block

BLOCK = 16


@st.composite
def tables(draw):
    """Contigs of a few genomes, windows anywhere near them, and some rows of those, repeated and in any order."""
    lengths = draw(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=4), min_size=1, max_size=3))
    places = [
        (g, c, offset + shift)
        for g, of in enumerate(lengths)
        for c, offset in enumerate(np.cumsum([0, *of[:-1]]).tolist())
        for shift in draw(st.lists(st.integers(-30, of[c] + 30), max_size=8))
    ]
    rows = draw(st.lists(st.integers(0, len(places) - 1), max_size=30)) if places else []
    return lengths, places, sorted(rows) if draw(st.booleans()) else rows


@given(table=tables(), flank=st.integers(0, 9), size=st.integers(1, 25))
@settings(max_examples=300)
def test_blocks_are_those_of_a_dictionary(table, flank, size):
    lengths, places, rows = table
    starts = [np.cumsum([0, *of[:-1]]).tolist() for of in lengths]
    expected = {}
    for row in rows:
        g, c, start = places[row]
        begin, end = starts[g][c], starts[g][c] + lengths[g][c]
        low = max(start - flank, begin)
        high = max(low, min(start - flank + size, end))
        expected.setdefault((g, low // BLOCK), []).append((row, low, high))
    columns = np.array(places, dtype=np.int64).reshape(-1, 3)
    found = group_by_block(
        np.array(rows, dtype=np.int64),
        WindowColumns(columns[:, 0].astype(np.int16), columns[:, 1].astype(np.int32), columns[:, 2].copy()),
        Contigs(
            np.cumsum([0, *map(len, lengths)]),
            np.array([s for of in starts for s in of]),
            np.array([s + n for g, of in enumerate(lengths) for s, n in zip(starts[g], of, strict=True)]),
        ),
        flank,
        size,
        BLOCK,
    )
    assert list(zip(found.genome.tolist(), found.number.tolist(), strict=True)) == sorted(expected)
    for n, key in enumerate(sorted(expected)):
        mine = found.row[found.ptr[n] : found.ptr[n + 1]].tolist()
        assert mine == [row for row, _, _ in expected[key]]
        assert found.low[n] == min(low for _, low, _ in expected[key])
        assert found.high[n] == max(high for _, _, high in expected[key])
    assert found.ptr[-1] == len(rows)
