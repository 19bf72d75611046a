"""The model card: how a network is built, fed and read; checked by name and digest before it is used.

A card is a JSON document beside its checkpoint. It names the factory, so nothing is unpickled and no code
runs that the card does not name.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor, nn

from splicestore.errors import ConfigError, InputError, ModelError, close_names
from splicestore.kernels.sequence import N_CODE
from splicestore.schema import check_name
from splicestore.storage.inputs import open_input
from splicestore.storage.keys import StoreRoot

CARD_NAME = "card.json"
CHECKPOINT_NAME = "model.pt"
SITE_TASKS = ("acceptor", "donor")
USAGE_PREFIX = "sse:"
"""A usage task is this and the name of the condition."""

Card = TypeVar("Card", bound="NetworkCard")
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class NetworkCard(BaseModel):
    """What one must know to load any trained network, and to know it again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    splicestore_card: Literal[1] = 1
    """Version of this document."""
    name: str
    factory: str
    """``package.module:callable``; called with ``factory_options``, returns a ``torch.nn.Module``."""
    factory_options: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str = CHECKPOINT_NAME
    """File name beside the card: ``{"model": state_dict}``, loadable with ``weights_only=True``."""
    digest: str = Field(pattern=r"[0-9a-f]{64}")
    """sha256 of the checkpoint's bytes."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Training settings, pinned generations, digest of the split, steps; never used to run the network."""

    @field_validator("name", "checkpoint")
    @classmethod
    def _is_name(cls, value: str) -> str:
        return check_name(value, "name in a model card")

    @field_validator("factory")
    @classmethod
    def _is_factory(cls, value: str) -> str:
        if not _FACTORY.fullmatch(value):
            raise ValueError("must be package.module:callable")
        return value


class ModelCard(NetworkCard):
    """What one must know to run a trained network of positions."""

    bases: str = "ACGT"
    """Order of the one-hot channels."""
    layout: Literal["NCL", "NLC"] = "NCL"
    n: Literal["zero", "quarter"] = "zero"
    """What N is: no channel, or a quarter of each."""
    window_size: int = Field(ge=1)
    """Predicted positions per input, bp."""
    context_size: int = Field(ge=0)
    """Bases of input on each side of the window, bp."""
    target: Literal["positions"] = "positions"
    tasks: tuple[str, ...]
    """``acceptor``, ``donor``, then ``sse:CONDITION`` for each condition: the columns of the scores."""
    activation: dict[Literal["site", "usage"], Literal["softmax", "sigmoid"]] = {"site": "softmax", "usage": "sigmoid"}
    """From logits to scores."""

    @field_validator("bases")
    @classmethod
    def _is_base_order(cls, value: str) -> str:
        if sorted(value) != sorted("ACGT"):
            raise ValueError("must name A, C, G and T once each, in the order of the channels")
        return value

    @field_validator("tasks")
    @classmethod
    def _are_tasks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value[:2] != SITE_TASKS or not all(task.startswith(USAGE_PREFIX) for task in value[2:]):
            raise ValueError(f"must be acceptor, donor, then {USAGE_PREFIX}CONDITION for each condition")
        if len(set(value)) != len(value):
            raise ValueError("names a task twice")
        return value

    @model_validator(mode="after")
    def _is_known_activation(self) -> ModelCard:
        if self.activation != {"site": "softmax", "usage": "sigmoid"}:
            raise ValueError("activation: position models have site=softmax and usage=sigmoid")
        return self

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Conditions of the usage tasks, in order."""
        return tuple(task.removeprefix(USAGE_PREFIX) for task in self.tasks[len(SITE_TASKS) :])

    @property
    def input_length(self) -> int:
        """``window_size + 2 * context_size``, bp."""
        return self.window_size + 2 * self.context_size

    def encode(self, codes: Tensor) -> Tensor:
        """Encode base codes (B, L) uint8 as this network wants them: float32 (B, 4, L), or (B, L, 4) for NLC."""
        one_hot = encode_bases_as(codes, self.bases, self.n)  # (B, L, 4)
        return one_hot.transpose(1, 2).contiguous() if self.layout == "NCL" else one_hot


def encode_bases_as(codes: Tensor, bases: str = "ACGT", n: Literal["zero", "quarter"] = "zero") -> Tensor:
    """Look codes 0..4 up in the one-hot table of a base order: (B, L) uint8 -> (B, L, 4) float32."""
    table = torch.zeros(N_CODE + 1, 4, device=codes.device)
    for code, letter in enumerate("ACGT"):
        table[code, bases.index(letter)] = 1.0
    table[N_CODE] = 0.25 if n == "quarter" else 0.0
    return table[codes.long()]


def task_names(condition_names: Sequence[str]) -> tuple[str, ...]:
    """Name the columns of a position model's scores."""
    return (*SITE_TASKS, *(f"{USAGE_PREFIX}{name}" for name in condition_names))


