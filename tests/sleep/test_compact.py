"""What holds for compact entries beside what holds for every consolidator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from numerics import assert_close
from slowwave.entries import PINNED, CompactKeyValues, Entries
from slowwave.models.backbone import HybridLM, find_rope
from slowwave.models.config import ModelConfig, RopeScaling, Traits
from slowwave.models.mixers.mixer import Watch
from slowwave.sleep.config import PRESETS, Compact, SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.consolidators.candidates import turn_stream
from slowwave.sleep.consolidators.consolidator import Replay
from slowwave.sleep.consolidators.entry_choice import Candidates, Reading, choose_entries
from slowwave.sleep.pin import pin_window
from slowwave.sleep.positions import turn_keys
from slowwave.sleep.stream import read_stream
from slowwave.state import KeyValues, MemoryState

VOCAB, WINDOW = 11, 12
DrawTokens = Callable[..., Tensor]
TRAITS = {
    "plain": Traits(),
    "gemma": Traits(attn_norms="both", qk_norm="head", attn_scale=0.3),
    "qwen": Traits(qkv_bias=True, attn_gate=True, rotary_share=0.5),
    "long": Traits(rope_scaling=RopeScaling(factor=4, original_length=16)),
    "no positions": Traits(rotary_share=0),
}


@pytest.fixture(params=TRAITS, autouse=False)
def talker(request: pytest.FixtureRequest) -> HybridLM:
    """Attention alone, two KV heads a layer."""
    return make_model(TRAITS[request.param])


def make_model(traits: Traits, layers: tuple[str, ...] = ("attn", "attn")) -> HybridLM:
    sizes = ModelConfig.from_dict(
        {
            "vocab_size": VOCAB,
            "width": 16,
            "layers": layers,
            "mlp_hidden": 24,
            "attn_heads": 4,
            "attn_kv_heads": 2,
            "attn_head_dim": 8,
            "delta_heads": 2,
            "key_dim": 4,
            "value_dim": 4,
            "traits": traits.to_dict(),
        }
    )
    return HybridLM(sizes).double().requires_grad_(False)


def sleep_with(passes: int = 2, **settings: object) -> SleepConfig:
    compact = {"ratio": 0.25, "capacity": 0.5, **settings}
    consolidator = Compact.from_dict({"kind": "compact", **compact})
    return SleepConfig(window=WINDOW, passes=passes, consolidator=consolidator)


def entries(state: MemoryState) -> list[CompactKeyValues]:
    found = [layer.compact for layer in state.layers if isinstance(layer, KeyValues)]
    return [each for each in found if each is not None]


def test_all_kept_is_full_context(talker: HybridLM, draw_tokens: DrawTokens) -> None:
    """Nothing is lost where everything may stay, over any number of sleeps."""
    sleep = sleep_with(ratio=1.0, capacity=9.0)
    tokens = draw_tokens(2, 4 * WINDOW + 5)
    hidden, state = read_stream(talker, tokens, talker.initial_state(2), sleep)
    full, _ = talker.read(tokens, talker.initial_state(2))
    assert_close(hidden, full, 1e-10)
    assert int(state.num_sleeps[0]) == 4


def test_fits_leave_all_as_it_is_where_all_stays(draw_tokens: DrawTokens) -> None:
    model, tokens = make_model(Traits()), draw_tokens(1, 2 * WINDOW + 3)
    hidden, _ = read_stream(
        model, tokens, model.initial_state(1), sleep_with(ratio=1.0, capacity=9.0, fits=True)
    )
    full, _ = model.read(tokens, model.initial_state(1))
    assert_close(hidden, full, 1e-8)


def test_positions_may_all_shift(talker: HybridLM, draw_tokens: DrawTokens) -> None:
    """Attention sees differences of positions alone, after a million tokens as well."""
    sleep = sleep_with()
    _, state = read_stream(talker, draw_tokens(1, 2 * WINDOW), talker.initial_state(1), sleep)
    assert state.position is not None
    expected, _ = talker.read(draw_tokens(1, 5, seed=1), state)
    rope = find_rope(talker.config)
    for shift in (1, 1000, 10**6):
        layers: list[KeyValues] = []
        for layer in state.layers:
            assert isinstance(layer, KeyValues) and layer.compact is not None
            (keys,) = layer.compact.keys
            offset = torch.full((len(keys),), shift)
            turned = keys if rope is None else turn_keys(keys, offset, rope)
            compact = dataclasses.replace(layer.compact, keys=turned[None])
            layers.append(dataclasses.replace(layer, compact=compact))
        position = state.position + shift
        moved = dataclasses.replace(state, layers=tuple(layers), position=position)
        hidden, _ = talker.read(draw_tokens(1, 5, seed=1), moved)
        assert_close(hidden, expected, 1e-9)


def test_positions_never_run_out(draw_tokens: DrawTokens) -> None:
    """Windows begin at the span at last; older keys are turned back, pinned ones stay."""
    model, sleep = make_model(Traits()), sleep_with(span=20)
    state, begins = pin_window(model, model.read(draw_tokens(1, 3), model.initial_state(1))[1]), []
    for seed in range(6):
        _, state = read_stream(model, draw_tokens(1, WINDOW, seed), state, sleep)
        assert state.position is not None
        begins.append(int(state.position))
        for layer in entries(state):
            pinned = layer.score == PINNED
            assert sorted(layer.position[pinned].tolist()) == [0, 0, 1, 1, 2, 2]
            assert (layer.position[~pinned] >= 3).all()
            assert (layer.position < state.position).all()
    assert begins == [15, 20, 20, 20, 20, 20]


def test_a_million_tokens_do_not_wear_keys(draw_tokens: DrawTokens) -> None:
    """In float32, in windows of 400, from the end of the default span."""
    model = make_model(Traits()).float()
    _, state = read_stream(model, draw_tokens(1, WINDOW), model.initial_state(1), sleep_with())
    heads = [head for each in entries(state) for head in each.list_heads()]
    late = [head._replace(position=head.position + Compact().span) for head in heads]
    once, worn = turn_stream(model, late, 10**6), late
    for _ in range(2500):
        worn = turn_stream(model, worn, 400)
    for each, exact in zip(worn, once, strict=True):
        assert torch.equal(each.position, exact.position)
        assert_close(each.keys, exact.keys, 1e-6)


def test_pinned_tokens_stay_as_they_are(talker: HybridLM, draw_tokens: DrawTokens) -> None:
    """A pinned prompt is read as if it stood in every window."""
    prompt, told = draw_tokens(2, 5), draw_tokens(2, 7, seed=1)
    _, read = talker.read(prompt, talker.initial_state(2))
    pinned = pin_window(talker, read)
    assert pinned.window_fill == 0 and pinned.counters.num_sleeps == 0
    expected, _ = talker.read(told, read)
    hidden, after = talker.read(told, pinned)
    assert_close(hidden, expected, 1e-10)
    slept = consolidate(talker, after, passes=2, sleep=sleep_with(ratio=0.01, capacity=0.05))
    for before, layer in zip(entries(pinned), entries(slept), strict=True):
        for old, new in zip(before.row(1).list_heads(), layer.row(1).list_heads(), strict=True):
            kept = new.take((new.score == PINNED).nonzero()[:, 0])
            assert all(map(torch.equal, kept, old))


def test_nothing_to_pin_is_refused() -> None:
    model = make_model(Traits())
    with pytest.raises(ValueError, match="window is empty"):
        pin_window(model, model.initial_state(1))


def test_budgets_and_capacity_are_kept(draw_tokens: DrawTokens) -> None:
    """A quarter of each window, then half a window's entries a head, beside the sinks."""
    model, counts = make_model(Traits()), list[int]()
    state = model.initial_state(1)
    for seed in range(5):
        _, state = read_stream(model, draw_tokens(1, WINDOW, seed), state, sleep_with())
        counts.append(sum(int(each.num_entries) for each in entries(state)))
    heads, sinks = 4, 4
    assert counts == [sinks + heads * 3] + [sinks + heads * 6] * 4


