"""One turn from the command line."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import slowwave
from slowwave import cli, status_line
from slowwave.commands.turn import ReadView
from slowwave.lab.bench.kills import is_same
from slowwave.memory import turn as memory_turn
from slowwave.memory.replay import replay
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.store import Store
from slowwave.memory.turn import cut_text

Call = Callable[..., str]


def start(model: Path) -> Session:
    talker = slowwave.load(model)
    return talker.session()


def test_the_reply_is_what_a_session_says(model: Path, call: Call, folder: Path) -> None:
    session = start(model)
    reply = session.generate("Where?", max_new_tokens=20)
    assert call("generate", model, "Where?", "--max-new-tokens", 20) == reply + "\n"
    told = json.loads(call("generate", model, "Where?", "--max-new-tokens", 20, "--json"))
    assert told["reply"] == reply
    assert (told["memory"], told["source"], told["interrupted"]) == (None, "user", False)
    assert told["tokens_seen"] == told["new_tokens"] == session.state.counters.tokens_seen
    assert told["num_sleeps"] == len(told["sleeps"]) == len(session.sleeps) > 0
    assert told["sleeps"][0]["changes"] == [*session.sleeps[0].changes]
    assert list(folder.iterdir()) == []


def test_a_memory_goes_on(model: Path, call: Call, folder: Path) -> None:
    session = start(model)
    for prompt in ("I am Ann.", "Who am I?"):
        reply = session.generate(prompt, max_new_tokens=9)
        options = ("--max-new-tokens", 9, "--memory", "ann", "--json")
        assert json.loads(call("generate", model, prompt, *options))["reply"] == reply
    with Store(folder / "memories") as store:
        assert store.info("ann").tokens_seen == session.state.tokens_seen


def test_reading_only(model: Path, call: Call, speak: Call, folder: Path) -> None:
    text = "Ann lives in Lima.\nBob does not.\n"
    (folder / "notes.txt").write_text(text)
    read = ("--read", "--memory", "ann", "--memory-dir", "elsewhere")
    told = json.loads(call("generate", model, "--file", "notes.txt", *read, "--json"))
    assert (told["source"], told["reply"], told["new_tokens"]) == ("notes.txt", "", len(text))
    shown = speak("More.", "generate", model, "--stdin", *read, "--source", "letters")
    assert shown == "read 5 tokens, slept 1 time\n"
    with Store(folder / "elsewhere") as store:
        entries = store.entries("ann")
    assert [(entry.source, entry.text) for entry in entries] == [
        ("notes.txt", text),
        ("letters", "More."),
    ]


def test_stop_and_sampling(model: Path, call: Call) -> None:
    drawn = ("--temperature", 1, "--seed", 7, "--top-k", 50, "--top-p", 0.9, "--max-new-tokens", 30)
    reply = call("generate", model, "Where?", *drawn)
    assert call("generate", model, "Where?", *drawn) == reply
    assert call("generate", model, "Where?", *drawn[:3], 8, *drawn[4:]) != reply
    stop = reply[5:7]
    assert call("generate", model, "Where?", *drawn, "--stop", stop) == reply.split(stop)[0] + "\n"


# A long text.

LONG = "Ann lives in Lima.\nBob does not.\n\nNor does Carl, who is in Rome with Dora.\n" * 3
READ = ("--file", "notes.txt", "--read", "--memory")


@pytest.fixture
def pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """LONG is in a file, and read in small pieces."""
    (folder / "notes.txt").write_text(LONG)
    monkeypatch.setattr(memory_turn, "cut_text", lambda text: cut_text(text, 40))
    return cut_text(LONG, 40)


def interrupt_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C within the piece of a number, after a sleep or two."""
    read, note, numbers = Session.read, ReadView.note, itertools.count()
    is_reached = False

    def stop(view: ReadView, report: SleepReport) -> None:
        if is_reached:
            raise KeyboardInterrupt
        note(view, report)

    def read_until(session: Session, text: str, *, source: str) -> None:
        nonlocal is_reached
        is_reached = next(numbers) == number
        read(session, text, source=source)

    monkeypatch.setattr(ReadView, "note", stop)
    monkeypatch.setattr(Session, "read", read_until)


def test_each_piece_of_a_long_text_is_a_turn(model: Path, call: Call, pieces: list[str]) -> None:
    call("generate", model, "--memory", "ann", "Hi", "--max-new-tokens", 3)
    shown = call("generate", model, *READ, "ann")
    assert shown.startswith(f"read {len(LONG)} tokens, slept ")
    talker = slowwave.load(model)
    with Store("memories") as store, store.open("ann", talker) as session:
        ledger, state = session.ledger(), session.state
        assert [entry.text for entry in ledger[2:]] == pieces
        assert {entry.source for entry in ledger[2:]} == {"notes.txt"}
        again = replay(lambda: start(model), ledger)
        assert is_same(state, again.state)
        assert len(store.provenance("ann").sleeps) == state.num_sleeps
        session.forget(session.preview_forgetting(sources=["notes.txt"]))
        assert [entry.source for entry in session.ledger()] == ["user", "model"]


