"""The analytic count of FLOPs against what torch counts while the model runs."""

import dataclasses
import inspect
import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from flop_counter import Counter
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.models.flops import Pass, head_flops, pass_flops
from slowwave.ops import gated_mix
from slowwave.ops.gated_rules import gated_delta_rule
from slowwave.sleep.config import LossWindows, Passes, Ridge, SleepConfig
from slowwave.sleep.objective import Plan
from slowwave.sleep.schedule import NO_LOSS, Fill, cut_stream, cut_training
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import answer_forks, unroll

PLAIN = ModelConfig(vocab_size=13, width=24, mlp_hidden=40, key_dim=8, value_dim=8)
GROUPED = ModelConfig(
    vocab_size=50,
    width=32,
    layers=("gdn", "gdn", "attn"),
    mlp_hidden=48,
    attn_heads=4,
    attn_kv_heads=2,
    attn_head_dim=6,
    delta_heads=2,
    delta_value_heads=6,
    key_dim=10,
    value_dim=14,
)
MODELS = {
    "plain": PLAIN,
    "grouped": GROUPED,
    "hebbian": dataclasses.replace(GROUPED, layers=("hebbian", "attn", "hebbian")),
    "jet": dataclasses.replace(GROUPED, layers=("jet", "attn", "jet")),
}
PARTS = dataclasses.replace(PLAIN, layers=("attn", "gdn", "attn", "gdn", "attn"), prelude=1, coda=2)


def draw_batch(rows: int, num_tokens: int, model: ModelConfig) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.vocab_size, (rows, num_tokens), generator=generator)
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -2:] = 1
    return tokens, targets


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("passes", [1, 2, 3, 4])
@pytest.mark.parametrize(("window", "num_tokens"), [(5, 13), (70, 215)])
def test_batches_with_forks_cost_what_torch_counts(
    monkeypatch: pytest.MonkeyPatch, name: str, passes: int, window: int, num_tokens: int
) -> None:
    sizes, forks, fork_tokens = MODELS[name], 3, 4
    model, sleep = HybridLM(sizes), SleepConfig(window=window, passes=passes)
    tokens, targets = draw_batch(2, num_tokens, sizes)
    questions, wanted = draw_batch(2 * forks, fork_tokens, sizes)
    questions, wanted = questions.unflatten(0, (2, forks)), wanted.unflatten(0, (2, forks))
    with Counter(monkeypatch) as counter, sdpa_kernel(SDPBackend.MATH):
        rollout = unroll(model, tokens, targets, sleep, keep_hidden=False)
        answer_forks(model, questions, wanted, rollout.state)
    scored, segments = 2 * 2 + 2 * forks * 2, cut_training(targets, sleep)
    plan = Plan(sleep, segments, 2, scored, forks, fork_tokens)
    assert plan.flops(sizes) == counter.total
    assert (counter.solves > 0) == ("hebbian" not in sizes.layers)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("loss_windows", ["paper", "sleep_after"])
def test_windows_with_loss_cost_what_torch_counts(
    monkeypatch: pytest.MonkeyPatch, name: str, passes: int, loss_windows: LossWindows
) -> None:
    """Scored on pass 1 and then evicted or slept; the second window has no loss."""
    sizes = MODELS[name]
    sleep = SleepConfig(window=5, passes=passes, loss_windows=loss_windows)
    tokens, _ = draw_batch(2, 18, sizes)
    targets = tokens.clone()
    targets[:, 5:10] = NO_LOSS
    with Counter(monkeypatch) as counter:
        unroll(HybridLM(sizes), tokens, targets, sleep, keep_hidden=False)
    plan = Plan(sleep, cut_training(targets, sleep), rows=2, num_scored=2 * 13)
    assert counter.total == plan.flops(sizes)


@pytest.mark.parametrize("pieces", [[13], [1] * 13, [3, 7, 1, 2]])
def test_streams_in_pieces_cost_what_torch_counts(
    monkeypatch: pytest.MonkeyPatch, pieces: list[int]
) -> None:
    model, sleep = HybridLM(GROUPED), SleepConfig(window=5, passes=3)
    tokens, _ = draw_batch(1, 13, GROUPED)
    state, count = model.initial_state(1), 0
    with Counter(monkeypatch) as counter:
        for piece in tokens.split(pieces, dim=1):
            fill = state.window_fill
            segments = cut_stream(piece.shape[1], sleep, window_fill=fill)
            hidden, state = read_stream(model, piece, state, sleep)
            model.logits(hidden)
            count += Plan(sleep, segments, 1, piece.shape[1], fill=Fill(fill)).flops(GROUPED)
    assert count == counter.total


