"""Job arrays: which job of how many writes which unit of a generation, so that what is missing can be named."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from splicestore.errors import ConfigError, PartitionMissingError, StoreError
from splicestore.storage.finalise import STATUS_COMPLETE, finalise_generation
from splicestore.storage.keys import StoreRoot
from splicestore.storage.pointers import read_pointer
from splicestore.storage.publish import generation_status, switch_pointer
from splicestore.storage.sealed import read_sealed, seal_document

RUN = "run.json"


@dataclass(frozen=True, slots=True)
class JobShare:
    """Job ``index`` of ``of``; counted from 0."""

    index: int
    of: int

    @property
    def name(self) -> str:
        """``3-of-7``."""
        return f"{self.index}-of-{self.of}"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a job array writes into one generation."""

    of: int
    """Jobs of the array."""
    units: Mapping[str, int]
    """Unit -> the job that writes it."""
    panels: Mapping[str, str] = field(default_factory=dict)
    """Usage panels that are published with the genome: path -> generation."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sites: str | None = None
    """Of a genome: digest of the splice sites that every panel must be joined to; None: panels may be orphaned."""

    def write(self, root: StoreRoot, base: str) -> None:
        """Write the record beside the plan; every job of the array writes the same."""
        document = {
            "of": self.of,
            "units": dict(self.units),
            "panels": dict(self.panels),
            "provenance": dict(self.provenance),
            "sites": self.sites,
        }
        root.put(f"{base}/{RUN}", seal_document(document))


def read_run(root: StoreRoot, base: str) -> RunRecord | None:
    """Read the record of a generation; None where no job array wrote it."""
    found = read_sealed(root, f"{base}/{RUN}")
    if found is None:
        return None
    return RunRecord(int(found["of"]), found["units"], found["panels"], found["provenance"], found["sites"])


def remove_run(root: StoreRoot, base: str) -> None:
    """Take the record away, the last write of all: nothing waits to be finalised here any more."""
    root.remove([f"{base}/{RUN}"])


def missing_units(root: StoreRoot, base: str, run: RunRecord) -> list[str]:
    """Units of a run whose partition is not written."""
    listed = root.sizes(base)
    return [unit for unit in run.units if f"parts/{unit}.json" not in listed]


def refuse_missing(root: StoreRoot, base: str, run: RunRecord, missing: Sequence[str]) -> None:
    """Name the jobs that have to run again.

    Raises
    ------
    PartitionMissingError
        If anything is missing.
    """
    if missing:
        jobs = array_string(run.units[unit] for unit in missing)
        raise PartitionMissingError(
            f"{root.url_of(base)}: {len(missing)} of {len(run.units)} units are not written (first: {', '.join(missing[:5])}); run "
            f"these jobs again: --array={jobs} with --partition I/{run.of}",
            missing=missing,
        )


def unfinished_runs(root: StoreRoot, path: str) -> list[str]:
    """Generations of a name that a job array wrote and ``finalise`` did not finish."""
    names = [name for name in root.children(path) if "." not in name]
    return [name for name in names if root.read(f"{path}/{name}/{RUN}") is not None]


def only_run(root: StoreRoot, path: str) -> str:
    """Return the one generation that waits to be finalised.

    Raises
    ------
    StoreError
        If there is none, or several.
    """
    runs = unfinished_runs(root, path)
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise StoreError(
            f"{root.url_of(path)}: nothing here waits to be finalised; `splicestore ls {root.url}` shows what is published"
        )
    raise StoreError(
        f"{root.url_of(path)}: {len(runs)} generations wait to be finalised: name one, as in {path}/{runs[0]} "
        f"(all: {', '.join(runs)})"
    )


def finalise_plain(root: StoreRoot, path: str, generation: str, run: RunRecord, *, force: bool = False) -> bool:
    """Publish a generation that needs nothing but its parts; whether it was not current before."""
    base = f"{path}/{generation}"
    expected = read_pointer(root, path)
    refuse_missing(root, base, run, missing_units(root, base, run))
    if generation_status(root, base) != STATUS_COMPLETE:
        finalise_generation(root, base, list(run.units), {}, run.provenance)
    switched = switch_pointer(root, path, generation, digest=None, expected=expected, force=force)
    remove_run(root, base)
    return switched


def parse_share(text: str) -> JobShare:
    """Parse ``I/N``.

    Raises
    ------
    ConfigError
        If it is not two integers with ``0 <= I < N``.
    """
    index, _, of = text.partition("/")
    if not (index.isdigit() and of.isdigit()) or not 0 <= int(index) < int(of):
        raise ConfigError(
            f"--partition {text!r}: write I/N with I counted from 0, as in --partition $SLURM_ARRAY_TASK_ID/200 with "
            "--array=0-199"
        )
    return JobShare(int(index), int(of))


def array_string(indices: Iterable[int]) -> str:
    """Spell job indices as a batch system takes them.

    Examples
    --------
    >>> array_string([7, 1, 2, 3, 9, 10])
    '1-3,7,9-10'
    """
    runs = []
    numbered = enumerate(sorted(set(indices)))
    for _, group in itertools.groupby(numbered, key=lambda pair: pair[1] - pair[0]):
        run = [index for _, index in group]
        runs.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(runs)
