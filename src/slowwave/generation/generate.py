"""Generation: drawing a token, reading it, drawing the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from slowwave.generation.config import Sampling
from slowwave.generation.sampling import draw


def generate(
    logits: Tensor,
    read: Callable[[int], Tensor],
    *,
    sampling: Sampling,
    generator: torch.Generator,
    max_new_tokens: int,
) -> Iterator[int]:
    """Yields tokens as they are drawn; whoever stops asking has ended the reply.

    logits: (vocab,), for the first token. read: takes a token into the memory, and returns the
    logits of what follows it. What is yielded has been read.
    """
    for _ in range(max_new_tokens):
        token = draw(logits, sampling, generator)
        logits = read(token)
        yield token
