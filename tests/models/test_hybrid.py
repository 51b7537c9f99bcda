"""The model awake: cut anywhere, padded anywhere, forked, in float32 and bfloat16."""

import dataclasses
import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor

from kernel_generators import vary_kernels
from numerics import TOLERANCE, assert_close
from slowwave.models.backbone import HybridLM
from slowwave.models.config import InitialWeights, LayerType, ModelConfig
from slowwave.state import FastWeights, KeyValues, MemoryState
from tiny_models import RECURRENT

CONFIG = ModelConfig(
    vocab_size=11,
    width=16,
    layers=("gdn", "attn", "gdn"),
    mlp_hidden=24,
    attn_heads=4,
    attn_kv_heads=2,
    delta_heads=2,
    delta_value_heads=4,
    key_dim=4,
    value_dim=6,
    max_beta=2.0,
)
CUTS = [[1], [3, 5], [2, 3, 4, 9], list(range(1, 12))]


@pytest.fixture(params=RECURRENT)
def model(request: pytest.FixtureRequest) -> HybridLM:
    layers = (request.param, "attn", request.param)
    model = HybridLM(dataclasses.replace(CONFIG, layers=layers), seed=0).double()
    vary_kernels(model)
    return model


def draw_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


def read_pieces(
    model: HybridLM, tokens: Tensor, cuts: list[int], mask: Tensor | None = None
) -> tuple[Tensor, MemoryState]:
    state = model.initial_state(tokens.shape[0])
    hiddens: list[Tensor] = []
    bounds = [0, *cuts, tokens.shape[1]]
    for start, stop in itertools.pairwise(bounds):
        piece_mask = None if mask is None else mask[:, start:stop]
        hidden, state = model.read(tokens[:, start:stop], state, mask=piece_mask)
        hiddens.append(hidden)
    return torch.cat(hiddens, dim=1), state


@pytest.mark.parametrize("layers", [("attn",), ("attn", "local")])
def test_reading_compiles(layers: tuple[LayerType, ...]) -> None:
    model = HybridLM(dataclasses.replace(CONFIG, layers=layers), seed=0)
    run = torch.compile(model.run, backend="aot_eager", dynamic=False)
    with torch.no_grad():
        compiled, _ = model.read(draw_tokens(1, 5), model.initial_state(1), run=run)
        plain, _ = model.read(draw_tokens(1, 5), model.initial_state(1))
    assert_close(compiled, plain, 1e-5)


def assert_states_close(actual: MemoryState, expected: MemoryState, tolerance: float) -> None:
    for tensor, other in zip(tensors(actual), tensors(expected), strict=True):
        assert_close(tensor.double(), other.double(), tolerance)
    assert actual.counters.tokens_seen == expected.counters.tokens_seen
    assert actual.counters.num_sleeps == expected.counters.num_sleeps


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, TOLERANCE[torch.float32])]
)
def test_pieces_equal_one_call(
    model: HybridLM, cuts: list[int], dtype: torch.dtype, tolerance: float
) -> None:
    model.to(dtype)
    tokens = draw_tokens(2, 12)
    expected, whole = read_pieces(model, tokens, [])
    hidden, state = read_pieces(model, tokens, cuts)
    assert_close(hidden, expected, tolerance)
    assert_states_close(state, whole, tolerance)
    logits, _ = model(tokens)
    assert_close(model.logits(hidden), logits, tolerance)


@pytest.mark.parametrize("cuts", [[], [40, 70], [65]])
def test_windows_longer_than_a_chunk(model: HybridLM, cuts: list[int]) -> None:
    """Here attention is fused and the delta rule takes several chunks."""
    tokens = draw_tokens(2, 135)
    expected, whole = read_pieces(model, tokens, list(range(1, 135)))
    hidden, state = read_pieces(model, tokens, cuts)
    assert_close(hidden, expected, 1e-10)
    assert_states_close(state, whole, 1e-10)


def test_no_token_sees_what_follows_it(model: HybridLM) -> None:
    tokens = draw_tokens(2, 12)
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 11
    before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("cuts", CUTS)
def test_padding_anywhere_is_as_if_it_were_not_there(model: HybridLM, cuts: list[int]) -> None:
    tokens = draw_tokens(2, 12)
    real = torch.tensor([0, 3, 4, 5, 7, 10])
    mask = torch.zeros(2, 12, dtype=torch.bool)
    mask[0, real], mask[1] = True, True
    hidden, state = read_pieces(model, tokens, cuts, mask)
    row, row_state = read_pieces(model, tokens[:1, real], [])
    assert_close(hidden[:1, real], row, 1e-10)
    for weights, expected in zip(state.fast_weights, row_state.fast_weights, strict=True):
        assert_close(weights[:1], expected, 1e-10)
    full, full_state = read_pieces(model, tokens[1:], [])
    assert_close(hidden[1:], full, 1e-10)
    for weights, expected in zip(state.fast_weights, full_state.fast_weights, strict=True):
        assert_close(weights[1:], expected, 1e-10)