def task_scores(site_logits: Tensor, usage_logits: Tensor) -> Tensor:
    """Activate logits (B, 3, W) and (B, C, W) as scores (B, W, 2 + C) in [0, 1], columns as ``task_names``."""
    sites = torch.softmax(site_logits, dim=1)[:, 1:]  # (B, 2, W)
    return torch.cat([sites, torch.sigmoid(usage_logits)], dim=1).transpose(1, 2)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread of the CPU.

    For small batches torch cuts sums by its number of threads, which is all cores here and one in a Dask worker: the last
    bits of a result would say where it was computed. Tasks side by side use the cores at least as well.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network with the card it was checked against; takes base codes, gives scores.

    One that was loaded is pickled by the address of its card, and loaded and checked again where it arrives.
    """

    card: ModelCard
    module: nn.Module
    device: torch.device
    url: str | None = None
    """Where the card lies; None for a network that was made here, which is pickled whole."""
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.url is None:
            return LoadedModel, (self.card, self.module, self.device)
        load = partial(load_model, digest=self.card.digest, device=self.device, storage_options=self.storage_options)
        return load, (self.url,)

    @torch.inference_mode()
    def logits(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Base codes (B, L) uint8 -> site logits (B, 3, W) and usage logits (B, C, W), checked for shape.

        Raises
        ------
        ModelError
            If the input has another length than the card says, or the network gives another shape.
        """
        if codes.shape[1] != self.card.input_length:
            raise ModelError(
                f"model {self.card.name} reads {self.card.window_size} + 2 x {self.card.context_size} = "
                f"{self.card.input_length} bp, got {codes.shape[1]}; make windows of the model's size"
            )
        site, usage = self.module(self.card.encode(codes.to(self.device)))
        rows, width = codes.shape[0], self.card.window_size
        expected = ((rows, 3, width), (rows, len(self.card.condition_names), width))
        if (tuple(site.shape), tuple(usage.shape)) != expected:
            raise ModelError(
                f"model {self.card.name} gives site logits {tuple(site.shape)} and usage logits {tuple(usage.shape)}, "
                f"its card promises {expected[0]} and {expected[1]}"
            )
        return site, usage

    @torch.inference_mode()
    def scores(self, codes: Tensor) -> Tensor:
        """Base codes (B, L) uint8 -> scores (B, W, tasks) float32 in [0, 1]."""
        return task_scores(*self.logits(codes))

    def window_scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Numpy codes (B, L) -> numpy scores (B, W, tasks) float32 of their own memory, the same bits in any worker."""
        with one_thread():
            scores = self.scores(torch.from_numpy(np.ascontiguousarray(codes)))
        return np.array(scores.cpu().numpy(), dtype=np.float32, order="C")


def save_model(
    root: StoreRoot,
    module: nn.Module,
    *,
    window_size: int,
    context_size: int,
    condition_names: Sequence[str],
    **what: Any,
) -> ModelCard:
    """Write a network of positions and its card, as ``save_network``."""
    return save_network(
        root,
        module,
        ModelCard,
        **what,
        window_size=window_size,
        context_size=context_size,
        tasks=task_names(condition_names),
    )


def save_network(root: StoreRoot, module: nn.Module, card_type: type[Card], **what: Any) -> Card:
    """Write ``model.pt``, then ``card.json``, under a folder or URL.

    The card comes last: a card never speaks of a checkpoint that is not there.

    Parameters
    ----------
    card_type
        Which card.
    what
        Its fields but the digest.
    """
    state = {key: value.detach().cpu() for key, value in module.state_dict().items()}
    stream = io.BytesIO()
    torch.save({"model": state}, stream)
    data = stream.getvalue()
    card = card_type(digest=hashlib.sha256(data).hexdigest(), **what)
    root.put(CHECKPOINT_NAME, data)
    root.put(CARD_NAME, (json.dumps(card.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode())
    return card


def load_card(url: str, *, storage_options: Mapping[str, Any] | None = None) -> ModelCard:
    """Read and validate the card of a network of positions, as ``load_card_of``."""
    return load_card_of(url, ModelCard, storage_options=storage_options)


def card_target(url: str, *, storage_options: Mapping[str, Any] | None = None) -> str:
    """Read what a card's network predicts: ``positions``, or ``next_gene``, ``masked_gene``, ``masked_level``.

    Raises
    ------
    ModelError
        If the document is no card.
    InputError
        If there is no file at the URL.
    """
    with open_input(url, storage_options=storage_options) as stream:
        text = stream.read()
    try:
        return str(json.loads(text)["target"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{url}: not a valid model card: it is no JSON document with a target") from error


def load_card_of(url: str, card_type: type[Card], *, storage_options: Mapping[str, Any] | None = None) -> Card:
    """Read and validate a card; neither the checkpoint nor the factory is touched.

    Raises
    ------
    ModelError
        If the document is no valid card of the type, with the field and what it holds.
    InputError
        If there is no file at the URL.
    """
    with open_input(url, storage_options=storage_options) as stream:
        text = stream.read()
    try:
        return card_type.model_validate_json(text)
    except ValidationError as error:
        findings = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'card'}: {e['msg']} (got {e['input']!r:.80})"
            for e in error.errors()
        )
        raise ModelError(f"{url}: not a valid model card: {findings}") from error
    except ConfigError as error:
        raise ModelError(f"{url}: not a valid model card: {error}") from error


def load_model(
    url: str,
    *,
    name: str | None = None,
    digest: str | None = None,
    device: str | torch.device = "cpu",
    storage_options: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Load the network that a card describes, in evaluation mode.

    Parameters
    ----------
    url
        The card; its checkpoint lies beside it.
    name, digest
        What the caller expects; refused if the card says otherwise.
    device
        Where the network runs.
    storage_options
        Passed to fsspec.

    Raises
    ------
    ModelError
        If the card is not the expected one, the checkpoint has another digest than the card says, the factory
        cannot be imported or gives no network, or the weights do not fit it.
    """
    card, module = load_network(
        url, ModelCard, name=name, digest=digest, device=device, storage_options=storage_options
    )
    return LoadedModel(card, module, torch.device(device), url, dict(storage_options or {}))


