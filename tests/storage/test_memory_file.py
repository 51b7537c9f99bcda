"""Memory files: exact to the bit at any token, and refused in one sentence when they do not fit."""

from __future__ import annotations

import dataclasses
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.models.config import LayerType, ModelConfig
from slowwave.sleep.config import Compact, Passes, SleepConfig
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState
from slowwave.storage.checkpoint import fingerprint_model
from slowwave.storage.memory_file import (
    load_memory,
    read_fast_weights,
    read_header,
    save_memory,
)
from tensor_files import read_metadata, replace_tensor, rewrite, write_metadata

WINDOW = 5
SIZES = ModelConfig(
    vocab_size=11,
    width=16,
    layers=("attn", "gdn", "attn", "gdn"),
    mlp_hidden=24,
    attn_heads=4,
    attn_kv_heads=2,
    delta_heads=2,
    delta_value_heads=4,
    key_dim=4,
    value_dim=6,
)
MODELS = {
    "gdn": HybridLM(SIZES),
    "all layers": HybridLM(dataclasses.replace(SIZES, layers=get_args(LayerType)), seed=1),
    "coda": HybridLM(dataclasses.replace(SIZES, prelude=1, coda=2), seed=2),
    "bfloat16": HybridLM(SIZES, seed=3),
    "bfloat16 weights": HybridLM(SIZES, seed=4).bfloat16(),
    "float64": HybridLM(SIZES, seed=5).double(),
}
MODELS["bfloat16"].set_compute_dtype(torch.bfloat16)
SLEEPS = {
    "all": SleepConfig(window=WINDOW, passes=3),
    "plain": SleepConfig(window=WINDOW),
    "reset": SleepConfig(window=WINDOW, passes=2, consolidator=Passes(between_passes="reset")),
    "sliding": SleepConfig(window=WINDOW, passes=2, eviction="sliding"),
    "compact": SleepConfig(
        window=WINDOW, passes=2, consolidator=Compact(ratio=0.6, capacity=0.8, span=9)
    ),
    "sinks": SleepConfig(window=WINDOW, passes=2, eviction="sliding", sinks=2),
    "none": SleepConfig(window=WINDOW, eviction="none"),
    "wake": SleepConfig(window=WINDOW, passes=2, wake_passes=3),
}
PLAIN = SLEEPS["all"]
MODEL = MODELS["gdn"]


def save(
    path: Path, state: MemoryState, model: HybridLM = MODEL, sleep: SleepConfig = PLAIN
) -> None:
    save_memory(path, state, model, tokenizer="bytes", sleep=sleep)


def load(
    path: Path, model: HybridLM = MODEL, sleep: SleepConfig = PLAIN, batch_size: int = 1
) -> MemoryState:
    return load_memory(path, model, tokenizer="bytes", sleep=sleep, batch_size=batch_size)


def draw_tokens(B: int, T: int, seed: int = 0) -> Tensor:
    return torch.randint(11, (B, T), generator=torch.Generator().manual_seed(seed))


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


def assert_same(actual: MemoryState, expected: MemoryState) -> None:
    counters = [
        (s.counters.tokens_seen, s.counters.num_sleeps, s.window_fill, s.num_carried)
        for s in (actual, expected)
    ]
    assert counters[0] == counters[1]
    for mine, other in zip(tensors(actual), tensors(expected), strict=True):
        assert mine.dtype == other.dtype
        assert torch.equal(mine, other)


