"""Model sizes that contradict each other are refused by name."""

from typing import Any

import pytest

from slowwave.models.config import LayerType, ModelConfig
from slowwave.models.flops import written_span
from slowwave.models.mixers.mixer import find_mixer
from tiny_models import RECURRENT


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, r"model\.width is 0; use 1 or more"),
        ({"mlp_hidden": 0}, r"model\.mlp_hidden is 0; use 1 or more"),
        ({"attn_heads": 0}, r"model\.attn_heads is 0; use 1 or more"),
        ({"delta_heads": -1}, r"model\.delta_heads is -1; use 1 or more"),
        ({"key_dim": 0}, r"model\.key_dim is 0; use 1 or more"),
        ({"value_dim": 0}, r"model\.value_dim is 0; use 1 or more"),
        ({"vocab_size": -1}, r"model\.vocab_size is -1; use 0 or more"),
        ({"layers": ()}, r"model\.layers is \(\); name at least one mixer"),
        ({"prelude": -1}, r"model\.prelude is -1; use 0 or more blocks"),
        ({"coda": -1}, r"model\.coda is -1; use 0 or more blocks"),
        (
            {"prelude": 2, "coda": 1, "layers": ("attn", "gdn", "gdn")},
            r"model\.prelude is 2; with model\.coda = 1 leave one of 3 blocks between or more",
        ),
        ({"conv_width": 1}, r"model\.conv_width is 1; use 2 or more"),
        ({"max_beta": 0.0}, r"model\.max_beta is 0\.0; use a value in \(0, 2\]"),
        ({"max_beta": 2.5}, r"model\.max_beta is 2\.5; use a value in \(0, 2\]"),
        ({"initial_decay": 0.0}, r"model\.initial_decay is 0\.0; use 0\.001 or more"),
        ({"rope_theta": 0.0}, r"model\.rope_theta is 0\.0; use a positive base"),
        ({"attn_kv_heads": 2}, r"model\.attn_kv_heads is 2; use a divisor of attn_heads = 3"),
        ({"attn_kv_heads": 0}, r"model\.attn_kv_heads is 0; use a divisor of attn_heads = 3"),
        ({"attn_heads": 5}, r"model\.attn_heads is 5; use a divisor of width = 96"),
        ({"attn_head_dim": 0}, r"model\.attn_head_dim is 0; use an even size"),
        ({"attn_head_dim": 7}, r"model\.attn_head_dim is 7; use an even size"),
        ({"delta_value_heads": 4}, r"model\.delta_value_heads is 4; use a multiple of .* = 3"),
        ({"width": 4 * 10**12}, r"model\.width is 4000000000000; use 1,048,576 or less"),
        ({"mlp_hidden": 10**11}, r"model\.mlp_hidden is 100000000000; use 1,048,576 or less"),
        ({"attn_head_dim": 2**20 + 2}, r"model\.attn_head_dim is 1048578; use 1,048,576 or less"),
        (
            {"delta_value_heads": 3 * 2**20},
            r"model\.delta_value_heads is 3145728; use 1,048,576 or",
        ),
        ({"vocab_size": 10**12}, r"model\.vocab_size is 1000000000000; use 16,777,216 or less"),
        ({"layers": ("gdn",) * 20_000}, r"model\.layers has 20,000 mixers; use 4,096 or fewer"),
        ({"conv_width": 65}, r"model\.conv_width is 65; use 64 or less"),
        ({"initial_decay": 1e7}, r"model\.initial_decay is 10000000\.0; use 1,000,000 or less"),
        ({"delta_value_heads": 0}, r"model\.delta_value_heads is 0; use a multiple of .* = 3"),
    ],
)
def test_contradictions_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ModelConfig(**values)
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict({**values, "layers": list(values.get("layers", ["attn"]))})


def test_parts_of_a_stack() -> None:
    config = ModelConfig(layers=("gdn", "attn", "gdn", "attn", "attn"), prelude=1, coda=2)
    parts = [config.span(part) for part in ("all", "trunk", "core", "coda")]
    assert parts == [range(5), range(3), range(1, 3), range(3, 5)]
    mixers = [find_mixer(kind) for kind in config.layers]
    assert written_span(config.span("core"), mixers) == (range(1, 2), 2)
    assert written_span(config.span("coda"), mixers) == (range(3, 5), None)


def test_the_largest_sizes_are_taken() -> None:
    heads = {"attn_heads": 1, "attn_head_dim": 2**20, "delta_value_heads": 3 * 2**18}
    sizes = {"width": 2**20, "vocab_size": 2**24, "conv_width": 64, "initial_decay": 1e6}
    ModelConfig.from_dict({"layers": ["gdn"] * 4096, **sizes, **heads})


def test_unknown_mixers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layers\.1: .*got 'mamba'"):
        ModelConfig.from_dict({"layers": ["attn", "mamba"]})


def test_sizes_left_out_follow_from_others() -> None:
    config = ModelConfig(width=96, attn_heads=4, delta_heads=2)
    assert (config.head_dim, config.kv_heads, config.value_heads) == (24, 4, 2)
    config = ModelConfig(attn_kv_heads=1, attn_head_dim=10, delta_value_heads=6)
    assert (config.head_dim, config.kv_heads, config.value_heads) == (10, 1, 6)


@pytest.mark.parametrize("kind", RECURRENT)
def test_writing_ends_with_the_last_layer_that_has_fast_weights(kind: LayerType) -> None:
    gdn, recurrent, attention = find_mixer("gdn"), find_mixer(kind), find_mixer("attn")
    assert written_span(range(3), [gdn, recurrent, attention]) == (range(1), 1)
    assert written_span(range(2), [attention, attention]) == (range(2), None)


def test_round_trip() -> None:
    config = ModelConfig(layers=("gdn", "attn"), attn_kv_heads=1, max_beta=2.0)
    assert ModelConfig.from_dict(config.to_dict()) == config
