"""The baseline every network must beat: position weight matrices of the two splice-site motifs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from splicestore.errors import ModelError
from splicestore.kernels.motif_matrix import (
    ACCEPTOR_MOTIF,
    DONOR_MOTIF,
    MotifShape,
    base_counts,
    log_odds,
    motif_counts,
    scan,
)
from splicestore.schema import LABEL_ACCEPTOR, LABEL_DONOR
from splicestore.stream.batch import Batch as AnyBatch

Batch = AnyBatch[Tensor]

_MOTIFS: tuple[tuple[str, int, MotifShape], ...] = (
    ("acceptor", LABEL_ACCEPTOR, ACCEPTOR_MOTIF),
    ("donor", LABEL_DONOR, DONOR_MOTIF),
)


@dataclass(frozen=True, slots=True, eq=False)
class MotifBaseline:
    """Counts of bases at acceptors (23-mer) and donors (9-mer) of the training windows."""

    acceptor: NDArray[np.int64]
    """(23, 4) counts: intron -20..-1, exon +1..+3."""
    donor: NDArray[np.int64]
    """(9, 4) counts: exon -3..-1, intron +1..+6."""
    background: NDArray[np.int64]
    """(4,) counts over all bases of the inputs."""
    n_windows: int

    @classmethod
    def from_batches(cls, batches: Iterable[Batch], max_windows: int | None = None) -> MotifBaseline:
        """Count motifs at the labelled sites of training windows.

        Parameters
        ----------
        batches
            Of the training subset; rows that pad a batch are left out.
        max_windows
            Stop after the batch that reaches this number.

        Raises
        ------
        ModelError
            If the windows hold no donor or no acceptor.
        """
        counts = {name: np.zeros((shape.length, 4), dtype=np.int64) for name, _, shape in _MOTIFS}
        background = np.zeros(4, dtype=np.int64)
        n_windows = 0
        for batch in batches:
            real = batch.window_id.cpu().numpy() >= 0
            codes, label = batch.sequence.cpu().numpy()[real], batch.label.cpu().numpy()[real]
            context = (codes.shape[1] - label.shape[1]) // 2
            background += base_counts(codes)
            for name, code, shape in _MOTIFS:
                row, position = np.nonzero(label == code)
                counts[name] += motif_counts(codes, row, position + context, shape)
            n_windows += len(codes)
            if max_windows is not None and n_windows >= max_windows:
                break
        if missing := [name for name in counts if not counts[name].any()]:
            raise ModelError(
                f"no {' and no '.join(missing)} in the {n_windows} training windows: a motif baseline needs both; "
                "check that the split's training genomes have an annotation"
            )
        return cls(counts["acceptor"], counts["donor"], background, n_windows)

    def score(self, codes: NDArray[np.uint8], window_size: int) -> NDArray[np.float32]:
        """Score every position of the windows.

        Parameters
        ----------
        codes : (B, L) uint8
            Inputs in transcript orientation, the window in their middle.
        window_size
            W, bp.

        Returns
        -------
        scores : (B, 2, W) float32
            log2 odds of the acceptor and the donor motif against the background.
        """
        first = (codes.shape[1] - window_size) // 2
        matrices = {"acceptor": self.acceptor, "donor": self.donor}
        return np.stack(
            [
                scan(codes, log_odds(matrices[name], self.background), shape, first, window_size)
                for name, _, shape in _MOTIFS
            ],
            axis=1,
        )

    def document(self) -> dict[str, Any]:
        """JSON-ready counts."""
        return {
            "acceptor": self.acceptor.tolist(),
            "donor": self.donor.tolist(),
            "background": self.background.tolist(),
            "n_windows": self.n_windows,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> MotifBaseline:
        """Read what ``document`` wrote.

        Raises
        ------
        ModelError
            If counts are missing or have another shape.
        """
        try:
            arrays = {k: np.asarray(document[k], dtype=np.int64) for k in ("acceptor", "donor", "background")}
            baseline = cls(**arrays, n_windows=int(document["n_windows"]))
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(
                f"not a motif baseline: {error!r}; it needs acceptor, donor, background, n_windows"
            ) from error
        shapes = (baseline.acceptor.shape, baseline.donor.shape, baseline.background.shape)
        if shapes != ((ACCEPTOR_MOTIF.length, 4), (DONOR_MOTIF.length, 4), (4,)):
            raise ModelError(f"not a motif baseline: counts have shapes {shapes}, expected (23, 4), (9, 4), (4,)")
        return baseline
