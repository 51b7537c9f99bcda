"""Which memory a request is about. Clients that can send no field of ours name it otherwise.

As a part of the model's name, "talk@ann", or of the address: /v1/memories/ann/v1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slowwave.serving.errors import ApiError

SIGN = "@"
"""No name of a memory has it."""


def find_memory(
    model_name: str, *, model: str, field: str | None, address: str | None
) -> str | None:
    """The memory of a request to the model of this name; None is one that is thrown away.

    model, field: of its body. address: the memory in its address. Raises ApiError if it asks for
    another model, or names two memories.
    """
    named = _split(model_name, model)
    places = {"the model's name": named, "memory": field, "the address": address}
    found = {place: name for place, name in places.items() if name is not None}
    if len(set(found.values())) > 1:
        words = ", ".join(f"{place} has {name!r}" for place, name in found.items())
        raise ApiError(400, f"two memories are named: {words}; use one", param="memory")
    return next(iter(found.values()), None)


def describe_models(model_name: str, memories: Iterable[str], started: int) -> list[dict[str, Any]]:
    """The model, and itself with each memory, as OpenAI's clients list models."""
    names = [model_name, *(f"{model_name}{SIGN}{memory}" for memory in memories)]
    return [describe_model(name, started) for name in names]


def describe_model(name: str, started: int) -> dict[str, Any]:
    """started: when the server was, in seconds since 1970."""
    return {"id": name, "object": "model", "created": started, "owned_by": "slowwave"}


def _split(model_name: str, model: str) -> str | None:
    """The memory in the name of a model."""
    if model == model_name:
        return None
    prefix = f"{model_name}{SIGN}"
    if not model.startswith(prefix):
        raise ApiError(
            404,
            f"model {model!r} is not here; use {model_name!r}, or {prefix + 'NAME'!r} with a "
            "memory of that name",
            param="model",
            code="model_not_found",
        )
    return model.removeprefix(prefix)
