"""HDF5 files by path or URL; damage comes out as one of our errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError
from splicestore.storage.inputs import local_path, open_seekable

MAGIC = b"\x89HDF\r\n\x1a\n"


class Hdf5File:
    """An open HDF5 file."""

    def __init__(self, url: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
        try:
            import h5py
        except ImportError as error:
            raise ConfigError(f"{url}: HDF5 needs h5py: pip install 'splicestore[expression]'") from error
        self.url, self._h5py = url, h5py
        path = local_path(url)
        # h5py reads a local path by itself, four times as fast as through Python's file object.
        self._stream = None if path is not None else open_seekable(url, storage_options=storage_options)
        try:
            self.root = h5py.File(path if self._stream is None else self._stream, "r")
        except OSError as error:
            self._close_stream()
            raise InputError(
                f"{url}: not readable as HDF5 ({_one_line(error)}); the file is truncated or damaged"
            ) from error

    def get(self, name: str) -> Any:
        """Return a dataset or group by path; None if there is none."""
        return self.root.get(name)

    def dataset(self, name: str) -> Any:
        """Return a dataset by path; None if there is none, or a group."""
        found = self.get(name)
        return found if isinstance(found, self._h5py.Dataset) else None

    def group(self, name: str) -> Any:
        """Return a group by path; None if there is none, or a dataset."""
        found = self.get(name)
        return found if isinstance(found, self._h5py.Group) else None

    def read(self, dataset: Any, selection: Any = ...) -> NDArray[Any]:
        """Read a box of a dataset.

        Raises
        ------
        InputError
            If it cannot be read: never zeros.
        """
        try:
            return np.asarray(dataset[selection])
        except OSError as error:
            raise InputError(
                f"{self.url}: {dataset.name}: not readable ({_one_line(error)}); the file is truncated or damaged"
            ) from error

    def words(self, dataset: Any) -> list[str]:
        """Read a dataset of text."""
        if self._h5py.check_string_dtype(dataset.dtype) is None:
            return [str(value) for value in self.read(dataset)]
        return [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in self.read(dataset)
        ]

    def column(self, dataset: Any) -> NDArray[Any]:
        """Read a dataset as float64 where it has numbers, as text (object) otherwise."""
        if dataset.dtype.kind in "iufb":
            return self.read(dataset).astype(np.float64)
        return np.array(self.words(dataset), dtype=object)

    def close(self) -> None:
        """Close the file."""
        self.root.close()
        self._close_stream()

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
