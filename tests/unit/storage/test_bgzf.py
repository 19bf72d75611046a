"""bgzip against gzip: any block sizes, any place to begin, any cut, any flipped byte."""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicestore.errors import InputError
from splicestore.storage import bgzf
from splicestore.storage.bgzf import BgzfReader, block_size, is_bgzf
from splicestore.storage.inputs import input_places, open_input

END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that bgzip closes a file with."""


def block(text: bytes, *, level=6, extra=b"") -> bytes:
    """One block; ``extra`` goes before the field that holds the block's size."""
    squeezed = zlib.compressobj(level, zlib.DEFLATED, -15)
    body = squeezed.compress(text) + squeezed.flush()
    n_extra = len(extra) + 6
    size = 12 + n_extra + len(body) + 8
    head = (
        b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"
        + struct.pack("<H", n_extra)
        + extra
        + b"BC\x02\0"
        + struct.pack("<H", size - 1)
    )
    return head + body + struct.pack("<II", zlib.crc32(text), len(text))


def spell(text: bytes, cuts, *, end=True, **options) -> bytes:
    """Bgzip a text cut at these places."""
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    blocks = [block(text[a:b], **options) for a, b in zip(places, places[1:], strict=False)]
    return b"".join(blocks) + (END if end else b"")


def read(data: bytes, n: int = -1) -> bytes:
    reader = BgzfReader("x.gz", io.BytesIO(data))
    if n < 0:
        return reader.read()
    return b"".join(iter(lambda: reader.read(n), b""))


TEXTS = st.integers(0, 2**32).map(lambda seed: random.Random(seed).choices(b"ACGTN\n>c1", k=seed % 3_000)).map(bytes)


@pytest.fixture
def small_runs(monkeypatch):
    """Runs of about two blocks, so that small files have many."""
    monkeypatch.setattr(bgzf, "RUN_BYTES", 400)


@given(text=TEXTS, cuts=st.lists(st.integers(0, 3_000), max_size=12), n=st.integers(1, 700), end=st.booleans(),
       level=st.sampled_from([0, 1, 6, 9]), run=st.sampled_from([1, 17, 18, 100, 400, 1_000, 1 << 20]))  # fmt: skip
def test_it_is_gzip(text, cuts, n, end, level, run):
    data = spell(text, cuts, end=end, level=level)
    assert is_bgzf(data)
    before = bgzf.RUN_BYTES
    bgzf.RUN_BYTES = max(run, *_sizes(data))
    try:
        assert read(data, n) == gzip.decompress(data) == text
    finally:
        bgzf.RUN_BYTES = before


def _sizes(data: bytes) -> list[int]:
    sizes, at = [0], 0
    while at < len(data):
        sizes.append(block_size(data, at))
        at += sizes[-1]
    return sizes


@given(text=TEXTS, cuts=st.lists(st.integers(0, 3_000), min_size=3, max_size=12))
def test_reading_begins_at_any_checkpoint(text, cuts):
    data = spell(text, cuts, level=0)
    before = bgzf.RUN_BYTES
    bgzf.RUN_BYTES = max(500, *_sizes(data))
    try:
        whole = BgzfReader("x", io.BytesIO(data))
        assert whole.read() == text
        offsets = [at for at, _ in whole.checkpoints]
        assert offsets == sorted(offsets)
        assert len(set(offsets)) == len(offsets)
        for stored, at in whole.checkpoints:
            stream = io.BytesIO(data)
            stream.seek(stored)
            assert BgzfReader("x", stream).read() == text[at:]
    finally:
        bgzf.RUN_BYTES = before


@pytest.mark.parametrize(
    "data",
    [END, END * 3, block(b""), block(b"ACGT") + END + block(b"GG") + END, block(b"A" * 65_280, level=0) + END,
     block(b"ACGT", extra=b"XY\x03\0abc") + END],
    ids=["end", "three ends", "empty block", "an end inside", "largest block", "another field first"],
)  # fmt: skip
def test_corners(data):
    assert is_bgzf(data)
    assert read(data) == gzip.decompress(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1f\x8b", gzip.compress(b"ACGT"), b">c1\nACGT\n", END[:17]],
    ids=["nothing", "two bytes", "gzip", "text", "a cut header"],
)
def test_what_is_not_bgzip_is_not_taken_for_it(data):
    assert not is_bgzf(data)


