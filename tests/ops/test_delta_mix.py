"""Between the projections: the compiled way against the composition of the single operators."""

import itertools
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.ops import gated_mix as mix
from slowwave.ops.gated_mix import MixWeights, delta_mix, delta_write


class Inputs(NamedTuple):
    """The tensors of `delta_mix`, in its order."""

    qkv: Tensor
    gates: Tensor
    out_gate: Tensor
    tail: Tensor
    fast_weights: Tensor

    def to(self, dtype: torch.dtype) -> "Inputs":
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return Inputs._make([*(x.to(dtype) for x in self[:-1]), self.fast_weights.to(wide)])

    def tokens(self, start: int, stop: int) -> "Inputs":
        return Inputs._make([*(x[:, start:stop] for x in self[:3]), *self[3:]])


def draw(
    B: int,
    T: int,
    *,
    H: int = 2,
    G: int = 4,
    K: int = 8,
    V: int = 6,
    taps: int = 4,
    shared: int = 1,
) -> tuple[Inputs, MixWeights]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    channels, rows = 2 * H * K + G * V, B // shared
    inputs = Inputs(
        normal(B, T, channels),
        2 * normal(B, T, 2 * G),
        2 * normal(B, T, G * V),
        normal(rows, taps - 1, channels),
        normal(rows, G, K, V),
    )
    weights = MixWeights(
        kernel=normal(channels, taps),
        A_log=normal(G) - 1,
        dt_bias=normal(G),
        norm=normal(V),
        norm_eps=1e-5,
        max_beta=2.0,
    )
    return inputs, weights


def cast(weights: MixWeights, dtype: torch.dtype) -> MixWeights:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return MixWeights._make(x.to(wide) if isinstance(x, Tensor) else x for x in weights)


def without_queries(inputs: Inputs, weights: MixWeights) -> tuple[Inputs, MixWeights]:
    G, _, V = inputs.fast_weights.shape[1:]
    keys = (inputs.qkv.shape[2] - G * V) // 2
    kept = inputs._replace(qkv=inputs.qkv[..., keys:], tail=inputs.tail[..., keys:])
    return kept, weights._replace(kernel=weights.kernel[keys:])


def write(inputs: Inputs, weights: MixWeights) -> Tensor:
    return delta_write(inputs.qkv, inputs.gates, inputs.tail, inputs.fast_weights, weights)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T", [1, 2, 3, 4, 63, 64, 65, 130])
def test_compiled_way_equals_the_composition(T: int, dtype: torch.dtype) -> None:
    inputs, weights = draw(2, T)
    with torch.enable_grad():  # the compiled way has no gradients, so this takes the other
        expected = delta_mix(*inputs, weights)
    with torch.no_grad():
        actual = delta_mix(*inputs.to(dtype), cast(weights, dtype))
    for tensor, other in zip(actual, expected, strict=True):
        assert_close(tensor, other, TOLERANCE[dtype])
    assert actual[0].dtype == actual[2].dtype == dtype
    kept, kernel = without_queries(inputs.to(dtype), cast(weights, dtype))
    with torch.no_grad():
        assert_close(write(kept, kernel), expected[1], TOLERANCE[dtype])


@settings(max_examples=40)
@given(
    T=st.integers(1, 80),
    heads=st.sampled_from([(1, 1), (1, 3), (2, 2), (3, 6)]),
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    taps=st.integers(2, 6),
    rows=st.sampled_from([(1, 1), (4, 2), (3, 3)]),
    keep_writes=st.booleans(),
)
def test_compiled_way_equals_the_composition_for_any_shape(
    T: int,
    heads: tuple[int, int],
    sizes: tuple[int, int],
    taps: int,
    rows: tuple[int, int],
    keep_writes: bool,
) -> None:
    (H, G), (K, V), (B, shared) = heads, sizes, rows
    inputs, weights = draw(B, T, H=H, G=G, K=K, V=V, taps=taps, shared=shared)
    with torch.enable_grad():
        expected = delta_mix(*inputs, weights, keep_writes=keep_writes)
    with torch.no_grad():
        actual = delta_mix(*inputs, weights, keep_writes=keep_writes)
    for tensor, other in zip(actual, expected, strict=True):
        assert_close(tensor, other, 1e-12)
    if not keep_writes:
        assert actual[1] is inputs.fast_weights
        assert actual[2] is inputs.tail


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("pieces", [[70], [1] * 70, [2, 3, 1, 64], [69, 1]])
def test_pieces_equal_one_call(pieces: list[int], grad: bool) -> None:
    inputs, weights = draw(2, 70)
    bounds = list(itertools.accumulate(pieces, initial=0))
    with torch.set_grad_enabled(grad):
        whole = delta_mix(*inputs, weights)
        outs: list[Tensor] = []
        rest = inputs
        for start, stop in itertools.pairwise(bounds):
            out, fast_weights, tail = delta_mix(*rest.tokens(start, stop), weights)
            outs.append(out)
            rest = rest._replace(fast_weights=fast_weights, tail=tail)
    for actual, expected in zip(
        (torch.cat(outs, dim=1), rest.fast_weights, rest.tail), whole, strict=True
    ):
        assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize("strength", [0.0, 30.0, 1e4])
def test_extreme_inputs_stay_finite_and_exact(strength: float) -> None:
    inputs, weights = draw(1, 70)
    inputs = Inputs._make([*(strength * x for x in inputs[:4]), inputs.fast_weights])
    with torch.enable_grad():
        expected = delta_mix(*inputs, weights)
    with torch.no_grad():
        actual = delta_mix(*inputs.to(torch.float32), cast(weights, torch.float32))
    for tensor, other in zip(actual, expected, strict=True):
        assert_close(tensor, other, 1e-5)


@pytest.mark.parametrize("reading", [False, True])
def test_masked_tokens_are_as_if_they_were_not_there(reading: bool) -> None:
    """With a mask the composition is taken; without one, whichever there is."""
    inputs, weights = draw(1, 20)
    mask = torch.rand(1, 20, generator=torch.Generator().manual_seed(1)) < 0.7
    plain = Inputs._make([*(x[:, mask[0]] for x in inputs[:3]), *inputs[3:]])
    with torch.set_grad_enabled(not reading):
        masked = delta_mix(*inputs, weights, mask=mask)
        expected = delta_mix(*plain, weights)
    assert_close(masked[0][:, mask[0]], expected[0], 1e-12)
    assert_close(masked[1], expected[1], 1e-12)
    assert_close(masked[2], expected[2], 1e-12)


def test_the_compiled_way_is_taken_when_reading_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, weights = draw(1, 5)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the composition was taken")

    monkeypatch.setattr(mix, "conv_mix", refuse)
    with torch.no_grad():
        delta_mix(*inputs, weights)
    with torch.enable_grad(), pytest.raises(AssertionError, match="was taken"):
        delta_mix(*inputs, weights)


def test_states_own_their_memory() -> None:
    inputs, weights = draw(1, 50)
    with torch.no_grad():
        _, fast_weights, tail = delta_mix(*inputs, weights)
    for tensor in (fast_weights, tail):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_inputs_are_not_mutated() -> None:
    inputs, weights = draw(2, 70)
    before = [tensor.clone() for tensor in inputs]
    with torch.no_grad():
        delta_mix(*inputs, weights)
        write(*without_queries(inputs, weights))
    for tensor, copy in zip(inputs, before, strict=True):
        assert torch.equal(tensor, copy)
