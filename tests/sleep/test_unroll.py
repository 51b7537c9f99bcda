"""Training through sleep: Algorithm 1, and where its gradients may go."""

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from kernel_generators import vary_kernels
from numerics import assert_close
from slowwave.models.backbone import HybridLM
from slowwave.models.config import LayerType, ModelConfig
from slowwave.sleep.config import LossWindows, SleepConfig
from slowwave.sleep.schedule import NO_LOSS
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import answer_forks, unroll
from slowwave.state import FastWeights, MemoryState

DrawTokens = Callable[..., Tensor]


def score(tokens: Tensor, *positions: int) -> Tensor:
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, positions] = (tokens[:, positions] + 1) % 11
    return targets


def map_weights(state: MemoryState, function: Callable[[Tensor], Tensor]) -> MemoryState:
    """The state with `function` applied to the fast weights alone."""
    layers = tuple(
        FastWeights(function(layer.weights), layer.conv_tail)
        if isinstance(layer, FastWeights)
        else layer
        for layer in state.layers
    )
    return dataclasses.replace(state, layers=layers)


def loss_of(model: HybridLM, tokens: Tensor, targets: Tensor, sleep: SleepConfig) -> Tensor:
    logits = unroll(model, tokens, targets, sleep).logits
    return F.cross_entropy(logits, targets[targets != NO_LOSS], reduction="sum")


def algorithm_1(
    model: HybridLM, tokens: Tensor, targets: Tensor, L: int, N: int, sleeps_after: bool = False
) -> Tensor:
    """The paper's training step up to the loss; S is all that `state` carries over.

    sleeps_after: a full chunk with loss is scored on its first pass and gets N all the same.
    """
    blocks = model.run
    S = list(model.initial_state(len(tokens)).fast_weights)
    loss = torch.zeros((), dtype=torch.float64)
    for start in range(0, tokens.shape[1], L):
        chunk, wanted = tokens[:, start : start + L], targets[:, start : start + L]
        scored = wanted != NO_LOSS
        h = model.embedding.weight[chunk]
        sleeps = not scored.any() or (sleeps_after and chunk.shape[1] == L)
        for n in range(N if sleeps else 1):
            without_cache, left = model.initial_state(len(tokens)), iter(S)
            h, after = blocks(h, map_weights(without_cache, lambda _, left=left: next(left)))
            S = list(after.fast_weights)
            if n == 0 and scored.any():
                logits = model.logits(h[scored]).log_softmax(-1)
                loss = loss - logits.gather(-1, wanted[scored][:, None]).sum()
    return loss


@pytest.mark.parametrize("loss_windows", ["paper", "sleep_after"])
@pytest.mark.parametrize("passes", [1, 2, 4])
def test_is_algorithm_1(
    model: HybridLM, draw_tokens: DrawTokens, passes: int, loss_windows: LossWindows
) -> None:
    """Two windows slept, one with loss and one slept after it, and a scored tail."""
    tokens = draw_tokens(2, 22)
    targets = score(tokens, 11, 14, 20, 21)
    parameters = list(model.parameters())
    sleep = SleepConfig(window=5, passes=passes, loss_windows=loss_windows)
    loss = loss_of(model, tokens, targets, sleep)
    expected = algorithm_1(
        model, tokens, targets, L=5, N=passes, sleeps_after=loss_windows == "sleep_after"
    )
    assert_close(loss, expected, 1e-10)
    for gradient, other in zip(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        assert_close(gradient, other, 1e-10)


@pytest.mark.parametrize("loss_windows", ["paper", "sleep_after"])
@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize("scored", [(12,), (6, 12), (6,), (14,)])
def test_what_nobody_reads_is_spared_without_a_difference(
    model: HybridLM,
    draw_tokens: DrawTokens,
    passes: int,
    scored: tuple[int, ...],
    loss_windows: LossWindows,
) -> None:
    """Window 1 is slept on, window 2 scored or slept on, window 3 open or scored."""
    tokens = draw_tokens(2, 15 if 14 in scored else 13)
    targets = score(tokens, *scored)
    sleep = SleepConfig(window=5, passes=passes, loss_windows=loss_windows)
    results: list[list[Tensor]] = []
    for keep_hidden in (True, False):
        rollout = unroll(model, tokens, targets, sleep, keep_hidden=keep_hidden)
        loss = rollout.logits.logsumexp(-1).sum()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, parameters)
        results.append([rollout.logits, *rollout.state.fast_weights, *gradients])
        assert rollout.state.window_fill == tokens.shape[1] % 5
    for kept, spared in zip(*results, strict=True):
        assert_close(spared, kept, 1e-10)


