"""The fast weights of a window in closed form: a weighted ridge regression of values on keys.

N passes of the delta rule over keys and values that stay as they are take N steps of Kaczmarz's
method, which tends to a regression; this solves it. Fast weights S minimise

    sum_t w_t |v_t - S^T k_t|^2 + penalty |S - S_0|^2,    w_t = beta_t exp(sum of g_s, s > t)

with S_0 the fast weights before the window, decayed to its end, and w_t the write strength of a
token, decayed likewise. S_0 is kept wherever the window's keys do not point, and no token is
written more than once.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ridge_fit(
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    *,
    penalty: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Fast weights (B, G, K, V) after T tokens; differentiable.

    k: (B, T, H, K), l2-normalised; G is a multiple of H. v: (B, T, G, V). log_decay (<= 0), beta:
    (B, T, G). state: (B, G, K, V), wide. mask: (B, T) bool, False tokens leave no trace. penalty:
    positive; less trusts the window more, and its noise.
    """
    keys, values, weights, before = _prepare(k, v, log_decay, beta, state, mask)
    weighted = keys * weights[..., None]
    gram = weighted.mT @ keys + penalty * torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    missing = weighted.mT @ (values - keys @ before)
    return before + torch.cholesky_solve(missing, torch.linalg.cholesky(gram))


def ridge_fit_reference(
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    *,
    penalty: float,
    mask: Tensor | None = None,
) -> Tensor:
    """As `ridge_fit`, token by token: recursive least squares, which solves nothing."""
    keys, values, weights, fitted = _prepare(k, v, log_decay, beta, state, mask)
    K = k.shape[-1]
    inverse = torch.eye(K, dtype=k.dtype, device=k.device).expand(*fitted.shape[:2], K, K) / penalty
    for t in range(k.shape[1]):
        key, value, weight = keys[:, :, t, :, None], values[:, :, t, None], weights[:, :, t]
        spread = inverse @ key  # (B, G, K, 1)
        gain = weight[..., None, None] * spread
        gain = gain / (1 + key.mT @ gain)
        fitted = fitted + gain @ (value - key.mT @ fitted)
        inverse = inverse - gain @ spread.mT
    return fitted


def _prepare(
    k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """keys (B, G, T, K), values (B, G, T, V), weights w (B, G, T), S_0 (B, G, K, V)."""
    if mask is not None:
        log_decay, beta = log_decay * mask[..., None], beta * mask[..., None]
    groups = v.shape[2] // k.shape[2]
    keys = k.transpose(1, 2).repeat_interleave(groups, dim=1)
    values = v.transpose(1, 2).to(k.dtype)
    decay = log_decay.transpose(1, 2)
    to_end = decay.sum(-1, keepdim=True) - decay.cumsum(-1)  # of the tokens after each
    weights = beta.transpose(1, 2) * to_end.exp()
    return keys, values, weights, state * decay.sum(-1).exp()[..., None, None]
