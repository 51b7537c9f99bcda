"""The gated delta rule: token by token (the specification), in chunks, and through fla on CUDA.

For every value head, with the state S of shape (K, V) starting from the given one:

    S   <- exp(log_decay_t) S                forget
    u_t  = beta_t (v_t - S^T k_t)            what k_t should read but does not yet
    S   <- S + k_t u_t^T                     write
    o_t  = scale * S^T q_t                   read, after the write

Source: Gated Delta Networks (arXiv 2412.06464); the chunked form follows arXiv 2406.06484.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from typing import Any, Literal

import torch
from torch import Tensor

from slowwave.ops.norm import wide_dtype
from slowwave.ops.small_matmul import small_matmul, solve_unit_lower

Backend = Literal["auto", "reference", "chunk", "fla"]


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    chunk_size: int = 64,
    backend: Backend = "auto",
    keep_writes: bool = True,
) -> tuple[Tensor, Tensor]:
    """Reads and writes the fast weights of all heads along a sequence.

    q, k: (B, T, H, K), l2-normalised. v: (B, T, G, V), G a multiple of H; value head g uses
    query/key head g // (G / H). log_decay <= 0 and beta in [0, 2]: (B, T, G). state: (B, G, K, V)
    or None for zeros; with (B / F, G, K, V), every F consecutive rows start from one state.
    mask: (B, T) bool, a False token neither decays nor writes. scale: K**-0.5 unless given.
    backend: "reference" goes token by token, "chunk" is pure PyTorch for any device, "fla" needs
    CUDA and flash-linear-attention, "auto" takes the fastest at hand.
    keep_writes: False for questions whose writes nobody will read; the state given comes back.

    Returns (out (B, T, G, V) in the dtype of v, state (B, G, K, V) float32, or float64 for
    float64 inputs). Raises ValueError on shapes that do not fit and on an unusable backend.
    """
    _check_shapes(q, k, v, log_decay, beta, state, mask, chunk_size)
    B, _, _, K = q.shape
    G, V = v.shape[2:]
    wide = wide_dtype(v.dtype)
    if state is None:
        state = v.new_zeros(B, G, K, V, dtype=wide)
    if mask is not None:
        log_decay = log_decay.masked_fill(~mask[..., None], 0.0)
        beta = beta.masked_fill(~mask[..., None], 0.0)
    scale = math.pow(K, -0.5) if scale is None else scale
    match _resolve(backend, v):
        case "fla":
            out, new_state = _fla(q, k, v, log_decay, beta, state, scale)
        case "reference":
            q, k, log_decay, beta = (x.to(wide) for x in (q, k, log_decay, beta))
            out, new_state = _recurrent(q, k, v.to(wide), log_decay, beta, state.to(wide), scale)
        case "chunk":
            q, k, log_decay, beta = (x.to(wide) for x in (q, k, log_decay, beta))
            out, new_state = _chunked(
                q, k, v.to(wide), log_decay, beta, state.to(wide), scale, chunk_size, keep_writes
            )
    return out.to(v.dtype), new_state if keep_writes else state


def fla_is_available() -> bool:
    """Whether flash-linear-attention can be imported and a CUDA device is there."""
    return torch.cuda.is_available() and importlib.util.find_spec("fla") is not None


def _resolve(backend: Backend, v: Tensor) -> Literal["reference", "chunk", "fla"]:
    if backend == "auto":
        fits = v.is_cuda and v.dtype != torch.float64 and fla_is_available()
        return "fla" if fits else "chunk"
    if backend not in ("reference", "chunk", "fla"):
        raise ValueError(
            f"backend must be one of auto, reference, chunk, fla, got {backend!r}; pick one"
        )
    return backend


def _check_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None,
    mask: Tensor | None,
    chunk_size: int,
) -> None:
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
    if state is not None and (tuple(state.shape[1:]) != (G, K, V) or B % state.shape[0]):
        raise ValueError(
            f"state must have shape {(B, G, K, V)}, or fewer rows that divide {B}, "
            f"got {tuple(state.shape)}; fit it"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; use 1 or more")
    if G % H:
        raise ValueError(f"value heads {G} must be a multiple of query heads {H}; change either")


def _recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Token by token: the specification."""
    state = state.repeat_interleave(q.shape[0] // state.shape[0], dim=0)
    repeats = v.shape[2] // q.shape[2]
    q, k = q.repeat_interleave(repeats, dim=2), k.repeat_interleave(repeats, dim=2)
    outs: list[Tensor] = []
    for t in range(q.shape[1]):
        state = log_decay[:, t, :, None, None].exp() * state
        read = torch.einsum("bgkv,bgk->bgv", state, k[:, t])
        write = beta[:, t, :, None] * (v[:, t] - read)
        state = state + k[:, t, :, :, None] * write[:, :, None, :]
        outs.append(scale * torch.einsum("bgkv,bgk->bgv", state, q[:, t]))
    return (torch.stack(outs, dim=1) if outs else torch.zeros_like(v)), state


def _chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
    chunk_size: int,
    keep_writes: bool,
) -> tuple[Tensor, Tensor]:
    """In chunks: inside a chunk all writes come from one triangular solve.

    With D_ij = exp(sum of log_decay over j+1..i), the writes of a chunk obey
    (I + strict_lower(beta D (k k^T))) u = beta (v - D_i0 k S), S the state at its start.
    """
    T = q.shape[1]
    if T == 0:
        return torch.zeros_like(v), state
    size = min(chunk_size, T)
    q, k, v, log_decay, beta = (_cut(x, size) for x in (q, k, v, log_decay, beta))
    repeats = v.shape[1] // q.shape[1]
    lower = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    total = log_decay.cumsum(-1)
    # Summed anew for every pair: a difference of two totals cancels when single tokens decay hard.
    steps = log_decay[..., :, None].expand(*log_decay.shape, size).masked_fill(~lower.tril(-1), 0.0)
    between = steps.cumsum(-2).masked_fill(~lower, -torch.inf).exp()
    overlap = small_matmul(k, k.mT).repeat_interleave(repeats, dim=1)
    attend = small_matmul(q, k.mT).repeat_interleave(repeats, dim=1) * between * scale
    q, k = q.repeat_interleave(repeats, dim=1), k.repeat_interleave(repeats, dim=1)
    system = beta[..., None] * between * overlap
    since_start = total.exp()[..., None]
    wanted = torch.cat([v, since_start * k], dim=-1) * beta[..., None]
    solved = solve_unit_lower(system, wanted)
    from_value, from_state = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    query = since_start * q * scale
    key = between[..., -1, :, None] * k
    outs: list[Tensor] = []
    num_chunks = q.shape[2]
    for c in range(num_chunks):
        write = from_value[:, :, c] - _read(from_state[:, :, c], state)
        outs.append(_read(query[:, :, c], state) + small_matmul(attend[:, :, c], write))
        if keep_writes or c + 1 < num_chunks:
            state = state.repeat_interleave(q.shape[0] // state.shape[0], dim=0)
            state = since_start[:, :, c, -1:] * state + key[:, :, c].mT @ write
    return torch.cat(outs, dim=2).transpose(1, 2)[:, :T], state


def _read(keys: Tensor, state: Tensor) -> Tensor:
    """keys (B, G, C, K) @ state (B / F, G, K, V), without copying a state that F rows share."""
    shared = keys.shape[0] // state.shape[0]
    if shared == 1:
        return keys @ state
    folded = keys.unflatten(0, (-1, shared)).movedim(1, 2).flatten(2, 3)
    read = folded @ state
    return read.unflatten(2, (shared, -1)).movedim(2, 1).flatten(0, 1)


def _cut(x: Tensor, size: int) -> Tensor:
    """(B, T, heads, ...) -> (B, heads, chunks, size, ...); the last chunk is filled with zeros."""
    B, T = x.shape[:2]
    missing = -T % size
    if missing:
        x = torch.cat([x, x.new_zeros(B, missing, *x.shape[2:])], dim=1)
    return x.unflatten(1, (-1, size)).movedim(3, 1)


def _fla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """flash-linear-attention's CUDA kernel: grouped value heads and key-first states as here."""
    kernel: Any = _import_fla_kernel()
    return kernel(
        q=q.to(v.dtype),
        k=k.to(v.dtype),
        v=v,
        g=log_decay.float(),
        beta=beta.float(),
        scale=scale,
        initial_state=state.float().repeat_interleave(q.shape[0] // state.shape[0], dim=0),
        output_final_state=True,
        use_qk_l2norm_in_kernel=False,
    )


def _import_fla_kernel() -> Any:
    try:
        return importlib.import_module("fla.ops.gated_delta_rule").chunk_gated_delta_rule
    except ImportError as error:
        raise ValueError(
            f"backend 'fla' is not usable ({error}); install slowwave[cuda] or use 'chunk'"
        ) from None
