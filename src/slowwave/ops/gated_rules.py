"""The gated rules: their specification, token by token, and the choice of a faster backend.

For every value head, with the state S of shape (K, V) starting from the given one:

    S   <- exp(log_decay_t) S                forget
    u_t  = beta_t (v_t - S^T k_t)            delta rule: what k_t should read but does not yet
    u_t  = beta_t v_t                        Hebbian rule: whatever k_t reads already
    S   <- S + k_t u_t^T                     write
    o_t  = scale * S^T q_t                   read, after the write

The delta rule is that of Gated Delta Networks (arXiv 2412.06464). The Hebbian rule is equation 3 of
arXiv 2605.26099, linear attention with a scalar gate; Mamba-2 (arXiv 2405.21060) is this rule with
q, k, v for its C, B, x, beta for its step dt and log_decay = A dt. Without the correction two
values written with one key add up.

Backends: "reference" is the specification, "chunk" (`rule_chunks`) is pure PyTorch for any device;
for the delta rule alone "native" (`native`) is compiled for the CPU at hand, and "fla" is
flash-linear-attention's kernel on CUDA.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from slowwave.ops import native
from slowwave.ops.norm import wide_dtype
from slowwave.ops.rule_chunks import rule_in_chunks
from slowwave.wording import say_how_to_install

UsableBackend = Literal["reference", "chunk", "native", "fla"]
Backend = Literal["auto"] | UsableBackend
HebbianBackend = Literal["reference", "chunk"]


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
    backend: see the head of this file; "auto" takes the fastest at hand, on a CPU "native" once
    it has been built (`native.load`) and "chunk" before.
    keep_writes: False for questions whose writes are read by no later token; the state given comes
    back.

    Returns (out (B, T, G, V) in the dtype of v, state (B, G, K, V) float32, or float64 for
    float64 inputs). Raises ValueError on shapes that do not fit and on an unusable backend.
    """
    chosen = fastest_backend(v.device, v.dtype) if backend == "auto" else backend
    if chosen not in get_args(UsableBackend):
        known = ", ".join(("auto", *get_args(UsableBackend)))
        raise ValueError(f"backend must be one of {known}, got {backend!r}; pick one")
    if backend == "native":
        native.require(v)
    return _apply_rule(
        q, k, v, log_decay, beta, state, mask, scale, chunk_size, chosen, keep_writes, corrects=True
    )


def gated_hebbian_rule(
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
    backend: HebbianBackend = "chunk",
    keep_writes: bool = True,
) -> tuple[Tensor, Tensor]:
    """As `gated_delta_rule`, without the correction; q and k of any length, any beta."""
    if backend not in get_args(HebbianBackend):
        known = ", ".join(get_args(HebbianBackend))
        raise ValueError(f"backend must be one of {known}, got {backend!r}; pick one")
    return _apply_rule(
        q,
        k,
        v,
        log_decay,
        beta,
        state,
        mask,
        scale,
        chunk_size,
        backend,
        keep_writes,
        corrects=False,
    )


def fla_is_available() -> bool:
    """Whether flash-linear-attention can be imported and a CUDA device is there."""
    return torch.cuda.is_available() and importlib.util.find_spec("fla") is not None


def fastest_backend(device: torch.device, dtype: torch.dtype) -> UsableBackend:
    """The backend of the delta rule that "auto" stands for, for v of `dtype` on `device`."""
    if device.type == "cuda" and dtype != torch.float64 and fla_is_available():
        return "fla"
    fits = device.type == "cpu" and dtype in native.DTYPES
    return "native" if fits and native.is_ready() else "chunk"


def _apply_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None,
    mask: Tensor | None,
    scale: float | None,
    chunk_size: int,
    backend: UsableBackend,
    keep_writes: bool,
    *,
    corrects: bool,
) -> tuple[Tensor, Tensor]:
    _check_inputs(q, k, v, log_decay, beta, state, mask, chunk_size)
    B, T, _, K = q.shape
    G, V = v.shape[2:]
    wide = wide_dtype(v.dtype)
    if state is None:
        state = v.new_zeros(B, G, K, V, dtype=wide)
    if mask is not None:
        log_decay = log_decay.masked_fill(~mask[..., None], 0.0)
        beta = beta.masked_fill(~mask[..., None], 0.0)
    scale = math.pow(K, -0.5) if scale is None else scale
    if B == 0 or T == 0:
        rows = B // max(1, state.shape[0])
        return torch.zeros_like(v), state.repeat_interleave(rows, dim=0) if keep_writes else state
    if backend == "fla":
        out, written = _fla(q, k, v, log_decay, beta, state, scale)
        return out.to(v.dtype), written if keep_writes else state
    q, k, log_decay, beta, given = (x.to(wide) for x in (q, k, log_decay, beta, state))
    match backend:
        case "reference":
            out, written = _recurrent(q, k, v.to(wide), log_decay, beta, given, scale, corrects)
        case "chunk":
            if not corrects:  # the rules round differently here, as recorded runs have it
                q, scale = scale * q, 1.0
            out, written = rule_in_chunks(
                q,
                k,
                v,
                log_decay,
                beta,
                given,
                scale,
                chunk_size,
                keep_writes,
                corrects=corrects,
            )
        case "native":
            out, written = native.delta_rule(
                q, k, v, log_decay, beta, given, scale, chunk_size, keep_writes
            )
    return out.to(v.dtype), written if keep_writes else state


def _check_inputs(
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


def _recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
    corrects: bool,
) -> tuple[Tensor, Tensor]:
    """Token by token: the specification."""
    state = state.repeat_interleave(q.shape[0] // state.shape[0], dim=0)
    repeats = v.shape[2] // q.shape[2]
    q, k = q.repeat_interleave(repeats, dim=2), k.repeat_interleave(repeats, dim=2)
    outs: list[Tensor] = []
    for t in range(q.shape[1]):
        state = log_decay[:, t, :, None, None].exp() * state
        missing = v[:, t]
        if corrects:
            missing = missing - torch.einsum("bgkv,bgk->bgv", state, k[:, t])
        write = beta[:, t, :, None] * missing
        state = state + k[:, t, :, :, None] * write[:, :, None, :]
        outs.append(scale * torch.einsum("bgkv,bgk->bgv", state, q[:, t]))
    return torch.stack(outs, dim=1), state


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
            f"backend 'fla' is not usable ({error}); use 'chunk', or {say_how_to_install('cuda')}"
        ) from None
