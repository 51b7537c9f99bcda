"""Sentences that refuse something say what may have been meant, and what there is."""

from __future__ import annotations

import pytest

from slowwave.wording import describe_range, describe_unknown, find_close, guess

COMMANDS = ("chat", "generate", "memory", "train", "eval", "export", "bench")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("chta", ["chat"]),
        ("CHAT", ["chat"]),
        ("gen", ["generate"]),
        ("evaluate", ["eval"]),
        ("exprot", ["export"]),
        ("trian", ["train"]),
        ("nope", []),
        ("", []),
        ("x", []),
    ],
)
def test_slips_and_beginnings_are_close(word: str, meant: list[str]) -> None:
    assert find_close(word, COMMANDS) == meant


def test_two_guesses_at_most_the_beginnings_first() -> None:
    known = [f"--train.step{sign}" for sign in "abcdef"]
    assert find_close("--train.step", known) == known[:2]
    known = ["--memory-dir", "--memory", "--model"]
    assert guess("--mem", known) == "did you mean --memory-dir or --memory?"


def test_without_a_guess_all_are_listed() -> None:
    assert describe_unknown("task", "tset", ("test", "mail")) == "unknown task 'tset'; " + (
        "did you mean test?"
    )
    assert describe_unknown("task", "x", ("test", "mail")) == "unknown task 'x'; use one of " + (
        "test, mail"
    )


def test_ranges_say_when_there_is_nothing_to_choose() -> None:
    assert describe_range(0, 3) == "use 0 to 3"
    assert describe_range(0, 0) == "use 0, there is no other"
    assert describe_range(0, -1) == "there is none to use"
