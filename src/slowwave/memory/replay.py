"""Going through a ledger again: without some of it, or with another model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence

from slowwave.memory.consolidators.lora import NothingToDream
from slowwave.memory.ledger import TEMPLATE, Entry
from slowwave.memory.names import list_names
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.turn import Steps, begin_stream, finish
from slowwave.runtime.model_folder import TalkingModel
from slowwave.wording import describe_range

OnRead = Callable[[int, int], object]
"""Is told how many tokens of how many were read and slept on."""


def replay(
    start: Callable[[], Session], entries: Iterable[Entry], on_read: OnRead | None = None
) -> Session:
    """A session that went through exactly these calls, from what `start` returns.

    Sleeps that were asked for lapse where, without what is missing, the window is empty, and dreams
    where the ledger tells too little.
    """
    session = start()
    finish(replay_by_step(session, entries, on_read))
    return session


def replay_by_step(
    session: Session, entries: Iterable[Entry], on_read: OnRead | None = None
) -> Steps[None]:
    """As `replay`, in steps of bounded work, with a session that goes on from where it is.

    The sleeps are those of a replay, not of a session that is lived in: no event tells of them.
    """
    entries = [*entries]
    total, done = sum(len(entry.tokens) for entry in entries), 0
    for entry in entries:
        if entry.kind == "sleep" and not entry.is_dream and not session.state.window_fill:
            continue
        steps = session.repeat_by_step(entry)
        with contextlib.suppress(NothingToDream), contextlib.closing(steps):
            for event in steps:
                if not isinstance(event, SleepReport):
                    yield event
                elif on_read is not None:
                    done += event.num_evicted
                    on_read(done, total)


def resleep(
    start: Callable[[], Session], entries: Iterable[Entry], on_read: OnRead | None = None
) -> Session:
    """As `replay`, for a session with another model: all texts are encoded anew."""
    session, anew = start(), list[Entry]()
    for entry in entries:
        if entry.source == TEMPLATE:
            continue  # of the other model
        if not anew:
            anew += begin_stream(session.talker, entry)
        anew.append(_write_anew(session.talker, entry))
    return replay(lambda: session, anew, on_read)


def _write_anew(talker: TalkingModel, entry: Entry) -> Entry:
    """An entry as another model is told it: words as they are, messages in its chat's form."""
    if entry.kind == "sleep":
        return entry
    chat, tokenizer = talker.chat, talker.tokenizer
    if chat is None or entry.role is None or chat.has_written(entry.text):
        tokens, text = tokenizer.encode(entry.given), entry.given
        text = tokenizer.decode(tokens) if tokenizer.losses else text
        return dataclasses.replace(entry, tokens=tuple(tokens), text=text)
    if entry.said.strip():
        pieces = chat.encode(tokenizer, entry.role, entry.said)
        tokens = [token for piece in pieces for token in piece]
    else:  # a reply that was ended at once
        tokens = [*chat.open_reply(tokenizer), *chat.close_reply(tokenizer, [])]
    return dataclasses.replace(entry, tokens=tuple(tokens), text=tokenizer.decode(tokens))


@dataclasses.dataclass(frozen=True, slots=True)
class ForgetPlan:
    """What forgetting would do to a ledger: the places of what is replayed, and of what goes."""

    entries: tuple[Entry, ...]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    carriers: tuple[int, ...]
    """Of what goes that which was not named: a model said it later, so it may carry the rest."""

    @property
    def kept_entries(self) -> list[Entry]:
        """What is replayed, in order."""
        return [self.entries[place] for place in self.kept]

    @property
    def num_tokens(self) -> int:
        """Tokens that are read again."""
        return sum(len(entry.tokens) for entry in self.kept_entries)


def plan_forgetting(
    entries: Sequence[Entry],
    *,
    sources: Collection[str] = (),
    places: Collection[int] = (),
    keep: Collection[int] = (),
) -> ForgetPlan:
    """What goes if all from some sources, and at some places of the ledger, is forgotten.

    What a model said after the first of that may carry it, so it goes too, but for the places
    `keep`: replies, and assistant's lines that a client sent. Raises ValueError if a source or a
    place is not there, or `keep` names what no model said or is forgotten itself.
    """
    known = sorted({entry.source for entry in entries})
    for source in sources:
        if source not in known:
            raise ValueError(
                f"nothing is from source {source!r:.80}; there are {list_names(known)}"
            )
    for place in [*places, *keep]:
        if not 0 <= place < len(entries):
            known = describe_range(0, len(entries) - 1)
            raise ValueError(f"place {place} is not in the ledger; {known}")
    sources, places, keep = set(sources), set(places), set(keep)  # however many are named
    named = {
        place for place, entry in enumerate(entries) if place in places or entry.source in sources
    }
    for place in keep:
        if place in named or not entries[place].is_models:
            raise ValueError(f"keep names place {place}, which is no reply, or is to be forgotten")
    first = min(named, default=len(entries))
    carriers = {
        place
        for place, entry in enumerate(entries)
        if entry.is_models and place > first and place not in keep
    }
    dropped = named | carriers
    kept = tuple(place for place in range(len(entries)) if place not in dropped)
    carried = tuple(sorted(carriers - named))
    return ForgetPlan(tuple(entries), kept, tuple(sorted(dropped)), carried)
