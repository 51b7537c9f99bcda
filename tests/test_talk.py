"""The shipped model to talk to says what the README shows, and keeps plain facts for a while."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowwave.generation.model_folder import Talker, load
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.tasks.conversation_phrases import SMALL_TALK, begin

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


def read_chats() -> Iterator[list[tuple[str, str]]]:
    """What the README shows: a list of lines and replies for every start of the chat."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"```\n(\$ make chat\n.*?)```", readme, re.DOTALL)
    assert shown is not None
    for chat in shown.group(1).split("$ make chat\n")[1:]:
        said = [line for line in chat.splitlines() if not line.startswith("[")]
        pairs = itertools.pairwise(said)
        yield [(line[2:], reply) for line, reply in pairs if line.startswith("> ")]


def test_it_says_what_the_readme_shows(talker: Talker, tmp_path: Path) -> None:
    chats = list(read_chats())
    assert len(chats) == 2
    for chat in chats:
        with Store(tmp_path) as store, store.open("me", talker, create=True) as session:
            for line, reply in chat:
                if line != "/quit":
                    assert session.generate(line) == reply
    with Store(tmp_path) as store:
        assert store.info("me").num_sleeps == 1


def test_plain_facts_outlive_ten_windows_of_small_talk(talker: Talker) -> None:
    model, tokenizer, sleep, chat = talker
    session = Session(model, tokenizer, sleep, chat=chat)
    for fact, _, _ in FACTS:
        assert session.generate(fact) == "Noted."
    number = 0
    while session.state.num_sleeps < 10:
        line, reply = SMALL_TALK[7 * number % len(SMALL_TALK)]
        session.read(f"> {begin(line)}\n{reply}\n")
        number += 1
    right = [value in session.fork().generate(question) for _, question, value in FACTS]
    assert sum(right) >= len(FACTS) - 1
    assert session.fork().generate("Where does Paul live?") == "I was never told where Paul lives."
