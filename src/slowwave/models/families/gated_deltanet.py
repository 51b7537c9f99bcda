"""Hybrids of Gated DeltaNet and attention: Qwen 3.5 (text), OLMo Hybrid, and fla's own models.

Sources: transformers 5.24, flash-linear-attention 0.6. Conventions of the recurrence are ours in
all three: q and k of unit length, decay before the write, heads of keys shared in a row.
"""

from __future__ import annotations

from typing import Any

from slowwave.models.config import ModelConfig, Traits
from slowwave.models.families.family import (
    DEPTHWISE,
    Family,
    Fields,
    Items,
    Piece,
    Rules,
    attention_rules,
    mlp_rules,
    outer_rules,
    whole,
    write_scaling,
)


def read_qwen3_5(fields: Fields) -> ModelConfig:
    """See `Family`."""
    fields.require("hidden_act", "silu")
    fields.require("attention_bias", False)
    count, every = (
        fields.count("num_hidden_layers"),
        fields.count("full_attention_interval", 4),
    )
    share = fields.rope.find("partial_rotary_factor", float)
    return ModelConfig(
        vocab_size=fields.get("vocab_size", int),
        width=fields.get("hidden_size", int),
        layers=fields.layers(_list_kinds(count, every)),
        mlp_hidden=fields.get("intermediate_size", int),
        attn_heads=fields.get("num_attention_heads", int),
        attn_kv_heads=fields.get("num_key_value_heads", int, 4),
        attn_head_dim=fields.get("head_dim", int, 256),
        rope_theta=fields.rope_theta(10_000.0),
        delta_heads=fields.get("linear_num_key_heads", int, 16),
        delta_value_heads=fields.get("linear_num_value_heads", int, 32),
        key_dim=fields.get("linear_key_head_dim", int, 128),
        value_dim=fields.get("linear_value_head_dim", int, 128),
        conv_width=fields.get("linear_conv_kernel_dim", int, 4),
        traits=Traits(
            norm_eps=fields.get("rms_norm_eps", float, 1e-6),
            out_norm_eps=fields.get("rms_norm_eps", float, 1e-6),
            qk_norm="head",
            attn_gate=True,
            rotary_share=share or fields.get("partial_rotary_factor", float, 0.25),
            rope_scaling=fields.rope_scaling(),
            tied_embeddings=fields.get("tie_word_embeddings", bool, False),
            context_length=fields.find("max_position_embeddings", int),
        ),
    )


def write_qwen3_5(sizes: ModelConfig) -> dict[str, Any]:
    """See `Family`."""
    traits = sizes.traits
    rope = {
        "rope_theta": sizes.rope_theta,
        "partial_rotary_factor": traits.rotary_share,
        **write_scaling(traits.rope_scaling),
    }
    return {
        "architectures": ["Qwen3_5ForCausalLM"],
        "model_type": "qwen3_5_text",
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.mlp_hidden,
        "num_hidden_layers": len(sizes.layers),
        "layer_types": [
            "full_attention" if kind == "attn" else "linear_attention" for kind in sizes.layers
        ],
        "num_attention_heads": sizes.attn_heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": traits.norm_eps,
        "rope_parameters": rope,
        "linear_num_key_heads": sizes.delta_heads,
        "linear_num_value_heads": sizes.value_heads,
        "linear_key_head_dim": sizes.key_dim,
        "linear_value_head_dim": sizes.value_dim,
        "linear_conv_kernel_dim": sizes.conv_width,
        "tie_word_embeddings": traits.tied_embeddings,
        "max_position_embeddings": traits.context_length,
    }


def list_qwen3_5(sizes: ModelConfig) -> Rules:
    """See `Family`."""
    rules = dict(outer_rules(sizes, plus=1))
    for i, kind in enumerate(sizes.layers):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        if kind == "attn":
            rules |= dict(attention_rules(sizes, ours, theirs, plus=1))
        else:
            rules |= dict(_list_fused(sizes, f"{ours}mixer.", f"{theirs}linear_attn."))
        rules |= dict(mlp_rules(sizes, ours, theirs))
        rules |= dict(_list_norms(sizes, ours, theirs, plus=1))
    return rules


