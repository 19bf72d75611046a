"""Job arrays: which job of how many writes which unit of a generation, so that what is missing can be named."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from splicestore.errors import ConfigError
from splicestore.storage.keys import StoreRoot
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

    def write(self, root: StoreRoot, base: str) -> None:
        """Write the record beside the plan; every job of the array writes the same."""
        document = {
            "of": self.of,
            "units": dict(self.units),
            "panels": dict(self.panels),
            "provenance": dict(self.provenance),
        }
        root.put(f"{base}/{RUN}", seal_document(document))


def read_run(root: StoreRoot, base: str) -> RunRecord | None:
    """Read the record of a generation; None where no job array wrote it."""
    found = read_sealed(root, f"{base}/{RUN}")
    if found is None:
        return None
    return RunRecord(int(found["of"]), found["units"], found["panels"], found["provenance"])


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
