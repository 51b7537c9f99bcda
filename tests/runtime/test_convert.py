"""Models of other programs become folders of ours, and go back."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import save_file

from numerics import TOLERANCE, assert_close
from pretrained_models import make_config, make_model
from slowwave import cli
from slowwave.memory.talker import load
from slowwave.models.adapter import adapt
from slowwave.models.int8 import Int8Linear, quantize_
from slowwave.runtime.model_folder import TalkerConfig, convert, convert_back, save
from slowwave.sleep.config import Compact
from slowwave.storage.tokenizer import ByteTokenizer

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny llama in Hugging Face's form, with a tokenizer and a template."""
    path = tmp_path / "theirs"
    make_model(make_config("llama")).save_pretrained(path)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())[:90]
    vocabulary = {sign: i for i, sign in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def test_a_folder_of_ours_says_the_same(folder: Path, tmp_path: Path) -> None:
    notes = convert(folder, tmp_path / "ours")
    assert len(notes) == 1 and "bytes" in notes[0]
    theirs, ours = load(folder), load(tmp_path / "ours")
    assert ours.sleep == theirs.sleep
    assert isinstance(ours.sleep.consolidator, Compact)
    assert ours.chat == theirs.chat
    assert ours.tokenizer.controls == theirs.tokenizer.controls
    one, two = (talker.session().generate("Hello", max_new_tokens=8) for talker in (theirs, ours))
    assert one == two


def test_it_goes_back_to_transformers(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "ours")
    convert_back(tmp_path / "ours", tmp_path / "back")
    one, two = (
        transformers.AutoModelForCausalLM.from_pretrained(path).eval()
        for path in (folder, tmp_path / "back")
    )
    tokens = torch.arange(3, 60)[None]
    with torch.no_grad():
        assert_close(two(tokens).logits, one(tokens).logits, TOLERANCE[torch.float32])
    assert load(tmp_path / "back").tokenizer.encode("A b") == load(folder).tokenizer.encode("A b")


def test_an_adapter_is_added_to_the_weights(folder: Path, tmp_path: Path) -> None:
    plain, adapted = load(folder), load(folder)
    generator = torch.Generator().manual_seed(0)
    changes = adapt(adapted.model, 2, generator)
    with torch.no_grad():
        for change in changes.values():
            change.copy_(0.1 * torch.randn(change.shape, generator=generator))
    file = tmp_path / "adapter.safetensors"
    save_file({name: change.detach() for name, change in changes.items()}, file)
    convert(folder, tmp_path / "ours", adapter=file)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        found, expected = load(tmp_path / "ours").model(tokens)[0], adapted.model(tokens)[0]
        assert_close(found, expected, TOLERANCE[torch.float32])
        assert (found - plain.model(tokens)[0]).abs().max() > 0.01
    save_file({"blocks.9.mlp.up.up": torch.ones(2, 2)}, file)
    with pytest.raises(ValueError, match=r"adapter\.safetensors: the change of blocks\.9\.mlp\.up"):
        convert(folder, tmp_path / "other", adapter=file)


def test_a_folder_says_with_what_precision_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "ours", precision="int8")
    model = load(tmp_path / "ours").model
    assert any(isinstance(module, Int8Linear) for module in model.modules())


def test_int8_weights_are_not_saved(folder: Path, tmp_path: Path) -> None:
    talker = load(folder)
    quantize_(talker.model)
    config = TalkerConfig(model=talker.model.config, sleep=talker.sleep)
    with pytest.raises(ValueError, match="the model has int8 weights"):
        save(tmp_path / "new", talker.model, ByteTokenizer(), config)
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    for write in (convert, convert_back):
        with pytest.raises(ValueError, match="is there already; name another folder"):
            write(folder, tmp_path)


def test_the_command_writes_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["convert", str(folder), str(tmp_path / "ours"), "--chat", "plain"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "ours")
    chat = load(tmp_path / "ours").chat
    assert chat is not None and chat.open_reply(ByteTokenizer()) == [*b"Assistant:"]
    cli.main(["convert", str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "transformers"])
    assert (tmp_path / "back" / "config.json").exists()
