"""FASTA: contigs, codes and every refusal, against a line-by-line reading."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import InputError
from splicestore.kernels.sequence import decode_bases
from splicestore.readers import fasta
from splicestore.readers.fasta import FastaContig, read_fasta_codes, scan_fasta


def write(tmp_path, data: bytes, name="x.fa") -> str:
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


def read_all(url: str, **options) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, codes in read_fasta_codes(url, **options):
        found[name] = found.get(name, "") + decode_bases(codes)
    return found


def plain_reading(text: str) -> dict[str, str]:
    """One line at a time, the obvious way."""
    records: dict[str, str] = {}
    name = ""
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith(">"):
            name = line[1:].split()[0]
            records[name] = ""
        elif line:
            records[name] += "".join(c if c in "ACGT" else "T" if c == "U" else "N" for c in line.upper())
    return records


@st.composite
def fasta_texts(draw) -> str:
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = draw(st.sampled_from(["", end]))
    for i in range(draw(st.integers(1, 5))):
        text += f">c{i}{draw(st.sampled_from(['', ' a > description', chr(9) + 'x']))}{end}"
        lines = draw(st.lists(st.text("ACGTNacgtnRYU-", max_size=25), min_size=1, max_size=6))
        text += end.join([*lines, "A"]) + end
    return text if draw(st.booleans()) else text.rstrip("\r\n")


@given(text=fasta_texts(), slab=st.integers(1, 60))
def test_any_slab_size_reads_what_lines_read(tmp_path_factory, text, slab):
    url = write(tmp_path_factory.mktemp("fasta"), text.encode())
    before = fasta.SLAB_BYTES
    fasta.SLAB_BYTES = slab
    try:
        contigs, bases = list(scan_fasta(url).contigs), read_all(url)
    finally:
        fasta.SLAB_BYTES = before
    expected = plain_reading(text)
    assert bases == expected
    assert contigs == [FastaContig(name, len(seq)) for name, seq in expected.items()]


def test_a_slab_never_exceeds_8_mib_even_of_one_line(tmp_path):
    url = write(tmp_path, b">one\n" + b"ACGT" * 5_000_000 + b"\n>two\nGG\n")
    sizes = [(name, len(codes)) for name, codes in read_fasta_codes(url)]
    assert max(n for _, n in sizes) <= 8 * 1024 * 1024
    assert sum(n for name, n in sizes if name == "one") == 20_000_000
    assert sizes[-1] == ("two", 2)


def test_ambiguity_is_n_and_uracil_is_t(tmp_path):
    assert read_all(write(tmp_path, b">c\nacgtuRyN-*.\n")) == {"c": "ACGTTNNNNNN"}


def test_wanted_contigs_only_in_file_order(tmp_path):
    url = write(tmp_path, b">a\nA\n>b\nC\n>c\nG\n")
    assert list(read_all(url, wanted=["c", "a"])) == ["a", "c"]


def test_a_wanted_contig_that_is_missing_is_named_with_close_ones(tmp_path):
    url = write(tmp_path, b">chr10\nA\n>chr11\nC\n")
    with pytest.raises(InputError, match=r"no contig 'chr12'.*did you mean chr1[01]"):
        list(read_fasta_codes(url, wanted=["chr12"]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b">a\nAC\n>b\nA\n>a\nC\n", r"line 5: contig 'a' comes a second time"),
        (b">a\n>b\nAC\n", r"line 1: contig 'a' has no bases"),
        (b">a\nA\n>b x\n\n\n", r"line 3: contig 'b' has no bases"),
        (b"ACGT\n>a\nA\n", r"line 1: text before the first header"),
        (b"\n\nx\n>a\nA\n", r"line 3: text before the first header \(b'x'\)"),
        (b">a\nACGT\nACJT\n", r"line 3: contig 'a' has the byte b'J' \(0x4a\)"),
        (b">a\nACGT\nAC GT\n", r"line 3: contig 'a' has the byte b' '"),
        (b">a\nAC>GT\n", r"line 2: contig 'a' has the byte b'>'"),
        (b">a\nAC\n>b\nA\x00C\n", r"line 4: contig 'b' has the byte b'\\x00' \(0x00\)"),
        (b">a\nAC\n>b\nA\xffC\n", r"line 4: contig 'b' has the byte b'\\xff' \(0xff\)"),
        (b">\nACGT\n", r"line 1: a header without a name"),
        (b"> a\nACGT\n", r"line 1: a header without a name"),
        (b"", r"no FASTA record"),
        (b"\n\n", r"no FASTA record"),
    ],
)
@pytest.mark.parametrize("slab", [1, 3, 8 * 1024 * 1024])
def test_what_is_wrong_is_refused_with_its_line(tmp_path, monkeypatch, data, message, slab):
    monkeypatch.setattr(fasta, "SLAB_BYTES", slab)
    url = write(tmp_path, data)
    with pytest.raises(InputError, match=message):
        scan_fasta(url)
    with pytest.raises(InputError, match=message):
        list(read_fasta_codes(url))


def test_truncated_gzip_is_refused(tmp_path):
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        stream.write(b">a\n" + np.random.default_rng(0).choice(list(b"ACGT"), 100_000).astype(np.uint8).tobytes())
    url = write(tmp_path, buffer.getvalue()[:-2_000], "x.fa.gz")
    with pytest.raises(InputError, match=r"x\.fa\.gz: gzip stream ends early"):
        scan_fasta(url)


def test_an_endless_header_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fasta, "MAX_HEADER_BYTES", 100)
    with pytest.raises(InputError, match="longer than 100 bytes"):
        scan_fasta(write(tmp_path, b">" + b"x" * 500))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "n_contigs", "n_bases"),
    [
        ("vertebrates/hg38.fa.gz", 1, 210_155),
        ("yeast/S288C.R64-2-1.fa.gz", 17, 12_157_105),
        ("yeast/CPG_1a.fa.gz", 16, 12_121_362),
    ],
)
def test_real_genomes_have_their_published_sizes(data_dir, name, n_contigs, n_bases):
    contigs = list(scan_fasta(str(data_dir / name)).contigs)
    assert (len(contigs), sum(c.length for c in contigs)) == (n_contigs, n_bases)
