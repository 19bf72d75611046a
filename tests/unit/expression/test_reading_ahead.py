"""Tiles come in order, few of them at a time, and what goes wrong with one is said where it is used."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import StoreError
from splicestore.expression import read_ahead


@given(items=st.lists(st.integers(), max_size=12), n_ahead=st.integers(1, 4))
def test_items_are_read_once_and_come_in_order(items, n_ahead):
    read = []

    def square(item):
        read.append(item)
        return item * item

    assert list(read_ahead(square, items, n_ahead)) == [item * item for item in items]
    assert sorted(read) == sorted(items)


def test_no_more_are_read_than_are_ahead():
    started, lock = [], threading.Lock()

    def note(item):
        with lock:
            started.append(item)
        return item

    for number, item in enumerate(read_ahead(note, range(20), 2)):
        assert item == number
        assert len(started) <= number + 3


def test_the_next_is_read_while_one_is_worked_on():
    reached = [threading.Event() for _ in range(5)]

    def note(item):
        reached[item].set()
        return item

    for item in read_ahead(note, range(5), 1):
        assert reached[min(4, item + 1)].wait(timeout=20)


def test_an_error_comes_at_its_item():
    def refuse(item):
        if item == 2:
            raise StoreError("damaged")
        return np.full(3, item)

    tiles = read_ahead(refuse, range(5), 2)
    assert [next(tiles)[0], next(tiles)[0]] == [0, 1]
    with pytest.raises(StoreError, match="damaged"):
        next(tiles)
