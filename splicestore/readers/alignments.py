"""Spliced alignments, BAM or CRAM: header, index, and the reads of a region as start, CIGAR and strand.

pysam opens the files itself: local paths and the URLs that its htslib was built for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError, SpliceStoreError, TransferError
from splicestore.kernels.alignments import ReadGroups, Shapes

logger = logging.getLogger(__name__)

Strandedness = Literal["unstranded", "forward", "reverse"]
STRANDEDNESS: tuple[Strandedness, ...] = ("unstranded", "forward", "reverse")

_PAIRED, _UNMAPPED, _REVERSE, _FIRST = 0x1, 0x4, 0x10, 0x40
_SKIPPED_FLAGS = {
    "unmapped": _UNMAPPED,
    "secondary": 0x100,
    "failed_quality": 0x200,
    "duplicate": 0x400,
    "supplementary": 0x800,
}
_ALL_SKIPPED = sum(_SKIPPED_FLAGS.values())
_BATCH = 1 << 20
"""Reads held as Python numbers before they are grouped: 64 MiB at most."""
_SIGNS = {"+": 1, "-": -1}


@dataclass(frozen=True, slots=True)
class ReadFilter:
    """Which reads count, and what they say about the strand of their transcript."""

    min_mapping_quality: int = 10
    drop_multi: bool = True
    """Drop reads whose NH tag is above 1; reads without the tag stay."""
    strandedness: Strandedness = "unstranded"
    """``forward``: the first mate, or a single read, lies on the strand of the transcript; ``reverse``: the second."""


@dataclass(slots=True)
class ReadTally:
    """What became of the alignments that start in some regions."""

    counted: int = 0
    spliced: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason and number: unmapped (placed beside its mate), secondary, failed_quality, duplicate, supplementary,
    mapping_quality, multi_mapping, no_cigar."""

    @property
    def n_mapped(self) -> int:
        """Alignments, counted or not, as an index counts them."""
        return self.counted + self.skipped.total() - self.skipped["unmapped"]

    def add(self, other: ReadTally) -> None:
        """Add the numbers of other regions."""
        self.counted += other.counted
        self.spliced += other.spliced
        self.skipped.update(other.skipped)


class ShapeTable:
    """Numbers the distinct CIGARs of the reads of one task."""

    def __init__(self) -> None:
        self._cigars: list[str] = []
        self.code_of: dict[str, int] = {}
        """``3 * number``; its complement (negative) where the CIGAR has an intron."""

    def add(self, cigar: str) -> int:
        """Number a CIGAR; returns its code."""
        code = 3 * len(self._cigars)
        self._cigars.append(cigar)
        self.code_of[cigar] = code = ~code if "N" in cigar else code
        return code

    def shapes(self) -> Shapes:
        """Parse them all, row i for number i."""
        return Shapes.parse(self._cigars)


@dataclass(frozen=True, slots=True)
class AlignmentHeader:
    """What the start of a file says."""

    path: str
    contigs: Mapping[str, int]
    """Name and length, in bp."""
    n_mapped: Mapping[str, int] | None
    """Alignments of each contig by the index; None where it does not say (CRAM)."""


def read_alignment_header(path: str, *, make_index: bool = False, reference: str | None = None) -> AlignmentHeader:
    """Open a file, check that it is whole, sorted and indexed, and list its contigs.

    Parameters
    ----------
    make_index
        Write the index next to a local file that has none.
    reference
        FASTA with index that a CRAM was written against.

    Raises
    ------
    InputError
        For a file that is missing, no BAM or CRAM, truncated, not sorted by coordinate, or without index.
    ConfigError
        If pysam is not installed, or a CRAM comes without reference.
    """
    with open_alignments(path, reference=reference) as file:
        if file.is_sam:
            raise InputError(
                f"{path}: is SAM text, regions cannot be read from it; `samtools sort -o sorted.bam {path}` makes a BAM"
            )
        order = file.header.to_dict().get("HD", {}).get("SO", "unknown")
        if order in ("unsorted", "queryname"):
            raise InputError(
                f"{path}: is sorted as {order!r}, needed is 'coordinate'; `samtools sort -o sorted.bam {path}` sorts it"
            )
        has_index = file.has_index()
    if not has_index:
        if not make_index:
            raise InputError(f"{path}: has no readable index; `samtools index {path}` makes one, or add --index")
        _write_index(path)
    with open_alignments(path, reference=reference) as file:
        contigs = dict(zip(file.references, file.lengths, strict=True))
        mapped = {row.contig: row.mapped for row in file.get_index_statistics()} if file.is_bam else None
        return AlignmentHeader(path, contigs, mapped)


@contextmanager
def open_alignments(path: str, *, reference: str | None = None) -> Iterator[Any]:
    """Open with pysam; whatever fails inside, reading included, ends as an error that names the file."""
    pysam = _import_pysam()
    # htslib explains itself on stderr; what it says is in our messages.
    verbosity = pysam.set_verbosity(0)
    file = None
    try:
        file = _open(pysam, path, reference)
        yield file
    except OSError as error:
        if isinstance(error, SpliceStoreError):
            raise
        what = "the end-of-file block is missing" if "EOF" in str(error) else str(error)
        raise InputError(f"{path}: truncated or damaged ({what}); copy or download it again") from error
    finally:
        pysam.set_verbosity(verbosity)
        if file is not None:
            _close(file)


