"""States are immutable data that know their size and can be copied, cut loose and emptied."""

import dataclasses

import pytest
import torch
from torch import Tensor

from slowwave.state import Band, FastWeights, KeyValues, MemoryState


def make_state(B: int = 2, W: int = 3, mask: Tensor | None = None) -> MemoryState:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return MemoryState(
        layers=(
            KeyValues(normal(B, W, 2, 4), normal(B, W, 2, 4)),
            FastWeights(normal(B, 2, 4, 5), normal(B, 3, 8)),
            FastWeights(normal(B, 2, 4, 5), normal(B, 3, 8)),
        ),
        window_tokens=torch.arange(B * W).view(B, W),
        window_mask=mask,
        window_hidden=normal(B, W, 6),
        tokens_seen=torch.full((B,), 10),
        num_sleeps=torch.full((B,), 4),
    )


def make_carrying_state() -> MemoryState:
    """Three tokens in a window that two earlier ones, the first a sink, were carried into."""
    slid = make_state(W=4, mask=torch.ones(2, 4, dtype=torch.bool)).slide(Band(2, 1))
    window = make_state()
    layers = tuple(
        KeyValues(
            torch.cat([old.keys, new.keys], dim=1), torch.cat([old.values, new.values], dim=1)
        )
        if isinstance(old, KeyValues) and isinstance(new, KeyValues)
        else old
        for old, new in zip(slid.layers, window.layers, strict=True)
    )
    return dataclasses.replace(
        slid,
        layers=layers,
        window_tokens=window.window_tokens,
        window_hidden=window.window_hidden,
        window_start=tuple(s if isinstance(s, FastWeights) else None for s in window.layers),
        wake_layers=(layers,),
    )


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


def test_sizes() -> None:
    state = make_state(mask=torch.ones(2, 3, dtype=torch.bool))
    assert (state.batch_size, state.window_fill) == (2, 3)
    keys_and_values, fast_weights, tail = 2 * 2 * 3 * 2 * 4 * 4, 2 * 2 * 4 * 5 * 4, 2 * 3 * 8 * 4
    window = 2 * 3 * 8 + 2 * 3 * 1 + 2 * 3 * 6 * 4  # tokens, mask, hidden
    assert state.cache_nbytes == keys_and_values + window
    assert state.nbytes == state.cache_nbytes + 2 * (fast_weights + tail)
    assert [weights.shape for weights in state.fast_weights] == [(2, 2, 4, 5)] * 2


def test_states_cannot_be_changed() -> None:
    state = make_state()
    for part, field in ((state, "layers"), *((layer, "keys") for layer in state.layers[:1])):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field, ())


@pytest.mark.parametrize("masked", [False, True])
def test_map_reaches_every_tensor(masked: bool) -> None:
    state = make_state(mask=torch.ones(2, 3, dtype=torch.bool) if masked else None)
    assert len(tensors(state)) == (9 if masked else 8)
    zeroed = state.map(torch.zeros_like)
    assert not any(tensor.any() for tensor in tensors(zeroed))
    assert zeroed.counters == (0, 0, 3)
    assert (zeroed.window_mask is None) == (state.window_mask is None)


def test_all_that_is_carried_counts_and_is_mapped() -> None:
    state = make_carrying_state()
    assert (state.num_carried, state.window_fill) == (2, 3)
    assert state.nbytes == sum(tensor.nbytes for tensor in tensors(state))
    assert len(tensors(state)) == 6 + 2 + 2 + 4 + 6
    repeated = state.repeat(2)
    assert repeated.carried is not None
    assert repeated.carried.start.tolist() == [4, 4, 4, 4]
    assert (repeated.carried.count, repeated.carried.band) == (2, Band(2, 1))
    assert all(len(tensor) == 4 for tensor in tensors(repeated))


