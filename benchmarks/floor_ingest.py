"""The least work that turns a FASTA into stored bases: decompress, encode, zstd level 3, write.

A process of its own, so that it can be measured like ``splicestore ingest genomes``. It checks nothing, knows no
annotation, and publishes nothing; chunks are as large as the store's and carry a checksum like the store's.

    python floor_ingest.py write FASTA FILE
    python floor_ingest.py compare FILE STORE GENOME
"""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

CHUNK_BASES = 131_072
SLAB_BYTES = 4 * 1024 * 1024
LEVEL = 3


def code_table() -> bytes:
    """Table of ``bytes.translate``: A C G T in either case to 0..3, all else to 4."""
    table = np.full(256, 4, dtype=np.uint8)
    for code, letters in enumerate((b"Aa", b"Cc", b"Gg", b"Tt")):
        table[list(letters)] = code
    return table.tobytes()


def read_codes(stream: gzip.GzipFile) -> Iterator[bytes]:
    """Yield the bases of all records as codes; headers and line ends are cut out."""
    table, in_header = code_table(), False
    while data := stream.read(SLAB_BYTES):
        while data:
            stop = data.find(b"\n" if in_header else b">")
            if not in_header:
                yield (data if stop < 0 else data[:stop]).translate(table, b"\r\n")
            if stop < 0:
                break
            data, in_header = data[stop + 1 :], not in_header


def write(fasta: Path, out: Path) -> None:
    """Write chunks as frames, each behind its stored length (uint32)."""
    codec = Zstd(level=LEVEL, checksum=True)
    rest = b""
    with gzip.open(fasta) as stream, out.open("wb") as file:
        for codes in read_codes(stream):
            codes = rest + codes
            whole = len(codes) - len(codes) % CHUNK_BASES
            for start in range(0, whole, CHUNK_BASES):
                write_frame(file, codec, codes[start : start + CHUNK_BASES])
            rest = codes[whole:]
        if rest:
            write_frame(file, codec, rest)


def write_frame(file: BinaryIO, codec: Zstd, codes: bytes) -> None:
    """Write one compressed chunk."""
    frame = codec.encode(codes)
    file.write(struct.pack("<I", len(frame)))
    file.write(frame)


def read_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the chunks of a file as codes."""
    codec = Zstd()
    with path.open("rb") as file:
        while head := file.read(4):
            yield np.frombuffer(codec.decode(file.read(struct.unpack("<I", head)[0])), dtype=np.uint8)


def compare(path: Path, store: str, genome_id: str) -> None:
    """Check that the floor stored what the store holds.

    Raises
    ------
    SystemExit
        At the first chunk that differs.
    """
    import splicestore

    genome = splicestore.open_store(store).genomes[genome_id]
    position = 0
    for codes in read_frames(path):
        if not np.array_equal(codes, genome.read_bases(position, position + len(codes))):
            raise SystemExit(f"{genome_id}: bases {position} to {position + len(codes)} differ from the floor's")
        position += len(codes)
    if position != genome.n_bases:
        raise SystemExit(f"{genome_id}: the floor stored {position} bases, the store has {genome.n_bases}")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        compare(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
