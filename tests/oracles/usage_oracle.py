"""Splice-site usage by dicts: counts of junctions and of SpliSER rows put on sites, conditions summed, SSE.

Sites are (contig, position, strand) -> kinds as in `genome_oracle`; a count is None where nothing was measured.
"""

from __future__ import annotations

from typing import Any

Site = tuple[str, int, int]
Junction = tuple[str, int, int, int, float]
Counts = tuple[float | None, float | None]


def site_boundaries(site: Site, kinds: set[str]) -> list[tuple[str, int]]:
    """Where introns touch the site: ("left", x) for introns [x, e), ("right", x) for introns [s, x).

    A site left of its intron (+ donor, - acceptor) has boundary position + 1, one right of it has its position.
    """
    _, position, strand = site
    boundaries = []
    for kind in sorted(kinds):
        if (kind == "donor") == (strand == 1):
            boundaries.append(("left", position + 1))
        else:
            boundaries.append(("right", position))
    return boundaries


def junction_counts(junctions: list[Junction], sites: dict[Site, set[str]]) -> dict[Site, Counts]:
    """alpha and beta2Simple of every site from junctions (contig, intron start, intron end, strand, reads).

    Give the junctions of all files of a condition together. alpha: reads of junctions that use the site. beta2Simple:
    reads of junctions of the same strand that strictly span the site's boundary and have one end that is a partner of
    the site. A site that no junction uses is not measured: (None, None); nor is a base that is donor and acceptor.
    """
    merged: dict[tuple[str, int, int, int], float] = {}
    for contig, start, end, strand, reads in junctions:
        settled = strand or strand_by_sites(contig, start, end, sites)
        if settled and reads > 0:
            key = (contig, start, end, settled)
            merged[key] = merged.get(key, 0.0) + reads
    by_strand: dict[tuple[str, int], list[tuple[int, int, float]]] = {}
    for (contig, start, end, strand), reads in merged.items():
        by_strand.setdefault((contig, strand), []).append((start, end, reads))
    found: dict[Site, Counts] = {}
    for site, kinds in sites.items():
        alpha, beta = counts_of_one_site(site_boundaries(site, kinds), by_strand.get((site[0], site[2]), []))
        found[site] = (alpha, beta) if alpha > 0 and len(kinds) == 1 else (None, None)
    return found


def strand_by_sites(contig: str, start: int, end: int, sites: dict[Site, set[str]]) -> int:
    """Strand on which more ends of the intron [start, end) are sites of the right kind; 0 where neither wins."""
    plus = ("donor" in sites.get((contig, start - 1, 1), ())) + ("acceptor" in sites.get((contig, end, 1), ()))
    minus = ("acceptor" in sites.get((contig, start - 1, -1), ())) + ("donor" in sites.get((contig, end, -1), ()))
    return (plus > minus) - (plus < minus)


def counts_of_one_site(
    boundaries: list[tuple[str, int]], junctions: list[tuple[int, int, float]]
) -> tuple[float, float]:
    """alpha and beta2Simple for the boundaries of one site among the junctions of its contig and strand."""
    users = set()
    skippers = set()
    for side, x in boundaries:
        partners = set()
        for start, end, reads in junctions:
            if side == "left" and start == x:
                users.add((start, end, reads))
                partners.add(end)
            if side == "right" and end == x:
                users.add((start, end, reads))
                partners.add(start)
        for start, end, reads in junctions:
            if start < x < end and (start in partners or end in partners):
                skippers.add((start, end, reads))
    return float(sum(reads for _, _, reads in users)), float(sum(reads for _, _, reads in skippers))


def side_from_partners(site: int, partners: list[int] | None) -> str | None:
    """All partners above the written site: it is a left end; all below: a right end; else not known."""
    if not partners:
        return None
    if all(partner > site for partner in partners):
        return "left"
    if all(partner < site for partner in partners):
        return "right"
    return None


def exon_base(written: int, side: str, convention: str) -> int:
    """The exon-boundary base meant by a written site.

    "spliser": the pair is the 0-based half-open intron: left x -> base x - 1, right x -> base x.
    "splicevo": the pair is the 1-based first and last intron base: left x -> base x - 2, right x -> base x.
    """
    shift = {"spliser": {"left": -1, "right": 0}, "splicevo": {"left": -2, "right": 0}}
    return written + shift[convention][side]


def readings(row: dict[str, Any], sites: dict[Site, set[str]], convention: str) -> list[Site]:
    """Sites the row may mean: the reading of its side, or of both sides where the side is not known.

    The site must be in the table and be of the kind that this side has on its strand.
    """
    side = row.get("side") or side_from_partners(row["site"], row.get("partners"))
    found = []
    for strand in (row["strand"],) if row["strand"] in (1, -1) else (1, -1):
        for candidate in (side,) if side else ("left", "right"):
            site = (row["contig"], exon_base(row["site"], candidate, convention), strand)
            kind = "donor" if (candidate == "left") == (strand == 1) else "acceptor"
            if kind in sites.get(site, set()) and site not in found:
                found.append(site)
    return found


def join_spliser(
    rows: list[dict[str, Any]], sites: dict[Site, set[str]], convention: str = "spliser"
) -> tuple[dict[Site, tuple[float, float]], dict[str, int]]:
    """Counts {site: (alpha, beta1 + beta2)} of ONE sample and how many rows were matched, ambiguous, unmatched.

    Row: {contig, site, strand (+1, -1, 0), alpha, beta1, beta2, and side "left"|"right" or partners [..] if known}.
    Two rows of one sample on one site are outside this oracle.
    """
    counts: dict[Site, tuple[float, float]] = {}
    joined = {"matched": 0, "ambiguous": 0, "unmatched": 0}
    for row in rows:
        found = readings(row, sites, convention)
        if len(found) == 1:
            if found[0] in counts:
                raise ValueError(f"two rows for {found[0]}")
            counts[found[0]] = (float(row["alpha"]), float(row["beta1"] + row["beta2"]))
            joined["matched"] += 1
        else:
            joined["ambiguous" if found else "unmatched"] += 1
    return counts, joined


def sum_samples(samples: list[dict[Site, tuple[float, float]]], sites: dict[Site, set[str]]) -> dict[Site, Counts]:
    """Counts of a condition: sums over the samples that measured the site; None where no sample did.

    A base that is donor and acceptor has two boundaries: its counts cannot share a row and are None.
    """
    total: dict[Site, Counts] = {}
    for site, kinds in sites.items():
        measured = [sample[site] for sample in samples if site in sample]
        if measured and len(kinds) == 1:
            total[site] = (sum(alpha for alpha, _ in measured), sum(beta for _, beta in measured))
        else:
            total[site] = (None, None)
    return total


def sse(alpha: float | None, beta: float | None, min_reads: float = 10) -> float | None:
    """alpha / (alpha + beta); None where not measured, where there is no read, or below `min_reads` reads."""
    if alpha is None or beta is None or alpha + beta == 0 or alpha + beta < min_reads:
        return None
    return alpha / (alpha + beta)


def alpha_zero(alpha: float | None, beta: float | None, threshold: float, min_reads: float = 0) -> list[float | None]:
    """SplicEvo's alpha threshold "zero", applied once on the original alpha.

    [alpha, beta, sse] are [0, 0, 0] where alpha < threshold; what was not measured stays None.
    """
    if alpha is None or beta is None:
        return [None, None, None]
    if alpha < threshold:
        return [0.0, 0.0, 0.0]
    return [alpha, beta, sse(alpha, beta, min_reads)]
