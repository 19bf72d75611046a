"""``verify``: every byte of a store against what was recorded when it was written.

What protects what: constants (documents above the names), seals (pointers, catalogue, manifests, groups, leases), the
generation's own name (plan), the manifest (array metadata, parts), parts (objects). So a flipped byte anywhere is found by
its key. Of an unfinished generation nothing records the array metadata and the newest objects yet; the run that finishes it
compares the former and writes the latter anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from splicestore.cluster import Executor, open_executor
from splicestore.errors import StoreError
from splicestore.maintenance.findings import AGAIN, DAMAGE, FROM_COPY, NOTE, REPAIR, Finding, VerifyReport
from splicestore.maintenance.generation import GenerationCheck, missing_generation, sort_findings
from splicestore.maintenance.hashing import ExpectedObject, Progress, WrongObject, wrong_objects
from splicestore.maintenance.inventory import (
    GROUP,
    Inventory,
    match_pin,
    partial_files,
    pins_of,
    read_pointers,
    take_inventory,
)
from splicestore.storage import Pointer, StoreRoot, read_catalog
from splicestore.storage.catalog import CATALOG, KINDS, NESTED_KINDS
from splicestore.storage.lease import holder_is_dead
from splicestore.storage.publish import parent_documents
from splicestore.storage.sealed import is_intact, parse_sealed

# What pins comes before what it pins.
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


@dataclass
class Survey:
    """All documents of a store, judged; the bytes of objects are not read yet."""

    root: StoreRoot
    inventory: Inventory
    pointers: dict[str, Pointer | StoreError | None]
    generations: dict[str, GenerationCheck]
    """By key."""
    findings: list[Finding]
    """Of everything outside the generations."""

    def all_findings(self) -> list[Finding]:
        """Findings of the store and of its generations."""
        return [*self.findings, *(f for check in self.generations.values() for f in check.findings)]

    def expected(self) -> list[ExpectedObject]:
        """Objects whose size is right and whose bytes are to be read."""
        return [
            ExpectedObject(f"{base}/{key}", stored.size, stored.sha256)
            for base, check in self.generations.items()
            for key, (_, stored) in check.objects().items()
            if check.sizes.get(key) == stored.size
        ]


def verify(
    root: StoreRoot,
    *,
    names: Sequence[str] = (),
    quick: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check a store, or some of its names, against what was recorded when it was written.

    Parameters
    ----------
    names
        ``genomes/hg38``, or what several begin with (``genomes``, ``usage/hg38``); all by default.
    quick
        Compare the sizes of objects with one listing; do not read their bytes. Documents are read all the same.
    executor
        Reads objects in parallel; this process by default. A task holds at most 32 MiB at a time.

    Returns
    -------
    report
        Findings as values; damage is never raised.

    Raises
    ------
    StoreNotFoundError
        If there is no store, or nothing lies below one of the names.
    TransferError
        If the storage does not answer.
    """
    if executor is None:
        with open_executor("sync") as opened:
            return verify(root, names=names, quick=quick, executor=opened, progress=progress)
    started = time.perf_counter()
    survey = survey_store(root, names)
    objects = survey.expected()
    findings = survey.all_findings()
    if not quick:
        findings += [_wrong(survey, wrong) for wrong in wrong_objects(root, objects, executor, progress)]
    return VerifyReport(
        url=root.url,
        findings=sort_findings(findings),
        n_generations=len(survey.generations),
        n_objects=len(objects),
        n_bytes=sum(wanted.size for wanted in objects),
        quick=quick,
        seconds=time.perf_counter() - started,
    )


def _wrong(survey: Survey, wrong: WrongObject) -> Finding:
    base = next(base for base in _bases_above(wrong.key) if base in survey.generations)
    check = survey.generations[base]
    key = wrong.key[len(base) + 1 :]
    part, stored = check.objects()[key]
    what = f"{wrong.got}; part {part} records sha256 {stored.sha256[:16]}..."
    check.found("object_missing" if wrong.is_missing else "object_damaged", key, what, part=part)
    return check.findings.pop()


def _bases_above(key: str) -> Iterable[str]:
    words = key.split("/")
    return ("/".join(words[:depth]) for depth in range(len(words)))


