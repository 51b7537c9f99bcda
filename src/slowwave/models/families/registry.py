"""Which families there are, by the `model_type` of their config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slowwave.models.config import ModelConfig
from slowwave.models.families.family import Family, Fields
from slowwave.models.families.gated_deltanet import FLA_GATED_DELTANET, OLMO_HYBRID, QWEN3_5
from slowwave.models.families.gemma3 import GEMMA3
from slowwave.models.families.llama import LLAMA, QWEN2, QWEN3

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma3_text": GEMMA3,
    "qwen3_5_text": QWEN3_5,
    "olmo_hybrid": OLMO_HYBRID,
    "gated_deltanet": FLA_GATED_DELTANET,
}
WRAPPED = {"gemma3": "gemma3_text", "qwen3_5": "qwen3_5_text"}
"""Models that also see, by the family of the part that reads text."""


def read_pretrained_config(values: Mapping[str, Any], source: str) -> tuple[Family, ModelConfig]:
    """The family of a config.json, and the sizes of its model.

    source: the file, for the sentence of ValueError, which says what slowwave lacks to run it.
    """
    fields = Fields(values, source)
    kind = fields.get("model_type", str)
    if kind in WRAPPED:
        text = fields.section("text_config")
        if text is None:
            raise ValueError(f"{source}: text_config is missing; restore the file")
        kind, fields = WRAPPED[kind], text
    family = FAMILIES.get(kind)
    if family is None:
        raise ValueError(
            f"{source}: model_type is {kind!r:.80}, {_name_reason(kind)}; slowwave reads "
            f"{', '.join(FAMILIES)}"
        )
    try:
        return family, family.read_config(fields)
    except ValueError as error:
        is_named = str(error).startswith(source)
        raise ValueError(str(error) if is_named else f"{source}: {error}") from None


def write_pretrained_config(sizes: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """The family that a model can be written as, and its config.json.

    Raises ValueError if no family that slowwave writes computes what the model does.
    """
    for family in FAMILIES.values():
        if family.write_config is None:
            continue
        values = family.write_config(sizes)
        if _reads_back(family, values, sizes):
            return family, values
    names = [name for name, family in FAMILIES.items() if family.write_config is not None]
    raise ValueError(
        f"the model computes what none of {', '.join(names)} does; keep it in slowwave's own form"
    )


def _reads_back(family: Family, values: dict[str, Any], sizes: ModelConfig) -> bool:
    try:
        return family.read_config(Fields(values, "config.json")) == sizes
    except ValueError:
        return False


def _name_reason(kind: str) -> str:
    if "moe" in kind or kind == "mixtral":
        return "a mixture of experts, whose routing slowwave does not compute"
    return "which is no family that slowwave computes"
