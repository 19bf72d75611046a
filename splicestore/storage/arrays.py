"""Reading arrays through zarr: damage comes out as one of our errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from splicestore.errors import SpliceStoreError, StoreError
from splicestore.storage.keys import StoreRoot
from splicestore.storage.zarr_codecs import quiet_zarr


def read_array(group: zarr.Group, name: str, selection: Any = ...) -> NDArray[Any]:
    """Read an array of an open group, or a box of it.

    Raises
    ------
    StoreError
        If an object of it cannot be decoded.
    """
    array: Any = group[name]
    try:
        return np.asarray(array[selection])
    except SpliceStoreError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise StoreError(
            f"{array.store_path}: cannot be decoded ({' '.join(str(error).split())[:200]}), an object of it is damaged; "
            "`splicestore verify` says which, --repair encodes it again"
        ) from error


def read_arrays(root: StoreRoot, base: str, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Read arrays whole, by name; for writers, readers go through a published group."""
    with quiet_zarr():
        store = root.zarr_store(base, read_only=True)
        group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
        return {name: read_array(group, name) for name in names}