def test_a_mask_of_ones_changes_nothing(model: HybridLM) -> None:
    tokens = draw_tokens(2, 12)
    expected, _ = read_pieces(model, tokens, [5])
    hidden, state = read_pieces(model, tokens, [5], torch.ones(2, 12, dtype=torch.bool))
    assert_close(hidden, expected, 1e-10)
    assert state.window_mask is not None


@pytest.mark.parametrize("masked_piece", [0, 1])
def test_one_piece_may_have_a_mask_and_another_none(model: HybridLM, masked_piece: int) -> None:
    tokens = draw_tokens(2, 12)
    expected, _ = read_pieces(model, tokens, [])
    masks: list[Tensor | None] = [None, None]
    masks[masked_piece] = torch.ones(2, [5, 7][masked_piece], dtype=torch.bool)
    _, state = model.read(tokens[:, :5], model.initial_state(2), mask=masks[0])
    hidden, state = model.read(tokens[:, 5:], state, mask=masks[1])
    assert_close(hidden, expected[:, 5:], 1e-10)
    assert state.window_mask is not None
    assert state.window_mask.shape == (2, 12)


def test_padding_leaves_every_delta_state_bit_identical(model: HybridLM) -> None:
    model.float()
    _, before = model.read(draw_tokens(2, 5), model.initial_state(2))
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    _, after = model.read(draw_tokens(2, 4, seed=1), before, mask=nothing)
    for old, new in zip(before.layers, after.layers, strict=True):
        if isinstance(old, FastWeights) and isinstance(new, FastWeights):
            assert torch.equal(new.weights, old.weights)
            assert torch.equal(new.conv_tail, old.conv_tail)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("Q", [1, 3, 7])
def test_forked_questions_equal_questions_asked_apart(
    model: HybridLM, Q: int, masked: bool
) -> None:
    context = draw_tokens(2, 6)
    mask = torch.tensor([[True] * 6, [True, False, True, True, False, True]]) if masked else None
    _, state = model.read(context, model.initial_state(2), mask=mask)
    before = [tensor.clone() for tensor in tensors(state)]
    questions = draw_tokens(2, 3, Q, seed=1)
    hidden = model.ask(questions, state)
    together, _ = model.read(questions.flatten(0, 1), state.repeat(3))
    assert_close(hidden.flatten(0, 1), together, 1e-10)
    for fork in range(3):
        apart, _ = model.read(questions[:, fork], state)
        assert_close(hidden[:, fork], apart, 1e-10)
    for tensor, copy in zip(tensors(state), before, strict=True):
        assert torch.equal(tensor, copy)


def test_forks_send_the_gradients_of_questions_asked_apart(model: HybridLM) -> None:
    context, questions = draw_tokens(2, 6), draw_tokens(2, 3, 5, seed=1)
    generator = torch.Generator().manual_seed(2)
    cotangent = torch.randn(2, 3, 5, 16, generator=generator, dtype=torch.float64)
    parameters = list(model.parameters())[:-2]  # all but the final norm and the head

    _, state = model.read(context, model.initial_state(2))
    forked = torch.autograd.grad(model.ask(questions, state), parameters, cotangent)
    _, state = model.read(context, model.initial_state(2))
    together, _ = model.read(questions.flatten(0, 1), state.repeat(3))
    expected = torch.autograd.grad(together, parameters, cotangent.flatten(0, 1))
    for gradient, other in zip(forked, expected, strict=True):
        assert_close(gradient, other, 1e-10)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("stop", [6, 9])
@pytest.mark.parametrize("sick", [0, 1])
def test_a_poisoned_neighbour_stays_in_its_row(
    model: HybridLM, sick: int, stop: int, grad: bool
) -> None:
    """Head sizes here are no multiple of a vector: padding must not carry NaN to the next head."""
    tokens = draw_tokens(2, stop)

    def poison(tensor: Tensor) -> Tensor:
        row = (torch.arange(2) != sick).view(-1, *[1] * (tensor.dim() - 1))
        return torch.where(row, tensor, torch.nan)

    with torch.set_grad_enabled(grad):
        _, state = model.read(tokens[:, :5], model.initial_state(2))
        expected, _ = model.read(tokens[:, 5:], state)
        layers = tuple(layer.map(poison) for layer in state.layers)
        hidden, _ = model.read(tokens[:, 5:], dataclasses.replace(state, layers=layers))
    assert hidden[sick].isnan().all()
    assert torch.equal(hidden[1 - sick], expected[1 - sick])


