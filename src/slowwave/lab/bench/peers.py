"""What people use today, imported only when it is measured against."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slowwave.models.config import ModelConfig
from slowwave.ops.gated_rules import fla_is_available
from slowwave.wording import say_how_to_install

Rule = Callable[..., tuple[Tensor, Tensor]]

_OLMO = "transformers.models.olmo_hybrid"
_PACKAGES = ("transformers", "flash-linear-attention")


def transformers_obstacle() -> str | None:
    """Why transformers cannot be measured against; None if it can."""
    try:
        importlib.import_module(f"{_OLMO}.configuration_olmo_hybrid")
    except ImportError as error:
        return f"transformers with OlmoHybrid is not there ({error}); {say_how_to_install('bench')}"
    return None


def fla_obstacle() -> str | None:
    """Why fla's kernels cannot be measured against; None if they can."""
    if fla_is_available():
        return None
    return f"fla needs a CUDA device, and a package; {say_how_to_install('cuda')}"


def peer_versions() -> dict[str, str | None]:
    """The installed version of every peer's package, None where there is none."""
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def transformers_rule(kind: str) -> Rule:
    """transformers' delta rule in PyTorch, "chunk" or "recurrent", with our signature.

    Unwrapped: transformers would hand the call to fla where that is installed.
    """
    module = importlib.import_module(f"{_OLMO}.modeling_olmo_hybrid")
    theirs = inspect.unwrap(getattr(module, f"torch_{kind}_gated_delta_rule"))

    def rule(
        q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {"initial_state": state, "output_final_state": True}
        if kind == "chunk":  # as ours, no longer than the tokens
            options["chunk_size"] = min(64, q.shape[1])
        return theirs(q, k, v, log_decay, beta, **options)

    return rule


def fla_rule(num_tokens: int) -> Rule:
    """fla's kernel: in chunks, or for single tokens token by token; with our signature."""
    module = importlib.import_module("fla.ops.gated_delta_rule")
    kind = "fused_recurrent" if num_tokens == 1 else "chunk"
    kernel = getattr(module, f"{kind}_gated_delta_rule")

    def rule(
        q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        return kernel(q, k, v, log_decay, beta, initial_state=state, output_final_state=True)

    return rule


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
