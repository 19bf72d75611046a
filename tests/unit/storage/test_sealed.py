"""Sealed documents: what is read is what was sealed, to the byte, or it is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import StoreError
from splicestore.storage import StoreRoot, read_sealed
from splicestore.storage.sealed import BLANK, SEAL_KEY, is_intact, parse_sealed, seal_bytes, seal_document

words = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words.filter(lambda w: w != SEAL_KEY), inner, max_size=3)
    ),
    max_leaves=8,
)
documents = st.dictionaries(words.filter(lambda w: w != SEAL_KEY), values, max_size=4)


def opened(data):
    document = parse_sealed(data, "here")
    document.pop(SEAL_KEY)
    return document


@given(document=documents)
def test_what_is_read_is_what_was_sealed(document):
    data = seal_document(document)
    assert is_intact(data)
    assert opened(data) == document


@given(document=documents, data=st.data())
def test_any_other_byte_is_refused(document, data):
    sealed = bytearray(seal_document(document))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    assert not is_intact(bytes(sealed))
    with pytest.raises(StoreError, match=r"here: the document is damaged .*splicestore verify"):
        parse_sealed(bytes(sealed), "here")


@given(document=documents, data=st.data())
def test_a_shorter_document_is_refused(document, data):
    sealed = seal_document(document)
    assert not is_intact(sealed[: data.draw(st.integers(0, len(sealed) - 1))])


def test_a_value_that_looks_like_a_blank_seal_is_kept():
    document = {"digest": BLANK, "n": 1}
    assert opened(seal_document(document)) == document


def test_a_seal_in_a_string_is_only_a_string():
    document = {"note": f'"seal": "{BLANK[:-1]}1"'}
    assert opened(seal_document(document)) == document


@pytest.mark.parametrize("n_seals", [0, 2])
def test_a_document_holds_one_blank_seal(n_seals):
    document = {"parts": [{SEAL_KEY: BLANK}] * n_seals}
    with pytest.raises(ValueError, match=f"holds one blank seal, this one has {n_seals}"):
        seal_bytes(json.dumps(document).encode())


def test_a_seal_from_another_document_is_refused():
    one, two = seal_document({"current": "a"}), seal_document({"current": "b"})
    seal = json.loads(one)[SEAL_KEY].encode()
    assert not is_intact(two.replace(json.loads(two)[SEAL_KEY].encode(), seal))


def test_reading_from_a_store(tmp_path):
    root = StoreRoot(str(tmp_path))
    assert read_sealed(root, "a.json") is None
    root.put("a.json", seal_document({"n": 1}))
    assert read_sealed(root, "a.json")["n"] == 1
    root.put("a.json", seal_document({"n": 1}).replace(b'"n": 1', b'"n": 2'))
    with pytest.raises(StoreError, match=r"a\.json: the document is damaged"):
        read_sealed(root, "a.json")
