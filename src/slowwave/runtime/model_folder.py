"""A model to talk to, as a folder: weights, config and tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from slowwave.config import Config
from slowwave.models.adapter import merge
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.models.int8 import Int8Weight, quantize_
from slowwave.runtime.chat import Chat, TemplateChat
from slowwave.runtime.config import ChatFormat, Role
from slowwave.runtime.pretrained_model import ChatForm, load_pretrained
from slowwave.sleep.config import SleepConfig
from slowwave.storage.checkpoint import load_tensors, load_weights, save_tensors
from slowwave.storage.control_tokens import NO_CONTROLS, Controls
from slowwave.storage.files import read_small, write_atomically
from slowwave.storage.folder_kind import is_pretrained, read_folder_config
from slowwave.storage.hub import find_model
from slowwave.storage.json_files import write_json
from slowwave.storage.pretrained import save_pretrained
from slowwave.storage.tokenizer import ByteTokenizer, FileTokenizer, Tokenizer

BESIDE = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")
"""Files of Hugging Face's that say how texts are written."""


Precision = Literal["float32", "bfloat16", "int8"]


class TalkingModel(NamedTuple):
    """A model with all that talking to it takes."""

    model: HybridLM
    tokenizer: Tokenizer
    sleep: SleepConfig
    chat: Chat | None = None
    """How a conversation is written; None for a model that only goes on with a text."""

    def begin(self, role: Role | None) -> list[int]:
        """The token ids that a stream begins with. role: of its first message; None of a text."""
        opening = self.chat.opening if self.chat and role in ("user", "assistant") else ()
        return [*self.tokenizer.controls.begin, *opening]

    def __repr__(self) -> str:
        config = self.model.config
        return (
            f"<{type(self).__name__} parameters={self.model.num_parameters} "
            f"layers={'-'.join(config.layers)} vocab_size={config.vocab_size} "
            f"window={self.sleep.window} passes={self.sleep.passes} chat={self.chat is not None}>"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TalkerConfig(Config):
    """What config.json of the folder says."""

    model: ModelConfig
    sleep: SleepConfig
    chat: ChatFormat | None = None
    """How a conversation is written in lines; None for a model that only goes on with a text."""
    template: TemplateChat | None = None
    """How a conversation is written by the model's template; goes before `chat`."""
    controls: Controls = NO_CONTROLS
    exact_tokens: bool = True
    """Whether the tokenizer gives back any text, and has as many tokens as the model: those of
    models from elsewhere may not."""
    precision: Precision = "float32"
    """Dtype of the matrix products; int8 is that of weights, whose products are float32."""


def save(folder: str | Path, model: HybridLM, tokenizer: Tokenizer, config: TalkerConfig) -> None:
    """Writes model.safetensors, config.json and, unless bytes are read, tokenizer.json.

    Raises ValueError for a model of int8 weights, which are made when it is loaded.
    """
    folder = Path(folder)
    if any(isinstance(module, Int8Weight) for module in model.modules()):
        raise ValueError(
            "the model has int8 weights, of which the exact ones cannot be made; save the model "
            'that they were made of, with precision "int8" in its config'
        )
    if isinstance(tokenizer, FileTokenizer):
        write_atomically(folder / "tokenizer.json", tokenizer.content)
    save_tensors(folder / "model.safetensors", model.state_dict())
    write_json(folder / "config.json", config.to_dict())


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    form: ChatForm = "auto",
    say: Callable[[str], object] | None = None,
    precision: Precision | None = None,
) -> TalkingModel:
    """Reads what `save` wrote, or a model of other programs.

    path: a folder of ours or of Hugging Face's, a .gguf file, or a name on the hub, "org/model".
    form: of a conversation with a model of other programs; see `load_pretrained`. say: is told what
    of such a model is lost or left out, a line each. precision: see `TalkerConfig`; what the folder
    says if None. Raises ValueError that says what is missing, unfit, or no model.
    """
    folder = find_model(path)
    if folder.suffix == ".gguf" or is_pretrained(folder):
        loaded = load_pretrained(folder, form=form)
        if say is not None:
            for note in loaded.notes:
                say(note)
        _set_precision(loaded.model, precision or "float32")
        return TalkingModel(loaded.model.to(device), loaded.tokenizer, loaded.sleep, loaded.chat)
    config = read_folder_config(folder, "talker", TalkerConfig)
    tokenizer = _load_tokenizer(folder / "tokenizer.json", config)
    model, weights = HybridLM(config.model, seed=None), folder / "model.safetensors"
    load_weights(model, load_tensors(weights), weights)
    _set_precision(model, precision or config.precision)
    chat = config.template or config.chat
    return TalkingModel(model.to(device), tokenizer, config.sleep, chat)


def _set_precision(model: HybridLM, precision: Precision) -> None:
    if precision == "int8":
        quantize_(model)
    else:
        model.set_compute_dtype(torch.bfloat16 if precision == "bfloat16" else None)


def convert(
    source: str | Path,
    out: Path,
    *,
    form: ChatForm = "auto",
    adapter: Path | None = None,
    sleep: SleepConfig | None = None,
    precision: Precision = "float32",
) -> list[str]:
    """Writes a model of other programs as a folder of ours; returns what is lost or left out.

    adapter: a file of changes that are added to the weights (`models.adapter`). sleep: settings of
    every conversation; those for models that were not trained with any if not given. precision:
    with which the folder will be loaded; its weights are float32 in any case. Raises ValueError as
    `load`, if `out` is there already, or if the adapter is not of this model.
    """
    _require_new(out)
    loaded = load_pretrained(find_model(source), form=form)
    if adapter is not None:
        try:
            merge(loaded.model, load_tensors(adapter))
        except ValueError as error:
            raise ValueError(f"{adapter}: {error}") from None
    chat = loaded.chat
    config = TalkerConfig(
        model=loaded.model.config,
        sleep=sleep or loaded.sleep,
        chat=chat if isinstance(chat, ChatFormat) else None,
        template=chat if isinstance(chat, TemplateChat) else None,
        controls=loaded.tokenizer.controls,
        exact_tokens=False,
        precision=precision,
    )
    save(out, loaded.model, loaded.tokenizer, config)
    return [*loaded.notes]


def convert_back(source: str | Path, out: Path) -> None:
    """Writes a model as a folder that transformers reads: weights, config and tokenizer.

    Raises ValueError as `load`, if `out` is there already, or if no family that slowwave writes
    computes what the model does.
    """
    _require_new(out)
    folder = find_model(source)
    talker = load(folder)
    save_pretrained(out, talker.model)
    if isinstance(talker.tokenizer, FileTokenizer):
        write_atomically(out / "tokenizer.json", talker.tokenizer.content)
    for name in BESIDE:
        if is_pretrained(folder) and (folder / name).exists():
            write_atomically(out / name, read_small(folder / name))
    if not (out / BESIDE[0]).exists():
        write_json(out / BESIDE[0], {"tokenizer_class": "PreTrainedTokenizerFast"})


def _require_new(out: Path) -> None:
    if out.exists():
        raise ValueError(f"{out} is there already; name another folder")


def _load_tokenizer(path: Path, config: TalkerConfig) -> Tokenizer:
    if not path.exists():
        return ByteTokenizer()
    exact, size = config.exact_tokens, config.model.vocab_size
    tokenizer = FileTokenizer(path, exact=exact, vocab_size=0 if exact else size)
    return tokenizer.with_controls(config.controls)
