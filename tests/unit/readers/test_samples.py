"""Sample sheets: which file belongs to which condition, and what is refused."""

from __future__ import annotations

import pytest

from splicestore.errors import InputError, SpliceStoreError
from splicestore.readers.samples import read_sample_sheet


def write(tmp_path, text: str, name="samples.tsv") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("separator", ["\t", ","])
def test_paths_are_relative_to_the_sheet_and_tissue_and_timepoint_make_the_condition(tmp_path, separator):
    (tmp_path / "a.tsv").write_text("x")
    rows = ["sample,file,tissue,timepoint", "s1,a.tsv,Brain,1", "s2,s3://bucket/b.tsv,Heart,", "s3,/abs/c.tsv,Brain,1"]
    files = read_sample_sheet(write(tmp_path, "\n".join(rows).replace(",", separator)))
    assert [f.file for f in files] == [str(tmp_path / "a.tsv"), "s3://bucket/b.tsv", "/abs/c.tsv"]
    assert [f.condition_id for f in files] == ["Brain_1", "Heart", "Brain_1"]


def test_format_and_convention_are_taken(tmp_path):
    text = "sample\tfile\tcondition\tformat\tconvention\ns1\ta\tBrain\tspliser\tsplicevo\ns2\tb\tBrain\t\t\n"
    files = read_sample_sheet(write(tmp_path, text))
    assert [(f.format, f.convention) for f in files] == [("spliser", "splicevo"), ("auto", "auto")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample\tcondition\ns1\tBrain\n", r"file"),
        ("sample\tfile\ns1\ta\n", r"condition"),
        ("sample\tfile\tcondition\ns1\ta\tBrain\ns1\ta\tHeart\n", r"line 3: sample 's1' of 'a' stands on line 2"),
        ("sample\tfile\tcondition\ns1\t\tBrain\n", r"line 2: sample 's1' has no file"),
        ("sample\tfile\tcondition\ns1\ta\tBrain\ns2\tb\t\n", r"line 3: sample 's2' has no condition"),
        ("sample\tfile\tcondition\ns1\ta\n", r"line 2: 2 fields, the header has 3"),
        ("sample\tfile\tcondition\tformat\ns1\ta\tBrain\tbam\n", r"line 2.*format"),
        ("", r"empty"),
    ],
)
def test_broken_sheets_are_refused(tmp_path, text, message):
    with pytest.raises(SpliceStoreError, match=message):
        read_sample_sheet(write(tmp_path, text))


def test_a_missing_sheet_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_sample_sheet(str(tmp_path / "none.tsv"))
