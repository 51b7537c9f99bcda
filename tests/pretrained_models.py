"""Tiny random models of transformers' classes: no weight has its fresh value, no size divides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DELTA_SIZES: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 7,
    "linear_value_head_dim": 5,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def make_config(name: str) -> transformers.PreTrainedConfig:
    """A config of a family, or of a variant of one."""
    match name:
        case "llama":
            return transformers.LlamaConfig(**SIZES, num_hidden_layers=3, rms_norm_eps=1e-5)
        case "llama 3":
            return transformers.LlamaConfig(
                **SIZES, num_hidden_layers=3, head_dim=10, rope_parameters=LLAMA_3
            )
        case "linear scaling":
            rope = {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0}
            return transformers.LlamaConfig(**SIZES, num_hidden_layers=2, rope_parameters=rope)
        case "qwen2":
            return transformers.Qwen2Config(**SIZES, num_hidden_layers=3, tie_word_embeddings=True)
        case "qwen2 sliding":
            sliding = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
            return transformers.Qwen2Config(**SIZES, **sliding, num_hidden_layers=3)
        case "qwen3":
            return transformers.Qwen3Config(**SIZES, num_hidden_layers=3, head_dim=10)
        case "gemma3":
            return transformers.Gemma3TextConfig(
                **SIZES,
                num_hidden_layers=4,
                head_dim=10,
                query_pre_attn_scalar=30,
                sliding_window=9,
                layer_types=["sliding_attention"] * 2 + ["full_attention", "sliding_attention"],
            )
        case "qwen3_5":
            rope = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
            return transformers.Qwen3_5TextConfig(
                **SIZES, **DELTA_SIZES, num_hidden_layers=4, head_dim=12, rope_parameters=rope
            )
        case "olmo_hybrid":
            rope = {"rope_type": "default", "rope_theta": None}
            return transformers.OlmoHybridConfig(
                **SIZES, **DELTA_SIZES, num_hidden_layers=4, rope_parameters=rope
            )
        case "olmo_hybrid turned":
            return transformers.OlmoHybridConfig(**SIZES, **DELTA_SIZES, num_hidden_layers=4)
        case _:
            raise AssertionError(name)


NAMES = (
    "llama",
    "llama 3",
    "linear scaling",
    "qwen2",
    "qwen2 sliding",
    "qwen3",
    "gemma3",
    "qwen3_5",
    "olmo_hybrid",
    "olmo_hybrid turned",
)


def make_model(config: transformers.PreTrainedConfig, std: float = 0.2) -> Any:
    """A model of a config, for whose norms, gates and decays no value is special.

    std: of its matrices.
    """
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            is_matrix = parameter.ndim > 1
            parameter.normal_(0.0 if is_matrix else 0.3, std if is_matrix else 0.5)
    return model


class TensorSource:
    """A state dict as a source of weights."""

    path = Path("model.safetensors")
    num_bytes = 0

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def read(self, name: str) -> Tensor:
        return self.tensors[name]
