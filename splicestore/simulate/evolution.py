"""A tree of genomes, and how gene order changes along its branches.

A contig is an array of signed instances: ``uid + 1``, negative where the instance lies reversed. An instance is
a copy of an element; duplication gives a new instance with a parent. Bases are not drawn here: they follow from
(seed, element) and, per branch, (seed, branch, instance), so any genome can be written piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from splicestore.simulate.loci import MAX_SPACER, Arrangement, Locus, LocusFactory, Spacer
from splicestore.simulate.options import SimulateOptions
from splicestore.simulate.seeds import Stream, random_stream

Int64 = NDArray[np.int64]
Layout = list[Int64]
"""Signed instances of each contig, from left to right."""

P_OVERLAP, P_NESTED = 0.07, 0.05
MIN_SPACER = 300
EVENTS_PER_LOCUS = {"inversion": 0.03, "translocation": 0.02, "duplication": 0.03, "loss": 0.03, "gain": 0.02}
"""Expected over the whole way from the ancestor to a genome."""
ROOT = -1


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree with the branch above it."""

    name: str
    parent: int
    length: float
    """Of the branch above, in shares of the way from root to leaf."""
    children: tuple[int, ...]


def draw_tree(seed: int, leaf_names: Sequence[str]) -> list[Node]:
    """Join leaves in random pairs until one is left; all leaves are equally far from the root.

    Returns
    -------
    nodes
        Leaves first, in the order of their names; the root last. A single leaf hangs below a root by one branch.
    """
    rng = random_stream(seed, Stream.TREE)
    names, height = list(leaf_names), [0.0] * len(leaf_names)
    joined: list[tuple[int, ...]] = [() for _ in leaf_names]
    lineages = list(range(len(names)))
    now = 0.0
    while len(lineages) > 1:
        now += 0.15 + float(rng.exponential(1.0 / (len(lineages) - 1)))
        pair = sorted(int(i) for i in rng.choice(len(lineages), 2, replace=False))
        joined.append((lineages[pair[0]], lineages[pair[1]]))
        lineages = [x for i, x in enumerate(lineages) if i not in pair] + [len(names)]
        names.append(f"anc{len(names) - len(leaf_names) + 1}")
        height.append(now)
    if len(names) == 1:
        names, height, now = [*names, "anc1"], [0.0, 1.0], 1.0
        joined.append((0,))
    parent = {child: i for i, pair_ in enumerate(joined) for child in pair_}
    return [
        Node(
            name=names[i],
            parent=parent.get(i, ROOT),
            length=(height[parent[i]] - height[i]) / now if i in parent else 0.0,
            children=joined[i],
        )
        for i in range(len(names))
    ]


def newick(nodes: Sequence[Node], scale: float) -> str:
    """Write the tree with branch lengths in neutral substitutions per base."""

    def subtree(i: int) -> str:
        node = nodes[i]
        inside = f"({','.join(subtree(c) for c in node.children)})" if node.children else ""
        return f"{inside}{node.name}" + (f":{node.length * scale:.6f}" if node.parent != ROOT else "")

    return subtree(len(nodes) - 1) + ";\n"


@dataclass(frozen=True, slots=True)
class Event:
    """One rearrangement."""

    branch: str
    """Name of the node below."""
    kind: str
    contig: str
    families: tuple[int, ...]
    """Genes that it moved, lost or made."""
    detail: str


@dataclass(slots=True)
class History:
    """Elements, instances and events so far; grows while the tree is walked."""

    elements: list[Spacer | Locus] = field(default_factory=list)
    element: list[int] = field(default_factory=list)
    """Of each instance."""
    parent: list[int] = field(default_factory=list)
    """Instance that each was copied from, or -1."""
    birth: list[int] = field(default_factory=list)
    """Branch on which each instance arose, or -1 for the ancestor's."""
    n_families: int = 0
    events: list[Event] = field(default_factory=list)

    def add(self, element: Spacer | Locus, birth: int) -> int:
        """Register a new element; returns its first instance."""
        self.elements.append(element)
        return self._instance(len(self.elements) - 1, ROOT, birth)

    def copy(self, uid: int, birth: int) -> int:
        """Duplicate an instance."""
        return self._instance(self.element[uid], uid, birth)

    def piece(self, uid: int) -> Spacer | Locus:
        """Element of an instance."""
        return self.elements[self.element[uid]]

    def families(self, run: Int64) -> tuple[int, ...]:
        """Gene families in a run of signed instances."""
        pieces = (self.piece(abs(int(signed)) - 1) for signed in run)
        return tuple(family for piece in pieces if isinstance(piece, Locus) for family in piece.families)

    def mutation_keys(self, uid: int, path: Sequence[int]) -> list[tuple[int, int]]:
        """List (branch, instance) for every branch of a path that changed the bases of ``uid``.

        Before its own duplication an instance shares the history of the one it was copied from.
        """
        keys: list[tuple[int, int]] = []
        for branch in reversed(path):
            keys.append((branch, uid))
            while self.birth[uid] == branch:
                if self.parent[uid] == ROOT:
                    return keys[::-1]
                uid = self.parent[uid]
        return keys[::-1]

    def origin(self, uid: int) -> str:
        """How an instance arose: ancestral, gained or duplicated."""
        if self.parent[uid] != ROOT:
            return "duplicated"
        return "gained" if self.birth[uid] != ROOT else "ancestral"

    def _instance(self, element: int, parent: int, birth: int) -> int:
        self.element.append(element)
        self.parent.append(parent)
        self.birth.append(birth)
        return len(self.element) - 1


