"""A prompt as entries of a ledger, encoded in steps that other turns come between."""

from __future__ import annotations

from collections.abc import Sequence

from slowwave.memory.ledger import Entry
from slowwave.memory.turn import Progress, Steps, TooLong, say_by_step, tell_by_step
from slowwave.runtime.config import ChatFormat
from slowwave.serving.errors import ApiError
from slowwave.serving.history import Message
from slowwave.storage.tokenizer import Tokenizer

SIGNS_A_STEP = 8192
"""Of short messages, which are encoded several in a step."""


def tell_all(
    tokenizer: Tokenizer,
    chat: ChatFormat | None,
    messages: Sequence[Message],
    *,
    most: int,
    param: str,
) -> Steps[list[Entry]]:
    """What messages, or without a chat format texts as they are, will be in the ledger.

    most: tokens that all may have. param: the field of the request, for the error that says so.
    Raises ApiError, if it can before anything is encoded.
    """
    too_long = ApiError(
        400,
        f"{param} has more than {most} new tokens; send less",
        param=param,
        code="context_length_exceeded",
    )
    if sum(len(each.text) for each in messages) > most * tokenizer.max_token_bytes:
        raise too_long
    told, left, num_signs = list[Entry](), most, 0
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
        left, num_signs = left - len(entry.tokens), num_signs + len(text)
        if num_signs > SIGNS_A_STEP:
            num_signs = 0
            yield Progress("read")
    return told
