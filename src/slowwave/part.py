"""A piece of a state: tensors with the batch first, which are copied, saved and counted alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A piece of a state: tensors (B, ...), None where there is none, parts, and plain values.

    All that holds for any of them is written here, once, over the dataclass's fields: a new kind of
    memory says what it holds and what a sleep leaves of it, and is copied, saved and counted.
    """

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name in a memory file, those of parts within it too.

        Counters have none: the header of a file tells them.
        """
        found: dict[str, Tensor] = {}
        for field in dataclasses.fields(self):
            name, first = field.metadata.get("name", field.name), field.metadata.get("first", 0)
            if name is None:
                continue
            found |= _name_tensors(name, getattr(self, field.name), first)
        return found

    def map(self, function: Function) -> Self:
        """The same with `function` applied to every tensor."""
        values = {
            field.name: _map_tensors(getattr(self, field.name), function)
            for field in dataclasses.fields(self)
        }
        return type(self)(**values)

    def row(self, i: int) -> Self:
        """The stream at place `i` of the batch, as a batch of one."""
        values = {
            field.name: _take_row(getattr(self, field.name), i)
            for field in dataclasses.fields(self)
        }
        return type(self)(**values)

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """The streams of several batches side by side, which have tensors of one length."""
        values = {
            field.name: _stack([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(cls)
        }
        return cls(**values)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; room to grow (`append`) comes on top."""
        return sum(tensor.nbytes for tensor in self.tensors().values())


def _name_tensors(name: str, value: Any, first: int = 0) -> dict[str, Tensor]:
    """first: the number of the first of several."""
    match value:
        case Tensor():
            return {name: value}
        case Part():
            return {f"{name}.{inner}": tensor for inner, tensor in value.tensors().items()}
        case tuple():
            found: dict[str, Tensor] = {}
            for i, each in enumerate(cast(tuple[Any, ...], value), first):
                found |= _name_tensors(f"{name}.{i}", each)
            return found
        case _:
            return {}


def _map_tensors(value: Any, function: Function) -> Any:
    match value:
        case Tensor():
            return function(value)
        case Part():
            return value.map(function)
        case tuple() if not _is_plain(value):
            return tuple(_map_tensors(each, function) for each in cast(tuple[Any, ...], value))
        case _:
            return value


def _take_row(value: Any, i: int) -> Any:
    match value:
        case Tensor():
            return value[i : i + 1]
        case Part():
            return value.row(i)
        case tuple() if not _is_plain(value):
            return tuple(_take_row(each, i) for each in cast(tuple[Any, ...], value))
        case _:
            return value


def _is_plain(value: Any) -> bool:
    """Whether a tuple is a named one, a value like a number."""
    return hasattr(value, "_fields")


def _stack(values: Sequence[Any]) -> Any:
    match values[0]:
        case Tensor():
            return torch.cat(list(values))
        case Part():
            return type(values[0]).stack(values)
        case tuple() if not _is_plain(values[0]):
            return tuple(_stack(each) for each in zip(*values, strict=True))
        case _:
            assert all(value == values[0] for value in values), "rows of a batch are alike"
            return values[0]
