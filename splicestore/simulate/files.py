"""Sinks of a simulated study: rows and bases go out as they come. Equal rows give equal bytes."""

from __future__ import annotations

import zlib
from types import TracebackType
from typing import BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from splicestore.simulate.packed import LETTERS

Codes = NDArray[np.uint8]

LINE_WIDTH: Final = 80
_BUFFER_LINES: Final = 4_096
_BUFFER_BYTES: Final = 65_536
_GZIP_WINDOW: Final = 31  # zlib writes the gzip header itself: no file name and no time in it


class ByteSink:
    """Text or bytes on their way into an open file, optionally as gzip; whoever opened the file closes it."""

    def __init__(self, stream: BinaryIO, *, compress: bool, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> None:
        self._stream = stream
        self._packer = (
            zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW, zlib.DEF_MEM_LEVEL, strategy) if compress else None
        )
        self._pending: list[bytes] = []
        self._n_pending = 0

    def write(self, text: str | bytes) -> None:
        """Append; text is UTF-8."""
        data = text.encode() if isinstance(text, str) else text
        self._pending.append(data)
        self._n_pending += len(data)
        if self._n_pending >= _BUFFER_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        if self._packer is not None:
            self._stream.write(self._packer.flush())

    def _flush(self) -> None:
        data = b"".join(self._pending)
        self._pending, self._n_pending = [], 0
        self._stream.write(data if self._packer is None else self._packer.compress(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


class FastaSink:
    """FASTA, fed with packed bases of any length; lines are full but for the last of a record."""

    def __init__(self, stream: BinaryIO, *, compress: bool) -> None:
        # Huffman coding alone: on DNA it is ten times as fast as the default strategy and packs as well.
        self._sink = ByteSink(stream, compress=compress, strategy=zlib.Z_HUFFMAN_ONLY)
        self._rest: Codes = np.empty(0, dtype=np.uint8)

    def open_record(self, name: str) -> None:
        """Start a record."""
        self._end_line()
        self._sink.write(f">{name}\n")

    def write(self, packed: Codes) -> None:
        """Append bases."""
        slab = LINE_WIDTH * _BUFFER_LINES
        for start in range(0, len(packed), slab):
            self._write_lines(np.concatenate((self._rest, LETTERS[packed[start : start + slab]])))

    def close(self) -> None:
        """Write what is left and end the last line."""
        self._end_line()
        self._sink.close()

    def _write_lines(self, letters: Codes) -> None:
        n_lines = len(letters) // LINE_WIDTH
        lines = np.full((n_lines, LINE_WIDTH + 1), ord("\n"), dtype=np.uint8)
        lines[:, :LINE_WIDTH] = letters[: n_lines * LINE_WIDTH].reshape(n_lines, LINE_WIDTH)
        self._sink.write(lines.tobytes())
        self._rest = letters[n_lines * LINE_WIDTH :]

    def _end_line(self) -> None:
        if len(self._rest):
            self._sink.write(self._rest.tobytes() + b"\n")
            self._rest = np.empty(0, dtype=np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()
