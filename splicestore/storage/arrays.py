"""Reading whole arrays of a generation that may not be complete yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from splicestore.storage.keys import StoreRoot
from splicestore.storage.zarr_codecs import quiet_zarr


def read_arrays(root: StoreRoot, base: str, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Read arrays whole, by name; for writers, readers go through a published group."""
    with quiet_zarr():
        store = root.zarr_store(base, read_only=True)
        group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
        return {name: np.asarray(group[name][...]) for name in names}  # type: ignore[index]
