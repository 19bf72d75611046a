"""What a store is, as values: array specifications, codes, ledger rows, plans. No I/O."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NewType

import numpy as np

from splicestore.errors import ConfigError

GenomeId = NewType("GenomeId", str)
Url = NewType("Url", str)

FORMAT_VERSION = 1

SEQUENCE_CHUNK = 131_072
SEQUENCE_SHARD = 32 * 1024 * 1024
BLOCK_BASES = 1024 * 1024
"""A block is the unit of streaming reads: 1 MiB of bases, 8 sequence chunks."""
SITE_CHUNK = 16_384
USAGE_CHUNK_SITES = 512
USAGE_CHUNK_CONDITIONS = 128
USAGE_SHARD_SITES = 65_536
TABLE_CHUNK = 65_536
ZSTD_LEVEL = 3
COUNTS_CHUNK = (1024, 256)
COUNTS_SHARD = (4096, 1024)
"""(sample, gene): square tiles, so that passes by genes and by samples both read whole chunks."""

KIND_ACCEPTOR = 1
KIND_DONOR = 2
KIND_BOTH = KIND_ACCEPTOR | KIND_DONOR
KIND_NAMES = {KIND_ACCEPTOR: "acceptor", KIND_DONOR: "donor", KIND_BOTH: "both"}

SOURCE_ANNOTATION = 1
SOURCE_JUNCTION = 2

LABEL_NONE = 0
LABEL_ACCEPTOR = 1
LABEL_DONOR = 2
LABEL_IGNORE = 255

SUBSET_TRAIN = 0
SUBSET_VAL = 1
SUBSET_TEST = 2
SUBSET_EXCLUDED = 3
SUBSET_NAMES = ("train", "val", "test", "excluded")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it may stand in a store path, else raise.

    Raises
    ------
    ConfigError
        If the name has a character outside ``[A-Za-z0-9._-]``, starts with ``.``, ``_`` or ``-``,
        or is longer than 128 characters.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r} is not a name: use 1 to 128 of A-Z a-z 0-9 . _ - and start with a letter or digit"
        )
    return name


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One thing that was dropped or altered, and why."""

    item: str
    """gene, transcript, exon, intron, site, usage_site, usage_file, contig, homology_row, window."""
    identifier: str
    """The item's id as its file spells it, or ``contig:start-end:strand`` (0-based half-open)."""
    reason: str
    """A snake_case code."""
    detail: str = ""
    """Values that explain the reason."""
    count: int = 1
    """How many input rows this line stands for."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a published group, fixed before the first byte is written."""

    name: str
    shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    dtype: str
    """A numpy dtype name, or ``string``."""
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    fill_value: float | int | str = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    level: int = ZSTD_LEVEL
    """Of zstd."""
    shuffled: bool = False
    """Bytes of equal weight together before they are compressed: for wide numbers that are small, or in order."""

    @property
    def write_unit(self) -> tuple[int, ...]:
        """Shape of what one task must own whole: the shard, or the chunk where there is none."""
        return self.shards if self.shards is not None else self.chunks

    @property
    def n_bytes(self) -> int:
        """Decoded size in bytes (strings count 16 bytes each)."""
        itemsize = 16 if self.dtype == "string" else np.dtype(self.dtype).itemsize
        return int(np.prod(self.shape, dtype=np.int64)) * itemsize


def counts_shard(n_samples: int, n_genes: int) -> tuple[int, int]:
    """Shape of a shard of counts: whole chunks, no more than the matrix needs."""
    fitting = (-(-n // chunk) * chunk for n, chunk in zip((n_samples, n_genes), COUNTS_CHUNK, strict=True))
    height, width = (
        min(most, max(chunk, n)) for most, chunk, n in zip(COUNTS_SHARD, COUNTS_CHUNK, fitting, strict=True)
    )
    return height, width


def table_column(
    name: str, values_shape: int, dimension: str, dtype: str, *, chunk: int = TABLE_CHUNK, **attributes: Any
) -> ArraySpec:
    """Specify a one-dimensional column of a table."""
    return ArraySpec(
        name=name,
        shape=(values_shape,),
        dimensions=(dimension,),
        dtype=dtype,
        chunks=(max(1, min(chunk, values_shape)),),
        fill_value="" if dtype == "string" else (float("nan") if dtype.startswith("float") else 0),
        attributes=attributes,
    )


@dataclass(frozen=True, slots=True)
class InputDigest:
    """Identity of one input file by content."""

    role: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides the bytes of a generation; its digest names the generation."""

    kind: str
    encoder: int
    """Raised only when stored values change for the same inputs."""
    inputs: tuple[InputDigest, ...]
    parents: Mapping[str, str]
    options: Mapping[str, Any]
    chunking: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the plan as a JSON-ready mapping."""
        return {
            "format": FORMAT_VERSION,
            "kind": self.kind,
            "encoder": self.encoder,
            "inputs": [{"role": i.role, "size": i.size, "sha256": i.sha256} for i in self.inputs],
            "parents": dict(self.parents),
            "options": canonical_value(self.options),
            "chunking": canonical_value(self.chunking),
        }

    def canonical_json(self) -> str:
        """Spell the plan as canonical JSON (UTF-8, sorted keys, no spaces, floats as repr strings)."""
        return canonical_json(self.document())

    @property
    def generation(self) -> str:
        """First 16 hexadecimal digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]


def canonical_value(value: Any) -> Any:
    """Reduce a value to what canonical JSON may hold: integers, strings, lists, mappings, booleans, null."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return repr(float(value))
    if isinstance(value, Mapping):
        return {str(k): canonical_value(v) for k, v in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [canonical_value(v) for v in items]
    raise TypeError(f"a plan holds no {type(value).__name__}: {value!r}")


def canonical_json(document: Any) -> str:
    """Dump with sorted keys and without spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