def test_a_reading_that_was_interrupted_goes_on(
    model: Path,
    call: Call,
    pieces: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call("generate", model, *READ, "whole")
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        with pytest.raises(SystemExit) as exit_:
            call("generate", model, *READ, "ann")
    assert exit_.value.code == 130
    done = f"{sum(map(len, pieces[:3])):,} of {len(LONG):,} characters"
    printed = capsys.readouterr()
    assert printed.err == (
        f"slowwave: interrupted; {done} are kept, and the same command goes on from there\n"
    )
    assert printed.out == ""
    with Store("memories") as store:
        assert [entry.text for entry in store.entries("ann")] == pieces[:3]
    call("generate", model, "--memory", "ann", "Hi", "--max-new-tokens", 3)  # does no harm
    with monkeypatch.context() as patch:
        interrupt_at(2, patch)
        with pytest.raises(SystemExit):
            call("generate", model, *READ, "ann")
    assert capsys.readouterr().err.startswith(f"{done} were read before; goes on from there\n")
    told = json.loads(call("generate", model, *READ, "ann", "--json"))
    assert told["new_tokens"] == len("".join(pieces[5:]))
    with Store("memories") as store:
        read = [entry for entry in store.entries("ann") if entry.source == "notes.txt"]
        assert [entry.text for entry in read] == pieces
    told = json.loads(call("generate", model, *READ, "ann", "--json"))
    assert told["new_tokens"] == len(LONG)  # all was read: so it is read again


def test_what_is_kept_does_not_depend_on_where_it_was_interrupted(
    model: Path, call: Call, pieces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call("generate", model, *READ, "whole")
    with monkeypatch.context() as patch:
        interrupt_at(4, patch)
        with pytest.raises(SystemExit):
            call("generate", model, *READ, "ann")
    call("generate", model, *READ, "ann")
    talker = slowwave.load(model)
    with Store("memories") as store:
        assert is_same(store.state("ann", talker), store.state("whole", talker))


def test_without_a_memory_nothing_is_kept(
    model: Path,
    call: Call,
    pieces: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
) -> None:
    interrupt_at(1, monkeypatch)
    with pytest.raises(SystemExit) as exit_:
        call("generate", model, "--file", "notes.txt", "--read")
    assert (exit_.value.code, capsys.readouterr().err) == (130, "slowwave: interrupted\n")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("hook", "kept", "kinds"),
    [
        ("reply", "the reply so far is kept", ["told", "reply"]),
        ("note", "nothing of it is kept", []),
    ],
)
def test_an_interrupted_turn_says_what_is_kept(
    hook: str,
    kept: str,
    kinds: list[str],
    model: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the reply, and while the prompt is read."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ReadView, hook, interrupt)
    with pytest.raises(SystemExit) as exit_:
        call("generate", model, "Where is Ann?", "--memory", "ann")
    assert exit_.value.code == 130
    assert capsys.readouterr().err == f"slowwave: interrupted; {kept}\n"
    with Store("memories") as store:
        assert [entry.kind for entry in store.entries("ann")] == kinds


def test_a_pipe_is_told_how_far_the_reading_is(
    model: Path,
    call: Call,
    pieces: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(status_line, "FIRST_SECONDS", 0)
    cli.main(["generate", str(model), *READ, "ann"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"loading {model}", "reading: 12 tokens, slept 1 time"]
    assert f"reading: {len(LONG)} of {len(LONG)} characters, slept {len(LONG) // 12} times" in lines
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "Hi"], "nowhere: no such folder; name the folder of a model to talk to"),
        (["latin", "Hi"], "latin: is a file; name the folder of a model to talk to"),
        (["", "Hi"], "MODEL is empty; name a file or a folder"),
        (["MODEL"], "give the prompt once: as an argument, by --file or by --stdin"),
        (["MODEL", "Hi", "--stdin"], "give the prompt once: as an argument, by --file or by"),
        (["MODEL", " "], "the message is empty; say something"),
        (["MODEL", "--file", "nowhere"], "nowhere: no such file; name one that is there"),
        (["MODEL", "--file", "latin"], "latin: byte 3 is not UTF-8; convert the text to UTF-8"),
        (["MODEL", "caf\udce9"], "PROMPT: byte 3 is not UTF-8; convert the text to UTF-8"),
        (["MODEL", "Hi", "--max-new-tokens", "0"], "--max-new-tokens is 0; use 1 or more"),
        (["MODEL", "Hi", "--temperature", "-1"], "temperature is -1.0; use 0 (greedy)"),
        (["MODEL", "Hi", "--memory", "a@b"], "session name 'a@b' is unfit; use 1 to 128"),
        (["MODEL", "Hi", "--memory", "../x"], "session name '../x' is unfit; use 1 to 128"),
        (["nowhere", "Hi", "--memory", ""], "session name '' is unfit; use 1 to 128"),
        (["MODEL", "Hi", "--memory", "x", "--memory-dir", "latin"], "latin: is a file; name a di"),
        (["MODEL", "Hi", "--memory", "x", "--memory-dir", ""], "--memory-dir is empty; name a f"),
        (["MODEL", "Hi", "there"], "'there' is more than it takes (a text of several words goes"),
        (["MODEL", "Hi", "--source", " "], "--source is ' '; use a name that says something"),
    ],
)
def test_mistakes(
    arguments: list[str], sentence: str, model: Path, refusal: Call, folder: Path
) -> None:
    (folder / "latin").write_bytes("café".encode("latin-1"))
    given = [str(model) if argument == "MODEL" else argument for argument in arguments]
    assert sentence in refusal("generate", *given)
    assert [path.name for path in folder.iterdir()] == ["latin"]


def test_a_run_is_no_model_to_talk_to(refusal: Call) -> None:
    shipped = Path(__file__).parents[2] / "checkpoints" / "depo-mini" / "n1"
    sentence = refusal("generate", shipped, "Hi")
    assert sentence.startswith(f"{shipped}: is a run on the task depo, and so no language model;")