def test_hidden_of_scored_and_open_windows_alone(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, 13)
    targets, sleep = score(tokens, 6, 12), SleepConfig(window=5, passes=2)
    whole = unroll(model, tokens, targets, sleep).hidden
    assert_close(
        unroll(model, tokens, targets, sleep, keep_hidden=False).hidden, whole[:, 5:], 1e-10
    )


def test_logits_come_in_the_order_of_the_targets(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, 13)
    targets = score(tokens, 6, 12)
    rollout = unroll(model, tokens, targets, SleepConfig(window=5, passes=2))
    logits = model.logits(rollout.hidden)
    places = [(0, 6), (0, 12), (1, 6), (1, 12)]
    assert_close(rollout.logits, torch.stack([logits[place] for place in places]), 1e-12)


def test_windows_with_loss_get_one_pass(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, 15)
    lengths: list[int] = []

    def run(hidden: Tensor, state: MemoryState, **options: Any) -> tuple[Tensor, MemoryState]:
        lengths.append(hidden.shape[1])
        return model.run(hidden, state, **options)

    unroll(model, tokens, score(tokens, 5, 14), SleepConfig(window=4, passes=3), run=run)
    assert lengths == [4, 4, 4, 4, 4, 4, 4, 3]


@pytest.mark.parametrize("passes", [1, 3])
def test_gradients_reach_evicted_tokens_through_the_fast_weights_alone(
    model: HybridLM, draw_tokens: DrawTokens, passes: int
) -> None:
    """Token 10 stands in the first of two windows only; its embedding tells who heard of it."""
    tokens = draw_tokens(2, 9).clamp(max=9)
    tokens[:, 1] = 10
    targets = score(tokens, 8).clamp(max=9)
    sleep = SleepConfig(window=4, passes=passes)
    weight = model.embedding.weight

    first = unroll(model, tokens[:, :4], targets[:, :4], sleep).state
    through = unroll(model, tokens[:, 4:], targets[:, 4:], sleep, first).logits
    (gradient,) = torch.autograd.grad(through.logsumexp(-1).sum(), weight, retain_graph=True)
    assert gradient[10].abs().min() > 0

    cut = map_weights(first, lambda tensor: tensor.detach())
    without = unroll(model, tokens[:, 4:], targets[:, 4:], sleep, cut).logits
    assert_close(without, through, 1e-12)
    (gradient,) = torch.autograd.grad(without.logsumexp(-1).sum(), weight)
    assert not gradient[10].any()
    assert gradient[tokens[0, 8]].any()


def test_gradients_reach_every_parameter(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, 13)
    loss_of(model, tokens, score(tokens, 12), SleepConfig(window=5, passes=2)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


class Loss(torch.nn.Module):
    """`loss_of` as a module, for `functional_call` to swap its weights."""

    def __init__(self, model: HybridLM, *arguments: Any) -> None:
        super().__init__()
        self.model, self.arguments = model, arguments

    def forward(self) -> Tensor:
        return loss_of(self.model, *self.arguments)


@pytest.mark.parametrize("layer", get_args(LayerType))
def test_gradients_match_finite_differences(layer: LayerType) -> None:
    """Through two sleeps of three passes; `attn` alone forgets, its gradient is the tail's."""
    config = ModelConfig(
        vocab_size=5,
        width=4,
        layers=(layer,),
        mlp_hidden=4,
        attn_heads=1,
        delta_heads=1,
        delta_value_heads=2,
        key_dim=2,
        value_dim=2,
        max_beta=2.0,
    )
    model = HybridLM(config).double()
    vary_kernels(model)
    tokens = torch.tensor([[0, 1, 2, 3, 4, 0, 2, 1], [1, 1, 4, 0, 2, 3, 3, 0]])
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, 6:] = torch.tensor([[1, 4], [0, 2]])
    sleep = SleepConfig(window=3, passes=3)
    whole = Loss(model, tokens, targets, sleep)
    names = [name for name, _ in whole.named_parameters()]

    def loss(*values: Tensor) -> Tensor:
        return functional_call(whole, dict(zip(names, values, strict=True)), ())

    assert torch.autograd.gradcheck(loss, list(model.parameters()), fast_mode=True)


@pytest.mark.parametrize("masked", [False, True])
def test_checkpointed_activations_give_the_same_gradients(
    model: HybridLM, draw_tokens: DrawTokens, masked: bool
) -> None:
    tokens = draw_tokens(2, 13)
    targets = score(tokens, 12)
    mask = torch.arange(26).view(2, 13) % 4 != 2 if masked else None
    sleep = SleepConfig(window=5, passes=3)
    gradients: list[tuple[Tensor, ...]] = []
    saved: list[int] = []
    for checkpoint in (False, True):
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            rollout = unroll(
                model, tokens, targets, sleep, mask=mask, checkpoint_activations=checkpoint
            )
        saved.append(sum(sizes))
        loss = rollout.logits.logsumexp(-1).sum()
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)
    assert saved[1] < saved[0] / 5


