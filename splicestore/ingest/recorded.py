"""Inputs as a manifest records them: found again, and still the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splicestore.config import UsageFile
from splicestore.errors import StoreError
from splicestore.ingest.inputs import IngestOptions, UsageInputs, digest_usage
from splicestore.schema import InputDigest
from splicestore.storage import StoreRoot, input_exists, read_sealed


@dataclass(frozen=True, slots=True)
class RecordedUsage:
    """What a usage generation was made from, and how."""

    inputs: UsageInputs
    mix_estimators: bool
    override_gates: bool
    """Its join gate was overridden, and is again: the counts are the ones that somebody chose to keep."""


def recorded_usage(
    root: StoreRoot, base: str, options: IngestOptions, *, aliases: InputDigest | None, purpose: str, what_now: str
) -> RecordedUsage:
    """Find the files of a usage generation again.

    Parameters
    ----------
    aliases
        The genome's alias table, part of the panel's identity.
    purpose, what_now
        Beginning and end of the error.

    Raises
    ------
    StoreError
        If a recorded file is missing, or is not the file it was.
    """
    provenance = (read_sealed(root, f"{base}/manifest.json") or {}).get("provenance", {})
    files, found = [], {}
    for row in provenance.get("files", []):
        usage = UsageFile.model_validate({key: value for key, value in row.items() if key != "sha256"})
        files.append(usage)
        if usage.file in found:
            continue
        if not input_exists(usage.file, storage_options=options.storage_options):
            raise StoreError(f"{purpose}, but its input {usage.file} is not there any more; {what_now}")
        digest = digest_usage(usage, options)
        if digest.sha256 != row["sha256"]:
            raise StoreError(f"{purpose}, but its input {usage.file} changed since it was ingested; {what_now}")
        found[usage.file] = digest
    digests = tuple(found[usage.file] for usage in files)
    inputs = UsageInputs(tuple(files), digests, _missing_files(root, base), aliases)
    return RecordedUsage(inputs, bool(provenance.get("mix_estimators")), bool(provenance.get("override_gates")))


def _missing_files(root: StoreRoot, base: str) -> tuple[UsageFile, ...]:
    """Optional files that were not there: the ledger names them."""
    plan: Mapping[str, Any] = root.get_json(f"{base}/plan.json") or {}
    return tuple(
        UsageFile(file=condition, condition=condition, optional=True)
        for condition in plan.get("options", {}).get("missing", [])
    )
