"""GGUF files of families are read as the models that they were made of."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from numerics import TOLERANCE, assert_close
from pretrained_models import make_config, make_model
from slowwave.ops.attention import Rope
from slowwave.storage.gguf_model import INNER, OUTER, SANDWICH
from slowwave.storage.pretrained import open_pretrained

ARCHITECTURES = {"llama": "llama", "llama 3": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
ARCHITECTURES["gemma3"] = "gemma3"


def write_model(path: Path, name: str, model: Any) -> None:
    """A file as llama.cpp's converter writes one."""
    config, kind = model.config, ARCHITECTURES[name]
    writer = gguf.GGUFWriter(path, kind)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None)
    if head_dim:
        writer.add_key_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_context_length(config.max_position_embeddings)
    if kind == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    else:
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    for theirs, tensor in model.state_dict().items():
        if theirs == "lm_head.weight" and config.tie_word_embeddings:
            continue
        writer.add_tensor(rename(kind, theirs), prepare(kind, config, theirs, tensor))
    if name == "llama 3":
        writer.add_tensor("rope_freqs.weight", list_divisors(config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rename(kind: str, name: str) -> str:
    body, _, end = name.rpartition(".")
    if body in OUTER:
        return f"{OUTER[body]}.{end}"
    _, _, place, inner = body.split(".", 3)
    names = INNER | (SANDWICH if kind == "gemma3" else {})
    return f"blk.{place}.{names[inner]}.{end}"


def prepare(kind: str, config: Any, name: str, tensor: Tensor) -> np.ndarray[Any, Any]:
    if kind == "llama" and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_" in name else config.num_key_value_heads
        halves = tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2)
        tensor = halves.reshape(tensor.shape)
    if kind == "gemma3" and "norm" in name:
        tensor = tensor + 1
    return tensor.contiguous().numpy()


def list_divisors(config: Any) -> np.ndarray[Any, Any]:
    size, theta, cpu = config.head_dim, config.rope_parameters["rope_theta"], torch.device("cpu")
    plain = Rope(size, theta).frequencies(torch.float64, cpu)
    scaled = Rope(size, theta, 8.0, 8192).frequencies(torch.float64, cpu)
    return (plain / scaled).float().numpy()


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_a_file_is_read_as_the_model_it_was_made_of(name: str, tmp_path: Path) -> None:
    config = make_config(name)
    if name == "gemma3":
        config.query_pre_attn_scalar = config.head_dim
        config.sliding_window_pattern, config.layer_types = 6, None
        config = type(config).from_dict(config.to_dict())
    if name == "llama 3":
        config.rope_parameters["original_max_position_embeddings"] = 8192
    model = make_model(config)
    write_model(tmp_path / "model.gguf", name, model)
    opened = open_pretrained(tmp_path / "model.gguf")
    ours = opened.load()
    tokens = torch.randint(3, 97, (1, 40), generator=torch.Generator().manual_seed(1))
    assert_close(ours(tokens)[0], model(tokens).logits, TOLERANCE[torch.float32])
    scaling = opened.sizes.traits.rope_scaling
    assert (scaling and scaling.factor) == (8 if name == "llama 3" else None)
    assert opened.list_unused() == (["rope_freqs.weight"] if name == "llama 3" else [])


def test_unknown_divisors_of_frequencies_are_refused(tmp_path: Path) -> None:
    config = make_config("llama 3")
    path = tmp_path / "model.gguf"
    config.rope_parameters["rope_theta"] = 5000.0
    model = make_model(config)
    list_wrong = np.linspace(1, 3, config.head_dim // 2, dtype=np.float32)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_rope_freq_base(5000.0)
    writer.add_tensor("rope_freqs.weight", list_wrong)
    writer.add_tensor("output_norm.weight", model.model.norm.weight.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="divisors of no scaling that slowwave knows"):
        open_pretrained(path)


def test_an_architecture_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_tensor("x.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"architecture is 'bert', .* it reads llama, qwen2"):
        open_pretrained(path)
