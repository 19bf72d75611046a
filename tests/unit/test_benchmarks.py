"""Benchmarks compare what arms deliver before they time it: the comparison must be able to fail."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.unit.test_documents import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import piped
import worker

CODES = np.array([[0, 1, 2, 4], [3, 3, 0, 1], [4, 4, 4, 4]], dtype=np.uint8)
LABELS = np.array([[0, 1], [2, 0], [255, 0]], dtype=np.uint8)
SSE = np.array([[[0.5], [np.nan]], [[np.nan], [np.nan]], [[0.0], [1.0]]], dtype=np.float32)


class Rows(worker.Arm):
    def __init__(self, order, codes=CODES, labels=LABELS, sse=SSE):
        self.order, self.arrays = order, (codes, labels, sse)

    def batches(self):
        for row in self.order:
            yield [array[row : row + 1] for array in self.arrays]

    def spell(self, batch):
        return worker.Spelled(*batch)


class Answering:
    """An arm at the other end of a pipe."""

    def __init__(self, found):
        self.found = found

    def ask(self, what):
        return self.found


def test_arms_agree_in_any_order_of_windows_and_whatever_the_ignore_code():
    masked = np.where(LABELS == 255, 0, LABELS)
    assert worker.check(Rows([0, 1, 2])) == worker.check(Rows([2, 0, 1], labels=masked))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("bases", {"codes": np.where(CODES == 2, 1, CODES)}),
        ("labels", {"labels": LABELS[:, ::-1]}),
        ("usage", {"sse": np.nan_to_num(SSE, nan=0.0)}),
        ("bases", {"codes": CODES[[0, 1, 1]]}),
    ],
    ids=["a base", "labels mirrored", "zero for not measured", "a window twice"],
)
def test_arms_that_differ_are_refused_by_field(field, change):
    arms = {
        "ours": Answering(worker.check(Rows([0, 1, 2]))),
        "other": Answering(worker.check(Rows([0, 1, 2], **change))),
    }
    with pytest.raises(SystemExit, match=f"arms differ in {field}"):
        piped.compare_contents(arms)


def test_arms_are_compared_in_what_both_deliver():
    whole = worker.check(Rows([0, 1, 2]))
    bases_only = {"windows": 3, "bases": whole["bases"], "disk_bytes": 0}
    assert piped.compare_contents({"ours": Answering(whole), "other": Answering(bases_only)})["other"] == bases_only
    with pytest.raises(SystemExit, match="arms differ in bases"):
        piped.compare_contents({"ours": Answering(whole), "other": Answering(bases_only | {"windows": 2})})


def test_codes_of_one_hot_take_a_row_of_zeros_for_n():
    one_hot = np.eye(5, 4, dtype=np.float32)[CODES]
    np.testing.assert_array_equal(worker.codes_of_one_hot(one_hot), CODES)


def test_peers_are_pinned_and_torch_comes_first():
    for steps in piped.peer_requirements().values():
        assert all("==" in requirement for step in steps for requirement in step)
        assert steps[0] == ["torch==2.13.0"]
