"""Rewriting notes: both protocols, every way to fail, and what a block never becomes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripted_endpoint import Answer, refuse, say, scripted
from slowwave.memory.endpoint import Completion, EndpointError, ToolCall
from slowwave.memory.notes import read_verdicts, rewrite
from slowwave.memory.notes_config import NotesConfig

OLD = "Ann has a cat."
SAID = "user: The cat is called Mio. She is three."
NEW = f"{OLD}\nThe cat is called Mio."
FINISH = ("finish_rethinking_memory", {})
UNCHECKED = NotesConfig(check=False)


def rethink(notes: str) -> tuple[str, dict[str, str]]:
    return "rethink_memory", {"new_memory": notes}


class Replies:
    """Replies from a list, the last one for ever; errors are raised."""

    def __init__(self, replies: Sequence[str | Completion | EndpointError]) -> None:
        self.replies, self.num_asked = replies, 0

    def complete(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()
    ) -> Completion:
        del messages, tools
        reply = self.replies[min(self.num_asked, len(self.replies) - 1)]
        self.num_asked += 1
        if isinstance(reply, EndpointError):
            raise reply
        return reply if isinstance(reply, Completion) else Completion(text=reply, tokens_out=1)


def test_tools_rewrite_until_they_finish_and_the_receipt_says_what_it_took() -> None:
    steps = [say("", rethink("The cat is Mio.")), say(None, rethink(NEW)), say(None, FINISH)]
    with scripted([*steps, say("1 yes")]) as script:
        block, receipt = rewrite(script.endpoint(), OLD, SAID)
    assert block == NEW
    assert dataclasses.asdict(receipt) | {"seconds": 0} == {
        **{"outcome": "changed", "why": "", "protocol": "tools", "seconds": 0},
        **{"calls": 4, "tokens_in": 28, "tokens_out": 12, "num_checked": 1, "num_dropped": 0},
        **{"characters_before": len(OLD), "characters_after": len(NEW)},
    }
    assert [bool(each.get("tools")) for each in script.asked] == [True, True, True, False]
    shown = [each["messages"][1]["content"] for each in script.asked]
    assert SAID in shown[0] and OLD in shown[0]
    assert "The cat is Mio." in shown[1] and OLD not in shown[1]
    assert f"1 {NEW.splitlines()[1]}" in shown[3] and f"2 {OLD}" not in shown[3]


@pytest.mark.parametrize(
    "first",
    [
        refuse(422, "tools is not supported here; leave it out"),
        refuse(400, "no tool parser"),
        say("I would note that the cat is called Mio."),
        say(None, ("rethink_memory", "{nonsense")),
        say(None, ("another_tool", {})),
    ],
)
def test_where_tools_are_rejected_or_ignored_the_plain_protocol_goes_on(first: Answer) -> None:
    steps = [first, say(f"Sure!\n<memory>\n{NEW}\n</memory>"), say("DONE.")]
    with scripted(steps) as script:
        block, receipt = rewrite(script.endpoint(), OLD, SAID, UNCHECKED)
    assert (block, receipt.protocol, receipt.calls) == (NEW, "plain", 3)
    assert [bool(each.get("tools")) for each in script.asked] == [True, False, False]
    assert "<memory>" in script.asked[1]["messages"][0]["content"]


def test_no_more_than_ten_steps() -> None:
    with scripted(rule=lambda _: say(None, rethink(f"Step {len(script.asked)}"))) as script:
        block, receipt = rewrite(script.endpoint(), OLD, SAID, UNCHECKED)
    assert (block, receipt.calls, receipt.outcome) == ("Step 10", 10, "changed")


def test_what_is_written_again_is_at_its_end() -> None:
    with scripted(rule=lambda _: say(f"<memory>{NEW}</memory>")) as script:
        block, receipt = rewrite(script.endpoint(), OLD, SAID, UNCHECKED)
    assert (block, receipt.calls) == (NEW, 3)  # tools, the notes, the notes again


@pytest.mark.parametrize(
    ("answers", "outcome", "words"),
    [
        ([say("<memory> \n</memory>")], "failed", "an empty version"),
        ([say(None, rethink(""))], "failed", "an empty version"),
        ([say(None, rethink("[empty]"))], "failed", "an empty version"),
        (
            [say("<memory>" + "x" * 101 + "</memory>")],
            "failed",
            "101 characters .* 100 are allowed",
        ),
        ([say(None, rethink("x" * 101))], "failed", "101 characters .* 100 are allowed"),
        ([say("<memory>The cat")], "failed", "no reply held notes"),
        ([say("")], "failed", "no reply held notes"),
        ([say("DONE")], "unchanged", "nothing to add"),
        ([say(None, FINISH)], "unchanged", "nothing to add"),
        ([say(f"<memory>{OLD}</memory>")], "unchanged", "nothing to add"),
        ([Answer(b"<html>", kind="text/html")], "failed", "a web page"),
        ([refuse(401, "who are you")], "failed", "does not accept the key"),
        ([refuse(429, "busy", ("Retry-After", "999"))], "failed", "no more requests"),
    ],
)
def test_what_comes_to_nothing_changes_nothing_and_says_why(
    answers: list[Answer], outcome: str, words: str
) -> None:
    with scripted(rule=lambda _: answers[0]) as script:
        block, receipt = rewrite(script.endpoint(), OLD, SAID, NotesConfig(limit=100))
    assert (block, receipt.outcome) == (OLD, outcome)
    assert receipt.characters_after == receipt.characters_before == len(OLD)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(receipt.why)
    assert 1 <= receipt.calls <= 10


def test_an_overlong_version_is_told_to_be_shorter() -> None:
    steps = [say(None, rethink("x" * 200)), say(None, rethink("Short.")), say(None, FINISH)]
    with scripted(steps) as script:
        block, receipt = rewrite(script.endpoint(), OLD, SAID, NotesConfig(limit=100, check=False))
    assert (block, receipt.why) == ("Short.", "")
    assert "200 characters" in script.asked[1]["messages"][1]["content"]


def test_a_failure_after_a_good_version_keeps_it_and_is_told() -> None:
    with scripted([say(None, rethink(NEW)), refuse(403, "no")]) as script:
        block, receipt = rewrite(script.endpoint(), OLD, SAID, UNCHECKED)
    assert (block, receipt.outcome) == (NEW, "changed")
    assert "does not accept the key" in receipt.why


def test_lines_that_the_source_does_not_bear_out_are_dropped() -> None:
    written = f"{OLD}\nThe cat is called Mio.\n\nThe cat is nine.\nMio was born in spring."
    steps = [say(None, rethink(written), FINISH), say("1 yes\n2. No, she is three.\n")]
    with scripted(steps) as script:
        block, receipt = rewrite(script.endpoint(), OLD, SAID)
    assert block.split() == NEW.split()
    assert (receipt.num_checked, receipt.num_dropped) == (3, 2)  # one has no verdict
    assert receipt.why == "2 of 3 new lines did not hold"
    assert SAID in script.asked[1]["messages"][1]["content"]


@pytest.mark.parametrize(
    ("check", "outcome", "words"),
    [
        (refuse(400, "no"), "failed", "the check failed, so nothing changes"),
        (say("All of it is fine."), "failed", "has no verdict"),
        (say("17 yes"), "failed", "has no verdict"),
        (say("1 no"), "unchanged", "bore out no new line"),
    ],
)
def test_a_check_that_fails_or_refuses_all_changes_nothing(
    check: Answer, outcome: str, words: str
) -> None:
    with scripted([say(None, rethink("The cat is nine."), FINISH), check]) as script:
        block, receipt = rewrite(script.endpoint(), OLD, SAID)
    assert (block, receipt.outcome) == (OLD, outcome)
    assert words in receipt.why


def test_what_only_leaves_lines_out_needs_no_check() -> None:
    with scripted([say(None, rethink(OLD), FINISH)]) as script:
        block, receipt = rewrite(script.endpoint(), NEW, SAID)
    assert (block, receipt.calls, receipt.num_checked) == (OLD, 1, 0)


PIECES = st.sampled_from(
    ["<memory>", "</memory>", "DONE", "\n", "1 yes", "2 no", "Mio.", "[empty]"]
)
TEXTS = st.lists(PIECES, max_size=6).map("".join)
NOTES = st.sampled_from(["", " ", "Mio.", "Mio.\nAnn.", "x" * 59, "x" * 61, "[empty]"])
BLOCKS = NOTES.map(lambda text: f"<memory>{text}</memory>")
CALLS = st.builds(
    ToolCall,
    st.just("a"),
    st.sampled_from(["rethink_memory", "finish_rethinking_memory", "other"]),
    NOTES.map(lambda text: json.dumps({"new_memory": text})) | st.just("[1]") | TEXTS,
)
REPLIES = st.one_of(
    TEXTS,
    BLOCKS,
    st.builds(Completion, text=TEXTS, calls=st.lists(CALLS, max_size=2).map(tuple)),
    st.builds(EndpointError, st.sampled_from(["down", "refused", "slow"]), st.just("no"))
    | st.builds(lambda: EndpointError("refused", "no tools", status=400)),
)


@given(st.lists(REPLIES, min_size=1, max_size=12), NOTES, st.booleans())
def test_whatever_comes_back_no_block_is_lost_or_too_long(
    replies: list[str | Completion | EndpointError], block: str, check: bool
) -> None:
    config = NotesConfig(limit=60, check=check, max_steps=4)
    endpoint = Replies(replies)
    after, receipt = rewrite(endpoint, block, SAID, config)
    assert bool(after.strip()) >= bool(block.strip())
    assert after == block or 0 < len(after) <= 60
    assert (receipt.outcome == "changed") == (after != block)
    assert (receipt.why != "") or receipt.outcome == "changed"
    assert receipt.calls == endpoint.num_asked <= 4 + check
    assert (receipt.characters_before, receipt.characters_after) == (len(block), len(after))


@given(st.text(), st.integers(0, 5))
def test_verdicts_are_of_lines_that_there_are(text: str, count: int) -> None:
    assert read_verdicts(text, count).keys() <= set(range(1, count + 1))


def test_of_two_verdicts_the_no_stands() -> None:
    assert read_verdicts("1 yes\n1 no\n2) No\n2 yes\n**3** YES!\n4 maybe", 4) == {
        1: False,
        2: False,
        3: True,
    }
