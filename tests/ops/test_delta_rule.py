"""The gated delta rule: the reference against the paper's formula, the chunks against it."""

import sys
import types
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics import TOLERANCE, assert_close
from torch import Tensor

from slowwave.ops import delta_rule, small_matmul
from slowwave.ops.delta_rule import gated_delta_rule
from slowwave.ops.norm import l2_norm

ODD_LENGTHS = (1, 2, 3, 63, 64, 65, 130)
FAST_BACKENDS = ("chunk", "fla")


@dataclass(frozen=True)
class Inputs:
    """The tensors of `gated_delta_rule`, in its order."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor
    beta: Tensor
    state: Tensor

    def __iter__(self) -> Any:
        return iter([getattr(self, field.name) for field in fields(self)])

    def to(self, dtype: torch.dtype) -> "Inputs":
        return Inputs(*(tensor.to(dtype) for tensor in self))

    def tokens(self, start: int, stop: int) -> "Inputs":
        *sequences, state = self
        return Inputs(*(tensor[:, start:stop] for tensor in sequences), state)


def draw(
    B: int = 2,
    T: int = 10,
    *,
    H: int = 2,
    G: int = 4,
    K: int = 8,
    V: int = 6,
    states: int | None = None,
    seed: int = 0,
) -> Inputs:
    """Random float64 inputs, beta in [0, 2], from a state that is not zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k = l2_norm(normal(B, T, H, K)), l2_norm(normal(B, T, H, K))
    log_decay = -torch.nn.functional.softplus(normal(B, T, G) - 2)
    beta = 2 * torch.rand(B, T, G, generator=generator, dtype=torch.float64)
    state = normal(B if states is None else states, G, K, V)
    return Inputs(q, k, normal(B, T, G, V), log_decay, beta, state)


def draw_mask(B: int, T: int) -> Tensor:
    return torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < 0.7


def values_and_gradients(inputs: Inputs, **options: Any) -> dict[str, Tensor]:
    """Out, state, and the gradient of every input for random cotangents of both."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out, state = gated_delta_rule(*leaves, **options)
    generator = torch.Generator().manual_seed(2)
    cotangents = [
        torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        for x in (out, state)
    ]
    gradients = torch.autograd.grad([out, state], leaves, cotangents)
    names = [field.name for field in fields(Inputs)]
    return {"out": out, "new_state": state} | dict(zip(names, gradients, strict=True))


def assert_all_close(
    actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float
) -> None:
    for name, tensor in actual.items():
        try:
            assert_close(tensor, expected[name], tolerance)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def formula(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Section 2 of arXiv 2412.06464, one head and one token at a time, S as (V, K) like there."""
    q, k, v, log_decay, beta, state = inputs
    B, T, H, K = q.shape
    G = v.shape[2]
    out, new_state = torch.zeros_like(v), torch.zeros_like(state)
    for b in range(B):
        for g in range(G):
            h = g * H // G
            S = state[b, g].T
            for t in range(T):
                erase = torch.eye(K, dtype=S.dtype) - beta[b, t, g] * torch.outer(
                    k[b, t, h], k[b, t, h]
                )
                S = log_decay[b, t, g].exp() * S @ erase
                S = S + beta[b, t, g] * torch.outer(v[b, t, g], k[b, t, h])
                out[b, t, g] = S @ q[b, t, h] / K**0.5
            new_state[b, g] = S.T
    return out, new_state


@pytest.mark.parametrize(("H", "G"), [(1, 1), (2, 2), (2, 6), (1, 3)])
def test_reference_is_the_formula(H: int, G: int) -> None:
    inputs = draw(T=7, H=H, G=G)
    out, state = gated_delta_rule(*inputs, backend="reference")
    expected_out, expected_state = formula(inputs)
    assert_close(out, expected_out, 1e-12)
    assert_close(state, expected_state, 1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T", ODD_LENGTHS)
def test_chunk_equals_reference(T: int, dtype: torch.dtype) -> None:
    inputs = draw(T=T).to(dtype)
    expected = values_and_gradients(inputs.to(torch.float64), backend="reference")
    actual = values_and_gradients(inputs, backend="chunk")
    assert_all_close(actual, expected, TOLERANCE[dtype])
    assert actual["out"].dtype == dtype
    assert actual["new_state"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@settings(max_examples=1500)
@given(
    T=st.integers(1, 40),
    chunk_size=st.integers(1, 20),
    heads=st.sampled_from([(1, 1), (1, 3), (2, 2), (2, 4), (3, 6)]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.sampled_from([(1, 1), (3, 3), (4, 2), (6, 1)]),
    masked=st.booleans(),
    keep_writes=st.booleans(),
)
def test_chunk_equals_reference_for_any_shape(
    T: int,
    chunk_size: int,
    heads: tuple[int, int],
    sizes: tuple[int, int],
    rows: tuple[int, int],
    masked: bool,
    keep_writes: bool,
) -> None:
    (H, G), (K, V), (B, states) = heads, sizes, rows
    inputs = draw(B, T, H=H, G=G, K=K, V=V, states=states)
    options = {"mask": draw_mask(B, T) if masked else None, "keep_writes": keep_writes}
    expected = values_and_gradients(inputs, backend="reference", **options)
    actual = values_and_gradients(inputs, backend="chunk", chunk_size=chunk_size, **options)
    # A gradient may vanish in the reference (all masked): then it is compared with the rest.
    assert_all_close(actual, expected, 1e-12)
