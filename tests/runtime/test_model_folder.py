"""A folder is a whole model to talk to."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.models.int8 import Int8Embedding
from slowwave.models.linear import Embedding
from slowwave.runtime.config import ChatFormat
from slowwave.runtime.model_folder import TalkerConfig, load, save
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import ByteTokenizer, FileTokenizer

CONFIG = TalkerConfig(
    model=ModelConfig(vocab_size=256, width=16, mlp_hidden=24, attn_heads=2, delta_heads=2),
    sleep=SleepConfig(window=9, passes=3),
    chat=ChatFormat(),
)


def test_bytes(tmp_path: Path) -> None:
    model = HybridLM(CONFIG.model, seed=5)
    save(tmp_path / "model", model, ByteTokenizer(), CONFIG)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    loaded, tokenizer, sleep, chat = load(tmp_path / "model")
    assert (loaded.config, sleep, chat) == (CONFIG.model, CONFIG.sleep, CONFIG.chat)
    assert tokenizer.fingerprint == ByteTokenizer().fingerprint
    tokens = torch.tensor([tokenizer.encode("Hello")])
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])


def test_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "t.json"))
    original = FileTokenizer(tmp_path / "t.json")
    save(tmp_path / "model", HybridLM(CONFIG.model), original, CONFIG)
    loaded = load(tmp_path / "model").tokenizer
    assert loaded.fingerprint == original.fingerprint
    assert loaded.encode("Where is Ann?") == original.encode("Where is Ann?")


def test_precision_is_kept(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, precision="bfloat16", chat=None)
    save(tmp_path, HybridLM(CONFIG.model), ByteTokenizer(), config)
    model, _, _, chat = load(tmp_path)
    assert {s.narrow_dtype for s in model.initial_state(1).layers} == {torch.bfloat16}
    assert chat is None


def test_weights_in_int8(tmp_path: Path) -> None:
    """By the folder's config, or for one load; the file keeps float32."""
    save(tmp_path / "exact", HybridLM(CONFIG.model), ByteTokenizer(), CONFIG)
    config = dataclasses.replace(CONFIG, precision="int8")
    save(tmp_path / "model", HybridLM(CONFIG.model), ByteTokenizer(), config)
    models = [load(tmp_path / "model"), load(tmp_path / "exact", precision="int8")]
    for loaded in models:
        assert isinstance(loaded.model.embedding, Int8Embedding)
        assert loaded.model.embedding.weight.dtype == torch.int8
    assert isinstance(load(tmp_path / "model", precision="float32").model.embedding, Embedding)
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(*(loaded.model(tokens)[0] for loaded in models))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json; name the folder of a model to ta"):
        load(tmp_path)
    (tmp_path / "notes.txt").write_text("no folder")
    with pytest.raises(ValueError, match=r"notes\.txt: is a file; name the folder of a model"):
        load(tmp_path / "notes.txt")
    save(tmp_path, HybridLM(CONFIG.model), ByteTokenizer(), CONFIG)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file"):
        load(tmp_path)
