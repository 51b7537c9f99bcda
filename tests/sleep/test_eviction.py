"""What attention sees beyond a window: all that slid with it, everything, or nothing."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.models.backbone import HybridLM
from slowwave.models.block import Block
from slowwave.models.config import LayerType
from slowwave.models.mixers.attention import Attention
from slowwave.models.mixers.mixer import Context
from slowwave.models.mixers.recurrent import RecurrentLayer
from slowwave.ops.attention import Rope, exact_rotation
from slowwave.sleep.config import BetweenPasses, KeptCache, Passes, SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.schedule import NO_LOSS, cut_stream
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import answer_forks, unroll
from slowwave.state import FastWeights, KeyValues, LayerState, MemoryState
from stream_pieces import read_pieces

DrawTokens = Callable[..., Tensor]

T, WINDOW = 23, 5
STACKS: list[tuple[LayerType, ...]] = [("gdn", "attn", "gdn", "attn"), ("attn", "attn"), ("gdn",)]


def make(model: HybridLM, layers: tuple[LayerType, ...]) -> HybridLM:
    return HybridLM(dataclasses.replace(model.config, layers=layers), seed=1).double()


def blocks_of(model: HybridLM) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def score(tokens: Tensor, count: int = 2) -> Tensor:
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -count:] = tokens[:, -count:]
    return targets


def turn(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """x (B, T, H, Dh) turned as complex numbers."""
    half = x.shape[-1] // 2
    speed = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones(()).double(), positions[:, None, None] * speed
    )
    return torch.cat([turned.real, turned.imag], dim=-1)


def keys_and_values(
    layer: Attention, x: Tensor, positions: Tensor, theta: float
) -> tuple[Tensor, Tensor, Tensor]:
    projected = (x @ layer.qkv.weight.T).unflatten(-1, (-1, layer.head_dim))
    q, k, v = projected.split([layer.num_heads, layer.num_kv_heads, layer.num_kv_heads], dim=2)
    return turn(q, positions, theta), turn(k, positions, theta), v


def attend(layer: Attention, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    groups = layer.num_heads // layer.num_kv_heads
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / layer.head_dim**0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, v).flatten(2) @ layer.out.weight.T


def sees(queries: Tensor, keys: Tensor, window: int, sinks: int) -> Tensor:
    """(T, S): a band of `window`, and the first tokens of the stream."""
    distance = queries[:, None] - keys[None]
    return (distance >= 0) & ((distance < window) | (keys[None] < sinks))


def band_masked_forward(model: HybridLM, tokens: Tensor, window: int, sinks: int) -> Tensor:
    """The sliding-window hybrid: the whole sequence through all layers at once."""
    positions = torch.arange(tokens.shape[1])
    seen = sees(positions, positions, window, sinks)
    x = model.embedding.weight[tokens]
    for block in blocks_of(model):
        normed = block.mixer_norm(x)
        if isinstance(block.mixer, Attention):
            qkv = keys_and_values(block.mixer, normed, positions, model.config.rope_theta)
            x = x + attend(block.mixer, *qkv, seen)
        else:
            assert isinstance(block.mixer, RecurrentLayer)
            start = block.mixer.initial_state(len(tokens))
            x = x + block.mixer(normed, start, Context())[0]
        x = x + block.mlp(block.mlp_norm(x))
    return x


@pytest.mark.parametrize("layers", STACKS)
@pytest.mark.parametrize("sinks", [0, 2, 7])
@pytest.mark.parametrize("window", [1, 5])
def test_one_pass_is_the_sliding_window_hybrid(
    model: HybridLM, draw_tokens: DrawTokens, layers: tuple[LayerType, ...], sinks: int, window: int
) -> None:
    model, tokens = make(model, layers), draw_tokens(2, T)
    sleep = SleepConfig(window=window, eviction="sliding", sinks=sinks)
    expected = band_masked_forward(model, tokens, window, sinks)
    assert_close(unroll(model, tokens, score(tokens), sleep).hidden, expected, 1e-10)
    for cuts in ([3, 9, 10, 21], range(1, T)):
        assert_close(read_pieces(model, tokens, cuts, sleep)[0], expected, 1e-10)


def test_windows_longer_than_a_chunk(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, 150)
    sleep = SleepConfig(window=70, eviction="sliding", sinks=3)
    expected = band_masked_forward(model, tokens, 70, 3)
    assert_close(unroll(model, tokens, score(tokens), sleep).hidden, expected, 1e-10)


def one_pass(
    model: HybridLM, x: Tensor, memory: list[LayerState], start: int, sleep: SleepConfig
) -> tuple[Tensor, list[LayerState]]:
    """All blocks over the tokens from `start` on; attention holds all that was ever kept."""
    positions = torch.arange(start, start + x.shape[1])
    seen = sees(positions, torch.arange(start + x.shape[1]), sleep.window, sleep.sinks)
    after: list[LayerState] = []
    for block, state in zip(blocks_of(model), memory, strict=True):
        normed = block.mixer_norm(x)
        if isinstance(block.mixer, Attention):
            assert isinstance(state, KeyValues)
            q, k, v = keys_and_values(block.mixer, normed, positions, model.config.rope_theta)
            k, v = torch.cat([state.keys, k], dim=1), torch.cat([state.values, v], dim=1)
            mixed, state = attend(block.mixer, q, k, v, seen), KeyValues(k, v)
        else:
            assert isinstance(state, FastWeights)
            mixed, state = block.mixer(normed, state, Context())
        x = x + mixed
        x = x + block.mlp(block.mlp_norm(x))
        after.append(state)
    return x, after


def sliding_passes(model: HybridLM, tokens: Tensor, sleep: SleepConfig) -> Tensor:
    """Section 1.4 of the paper, window by window. Returns the hidden of pass 1 of all tokens."""
    memory = list(model.initial_state(len(tokens)).layers)
    outs: list[Tensor] = []
    for start in range(0, tokens.shape[1], sleep.window):
        chunk = tokens[:, start : start + sleep.window]
        x, after = one_pass(model, model.embedding.weight[chunk], memory, start, sleep)
        outs.append(x)
        passes = [after]
        for _ in range(1, sleep.passes if chunk.shape[1] == sleep.window else 1):
            before = {"carry": passes[-1], "reset": memory, "frozen": passes[0]}
            begun: list[LayerState] = [
                old if isinstance(old, KeyValues) else new.evict()
                for old, new in zip(memory, before[sleep.looping.between_passes], strict=True)
            ]
            x, after = one_pass(model, x, begun, start, sleep)
            passes.append(after)
        cached = passes[0 if sleep.looping.kept_cache == "first_pass" else -1]
        memory = [
            FastWeights(new.weights, first.conv_tail)
            if isinstance(new, FastWeights) and isinstance(first, FastWeights)
            else kept
            for new, first, kept in zip(passes[-1], passes[0], cached, strict=True)
        ]
    return torch.cat(outs, dim=1)


@pytest.mark.parametrize("layers", STACKS)
@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize("kept_cache", ["last_pass", "first_pass"])
@pytest.mark.parametrize("between_passes", ["carry", "reset", "frozen"])
def test_windows_are_slept_on_over_what_was_kept(
    model: HybridLM,
    draw_tokens: DrawTokens,
    layers: tuple[LayerType, ...],
    passes: int,
    kept_cache: KeptCache,
    between_passes: BetweenPasses,
) -> None:
    model, tokens = make(model, layers), draw_tokens(2, T)
    sleep = SleepConfig(
        window=WINDOW,
        passes=passes,
        eviction="sliding",
        sinks=2,
        consolidator=Passes(kept_cache=kept_cache, between_passes=between_passes),
    )
    expected = sliding_passes(model, tokens, sleep)
    assert_close(unroll(model, tokens, score(tokens), sleep).hidden, expected, 1e-10)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.sets(st.integers(1, T - 1)),
    window=st.integers(1, 9),
    passes=st.integers(1, 3),
    sinks=st.integers(0, 11),
    kept_cache=st.sampled_from(["last_pass", "first_pass"]),
)
def test_streaming_equals_unrolling(
    model: HybridLM,
    draw_tokens: DrawTokens,
    cuts: set[int],
    window: int,
    passes: int,
    sinks: int,
    kept_cache: KeptCache,
) -> None:
    tokens = draw_tokens(2, T)
    sleep = SleepConfig(
        window=window,
        passes=passes,
        eviction="sliding",
        sinks=sinks,
        loss_windows="sleep_after",
        consolidator=Passes(kept_cache=kept_cache),
    )
    with torch.no_grad():
        rollout = unroll(model, tokens, tokens, sleep)
    hidden, state = read_pieces(model, tokens, sorted(cuts), sleep)
    assert_close(hidden, rollout.hidden, 1e-10)
    assert state.counters.num_sleeps == T // window
    assert state.num_carried == min(sinks + window - 1, T // window * window)
    for actual, expected in zip(tensors(state), tensors(rollout.state), strict=True):
        assert_close(actual, expected, 1e-10)


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize(
    ("narrow", "tolerance"), [(None, 1e-4), (torch.bfloat16, TOLERANCE[torch.bfloat16])]
)
def test_narrow_numbers_stream_alike(
    model: HybridLM,
    draw_tokens: DrawTokens,
    narrow: torch.dtype | None,
    tolerance: float,
    passes: int,
) -> None:
    """Raw recirculation amplifies rounding, normed states less."""
    model.float().set_compute_dtype(narrow)
    tokens = draw_tokens(2, T)
    sleep = SleepConfig(
        window=WINDOW,
        passes=passes,
        eviction="sliding",
        sinks=1,
        consolidator=Passes(recirculate="normed"),
    )
    with torch.no_grad():
        rollout = unroll(model, tokens, score(tokens), sleep)
    hidden, _ = read_pieces(model, tokens, range(1, T), sleep)
    assert_close(hidden, rollout.hidden, tolerance)


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_memory_is_constant(model: HybridLM, passes: int, padded: bool) -> None:
    """From the second sleep on, when the sinks stand beside a whole window."""
    sleep = SleepConfig(window=3, passes=passes, eviction="sliding", sinks=2)
    state, tokens = model.initial_state(1), torch.ones(1, 3, dtype=torch.int64)
    mask = torch.tensor([[True, False, True]]) if padded else None
    held: dict[int, tuple[int, ...]] = {}
    with torch.no_grad():
        while state.counters.num_sleeps < 200:
            _, state = read_stream(model, tokens, state, sleep, mask=mask)
            if state.counters.num_sleeps in (2, 200):
                _, awake = read_stream(model, tokens[:, :1], state, sleep)
                sizes = (state.nbytes, awake.nbytes, storage_nbytes(state), storage_nbytes(awake))
                held[state.counters.num_sleeps] = sizes
    assert held[200] == held[2]
    assert all(tensor.isfinite().all() for tensor in tensors(state))


def storage_nbytes(state: MemoryState) -> int:
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(state)
    }
    return sum(storages.values())


def test_tokens_out_of_reach_act_through_the_fast_weights_alone(
    model: HybridLM, draw_tokens: DrawTokens
) -> None:
    """Token 10 stands at place 1 only; two layers of attention see 2 (L - 1) tokens back."""
    tokens = draw_tokens(2, T).clamp(max=9)
    tokens[:, 1] = 10
    reach = 1 + 2 * (WINDOW - 1)
    heard: dict[tuple[LayerType, ...], bool] = {
        ("attn", "attn"): False,
        ("attn", "attn", "gdn"): True,
    }
    for layers, is_heard in heard.items():
        stack = make(model, layers)
        for at in (reach, reach + 1):
            targets = torch.full_like(tokens, NO_LOSS)
            targets[:, at] = 1
            sleep = SleepConfig(window=WINDOW, eviction="sliding")
            loss = unroll(stack, tokens, targets, sleep).logits.logsumexp(-1).sum()
            (gradient,) = torch.autograd.grad(loss, stack.embedding.weight)
            assert bool(gradient[10].any()) == (at <= reach or is_heard), (layers, at)


@pytest.mark.parametrize("kept_cache", ["last_pass", "first_pass"])
def test_no_prediction_knows_what_follows_it(
    model: HybridLM, draw_tokens: DrawTokens, kept_cache: KeptCache
) -> None:
    """The cache that passes leave knows its whole window, but who reads it comes after."""
    tokens = draw_tokens(2, 18)
    sleep = SleepConfig(
        window=WINDOW,
        passes=3,
        eviction="sliding",
        loss_windows="sleep_after",
        sinks=1,
        consolidator=Passes(kept_cache=kept_cache),
    )
    before = unroll(model, tokens, tokens, sleep).hidden
    for place in (3, 4, 5, 11):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 11
        after = unroll(model, changed, changed, sleep).hidden
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place:], before[:, place:])


def test_padding_says_nothing_and_takes_no_position(
    model: HybridLM, draw_tokens: DrawTokens
) -> None:
    """A first window of padding, and padding in the others."""
    tokens, sleep = draw_tokens(2, T), SleepConfig(window=WINDOW, passes=3, eviction="sliding")
    mask = torch.ones(2, T, dtype=torch.bool)
    mask[:, :WINDOW] = False
    hidden, state = read_pieces(model, tokens, [3, 7, 8], sleep, mask)
    expected, plain = read_pieces(model, tokens[:, WINDOW:], [], sleep)
    assert_close(hidden[:, WINDOW:], expected, 1e-10)
    for weights, other in zip(state.fast_weights, plain.fast_weights, strict=True):
        assert_close(weights, other, 1e-10)
    mask[0, [6, 12, 13, 21]] = False
    rollout = unroll(model, tokens, score(tokens, 1), sleep, mask=mask)
    hidden, _ = read_pieces(model, tokens, [3, 7, 8], sleep, mask)
    assert_close(hidden[mask], rollout.hidden[mask], 1e-10)
    other = torch.where(mask, tokens, (tokens + 1) % 11)
    assert_close(
        unroll(model, other, score(tokens, 1), sleep, mask=mask).logits, rollout.logits, 1e-10
    )


def test_a_window_of_padding_leaves_the_fast_weights_bit_identical(
    model: HybridLM, draw_tokens: DrawTokens
) -> None:
    sleep = SleepConfig(window=WINDOW, passes=3, eviction="sliding", sinks=1)
    _, before = read_pieces(model, draw_tokens(2, WINDOW), [], sleep)
    nothing = torch.zeros(2, WINDOW, dtype=torch.bool)
    _, after = read_stream(model, draw_tokens(2, WINDOW, seed=1), before, sleep, mask=nothing)
    for actual, expected in zip(after.fast_weights, before.fast_weights, strict=True):
        assert torch.equal(actual, expected)


def test_forks_see_what_was_carried(model: HybridLM, draw_tokens: DrawTokens) -> None:
    sleep = SleepConfig(window=WINDOW, passes=2, eviction="sliding", sinks=1)
    _, state = read_pieces(model, draw_tokens(2, 12), [], sleep)
    questions = draw_tokens(2, 6, seed=1).view(2, 2, 3)
    targets = torch.full_like(questions, NO_LOSS)
    targets[:, :, -1] = 1
    logits = answer_forks(model, questions, targets, state, sleep=sleep)
    apart = torch.stack(
        [
            unroll(model, questions[:, fork], targets[:, fork], sleep, state).logits
            for fork in range(2)
        ],
        dim=1,
    )
    assert_close(logits, apart.flatten(0, 1), 1e-10)
    twice = unroll(model, questions.flatten(0, 1), targets.flatten(0, 1), sleep, state.repeat(2))
    assert_close(logits, twice.logits, 1e-10)


def test_angles_of_large_positions() -> None:
    positions = torch.tensor([[10**6, 10**7 + 1, 2**31]])
    cos, sin = exact_rotation(positions, Rope(8, 10_000.0), torch.float32)
    for place, position in enumerate(positions[0].tolist()):
        for step in range(4):
            angle = position * 10_000.0 ** (-step / 4)
            assert cos[0, place, 0, step].item() == pytest.approx(math.cos(angle), abs=1e-6)
            assert sin[0, place, 0, step].item() == pytest.approx(math.sin(angle), abs=1e-6)


@pytest.mark.parametrize("window", [3, 100])
@pytest.mark.parametrize("layers", STACKS)
def test_without_eviction_all_is_one_window(
    model: HybridLM, draw_tokens: DrawTokens, window: int, layers: tuple[LayerType, ...]
) -> None:
    model, tokens = make(model, layers), draw_tokens(2, T)
    sleep = SleepConfig(window=window, eviction="none")
    expected, _ = model.read(tokens, model.initial_state(2))
    assert_close(unroll(model, tokens, tokens, sleep).hidden, expected, 1e-12)
    hidden, state = read_pieces(model, tokens, [2, 9, 10], sleep)
    assert_close(hidden, expected, 1e-10)
    assert (state.counters.num_sleeps, state.window_fill) == (0, T)
    assert cut_stream(0, sleep) == []


def test_what_may_not_be_evicted_is_not_slept_on(model: HybridLM, draw_tokens: DrawTokens) -> None:
    _, state = model.read(draw_tokens(2, 3), model.initial_state(2))
    with pytest.raises(ValueError, match=r"sleep\.eviction is none, which never sleeps"):
        consolidate(model, state, passes=1, sleep=SleepConfig(eviction="none"))
    slid = consolidate(model, state, passes=1, sleep=SleepConfig(eviction="sliding"))
    _, state = model.read(draw_tokens(2, 3), slid)
    with pytest.raises(ValueError, match=r"eviction is all, but the state carries 3 tokens"):
        consolidate(model, state, passes=1)