def read(
    model: HybridLM,
    tokens: Tensor,
    state: MemoryState,
    sleep: SleepConfig,
    mask: Tensor | None = None,
) -> tuple[Tensor, MemoryState]:
    """Token by token, as replies are read."""
    hiddens: list[Tensor] = []
    for i in range(tokens.shape[1]):
        piece = None if mask is None else mask[:, i : i + 1]
        hidden, state = read_stream(model, tokens[:, i : i + 1], state, sleep, mask=piece)
        hiddens.append(hidden)
    return torch.cat(hiddens, dim=1), state


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A window of three tokens after two sleeps."""
    with torch.inference_mode():
        _, state = read_stream(MODEL, draw_tokens(1, 13), MODEL.initial_state(1), PLAIN)
    save(tmp_path / "memory", state)
    return tmp_path / "memory"


# Exact.


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    ("kind", "setting"),
    [("gdn", name) for name in SLEEPS]
    + [("all layers", name) for name in ("all", "sliding", "none")]
    + [("coda", name) for name in ("all", "sinks", "none")]
    + [(name, "all") for name in MODELS],
)
def test_going_on_is_as_never_having_stopped(
    kind: str, setting: str, mode: Callable[[], Any], tmp_path: Path
) -> None:
    """At every token of three windows."""
    model, sleep = MODELS[kind], SLEEPS[setting]
    tokens = draw_tokens(1, 3 * WINDOW + 4)
    with mode():
        whole, end = read(model, tokens, model.initial_state(1), sleep)
        state = model.initial_state(1)
        for t in range(tokens.shape[1]):
            save(tmp_path / "memory", state, model, sleep)
            loaded = load(tmp_path / "memory", model, sleep)
            assert_same(loaded, state)
            if t % 3 == 0:
                hidden, last = read(model, tokens[:, t:], loaded, sleep)
                assert torch.equal(hidden, whole[:, t:])
                assert_same(last, end)
            _, state = read(model, tokens[:, t : t + 1], state, sleep)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    setting=st.sampled_from(sorted(SLEEPS)),
    B=st.integers(1, 3),
    cut=st.integers(1, 17),
    calls=st.lists(st.integers(1, 8), max_size=4),
    padding=st.sets(st.integers(0, 53)),
)
def test_batches_with_padding(
    setting: str, B: int, cut: int, calls: list[int], padding: set[int], tmp_path: Path
) -> None:
    sleep, tokens = SLEEPS[setting], draw_tokens(B, 18)
    mask = torch.ones(B * 18, dtype=torch.bool)
    mask[[i for i in padding if i < B * 18]] = False
    mask = mask.view(B, 18) if padding else None
    with torch.inference_mode():
        _, state = read(MODEL, tokens[:, :cut], MODEL.initial_state(B), sleep, mask)
        save(tmp_path / "memory", state, sleep=sleep)
        loaded = load(tmp_path / "memory", sleep=sleep, batch_size=B)
        assert_same(loaded, state)
        for T in calls:
            more = draw_tokens(B, T, seed=T)
            (hidden, loaded), (expected, state) = (
                read_stream(MODEL, more, s, sleep) for s in (loaded, state)
            )
            assert torch.equal(hidden, expected)
        assert_same(loaded, state)


def with_delta(state: MemoryState, model: HybridLM = MODEL) -> MemoryState:
    """The state with changes of rank 3 that change what is read."""
    delta = model.initial_delta(state.batch_size, 3).map(torch.randn_like)
    return dataclasses.replace(state, delta=delta)


@pytest.mark.parametrize("kind", ["gdn", "bfloat16", "float64"])
def test_a_delta_goes_with_its_state(kind: str, tmp_path: Path) -> None:
    model, path = MODELS[kind], tmp_path / "memory"
    with torch.inference_mode():
        state = with_delta(model.initial_state(2), model)
        _, state = read(model, draw_tokens(2, 7), state, PLAIN)
        save(path, state, model)
        loaded = load(path, model, batch_size=2)
        assert_same(loaded, state)
        assert loaded.delta is not None
        expected, _ = read(model, draw_tokens(2, 4, 1), state, PLAIN)
        found, _ = read(model, draw_tokens(2, 4, 1), loaded, PLAIN)
    assert torch.equal(found, expected)
    assert read_header(path).rank == 3


def test_a_delta_of_another_model_is_refused(tmp_path: Path) -> None:
    """Though its sizes are the same."""
    path = tmp_path / "memory"
    save(path, with_delta(MODEL.initial_state(1)))
    with pytest.raises(ValueError, match="memory of another model; load it with the one"):
        load(path, HybridLM(SIZES, seed=9))


def test_a_delta_that_is_not_what_the_header_tells(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    save(path, with_delta(MODEL.initial_state(1)))
    for rank, message in (
        (0, "tensor delta.layers.0.down does not belong"),
        (4, r"tensor delta.layers.0.down is F32 \(1, 3, 24\), the model makes it F32 \(1, 4, 24"),
        (-1, "rank is -1, which no delta has; restore the file"),
        (2**62, "rank is 4611686018427387904, which no delta has"),
    ):
        rewrite(path, lambda values, rank=rank: values.update(rank=rank))
        with pytest.raises(ValueError, match=message):
            load(path)


def test_equal_states_make_equal_files(tmp_path: Path) -> None:
    """Whether they were read at once or token by token, into buffers with room to grow."""
    tokens = draw_tokens(1, 8)
    with torch.inference_mode():
        _, state = read(MODEL, tokens, MODEL.initial_state(1), PLAIN)
    save(tmp_path / "grown", state)
    save(tmp_path / "again", state)
    save(tmp_path / "loaded", load(tmp_path / "grown"))
    contents = {(tmp_path / name).read_bytes() for name in ("grown", "again", "loaded")}
    assert len(contents) == 1
    assert len(contents.pop()) < 2 * state.nbytes + 4096


def test_loaded_tensors_are_aligned_and_own_their_memory(saved: Path) -> None:
    for tensor in tensors(load(saved)):
        assert tensor.data_ptr() % 64 == 0
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_the_header_can_be_read_without_the_model(saved: Path) -> None:
    header = read_header(saved)
    assert (header.window_fill, header.tokens_seen, header.num_sleeps) == (3, 13, 2)
    assert (header.layers, header.sleep, header.tokenizer) == (SIZES.layers, PLAIN, "bytes")
    assert header.model == fingerprint_model(MODEL)


def test_a_fingerprint_follows_the_weights() -> None:
    model = HybridLM(SIZES)
    before = fingerprint_model(model)
    assert before == fingerprint_model(MODEL) == fingerprint_model(model)
    with torch.no_grad():
        model.final_norm.weight[3] += 1e-6
    changed = fingerprint_model(model)
    assert changed != before
    assert fingerprint_model(HybridLM(dataclasses.replace(SIZES, max_beta=2.0))) != before
    model.load_state_dict(MODEL.state_dict())
    assert fingerprint_model(model) == before


# Refused.


def fill(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return change


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, 1000, -1])
def test_truncated_files(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"memory: truncated or not a memory file \(.+\); restore"):
        load(saved)


@pytest.mark.parametrize("read", [load, read_header, read_fast_weights])
def test_no_flipped_bit_is_read(saved: Path, read: Callable[[Path], object]) -> None:
    whole, generator = saved.read_bytes(), random.Random(0)
    damaged = saved.with_name("damaged")
    for _ in range(300):
        content = bytearray(whole)
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match="damaged: ") as refusal:
            read(damaged)
        assert "\n" not in str(refusal.value)


def test_a_checksum_is_of_every_byte(saved: Path) -> None:
    rewrite(saved, lambda values: None)  # as the docs say
    load(saved)
    rewrite(saved, lambda values: values.update(tokens_seen=14))
    assert read_header(saved).tokens_seen == 14
    saved.write_bytes(saved.read_bytes().replace(rb"tokens_seen\":14", rb"tokens_seen\":15"))
    with pytest.raises(ValueError, match="memory: damaged, its checksum is of another content"):
        read_header(saved)


@pytest.mark.parametrize("checksum", [None, "", "x", "0" * 64, 7])
def test_wrong_checksums(saved: Path, checksum: Any) -> None:
    text = json.loads(read_metadata(saved)) | {"checksum": checksum}
    saved.write_bytes(
        safetensors.torch.save(
            safetensors.torch.load(saved.read_bytes()), {"slowwave": json.dumps(text)}
        )
    )
    with pytest.raises(ValueError, match=r"memory: (checksum|damaged, its checksum is of another)"):
        load(saved)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_refused(saved: Path, data: st.DataObject) -> None:
    """Any bytes put in any place: an error in one sentence, unless they were there before."""
    whole = saved.read_bytes()
    place = data.draw(st.integers(0, min(len(whole), 1500)))
    junk = data.draw(st.binary(min_size=1, max_size=12))
    damaged = saved.with_name("damaged")
    damaged.write_bytes(whole[:place] + junk + whole[place + len(junk) :])
    try:
        load(damaged)
    except ValueError as error:
        assert str(damaged) in str(error)
        assert "\n" not in str(error)
    else:
        assert damaged.read_bytes() == whole


def test_foreign_files(saved: Path) -> None:
    saved.write_bytes(safetensors.torch.save({"x": torch.zeros(3)}))
    with pytest.raises(ValueError, match="a safetensors file, but not a memory file; name another"):
        load(saved)
    saved.write_bytes(b"SQLite format 3\0" * 50)
    with pytest.raises(ValueError, match=r"not a memory file \(.+\); restore it, or name another"):
        load(saved)
    with pytest.raises(ValueError, match=r"memory\.other: no such file; name a memory file"):
        load(saved.with_suffix(".other"))


def test_a_long_header_is_not_even_parsed(saved: Path) -> None:
    junk = b" " * (1 << 20)
    saved.write_bytes(struct.pack("<Q", len(junk) + 2) + b"{}" + junk)
    with pytest.raises(ValueError, match="its header is too long for a memory file; restore it"):
        load(saved)


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", "{}", "[" * 10_000, '{"format": NaN}', "1" * 9999]
)
def test_hostile_metadata(saved: Path, text: str) -> None:
    write_metadata(saved, text)
    with pytest.raises(ValueError, match=r"memory: (not the header of a memory file|format nan)"):
        load(saved)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 5, "format 5, but this slowwave reads formats 1 to 4; use the slowwave that"),
        ("format", True, "format True, but this slowwave reads formats 1 to 4"),
        ("format", 2.0, r"format 2\.0, but this slowwave reads formats 1 to 4"),
        ("format", "1", "format '1', but this slowwave reads formats 1 to 4"),
        ("format", 1, "checksum is .+ in format 1; restore it"),
        (
            "layers",
            ["gdn", "attn"] * 2,
            "its layers are not those of its model, attn, gdn, attn, gdn",
        ),
        ("tokens_seen", 4, "tokens_seen is 4 with 3 in the window after 2 sleeps; restore the"),
        ("tokens_seen", 2**53 + 1, "tokens_seen is 9007199254740993 with 3 in the window after"),
        ("model", "0" * 64, "the memory of another model; load it with the one that read it"),
        ("tokenizer", "words", "its tokens are of another tokenizer; use that of its model"),
        ("batch_size", 2, "holds 2 streams, not 1; load it as a batch of that many"),
        ("batch_size", 0, "a count is negative"),
        ("window_fill", -1, "a count is negative"),
        ("num_sleeps", -1, "a count is negative"),
        ("window_fill", 5, "window_fill is 5 with sleep.window 5, at which it would have slept"),
        ("window_fill", 2, r"tensor layers.0.keys is F32 \(1, 3, 2, 4\), the model makes it F32"),
        ("window_fill", "many", "window_fill: Input should be a valid integer"),
        ("window_padded", True, "tensor window.mask is missing"),
        ("carried", 3, "carried is 3 after 2 sleeps with sleep.eviction all"),
        ("batch_size", 10**80, "a count is too large; restore the file"),
        ("window_fill", 10**80, "a count is too large; restore the file"),
        ("more", 1, "more: unknown key in MemoryHeader"),
    ],
)
def test_headers_that_do_not_fit(saved: Path, key: str, value: Any, message: str) -> None:
    rewrite(saved, lambda values: values.update({key: value}))
    with pytest.raises(ValueError, match=f"memory: {message}"):
        load(saved)


def test_a_window_larger_than_the_file(tmp_path: Path) -> None:
    """Where nothing is evicted, no setting bounds the window."""
    sleep = SLEEPS["none"]
    save(tmp_path / "memory", MODEL.initial_state(1), sleep=sleep)
    for size in (10**6, 10**15):
        changes = {"window_fill": size, "tokens_seen": size}
        rewrite(tmp_path / "memory", lambda values, changes=changes: values.update(changes))
        with pytest.raises(ValueError, match=f"tells of {size} tokens, more than it can hold"):
            load(tmp_path / "memory", sleep=sleep)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "layers.1.fast_weights",
            fill(float("nan")),
            "fast_weights holds NaN or infinity; go back",
        ),
        ("window.hidden", fill(float("inf")), "tensor window.hidden holds NaN or infinity"),
        ("window.tokens", fill(11), "the window holds a token out of 0 to 10"),
        ("window.tokens", fill(-1), "the window holds a token out of 0 to 10"),
        ("layers.0.keys", lambda t: t.double(), r"layers.0.keys is F64 \(1, 3, 2, 4\), the model"),
        (
            "layers.1.fast_weights",
            lambda t: t[:, :3].clone(),
            r"F32 \(1, 3, 4, 6\), the model makes",
        ),
        ("layers.3.conv_tail", lambda _: None, "tensor layers.3.conv_tail is missing"),
        ("layers.4.keys", lambda t: t, "tensor layers.4.keys does not belong to it"),
    ],
)
def test_tensors_that_do_not_fit(
    saved: Path, name: str, change: Callable[[Tensor], Tensor | None], message: str
) -> None:
    replace_tensor(saved, name, change)
    with pytest.raises(ValueError, match=f"memory: .*{message}"):
        load(saved)


def test_masks_and_places_that_do_not_fit(tmp_path: Path) -> None:
    sleep, path = SLEEPS["sliding"], tmp_path / "memory"
    mask = torch.ones(1, 8, dtype=torch.bool)
    with torch.inference_mode():
        _, state = read_stream(MODEL, draw_tokens(1, 8), MODEL.initial_state(1), sleep, mask=mask)
    save(path, state, sleep=sleep)
    replace_tensor(path, "carried.start", fill(9))
    with pytest.raises(ValueError, match=r"carried\.start is no place in the stream"):
        load(path, sleep=sleep)
    save(path, state, sleep=sleep)
    replace_tensor(path, "window.mask", lambda t: t.view(torch.uint8).mul(2).view(torch.bool))
    loaded = load(path, sleep=sleep).window_mask
    assert loaded is not None
    assert loaded.view(torch.uint8).tolist() == [[1, 1, 1]]
    save(path, state, sleep=sleep)
    rewrite(path, lambda values: values.update(carried=5))
    with pytest.raises(ValueError, match="carried is 5, more than slides"):
        load(path, sleep=sleep)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layers.0.compact.lengths", -1, r"layers\.0\.compact\.lengths are not of \d+ entries"),
        ("layers.0.compact.lengths", 9, r"layers\.0\.compact\.lengths are not of \d+ entries"),
        ("layers.2.compact.place", 99, r"layers\.2\.compact\.place is no place in the stream"),
        ("layers.2.compact.position", -1, r"compact\.position is no place in the stream"),
        ("position", 99, "position is no place in the stream"),
    ],
)
def test_entries_that_cannot_be(tmp_path: Path, name: str, value: int, message: str) -> None:
    sleep, path = SLEEPS["compact"], tmp_path / "memory"
    with torch.inference_mode():
        _, state = read_stream(MODEL, draw_tokens(1, 8), MODEL.initial_state(1), sleep)
    save(path, state, sleep=sleep)
    assert load(path, sleep=sleep).num_entries == state.num_entries > 0
    replace_tensor(path, name, fill(value))
    with pytest.raises(ValueError, match=message):
        load(path, sleep=sleep)


def test_no_head_has_less_than_no_entry(tmp_path: Path) -> None:
    sleep, path = SLEEPS["compact"], tmp_path / "memory"
    with torch.inference_mode():
        _, state = read_stream(MODEL, draw_tokens(1, 8), MODEL.initial_state(1), sleep)
    save(path, state, sleep=sleep)
    replace_tensor(
        path,
        "layers.0.compact.lengths",
        lambda t: torch.stack([-t[:, 0], t[:, 1] + 2 * t[:, 0]], 1),
    )
    with pytest.raises(ValueError, match=r"lengths are not of \d+ entries"):
        load(path, sleep=sleep)


def test_layers_that_keep_none_have_no_entries(tmp_path: Path) -> None:
    sleep, path = SLEEPS["compact"], tmp_path / "memory"
    with torch.inference_mode():
        _, state = read_stream(MODEL, draw_tokens(1, 8), MODEL.initial_state(1), sleep)
    for entries in ([4, 1, 4, 0], [4, 0, 4]):
        save(path, state, sleep=sleep)
        rewrite(path, lambda values, counts=entries: values.update(entries=counts))
        with pytest.raises(ValueError, match="which its layers do not keep"):
            load(path, sleep=sleep)


def test_other_models_and_settings(saved: Path) -> None:
    with pytest.raises(ValueError, match="the memory of another model"):
        load(saved, HybridLM(SIZES, seed=9))
    with pytest.raises(ValueError, match=r"was read with sleep\.passes 3, not 2; go on with"):
        load(saved, sleep=dataclasses.replace(PLAIN, passes=2))
    other = HybridLM(SIZES)
    other.set_compute_dtype(torch.bfloat16)
    with pytest.raises(ValueError, match=r"keys is F32 \(1, 3, 2, 4\), the model makes it BF16"):
        load(saved, other)


def test_a_state_that_would_be_refused_is_not_written(saved: Path) -> None:
    state, before = load(saved), saved.read_bytes()
    for wrong in (
        state.map(lambda t: t * float("nan") if t.is_floating_point() else t),
        dataclasses.replace(state, layers=state.layers[:-1]),
        dataclasses.replace(state, window_tokens=state.window_tokens + 11),
        state.map(lambda t: t.bfloat16() if t.is_floating_point() else t),
    ):
        with pytest.raises(ValueError, match=r"^the state: "):
            save(saved, wrong)
    _, unnoted = MODELS["coda"].read(draw_tokens(1, 2), MODELS["coda"].initial_state(1))
    with pytest.raises(ValueError, match=r"the state: tensor window_start\.3\.\w+ is missing"):
        save(saved, unnoted, MODELS["coda"])
    assert saved.read_bytes() == before
