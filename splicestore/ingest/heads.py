"""What the size and the first MiB of an input tell about the whole: text, bases, genes, splice sites, usage rows.

Nothing here reads a file whole, unless it is smaller than that. What is counted in the head is taken to be as dense in the
rest; an index beside a FASTA (``.fai``) gives its lengths exactly.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import InputError
from splicestore.kernels.sites import introns_of, sites_of
from splicestore.storage import StoreRoot
from splicestore.storage.bgzf import is_bgzf
from splicestore.storage.inputs import GZIP_MAGIC, is_object_url

HEAD_BYTES = 1024 * 1024
"""Read of each file, as stored."""
TEXT_BYTES = 4 * 1024 * 1024
"""Decompressed of it, at most: enough genes to count, and milliseconds to parse."""
_INDEX_BYTES = 1024 * 1024
"""A larger ``.fai`` (a draft of ten thousands of scaffolds) is not read."""

_HEADER = re.compile(rb"(?m)^>[^\n]*\n?")
_COMMENT = re.compile(rb"(?m)^(#[^\n]*)?\n")
_FASTA_PART = re.compile(rb"(?m)^(##FASTA|>)")
_PART_FEATURES = ("exon", "cds")
"""Rows that make exons, the first that a file has."""
_GTF_TRANSCRIPT = r'transcript_id "([^"]*)"'
_GFF_PARENT = r"Parent=([^;]*)"


@dataclass(frozen=True, slots=True)
class InputPlace:
    """An input as a key of the folder it lies in, so that parts of it can be asked for."""

    root: StoreRoot
    key: str

    def size(self) -> int | None:
        """Stored bytes; None if there is no such file."""
        return self.root.size(self.key)

    def beside(self, suffix: str) -> bytes | None:
        """Bytes of a small file with the same name and a further suffix; None where there is none, or it is large."""
        size = self.root.size(self.key + suffix)
        if size is None or not 0 < size <= _INDEX_BYTES:
            return None
        return self.root.get_range(self.key + suffix, 0, size)


def place_of(url: str, storage_options: Mapping[str, Any] | None = None) -> InputPlace:
    """Split a URL into folder and file; options of an object store mean nothing elsewhere."""
    folder, slash, key = url.rpartition("/")
    options = tuple(sorted((storage_options or {}).items())) if is_object_url(url) else ()
    try:
        return InputPlace(_folder((folder or slash) or ".", options), key)
    except TypeError:
        # An option that cannot be hashed (a mapping): the folder is opened anew each time.
        return InputPlace(StoreRoot(folder, dict(options)), key)


@lru_cache(maxsize=256)
def _folder(url: str, options: tuple[tuple[str, Any], ...]) -> StoreRoot:
    return StoreRoot(url, dict(options))


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an input."""

    text: bytes = field(repr=False)
    """Decompressed."""
    stored: int
    """Stored bytes that hold it."""
    is_gzip: bool
    """Or bgzip."""
    is_seekable: bool
    """Whether the file can be entered midway: plain or bgzip."""
    is_whole: bool
    """Whether nothing comes after it."""

    @property
    def text_per_stored(self) -> float:
        """Bytes of text per stored byte."""
        return len(self.text) / self.stored if self.stored else 1.0


def read_head(place: InputPlace, size: int) -> Head:
    """Read the first MiB of an input (gzip and bgzip are decompressed, up to 4 MiB of text).

    Raises
    ------
    InputError
        If its gzip stream is damaged there.
    """
    data = place.root.get_range(place.key, 0, min(HEAD_BYTES, size)) if size else b""
    if not data.startswith(GZIP_MAGIC):
        return Head(data, len(data), False, True, len(data) == size)
    text, stored, is_bgzip = bytearray(), 0, is_bgzf(data)
    try:
        # A bgzip file is many members, one after the other.
        while data.startswith(GZIP_MAGIC) and len(text) < TEXT_BYTES:
            member = zlib.decompressobj(wbits=31)
            text += member.decompress(data, TEXT_BYTES - len(text))
            rest = member.unused_data if member.eof else member.unconsumed_tail
            stored += len(data) - len(rest)
            data = rest if member.eof else b""
    except zlib.error as error:
        raise InputError(
            f"{place.root.url_of(place.key)}: not readable as gzip ({error}); copy or download it again"
        ) from error
    return Head(bytes(text), stored, True, is_bgzip, stored == size)


