"""The table: one line per splice site and sample, in SpliSER's columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from splicestore.kernels.alignments import Int64
from splicestore.kernels.site_counts import SiteUsage

_ONE_SAMPLE = (
    "Region", "Site", "Strand", "Gene", "SSE", "alpha_count", "beta1_count", "beta2Simple_count",
    "beta2Cryptic_count", "beta2Cryptic_weighted", "Partners", "Competitors",
)  # fmt: skip
_STRANDS = {1: "+", -1: "-", 0: "?"}


def table_header(n_samples: int) -> str:
    """Columns of SpliSER's ``process`` for one sample, of its ``combine`` for several."""
    if n_samples == 1:
        return "\t".join(_ONE_SAMPLE)
    return "\t".join(("Sample", *_ONE_SAMPLE)).replace("beta2Cryptic_weighted", "beta2_weighted")


def table_lines(contig: str, usage: SiteUsage, genes: Sequence[str], samples: Sequence[str]) -> Iterator[str]:
    """Spell the sites of one contig: site by site, and the samples of a site in their order.

    ``SSE`` has three decimals and is ``NA`` where nothing was counted; the counts decide. ``Partners`` is
    ``{position: reads of the sample}``, ``Competitors`` a list of positions.
    """
    columns = [_sample_cells(usage, i) for i in range(len(samples))]
    names = [f"{name}\t" for name in samples] if len(samples) > 1 else [""]
    competitors = [f"[{text}]" for text in _grouped([str(c) for c in usage.competitor.tolist()], usage.competitor_ptr)]
    heads = zip(usage.position.tolist(), usage.strand.tolist(), genes, competitors, strict=True)
    for row, (position, strand, gene, others) in enumerate(heads):
        head = f"{contig}\t{position}\t{_STRANDS[strand]}\t{gene}"
        for name, (counts, partners) in zip(names, columns, strict=True):
            yield f"{name}{head}\t{counts[row]}\tNA\tNA\t{{{partners[row]}}}\t{others}"


def _sample_cells(usage: SiteUsage, sample: int) -> tuple[list[str], list[str]]:
    alpha, beta1, beta2 = (a[:, sample] for a in (usage.alpha, usage.beta1, usage.beta2))
    total = alpha + beta1 + beta2
    share = np.divide(alpha, total, out=np.zeros(len(total)), where=total > 0)
    counts = [
        f"{f'{s:.3f}' if n else 'NA'}\t{a}\t{b1}\t{b2}"
        for s, n, a, b1, b2 in zip(*(c.tolist() for c in (share, total, alpha, beta1, beta2)), strict=True)
    ]
    pairs = zip(usage.partner.tolist(), usage.partner_reads[:, sample].tolist(), strict=True)
    return counts, _grouped([f"{position}: {reads}" for position, reads in pairs], usage.partner_ptr)


def _grouped(cells: Sequence[str], ptr: Int64) -> list[str]:
    edges = ptr.tolist()
    return [", ".join(cells[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
