"""Splits, contract section 3, by repeated merging of sets and loops over all pairs of windows.

A gene is (genome, gene_id), a window (genome, contig, start, end, strand) with the span of its centre. What is
decided about a gene or window is (subset, reason): subset "train", "val", "test" or "excluded", reason "" unless
excluded. Reasons: "conflict", "unassigned", "bridges_subsets" (genes and windows that meet only such genes), "overlaps_test",
"overlaps_val" (windows).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

Gene = tuple[str, str]
WindowKey = tuple[str, str, int, int, int]
Decision = tuple[str, str]

STRENGTH = ("test", "val", "train")
REASON_ORDER = ("conflict", "unassigned", "bridges_subsets")
GATE_MINIMUM = 200
MAX_EXCLUDED_SHARE = 0.10
MAX_COMPONENT_SHARE = 0.20


def strongest(subsets: set[str]) -> str:
    """test > val > train."""
    for subset in STRENGTH:
        if subset in subsets:
            return subset
    raise ValueError("no subset given")


def components(genes: list[Gene], groups: list[list[Gene]]) -> list[set[Gene]]:
    """Connected components of genes under homology groups; a gene in no group is alone.

    Sets that share a gene are merged until none do. Members that are not among `genes` do not count, so they link
    nothing. Sorted by their smallest member.
    """
    known = set(genes)
    sets = [{gene} for gene in sorted(known)]
    for group in groups:
        members = {gene for gene in group if gene in known}
        if members:
            touched = [found for found in sets if found & members]
            sets = [found for found in sets if not found & members]
            sets.append(set().union(*touched))
    return sorted(sets, key=min)


def hash_share(salt: str, seed: int, genome: str, gene_id: str) -> float:
    """Big-endian first 8 bytes of the sha256 of the tab-joined text, over 2^64: a number in [0, 1)."""
    text = f"splicestore-split-1\t{salt}\t{seed}\t{genome}\t{gene_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def share_to_subset(share: float, test_fraction: float, val_fraction: float) -> str:
    """The lowest part of [0, 1) is test, the next val, the rest train."""
    if share < test_fraction:
        return "test"
    if share < test_fraction + val_fraction:
        return "val"
    return "train"


def hash_component(
    component: set[Gene], reference_genome: str | None, seed: int, test_fraction: float, val_fraction: float
) -> str:
    """Mode 2: the anchor is the member (reference members, else all) with the smallest h("anchor"); its h("subset")
    decides.
    """
    reference = {gene for gene in component if gene[0] == reference_genome}
    anchor = min(reference or component, key=lambda gene: (hash_share("anchor", seed, *gene), gene))
    return share_to_subset(hash_share("subset", seed, *anchor), test_fraction, val_fraction)


def chromosome_subset(contig: str, test_chromosomes: list[str], val_chromosomes: list[str]) -> str:
    """test and val by name, train for all others."""
    if contig in test_chromosomes:
        return "test"
    return "val" if contig in val_chromosomes else "train"


def check_chromosomes(contigs: list[str], test_chromosomes: list[str], val_chromosomes: list[str]) -> None:
    """A named chromosome must exist, and be named once."""
    named = list(test_chromosomes) + list(val_chromosomes)
    for name in named:
        if name not in contigs:
            raise ValueError(f"no chromosome {name}")
        if named.count(name) > 1:
            raise ValueError(f"chromosome {name} is named twice")


def resolve_conflict(sides: list[str], conflict: str) -> Decision:
    """Subset of a component from the chromosome subsets of its reference members, one entry a member.

    One side: that. More: "test" the strongest, "train" the weakest, "majority" the one with most members (tie: the
    strongest), "drop" excluded.
    """
    present = set(sides)
    if len(present) == 1:
        return sides[0], ""
    if conflict == "test":
        return strongest(present), ""
    if conflict == "train":
        return next(subset for subset in reversed(STRENGTH) if subset in present), ""
    if conflict == "majority":
        most = max(sides.count(subset) for subset in present)
        return strongest({subset for subset in present if sides.count(subset) == most}), ""
    if conflict == "drop":
        return "excluded", "conflict"
    raise ValueError(f"unknown policy {conflict}")


def assign_chromosomes(
    found: list[set[Gene]],
    gene_contigs: dict[Gene, str],
    reference_genome: str,
    test_chromosomes: list[str],
    val_chromosomes: list[str],
    *,
    conflict: str = "test",
    unassigned: str = "train",
    seed: int = 0,
    test_fraction: float = 0.0,
    val_fraction: float = 0.0,
) -> dict[Gene, Decision]:
    """Mode 1: a component follows the chromosomes of its reference members.

    Without a reference member it is train, dropped, or hashed like mode 2 with the fractions given.
    """
    decisions: dict[Gene, Decision] = {}
    for component in found:
        sides = [
            chromosome_subset(gene_contigs[gene], test_chromosomes, val_chromosomes)
            for gene in sorted(component)
            if gene[0] == reference_genome
        ]
        if sides:
            decision = resolve_conflict(sides, conflict)
        elif unassigned == "train":
            decision = ("train", "")
        elif unassigned == "drop":
            decision = ("excluded", "unassigned")
        elif unassigned == "hash":
            decision = (hash_component(component, None, seed, test_fraction, val_fraction), "")
        else:
            raise ValueError(f"unknown policy {unassigned}")
        for gene in component:
            decisions[gene] = decision
    return decisions


def assign_fractions(
    found: list[set[Gene]],
    *,
    test_fraction: float,
    val_fraction: float,
    seed: int = 0,
    reference_genome: str | None = None,
) -> dict[Gene, Decision]:
    """Mode 2: every component by the hash of its anchor."""
    return {
        gene: (hash_component(component, reference_genome, seed, test_fraction, val_fraction), "")
        for component in found
        for gene in component
    }


def extend(
    found: list[set[Gene]], old: dict[Gene, Decision], fresh: dict[Gene, Decision]
) -> tuple[dict[Gene, Decision], list[Gene]]:
    """--extend: old genes keep what they have, new genes inherit what the assigned members of their component have.

    No old member: `fresh` (what the split without OLD would say). One subset among the assigned old members: that.
    Several: the component's new genes are excluded as "bridges_subsets"; they are the second answer, sorted. Only excluded
    old members: the new genes are excluded with the reason of the smallest old member.
    """
    decisions: dict[Gene, Decision] = {}
    bridges = []
    for component in found:
        before = sorted(gene for gene in component if gene in old)
        subsets = {old[gene][0] for gene in before} - {"excluded"}
        for gene in component:
            if gene in old:
                decisions[gene] = old[gene]
            elif not before:
                decisions[gene] = fresh[gene]
            elif len(subsets) == 1:
                decisions[gene] = (next(iter(subsets)), "")
            elif len(subsets) > 1:
                decisions[gene] = ("excluded", "bridges_subsets")
                bridges.append(gene)
            else:
                decisions[gene] = old[before[0]]
    return decisions, sorted(bridges)


def genes_of_window(window: WindowKey, gene_spans: dict[Gene, tuple[str, int, int]]) -> list[Gene]:
    """Genes of the window's genome, of either strand, whose body [start, end) meets the centre."""
    genome, contig, start, end, _ = window
    return sorted(
        gene
        for gene, (gene_contig, gene_start, gene_end) in gene_spans.items()
        if gene[0] == genome and gene_contig == contig and gene_start < end and start < gene_end
    )


