"""Works take turns, the machine's rates are of all its work, and progress is shown where asked."""

from __future__ import annotations

import sys

import pytest
import torch

from slowwave import status_line
from slowwave.lab.bench import measure
from slowwave.lab.bench.measure import LOG, Times, Work, shown_on, time_in_turn
from slowwave.status_line import StatusLine


@pytest.fixture(autouse=True)
def _one_call_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LEAST_SECONDS", 0.0)


def test_works_take_turns_and_the_order_turns_round() -> None:
    calls: list[str] = []
    works = {name: Work(lambda name=name: calls.append(name)) for name in "abc"}
    times = time_in_turn(works, rounds=3, warmups=2)
    assert "".join(calls) == "aabbcc" + "abc" + "cba" + "abc"
    assert {name: len(each.seconds) for name, each in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_sample_is_of_as_many_calls_as_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LEAST_SECONDS", 5.0)
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def work() -> None:
        clock[0] += 2.0

    times = time_in_turn({"a": Work(work)}, rounds=2, warmups=1)
    assert times["a"].seconds == (2.0, 2.0)
    assert clock[0] == 2.0 + 2 * 3 * 2.0


def test_preparation_is_not_timed_and_every_call_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "LEAST_SECONDS", 3.0)
    clock, made, taken = [0.0], [], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

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


def test_rate_is_all_work_over_all_time_of_the_faster_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([(1.0, 9.0), (8.0, 4.0)])

    def measured(*_: object, **__: object) -> dict[str, Times]:
        matmul, linear = next(seconds)
        return {"matmul": Times((matmul,)), "linear": Times((linear,))}

    monkeypatch.setattr(measure, "time_in_turn", measured)
    shapes = {(2, 3, 4): 1, (5, 6, 7): 2}
    rate = measure.matmul_gflops(shapes, torch.float32, torch.device("cpu"))
    assert rate == pytest.approx((48 + 2 * 420) / (1 + 2 * 4) / 1e9)


def test_this_machine_multiplies_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SQUARE", 64)
    monkeypatch.setattr(measure, "COPY_NBYTES", 2**16)
    monkeypatch.setattr(measure, "MACHINE_ROUNDS", 1)
    measured = measure.measure_machine(torch.device("cpu"))
    assert measured.float32_gflops > 0
    assert measured.bfloat16_gflops > 0
    assert measured.bandwidth_gbytes > 0


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


@pytest.mark.skipif(not measure.STATUS.exists(), reason="the system does not tell")
def test_a_process_of_its_own_is_waited_for_aloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_line, "FIRST_SECONDS", 0)
    monkeypatch.setattr(measure, "POLL_SECONDS", 0.01)
    with shown_on(StatusLine(), "live"), pytest.raises(ValueError, match="No module named 'none'"):
        measure.measure_paused("none", "nothing")
    assert "bench live: nothing in a process of its own, for 0s" in capsys.readouterr().err


@pytest.mark.skipif(not measure.STATUS.exists(), reason="the system does not tell")
def test_an_interrupt_ends_the_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[measure.subprocess.Popen[str]]()

    class Process(measure.subprocess.Popen[str]):
        def __init__(self, *arguments: object, **options: object) -> None:
            sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
            super().__init__(sleep, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
            started.append(self)

        def communicate(self, *_: object, **__: object) -> tuple[str, str]:
            raise KeyboardInterrupt

    monkeypatch.setattr(measure.subprocess, "Popen", Process)
    with pytest.raises(KeyboardInterrupt):
        measure.measure_paused("none", "nothing")
    assert started[0].returncode is not None
