"""Chat as lines of plain text: what the user says has a mark in front, a reply has none."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from slowwave.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatFormat(Config):
    """How a conversation is written. A reply is all up to the end of its line."""

    user_mark: str = "> "
    """Begins a line of the user."""
    system_mark: str = "# "
    """Begins a line of whoever set up the conversation."""
    end: ClassVar[str] = "\n"
    """Ends every line."""

    def format_user(self, text: str) -> str:
        """The line that says `text` to the model; raises ValueError if that is nothing."""
        return self._format(self.user_mark, text)

    def format_system(self, text: str) -> str:
        """The line that tells the model `text`; raises ValueError if that is nothing."""
        return self._format(self.system_mark, text)

    def format_reply(self, text: str) -> str:
        """The line that says `text` as the model; raises ValueError if that is nothing."""
        return self._format("", text)

    def _format(self, mark: str, text: str) -> str:
        # One line only, so that no text can speak for somebody else.
        line = " ".join(text.splitlines()).strip()
        if not line:
            raise ValueError("the message is empty; say something")
        return mark + line + self.end
