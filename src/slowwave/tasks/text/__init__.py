"""Text: local files, byte by byte or through a tokenizer, every token to be predicted."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from slowwave.tasks import Language, TaskConfig


def _list_one(files: object) -> object:
    return (files,) if isinstance(files, str) else files


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(TaskConfig):
    """Predict every next token of local files, byte by byte or through a tokenizer."""

    name: Literal["text"] = "text"
    """Selects this task."""
    has_loss_throughout: ClassVar[bool] = True
    files: Annotated[tuple[str, ...], BeforeValidator(_list_one)] = ()
    """Files, folders and patterns such as docs/*.md, from where slowwave is called."""
    tokenizer: str | None = None
    """A tokenizer.json, which the tokenizers package reads; if not given, bytes are tokens."""
    window: int = 32
    """Tokens L of a window, by which the loss is reported; sleep.window must be the same."""
    context: int = 256
    """Tokens of a stream."""
    piece: int = 512
    """Tokens of a piece of a file, the whole of which belongs to one split."""
    group: Literal["token", "window"] = "token"
    """By what the loss is reported: tokens of the window read so far, or windows of the stream."""

    def __post_init__(self) -> None:
        for field in ("window", "context"):
            self.require(getattr(self, field) >= 1, field, "use 1 or more")
        self.require(
            self.piece > self.context,
            "piece",
            f"use {self.context + 1} or more, a stream and the token after it",
        )

    @property
    def own_window(self) -> int:
        return self.window

    @property
    def language(self) -> Language:
        return Language(self.tokenizer, is_chat=False)
