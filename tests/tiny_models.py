"""Sizes of models that are made and run in no time, and read bytes."""

from __future__ import annotations

from slowwave.models.config import LayerType, ModelConfig

TWO_LAYERS = ModelConfig(
    vocab_size=256,
    width=16,
    layers=("attn", "gdn"),
    mlp_hidden=24,
    attn_heads=2,
    delta_heads=2,
    key_dim=4,
    value_dim=4,
)
THREE_LAYERS = ModelConfig(
    vocab_size=256,
    width=16,
    layers=("attn", "gdn", "gdn"),
    mlp_hidden=24,
    attn_heads=4,
    attn_kv_heads=2,
    delta_heads=2,
    delta_value_heads=4,
    key_dim=4,
    value_dim=6,
)

RECURRENT: tuple[LayerType, ...] = ("gdn", "hebbian", "jet")
