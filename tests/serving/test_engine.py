"""Turns share the threads step by step; what nobody waits for delays nobody."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from serving_app import run
from slowwave.memory.turn import Progress, Steps
from slowwave.serving import engine as engine_module
from slowwave.serving.engine import Ended, Engine, Job


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the engine takes for the time; it passes only where a step says so."""
    now = [0.0]
    monkeypatch.setattr(engine_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def work(log: list[str], name: str, steps: int, clock: list[float], seconds: float) -> Steps[str]:
    """A turn of steps that take so long."""
    for _ in range(steps):
        clock[0] += seconds
        log.append(name)
        yield Progress("draw")
    return name


@contextlib.asynccontextmanager
async def held(engine: Engine) -> AsyncIterator[None]:
    """The only thread does nothing within."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> Steps[None]:
        begun.set()
        go_on.wait()
        yield from ()

    holder = engine.start(hold())
    await asyncio.to_thread(begun.wait)
    try:
        yield
    finally:
        go_on.set()
        await holder.wait()


def test_turns_take_turns(clock: list[float]) -> None:
    async def scenario() -> list[str]:
        engine, log = Engine(1), list[str]()
        async with held(engine):
            jobs = [engine.start(work(log, name, 3, clock, 1.0)) for name in "abc"]
        assert [await job.wait() for job in jobs] == ["a", "b", "c"]
        await engine.close()
        return log

    assert run(scenario()) == list("abcabcabc")


def test_who_had_little_time_goes_first(clock: list[float]) -> None:
    """By time, not by number of steps."""

    async def scenario() -> list[str]:
        engine, log = Engine(1), list[str]()
        async with held(engine):
            slow = engine.start(work(log, "s", 3, clock, 5.0))
            quick = engine.start(work(log, "q", 12, clock, 1.0))
        await slow.wait()
        await quick.wait()
        await engine.close()
        return log

    assert "".join(run(scenario())) == "sqqqqqsqqqqqsqq"


def test_newcomers_start_level_with_the_others(clock: list[float]) -> None:
    """They need not make up for what others had, nor have others to wait until they have."""

    async def scenario() -> list[str]:
        engine, log = Engine(1), list[str]()
        await engine.start(work(log, "-", 3, clock, 10.0)).wait()
        async with held(engine):
            old = engine.start(work(log, "o", 2, clock, 10.0))
        await old.wait()
        async with held(engine):
            jobs = [engine.start(work(log, name, 2, clock, 10.0)) for name in "ab"]
            assert jobs[0].spent == jobs[1].spent > 30.0
        for job in jobs:
            await job.wait()
        await engine.close()
        return log

    assert "".join(run(scenario())) == "---ooabab"


def test_a_short_turn_waits_for_no_long_ones(clock: list[float]) -> None:
    """However many there are."""

    async def scenario() -> list[str]:
        engine, log, short = Engine(1), list[str](), list[Job]()

        def start_short() -> Steps[None]:
            yield from work(log, "-", 9, clock, 0.02)
            short.append(await_job(engine, work(log, "s", 4, clock, 0.01)))

        async with held(engine):
            long = [engine.start(work(log, name, 20, clock, 0.02)) for name in "abcdefgh"]
            long.append(engine.start(start_short()))
        for job in long:
            await job.wait()
        await short[0].wait()
        await engine.close()
        return log

    log = "".join(run(scenario()))
    assert "ssss" in log
    assert len(log) - log.index("s") > 50


def test_short_turns_without_end_do_not_stop_a_long_one(clock: list[float]) -> None:
    """Of two that always work one is the long one."""

    async def scenario() -> list[str]:
        engine, log = Engine(1), list[str]()

        def follow(count: int) -> Steps[None]:
            yield from work(log, "s", 4, clock, 0.02)
            if count:
                await_job(engine, follow(count - 1))

        async with held(engine):
            long = engine.start(work(log, "l", 100, clock, 0.02))
            engine.start(follow(100))
        await long.wait()
        engine.stop_all()
        await engine.close()
        return log

    log = run(scenario())
    assert log.count("s") < 250


def await_job(engine: Engine, steps: Steps[Any]) -> Job:
    """Starts a turn from a step of another."""
    made, loop = list[Job](), engine._loop
    is_made = threading.Event()
    loop.call_soon_threadsafe(lambda: (made.append(engine.start(steps)), is_made.set()))
    is_made.wait()
    return made[0]


def test_the_background_waits_for_all_others(clock: list[float]) -> None:
    async def scenario() -> list[str]:
        engine, log = Engine(1), list[str]()
        async with held(engine):
            back = engine.start(work(log, "b", 3, clock, 1.0), is_background=True)
            front = engine.start(work(log, "f", 3, clock, 100.0))
        await front.wait()
        await back.wait()
        await engine.close()
        return log

    assert run(scenario()) == list("fffbbb")


def test_a_stopped_turn_ends_though_others_never_let_it_go_on() -> None:
    closed = threading.Event()

    def waiting() -> Steps[None]:
        try:
            while True:
                yield Progress("sleep")
        finally:
            closed.set()

    def endless() -> Steps[None]:
        while True:
            yield Progress("draw")

    async def scenario() -> None:
        engine, begun = Engine(1), asyncio.Event()
        back = engine.start(waiting(), lambda _: begun.set(), is_background=True)
        await begun.wait()
        front = engine.start(endless())
        engine.stop(back)
        with pytest.raises(Ended):
            await back.wait()
        assert closed.is_set()
        assert not front.result.done()
        engine.stop_all()
        await engine.close()
        assert isinstance(front.result.exception(), Ended)

    run(scenario())


def test_the_disk_is_waited_for_elsewhere(clock: list[float]) -> None:
    """Turns that wait for the disk leave the threads to others."""
    written = threading.Event()

    def record(names: list[str]) -> Steps[None]:
        yield Progress("record")
        names.append(threading.current_thread().name)
        written.wait()

    async def scenario() -> list[str]:
        engine, log, names = Engine(2), list[str](), list[str]()
        slow = [engine.start(record(names)) for _ in range(4)]
        assert await engine.start(work(log, "quick", 3, clock, 1.0)).wait() == "quick"
        assert not any(job.result.done() for job in slow)
        written.set()
        for job in slow:
            await job.wait()
        await engine.close()
        return names

    try:
        names = run(scenario())
    finally:
        written.set()
    assert len(names) == 4
    assert all(name.startswith("disk") for name in names)


def test_what_goes_wrong_is_told(clock: list[float]) -> None:
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
        assert await engine.start(work([], "next", 1, clock, 1.0)).wait() == "next"
        await engine.close()

    run(scenario())


def test_progress_is_told_in_order() -> None:
    def say() -> Steps[None]:
        for i in range(50):
            yield Progress("draw", str(i))

    async def scenario() -> list[str]:
        engine, heard = Engine(2), list[Any]()
        await engine.start(say(), heard.append).wait()
        await engine.close()
        return [event.text for event in heard]

    assert run(scenario()) == [str(i) for i in range(50)]


def test_two_threads_do_not_push_newcomers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is worked on counts among those who share the time, not only what waits."""
    own = threading.local()
    monkeypatch.setattr(
        engine_module, "time", SimpleNamespace(perf_counter=lambda: getattr(own, "now", 0.0))
    )
    together = threading.Barrier(2)

    def long() -> Steps[None]:
        for _ in range(50):
            together.wait()  # both are in the hands of a thread
            own.now = getattr(own, "now", 0.0) + 1.0
            together.wait()
            yield Progress("draw")

    async def scenario() -> tuple[float, float]:
        engine = Engine(2)
        jobs = [engine.start(long()) for _ in range(2)]
        for job in jobs:
            await job.wait()
        newcomer = engine.start(work([], "short", 1, [0.0], 0.0))
        await newcomer.wait()
        await engine.close()
        return newcomer.start, max(job.spent for job in jobs)

    start, spent = run(scenario())
    assert 0 < start <= spent + 1
