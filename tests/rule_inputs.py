"""Random inputs of the recurrent rules, and all that a rule makes of them, gradients included."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from numerics import assert_close
from slowwave.ops.norm import l2_norm

Rule = Callable[..., tuple[Tensor, Tensor]]


class Inputs(NamedTuple):
    """The tensors of a rule, in its order."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor
    beta: Tensor
    state: Tensor

    def to(self, dtype: torch.dtype) -> "Inputs":
        return Inputs(*(tensor.to(dtype) for tensor in self))

    def tokens(self, start: int, stop: int) -> "Inputs":
        return Inputs._make([*(tensor[:, start:stop] for tensor in self[:-1]), self.state])


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


def values_and_gradients(rule: Rule, inputs: Inputs, **options: Any) -> dict[str, Tensor]:
    """Out, state, and the gradient of every input for random cotangents of both."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out, state = rule(*leaves, **options)
    generator = torch.Generator().manual_seed(2)
    cotangents = [
        torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        for x in (out, state)
    ]
    gradients = torch.autograd.grad([out, state], leaves, cotangents)
    return {"out": out, "new_state": state} | dict(zip(Inputs._fields, gradients, strict=True))


def assert_all_close(
    actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float
) -> None:
    for name, tensor in actual.items():
        try:
            assert_close(tensor, expected[name], tolerance)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
