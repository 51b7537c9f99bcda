"""A model's chat template, compiled once into what stands around each message.

A template renders a whole conversation; a stream is only ever added to. So probe conversations are
rendered, cut at their messages, and a longer one is checked against the pieces put together. A
template that does not come apart so is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slowwave.runtime.chat import Frame, TemplateChat
from slowwave.runtime.config import Role
from slowwave.storage.control_tokens import Controls
from slowwave.storage.tokenizer import FileTokenizer
from slowwave.wording import say_how_to_install

MOST_SECONDS = 20
"""On the clock; the process itself has a limit of processor time, which a busy machine leaves."""
MEND = 'use the plain transcript instead (chat.format = "plain")'

Turns = Sequence[tuple[Role, str]]


class SpecialTexts(NamedTuple):
    """What files of a model say of its control tokens."""

    bos: str = ""
    """Content of the one that texts begin with; "" if there is none."""
    eos: str = ""
    """Content of the one that ends texts."""
    stops: tuple[int, ...] = ()
    """Further ones that end a reply."""


class _Around(NamedTuple):
    """Text around the messages of a role."""

    before: str
    after: str
    trims: bool

    def write(self, text: str) -> str:
        return self.before + (text.strip() if self.trims else text) + self.after


class _Pieces(NamedTuple):
    opening: str
    roles: dict[Role, _Around]
    reply: str

    def write(self, turns: Turns) -> str:
        """A conversation without what every stream begins with, up to the next reply."""
        opening = "" if turns[0][0] == "system" else self.opening
        return opening + "".join(self.roles[role].write(text) for role, text in turns) + self.reply


def compile_template(
    template: str, tokenizer: FileTokenizer, texts: SpecialTexts, *, where: str | Path
) -> tuple[TemplateChat, Controls]:
    """The chat of a template, and the control tokens that go with it. where: named by sentences.

    tokenizer: no other thread encodes with it meanwhile. Raises ValueError, in one sentence, if the
    template fails, takes too long or too much memory, or is not put together message by message,
    or if a user could write what stands between messages.
    """
    try:
        pieces, begin = _take_apart(template, texts)
        return _encode(pieces, begin, tokenizer, texts)
    except _Refused as error:
        raise ValueError(f"{where}: the chat template {error}; {MEND}") from None


class _Refused(Exception):
    """The half of a sentence that says what is wrong with a template."""


def _take_apart(template: str, texts: SpecialTexts) -> tuple[_Pieces, str]:
    """The pieces, and what comes before all of them (bos)."""
    s, u, a, v = (f"\n Probe{i}Q \n" for i in range(4))
    alone: Turns = [("user", u)]
    replied: Turns = [("user", u), ("assistant", a)]
    chat: Turns = [*replied, ("user", v)]
    told: Turns = [("system", s), ("user", u)]
    jobs = [(alone, False), (alone, True), (replied, False), (chat, False), (told, False)]
    one, asked, two, three, system = _render(template, jobs, texts)
    for rendered in (one, asked, two, three):
        if isinstance(rendered, _Refused):
            raise rendered
    head, user_after = _cut(one, [u])
    *_, assistant_after = _cut(two, [u, a])
    _, to_reply, to_user, end = _cut(three, [u, a, v])
    reply = _drop_prefix(str(asked), str(one))
    user_before = _drop_prefix(to_user, assistant_after)
    if end != user_after or not head.endswith(user_before):
        raise _Refused("writes a message otherwise at another place of a conversation")
    # Where every message begins with it, as in ChatML, it is no begin of the stream.
    is_begin = head.startswith(texts.bos) and texts.bos not in user_before
    bos = texts.bos if is_begin else ""
    user = _Around(user_before, user_after, _trims(one, u))
    roles: dict[Role, _Around] = {
        "user": user,
        "assistant": _Around(_drop_prefix(to_reply, user_after), assistant_after, _trims(two, a)),
        "system": _find_system(system, s, u, user, bos),
    }
    pieces = _Pieces(head[len(bos) : len(head) - len(user_before)], roles, reply)
    _check(pieces, template, texts, bos, has_system=roles["system"] is not user)
    return pieces, bos


def _find_system(rendered: str | _Refused, s: str, u: str, user: _Around, bos: str) -> _Around:
    """What is around a system message; a user's, if the template has no such role of its own."""
    if isinstance(rendered, _Refused):
        return user
    head, between, _ = _cut(rendered, [s, u])
    if not between.endswith(user.before) or not user.before:
        return user  # it becomes a part of the user's message
    after = between[: len(between) - len(user.before)]
    return _Around(_drop_prefix(head, bos), after, _trims(rendered, s))