SLEEPS = {
    "sliding": SleepConfig(window=5, passes=3, eviction="sliding", sinks=2),
    "sliding, first pass": SleepConfig(
        window=5, passes=2, eviction="sliding", consolidator=Passes(kept_cache="first_pass")
    ),
    "sliding, one pass": SleepConfig(window=5, eviction="sliding"),
    "sliding, wake": SleepConfig(window=5, passes=2, eviction="sliding", wake_passes=3),
    "none": SleepConfig(window=5, eviction="none"),
    "none, wake": SleepConfig(window=5, eviction="none", wake_passes=2),
    "wake": SleepConfig(window=5, passes=2, wake_passes=3),
    "reset": SleepConfig(window=5, passes=3, consolidator=Passes(between_passes="reset")),
    "ridge": SleepConfig(window=5, passes=2, consolidator=Ridge()),
    "ridge, sliding": SleepConfig(window=5, passes=2, consolidator=Ridge(), eviction="sliding"),
}


@pytest.mark.parametrize("num_tokens", [15, 18])
@pytest.mark.parametrize(
    ("way", "name"),
    [
        *itertools.product(SLEEPS, MODELS),
        *itertools.product([way for way in SLEEPS if "wake" not in way], ["parts"]),
    ],
)
def test_ways_to_sleep_cost_what_torch_counts(
    monkeypatch: pytest.MonkeyPatch, way: str, name: str, num_tokens: int
) -> None:
    """Batches whose last window is scored (open or full), then asked questions on forks."""
    sizes, sleep = {**MODELS, "parts": PARTS}[name], SLEEPS[way]
    model = HybridLM(sizes)
    tokens, targets = draw_batch(2, num_tokens, sizes)
    questions, wanted = (part.unflatten(0, (2, 3)) for part in draw_batch(6, 4, sizes))
    with Counter(monkeypatch) as counter:
        rollout = unroll(model, tokens, targets, sleep, keep_hidden=False)
        answer_forks(model, questions, wanted, rollout.state, sleep=sleep)
    plan = Plan(sleep, cut_training(targets, sleep), 2, 2 * 2 + 6 * 2, forks=3, fork_tokens=4)
    assert plan.flops(sizes) == counter.total


