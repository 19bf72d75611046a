"""Where a stream stands, as JSON, and whether a state belongs to a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splicestore.errors import StateError
from splicestore.stream.plan import BlockPlan

STATE_VERSION = 2

POSITION_FIELDS = ("epoch", "step")
"""Where the stream stands; every other field says which stream it is."""

_HINTS = {
    "P": "P follows from shuffle_memory and the bytes per block: give the shuffle_memory of the first start",
    "lanes": "the number of lanes is fixed at the first start: give lanes=",
    "split_digest": "the split was published again with other windows: stream the generation the run began with",
    "usage": "usage was joined again from other files: the counts are not those the run began with",
    "generations": "a genome was published again: stream a split that pins the generation the run began with",
}


def describe_order(plan: BlockPlan) -> dict[str, Any]:
    """Describe what decides the order of a stream; the world size does not.

    Returns
    -------
    identity : dict
        JSON-ready.
    """
    options = plan.options
    return {
        "version": STATE_VERSION,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "lanes": options.lanes,
        "P": plan.live_total,
        "share": plan.share,
        "subset": options.subset,
        "shuffle": options.shuffle,
        "tail": options.tail,
    }


def check_state(state: Mapping[str, Any], identity: Mapping[str, Any]) -> tuple[int, int]:
    """Compare a state with a stream.

    Parameters
    ----------
    state
        From ``state_dict``, perhaps through JSON.
    identity
        ``describe_order``, and what the rows are.

    Returns
    -------
    epoch, step : int

    Raises
    ------
    StateError
        If any field but epoch and step differs; both sides are printed, line by line.
    """
    theirs = _flatten({name: value for name, value in state.items() if name not in POSITION_FIELDS})
    ours = _flatten(identity)
    names = [*ours, *(name for name in theirs if name not in ours)]
    different = [name for name in names if theirs.get(name, _ABSENT) != ours.get(name, _ABSENT)]
    if different:
        lines = [f"the state does not belong to this stream, {len(different)} of {len(names)} fields differ:"]
        for name in different:
            lines += [f"  {name}", f"    state:  {theirs.get(name, _ABSENT)}", f"    stream: {ours.get(name, _ABSENT)}"]
        roots = {name.split(".")[0] for name in different}
        lines += [hint for name, hint in _HINTS.items() if name in roots]
        raise StateError(
            "\n".join([*lines, "make the stream with the options of the state, or start without the state"])
        )
    position = [state.get(name) for name in POSITION_FIELDS]
    for name, value in zip(POSITION_FIELDS, position, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise StateError(f"the state's {name} must be a whole number from 0 on, got {value!r}")
    epoch, step = position
    return int(epoch or 0), int(step or 0)


_ABSENT = "(absent)"


def _flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Spell nested mappings as dotted names; an empty mapping counts as absent, a tuple as a list."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
