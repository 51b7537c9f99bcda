"""Weights of a family from their source into a model, and back; each is read once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

import torch
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.models.families.family import Family, Piece

PREFIXES = ("model.", "model.language_model.", "language_model.model.")
"""Before the names of a model's body; the last two are those of models that also see."""
HEADS = ("lm_head.", "lm_head.", "language_model.lm_head.")
"""Before the name of the head, for each of these."""
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class WeightSource(Protocol):
    """Named tensors of a file or several; none is in memory before it is read."""

    @property
    def names(self) -> Collection[str]:
        """Of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        ...

    def read(self, name: str) -> Tensor:
        """A tensor in the dtype it is stored in; it may lie in the file's memory."""
        ...


def load_pretrained(family: Family, sizes: ModelConfig, source: WeightSource) -> HybridLM:
    """A model with the weights of a source, in float32.

    Raises ValueError if a tensor is missing, has another shape than the sizes say, is no number, or
    holds NaN or infinity. Tensors that the model has no use for are left unread.
    """
    with torch.device("meta"):
        model = HybridLM(sizes, seed=None)
    rules, rename = family.rules(sizes), _find_names(source)
    weights: dict[str, Tensor] = {}
    expected = model.state_dict()
    assert expected.keys() == rules.keys(), expected.keys() ^ rules.keys()
    for name, outline in expected.items():
        weight = torch.empty(outline.shape)
        pieces = rules[name]
        for piece, rows in zip(pieces, weight.split([each.rows for each in pieces]), strict=True):
            _fill(rows, piece, source, rename(piece.name))
        weights[name] = weight
    model.load_state_dict(weights, assign=True)
    return model


def export_weights(family: Family, model: HybridLM) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model by the family's names, as `load_pretrained` reads them."""
    rules, weights = family.rules(model.config), model.state_dict()
    places: dict[str, list[tuple[Piece, Tensor]]] = {}
    for name, pieces in rules.items():
        rows = weights[name].split([piece.rows for piece in pieces])
        for piece, part in zip(pieces, rows, strict=True):
            places.setdefault(piece.name, []).append((piece, part))
    for name, parts in places.items():
        piece, part = parts[0]
        theirs = part.new_empty(piece.view.widen(tuple(part.shape)))
        for each, ours in parts:
            taken = each.view.take(theirs)
            taken.copy_((ours - each.plus).reshape(taken.shape))
        yield name, theirs


def list_unused(family: Family, sizes: ModelConfig, source: WeightSource) -> list[str]:
    """Tensors that `load_pretrained` leaves unread."""
    rename = _find_names(source)
    used = {rename(piece.name) for pieces in family.rules(sizes).values() for piece in pieces}
    return sorted(set(source.names) - used)


class _Rename:
    """Names in the source of a model that may be a part of another."""

    def __init__(self, prefix: str, head: str) -> None:
        self.prefix, self.head = prefix, head

    def __call__(self, name: str) -> str:
        if name.startswith("lm_head."):
            return self.head + name.removeprefix("lm_head.")
        return self.prefix + name.removeprefix("model.")


def _find_names(source: WeightSource) -> _Rename:
    bodies = ("embed_tokens.weight", "embeddings.weight")
    for prefix, head in zip(PREFIXES, HEADS, strict=True):
        if any(prefix + body in source.names for body in bodies):
            return _Rename(prefix, head)
    return _Rename(PREFIXES[0], HEADS[0])


def _fill(rows: Tensor, piece: Piece, source: WeightSource, name: str) -> None:
    """Copies a piece from its source."""
    if name not in source.names:
        raise ValueError(f"tensor {name} is missing; restore the file that has it")
    expected, found = piece.view.widen(tuple(rows.shape)), source.shape(name)
    if found != expected:
        raise ValueError(
            f"tensor {name} has shape {found}, the config says {expected}; use the config that "
            "made it"
        )
    tensor = source.read(name)
    if tensor.dtype not in FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"tensor {name} is {kind}, no floating-point number; restore the file")
    rows.copy_(piece.view.take(tensor).reshape(rows.shape))
    if not bool(rows.isfinite().all()):
        raise ValueError(f"tensor {name} has NaN or infinity; restore the file")
    if piece.plus:
        rows += piece.plus
