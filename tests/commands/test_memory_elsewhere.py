"""Commands on memories of models that run elsewhere, and the server of these."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripted_endpoint import obey, scripted
from slowwave import cli
from slowwave.memory.ledger import Entry
from slowwave.memory.store import Store

Call = Callable[..., str]


@pytest.fixture(autouse=True)
def ann() -> None:
    """A session that was told two things, and replied once."""
    told = [("user", "first", "I live in Rome."), ("assistant", "model", "Rome!"),
            ("user", "second", "I drink tea.")]  # fmt: skip
    with Store("memories") as store, store.open_text("ann", create=True) as session:
        for role, source, said in told:
            fields: Any = {"role": role, "source": source, "text": said, "said": said}
            kind = "reply" if role == "assistant" else "told"
            session.add_turn([Entry(kind=kind, time=time.time(), **fields)])


def read(call: Call, *arguments: object) -> Any:
    return json.loads(call("memory", *arguments, "--json"))


def test_they_are_looked_into_moved_and_forgotten_without_a_model(call: Call, folder: Path) -> None:
    assert [each["name"] for each in read(call, "list")["sessions"]] == ["ann"]
    assert "I live in Rome." in call("memory", "show", "ann")
    assert read(call, "info", "ann")["num_entries"] == 3
    call("memory", "snapshot", "ann", "monday")
    call("memory", "fork", "ann@monday", "bob")
    call("memory", "export", "ann", "ann.session")
    call("memory", "import", "ann.session", "--name", "cat")
    gone = read(call, "forget", "ann", "--source", "first", "--yes")
    assert gone["done"] and gone["num_entries"] == 1
    assert "Rome" not in call("memory", "show", "ann")
    assert "Rome" in call("memory", "show", "bob")
    call("memory", "delete", "bob", "--yes")
    assert [each["name"] for each in read(call, "list")["sessions"]] == ["ann", "cat"]


def test_they_have_notes_and_episodes(call: Call, folder: Path) -> None:
    with scripted(rule=obey) as script:
        (folder / "notes.toml").write_text(f'[endpoint]\nurl = "{script.url}"\nmodel = "m"\n')
        call("memory", "notes", "ann", "--sleep", "notes.toml")
    assert read(call, "notes", "ann")["notes"] == "Ann lives in Rome.\nAnn likes tea."
    assert "Ann likes tea." in call("memory", "episodes", "ann")
    call("memory", "forget", "ann", "--source", "first", "--yes")
    assert read(call, "notes", "ann")["notes"] == ""
    assert len(read(call, "episodes", "ann")["episodes"]) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name a MODEL to serve, or the endpoint"),
        (["x", "--upstream", "http://h/v1"], "name a MODEL to serve, or the endpoint"),
        (["x", "--notes", "n.toml"], "are for --upstream; leave them out"),
        (["--upstream", "http://h/v1", "--lenient"], "are for a MODEL; leave them out"),
        (["--upstream", "h"], "--upstream is 'h'; use one as http://127.0.0.1:8000/v1"),
        (["--upstream", "http://h", "--upstream-key-env", "sk-1"], "--upstream-key-env is no name"),
        (["--upstream", "http://h", "--notes", "no.toml"], "no.toml"),
    ],
)
def test_what_cannot_be_served_is_rejected(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["serve", *arguments])
    assert exit_.value.code == 2
    assert sentence in capsys.readouterr().err


def test_the_command_serves_what_it_was_told(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked = list[Any]()
    monkeypatch.setattr(
        "slowwave.serving.run.serve_upstream", lambda url, **more: asked.extend([url, more])
    )
    (folder / "n.toml").write_text('[endpoint]\nurl = "http://n/v1"\nmodel = "m"\n')
    options = ["--upstream-key-env", "KEY", "--notes", "n.toml", "--limits.window-characters", "9"]
    cli.main(["serve", "--upstream", "http://h/v1", *options])
    endpoint, more = asked
    assert (endpoint.url, endpoint.key_env) == ("http://h/v1", "KEY")
    assert (more["notes"].endpoint.url, more["config"].window_characters) == ("http://n/v1", 9)
