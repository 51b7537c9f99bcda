"""The recurrent layers: the paper's equations token by token, pieces, padding."""

import math
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernel_generators import vary_kernels
from numerics import assert_close
from slowwave.models.config import ModelConfig
from slowwave.models.mixers.jet import JetLayer
from slowwave.models.mixers.mixer import Context
from slowwave.models.mixers.recurrent import GatedDeltaNet, GatedHebbian, RecurrentLayer
from slowwave.state import FastWeights

WIDTH, HEADS, VALUE_HEADS, K, V, TAPS = 12, 2, 4, 5, 3, 4


KINDS = pytest.mark.parametrize("kind", [GatedDeltaNet, GatedHebbian, JetLayer])


Layer = TypeVar("Layer", bound=RecurrentLayer)


def make_layer(kind: type[Layer], max_beta: float = 2.0) -> Layer:
    torch.manual_seed(0)
    sizes = ModelConfig(
        width=WIDTH,
        delta_heads=HEADS,
        delta_value_heads=VALUE_HEADS,
        key_dim=K,
        value_dim=V,
        conv_width=TAPS,
        max_beta=max_beta,
    )
    layer = kind(sizes)
    layer.reset(torch.Generator().manual_seed(1), ModelConfig())
    with torch.no_grad():
        layer.out_norm.weight.uniform_(0.5, 2.0)
    vary_kernels(layer)
    return layer.double()


