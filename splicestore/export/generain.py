"""``export generain``: the files that GeneRAIN's training and inference read, streamed by rows of samples and bands of genes.

``NAME_bin_totB_final_EMB_chunk_I.npy`` (sample, gene) float32 bins of the fitted samples, contiguous chunks in their order ·
``NAME_with_zero_expr_genes.gene_stat_filt_on_z_dup.tsv`` gene_symbol, gene_mean, gene_std, max_mean_nondup of every gene ·
``NAME_gene_to_idx.json`` symbol to token, from 3 on · ``NAME_bin_totB_EMB_0.005_subsampled.npy`` (reference, gene) float32, of each
gene's sorted scores every two-hundredth, zeros included, with its ``.gene_symbols.txt``.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError
from splicestore.expression import Expression, sample_tiles
from splicestore.kernels.binning import score_counts
from splicestore.kernels.ortholog_tokens import FIRST_GENE_TOKEN
from splicestore.normalized import Bins, Normalized
from splicestore.storage.outputs import OutputFolder, output_folder
from splicestore.store import Store

REFERENCE_SHARE = 0.005
_ROWS_AT_ONCE = 1024
_GENES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class GeneRainReport:
    """What was written."""

    folder: str
    n_samples: int
    n_genes: int
    n_reference: int
    files: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


def export_generain(
    store: Store,
    bins: str,
    out: str,
    *,
    n_chunks: int = 5,
    embedding: str = "splicestore",
    tokens: str | None = None,
    overwrite: bool = False,
) -> GeneRainReport:
    """Write the bins of the samples that edges were fitted to, as GeneRAIN's files.

    Parameters
    ----------
    bins
        Name of bins of the counts that the edges were fitted to; genes without a symbol are named by their id.
    out
        Folder to write.
    n_chunks
        Files of samples.
    embedding
        Stands in the names of files, where GeneRAIN has its gene embedding's name.
    tokens
        Name of tokens of these bins, as of several species; None numbers the genes in their order.

    Raises
    ------
    ConfigError
        If the bins are of other counts than the edges, the edges of more samples than the counts, two genes have one symbol, or the
        tokens are of other bins.
    """
    view = store.bins[bins]
    fitted = store.normalized.at(*view.normalized)
    if view.expression != fitted.expression:
        raise ConfigError(
            f"bins {bins} are of expression {view.expression[0]}, their edges were fitted to {fitted.expression[0]}: "
            "GeneRAIN's files are of the fitted samples"
        )
    if "extends" in fitted.attributes:
        raise ConfigError(
            f"bins {bins}: {fitted.name} extends a fit to other counts, whose samples are not in {view.expression[0]}: "
            "GeneRAIN's files are of all fitted samples; fit to one matrix of all"
        )
    counts = store.expression.at(*fitted.expression)
    symbols = [symbol or gene for symbol, gene in zip(view.gene_symbols, view.gene_ids, strict=True)]
    if len(set(symbols)) < len(symbols):
        raise ConfigError(f"bins {bins}: two genes have one symbol; apply the edges without --all-genes")
    numbers = list(range(FIRST_GENE_TOKEN, FIRST_GENE_TOKEN + len(symbols)))
    if tokens is not None:
        numbers = store.tokens[tokens].token_of(view).tolist()
    rows = np.flatnonzero(fitted.array("sample_is_fitted"))
    genes = np.flatnonzero(fitted.gene_is_kept | view.attributes["options"]["all_genes"])
    name, total = bins, fitted.n_bins
    with output_folder(out, overwrite=overwrite) as output:
        files = _write_bins(output, view, rows, n_chunks, f"{name}_bin_tot{total}_final_{embedding}")
        statistics = f"{name}_with_zero_expr_genes.gene_stat_filt_on_z_dup.tsv"
        output.write_text(statistics, _gene_statistics(fitted))
        output.write_text(f"{name}_gene_to_idx.json", json.dumps(dict(zip(symbols, numbers, strict=True)), indent=1))
        reference = f"{name}_bin_tot{total}_{embedding}_{REFERENCE_SHARE}_subsampled"
        n_reference = _write_reference(output, counts, rows, genes, reference)
        output.write_text(f"{reference}.gene_symbols.txt", "".join(f"{symbol}\n" for symbol in symbols))
    written = (*files, statistics, f"{name}_gene_to_idx.json", f"{reference}.npy", f"{reference}.gene_symbols.txt")
    return GeneRainReport(out, len(rows), len(symbols), n_reference, written)


def _write_bins(output: OutputFolder, view: Bins, rows: NDArray[np.int64], n_chunks: int, stem: str) -> list[str]:
    step, files = -(-len(rows) // n_chunks), []
    for chunk in range(n_chunks):
        mine = rows[chunk * step : (chunk + 1) * step]
        files.append(f"{stem}_chunk_{chunk}.npy")
        with output.open_binary(files[-1]) as stream:
            _write_header(stream, (len(mine), view.n_genes))
            for first in range(0, len(mine), _ROWS_AT_ONCE):
                some = mine[first : first + _ROWS_AT_ONCE]
                block = view.read(slice(int(some[0]), int(some[-1]) + 1))[some - some[0]]
                stream.write(block.astype("<f4").tobytes())
    return files


def _write_header(stream: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _gene_statistics(fitted: Normalized) -> str:
    symbols = [symbol or gene for symbol, gene in zip(fitted.gene_symbols, fitted.gene_ids, strict=True)]
    mean, std = fitted.array("gene_mean").tolist(), fitted.array("gene_std").tolist()
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["gene_symbol", "gene_mean", "gene_std", "max_mean_nondup"])
    writer.writerows(zip(symbols, map(repr, mean), map(repr, std), fitted.gene_is_kept.tolist(), strict=True))
    return text.getvalue()


def _write_reference(
    output: OutputFolder, counts: Expression, rows: NDArray[np.int64], genes: NDArray[np.int64], stem: str
) -> int:
    """Write evenly spaced ranks of every gene's sorted scores; returns how many."""
    n = int(REFERENCE_SHARE * len(rows))
    picked = np.linspace(0, len(rows) - 1, n).astype(np.int64)
    reference = np.empty((n, len(genes)), dtype="<f4")
    for first in range(0, counts.n_genes, _GENES_AT_ONCE):
        last = min(counts.n_genes, first + _GENES_AT_ONCE)
        mine = np.flatnonzero((genes >= first) & (genes < last))
        if not len(mine):
            continue
        scores = [
            score_counts(np.ascontiguousarray(tile[:, genes[mine] - first]), counts.sample_total[some])
            for tile, some in sample_tiles(counts, rows, slice(first, last))
        ]
        reference[:, mine] = np.sort(np.concatenate(scores), axis=0)[picked]
    with output.open_binary(f"{stem}.npy") as stream:
        _write_header(stream, reference.shape)
        stream.write(reference.tobytes())
    return n
