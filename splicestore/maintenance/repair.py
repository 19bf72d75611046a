"""``verify --repair``: put right what the store itself, or the service that wrote it, knows to be wrong.

Nothing is ever believed that a digest does not confirm. What is replaced is overwritten, never deleted first: a reader takes
an absent object for fill values. Only documents of *unfinished* generations, which nobody reads, are taken away, because
the command that finishes them writes again what is not there and stops at what is damaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from splicestore.cluster import Executor, open_executor
from splicestore.errors import SpliceStoreError
from splicestore.maintenance.findings import DAMAGE, FROM_COPY, Finding, VerifyReport
from splicestore.maintenance.generation import GenerationCheck, sha256_of
from splicestore.maintenance.hashing import Progress
from splicestore.maintenance.inventory import GROUP, MANIFEST, PLAN, read_pointers, take_inventory
from splicestore.maintenance.verify import Survey, catalog_entries, expected_parent, survey_store, verify
from splicestore.storage import Part, Pointer, StoreRoot, read_catalog, rebuild_catalog, write_lease
from splicestore.storage.finalise import STATUS_COMPLETE
from splicestore.storage.partitions import part_key
from splicestore.storage.sealed import SEAL_KEY, is_intact, seal_document

MEND_BYTES = 16 * 10**9
"""Looking for one flipped bit may hash this much: ten seconds at most, for documents of up to 45 kB."""


@dataclass(frozen=True, slots=True)
class DamagedGeneration:
    """What of a complete generation must be written again by the service that wrote it."""

    path: str
    generation: str
    parts: tuple[str, ...]
    """Partitions with damaged or missing objects or part documents."""
    documents: tuple[str, ...] = ()
    """Damaged or missing documents, by key relative to the generation."""

    @property
    def base(self) -> str:
        """Key of the generation."""
        return f"{self.path}/{self.generation}"


Reencode = Callable[[DamagedGeneration], None]
"""Writes the partitions of a damaged generation again, over what is there. Takes the write lease itself, and compares the
inputs with the digests of the plan before it writes. Raises one of our errors where it cannot, which is reported with the
keys that stay damaged."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was damaged, what was done, what is left."""

    before: VerifyReport
    after: VerifyReport
    repaired: tuple[tuple[str, str], ...]
    """(key or generation, what was done)."""
    refused: tuple[tuple[str, str], ...]
    """(name or generation, why it could not be repaired)."""

    def as_dict(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return {
            **self.after.as_dict(),
            "n_damage_before": len(self.before.damage),
            "repaired": [{"key": key, "how": how} for key, how in self.repaired],
            "refused": [{"key": key, "why": why} for key, why in self.refused],
        }


@dataclass
class _Repair:
    root: StoreRoot
    steal: bool
    repaired: list[tuple[str, str]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, data: bytes, how: str) -> None:
        self.root.put(key, data)
        self.repaired.append((key, how))

    def refuse(self, key: str, why: str) -> None:
        self.refused[key] = why

    def remove(self, key: str, how: str) -> None:
        self.root.remove([key])
        self.repaired.append((key, how))


def repair(
    root: StoreRoot,
    *,
    names: Sequence[str] = (),
    reencode: Reencode | None = None,
    remove_foreign: bool = False,
    steal: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> RepairReport:
    """Verify, repair what can be, verify again.

    Parameters
    ----------
    reencode
        Writes partitions of complete generations again from their recorded inputs; without it their damage stays.
    remove_foreign
        Remove objects that nothing in the store knows.
    steal
        Take over write leases that have expired.

    Returns
    -------
    report
        ``after.damage`` is what could not be repaired.

    Raises
    ------
    StoreNotFoundError
        If there is no store, or nothing lies below one of the names.
    """
    if executor is None:
        with open_executor("sync") as opened:
            return repair(root, names=names, reencode=reencode, remove_foreign=remove_foreign, steal=steal,
                          executor=opened, progress=progress)  # fmt: skip
    before = after = verify(root, names=names, executor=executor, progress=progress)
    work = _Repair(root, steal)
    if before.damage:
        _repair_documents(work, names, before.damage)
        _repair_catalog(work, before.damage)
    if work.repaired:
        # Objects of parts that were damaged could not be judged before.
        after = verify(root, names=names, executor=executor, progress=progress)
    damaged = _damaged_generations(root, names, after.damage)
    if [generation for generation in damaged if _reencode(work, generation, reencode)]:
        after = verify(root, names=names, executor=executor, progress=progress)
    if remove_foreign and _remove_foreign(work, after.findings):
        after = verify(root, names=names, executor=executor, progress=progress)
    return RepairReport(before, after, tuple(work.repaired), tuple(work.refused.items()))


# -- documents ---------------------------------------------------------------------------------------------------


def _repair_documents(work: _Repair, names: Sequence[str], damage: Iterable[Finding]) -> None:
    """Repair documents until nothing more can be done: what a mended manifest records can only then be judged."""
    done = -1
    while done < len(work.repaired):
        done = len(work.repaired)
        survey = survey_store(work.root, names)
        _repair_round(work, survey, damage)
        damage = [f for f in survey_store(work.root, names).all_findings() if f.severity == DAMAGE]


def _repair_round(work: _Repair, survey: Survey, damage: Iterable[Finding]) -> None:
    """Constants, leases, documents of generations, then pointers; each name under its lease."""
    by_path: dict[str, list[Finding]] = {}
    for finding in damage:
        by_path.setdefault(finding.path, []).append(finding)
    for finding in by_path.pop("", []):
        if finding.problem in ("parent_damaged", "parent_missing"):
            work.put(finding.key, expected_parent(finding.key), "written again: it is the same in every store")
    for path, findings in by_path.items():
        with ExitStack() as held:
            for finding in findings:
                if finding.problem == "lease_damaged":
                    work.remove(finding.key, "removed: its holder cannot renew a damaged lease")
            try:
                held.enter_context(write_lease(work.root, path, steal=work.steal))
            except SpliceStoreError as error:
                work.refuse(path, str(error))
                continue
            for base in {f"{path}/{f.generation}": None for f in findings if f.generation}:
                if base in survey.generations:
                    _repair_generation(work, survey.generations[base], findings)
            if any(f.problem in ("pointer_damaged", "pointer_missing") for f in findings):
                _repair_pointer(work, survey, path)


def _repair_generation(work: _Repair, check: GenerationCheck, findings: Iterable[Finding]) -> None:
    mine = [f for f in findings if f.generation == check.generation and f.key.startswith(f"{check.base}/")]
    if not check.is_complete:
        _clear_unfinished(work, check, mine)
        return
    wrong = [f.key[len(check.base) + 1 :] for f in mine if f.problem.startswith(("document_", "part_"))]
    # The manifest judges the others, and the group holds copies of them.
    for key in sorted(dict.fromkeys(wrong), key=lambda key: (key != MANIFEST, key != GROUP, key)):
        mended = _mended(check, key)
        if mended is None:
            continue
        data, how = mended
        work.put(f"{check.base}/{key}", data, how)
        check = GenerationCheck(check.root, check.path, check.generation, check.sizes, check.is_named,
                                {**check.documents, key: data})  # fmt: skip


def _clear_unfinished(work: _Repair, check: GenerationCheck, findings: Iterable[Finding]) -> None:
    """Take away damaged documents, and the parts of damaged objects: the same command then writes them again."""
    for finding in findings:
        if finding.problem.startswith("object_"):
            # A resumed run looks at sizes only; without its part the partition is encoded again.
            work.remove(part_key(check.base, finding.part), "removed: its partition will be encoded again")
        elif finding.problem.startswith(("document_", "part_")):
            work.remove(finding.key, "removed from an unfinished generation: the same command writes it again")


def _mended(check: GenerationCheck, key: str) -> tuple[bytes, str] | None:
    """A document as it was written, and how that is known; None where it cannot be told."""
    data, is_right = check.documents.get(key), _judge(check, key)
    copy = check.consolidated().get(key)
    if copy is not None and is_right(copy):
        return copy, "written again from the consolidated metadata of its group"
    flipped = None if data is None else flip_back(data, is_right)
    return None if flipped is None else (flipped, "one flipped bit turned back: its digest is right again")


def _judge(check: GenerationCheck, key: str) -> Callable[[bytes], bool]:
    """How a document of a complete generation is recognised."""
    if key == PLAN:
        return lambda data: sha256_of(data)[: len(check.generation)] == check.generation
    manifest = check.manifest
    recorded = _recorded(manifest, key) if manifest else None
    if recorded is not None:
        digest = bytes.fromhex(recorded)
        return lambda data: hashlib.sha256(data).digest() == digest
    if key in (MANIFEST, GROUP) or key.endswith("run.json"):
        return is_intact
    return lambda data: key.endswith(f"/{GROUP}") and data == check.consolidated().get(key)


def _recorded(manifest: Mapping[str, Any], key: str) -> str | None:
    if key.startswith("parts/"):
        found = manifest["parts"].get(key.removeprefix("parts/").removesuffix(".json"))
    else:
        found = manifest["metadata"].get(key)
    return None if found is None else str(found)


def flip_back(data: bytes, is_right: Callable[[bytes], bool]) -> bytes | None:
    """Find the one bit that, turned over, makes a document right again; None if there is none, or it would take too long.

    A digest of 64 bits or more confirms it: of a few 10^5 tries no wrong one passes by chance.
    """
    if len(data) * len(data) * 8 > MEND_BYTES:
        return None
    tried = bytearray(data)
    for place in range(len(tried)):
        for bit in range(8):
            tried[place] ^= 1 << bit
            if is_right(bytes(tried)):
                return bytes(tried)
            tried[place] ^= 1 << bit
    return None


# -- pointers and the catalogue ----------------------------------------------------------------------------------


def _repair_pointer(work: _Repair, survey: Survey, path: str) -> None:
    key = f"{path}/{GROUP}"
    found = work.root.read(key)
    flipped = flip_back(found.data, is_intact) if found is not None else None
    if flipped is not None:
        work.put(key, flipped, "one flipped bit turned back: its digest is right again")
        return
    try:
        current = dict(catalog_entries(read_catalog(work.root))).get(path)
    except SpliceStoreError:
        current = None
    if current is None:
        why = "pointer and catalogue are both damaged: remove the pointer and run the command that published the name again"
        work.refuse(key, f"{why}; what is complete is only switched to")
        return
    pointer = Pointer(current, {})
    groups = {g: survey.generations.get(f"{path}/{g}") for g in pointer.generations()}
    unfinished = [
        g for g, check in groups.items() if check is None or check.attributes.get("status") != STATUS_COMPLETE
    ]
    if unfinished:
        work.refuse(
            key, f"the catalogue names generation {unfinished[0]}, which is not complete: publish the name again"
        )
        return
    # When the others ceased to be current is lost with the pointer; prune counts from now.
    now = datetime.now(UTC).isoformat(timespec="seconds")
    others = [c for c in survey.generations.values() if c.path == path and c.is_complete and c.generation not in groups]
    data = Pointer(current, {check.generation: now for check in others}).spell()
    if work.root.put_if(key, data, found.tag if found else None):
        work.repaired.append((key, "written again from the catalogue"))


def _repair_catalog(work: _Repair, damage: Iterable[Finding]) -> None:
    """Make the catalogue from the pointers, those that are damaged left out: readers still find such names when asked."""
    wrong = [f for f in damage if f.problem.startswith("catalog_")]
    if not wrong:
        return
    root = work.root
    pointers = read_pointers(root, take_inventory(root).names)
    unreadable = [path for path, pointer in pointers.items() if isinstance(pointer, SpliceStoreError)]
    if not unreadable:
        rebuild_catalog(root)
        work.repaired.append((wrong[0].key, "rebuilt from the pointers"))
        return
    work.refuse(wrong[0].key, f"it is made from the pointers, and that of {unreadable[0]} is damaged")


# -- partitions --------------------------------------------------------------------------------------------------


def _damaged_generations(root: StoreRoot, names: Sequence[str], damage: Sequence[Finding]) -> list[DamagedGeneration]:
    """What of complete generations is still damaged, by generation."""
    if not damage:
        return []
    survey = survey_store(root, names)
    wanted: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for finding in damage:
        check = survey.generations.get(f"{finding.path}/{finding.generation}")
        if check is None or not check.is_complete or not finding.key.startswith(f"{check.base}/"):
            continue
        parts, documents = wanted.setdefault((finding.path, finding.generation), ({}, {}))
        if finding.part:
            parts[finding.part] = None
        elif finding.problem.startswith("document_"):
            documents[finding.key[len(check.base) + 1 :]] = None
    return [DamagedGeneration(path, generation, tuple(parts), tuple(documents))
            for (path, generation), (parts, documents) in wanted.items() if parts or documents]  # fmt: skip


def _reencode(work: _Repair, damaged: DamagedGeneration, reencode: Reencode | None) -> bool:
    """Hand a generation to its service; whether that wrote anything."""
    what = ", ".join([*damaged.parts, *damaged.documents])
    if reencode is None:
        work.refuse(
            damaged.base,
            f"{what}: can only be made again from the inputs, and nothing was given that does; {FROM_COPY}",
        )
        return False
    try:
        reencode(damaged)
    except SpliceStoreError as error:
        work.refuse(damaged.base, str(error))
        return False
    work.repaired.append((damaged.base, f"written again from its inputs: {what}"))
    _accept_equal_content(work, damaged)
    return True


def _accept_equal_content(work: _Repair, damaged: DamagedGeneration) -> None:
    """Record parts whose stored bytes differ but whose values do not: another release of the compressor wrote them."""
    root, base = work.root, damaged.base
    sizes = root.sizes(base)
    check = GenerationCheck(root, damaged.path, damaged.generation, sizes, is_named=True)
    manifest = check.manifest
    if manifest is None:
        return
    spelled = {name: check.documents.get(f"parts/{name}.json") for name in manifest["parts"]}
    if {name: sha256_of(data) if data else None for name, data in spelled.items()} == manifest["parts"]:
        return
    try:
        parts = {name: Part.parse(data or b"") for name, data in spelled.items()}
    except ValueError:
        return
    if sha256_of("".join(parts[name].content for name in sorted(parts)).encode()) != manifest["content"]:
        work.refuse(base, "its inputs give other values than those that were stored; nothing was recorded")
        return
    manifest.pop(SEAL_KEY)
    manifest["parts"] = {name: sha256_of(data or b"") for name, data in sorted(spelled.items())}
    manifest["n_objects"] = sum(len(part.objects) for part in parts.values())
    manifest["n_bytes"] = sum(o.size for part in parts.values() for o in part.objects.values())
    work.put(
        f"{base}/{MANIFEST}", seal_document(manifest), "records the parts as written again; their values are the same"
    )


def _remove_foreign(work: _Repair, findings: Iterable[Finding]) -> bool:
    keys = [f.key for f in findings if f.problem in ("foreign", "foreign_in_array")]
    for key in keys:
        work.remove(key, "removed: nothing in the store knows it")
    return bool(keys)
