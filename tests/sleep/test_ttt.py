"""Test-time training: what steps do, against a second implementation and by its properties."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flop_counter import Counter
from numerics import assert_close
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.models.int8 import quantize_
from slowwave.sleep.config import TTT, Evict, Eviction, SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.consolidators.ttt import find_targets
from slowwave.sleep.objective import Plan
from slowwave.sleep.schedule import NO_LOSS, cut_training
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import unroll
from slowwave.state import MemoryState
from slowwave.storage.memory_file import load_memory, save_memory

WINDOW, CHUNK = 6, 4
SIZES = ModelConfig(
    vocab_size=11,
    width=12,
    layers=("attn", "attn", "local"),
    mlp_hidden=20,
    attn_heads=2,
    prime_blocks=2,
    prime_hidden=8,
)


def make_model(**changes: object) -> HybridLM:
    return HybridLM(dataclasses.replace(SIZES, **changes), seed=3).double()


def make_sleep(passes: int = 2, eviction: Eviction = "all", **settings: object) -> SleepConfig:
    given = {"kind": "ttt", "chunk": CHUNK, **settings}
    values = {"window": WINDOW, "passes": passes, "eviction": eviction, "consolidator": given}
    return SleepConfig.from_dict({**values, "loss_windows": "sleep_after"})


def draw_tokens(rows: int, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(SIZES.vocab_size, (rows, count), generator=generator)


def list_changes(state: MemoryState, row: int = 0) -> list[Tensor]:
    return [tensor[row] for each in state.primes for tensor in (each.up, each.out)]


def train_by_hand(model: HybridLM, window: Tensor, passes: int, ttt: TTT) -> list[Tensor]:
    """Steps on the weights of a copy of the model itself, a whole chunk after what precedes it.

    Right for one prime MLP in the last block alone, whose keys and values no step changes.
    """
    model = HybridLM(model.config, seed=3).double()
    prime = model.blocks[-1].get_submodule("prime")
    weights = list(prime.parameters())
    before = [weight.detach().clone() for weight in weights]
    for _ in range(passes - 1):
        for start in range(0, WINDOW, CHUNK):
            stop = min(start + CHUNK, WINDOW)
            hidden, _ = model.read(window[None, :stop], model.initial_state(1))
            targets = window[start + 1 : stop + 1]
            logits = model.logits(hidden[0, start : start + len(targets)])
            slopes = torch.autograd.grad(F.cross_entropy(logits, targets), weights)
            norm = torch.cat([slope.flatten() for slope in slopes]).norm()
            rate = ttt.learning_rate * min(1.0, ttt.clip_norm / norm.item())
            for weight, slope in zip(weights, slopes, strict=True):
                weight.data -= rate * slope
    return [weight.detach() - old for weight, old in zip(weights, before, strict=True)]


@pytest.mark.parametrize("passes", [2, 3])
@pytest.mark.parametrize("clip_norm", [0.05, 50.0])
def test_steps_are_those_of_gradient_descent_on_the_model_itself(
    passes: int, clip_norm: float
) -> None:
    model, sleep = make_model(prime_blocks=1), make_sleep(passes, clip_norm=clip_norm)
    tokens = draw_tokens(2, WINDOW)
    with torch.no_grad():
        _, state = read_stream(model, tokens, model.initial_state(2), sleep)
    assert isinstance(sleep.consolidator, TTT)
    for row, window in enumerate(tokens):
        expected = train_by_hand(model, window, passes, sleep.consolidator)
        for made, wanted in zip(list_changes(state, row), expected, strict=True):
            assert_close(made, wanted, 1e-10)


def test_steps_lower_the_loss_of_the_window_they_are_taken_on() -> None:
    model, tokens = make_model(), draw_tokens(3, WINDOW)

    def measure(passes: int) -> float:
        sleep = make_sleep(passes, learning_rate=0.3)
        with torch.no_grad():
            _, state = read_stream(model, tokens, model.initial_state(3), sleep)
            hidden, _ = model.read(tokens, state)
            logits = model.logits(hidden[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()

    losses = [measure(passes) for passes in (1, 2, 3, 4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[-1] > 0.05


@pytest.mark.parametrize("eviction", ["all", "sliding"])
def test_gradients_of_training_go_through_the_steps(eviction: Eviction) -> None:
    """Finite differences of the loss of two windows, the second read after the steps of the first.

    A weight before the prime MLPs, one of theirs, one between them and one behind.
    """
    model, sleep = make_model(), make_sleep(3, eviction)
    tokens = draw_tokens(2, 2 * WINDOW + 1)
    targets = tokens[:, 1:].clone()
    targets[:, :WINDOW] = NO_LOSS

    def measure() -> Tensor:
        logits = unroll(model, tokens[:, :-1], targets, sleep).logits
        return F.cross_entropy(logits, targets[targets != NO_LOSS])

    measure().backward()
    names = ("embedding.weight", "blocks.1.prime.up.weight", "blocks.2.mixer.qkv.weight")
    for name in (*names, "blocks.2.prime.out.weight", "head.weight"):
        weight = model.get_parameter(name)
        generator = torch.Generator().manual_seed(4)
        way = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        assert weight.grad is not None
        slope, losses = (weight.grad * way).sum(), list[Tensor]()
        with torch.no_grad():
            for step in (1e-5, -2e-5):
                weight += step * way
                losses.append(measure())
            weight += 1e-5 * way
        assert_close(slope, (losses[0] - losses[1]) / 2e-5, 1e-5)


def test_windows_of_long_attention_train_too() -> None:
    """Beyond 64 tokens torch's fused attention reads, which is not twice differentiable as such."""
    model = HybridLM(SIZES, seed=3)
    sleep = SleepConfig.from_dict(
        {"window": 80, "passes": 2, "consolidator": "ttt", "loss_windows": "sleep_after"}
    )
    tokens = draw_tokens(2, 161)
    logits = unroll(model, tokens[:, :-1], tokens[:, 1:], sleep).logits
    F.cross_entropy(logits, tokens[:, 1:].flatten()).backward()
    grad = model.get_parameter("blocks.2.mixer.qkv.weight").grad
    assert grad is not None
    assert bool(grad.isfinite().all())


