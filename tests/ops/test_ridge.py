"""The closed form against token-by-token regression, and what passes of the delta rule tend to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import TOLERANCE, assert_close, relative_rmse
from slowwave.ops.gated_rules import gated_delta_rule
from slowwave.ops.ridge import ridge_fit, ridge_fit_reference

DTYPES = [torch.float64, torch.float32]


def draw(
    B: int, T: int, H: int, G: int, K: int, V: int, dtype: torch.dtype, seed: int = 0
) -> list[Tensor]:
    """k, v, log_decay, beta, state."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    k = torch.nn.functional.normalize(normal(B, T, H, K), dim=-1)
    return [
        k,
        normal(B, T, G, V),
        -normal(B, T, G).abs() / 10,
        2 * normal(B, T, G).sigmoid(),
        normal(B, G, K, V),
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=25)
@given(
    T=st.integers(0, 20),
    heads=st.sampled_from([(1, 1), (2, 2), (2, 6)]),
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 9)),
    penalty=st.sampled_from([0.5, 2.0]),  # less is ill-conditioned: float32 loses digits
    is_masked=st.booleans(),
)
def test_closed_form_equals_the_reference(
    dtype: torch.dtype,
    T: int,
    heads: tuple[int, int],
    sizes: tuple[int, int],
    penalty: float,
    is_masked: bool,
) -> None:
    drawn = draw(2, T, *heads, *sizes, dtype)
    mask = torch.arange(2 * T).view(2, T) % 3 > 0 if is_masked else None
    values: list[Tensor] = []
    gradients: list[tuple[Tensor, ...]] = []
    for fit, wide in ((ridge_fit, dtype), (ridge_fit_reference, torch.float64)):
        inputs = [each.to(wide, copy=True).requires_grad_() for each in drawn]
        fitted = fit(*inputs, penalty=penalty, mask=mask)
        weigh = torch.linspace(-1, 2, fitted.numel(), dtype=wide).view_as(fitted)
        values.append(fitted)
        gradients.append(
            torch.autograd.grad((fitted * weigh).sum(), inputs, materialize_grads=True)
        )
    assert_close(values[0], values[1], TOLERANCE[dtype])
    for fast, slow in zip(*gradients, strict=True):
        assert_close(fast, slow, TOLERANCE[dtype])


def test_gradients_are_those_of_finite_differences() -> None:
    inputs = [each.requires_grad_() for each in draw(1, 4, 1, 2, 3, 2, torch.float64)]
    assert torch.autograd.gradcheck(lambda *each: ridge_fit(*each, penalty=0.3), inputs)


def test_passes_of_the_delta_rule_tend_to_it() -> None:
    """Below capacity, without decay and with a small penalty (retrofitting, section 3)."""
    k, v, log_decay, beta, state = draw(2, 9, 2, 2, 16, 5, torch.float64)
    log_decay = torch.zeros_like(log_decay)
    passed, distances = state, list[float]()
    fitted = ridge_fit(k, v, log_decay, beta, state, penalty=1e-9)
    for _ in range(400):
        _, passed = gated_delta_rule(k, k, v, log_decay, beta.clamp(max=1), passed)
        distances.append(float(relative_rmse(passed, fitted)))
    assert distances[0] > 0.05
    assert distances[-1] < 1e-6


def test_masked_tokens_leave_no_trace() -> None:
    k, v, log_decay, beta, state = draw(2, 7, 1, 2, 8, 4, torch.float32)
    mask = torch.tensor([[True] * 7, [False] * 7])
    fitted = ridge_fit(k, v, log_decay, beta, state, penalty=0.1, mask=mask)
    assert torch.equal(fitted[1], state[1])
    alone = ridge_fit(k[:1], v[:1], log_decay[:1], beta[:1], state[:1], penalty=0.1)
    assert torch.equal(fitted[:1], alone)


def test_it_is_the_least_squares_of_decayed_tokens_and_memory() -> None:
    """By hand, head by head: tokens and memory are weighed as a decay step by step leaves them."""
    k, v, log_decay, beta, state = draw(1, 6, 1, 2, 4, 3, torch.float64)
    penalty = 0.7
    fitted = ridge_fit(k, v, log_decay, beta, state, penalty=penalty)
    for head in range(2):
        before, weights = state[0, head], list[Tensor]()
        for t in range(6):
            decay = log_decay[0, t, head].exp()
            before, weights = before * decay, [weight * decay for weight in weights]
            weights.append(beta[0, t, head])
        roots = torch.stack(weights).sqrt()[:, None]
        left = torch.cat([roots * k[0, :, 0], penalty**0.5 * torch.eye(4, dtype=k.dtype)])
        right = torch.cat([roots * v[0, :, head], penalty**0.5 * before])
        assert_close(fitted[0, head], torch.linalg.lstsq(left, right).solution, 1e-12)
