"""Models of other programs that are incomplete, damaged, unknown or too large are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from pretrained_models import NAMES, make_config, make_model
from slowwave.models.families.registry import read_pretrained_config
from slowwave.storage import pretrained
from slowwave.storage.json_files import read_json, write_json
from slowwave.storage.pretrained import open_pretrained

Values = dict[str, Any]
FLA_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_heads",
    "num_v_heads",
    "head_dim",
    "expand_v",
    "hidden_ratio",
    "intermediate_size",
    "attn",
    "conv_size",
    "norm_eps",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = make_model(make_config("llama"))
    model.save_pretrained(tmp_path)
    return tmp_path


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "mixtral"}, "a mixture of experts, whose routing slowwave does not"),
        ({"model_type": "qwen3_moe"}, "a mixture of experts"),
        ({"model_type": "bert"}, "slowwave reads llama, qwen2, qwen3, gemma3_text"),
        ({"model_type": None}, "model_type is missing"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "48"}, "hidden_size is '48', not of type int"),
        ({"hidden_size": True}, "hidden_size is True, not of type int"),
        ({"hidden_size": -4}, "model.width is -4"),
        ({"num_key_value_heads": 4}, "model.attn_kv_heads is 4; use a divisor"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', which slowwave does not compute"),
        ({"attention_bias": True}, "attention_bias is True, which slowwave does not compute"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "factor is missing"),
        ({"rope_parameters": 5}, "rope_parameters is no table"),
        ({"layer_types": ["full_attention"]}, "layer_types does not list 3 layers"),
        ({"layer_types": ["mamba"] * 3}, "layer_types has 'mamba'"),
    ],
)
def test_a_config_that_is_not_computed_is_refused(change: Values, sentence: str) -> None:
    values = make_config("llama").to_dict() | change
    with pytest.raises(ValueError, match=r"config\.json: ") as raised:
        read_pretrained_config(values, "config.json")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda held: held.pop("model.norm.weight"), "tensor model.norm.weight is missing"),
        (
            lambda held: held.update({"model.norm.weight": torch.ones(47)}),
            r"model.norm.weight has shape \(47,\), the config says \(48,\)",
        ),
        (
            lambda held: held["model.norm.weight"].fill_(torch.nan),
            "model.norm.weight has NaN or infinity",
        ),
    ],
)
def test_unfit_tensors_are_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    change_tensors(folder, change)
    with pytest.raises(ValueError, match=sentence):
        open_pretrained(folder).load()


def test_weights_keep_their_values_whatever_their_dtype(folder: Path) -> None:
    def narrow(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})

    before = open_pretrained(folder).load().state_dict()
    change_tensors(folder, narrow)
    for name, tensor in open_pretrained(folder).load().state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name].bfloat16().float())


def test_a_part_that_sees_is_left_out(folder: Path) -> None:
    """Names as of models that also see, whose text is a part of theirs."""
    expected = open_pretrained(folder).load().state_dict()

    def wrap(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            if name.startswith("model."):
                inner = name.removeprefix("model.")
                tensors[f"model.language_model.{inner}"] = tensors.pop(name)
        tensors["model.visual.patch.weight"] = torch.ones(3)

    change_tensors(folder, wrap)
    opened = open_pretrained(folder)
    assert opened.list_unused() == ["model.visual.patch.weight"]
    for name, tensor in opened.load().state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_a_text_config_within_another_is_found() -> None:
    values = make_config("gemma3").to_dict()
    wrapped = {"model_type": "gemma3", "text_config": values, "vision_config": {}}
    found = read_pretrained_config(wrapped, "config.json")
    assert found == read_pretrained_config(values, "config.json")
    with pytest.raises(ValueError, match="text_config is missing"):
        read_pretrained_config({"model_type": "gemma3"}, "config.json")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**12),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["rope_type", "factor", "layers", "num_heads"]), st.integers()),
)


@given(st.data())
def test_any_config_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever a config says, it is a model's sizes or one sentence."""
    values = make_config(data.draw(st.sampled_from(NAMES))).to_dict()
    for name in data.draw(st.lists(st.sampled_from(sorted(values)), max_size=4)):
        values[name] = data.draw(VALUES)
    check_read_or_refused(values)


@given(st.dictionaries(st.sampled_from(FLA_FIELDS), VALUES))
def test_any_config_of_fla_is_read_or_refused(changes: Values) -> None:
    values = {"model_type": "gated_deltanet", "vocab_size": 7, "num_hidden_layers": 3}
    check_read_or_refused({**values, "hidden_size": 8, **changes})


def check_read_or_refused(values: Values) -> None:
    try:
        read_pretrained_config(values, "config.json")
    except ValueError as error:
        assert str(error).startswith("config.json: ")
        assert "\n" not in str(error)
        assert len(str(error)) < 400


def test_older_configs_mean_the_same(folder: Path) -> None:
    values = read_json(folder / "config.json")
    rope = values.pop("rope_parameters")
    values["rope_theta"] = rope["rope_theta"]
    values["rope_scaling"] = {"type": "linear", "factor": 2.0}
    write_json(folder / "config.json", values)
    sizes = open_pretrained(folder).sizes
    assert sizes.rope_theta == rope["rope_theta"]
    assert sizes.traits.rope_scaling is not None
    assert sizes.traits.rope_scaling.factor == 2


def test_a_model_larger_than_memory_is_refused_with_both_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def have_little(needed_bytes: int, path: Path) -> None:
        from slowwave.storage.available_memory import require_memory

        (folder / "proc").mkdir(exist_ok=True)
        (folder / "proc" / "meminfo").write_text("MemAvailable: 1 kB\n")
        require_memory(needed_bytes, path, root=folder)

    monkeypatch.setattr(pretrained, "require_memory", have_little)
    with pytest.raises(ValueError, match=r"needs 0\.00 GiB of memory, and 0\.00 GiB"):
        open_pretrained(folder).load()


def test_a_folder_without_config_says_so(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config\.json"):
        open_pretrained(folder)