# -- documents ---------------------------------------------------------------------------------------------------


def survey_store(root: StoreRoot, names: Sequence[str] = ()) -> Survey:
    """Read and judge every document of a store, from one listing."""
    inventory = take_inventory(root, names)
    # A name may have been published since the listing; what its pointer says is then looked for again.
    survey = Survey(root, inventory, read_pointers(root, inventory.names), {}, [])
    _check_shared(survey)
    _check_catalog(survey, is_whole=not names)
    for kind in sorted((*KINDS, *NESTED_KINDS), key=lambda kind: _ORDER.get(kind, -1)):
        pinned = _pinned(survey)
        for path in [path for path in inventory.names if path.startswith(f"{kind}/")]:
            _check_name(survey, path, pinned)
    _check_pins(survey, is_whole=not names)
    _check_leftovers(survey, names)
    return survey


def _found(survey: Survey, problem: str, path: str, key: str, what: str, advice: str = REPAIR) -> None:
    survey.findings.append(Finding(DAMAGE, problem, path, key, what, advice))


def _note(survey: Survey, problem: str, path: str, key: str, what: str, advice: str) -> None:
    survey.findings.append(Finding(NOTE, problem, path, key, what, advice))


def expected_parent(key: str) -> bytes:
    """Group document above names, as it must be: the same in every store."""
    return parent_documents(f"{key.removesuffix(GROUP)}any")[key]


def _check_shared(survey: Survey) -> None:
    """Documents above the names: constants. A run that was killed at its start may have left a name without them."""
    root, inventory = survey.root, survey.inventory
    published = [path for path, name in inventory.names.items() if GROUP in name.documents]
    required = {key for path in published for key in parent_documents(path)}
    for key in sorted((required | inventory.shared.keys()) - {CATALOG}):
        wanted = expected_parent(key)
        found = root.get(key)
        if found is None:
            _found(survey, "parent_missing", "", key, "the group document above the names is not there")
        elif found != wanted:
            _found(
                survey,
                "parent_damaged",
                "",
                key,
                "the group document above the names has other bytes than every store's",
            )


def _check_catalog(survey: Survey, *, is_whole: bool) -> None:
    """The catalogue says what the pointers say."""
    root, has_pointer = survey.root, any(isinstance(p, Pointer) for p in survey.pointers.values())
    try:
        catalog = read_catalog(root)
    except (StoreError, ValueError) as error:
        _found(
            survey,
            "catalog_damaged",
            "",
            CATALOG,
            "its bytes do not match its seal" if isinstance(error, StoreError) else str(error),
        )
        return
    if CATALOG not in survey.inventory.shared and root.size(CATALOG) is None:
        if has_pointer:
            _found(survey, "catalog_missing", "", CATALOG, "names are published and the catalogue is not there")
        return
    listed = dict(catalog_entries(catalog))
    for path in sorted({*listed, *survey.pointers} if is_whole else survey.pointers):
        pointer = survey.pointers.get(path)
        if isinstance(pointer, StoreError):
            continue
        if pointer is None and path in listed:
            pointer = read_pointers(root, [path])[path]
        if pointer is None and path in listed:
            _found(
                survey,
                "pointer_missing",
                path,
                f"{path}/{GROUP}",
                "the catalogue lists this name, and its pointer is not there",
            )
        elif isinstance(pointer, Pointer) and listed.get(path) != pointer.current:
            what = f"it says {listed.get(path)} of {path}, the pointer says {pointer.current}"
            _found(survey, "catalog_differs", "", CATALOG, what)


def catalog_entries(catalog: dict[str, object]) -> Iterable[tuple[str, object]]:
    """Names of a catalogue and what it says they are: (``<kind>/<name>``, current)."""
    for kind in (*KINDS, *NESTED_KINDS):
        below = catalog.get(kind)
        for name, value in below.items() if isinstance(below, dict) else ():
            if kind not in NESTED_KINDS:
                yield f"{kind}/{name}", value
            elif isinstance(value, dict):
                yield from ((f"{kind}/{name}/{inner}", current) for inner, current in value.items())


