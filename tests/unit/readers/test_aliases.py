"""Contig aliases: tables in their spellings, and names that mean a contig, none, or two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import InputError
from splicestore.readers.aliases import read_aliases, resolve_contigs


def write(tmp_path, text: str) -> str:
    path = tmp_path / "aliases.tsv"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        "1\tchr1\nNC_000001.11\tchr1\n",
        "alias\tcontig\n1\tchr1\nNC_000001.11\tchr1\n",
        "contig\talias\nchr1\t1\nchr1\tNC_000001.11\n",
        "#alias\tchrom\tsource\n1\tchr1\tensembl\nNC_000001.11\tchr1\trefseq\n",
        "# ucsc\tassembly\tgenbank\trefseq\nchr1\t1\tCM000663.2\tNC_000001.11\n",
        "# sequenceName\talias names\tUCSC database: hg38\nchr1\t1\tCM000663.2\tNC_000001.11\n",
    ],
)
def test_every_spelling_of_a_table_leads_to_the_contig(tmp_path, text):
    aliases = read_aliases(write(tmp_path, text))
    assert resolve_contigs(["1", "NC_000001.11", "chr1"], ["chr1"], aliases) == (
        {"1": "chr1", "NC_000001.11": "chr1", "chr1": "chr1"},
        [],
    )


def test_a_table_works_whichever_of_its_names_the_fasta_has(tmp_path):
    aliases = read_aliases(write(tmp_path, "# ucsc\tassembly\trefseq\nchr1\t1\tNC_1\nchr2\t2\tNC_2\n"))
    assert resolve_contigs(["chr1", "2"], ["NC_1", "NC_2"], aliases) == ({"chr1": "NC_1", "2": "NC_2"}, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tchr1\n1\tchr2\n", r"line 2: '1' is given to the contigs 'chr1' and 'chr2'"),
        ("1\tchr1\nlonely\n", r"line 2: one column"),
        ("", r"no alias"),
    ],
)
def test_broken_tables_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_aliases(write(tmp_path, text))


@pytest.mark.parametrize(
    ("names", "contigs", "mapping", "unknown"),
    [
        (["1", "X"], ["chr1", "chrX"], {"1": "chr1", "X": "chrX"}, []),
        (["chr1"], ["1"], {"chr1": "1"}, []),
        (["Chr1"], ["chr1"], {"Chr1": "chr1"}, []),
        (["MT"], ["chrM"], {"MT": "chrM"}, []),
        (["chrM"], ["chrMT"], {"chrM": "chrMT"}, []),
        (["M"], ["MT", "chrM"], {}, ["M"]),
        (["M", "MT"], ["chrM"], {}, ["M", "MT"]),
        (["1", "chr1"], ["chr1"], {"chr1": "chr1"}, ["1"]),
        (["7", "7"], ["chr1"], {}, ["7"]),
    ],
)
def test_prefixes_count_only_where_unambiguous(names, contigs, mapping, unknown):
    assert resolve_contigs(names, contigs) == (mapping, unknown)


def test_two_contigs_under_one_alias_are_ambiguous():
    assert resolve_contigs(["A"], ["B", "C"], {"A": "D", "B": "D", "C": "D"}) == ({}, ["A"])


@given(
    names=st.lists(st.text("chrM1T", min_size=1, max_size=5)),
    contigs=st.lists(st.text("chrM1T", min_size=1, max_size=5), unique=True),
)
def test_every_name_is_either_mapped_or_unknown(names, contigs):
    mapping, unknown = resolve_contigs(names, contigs)
    assert set(mapping) | set(unknown) == set(names)
    assert not set(mapping) & set(unknown)
    assert set(mapping.values()) <= set(contigs)
    assert all(mapping[name] == name for name in names if name in contigs)
