"""What a check found, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

DAMAGE: Literal["damage"] = "damage"
NOTE: Literal["note"] = "note"

REPAIR = "run `splicestore verify --repair`"
AGAIN = "run the command that writes it again: it goes on where it stopped"
FROM_COPY = "bring it from another copy of the store: `splicestore copy OTHER STORE --verify-existing`"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, or worth knowing."""

    severity: Literal["damage", "note"]
    problem: str
    """A snake_case code: what ``repair`` goes by."""
    path: str
    """``<kind>/<name>``; empty for what belongs to the store as a whole."""
    key: str
    """In the store."""
    what: str
    advice: str
    generation: str = ""
    part: str = ""
    """Partition that the object belongs to."""

    def as_dict(self) -> dict[str, str]:
        """Spell the finding for ``--json``."""
        return {field: str(getattr(self, field)) for field in self.__slots__}


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Everything a verification found."""

    url: str
    findings: tuple[Finding, ...]
    n_generations: int
    n_objects: int
    """Objects of partitions that were checked."""
    n_bytes: int
    """Bytes of these objects."""
    quick: bool
    seconds: float

    @property
    def damage(self) -> list[Finding]:
        """Findings that make the store wrong."""
        return [f for f in self.findings if f.severity == DAMAGE]

    @property
    def notes(self) -> list[Finding]:
        """Findings that are worth knowing."""
        return [f for f in self.findings if f.severity == NOTE]

    @property
    def is_intact(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage

    def as_dict(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return {
            "url": self.url,
            "intact": self.is_intact,
            "quick": self.quick,
            "n_generations": self.n_generations,
            "n_objects": self.n_objects,
            "n_bytes": self.n_bytes,
            "n_damage": len(self.damage),
            "n_notes": len(self.notes),
            "findings": [f.as_dict() for f in self.findings],
            "seconds": round(self.seconds, 3),
        }


def count_findings(findings: Sequence[Finding]) -> str:
    """Spell findings as one clause: how many keys, and the first few."""
    keys = list(dict.fromkeys(f.key for f in findings))
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return f"{len(keys)} damaged {'key' if len(keys) == 1 else 'keys'} ({shown})"
