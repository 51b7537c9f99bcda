"""Conversation, against an oracle that reads nothing but text and remembers what it was told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversation_oracle import Meaning, read_line, reply_to
from slowwave.sleep.schedule import NO_LOSS
from slowwave.tasks.conversation import ConversationConfig, Relation
from slowwave.tasks.conversation.task import Conversation
from slowwave.tasks.draws import SPLITS

TOKENIZER = str(Path(__file__).parents[2] / "recipes" / "talk-tokenizer.json")
TALK = ConversationConfig(
    tokenizer=TOKENIZER, window=24, windows=9, people=3, questions=9, question_tokens=32
)


class Heard(NamedTuple):
    """A turn found in tokens: places of its line's last token and of the first after its reply."""

    line: str
    reply: str
    line_stop: int
    stop: int


def hear(task: Conversation, tokens: list[int]) -> list[Heard]:
    """Cuts tokens into turns at their line breaks."""
    turns: list[Heard] = []
    line = reply = ""
    line_stop = 0
    for place, token in enumerate(tokens):
        text = task.tokenizer.decode([token])
        if not line.endswith("\n"):
            line, line_stop = line + text, place
            continue
        reply += text
        if text.endswith("\n"):
            turns.append(Heard(line, reply, line_stop, place + 1))
            line = reply = ""
    assert not line
    return turns


