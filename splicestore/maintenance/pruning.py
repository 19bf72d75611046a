"""``prune``: remove generations that nothing needs any more, and what killed runs left.

Order within a generation. A reader decides by the group document, so that goes first: from then on the generation reads as
"no such generation", never as a complete one with objects missing (which would read as fill values). It is removed, not
rewritten as incomplete: an incomplete generation invites a run to resume it from parts whose objects are going away. Then
the manifest, the objects, array metadata and parts; the plan goes last, so that what a kill leaves still says what it was.
The next prune takes it away.

Order of generations: tokens, scaled, bins, normalized, sample_splits, expression, predictions, splits, usage, genomes.
What pins goes before what it pins.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from splicestore.errors import ConfigError, LeaseHeldError, StoreError, StoreNotFoundError, close_names
from splicestore.maintenance.generation import is_document
from splicestore.maintenance.hashing import Progress
from splicestore.maintenance.inventory import (
    DAMAGED,
    GROUP,
    MANIFEST,
    PARTIAL,
    PLAN,
    GroupState,
    Inventory,
    match_pin,
    pins_of,
    read_groups,
    read_pointers,
    take_inventory,
)
from splicestore.storage import Pointer, StoreRoot, read_pointer, write_lease
from splicestore.storage.finalise import STATUS_COMPLETE
from splicestore.storage.lease import holder_is_dead
from splicestore.storage.sealed import is_intact, parse_sealed

DEFAULT_AGE = timedelta(days=30)
_ORDER = {
    kind: place
    for place, kind in enumerate(
        (
            "tokens",
            "scaled",
            "bins",
            "normalized",
            "sample_splits",
            "expression",
            "predictions",
            "splits",
            "usage",
            "genomes",
        )
    )
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_age(text: str) -> timedelta:
    """Parse ``30d``, ``12h``, ``45m``, ``90s``, ``2w`` or ``0``.

    Raises
    ------
    ConfigError
        If it is spelled otherwise.

    Examples
    --------
    >>> parse_age("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    found = re.fullmatch(r"(\d+)([smhdw])|0", text.strip())
    if found is None:
        raise ConfigError(
            f"--older-than {text!r}: write a number and s, m, h, d or w, as in 30d or 12h; 0 for no waiting"
        )
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]]) if found[1] else timedelta(0)