def test_uniform_budgets_are_equal(draw_tokens: DrawTokens) -> None:
    model = make_model(Traits())
    sleep = sleep_with(spread="uniform")
    _, state = read_stream(model, draw_tokens(2, 3 * WINDOW), model.initial_state(2), sleep)
    for layer in entries(state):
        assert layer.lengths.tolist() == [[7, 7], [7, 7]]  # the sink, and half a window


def test_entries_say_where_they_are_from(draw_tokens: DrawTokens) -> None:
    """Their values are those that a reading of the whole stream has at these places."""
    model, tokens = make_model(Traits(), ("attn",)), draw_tokens(1, 3 * WINDOW)
    _, full = model.read(tokens, model.initial_state(1))
    _, state = read_stream(model, tokens, model.initial_state(1), sleep_with())
    (layer,) = full.layers
    assert isinstance(layer, KeyValues)
    for h, head in enumerate(entries(state)[0].list_heads()):
        assert len(head.place) == len(set(head.place.tolist()))
        assert torch.equal(head.position, head.place), "the span is far"
        assert_close(head.values, layer.values[0, head.place, h], 1e-12)
    assert {int(place) // WINDOW for place in entries(state)[0].place[0]} == {0, 1, 2}


def test_padded_rows_sleep_as_they_do_alone(draw_tokens: DrawTokens) -> None:
    model, tokens = make_model(Traits()), draw_tokens(3, 2 * WINDOW)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, :5], mask[2, : WINDOW + 2] = False, False
    asked = draw_tokens(1, 4, seed=9)
    _, state = read_stream(model, tokens, model.initial_state(3), sleep_with(), mask=mask)
    together, _ = model.read(asked.expand(3, 4), state)
    for i, sizes in enumerate([(WINDOW, WINDOW), (WINDOW - 5, WINDOW), (WINDOW - 2,)]):
        alone, left = model.initial_state(1), tokens[i : i + 1, mask[i]]
        for piece in left.split(sizes, dim=1):
            alone = consolidate(model, model.read(piece, alone)[1], passes=2, sleep=sleep_with())
        assert_close(together[i : i + 1], model.read(asked, alone)[0], 1e-9)


