"""Going through a ledger again: without some of it, or with another model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence

from slowwave.memory.ledger import Entry
from slowwave.memory.refusals import list_names
from slowwave.memory.session import Session
from slowwave.memory.turn_steps import Steps, finish
from slowwave.storage.tokenizer import Tokenizer
from slowwave.wording import describe_range


def replay(start: Callable[[], Session], entries: Iterable[Entry]) -> Session:
    """A session that went through exactly these calls, from what `start` returns.

    Sleeps that were asked for lapse where, without what is missing, the window is empty.
    """
    session = start()
    finish(replay_by_step(session, entries))
    return session


def replay_by_step(session: Session, entries: Iterable[Entry]) -> Steps[None]:
    """As `replay`, in steps of bounded work, with a session that goes on from where it is."""
    for entry in entries:
        if entry.kind != "sleep" or session.state.window_fill:
            yield from session.repeat_by_step(entry)


def resleep(start: Callable[[], Session], entries: Iterable[Entry]) -> Session:
    """As `replay`, for a session with another model: all texts are encoded anew."""
    session = start()
    return replay(lambda: session, encode_anew(entries, session.tokenizer))


def encode_anew(entries: Iterable[Entry], tokenizer: Tokenizer) -> list[Entry]:
    """The same texts as the tokens of another tokenizer."""
    return [
        dataclasses.replace(entry, tokens=tuple(tokenizer.encode(entry.text))) for entry in entries
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class ForgetPlan:
    """What forgetting would do to a ledger: the places of what is replayed, and of what goes."""

    entries: tuple[Entry, ...]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]

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

    Replies given after the first of that may carry it, so they go too, but for those at the places
    `keep`. Raises ValueError if a source or a place is not there, or `keep` names what is no reply
    or is forgotten itself.
    """
    known = sorted({entry.source for entry in entries})
    for source in sources:
        if source not in known:
            raise ValueError(f"nothing is from source {source!r}; there are {list_names(known)}")
    for place in [*places, *keep]:
        if not 0 <= place < len(entries):
            known = describe_range(0, len(entries) - 1)
            raise ValueError(f"place {place} is not in the ledger; {known}")
    sources, places, keep = set(sources), set(places), set(keep)  # however many are named
    named = {
        place for place, entry in enumerate(entries) if place in places or entry.source in sources
    }
    for place in keep:
        if place in named or entries[place].kind != "reply":
            raise ValueError(f"keep names place {place}, which is no reply, or is to be forgotten")
    first = min(named, default=len(entries))
    carriers = {
        place
        for place, entry in enumerate(entries)
        if entry.kind == "reply" and place > first and place not in keep
    }
    dropped = named | carriers
    kept = tuple(place for place in range(len(entries)) if place not in dropped)
    return ForgetPlan(tuple(entries), kept, tuple(sorted(dropped)))


def forget(start: Callable[[], Session], plan: ForgetPlan) -> Session:
    """A session that was given exactly what the plan keeps, in the same calls."""
    return replay(start, plan.kept_entries)
