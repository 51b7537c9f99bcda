"""What is to be done for a request: what is read, from where on, or what was replied before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from slowwave.memory.ledger import Entry
from slowwave.memory.session import Session
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.turn import Steps
from slowwave.runtime.config import Sampling
from slowwave.serving.errors import ApiError
from slowwave.serving.feed import Key
from slowwave.serving.history import (
    Message,
    Recognised,
    Told,
    recognise,
    repeats_chat,
    repeats_text,
)
from slowwave.serving.prompt import tell_all

RECENT_ENTRIES = 256
"""How far back in a ledger a repeated request is looked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What a request asks for. key: of the memory; None is one that is thrown away.

    messages: of a conversation; or, without is_chat, one with a text that is to be gone on with.
    request: a digest by which the request is known when it comes again, or "". is_retry: the client
    says that it does.
    """

    key: Key | None
    messages: Sequence[Message]
    is_chat: bool = True
    max_tokens: int
    stop: Sequence[str] = ()
    sampling: Sampling
    request: str = ""
    is_retry: bool = False


class Plan(NamedTuple):
    """known: what the memory need not be told. new: what it is to be told."""

    known: list[Entry]
    new: list[Message]
    instead: bool = False
    """In place of the last turn."""
    reply: Entry | None = None
    """What was replied when the request came before; nothing is done then."""
    told: Sequence[Entry] = ()
    """What it was told then."""


def make_plan(wish: Wish, session: Session) -> Plan:
    """Raises ApiError if another request came with the same Idempotency-Key."""
    if not isinstance(session, StoredSession):
        return Plan([], [*wish.messages])
    answered = _find_answer(wish, session)
    if answered is not None:
        return answered
    found = _recognise(wish, session, session.status().num_entries)
    last = session.last_turn()
    turn = Told.find(*last) if last else None
    if turn is not None and _repeats(wish, session, turn, found):
        return Plan(*_recognise(wish, session, turn.start), instead=True)
    return Plan(*found)


def enter(wish: Wish, plan: Plan, session: Session, *, most: int) -> Steps[list[Entry]]:
    """What is told, as it will be in the ledger; raises ApiError as `tell_all`."""
    chat = session.talker.chat if wish.is_chat else None
    told = yield from tell_all(
        session.talker.tokenizer, chat, plan.new, most=most, param="the prompt"
    )
    return [dataclasses.replace(entry, request=wish.request) for entry in told]


def take_steps(wish: Wish, plan: Plan, session: Session, told: Sequence[Entry]) -> Steps[None]:
    """The turn, step by step."""
    chat = session.talker.chat if wish.is_chat else None
    options: dict[str, Any] = {"instead": True} if plan.instead else {}
    return session.take_turn(
        told,
        max_new_tokens=wish.max_tokens,
        stop=wish.stop,
        end=chat.end if chat else "",
        sampling=wish.sampling,
        **options,
    )


def _recognise(wish: Wish, session: StoredSession, count: int) -> Recognised:
    """What the first `count` entries of a ledger have of a conversation, and the rest."""
    if not wish.is_chat:
        return Recognised([], [*wish.messages])
    return recognise(wish.messages, count, session.ledger)


def _repeats(wish: Wish, session: StoredSession, turn: Told, found: Recognised) -> bool:
    if wish.request and any(line.request == wish.request for line in turn.lines):
        return True
    if not wish.is_chat:
        return repeats_text(wish.messages[-1].text, turn, is_retry=wish.is_retry)
    is_continued = len(found.new) == 1
    return repeats_chat(
        wish.messages, turn, session.ledger, is_retry=wish.is_retry, is_continued=is_continued
    )


def _find_answer(wish: Wish, session: StoredSession) -> Plan | None:
    """The whole reply to a request that came before, with what was told for it."""
    if not wish.request:
        return None
    key, _, _ = wish.request.partition(":")
    count = session.status().num_entries
    recent = session.ledger(max(0, count - RECENT_ENTRIES))
    places = [place for place, each in enumerate(recent) if each.request.startswith(f"{key}:")]
    if not places:
        return None
    told = [recent[place] for place in places]
    if told[-1].request != wish.request:
        raise ApiError(
            422,
            "this Idempotency-Key came with another request before; use a new key for each",
            code="idempotency_key_reused",
        )
    reply = next((entry for entry in recent[places[-1] :] if entry.kind == "reply"), None)
    is_last = not any(entry.kind == "told" for entry in recent[places[-1] + 1 :])
    if reply is None or (reply.finish is None and is_last):
        return None
    return Plan([], [], reply=reply, told=told)
