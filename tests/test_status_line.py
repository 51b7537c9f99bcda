"""One line for people: live on a terminal, seldom and plain anywhere else."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from slowwave import status_line
from slowwave.status_line import StatusLine, show_seconds


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(status_line, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(status_line, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def tell_for(minutes: int, clock: Clock) -> None:
    status = StatusLine()
    for second in range(60 * minutes):
        clock.now += 1
        status.show(f"{second + 1} s")


def test_a_file_gets_plain_lines_ever_more_seldom(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_for(6, clock)
    told = capsys.readouterr().err
    assert told.splitlines() == [f"{s} s" for s in (5, 15, 35, 75, 135, 195, 255, 315)]
    assert told.isprintable() is False and "\r" not in told and "\x1b" not in told


def test_a_terminal_has_one_line_that_goes(clock: Clock, terminal: Terminal) -> None:
    with StatusLine() as status:
        status.show("first")
        status.show("too soon")
        clock.now += 1
        status.show("second")
        status.say("stays")
        status.clear()  # nothing is there to be taken off
        clock.now += 1
        status.show("x" * 1000)
    assert terminal.getvalue() == (
        f"\rfirst\x1b[K\rsecond\x1b[K\r\x1b[Kstays\n\r{'x' * 79}\x1b[K\r\x1b[K"
    )


def test_a_terminal_that_takes_nothing_back_is_told_as_a_file(
    clock: Clock, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    tell_for(1, clock)
    assert terminal.getvalue() == "5 s\n15 s\n35 s\n"


def test_patience_keeps_what_is_quick_off_the_terminal(clock: Clock, terminal: Terminal) -> None:
    status = StatusLine(patience=1)
    status.show("at once")
    clock.now += 1
    status.show("after a second")
    assert terminal.getvalue() == "\rafter a second\x1b[K"


def test_the_time_left_is_that_of_the_work_at_hand(clock: Clock, terminal: Terminal) -> None:
    status = StatusLine()
    status.count("reading", 1000, 3000, "tokens")  # which was begun by another process
    clock.now += 10
    status.count("reading", 1500, 3000, "tokens", beside="slept 3 times")
    clock.now += 10
    status.count("scoring", 0, 10, "examples")
    assert terminal.getvalue().split("\x1b[K")[:-1] == [
        "\rreading: 1,000 of 3,000 tokens",
        "\rreading: 1,500 of 3,000 tokens, slept 3 times, 30s left",
        "\rscoring: 0 of 10 examples",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0s"), (59.7, "1m00s"), (185, "3m05s"), (7500, "2h05m")]
)
def test_times_to_wait(seconds: float, shown: str) -> None:
    assert show_seconds(seconds) == shown
