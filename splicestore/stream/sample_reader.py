"""Blocks of a matrix in memory, and batches of samples cut out of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.kernels.gather import cut_rows
from splicestore.stream.buffers import BufferRing, Make
from splicestore.stream.epoch import StepRows
from splicestore.stream.plan import Int64
from splicestore.stream.reader import BlockReader
from splicestore.stream.sample_batch import SampleBatch, TokenBatch
from splicestore.stream.sample_plan import MatrixSource, SamplePlan
from splicestore.stream.statistics import StreamStatistics
from splicestore.stream.token_view import TokenView, Vocabulary, view_tokens


@dataclass(frozen=True, slots=True)
class ReadRows:
    """A block whose rows all lie in its slot."""

    n_bytes: int


class SampleReader(BlockReader[ReadRows]):
    """Keeps blocks of rows in memory and cuts samples from them.

    Parameters
    ----------
    plan
        Which blocks there are.
    matrix
        Where they are read from.
    n_slots
        Blocks that samples are cut from at most.
    tokens
        How samples are seen as sequences, and their tokens; None: values gene by gene.
    statistics
        Counted up while reading.
    buffers
        Where batches are cut to; None: into new arrays.
    """

    _plan: SamplePlan

    def __init__(
        self,
        plan: SamplePlan,
        matrix: MatrixSource,
        n_slots: int,
        tokens: tuple[TokenView, Vocabulary] | None,
        statistics: StreamStatistics,
        buffers: BufferRing | None = None,
    ) -> None:
        super().__init__(plan, n_slots, statistics, buffers)
        self._matrix, self._tokens = matrix, tokens
        # Not touched before a block is read into it, so it takes memory only as blocks become live.
        self._values = np.empty((self._n_places, matrix.rows_at_once, matrix.n_genes), dtype=matrix.dtype)

    def _read(self, block: int, slot: int) -> ReadRows:
        first, last = int(self._plan.block_first[block]), int(self._plan.block_last[block])
        out = self._values[slot, : last - first]
        self._matrix.read_rows(first, last, out)
        return ReadRows(out.nbytes)

    def _put(self, block: int, slot: int, content: ReadRows) -> None:
        """All of it lies there already."""

    def _cut_live(
        self, step: StepRows, block: Int64, slot: Int64, epoch: int, make: Make
    ) -> SampleBatch[NDArray[Any]] | TokenBatch[NDArray[Any]]:
        plan = self._plan
        row = plan.sample_row[step.row]
        batch = SampleBatch(
            values=cut_rows(self._values, slot, row - plan.block_first[block], plan.column, make),
            sample_row=np.where(step.repeated, -1, row),
            step=step.step,
            global_rows=step.global_rows,
        )
        if self._tokens is None:
            return batch
        view, vocabulary = self._tokens
        return view_tokens(view, vocabulary, batch, plan.options.seed, epoch)
