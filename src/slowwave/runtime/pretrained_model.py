"""A model of other programs to talk to: its weights, its tokenizer, and how it writes a chat."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.runtime.chat import TemplateChat
from slowwave.runtime.chat_template import SpecialTexts, compile_template
from slowwave.runtime.config import ChatFormat
from slowwave.sleep.config import SleepConfig
from slowwave.storage.control_tokens import Controls
from slowwave.storage.files import read_small
from slowwave.storage.json_files import read_json
from slowwave.storage.pretrained import open_pretrained
from slowwave.storage.tokenizer import FileTokenizer

ChatForm = Literal["auto", "template", "plain"]
TRANSCRIPT = ChatFormat(user_mark="User: ", system_mark="System: ", assistant_mark="Assistant: ")
WINDOW = 512
"""Tokens of a window, where the model was trained with at least four times as many."""


class Texts(NamedTuple):
    """What the files beside the weights say of texts and conversations."""

    tokenizer: FileTokenizer
    template: str | None
    special: SpecialTexts


class Loaded(NamedTuple):
    """A model with all that talking to it takes. notes: what is lost or left out, a line each."""

    model: HybridLM
    tokenizer: FileTokenizer
    sleep: SleepConfig
    chat: ChatFormat | TemplateChat
    notes: tuple[str, ...]


def load_pretrained(path: Path, *, form: ChatForm = "auto") -> Loaded:
    """Reads a Hugging Face folder or a .gguf file.

    form: of a conversation, the model's template or a plain transcript; auto is the template where
    it can be written message by message. Raises ValueError that says what is missing or unfit.
    """
    opened = open_pretrained(path)
    texts = read_texts(path, opened.sizes)
    notes = [f"{path}: {loss} is lost in its tokenizer" for loss in texts.tokenizer.losses]
    chat, controls = TRANSCRIPT, _find_controls(texts)
    if form != "plain":
        try:
            chat, controls = _compile(path, texts)
        except ValueError as error:
            if form == "template":
                raise
            notes.append(f"{error}; so it is")
    texts.tokenizer.controls = controls
    model = opened.load()
    unused = opened.list_unused()
    if unused:
        notes.append(f"{path}: {len(unused)} tensors have no place here, such as {unused[0]:.80}")
    return Loaded(model, texts.tokenizer, choose_sleep(opened.sizes), chat, tuple(notes))


def choose_sleep(sizes: ModelConfig) -> SleepConfig:
    """Settings of sleep for a model that was not trained with any."""
    length = sizes.traits.context_length or 4 * WINDOW
    return SleepConfig(window=max(1, min(WINDOW, length // 4)))


def read_texts(path: Path, sizes: ModelConfig) -> Texts:
    """What a folder or a .gguf file says of texts; raises ValueError if a tokenizer is missing."""
    if path.suffix == ".gguf":
        raise NotImplementedError
    file = path / "tokenizer.json"
    if not file.exists():
        raise ValueError(f"{path}: has no tokenizer.json; fetch it, or make one with transformers")
    tokenizer = FileTokenizer(file, exact=False, vocab_size=sizes.vocab_size)
    values = _read_table(path / "tokenizer_config.json")
    special = SpecialTexts(
        bos=_read_content(values.get("bos_token")),
        eos=_read_content(values.get("eos_token")),
        stops=_read_stops(path, sizes),
    )
    return Texts(tokenizer, _find_template(path, values), special)


def _compile(path: Path, texts: Texts) -> tuple[TemplateChat, Controls]:
    if texts.template is None:
        raise ValueError(f"{path}: has no chat template, so a plain transcript is written")
    return compile_template(texts.template, texts.tokenizer, texts.special, where=path)


def _find_controls(texts: Texts) -> Controls:
    """The control tokens of a model that is not written by its template."""
    tokenizer, special = texts.tokenizer, texts.special
    known = tokenizer.control_tokens
    stops = {*special.stops, *(known[text] for text in [special.eos] if text in known)}
    return Controls(
        begin=tuple(tokenizer.find_beginning()),
        stops=tuple(sorted(stops)),
        others=tuple(sorted({*known.values()} - stops)),
    )


def _find_template(folder: Path, values: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return read_small(file).decode(errors="replace")
    template = values.get("chat_template")
    if isinstance(template, list):  # several by name
        named = {each.get("name"): each.get("template") for each in cast(list[Any], template)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _read_stops(folder: Path, sizes: ModelConfig) -> tuple[int, ...]:
    """Ids of the tokens that end a reply."""
    found = set[int]()
    for name in ("generation_config.json", "config.json"):
        ids = _read_table(folder / name).get("eos_token_id")
        listed = cast(list[Any], ids) if isinstance(ids, list) else [ids]
        found |= {each for each in listed if type(each) is int and 0 <= each < sizes.vocab_size}
    return tuple(sorted(found))


def _read_table(path: Path) -> dict[str, Any]:
    values = read_json(path) if path.exists() else {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: is no table; restore the file")
    return cast(dict[str, Any], values)


def _read_content(token: Any) -> str:
    """The content of a token, which older files have in a table of its own."""
    if isinstance(token, dict):
        token = cast(dict[str, Any], token).get("content")
    return token if isinstance(token, str) else ""