def test_gradients_reach_a_slept_token_through_the_prime_mlps_alone() -> None:
    """Attention alone, all of it evicted: nothing else is left of the window."""
    model, sleep = make_model(), make_sleep()
    told, asked = torch.zeros(1, WINDOW, dtype=torch.int64), 1 + draw_tokens(1, 3) % 9

    def measure(cut: bool) -> float:
        _, state = read_stream(model, told, model.initial_state(1), sleep)
        state = state.detach() if cut else state
        model.zero_grad()
        model.read(asked, state)[0].square().sum().backward()
        grad = model.embedding.weight.grad
        assert grad is not None
        return grad[0].abs().max().item()

    assert measure(cut=False) > 0
    assert measure(cut=True) == 0


@given(st.data())
def test_padding_leaves_no_trace_and_rows_do_not_mix(data: st.DataObject) -> None:
    """A row with padding anywhere learns what it learns alone and without it, in one chunk."""
    model, sleep = make_model(), make_sleep(chunk=None)
    masks = data.draw(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=2))
    mask, tokens = torch.tensor(masks), draw_tokens(len(masks), WINDOW)
    with torch.no_grad():
        _, state = read_stream(model, tokens, model.initial_state(len(masks)), sleep, mask=mask)
        for row, kept in enumerate(mask):
            changes, window = list_changes(state, row), tokens[row, kept]
            if not len(window):
                assert all(not bool(change.any()) for change in changes)
                continue
            _, lone = model.read(window[None], model.initial_state(1))
            noted = dataclasses.replace(lone, window_start=(None,) * 3)
            alone = consolidate(model, noted, passes=2, sleep=sleep)
            for made, wanted in zip(changes, list_changes(alone), strict=True):
                assert_close(made, wanted, 1e-9)


@given(st.data())
def test_targets_are_the_next_real_tokens(data: st.DataObject) -> None:
    tokens = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=9))
    kept = data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
    found = find_targets(torch.tensor([tokens]), torch.tensor([kept]))[0].tolist()
    real = [i for i, is_real in enumerate(kept) if is_real]
    expected = [NO_LOSS] * len(tokens)
    for place, after in itertools.pairwise(real):
        expected[place] = tokens[after]
    assert found == expected


@pytest.mark.parametrize("eviction", ["all", "sliding"])
def test_one_pass_is_the_same_model_with_training_switched_off(eviction: Eviction) -> None:
    model, tokens = make_model(), draw_tokens(2, 20)
    switched = make_sleep(1, eviction)
    plain = dataclasses.replace(switched, consolidator=Evict())
    with torch.no_grad():
        read = [
            read_stream(model, tokens, model.initial_state(2), each)
            for each in (switched, plain, make_sleep(2, eviction))
        ]
    assert torch.equal(read[0][0], read[1][0])
    assert torch.equal(read[0][0][:, :WINDOW], read[2][0][:, :WINDOW])
    assert not torch.allclose(read[0][0][:, WINDOW:], read[2][0][:, WINDOW:])
    assert all(not bool(change.any()) for change in list_changes(read[0][1]))


def test_forked_questions_read_with_the_weights_of_their_stream() -> None:
    model, sleep = make_model(), make_sleep()
    with torch.no_grad():
        _, state = read_stream(model, draw_tokens(2, 8), model.initial_state(2), sleep)
        questions = draw_tokens(6, 3).unflatten(0, (2, 3))
        asked = model.ask(questions, state)
        for row in range(2):
            for fork in range(3):
                alone, _ = model.read(questions[row, fork][None], state.row(row))
                assert_close(asked[row, fork], alone[0], 1e-10)