@dataclass(frozen=True, slots=True)
class FileRates:
    """How much of what a file of one kind holds, per byte; learned from heads."""

    text_per_stored: float
    per_text: Mapping[str, float]
    """Item -> number per byte of text."""

    @classmethod
    def of(cls, head: Head, counts: Mapping[str, float]) -> FileRates:
        """Take them from a head and what was counted in it."""
        return cls(head.text_per_stored, {k: v / max(1, len(head.text)) for k, v in counts.items()})

    @classmethod
    def typical(cls, rates: Sequence[FileRates]) -> FileRates:
        """Median of the rates of several files of a kind."""
        names = rates[0].per_text
        return cls(
            float(np.median([r.text_per_stored for r in rates])),
            {name: float(np.median([r.per_text[name] for r in rates])) for name in names},
        )

    def counts(self, size: int, text: float | None = None) -> dict[str, float]:
        """Count of every item, and ``text``, of a file of ``size`` stored bytes."""
        text = size * self.text_per_stored if text is None else text
        return {"text": text, **{name: rate * text for name, rate in self.per_text.items()}}


def text_bytes(place: InputPlace, size: int, head: Head) -> float:
    """Size of an input's text: exact where it is plain, read whole, or a gzip file that says so at its end."""
    if head.is_whole or not head.is_gzip:
        return float(len(head.text) if head.is_whole else size)
    guess = size * head.text_per_stored
    # gzip ends with the size of its text modulo 2^32; that of a bgzip file is of its last, empty block.
    said = int.from_bytes(place.root.get_suffix(place.key, 4) or b"", "little")
    nearest = said + max(0, round((guess - said) / 2**32)) * 2**32
    return float(nearest) if abs(nearest - guess) <= guess / 4 else guess


# -- one kind of file after the other ----------------------------------------------------------------------------


def count_fasta(head: Head) -> dict[str, float]:
    """Count bases and records in the head of a FASTA."""
    headers = _HEADER.findall(head.text)
    lines = head.text.translate(None, b"\r\n")
    named = sum(len(h.rstrip(b"\r\n")) for h in headers)
    return {"bases": float(max(0, len(lines) - named)), "contigs": float(len(headers))}


def indexed_lengths(place: InputPlace, size: int, *, is_gzip: bool) -> dict[str, int] | None:
    """Contigs and lengths from the ``.fai`` beside a FASTA; None where there is none or it is of another file."""
    data = place.beside(".fai")
    if data is None:
        return None
    rows = [line.split("\t") for line in data.decode("utf-8", errors="replace").splitlines() if line]
    if not all(len(row) >= 2 and row[1].isdigit() for row in rows):
        return None
    lengths = {row[0]: int(row[1]) for row in rows}
    too_long = sum(lengths.values()) > size and not is_gzip
    return lengths if lengths and not too_long else None


def count_usage(head: Head, declared: str = "auto") -> dict[str, float]:
    """Count rows in the head of a usage file, and those that are junctions."""
    first, _, _ = head.text.lstrip(b"#").partition(b"\n")
    is_sites = declared == "spliser" or (declared == "auto" and b"alpha_count" in first.lower())
    introns = len(re.findall(rb"(?i)\tintron\t", head.text))
    rows = float(introns or head.text.count(b"\n"))
    return {"rows": rows, "junctions": 0.0 if is_sites else rows}


def count_annotation(head: Head, policy: str = "all", min_intron: int = 5) -> dict[str, float]:
    """Count what a head of GTF or GFF3 makes: genes, transcripts, selected ones, their exons, introns and sites.

    Parameters
    ----------
    policy
        Which transcripts are selected, as in the configuration. Told by the rows of their exons (GTF) or their own row
        (GFF3); ``canonical`` counts one transcript for each gene.
    min_intron
        Shorter gaps are no introns, bp.
    """
    rows = _feature_rows(head)
    feature = rows["feature"].str.lower()
    parts = rows[feature == next((p for p in _PART_FEATURES if (feature == p).any()), "exon")]
    is_gtf = bool(parts["attributes"].str.contains('transcript_id "', regex=False).any())
    transcript = parts["attributes"].str.extract(_GTF_TRANSCRIPT if is_gtf else _GFF_PARENT, expand=False)
    parts, transcript = parts[transcript.notna()], transcript[transcript.notna()]
    kept = _selected(rows, parts, transcript, policy, is_gtf=is_gtf)
    genes = float(feature.str.endswith("gene").sum())
    if not genes and is_gtf:
        genes = float(parts["attributes"].str.extract(r'gene_id "([^"]*)"', expand=False).nunique())
    counts = _structure(parts[kept], transcript[kept], min_intron)
    if policy == "canonical" and counts["selected"]:
        share = min(1.0, genes / counts["selected"])
        counts |= {name: counts[name] * share for name in ("selected", "exons", "introns")}
    return {"genes": genes, "transcripts": float(transcript.nunique()), **counts}