def ancestral_layout(options: SimulateOptions, loci: LocusFactory) -> tuple[History, Layout]:
    """Place the ancestor's genes and spacers on its contigs."""
    rng = random_stream(options.seed, Stream.LAYOUT)
    history = History()
    units = _draw_arrangements(rng, options.genes)
    first = 0
    uids, lengths = [], []
    for arrangement in units:
        n = 1 if arrangement == Arrangement.SINGLE else 2
        locus = Locus(arrangement, tuple(range(first, first + n)))
        first += n
        uids.append(history.add(locus, ROOT))
        lengths.append(loci.length(uids[-1], locus))
    history.n_families = first
    order = rng.permutation(len(uids))
    share = rng.uniform(0.5, 1.5, options.contigs)
    cuts = np.round(np.cumsum(share)[:-1] / share.sum() * len(uids)).astype(np.int64)
    n_gaps = len(uids) + options.contigs
    room = max(options.n_bases - sum(lengths), n_gaps * MIN_SPACER)
    gaps = rng.gamma(1.5, 1.0, n_gaps)
    gaps = MIN_SPACER + gaps / gaps.sum() * (room - n_gaps * MIN_SPACER)
    remaining = iter(gaps.astype(np.int64).tolist())
    layout: Layout = []
    for run in np.split(order, cuts):
        contig = _spacers(history, next(remaining), ROOT)
        for locus_index in run:
            sign = 1 if rng.random() < 0.5 else -1
            contig += [sign * (uids[int(locus_index)] + 1), *_spacers(history, next(remaining), ROOT)]
        layout.append(np.array(contig, dtype=np.int64))
    return history, layout


def _draw_arrangements(rng: np.random.Generator, n_genes: int) -> list[Arrangement]:
    """Deal genes to loci; from six genes up there is at least one nested and one overlapping pair."""
    units: list[Arrangement] = []
    if n_genes >= 6:
        units = [Arrangement.NESTED, Arrangement.TAIL_OVERLAP]
    left = n_genes - 2 * len(units)
    while left > 0:
        u = rng.random()
        arrangement = Arrangement.SINGLE
        if left >= 2 and u < P_OVERLAP:
            arrangement = Arrangement.TAIL_OVERLAP if u < 0.6 * P_OVERLAP else Arrangement.HEAD_OVERLAP
        elif left >= 2 and u < P_OVERLAP + P_NESTED:
            arrangement = Arrangement.NESTED
        units.append(arrangement)
        left -= 1 if arrangement == Arrangement.SINGLE else 2
    return units


