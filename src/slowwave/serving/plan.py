"""The plan of a turn: the messages that are read, or the earlier reply that is repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from slowwave.memory.ledger import Entry
from slowwave.memory.session import Session
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.turn import Progress, Steps, TooLong, say_by_step, tell_by_step
from slowwave.runtime.chat import Chat
from slowwave.runtime.config import Sampling
from slowwave.serving.errors import ApiError
from slowwave.serving.history import (
    LastTurn,
    Message,
    Recognised,
    recognise,
    repeats_chat,
    repeats_text,
)
from slowwave.serving.monitoring import Key
from slowwave.storage.tokenizer import Tokenizer

RECENT_ENTRIES = 256
"""How far back in a ledger a repeated request is looked for."""
STEP_CHARACTERS = 8192
"""Characters of short messages, of which several are encoded in a step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request for a reply says.

    messages: of a conversation; or, without is_chat, one whose text is to be continued. digest: of
    the Idempotency-Key and of the body, "KEY:BODY", by which a repeated request is recognised; ""
    without a key. is_retry: the client says that it repeats a request.
    """

    messages: Sequence[Message]
    is_chat: bool = True
    digest: str = ""
    is_retry: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class TurnRequest(Asked):
    """A request for a reply of ours. key: of the memory; None is one that is thrown away."""

    key: Key | None
    max_tokens: int
    stop: Sequence[str] = ()
    sampling: Sampling


class Past(Protocol):
    """What was said before, such as a `StoredSession`."""

    def ledger(self, start: int = 0, stop: int | None = None) -> list[Entry]:
        """All entries, or those at the places start..stop."""
        ...

    def last_turn(self) -> tuple[int, list[Entry]] | None:
        """The first place and the entries of the last turn, if that can be taken anew."""
        ...


class Plan(NamedTuple):
    """known: entries that the memory has already. new: messages that it has not."""

    known: list[Entry]
    new: list[Message]
    instead: bool = False
    """Whether the turn takes the place of the last one."""
    reply: Entry | None = None
    """The earlier reply to the same request, which is repeated; nothing is read then."""
    told: Sequence[Entry] = ()
    """The entries that were read for that reply."""


def make_plan(request: TurnRequest, session: Session) -> Plan:
    """Raises ApiError if another request came with the same Idempotency-Key."""
    if not isinstance(session, StoredSession):
        return Plan([], [*request.messages])
    return plan_from(request, session, session.status().num_entries)


def plan_from(request: Asked, past: Past, num_entries: int) -> Plan:
    """As `make_plan`, from a ledger of so many entries."""
    if (answered := _find_answer(request, past, num_entries)) is not None:
        return answered
    found = _recognise(request, past, num_entries)
    last = past.last_turn()
    turn = LastTurn.find(*last) if last else None
    if turn is not None and _repeats(request, past, turn, found):
        return Plan(*_recognise(request, past, turn.start), instead=True)
    return Plan(*found)


def enter(request: TurnRequest, plan: Plan, session: Session, *, most: int) -> Steps[list[Entry]]:
    """The new messages as entries of the ledger; raises ApiError as `tell_all`."""
    talker = session.talker
    chat = talker.chat if request.is_chat else None
    told = yield from tell_all(talker.tokenizer, chat, plan.new, most=most, param="the prompt")
    return [dataclasses.replace(entry, request=request.digest) for entry in told]


def take_steps(
    request: TurnRequest, plan: Plan, session: Session, told: Sequence[Entry]
) -> Steps[None]:
    """The turn, step by step."""
    options: dict[str, Any] = {"instead": True} if plan.instead else {}
    return session.take_turn(
        told,
        max_new_tokens=request.max_tokens,
        stop=request.stop,
        sampling=request.sampling,
        **options,
    )


def tell_all(
    tokenizer: Tokenizer,
    chat: Chat | None,
    messages: Sequence[Message],
    *,
    most: int,
    param: str,
) -> Steps[list[Entry]]:
    """The ledger's entries of messages, or of texts as they are without a chat format.

    They are encoded in steps, between which other turns go on. most: tokens that all may have.
    param: the field of the request that an error names. Raises ApiError if there are more tokens,
    before anything is encoded where the length of the text alone says so.
    """
    too_long = ApiError(
        400,
        f"{param} has more than {most} new tokens; send less",
        param=param,
        code="context_length_exceeded",
    )
    if sum(len(each.text) for each in messages) > most * tokenizer.max_token_bytes:
        raise too_long
    told, left, num_characters = list[Entry](), most, 0
    for each in messages:
        role, text, teller = each.role, each.text, each.teller
        try:
            if chat is None:
                entry = yield from tell_by_step(tokenizer, text, teller, most=left)
            else:
                entry = yield from say_by_step(tokenizer, chat, role, text, teller, most=left)
        except TooLong:
            raise too_long from None
        told.append(entry)
        left, num_characters = left - len(entry.tokens), num_characters + len(text)
        if num_characters > STEP_CHARACTERS:
            num_characters = 0
            yield Progress("read")
    return told


def _recognise(request: Asked, past: Past, count: int) -> Recognised:
    """Divides the messages by whether the first `count` entries of the ledger have them."""
    if not request.is_chat:
        return Recognised([], [*request.messages])
    return recognise(request.messages, count, past.ledger)


def _repeats(request: Asked, past: Past, turn: LastTurn, found: Recognised) -> bool:
    if request.digest and any(line.request == request.digest for line in turn.lines):
        return True
    if not request.is_chat:
        return repeats_text(request.messages[-1].text, turn, is_retry=request.is_retry)
    is_continued = len(found.new) == 1
    return repeats_chat(
        request.messages, turn, past.ledger, is_retry=request.is_retry, is_continued=is_continued
    )


def _find_answer(request: Asked, past: Past, count: int) -> Plan | None:
    """The plan that repeats the whole reply to an earlier request with the same digest."""
    if not request.digest:
        return None
    key, _, _ = request.digest.partition(":")
    recent = past.ledger(max(0, count - RECENT_ENTRIES))
    found = [i for i, entry in enumerate(recent) if entry.request.startswith(f"{key}:")]
    if not found:
        return None
    told = [recent[i] for i in found]
    if told[-1].request != request.digest:
        raise ApiError(
            422,
            "this Idempotency-Key came with another request before; use a new key for each",
            code="idempotency_key_reused",
        )
    reply = next((entry for entry in recent[found[-1] :] if entry.kind == "reply"), None)
    is_last = not any(entry.kind == "told" for entry in recent[found[-1] + 1 :])
    if reply is None or (reply.finish is None and is_last):
        return None
    return Plan([], [], reply=reply, told=told)
