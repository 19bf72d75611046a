"""Opening a store: names to views, each pinned to the generation that was current when it was opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from splicestore.errors import StoreNotFoundError, close_names
from splicestore.genome import Genome
from splicestore.storage import StoreRoot, read_pointer
from splicestore.storage.catalog import pointer_names
from splicestore.storage.publish import require_store

if TYPE_CHECKING:
    from splicestore.splits import Split

View = TypeVar("View", covariant=True)


class _ViewFactory(Protocol[View]):
    def __call__(self, root: StoreRoot, name: str, generation: str, /) -> View: ...


class NamedViews(Mapping[str, View], Generic[View]):
    """Names of one kind; ``views[name]`` resolves its pointer once and keeps the generation."""

    def __init__(self, root: StoreRoot, kind: str, factory: _ViewFactory[View]) -> None:
        self._root, self._kind, self._factory = root, kind, factory
        self._open: dict[tuple[str, str], View] = {}
        self._current: dict[str, str] = {}

    def __getitem__(self, name: str) -> View:
        if name not in self._current:
            pointer = read_pointer(self._root, f"{self._kind}/{name}")
            if pointer is None:
                raise StoreNotFoundError(
                    f"{self._root.url}: nothing named {name!r} is published under {self._kind}; {close_names(name, list(self))}"
                )
            self._current[name] = str(pointer.current)
        return self.at(name, self._current[name])

    def at(self, name: str, generation: str) -> View:
        """Open one generation by name, current or not."""
        if (name, generation) not in self._open:
            self._open[name, generation] = self._factory(self._root, name, generation)
        return self._open[name, generation]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (
            name in self._current or read_pointer(self._root, f"{self._kind}/{name}") is not None
        )

    def __iter__(self) -> Iterator[str]:
        return iter(pointer_names(self._root, self._kind))

    def __len__(self) -> int:
        return len(pointer_names(self._root, self._kind))

    def __repr__(self) -> str:
        return f"{self._kind}: {', '.join(self) or 'none'}"


class Store:
    """One store, each kind by name: ``genomes``, ``splits``, ``predictions``, ``expression``, ``normalized``, ``bins`` and others."""

    def __init__(self, root: StoreRoot) -> None:
        from splicestore.expression import Expression, SampleSplit
        from splicestore.normalized import Bins, Normalized, Scaled, Tokens
        from splicestore.predictions import Predictions
        from splicestore.splits import Split

        self.root = root
        self.genomes: NamedViews[Genome] = NamedViews(root, "genomes", Genome)
        self.splits: NamedViews[Split] = NamedViews(root, "splits", Split)
        self.predictions: NamedViews[Predictions] = NamedViews(root, "predictions", Predictions)
        self.expression: NamedViews[Expression] = NamedViews(root, "expression", Expression)
        self.sample_splits: NamedViews[SampleSplit] = NamedViews(root, "sample_splits", SampleSplit)
        self.normalized: NamedViews[Normalized] = NamedViews(root, "normalized", Normalized)
        self.bins: NamedViews[Bins] = NamedViews(root, "bins", Bins)
        self.scaled: NamedViews[Scaled] = NamedViews(root, "scaled", Scaled)
        self.tokens: NamedViews[Tokens] = NamedViews(root, "tokens", Tokens)

    @property
    def url(self) -> str:
        """Path or URL of the store."""
        return self.root.url

    def open_pinned(self, split: Split, genome_ids: Sequence[str]) -> list[Genome]:
        """Open genomes at the generations that a split pins."""
        return split.open_genomes(genome_ids)

    @property
    def n_requests(self) -> int:
        """Reads that the storage was asked for so far, in this process: documents and ranges of objects, zarr's own not counted."""
        return self.root.reads.n

    def __repr__(self) -> str:
        return f"Store({self.url!r}: {len(self.genomes)} genomes, {len(self.splits)} splits, {len(self.predictions)} predictions)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.root,)


def open_store(url: str, *, storage_options: Mapping[str, Any] | None = None) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    url
        A path or any URL that fsspec knows.
    storage_options
        Passed to fsspec (credentials, endpoint).

    Raises
    ------
    StoreNotFoundError
        If there is no store at the URL.
    FormatError
        If another format version wrote it.
    """
    root = StoreRoot(str(url), dict(storage_options or {}))
    require_store(root)
    return Store(root)
