"""Windows of a genome, one at a time: where they lie, their bases, labels and usage, by strings and lists.

A window is (contig, start, strand, genes): `start` is the contig position of its centre [start, start + W), genes
the sorted ids of the genes on the window's strand whose body meets the centre.
"""

from __future__ import annotations

from typing import Any

from tests.oracles.genome_oracle import Genome, complement, reverse_complement
from tests.oracles.usage_oracle import Counts, Site, alpha_zero, sse

Window = tuple[str, int, int, tuple[str, ...]]
Usage = dict[Site, dict[str, Counts]]

NO_SITE, IGNORE = 0, 255
LABEL_CODES = {"acceptor": 1, "donor": 2}
SPLICEVO_LABEL_CODES = {"donor": 1, "acceptor": 2}
SPLICEVO_ALPHA_THRESHOLD = 5


def site_spans(genome: Genome) -> dict[str, tuple[int, int]]:
    """[first site, last site] of every gene with sites, as a half-open span that holds both."""
    positions: dict[str, list[int]] = {}
    for site, genes in genome["site_genes"].items():
        for gene_id in genes:
            positions.setdefault(gene_id, []).append(site[1])
    return {gene_id: (min(found), max(found) + 1) for gene_id, found in positions.items()}


def regions(genome: Genome, region: str) -> list[tuple[str, int, int, int]]:
    """(contig, start, end, strand) to be tiled.

    "gene": gene bodies. "sites": first to last site of each gene that has sites. "genome": whole contigs, on both
    strands. A genome without genes is tiled whole on + whatever the region.
    """
    if region == "genome" or not genome["genes"]:
        strands = (-1, 1) if genome["genes"] else (1,)
        return [(name, 0, len(bases), strand) for name, bases in genome["contigs"].items() for strand in strands]
    spans = site_spans(genome)
    found = []
    for gene_id, gene in genome["genes"].items():
        if region == "gene":
            found.append((gene["contig"], gene["start"], gene["end"], gene["strand"]))
        elif gene_id in spans:
            found.append((gene["contig"], *spans[gene_id], gene["strand"]))
    return found


