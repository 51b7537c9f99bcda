"""One token from logits: the likeliest, or a draw by temperature, top-k and top-p."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import torch
from torch import Tensor

from slowwave.runtime.config import Sampling


def make_generator(sampling: Sampling, place: int) -> torch.Generator:
    """The generator for what is drawn from `place` in the stream on, whatever was drawn before."""
    text = json.dumps(["reply", sampling.seed, place])
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def draw(
    logits: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    forbids: Callable[[int], bool] | None = None,
) -> int:
    """A token id drawn from logits (vocab,): first top-k, then top-p of what that leaves.

    forbids: whether a token must not be drawn; all others keep their odds.
    """
    token = _draw(logits, sampling, generator)
    while forbids is not None and forbids(token):
        logits = logits.index_fill(0, torch.tensor(token, device=logits.device), -torch.inf)
        token = _draw(logits, sampling, generator)
    return token


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax())
    ordered, tokens = logits.double().cpu().sort(descending=True, stable=True)
    if sampling.top_k:
        ordered, tokens = ordered[: sampling.top_k], tokens[: sampling.top_k]
    probabilities = ((ordered - ordered[0]) / sampling.temperature).softmax(0)
    likelier = probabilities.cumsum(0) - probabilities
    probabilities = probabilities.masked_fill(likelier >= sampling.top_p, 0)
    return int(tokens[probabilities.multinomial(1, generator=generator)])
