"""What counting is asked to do: the options, and the samples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from splicestore.errors import ConfigError
from splicestore.kernels.site_counts import JunctionFilter
from splicestore.readers.alignments import STRANDEDNESS, ReadFilter, Strandedness

UNIQUE_QUALITY = 10
"""STAR gives a unique read 255 and others at most 3, HISAT2 60 and at most 1: 10, which is also htseq-count's
default, tells them apart in both and leaves out the doubtful places of minimap2."""

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})=(.+)")


@dataclass(frozen=True, slots=True)
class SampleFile:
    """One BAM and what its rows are called."""

    name: str
    path: str

    @classmethod
    def parse(cls, text: str) -> SampleFile:
        """Read ``NAME=path``, or a path whose stem is the name."""
        named = _NAMED.fullmatch(text)
        if named:
            return cls(named[1], named[2])
        return cls(PurePosixPath(text.split("?")[0]).stem, text)


def check_samples(samples: Sequence[SampleFile]) -> None:
    """Refuse no sample, and two of one name.

    Raises
    ------
    ConfigError
        With the names.
    """
    if not samples:
        raise ConfigError("no BAM file: name at least one")
    twice = [name for name, n in Counter(s.name for s in samples).items() if n > 1]
    if twice:
        raise ConfigError(f"{len(twice)} samples share a name ({twice[0]}); write NAME=path to tell them apart")


@dataclass(frozen=True, slots=True)
class CountOptions:
    """Which reads count, and which junctions make splice sites."""

    min_mapping_quality: int | None = None
    """None: 10 where multi-mapping reads are dropped, else 0."""
    multi_mapping: Literal["drop", "keep"] = "drop"
    """Reads with an NH tag above 1."""
    strandedness: Strandedness = "unstranded"
    """``forward``: the first mate lies on the transcript's strand (SpliSER's fr); ``reverse``: the second (rf, dUTP)."""
    min_overhang: int = 8
    """Aligned bases that one read at least has on either side of a junction; regtools' default, where SpliSER's
    junctions come from."""
    min_junction_reads: int = 1
    min_intron: int = 21
    """bp; shorter gaps are deletions (STAR's default)."""
    max_intron: int = 500_000
    """bp; regtools' default."""

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises
        ------
        ConfigError
            With the option, its value and what is allowed.
        """
        if self.strandedness not in STRANDEDNESS:
            raise ConfigError(f"--strandedness {self.strandedness!r}: use {', '.join(STRANDEDNESS)}")
        if self.multi_mapping not in ("drop", "keep"):
            raise ConfigError(f"--multi-mapping {self.multi_mapping!r}: use drop or keep")
        if not 1 <= self.min_intron <= self.max_intron:
            raise ConfigError(
                f"--min-intron {self.min_intron}, --max-intron {self.max_intron}: the first must be at least 1 and at most the second"
            )
        if self.min_junction_reads < 1 or self.min_overhang < 1:
            raise ConfigError(
                f"--min-junction-reads {self.min_junction_reads}, --min-overhang {self.min_overhang}: at least 1 each"
            )
        if self.min_mapping_quality is not None and not 0 <= self.min_mapping_quality <= 255:
            raise ConfigError(f"--min-mapping-quality {self.min_mapping_quality}: from 0 to 255")

    @property
    def is_stranded(self) -> bool:
        """Whether reads tell the strands apart."""
        return self.strandedness != "unstranded"

    def read_filter(self) -> ReadFilter:
        """Which reads count."""
        drop = self.multi_mapping == "drop"
        quality = self.min_mapping_quality
        if quality is None:
            quality = UNIQUE_QUALITY if drop else 0
        return ReadFilter(quality, drop, self.strandedness)

    def junction_filter(self) -> JunctionFilter:
        """Which junctions make sites."""
        return JunctionFilter(self.min_junction_reads, self.min_overhang, self.min_intron, self.max_intron)
