"""Looking after memories from the command line."""

from __future__ import annotations

import io
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import slowwave
from slowwave import cli
from slowwave.commands.memory import COMMANDS
from slowwave.commands.printing import to_json
from slowwave.memory.config import Question
from slowwave.memory.questions import probe_state
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat
from slowwave.runtime.model_folder import TalkerConfig, save
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import ByteTokenizer
from tiny_models import TWO_LAYERS

Call = Callable[..., str]


@pytest.fixture
def talker(model: Path) -> Talker:
    return slowwave.load(model)


@pytest.fixture
def ann(talker: Talker) -> Talker:
    """A store with one session, a snapshot of it and a fork; tells with which model."""
    with Store("memories") as store:
        with store.open("ann", talker, create=True) as session:
            session.read("Ann lives in Lima.", source="notes")
            session.snapshot("monday")
            session.generate("Where?", max_new_tokens=6)
            session.read("The secret is XYZZY.", source="letters")
            session.sleep(3)
        store.fork("ann@monday", "bob")
    return talker


def read(call: Call, *arguments: object) -> Any:
    return json.loads(call("memory", *arguments, "--json"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, call: Call) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["memory", name, "--help"])
    assert exit_.value.code == 0


def test_list(ann: Talker, call: Call) -> None:
    found = read(call, "list")
    assert [session["name"] for session in found["sessions"]] == ["ann", "bob"]
    with Store("memories") as store:
        assert found["sessions"][0]["tokens_seen"] == store.info("ann").tokens_seen
        assert found["disk"]["heads"] == store.measure().heads > 0
    assert found["sessions"][0]["snapshots"][0]["name"] == "monday"
    assert found["sessions"][0]["sleep"]["window"] == 12
    shown = call("memory", "list")
    assert "ann" in shown and "monday" in shown and "6 of 12" in shown and "on disk: " in shown


def test_show_says_which_sleep_consolidated_what(ann: Talker, call: Call) -> None:
    shown = read(call, "show", "ann")
    with Store("memories") as store:
        provenance, entries = store.provenance("ann"), store.entries("ann")
    assert [row["place"] for row in shown["ledger"]] == [0, 1, 2, 3, 4]
    assert [row["text"] for row in shown["ledger"]] == [entry.text for entry in entries]
    for number, spans in enumerate(provenance.sleeps, start=1):
        assert shown["sleeps"][number - 1]["spans"] == [span._asdict() for span in spans]
        for span in spans:
            assert number in shown["ledger"][span.place]["sleeps"]
    assert shown["ledger"][0]["sleeps"] == [1, 2]
    assert shown["sleeps"][-1]["report"]["trigger"] == "asked"
    last = read(call, "show", "ann", "--last", 1)
    assert [row["place"] for row in last["ledger"]] == [4]
    early = read(call, "show", "ann@monday")
    assert early["window"] == [{"place": 0, "start": 12, "stop": 18}]
    assert (early["ledger"][0]["sleeps"], early["ledger"][0]["in_window"]) == ([1], 6)
    table = call("memory", "show", "ann")
    assert "The secret is XYZZY." in table and "(sleep, N = 3)" in table and " 1-2" in table
    assert " 1, window" in call("memory", "show", "ann@monday")


def test_what_was_said_cannot_steer_the_terminal(talker: Talker, call: Call) -> None:
    with Store("memories") as store, store.open("eve", talker, create=True) as session:
        session.read("[red]\x1b[2J\x07\nover", source="\x1b]0;x\x07")
    for command in (("show", "eve"), ("list",)):
        assert not {"\x1b", "\x07"} & set(call("memory", *command))
    assert "[red]\ufffd[2J\ufffd\u23ceover" in call("memory", "show", "eve")


def test_info(ann: Talker, call: Call, folder: Path) -> None:
    told = read(call, "info", "ann")
    assert told["name"] == "ann" and told["num_entries"] == 5
    assert "monday (" in call("memory", "info", "ann")
    with Store("memories") as store:
        file = store.info("ann").snapshots[0].point.file
        tokens = store.info("ann").tokens_seen
    assert file is not None
    header = read(call, "info", folder / "memories" / "states" / file)
    assert (header["kind"], header["tokens_seen"], header["window_fill"]) == ("memory file", 18, 6)
    call("memory", "export", "ann", "ann.session")
    exported = read(call, "info", "ann.session")
    assert (exported["kind"], exported["name"]) == ("exported session", "ann")
    assert (exported["tokens_seen"], exported["snapshots"]) == (tokens, ["monday"])
    assert "exported session" in call("memory", "info", "ann.session")


