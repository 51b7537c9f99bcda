"""Llama, Qwen 2 and Qwen 3: attention before a gated feed-forward layer, each normed before.

Qwen 2 has biases of queries, keys and values, Qwen 3 norms of the heads of queries and keys.
Source: the classes of transformers 5.24.
"""

from __future__ import annotations

from typing import Any

from slowwave.models.config import ModelConfig, QueryKeyNorm, Traits
from slowwave.models.families.family import (
    Family,
    Fields,
    Rules,
    attention_rules,
    mlp_rules,
    outer_rules,
    whole,
    write_scaling,
)


def read_plain(
    fields: Fields, *, qkv_bias: bool = False, qk_norm: QueryKeyNorm = "none"
) -> ModelConfig:
    """The config of a model whose blocks differ by biases and norms alone."""
    fields.require("hidden_act", "silu")
    fields.require("mlp_bias", False)
    fields.require("attention_bias", False)
    fields.require("pretraining_tp", 1)
    width, heads = fields.get("hidden_size", int), fields.get("num_attention_heads", int)
    count = fields.count("num_hidden_layers")
    window = fields.find("sliding_window", int) if fields.values.get("use_sliding_window") else None
    first_local = count if window is None else fields.get("max_window_layers", int, count)
    names = ["full_attention" if i < first_local else "sliding_attention" for i in range(count)]
    theta = fields.rope_theta(10_000.0)
    return ModelConfig(
        vocab_size=fields.get("vocab_size", int),
        width=width,
        layers=fields.layers(names),
        mlp_hidden=fields.get("intermediate_size", int),
        attn_heads=heads,
        attn_kv_heads=fields.get("num_key_value_heads", int, heads),
        attn_head_dim=fields.get("head_dim", int, width // max(1, heads)),
        rope_theta=theta,
        traits=Traits(
            norm_eps=fields.get("rms_norm_eps", float, 1e-6),
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            rope_scaling=fields.rope_scaling(),
            local_window=window or Traits.local_window,
            local_rope_theta=theta,
            tied_embeddings=fields.get("tie_word_embeddings", bool, False),
            context_length=fields.find("max_position_embeddings", int),
        ),
    )


def read_llama(fields: Fields) -> ModelConfig:
    """See `Family`."""
    return read_plain(fields)


def read_qwen2(fields: Fields) -> ModelConfig:
    """See `Family`."""
    return read_plain(fields, qkv_bias=True)


def read_qwen3(fields: Fields) -> ModelConfig:
    """See `Family`."""
    return read_plain(fields, qk_norm="head")


def list_rules(sizes: ModelConfig) -> Rules:
    """See `Family`."""
    rules = dict(outer_rules(sizes))
    for i in range(len(sizes.layers)):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        rules |= dict(attention_rules(sizes, ours, theirs))
        rules |= dict(mlp_rules(sizes, ours, theirs))
        names = {"mixer_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
        for mine, name in names.items():
            rules[f"{ours}{mine}.weight"] = whole(f"{theirs}{name}.weight", sizes.width)
    return rules


def write_plain(sizes: ModelConfig, model_type: str, architecture: str) -> dict[str, Any]:
    """What `read_plain` reads, but for sliding windows."""
    traits = sizes.traits
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.mlp_hidden,
        "num_hidden_layers": len(sizes.layers),
        "num_attention_heads": sizes.attn_heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": traits.norm_eps,
        "rope_parameters": {"rope_theta": sizes.rope_theta, **write_scaling(traits.rope_scaling)},
        "tie_word_embeddings": traits.tied_embeddings,
        "max_position_embeddings": traits.context_length,
    }


def write_llama(sizes: ModelConfig) -> dict[str, Any]:
    """See `Family`."""
    return write_plain(sizes, "llama", "LlamaForCausalLM")


def write_qwen3(sizes: ModelConfig) -> dict[str, Any]:
    """See `Family`."""
    return write_plain(sizes, "qwen3", "Qwen3ForCausalLM")


LLAMA = Family(read_llama, list_rules, write_llama)
QWEN2 = Family(read_qwen2, list_rules)
QWEN3 = Family(read_qwen3, list_rules, write_qwen3)
