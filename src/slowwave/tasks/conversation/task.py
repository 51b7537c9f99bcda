"""Conversation: chat in plain English about facts that are told, corrected and asked for.

The task of a model to talk to. A stream is turns, a line of the user and the reply, for as long as
whole ones fit into its windows; windows are cut anywhere, inside words too. What no turn fits into
is padding, so that the last sleep comes at the end of a turn, as one that is asked for does. Every
reply is predicted; after the stream, further questions are asked, each on its own fork.
`turns` draws what is said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from textwrap import indent
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from slowwave.sleep.objective import NONE, Batch, Labelled
from slowwave.storage.tokenizer import load_tokenizer
from slowwave.tasks.base import Example, Lines, Task, name_doublings
from slowwave.tasks.conversation import ConversationConfig
from slowwave.tasks.conversation.turns import Key, Script, Turn, draw_script
from slowwave.tasks.draws import Integers, Words, check_rows

_PADDING = 0
# Codes of groups: the bit length of a distance in windows, to which this is added if the fact
# replaced another, and these.
_UPDATED = 2**10
_UNTOLD = 2**11
_NOT_ASKED = 2**12

_TRIES = 64
_FLOOR_EXAMPLES = 64


class Told(NamedTuple):
    """The window in which the newest value of a key was told, and whether it replaced another."""

    window: int
    is_update: bool


class Said(NamedTuple):
    """A turn as tokens, those of the user's line and those of the reply, and its group."""

    turn: Turn
    line: list[int]
    reply: list[int]
    group: int


class Drawn(NamedTuple):
    """An example: the turns of the stream, and those asked after it."""

    stream: list[Said]
    asked: list[Said]