def test_reading_in_inference_mode_or_without_gradients_is_the_same() -> None:
    model, sleep, tokens = make_model(), make_sleep(), draw_tokens(2, 20)
    with torch.inference_mode():
        _, state = read_stream(model, tokens, model.initial_state(2), sleep)
    with torch.no_grad():
        _, again = read_stream(model, tokens, model.initial_state(2), sleep)
    learned = read_stream(model, tokens, model.initial_state(2), sleep)[1].detach()
    for name, tensor in again.tensors().items():
        assert torch.equal(tensor, state.tensors()[name])
        assert_close(learned.tensors()[name].double(), tensor.double(), 1e-10)
        assert not tensor.requires_grad


def test_single_tokens_are_read_with_the_weights_of_the_stream() -> None:
    """In float32, where other models read a token in one compiled call that knows no prime MLP."""
    model, sleep, tokens = HybridLM(SIZES, seed=3), make_sleep(), draw_tokens(1, WINDOW + 4)
    with torch.no_grad():
        whole, _ = read_stream(model, tokens, model.initial_state(1), sleep)
        state, hiddens = model.initial_state(1), list[Tensor]()
        for token in tokens.split(1, dim=1):
            hidden, state = read_stream(model, token, state, sleep)
            hiddens.append(hidden)
    assert_close(torch.cat(hiddens, dim=1), whole, 1e-5)


@pytest.mark.parametrize("eviction", ["all", "sliding"])
def test_a_saved_memory_goes_on_bit_identically_and_takes_constant_room(
    tmp_path: Path, eviction: Eviction
) -> None:
    model, sleep = HybridLM(SIZES, seed=3), make_sleep(3, eviction)
    state, sizes = model.initial_state(1), set[int]()
    with torch.inference_mode():
        for seed in range(5):
            _, state = read_stream(model, draw_tokens(1, WINDOW, seed), state, sleep)
            sizes |= {state.nbytes} if seed else set()
        _, state = read_stream(model, draw_tokens(1, 2), state, sleep)
        path = tmp_path / "memory"
        save_memory(path, state, model, tokenizer="none", sleep=sleep)
        loaded = load_memory(path, model, tokenizer="none", sleep=sleep)
        ends = [
            read_stream(model, draw_tokens(1, 9, 7), each, sleep)[1].tensors()
            for each in (state, loaded)
        ]
    assert len(sizes) == 1
    assert sum(name.endswith("prime.up") for name in ends[0]) == 2
    assert all(torch.equal(ends[1][name], tensor) for name, tensor in ends[0].items())


@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize("eviction", ["all", "sliding"])
@pytest.mark.parametrize("prime_blocks", [1, 2, 3])
def test_steps_cost_what_torch_counts(
    monkeypatch: pytest.MonkeyPatch, passes: int, eviction: Eviction, prime_blocks: int
) -> None:
    model, sleep = make_model(prime_blocks=prime_blocks), make_sleep(passes, eviction)
    tokens = draw_tokens(2, 20)
    targets = tokens.roll(-1, 1)
    with Counter(monkeypatch) as counter, torch.no_grad():
        unroll(model, tokens, targets, sleep, keep_hidden=False)
    plan = Plan(sleep, cut_training(targets, sleep), rows=2, num_scored=40)
    assert counter.total == plan.flops(model.config)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model\.prime_blocks is 4; use 0 to 3"):
        make_model(prime_blocks=4)
    with pytest.raises(ValueError, match=r"^model\.prime_blocks is 2; with gdn behind the first"):
        make_model(layers=("attn", "attn", "gdn"))
    with pytest.raises(ValueError, match=r"^sleep\.consolidator\.chunk is 7 with sleep\.window 6"):
        make_sleep(chunk=7)
    with pytest.raises(ValueError, match=r"^sleep\.consolidator\.learning_rate is 0"):
        make_sleep(learning_rate=0.0)
    model = make_model(prime_blocks=0)
    with pytest.raises(ValueError, match=r"model\.prime_blocks is 0; use a model that was"):
        read_stream(model, draw_tokens(1, 2), model.initial_state(1), make_sleep())


@torch.no_grad()
def test_int8_weights_do_not_sleep_so() -> None:
    model, sleep = make_model(), SleepConfig(window=8, passes=2, consolidator=TTT())
    quantize_(model)
    tokens = torch.zeros(1, 7, dtype=torch.int64)
    _, state = read_stream(model, tokens, model.initial_state(1), sleep)
    with pytest.raises(ValueError, match="int8 weights cannot sleep by ttt; load it in float32"):
        consolidate(model, state, passes=2, sleep=sleep)