def test_sliding_keeps_the_first_and_the_newest_tokens() -> None:
    state = make_carrying_state()
    (before, *_), slid = state.layers, state.slide(Band(3, 1))
    kept = slid.layers[0]
    assert isinstance(before, KeyValues)
    assert isinstance(kept, KeyValues)
    assert torch.equal(kept.keys, before.keys[:, [0, 3, 4]])
    assert torch.equal(kept.values, before.values[:, [0, 3, 4]])
    assert slid.carried is not None
    assert slid.carried.start.tolist() == [7, 7]
    assert slid.carried.mask is not None
    assert slid.carried.mask.shape == (2, 3)
    assert (slid.window_start, slid.wake_layers, slid.window_fill) == ((), (), 0)
    for old, new in zip(state.layers[1:], slid.layers[1:], strict=True):
        assert new is old


def test_eviction_leaves_what_was_carried() -> None:
    state = make_carrying_state()
    evicted = state.evict()
    assert evicted.carried is state.carried
    before, after = state.layers[0], evicted.layers[0]
    assert isinstance(before, KeyValues)
    assert isinstance(after, KeyValues)
    assert torch.equal(after.keys, before.keys[:, :2])
    assert (evicted.window_start, evicted.wake_layers, evicted.window_fill) == ((), (), 0)
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors(evicted))


def test_detach_cuts_the_graph() -> None:
    state = make_state().map(lambda x: x.requires_grad_() if x.is_floating_point() else x)
    assert any(tensor.requires_grad for tensor in tensors(state))
    assert not any(tensor.requires_grad for tensor in tensors(state.detach()))


def test_repeat_copies_each_stream_in_a_row() -> None:
    state = make_state(mask=torch.tensor([[True, False, True], [True, True, True]]))
    repeated = state.repeat(3)
    assert repeated.batch_size == 6
    for tensor, copies in zip(tensors(state), tensors(repeated), strict=True):
        for row in range(6):
            assert torch.equal(copies[row], tensor[row // 3])
    with pytest.raises(ValueError, match="copies must be at least 1, got 0"):
        state.repeat(0)


def test_eviction_leaves_the_fast_weights_and_the_counters() -> None:
    state = make_state(mask=torch.ones(2, 3, dtype=torch.bool))
    evicted = state.evict()
    assert evicted.cache_nbytes == 0
    assert evicted.window_mask is None
    assert (evicted.batch_size, evicted.window_fill) == (2, 0)
    assert (evicted.counters.tokens_seen, evicted.counters.num_sleeps) == (10, 4)
    for before, after in zip(state.fast_weights, evicted.fast_weights, strict=True):
        assert after is before
    for layer in evicted.layers:
        if isinstance(layer, FastWeights):
            assert layer.conv_tail.shape == (2, 3, 8)
            assert not layer.conv_tail.any()
    assert {tensor.dtype for tensor in tensors(evicted)} == {torch.float32, torch.int64}


def test_eviction_lets_go_of_what_it_drops() -> None:
    """A view of no tokens would keep the whole window's storage alive."""
    evicted = make_state().evict()
    for tensor in tensors(evicted):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_rows_stacked_again_are_the_batch() -> None:
    state = make_carrying_state()
    stacked = MemoryState.stack([state.row(0), state.row(1)])
    assert stacked.tensors().keys() == state.tensors().keys()
    for name, tensor in stacked.tensors().items():
        assert torch.equal(tensor, state.tensors()[name]), name
    assert stacked.counters == state.counters


def test_rows_keep_their_own_counters() -> None:
    state = make_state()
    state = dataclasses.replace(state, tokens_seen=torch.tensor([10, 12]))
    assert [state.row(i).counters.tokens_seen for i in (0, 1)] == [10, 12]
    with pytest.raises(ValueError, match="stand at different places; take a row alone"):
        _ = state.counters


def test_tensors_have_the_names_that_files_have() -> None:
    state = make_carrying_state()
    names = state.tensors().keys()
    assert {"window.tokens", "window.hidden", "carried.start", "layers.0.keys"} <= names
    assert {"layers.1.fast_weights", "window_start.1.conv_tail", "wake.2.0.values"} <= names
    assert "window_start.0.keys" not in names, "attention notes nothing at a window's start"