class Conversation(Task[ConversationConfig]):
    """A reply is an answer, right when the whole line is. Groups are how many windows ago the fact
    that it names was last told (0 is the same window), apart for facts that replaced another; one
    for what was never told, and one for replies that ask nothing of the memory.

    Raises ValueError if the tokenizer cannot be read or is not exact.
    """

    config_class = ConversationConfig
    group_name = "windows ago"
    context_tokens = 0

    def __init__(self, config: ConversationConfig) -> None:
        super().__init__(config)
        self.tokenizer = load_tokenizer(config.tokenizer)
        self.vocab_size = self.tokenizer.vocab_size
        self.prediction_tokens = config.question_tokens
        names = {0: "0"} if config.asked else {}
        names |= dict(enumerate(name_doublings(config.windows), start=1))
        self.groups = dict(names)
        if config.corrected:
            self.groups |= {_UPDATED + code: f"{name} updated" for code, name in names.items()}
        if config.untold:
            self.groups[_UNTOLD] = "never told"
        self.groups[_NOT_ASKED] = "not asked"

    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Stream (B, windows * window), masked where no turn fits; forked questions (B, questions,
        question_tokens), each with the reply to it and what fills it up. See `Task.batch`."""
        drawn = self._draw(split, indices)
        length = self.config.windows * self.config.window
        stream = [list(enumerate(example.stream)) for example in drawn]
        forks = [[question] for example in drawn for question in enumerate(example.asked)]
        filled = np.array([_count_tokens(example.stream) for example in drawn])
        shape = (len(drawn), self.config.questions, self.config.question_tokens)
        asked = _label(forks, self.config.question_tokens)
        return Batch(
            stream=Labelled.from_arrays(*_label(stream, length)),
            questions=Labelled.from_arrays(*(column.reshape(shape) for column in asked)),
            mask=torch.from_numpy(np.arange(length) < filled[:, None]),
        )

    def describe(self, split: str, index: int) -> tuple[Lines, Lines, Lines]:
        """See `Task.describe`; the context has one entry for each turn."""
        (drawn,) = self._draw(split, [index])
        return (
            (said.turn.line + said.turn.reply for said in drawn.stream),
            (said.turn.line for said in drawn.asked),
            (said.turn.reply for said in drawn.asked),
        )

    def example(self, split: str, index: int) -> Example:
        """See `Task.example`; without what fills up the last window."""
        example, (drawn,) = super().example(split, index), self._draw(split, [index])
        tokens = example.tokens[: _count_tokens(drawn.stream)]
        return dataclasses.replace(example, tokens=tokens)

    def render(self, example: Example) -> str:
        asked = "".join(map(str.__add__, example.questions, example.answers))
        said = f"{''.join(example.context)}asked afterwards, each on a copy of the state:\n{asked}"
        return f"conversation {example.split} {example.index}\n{indent(said, '  ')}".rstrip()

    def floors(self) -> dict[str, float]:
        """forgetful: the share of replies, in a sample of the test split, that are right if one
        knows the language and remembers nothing: "never told" is then the best answer."""
        drawn = self._draw("test", range(_FLOOR_EXAMPLES))
        groups = [said.group for example in drawn for part in example for said in part]
        return {"forgetful": sum(group in (_UNTOLD, _NOT_ASKED) for group in groups) / len(groups)}

    def _draw(self, split: str, indices: npt.ArrayLike) -> list[Drawn]:
        return [self._draw_one(split, index) for index in check_rows(split, indices)[:, None]]

    def _draw_one(self, split: str, index: Words) -> Drawn:
        script = draw_script(self.config, split, index)
        told: dict[Key, Told] = {}
        stream = self._read(script, told)
        if not told:
            raise ValueError(
                f"task.window is {self.config.window} with task.windows {self.config.windows}, "
                "which together are too short for a statement; use more"
            )
        groups: dict[int, list[Key]] = {}
        for key, (window, is_update) in told.items():
            groups.setdefault(_group(self.config.windows - window, is_update), []).append(key)
        by_group = list(groups.values())
        asked = [self._draw_question(script, told, by_group) for _ in range(self.config.questions)]
        return Drawn(stream, asked)

    def _read(self, script: Script, told: dict[Key, Told]) -> list[Said]:
        """The turns that fit; notes in `told` what they tell."""
        length = self.config.windows * self.config.window
        stream: list[Said] = []
        start = 0
        for turn in script.turns():
            said = self._encode(turn)
            stop = start + _count_tokens([said])
            if stop > length:
                return stream
            window = (start + len(said.line) - 1) // self.config.window
            stream.append(said._replace(group=_find_group(turn, told, window)))
            if turn.tells is not None:
                told[turn.tells.key] = Told(window, turn.tells.key in told)
            start = stop
        raise AssertionError("scripts do not end")

    def _draw_question(
        self, script: Script, told: dict[Key, Told], by_group: list[list[Key]]
    ) -> Said:
        """All groups of told facts that the stream offers are equally likely."""
        for _ in range(_TRIES):
            turn = script.ask_after(by_group)
            if turn is None:
                continue
            said = self._encode(turn)
            if _count_tokens([said]) <= self.config.question_tokens:
                return said._replace(group=_find_group(turn, told, self.config.windows))
        raise ValueError(
            f"task.question_tokens is {self.config.question_tokens}, which is too short for "
            "questions and their replies; use more"
        )

    def _encode(self, turn: Turn) -> Said:
        line, reply = self.tokenizer.encode(turn.line), self.tokenizer.encode(turn.reply)
        return Said(turn, line, reply, NONE)


def _count_tokens(turns: Sequence[Said]) -> int:
    return sum(len(said.line) + len(said.reply) for said in turns)


def _find_group(turn: Turn, told: dict[Key, Told], window: int) -> int:
    """Of a turn whose line ends in `window`."""
    if turn.asks is None:
        return _NOT_ASKED
    if turn.asks not in told:
        return _UNTOLD
    fact = told[turn.asks]
    return _group(window - fact.window, fact.is_update)


def _group(distance: int, is_update: bool) -> int:
    return distance.bit_length() + _UPDATED * is_update


def _label(
    rows: Sequence[Sequence[tuple[int, Said]]], length: int
) -> tuple[Integers, Integers, Integers, Integers]:
    """Inputs, targets, answers and groups (R, length) of rows of turns, numbered by their answer.

    The first token of a reply is predicted at the last one of the line.
    """
    tokens = np.full((len(rows), length + 1), _PADDING)
    answers, groups = np.full((2, len(rows), length), NONE)
    for row, turns in enumerate(rows):
        start = 0
        for number, said in turns:
            reply = start + len(said.line)
            stop = reply + len(said.reply)
            tokens[row, start:stop] = said.line + said.reply
            answers[row, reply - 1 : stop - 1] = number
            groups[row, reply - 1 : stop - 1] = said.group
            start = stop
    return tokens[:, :-1], tokens[:, 1:], answers, groups