def grid_starts(start: int, end: int, window_size: int) -> list[int]:
    """Starts of the cells [j*W, (j+1)*W) that meet [start, end)."""
    return [cell * window_size for cell in range(start // window_size, (end - 1) // window_size + 1)]


def region_starts(start: int, end: int, window_size: int) -> list[int]:
    """ceil(span / W) tiles from the region's start; a region shorter than W is centred, the odd base on the right."""
    span = end - start
    if span < window_size:
        return [start - (window_size - span) // 2]
    return [start + tile * window_size for tile in range(-(-span // window_size))]


def windows(
    genome: Genome,
    window_size: int,
    *,
    region: str = "gene",
    anchor: str = "grid",
    geneless: bool = False,
) -> list[Window]:
    """All windows, each interval once, sorted by contig order, start, strand (-1 before +1).

    `geneless` adds the + strand grid cells that no gene body meets on either strand. Whole contigs are always cut from
    their first base: only short genes are padded.
    """
    places = set()
    whole_contigs = region == "genome" or not genome["genes"]
    for contig, start, end, strand in regions(genome, region):
        tile = grid_starts if anchor == "grid" or whole_contigs else region_starts
        for window_start in tile(start, end, window_size):
            if window_start < len(genome["contigs"][contig]):
                places.add((contig, window_start, strand))
    if geneless:
        met = set()
        for gene in genome["genes"].values():
            for cell in grid_starts(gene["start"], gene["end"], window_size):
                met.add((gene["contig"], cell))
        for contig, bases in genome["contigs"].items():
            for cell in grid_starts(0, len(bases), window_size):
                if (contig, cell) not in met:
                    places.add((contig, cell, 1))
    return link_genes(genome, places, window_size)


def link_genes(genome: Genome, places: set[tuple[str, int, int]], window_size: int) -> list[Window]:
    """Sort places and add the genes of the window's strand whose body meets the centre."""
    order = {contig: number for number, contig in enumerate(genome["contigs"])}
    by_strand: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    for gene_id, gene in genome["genes"].items():
        key = (gene["contig"], gene["strand"])
        by_strand.setdefault(key, []).append((gene["start"], gene["end"], gene_id))
    found = []
    for contig, start, strand in sorted(places, key=lambda place: (order[place[0]], place[1], place[2])):
        genes = [
            gene_id
            for gene_start, gene_end, gene_id in by_strand.get((contig, strand), [])
            if gene_start < start + window_size and start < gene_end
        ]
        found.append((contig, start, strand, tuple(sorted(genes))))
    return found


def input_sequence(
    genome: Genome,
    window: Window,
    window_size: int,
    context_size: int,
    *,
    minus: str = "reverse_complement",
    flank: str = "genome",
) -> str:
    """Bases of [start - K, start + W + K), N off the contig; a - window reverse-complemented.

    minus="complement" (SplicEvo) complements a - window without turning it round. flank="N" (SpliceAI) shows only bases
    of the window's genes, all others are N.
    """
    contig, start, strand = window[:3]
    bases = genome["contigs"][contig]
    shown = [(0, len(bases))]
    if flank == "N":
        shown = [(genome["genes"][gene]["start"], genome["genes"][gene]["end"]) for gene in window[3]]
    text = "".join(
        bases[position] if any(low <= position < high for low, high in shown) else "N"
        for position in range(start - context_size, start + window_size + context_size)
    )
    if strand == 1:
        return text
    return reverse_complement(text) if minus == "reverse_complement" else complement(text)


def centre_positions(window: Window, window_size: int, *, minus: str = "reverse_complement") -> list[int]:
    """Contig positions of the centre in the order in which the window shows them."""
    positions = list(range(window[1], window[1] + window_size))
    return positions[::-1] if window[2] == -1 and minus == "reverse_complement" else positions


def labels(
    genome: Genome,
    window: Window,
    window_size: int,
    *,
    minus: str = "reverse_complement",
    codes: dict[str, int] | None = None,
    both: str = "mask",
) -> list[int]:
    """0 none, 1 acceptor, 2 donor for all sites of the window's strand; 255 off the contig and where a base is both.

    both="donor" or "acceptor" gives a base that is both the code of that kind instead.
    """
    codes = codes or LABEL_CODES
    contig, _, strand = window[:3]
    found = []
    for position in centre_positions(window, window_size, minus=minus):
        kinds = genome["sites"].get((contig, position, strand), set())
        if not 0 <= position < len(genome["contigs"][contig]):
            found.append(IGNORE)
        elif len(kinds) == 2:
            found.append(IGNORE if both == "mask" else codes[both])
        elif kinds:
            found.append(codes[next(iter(kinds))])
        else:
            found.append(NO_SITE)
    return found


def usage(
    window: Window,
    window_size: int,
    counts: Usage,
    conditions: list[str],
    *,
    min_reads: float = 10,
    alpha_threshold: float | None = None,
    minus: str = "reverse_complement",
) -> dict[str, list[list[float | None]]]:
    """alpha, beta, sse as [position][condition]; None where nothing was measured.

    alpha and beta are as counted; only sse is None below `min_reads`. With `alpha_threshold` SplicEvo's "zero" holds:
    all three are 0 where alpha is below it.
    """
    table: dict[str, list[list[float | None]]] = {"alpha": [], "beta": [], "sse": []}
    for position in centre_positions(window, window_size, minus=minus):
        measured = counts.get((window[0], position, window[2]), {})
        values = []
        for condition in conditions:
            alpha, beta = measured.get(condition, (None, None))
            if alpha_threshold is None:
                values.append([alpha, beta, sse(alpha, beta, min_reads)])
            else:
                values.append(alpha_zero(alpha, beta, alpha_threshold, min_reads))
        for column, name in enumerate(("alpha", "beta", "sse")):
            table[name].append([value[column] for value in values])
    return table


def splicevo_windows(genome: Genome, window_size: int) -> list[Window]:
    """Windows of the SplicEvo preset: tiles of each gene's site span from its first site; those without a site go."""
    found = windows(genome, window_size, region="sites", anchor="region_start") if genome["site_genes"] else []
    with_sites = []
    for window in found:
        contig, start, strand = window[:3]
        if any((contig, position, strand) in genome["sites"] for position in range(start, start + window_size)):
            with_sites.append(window)
    return with_sites


def splicevo_window(
    genome: Genome,
    window: Window,
    window_size: int,
    context_size: int,
    counts: Usage | None = None,
    conditions: list[str] | None = None,
    *,
    alpha_threshold: float = SPLICEVO_ALPHA_THRESHOLD,
    min_reads: float = 0,
) -> dict[str, Any]:
    """One window as SplicEvo shows it: forward order on both strands, - complemented, 1 donor, 2 acceptor, alpha zero."""
    return {
        "sequence": input_sequence(genome, window, window_size, context_size, minus="complement"),
        "labels": labels(genome, window, window_size, minus="complement", codes=SPLICEVO_LABEL_CODES),
        **usage(
            window,
            window_size,
            counts or {},
            conditions or [],
            min_reads=min_reads,
            alpha_threshold=alpha_threshold,
            minus="complement",
        ),
    }
