"""Drawing a token: greedy, by temperature, top-k and top-p, from explicit generators."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowwave.runtime.config import Sampling
from slowwave.runtime.reply import draw, make_generator

LOGITS = torch.tensor([1.0, 3.0, -2.0, 2.0, 0.0])
logits_lists = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12)


def count(sampling: Sampling, draws: int = 4000) -> list[float]:
    generator = make_generator(sampling, 0)
    drawn = torch.tensor([draw(LOGITS, sampling, generator) for _ in range(draws)])
    return (drawn.bincount(minlength=len(LOGITS)) / draws).tolist()


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(x) for x in logits]
    return [weight / sum(weights) for weight in weights]


@given(logits_lists, st.integers(0, 5), st.integers(0, 2**64 - 1))
def test_greedy_takes_the_likeliest(logits: list[float], top_k: int, seed: int) -> None:
    tensor = torch.tensor(logits)
    sampling = Sampling(top_k=top_k, seed=seed)
    assert logits[draw(tensor, sampling, make_generator(sampling, 3))] == max(logits)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_frequencies_are_probabilities(temperature: float) -> None:
    expected = softmax([x / temperature for x in LOGITS.tolist()])
    assert count(Sampling(temperature=temperature)) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("top_k", "left"), [(1, {1}), (2, {1, 3}), (4, {0, 1, 3, 4}), (9, None)])
def test_top_k(top_k: int, left: set[int] | None) -> None:
    shares = count(Sampling(temperature=2.0, top_k=top_k))
    drawn = {token for token, share in enumerate(shares) if share}
    assert drawn == (left or set(range(5)))


@pytest.mark.parametrize(
    ("top_p", "left"), [(1e-9, {1}), (0.6, {1}), (0.7, {1, 3}), (0.9, {0, 1, 3}), (1.0, None)]
)
def test_top_p(top_p: float, left: set[int] | None) -> None:
    """Probabilities are 0.04 to 0.64: as many as are needed to reach top_p."""
    shares = count(Sampling(temperature=1.0, top_p=top_p))
    drawn = {token for token, share in enumerate(shares) if share}
    assert drawn == (left or set(range(5)))


def test_top_p_is_of_what_top_k_leaves() -> None:
    """Of the two likeliest, 0.73 and 0.27, the first alone reaches 0.7."""
    shares = count(Sampling(temperature=1.0, top_k=2, top_p=0.7), draws=300)
    assert shares[1] == 1


@given(logits_lists, st.sampled_from([1e-300, 1e-3, 1.0, 1e300]), st.integers(0, 99))
def test_any_temperature_draws_a_token(logits: list[float], temperature: float, seed: int) -> None:
    sampling = Sampling(temperature=temperature, seed=seed)
    token = draw(torch.tensor(logits), sampling, make_generator(sampling, 0))
    assert 0 <= token < len(logits)
    if temperature == 1e-300:
        assert logits[token] == max(logits)


def test_draws_depend_on_seed_and_place_alone() -> None:
    def sequence(seed: int, place: int) -> list[int]:
        sampling = Sampling(temperature=3.0, seed=seed)
        generator = make_generator(sampling, place)
        return [draw(LOGITS, sampling, generator) for _ in range(40)]

    first = sequence(1, 2)
    torch.manual_seed(0)
    assert sequence(1, 2) == first
    others = [
        sequence(1, 3),
        sequence(2, 1),
        sequence(0, 3),
        sequence(3, 0),
        sequence(12, 0),
        sequence(2, 2),
    ]
    assert all(other != first for other in others)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -0.1), ("temperature", math.nan), ("top_k", -1), ("top_p", 0), ("top_p", 1.1)],
)
def test_wrong_settings(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is {value}; use"):
        Sampling(**{field: value})  # pyright: ignore[reportArgumentType]