def load_network(
    url: str,
    card_type: type[Card],
    *,
    name: str | None = None,
    digest: str | None = None,
    device: str | torch.device = "cpu",
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[Card, nn.Module]:
    """Load a card of a type and its network, in evaluation mode.

    Raises
    ------
    ModelError
        As ``load_model``.
    """
    card = load_card_of(url, card_type, storage_options=storage_options)
    for what, expected, found in (("name", name, card.name), ("digest", digest, card.digest)):
        if expected is not None and expected != found:
            raise ModelError(f"{url}: the card has {what} {found}, expected {expected}; name the card that was meant")
    data = _read_checkpoint(url, card, storage_options)
    module = build_module(card.factory, card.factory_options)
    try:
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")["model"]
        module.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{url}: the weights in {card.checkpoint} do not fit {card.factory}: {error}") from error
    return card, module.to(torch.device(device)).eval()


def _read_checkpoint(url: str, card: NetworkCard, storage_options: Mapping[str, Any] | None) -> bytes:
    folder, _, _ = url.rpartition("/")
    beside = f"{folder}/{card.checkpoint}" if folder or url.startswith("/") else card.checkpoint
    try:
        with open_input(beside, storage_options=storage_options) as stream:
            data = stream.read()
    except InputError as error:
        raise ModelError(f"{url}: its checkpoint {beside} cannot be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != card.digest:
        raise ModelError(
            f"{url}: {card.checkpoint} has sha256 {found}, the card says {card.digest}; card and checkpoint belong "
            "to different models, or the checkpoint is damaged: copy both again"
        )
    return data


def build_module(factory: str, options: Mapping[str, Any]) -> nn.Module:
    """Import ``package.module:callable`` and call it.

    Raises
    ------
    ModelError
        If it cannot be imported or called, or does not return a ``torch.nn.Module``.
    """
    if not _FACTORY.fullmatch(factory):
        raise ModelError(f"model factory {factory!r} is not of the form package.module:callable")
    module_name, _, attribute = factory.partition(":")
    try:
        make: Callable[..., Any] = getattr(import_module(module_name), attribute)
    except ImportError as error:
        raise ModelError(
            f"model factory {factory}: cannot import {module_name}: {error}; install its package"
        ) from error
    except AttributeError as error:
        known = [n for n in vars(import_module(module_name)) if not n.startswith("_")]
        raise ModelError(
            f"model factory {factory}: {module_name} has no {attribute}; {close_names(attribute, known)}"
        ) from error
    try:
        module = make(**options)
    except TypeError as error:
        raise ModelError(f"model factory {factory}: does not take {dict(options)}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"model factory {factory} returned {type(module).__name__}, not a torch.nn.Module")
    return module


def check_fits(
    card: ModelCard, *, window_size: int, context_size: int, condition_names: Sequence[str] | None = None
) -> None:
    """Refuse data of another geometry, or with other conditions, than a model was made for.

    Parameters
    ----------
    card
        Of the model.
    window_size, context_size
        Of the windows, bp.
    condition_names
        Conditions the data are scored on; all must be among the model's. None: usage is not looked at.

    Raises
    ------
    ModelError
        With both sides.
    """
    if (window_size, context_size) != (card.window_size, card.context_size):
        raise ModelError(
            f"model {card.name} reads windows of {card.window_size} + 2 x {card.context_size} bp, the data have "
            f"{window_size} + 2 x {context_size} bp; make windows or a split of the model's size"
        )
    unknown = [name for name in condition_names or () if name not in card.condition_names]
    if unknown:
        raise ModelError(
            f"model {card.name} does not predict {len(unknown)} of {len(condition_names or ())} conditions of the data, "
            f"first {unknown[0]!r}; {close_names(unknown[0], card.condition_names)}"
        )
