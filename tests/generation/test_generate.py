"""Generation reads what it draws, and no more than was asked for."""

import itertools

import torch
from torch import Tensor

from slowwave.generation.config import Sampling
from slowwave.generation.generate import generate
from slowwave.generation.sampling import make_generator


def one_hot(token: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(token), 7).float()


def test_each_token_is_read_before_it_is_told() -> None:
    seen: list[int] = []

    def read(token: int) -> Tensor:
        seen.append(token)
        return one_hot((token + 2) % 7)

    sampling = Sampling()
    tokens = generate(
        one_hot(3),
        read,
        sampling=sampling,
        generator=make_generator(sampling, 0),
        max_new_tokens=6,
    )
    assert seen == []
    assert list(itertools.islice(tokens, 2)) == [3, 5]
    assert seen == [3, 5]
    assert list(tokens) == [0, 2, 4, 6]
    assert seen == [3, 5, 0, 2, 4, 6]
