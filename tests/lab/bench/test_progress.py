"""Benchmarks say how far they are where somebody shows it, and nothing anywhere else."""

from __future__ import annotations

import sys

import pytest

from slowwave import status_line
from slowwave.lab.bench import memory
from slowwave.lab.bench.progress import LOG, shown_on
from slowwave.lab.bench.timing import Work, time_in_turn
from slowwave.status_line import StatusLine


def work() -> None:
    time_in_turn({"a": Work(lambda: None), "b": Work(lambda: None)}, rounds=2)


def test_rounds_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_line, "FIRST_SECONDS", 0)
    with shown_on(StatusLine(), "op"):
        work()
    assert capsys.readouterr().err.splitlines() == [
        "bench op: warming up a",
        "bench op: warming up b",
        "bench op: timing a, b: round 1 of 2",
        "bench op: timing a, b: round 2 of 2",
    ]
    work()
    assert capsys.readouterr().err == ""
    assert not LOG.handlers


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not tell")
def test_a_process_of_its_own_is_waited_for_aloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_line, "FIRST_SECONDS", 0)
    monkeypatch.setattr(memory, "POLL_SECONDS", 0.01)
    with shown_on(StatusLine(), "live"), pytest.raises(ValueError, match="No module named 'none'"):
        memory.measure_paused("none", "nothing")
    assert "bench live: nothing in a process of its own, for 0s" in capsys.readouterr().err


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not tell")
def test_an_interrupt_ends_the_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[memory.subprocess.Popen[str]]()

    class Process(memory.subprocess.Popen[str]):
        def __init__(self, *arguments: object, **options: object) -> None:
            sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
            super().__init__(sleep, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
            started.append(self)

        def communicate(self, *_: object, **__: object) -> tuple[str, str]:
            raise KeyboardInterrupt

    monkeypatch.setattr(memory.subprocess, "Popen", Process)
    with pytest.raises(KeyboardInterrupt):
        memory.measure_paused("none", "nothing")
    assert started[0].returncode is not None
