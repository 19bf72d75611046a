"""``split samples``: subsets of the samples of a matrix of counts, in which no study and no profile is on two sides.

Samples of one GEO series belong together, and so do series that share samples: the components of that graph are assigned
whole, by the hash of an anchor sample, so that more samples move nothing that stays in its component. Samples with the same
counts are joined too: a library that was submitted again under another accession is the usual way a test set leaks. Samples
with nearly the same profile, as those that were sequenced again, are looked for and joined on demand.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError, SplitError, close_names
from splicestore.expression import Expression
from splicestore.kernels.components import group_components
from splicestore.kernels.profiles import name_keys
from splicestore.kernels.seeded_hash import as_fraction, seeded_hash
from splicestore.schema import (
    SUBSET_NAMES,
    SUBSET_TEST,
    SUBSET_TRAIN,
    SUBSET_VAL,
    Plan,
    check_name,
)
from splicestore.split.similar import SamplePoints, SimilarSamples, find_similar, place_samples
from splicestore.split.values import subset_of_draw
from splicestore.storage import Publication, write_lease
from splicestore.storage.columns import Column, write_columns
from splicestore.store import Store

SAMPLE_SPLIT_ENCODER = 1
_DOMAIN = "sample"
By = Literal["series", "sample"]
BY: tuple[str, ...] = get_args(By)
MAX_COMPONENT_SHARE = 0.2
"""A larger component makes shares meaningless; it is warned of."""


@dataclass(frozen=True, slots=True)
class SampleSplitOptions:
    """How samples are split."""

    by: str = "series"
    """``series``, ``sample`` (each for itself), or a column of the sample table: samples with one label stay together."""
    test_fraction: float = 0.1
    val_fraction: float = 0.1
    seed: int = 0
    join_identical: bool = True
    """Keep samples with the same counts together."""
    similar: float | None = None
    """Look for samples whose log scores are correlated at least so; None: do not."""
    join_similar: bool = False
    """Keep them together."""
    force: bool = False
    steal: bool = False


@dataclass(frozen=True, slots=True)
class SampleSplitReport:
    """What was published."""

    name: str
    generation: str
    status: str
    samples: dict[str, int]
    n_components: int
    largest_component_fraction: float
    n_identical: int
    """Samples whose counts another one has too."""
    n_identical_across: int
    """Of them, those with a twin in another subset: 0 unless ``join_identical`` is off."""
    similar: dict[str, Any] | None
    """Of pairs above the threshold: how many samples, how many across subsets, and the most correlated of those."""
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return asdict(self)


def split_samples(
    store: Store, name: str, expression: str, options: SampleSplitOptions | None = None
) -> SampleSplitReport:
    """Assign every sample of a matrix to train, val or test and publish the table.

    Parameters
    ----------
    store
        Where the counts are and the split goes.
    name
        Of the split.
    expression
        Name of the counts.

    Raises
    ------
    ConfigError
        For shares out of range, or a column that the samples do not have.
    SplitError
        If a subset that was asked for comes out empty.
    """
    options = options or SampleSplitOptions()
    check_name(name, "split")
    _check(options)
    counts = store.expression[expression]
    profile = profile_digests(counts)
    points = None if options.similar is None else place_samples(counts)
    # Joined, none can be in another subset; else it is the subsets that are looked at.
    nowhere = np.zeros(counts.n_samples, dtype=np.uint8)
    joined = _find_similar(points, options, nowhere) if options.join_similar else None
    component = _components(counts, profile, joined, options)
    subset = _draw(counts.sample_ids, component, options)
    _refuse_empty(subset, options)
    similar = _tell_similar(counts, points, joined or _find_similar(points, options, subset), options)
    with write_lease(store.root, f"sample_splits/{name}", steal=options.steal) as lease:
        publication = _publication(store, name, counts, component, subset, options)
        publication.force = options.force
        if not publication.is_complete():
            publication.begin()
            if not publication.has_part("table"):
                writer = publication.partition("table")
                write_columns(writer, _columns(counts, component, subset))
                writer.close()
            publication.finalise(["table"])
        lease.check()
        status = "published" if publication.switch() else "unchanged"
    return _report(name, publication.generation, status, component, subset, profile, similar)


def _check(options: SampleSplitOptions) -> None:
    for share in (options.test_fraction, options.val_fraction):
        if not 0 <= share < 1:
            raise ConfigError(f"shares lie in [0, 1), got {share}")
    if options.test_fraction + options.val_fraction >= 1:
        raise ConfigError("nothing is left to train on: test and val fractions add up to 1 or more")
    if options.similar is not None and not 0.5 <= options.similar < 1:
        raise ConfigError(f"--similar is a correlation in [0.5, 1), got {options.similar}")
    if options.join_similar and options.similar is None:
        raise ConfigError("--join-similar: say from which correlation, as in --similar 0.95")


def profile_digests(counts: Expression) -> NDArray[np.uint64]:
    """Digest the counts of every sample, over all genes: (sample,) uint64. Samples without counts have one of their own."""
    digests, empty = counts.sample_digests().copy(), np.flatnonzero(counts.sample_total == 0)
    digests[empty] = name_keys([counts.sample_ids[row] for row in empty.tolist()])
    return digests


def _components(
    counts: Expression, profile: NDArray[np.uint64], similar: SimilarSamples | None, options: SampleSplitOptions
) -> NDArray[np.int32]:
    member, group = _labels(counts, options.by)
    _, identical = np.unique(profile, return_inverse=True)
    for code in ([identical] if options.join_identical else []) + ([similar.group] if similar is not None else []):
        member = np.concatenate((member, np.arange(counts.n_samples)))
        group = np.concatenate((group, code + (group.max(initial=-1) + 1)))
    return group_components(counts.n_samples, member, group)


def _find_similar(
    points: SamplePoints | None, options: SampleSplitOptions, subset: NDArray[np.uint8]
) -> SimilarSamples | None:
    if points is None or options.similar is None:
        return None
    return find_similar(points, options.similar, subset)


def _tell_similar(
    counts: Expression, points: SamplePoints | None, found: SimilarSamples | None, options: SampleSplitOptions
) -> dict[str, Any] | None:
    if points is None or found is None:
        return None
    ids = counts.sample_ids
    return {
        "threshold": options.similar,
        "is_exact": points.is_exact,
        "n_samples": found.n_similar,
        "n_across": found.n_across,
        "examples": [[ids[a], ids[b], round(r, 6)] for a, b, r in found.examples],
    }


def _labels(counts: Expression, by: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What keeps samples together: (sample, label), as many of a sample as it has; samples without a label are alone."""
    nothing = np.zeros(0, dtype=np.int64)
    if by == "sample":
        return nothing, nothing
    if by == "series":
        ptr, index = counts.array("sample_series_ptr"), counts.array("sample_series_index")
        if not len(index):
            raise ConfigError(
                f"expression {counts.name}: its samples have no series; --by sample splits them one by one, --by COLUMN by a label"
            )
        return np.repeat(np.arange(counts.n_samples), np.diff(ptr)), index.astype(np.int64)
    table = counts.samples_to_pandas()
    if by not in table:
        raise ConfigError(f"expression {counts.name}: no column {by!r}; {close_names(by, [*BY, *table])}")
    labels = table[by].astype(str).to_numpy()
    member = np.flatnonzero((labels != "") & (labels != "nan"))
    _, group = np.unique(labels[member], return_inverse=True)
    return member, group.astype(np.int64)


