"""Notes and episodes from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import slowwave
from scripted_endpoint import Answer, Script, refuse, say, scripted
from slowwave.memory.store import Store

Call = Callable[..., str]
EPISODE = {
    **{"kind": "fact", "confidence": 0.9, "quote": "Ann lives in Lima"},
    "statement": "Ann lives in Lima.",
}


def obey(body: dict[str, Any]) -> Answer:
    if body["messages"][0]["content"].startswith("List"):
        return say(f"Here:\n{json.dumps(EPISODE)}")
    return say("<memory>Ann lives in Lima.\x1b[2J</memory>\nDONE")


@pytest.fixture
def script(model: Path, folder: Path) -> Iterator[Script]:
    """An endpoint, a session `ann`, and the file notes.toml that names the endpoint."""
    with Store("memories") as store, store.open("ann", slowwave.load(model), create=True) as ann:
        ann.read("Ann lives in Lima.", source="letters")
    with scripted(rule=obey) as made:
        text = f'[endpoint]\nurl = "{made.url}"\nretries = 0\n[notes]\ncheck = false\n'
        (folder / "notes.toml").write_text(text)
        yield made


def read(call: Call, *arguments: object) -> Any:
    return json.loads(call("memory", *arguments, "--json"))


@pytest.mark.usefixtures("script")
def test_notes_are_written_and_shown(call: Call) -> None:
    assert (
        call("memory", "notes", "ann") == "no notes yet\n\nnot yet slept on: 1 of what was said\n"
    )
    told = call("memory", "notes", "ann", "--sleep", "notes.toml").splitlines()
    assert told[0].startswith("message read: 1 episode, 1 line dropped, 1 call, 7 tokens in, 3 out")
    assert told[1].startswith("notes changed: 0 to 22 characters, 2 calls")
    assert told[-1] == "Ann lives in Lima.\ufffd[2J"  # which steers no terminal
    shown = read(call, "notes", "ann")
    assert (shown["notes"], shown["num_waiting"], shown["sleep"]) == (
        *("Ann lives in Lima.\x1b[2J", 0),
        None,
    )
    assert [version["receipt"]["outcome"] for version in shown["versions"]] == ["changed"]
    assert "up to place 0: notes changed" in call("memory", "notes", "ann", "--versions")


def test_a_sleep_that_fails_says_why(call: Call, script: Script) -> None:
    script.rule = lambda _: refuse(503, "full")
    slept = read(call, "notes", "ann", "--sleep", "notes.toml")["sleep"]
    assert slept["outcome"] == "failed"
    assert "fails (503: full)" in slept["why"]


@pytest.mark.usefixtures("script")
def test_episodes_are_listed_corrected_and_forgotten(call: Call) -> None:
    assert call("memory", "episodes", "ann") == "no episodes\n"
    call("memory", "notes", "ann", "--sleep", "notes.toml")
    (found,) = read(call, "episodes", "ann", "--kind", "fact", "--find", "lima")["episodes"]
    assert {**found, **EPISODE | {"quote": None}} == {**found, "quote": None}
    assert (found["place"], found["start"], found["stop"]) == (0, 0, 17)
    assert "Ann lives in Lima." in call("memory", "episodes", "ann")
    assert call("memory", "episodes", "ann", "--kind", "task") == "no episodes\n"
    made = read(call, "episodes", "ann", "--correct", found["id"], "--to", "Ann lives in Rome.")
    assert made["episode"]["corrects"] == [found["id"]]
    table = call("memory", "episodes", "ann", "--all")
    assert f"corrects {found['id']}" in table
    assert "not in force" in table
    call("memory", "episodes", "ann", "--forget", made["episode"]["id"], "--yes")
    assert read(call, "episodes", "ann")["episodes"] == []
    assert "no notes yet" in call("memory", "notes", "ann")


@pytest.mark.usefixtures("script")
def test_mistakes_are_one_sentence(refusal: Call, folder: Path) -> None:
    both = ("--correct", "1", "--to", "x", "--forget", "1")
    for words, arguments in (
        ("no session 'bob'", ("notes", "bob")),
        ("no such file", ("notes", "ann", "--sleep", "nothing.toml")),
        ("belong together", ("episodes", "ann", "--correct", "1")),
        (
            "do one after the other",
            ("episodes", "ann", *both),
        ),
        ("no episode 7", ("episodes", "ann", "--forget", "7", "--yes")),
    ):
        assert words in refusal("memory", *arguments)
    (folder / "notes.toml").write_text('[endpoint]\nurl = "nowhere"\n')
    assert "endpoint.url is 'nowhere'" in refusal("memory", "notes", "ann", "--sleep", "notes.toml")
