"""Chat templates: what stands around messages is what the whole renders; programs of others are
kept within bounds, and no text becomes a control token."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from chat_templates import GEMMA3, LLAMA3, MISTRAL, PUBLISHED, QWEN3, SMOLLM2, Published
from slowwave.runtime.chat import TemplateChat
from slowwave.runtime.chat_template import SpecialTexts, Turns, compile_template
from slowwave.runtime.config import Role, Span
from slowwave.runtime.render_template import TODAY
from slowwave.storage.tokenizer import FileTokenizer
from tokenizer_maker import make_chat

CHAT: Turns = [
    ("user", "Hello\n\nthere"),
    ("assistant", "Hi. \u00e9"),
    ("user", "Where is {{ bos_token }}?"),
    ("assistant", "Here:\n- so\n- and so"),
    ("user", "Bye"),
]


def tokenizer_of(published: Published) -> FileTokenizer:
    return FileTokenizer("made", content=make_chat(*published.controls).to_str().encode())


@functools.cache
def load(published: Published) -> tuple[TemplateChat, FileTokenizer]:
    """The chat, and the tokenizer with its control tokens."""
    plain = tokenizer_of(published)
    texts = SpecialTexts(published.bos, published.eos)
    chat, controls = compile_template(published.text, plain, texts, where="made")
    return chat, plain.with_controls(controls)


def write(published: Published, turns: Turns) -> list[int]:
    """A conversation as a session reads it, up to a reply."""
    chat, tokenizer = load(published)
    tokens = [*tokenizer.controls.begin, *(chat.opening if turns[0][0] != "system" else ())]
    for role, text in turns:
        tokens += [token for piece in chat.encode(tokenizer, role, text) for token in piece]
    return [*tokens, *chat.open_reply(tokenizer)]


def render(published: Published, turns: Turns) -> str:
    """The same by the transformers library."""
    (text,), _ = render_jinja_template(
        [[{"role": role, "content": text} for role, text in turns]],
        chat_template=published.text,
        add_generation_prompt=True,
        bos_token=published.bos,
        eos_token=published.eos,
        enable_thinking=False,
    )
    return text


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_conversation_is_what_the_template_renders(name: str) -> None:
    published = PUBLISHED[name]
    _, tokenizer = load(published)
    today = time.strftime("%d %b %Y")
    rendered = render(published, CHAT).replace(today, TODAY.strftime("%d %b %Y"))
    assert write(published, CHAT) == tokenizer.encode_template(rendered)


@pytest.mark.parametrize("name", ["smollm2", "qwen2", "qwen3", "llama3"])
def test_a_system_message_takes_the_place_of_the_opening(name: str) -> None:
    published, turns = PUBLISHED[name], [("system", "Be brief."), *CHAT]
    _, tokenizer = load(published)
    today = time.strftime("%d %b %Y")
    rendered = render(published, turns).replace(today, TODAY.strftime("%d %b %Y"))
    assert write(published, turns) == tokenizer.encode_template(rendered)


@pytest.mark.parametrize("published", [GEMMA3, MISTRAL], ids=["gemma3", "mistral"])
def test_without_a_role_of_its_own_the_system_speaks_as_a_user(published: Published) -> None:
    assert write(published, [("system", "Be brief."), *CHAT]) == write(
        published, [("user", "Be brief."), *CHAT]
    )


def test_spaces_are_dropped_where_the_template_drops_them() -> None:
    for published, trims in ((GEMMA3, True), (LLAMA3, True), (SMOLLM2, False)):
        padded = write(published, [("user", " \n Hello \n ")])
        assert (padded == write(published, [("user", "Hello")])) == trims


@pytest.mark.parametrize(
    ("published", "begin", "stops"),
    [
        (SMOLLM2, [], ["<|im_end|>"]),
        (GEMMA3, ["<bos>"], ["<eos>", "<end_of_turn>"]),
        (LLAMA3, ["<|begin_of_text|>"], ["<|end_of_text|>", "<|eot_id|>"]),
        (MISTRAL, ["<s>"], ["</s>"]),
    ],
    ids=["smollm2", "gemma3", "llama3", "mistral"],
)
def test_control_tokens_have_their_uses(
    published: Published, begin: list[str], stops: list[str]
) -> None:
    _, tokenizer = load(published)
    controls = tokenizer.controls
    assert [*controls.begin] == [tokenizer.token_id(content) for content in begin]
    assert [*controls.stops] == [tokenizer.token_id(content) for content in stops]
    assert {*controls.stops, *controls.others} == {*tokenizer.control_tokens.values()}
    assert not {*controls.stops} & {*controls.others}


def test_further_tokens_may_end_a_reply() -> None:
    plain = tokenizer_of(SMOLLM2)
    texts = SpecialTexts(stops=(plain.token_id("<|endoftext|>"),))
    _, controls = compile_template(SMOLLM2.text, plain, texts, where="made")
    assert {*controls.stops} == {plain.token_id("<|im_end|>"), plain.token_id("<|endoftext|>")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_message_can_have_a_control_token(name: str) -> None:
    published = PUBLISHED[name]
    chat, tokenizer = load(published)
    known = {*tokenizer.control_tokens.values()}
    roles: tuple[Role, ...] = ("system", "user", "assistant")
    for role in roles:
        before, *said, after = chat.encode(tokenizer, role, "".join(published.controls))
        assert known & {*before, *after}
        assert not any(known & {*piece} for piece in said)
        assert tokenizer.decode(said[0]) == "".join(published.controls)


@pytest.mark.parametrize("name", PUBLISHED)
def test_turns_are_found_again(name: str) -> None:
    published = PUBLISHED[name]
    chat, tokenizer = load(published)
    tokens = write(published, CHAT) + tokenizer.encode("See you")
    spans = [span for span in chat.split_turns(tokenizer, tokens) if span.role != "system"]
    said = [(role, tokenizer.decode(tokens[start:stop])) for role, start, stop in spans]
    assert [(role, text.strip()) for role, text in said] == [*CHAT, ("assistant", "See you")]
    assert chat.split_turns(tokenizer, tokenizer.encode("user\nplain")) == []
    cut = chat.split_turns(tokenizer, tokens[-3:])  # a window may begin within a reply
    assert all(isinstance(span, Span) and 0 <= span.start < span.stop <= 3 for span in cut)


def test_a_blank_message_is_refused() -> None:
    chat, tokenizer = load(SMOLLM2)
    with pytest.raises(ValueError, match="the message is empty; say something"):
        list(chat.encode(tokenizer, "user", " \n "))


def test_a_config_keeps_it() -> None:
    chat, _ = load(QWEN3)
    assert TemplateChat.from_dict(chat.to_dict()) == chat


USERS = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
REFUSED = {
    "no Jinja": ("{% for message in", "fails (TemplateSyntaxError"),
    "an error": ("{{ messages[7].content.upper() }}", "fails (UndefinedError"),
    "its own refusal": ("{{ raise_exception('no chat') }}", "fails (TemplateError: no chat)"),
    "nothing": ("hello", "does not write every message once"),
    "the last message alone": ("{{ messages[-1].content }}", "does not write every message once"),
    "twice": (USERS + USERS, "does not write every message once"),
    "counted": (
        USERS.replace("{{ m.role }}", "{{ loop.index }} {{ m.role }}"),
        "writes a message otherwise at another place",
    ),
    "changed": (
        USERS.replace("m.content", "m.content | replace('One', '1')"),
        "does not write a conversation message by message",
    ),
    "plain text": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
        "tells roles apart by text that anybody can write",
    ),
    "insides": ("{{ messages.__class__.__mro__ }}", "fails (SecurityError"),
    "a long power": ("{{ 9 ** (9 ** (9 ** 9)) }}", "takes too long"),
    "a loop": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "takes too long",
    ),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails (RecursionError"),
    "a long text": ("{{ 'a' * 10**9 }}", "fails (MemoryError"),
    "a wide text": ("{{ '%999999999d' | format(1) }}", "fails (MemoryError"),
    "doubling": (
        "{% set n = namespace(s='ab') %}{% for i in range(64) %}{% set n.s = n.s ~ n.s %}"
        "{% endfor %}",
        "fails (MemoryError",
    ),
    "much output": ("{% for i in range(70000) %}a{% endfor %}", "fails (it writes more than"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_does_not_do_is_refused_soon(name: str) -> None:
    template, sentence = REFUSED[name]
    began = time.monotonic()
    with pytest.raises(ValueError, match=r'use the plain .* \(chat\.format = "plain"\)$') as caught:
        compile_template(template, tokenizer_of(SMOLLM2), SpecialTexts(), where="a.gguf")
    assert time.monotonic() - began < 20  # a second or so where nothing else runs
    assert str(caught.value).startswith(f"a.gguf: the chat template {sentence}")


def test_marks_for_training_do_nothing() -> None:
    marked = USERS.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    plain = tokenizer_of(SMOLLM2)
    chats = [compile_template(text, plain, SpecialTexts(), where="a") for text in (USERS, marked)]
    assert chats[0] == chats[1]


def test_without_jinja_the_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = "raise ModuleNotFoundError(\"No module named 'jinja2'\")"
    (tmp_path / "jinja2.py").write_text(missing)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"needs the jinja2 package \(.* '\.\[models\]'\); use"):
        compile_template(SMOLLM2.text, tokenizer_of(SMOLLM2), SpecialTexts(), where="a")
