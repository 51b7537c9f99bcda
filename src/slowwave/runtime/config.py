"""How a conversation is written, and how the tokens of a reply are drawn; torch-free."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from slowwave.config import Config

# Those of `str.splitlines`.
BREAKS = ("\r\n", *"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
Role = Literal["system", "user", "assistant"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatFormat(Config):
    """How a conversation is written. A reply is all up to the end of its line."""

    user_mark: str = "> "
    """Begins a line of the user."""
    system_mark: str = "# "
    """Begins a line of the one who set up the conversation."""
    end: ClassVar[str] = "\n"
    """Ends every line."""

    def __post_init__(self) -> None:
        for name, mark in (("user_mark", self.user_mark), ("system_mark", self.system_mark)):
            if mark[:1].isspace() or mark.splitlines() != [mark]:
                raise ValueError(
                    f"chat.{name} is {mark!r}; use a sign that does not begin with a space, and no "
                    "line breaks"
                )
        short, long = sorted(self.marks, key=len)
        if long.startswith(short):
            raise ValueError(
                f"chat.user_mark {self.user_mark!r} and chat.system_mark {self.system_mark!r} "
                "begin alike; use two that can be told apart"
            )

    @property
    def marks(self) -> tuple[str, str]:
        """With which no reply begins."""
        return self.user_mark, self.system_mark

    def leaves_mark(self, text: str) -> bool:
        """Whether a plain text ends within a line that begins as one of a role does."""
        line = "" if text.endswith(BREAKS) else (text.splitlines() or [""])[-1]
        return any(line.startswith(mark) or (line and mark.startswith(line)) for mark in self.marks)

    def write(self, role: Role, text: str) -> str:
        """The line in which a role says `text`; no text makes it read as that of another role.

        Raises ValueError if the text is blank.
        """
        # One line only, so that no text can speak for another role.
        line = flatten(text)
        if not line:
            raise ValueError("the message is empty; say something")
        if role == "assistant":
            mark = " " if line.startswith(self.marks) else ""
        else:
            mark = self.user_mark if role == "user" else self.system_mark
        return mark + line + self.end


def flatten(text: str) -> str:
    """A text in one line: a space for every line break, and none at its ends."""
    for sign in BREAKS:  # `splitlines` would make millions of lines of a text of line breaks
        text = text.replace(sign, " ")
    return text.strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Config):
    """What is drawn from a model's logits; the same seed at the same place draws the same."""

    temperature: float = 0.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Draws among the likeliest so many tokens; 0 is all."""
    top_p: float = 1.0
    """Draws among the likeliest tokens that together have this probability (arXiv 1904.09751)."""
    seed: int = 0
    """Another seed gives another reply."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; use 0 (greedy) or more")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; use 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; use a probability in (0, 1]")

    def change(
        self,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Sampling:
        """The same but for what is given; raises ValueError if that is unfit."""
        given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        changes = {name: value for name, value in given.items() if value is not None}
        return Sampling.from_dict(self.to_dict() | changes) if changes else self
