"""The models that are measured: ours, and those of packages that people use today.

Ours has the sizes of the paper's Rule 110 model, over bytes. Other packages are imported only when
they are measured.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slowwave.lab.bench.measure import LOG
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.ops import native
from slowwave.ops.gated_rules import fla_is_available
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState
from slowwave.wording import say_how_to_install

Rule = Callable[..., tuple[Tensor, Tensor]]

_OLMO = "transformers.models.olmo_hybrid"
_PACKAGES = ("transformers", "flash-linear-attention")

MODEL = ModelConfig(
    vocab_size=256,
    width=256,
    layers=("attn", "gdn", "attn", "gdn"),
    mlp_hidden=688,
    attn_heads=4,
    delta_heads=4,
    key_dim=48,
    value_dim=96,
    max_beta=2.0,
)


def draw_tokens(model: HybridLM, count: int, *, seed: int = 0) -> Tensor:
    """One row of `count` random tokens, (1, count)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, model.config.vocab_size, (1, count), generator=generator)
    return drawn.to(model.device)


def read_random(model: HybridLM, sleep: SleepConfig, num_tokens: int) -> MemoryState:
    """The state after a stream of other random tokens in every window."""
    state = model.initial_state(1)
    for start in range(0, num_tokens, sleep.window):
        LOG.info("reading, N = %d: %d of %d tokens", sleep.passes, start, num_tokens)
        state = read_random_window(model, sleep, state, min(sleep.window, num_tokens - start))
    return state


def read_random_window(
    model: HybridLM, sleep: SleepConfig, state: MemoryState, count: int
) -> MemoryState:
    """Reads `count` tokens that depend on how many were read before."""
    tokens = draw_tokens(model, count, seed=state.counters.tokens_seen)
    return read_stream(model, tokens, state, sleep)[1]


def generate(model: HybridLM, state: MemoryState, sleep: SleepConfig, count: int) -> None:
    """Greedy decoding of `count` tokens."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    for _ in range(count):
        hidden, state = read_stream(model, token, state, sleep)
        token = model.logits(hidden).argmax(-1)


def moved_nbytes(model: HybridLM, state: MemoryState) -> int:
    """What must move for one token: all weights but the embeddings, and the state once."""
    embedding = model.embedding.weight
    weights = sum(parameter.nbytes for parameter in model.parameters()) - embedding.nbytes
    return weights + state.nbytes


def load_native() -> str | None:
    """Builds the native operators before anything is timed; says why, where this cannot be."""
    obstacle = native.find_obstacle()
    if obstacle is None:
        native.load()
    return obstacle


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
    versions: dict[str, str | None] = dict.fromkeys(_PACKAGES)
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def transformers_rule(kind: str, num_tokens: int) -> Rule:
    """transformers' delta rule in PyTorch, "chunk" or "recurrent", with our signature.

    Unwrapped: transformers would hand the call to fla where that is installed.
    """
    module = importlib.import_module(f"{_OLMO}.modeling_olmo_hybrid")
    theirs = inspect.unwrap(getattr(module, f"torch_{kind}_gated_delta_rule"))
    # A chunk is as ours, no longer than the tokens.
    return _as_ours(theirs, {"chunk_size": min(64, num_tokens)} if kind == "chunk" else {})


def fla_rule(num_tokens: int) -> Rule:
    """fla's kernel: in chunks, or for single tokens token by token; with our signature."""
    module = importlib.import_module("fla.ops.gated_delta_rule")
    kind = "fused_recurrent" if num_tokens == 1 else "chunk"
    return _as_ours(getattr(module, f"{kind}_gated_delta_rule"), {})


def _as_ours(kernel: Callable[..., Any], options: dict[str, int]) -> Rule:
    """A kernel that takes the initial state, which is our last argument, by name."""

    def rule(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        *tokens, state = inputs
        return kernel(*tokens, initial_state=state, output_final_state=True, **options)

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
