"""Models that another program wrote: a Hugging Face folder, or a GGUF file; and back to a folder.

Each weight is read once, by memory map, and a model that memory has no room for is not begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.models.families.family import Family, Piece
from slowwave.models.families.registry import read_pretrained_config, write_pretrained_config
from slowwave.storage.available_memory import require_memory
from slowwave.storage.checkpoint import FLOATS
from slowwave.storage.files import write_atomically
from slowwave.storage.gguf_model import GgufModel
from slowwave.storage.json_files import read_json, write_json
from slowwave.storage.weights import WeightSource, open_weights

PREFIXES = (
    ("model.", "lm_head."),
    ("model.language_model.", "lm_head."),
    ("language_model.model.", "language_model.lm_head."),
)
"""Before the names of body and head; all but the first are of models that also see."""


class Pretrained(NamedTuple):
    """A model as it lies on disk: nothing of it is in memory but its config."""

    family: Family
    sizes: ModelConfig
    source: WeightSource

    @property
    def num_bytes(self) -> int:
        """What its weights take once they are loaded, in float32."""
        with torch.device("meta"):
            return 4 * HybridLM(self.sizes, seed=None).num_parameters

    def load(self) -> HybridLM:
        """The model, its weights in float32.

        Raises ValueError if memory has no room for it, or a tensor is missing, has another shape
        than the config says, is no number, or holds NaN or infinity.
        """
        require_memory(self.num_bytes, self.source.path)
        try:
            return load_weights_of(self.family, self.sizes, self.source)
        except ValueError as error:
            raise ValueError(f"{self.source.path}: {error}") from None

    def list_unused(self) -> list[str]:
        """Tensors that have no place in the model, such as those of a part that sees."""
        rename = _find_names(self.source)
        rules = self.family.rules(self.sizes).values()
        used = {rename(piece.name) for pieces in rules for piece in pieces}
        return sorted(set(self.source.names) - used)


def open_pretrained(path: Path) -> Pretrained:
    """The model of a folder or of a .gguf file.

    Raises ValueError naming what is missing, damaged, or of a family that slowwave does not have.
    """
    if path.is_dir():
        config = path / "config.json"
        if not config.exists():
            raise ValueError(f"{path}: has no config.json; fetch it, the model is not whole")
        values: Any = read_json(config)
        if not isinstance(values, dict):
            raise ValueError(f"{config}: is no table; restore the file")
        return Pretrained(*read_pretrained_config(values, str(config)), open_weights(path))
    source = GgufModel(path)
    return Pretrained(*read_pretrained_config(source.config, str(path)), source)


def save_pretrained(folder: Path, model: HybridLM) -> None:
    """Writes config.json and weights as transformers reads them.

    Raises ValueError if none of the families that slowwave writes computes what the model does.
    """
    family, values = write_pretrained_config(model.config)
    write_json(folder / "config.json", values)
    content = safetensors.torch.save(dict(export_weights(family, model)), {"format": "pt"})
    write_atomically(folder / "model.safetensors", content)


def load_weights_of(family: Family, sizes: ModelConfig, source: WeightSource) -> HybridLM:
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
    """The weights of a model by the family's names, as `load_weights_of` reads them."""
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


class _Rename:
    """Names in the source of a model that may be a part of another."""

    def __init__(self, prefix: str, head: str) -> None:
        self.prefix, self.head = prefix, head

    def __call__(self, name: str) -> str:
        if name.startswith("lm_head."):
            return self.head + name.removeprefix("lm_head.")
        return self.prefix + name.removeprefix("model.")


def _find_names(source: WeightSource) -> _Rename:
    bodies, names = ("embed_tokens.weight", "embeddings.weight"), set(source.names)
    for prefix, head in PREFIXES:
        if any(prefix + body in names for body in bodies):
            return _Rename(prefix, head)
    return _Rename(*PREFIXES[0])


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
