"""One turn from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import slowwave
from slowwave.memory.session import Session
from slowwave.memory.store import Store

Call = Callable[..., str]


def start(model: Path) -> Session:
    talker = slowwave.load(model)
    return Session(talker.model, talker.tokenizer, talker.sleep, chat=talker.chat)


def test_the_reply_is_what_a_session_says(model: Path, call: Call, folder: Path) -> None:
    session = start(model)
    reply = session.generate("Where?", max_new_tokens=20)
    assert call("generate", model, "Where?", "--max-new-tokens", 20) == reply + "\n"
    told = json.loads(call("generate", model, "Where?", "--max-new-tokens", 20, "--json"))
    assert told["reply"] == reply
    assert (told["memory"], told["source"], told["interrupted"]) == (None, "user", False)
    assert told["tokens_seen"] == told["new_tokens"] == session.state.tokens_seen
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