def _draw(sample_ids: list[str], component: NDArray[np.int32], options: SampleSplitOptions) -> NDArray[np.uint8]:
    """Draw a subset per component: the sample with the smallest hash for "anchor" decides by its hash for "subset"."""
    anchor = seeded_hash("anchor", options.seed, _DOMAIN, sample_ids)
    order = np.lexsort((anchor, component))
    first = order[np.flatnonzero(np.diff(component[order], prepend=-1))]
    draw = as_fraction(seeded_hash("subset", options.seed, _DOMAIN, [sample_ids[row] for row in first.tolist()]))
    return subset_of_draw(draw, options.test_fraction, options.val_fraction)[component]


def _refuse_empty(subset: NDArray[np.uint8], options: SampleSplitOptions) -> None:
    wanted = {SUBSET_TRAIN: 1.0, SUBSET_VAL: options.val_fraction, SUBSET_TEST: options.test_fraction}
    for code, share in wanted.items():
        if share and not (subset == code).any():
            raise SplitError(
                f"no sample falls into {SUBSET_NAMES[code]}: too few components for a share of {share}; another --seed, a larger share, or "
                "--by sample"
            )


def _columns(counts: Expression, component: NDArray[np.int32], subset: NDArray[np.uint8]) -> list[Column]:
    return [
        Column("sample_id", counts.sample_ids, "sample", "string"),
        Column("sample_component", component, "sample", "int32"),
        Column("sample_subset", subset, "sample", "uint8", attributes={"vocabulary": list(SUBSET_NAMES)}),
    ]


def _publication(
    store: Store,
    name: str,
    counts: Expression,
    component: NDArray[np.int32],
    subset: NDArray[np.uint8],
    options: SampleSplitOptions,
) -> Publication:
    plan = Plan(
        kind="sample_split",
        encoder=SAMPLE_SPLIT_ENCODER,
        inputs=(),
        parents={f"expression/{counts.name}": counts.generation},
        options={
            "by": options.by,
            "test_fraction": options.test_fraction,
            "val_fraction": options.val_fraction,
            "seed": options.seed,
            "join_identical": options.join_identical,
            **({"join_similar": options.similar} if options.join_similar else {}),
        },
        chunking={},
    )
    return Publication(
        root=store.root,
        path=f"sample_splits/{name}",
        plan=plan,
        specs=[column.spec() for column in _columns(counts, component, subset)],
        attributes={
            "options": plan.document()["options"],
            "pins": {"expression": {counts.name: counts.generation}},
            "n_samples": counts.n_samples,
        },
        provenance={"versions": {"splicestore": version("splicestore")}},
    )


def _report(
    name: str,
    generation: str,
    status: str,
    component: NDArray[np.int32],
    subset: NDArray[np.uint8],
    profile: NDArray[np.uint64],
    similar: dict[str, Any] | None,
) -> SampleSplitReport:
    counts = np.bincount(subset, minlength=len(SUBSET_NAMES))
    largest = float(np.bincount(component).max() / len(component))
    _, code, n = np.unique(profile, return_inverse=True, return_counts=True)
    sides = {(int(c), int(s)) for c, s in zip(code, subset, strict=True)}
    crossing = {c for c, times in Counter(c for c, _ in sides).items() if times > 1}
    warnings = []
    if largest > MAX_COMPONENT_SHARE:
        warnings.append(
            f"one component has {largest:.0%} of the samples: shares are far from what was asked; is a series a compilation?"
        )
    return SampleSplitReport(
        name=name,
        generation=generation,
        status=status,
        samples={subset_name: int(n) for subset_name, n in zip(SUBSET_NAMES[:3], counts[:3], strict=True)},
        n_components=int(component.max()) + 1,
        largest_component_fraction=largest,
        n_identical=int((n[code] > 1).sum()),
        n_identical_across=int(np.isin(code, sorted(crossing)).sum()),
        similar=similar,
        warnings=tuple(warnings),
    )
