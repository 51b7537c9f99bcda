"""Linear probes: what a ridge regression from features tells about bits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STRENGTHS = tuple(10.0**exponent for exponent in range(-4, 3))

# Features that vary less than this share of the one that varies most are left out as rounding.
_LEAST_SPREAD = 1e-6


class Samples(NamedTuple):
    """features: (E, F) float64 of E examples. bits: (E, M) float64, 0 or 1."""

    features: Tensor
    bits: Tensor


def probe_accuracy(train: Samples, validation: Samples, test: Samples) -> Tensor:
    """(M,): for each bit the share of test examples that a linear probe gets right.

    The probe is a ridge regression of standardised features, with a threshold at one half. For each
    bit apart, its penalty is the one of STRENGTHS (in units of E) with the least squared error on
    the validation examples. Where features tell nothing, it says what most training bits are.
    """
    mean, scale = _standard(train.features)
    seen, held, unseen = ((s.features - mean) / scale for s in (train, validation, test))
    share = train.bits.mean(dim=0)
    bits = train.bits - share
    examples, features = seen.shape
    # The smaller of two systems that have the same solution.
    is_primal = features <= examples
    gram = seen.T @ seen if is_primal else seen @ seen.T
    right_side = seen.T @ bits if is_primal else bits
    unit = examples * torch.eye(len(gram), dtype=gram.dtype)
    least, accuracy = torch.full_like(share, torch.inf), torch.zeros_like(share)
    for strength in STRENGTHS:
        solved = torch.cholesky_solve(right_side, torch.linalg.cholesky(gram + strength * unit))
        weights = solved if is_primal else seen.T @ solved
        error = (held @ weights + share - validation.bits).square().mean(dim=0)
        right = (unseen @ weights + share > 0.5) == (test.bits > 0.5)
        accuracy = torch.where(error < least, right.double().mean(dim=0), accuracy)
        least = torch.minimum(error, least)
    return accuracy


def _standard(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, (F,); infinite for those that do not vary."""
    mean = features.mean(dim=0)
    spread = features.std(dim=0, correction=0)
    return mean, torch.where(spread > _LEAST_SPREAD * spread.max(), spread, torch.inf)
