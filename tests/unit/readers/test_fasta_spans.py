"""A FASTA entered at a place inside: the bases from there on are the tail of the whole."""

from __future__ import annotations

import gzip
import pickle
import zlib
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import InputError
from splicestore.kernels.sequence import decode_bases
from splicestore.readers import fasta
from splicestore.readers.fasta import read_fasta_codes, scan_fasta, span_from
from splicestore.storage import bgzf
from tests.unit.storage.test_bgzf import spell

FORMS = ("plain", "bgzip", "gzip", "two gzip members")


@st.composite
def records(draw):
    """Names and bases, some contigs of one base."""
    n = draw(st.integers(1, 8))
    return [
        (f"c{i}", draw(st.text("ACGTN", min_size=1, max_size=draw(st.sampled_from([1, 30, 600]))))) for i in range(n)
    ]


@st.composite
def spelled(draw):
    """Records, and a FASTA of them: line lengths differ, blank lines, CRLF, no last line end."""
    found = draw(records())
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = draw(st.sampled_from(["", end]))
    for name, bases in found:
        text += f">{name}{draw(st.sampled_from(['', ' words > more', chr(9) + 'x']))}{end}"
        width = draw(st.integers(1, 700))
        lines = [bases[i : i + width] for i in range(0, len(bases), width)]
        text += end.join(lines) + end + draw(st.sampled_from(["", end]))
    return found, (text if draw(st.booleans()) else text.rstrip("\r\n"))


def stored(text: bytes, form: str, cuts) -> bytes:
    if form == "bgzip":
        return spell(text, cuts, level=0)
    if form == "gzip":
        return gzip.compress(text)
    return gzip.compress(text[:50]) + gzip.compress(text[50:]) if form == "two gzip members" else text


@contextmanager
def cut_small(slab, run):
    """Slabs and bgzip runs so small that a short file has many."""
    before = fasta.SLAB_BYTES, bgzf.RUN_BYTES
    fasta.SLAB_BYTES, bgzf.RUN_BYTES = slab, run
    try:
        yield
    finally:
        fasta.SLAB_BYTES, bgzf.RUN_BYTES = before


def read_from(url, span, **options):
    """[(contig, bases)] from a place on, the slabs of a contig joined."""
    found = []
    for name, codes in read_fasta_codes(url, span=span, **options):
        if not found or found[-1][0] != name:
            found.append((name, ""))
        found[-1] = name, found[-1][1] + decode_bases(codes)
    return found


@settings(max_examples=60)
@given(fasta_of=spelled(), form=st.sampled_from(FORMS), slab=st.integers(1, 300), data=st.data())
def test_from_any_base_on_is_the_tail_of_the_whole(tmp_path_factory, fasta_of, form, slab, data):
    expected, text = fasta_of
    path = tmp_path_factory.mktemp("spans") / "x"
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=20), label="cuts")
    path.write_bytes(stored(text.encode(), form, cuts))
    with cut_small(slab, max(500, len(text) + 60)) if not cuts else cut_small(slab, len(text) + 60):
        index = scan_fasta(str(path))
        assert [(c.name, c.length) for c in index.contigs] == [(name, len(bases)) for name, bases in expected]
        for contig, (name, bases) in enumerate(expected):
            base = data.draw(st.integers(0, len(bases) - 1), label=f"base of {name}")
            span = pickle.loads(pickle.dumps(span_from(index, contig, base)))
            assert (span.contig, span.base <= base) == (name, True)
            found = read_from(str(path), span)
            assert found == [(name, bases[span.base :]), *expected[contig + 1 :]]


@settings(max_examples=25)
@given(fasta_of=spelled(), form=st.sampled_from(("plain", "bgzip")), slab=st.integers(20, 100))
def test_a_place_is_near(tmp_path_factory, fasta_of, form, slab):
    """Of a file that can be entered, no more than a slab and a run of blocks is read for nothing."""
    expected, text = fasta_of
    path = tmp_path_factory.mktemp("spans") / "x"
    path.write_bytes(stored(text.encode(), form, range(40, len(text), 40)))
    run = 300
    with cut_small(slab, run):
        index = scan_fasta(str(path))
        for contig, (_, bases) in enumerate(expected):
            span = span_from(index, contig, len(bases) - 1)
            assert len(bases) - 1 - span.base <= slab
            assert span.skip <= (0 if form == "plain" else run)


@settings(max_examples=25)
@given(fasta_of=spelled(), wanted=st.sets(st.integers(0, 7), min_size=1), form=st.sampled_from(FORMS))
def test_unwanted_contigs_are_passed_over_from_a_place_too(tmp_path_factory, fasta_of, wanted, form):
    expected, text = fasta_of
    path = tmp_path_factory.mktemp("spans") / "x"
    path.write_bytes(stored(text.encode(), form, range(100, len(text), 100)))
    names = {name for i, (name, _) in enumerate(expected) if i in wanted}
    with cut_small(50, 400):
        index = scan_fasta(str(path))
        for contig in range(len(expected)):
            found = read_from(str(path), span_from(index, contig, 0), wanted=names)
            assert found == [(name, bases) for name, bases in expected[contig:] if name in names]


def test_a_long_contig_on_one_line_has_places_every_slab(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(b">one\n" + b"ACGT" * 250_000 + b"\n>two\nGG\n")
    with cut_small(10_000, 1 << 20):
        index = scan_fasta(str(path))
        assert len(index.piece_contig) >= 100
        for base in (0, 9_999, 10_000, 500_001, 999_999):
            span = span_from(index, 0, base)
            assert 0 <= base - span.base <= 10_000
            (name, bases), rest = read_from(str(path), span)
            assert (name, bases, rest) == ("one", ("ACGT" * 250_000)[span.base :], ("two", "GG"))


def test_only_files_with_places_are_entered_midway(tmp_path):
    text = b">one\n" + b"ACGT\n" * 5_000
    for form, is_seekable in (("plain", True), ("bgzip", True), ("gzip", False)):
        path = tmp_path / form
        path.write_bytes(stored(text, form, range(500, len(text), 500)))
        with cut_small(1_000, 2_000):
            assert scan_fasta(str(path)).places.is_seekable is is_seekable


@pytest.mark.parametrize("at", [0.3, 0.7])
def test_damage_behind_a_place_is_refused_there(tmp_path, at):
    text = b">one\n" + b"ACGTACGT\n" * 2_000
    data = bytearray(stored(text, "bgzip", range(500, len(text), 500)))
    path = tmp_path / "x.fa.gz"
    path.write_bytes(data)
    with cut_small(1_000, 2_000):
        index = scan_fasta(str(path))
        data[int(len(data) * at)] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"x.fa.gz"):
            read_from(str(path), span_from(index, 0, int(16_000 * at) - 2_500))
        # A place behind the damage does not see it: only what is asked for is read.
        last = span_from(index, 0, 15_999)
        assert read_from(str(path), last) == [("one", ("ACGTACGT" * 2_000)[last.base :])]


def test_a_checksum_of_gzip_is_looked_at(tmp_path):
    path = tmp_path / "x.fa.gz"
    good = gzip.compress(b">one\n" + b"ACGT" * 100 + b"\n")
    wrong = good[:-8] + (zlib.crc32(b"other")).to_bytes(4, "little") + good[-4:]
    path.write_bytes(wrong)
    with pytest.raises(InputError, match="not readable as gzip"):
        scan_fasta(str(path))