def test_pysam_wrote_it(tmp_path):
    pysam = pytest.importorskip("pysam", reason="pip install pysam to compare with htslib's files")
    text = bytes(random.Random(3).choices(b"ACGT\n", k=400_000))
    with pysam.BGZFile(str(tmp_path / "x.gz"), "wb") as file:
        file.write(text)
    data = (tmp_path / "x.gz").read_bytes()
    assert len(_sizes(data)) > 4
    assert read(data) == text


# -- damage ------------------------------------------------------------------------------------------------------

TEXT = bytes(random.Random(7).choices(b"ACGTN\n", k=900))
SPELLED = spell(TEXT, [10, 10, 200, 430, 431, 800])


def borders(data: bytes) -> set[int]:
    """Offsets at which blocks begin, and the end."""
    at = 0
    found = {0}
    while at < len(data):
        at += block_size(data, at)
        found.add(at)
    return found


@pytest.mark.parametrize("n_run", [60, 1 << 20], ids=["runs", "whole"])
def test_a_file_cut_inside_a_block_is_refused_and_between_blocks_reads_as_gzip_does(monkeypatch, n_run):
    monkeypatch.setattr(bgzf, "RUN_BYTES", max(n_run, *_sizes(SPELLED)))
    ends = borders(SPELLED)
    for cut in range(1, len(SPELLED)):
        if cut in ends:
            assert read(SPELLED[:cut]) == gzip.decompress(SPELLED[:cut])
        else:
            with pytest.raises(InputError, match=r"^x.gz: bgzip stream ends early, the file is truncated \(byte \d+\)"):
                read(SPELLED[:cut])


@pytest.mark.parametrize("n_run", [60, 1 << 20], ids=["runs", "whole"])
def test_a_flipped_byte_is_refused_or_changes_nothing(monkeypatch, n_run):
    monkeypatch.setattr(bgzf, "RUN_BYTES", max(n_run, *_sizes(SPELLED)))
    harmless = 0
    for at in range(len(SPELLED)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(SPELLED)
            damaged[at] ^= mask
            try:
                text, said = read(bytes(damaged)), "x.gz: "
                harmless += 1
            except InputError as error:
                text, said = TEXT, str(error)
            assert text == TEXT, f"byte {at} ^ {mask:#x}"
            assert re.fullmatch("x.gz: .*", said), said
    # Time stamp, extra flags and system of 8 headers: no reader looks at them.
    assert 0 < harmless < len(SPELLED)


@settings(max_examples=150)
@given(data=st.binary(max_size=120), at=st.integers(0, len(SPELLED)))
def test_garbage_anywhere_is_refused_or_changes_nothing(data, at):
    spoiled = SPELLED[:at] + data + SPELLED[at:]
    try:
        text = read(spoiled)
    except InputError:
        return
    assert text == gzip.decompress(spoiled)


@pytest.mark.parametrize("tail", [b"\0", b"junk", b"\x1f\x8b", b"\x1f\x8b\x08\x04" + b"\0" * 30])
def test_bytes_behind_the_last_block_are_refused(tail):
    with pytest.raises(InputError, match=r"^x.gz: .*copy or download it again"):
        read(SPELLED + tail)


def test_plain_gzip_behind_bgzip_is_refused_not_lost():
    with pytest.raises(InputError, match="not readable as bgzip"):
        read(SPELLED + gzip.compress(b"ACGT" * 50))


# -- through open_input ------------------------------------------------------------------------------------------


@given(text=TEXTS, cuts=st.lists(st.integers(0, 3_000), min_size=4, max_size=12), want=st.integers(0, 3_000))
def test_an_input_is_entered_at_any_byte(tmp_path_factory, text, cuts, want):
    path = tmp_path_factory.mktemp("bgzf") / "x"
    before = bgzf.RUN_BYTES
    for data in (text, spell(text, cuts, level=0), gzip.compress(text)):
        bgzf.RUN_BYTES = 600 if not is_bgzf(data) else max(600, *_sizes(data))
        path.write_bytes(data)
        try:
            with open_input(str(path)) as stream:
                assert stream.read() == text
                stored, skip = input_places(stream).before(min(want, len(text)))
            with open_input(str(path), start=stored) as stream:
                assert stream.read()[skip:] == text[want:]
        finally:
            bgzf.RUN_BYTES = before


@pytest.mark.usefixtures("small_runs")
def test_a_truncated_input_is_named_by_its_path(tmp_path):
    path = tmp_path / "x.fa.gz"
    path.write_bytes(SPELLED[:-40])
    with open_input(str(path)) as stream, pytest.raises(InputError, match=r"x.fa.gz: bgzip stream ends early"):
        stream.read()