def test_diff(ann: Talker, call: Call) -> None:
    found = read(call, "diff", "ann@monday", "ann")
    assert len(found["changes"]) == 2 and found["only_first"] == []
    kinds = [entry["kind"] for entry in found["only_second"]]
    assert kinds == ["told", "reply", "told", "sleep"]
    shown = call("memory", "diff", "ann@monday", "ann")
    assert "nothing is only in ann@monday" in shown and "letters  The secret is XYZZY." in shown


def test_points(ann: Talker, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(call, "snapshot", "ann", "tuesday")["snapshot"] == "ann@tuesday"
    back = read(call, "rollback", "ann", "monday")
    assert back == {"session": "ann", "tokens_seen": 18, "lost_entries": 0, "wiped": True}
    assert read(call, "rollback", "ann", "tuesday")["lost_entries"] == 0
    assert read(call, "fork", "ann@monday", "cid")["tokens_seen"] == 18
    call("memory", "delete", "ann@tuesday", "--yes")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    with pytest.raises(SystemExit) as exit_:
        call("memory", "rollback", "ann", "monday")
    assert exit_.value.code == 1
    assert read(call, "info", "ann")["num_entries"] == 5
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert call("memory", "rollback", "ann", "monday") == "ann is back at monday\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(SystemExit):
        call("memory", "delete", "ann")
    call("memory", "delete", "ann", "--yes")
    assert [session["name"] for session in read(call, "list")["sessions"]] == ["bob", "cid"]


def test_rollback_says_what_it_loses(
    ann: Talker, call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    with pytest.raises(SystemExit):
        call("memory", "rollback", "ann", "monday")
    assert "The last 4 entries have no snapshot and would be gone." in capsys.readouterr().err


def test_forget(
    ann: Talker,
    model: Path,
    call: Call,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget = ("memory", "forget", "ann", "--model", model)
    shown = call(*forget, "--source", "notes", "--dry-run")
    assert "Ann lives in Lima." in shown and "XYZZY" not in shown
    assert "Snapshots that hold some of it go too: monday." in shown
    assert "Sessions that hold it still, and keep it: bob." in shown
    assert "3 entries with 29 tokens, is read again" in shown
    assert "may carry it and go too, unless you keep them: 2." in shown
    assert "Files that were exported before, and copies of the directory, are not changed." in shown
    kept = json.loads(call(*forget, "--source", "notes", "--keep", 2, "--dry-run", "--json"))
    assert [row["place"] for row in kept["preview"]["dropped"]] == [0] and not kept["done"]
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    with pytest.raises(SystemExit) as exit_:
        call(*forget, "--place", 0)
    assert exit_.value.code == 1
    assert "Forget it? [y/N]" in capsys.readouterr().err
    assert read(call, "info", "ann")["num_entries"] == 5
    done = json.loads(call(*forget, "--place", 3, "--yes", "--json"))
    assert done["done"] and done["wiped"] and done["num_entries"] == 4
    with Store("memories") as store:
        assert all("XYZZY" not in entry.text for entry in store.entries("ann"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert call(*forget, "--source", "notes").endswith("forgotten\n")


def test_traces_that_another_process_reads_are_told(
    ann: Talker, model: Path, call: Call, folder: Path
) -> None:
    reader = sqlite3.connect(folder / "memories" / "catalogue.sqlite", isolation_level=None)
    commands = [
        ("forget", "ann", "--model", model, "--source", "notes", "--yes"),
        ("rollback", "bob", "monday", "--yes"),
        ("delete", "bob@monday", "--yes"),
        ("delete", "ann", "--yes"),
    ]
    call("memory", "snapshot", "bob", "monday")
    for command in commands:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        assert "; traces of it stay on disk for now, since another" in call("memory", *command)
        reader.execute("COMMIT")
        call("memory", "list")
    with Store("memories") as store:
        assert store.is_wiped()
    reader.close()


def test_export_and_import(ann: Talker, call: Call, folder: Path) -> None:
    assert read(call, "export", "ann", "a.session")["nbytes"] > 0
    assert "a.session: " in call("memory", "export", "ann", "a.session")
    elsewhere = ("--memory-dir", "elsewhere")
    made = read(call, "import", "a.session", "--name", "eve", *elsewhere)
    assert made["session"] == "eve"
    assert "ann: " in call("memory", "import", "a.session", *elsewhere)
    assert read(call, "show", "ann")["ledger"] == read(call, "show", "eve", *elsewhere)["ledger"]


def test_rebuild_and_resleep(ann: Talker, model: Path, call: Call, folder: Path) -> None:
    assert call("memory", "rebuild", "ann", "--model", model) == "all states are sound\n"
    for file in (folder / "memories" / "states").iterdir():
        file.unlink()
    rebuilt = read(call, "rebuild", "ann", "--model", model)["rebuilt"]
    assert rebuilt == ["ann", "ann@monday"]
    made = read(call, "resleep", "ann@monday", "dan", "--model", model)
    assert made == {"session": "dan", "tokens_seen": 18, "num_sleeps": 1}
    assert call("memory", "resleep", "ann@monday", "eve", "--model", model).startswith("eve: 18")


def test_the_environment_names_the_directory(
    ann: Talker, call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "memories").rename("mine")
    monkeypatch.setenv("SLOWWAVE_MEMORY_DIR", "mine")
    assert len(read(call, "list")["sessions"]) == 2


def test_probe(ann: Talker, model: Path, call: Call, folder: Path) -> None:
    (folder / "questions.toml").write_text(
        '[[questions]]\nquestion = "Where is Ann?"\nanswer = "Lima"\n'
    )
    options = ("--model", model, "--questions", "questions.toml", "--ask", "Who?")
    options += ("--passes", 1, 3, "--max-new-tokens", 5)
    questions = [Question(question="Who?"), Question(question="Where is Ann?", answer="Lima")]
    with Store("memories") as store:
        state = store.state("ann@monday", ann)
        asked = probe_state(ann, state, questions, passes=[1, 3], max_new_tokens=5)
        with store.open("ann", ann):  # which does not matter
            told = read(call, "probe", "ann@monday", *options)
    assert told["asked"] == to_json(asked)
    shown = call("memory", "probe", "ann@monday", *options)
    assert "Where is Ann? (Lima)" in shown and "slept, N = 3" in shown and "wrong: " in shown


def test_gate(ann: Talker, model: Path, call: Call, speak: Call, folder: Path) -> None:
    gate = folder / "gate.toml"
    gate.write_text('held_out = ["The quick brown fox."]\nmax_median_rise = -99.0\n')
    chat = ("chat", model, "--max-new-tokens", 5, "--gate", gate)
    out = speak("H\n/sleep\n/ledger\nH\n", *chat, "--memory", "eve")
    why = "the median NLL of held-out text is "
    assert f", rejected, the window stays open: {why}" in out
    assert f", rejected, one pass instead: {why}" in out
    told = read(call, "show", "eve")
    reports = [sleep["report"] for sleep in told["sleeps"]]
    assert [(r["number"], r["trigger"]) for r in reports] == [(1, "asked"), (1, "full")]
    assert [row["sleeps"] for row in told["ledger"]] == [[1], [1], [], [1], []]
    assert call("memory", "show", "eve").count("rejected") == 2
    assert read(call, "info", "eve")["gate"]["max_median_rise"] == -99
    assert "max_median_rise -99" in call("memory", "info", "eve")
    assert read(call, "info", "ann")["gate"] is None
    made = ("memory", "resleep", "ann", "dan", "--model", model, "--gate", gate)
    call(*made)
    assert read(call, "info", "dan")["gate"]["max_median_rise"] == -99


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["xyz"], "unknown memory command 'xyz'; use one of list, show, info"),
        (["shwo"], "unknown memory command 'shwo'; did you mean show?"),
        (["list", "--jsn"], "unknown option --jsn; did you mean --json or --no-json? see slowwave"),
        (["show", "eve"], "no session 'eve'; there are ann, bob"),
        (["show", "ann@friday"], "no snapshot 'friday'; there are monday"),
        (["show", "ann", "--last", "0"], "--last is 0; use 1 or more"),
        (["info", "nothing.safetensors"], "nothing.safetensors: no such file; name a session, or"),
        (["info", "FOREIGN"], "model.safetensors: a safetensors file, but not a memory file"),
        (["info", "cut"], "cut: truncated, or not an exported session"),
        (["import", "cut"], "cut: truncated, or not an exported session"),
        (["import", "none"], "none: no such file; name an exported session"),
        (["snapshot", "ann", "monday"], "snapshot 'monday' is there already; choose another name"),
        (["rollback", "ann", "friday"], "no snapshot 'friday'; there are monday"),
        (["fork", "ann", "bob"], "session 'bob' is there already; choose another name"),
        (["delete", "ann", "--json"], "--json cannot ask whether it may; add --yes"),
        (["diff", "ann", "eve"], "no session 'eve'; there are ann, bob"),
        (["forget", "ann", "--model", "x", "--place", "0"], "x: no such folder; name the folder"),
        (["forget", "ann", "--model", "MODEL"], "there is nothing to forget; name sources or"),
        (["forget", "ann", "--model", "MODEL", "--place", "9"], "place 9 is not in the ledger"),
        (["forget", "eve", "--model", "x", "--place", "0"], "no session 'eve'; there are ann, bob"),
        (["probe", "ann", "--model", "MODEL"], "there is nothing to ask; give questions by --ask"),
        (
            ["probe", "ann", "--model", "MODEL", "--ask", "x", "--passes", "0"],
            "--passes has 0; use 1",
        ),
        (["probe", "ann", "--model", "MODEL", "--questions", "cut"], "cut: not valid TOML"),
        (["probe", "eve", "--model", "x", "--ask", "x"], "no session 'eve'; there are ann, bob"),
        (["resleep", "ann", "bob", "--model", "MODEL"], "session 'bob' is there already; choose"),
    ],
)
def test_mistakes(
    arguments: list[str], sentence: str, ann: Talker, model: Path, refusal: Call, folder: Path
) -> None:
    (folder / "cut").write_bytes(b"PK\x03\x04 and no more")
    names = {"MODEL": str(model), "FOREIGN": str(model / "model.safetensors")}
    given = [names.get(argument, argument) for argument in arguments]
    assert sentence in refusal("memory", *given)
    with Store("memories") as store:
        assert [info.name for info in store.sessions()] == ["ann", "bob"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["show", "ann"],
        ["info", "ann"],
        ["diff", "ann", "bob"],
        ["snapshot", "ann", "x"],
        ["rollback", "ann", "x"],
        ["fork", "ann", "bob"],
        ["delete", "ann"],
        ["forget", "ann", "--model", "m", "--place", "0"],
        ["export", "ann", "file"],
        ["probe", "ann", "--model", "m", "--ask", "x"],
        ["rebuild", "ann", "--model", "m"],
        ["resleep", "ann", "bob", "--model", "m"],
        ["import", "none"],
    ],
)
def test_where_there_is_no_store_none_is_made(
    arguments: list[str], refusal: Call, folder: Path
) -> None:
    sentence = refusal("memory", *arguments)
    assert ("memories: no memories here; name" in sentence) == (arguments[0] != "import")
    assert list(folder.iterdir()) == []


def test_a_foreign_catalogue(refusal: Call, folder: Path) -> None:
    (folder / "memories").mkdir()
    (folder / "memories" / "catalogue.sqlite").write_text("Dear diary, " * 99)
    assert "catalogue.sqlite: damaged, or no catalogue (" in refusal("memory", "list")


def test_a_session_that_is_open_elsewhere(ann: Talker, model: Path, refusal: Call) -> None:
    with Store("memories") as store, store.open("ann", ann):
        for arguments in (
            ("snapshot", "ann", "x"),
            ("rollback", "ann", "monday", "--yes"),
            ("delete", "ann", "--yes"),
            ("forget", "ann", "--model", model, "--place", 0),
            ("rebuild", "ann", "--model", model),
        ):
            assert "session 'ann' is open in process " in refusal("memory", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("delete", "ann"),
        ("delete", "ann@monday"),
        ("rollback", "ann", "monday"),
        ("forget", "ann", "--source", "notes", "--model", "MODEL"),
    ],
)
def test_without_anybody_to_answer_it_points_at_yes(
    arguments: tuple[str, ...],
    ann: Talker,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with Store("memories") as store:
        before = store.sessions()
    with pytest.raises(SystemExit) as exit_:
        cli.main(["memory", *(str(model) if word == "MODEL" else word for word in arguments)])
    assert exit_.value.code == 2
    *_, sentence = capsys.readouterr().err.splitlines()
    assert sentence == "slowwave: there is no terminal to answer at; add --yes to go on unasked"
    with Store("memories") as store:
        assert store.sessions() == before


def test_info_of_files_and_folders_that_are_no_memory(
    ann: Talker, folder: Path, refusal: Call, call: Call
) -> None:
    (folder / "notes.txt").write_text("My cat is called Milo.\n")
    (folder / "some").mkdir()
    said = "notes.txt: truncated or not a memory file (it does not begin as one); restore it, or"
    assert refusal("memory", "info", "notes.txt") == f"{said} name another\n"
    assert refusal("memory", "info", "some") == "some: is a folder; name a file\n"
    os.mkfifo(folder / "pipe")
    assert refusal("memory", "info", "pipe") == "pipe: no plain file; name another\n"
    assert refusal("memory", "info", "") == "NAME_OR_FILE is empty; name a session or a file\n"
    assert "a/b: no such file; name a session, or" in refusal("memory", "info", "a/b")
    (folder / "ann").write_text("A file of the same name is not meant.")
    assert read(call, "info", "ann")["name"] == "ann"
    elsewhere = ("--memory-dir", "elsewhere")
    assert "ann: truncated or not a memory file" in refusal("memory", "info", "ann", *elsewhere)


def test_a_memory_directory_must_be_one(ann: Talker, folder: Path, refusal: Call) -> None:
    (folder / "file").write_text("")
    sentence = refusal("memory", "list", "--memory-dir", "file")
    assert sentence == "file: is a file; name a directory of memories by --memory-dir\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("memory", "fork", "ann", "../x"),
        ("memory", "snapshot", "ann", "../x"),
        ("memory", "import", "file", "--name", "../x"),
        ("memory", "resleep", "ann", "../x", "--model", "nowhere"),
        ("chat", "nowhere", "--memory", "../x"),
        ("generate", "nowhere", "Hi", "--memory", "../x"),
    ],
)
def test_one_rule_for_names_at_every_command(
    arguments: tuple[str, ...], ann: Talker, folder: Path, refusal: Call, call: Call
) -> None:
    """Looked at before anything is loaded or made."""
    call("memory", "export", "ann", "file")
    before = read(call, "list"), sorted(folder.rglob("*"))
    assert " name '../x' is unfit; use 1 to 128 printable" in refusal(*arguments)
    assert (read(call, "list"), sorted(folder.rglob("*"))) == before