@dataclass(frozen=True, slots=True)
class PruneItem:
    """A generation, or a leftover file, and why it goes or stays."""

    key: str
    why: str
    n_objects: int
    n_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Spell the item for ``--json``."""
        return {"key": self.key, "why": self.why, "n_objects": self.n_objects, "n_bytes": self.n_bytes}


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was removed (with ``dry_run``: would be), and which generations stay."""

    removed: tuple[PruneItem, ...]
    kept: tuple[PruneItem, ...]
    dry_run: bool
    seconds: float

    @property
    def n_bytes(self) -> int:
        """Bytes freed."""
        return sum(item.n_bytes for item in self.removed)

    def as_dict(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return {
            "dry_run": self.dry_run,
            "n_objects": sum(item.n_objects for item in self.removed),
            "n_bytes": self.n_bytes,
            "removed": [item.as_dict() for item in self.removed],
            "kept": [item.as_dict() for item in self.kept],
            "seconds": round(self.seconds, 3),
        }


@dataclass
class _Facts:
    """What decides: one listing with sizes, one with times, all pointers, groups and leases."""

    inventory: Inventory
    ages: Mapping[str, float]
    pointers: dict[str, Pointer | None]
    groups: dict[str, GroupState]
    leased: dict[str, str]
    """Names that are being written, and by whom."""
    cutoff: datetime
    changed: dict[str, float] = field(default_factory=dict)
    """Generation -> time of the last change to any of its objects."""


def prune(
    root: StoreRoot,
    *,
    older_than: timedelta = DEFAULT_AGE,
    names: Sequence[str] = (),
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PruneReport:
    """Remove what nothing needs.

    Kept are generations that are current, pinned by a kept split or predictions, superseded for less than ``older_than``,
    or of a name that is being written. Removed are the other superseded ones; unfinished ones, and complete ones that were
    never current, whose last change is older than ``older_than``; and equally old ``.partial`` files of killed writers.
    Checkpoints outside the store are not seen: keep what they pin by a longer ``older_than``.

    Parameters
    ----------
    names
        Remove only below these (``genomes/hg38``, or what several begin with). Pins count wherever they are.

    Raises
    ------
    StoreError
        If a pointer, or the group of a split or predictions, is damaged: what it needs cannot be told.
    StoreNotFoundError
        If there is no store, or no such name.
    """
    started = time.perf_counter()
    facts = _collect(root, datetime.now(UTC) - older_than)
    _check_names(root, facts, names)
    removed, kept = _decide(facts, names)
    partials = _old_partials(root, facts, names)
    if not dry_run:
        done, stayed = _remove_all(root, facts, removed, progress)
        root.remove(item.key for item in partials)
        removed, kept = done, [*kept, *stayed]
    return PruneReport((*removed, *partials), tuple(kept), dry_run, time.perf_counter() - started)


# -- deciding ----------------------------------------------------------------------------------------------------


def _collect(root: StoreRoot, cutoff: datetime) -> _Facts:
    inventory = take_inventory(root)
    ages = root.ages("")
    pointers: dict[str, Pointer | None] = {}
    for path, pointer in read_pointers(root, inventory.names).items():
        if isinstance(pointer, StoreError):
            raise StoreError(f"cannot tell what is current, nothing was removed: {pointer}") from pointer
        pointers[path] = pointer
    groups = read_groups(root, inventory.bases())
    facts = _Facts(inventory, ages, pointers, groups, {}, cutoff)
    for path, name in inventory.names.items():
        for lease in name.leases:
            if (who := _living_holder(root, f"{path}/{lease}")) is not None:
                facts.leased[path] = who
    for base, sizes in inventory.bases().items():
        facts.changed[base] = max(ages.get(f"{base}/{key}", time.time()) for key in sizes)
    return facts


def _living_holder(root: StoreRoot, key: str) -> str | None:
    """Who holds a lease now; None if nobody does."""
    data = root.get(key)
    if data is None or not is_intact(data):
        return None
    holder = parse_sealed(data, root.url_of(key))
    if holder_is_dead(holder) or float(holder["until"]) < time.time():
        return None
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}"


def _check_names(root: StoreRoot, facts: _Facts, names: Iterable[str]) -> None:
    for name in names:
        if not any(_is_below(path, [name]) for path in facts.inventory.names):
            raise StoreNotFoundError(
                f"{root.url}: nothing lies below {name!r}; {close_names(name, facts.inventory.names)}"
            )


def _is_below(key: str, names: Sequence[str]) -> bool:
    return not names or any(f"{key}/".startswith(f"{name.rstrip('/')}/") for name in names)


def _decide(facts: _Facts, names: Sequence[str]) -> tuple[list[PruneItem], list[PruneItem]]:
    """Sort all generations into those that go and those that stay."""
    bases = facts.inventory.bases()
    stay: dict[str, str] = {}
    go: dict[str, str] = {}
    for base in bases:
        is_kept, why = _verdict(facts, base) if _is_below(base, names) else (True, "not asked for")
        (stay if is_kept else go)[base] = why
    asking = list(stay)
    while asking:
        base = asking.pop()
        for pinned in (p for pin in _pins(facts, base) for p in match_pin(pin, bases)):
            if pinned in go:
                del go[pinned]
                stay[pinned] = f"pinned by {base}"
                asking.append(pinned)

    def items(chosen: Mapping[str, str]) -> list[PruneItem]:
        ordered = sorted(chosen, key=lambda base: (_ORDER.get(base.split("/")[0], 9), base))
        return [PruneItem(base, chosen[base], len(bases[base]), sum(bases[base].values())) for base in ordered]

    return items(go), items(stay)


def _pins(facts: _Facts, base: str) -> list[str]:
    group, kind = facts.groups[base], base.split("/")[0]
    if group.status == DAMAGED and kind in (
        "splits",
        "predictions",
        "sample_splits",
        "normalized",
        "bins",
        "scaled",
        "tokens",
    ):
        raise StoreError(f"cannot tell what {base} pins, nothing was removed: {group.error}")
    return pins_of(base.rsplit("/", 1)[0], group.attributes)


def _verdict(facts: _Facts, base: str) -> tuple[bool, str]:
    """Whether a generation stays for its own sake, and why (not)."""
    path, generation = base.rsplit("/", 1)
    if path in facts.leased:
        return True, f"being written by {facts.leased[path]}"
    pointer = facts.pointers[path]
    if pointer is not None and generation in pointer.generations():
        return True, "current"
    since = pointer.superseded.get(generation) if pointer else None
    changed = datetime.fromtimestamp(facts.changed[base], UTC)
    is_complete = facts.groups[base].status == STATUS_COMPLETE
    if since is not None and is_complete:
        return datetime.fromisoformat(since) > facts.cutoff, f"superseded {since}"
    state = (
        "complete and never current" if is_complete else facts.groups[base].status.replace("absent", "without group")
    )
    return changed > facts.cutoff, f"{state}, last changed {changed.isoformat(timespec='seconds')}"


def _old_partials(root: StoreRoot, facts: _Facts, names: Sequence[str]) -> list[PruneItem]:
    items = []
    for key, changed in facts.ages.items():
        path = next((path for path in facts.leased if key.startswith(f"{path}/")), None)
        is_old = datetime.fromtimestamp(changed, UTC) <= facts.cutoff
        if key.endswith(PARTIAL) and is_old and path is None and _is_below(key, names):
            items.append(PruneItem(key, "left by a writer that was killed", 1, root.size(key) or 0))
    return items


# -- removing ----------------------------------------------------------------------------------------------------


def _remove_all(
    root: StoreRoot, facts: _Facts, items: Sequence[PruneItem], progress: Progress | None
) -> tuple[list[PruneItem], list[PruneItem]]:
    removed: list[PruneItem] = []
    stayed: list[PruneItem] = []
    total = sum(item.n_bytes for item in items)
    for item in items:
        path = item.key.rsplit("/", 1)[0]
        try:
            # Names with a living lease are kept: what may lie there now has expired.
            with write_lease(root, path, steal=True):
                gone = _remove_generation(root, facts, item.key)
        except LeaseHeldError as error:
            stayed.append(PruneItem(item.key, str(error), item.n_objects, item.n_bytes))
            continue
        (removed if gone else stayed).append(item)
        if progress is not None:
            progress("removed", sum(i.n_bytes for i in removed), total)
    return removed, stayed


def _remove_generation(root: StoreRoot, facts: _Facts, base: str) -> bool:
    """Remove one generation, the group document first; False if it became current meanwhile."""
    path, generation = base.rsplit("/", 1)
    if _is_current(root, path, generation):
        return False
    document = root.get(f"{base}/{GROUP}")
    root.remove([f"{base}/{GROUP}"])
    if document is not None and _is_current(root, path, generation):
        # Somebody switched back to it between the look and the removal; nothing else is gone yet.
        root.create(f"{base}/{GROUP}", document)
        return False
    sizes = dict.fromkeys(root.ages(base))
    objects = [key for key in sizes if not is_document(key)]
    documents = [key for key in sizes if is_document(key) and key not in (MANIFEST, GROUP, PLAN)]
    root.remove([f"{base}/{MANIFEST}"])
    for some in (objects, documents):
        root.gather(lambda key: root.remove([f"{base}/{key}"]), some)
    root.remove([f"{base}/{PLAN}"])
    return True


def _is_current(root: StoreRoot, path: str, generation: str) -> bool:
    pointer = read_pointer(root, path)
    return pointer is not None and generation in pointer.generations()