def read_olmo_hybrid(fields: Fields) -> ModelConfig:
    """See `Family`. Where `rope_theta` is null attention takes no positions at all."""
    fields.require("hidden_act", "silu")
    fields.require("attention_bias", False)
    count = fields.count("num_hidden_layers")
    width, heads = fields.get("hidden_size", int), fields.get("num_attention_heads", int)
    key_heads = fields.get("linear_num_key_heads", int, heads)
    key_dim = fields.get("linear_key_head_dim", int, int(0.75 * width / max(1, key_heads)))
    theta = fields.rope_theta(10_000.0)
    is_turned = fields.rope.values.get("rope_theta", theta) is not None
    return ModelConfig(
        vocab_size=fields.get("vocab_size", int),
        width=width,
        layers=fields.layers(_list_kinds(count, 4)),
        mlp_hidden=fields.get("intermediate_size", int),
        attn_heads=heads,
        attn_kv_heads=fields.get("num_key_value_heads", int, heads),
        attn_head_dim=fields.get("head_dim", int, width // max(1, heads)),
        rope_theta=theta,
        delta_heads=key_heads,
        delta_value_heads=fields.get("linear_num_value_heads", int, heads),
        key_dim=key_dim,
        value_dim=fields.get("linear_value_head_dim", int, 2 * key_dim),
        conv_width=fields.get("linear_conv_kernel_dim", int, 4),
        max_beta=2.0 if fields.get("linear_allow_neg_eigval", bool, True) else 1.0,
        traits=Traits(
            norm_eps=fields.get("rms_norm_eps", float, 1e-6),
            attn_norms="after",
            qk_norm="all",
            rotary_share=1.0 if is_turned else 0.0,
            rope_scaling=fields.rope_scaling() if is_turned else None,
            tied_embeddings=fields.get("tie_word_embeddings", bool, False),
            context_length=fields.find("max_position_embeddings", int),
        ),
    )


def list_olmo_hybrid(sizes: ModelConfig) -> Rules:
    """See `Family`."""
    rules = dict(outer_rules(sizes))
    for i, kind in enumerate(sizes.layers):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        rules |= dict(mlp_rules(sizes, ours, theirs))
        if kind == "attn":
            rules |= dict(attention_rules(sizes, ours, theirs))
            after = {"mixed": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"}
            for mine, name in after.items():
                key = f"{ours}{mine}_norm.weight"
                rules[key] = whole(f"{theirs}{name}.weight", sizes.width)
        else:
            rules |= dict(_list_apart(sizes, f"{ours}mixer.", f"{theirs}linear_attn.", fused=True))
            rules |= dict(_list_norms(sizes, ours, theirs))
    return rules


def read_fla(fields: Fields) -> ModelConfig:
    """See `Family`: `GatedDeltaNetForCausalLM` of flash-linear-attention."""
    fields.require("use_gate", True)
    fields.require("use_short_conv", True)
    fields.require("hidden_act", "swish", "silu")
    fields.require("output_gate_activation", "swish", "silu")
    fields.require("attnres_block_size", None)
    count, heads = fields.count("num_hidden_layers"), fields.get("num_heads", int, 6)
    attention = fields.section("attn")
    if attention is None:  # the sizes of a layer that is not there
        attention = Fields({"layers": [], "num_heads": 1, "head_dim": 2}, fields.source)
    attention.require("qkv_bias", False)
    attention.require("qk_norm", False)
    attention.require("window_size", None)
    places, attn_heads = attention.places("layers"), attention.get("num_heads", int)
    width, key_dim = fields.get("hidden_size", int), fields.get("head_dim", int, 256)
    ratio = fields.find("hidden_ratio", int) or 4
    hidden = fields.find("intermediate_size", int)
    rounded = (int(width * ratio * 2 / 3) + 255) // 256 * 256
    return ModelConfig(
        vocab_size=fields.get("vocab_size", int),
        width=width,
        layers=tuple("attn" if i in places else "gdn" for i in range(count)),
        mlp_hidden=hidden or rounded,
        attn_heads=attn_heads,
        attn_kv_heads=attention.get("num_kv_heads", int, attn_heads),
        attn_head_dim=attention.find("head_dim", int),
        rope_theta=attention.get("rope_theta", float, 10_000.0),
        delta_heads=heads,
        delta_value_heads=fields.get("num_v_heads", int, heads),
        key_dim=key_dim,
        value_dim=int(key_dim * fields.get("expand_v", float, 2.0)),
        conv_width=fields.get("conv_size", int, 4),
        max_beta=2.0 if fields.get("allow_neg_eigval", bool, False) else 1.0,
        traits=Traits(
            norm_eps=fields.get("norm_eps", float, 1e-6),
            out_norm_eps=fields.get("norm_eps", float, 1e-6),
            tied_embeddings=fields.get("tie_word_embeddings", bool, False),
            context_length=fields.find("max_position_embeddings", int),
        ),
    )


def list_fla(sizes: ModelConfig) -> Rules:
    """See `Family`. Both kinds of layers are called attn there."""
    rules = dict(outer_rules(sizes))
    rules["embedding.weight"] = whole("model.embeddings.weight", sizes.vocab_size)
    for i, kind in enumerate(sizes.layers):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        rules |= dict(mlp_rules(sizes, ours, theirs))
        if kind == "attn":
            found = dict(attention_rules(sizes, ours, theirs))
            rules |= {name: _rename(pieces) for name, pieces in found.items()}
        else:
            rules |= dict(_list_apart(sizes, f"{ours}mixer.", f"{theirs}attn.", fused=False))
        for mine, name in (("mixer_norm", "attn_norm"), ("mlp_norm", "mlp_norm")):
            rules[f"{ours}{mine}.weight"] = whole(f"{theirs}{name}.weight", sizes.width)
    return rules


def _rename(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    return tuple(
        Piece(piece.name.replace(".self_attn.", ".attn."), piece.rows, piece.view)
        for piece in pieces
    )


def _list_kinds(count: int, every: int) -> list[str]:
    return ["linear_attention" if (i + 1) % every else "full_attention" for i in range(count)]


def _list_norms(sizes: ModelConfig, ours: str, theirs: str, *, plus: float = 0.0) -> Items:
    names = {"mixer_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    for mine, name in names.items():
        yield f"{ours}{mine}.weight", whole(f"{theirs}{name}.weight", sizes.width, plus=plus)


def _list_fused(sizes: ModelConfig, ours: str, theirs: str) -> Items:
    """Rules of Qwen's layer, whose first projection is fused as ours is."""
    keys, values = sizes.delta_heads * sizes.key_dim, sizes.value_heads * sizes.value_dim
    channels, heads = 2 * keys + values, sizes.value_heads
    yield f"{ours}qkv.weight", whole(f"{theirs}in_proj_qkv.weight", channels)
    gates = (f"{theirs}in_proj_a.weight", f"{theirs}in_proj_b.weight")
    yield f"{ours}gates.weight", tuple(Piece(name, heads) for name in gates)
    yield f"{ours}out_gate.weight", whole(f"{theirs}in_proj_z.weight", values)
    yield f"{ours}conv", (Piece(f"{theirs}conv1d.weight", channels, DEPTHWISE),)
    yield f"{ours}A_log", whole(f"{theirs}A_log", heads)
    yield f"{ours}dt_bias", whole(f"{theirs}dt_bias", heads)
    yield f"{ours}out_norm.weight", whole(f"{theirs}norm.weight", sizes.value_dim)
    yield f"{ours}out.weight", whole(f"{theirs}out_proj.weight", sizes.width)


def _list_apart(sizes: ModelConfig, ours: str, theirs: str, *, fused: bool) -> Items:
    """Rules of a layer with projections apart. fused: whether its convolutions are one kernel."""
    keys, values = sizes.delta_heads * sizes.key_dim, sizes.value_heads * sizes.value_dim
    rows, heads = {"q": keys, "k": keys, "v": values}, sizes.value_heads
    pieces = (Piece(f"{theirs}{name}_proj.weight", count) for name, count in rows.items())
    yield f"{ours}qkv.weight", tuple(pieces)
    gates = (Piece(f"{theirs}{name}_proj.weight", heads) for name in ("a", "b"))
    yield f"{ours}gates.weight", tuple(gates)
    yield f"{ours}out_gate.weight", whole(f"{theirs}g_proj.weight", values)
    if fused:
        yield f"{ours}conv", (Piece(f"{theirs}conv1d.weight", 2 * keys + values, DEPTHWISE),)
    else:
        kernels = ((f"{theirs}{name}_conv1d.weight", count) for name, count in rows.items())
        yield f"{ours}conv", tuple(Piece(name, count, DEPTHWISE) for name, count in kernels)
    yield f"{ours}A_log", whole(f"{theirs}A_log", heads)
    yield f"{ours}dt_bias", whole(f"{theirs}dt_bias", heads)
    yield f"{ours}out_norm.weight", whole(f"{theirs}o_norm.weight", sizes.value_dim)
    yield f"{ours}out.weight", whole(f"{theirs}o_proj.weight", sizes.width)


QWEN3_5 = Family(read_qwen3_5, list_qwen3_5, write_qwen3_5)
OLMO_HYBRID = Family(read_olmo_hybrid, list_olmo_hybrid)
FLA_GATED_DELTANET = Family(read_fla, list_fla)
