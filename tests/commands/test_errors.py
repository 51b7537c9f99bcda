"""Errors of the system and of Python as sentences that say what to do."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slowwave.commands.process import explain, explain_missing
from slowwave.wording import MODULES

ROOT = Path(__file__).parents[2]
TALK = str(ROOT / "checkpoints" / "talk")
# Calls commands, one after the other, on a system that lacks some modules.
SCRIPT = """
import contextlib, io, json, sys
names, calls = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(names))
from slowwave.cli import main
told = []
for call in calls:
    code, said = 0, io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(call)
        except SystemExit as exit_:
            code = exit_.code
    told.append([code, said.getvalue()])
print(json.dumps(told))
"""


def system_error(number: int, *names: str) -> OSError:
    first, second = (*names, None, None)[:2]
    return OSError(number, os.strerror(number), first, None, second)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (system_error(errno.ENOENT, "a"), "a: no such file; name one that is there"),
        (system_error(errno.EISDIR, ".a.1.draft", "a"), "a: is a folder; name a file"),
        (system_error(errno.EACCES, "a"), "a: permission denied; change its permissions, or name"),
        (system_error(errno.ENOSPC), "the disk is full; make room"),
        (system_error(errno.ECONNRESET), os.strerror(errno.ECONNRESET)),
        (OSError(errno.ENOSPC, "the turn is not recorded", "a"), "a: the turn is not recorded"),
        (ValueError("two\n  lines of \x1b[31mred"), "two lines of \ufffd[31mred"),
    ],
)
def test_a_sentence_names_the_file_and_the_mend(error: Exception, sentence: str) -> None:
    assert explain(error).startswith(sentence)


def test_a_missing_package_is_named_with_its_extra() -> None:
    assert explain_missing("fastapi.routing") == (
        "fastapi is not installed; install it in a checkout of slowwave: make serve, or "
        "pip install -e '.[serve]'"
    )
    how = "call pip install -e . in a checkout of slowwave"
    assert explain_missing("somebody") == f"somebody is not installed; {how}"
    assert explain_missing("_sqlite3") == (
        "this Python was built without _sqlite3; install one that has it"
    )
    assert explain_missing("slowwave.nothing") is None


def call_without(names: list[str], *calls: list[str], folder: Path) -> list[tuple[int, str]]:
    """Code and stderr of each call."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([names, calls])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [(code, said) for code, said in json.loads(done.stdout)]


def test_a_system_without_file_locks_talks_but_keeps_no_memories(tmp_path: Path) -> None:
    lacking = ["fcntl", "termios", "tty", "readline", "resource"]
    kept = [["chat", TALK, "--memory", "x"], ["serve", TALK, "--port", "1"]]
    passing = [["chat", TALK], ["generate", TALK, "Hi"]]
    *refused, chat, generate = call_without(lacking, *kept, *passing, folder=tmp_path)
    for code, said in refused:
        assert (code, said.count("\n")) == (2, 1)
        assert said.startswith("slowwave: this needs fcntl, which is part of Python on Linux and ")
    assert chat == generate == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_its_packages_says_how_to_get_them(tmp_path: Path) -> None:
    for name in ("fastapi", "uvicorn", "prometheus_client"):
        assert MODULES[name] == "serve"
    ((code, said),) = call_without(["uvicorn"], ["serve", TALK], folder=tmp_path)
    assert (code, said) == (2, f"slowwave: {explain_missing('uvicorn')}\n")
