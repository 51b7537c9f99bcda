"""Attention matching: few keys and values that do what many did (arXiv 2602.16284).

One KV head has J candidates, keys and values (J, Dh), and n queries that say what is looked up. A
query's attention A (n, J) to them sums to its share a <= 1; the rest goes elsewhere. Of the
candidates t are chosen. Then biases can be fitted, so that the share stays what it was, and values,
so that what is read from them does. Both are least squares over the queries, which weigh by the
square of their share without more being said, for A has it in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Score = Literal["max", "rms", "mean"]

PENALTY = 1e-3
"""Of a fit, against staying as it was, in units of what the queries weigh on average."""
LEAST_WEIGHT, MOST_WEIGHT = 0.05, 20.0
"""Keys that an entry stands for: e^-3 to e^3."""
ROUNDS = 100
BLOCK_TRIES = 3
"""Rounds without progress that mend all wrong guesses at once."""


def score_entries(log_attention: Tensor, score: Score) -> Tensor:
    """How much each candidate is looked up, (J,). log_attention: (n, J).

    score: how n queries make one figure; no queries make 0.
    """
    if not len(log_attention):
        return log_attention.new_zeros(log_attention.shape[1])
    match score:
        case "max":
            return log_attention.amax(0).exp()
        case "rms":
            return (2 * log_attention).exp().mean(0).sqrt()
        case "mean":
            return log_attention.exp().mean(0)


def measure_spread(values: Tensor, center: Tensor, metric: Tensor) -> Tensor:
    """How far values (J, Dh) are from a center (Dh,), where they are read: (J,).

    metric: (Dh, Dh), W^T W for a matrix W that values go through.
    """
    apart = values - center
    return (apart @ metric * apart).sum(-1).clamp(min=0).sqrt()


def choose_best(scores: Sequence[Tensor], count: int, *, least: int) -> list[Tensor]:
    """Places of the `count` best over all heads together, in order, with `least` of each head.

    scores: (J,) of each head. A head that has fewer than `least` keeps all it has.
    """
    chosen = [torch.zeros_like(each, dtype=torch.bool) for each in scores]
    for mask, each in zip(chosen, scores, strict=True):
        mask[each.topk(min(least, len(each))).indices] = True
    flat, taken = torch.cat(list(scores)), torch.cat(chosen)
    more = min(count, len(flat)) - int(taken.sum())
    if more > 0:
        taken[flat.masked_fill(taken, -torch.inf).topk(more).indices] = True
    return [mask.nonzero()[:, 0] for mask in taken.split([len(each) for each in scores])]


def fit_weights(kept: Tensor, share: Tensor) -> Tensor:
    """For how many keys each chosen one stands, (t,), so that the share of each query stays.

    Least squares between bounds, pulled towards 1. kept: (n, t), attention to the chosen. share:
    (n,), attention to all candidates.
    """
    gram, penalty = _penalised_gram(kept)
    return solve_within(gram, kept.mT @ share + penalty, LEAST_WEIGHT, MOST_WEIGHT)


def solve_within(gram: Tensor, wanted: Tensor, lower: float, upper: float) -> Tensor:
    """Minimises x gram x / 2 - wanted x over lower <= x <= upper; gram (t, t) positive definite.

    By block pivoting: which x are at a bound is guessed, the rest solved for, and the guess mended;
    where that goes round in circles, one x at a time, which comes to an end (Judice and Pires,
    Computers & Operations Research 21, 1994). Differentiable as long as the same bounds hold.
    """
    with torch.no_grad():
        bound = torch.zeros_like(wanted)  # -1 at the lower bound, 1 at the upper
        fewest, num_tries = len(wanted) + 1, BLOCK_TRIES
        for _ in range(ROUNDS):
            x = _solve_free(gram, wanted, bound, lower, upper)
            slope = gram @ x - wanted
            is_free = bound == 0
            over, under = is_free & (x > upper), is_free & (x < lower)
            released = ((bound < 0) & (slope < 0)) | ((bound > 0) & (slope > 0))
            wrong = over | under | released
            num_wrong = int(wrong.sum())
            if not num_wrong:
                break
            num_tries = BLOCK_TRIES if num_wrong < fewest else num_tries - 1
            fewest = min(fewest, num_wrong)
            if num_tries < 0:
                wrong = torch.arange(len(wrong), device=wrong.device) == wrong.nonzero().max()
            guessed = (bound + over.to(bound) - under.to(bound)).masked_fill(released, 0)
            bound = torch.where(wrong, guessed, bound)
    return _solve_free(gram, wanted, bound, lower, upper).clamp(lower, upper)


def _solve_free(gram: Tensor, wanted: Tensor, bound: Tensor, lower: float, upper: float) -> Tensor:
    """The minimum where some of x are held at their bounds."""
    is_free = (bound == 0).to(gram.dtype)
    held = torch.full_like(wanted, lower).masked_fill(bound > 0, upper) * (1 - is_free)
    system = gram * is_free[:, None] * is_free + torch.diag(1 - is_free)
    target = (wanted - gram @ held) * is_free + held
    return torch.cholesky_solve(target[:, None], torch.linalg.cholesky(system))[:, 0]


def fit_values(
    kept: Tensor, share: Tensor, weights: Tensor, target: Tensor, values: Tensor
) -> Tensor:
    """Values (t, Dh) of the chosen, so that what each query reads stays; pulled to what they were.

    kept, share: as for `fit_weights`, and weights (t,) as it returns. target: (n, Dh), attention to
    all candidates times their values. values: (t, Dh), as they were.
    """
    weighted = kept * weights
    whole = weighted.sum(1).clamp(min=torch.finfo(kept.dtype).tiny)
    reads = weighted * (share / whole)[:, None]
    gram, _ = _penalised_gram(reads)
    missing = reads.mT @ (target - reads @ values)
    return values + torch.cholesky_solve(missing, torch.linalg.cholesky(gram))


def _penalised_gram(kept: Tensor) -> tuple[Tensor, Tensor]:
    """kept^T kept with a penalty on its diagonal, and the penalty."""
    gram = kept.mT @ kept
    penalty = PENALTY * gram.diagonal().mean() + torch.finfo(gram.dtype).tiny
    return gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), penalty
