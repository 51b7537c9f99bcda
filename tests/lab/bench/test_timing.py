"""Timing in turn: who goes when, and what the numbers mean."""

import pytest

from slowwave.lab.bench import timing
from slowwave.lab.bench.timing import Times, Work, time_in_turn


@pytest.fixture(autouse=True)
def _one_call_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.0)


def test_works_take_turns_and_the_order_turns_round() -> None:
    calls: list[str] = []
    works = {name: Work(lambda name=name: calls.append(name)) for name in "abc"}
    times = time_in_turn(works, rounds=3, warmups=2)
    assert "".join(calls) == "aabbcc" + "abc" + "cba" + "abc"
    assert {name: len(each.seconds) for name, each in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_sample_is_of_as_many_calls_as_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST_SECONDS", 5.0)
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def work() -> None:
        clock[0] += 2.0

    times = time_in_turn({"a": Work(work)}, rounds=2, warmups=1)
    assert times["a"].seconds == (2.0, 2.0)
    assert clock[0] == 2.0 + 2 * 3 * 2.0


def test_preparation_is_not_timed_and_every_call_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "LEAST_SECONDS", 3.0)
    clock, made, taken = [0.0], [], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def prepare() -> int:
        clock[0] += 100.0
        made.append(len(made))
        return made[-1]

    def run(prepared: int) -> None:
        clock[0] += 1.0
        taken.append(prepared)

    times = time_in_turn({"a": Work(run, prepare)}, rounds=2, warmups=1)
    assert times["a"].seconds == (1.0, 1.0)
    assert made == taken == list(range(1 + 2 * 3))


def test_ratio_is_taken_within_rounds() -> None:
    """The machine was ten times slower in the second round."""
    ratios = Times((2.0, 20.0, 2.2)).over(Times((1.0, 10.0, 1.0)))
    assert ratios.seconds == (2.0, 2.0, 2.2)
    assert ratios.median == 2.0


def test_spread_is_half_the_distance_of_the_quartiles() -> None:
    assert Times((1.0,)).spread == 0.0
    assert Times((1.0, 2.0, 3.0, 4.0, 5.0)).spread == pytest.approx(1 / 3)