@pytest.mark.parametrize("way", SLEEPS)
def test_streams_in_pieces_cost_what_torch_counts_in_every_way(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    model, sleep = HybridLM(GROUPED), SLEEPS[way]
    tokens, _ = draw_batch(1, 13, GROUPED)
    state, count = model.initial_state(1), 0
    with Counter(monkeypatch) as counter:
        for piece in tokens.split([3, 7, 1, 2], dim=1):
            fill, carried = state.window_fill, state.num_carried
            segments = cut_stream(piece.shape[1], sleep, window_fill=fill)
            _, state = read_stream(model, piece, state, sleep)
            count += Plan(sleep, segments, fill=Fill(fill, carried)).flops(GROUPED)
    assert count == counter.total


@pytest.mark.parametrize("name", MODELS)
def test_forks_longer_than_a_chunk_cost_what_torch_counts(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sizes = MODELS[name]
    model = HybridLM(sizes)
    tokens, _ = draw_batch(1, 9, sizes)
    _, state = model.read(tokens, model.initial_state(1))
    questions, _ = draw_batch(2, 70, sizes)
    with Counter(monkeypatch) as counter, sdpa_kernel(SDPBackend.MATH):
        model.ask(questions[None], state)
    asked = pass_flops(sizes, Pass(70, 9), keep_state=False)
    assert 2 * asked == counter.total


STEPS = {
    **{way: sleep for way, sleep in SLEEPS.items() if "ridge" not in way},
    "all": SleepConfig(window=5),
    "all, 3 passes": SleepConfig(window=5, passes=3),
    "first pass, 3": SleepConfig(
        window=5, passes=3, eviction="sliding", consolidator=Passes(kept_cache="first_pass")
    ),
    "embedding": SleepConfig(window=5, passes=3, consolidator=Passes(recirculate="embedding")),
    "scored, then slept": SleepConfig(window=5, passes=3, loss_windows="sleep_after"),
}
LEARNERS = {
    "plain": PLAIN,
    "attention": dataclasses.replace(PLAIN, layers=("attn", "attn")),
    "others": dataclasses.replace(PLAIN, layers=("hebbian", "attn", "jet")),
    "parts": PARTS,
}


@pytest.mark.parametrize(
    ("way", "name"),
    [
        *itertools.product(STEPS, ["plain", "attention"]),
        *itertools.product(["all, 3 passes", "sliding, one pass"], ["others"]),
        # A coda's attention, read twice under sliding, takes back gradients that are all zero.
        *itertools.product(["all", "all, 3 passes", "sliding, one pass"], ["parts"]),
    ],
)
def test_training_steps_cost_what_torch_counts(
    monkeypatch: pytest.MonkeyPatch, way: str, name: str
) -> None:
    """To 3%: the rules compute some of their products again, which earns no credit."""
    sizes, sleep = LEARNERS[name], STEPS[way]
    tokens, targets = draw_batch(2, 18, sizes)
    with Counter(monkeypatch) as counter, sdpa_kernel(SDPBackend.MATH):
        rollout = unroll(HybridLM(sizes), tokens, targets, sleep, keep_hidden=False)
        rollout.logits.logsumexp(-1).sum().backward()
    plan = Plan(sleep, cut_training(targets, sleep), rows=2, num_scored=4)
    ratio = counter.total / plan.training_flops(sizes)
    assert ratio == 1 if name == "attention" else 1 <= ratio < 1.03


def test_a_layer_by_hand() -> None:
    """One recurrent block over 3 tokens: D = 4, H = 1, G = 2, K = 2, V = 3, h = 5."""
    model = ModelConfig(
        vocab_size=7,
        width=4,
        layers=("gdn",),
        mlp_hidden=5,
        attn_heads=1,
        delta_heads=1,
        delta_value_heads=2,
        key_dim=2,
        value_dim=3,
    )
    projections = 2 * 3 * 4 * (2 + 2 + 6) + 2 * 3 * 4 * 4 + 2 * 3 * 4 * 6 + 2 * 3 * 6 * 4
    products = 2 * (2 * 3 * 3 * 2)
    solve = (0 + 1 + 2) * 2 * (3 + 2)  # row i takes i earlier ones away, V + K columns
    value_head = products + solve + 2 * (2 * 3 * 2 * 3) + 2 * 3 * 3 * 3 + 2 * 2 * 3 * 3
    feed_forward = 2 * 3 * 4 * 10 + 2 * 3 * 5 * 4
    expected = projections + 2 * value_head + feed_forward
    assert pass_flops(model, Pass(3, 0)) == expected
    assert pass_flops(model, Pass(3, 9)) == expected
    assert pass_flops(model, Pass(3, 0), keep_state=False) == expected - 2 * (2 * 2 * 3 * 3)
    assert head_flops(model, 10) == 2 * 10 * 4 * 7


def test_more_passes_cost_the_slept_windows_again() -> None:
    sleep = SleepConfig(window=10, passes=4)
    segments = cut_stream(22, sleep)
    once = [segment._replace(passes=1) for segment in segments]
    whole, tail, last = (
        pass_flops(PLAIN, each) for each in (Pass(10, 0), Pass(2, 0), Pass(10, 0, evicts=True))
    )
    read = Plan(sleep, once).flops(PLAIN)
    assert read == 2 * whole + tail
    assert Plan(sleep, segments).flops(PLAIN) - read == 2 * (2 * whole + last)


def test_no_tokens_cost_nothing() -> None:
    assert pass_flops(GROUPED, Pass(0, 0)) == 0
    assert Plan(SleepConfig(), [], rows=3).flops(GROUPED) == 0


def test_chunks_are_those_of_the_op() -> None:
    default = inspect.signature(gated_delta_rule).parameters["chunk_size"].default
    assert default == gated_mix.CHUNK_SIZE


def test_a_head_of_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.vocab_size is 0; set it"):
        head_flops(ModelConfig(), 3)