def geneless_subset(window: WindowKey, mode: dict[str, Any]) -> str:
    """A window that meets no gene.

    Mode 1: its chromosome's subset in the reference genome, train elsewhere. Mode 2: the hash with salt "geneless"
    of "contig:megabase" of the centre's start in the place of the gene id, against the same thresholds.
    """
    genome, contig, start, _, _ = window
    if mode["name"] == "chromosomes":
        if genome != mode["reference_genome"]:
            return "train"
        return chromosome_subset(contig, mode["test_chromosomes"], mode["val_chromosomes"])
    share = hash_share("geneless", mode["seed"], genome, f"{contig}:{start // 1_000_000}")
    return share_to_subset(share, mode["test_fraction"], mode["val_fraction"])


def window_decision(
    window: WindowKey,
    gene_spans: dict[Gene, tuple[str, int, int]],
    decisions: dict[Gene, Decision],
    mode: dict[str, Any],
) -> Decision:
    """Before the guard: the strongest of test > val > excluded > train among the genes the centre meets."""
    met = genes_of_window(window, gene_spans)
    if not met:
        return geneless_subset(window, mode), ""
    subsets = {decisions[gene][0] for gene in met}
    if "excluded" not in subsets or subsets & {"test", "val"}:
        return strongest(subsets - {"excluded"}), ""
    reasons = {decisions[gene][1] for gene in met if decisions[gene][0] == "excluded"}
    return "excluded", next(reason for reason in REASON_ORDER if reason in reasons)


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Half-open spans share a base."""
    return a[0] < b[1] and b[0] < a[1]


def apply_guard(windows: list[WindowKey], before: list[Decision], context_size: int, guard: str) -> list[Decision]:
    """Train windows too near test or val, and val windows too near test, are excluded.

    "centre": the window's input overlaps a centre of the stronger subset, on either strand; "input": its input
    overlaps an input of the stronger subset; "none": nothing. All windows are judged by the subsets before the guard.
    """
    if guard == "none":
        return list(before)
    reach = context_size if guard == "input" else 0
    after = list(before)
    by_contig: dict[tuple[str, str], list[tuple[WindowKey, str]]] = {}
    for window, (subset, _) in zip(windows, before, strict=True):
        by_contig.setdefault(window[:2], []).append((window, subset))
    for row, (window, decision) in enumerate(zip(windows, before, strict=True)):
        stronger = {"train": ("test", "val"), "val": ("test",)}.get(decision[0], ())
        mine = (window[2] - context_size, window[3] + context_size)
        for subset in reversed(stronger):
            for other, other_subset in by_contig[window[:2]]:
                if other_subset == subset and overlap(mine, (other[2] - reach, other[3] + reach)):
                    after[row] = ("excluded", f"overlaps_{subset}")
    return after


def window_table(
    windows: list[WindowKey],
    gene_spans: dict[Gene, tuple[str, int, int]],
    decisions: dict[Gene, Decision],
    mode: dict[str, Any],
    context_size: int,
    guard: str = "centre",
) -> list[Decision]:
    """(subset, reason) of every window, in the order given.

    mode: {"name": "chromosomes", "reference_genome", "test_chromosomes", "val_chromosomes"} or
    {"name": "fractions", "seed", "test_fraction", "val_fraction"}.
    """
    by_contig: dict[tuple[str, str], dict[Gene, tuple[str, int, int]]] = {}
    for gene, span in gene_spans.items():
        by_contig.setdefault((gene[0], span[0]), {})[gene] = span
    before = [window_decision(window, by_contig.get(window[:2], {}), decisions, mode) for window in windows]
    return apply_guard(windows, before, context_size, guard)


def conservation(decisions: list[Decision]) -> dict[str, Any]:
    """How many are in, per subset, and per reason; in = train + val + test + excluded, excluded = sum of reasons."""
    subsets = Counter(subset for subset, _ in decisions)
    reasons = Counter(reason for subset, reason in decisions if subset == "excluded")
    counts = {name: subsets[name] for name in ("train", "val", "test", "excluded")}
    if sum(counts.values()) != len(decisions) or sum(reasons.values()) != counts["excluded"]:
        raise AssertionError("something got lost")
    return {"in": len(decisions), **counts, "reasons": dict(reasons)}


def gates(
    windows: list[WindowKey], table: list[Decision], found: list[set[Gene]], asked: tuple[str, ...] = STRENGTH
) -> list[tuple[str, str]]:
    """What the gates say, as (gate, "fails" | "warns"), sorted.

    "excluded": more than 10% of a genome's windows are excluded. "component": the largest component holds more than
    20% of all genes. Below 200 windows of that genome, or 200 genes, they warn. "empty": an asked subset has no window.
    """
    said = set()
    for genome in {window[0] for window in windows}:
        rows = [row for row, window in enumerate(windows) if window[0] == genome]
        excluded = sum(table[row][0] == "excluded" for row in rows)
        if excluded > MAX_EXCLUDED_SHARE * len(rows):
            said.add(("excluded", "fails" if len(rows) >= GATE_MINIMUM else "warns"))
    n_genes = sum(len(component) for component in found)
    if found and max(len(component) for component in found) > MAX_COMPONENT_SHARE * n_genes:
        said.add(("component", "fails" if n_genes >= GATE_MINIMUM else "warns"))
    for subset in asked:
        if subset not in {decision[0] for decision in table}:
            said.add(("empty", "fails"))
    return sorted(said)


def leaks(windows: list[WindowKey], table: list[Decision], context_size: int) -> Counter[tuple[str, str]]:
    """How many (weaker window, stronger window) pairs share a base between input and centre, by their subsets.

    After the guard "centre" there is none.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    for window, (subset, _) in zip(windows, table, strict=True):
        for other, (other_subset, _) in zip(windows, table, strict=True):
            weaker = (subset, other_subset) in (("train", "test"), ("train", "val"), ("val", "test"))
            mine = (window[2] - context_size, window[3] + context_size)
            if weaker and window[:2] == other[:2] and overlap(mine, (other[2], other[3])):
                pairs[(subset, other_subset)] += 1
    return pairs


def split_genes(decisions: dict[Gene, Decision], groups: list[list[Gene]]) -> list[list[Gene]]:
    """Groups whose genes lie in more than one of train, val and test: none in a closed split made afresh."""
    crossing = []
    for group in groups:
        subsets = {decisions[gene][0] for gene in group if gene in decisions} - {"excluded"}
        if len(subsets) > 1:
            crossing.append(group)
    return crossing
