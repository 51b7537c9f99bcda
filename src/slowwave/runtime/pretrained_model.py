"""A model of another program to talk to: its weights, and how it reads, speaks and sleeps."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.runtime.chat import Chat
from slowwave.runtime.speech import Speech, read_speech
from slowwave.sleep.config import Compact, SleepConfig
from slowwave.storage.pretrained import open_pretrained
from slowwave.storage.tokenizer import FileTokenizer

ChatForm = Literal["auto", "template", "plain"]
WINDOW = 512
"""Tokens of a window, where the model was trained with at least four times as many."""


class Loaded(NamedTuple):
    """A model with all that talking to it takes. notes: what is lost or left out, a line each."""

    model: HybridLM
    tokenizer: FileTokenizer
    sleep: SleepConfig
    chat: Chat | None
    notes: tuple[str, ...]


def load_pretrained(path: Path, *, form: ChatForm = "auto") -> Loaded:
    """Reads a Hugging Face folder or a .gguf file.

    form: of a conversation, the model's template or a plain transcript; auto is the template where
    it can be written message by message. Raises ValueError that says what is missing or unfit.
    """
    opened = open_pretrained(path)
    notes: list[str] = []
    speech = _read_speech(path, opened.sizes, form, notes)
    notes += [
        f"{path}: its tokenizer may change text, for {loss}" for loss in speech.tokenizer.losses
    ]
    model, unused = opened.load(), opened.list_unused()
    if unused:
        notes.append(f"{path}: {len(unused)} tensors have no place here, such as {unused[0]:.80}")
    sleep = choose_sleep(opened.sizes)
    return Loaded(model, speech.tokenizer, sleep, speech.chat, tuple(notes))


def choose_sleep(sizes: ModelConfig) -> SleepConfig:
    """Settings of sleep for a model that was not trained with any."""
    length = sizes.traits.context_length or 4 * WINDOW
    window = max(1, min(WINDOW, length // 4))
    compact = Compact(span=max(1, length - 2 * window), replay="critic")
    return SleepConfig(window=window, passes=2, consolidator=compact, at_turns=True)


def _read_speech(path: Path, sizes: ModelConfig, form: ChatForm, notes: list[str]) -> Speech:
    if form != "auto":
        return read_speech(path, sizes.vocab_size, form=form)
    try:
        return read_speech(path, sizes.vocab_size)
    except ValueError as error:
        speech = read_speech(path, sizes.vocab_size, form="plain")  # or says what else is wrong
        notes.append(f"{error}: a plain transcript is written")
        return speech