def test_what_is_replayed_decides(draw_tokens: DrawTokens) -> None:
    """Tokens of which nothing is surprising ask nothing; others do."""
    model = make_model(Traits())
    _, read = model.read(draw_tokens(1, WINDOW), model.initial_state(1))
    told = draw_tokens(1, 5, seed=3)
    replays = [Replay(told, None, torch.tensor([nats])) for nats in ([1.0] * 5, [0.0] * 4 + [1.0])]
    kept = [
        [each.place.tolist() for each in entries(slept)]
        for replay in (None, *replays)
        for slept in [consolidate(model, read, passes=2, sleep=sleep_with(), replay=replay)]
    ]
    assert kept[0] != kept[1] != kept[2]


def test_further_readings_see_what_is_kept(draw_tokens: DrawTokens) -> None:
    """Their queries are those of a reader who has the entries alone."""
    model = make_model(Traits())
    _, read = model.read(draw_tokens(1, WINDOW), model.initial_state(1))
    twice, thrice = (
        entries(consolidate(model, read, passes=n, sleep=sleep_with(fits=True))) for n in (2, 3)
    )
    assert any(not torch.equal(a.bias, b.bias) for a, b in zip(twice, thrice, strict=True))


def test_queries_that_saw_few_are_asked_about_all() -> None:
    """What they saw of the kept is taken out of the sum, and all candidates are put in."""
    generator = torch.Generator().manual_seed(0)
    keys, own = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64)
    place = torch.arange(9)
    tokens = Entries.of_tokens(keys, keys, place, place)
    heads = Candidates(tokens.take(place[:3]), tokens.take(place[3:]), torch.eye(4).double(), 0.5)
    seen = tokens.take(torch.tensor([0, 2, 5]))
    queries = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    sums = [(0.5 * queries @ torch.cat([each, own]).mT).logsumexp(-1) for each in (seen.keys, keys)]
    weights = torch.ones(5, dtype=torch.float64)
    kept = choose_scores(heads, Reading(queries, sums[0], None, weights, weights[0], seen))
    full = choose_scores(heads, Reading(queries, sums[1], None, weights, weights[0], None))
    assert_close(kept, full, 1e-10)


def choose_scores(head: Candidates, reading: Reading) -> Tensor:
    """Scores of all that a head has after a sleep in which everything may stay."""
    everything = Compact(ratio=1.0, capacity=9.0)
    loose = head._replace(old=head.old._replace(score=0 * head.old.score))
    (chosen,) = choose_entries([loose], [[reading]], everything, 99)
    return chosen.score


def test_local_layers_keep_no_entries(draw_tokens: DrawTokens) -> None:
    model = make_model(Traits(local_window=6), ("local", "attn"))
    _, state = read_stream(model, draw_tokens(1, WINDOW), model.initial_state(1), sleep_with())
    local, attention = state.layers
    assert isinstance(local, KeyValues) and isinstance(attention, KeyValues)
    assert local.compact is None and attention.compact is not None


