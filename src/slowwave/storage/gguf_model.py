"""A GGUF file as a model of Hugging Face's: its config, and its tensors by their names there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slowwave.ops.attention import Rope
from slowwave.storage.gguf_file import GgufFile

FAMILIES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3_text",
}
"""The model_type of each architecture."""
FIELDS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "context_length": "max_position_embeddings",
}
OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
INNER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
SANDWICH = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
"""Names of Gemma's norms, which stand before and after."""
SCALED = "rope_freqs.weight"
LLAMA_FACTORS = (8.0, 32.0)
"""Of Llama 3.1 and 3.2, whose files have the divisors of frequencies alone."""


class GgufModel:
    """The weights of a GGUF file; see `WeightSource`. config: as a config.json would say it.

    Raises ValueError as `GgufFile`, or if the architecture is not one that we know.
    """

    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)
        self.path = path
        self.architecture = str(self._file.metadata.get("general.architecture"))
        if self.architecture not in FAMILIES:
            raise ValueError(
                f"{path}: general.architecture is {self.architecture!r:.80}, which slowwave does "
                f"not read from GGUF files; it reads {', '.join(FAMILIES)}"
            )
        self._names = self._list_names()
        self.config = self._read_config()

    @property
    def names(self) -> tuple[str, ...]:
        """See `WeightSource.names`."""
        return tuple(self._names)

    @property
    def num_bytes(self) -> int:
        """See `WeightSource.num_bytes`."""
        return self._file.num_bytes

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightSource.shape`."""
        return self._file.shape(self._names[name])

    def read(self, name: str) -> Tensor:
        """See `WeightSource.read`."""
        tensor = self._file.read(self._names[name])
        kind = name.split(".")[-2]
        if self.architecture == "llama" and kind in ("q_proj", "k_proj"):
            return self._pair_halves(tensor, kind)
        if self.architecture == "gemma3" and kind.endswith("norm"):
            return tensor - 1  # such files have 1 + w
        return tensor

    def _pair_halves(self, tensor: Tensor, kind: str) -> Tensor:
        """Rows of heads whose neighbours are turned together, as ones whose halves are."""
        name = "num_attention_heads" if kind == "q_proj" else "num_key_value_heads"
        return tensor.unflatten(0, (self.config[name], -1, 2)).transpose(1, 2).reshape(tensor.shape)

    def _list_names(self) -> dict[str, str]:
        """The tensors of the file by their names in a folder."""
        inner = INNER | (SANDWICH if self.architecture == "gemma3" else {})
        theirs = {name: ours for ours, name in inner.items()}
        outer = {name: ours for ours, name in OUTER.items()}
        found: dict[str, str] = {}
        for name in self._file.names:
            body, _, kind = name.rpartition(".")
            block = re.fullmatch(r"blk\.(\d+)\.(.+)", body)
            if block and block[2] in theirs:
                found[f"model.layers.{block[1]}.{theirs[block[2]]}.{kind}"] = name
            else:
                found[f"{outer[body]}.{kind}" if body in outer else name] = name
        return found

    def _read_config(self) -> dict[str, Any]:
        metadata = self._file.metadata
        values: dict[str, Any] = {
            name: metadata.get(f"{self.architecture}.{key}") for key, name in FIELDS.items()
        }
        values["model_type"] = FAMILIES[self.architecture]
        values["vocab_size"] = len(metadata.get("tokenizer.ggml.tokens", ()))
        values["tie_word_embeddings"] = "lm_head.weight" not in self._names
        values["rope_scaling"] = self._read_scaling()
        if self.architecture == "gemma3":
            values["query_pre_attn_scalar"] = values["head_dim"]
        return values

    def _read_scaling(self) -> dict[str, Any] | None:
        key = f"{self.architecture}.rope.scaling."
        kind = self._file.metadata.get(f"{key}type", "none")
        if SCALED in self._file.names:
            return self._match_llama()
        if kind == "none":
            return None
        return {"rope_type": kind, "factor": self._file.metadata.get(f"{key}factor")}

    def _match_llama(self) -> dict[str, Any]:
        """The scaling whose divisors the file has."""
        divisors = self._file.read(SCALED).double()
        size, metadata = 2 * len(divisors), self._file.metadata
        theta = float(metadata.get("llama.rope.freq_base", 10_000.0))
        device = torch.device("cpu")
        plain = Rope(size, theta).frequencies(torch.float64, device)
        for factor in LLAMA_FACTORS:
            scaled = Rope(size, theta, factor, 8192).frequencies(torch.float64, device)
            if torch.allclose(plain / scaled, divisors, rtol=1e-4):
                return {
                    "rope_type": "llama3",
                    "factor": factor,
                    "original_max_position_embeddings": 8192,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                }
        raise ValueError(
            f"{self.path}: {SCALED} are the divisors of no scaling that slowwave knows; use a "
            "folder of the model instead"
        )