def _spacers(history: History, length: int, birth: int) -> list[int]:
    """Register a stretch of intergenic bases as elements of bounded size."""
    n_parts = max(1, -(-length // MAX_SPACER))
    sizes = np.diff(np.linspace(0, length, n_parts + 1).astype(np.int64))
    return [history.add(Spacer(int(size)), birth) + 1 for size in sizes]


def evolve_branch(seed: int, nodes: Sequence[Node], branch: int, history: History, layout: Layout) -> Layout:
    """Rearrange a copy of a layout along the branch above node ``branch``; events go into the history."""
    rng = random_stream(seed, Stream.BRANCH, branch)
    signed = np.abs(np.concatenate(layout)).tolist()
    n_loci = sum(isinstance(history.piece(uid - 1), Locus) for uid in signed)
    change = _Rearrangement(rng, history, [contig.copy() for contig in layout], branch, nodes[branch].name, n_loci)
    actions = {
        "inversion": change.inversion,
        "translocation": change.translocation,
        "duplication": change.duplication,
        "loss": change.loss,
        "gain": change.gain,
    }
    kinds = [
        kind
        for kind, rate in EVENTS_PER_LOCUS.items()
        for _ in range(1 + int(rng.poisson(rate * n_loci * nodes[branch].length)))
    ]
    for kind in rng.permutation(kinds):
        actions[str(kind)]()
    return change.layout


@dataclass(slots=True)
class _Rearrangement:
    """Gene order of a branch while it changes. Each method is one event at a random place."""

    rng: np.random.Generator
    history: History
    layout: Layout
    branch: int
    name: str
    n_loci: int

    def inversion(self) -> None:
        """Turn a run of elements around."""
        contig, low, high = self._run(12)
        run = self.layout[contig][low:high]
        self._record("inversion", contig, run, f"{high - low} elements")
        self.layout[contig][low:high] = -run[::-1]

    def translocation(self) -> None:
        """Move a run of elements elsewhere, to another contig where there is one."""
        contig, low, high = self._run(8)
        run = self.layout[contig][low:high].copy()
        if high - low == len(self.layout[contig]):
            return
        others = [i for i in range(len(self.layout)) if i != contig] or [contig]
        target = int(self.rng.choice(others))
        self._record("translocation", contig, run, f"{high - low} elements to contig {target + 1}")
        self.layout[contig] = np.delete(self.layout[contig], np.arange(low, high))
        self._insert(target, run)

    def duplication(self) -> None:
        """Copy a locus behind itself or to a random place, a short spacer in between."""
        contig, place = self._locus()
        signed = int(self.layout[contig][place])
        copy = self.history.copy(abs(signed) - 1, self.branch) + 1
        spacer = _spacers(self.history, int(self.rng.integers(400, 2_000)), self.branch)
        tandem = self.rng.random() < 0.5
        target = contig if tandem else int(self.rng.integers(len(self.layout)))
        sign = (1 if signed > 0 else -1) if tandem else (1 if self.rng.random() < 0.5 else -1)
        run = np.array([*spacer, sign * copy], dtype=np.int64)
        self.n_loci += 1
        self._record("duplication", target, run, "tandem" if tandem else f"from contig {contig + 1}")
        self._insert(target, run, place + 1 if tandem else None)

    def loss(self) -> None:
        """Delete a locus, unless it is one of the last two."""
        if self.n_loci < 3:
            return
        contig, place = self._locus()
        self.n_loci -= 1
        run = self.layout[contig][place : place + 1]
        self._record("loss", contig, run, "")
        self.layout[contig] = np.delete(self.layout[contig], place)

    def gain(self) -> None:
        """Insert a gene that no other lineage has."""
        family = self.history.n_families
        self.history.n_families += 1
        spacer = _spacers(self.history, int(self.rng.integers(400, 2_000)), self.branch)
        locus = self.history.add(Locus(Arrangement.SINGLE, (family,)), self.branch) + 1
        run = np.array([*spacer, locus if self.rng.random() < 0.5 else -locus], dtype=np.int64)
        target = int(self.rng.integers(len(self.layout)))
        self.n_loci += 1
        self._record("gain", target, run, "")
        self._insert(target, run)

    def _locus(self) -> tuple[int, int]:
        """Choose a locus: (contig, place). There is always one: ``loss`` leaves two."""
        ends = np.cumsum([len(contig) for contig in self.layout])
        while True:
            place = int(self.rng.integers(ends[-1]))
            contig = int(np.searchsorted(ends, place, side="right"))
            place -= int(ends[contig - 1]) if contig else 0
            if isinstance(self.history.piece(abs(int(self.layout[contig][place])) - 1), Locus):
                return contig, place

    def _run(self, most: int) -> tuple[int, int, int]:
        """Choose a run of at most ``most`` + 1 elements around a locus: (contig, low, high)."""
        contig, place = self._locus()
        low = max(0, place - int(self.rng.integers(0, most // 2 + 1)))
        high = min(len(self.layout[contig]), place + 1 + int(self.rng.integers(0, most // 2 + 1)))
        return contig, low, high

    def _insert(self, contig: int, run: Int64, place: int | None = None) -> None:
        """Put a run between two elements; never inside one, so genes stay whole."""
        order = self.layout[contig]
        at = int(self.rng.integers(len(order) + 1)) if place is None else place
        self.layout[contig] = np.concatenate((order[:at], run, order[at:]))

    def _record(self, kind: str, contig: int, run: Int64, detail: str) -> None:
        families = self.history.families(run)
        self.history.events.append(Event(self.name, kind, f"chr{contig + 1}", families, detail))
