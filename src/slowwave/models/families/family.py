"""What a family is: readers of its config.json, and rules that name its weights both ways."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from torch import Tensor

from slowwave.models.config import MOST_LAYERS, LayerType, ModelConfig, RopeScaling

Value = TypeVar("Value", int, float, str, bool)

LAYER_TYPES: dict[str, LayerType] = {
    "full_attention": "attn",
    "sliding_attention": "local",
    "linear_attention": "gdn",
}


class View(NamedTuple):
    """The part of a family's tensor that is a piece of ours.

    take: gives that part, as an alias of the tensor. widen: the tensor's shape from the piece's.
    """

    take: Callable[[Tensor], Tensor]
    widen: Callable[[tuple[int, ...]], tuple[int, ...]]


WHOLE = View(lambda tensor: tensor, lambda shape: shape)
DEPTHWISE = View(lambda tensor: tensor.squeeze(1), lambda shape: (shape[0], 1, *shape[1:]))
"""The kernel (C, 1, w) of a depthwise convolution; ours is (C, w)."""


def half(place: int, num_heads: int) -> View:
    """The first or the second half of the rows of every head."""
    return View(
        lambda tensor: tensor.unflatten(0, (num_heads, 2, -1))[:, place],
        lambda shape: (2 * shape[0], *shape[1:]),
    )


@dataclasses.dataclass(frozen=True)
class Piece:
    """Rows of one of our tensors, and where a family has them.

    plus: what ours have more, of norms that scale by 1 + w.
    """

    name: str
    rows: int
    view: View = WHOLE
    plus: float = 0.0


Rules = Mapping[str, tuple[Piece, ...]]
"""The pieces of each of our tensors, in order of its rows."""
Items = Iterator[tuple[str, tuple[Piece, ...]]]


class Family(NamedTuple):
    """read_config: from the values of a config.json. rules: of the weights of such a model.
    write_config: the other way, or None if models of the family are only read."""

    read_config: Callable[[Fields], ModelConfig]
    rules: Callable[[ModelConfig], Rules]
    write_config: Callable[[ModelConfig], dict[str, Any]] | None = None


class Fields:
    """The values of a config.json; a wrong one raises ValueError in one sentence."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values, self.source = values, source

    def get(self, name: str, kind: type[Value], default: Value | None = None) -> Value:
        """The value of a field; of one that is missing or null the default, if there is one."""
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"{self.source}: {name} is missing; restore the file")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(
                f"{self.source}: {name} is {value!r:.80}, not of type {kind.__name__}; restore it"
            )
        return cast(Value, value)

    def find(self, name: str, kind: type[Value]) -> Value | None:
        """As `get`, None for a field that is missing or null."""
        return None if self.values.get(name) is None else self.get(name, kind)

    def section(self, name: str) -> Fields | None:
        """The fields of a table within, if it is there."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError(f"{self.source}: {name} is no table; restore the file")
        return Fields(cast(dict[str, Any], value), f"{self.source}: {name}")

    def require(self, name: str, *known: Any) -> None:
        """Raises ValueError if a field that is there has none of the values that we compute."""
        value = self.values.get(name, known[0])
        if value is not None and value not in known:
            raise ValueError(
                f"{self.source}: {name} is {value!r:.80}, which slowwave does not compute; it "
                f"knows {' and '.join(map(repr, known))}"
            )

    def count(self, name: str, default: int | None = None) -> int:
        """A number of layers, from 1 on."""
        count = self.get(name, int, default)
        if not 1 <= count <= MOST_LAYERS:
            raise ValueError(f"{self.source}: {name} is {count}; use 1 to {MOST_LAYERS}")
        return count

    def layers(self, default: Iterable[str]) -> tuple[LayerType, ...]:
        """The kinds of layers, in order; `default` where the config does not list them."""
        names = self.values.get("layer_types") or [*default]
        count = self.count("num_hidden_layers")
        if not isinstance(names, list) or len(cast(list[Any], names)) != count:
            raise ValueError(f"{self.source}: layer_types does not list {count} layers; restore it")
        wrong = [name for name in cast(list[Any], names) if str(name) not in LAYER_TYPES]
        if wrong:
            raise ValueError(
                f"{self.source}: layer_types has {wrong[0]!r:.80}, which slowwave does not "
                f"compute; it knows {', '.join(LAYER_TYPES)}"
            )
        return tuple(LAYER_TYPES[name] for name in cast(list[str], names))

    def places(self, name: str) -> list[int]:
        """A list of places of layers."""
        found = self.values.get(name)
        if not isinstance(found, list) or any(type(i) is not int for i in cast(list[Any], found)):
            raise ValueError(f"{self.source}: {name} lists no places of layers; restore the file")
        return cast(list[int], found)

    @property
    def rope(self) -> Fields:
        """The settings of rotary positions, where files of any age have them."""
        return self.section("rope_parameters") or self.section("rope_scaling") or Fields({}, "")

    def rope_theta(self, default: float) -> float:
        """Base of the rotary positions."""
        return self.rope.find("rope_theta", float) or self.get("rope_theta", float, default)

    def rope_scaling(self) -> RopeScaling | None:
        """How frequencies are changed for longer contexts. Raises ValueError if we cannot."""
        return read_scaling(self.rope)


def read_scaling(rope: Fields) -> RopeScaling | None:
    """How a table of rotary settings changes frequencies; None for not at all."""
    name = "rope_type" if "rope_type" in rope.values else "type"
    match rope.values.get(name):
        case None | "default":
            return None
        case "linear":
            return RopeScaling(factor=rope.get("factor", float))
        case "llama3":
            return RopeScaling(
                factor=rope.get("factor", float),
                original_length=rope.get("original_max_position_embeddings", int),
                low_turns=rope.get("low_freq_factor", float),
                high_turns=rope.get("high_freq_factor", float),
            )
        case other:
            raise ValueError(
                f"{rope.source}: {name} is {other!r:.80}, which slowwave does not compute; it "
                "knows default, linear and llama3"
            )


def write_scaling(scaling: RopeScaling | None) -> dict[str, Any]:
    """The table that `read_scaling` reads."""
    if scaling is None:
        return {"rope_type": "default"}
    if scaling.original_length is None:
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_length,
        "low_freq_factor": scaling.low_turns,
        "high_freq_factor": scaling.high_turns,
    }


def whole(name: str, rows: int, *, plus: float = 0.0) -> tuple[Piece, ...]:
    """The pieces of a tensor that a family has as it is."""
    return (Piece(name, rows, plus=plus),)


def outer_rules(sizes: ModelConfig, *, plus: float = 0.0) -> Items:
    """Rules of embeddings, last norm and head."""
    yield "embedding.weight", whole("model.embed_tokens.weight", sizes.vocab_size)
    yield "final_norm.weight", whole("model.norm.weight", sizes.width, plus=plus)
    if not sizes.traits.tied_embeddings:
        yield "head.weight", whole("lm_head.weight", sizes.vocab_size)


def mlp_rules(sizes: ModelConfig, ours: str, theirs: str) -> Items:
    """Rules of a gated feed-forward layer."""
    names = (f"{theirs}mlp.gate_proj.weight", f"{theirs}mlp.up_proj.weight")
    yield f"{ours}mlp.up.weight", tuple(Piece(name, sizes.mlp_hidden) for name in names)
    yield f"{ours}mlp.out.weight", whole(f"{theirs}mlp.down_proj.weight", sizes.width)


def attention_rules(sizes: ModelConfig, ours: str, theirs: str, *, plus: float = 0.0) -> Items:
    """Rules of an attention layer: projections, biases, norms of queries and keys, gate."""
    traits, attn = sizes.traits, f"{theirs}self_attn."
    queries, keys = sizes.attn_heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    gated = traits.attn_gate
    query_view = half(0, sizes.attn_heads) if gated else WHOLE
    rows = {"k_proj": keys, "v_proj": keys}
    for kind in ("weight", "bias") if traits.qkv_bias else ("weight",):
        first = Piece(f"{attn}q_proj.{kind}", queries, query_view)
        others = (Piece(f"{attn}{name}.{kind}", count) for name, count in rows.items())
        yield f"{ours}mixer.qkv.{kind}", (first, *others)
    if gated:
        gate = Piece(f"{attn}q_proj.weight", queries, half(1, sizes.attn_heads))
        yield f"{ours}mixer.gate.weight", (gate,)
    yield f"{ours}mixer.out.weight", whole(f"{attn}o_proj.weight", sizes.width)
    if traits.qk_norm != "none":
        is_head = traits.qk_norm == "head"
        for name, count in (("q_norm", queries), ("k_norm", keys)):
            size = sizes.head_dim if is_head else count
            yield f"{ours}mixer.{name}.weight", whole(f"{attn}{name}.weight", size, plus=plus)
