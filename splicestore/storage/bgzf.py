"""bgzip: gzip in blocks of at most 64 KiB, each a whole member, so that reading can begin at any of them."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

from isal import igzip_lib, isal_zlib

from splicestore.errors import InputError

_IsalError = cast("type[Exception]", igzip_lib.IsalError)

RUN_BYTES = 1024 * 1024
"""Compressed bytes that are decompressed at once; one place to begin is remembered per run."""
_MAGIC = b"\x1f\x8b\x08\x04"


def is_bgzf(head: bytes) -> bool:
    """Whether bytes open like a bgzip file."""
    return len(head) >= 18 and head[:4] == _MAGIC and block_size(head, 0) is not None


def block_size(data: bytes, at: int) -> int | None:
    """Size of the block at an offset, from the ``BC`` field of its header; None if there is no such field."""
    if data[at : at + 4] != _MAGIC:
        return None
    n_extra = int.from_bytes(data[at + 10 : at + 12], "little")
    field, end = at + 12, at + 12 + n_extra
    while field + 4 <= min(end, len(data)):
        length = int.from_bytes(data[field + 2 : field + 4], "little")
        if data[field : field + 2] == b"BC" and length == 2:
            # Cut between the two bytes of the size, its first alone would pass for it.
            if field + 6 > len(data):
                return None
            return int.from_bytes(data[field + 4 : field + 6], "little") + 1
        field += 4 + length
    return None


class BgzfReader(io.RawIOBase):
    """Decompressed bytes of a bgzip stream; remembers where its runs of blocks begin.

    Raises
    ------
    InputError
        On reading, where a block is damaged or the file ends inside one.
    """

    def __init__(self, url: str, raw: BinaryIO) -> None:
        self._url, self._raw = url, raw
        self._compressed = raw.tell()
        self._carry = b""
        self._ready, self._at = b"", 0
        self._text = 0
        self.checkpoints: list[tuple[int, int]] = [(self._compressed, 0)]
        """(compressed offset of a block, decompressed offset of its first byte), one per run; decompressed offsets
        count from where the reader was opened."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self._at == len(self._ready):
            if not self._next_run():
                return 0
        n = min(len(buffer), len(self._ready) - self._at)
        buffer[:n] = self._ready[self._at : self._at + n]
        self._at += n
        return n

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _next_run(self) -> bool:
        data = self._carry + self._raw.read(RUN_BYTES)
        if not data:
            return False
        blocks, end = [], 0
        while (size := block_size(data, end)) is not None and end + size <= len(data):
            blocks.append(data[end : end + size])
            end += size
        if not blocks:
            self._refuse(data, end)
        self._carry = data[end:]
        if len(data) < RUN_BYTES and self._carry and block_size(data, end) is None:
            self._refuse(data, end)
        try:
            self._ready, self._at = b"".join(_inflate(block) for block in blocks), 0
        except (_IsalError, ValueError) as error:
            raise InputError(
                f"{self._url}: a bgzip block near byte {self._compressed} is damaged ({error}); copy or download it again"
            ) from error
        self._compressed += end
        self._text += len(self._ready)
        self.checkpoints.append((self._compressed, self._text))
        return True

    def _refuse(self, data: bytes, at: int) -> None:
        is_short = block_size(data, at) is not None or len(data) - at < 18
        what = "bgzip stream ends early, the file is truncated" if is_short else "not readable as bgzip"
        raise InputError(f"{self._url}: {what} (byte {self._compressed + at}); copy or download it again")


def _inflate(block: bytes) -> bytes:
    n_extra = int.from_bytes(block[10:12], "little")
    text: bytes = igzip_lib.decompress(block[12 + n_extra : -8], igzip_lib.DECOMP_DEFLATE)
    if len(text) != int.from_bytes(block[-4:], "little"):
        raise ValueError(f"{len(text)} bytes, its header says {int.from_bytes(block[-4:], 'little')}")
    if isal_zlib.crc32(text) != int.from_bytes(block[-8:-4], "little"):
        raise ValueError("its checksum differs")
    return text
