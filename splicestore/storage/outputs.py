"""Files and folders outside a store: written aside, renamed when whole."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from splicestore.errors import ConfigError
from splicestore.storage.keys import io_errors, replace_file


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file whole: readers see the old or the new one.

    Raises
    ------
    TransferError
        If the disk is full or the folder cannot be written.
    """
    with io_errors(str(path), "writing"):
        replace_file(Path(path), data)


MARKER = ".splicestore-output"
"""Says that a folder was written by ``output_folder`` and may be replaced by it."""


class OutputFolder:
    """Files of a folder that is being written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def path(self, name: str) -> Iterator[Path]:
        """Name a file for a library that writes it itself; sub-folders are made."""
        target = self._folder / name
        with io_errors(str(target), "writing"):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield target

    @contextmanager
    def open_binary(self, name: str) -> Iterator[BinaryIO]:
        """Open one file for writing; sub-folders are made."""
        with self.path(name) as target, target.open("wb") as stream:
            yield stream

    @contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        """Name one file for a library that opens files itself; sub-folders are made."""
        target = self._folder / name
        with io_errors(str(target), "writing"):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield target

    def write_text(self, name: str, text: str) -> None:
        """Write one text file."""
        with self.open_binary(name) as stream:
            stream.write(text.encode("utf-8"))


@contextmanager
def output_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Name a file aside for a library that writes it itself; it is renamed when the block ends without an error.

    Raises
    ------
    ConfigError
        If the file exists and ``overwrite`` is off, or is a folder.
    TransferError
        If the disk is full.
    """
    target = Path(path)
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder; name a file to write")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; name another file, or add --overwrite")
    aside = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with io_errors(str(target), "writing"):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def output_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[OutputFolder]:
    """Write a folder aside and rename it when the block ends without an error.

    Raises
    ------
    ConfigError
        If the folder exists and ``overwrite`` is off.
    TransferError
        If the disk is full.
    """
    target = Path(path)
    if target.is_file():
        raise ConfigError(f"{target}: is a file; name a folder to write")
    if target.exists() and any(target.iterdir()):
        if not overwrite:
            raise ConfigError(f"{target}: exists already; name another folder, or add --overwrite")
        if not (target / MARKER).exists():
            raise ConfigError(
                f"{target}: --overwrite replaces only folders that splicestore wrote; name another folder"
            )
    aside = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
    with io_errors(str(target), "writing"):
        aside.mkdir(parents=True)
    replaced = aside.with_name(f"{aside.name}.old.partial")
    try:
        with io_errors(str(target), "writing"):
            (aside / MARKER).write_text("written whole by splicestore; --overwrite may replace this folder\n")
        yield OutputFolder(aside)
        with io_errors(str(target), "writing"):
            if target.exists():
                target.rename(replaced)
            aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
