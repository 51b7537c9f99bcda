"""SmolLM2 itself, where its package can be fetched: what the README shows, said again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slowwave.memory.store import Store
from slowwave.memory.talker import Talker, load

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


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


def read_chats() -> list[list[tuple[str, str]]]:
    """What the README shows: a list of lines and replies for every start of the chat."""
    shown = re.search(r"```\n(\$ make chat\n.*?)```", README, re.DOTALL)
    assert shown is not None
    chats: list[list[tuple[str, str]]] = []
    for chat in shown.group(1).split("$ make chat\n")[1:]:
        lines = re.split(r"^> ", chat, flags=re.MULTILINE)[1:]
        pairs = [line.rstrip("\n").partition("\n") for line in lines]
        chats.append([(said, reply) for said, _, reply in pairs if said != "/quit"])
    return chats


def test_it_remembers_across_a_restart(talker: Talker, tmp_path: Path) -> None:
    """Processors round otherwise, so that only replies about what was told must be the same."""
    chats = read_chats()
    assert len(chats) == 2
    for chat in chats:
        with Store(tmp_path) as store, store.open("me", talker, create=True) as session:
            for line, shown in chat:
                if line == "/sleep":
                    report = session.sleep()
                    assert report is not None and report.trigger == "asked"
                    continue
                reply = session.generate(line, max_new_tokens=64)
                if chat is chats[1]:
                    assert reply == shown, line


def test_a_system_prompt_stays_outside_the_window(talker: Talker) -> None:
    session = talker.session()
    session.generate("Hello!", max_new_tokens=4)
    assert session.sleeps[0].trigger == "system"
    session.sleep()
    assert session.state.window_fill == 0
    assert session.state.num_entries > 0
