"""Timing in turn: who goes when, and what the numbers mean."""

import pytest

from slowwave.bench import timing
from slowwave.bench.timing import Times, time_in_turn


def test_works_take_turns_after_their_warm_up() -> None:
    calls: list[str] = []
    works = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = time_in_turn(works, rounds=2, warmups=1, calls=3)
    assert calls == list("ab") + list("aaabbb") * 2
    assert {name: len(each.seconds) for name, each in times.items()} == {"a": 2, "b": 2}


def test_seconds_are_those_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 6.0, 10.0, 13.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    times = time_in_turn({"a": lambda: None}, rounds=2, warmups=0, calls=3)
    assert times["a"].seconds == (2.0, 1.0)


def test_ratio_is_taken_within_rounds() -> None:
    slow_machine_in_round_two = Times((2.0, 20.0, 2.2)), Times((1.0, 10.0, 1.0))
    assert slow_machine_in_round_two[0].over(slow_machine_in_round_two[1]) == 2.0


def test_spread_is_half_the_distance_of_the_quartiles() -> None:
    assert Times((1.0,)).spread == 0.0
    assert Times((1.0, 2.0, 3.0, 4.0, 5.0)).spread == pytest.approx(1 / 3)
