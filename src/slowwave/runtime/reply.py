"""A reply: its tokens from logits, and its text as they come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from slowwave.runtime.config import ReplyRules, Sampling
from slowwave.storage.tokenizer import TextStream, Tokenizer

NO_RULES = ReplyRules()


def make_generator(sampling: Sampling, place: int) -> torch.Generator:
    """The generator for what is drawn from `place` in the stream on, whatever was drawn before."""
    text = json.dumps(["reply", sampling.seed, place])
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def hash_seed(*parts: str | int) -> int:
    """A seed of 63 bits that depends on each of the parts, and on their order."""
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def draw(
    logits: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    forbids: Callable[[int], bool] | None = None,
) -> int:
    """A token id drawn from logits (vocab,): first top-k, then top-p of what that leaves.

    forbids: whether a token must not be drawn; all others keep their odds.
    """
    token = _draw(logits, sampling, generator)
    while forbids is not None and forbids(token):
        logits = logits.index_fill(0, torch.tensor(token, device=logits.device), -torch.inf)
        token = _draw(logits, sampling, generator)
    return token


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax())
    ordered, tokens = logits.double().cpu().sort(descending=True, stable=True)
    if sampling.top_k:
        ordered, tokens = ordered[: sampling.top_k], tokens[: sampling.top_k]
    probabilities = ((ordered - ordered[0]) / sampling.temperature).softmax(0)
    likelier = probabilities.cumsum(0) - probabilities
    probabilities = probabilities.masked_fill(likelier >= sampling.top_p, 0)
    return int(tokens[probabilities.multinomial(1, generator=generator)])


class ReplyText:
    """Turns tokens into text up to the first of some stop texts, which is left out.

    Held back is what may become a stop text, or is no whole character yet. rules: of the chat that
    the reply is in; of a text that goes on there are none.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str], *, rules: ReplyRules = NO_RULES
    ) -> None:
        if "" in stops:
            raise ValueError("stop holds an empty text, which is everywhere; leave it out")
        self.is_stopped = False
        self.shown = ""
        """All text so far."""
        self._stops, self._rules = (*stops, *rules.stops), rules
        self._controls = tokenizer.controls
        self._tokenizer, self._stream = tokenizer, TextStream(tokenizer)
        self._opening = list[int]()
        """The tokens, as long as a mark begins with them."""
        self._is_open = bool(rules.marks)
        self._held = ""

    def forbids(self, token: int) -> bool:
        """Whether the reply would be another role's message, or begin as one, with this token."""
        if token in self._controls.others:
            return True
        if not self._is_open:
            return False
        return self._tokenizer.decode([*self._opening, token]).startswith(self._rules.marks)

    def ends_before(self, token: int) -> bool:
        """Whether the reply is at its end because this token comes next; it is no part of it."""
        if token in self._controls.stops or self._begins_line(token):
            self.is_stopped = True
        return self.is_stopped

    def _begins_line(self, token: int) -> bool:
        if not self._rules.line_marks or not (self._held or self.shown).endswith("\n"):
            return False
        begun = self._tokenizer.decode([token]).rstrip()
        return bool(begun) and any(mark.startswith(begun) for mark in self._rules.line_marks)

    def push(self, token: int) -> str:
        """The text that is certain by now and was not before."""
        if self._is_open:
            self._opening.append(token)
            begun = self._tokenizer.decode(self._opening)
            self._is_open = any(mark.startswith(begun) for mark in self._rules.marks)
        return self._show(self._take(token))

    def _show(self, piece: str) -> str:
        if not self.shown and self._rules.lead:
            piece = piece.lstrip(self._rules.lead)
        self.shown += piece
        return piece

    def _take(self, token: int) -> str:
        text = self._held + self._stream.push(token)
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        self.is_stopped = bool(found)
        certain = min(found) if found else len(text) - self._count_open(text)
        self._held = "" if found else text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """What was held back, when no more tokens come."""
        return "" if self.is_stopped else self._show(self._held + self._stream.finish())

    def _count_open(self, text: str) -> int:
        """Characters at the end of `text` with which a stop text may begin."""
        longest = max(map(len, self._stops), default=0)
        for count in range(min(longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stops):
                return count
        return 0