def _open(pysam: Any, path: str, reference: str | None) -> Any:
    try:
        file = pysam.AlignmentFile(path, reference_filename=reference)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, a BAM file was expected") from error
    except ValueError as error:
        raise InputError(f"{path}: not a BAM or CRAM file ({error}); name the output of the aligner") from error
    except OSError as error:
        if "://" in path:
            raise TransferError(f"{path}: cannot be opened: {error}") from error
        raise
    if file.is_cram and reference is None:
        _close(file)
        raise ConfigError(
            f"{path}: is CRAM, which is read with the FASTA it was written against; add --reference FASTA"
        )
    return file


def _close(file: Any) -> None:
    try:
        file.close()
    except OSError as error:
        # Of a damaged file, whose reading has failed already with a better message.
        logger.debug("closing failed: %s", error)


def _import_pysam() -> Any:
    try:
        import pysam
    except ImportError as error:
        raise ConfigError("reading BAM files needs pysam: pip install 'splicestore[bio]'") from error
    return pysam


def _write_index(path: str) -> None:
    if "://" in path:
        raise ConfigError(f"{path}: --index writes next to local files only; make the index where the file is")
    pysam = _import_pysam()
    verbosity = pysam.set_verbosity(0)
    try:
        pysam.index(path)
    except (pysam.SamtoolsError, OSError) as error:
        raise InputError(
            f"{path}: cannot be indexed, it may not be sorted by coordinate; `samtools sort -o sorted.bam {path}` sorts it "
            f"({' '.join(str(error).split())})"
        ) from error
    finally:
        pysam.set_verbosity(verbosity)


def read_groups(
    file: Any, contig: str, start: int, end: int, which: ReadFilter, table: ShapeTable
) -> tuple[ReadGroups, ReadTally]:
    """Read the alignments that overlap a region, grouped by start, CIGAR and strand.

    Parameters
    ----------
    file
        From ``open_alignments``.
    start, end
        Region, 0-based half-open.
    table
        Takes the CIGARs; groups refer to its numbers.

    Returns
    -------
    groups
        All that overlap, also those that start before the region.
    tally
        Of those that start in it, so that regions add up to the file.
    """
    tally = ReadTally()
    parts: list[ReadGroups] = []
    reads = file.fetch(contig, start, end)
    while True:
        starts, codes = _read_batch(reads, which, table, tally, start)
        if len(starts) == 0:
            break
        inside = starts >= start
        tally.counted += int(inside.sum())
        is_spliced = codes < 0
        tally.spliced += int((is_spliced & inside).sum())
        parts.append(ReadGroups.collect(starts, np.where(is_spliced, ~codes, codes)))
    if len(parts) == 1:
        return parts[0], tally
    starts, codes, counts = (
        np.concatenate([np.zeros(0, dtype=np.int64), *(getattr(p, name) for p in parts)])
        for name in ("start", "code", "reads")
    )
    return ReadGroups.collect(starts, codes, counts), tally


def _read_batch(
    reads: Iterator[Any], which: ReadFilter, table: ShapeTable, tally: ReadTally, region_start: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Take up to a batch of reads that count: start, and ``3 * shape + strand + 1`` (its complement where spliced).

    The one loop over reads: every attribute asked of pysam costs about as much as a fifth of reading the read.
    """
    starts: list[int] = []
    codes: list[int] = []
    add_start, add_code = starts.append, codes.append
    code_of, min_quality, drop_multi = table.code_of, which.min_mapping_quality, which.drop_multi
    strand_of = None if which.strandedness == "unstranded" else _strand_of_flags(which.strandedness == "reverse")
    for read in reads:
        flag = read.flag
        start = read.reference_start
        if flag & _ALL_SKIPPED:
            _tell(tally, _reason(flag), start, region_start)
            continue
        if read.mapping_quality < min_quality:
            _tell(tally, "mapping_quality", start, region_start)
            continue
        if drop_multi:
            try:
                if read.get_tag("NH") > 1:
                    _tell(tally, "multi_mapping", start, region_start)
                    continue
            except KeyError:
                pass
        cigar = read.cigarstring
        code = code_of.get(cigar)
        if code is None:
            if not cigar:
                _tell(tally, "no_cigar", start, region_start)
                continue
            code = table.add(cigar)
        if strand_of is not None:
            strand = strand_of[flag & 0xFF]
        else:
            strand = _tagged_strand(read, flag) if code < 0 else 0
        # ~(c + s) == ~c - s
        add_code(code + strand + 1 if code >= 0 else code - strand - 1)
        add_start(start)
        if len(starts) == _BATCH:
            break
    return np.array(starts, dtype=np.int64), np.array(codes, dtype=np.int64)


def _tell(tally: ReadTally, reason: str, start: int, region_start: int) -> None:
    if start >= region_start:
        tally.skipped[reason] += 1


def _reason(flag: int) -> str:
    return next(name for name, bit in _SKIPPED_FLAGS.items() if flag & bit)


def _tagged_strand(read: Any, flag: int) -> int:
    """Strand of a spliced read by XS (STAR, HISAT2) or ts (minimap2, relative to the read); XS of others is a score."""
    if read.has_tag("XS"):
        sign = _SIGNS.get(read.get_tag("XS"), 0)
        if sign:
            return sign
    if read.has_tag("ts"):
        sign = _SIGNS.get(read.get_tag("ts"), 0)
        return -sign if flag & _REVERSE else sign
    return 0


def _strand_of_flags(is_reverse_library: bool) -> list[int]:
    """Transcript strand by the low byte of the flag."""
    strands = []
    for flag in range(256):
        is_second_mate = bool(flag & _PAIRED) and not flag & _FIRST
        turns = bool(flag & _REVERSE) + is_second_mate + is_reverse_library
        strands.append(-1 if turns % 2 else 1)
    return strands
