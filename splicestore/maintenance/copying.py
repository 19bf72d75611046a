"""``copy``: generations from one store to another, byte for byte, each byte against its record on the way.

The order of writes is that of publishing: plan and array metadata, objects, parts, manifest, group document; and only when
everything that was asked for is there, the pointers, usage before genomes before what pins them, and with each its line in
the catalogue. So the target shows a name when it is whole, and a damaged source changes no name at all. The source is read
by GetObject alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from splicestore.errors import ConfigError, StoreError, StoreNotFoundError, close_names
from splicestore.maintenance.hashing import Progress, stored_sha256
from splicestore.maintenance.inventory import GROUP, MANIFEST, PLAN, pins_of
from splicestore.maintenance.verify import catalog_entries
from splicestore.storage import Part, Pointer, StoreRoot, read_catalog, read_group, read_pointer, write_lease
from splicestore.storage.finalise import STATUS_COMPLETE
from splicestore.storage.lease import read_holder
from splicestore.storage.partitions import StoredObject
from splicestore.storage.publish import parent_documents, switch_pointer
from splicestore.storage.sealed import is_intact, parse_sealed

OBJECTS_IN_FLIGHT = 16
BYTES_IN_FLIGHT = 256 * 1024 * 1024
"""Objects are written whole, so each that is on its way is held whole; a single larger one goes alone."""
_ORDER = {
    kind: place
    for place, kind in enumerate(
        (
            "usage",
            "genomes",
            "splits",
            "predictions",
            "expression",
            "sample_splits",
            "normalized",
            "bins",
            "scaled",
            "tokens",
        )
    )
}

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Selection:
    """What to copy; nothing named: everything that is published."""

    genomes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    predictions: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()
    """Usage panels of the genomes; all by default."""
    usage: bool = True
    """Whether to bring panels that no prediction pins."""

    @property
    def is_everything(self) -> bool:
        """Whether no name was given."""
        return not (self.genomes or self.splits or self.predictions)


@dataclass(frozen=True, slots=True)
class SourceGeneration:
    """One complete generation of the source, its documents read and checked."""

    base: str
    why: str
    documents: Mapping[str, bytes]
    """By key relative to the generation."""
    objects: Mapping[str, StoredObject]
    digest: str | None
    """Usage: the digest of the sites it belongs to."""

    @property
    def path(self) -> str:
        """``<kind>/<name>``."""
        return self.base.rsplit("/", 1)[0]

    @property
    def generation(self) -> str:
        """Its name."""
        return self.base.rsplit("/", 1)[1]

    @property
    def n_bytes(self) -> int:
        """Bytes of objects and documents."""
        return sum(o.size for o in self.objects.values()) + sum(map(len, self.documents.values()))


@dataclass(frozen=True, slots=True)
class CopyRow:
    """What became of one generation."""

    key: str
    why: str
    """Asked for, pinned by whom, or usage of which genome."""
    status: str
    """copied | present | to copy (dry run)."""
    current: bool
    """Whether the target's pointer names it now (dry run: will)."""
    n_objects: int
    """Objects and documents it has."""
    n_bytes: int
    n_objects_copied: int
    n_bytes_copied: int

    def as_dict(self) -> dict[str, Any]:
        """Spell the row for ``--json``."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was copied."""

    source: str
    target: str
    rows: tuple[CopyRow, ...]
    dry_run: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return {
            "source": self.source,
            "target": self.target,
            "dry_run": self.dry_run,
            "n_objects": sum(row.n_objects_copied for row in self.rows),
            "n_bytes": sum(row.n_bytes_copied for row in self.rows),
            "generations": [row.as_dict() for row in self.rows],
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class _Work:
    """What of one generation the target still needs."""

    source: SourceGeneration
    objects: tuple[str, ...]
    documents: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        objects, documents = self.source.objects, self.source.documents
        return sum(objects[key].size for key in self.objects) + sum(len(documents[key]) for key in self.documents)


def copy_store(
    source: StoreRoot,
    target: StoreRoot,
    selection: Selection | None = None,
    *,
    dry_run: bool = False,
    verify_existing: bool = False,
    steal: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> CopyReport:
    """Copy what is published, or a selection with everything it pins; the same call again goes on where it stopped.

    Of a name that was asked for, the source's current generation becomes the target's; what the target had stays as
    superseded. A genome that only a split or predictions pin becomes current only where the target has none of that name.

    Parameters
    ----------
    dry_run
        Only say what would be copied.
    verify_existing
        Hash objects that the target has already, instead of comparing their sizes; those that differ are overwritten.
    steal
        Take over expired write leases of the target.
    force
        Switch a name although somebody else published it meanwhile.

    Raises
    ------
    StoreNotFoundError
        If the source does not publish what was asked for.
    StoreError
        If a byte of the source is not as recorded, naming the key: no name of the target changes.
    LeaseHeldError, PointerMovedError
        If somebody else writes one of the names.
    """
    started = time.perf_counter()
    if source.url == target.url:
        raise ConfigError(f"{source.url}: source and target are the same store; name another target")
    generations, current = select_generations(source, selection or Selection())
    pointers = {g.path: read_pointer(target, g.path) for g in generations.values()}
    current |= _first_of_its_name(generations, current, pointers)
    if not dry_run:
        _refuse_leased(target, pointers)
    work = [_missing(target, g, verify_existing=verify_existing) for g in generations.values()]
    if not dry_run:
        _copy_all(source, target, work, steal=steal, progress=progress)
        _switch_all(target, [g for g in generations.values() if g.base in current], pointers, steal=steal, force=force)
    rows = [_row(w, is_current=w.source.base in current, dry_run=dry_run) for w in work]
    return CopyReport(source.url, target.url, tuple(rows), dry_run, time.perf_counter() - started)


def _refuse_leased(target: StoreRoot, paths: Iterable[str]) -> None:
    """Say now, not after hours of copying, that somebody writes one of the names."""
    for path in paths:
        if read_holder(target, path) is not None:
            with write_lease(target, path):
                pass


def _row(work: _Work, *, is_current: bool, dry_run: bool) -> CopyRow:
    n_copied = len(work.objects) + len(work.documents)
    return CopyRow(
        key=work.source.base,
        why=work.source.why,
        status="present" if not n_copied else "to copy" if dry_run else "copied",
        current=is_current,
        n_objects=len(work.source.objects) + len(work.source.documents),
        n_bytes=work.source.n_bytes,
        n_objects_copied=n_copied,
        n_bytes_copied=work.n_bytes,
    )


# -- what to copy ------------------------------------------------------------------------------------------------


def select_generations(source: StoreRoot, selection: Selection) -> tuple[dict[str, SourceGeneration], set[str]]:
    """Read the generations of a selection and of all that it pins: ({key: generation}, keys that become current)."""
    found = _Selected(source, selection, dict(catalog_entries(read_catalog(source))))
    asked = [
        *(f"genomes/{name}" for name in selection.genomes),
        *(f"splits/{name}" for name in selection.splits),
        *(f"predictions/{name}" for name in selection.predictions),
    ]
    if selection.is_everything:
        asked = [path for path in found.catalog if not path.startswith("usage/")]
        if not found.catalog:
            raise StoreNotFoundError(f"{source.url}: nothing is published here; check the path or URL")
    for path in asked:
        found.add_name(path)
    if selection.is_everything and selection.usage:
        # Panels of genomes that are not there themselves.
        for path in found.catalog:
            if path.startswith("usage/"):
                found.add_panel(path, None, "published")
    found.check_panels()
    ordered = sorted(found.generations.values(), key=lambda g: (_ORDER.get(g.base.split("/")[0], 9), g.base))
    return {g.base: g for g in ordered}, found.current


@dataclass
class _Selected:
    source: StoreRoot
    selection: Selection
    catalog: Mapping[str, Any]
    generations: dict[str, SourceGeneration] = field(default_factory=dict)
    current: set[str] = field(default_factory=set)
    panels_seen: set[str] = field(default_factory=set)

    def add_name(self, path: str) -> None:
        pointer = read_pointer(self.source, path)
        if pointer is None:
            kind, name = path.split("/", 1)
            known = [p.split("/", 1)[1] for p in self.catalog if p.startswith(f"{kind}/")]
            raise StoreNotFoundError(
                f"{self.source.url}: no {name!r} is published under {kind}; {close_names(name, known)}"
            )
        for generation in pointer.generations():
            self.add(f"{path}/{generation}", "asked for" if not self.selection.is_everything else "published")
            self.current.add(f"{path}/{generation}")

    def add(self, base: str, why: str) -> None:
        """Add one generation and what it pins; a genome brings the usage of its sites."""
        if base in self.generations:
            return
        generation, attributes = read_source(self.source, base, why)
        self.generations[base] = generation
        path = generation.path
        for pin in pins_of(path, attributes):
            self.add(self._resolve(pin, base), f"pinned by {path}")
        if path.startswith("genomes/") and self.selection.usage:
            genome_id = path.split("/")[1]
            for panel in [p for p in self.catalog if p.startswith(f"usage/{genome_id}/")]:
                self.add_panel(panel, str(attributes["site_digest"]), f"usage of {path}")

    def add_panel(self, path: str, site_digest: str | None, why: str) -> None:
        """Add a panel's counts for one digest of sites (None: for all), if it is among those wanted."""
        panel = path.split("/")[2]
        self.panels_seen.add(panel)
        if self.selection.panels and panel not in self.selection.panels:
            return
        pointer = read_pointer(self.source, path)
        current = pointer.current if pointer is not None else {}
        for digest, generation in current.items():
            if site_digest in (None, digest):
                self.add(f"{path}/{generation}", why)
                self.current.add(f"{path}/{generation}")

    def check_panels(self) -> None:
        for panel in self.selection.panels:
            if panel not in self.panels_seen:
                raise StoreNotFoundError(
                    f"{self.source.url}: no usage panel {panel!r} of the genomes; {close_names(panel, sorted(self.panels_seen))}"
                )

    def _resolve(self, pin: str, base: str) -> str:
        """Key of what a pin stands for: predictions record the generation of their split, not its name."""
        if "*" not in pin:
            return pin
        kind, generation = pin.split("/*/")
        for path in self.catalog:
            if path.startswith(f"{kind}/") and read_group(self.source, f"{path}/{generation}") is not None:
                return f"{path}/{generation}"
        raise StoreError(f"{self.source.url_of(base)}: pins generation {generation} of a split that is not there any more; "
                         "predict again, or copy without these predictions")  # fmt: skip


def read_source(source: StoreRoot, base: str, why: str) -> tuple[SourceGeneration, Mapping[str, Any]]:
    """Read all documents of a complete generation, each against the manifest.

    Raises
    ------
    StoreError
        If it is not there, not complete, or one of its documents is not as recorded.
    """
    found = read_group(source, base)
    if found is None or found[0]["status"] != STATUS_COMPLETE:
        state = "is not there" if found is None else f"is {found[0]['status']}"
        raise StoreError(
            f"{source.url_of(base)}: {state}, and was {why}; publish it again, or leave it out of the copy"
        )
    attributes, group = found
    manifest_data = _document(source, f"{base}/{MANIFEST}", is_intact)
    manifest = parse_sealed(manifest_data, source.url_of(f"{base}/{MANIFEST}"))
    plan = _document(
        source, f"{base}/{PLAN}", lambda data: hashlib.sha256(data).hexdigest()[:16] == base.rsplit("/", 1)[1]
    )
    recorded = {**manifest["metadata"], **{f"parts/{name}.json": sha256 for name, sha256 in manifest["parts"].items()}}

    def read(key: str) -> bytes:
        return _document(source, f"{base}/{key}", lambda data: hashlib.sha256(data).hexdigest() == recorded[key])

    documents = {PLAN: plan, **dict(zip(recorded, source.gather(read, recorded), strict=True)), MANIFEST: manifest_data}
    if documents[GROUP] != group:
        raise _damaged(source, f"{base}/{GROUP}")
    objects: dict[str, StoredObject] = {}
    for name in manifest["parts"]:
        objects.update(Part.parse(documents[f"parts/{name}.json"]).objects)
    digest = str(attributes["site_digest"]) if base.startswith("usage/") else None
    return SourceGeneration(base, why, documents, objects, digest), attributes


def _document(source: StoreRoot, key: str, is_right: Callable[[bytes], bool]) -> bytes:
    data = source.get(key)
    if data is None or not is_right(data):
        raise _damaged(source, key)
    return data


def _damaged(source: StoreRoot, key: str) -> StoreError:
    return StoreError(f"{source.url_of(key)}: missing or not as it was recorded; no name of the target was changed. "
                      f"`splicestore verify {source.url} --repair` mends what it can")  # fmt: skip


def _first_of_its_name(
    generations: Mapping[str, SourceGeneration], current: set[str], pointers: Mapping[str, Pointer | None]
) -> set[str]:
    """Pinned generations of names that the target would otherwise not show: the first of each becomes current."""
    named = {base.rsplit("/", 1)[0] for base in current}
    first: dict[str, str] = {}
    for g in generations.values():
        if g.path not in named and pointers[g.path] is None:
            first.setdefault(g.path, g.base)
    return set(first.values())


# -- what the target lacks ---------------------------------------------------------------------------------------


def _missing(target: StoreRoot, source: SourceGeneration, *, verify_existing: bool) -> _Work:
    """Compare one generation with what the target has of it."""
    sizes = target.sizes(source.base)
    group, manifest = (target.get(f"{source.base}/{key}") if key in sizes else None for key in (GROUP, MANIFEST))
    is_whole = group is not None and manifest is not None and is_intact(manifest) and _records(manifest, group)
    if is_whole and manifest != source.documents[MANIFEST] and not verify_existing:
        # The target made this generation itself, from the same inputs: the same values, perhaps in other bytes.
        return _Work(source, (), ())
    # A run that did not finish may have been killed in any way; a copy writes every object whole.
    hashes = verify_existing or (group is not None and not is_whole)

    def differs(key: str) -> bool:
        wanted = source.objects[key]
        if sizes.get(key) != wanted.size:
            return True
        return hashes and stored_sha256(target, f"{source.base}/{key}", wanted.size) != wanted.sha256

    objects = [
        key for key, is_other in zip(source.objects, target.gather(differs, source.objects), strict=True) if is_other
    ]

    def is_other_document(key: str) -> bool:
        return key not in sizes or target.get(f"{source.base}/{key}") != source.documents[key]

    keys = list(source.documents)
    documents = [key for key, is_other in zip(keys, target.gather(is_other_document, keys), strict=True) if is_other]
    return _Work(source, tuple(objects), tuple(documents))


def _records(manifest: bytes, group: bytes) -> bool:
    """Whether a manifest was written with this group document, so that the generation is complete."""
    return bool(json.loads(manifest)["metadata"].get(GROUP) == hashlib.sha256(group).hexdigest())


# -- copying -----------------------------------------------------------------------------------------------------


def _copy_all(
    source: StoreRoot, target: StoreRoot, work: Sequence[_Work], *, steal: bool, progress: Progress | None
) -> None:
    total, done = sum(w.n_bytes for w in work), 0
    for one in work:
        if not (one.objects or one.documents):
            continue
        with write_lease(target, one.source.path, steal=steal) as lease:
            for n_bytes in _copy_generation(source, target, one):
                done += n_bytes
                if progress is not None:
                    progress("copied", done, total)
                lease.check()


def _copy_generation(source: StoreRoot, target: StoreRoot, work: _Work) -> Iterator[int]:
    """Write one generation in the order of publishing; yield bytes as they are written."""
    base, documents = work.source.base, work.source.documents
    for key, document in parent_documents(work.source.path).items():
        if target.create(key, document) != document:
            raise StoreError(f"{target.url_of(key)}: holds another document than a store of this format; "
                             f"`splicestore verify {target.url} --repair` puts it right")  # fmt: skip

    def put(keys: Iterable[str]) -> Iterator[int]:
        for key in keys:
            target.put(f"{base}/{key}", documents[key])
            yield len(documents[key])

    def copy_object(key: str) -> int:
        stored = work.source.objects[key]
        data = source.get(f"{base}/{key}")
        if data is None or len(data) != stored.size or hashlib.sha256(data).hexdigest() != stored.sha256:
            raise _damaged(source, f"{base}/{key}")
        target.put(f"{base}/{key}", data)
        return len(data)

    missing = set(work.documents)
    parts = [key for key in documents if key.startswith("parts/")]
    early = [key for key in documents if key not in (*parts, MANIFEST, GROUP)]
    yield from put(key for key in early if key in missing)
    yield from _several_at_once(copy_object, [(key, work.source.objects[key].size) for key in work.objects])
    yield from put(key for key in (*parts, MANIFEST, GROUP) if key in missing)


def _several_at_once(function: Callable[[Item], Answer], items: Sequence[tuple[Item, int]]) -> Iterator[Answer]:
    """Apply a function to (item, bytes) in threads, with bounded bytes on their way; the first error ends it."""
    waiting = list(reversed(items))
    running: dict[Future[Answer], int] = {}
    with ThreadPoolExecutor(OBJECTS_IN_FLIGHT) as pool:
        while waiting or running:
            while waiting and (
                not running
                or (len(running) < OBJECTS_IN_FLIGHT and sum(running.values()) + waiting[-1][1] <= BYTES_IN_FLIGHT)
            ):
                item, n_bytes = waiting.pop()
                running[pool.submit(function, item)] = n_bytes
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                del running[future]
                yield future.result()


def _switch_all(
    target: StoreRoot,
    generations: Iterable[SourceGeneration],
    pointers: Mapping[str, Pointer | None],
    *,
    steal: bool,
    force: bool,
) -> None:
    """Make generations current, usage before genomes before what pins them."""
    expected = dict(pointers)
    for g in generations:
        with ExitStack() as held:
            now = read_pointer(target, g.path)
            if now is None or now.generation(g.digest) != g.generation:
                held.enter_context(write_lease(target, g.path, steal=steal))
            switch_pointer(target, g.path, g.generation, digest=g.digest, expected=expected[g.path], force=force)
        # A panel has a generation for each digest of sites.
        expected[g.path] = read_pointer(target, g.path)
