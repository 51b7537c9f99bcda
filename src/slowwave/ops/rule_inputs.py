"""What the recurrent rules take, checked by name."""

from __future__ import annotations

from torch import Tensor


def check_rule_inputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None,
    mask: Tensor | None,
    chunk_size: int,
) -> None:
    """Raises ValueError unless the shapes are those that `gated_delta_rule` asks for."""
    B, T, H, K = q.shape
    G, V = v.shape[2:]
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "k": (k, (B, T, H, K)),
        "v": (v, (B, T, G, V)),
        "log_decay": (log_decay, (B, T, G)),
        "beta": (beta, (B, T, G)),
        "mask": (mask, (B, T)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}; fit it")
    rows = B if state is None else state.shape[0]
    shared = B % rows == 0 if rows else B == 0
    if state is not None and (tuple(state.shape[1:]) != (G, K, V) or not shared):
        raise ValueError(
            f"state must have shape {(B, G, K, V)}, or fewer rows that divide {B}, "
            f"got {tuple(state.shape)}; fit it"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; use 1 or more")
    if G % H:
        raise ValueError(f"value heads {G} must be a multiple of query heads {H}; change either")
