"""Scores of what a memory kept: facts of a text, what strangers told, how a text goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from slowwave.lab.keep.texts import Exchange, Fact, Question, read_talk, write_chat
from slowwave.memory.consolidators.lora import NothingToDream
from slowwave.memory.ledger import USER, Entry
from slowwave.memory.session import Session
from slowwave.memory.talker import Talker
from slowwave.memory.turn import finish, say
from slowwave.sleep.awake import read_awake
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState

MOST_REPLIED = 24
TELLING_WINDOWS = 4
"""All that a stranger tells is told in the first so many windows."""
TOKENS_OF_EXCHANGE = 50
TIMED = 32
"""Tokens that are timed."""
ADMITS = re.compile(
    r"(don't|do not|didn't|did not|haven't|have not|never|not sure|no information|unable|can't|"
    r"cannot|unknown)",
    re.IGNORECASE,
)
"""An answer with one of these does not make up what was never told."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """What was found with one memory: right answers, by kind, of how many; and what it cost."""

    right: Counter[str]
    asked: Counter[str]
    nbytes: int
    """Of the memory."""
    seconds: float
    """Of its sleeps."""
    token_seconds: float = 0.0
    """Of a token that is drawn, the median."""
    replies: tuple[tuple[str, str], ...] = ()
    """Questions, and what was answered."""


def score_facts(talker: Talker, facts: Sequence[Fact], read: MemoryState, *, sleeps: bool) -> Kept:
    """Begins each fact; right if the likeliest token goes on with it.

    read: the state after a text of facts, as one window, which is slept on first if `sleeps`.
    """
    began = time.perf_counter()
    state = read
    if sleeps:
        passes = talker.sleep.passes
        state = consolidate(talker.model, read, passes=passes, sleep=talker.sleep)
    seconds = time.perf_counter() - began
    encode = talker.tokenizer.encode
    begun = [encode("\n" + fact.begin) for fact in facts]
    longest = max(map(len, begun))
    padded = torch.tensor([[each + [0] * (longest - len(each)) for each in begun]])
    (hidden,) = talker.model.ask(padded.to(talker.model.device), state)
    last = torch.stack([row[len(each) - 1] for row, each in zip(hidden, begun, strict=True)])
    likeliest = talker.model.logits(last).argmax(-1).tolist()
    right = sum(token == encode(fact.end)[0] for token, fact in zip(likeliest, facts, strict=True))
    return Kept(
        right=Counter({"facts": right}),
        asked=Counter({"facts": len(facts)}),
        nbytes=state.nbytes,
        seconds=seconds,
    )


def encode_exchange(talker: Talker, exchange: Exchange) -> list[Entry]:
    """What both sides say, as it will be in the ledger."""
    assert talker.chat is not None
    said, replied = exchange
    return [
        say(talker.tokenizer, talker.chat, "user", said, USER),
        say(talker.tokenizer, talker.chat, "assistant", replied, USER),
    ]


def cut_chat(talker: Talker, person: int, window: int, count: int) -> list[list[Exchange]]:
    """A stranger's chat in so many windows, none of them full; each ends between exchanges."""
    told = len(read_talk().people[person].told)
    spacing = max(1.5, TELLING_WINDOWS * window / TOKENS_OF_EXCHANGE / told)
    windows: list[list[Exchange]] = [[]]
    filled = 0
    for exchange in write_chat(person, spacing=spacing):
        tokens = sum(len(entry.tokens) for entry in encode_exchange(talker, exchange))
        if filled + tokens >= window:
            if len(windows) == count:
                return windows
            windows.append([])
            filled = 0
        windows[-1].append(exchange)
        filled += tokens
    raise AssertionError("a chat has no end")


def live_through(
    talker: Talker,
    windows: Sequence[Sequence[Exchange]],
    after: Sequence[int],
    *,
    dreams: bool = False,
) -> Iterator[tuple[int, Session, float]]:
    """A session that goes through windows, sleeping on each; it is saved, and goes on in another,
    after so many of them: how many, the session, and the seconds of its sleeps.

    dreams: it dreams of all that was said when it is saved, each time anew, and goes on without.
    Full context gives up where it is longer than what the model was trained for.
    """
    longest = talker.model.config.traits.context_length
    session, seconds = talker.session(), 0.0
    for number, window in enumerate(windows, 1):
        for exchange in window:
            finish(session.take_turn(encode_exchange(talker, exchange), max_new_tokens=0))
            if not dreams:
                session.entries.clear()
        if talker.sleep.eviction != "none":
            began = time.perf_counter()
            session.sleep()
            seconds += time.perf_counter() - began
        elif longest and session.state.counters.tokens_seen > longest:
            return
        if number in after and dreams:
            dreamt, began = session.fork(), time.perf_counter()
            with contextlib.suppress(NothingToDream):  # then nothing has changed
                dreamt.dream()
            yield number, _restart(talker, dreamt), seconds + time.perf_counter() - began
        elif number in after:
            session = _restart(talker, session)
            yield number, session.fork(), seconds


def ask_questions(session: Session, questions: Sequence[Question], *, seconds: float) -> Kept:
    """Asks a session each question by itself. seconds: of its sleeps."""
    right, asked = Counter[str](), Counter[str]()
    replies: list[tuple[str, str]] = []
    for each in questions:
        reply = session.fork().generate(each.text, max_new_tokens=MOST_REPLIED)
        replies.append((each.text, reply))
        asked[each.kind] += 1
        right[each.kind] += is_right(each, reply)
        right["outdated"] += bool(each.outdated) and _has(each.outdated, reply)
    asked["outdated"] = asked["corrected"]
    return Kept(
        right=right,
        asked=asked,
        nbytes=session.state.nbytes,
        seconds=seconds,
        token_seconds=_time_token(session),
        replies=tuple(replies),
    )


def is_right(asked: Question, reply: str) -> bool:
    """Whether a reply has what it must, and nothing outdated; or admits that nothing was told."""
    if asked.kind == "unknown":
        return ADMITS.search(reply) is not None
    return _has(asked.right, reply) and not (asked.outdated and _has(asked.outdated, reply))


def score_continuation(talker: Talker, tokens: Tensor, context: int) -> tuple[float, int, float]:
    """How surprising a text is after its beginning was read as a stream, sleeping: nats a token of
    what follows, the bytes of the state before it, and seconds of all that was read and slept on.

    tokens (1, T): of the text. context: so many of them, 1 or more, are its beginning.
    """
    model, sleep = talker.model, talker.sleep
    read = read_awake if sleep.eviction == "none" else read_stream
    began = time.perf_counter()
    hidden, state = read(model, tokens[:, :context], model.initial_state(1), sleep)
    seconds = time.perf_counter() - began
    rest = tokens[:, context:]
    after, _ = read_awake(model, rest[:, :-1], state, sleep)
    before = torch.cat([hidden[:, -1:], after], dim=1)
    logs = model.logits(before).log_softmax(-1).gather(-1, rest[..., None])
    return -float(logs.mean()), state.nbytes, seconds


def _time_token(session: Session) -> float:
    """The median time of a token, drawn and read after what the session has in memory."""
    model, state = session.talker.model, session.state
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    times: list[float] = []
    for _ in range(TIMED):
        began = time.perf_counter()
        hidden, state = model.read(token, state)
        token = model.logits(hidden).argmax(-1)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _has(pattern: str, reply: str) -> bool:
    return re.search(rf"\b(?:{pattern})", reply, re.IGNORECASE) is not None


def _restart(talker: Talker, session: Session) -> Session:
    """Another session that goes on from the file of this one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.memory"
        session.save(path)
        return talker.session(path)
