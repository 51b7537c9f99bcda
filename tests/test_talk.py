"""The shipped model to talk to says what the pages show, and keeps plain facts for a while."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shown_chats import read_chats
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker, load
from slowwave.tasks.conversation.phrases import SMALL_TALK, begin

ROOT = Path(__file__).parent.parent
FACTS = (
    ("My name is Clara.", "What is my name?", "Clara"),
    ("My cat is called Milo.", "What is my cat called?", "Milo"),
    ("My sister lives in Lima.", "Where does my sister live?", "Lima"),
    ("My favourite colour is green.", "What is my favourite colour?", "green"),
    ("I work as a nurse.", "What is my job?", "nurse"),
    ("Tom likes pizza.", "What does Tom like to eat?", "pizza"),
    ("I put the key in the drawer.", "Where is the key?", "drawer"),
    ("Anna's dog is called Rex.", "What is Anna's dog called?", "Rex"),
)


@pytest.fixture(scope="module")
def talker() -> Talker:
    return load(ROOT / "checkpoints" / "talk")


def test_it_says_what_the_readme_shows(talker: Talker, tmp_path: Path) -> None:
    chats = read_chats("talk")
    assert len(chats) == 2
    for chat in chats:
        with Store(tmp_path) as store, store.open("me", talker, create=True) as session:
            for line, reply in chat:
                if line == "/sleep":
                    report = session.sleep()
                    assert report is not None
                    assert reply.startswith(f"sleep 1 (asked): {report.tokens} tokens, 4 passes, ")
                else:
                    assert session.generate(line) == reply
    with Store(tmp_path) as store:
        assert store.info("me").num_sleeps == 1


def read_table(path: Path, first: str) -> list[dict[str, str]]:
    """Rows, by the names of their columns, of the Markdown table whose first column is `first`."""
    table = re.search(
        rf"^\| {first} \|.*\n\|.*\n((?:\|.*\n)+)", path.read_text("utf-8"), re.MULTILINE
    )
    assert table is not None
    header, _, *rows = [line.strip("|").split("|") for line in table.group().splitlines()]
    return [dict(zip(map(str.strip, header), map(str.strip, row), strict=True)) for row in rows]


def test_the_scores_in_findings_are_those_recorded() -> None:
    tests = {"common names": "128 windows, common names", "any fact": "128 windows, about 10 facts"}
    recorded = {
        (row["test"], row["trained N"]): row
        for row in read_table(ROOT / "results" / "talk" / "talk.md", "test")
    }
    shown = read_table(ROOT / "docs" / "findings.md", "told, windows ago")
    assert len(shown) == 4
    for row in shown:
        kind, passes = row.pop("told, windows ago").split(", N = ")
        scores = recorded[tests[kind], passes]
        assert row == {column: scores[f"windows ago {column}"] for column in row}


@pytest.mark.parametrize(("windows", "least"), [(10, 7), (100, 6)])
def test_most_plain_facts_outlive_small_talk(talker: Talker, windows: int, least: int) -> None:
    session = talker.session()
    for fact, _, _ in FACTS:
        assert session.generate(fact) == "Noted."
    number = 0
    while session.state.counters.num_sleeps < windows:
        line, reply = SMALL_TALK[7 * number % len(SMALL_TALK)]
        session.read(f"> {begin(line)}\n{reply}\n")
        number += 1
    right = [value in session.fork().generate(question) for _, question, value in FACTS]
    assert sum(right) >= least
    assert session.fork().generate("Where does Paul live?") == "I was never told where Paul lives."
    assert session.generate("My sister has moved to Rome.") == "Corrected."
    assert session.generate("Where does my sister live?") == "Your sister lives in Rome."