def test_inputs_and_states_are_not_mutated(model: HybridLM) -> None:
    tokens = draw_tokens(2, 9)
    _, state = model.read(tokens[:, :5], model.initial_state(2))
    before = [tensor.clone() for tensor in tensors(state)]
    model.read(tokens[:, 5:], state, mask=draw_tokens(2, 4) > 3)
    for tensor, copy in zip(tensors(state), before, strict=True):
        assert torch.equal(tensor, copy)
    assert torch.equal(tokens, draw_tokens(2, 9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_stays_wide_in_every_precision(model: HybridLM, dtype: torch.dtype) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    model.to(wide)
    model.set_compute_dtype(dtype if dtype == torch.bfloat16 else None)
    tokens = draw_tokens(2, 9)
    _, state = model(tokens[:, :5])
    logits, state = model(tokens[:, 5:], state)
    assert logits.dtype == state.window_hidden.dtype == wide
    for layer in state.layers:
        if isinstance(layer, FastWeights):
            assert layer.weights.dtype == wide
            assert layer.conv_tail.dtype == dtype
        else:
            assert isinstance(layer, KeyValues)
            assert layer.keys.dtype == layer.values.dtype == dtype
    logits.sum().backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {wide}


def test_bfloat16_is_near_float32(model: HybridLM) -> None:
    model.float()
    tokens = draw_tokens(2, 12)
    expected, _ = model(tokens)
    model.set_compute_dtype(torch.bfloat16)
    assert_close(model(tokens)[0], expected, TOLERANCE[torch.bfloat16])


def test_same_seed_same_weights_whatever_the_global_one() -> None:
    config = dataclasses.replace(CONFIG, layers=get_args(LayerType))
    torch.manual_seed(1)
    one = HybridLM(config, seed=3).state_dict()
    torch.manual_seed(2)
    two, other = HybridLM(config, seed=3).state_dict(), HybridLM(config, seed=4).state_dict()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name
        if "norm" not in name and not name.endswith("kernels.expand.weight"):
            assert not torch.equal(tensor, other[name]), name


def test_fresh_weights_have_the_stated_scales() -> None:
    config = dataclasses.replace(CONFIG, width=256, attn_head_dim=64, mlp_hidden=256)
    model = HybridLM(config)
    std = (2 / (5 * 256)) ** 0.5
    assert abs(model.embedding.weight.std() - 1) < 0.05
    for name, parameter in model.named_parameters():
        if name.endswith(("qkv.weight", "up.weight", "head.weight")):
            assert abs(parameter.std() / std - 1) < 0.1, name
        if name.endswith(".out.weight"):
            assert abs(parameter.std() / (std / 6**0.5) - 1) < 0.1, name


def test_small_weights_are_small_everywhere() -> None:
    config = dataclasses.replace(CONFIG, width=256, attn_head_dim=64, initial_weights="small")
    for name, parameter in HybridLM(config).named_parameters():
        if name.endswith(("qkv.weight", "up.weight", "out.weight", "embedding.weight")):
            assert abs(parameter.std() / 0.02 - 1) < 0.1, name


def test_fresh_decays_are_as_slow_as_the_config_says() -> None:
    config = dataclasses.replace(CONFIG, initial_decay=0.01)
    rates = [p.exp() for name, p in HybridLM(config).named_parameters() if name.endswith("A_log")]
    assert rates and all(rate.min() > 0 and rate.max() <= 0.01001 for rate in rates)


@pytest.mark.parametrize("initial_weights", ["scaled", "small"])
def test_fresh_kernel_generators_leave_an_ordinary_convolution(
    initial_weights: InitialWeights,
) -> None:
    config = dataclasses.replace(CONFIG, width=256, attn_head_dim=64, layers=("jet",), value_dim=16)
    config = dataclasses.replace(config, initial_weights=initial_weights)
    weights = HybridLM(config).state_dict()
    assert not weights["blocks.0.mixer.kernels.expand.weight"].any()
    assert abs(weights["blocks.0.mixer.kernels.reduce.weight"].std() / 0.02 - 1) < 0.1
    assert 0.4 < weights["blocks.0.mixer.conv"].abs().max() <= 0.5


def test_impossible_models_and_batches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.vocab_size is 0"):
        HybridLM(ModelConfig())
    with pytest.raises(ValueError, match="batch_size is 0; use 1 or more"):
        HybridLM(CONFIG).initial_state(0)


@pytest.mark.parametrize("wrong", [-1, 11])
def test_tokens_out_of_vocabulary_are_refused(model: HybridLM, wrong: int) -> None:
    with pytest.raises(ValueError, match=f"tokens hold id {wrong}; use 0 to 10"):
        model(torch.tensor([[0, wrong, 10]]))


def test_counts_its_parameters(model: HybridLM) -> None:
    linears = 3 * (16 * 48 + 24 * 16)  # feed-forward
    linears += 16 * (4 + 2 * 2) * 4 + 16 * 16  # attention
    linears += 2 * (16 * (8 + 8 + 24) + 16 * 8 + 2 * 16 * 24)  # recurrent layers
    channels = 40
    if "jet" in model.config.layers:
        channels = 24  # of values alone
        linears += 2 * 3 * (16 + 24 * 4)  # three hidden units of a kernel generator
    others = 2 * (channels * 4 + 4 + 4 + 6) + 7 * 16  # convolutions, A_log, dt_bias, norms
    assert model.num_parameters == linears + others + 2 * 11 * 16
