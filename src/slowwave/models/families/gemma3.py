"""Gemma 3 (text): local and global attention, norms before and after, embeddings scaled.

Norms scale by 1 + w, which ours have as one number. Source: transformers 5.24.
"""

from __future__ import annotations

from slowwave.models.config import ModelConfig, Traits
from slowwave.models.families.family import (
    Family,
    Fields,
    Rules,
    attention_rules,
    mlp_rules,
    outer_rules,
    read_scaling,
    whole,
)

NORMS = {
    "mixer_norm": "input_layernorm",
    "mixed_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}


def read_config(fields: Fields) -> ModelConfig:
    """See `Family`."""
    fields.require("hidden_activation", "gelu_pytorch_tanh")
    fields.require("attention_bias", False)
    fields.require("final_logit_softcapping", None)
    fields.require("attn_logit_softcapping", None)
    fields.require("use_bidirectional_attention", False)
    scalar = fields.get("query_pre_attn_scalar", float, 256.0)
    width, heads = fields.get("hidden_size", int), fields.get("num_attention_heads", int)
    count, every = (
        fields.count("num_hidden_layers"),
        fields.count("sliding_window_pattern", 6),
    )
    names = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    everywhere = fields.section("rope_parameters") or Fields({}, fields.source)
    # Older files have one table of scaling, and two bases beside it.
    far = everywhere.section("full_attention") or fields.section("rope_scaling")
    near = everywhere.section("sliding_attention")
    far = far or Fields({}, fields.source)
    near = near or Fields({}, fields.source)
    return ModelConfig(
        vocab_size=fields.get("vocab_size", int),
        width=width,
        layers=fields.layers(names),
        mlp_hidden=fields.get("intermediate_size", int),
        attn_heads=heads,
        attn_kv_heads=fields.get("num_key_value_heads", int, heads),
        attn_head_dim=fields.get("head_dim", int, 256),
        rope_theta=far.get("rope_theta", float, fields.get("rope_theta", float, 1e6)),
        traits=Traits(
            norm_eps=fields.get("rms_norm_eps", float, 1e-6),
            attn_norms="both",
            qk_norm="head",
            attn_scale=scalar**-0.5 if scalar > 0 else 0.0,  # refused by its sentence
            rope_scaling=read_scaling(far),
            local_window=fields.get("sliding_window", int, 4096),
            local_rope_theta=near.get(
                "rope_theta", float, fields.get("rope_local_base_freq", float, 1e4)
            ),
            activation="gelu",
            embedding_scale=width**0.5,
            tied_embeddings=fields.get("tie_word_embeddings", bool, True),
            context_length=fields.find("max_position_embeddings", int),
        ),
    )


def list_rules(sizes: ModelConfig) -> Rules:
    """See `Family`."""
    rules = dict(outer_rules(sizes, plus=1))
    for i in range(len(sizes.layers)):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        rules |= dict(attention_rules(sizes, ours, theirs, plus=1))
        rules |= dict(mlp_rules(sizes, ours, theirs))
        for mine, name in NORMS.items():
            rules[f"{ours}{mine}.weight"] = whole(f"{theirs}{name}.weight", sizes.width, plus=1)
    return rules


GEMMA3 = Family(read_config, list_rules)