@pytest.mark.parametrize("others", ["evict", "passes"])
def test_recurrent_layers_sleep_as_they_are_told(draw_tokens: DrawTokens, others: str) -> None:
    model = make_model(Traits(), ("gdn", "attn"))
    _, read = model.read(draw_tokens(1, WINDOW), model.initial_state(1))
    slept = consolidate(model, read, passes=3, sleep=sleep_with(3, others=others))
    plain = SleepConfig(window=WINDOW, passes=1 if others == "evict" else 3)
    expected = consolidate(model, read, passes=plain.passes, sleep=plain)
    assert torch.equal(slept.fast_weights[0], expected.fast_weights[0])


def test_sliding_eviction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sleep\.eviction is sliding with"):
        SleepConfig(consolidator=Compact(), eviction="sliding", passes=2)


@pytest.mark.parametrize("name, value", [("ratio", 0), ("ratio", 2), ("capacity", 0), ("span", 0)])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"sleep\.consolidator\.{name} is {value}"):
        SleepConfig.from_dict({"consolidator": {"kind": "compact", name: value}})


def preset(name: str, **settings: object) -> SleepConfig:
    chosen = {"kind": name, **settings}
    return SleepConfig.from_dict({"window": WINDOW, "passes": 2, "consolidator": chosen})


@pytest.mark.parametrize("name", PRESETS)
def test_other_methods_are_settings(name: str, draw_tokens: DrawTokens) -> None:
    """Each sleeps; its settings are those of compact, which files hold, and may be changed."""
    sleep, changed = preset(name), preset(name, ratio=0.5)
    assert isinstance(sleep.consolidator, Compact) and isinstance(changed.consolidator, Compact)
    assert SleepConfig.from_dict(sleep.to_dict()) == sleep
    assert changed.consolidator == dataclasses.replace(sleep.consolidator, ratio=0.5)
    model = make_model(Traits())
    _, state = read_stream(model, draw_tokens(1, 3 * WINDOW), model.initial_state(1), changed)
    assert all(int(each.num_entries) > 2 for each in entries(state))


def test_streaming_keeps_the_first_token_and_the_newest(draw_tokens: DrawTokens) -> None:
    model, sleep = make_model(Traits()), preset("streaming", ratio=0.25, capacity=0.5)
    _, state = read_stream(model, draw_tokens(1, 3 * WINDOW), model.initial_state(1), sleep)
    for layer in entries(state):
        for head in layer.list_heads():
            assert head.place.tolist() == [0, 21, 22, 23, 33, 34, 35]


def test_the_last_window_may_stay(draw_tokens: DrawTokens) -> None:
    model = make_model(Traits())
    _, state = read_stream(
        model, draw_tokens(1, 3 * WINDOW), model.initial_state(1), preset("last_window")
    )
    for layer in entries(state):
        for head in layer.list_heads():
            assert head.place.tolist() == [0, *range(2 * WINDOW, 3 * WINDOW)]


def test_h2o_asks_what_the_window_itself_did(draw_tokens: DrawTokens) -> None:
    """Kept are the keys that its own causal attention looked at most."""
    model, sleep = make_model(Traits(), ("attn",)), preset("h2o", ratio=0.25)
    _, read = model.read(draw_tokens(1, WINDOW), model.initial_state(1))
    watch = Watch()
    model.run(model.embed(read.window_tokens), model.initial_state(1), watch=watch)
    (layer,) = read.layers
    assert isinstance(layer, KeyValues)
    keys = layer.keys[0].repeat_interleave(2, dim=1)
    scores = torch.einsum("thd,jhd->htj", watch.queries[0][0], keys) * 8**-0.5
    causal = torch.ones(WINDOW, WINDOW, dtype=torch.bool).tril()
    seen = scores.masked_fill(~causal, -torch.inf).softmax(-1).mean(1).unflatten(0, (2, 2)).mean(1)
    kept = entries(consolidate(model, read, passes=2, sleep=sleep))[0].list_heads()
    for mean, head in zip(seen, kept, strict=True):
        mean[0] = 1  # the first token stays beside them
        assert head.place.tolist() == sorted(mean.topk(4).indices.tolist())
        assert_close(head.score[1:].double(), mean[head.place[1:]], 1e-6)