class Memory:
    """What was told, when, and whether it replaced another value."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], str] = {}
        self.windows: dict[tuple[str, str], int] = {}
        self.replaced: set[tuple[str, str]] = set()

    def note(self, meaning: Meaning, window: int) -> None:
        assert meaning.value is not None
        if meaning.key in self.known:
            assert self.known[meaning.key] != meaning.value
            self.replaced.add(meaning.key)
        else:
            assert not meaning.is_correction
        self.known[meaning.key] = meaning.value
        self.windows[meaning.key] = window

    def fits(self, label: str, meaning: Meaning | None, window: int) -> bool:
        """Whether a reply in `window` may bear this label."""
        if meaning is None or meaning.value is not None:
            return label == "not asked"
        if meaning.key not in self.known:
            return label == "never told"
        bounds, _, updated = label.partition(" ")
        first, _, last = bounds.partition("-")
        distance = window - self.windows[meaning.key]
        inside = int(first) <= distance <= int(last or first)
        return inside and (updated == "updated") == (meaning.key in self.replaced)


@st.composite
def configs(draw: st.DrawFn) -> ConversationConfig:
    told, corrected, asked = draw(
        st.sampled_from([(0.4, 0.1, 0.2), (0.1, 0.5, 0.4), (0.05, 0.0, 0.05), (1.0, 0.0, 0.0)])
    )
    every: tuple[Relation, ...] = get_args(Relation)
    relations = draw(st.sets(st.sampled_from(every)))
    in_bytes = draw(st.booleans())
    return ConversationConfig(
        tokenizer=None if in_bytes else TOKENIZER,
        window=draw(st.integers(40, 60)) if in_bytes else draw(st.integers(14, 20)),
        windows=draw(st.integers(3, 12)),
        relations=("city", *sorted(relations - {"city"})),
        people=draw(st.integers(1, 9)),
        invented=draw(st.sampled_from((0.0, 0.5, 0.9))),
        told=told,
        corrected=corrected,
        asked=asked,
        questions=draw(st.integers(1, 6)),
        question_tokens=130 if in_bytes else 40,
        untold=draw(st.sampled_from((0.0, 0.3))),
    )


@settings(max_examples=50)
@given(config=configs(), split=st.sampled_from(SPLITS), index=st.integers(0, 2**62))
def test_replies_equal_the_oracle(config: ConversationConfig, split: str, index: int) -> None:
    task = Conversation(config)
    labels = task.groups
    batch = task.batch(split, [index])
    stream, asked, mask = batch.stream, batch.questions, batch.mask
    assert asked is not None
    assert mask is not None
    count = int(mask.sum())
    assert mask.tolist() == [[True] * count + [False] * (config.windows * config.window - count)]
    tokens: list[int] = stream.inputs[0, :count].tolist()
    memory = Memory()
    targets = [NO_LOSS] * config.windows * config.window
    for number, turn in enumerate(hear(task, tokens)):
        meaning = read_line(turn.line)
        window = turn.line_stop // config.window
        assert turn.reply == reply_to(meaning, turn.line, memory.known)
        reply = slice(turn.line_stop, turn.stop - 1)
        targets[reply] = tokens[turn.line_stop + 1 : turn.stop]
        assert set(stream.answers[0, reply].tolist()) == {number}
        (group,) = set(stream.groups[0, reply].tolist())
        assert memory.fits(labels[group], meaning, window)
        if meaning is not None and meaning.value is not None:
            memory.note(meaning, window)
    assert stream.targets[0].tolist() == targets
    assert memory.known

    for number, fork in enumerate(asked.inputs[0].tolist()):
        (turn,) = hear(task, _whole(fork, asked.targets[0, number].tolist()))
        meaning = read_line(turn.line)
        assert meaning is not None
        assert meaning.value is None
        assert turn.reply == reply_to(meaning, turn.line, memory.known)
        is_scored = asked.targets[0, number] != NO_LOSS
        assert set(asked.answers[0, number][is_scored].tolist()) == {number}
        (group,) = set(asked.groups[0, number][is_scored].tolist())
        assert memory.fits(labels[group], meaning, config.windows)


def _whole(inputs: list[int], targets: list[int]) -> list[int]:
    """A question and its reply, checking that all of the reply and nothing else is predicted."""
    scored = [place for place, target in enumerate(targets) if target != NO_LOSS]
    assert scored == list(range(scored[0], scored[-1] + 1))
    tokens = [*inputs[: scored[-1] + 1], targets[scored[-1]]]
    assert tokens[scored[0] + 1 :] == targets[scored[0] : scored[-1] + 1]
    return tokens


def draw_meanings(config: ConversationConfig, split: str, count: int) -> list[list[Meaning | None]]:
    task = Conversation(config)
    examples = [task.example(split, index) for index in range(count)]
    return [
        [read_line(turn.splitlines(keepends=True)[0]) for turn in example.context]
        for example in examples
    ]


def test_conversations_never_cross_splits() -> None:
    """What is told first decides, whatever it is followed by."""
    short = ConversationConfig(
        window=120, windows=1, people=1, invented=0.0, relations=("colour",), questions=1
    )
    longer = ConversationConfig.from_dict({**short.to_dict(), "windows": 2, "told": 0.1})
    openings = {
        split: {
            (meaning.key, meaning.value)
            for config in (short, longer)
            for conversation in draw_meanings(config, split, 200)
            for meaning in [next(filter(None, conversation))]
        }
        for split in SPLITS
    }
    assert sum(map(len, openings.values())) == len(set.union(*openings.values()))
    assert all(len(found) > 9 for found in openings.values())


def test_turns_come_in_the_shares_of_the_config() -> None:
    config = ConversationConfig(tokenizer=TOKENIZER, window=64, windows=6, people=9, invented=0.3)
    kinds: Counter[str] = Counter()
    towns: Counter[str] = Counter()
    for conversation in draw_meanings(config, "train", 300):
        known: set[tuple[str, str]] = set()
        for place, meaning in enumerate(conversation):
            kind = _kind(meaning, known)
            kinds[kind] += place >= 2  # the first two are there to open
            if meaning is not None and meaning.value is not None:
                known.add(meaning.key)
                if meaning.key[1] == "city":
                    towns[meaning.value] += 1
    asked = kinds["asked"] + kinds["untold"]
    turns = kinds.total()
    assert kinds["told"] / turns == pytest.approx(config.told, abs=0.03)
    assert kinds["corrected"] / turns == pytest.approx(config.corrected, abs=0.02)
    assert asked / turns == pytest.approx(config.asked, abs=0.02)
    assert kinds["untold"] / asked == pytest.approx(config.untold, abs=0.04)
    real = sum(towns[town] for town in ("Rome", "Paris", "Oslo", "Lima", "Tokyo"))
    assert real / towns.total() == pytest.approx(0.7 * 5 / 20, abs=0.05)


def _kind(meaning: Meaning | None, known: set[tuple[str, str]]) -> str:
    if meaning is None:
        return "small talk"
    if meaning.value is None:
        return "asked" if meaning.key in known else "untold"
    return "corrected" if meaning.key in known else "told"


def test_all_that_can_be_asked_is_asked_alike() -> None:
    """Of told facts, each group that a stream offers; never-told ones in their share."""
    task = Conversation(TALK)
    labels = task.groups
    counts: Counter[str] = Counter()
    offered = 0.0
    for index in range(400):
        batch = task.batch("train", [index])
        assert batch.questions is not None
        groups = batch.questions.groups[0].max(dim=-1).values.tolist()
        counts.update(labels[group] for group in groups)
        offered += _offers(task, index)
    total = counts.total()
    assert counts["never told"] / total == pytest.approx(TALK.untold, abs=0.03)
    # Nearly every stream offers what it told first; where it does, its share is one in as many.
    assert counts["1"] / total == pytest.approx((1 - TALK.untold) * offered / 400, abs=0.03)


def _offers(task: Conversation, index: int) -> float:
    """The share of the group of facts told once, in the newest window, among told ones."""
    example = task.example("train", index)
    memory = Memory()
    for turn in hear(task, list(example.tokens)):
        meaning = read_line(turn.line)
        if meaning is not None and meaning.value is not None:
            memory.note(meaning, turn.line_stop // TALK.window)
    groups = {
        ((TALK.windows - window).bit_length(), key in memory.replaced)
        for key, window in memory.windows.items()
    }
    return ((1, False) in groups) / len(groups)


def test_the_floor_is_what_forgetting_scores() -> None:
    task = Conversation(TALK)
    examples = [task.example("test", index) for index in range(64)]
    turns = [
        turn.splitlines(keepends=True)
        for example in examples
        for turn in (*example.context, *map(str.__add__, example.questions, example.answers))
    ]
    right = sum(reply_to(read_line(line), line, {}) == reply for line, reply in turns)
    assert task.floors() == {"forgetful": pytest.approx(right / len(turns))}


def test_what_is_too_short_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^task\.window is 3 with task\.windows 2, which together"
    ):
        Conversation(ConversationConfig(window=3, windows=2)).batch("train", [0])
    with pytest.raises(ValueError, match=r"^task\.question_tokens is 5, which is too short"):
        Conversation(ConversationConfig(question_tokens=5)).batch("train", [0])


def test_long_questions_are_not_asked() -> None:
    narrow = ConversationConfig.from_dict({**TALK.to_dict(), "question_tokens": 20})
    wide = {**narrow.to_dict(), "question_tokens": 200}
    for values, longest in ((narrow.to_dict(), 20), (wide, 40)):
        task = Conversation(ConversationConfig.from_dict(values))
        asked = [
            len(task.tokenizer.encode(question)) + len(task.tokenizer.encode(reply))
            for index in range(30)
            for example in [task.example("train", index)]
            for question, reply in zip(example.questions, example.answers, strict=True)
        ]
        assert longest - 15 < max(asked) <= longest


def test_examples_are_what_batches_hold() -> None:
    task = Conversation(TALK)
    example, batch = task.example("validation", 5), task.batch("validation", [5])
    assert batch.questions is not None
    assert batch.mask is not None
    assert example.tokens == tuple(batch.stream.inputs[batch.mask].tolist())
    targets = torch.cat([batch.stream.targets.ravel(), batch.questions.targets.ravel()])
    assert example.targets == tuple(targets[targets != NO_LOSS].tolist())
    assert "".join(example.context) == task.tokenizer.decode(example.tokens)
    shown = [line.strip() for line in task.render(example).splitlines()]
    turns = [*example.context, *map(str.__add__, example.questions, example.answers)]
    said = [line for turn in turns for line in turn.splitlines()]
    assert [line for line in shown if line in said] == said
