"""What people use today, imported only when it is measured against."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch

from slowwave.model.config import ModelConfig

INSTALL = "transformers is not installed; `pip install slowwave[bench]` measures against it too"
_OLMO = "transformers.models.olmo_hybrid"


def has_transformers() -> bool:
    """Whether transformers can be measured against."""
    return importlib.util.find_spec("transformers") is not None


def transformers_rule(kind: str) -> Any:
    """transformers' delta rule in PyTorch; kind "chunk", or "recurrent" for single tokens."""
    module = importlib.import_module(f"{_OLMO}.modeling_olmo_hybrid")
    return getattr(module, f"torch_{kind}_gated_delta_rule")


def transformers_hybrid(config: ModelConfig, *, max_tokens: int) -> Any:
    """OlmoHybrid with random weights and the sizes of `config`; its attention has no window."""
    sizes = importlib.import_module(f"{_OLMO}.configuration_olmo_hybrid").OlmoHybridConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=config.mlp_hidden,
        num_hidden_layers=len(config.layers),
        num_attention_heads=config.attn_heads,
        num_key_value_heads=config.kv_heads,
        layer_types=[
            "full_attention" if kind == "attn" else "linear_attention" for kind in config.layers
        ],
        linear_num_key_heads=config.delta_heads,
        linear_num_value_heads=config.value_heads,
        linear_key_head_dim=config.key_dim,
        linear_value_head_dim=config.value_dim,
        linear_conv_kernel_dim=config.conv_width,
        linear_allow_neg_eigval=config.max_beta > 1,
        max_position_embeddings=max_tokens,
        pad_token_id=None,
        eos_token_id=None,
    )
    module = importlib.import_module(f"{_OLMO}.modeling_olmo_hybrid")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module.OlmoHybridForCausalLM(sizes).eval()
