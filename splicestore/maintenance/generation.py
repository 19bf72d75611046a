"""One generation against its own records: plan, group, manifest, metadata, parts, and a listing of its objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from splicestore.errors import StoreError
from splicestore.maintenance.findings import AGAIN, DAMAGE, FROM_COPY, NOTE, REPAIR, Finding
from splicestore.maintenance.inventory import ABSENT, GROUP, MANIFEST, PLAN
from splicestore.schema import FORMAT_VERSION
from splicestore.storage import Part, StoreRoot
from splicestore.storage.finalise import STATUS_COMPLETE, STATUS_INCOMPLETE
from splicestore.storage.partitions import StoredObject
from splicestore.storage.publish import check_format
from splicestore.storage.runs import RUN
from splicestore.storage.sealed import is_intact, parse_sealed

RESTART = (
    "run `splicestore verify --repair`, which takes it away so that the same command writes it anew, then that command"
)


def sha256_of(data: bytes) -> str:
    """Spell the sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def is_document(key: str) -> bool:
    """Whether a key of a generation is a document, not an object of an array."""
    return key in (PLAN, MANIFEST, GROUP, RUN) or key.endswith(f"/{GROUP}") or _part_name(key) is not None


def _part_name(key: str) -> str | None:
    words = key.split("/")
    return words[1][: -len(".json")] if len(words) == 2 and words[0] == "parts" and key.endswith(".json") else None


