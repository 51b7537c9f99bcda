"""`slowwave bench keep`: what memories keep of a model's context, beside controls."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from slowwave.lab.keep.memories import EMPTY, FOREIGN, FULL, Memory, describe
from slowwave.lab.keep.scores import (
    Kept,
    ask_questions,
    cut_chat,
    live_through,
    score_continuation,
    score_facts,
)
from slowwave.lab.keep.texts import Test, read_talk, write_facts
from slowwave.memory.session import Session
from slowwave.memory.talker import Talker
from slowwave.sleep.awake import read_awake
from slowwave.sleep.config import SleepConfig

Row = dict[str, Any]
Say = Callable[[str], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepTest:
    """What is read and asked. texts: of facts. people: strangers, by number. windows: after so many
    a stranger is asked, and a text goes on. window: tokens of one. replay: of chats."""

    texts: int
    people: Sequence[int]
    windows: Sequence[int]
    window: int
    replay: str
    document: str
    places: int


@torch.inference_mode()
def run_keep(
    talker: Talker, tests: Sequence[Test], memories: Sequence[Memory], test: KeepTest, say: Say
) -> Iterator[Row]:
    """Rows as they are found: full context first, then the memories, then controls."""
    for name in tests:
        fit = [each for each in memories if name == "strangers" or not each.dreams]
        for row in TESTS[name](talker, fit, test, say) if fit else ():
            yield {"test": name, **row}


def _test_facts(
    talker: Talker, memories: Sequence[Memory], test: KeepTest, say: Say
) -> Iterator[Row]:
    texts = [write_facts(seed) for seed in range(test.texts)]
    full = SleepConfig(window=1, eviction="none")
    encoded = [torch.tensor([talker.tokenizer.encode(text)]) for text, _ in texts]
    begun = talker.model.initial_state(1)
    states = [
        read_awake(talker.model, ids.to(talker.model.device), begun, full)[1] for ids in encoded
    ]
    for memory in [Memory(FULL), *memories, Memory(EMPTY)]:
        say(f"facts: {memory.name}")
        found: list[Kept] = []
        for (_, facts), state in zip(texts, states, strict=True):
            sleeper = memory.talker(talker, state.window_fill, replay="window")
            read = begun if memory.name == EMPTY else state
            found.append(score_facts(sleeper, facts, read, sleeps=memory.settings is not None))
        yield describe(memory) | _sum_up(found)
    if len(states) == 1:
        return  # there is no other
    foreign = [
        score_facts(
            memories[0].talker(talker, state.window_fill, replay="window"),
            facts,
            state,
            sleeps=True,
        )
        for (_, facts), state in zip(texts, states[1:] + states[:1], strict=True)
    ]
    yield describe(memories[0]._replace(name=FOREIGN)) | _sum_up(foreign)


def _test_strangers(
    talker: Talker, memories: Sequence[Memory], test: KeepTest, say: Say
) -> Iterator[Row]:
    people, last = read_talk().people, max(test.windows)
    chats = [cut_chat(talker, person, test.window, last) for person in test.people]
    others: dict[int, list[Session]] = {}
    for memory in [Memory(FULL), *memories]:
        found: dict[int, list[Kept]] = {count: [] for count in test.windows}
        num_dreamt = dict.fromkeys(test.windows, 0)
        replay = test.replay if memory.rereads else None
        sleeper = memory.talker(talker, test.window, replay=replay)
        for person, windows in zip(test.people, chats, strict=True):
            say(f"strangers: {memory.name}, person {person}")
            lived = live_through(sleeper, windows, test.windows, dreams=memory.dreams)
            for count, session, seconds in lived:
                questions = people[person].questions
                found[count].append(ask_questions(session, questions, seconds=seconds))
                if memory.dreams:
                    num_dreamt[count] += session.state.delta is not None
                if memory is memories[0]:
                    others.setdefault(count, []).append(session)
        for count, kept in ((count, kept) for count, kept in found.items() if kept):
            row = describe(memory) | {"replay": replay, "windows": count} | _sum_up(kept)
            yield row | {"dreamt": num_dreamt[count]} if memory.dreams else row
    strangers = [people[person].questions for person in test.people]
    first = memories[0].talker(talker, test.window)
    empty = [ask_questions(first.session(), questions, seconds=0) for questions in strangers]
    yield describe(Memory(EMPTY)) | {"replay": None, "windows": 0} | _sum_up(empty)
    for count, sessions in others.items() if len(test.people) > 1 else ():
        shifted = sessions[1:] + sessions[:1]
        kept = [
            ask_questions(session, questions, seconds=0)
            for session, questions in zip(shifted, strangers, strict=True)
        ]
        row = describe(memories[0]._replace(name=FOREIGN))
        yield row | {"replay": test.replay, "windows": count} | _sum_up(kept)


def _test_continuation(
    talker: Talker, memories: Sequence[Memory], test: KeepTest, say: Say
) -> Iterator[Row]:
    tokens = talker.tokenizer.encode(test.document)
    needed = (max(test.windows) + 1) * test.window
    if len(tokens) < needed:
        raise ValueError(
            f"--text has {len(tokens)} tokens; give at least {needed}, or fewer --windows"
        )
    stride = (len(tokens) - needed) // max(test.places - 1, 1)
    for memory in [Memory(FULL), *memories, Memory(EMPTY)]:
        sleeper = memory.talker(talker, test.window, replay="window")
        for count in test.windows:
            say(f"continuation: {memory.name}, {count} windows")
            # Without a memory the last token is read alone, which the first one is predicted from.
            context = count * test.window
            skipped = context - 1 if memory.name == EMPTY else 0
            found: list[tuple[float, int, float]] = []
            for place in range(test.places):
                start = place * stride
                piece = tokens[start + skipped : start + context + test.window]
                ids = torch.tensor([piece], device=talker.model.device)
                found.append(score_continuation(sleeper, ids, context - skipped))
            nats, nbytes, seconds = ([each[part] for each in found] for part in range(3))
            yield describe(memory) | {
                "windows": count,
                "nats": round(sum(nats) / len(nats), 4),
                "each": [round(each, 4) for each in nats],
                "kilobytes": round(sum(nbytes) / len(nbytes) / 1000),
                "seconds": round(sum(seconds) / len(seconds), 3),
            }


TESTS: dict[Test, Callable[[Talker, Sequence[Memory], KeepTest, Say], Iterator[Row]]] = {
    "facts": _test_facts,
    "strangers": _test_strangers,
    "continuation": _test_continuation,
}


def read_document(files: Sequence[Path]) -> str:
    """The text of files; that of Python's reference manual, which comes with Python, if none."""
    if not files:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    try:
        return "\n\n".join(path.read_text("utf-8") for path in files)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--text cannot be read ({error}); name files in UTF-8") from None


def _sum_up(found: Sequence[Kept]) -> Row:
    """Shares over all texts or people, what each had right, and costs on average."""
    right, asked = Counter[str](), Counter[str]()
    for kept in found:
        right += kept.right
        asked += kept.asked
    kinds = [kind for kind in asked if asked[kind]]
    return {
        "right": {kind: right[kind] for kind in kinds},
        "of": {kind: asked[kind] for kind in kinds},
        "each": [kept.right[kinds[0]] for kept in found],
        "kilobytes": round(sum(kept.nbytes for kept in found) / len(found) / 1000),
        "seconds": round(sum(kept.seconds for kept in found) / len(found), 3),
        "token_ms": round(1000 * sum(kept.token_seconds for kept in found) / len(found), 2),
        "replies": [list(pair) for kept in found for pair in kept.replies],
    }
