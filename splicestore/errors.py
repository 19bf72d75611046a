"""Every exception that splicestore raises on purpose.

::

    SpliceStoreError
    |- ConfigError      (ValueError)         a configuration document or option is wrong        exit 3
    |- InputError       (ValueError)         a file is wrong: name, line or contig, value       exit 3
    |  `- GateError                          motif, join or leakage gate refused the data       exit 3
    |- WindowError      (ValueError)         window geometry that cannot be tiled               exit 3
    |- PlanError        (ValueError)         memory, chunk alignment                            exit 3
    |- SplitError       (ValueError)         a split that cannot be made as asked               exit 3
    |- StateError       (ValueError)         resume mismatch, both sides printed                exit 3
    |- ModelError       (ValueError)         a model card or checkpoint does not fit            exit 3
    |- StoreError       (RuntimeError)       a store is unfinished, damaged or moved            exit 4
    |  |- StoreNotFoundError (FileNotFoundError)   nothing of that name is published
    |  |- FormatError                        format too old or too new
    |  |- PartitionMissingError              encoded parts are missing or have another size
    |  |- PointerMovedError                  another writer published first
    |  |- LeaseHeldError                     another writer is at it now
    |  `- FailedPartitionsError              some partitions failed, after their retries; the rest is done
    `- TransferError    (OSError)            remote storage or local I/O failed, disk full      exit 5

Grouped by what the catcher would do. Every class also derives from the builtin that a caller
would expect, and carries the exit status of the command line.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class SpliceStoreError(Exception):
    """Base of every deliberate error; ``exit_code`` is what the command line returns."""

    exit_code: ClassVar[int] = 3


class ConfigError(SpliceStoreError, ValueError):
    """A configuration document or an option is wrong."""


class InputError(SpliceStoreError, ValueError):
    """An input file is wrong; the message names the file, the line or contig, and the value."""


class GateError(InputError):
    """A gate (motif, usage join, leakage, excluded share) refused the data."""


class WindowError(SpliceStoreError, ValueError):
    """Window geometry that cannot be tiled."""


class PlanError(SpliceStoreError, ValueError):
    """A plan that does not fit: memory, chunk alignment."""


class SplitError(SpliceStoreError, ValueError):
    """A split that cannot be made as asked."""


class StateError(SpliceStoreError, ValueError):
    """A stream state that does not belong to this stream."""


class ModelError(SpliceStoreError, ValueError):
    """A model card or checkpoint that does not fit the data."""


class StoreError(SpliceStoreError, RuntimeError):
    """A store is unfinished, damaged or has moved under the reader."""

    exit_code = 4


class StoreNotFoundError(StoreError, FileNotFoundError):
    """Nothing is published under that name."""


class FormatError(StoreError):
    """The store's format is too old or too new for this release."""


class PartitionMissingError(StoreError):
    """Encoded partitions are missing or have another size than recorded."""

    def __init__(self, message: str, *, missing: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        """Names of the partitions that are not encoded."""


class PointerMovedError(StoreError):
    """Another writer published a generation of the same name first."""


class LeaseHeldError(StoreError):
    """Another writer holds the write lease of the name."""


class FailedPartitionsError(StoreError):
    """Some partitions failed, after their retries; the others are finished."""


class TransferError(SpliceStoreError, OSError):
    """Remote storage or local I/O failed (a full disk included)."""

    exit_code = 5


def close_names(name: str, known: Iterable[str]) -> str:
    """Say which known names are close to ``name``; the tail of an error message.

    Examples
    --------
    >>> close_names("chr11", ["chr1", "chr12", "chrX"])
    'did you mean chr1, chr12, chrX?'
    >>> close_names("zebra", ["chr1"])
    'known: chr1'
    """
    names = list(known)
    matches = get_close_matches(name, names, n=3, cutoff=0.6)
    if matches:
        return f"did you mean {', '.join(matches)}?"
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"known: {shown}" if shown else "there is none yet"