def test_a_session_with_a_name_from_before_the_rule_goes_on(
    model: Path, talker: Talker, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, Store("memories") as store:
        patched.setattr("slowwave.memory.store.check_name", lambda what, name: name)
        store.open("a/b", talker, create=True).close()
    call("generate", model, "Hi", "--memory", "a/b", "--max-new-tokens", 3)
    assert read(call, "info", "a/b")["num_entries"] == 2


def test_a_dream_is_told_and_kept(call: Call, refusal: Call, tmp_path: Path) -> None:
    folder = tmp_path / "dreamer"
    config = TalkerConfig(model=TWO_LAYERS, sleep=SleepConfig(window=128), chat=ChatFormat())
    save(folder, HybridLM(TWO_LAYERS), ByteTokenizer(), config)
    dreamer = slowwave.load(folder)
    with Store("memories") as store, store.open("ann", dreamer, create=True) as session:
        session.generate("I live in Lima.", max_new_tokens=1)
        session.generate("I play the flute. My car is red.", max_new_tokens=1)
    (tmp_path / "dream.toml").write_text("steps = 2\nrank = 2\nmax_anchor_rise = 1.0\n")
    command = ("memory", "dream", "ann", "--model", folder, "--config", tmp_path / "dream.toml")
    said = json.loads(call(*command, "--json"))
    assert said["report"]["dream"]["statements"] == 3
    assert said["report"]["dream"]["steps"] == 2
    assert said["report"]["verdict"]["outcome"] == "accepted"
    line = call(*command, "--seconds", "1e-9")
    assert line.startswith("dream: 3 statements, ")
    assert " in 1 step (seconds), " in line
    shown = call("memory", "show", "ann")
    assert shown.count("(dream)") == 2
    assert "questions learned" in shown
    (tmp_path / "dream.toml").write_text("least_statements = 4\n")
    assert "the ledger has 3 statements of its user" in refusal(*command)