def test_padding_is_skipped_like_in_a_stream(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, 13)
    targets, mask = score(tokens, 12), torch.arange(26).view(2, 13) % 4 != 2
    sleep = SleepConfig(window=5, passes=3)
    rollout = unroll(model, tokens, targets, sleep, mask=mask)
    hidden, state = read_stream(model, tokens, model.initial_state(2), sleep, mask=mask)
    assert_close(rollout.hidden[mask], hidden[mask], 1e-10)
    for actual, expected in zip(rollout.state.fast_weights, state.fast_weights, strict=True):
        assert_close(actual, expected, 1e-10)
    # What padding says changes nothing.
    other = torch.where(mask, tokens, (tokens + 1) % 11)
    assert_close(unroll(model, other, targets, sleep, mask=mask).logits, rollout.logits, 1e-10)


def test_rows_that_cannot_share_a_schedule_are_refused(
    model: HybridLM, draw_tokens: DrawTokens
) -> None:
    tokens = draw_tokens(2, 10)
    targets = score(tokens, 3)
    targets[1, 3] = NO_LOSS
    with pytest.raises(ValueError, match="rows of one batch must share a schedule"):
        unroll(model, tokens, targets, SleepConfig(window=5, passes=2))


def test_a_poisoned_neighbour_stays_in_its_row(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, 13)
    targets, sleep = score(tokens, 12), SleepConfig(window=5, passes=3)
    state = model.initial_state(2)
    expected = unroll(model, tokens, targets, sleep, state)
    row = torch.tensor([True, False]).view(2, 1, 1, 1)
    poisoned = map_weights(state, lambda weights: torch.where(row, weights, torch.nan))
    rollout = unroll(model, tokens, targets, sleep, poisoned)
    assert rollout.hidden[1].isnan().any()
    assert torch.equal(rollout.hidden[0], expected.hidden[0])


def test_forks_are_scored_like_questions_asked_apart(
    model: HybridLM, draw_tokens: DrawTokens
) -> None:
    tokens = draw_tokens(2, 12)
    sleep = SleepConfig(window=5, passes=3)
    state = unroll(model, tokens, torch.full_like(tokens, NO_LOSS), sleep).state
    questions = draw_tokens(2, 12, seed=1).view(2, 4, 3)
    targets = torch.full_like(questions, NO_LOSS)
    targets[:, :, -1] = 1
    logits = answer_forks(model, questions, targets, state)
    apart = torch.stack(
        [
            unroll(model, questions[:, fork], targets[:, fork], sleep, state).logits
            for fork in range(4)
        ],
        dim=1,
    )
    assert_close(logits, apart.flatten(0, 1), 1e-10)


@pytest.mark.parametrize("name", ["targets", "mask"])
def test_shapes_that_do_not_fit_are_refused(
    model: HybridLM, draw_tokens: DrawTokens, name: str
) -> None:
    tokens = draw_tokens(2, 6)
    shapes: dict[str, Tensor] = {"targets": score(tokens, 5), "mask": tokens >= 0}
    shapes[name] = shapes[name][:, 1:]
    with pytest.raises(ValueError, match=rf"{name} must have the shape of inputs, \(2, 6\), got"):
        unroll(model, tokens, shapes["targets"], SleepConfig(window=5), mask=shapes["mask"])


def test_a_batch_without_tokens_is_refused(model: HybridLM) -> None:
    empty = torch.zeros(2, 0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"inputs of shape \(2, 0\) hold no token"):
        unroll(model, empty, empty, SleepConfig(window=4, passes=2))


def test_padding_is_never_scored(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, 6)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, 5] = False
    with pytest.raises(ValueError, match="targets hold a token where mask is False; use -100"):
        unroll(model, tokens, score(tokens, 5), SleepConfig(window=4, passes=2), mask=mask)


def test_a_mask_that_hides_nothing_is_not_passed_on(
    model: HybridLM, draw_tokens: DrawTokens
) -> None:
    """Nor does it change anything: masks are only given to the passes over windows with padding."""
    tokens = draw_tokens(2, 12)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, 9] = False
    seen: list[bool] = []

    def run(*arguments: Any, **options: Any) -> tuple[Tensor, MemoryState]:
        seen.append(options["mask"] is not None)
        return model.run(*arguments, **options)

    targets, sleep = (
        score(tokens, 3, 11),
        SleepConfig(window=4, passes=2, loss_windows="sleep_after"),
    )
    rollout = unroll(model, tokens, targets, sleep, mask=mask, run=run)
    assert seen == [False] * 4 + [True] * 2
    _, state = read_stream(model, tokens, model.initial_state(2), sleep, mask=mask)
    for ours, theirs in zip(rollout.state.fast_weights, state.fast_weights, strict=True):
        assert_close(ours, theirs, 1e-10)