def _feature_rows(head: Head) -> pd.DataFrame:
    text = head.text if head.is_whole else head.text[: head.text.rfind(b"\n") + 1]
    if fasta := _FASTA_PART.search(text):
        text = text[: fasta.start()]
    text = _COMMENT.sub(b"", text)
    names = ["contig", "feature", "start", "end", "strand", "attributes"]
    if not text.strip():
        return pd.DataFrame({name: pd.Series([], dtype=object) for name in names})
    rows = pd.read_csv(
        io.BytesIO(text), sep="\t", header=None, names=list("abcdefghi"), usecols=[0, 2, 3, 4, 6, 8], quoting=3,
        dtype=str, keep_default_na=False, encoding_errors="replace", on_bad_lines="skip",
    )  # fmt: skip
    rows.columns = pd.Index(names)
    for name in ("start", "end"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
    return rows[rows["start"].notna() & rows["end"].notna()]


def _selected(
    rows: pd.DataFrame, parts: pd.DataFrame, transcript: pd.Series[str], policy: str, *, is_gtf: bool
) -> NDArray[np.bool_]:
    """Which part rows belong to transcripts that the policy selects."""
    everything = np.ones(len(parts), dtype=bool)
    if policy.startswith("tag:"):
        tagged = parts["attributes"].str.contains(policy.removeprefix("tag:"), regex=False).to_numpy(dtype=bool)
        return tagged if tagged.any() else everything
    if policy not in ("protein_coding", "splicevo"):
        return everything
    if is_gtf:
        attributes = parts["attributes"]
        biotype = attributes.str.extract(r'transcript_(?:bio)?type "([^"]*)"', expand=False)
        kept = (biotype == "protein_coding").to_numpy(dtype=bool) if biotype.notna().any() else everything
        level = attributes.str.extract(r'transcript_support_level "([^"]*)"', expand=False)
        if policy == "splicevo" and level.notna().any():
            kept = kept & level.str.match(r"(?:1|2|NA)(?!\d)").fillna(False).to_numpy(dtype=bool)
        return kept
    own = rows[rows["feature"].str.contains("RNA|transcript", regex=True)]
    coding = (own["feature"] == "mRNA") | own["attributes"].str.contains("biotype=protein_coding", regex=False)
    ids = own["attributes"][coding].str.extract(r"ID=([^;]*)", expand=False)
    kept = transcript.isin(set(ids.dropna())).to_numpy(dtype=bool)
    return kept if kept.any() else everything


def _structure(parts: pd.DataFrame, transcript: pd.Series[str], min_intron: int) -> dict[str, float]:
    """Exons, introns and sites of part rows, by the rules of ingest."""
    codes, names = pd.factorize(transcript + "\0" + parts["contig"])
    contig = pd.factorize(parts["contig"])[0].astype(np.int64)
    order = np.lexsort((parts["start"].to_numpy(), codes))
    codes, contig = codes[order], contig[order]
    # Contigs are laid one after the other, far apart, so that positions of two never meet.
    start = parts["start"].to_numpy(dtype=np.int64)[order] - 1 + (contig << 40)
    end = parts["end"].to_numpy(dtype=np.int64)[order] + (contig << 40)
    counts = np.bincount(codes, minlength=len(names))
    introns = introns_of(np.concatenate(([0], np.cumsum(counts))), start, end)
    introns = introns.take(introns.end - introns.start >= min_intron)
    firsts = np.concatenate(([0], np.cumsum(counts)))[:-1].astype(np.int64)
    strand = np.where(parts["strand"].to_numpy(dtype=object)[order] == "-", -1, 1).astype(np.int8)
    sites = sites_of(introns, strand[firsts], np.zeros(len(names), dtype=np.int32))
    return {
        "selected": float(len(names)),
        "exons": float(len(parts)),
        "introns": float(len(introns)),
        "sites": float(len(sites)),
    }
