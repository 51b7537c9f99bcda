"""What a sleep keeps: the same questions before it and after it, on copies that are thrown away."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch

from slowwave.memory.answers import answer, contains
from slowwave.memory.config import Question
from slowwave.memory.entry_checks import check_passes
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.runtime.model_folder import Talker
from slowwave.sleep.consolidate import consolidate
from slowwave.state import MemoryState

MAX_NEW_TOKENS = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What was said after a sleep."""

    passes: int
    """N, all passes counted; 1 is plain eviction."""
    text: str
    is_right: bool | None
    """Whether it contains the expected answer; None if there is none."""
    is_same: bool
    """Whether it is the reply before the sleep, to the letter."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, and what was said before a sleep and after it."""

    question: Question
    before: str
    was_right: bool | None
    """Whether `before` contains the expected answer; None if there is none."""
    after: tuple[Reply, ...]
    """One for every number of passes."""


def probe_state(
    talker: Talker,
    state: MemoryState,
    questions: Iterable[Question],
    *,
    passes: Sequence[int] = (),
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Asked]:
    """Asks each question before a sleep on the open window, and after one of each `passes`.

    Replies are greedy. passes: those of the settings, if none are given. No gate is asked. The
    state stays as it is. Raises ValueError if the window is empty, the settings forbid sleep, or an
    argument is unfit.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; use 1 or more")
    for n in passes:
        check_passes(n)
    slept = dict[int, MemoryState]()
    for n in passes or [talker.sleep.passes]:
        with torch.inference_mode():
            slept[n] = consolidate(talker.model, state, passes=n, sleep=talker.sleep)

    def ask(memory: MemoryState, question: Question) -> str:
        return answer(talker, memory, question.question, max_new_tokens=max_new_tokens)

    asked = list[Asked]()
    for question in questions:
        before = ask(state, question)
        replies = {n: ask(memory, question) for n, memory in slept.items()}
        asked.append(
            Asked(
                question=question,
                before=before,
                was_right=_is_right(question, before),
                after=tuple(
                    Reply(
                        passes=n,
                        text=text,
                        is_right=_is_right(question, text),
                        is_same=text == before,
                    )
                    for n, text in replies.items()
                ),
            )
        )
    return asked


def probe_session(
    session: Session,
    questions: Iterable[Question],
    *,
    passes: Sequence[int] = (),
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Asked]:
    """`probe_state` of a session, which stays as it is; raises ValueError while a reply is open."""
    fork = session.fork()
    return probe_state(
        fork.talker, fork.state, questions, passes=passes, max_new_tokens=max_new_tokens
    )


def probe_point(
    store: Store,
    point: str,
    talker: Talker,
    questions: Iterable[Question],
    *,
    passes: Sequence[int] = (),
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Asked]:
    """`probe_state` of a point of a store, "session" or "session@snapshot", whoever has it open.

    Raises ValueError as `Store.state` and `probe_state`.
    """
    state = store.state(point, talker)
    return probe_state(talker, state, questions, passes=passes, max_new_tokens=max_new_tokens)


def _is_right(question: Question, reply: str) -> bool | None:
    return None if question.answer is None else contains(reply, question.answer)