@dataclass
class GenerationCheck:
    """The documents of one generation, judged."""

    root: StoreRoot
    path: str
    generation: str
    sizes: Mapping[str, int]
    """One listing: {key relative to the generation: bytes}."""
    is_named: bool
    """Whether a pointer or a pin names it: then it must be complete."""
    documents: dict[str, bytes] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)
    """Parts that can be trusted to say what their partition wrote."""

    def __post_init__(self) -> None:
        self.base = f"{self.path}/{self.generation}"
        keys = [key for key in self.sizes if is_document(key)]
        if not self.documents:
            found = self.root.gather(lambda key: self.root.get(f"{self.base}/{key}"), keys)
            self.documents = {key: data for key, data in zip(keys, found, strict=True) if data is not None}
        self.group = self._sealed(GROUP)
        self.manifest = self._sealed(MANIFEST)
        self.status = self._status()

    def _sealed(self, key: str) -> dict[str, Any] | None:
        data = self.documents.get(key)
        return parse_sealed(data, self.base) if data is not None and is_intact(data) else None

    def _status(self) -> str:
        if self.group is not None:
            return str(self.attributes.get("status"))
        # Of a damaged group nothing can be believed; a manifest is only written when everything else is there.
        if self.is_named or (GROUP in self.documents and MANIFEST in self.documents):
            return STATUS_COMPLETE
        return STATUS_INCOMPLETE if GROUP in self.documents else ABSENT

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Ours, of the group; empty where its document is damaged."""
        return {} if self.group is None else dict(self.group["attributes"]["splicestore"])

    @property
    def is_complete(self) -> bool:
        """Whether it says so, or must be."""
        return self.status == STATUS_COMPLETE

    # -- judging -----------------------------------------------------------------------------------------------

    def run(self) -> GenerationCheck:
        """Judge every document and the listing; the objects' bytes are left to the caller."""
        self._check_plan()
        self._check_group()
        if self.is_complete:
            self._check_manifest()
            self._check_metadata()
            self._check_complete_parts()
        else:
            self._check_unfinished()
        self._check_run()
        self._check_sizes()
        self._check_foreign()
        return self

    def objects(self) -> dict[str, tuple[str, StoredObject]]:
        """Objects that the parts record: {key relative to the generation: (part, size and digest)}."""
        return {key: (name, stored) for name, part in self.parts.items() for key, stored in part.objects.items()}

    def found(self, problem: str, key: str, what: str, advice: str | None = None, *, part: str = "") -> None:
        """Note a damage."""
        advice = advice or (REPAIR if self.is_complete else RESTART)
        self.findings.append(
            Finding(DAMAGE, problem, self.path, f"{self.base}/{key}", what, advice, self.generation, part)
        )

    def note(self, problem: str, key: str, what: str, advice: str) -> None:
        """Note something worth knowing."""
        self.findings.append(Finding(NOTE, problem, self.path, key, what, advice, self.generation))

    def _check_plan(self) -> None:
        data = self.documents.get(PLAN)
        if data is None:
            if self.status != ABSENT:
                self.found("document_missing", PLAN, "the plan is not there")
        elif sha256_of(data)[: len(self.generation)] != self.generation:
            self.found("document_damaged", PLAN, "its sha256 does not begin with the generation's name")

    def _check_group(self) -> None:
        if GROUP not in self.documents:
            if self.is_complete:
                self.found("document_missing", GROUP, "the group document of a generation in use is not there")
            return
        if self.group is None:
            self.found("document_damaged", GROUP, "its bytes do not match its seal")
            return
        try:
            check_format(self.attributes, self.root.url_of(self.base))
        except StoreError as error:
            self.found("document_damaged", GROUP, str(error), "use the release that wrote it")
        if self.attributes.get("generation") != self.generation:
            self.found("document_damaged", GROUP, f"it is of generation {self.attributes.get('generation')}")
        elif self.is_named and not self.is_complete:
            self.found("generation_incomplete", GROUP, f"a pointer or pin names it, and it is {self.status}", AGAIN)

    def _check_manifest(self) -> None:
        if MANIFEST not in self.documents:
            self.found("document_missing", MANIFEST, "the manifest is not there")
        elif self.manifest is None:
            self.found("document_damaged", MANIFEST, "its bytes do not match its seal")
        elif self.manifest.get("generation") != self.generation or self.manifest.get("format") != FORMAT_VERSION:
            self.found("document_damaged", MANIFEST, "it is of another generation or format")
            self.manifest = None

    def _check_metadata(self) -> None:
        recorded: Mapping[str, str] = self.manifest["metadata"] if self.manifest else {}
        for key, sha256 in recorded.items():
            data = self.documents.get(key)
            if data is None:
                if key != GROUP:
                    self.found("document_missing", key, "array metadata that the manifest records are not there")
            elif sha256_of(data) != sha256 and not (key == GROUP and self.group is None):
                self.found("document_damaged", key, "its sha256 is not the one in the manifest")
        if self.manifest is None:
            self._check_against_consolidated()

    def _check_against_consolidated(self) -> None:
        """Without a manifest the group's own copy is the record of every array."""
        for key, data in self.consolidated().items():
            if self.documents.get(key) != data:
                problem = "document_damaged" if key in self.documents else "document_missing"
                self.found(problem, key, "it is not what the group's consolidated metadata say")

    def consolidated(self) -> dict[str, bytes]:
        """Array metadata as the intact group document holds them, spelled as zarr spells them: {key: document}."""
        held = (self.group or {}).get("consolidated_metadata") or {}
        return {f"{name}/{GROUP}": json.dumps(document, indent=2).encode()
                for name, document in held.get("metadata", {}).items()}  # fmt: skip

    def _check_complete_parts(self) -> None:
        present = {name: key for key in self.documents if (name := _part_name(key)) is not None}
        recorded: Mapping[str, str] = self.manifest["parts"] if self.manifest else dict.fromkeys(present, "")
        for name, sha256 in recorded.items():
            data = self.documents.get(f"parts/{name}.json")
            if data is None:
                self.found(
                    "part_missing", f"parts/{name}.json", "a part that the manifest records is not there", part=name
                )
            elif sha256 and sha256_of(data) != sha256:
                self.found("part_damaged", f"parts/{name}.json", "its sha256 is not the one in the manifest", part=name)
            else:
                self._take_part(name, data)

    def _take_part(self, name: str, data: bytes) -> None:
        """Trust a part that is spelled as parts are."""
        try:
            part = Part.parse(data)
        except ValueError:
            part = None
        if part is None or part.spell() != data:
            self.found("part_damaged", f"parts/{name}.json", "it is no part document", part=name)
        else:
            self.parts[name] = part

    def _check_unfinished(self) -> None:
        if MANIFEST in self.documents and self.manifest is None:
            self.found("document_damaged", MANIFEST, "its bytes do not match its seal")
        for key, data in self.documents.items():
            if (name := _part_name(key)) is not None:
                self._take_part(name, data)
            elif key.endswith(f"/{GROUP}") and not _is_spelled_by_zarr(data):
                self.found("document_damaged", key, "it is no array metadata")
        # A resumed run compares sizes with a listing, and encodes such a part again.
        redone = [name for name, part in self.parts.items() if any(self._is_off(k, o) for k, o in part.objects.items())]
        for name in redone:
            del self.parts[name]
        recorded = self.objects()
        loose = [key for key in self.sizes if not is_document(key) and key not in recorded]
        state = "has no group document" if self.status == ABSENT else "is unfinished"
        self.note(
            "unfinished",
            self.base,
            f"{state}: {len(self.parts)} parts written, {len(loose)} objects in no finished part{self._missing_units()}",
            f"{AGAIN}; or let `splicestore prune` remove it",
        )

    def _missing_units(self) -> str:
        """What a job array has not written yet, where one writes this generation."""
        run = self._sealed(RUN)
        if run is None:
            return ""
        # The unit of the usage panel lies in another generation.
        units = [unit for unit in run["units"] if unit != "usage" and unit not in self.parts]
        shown = ", ".join(units[:5]) + (f" and {len(units) - 5} more" if len(units) > 5 else "")
        return f"; missing of its job array: {shown or 'nothing'}"

    def _is_off(self, key: str, stored: StoredObject) -> bool:
        return self._size(key) != stored.size

    def _size(self, key: str) -> int | None:
        """Size of an object now; the listing may be older than the part."""
        size = self.sizes.get(key)
        return self.root.size(f"{self.base}/{key}") if size is None else size

    def _check_run(self) -> None:
        if RUN in self.documents and self._sealed(RUN) is None:
            self.found("document_damaged", RUN, "its bytes do not match its seal")

    def _check_sizes(self) -> None:
        for key, (name, stored) in list(self.objects().items()):
            size = self._size(key)
            if size is None:
                self.found("object_missing", key, "the object is not there: it would read as fill values", part=name)
            elif size != stored.size:
                self.found("object_damaged", key, f"it has {size} bytes, part {name} records {stored.size}", part=name)

    def _check_foreign(self) -> None:
        """Objects that no document of a complete generation knows; of an array, they are read as its values."""
        if not self.is_complete or (self.manifest is None and self.group is None):
            return
        recorded = self.objects()
        metadata = set(self.manifest["metadata"] if self.manifest else self.consolidated())
        parts = {f"parts/{name}.json" for name in (self.manifest["parts"] if self.manifest else self.parts)}
        known = {PLAN, MANIFEST, GROUP, RUN, *metadata, *parts, *recorded}
        has_broken_part = any(f.problem in ("part_damaged", "part_missing") for f in self.findings)
        arrays = {key.removesuffix(f"/{GROUP}") for key in metadata if key != GROUP}
        for key in self.sizes:
            if key in known:
                continue
            in_array = "/c/" in key and key.split("/c/")[0] in arrays
            if in_array and not has_broken_part:
                what = "no part records this object, and readers take it for values of the array"
                self.found(
                    "foreign_in_array", key, what, "look at it, then `splicestore verify --repair --remove-foreign`"
                )
            elif not in_array and not (has_broken_part and key.startswith("parts/")):
                what = "no document of the generation knows this object"
                self.note(
                    "foreign",
                    f"{self.base}/{key}",
                    what,
                    "harmless; `splicestore verify --repair --remove-foreign` removes it",
                )


def _is_spelled_by_zarr(data: bytes) -> bool:
    """Whether array metadata of an unfinished generation, which nothing records yet, are at least spelled as zarr does."""
    try:
        return json.dumps(json.loads(data), indent=2).encode() == data
    except ValueError:
        return False


def missing_generation(path: str, generation: str, wanted_by: str) -> Finding:
    """A pointer or pin that names nothing."""
    what = f"{wanted_by} names generation {generation}, and nothing is there"
    return Finding(DAMAGE, "generation_missing", path, f"{path}/{generation}/{GROUP}", what, FROM_COPY, generation)


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Damage first, then by key."""
    return tuple(sorted(findings, key=lambda f: (f.severity != DAMAGE, f.key, f.problem)))
