"""What is to be done for a request: what is read, from where on, or what was replied before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from slowwave.generation.config import Sampling
from slowwave.memory.ledger import USER, Entry, say, tell
from slowwave.memory.session import Session
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.turn_steps import Steps
from slowwave.serving.errors import ApiError
from slowwave.serving.feed import Key
from slowwave.serving.history import Message, Told, recognise, repeats_chat, repeats_text

RECENT_ENTRIES = 256
"""How far back in a ledger a repeated request is looked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What a request asks for. key: of the memory; None is one that is thrown away.

    prompt: messages of a conversation, or a text that is to be gone on with. request: a digest by
    which the request is known when it comes again, or "". is_retry: the client says that it does.
    """

    key: Key | None
    prompt: Sequence[Message] | str
    source: str = USER
    max_tokens: int
    stop: Sequence[str] = ()
    sampling: Sampling
    request: str = ""
    is_retry: bool = False


class Plan(NamedTuple):
    """known: what the memory need not be told. told: what it is told."""

    known: list[Entry]
    told: list[Entry]
    instead: bool = False
    """In place of the last turn."""
    reply: Entry | None = None
    """What was replied when the request came before; nothing is done then."""


def make_plan(wish: Wish, session: Session) -> Plan:
    """Raises ApiError if another request came with the same Idempotency-Key."""
    if not isinstance(session, StoredSession):
        return Plan([], _enter(wish, session, wish.prompt))
    answered = _find_answer(wish, session)
    if answered is not None:
        return answered
    count = session.status().num_entries
    found, instead = _recognise(wish, session, count), False
    last = session.last_turn()
    turn = Told.find(*last) if last else None
    if turn is not None and _repeats(wish, session, turn, found):
        found, instead = _recognise(wish, session, turn.start), True
    return Plan(found[0], _enter(wish, session, found[1]), instead)


def take_steps(wish: Wish, plan: Plan, session: Session) -> Steps[None]:
    """The turn, step by step."""
    chat = session.chat if not isinstance(wish.prompt, str) else None
    options: dict[str, Any] = {"instead": True} if plan.instead else {}
    return session.take_turn(
        plan.told,
        max_new_tokens=wish.max_tokens,
        stop=wish.stop,
        end=chat.end if chat else "",
        sampling=wish.sampling,
        **options,
    )


def _recognise(
    wish: Wish, session: StoredSession, count: int
) -> tuple[list[Entry], Sequence[Message] | str]:
    """What of a prompt the first `count` entries of a ledger have, and the rest."""
    if isinstance(wish.prompt, str):
        return [], wish.prompt
    return recognise(wish.prompt, count, session.ledger)


def _repeats(
    wish: Wish,
    session: StoredSession,
    turn: Told,
    found: tuple[list[Entry], Sequence[Message] | str],
) -> bool:
    if wish.request and any(line.request == wish.request for line in turn.lines):
        return True
    if isinstance(wish.prompt, str):
        return repeats_text(wish.prompt, turn, is_retry=wish.is_retry)
    is_continued = len(found[1]) == 1
    return repeats_chat(
        wish.prompt, turn, session.ledger, is_retry=wish.is_retry, is_continued=is_continued
    )


def _enter(wish: Wish, session: Session, new: Sequence[Message] | str) -> list[Entry]:
    """What is to be read, as it will be in the ledger."""
    tokenizer = session.tokenizer
    if isinstance(new, str):
        told = [tell(tokenizer, new, wish.source)]
    else:
        assert session.chat is not None
        told = [say(tokenizer, session.chat, each.role, each.text, each.teller) for each in new]
    return [dataclasses.replace(entry, request=wish.request) for entry in told]


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
    return Plan([], told, reply=reply)
