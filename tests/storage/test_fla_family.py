"""Models of flash-linear-attention, whose own code needs a GPU: held against its equations."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from numerics import assert_close
from pretrained_models import TensorSource
from slowwave.models.families.registry import read_pretrained_config
from slowwave.storage.pretrained import Pretrained

CONFIG: dict[str, Any] = {
    "model_type": "gated_deltanet",
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_heads": 2,
    "num_v_heads": 4,
    "head_dim": 5,
    "expand_v": 1.4,
    "intermediate_size": 18,
    "norm_eps": 1e-4,
    "allow_neg_eigval": True,
    "attn": {"layers": [1], "num_heads": 3, "num_kv_heads": 1, "rope_theta": 50.0},
}
D, HIDDEN, KEYS, VALUES, HEADS, K, V = 24, 18, 10, 28, 4, 5, 7


def draw_tensors() -> dict[str, Tensor]:
    """The tensors of `GatedDeltaNetForCausalLM`, by its names."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embeddings.weight": (31, D),
        "model.norm.weight": (D,),
        "lm_head.weight": (31, D),
    }
    for layer in ("model.layers.0.", "model.layers.1."):
        shapes |= {f"{layer}{name}_norm.weight": (D,) for name in ("attn", "mlp")}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (HIDDEN, D) for name in ("gate", "up")}
        shapes[f"{layer}mlp.down_proj.weight"] = (D, HIDDEN)
    rows = {"q": KEYS, "k": KEYS, "v": VALUES}
    delta, attention = "model.layers.0.attn.", "model.layers.1.attn."
    for name, count in (*rows.items(), ("a", HEADS), ("b", HEADS), ("g", VALUES)):
        shapes[f"{delta}{name}_proj.weight"] = (count, D)
    shapes |= {f"{delta}{name}_conv1d.weight": (count, 1, 4) for name, count in rows.items()}
    shapes |= {f"{delta}A_log": (HEADS,), f"{delta}dt_bias": (HEADS,)}
    shapes |= {f"{delta}o_norm.weight": (V,), f"{delta}o_proj.weight": (D, VALUES)}
    shapes |= {f"{attention}{name}_proj.weight": (8, D) for name in ("k", "v")}
    shapes |= {f"{attention}{name}_proj.weight": (D, D) for name in ("q", "o")}
    generator = torch.Generator().manual_seed(0)
    return {
        name: 0.4 * torch.randn(shape, generator=generator) + 0.3 for name, shape in shapes.items()
    }


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-4) * weight


def read_delta(held: dict[str, Tensor], x: Tensor) -> Tensor:
    """x (T, D): `fla.layers.GatedDeltaNet`, one head and token at a time."""
    at = {name.removeprefix("model.layers.0.attn."): tensor for name, tensor in held.items()}
    mixed = {}
    for name in "qkv":
        rows = (x @ at[f"{name}_proj.weight"].T).T[None]
        kernel = at[f"{name}_conv1d.weight"]
        convolved = F.conv1d(F.pad(rows, (3, 0)), kernel, groups=len(kernel))
        mixed[name] = F.silu(convolved[0].T)
    beta = 2 * torch.sigmoid(x @ at["b_proj.weight"].T)
    decay = (-at["A_log"].exp() * F.softplus(x @ at["a_proj.weight"].T + at["dt_bias"])).exp()
    gate = F.silu(x @ at["g_proj.weight"].T)
    out = torch.zeros(len(x), VALUES, dtype=x.dtype)
    for head in range(HEADS):
        keys, values = slice(head // 2 * K, (head // 2 + 1) * K), slice(head * V, (head + 1) * V)
        state = torch.zeros(K, V, dtype=x.dtype)
        for t in range(len(x)):
            q, k, v = mixed["q"][t, keys], mixed["k"][t, keys], mixed["v"][t, values]
            q, k = (each * torch.rsqrt(each.square().sum() + 1e-6) for each in (q, k))
            state = decay[t, head] * state
            state = state + beta[t, head] * torch.outer(k, v - k @ state)
            out[t, values] = norm(K**-0.5 * q @ state, at["o_norm.weight"])
    return (out * gate) @ at["o_proj.weight"].T


def read_attention(held: dict[str, Tensor], x: Tensor) -> Tensor:
    at = {name.removeprefix("model.layers.1.attn."): tensor for name, tensor in held.items()}
    q, k, v = (x @ at[f"{name}_proj.weight"].T for name in "qkv")
    angles = torch.arange(len(x), dtype=x.dtype)[:, None] * 50 ** (
        -torch.arange(4, dtype=x.dtype) / 4
    )
    cos, sin = angles.cos(), angles.sin()

    def turn(head: Tensor) -> Tensor:
        first, second = head.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    hidden = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    read: list[Tensor] = []
    for head in q.split(8, dim=-1):
        scores = (turn(head) @ turn(k).T * 8**-0.5).masked_fill(hidden, -torch.inf)
        read.append(scores.softmax(-1) @ v)
    return torch.cat(read, dim=-1) @ at["o_proj.weight"].T


def read_model(held: dict[str, Tensor], tokens: Tensor) -> Tensor:
    x = held["model.embeddings.weight"][tokens]
    for i, mix in enumerate((read_delta, read_attention)):
        layer = f"model.layers.{i}."
        x = x + mix(held, norm(x, held[f"{layer}attn_norm.weight"]))
        normed = norm(x, held[f"{layer}mlp_norm.weight"])
        gate, up = (normed @ held[f"{layer}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (F.silu(gate) * up) @ held[f"{layer}mlp.down_proj.weight"].T
    return norm(x, held["model.norm.weight"]) @ held["lm_head.weight"].T


def test_a_model_of_fla_computes_its_equations() -> None:
    held = draw_tensors()
    family, sizes = read_pretrained_config(CONFIG, "config.json")
    pretrained = Pretrained(family, sizes, TensorSource(held))
    model = pretrained.load().double()
    assert pretrained.list_unused() == []
    tokens = torch.randint(31, (70,), generator=torch.Generator().manual_seed(1))
    expected = read_model({name: tensor.double() for name, tensor in held.items()}, tokens)
    state, logits = model.initial_state(1), list[Tensor]()
    for piece in tokens[None].split([1, 3, 60, 6], dim=1):
        found, state = model(piece, state)
        logits.append(found)
    assert_close(torch.cat(logits, dim=1)[0], expected, 1e-12)
