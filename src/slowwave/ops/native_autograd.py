"""Gradients of what is compiled, and the shapes that torch.compile needs of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def teach_autograd() -> None:
    """Registers all of it with torch, once the library is loaded."""
    torch.library.register_fake("slowwave::delta_rule", _fake_rule)
    torch.library.register_fake("slowwave::delta_rule_backward", _fake_gradients)
    torch.library.register_autograd(
        "slowwave::delta_rule", _rule_backward, setup_context=_keep_for_rule
    )
    torch.library.register_fake("slowwave::delta_inputs", _fake_inputs)
    torch.library.register_fake("slowwave::delta_inputs_backward", _fake_input_gradients)
    torch.library.register_autograd(
        "slowwave::delta_inputs", _inputs_backward, setup_context=_keep_for_inputs
    )


def _fake_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
    chunk_size: int,
    keep_writes: bool,
    keep_starts: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    B, T = q.shape[:2]
    num_starts = -(-T // min(chunk_size, T)) - 1 if keep_starts else 0
    return (
        torch.empty(v.shape, dtype=v.dtype, device=v.device),
        state.new_empty(B if keep_writes else 0, *state.shape[1:]),
        state.new_empty(B, state.shape[1], num_starts, *state.shape[2:]),
    )


def _fake_gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    *others: Any,
) -> tuple[Tensor, ...]:
    inputs = (q, k, v, log_decay, beta, state)
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs)


def _keep_for_rule(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    *tensors, scale, chunk_size, keep_writes, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.options = (scale, chunk_size, keep_writes)


@torch.autograd.function.once_differentiable
def _rule_backward(
    ctx: Any, grad_out: Tensor | None, grad_state: Tensor | None, _: Tensor | None
) -> tuple[Any, ...]:
    kept = ctx.saved_tensors  # once: a checkpointed pass hands them out no second time
    v, state = kept[2], kept[5]
    grad_out = torch.zeros_like(v) if grad_out is None else grad_out
    grad_state = state.new_empty(0) if grad_state is None else grad_state
    gradients = torch.ops.slowwave.delta_rule_backward(*kept, grad_out, grad_state, *ctx.options)
    return (*gradients, None, None, None, None)


def _fake_inputs(
    x: Tensor, kernel: Tensor, tail: Tensor, keys: int, K: int
) -> tuple[Tensor, Tensor]:
    B, T, channels = x.shape
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(B, T, keys, dtype=wide), x.new_empty(B, T, channels - keys)


def _fake_input_gradients(
    x: Tensor, kernel: Tensor, tail: Tensor, grad_keys: Tensor, grad_values: Tensor, K: int
) -> tuple[Tensor, Tensor, Tensor]:
    grad_kernel = grad_keys.new_empty(kernel.shape)
    return x.new_empty(x.shape), grad_kernel, tail.new_empty(tail.shape)


def _keep_for_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, ctx.K = inputs
    ctx.save_for_backward(*tensors)


@torch.autograd.function.once_differentiable
def _inputs_backward(ctx: Any, grad_keys: Tensor, grad_values: Tensor) -> tuple[Any, ...]:
    x, kernel, tail = ctx.saved_tensors
    gradients = torch.ops.slowwave.delta_inputs_backward(
        x, kernel, tail, grad_keys, grad_values, ctx.K
    )
    return (*gradients, None, None)
