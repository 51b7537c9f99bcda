"""Turns share the threads step by step; what nobody waits for delays nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from serving_app import run
from slowwave.memory.turn_steps import Progress, Steps
from slowwave.serving.engine import Ended, Engine

STEP = 0.01


def work(log: list[str], name: str, steps: int, seconds: float = STEP) -> Steps[str]:
    for _ in range(steps):
        time.sleep(seconds)
        log.append(name)
        yield Progress("draw")
    return name


def test_turns_take_turns() -> None:
    async def scenario() -> list[str]:
        engine, log = Engine(1), list[str]()
        long = engine.start(work(log, "long", 30))
        await asyncio.sleep(5 * STEP)
        short = [engine.start(work(log, f"short {i}", 3)) for i in range(2)]
        assert [await job.wait() for job in short] == ["short 0", "short 1"]
        at_end = log.count("long")
        assert await long.wait() == "long"
        await engine.close()
        assert at_end < 20
        return log

    log = run(scenario())
    begun = log.index("short 0")
    for name in ("short 0", "short 1"):
        end = len(log) - log[::-1].index(name)
        assert end - begun <= 11  # all three of three steps, and one that was going on


def test_who_had_little_time_goes_first() -> None:
    """By time, not by number of steps: one of long steps does not get more."""

    async def scenario() -> list[str]:
        engine, log = Engine(1), list[str]()
        jobs = [
            engine.start(work(log, "slow", 4, 5 * STEP)),
            engine.start(work(log, "quick", 20)),
        ]
        for job in jobs:
            await job.wait()
        await engine.close()
        return log

    log = run(scenario())
    assert log[: log.index("slow", log.index("slow") + 1)].count("quick") >= 4


def test_the_background_waits_for_all_others() -> None:
    async def scenario() -> list[str]:
        engine, log = Engine(1), list[str]()
        back = engine.start(work(log, "back", 5), is_background=True)
        await asyncio.sleep(1.5 * STEP)
        front = engine.start(work(log, "front", 5))
        await front.wait()
        await back.wait()
        await engine.close()
        return log

    log = run(scenario())
    first = log.index("front")
    assert first <= 3
    assert log[first : first + 5] == ["front"] * 5


def test_a_stopped_turn_ends_even_if_nothing_else_lets_it_go_on() -> None:
    closed = threading.Event()

    def waiting() -> Steps[None]:
        try:
            while True:
                yield Progress("sleep")
        finally:
            closed.set()

    async def scenario() -> None:
        engine, log = Engine(1), list[str]()
        back = engine.start(waiting(), is_background=True)
        await asyncio.sleep(STEP)
        front = engine.start(work(log, "front", 20))
        await asyncio.sleep(3 * STEP)
        engine.stop(back)
        with pytest.raises(Ended):
            await back.wait()
        assert closed.is_set()
        assert not front.result.done()
        engine.stop_all()
        await engine.close()

    run(scenario())


def test_the_disk_is_waited_for_elsewhere() -> None:
    """Two turns that wait for the disk leave both threads to others."""

    def record(name: list[str]) -> Steps[None]:
        yield Progress("record")
        name.append(threading.current_thread().name)
        time.sleep(20 * STEP)

    async def scenario() -> list[str]:
        engine, log, names = Engine(2), list[str](), list[str]()
        slow = [engine.start(record(names)) for _ in range(4)]
        await asyncio.sleep(STEP)
        quick = engine.start(work(log, "quick", 3))
        await quick.wait()
        assert not any(job.result.done() for job in slow)
        for job in slow:
            await job.wait()
        await engine.close()
        return names

    assert all(name.startswith("disk") for name in run(scenario()))


def test_what_goes_wrong_is_told() -> None:
    def fail(early: bool) -> Steps[None]:
        if early:
            raise ValueError("early")
        yield Progress("record")
        raise OSError("late")

    async def scenario() -> None:
        engine = Engine(1)
        with pytest.raises(ValueError, match="early"):
            await engine.start(fail(True)).wait()
        with pytest.raises(OSError, match="late"):
            await engine.start(fail(False)).wait()
        log: list[str] = []
        assert await engine.start(work(log, "next", 1)).wait() == "next"
        await engine.close()

    run(scenario())


def test_progress_is_told_in_order() -> None:
    def say() -> Steps[None]:
        for i in range(50):
            yield Progress("draw", str(i))

    async def scenario() -> list[str]:
        engine, heard = Engine(2), list[Any]()
        await engine.start(say(), lambda progress: heard.append(progress.text)).wait()
        await engine.close()
        return heard

    assert run(scenario()) == [str(i) for i in range(50)]