def _check_name(survey: Survey, path: str, pinned: set[str]) -> None:
    name, pointer = survey.inventory.names[path], survey.pointers[path]
    current: set[str] = set()
    if isinstance(pointer, StoreError):
        _found(survey, "pointer_damaged", path, f"{path}/{GROUP}", str(pointer))
    elif pointer is not None:
        current = set(pointer.generations())
    _check_leases(survey, path)
    for generation in sorted(current - set(name.generations)):
        sizes = survey.root.sizes(f"{path}/{generation}")
        if sizes:
            name.generations[generation] = sizes
        else:
            survey.findings.append(missing_generation(path, generation, "the pointer"))
    for generation, sizes in name.generations.items():
        base = f"{path}/{generation}"
        check = GenerationCheck(survey.root, path, generation, sizes, generation in current or base in pinned)
        survey.generations[base] = check.run()
        if isinstance(pointer, Pointer):
            _check_digest(survey, path, pointer, check)
        seen = {*current, *(pointer.superseded if isinstance(pointer, Pointer) else ())}
        is_used = generation in seen or base in pinned
        if check.is_complete and not is_used and not isinstance(pointer, StoreError):
            _note(survey, "never_current", path, base, "it is complete and was never current", AGAIN)


def _check_digest(survey: Survey, path: str, pointer: Pointer, check: GenerationCheck) -> None:
    """A map says of each digest of sites which usage belongs to it."""
    if not isinstance(pointer.current, dict) or "site_digest" not in check.attributes:
        return
    wrong = [d for d, g in pointer.current.items() if g == check.generation and d != check.attributes["site_digest"]]
    if wrong:
        what = f"it gives generation {check.generation} for sites {wrong[0][:16]}, which was joined to others"
        _found(survey, "pointer_wrong", path, f"{path}/{GROUP}", what, "ingest this usage again")


def _pinned(survey: Survey) -> set[str]:
    bases = survey.inventory.bases()
    return {
        base
        for check in survey.generations.values()
        if check.is_complete
        for pin in pins_of(check.path, check.attributes)
        for base in match_pin(pin, bases)
    }


def _check_pins(survey: Survey, *, is_whole: bool) -> None:
    """Splits and predictions need the generations they were made from."""
    wanted = [
        (check, pin)
        for check in survey.generations.values()
        if check.is_complete
        for pin in pins_of(check.path, check.attributes)
    ]
    bases = (survey.inventory if is_whole or not wanted else take_inventory(survey.root)).bases()
    for check, pin in wanted:
        if not match_pin(pin, bases):
            what = f"{check.base} was made from it, and nothing is there"
            survey.findings.append(
                Finding(DAMAGE, "pin_missing", check.path, f"{pin}/{GROUP}", what, FROM_COPY, check.generation)
            )


def _check_leases(survey: Survey, path: str) -> None:
    root = survey.root
    for lease in survey.inventory.names[path].leases:
        key = f"{path}/{lease}"
        data = root.get(key)
        if data is None:
            continue
        if not is_intact(data):
            _found(survey, "lease_damaged", path, key, "its bytes do not match its seal")
            continue
        holder = parse_sealed(data, root.url_of(key))
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        until = datetime.fromtimestamp(float(holder["until"]), UTC)
        if until > datetime.now(UTC) and not holder_is_dead(holder):
            _note(survey, "lease_held", path, key, f"being written by {who}", "wait for it")
        else:
            what = f"left by {who}, which stopped renewing it (ran out {until:%Y-%m-%d %H:%M} UTC)"
            _note(survey, "lease_expired", path, key, what, f"{AGAIN}; on another machine with --steal")


def _check_leftovers(survey: Survey, names: Sequence[str]) -> None:
    """Files of killed writers, and objects that no release writes."""
    for key in partial_files(survey.root):
        if not names or any(key.startswith(f"{name.rstrip('/')}/") for name in names):
            _note(
                survey,
                "partial",
                "",
                key,
                "left by a local writer that was killed",
                "`splicestore prune` sweeps old ones",
            )
    for key in survey.inventory.foreign:
        advice = "harmless; `splicestore verify --repair --remove-foreign` removes it"
        _note(survey, "foreign", "", key, "no release of splicestore writes this object", advice)
