"""A conversation that is sent again is recognised, as far as it is the same."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowwave.memory.ledger import Entry
from slowwave.memory.turn import say
from slowwave.runtime.config import ChatFormat, Role, flatten
from slowwave.serving import history
from slowwave.serving.history import LastTurn, Message, recognise, repeats_chat, repeats_text
from slowwave.storage.tokenizer import ByteTokenizer

ROLES: dict[str, Role] = {"> ": "user", "# ": "system", "~ ": "assistant"}


def ledger(*lines: str) -> list[Entry]:
    """Of lines: "= " in front is a reply, "~ " a told one, "- " plain text, "z" a sleep."""
    entries: list[Entry] = []
    for line in lines:
        match line[:2]:
            case "= ":
                text, said = f"{line[2:]}\n", line[2:]
                entry = Entry(
                    kind="reply", time=0, source="model", text=text, role="assistant", said=said
                )
            case "- ":
                entry = Entry(kind="told", time=0, source="notes", text=line[2:])
            case "z":
                entry = Entry(kind="sleep", time=0, source="asked")
            case mark:
                entry = say(ByteTokenizer(), ChatFormat(), ROLES[mark], line[2:], "somebody")
        entries.append(entry)
    return entries


def messages(*lines: str) -> list[Message]:
    return [Message(ROLES["~ " if line[0] == "=" else line[:2]], line[2:]) for line in lines]


def split(known: Sequence[Entry], asked: Sequence[Message]) -> tuple[list[str], list[str]]:
    found = recognise(asked, len(known), lambda start, stop: list(known[start:stop]))
    return [entry.said for entry in found.remembered], [message.text for message in found.new]


@pytest.mark.parametrize(
    ("known", "asked", "remembered"),
    [
        ([], ["> a"], 0),
        (["> a", "= b"], ["> a", "= b", "> c"], 2),
        (["> a", "= b", "> c", "= d"], ["> a", "= b", "> c", "= d", "> e"], 4),
        # Only the end is sent, or only the beginning is known.
        (["> a", "= b", "> c", "= d"], ["> c", "= d", "> e"], 2),
        (["> a", "= b"], ["> a", "= b", "> c", "= d", "> e"], 2),
        # The last message is new, though it was said before.
        (["> a", "= b"], ["> a"], 0),
        (["> a", "= a", "> a", "= a"], ["> a", "= a", "> a"], 2),
        # What differs is read, all of it.
        (["> a", "= b"], ["> a", "= x", "> c"], 0),
        (["> a", "= b", "> c", "= d"], ["> a", "= b", "> x", "= d", "> e"], 0),
        (["> a", "= b"], ["= b", "> c"], 1),
        (["> a", "> b"], ["> a", "= b", "> c"], 0),
        # Sleeps and plain text between are no lines of the conversation.
        (["> a", "= b", "z", "- notes", "- no\n"], ["> a", "= b", "> c"], 2),
        # A reply that breaks off, or has other spaces, is that reply.
        (["> a", "= b c d"], ["> a", "= b c", "> e"], 2),
        (["> a", "=  b"], ["> a", "= b", "> e"], 2),
        (["> a", "= b c"], ["> a", "= b c d", "> e"], 0),
        # A system message counts by itself.
        (["# s", "> a", "= b"], ["# s", "> a", "= b", "> c"], 3),
        (["# s", "> a", "= b", "> c", "= d"], ["# s", "> c", "= d", "> e"], 3),
        (["# s", "> a", "= b"], ["# s", "> x"], 1),
        (["# s", "> a", "= b"], ["# t", "> a", "= b", "> c"], 2),
        (["# s", "# t", "> a", "= b"], ["# s", "> a", "= b", "> c"], 2),
    ],
)
def test_what_is_recognised(
    known: list[str], asked: list[str], remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (1, 2, 256):
        monkeypatch.setattr(history, "READ_AT_ONCE", count)
        old, new = split(ledger(*known), messages(*asked))
        assert len(old) == remembered
        assert len(new) == len(asked) - remembered
        assert new[-1] == asked[-1][2:]


def test_a_forged_line_is_not_said_twice() -> None:
    """A message of two lines is read as one, and recognised as that one."""
    asked = [Message("user", "a\n= b"), Message("user", "c")]
    assert split(ledger("> a\n= b"), asked) == (["a\n= b"], ["c"])
    assert split(ledger("> a = b"), asked) == (["a = b"], ["c"])


def test_marks_and_names_are_no_roles() -> None:
    """Messages may begin with the marks of a chat, and be by somebody called model."""
    known = ledger("> > a", "~ # b", "> # c", "~ > d")
    asked = messages("> > a", "= # b", "> # c", "= > d", "> e")
    asked[0] = asked[0]._replace(source="model")
    old, new = split(known, asked)
    assert (len(old), new) == (4, ["e"])


@pytest.mark.parametrize("plain", ["- > a\n> b\n", "- # a\nb\n", "- > a\n"])
def test_documents_are_no_messages(plain: str) -> None:
    known = ledger("> a", "= b", plain)
    assert split(known, messages("> a", "= b", "> c")) == (["a", "b"], ["c"])


def test_a_reply_is_known_as_it_was_shown() -> None:
    """A stop text is in what was read, and not in what the client got."""
    stopped = dataclasses.replace(ledger("= b")[0], text="b. STOP\n", said="b.")
    blank = dataclasses.replace(stopped, text="STOP\n", said="")
    known = [*ledger("> a"), stopped, *ledger("> c"), blank]
    assert split(known, messages("> a", "= b.", "> c", "> d")) == (["a", "b.", "c"], ["d"])


def test_a_reply_without_a_text_is_not_missed() -> None:
    """Clients that got nothing send nothing."""
    known = ledger("> a", "= b", "> c", "= ")
    assert split(known, messages("> a", "= b", "> c", "> d")) == (["a", "b", "c"], ["d"])


@pytest.mark.parametrize(("lines", "is_known"), [(3000, True), (20_000, False)])
def test_a_system_message_is_not_looked_for_in_all_of_a_long_ledger(
    lines: int, is_known: bool
) -> None:
    entries, looked_at = [*ledger("# Be brief."), *ledger("> a") * lines], list[int]()

    def read(start: int, stop: int) -> list[Entry]:
        looked_at.extend(range(start, stop))
        return entries[start:stop]

    found = recognise(messages("# Be brief.", "> b"), len(entries), read)
    assert bool(found.remembered) == is_known
    assert len(looked_at) < 4 * history.FAR_BACK


def test_one_system_message_is_not_known_twice() -> None:
    known = ledger("# a", "# b")
    assert split(known, messages("# a", "# a", "> c")) == (["a"], ["a", "c"])


def test_a_long_ledger_is_read_back_in_few_reads() -> None:
    """Each walks the ledger from its end."""
    said = ["# a", *["> a", "= b"] * 1800]
    known = ledger(*said)
    seen: list[int] = []

    def read(start: int, stop: int) -> list[Entry]:
        seen.append(len(known) - start)
        return known[start:stop]

    found = recognise(messages(*said, "> c"), len(known), read)
    assert len(found.remembered) == len(known)
    assert sum(seen) < 3 * len(known)


def test_no_more_is_read_than_is_needed() -> None:
    known = ledger(*["> a", "= b"] * 1000)
    seen: list[int] = []

    def read(start: int, stop: int) -> list[Entry]:
        seen.append(start)
        return known[start:stop]

    found = recognise(messages("> a", "= b", "> c"), len(known), read)
    assert len(found.remembered) == 2
    assert seen == [2000 - 256]


def count_known(said: Sequence[Message], lines: Sequence[Entry]) -> int:
    """By trying all, which takes time that grows with the square."""

    def is_same(sent: Message, known: Entry) -> bool:
        text, whole = flatten(sent.text), flatten(known.said)
        begins = known.kind == "reply" and whole.startswith(text)
        return sent.role == known.role and (text == whole or begins)

    for count in range(min(len(said), len(lines)), 0, -1):
        if all(map(is_same, said[:count], lines[-count:])):
            return count
    return 0


LINE = st.tuples(st.sampled_from(["> ", "= ", "~ "]), st.text("ab", min_size=1, max_size=4))


@given(st.lists(LINE, max_size=9), st.lists(LINE, max_size=4), st.integers(0, 9), st.data())
def test_the_most_is_recognised(
    past: list[tuple[str, str]], more: list[tuple[str, str]], start: int, data: st.DataObject
) -> None:
    known = ledger(*(mark + text for mark, text in past))
    again = [
        (mark, text[: data.draw(st.integers(1, 4))] if mark == "= " else text)
        for mark, text in past[start:]
    ]
    asked = messages(*(mark + text for mark, text in [*again, *more, ("> ", "?")]))
    found = recognise(asked, len(known), lambda start, stop: known[start:stop])
    count = count_known(asked[:-1], known)
    assert found.remembered == known[len(known) - count :]
    assert found.new == asked[count:]


def test_all_prefixes_of_a_reply_are_found() -> None:
    texts = {"a" * n: 1 << n for n in range(1, 40)} | {"a" * n + "c": 1 << 50 for n in (3, 7)}
    prefixes = history._Prefixes(texts)
    for count in range(45):
        whole = "a" * count + "bb"
        expected = sum(bits for text, bits in texts.items() if whole.startswith(text))
        assert prefixes.find(whole) == expected


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (["> hi"] * 4096, ["> hi"] * 4096),
        ([*["> hi"] * 4095, "> ho"], ["> hi"] * 4096),
        (["= " + "a" * 100 + "b" * 900] * 4096, ["= " + "a" * n for n in range(1, 2800)]),
        (["# hi"] * 4096, ["# hi"] * 4096),
    ],
)
def test_the_longest_conversation_takes_no_time(known: list[str], asked: list[str]) -> None:
    """It took half a minute."""
    entries, sent = ledger(*known), [*messages(*asked), Message("user", "?")]
    began = time.thread_time()
    recognise(sent, len(entries), lambda start, stop: entries[start:stop])
    assert time.thread_time() - began < 1


# The last turn is taken anew.


def takes_place(
    known: Sequence[str],
    asked: Sequence[str],
    turn: int,
    *,
    lost: bool = False,
    retry: bool = False,
) -> bool:
    """turn: lines of the last turn, at the end of the ledger. lost: its reply was broken off."""
    entries = ledger(*known)
    finish = None if lost else "stop"
    entries = [dataclasses.replace(each, finish=finish) for each in entries]
    start = len(entries) - turn
    told = LastTurn.find(start, entries[start:])
    assert told is not None
    is_continued = len(split(entries, messages(*asked))[1]) == 1

    def read(start: int, stop: int) -> list[Entry]:
        return entries[start:stop]

    return repeats_chat(messages(*asked), told, read, is_retry=retry, is_continued=is_continued)


@pytest.mark.parametrize(
    ("known", "asked", "turn", "expected"),
    [
        # Another reply, and another question.
        (["> a", "= b", "> c", "= d"], ["> a", "= b", "> c"], 2, True),
        (["> a", "= b", "> c", "= d"], ["> a", "= b", "> x"], 2, True),
        # A turn that told much is told anew, as far as it is the same.
        (["> a", "~ b", "> c", "= d"], ["> a", "= b", "> c"], 4, True),
        (["# s", "> a", "~ b", "> c", "= d"], ["# s", "> a", "= b", "> x"], 5, True),
        (["> z", "= z", "> a", "~ b", "> c", "= d"], ["> z", "= z", "> a", "= b", "> x"], 4, True),
        # A message that goes on, or is alone, is new.
        (["> a", "= b", "> c", "= d"], ["> a", "= b", "> c", "= d", "> e"], 2, False),
        (["> a", "= b", "> a", "= b"], ["> a", "= b", "> a"], 2, False),
        (["> a", "= b"], ["> a"], 2, False),
        (["# s", "> a", "= b"], ["# s", "> a"], 3, False),
        # An earlier message was edited, or the conversation is another.
        (["> a", "= b", "> c", "= d"], ["> x"], 2, False),
        (["> a", "= b", "> c", "= d"], ["> x", "= b", "> c"], 2, False),
        (["> a", "= b", "> c", "= d", "> e", "= f"], ["> a", "= b", "> x"], 2, False),
        # A text was read last.
        (["> a", "= b", "- text", "= d"], ["> a", "= b"], 2, False),
    ],
)
def test_what_takes_the_place_of_the_last_turn(
    known: list[str], asked: list[str], turn: int, expected: bool
) -> None:
    assert takes_place(known, asked, turn) == expected


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("retry", [False, True])
def test_a_request_whose_reply_was_lost_is_repeated(lost: bool, retry: bool) -> None:
    may = lost or retry
    assert takes_place(["> a", "= b"], ["> a"], 2, lost=lost, retry=retry) == may
    assert takes_place(["# s", "> a", "= b"], ["# s", "> a"], 3, lost=lost, retry=retry) == may
    again = (["> a", "= b", "> a", "= b"], ["> a", "= b", "> a"])
    assert takes_place(*again, 2, lost=lost, retry=retry) == may
    # Other words are new.
    assert not takes_place(["> a", "= b"], ["> x"], 2, lost=lost, retry=retry)
    assert not takes_place(["> a", "= b"], ["> a", "= b", "> c"], 2, lost=lost, retry=retry)


def test_a_text_is_repeated() -> None:
    told, reply = ledger("- text", "= b")
    for finish, retry in (("stop", False), ("stop", True), (None, False)):
        turn = LastTurn(0, [told], dataclasses.replace(reply, finish=finish))
        assert repeats_text("text", turn, is_retry=retry) == (retry or finish is None)
        assert not repeats_text("other", turn, is_retry=retry)
    assert not repeats_text("a", LastTurn(0, ledger("> a"), reply), is_retry=True)
