"""How a conversation becomes tokens, message by message.

A stream is endless: a message is written once, where it comes, and never again. `ChatFormat`
(runtime/config.py) writes lines of text, `TemplateChat` what a model's own template writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

from slowwave.config import Config, Many
from slowwave.runtime.config import ReplyRules, Role, Span
from slowwave.storage.tokenizer import Tokenizer


class Chat(Protocol):
    """How the messages of a conversation are written."""

    @property
    def opening(self) -> tuple[int, ...]:
        """Token ids that a stream begins with, unless its first message is the system's."""
        ...

    @property
    def reply_rules(self) -> ReplyRules:
        """How the text of a reply begins and ends."""
        ...

    def encode(self, tokenizer: Tokenizer, role: Role, text: str) -> Iterator[list[int]]:
        """The token ids of a message, some at a time; no text makes it another role's.

        Raises ValueError if the text is blank.
        """
        ...

    def open_reply(self, tokenizer: Tokenizer) -> list[int]:
        """What is read before a reply is drawn."""
        ...

    def close_reply(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> list[int]:
        """What is to be read after the tokens of a reply, which may end with the first of it."""
        ...

    def has_written(self, text: str) -> bool:
        """Whether a message with all around it, as it is in a ledger, is of this form already."""
        ...

    def count_added(self, tokenizer: Tokenizer, *, is_stopped: bool) -> int:
        """By how many tokens the entry of a reply is longer than what was drawn.

        is_stopped: whether it came to its end, and was not cut short.
        """
        ...

    def leaves_mark(self, text: str) -> bool:
        """Whether a plain text ends within what may be read as the begin of a message."""
        ...

    def split_turns(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> list[Span]:
        """What the roles said in these tokens of a stream; plain text has no role."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame(Config):
    """The token ids around the messages of a role. trims: spaces at their ends are dropped."""

    before: Many[int] = ()
    after: Many[int] = ()
    trims: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateChat(Config):
    """A chat template as token ids, as `compile_template` finds them."""

    system: Frame
    user: Frame
    assistant: Frame
    opening: Many[int] = ()
    """See `Chat.opening`: the system prompt that the template has by itself."""
    reply: Many[int] = ()
    """What is read before a reply is drawn."""

    @property
    def reply_rules(self) -> ReplyRules:
        """See `Chat.reply_rules`: control tokens alone end a reply."""
        return ReplyRules()

    def encode(self, tokenizer: Tokenizer, role: Role, text: str) -> Iterator[list[int]]:
        """See `Chat.encode`."""
        frame = self._frame(role)
        if not text.strip():
            raise ValueError("the message is empty; say something")
        yield [*frame.before]
        yield from tokenizer.encode_in_pieces(text.strip() if frame.trims else text)
        yield [*frame.after]

    def open_reply(self, tokenizer: Tokenizer) -> list[int]:
        """See `Chat.open_reply`."""
        return [*self.reply]

    def close_reply(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> list[int]:
        """See `Chat.close_reply`."""
        after = self.assistant.after
        for count in range(len(after), 0, -1):
            if tuple(tokens[-count:]) == after[:count]:
                return [*after[count:]]
        return [*after]

    def has_written(self, text: str) -> bool:
        """See `Chat.has_written`: control tokens are no text, so each model writes its own."""
        return False

    def count_added(self, tokenizer: Tokenizer, *, is_stopped: bool) -> int:
        """See `Chat.count_added`: a token that ends a reply is drawn, and is not in the entry."""
        return len(self.reply) + len(self.assistant.after) - is_stopped

    def leaves_mark(self, text: str) -> bool:
        """See `Chat.leaves_mark`: messages begin with control tokens, which no text has."""
        return False

    def split_turns(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> list[Span]:
        """See `Chat.split_turns`."""
        controls = {*tokenizer.controls.stops, *tokenizer.controls.others}
        spans, role, start, place = list[Span](), None, 0, 0
        while place < len(tokens):
            begun, ids = self._find_begin(controls, tokens, place)
            if begun is None and role is not None and _has(tokens, place, self._frame(role).after):
                # A reply that control tokens do not begin follows the end of the user's message.
                follows = role == "user" and controls.isdisjoint(self.assistant.before)
                begun, ids = "assistant" if follows else None, self._frame(role).after
            elif begun is None:
                place += 1
                continue
            if role is not None and start < place:
                spans.append(Span(role, start, place))
            place += len(ids)
            role, start = begun, place
        if role is not None and start < place:
            spans.append(Span(role, start, place))
        return spans

    def _find_begin(
        self, controls: set[int], tokens: Sequence[int], place: int
    ) -> tuple[Role | None, Sequence[int]]:
        """Whose message control tokens begin here, and the ids that do; the longest of them."""
        found: tuple[Role | None, Sequence[int]] = None, ()
        frames: tuple[tuple[Role, Sequence[int]], ...] = (
            ("user", self.user.before),
            ("system", self.system.before),
            ("assistant", self.assistant.before),
            ("assistant", self.reply),
        )
        for role, ids in frames:
            is_longer = len(ids) > len(found[1]) and _has(tokens, place, ids)
            if is_longer and not controls.isdisjoint(ids):
                found = role, ids
        return found

    def _frame(self, role: Role) -> Frame:
        return {"system": self.system, "user": self.user, "assistant": self.assistant}[role]


def _has(tokens: Sequence[int], place: int, ids: Sequence[int]) -> bool:
    """Whether these ids, of which there are some, are at this place."""
    return bool(ids) and tuple(tokens[place : place + len(ids)]) == tuple(ids)
