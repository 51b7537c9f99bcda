"""How a model of another program reads and speaks: tokenizer, chat and control tokens, from its
files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from slowwave.runtime.chat import Chat
from slowwave.runtime.chat_template import SpecialTexts, compile_template
from slowwave.runtime.config import PLAIN
from slowwave.storage.control_tokens import Controls
from slowwave.storage.files import read_small
from slowwave.storage.gguf_file import GgufFile
from slowwave.storage.gguf_tokenizer import write_tokenizer
from slowwave.storage.json_files import read_json
from slowwave.storage.tokenizer import FileTokenizer

Form = Literal["template", "plain"]
TEMPLATE_FILE = "chat_template.jinja"
ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")
"""Control tokens that end a reply where a file names but one; those of published models."""


class Speech(NamedTuple):
    """What talking to a model takes besides its weights."""

    tokenizer: FileTokenizer
    chat: Chat | None
    """None for a model without a template, which only goes on with a text."""


class _Found(NamedTuple):
    """What the files say. template: "" if there is none."""

    tokenizer: FileTokenizer
    template: str
    texts: SpecialTexts


def read_speech(path: Path, vocab_size: int, *, form: Form = "template") -> Speech:
    """How the model of a Hugging Face folder or a GGUF file speaks.

    vocab_size: of the model. form: "plain" writes conversations as a transcript, whatever template
    there is. Raises ValueError naming what is missing, damaged or not supported.
    """
    is_folder = path.is_dir()
    found = _read_folder(path, vocab_size) if is_folder else _read_gguf(path, vocab_size)
    if form == "template" and found.template:
        chat, controls = compile_template(found.template, found.tokenizer, found.texts, where=path)
    else:
        chat, controls = (PLAIN if form == "plain" else None), _find_controls(*found)
    return Speech(found.tokenizer.with_controls(controls), chat)


def _find_controls(tokenizer: FileTokenizer, _: str, texts: SpecialTexts) -> Controls:
    """The uses of control tokens where no template says them."""
    known = tokenizer.control_tokens
    stops = {*texts.stops, *(known[text] for text in [texts.eos] if text in known)}
    return Controls(
        begin=tuple(tokenizer.find_beginning()),
        stops=tuple(sorted(stops)),
        others=tuple(sorted({*known.values()} - stops)),
    )


def _read_folder(folder: Path, vocab_size: int) -> _Found:
    path = folder / "tokenizer.json"
    if not path.exists():
        raise ValueError(
            f"{folder}: has no tokenizer.json; fetch it, or have transformers save the tokenizer "
            "in that form"
        )
    tokenizer = FileTokenizer(path, exact=False, vocab_size=vocab_size)
    settings = _read_table(folder / "tokenizer_config.json")
    ends = [
        _read_table(folder / name).get("eos_token_id")
        for name in ("generation_config.json", "config.json")
    ]
    stops = [end for value in ends for end in (value if isinstance(value, list) else [value])]
    texts = SpecialTexts(
        _content(settings.get("bos_token")),
        _content(settings.get("eos_token")),
        tuple(end for end in stops if isinstance(end, int) and 0 <= end < vocab_size),
    )
    return _Found(tokenizer, _find_template(folder, settings), texts)


def _find_template(folder: Path, settings: dict[str, Any]) -> str:
    path = folder / TEMPLATE_FILE
    if path.exists():
        return read_small(path).decode(errors="replace")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = [each for each in template if isinstance(each, dict)]
        template = {each.get("name"): each.get("template") for each in named}.get("default")
    return template if isinstance(template, str) else ""


def _content(token: Any) -> str:
    """The content of a token, which is given as it is or in a table."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _read_table(path: Path) -> dict[str, Any]:
    """The table of a JSON file; empty if there is no such file."""
    values: Any = read_json(path) if path.exists() else {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: is no table; restore the file")
    return values


def _read_gguf(path: Path, vocab_size: int) -> _Found:
    metadata = GgufFile(path).metadata
    content = write_tokenizer(metadata, path)
    tokenizer = FileTokenizer(path, exact=False, vocab_size=vocab_size, content=content)
    known = tokenizer.control_tokens
    names = {number: text for text, number in known.items()}
    bos, eos, eot = (_name(names, metadata, use) for use in ("bos", "eos", "eot"))
    stops = sorted(known[text] for text in {*ENDS, eot} if text in known)
    template = metadata.get("tokenizer.chat_template")
    return _Found(
        tokenizer,
        template if isinstance(template, str) else "",
        SpecialTexts(bos, eos, tuple(stops)),
    )


def _name(names: dict[int, str], metadata: dict[str, Any], use: str) -> str:
    """The content of the control token for a use; "" if there is none."""
    number: Any = metadata.get(f"tokenizer.ggml.{use}_token_id")
    return names.get(number, "") if isinstance(number, int) else ""
