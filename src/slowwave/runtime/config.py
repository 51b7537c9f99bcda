"""How a conversation is written, and how the tokens of a reply are drawn; torch-free."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple

from slowwave.config import Config
from slowwave.storage.tokenizer import Tokenizer

# Those of `str.splitlines`.
BREAKS = ("\r\n", *"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
Role = Literal["system", "user", "assistant"]


class Span(NamedTuple):
    """What a role said, among the tokens of a stream, without what stands in front of it."""

    role: Role
    start: int
    stop: int


class ReplyRules(NamedTuple):
    """How the text of a reply begins and ends; see `ChatFormat`, whose rules these are."""

    stops: tuple[str, ...] = ()
    """Texts that end it, and are not shown."""
    marks: tuple[str, ...] = ()
    """It begins with none of them."""
    line_marks: tuple[str, ...] = ()
    """A token with which a line of it would begin as one of them ends it instead, and is not
    read."""
    lead: str = ""
    """Spaces it begins with are not shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatFormat(Config):
    """A conversation in lines. See `runtime.chat.Chat` for the methods of a chat.

    Without a mark for replies, a reply is all up to the end of its line. With one it may have
    lines, up to one that begins with a mark.
    """

    user_mark: str = "> "
    """Begins a line of the user."""
    system_mark: str = "# "
    """Begins a line of the one who set up the conversation."""
    assistant_mark: str = ""
    """Begins a reply."""
    end: ClassVar[str] = "\n"
    """Ends every line."""

    def __post_init__(self) -> None:
        marks = {"user_mark": self.user_mark, "system_mark": self.system_mark}
        if self.assistant_mark:
            marks["assistant_mark"] = self.assistant_mark
        for name, mark in marks.items():
            if mark[:1].isspace() or mark.splitlines() != [mark]:
                raise ValueError(
                    f"chat.{name} is {mark!r}; use a sign that does not begin with a space, and no "
                    "line breaks"
                )
        for (short_name, short), (long_name, long) in itertools.permutations(marks.items(), 2):
            if long.startswith(short):
                raise ValueError(
                    f"chat.{short_name} {short!r} and chat.{long_name} {long!r} begin alike; use "
                    "two that can be told apart"
                )

    @property
    def marks(self) -> tuple[str, ...]:
        """What the line of a role begins with."""
        return tuple(filter(None, (self.user_mark, self.system_mark, self.assistant_mark)))

    @property
    def opening(self) -> tuple[int, ...]:
        """See `runtime.chat.Chat.opening`: nothing comes before the first line."""
        return ()

    @property
    def reply_rules(self) -> ReplyRules:
        """See `runtime.chat.Chat.reply_rules`."""
        if not self.assistant_mark:
            return ReplyRules(stops=(self.end,), marks=self.marks)
        stops = tuple(self.end + mark.rstrip() for mark in self.marks)
        return ReplyRules(stops=stops, line_marks=self.marks, lead=self.lead)

    @property
    def lead(self) -> str:
        """Spaces between the mark of a reply and its words: for a model they are of the first
        word, so they are read with it."""
        return self.assistant_mark[len(self.assistant_mark.rstrip()) :]

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
            mark = self.assistant_mark or (" " if line.startswith(self.marks) else "")
        else:
            mark = self.user_mark if role == "user" else self.system_mark
        return mark + line + self.end

    def encode(self, tokenizer: Tokenizer, role: Role, text: str) -> Iterator[list[int]]:
        """See `runtime.chat.Chat.encode`."""
        return tokenizer.encode_in_pieces(self.write(role, text))

    def open_reply(self, tokenizer: Tokenizer) -> list[int]:
        """See `runtime.chat.Chat.open_reply`."""
        return tokenizer.encode(self.assistant_mark.rstrip())

    def close_reply(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> list[int]:
        """See `runtime.chat.Chat.close_reply`."""
        is_ended = tokenizer.decode(tokens).endswith(self.end)
        return [] if is_ended else tokenizer.encode(self.end)

    def has_written(self, text: str) -> bool:
        """See `runtime.chat.Chat.has_written`: it is one line."""
        return text.endswith(self.end) and len(text.splitlines()) == 1

    def count_added(self, tokenizer: Tokenizer, *, is_stopped: bool) -> int:
        """See `runtime.chat.Chat.count_added`."""
        end = [] if is_stopped else tokenizer.encode(self.end)
        return len(self.open_reply(tokenizer)) + len(end)

    def split_turns(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> list[Span]:
        """See `runtime.chat.Chat.split_turns`. A line without a mark is of a reply."""
        spans, start = list[Span](), 0
        for stop, token in enumerate(tokens, 1):
            if stop < len(tokens) and self.end not in tokenizer.decode([token]):
                continue
            role, mark = self._find_mark(tokenizer.decode(tokens[start:stop]))
            first = start
            while len(tokenizer.decode(tokens[start:first])) < len(mark.rstrip()):
                first += 1
            if not mark and spans and spans[-1].role == role:
                spans[-1] = spans[-1]._replace(stop=stop)
            elif first < stop:
                spans.append(Span(role, first, stop))
            start = stop
        return spans

    def _find_mark(self, line: str) -> tuple[Role, str]:
        if line.startswith(self.user_mark):
            return "user", self.user_mark
        if line.startswith(self.system_mark):
            return "system", self.system_mark
        return "assistant", self.assistant_mark if line.startswith(self.assistant_mark) else ""


PLAIN = ChatFormat(user_mark="User: ", system_mark="System: ", assistant_mark="Assistant: ")
"""A transcript, for models that were not trained on a form of ours."""


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