def draw(B: int, T: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(B, T, WIDTH, generator=generator, dtype=torch.float64)


def read(
    layer: RecurrentLayer, x: Tensor, state: FastWeights, mask: Tensor | None = None
) -> tuple[Tensor, FastWeights]:
    return layer(x, state, Context(mask=mask))


def equations(layer: RecurrentLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """The layer for one row x (T, D), written from the equations, one token and head at a time."""
    sections = [HEADS * K, HEADS * K, VALUE_HEADS * V]
    channels = slice(sum(sections[:2]) if isinstance(layer, JetLayer) else 0, None)
    projected = x @ layer.qkv.weight.T
    S = [torch.zeros(K, V, dtype=x.dtype) for _ in range(VALUE_HEADS)]
    outs: list[Tensor] = []
    for t in range(x.shape[0]):
        window = [projected[t - w] if t >= w else torch.zeros_like(projected[0]) for w in range(4)]
        kernel = layer.conv
        if isinstance(layer, JetLayer):
            units = F.silu(layer.kernels.reduce.weight @ x[t])
            kernel = (layer.kernels.expand.weight @ units).view(VALUE_HEADS * V, TAPS) + kernel
        convolved = projected[t].clone()
        convolved[channels] = sum(
            (kernel[:, 3 - w] * window[w][channels] for w in range(4)), torch.zeros(())
        )
        q, k, v = (F.silu(part) for part in convolved.split(sections))
        step, strength = (layer.gates.weight @ x[t]).chunk(2)
        gate = F.silu(layer.out_gate.weight @ x[t])
        heads: list[Tensor] = []
        for g in range(VALUE_HEADS):
            h = g // (VALUE_HEADS // HEADS)
            q_h, k_h = (y[h * K : (h + 1) * K] for y in (q, k))
            q_h, k_h = (y / (y.square().sum() + 1e-6).sqrt() for y in (q_h, k_h))
            decay = torch.exp(-layer.A_log[g].exp() * F.softplus(step[g] + layer.dt_bias[g]))
            beta = layer.max_beta * torch.sigmoid(strength[g])
            S[g] = decay * S[g]
            known = 0 if isinstance(layer, GatedHebbian) else S[g].T @ k_h
            S[g] = S[g] + torch.outer(k_h, beta * (v[g * V : (g + 1) * V] - known))
            o = S[g].T @ q_h / math.sqrt(K)
            normed = o / (o.square().mean() + 1e-5).sqrt() * layer.out_norm.weight
            heads.append(normed * gate[g * V : (g + 1) * V])
        outs.append(layer.out.weight @ torch.cat(heads))
    return torch.stack(outs), torch.stack(S)


@KINDS
@pytest.mark.parametrize("max_beta", [1.0, 2.0])
def test_is_the_papers_equations(max_beta: float, kind: type[RecurrentLayer]) -> None:
    layer = make_layer(kind, max_beta)
    x = draw(2, 7)
    out, state = read(layer, x, layer.initial_state(2))
    for b in range(2):
        expected_out, expected_weights = equations(layer, x[b])
        assert_close(out[b], expected_out, 1e-12)
        assert_close(state.weights[b], expected_weights, 1e-12)


@KINDS
@pytest.mark.parametrize("cuts", [[1], [3], [1, 3, 6], list(range(1, 9))])
def test_pieces_equal_one_call(cuts: list[int], kind: type[RecurrentLayer]) -> None:
    layer = make_layer(kind)
    x = draw(2, 9)
    expected, whole = read(layer, x, layer.initial_state(2))
    state = layer.initial_state(2)
    outs: list[Tensor] = []
    for piece in x.tensor_split(cuts, dim=1):
        out, state = read(layer, piece, state)
        outs.append(out)
    assert_close(torch.cat(outs, dim=1), expected, 1e-12)
    assert_close(state.weights, whole.weights, 1e-12)
    assert_close(state.conv_tail, whole.conv_tail, 1e-12)


@KINDS
def test_masked_tokens_are_as_if_they_were_not_there(kind: type[RecurrentLayer]) -> None:
    layer = make_layer(kind)
    _, before = read(layer, draw(1, 3), layer.initial_state(1))
    x, mask = draw(1, 8), torch.tensor([[False, True, True, False, True, False, True, False]])
    out, state = read(layer, x, before, mask)
    expected_out, expected = read(layer, x[:, mask[0]], before)
    assert_close(out[:, mask[0]], expected_out, 1e-12)
    assert_close(state.weights, expected.weights, 1e-12)
    assert_close(state.conv_tail, expected.conv_tail, 1e-12)


@KINDS
@pytest.mark.parametrize("masked", [False, True])
def test_a_write_leaves_the_fast_weights_of_a_read(
    masked: bool, kind: type[RecurrentLayer]
) -> None:
    layer = make_layer(kind)
    _, before = read(layer, draw(2, 3), layer.initial_state(2))
    x, mask = draw(2, 5), torch.arange(10).view(2, 5) % 3 != 1 if masked else None
    written = layer.write(x, before, Context(mask=mask))
    assert isinstance(written, FastWeights)
    assert_close(written.weights, read(layer, x, before, mask)[1].weights, 1e-12)
    assert written.conv_tail is before.conv_tail


@KINDS
def test_a_masked_call_leaves_the_state_bit_identical(kind: type[RecurrentLayer]) -> None:
    layer = make_layer(kind).float()
    _, before = read(layer, draw(2, 3).float(), layer.initial_state(2))
    _, after = read(layer, draw(2, 5).float(), before, torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(after.weights, before.weights)
    assert torch.equal(after.conv_tail, before.conv_tail)


@pytest.mark.parametrize("initial_decay", [16.0, 0.1])
def test_fresh_recurrence_has_fla_s_ranges(initial_decay: float) -> None:
    sizes = ModelConfig(
        width=12,
        delta_heads=1,
        delta_value_heads=4000,
        key_dim=2,
        value_dim=2,
        conv_width=TAPS,
        initial_decay=initial_decay,
    )
    layer = GatedDeltaNet(sizes)
    layer.reset(torch.Generator().manual_seed(0), sizes)
    A, dt = layer.A_log.exp(), F.softplus(layer.dt_bias)
    assert A.min() > 0
    assert A.max() <= initial_decay * 1.001
    assert abs(A.mean() / initial_decay - 0.5) < 0.02
    assert dt.min() > 0.99e-3
    assert dt.max() < 0.101
    # Log-uniform: the middle of the logarithms is the geometric mean of the bounds, 0.01.
    assert abs(dt.log().mean() - math.log(0.01)) < 0.1
    assert layer.conv.abs().max() <= TAPS**-0.5


@KINDS
def test_questions_of_many_leave_the_state_that_they_share(kind: type[RecurrentLayer]) -> None:
    layer = make_layer(kind)
    _, before = read(layer, draw(2, 3), layer.initial_state(2))
    x = draw(6, 4)
    out, after = layer(x, before, Context(keep_state=False))
    assert after is before
    copies = before.map(lambda tensor: tensor.repeat_interleave(3, dim=0))
    assert_close(out, read(layer, x, copies)[0], 1e-12)


@KINDS
def test_states_keep_nothing_else_alive(kind: type[RecurrentLayer]) -> None:
    layer = make_layer(kind).float()
    with torch.no_grad():
        _, state = read(layer, draw(1, 50).float(), layer.initial_state(1))
    for tensor in (state.weights, state.conv_tail):
        assert tensor.untyped_storage().nbytes() <= 2 * tensor.nbytes


def test_a_jet_layer_keeps_the_tail_of_its_values_alone() -> None:
    layer = make_layer(JetLayer)
    _, state = read(layer, draw(2, 9), layer.initial_state(2))
    assert state.conv_tail.shape == (2, TAPS - 1, VALUE_HEADS * V)
    projected = (draw(2, 9) @ layer.qkv.weight.T)[:, 6:, -VALUE_HEADS * V :]
    assert_close(state.conv_tail, projected, 1e-12)


def test_a_fresh_jet_layer_has_one_kernel_for_all_tokens_and_learns_others() -> None:
    """W2 is zero at first and hears of the loss at once, W1 as soon as W2 is something else."""
    layer, x = make_layer(JetLayer), draw(2, 9)
    layer.kernels.reset(torch.Generator().manual_seed(0))
    assert not layer.kernels(x).any()
    assert abs(layer.kernels.reduce.weight.std() - 0.02) < 0.01
    weights = [layer.conv, layer.kernels.expand.weight, layer.kernels.reduce.weight]
    for hears in ((True, True, False), (True, True, True)):
        out, _ = read(layer, x, layer.initial_state(2))
        gradients = torch.autograd.grad(out.square().sum(), weights)
        assert tuple(bool(gradient.any()) for gradient in gradients) == hears
        with torch.no_grad():
            weights[1].sub_(gradients[1])