def _check(
    pieces: _Pieces, template: str, texts: SpecialTexts, bos: str, *, has_system: bool
) -> None:
    words = 'One.\n\n  Two: "x", {{ y }}, <b>\u00e9 \U0001f600</b>'
    chat: Turns = [
        ("user", "Hi"),
        ("assistant", f"{words} a"),
        ("user", f"{words} b"),
        ("assistant", "2"),
        ("user", "Bye"),
    ]
    chats = [chat, *([[("system", words), *chat]] if has_system else [])]
    for turns, rendered in zip(
        chats, _render(template, [(turns, True) for turns in chats], texts), strict=True
    ):
        if isinstance(rendered, _Refused):
            raise rendered
        if rendered != bos + pieces.write(turns):
            raise _Refused("does not write a conversation message by message")


def _cut(rendered: str | _Refused, messages: Sequence[str]) -> list[str]:
    """What is before, between and after the messages, which are in a rendered text in order."""
    rest, parts = str(rendered), list[str]()
    for message in messages:
        text = message if message in rest else message.strip()
        before, _, rest = rest.partition(text)
        parts.append(before)
    if any(str(rendered).count(message.strip()) != 1 for message in messages):
        raise _Refused("does not write every message once")
    return [*parts, rest]


def _trims(rendered: str | _Refused, message: str) -> bool:
    return message not in str(rendered)


def _drop_prefix(text: str, prefix: str) -> str:
    if not text.startswith(prefix):
        raise _Refused("writes a message otherwise at another place of a conversation")
    return text[len(prefix) :]


def _encode(
    pieces: _Pieces, begin: str, tokenizer: FileTokenizer, texts: SpecialTexts
) -> tuple[TemplateChat, Controls]:
    encode = tokenizer.encode_template
    frames = {
        role: Frame(
            before=_encode_before(tokenizer, around.before),
            after=tuple(encode(around.after)),
            trims=around.trims,
        )
        for role, around in pieces.roles.items()
    }
    user, assistant, reply = (
        frames["user"],
        frames["assistant"],
        tuple(encode(pieces.reply)),
    )
    controls = tokenizer.control_tokens
    marks = [user.after + assistant.before, user.after + reply, assistant.after + user.before]
    if any(not set(mark) & set(controls.values()) for mark in marks):
        raise _Refused("tells roles apart by text that anybody can write")
    ends = [token for token in assistant.after if token in controls.values()][:1]
    stops = {*ends, *texts.stops, *(controls[text] for text in [texts.eos] if text in controls)}
    return (
        TemplateChat(**frames, opening=tuple(encode(pieces.opening)), reply=reply),
        Controls(
            begin=tuple(encode(begin)),
            stops=tuple(sorted(stops)),
            others=tuple(sorted({*controls.values()} - stops)),
        ),
    )


def _encode_before(tokenizer: FileTokenizer, text: str) -> tuple[int, ...]:
    """The ids of a text as in front of a word: alone, line breaks at its end may be one token."""
    whole, word = tokenizer.encode_template(f"{text}A"), tokenizer.encode("A")
    place = len(whole) - len(word)
    return tuple(whole[:place] if whole[place:] == word else tokenizer.encode_template(text))


def _render(
    template: str, jobs: Sequence[tuple[Turns, bool]], texts: SpecialTexts
) -> list[str | _Refused]:
    """Conversations as the template writes them, each with or without the begin of a reply."""
    conversations = [
        {
            "messages": [{"role": role, "content": text} for role, text in turns],
            "add_generation_prompt": has_reply,
        }
        for turns, has_reply in jobs
    ]
    # A reply that thinks aloud is dropped from later turns, which a stream cannot do.
    variables = {"bos_token": texts.bos, "eos_token": texts.eos, "enable_thinking": False}
    answers = _call({"template": template, "conversations": conversations, "variables": variables})
    return [
        answer["text"] if "text" in answer else _Refused(f"fails ({answer['error']})")
        for answer in answers
    ]


def _call(job: dict[str, Any]) -> list[dict[str, str]]:
    command = [sys.executable, "-P", "-m", "slowwave.runtime.render_template"]
    # The packages of this process, wherever they are.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise _Refused("takes too long, perhaps for ever") from None
    if "No module named 'jinja2'" in done.stderr:
        raise _Refused(f"needs the jinja2 package ({say_how_to_install('models')})")
    if done.returncode:
        raise _Refused("takes too long, perhaps for ever, or too much memory")
    return json.loads(done.stdout)
